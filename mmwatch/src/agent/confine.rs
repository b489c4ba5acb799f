//! What the agent gives up as soon as it watches: whoever gets hold of it afterwards, by
//! a request or an answer, has next to nothing.
//!
//! Before there is a second thread, so that it holds for each.

mod capabilities;
mod syscalls;

use std::fmt;

use crate::error::{Error, Result};

/// What the agent still has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// To read what other users' processes have mapped.
    pub others_maps: bool,
    /// To remove the socket that it listened on.
    pub own_socket: bool,
}

/// What is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    capabilities: Vec<caps::Capability>,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.capabilities.is_empty() {
            return f.write_str("no capabilities");
        }
        for (place, capability) in self.capabilities.iter().enumerate() {
            write!(f, "{}{capability}", if place > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

/// Gives up capabilities, the way to new ones, and most system calls, for good.
/// `can_read` tells whether the kernel programs' maps can be read, for which some
/// kernels ask for a capability (`kernel.unprivileged_bpf_disabled`, before 5.19).
///
/// # Errors
///
/// [`Error::Kernel`] where the kernel does not take that back.
pub fn confine(needs: Needs, can_read: impl FnMut() -> bool) -> Result<Left> {
    let refused = |error: &dyn fmt::Display| {
        Error::Kernel(format!(
            "the agent cannot give up its privileges ({error}); `confine = false` has it keep them"
        ))
    };
    let capabilities =
        capabilities::give_up(needs.others_maps, can_read).map_err(|error| refused(&error))?;
    syscalls::give_up(needs.own_socket).map_err(|error| refused(&error))?;
    Ok(Left { capabilities })
}

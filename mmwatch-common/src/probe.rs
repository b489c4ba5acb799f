//! What the probe object tells the agent about itself.

use core::mem::size_of;

/// Name of the map with one [`Answer`].
pub const ANSWER: &str = "ANSWER";
/// Name of the `u64` global with the first argument of the asking system call.
pub const NONCE: &str = "NONCE";

/// Name of the `u32` global with the offset of `task_struct.stack`.
pub const TASK_STACK: &str = "TASK_STACK";

/// Where and who the asking task is; zero until it asked.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Process id in the root namespace.
    pub tgid: u32,
    /// Distance from `task_struct.stack` to the registers that user space
    /// entered with, bytes.
    pub user_regs_offset: u32,
}

const _: () = assert!(size_of::<Answer>() == 8);

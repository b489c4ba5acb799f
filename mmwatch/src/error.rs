//! What can go wrong, and the exit code it ends in.

use std::io;

/// Why mmwatch did not do what it was asked to. Each message is one sentence
/// (or a few) that names the thing and the next step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// The kernel, or the privileges on it, lack something.
    #[error("{0}")]
    Kernel(String),
    /// A call to the operating system failed while running.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The command after `--` could not be started.
    #[error("{message}")]
    Command {
        /// What is wrong with it.
        message: String,
        /// What a shell would exit with: 127 when it is not there, else 126.
        code: u8,
    },
}

/// A result whose error ends in an exit code.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Gives an I/O error its context, for use with `map_err`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Io { .. } => 1,
            Self::Usage(_) => 2,
            Self::Kernel(_) => 3,
            Self::Command { code, .. } => *code,
        }
    }
}

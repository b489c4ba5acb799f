//! What is to be read or loaded beside the program.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clap_complete::Shell;

/// Flags of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: ShellArg,
}

/// Flags of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Where to: a directory that is there
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// A shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ShellArg {
    /// To be sourced, or put into /usr/share/bash-completion/completions/mmwatch
    Bash,
    /// To be put into a directory of $fpath, as _mmwatch
    Zsh,
    /// To be put into ~/.config/fish/completions/mmwatch.fish
    Fish,
}

impl From<ShellArg> for Shell {
    fn from(shell: ShellArg) -> Self {
        match shell {
            ShellArg::Bash => Self::Bash,
            ShellArg::Zsh => Self::Zsh,
            ShellArg::Fish => Self::Fish,
        }
    }
}

//! `cargo xtask run`: the agent of this working tree, as a user would run it.

use std::{
    io::{self, IsTerminal as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{
    build::{self, Linking},
    process, setup,
    workspace::{self, Workspace},
};

/// What is asked of the run.
#[derive(clap::Args)]
pub struct Options {
    /// Arguments of mmwatch [default: `top`; without a terminal `top --plain -d 10`]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Becomes mmwatch, so that its exit code, its streams and signals to it need no
/// passing on. Returns only if that fails.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    setup::compiler()?;
    let agent = build::agent(workspace, true, Linking::Dynamic)?;
    let mut command = as_root(&agent)?;
    if !options.args.is_empty() {
        command.args(&options.args);
    } else if io::stdout().is_terminal() {
        command.arg("top");
    } else {
        command.args(["top", "--plain", "-d", "10"]);
    }
    Err(command.exec()).with_context(|| format!("cannot run `{}`", process::line(&command)))
}

/// A command that runs `program` as root, through sudo where we are not.
pub fn as_root(program: &Path) -> Result<Command> {
    if workspace::is_root()? {
        return Ok(Command::new(program));
    }
    anyhow::ensure!(
        process::exists("sudo"),
        "this needs root, and there is no sudo; run it as root: {}",
        program.display()
    );
    let mut sudo = Command::new("sudo");
    sudo.args(["-E", "--"]).arg(program);
    Ok(sudo)
}

//! `cargo xtask build`: the agent, with its kernel programs inside.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{bpf, process, setup, workspace::Workspace};

/// The host's target by name.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What is asked of the build.
#[derive(clap::Args)]
pub struct Options {
    /// Optimised, as users get it
    #[arg(long)]
    release: bool,
    /// Without shared libraries, as VMs and other machines need it
    #[arg(long = "static")]
    is_static: bool,
}

/// Whether executables need shared libraries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Linking {
    /// They do.
    Dynamic,
    /// They run anywhere.
    Static,
}

/// The test binaries that need root, and the agent that they test. All are static: one build
/// serves this machine and VMs.
#[derive(Clone)]
pub struct Tests {
    /// The kernel tests.
    pub kernel: PathBuf,
    /// The tests of `mmwatch agent`.
    pub agent: PathBuf,
    /// The tests of `mmwatch shared`, which depends on the kernel's own sorts of shared memory.
    pub shared: PathBuf,
    /// What they test.
    pub mmwatch: PathBuf,
}

/// The executables of the benchmark, all static: they run in VMs too.
pub struct Benches {
    /// What is watched.
    pub workload: PathBuf,
    /// The benchmark of the agent's parts.
    pub agent: PathBuf,
    /// The agent.
    pub mmwatch: PathBuf,
}

/// Builds the agent and says where it is.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let linking = if options.is_static {
        Linking::Static
    } else {
        Linking::Dynamic
    };
    setup::compiler()?;
    println!("{}", agent(workspace, options.release, linking)?.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the agent; returns its path.
pub fn agent(workspace: &Workspace, release: bool, linking: Linking) -> Result<PathBuf> {
    bpf::ensure_fresh(workspace)?;
    let mut cargo = workspace.cargo("build");
    cargo.args(["--package", "mmwatch", "--bin", "mmwatch"]);
    if release {
        cargo.arg("--release");
    }
    executable(&messages(&mut cargo, linking)?, "bin", "mmwatch")
}

/// Builds every test; returns those that are run apart.
pub fn tests(workspace: &Workspace) -> Result<Tests> {
    bpf::ensure_fresh(workspace)?;
    tests_by(workspace.cargo("test"))
}

/// The same with kernel programs from a directory instead of the tree's.
pub fn tests_with(workspace: &Workspace, objects: &Path) -> Result<Tests> {
    let mut cargo = workspace.cargo("test");
    cargo.env(bpf::OTHER_OBJECTS, objects);
    tests_by(cargo)
}

fn tests_by(mut cargo: Command) -> Result<Tests> {
    cargo.arg("--no-run");
    let messages = messages(&mut cargo, Linking::Static)?;
    Ok(Tests {
        kernel: executable(&messages, "test", "kernel")?,
        agent: executable(&messages, "test", "agent")?,
        shared: executable(&messages, "test", "shared")?,
        mmwatch: executable(&messages, "bin", "mmwatch")?,
    })
}

/// Builds what the benchmark takes.
pub fn benches(workspace: &Workspace) -> Result<Benches> {
    let mut cargo = workspace.cargo("build");
    cargo.args(["--release", "--package", "mmwatch", "--bin", "mmwatch"]);
    cargo.args(["--bench", "workload", "--bench", "agent"]);
    let messages = messages(&mut cargo, Linking::Static)?;
    Ok(Benches {
        workload: executable(&messages, "bench", "workload")?,
        agent: executable(&messages, "bench", "agent")?,
        mmwatch: executable(&messages, "bin", "mmwatch")?,
    })
}

/// Runs a build; returns cargo's messages, one object a line.
fn messages(cargo: &mut Command, linking: Linking) -> Result<String> {
    cargo.arg("--message-format=json-render-diagnostics");
    if linking == Linking::Static {
        make_static(cargo);
    }
    process::stdout(cargo)
}

/// Has a cargo command work on the static build. What is built for a target gets a directory of
/// its own, and build scripts no flags.
pub fn make_static(cargo: &mut Command) -> &mut Command {
    cargo
        .args(["--target", TARGET])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
}

/// The path of an executable of this kind and name that cargo has built.
pub fn executable(messages: &str, kind: &str, name: &str) -> Result<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| {
            let target = &message["target"];
            // A program's unit tests are an executable of the same name and kind.
            let is_program = kind != "bin" || message["profile"]["test"] != true;
            target["name"] == name && target["kind"][0] == kind && is_program
        })
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .with_context(|| format!("cargo built, but names no {kind} executable `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: &str = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"mmwatch"},"executable":null}
not a message
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"mmwatch"},"profile":{"test":true},"executable":"/t/deps/mmwatch-1"}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"mmwatch"},"profile":{"test":false},"executable":"/t/mmwatch"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"kernel"},"executable":"/t/deps/kernel-1"}
{"reason":"build-finished","success":true}"#;

    #[test]
    fn executables_go_by_kind_and_name() {
        let find = |kind, name| executable(MESSAGES, kind, name).ok();
        assert_eq!(find("bin", "mmwatch"), Some(PathBuf::from("/t/mmwatch")));
        assert_eq!(
            find("test", "kernel"),
            Some(PathBuf::from("/t/deps/kernel-1"))
        );
        assert_eq!(find("lib", "mmwatch"), None);
        assert_eq!(find("test", "cli"), None);
    }
}

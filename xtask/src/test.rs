//! `cargo xtask test`: everything that has to hold before a change goes in.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    bench, bpf,
    build::{self},
    dist, process, receivers,
    run::as_root,
    setup::{self, Need},
    vm,
    workspace::{self, Workspace},
};

/// The test targets that need root and a kernel, and are run apart.
const KERNEL: &str = "kernel";
const AGENT: &str = "agent";

/// Runs every check, and tells all that failed at the end. Only where nothing can
/// be built is there no point in going on.
pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    let start = Instant::now();
    let mut checks = Checks::default();

    checks.step("formatting", || {
        process::run(workspace.cargo("fmt").args(["--all", "--check"]))
    });
    checks.step("clippy", || {
        let mut clippy = workspace.cargo("clippy");
        process::run(clippy.args(["--all-targets", "--", "-D", "warnings"]))
    });
    checks.step("clippy of the kernel programs", || bpf::clippy(workspace));
    checks.step("documentation", || {
        let mut doc = workspace.cargo("doc");
        process::run(doc.arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings"))
    });
    let is_built = checks.step("build of the tests", || {
        process::run(workspace.cargo("test").arg("--no-run"))
    });
    if is_built {
        checks.step("unit and command-line tests", || {
            let mut test = workspace.cargo("test");
            test.args(["--no-fail-fast", "--lib", "--bins"]);
            for name in test_targets(workspace)?
                .iter()
                .filter(|name| ![KERNEL, AGENT].contains(&name.as_str()))
            {
                test.args(["--test", name]);
            }
            process::run(&mut test)
        });
        checks.step("examples in the documentation", || {
            process::run(workspace.cargo("test").arg("--doc"))
        });
        checks.step("kernel tests on this machine", || native(workspace));
        checks.step("the agent on this machine", || agent(workspace));
        checks.step("kernel tests in VMs", || {
            let exit = vm::run(workspace, &vm::Options::default())?;
            succeeded(exit)
        });
        checks.step("what users install", || {
            succeeded(dist::run(workspace, &dist::Options::checked())?)
        });
        checks.step("instructions of user space", || {
            succeeded(bench::instructions::run(workspace, false)?)
        });
        checks.step("benchmarks run", || {
            succeeded(bench::run(workspace, &bench::Options::quick())?)
        });
    }
    Ok(checks.summary(start.elapsed().as_secs()))
}

/// What another task of ours ended with, which has told the reason.
fn succeeded(exit: ExitCode) -> Result<()> {
    anyhow::ensure!(exit == ExitCode::SUCCESS, "failures are listed above");
    Ok(())
}

/// The kernel tests with whatever this machine's own kernel offers.
fn native(workspace: &Workspace) -> Result<()> {
    let built = build::tests(workspace)?;
    run_as_root(workspace, &built.kernel, &built.mmwatch, vec![])
}

/// The tests of `mmwatch agent`, with a Prometheus that scrapes it and receivers that it
/// sends to.
fn agent(workspace: &Workspace) -> Result<()> {
    setup::ensure_for(&[Need::Agent])?;
    let receivers = receivers::get(workspace)?;
    let built = build::tests(workspace)?;
    run_as_root(workspace, &built.agent, &built.mmwatch, receivers)
}

/// Runs tests that load kernel programs. They find other programs by these variables.
fn run_as_root(
    workspace: &Workspace,
    tests: &Path,
    mmwatch: &Path,
    programs: Vec<(&str, PathBuf)>,
) -> Result<()> {
    let is_ci = env::var_os("CI").is_some_and(|value| value == "true");
    if is_ci && !workspace::is_root()? {
        bail!("the kernel tests load kernel programs, which needs root: run CI as root");
    }
    let mut tests = as_root(tests)?;
    // Where cargo itself would run them.
    tests.current_dir(workspace.root().join("mmwatch"));
    process::run(tests.env("MMWATCH_BIN", mmwatch).envs(programs))
}

/// Names of the integration tests of the crates that are tested by default.
fn test_targets(workspace: &Workspace) -> Result<Vec<String>> {
    let mut cargo = workspace.cargo("metadata");
    cargo.args(["--no-deps", "--format-version", "1"]);
    let metadata: Value =
        serde_json::from_str(&process::quiet_stdout(&mut cargo)?).context("cargo metadata")?;
    Ok(test_names(&metadata))
}

fn test_names(metadata: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let default_members = list(&metadata["workspace_default_members"]);
    list(&metadata["packages"])
        .iter()
        .filter(|package| default_members.contains(&package["id"]))
        .flat_map(|package| list(&package["targets"]))
        .filter(|target| target["kind"][0] == "test")
        .filter_map(|target| Some(target["name"].as_str()?.to_owned()))
        .collect()
}

/// What was checked, and what failed.
#[derive(Default)]
struct Checks {
    count: usize,
    failures: Vec<String>,
}

impl Checks {
    /// Announces and does one check; whether it passed.
    fn step(&mut self, name: &str, check: impl FnOnce() -> Result<()>) -> bool {
        println!("\n==> {name}");
        self.count += 1;
        let result = check();
        if let Err(error) = &result {
            println!("FAILED: {name}: {error:#}");
            self.failures.push(format!("{name}: {error:#}"));
        }
        result.is_ok()
    }

    fn summary(&self, seconds: u64) -> ExitCode {
        let (count, failed) = (self.count, self.failures.len());
        let time = format!("{} min {} s", seconds / 60, seconds % 60);
        if failed == 0 {
            println!("\n==> all {count} checks passed in {time}");
            return ExitCode::SUCCESS;
        }
        println!("\n==> {failed} of {count} checks failed in {time}:");
        for failure in &self.failures {
            println!("  {failure}");
        }
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_those_of_the_default_members() {
        let metadata = serde_json::json!({
            "workspace_default_members": ["a#1", "b#1"],
            "packages": [
                {"id": "a#1", "targets": [
                    {"kind": ["lib"], "name": "a"},
                    {"kind": ["test"], "name": "cli"},
                    {"kind": ["test"], "name": "kernel"},
                ]},
                {"id": "other#1", "targets": [{"kind": ["test"], "name": "other"}]},
            ],
        });
        assert_eq!(test_names(&metadata), ["cli", "kernel"]);
    }

    #[test]
    fn one_failure_fails_all_and_stops_nothing() {
        let mut checks = Checks::default();
        assert!(!checks.step("first", || bail!("no")));
        assert!(checks.step("second", || Ok(())));
        assert_eq!(checks.failures, ["first: no"]);
        assert_eq!(checks.summary(61), ExitCode::FAILURE);
        assert_eq!(Checks::default().summary(0), ExitCode::SUCCESS);
    }
}

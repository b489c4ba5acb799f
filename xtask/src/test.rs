//! `cargo xtask test`: everything that has to hold before a change goes in.

mod checks;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use self::checks::{Checks, timed};
use crate::{
    bench,
    bpf::{self, Comparison},
    build::{self, Tests},
    dist, process, receivers,
    run::as_root,
    setup::{self, Need},
    vm::{self, CellName},
    workspace::{self, Workspace},
};

/// How much is tested.
#[derive(Default, clap::Args)]
pub struct Options {
    /// What one runs before each commit: formatting, lints, unit and command-line tests, and the
    /// kernel tests on this machine
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// All kernels with all backends and all cases, for a change of kernel programs or of
    /// `mmwatch/src/kernel`
    #[arg(long)]
    full: bool,
    /// Only the VMs from this one on, such as 6.12-kprobe: for a run that was stopped there
    #[arg(long, value_name = "CELL", requires = "full", conflicts_with = "quick")]
    from_cell: Option<CellName>,
}

/// The test targets that need root and a kernel, and are run apart.
const APART: [&str; 2] = ["kernel", "agent"];

/// Free space that a run takes, in GiB: without VMs and release builds, and with them.
const QUICK_GIB: u64 = 4;
const TEST_GIB: u64 = 12;

/// Runs the checks of one size, and lists all that failed at the end. Only where nothing can
/// be built is there no point in going on.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if let Some(from) = &options.from_cell {
        vm::is_cell_of(vm::Size::Full, from)?;
    }
    let (needs, gib) = if options.quick {
        (&Need::QUICK[..], QUICK_GIB)
    } else if options.from_cell.is_some() {
        (&[][..], TEST_GIB)
    } else if options.full {
        (&Need::FULL[..], TEST_GIB)
    } else {
        (&Need::TEST[..], TEST_GIB)
    };
    setup::compiler()?;
    has_room(workspace, gib)?;

    let mut checks = Checks::default();
    if !checks.step("setup", || setup::ensure_for(needs)) {
        return Ok(checks.summary(disk_bytes(&workspace.target())));
    }
    if let Some(from) = &options.from_cell {
        checks.step("kernel tests in VMs", || {
            vm::test(workspace, &vm::Size::Full, Some(from))
        });
    } else {
        all(workspace, options, &mut checks);
    }
    let used = disk_bytes(&workspace.target());
    Ok(checks.summary(used))
}

fn all(workspace: &Workspace, options: &Options, checks: &mut Checks) {
    checks.step("formatting", || {
        process::run(workspace.cargo("fmt").args(["--all", "--check"]))
    });
    let tests = checks.value("build of the tests", || build::tests(workspace));
    let Some(tests) = tests else {
        return;
    };
    checks.step("unit and command-line tests", || unit(workspace));
    if options.quick {
        checks.step("clippy", || clippy(workspace));
        checks.step("kernel tests on this machine", || native(workspace, &tests));
        return;
    }

    let size = if options.full {
        vm::Size::Full
    } else {
        vm::Size::Standard
    };
    // VMs take a CPU each and compare nothing with the rest of the machine, so what else only
    // computes is done meanwhile, and fills the gaps.
    let compiled = thread::scope(|scope| {
        let vms = scope.spawn(|| timed(|| vm::test(workspace, &size, None)));
        let compiled = computing(workspace, checks);
        checks.join("kernel tests in VMs", vms);
        compiled
    });
    checks.step("kernel tests on this machine", || native(workspace, &tests));
    checks.step("the agent on this machine", || agent(workspace, &tests));
    checks.step("benchmarks run", || {
        succeeded(bench::run(workspace, &bench::Options::quick(options.full))?)
    });
    // Last, since it builds mmwatch anew: only where what was tested so far is not that.
    if let Some(Comparison::OtherTools(why)) = compiled {
        println!("{why}");
        checks.step("kernel tests with the programs compiled here", || {
            native(
                workspace,
                &build::tests_with(workspace, &bpf::objects(workspace))?,
            )
        });
    }
}

/// Checks that wait for nothing but the CPU. Returns how the kernel programs, compiled here,
/// compare with those in the tree.
fn computing(workspace: &Workspace, checks: &mut Checks) -> Option<Comparison> {
    checks.step("clippy", || clippy(workspace));
    checks.step("clippy of the kernel programs", || bpf::clippy(workspace));
    let compiled = checks.value("the kernel programs from their sources", || {
        bpf::build(workspace)?.compare(workspace)
    });
    checks.step("documentation", || {
        let mut doc = workspace.cargo("doc");
        process::run(doc.arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings"))
    });
    checks.step("examples in the documentation", || {
        process::run(build::make_static(workspace.cargo("test").arg("--doc")))
    });
    checks.step("packaged crates", || {
        let mut package = workspace.cargo("package");
        // Builds what is in the archives, with nothing of the repository around it.
        package.args(["--quiet", "--allow-dirty"]);
        process::run(package.args(["--package", "mmwatch-common", "--package", "mmwatch"]))
    });
    checks.step("instructions of user space", || {
        succeeded(bench::instructions::run(workspace, false)?)
    });
    checks.step("what users install", || {
        succeeded(dist::run(workspace, &dist::Options::checked())?)
    });
    compiled
}

/// What another task of ours ended with, which has printed the reason.
fn succeeded(exit: ExitCode) -> Result<()> {
    ensure!(exit == ExitCode::SUCCESS, "failures are listed above");
    Ok(())
}

fn clippy(workspace: &Workspace) -> Result<()> {
    let mut clippy = workspace.cargo("clippy");
    process::run(clippy.args(["--all-targets", "--", "-D", "warnings"]))
}

/// Everything that needs neither root nor a kernel of its own.
fn unit(workspace: &Workspace) -> Result<()> {
    let mut test = workspace.cargo("nextest");
    test.args(["run", "--no-fail-fast", "--status-level", "fail"]);
    test.args(["--final-status-level", "slow", "--lib", "--bins"]);
    for name in test_targets(workspace)? {
        if !APART.contains(&name.as_str()) {
            test.args(["--test", &name]);
        }
    }
    process::run(build::make_static(&mut test))
}

/// The kernel tests with whatever this machine's own kernel offers.
fn native(workspace: &Workspace, tests: &Tests) -> Result<()> {
    run_as_root(workspace, &tests.kernel, &tests.mmwatch, vec![])
}

/// The tests of `mmwatch agent`, with a Prometheus that scrapes it and receivers that it
/// sends to.
fn agent(workspace: &Workspace, tests: &Tests) -> Result<()> {
    let receivers = receivers::get(workspace)?;
    run_as_root(workspace, &tests.agent, &tests.mmwatch, receivers)
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

/// Whether `gib` GiB are free where everything is built; asked before anything is.
fn has_room(workspace: &Workspace, gib: u64) -> Result<()> {
    let target = workspace.target();
    fs::create_dir_all(&target).with_context(|| format!("cannot make {}", target.display()))?;
    let mut df = Command::new("df");
    df.args(["--output=avail", "--block-size=1G"]).arg(&target);
    let text = process::quiet_stdout(&mut df)?;
    let free: u64 = text
        .lines()
        .last()
        .and_then(|line| line.trim().parse().ok())
        .with_context(|| format!("cannot read `{text}` of df"))?;
    // What an earlier run has built is not built again.
    let there = disk_bytes(&target).unwrap_or(0) >> 30;
    if free + there < gib {
        bail!(
            "a run takes {gib} GiB, and only {free} GiB are free at {}; make room, then run this \
             again",
            target.display()
        );
    }
    Ok(())
}

/// What a directory takes on disk.
fn disk_bytes(dir: &Path) -> Option<u64> {
    let mut du = Command::new("du");
    du.args(["--summarize", "--block-size=1"]).arg(dir);
    let text = process::quiet_stdout(&mut du).ok()?;
    text.split_whitespace().next()?.parse().ok()
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
}

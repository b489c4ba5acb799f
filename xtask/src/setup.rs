//! What a task needs, installed when it is missing. A task asks for what it takes and no more:
//! building and running mmwatch take a Rust and a C compiler, which nothing here installs.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::{bpf::Toolchain, process, workspace};

/// What is asked of the setup.
#[derive(Default, clap::Args)]
pub struct Options {
    /// Use the package manager without asking
    #[arg(short, long)]
    yes: bool,
    /// For what to install (may be repeated) [default: what `cargo xtask test` takes]
    #[arg(long = "for", value_name = "NEED")]
    needs: Vec<Need>,
}

/// A purpose for which something is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Need {
    /// Formatting, lints and unit tests
    Checks,
    /// Compiling the kernel programs
    Bpf,
    /// Kernel tests on this machine, which run containers and read the kernel's headers
    Kernel,
    /// Tests of the agent
    Agent,
    /// Checking what users install
    Packaging,
    /// Counting user space's instructions
    Instructions,
    /// What benchmarks watch and compare with
    Bench,
}

impl Need {
    /// What `cargo xtask test --quick` takes.
    pub const QUICK: [Self; 2] = [Self::Checks, Self::Kernel];
    /// What `cargo xtask test` takes.
    pub const TEST: [Self; 6] = [
        Self::Checks,
        Self::Kernel,
        Self::Bpf,
        Self::Agent,
        Self::Packaging,
        Self::Instructions,
    ];

    /// What `cargo xtask test --full` takes.
    pub const FULL: [Self; 7] = [
        Self::Checks,
        Self::Kernel,
        Self::Bpf,
        Self::Agent,
        Self::Packaging,
        Self::Instructions,
        Self::Bench,
    ];

    /// As part of a sentence.
    fn purpose(self) -> &'static str {
        match self {
            Self::Checks => "checks and unit tests",
            Self::Bpf => "compiling kernel programs",
            Self::Kernel => "kernel tests",
            Self::Agent => "tests of the agent",
            Self::Packaging => "checking what users install",
            Self::Instructions => "counting instructions",
            Self::Bench => "benchmarks",
        }
    }

    /// Debian's packages.
    fn packages(self) -> &'static [Package] {
        // Functions called in a match arm are not promoted to statics; constants are.
        const KERNEL: &[Package] = &[
            Package::program("runc", "runc"),
            Package::library("linux-libc-dev"),
        ];
        const AGENT: &[Package] = &[
            Package::program("prometheus", "prometheus"),
            Package::library("python3-venv"),
        ];
        // In a system of its own, and with the shells that are completed.
        const PACKAGING: &[Package] = &[
            Package::program("mmdebstrap", "mmdebstrap"),
            Package::program("lintian", "lintian"),
            Package::program("zsh", "zsh"),
            Package::program("fish", "fish"),
        ];
        const INSTRUCTIONS: &[Package] = &[Package::program("valgrind", "valgrind")];
        // redis-tools has the server too; what would start it by itself is another package.
        const BENCH: &[Package] = &[
            Package::program("bpftrace", "bpftrace"),
            Package::program("linux-perf", "perf"),
            Package::program("strace", "strace"),
            Package::program("redis-tools", "redis-benchmark"),
        ];
        match self {
            // cargo's and rustup's own matters: `checks` and `Toolchain::get`.
            Self::Checks | Self::Bpf => &[],
            Self::Kernel => KERNEL,
            Self::Agent => AGENT,
            Self::Packaging => PACKAGING,
            Self::Instructions => INSTRUCTIONS,
            Self::Bench => BENCH,
        }
    }
}

/// One of Debian's packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package {
    name: &'static str,
    /// The program that is wanted of it: from wherever it comes.
    program: Option<&'static str>,
}

impl Package {
    const fn program(name: &'static str, program: &'static str) -> Self {
        let program = Some(program);
        Self { name, program }
    }

    /// One of which no program is wanted.
    pub const fn library(name: &'static str) -> Self {
        let program = None;
        Self { name, program }
    }
}

/// `cargo xtask setup`.
pub fn run(options: &Options) -> Result<()> {
    let needs = if options.needs.is_empty() {
        &Need::TEST
    } else {
        options.needs.as_slice()
    };
    install(needs, options.yes)
}

/// Finds what is there, installs what is missing for `needs`, and says so on stderr.
pub fn ensure_for(needs: &[Need]) -> Result<()> {
    install(needs, false)
}

fn install(needs: &[Need], yes: bool) -> Result<()> {
    let wanted: Vec<_> = needs
        .iter()
        .map(|need| (need.purpose(), need.packages()))
        .collect();
    packages(&wanted, yes)?;
    if needs.contains(&Need::Checks) {
        checks()?;
    }
    if needs.contains(&Need::Bpf) {
        Toolchain::get(yes)?;
    }
    Ok(())
}

/// cargo's subcommands for checks.
fn checks() -> Result<()> {
    for (component, subcommand) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        if process::succeeds(Command::new("cargo").args([subcommand, "--version"])) {
            continue;
        }
        ensure!(
            process::exists("rustup"),
            "`cargo {subcommand}` is missing: install {component} from where your Rust comes from"
        );
        eprintln!("setup: adding the component {component}");
        process::run(Command::new("rustup").args(["component", "add", component]))?;
    }
    if !process::succeeds(Command::new("cargo").args(["nextest", "--version"])) {
        eprintln!("setup: building cargo-nextest, which runs unit tests (some minutes)");
        process::run(Command::new("cargo").args(["install", "--locked", "cargo-nextest"]))
            .context("cargo-nextest cannot be built; is there a network?")?;
    }
    Ok(())
}

/// What building mmwatch takes besides cargo: a C compiler, for zstd and for ring. Asked before
/// the build, which says it at length.
pub fn compiler() -> Result<()> {
    ensure!(
        process::exists("cc"),
        "a C compiler is missing: install one, on Debian as root with `apt-get install gcc \
         libc6-dev`, then run this again"
    );
    Ok(())
}

/// Installs those of the wanted packages that are missing.
pub fn packages(wanted: &[(&str, &[Package])], yes: bool) -> Result<()> {
    let mut all = Vec::new();
    for (purpose, packages) in wanted {
        let missing = missing(packages)?;
        if !missing.is_empty() {
            eprintln!("setup: {purpose}: missing {}", missing.join(" "));
            all.extend(missing);
        }
    }
    if all.is_empty() {
        return Ok(());
    }
    let names = all.join(" ");
    ensure!(
        process::exists("apt-get"),
        "apt-get is missing, so install these, or what has their programs here, by hand: {names}"
    );
    ensure!(
        workspace::is_root()?,
        "installing packages takes root; run as root:\n  apt-get update && apt-get install \
         --no-remove --no-install-recommends {names}"
    );
    if !yes && io::stdin().is_terminal() && !confirm("Install them with apt-get?")? {
        bail!("not installed; `cargo xtask setup` asks again");
    }
    process::run(&mut apt_get(&["update", "--quiet"]))
        .context("cannot read the lists of packages; is there a network?")?;
    let mut install = vec!["install", "--quiet", "--yes", "--no-install-recommends"];
    install.extend(&all);
    let mut simulate = apt_get(&install);
    let plan = process::quiet_stdout(simulate.arg("--simulate"))?;
    let removed = removed(&plan);
    ensure!(
        removed.is_empty(),
        "apt-get would remove {} to install {names}, so nothing was installed; decide by hand: \
         apt-get install --no-install-recommends {names}",
        removed.join(" "),
    );
    process::run(apt_get(&install).arg("--no-remove"))
}

/// The packages that a simulated installation removes.
fn removed(plan: &str) -> Vec<&str> {
    plan.lines()
        .filter_map(|line| line.strip_prefix("Remv ")?.split(' ').next())
        .collect()
}

fn apt_get(args: &[&str]) -> Command {
    let mut apt_get = Command::new("apt-get");
    apt_get
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C")
        // stdout belongs to the task that called us.
        .stdout(io::stderr());
    apt_get
}

fn confirm(question: &str) -> Result<bool> {
    eprint!("{question} [Y/n] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer.ends_with('\n') && matches!(answer.trim(), "" | "y" | "Y" | "yes"))
}

/// Names of those of `packages` that are not installed, and that have no program here either.
pub fn missing(packages: &[Package]) -> Result<Vec<&'static str>> {
    let absent: Vec<_> = packages
        .iter()
        .filter(|package| !package.program.is_some_and(in_path))
        .map(|package| package.name)
        .collect();
    if absent.is_empty() {
        return Ok(absent);
    }
    if !process::exists("dpkg-query") {
        // Only programs can be found elsewhere than on Debian; whether a library is missing shows
        // when it is used.
        let programs = packages.iter().filter(|package| package.program.is_some());
        let is_absent = |name: &&str| absent.contains(name);
        return Ok(programs
            .map(|package| package.name)
            .filter(is_absent)
            .collect());
    }
    // Fails when it does not know one of the packages, and lists the others.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\n"])
        .args(&absent)
        .stderr(Stdio::null())
        .output()
        .context("cannot start dpkg-query")?;
    Ok(not_installed(
        &String::from_utf8_lossy(&output.stdout),
        &absent,
    ))
}

/// Whether a program is where a shell of root's finds it.
fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|dir: PathBuf| Path::is_file(&dir.join(program)))
}

fn not_installed<'a>(listed: &str, names: &[&'a str]) -> Vec<&'a str> {
    let is_installed = |name: &str| {
        listed
            .lines()
            .any(|line| line.split_once(' ') == Some((name, "installed")))
    };
    names
        .iter()
        .copied()
        .filter(|name| !is_installed(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_count_only_when_installed() {
        let listed = "mmdebstrap installed\nzlib1g-dev config-files\ncpio installed\n";
        let names = ["mmdebstrap", "zlib1g-dev", "rustc-web"];
        assert_eq!(not_installed(listed, &names), ["zlib1g-dev", "rustc-web"]);
        assert_eq!(not_installed("", &names), names);
    }

    #[test]
    fn a_program_from_elsewhere_is_as_good_as_its_package() {
        let packages = [
            Package::program("no-such-package", "sh"),
            Package::program("no-such-package-2", "no-such-program"),
        ];
        assert_eq!(missing(&packages).unwrap(), ["no-such-package-2"]);
    }

    #[test]
    fn removals_are_read_from_a_simulation() {
        let plan = "Reading package lists...\n\
                    Remv qemu-utils [1:10.0.2+ds-2] [libfdt1:amd64 ]\n\
                    Inst libfdt1 (1.6.1-4 Debian:12.11/stable [amd64])\n";
        assert_eq!(removed(plan), ["qemu-utils"]);
        assert_eq!(removed("Inst a (1)\nConf a (1)\n"), [""; 0]);
    }
}

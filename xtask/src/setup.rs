//! `cargo xtask setup`: everything that building and testing need, on a bare Debian
//! with rustup. It changes nothing where all is there, and every task begins with it.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    process,
    workspace::{self, BpfToolchain, DEBIAN, Workspace},
};

/// What is asked of the setup.
#[derive(Default, clap::Args)]
pub struct Options {
    /// Use the package manager without asking
    #[arg(short, long)]
    yes: bool,
}

/// The LLVM that bpf-linker is built with. It reads the bitcode of compilers with
/// this LLVM or an older one, never of a newer one.
const LLVM: u32 = 22;
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const BPF_LINKER: &str = "0.13.0";
/// Point releases of bpf-linker are as good.
const BPF_LINKER_SERIES: &str = "bpf-linker 0.13.";

const VM_PACKAGES: [&str; 2] = ["qemu-system-x86", "busybox-static"];
/// What tests make containers with, here and in VMs.
const CONTAINER_PACKAGES: [&str; 1] = ["runc"];
/// What mmwatch is compared with.
const RIVAL_PACKAGES: [&str; 3] = ["bpftrace", "linux-perf", "strace"];
/// A server to watch. What would start it by itself is another package.
const SERVER_PACKAGES: [&str; 1] = ["redis-tools"];
/// Against whose headers a test holds the table of flags.
const HEADER_PACKAGES: [&str; 1] = ["linux-libc-dev"];
/// What scrapes the agent in its tests, and what it sends to is written in.
const AGENT_PACKAGES: [&str; 2] = ["prometheus", "python3-venv"];
/// What checks the packages that users install: in a system of its own, and with the
/// shells that are completed.
const PACKAGING_PACKAGES: [&str; 4] = ["mmdebstrap", "lintian", "zsh", "fish"];
const COUNTING_PACKAGES: [&str; 1] = ["valgrind"];
const COMPILER_PACKAGES: [&str; 4] = [
    "rustc-web",
    "cargo-web",
    "rust-web-clippy",
    "libstd-rust-web-dev-bpf",
];
const LINKER_PACKAGES: [&str; 4] = [
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
];

/// Finds what is there, installs what is missing, and says so on stderr.
pub fn run(options: &Options) -> Result<Workspace> {
    if !process::exists("rustup") {
        bail!("rustup is missing: install it from https://rustup.rs, then run this again");
    }
    components()?;

    let has_dpkg = process::exists("dpkg-query");
    let has_linker = has_linker();
    let nightly = nightly_builds_core(has_dpkg)?;
    if !(has_dpkg || nightly && has_linker) {
        bail!(
            "packages can be installed on Debian only; elsewhere run \
             `rustup toolchain install nightly --component rust-src` and \
             `cargo install bpf-linker --version {BPF_LINKER}`, then this again"
        );
    }
    if has_dpkg {
        let mut wanted = vec![
            ("kernel tests in VMs", VM_PACKAGES.as_slice()),
            ("kernel tests in containers", &CONTAINER_PACKAGES),
            (
                "comparing flags with the kernel's headers",
                &HEADER_PACKAGES,
            ),
        ];
        if !nightly {
            wanted.push(("compiling kernel programs", &COMPILER_PACKAGES));
        }
        if !has_linker {
            wanted.push(("building bpf-linker", &LINKER_PACKAGES));
        }
        packages(&wanted, options.yes)?;
    }
    if !has_linker {
        install_linker()?;
    }
    if nightly {
        return Workspace::new(BpfToolchain::Nightly);
    }
    let llvm = llvm_of(DEBIAN)?;
    if llvm > LLVM {
        bail!(
            "Debian's rustc has LLVM {llvm} and bpf-linker LLVM {LLVM}, which cannot read its \
             output: move xtask/src/setup.rs to LLVM {llvm}"
        );
    }
    Workspace::new(BpfToolchain::Debian)
}

/// Installs what benchmarks compare with, and what counts instructions. Elsewhere
/// than on Debian, whatever is there has to do.
pub fn benchmarks(rivals: bool) -> Result<()> {
    if !process::exists("dpkg-query") {
        return Ok(());
    }
    let mut wanted = vec![("counting instructions", COUNTING_PACKAGES.as_slice())];
    if rivals {
        wanted.push(("benchmarks, to compare with", &RIVAL_PACKAGES));
        wanted.push(("benchmarks, to watch", &SERVER_PACKAGES));
    }
    packages(&wanted, false)
}

/// Installs what the agent is tested with. Elsewhere than on Debian, whatever is there
/// has to do.
pub fn agent() -> Result<()> {
    if !process::exists("dpkg-query") {
        return Ok(());
    }
    packages(&[("tests of the agent", AGENT_PACKAGES.as_slice())], false)
}

/// Installs what checks the packages that users install. Making them takes what every
/// Debian has; elsewhere there is no making them.
pub fn packaging(checks: bool) -> Result<()> {
    if !process::exists("dpkg-deb") {
        bail!("making a Debian package takes dpkg-deb: run this on Debian");
    }
    if checks {
        packages(
            &[("checking what users install", &PACKAGING_PACKAGES)],
            false,
        )?;
    }
    Ok(())
}

/// rustup's components for the checks.
fn components() -> Result<()> {
    let installed =
        process::quiet_stdout(Command::new("rustup").args(["component", "list", "--installed"]))?;
    for name in ["rustfmt", "clippy"] {
        if !installed.lines().any(|line| line.starts_with(name)) {
            eprintln!("setup: adding the component {name}, which `cargo xtask test` uses");
            process::run(Command::new("rustup").args(["component", "add", name]))?;
        }
    }
    Ok(())
}

/// Whether rustup's nightly can build kernel programs: it needs the source of
/// `core`, and an LLVM that bpf-linker understands.
fn nightly_builds_core(has_dpkg: bool) -> Result<bool> {
    let mut sysroot = Command::new("rustup");
    sysroot.args(["run", "nightly", "rustc", "--print", "sysroot"]);
    let Ok(sysroot) = process::quiet_stdout(&mut sysroot) else {
        return Ok(false);
    };
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
    // Trying to fetch it takes time where it cannot be had, so not on every run:
    // only where the other way is not open yet.
    let has_other_way = has_dpkg && missing(&COMPILER_PACKAGES)?.is_empty();
    if !source.is_dir() && !has_other_way {
        eprintln!("setup: adding nightly's rust-src, to build `core` for kernel programs");
        let mut add = Command::new("rustup");
        add.args(["component", "add", "rust-src", "--toolchain", "nightly"]);
        if !process::succeeds(&mut add) {
            eprintln!("setup: that cannot be had here; Debian's compiler does as well");
        }
    }
    Ok(source.is_dir() && llvm_of("nightly")? <= LLVM)
}

/// The LLVM that a toolchain's compiler writes bitcode for.
fn llvm_of(toolchain: &str) -> Result<u32> {
    let version =
        process::quiet_stdout(Command::new("rustup").args(["run", toolchain, "rustc", "-vV"]))?;
    llvm_major(&version)
        .with_context(|| format!("`rustup run {toolchain} rustc -vV` names no LLVM version"))
}

fn llvm_major(version: &str) -> Option<u32> {
    let llvm = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    llvm.split('.').next()?.parse().ok()
}

fn has_linker() -> bool {
    process::quiet_stdout(Command::new("bpf-linker").arg("--version"))
        .is_ok_and(|version| version.starts_with(BPF_LINKER_SERIES))
}

fn install_linker() -> Result<()> {
    eprintln!("setup: building bpf-linker {BPF_LINKER}, which links kernel programs (a minute)");
    let mut install = Command::new("cargo");
    install
        .args(["install", "bpf-linker", "--version", BPF_LINKER])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{LLVM}"),
        ])
        .env("LLVM_PREFIX", LLVM_PREFIX);
    process::run(&mut install)?;
    if !has_linker() {
        bail!("bpf-linker is installed, but does not run: is cargo's bin directory in PATH?");
    }
    Ok(())
}

/// Installs those of the wanted packages that are missing.
fn packages(wanted: &[(&str, &[&str])], yes: bool) -> Result<()> {
    let mut all = Vec::new();
    for (purpose, names) in wanted {
        let missing = missing(names)?;
        if !missing.is_empty() {
            eprintln!(
                "setup: for {purpose}, these packages are missing: {}",
                missing.join(" ")
            );
            all.extend(missing);
        }
    }
    if all.is_empty() {
        return Ok(());
    }
    if !workspace::is_root()? {
        bail!(
            "installing packages needs root; run as root:\n  apt-get update && \
             apt-get install --yes --no-install-recommends {}",
            all.join(" ")
        );
    }
    if !yes && io::stdin().is_terminal() && !confirm("Install them with apt-get?")? {
        bail!("not installed; `cargo xtask setup` asks again");
    }
    apt_get(&["update", "--quiet"])?;
    let mut install = vec!["install", "--quiet", "--yes", "--no-install-recommends"];
    install.extend(all);
    apt_get(&install)
}

fn apt_get(args: &[&str]) -> Result<()> {
    let mut apt_get = Command::new("apt-get");
    apt_get
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // stdout belongs to the task that called us.
        .stdout(io::stderr());
    process::run(&mut apt_get)
}

fn confirm(question: &str) -> Result<bool> {
    eprint!("{question} [Y/n] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer.ends_with('\n') && matches!(answer.trim(), "" | "y" | "Y" | "yes"))
}

/// Those of `names` that are not installed.
fn missing<'a>(names: &[&'a str]) -> Result<Vec<&'a str>> {
    // Fails when it does not know one of the packages, and lists the others.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\n"])
        .args(names)
        .stderr(Stdio::null())
        .output()
        .context("cannot start dpkg-query")?;
    Ok(not_installed(
        &String::from_utf8_lossy(&output.stdout),
        names,
    ))
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
        let listed = "qemu-system-x86 installed\nzlib1g-dev config-files\ncpio installed\n";
        let names = ["qemu-system-x86", "zlib1g-dev", "rustc-web"];
        assert_eq!(not_installed(listed, &names), ["zlib1g-dev", "rustc-web"]);
        assert_eq!(not_installed("", &names), names);
    }

    #[test]
    fn llvm_is_the_major_version() {
        let version = "rustc 1.96.0\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_major(version), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0\n"), None);
    }
}

//! The BPF toolchain: found, or installed where it is missing.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail, ensure};

use super::{CRATE, TARGET};
use crate::{
    process,
    setup::{self, Package},
    workspace::Workspace,
};

/// The LLVM that bpf-linker is built with. It reads the bitcode of compilers with
/// this LLVM or an older one, never of a newer one.
const LLVM: u32 = 22;
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const BPF_LINKER: &str = "0.13.0";
/// Point releases of bpf-linker are as good.
const BPF_LINKER_SERIES: &str = "bpf-linker 0.13.";
const LINKER_PACKAGES: [Package; 4] = [
    Package::library("llvm-22-dev"),
    Package::library("libpolly-22-dev"),
    Package::library("zlib1g-dev"),
    Package::library("libzstd-dev"),
];
/// Debian's compiler with `core` for BPF ready-made.
const COMPILER_PACKAGES: [Package; 4] = [
    Package::library("rustc-web"),
    Package::library("cargo-web"),
    Package::library("rust-web-clippy"),
    Package::library("libstd-rust-web-dev-bpf"),
];

/// What compiles the kernel programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// rustup's nightly, which builds `core` from the component rust-src.
    Nightly,
    /// Debian's packages, which bring `core` for BPF ready-made.
    Debian,
}

impl Toolchain {
    /// The toolchain that compiles kernel programs, installed where there is none.
    pub fn get(yes: bool) -> Result<Self> {
        ensure!(
            process::exists("rustup"),
            "compiling kernel programs takes rustup: install it from https://rustup.rs, then run \
             this again; building and running mmwatch do not take it"
        );
        let has_dpkg = process::exists("dpkg-query");
        let has_linker = has_linker();
        let nightly = nightly_builds_core(has_dpkg)?;
        if !(has_dpkg || nightly && has_linker) {
            bail!(
                "compiling kernel programs takes packages that can be installed on Debian only; \
                 elsewhere run `rustup toolchain install nightly --component rust-src` and `cargo \
                 install bpf-linker --version {BPF_LINKER}`, then this again"
            );
        }
        let mut wanted: Vec<(&str, &[Package])> = Vec::new();
        if !nightly {
            wanted.push(("compiling kernel programs", &COMPILER_PACKAGES));
        }
        if !has_linker {
            wanted.push(("building bpf-linker", &LINKER_PACKAGES));
        }
        setup::packages(&wanted, yes)?;
        if !has_linker {
            install_linker()?;
        }
        if nightly {
            return Ok(Self::Nightly);
        }
        let llvm = Self::Debian.llvm()?;
        ensure!(
            llvm <= LLVM,
            "Debian's rustc has LLVM {llvm} and bpf-linker LLVM {LLVM}, which cannot read its output: \
             move xtask/src/bpf/toolchain.rs to LLVM {llvm}"
        );
        Ok(Self::Debian)
    }

    /// The toolchain as `rustup run` takes it.
    const fn name(self) -> &'static str {
        match self {
            Self::Nightly => "nightly",
            Self::Debian => "/usr",
        }
    }

    fn command(self, program: &str) -> Command {
        let mut command = Command::new("rustup");
        command.args(["run", self.name(), program]);
        command
    }

    /// `cargo SUBCOMMAND` for the kernel programs, with a target directory of its own:
    /// another compiler's results cannot be shared.
    pub fn cargo(self, workspace: &Workspace, subcommand: &str) -> Command {
        let mut cargo = self.command("cargo");
        cargo.current_dir(workspace.root()).arg(subcommand);
        match self {
            Self::Nightly => cargo.arg("-Zbuild-std=core"),
            // aya-ebpf and `watch` use inline assembly, which is unstable for BPF. Names
            // rather than `1`, which would allow all.
            Self::Debian => cargo.env("RUSTC_BOOTSTRAP", "aya_ebpf,watch"),
        };
        cargo.args(["--package", CRATE, "--target", TARGET]);
        cargo
            .arg("--target-dir")
            .arg(workspace.target().join("bpf"));
        // A cargo that runs us names its own compiler.
        cargo.env_remove("RUSTC").env_remove("RUSTFLAGS");
        cargo
    }

    /// What the compiler calls itself.
    pub fn compiler(self) -> Result<String> {
        let version = process::quiet_stdout(self.command("rustc").arg("--version"))?;
        Ok(version.trim().to_owned())
    }

    /// Where the compiler and its libraries are.
    pub fn sysroot(self) -> Result<PathBuf> {
        let path = process::quiet_stdout(self.command("rustc").args(["--print", "sysroot"]))?;
        Ok(PathBuf::from(path.trim()))
    }

    /// The LLVM that the compiler writes bitcode for.
    fn llvm(self) -> Result<u32> {
        let version = process::quiet_stdout(self.command("rustc").arg("-vV"))?;
        llvm_major(&version).with_context(|| {
            format!(
                "`rustup run {} rustc -vV` names no LLVM version",
                self.name()
            )
        })
    }
}

/// Whether rustup's nightly can build kernel programs: it needs the source of
/// `core`, and an LLVM that bpf-linker understands.
fn nightly_builds_core(has_dpkg: bool) -> Result<bool> {
    let Ok(sysroot) = Toolchain::Nightly.sysroot() else {
        return Ok(false);
    };
    let source = sysroot.join("lib/rustlib/src/rust/library");
    // Trying to fetch it takes time where it cannot be had, so not on every run:
    // only where the other way is not open yet.
    let has_other_way = has_dpkg && setup::missing(&COMPILER_PACKAGES)?.is_empty();
    if !source.is_dir() && !has_other_way {
        eprintln!("setup: adding nightly's rust-src, to build `core` for kernel programs");
        let mut add = Command::new("rustup");
        add.args(["component", "add", "rust-src", "--toolchain", "nightly"]);
        if !process::succeeds(&mut add) {
            eprintln!("setup: rust-src is not available here; using Debian's compiler instead");
        }
    }
    Ok(source.is_dir() && Toolchain::Nightly.llvm()? <= LLVM)
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
    process::run(&mut install).context("bpf-linker cannot be built; is there a network?")?;
    if !has_linker() {
        bail!("bpf-linker is installed, but does not run: is cargo's bin directory in PATH?");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_is_the_major_version() {
        let version = "rustc 1.96.0\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_major(version), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0\n"), None);
    }
}

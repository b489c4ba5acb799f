//! The repository, and cargo as it is to be called in it.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

/// Debian's toolchain, as a path that `rustup run` takes.
pub const DEBIAN: &str = "/usr";

/// The crate that may use unstable features with Debian's toolchain. Its name rather
/// than `1`, which would allow all.
const UNSTABLE_CRATES: &str = "aya_ebpf,watch";

/// What compiles the kernel programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BpfToolchain {
    /// rustup's nightly, which builds `core` from the component rust-src.
    Nightly,
    /// Debian's packages, which bring `core` for BPF ready-made.
    Debian,
}

/// The repository on a machine that is set up.
pub struct Workspace {
    root: PathBuf,
    toolchain: BpfToolchain,
}

impl Workspace {
    /// The repository that this program was built from.
    pub fn new(toolchain: BpfToolchain) -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.parent().context("xtask is not in a workspace")?;
        Ok(Self {
            root: root.to_owned(),
            toolchain,
        })
    }

    /// A copy of it in another place.
    pub fn at(&self, root: PathBuf) -> Self {
        Self { root, ..*self }
    }

    /// The top directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where everything that is built or fetched goes.
    pub fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// `cargo SUBCOMMAND`, in the one environment that all of our builds share:
    /// another would have cargo build the dependencies anew.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = Command::new("cargo");
        cargo.arg(subcommand).current_dir(&self.root);
        match self.toolchain {
            BpfToolchain::Nightly => cargo.env_remove("MMWATCH_BPF_TOOLCHAIN"),
            BpfToolchain::Debian => cargo.env("MMWATCH_BPF_TOOLCHAIN", DEBIAN),
        };
        cargo
    }

    /// `cargo clippy` for the kernel programs, with the toolchain that builds them
    /// and a target directory of its own: another compiler's results cannot be shared.
    pub fn bpf_clippy(&self) -> Command {
        let mut rustup = Command::new("rustup");
        rustup
            .current_dir(&self.root)
            .env("RUSTFLAGS", r#"--cfg=bpf_target_arch="x86_64""#);
        match self.toolchain {
            BpfToolchain::Nightly => {
                rustup.args(["run", "nightly", "cargo", "clippy", "-Zbuild-std=core"]);
            }
            BpfToolchain::Debian => {
                rustup.args(["run", DEBIAN, "cargo", "clippy"]);
                rustup.env("RUSTC_BOOTSTRAP", UNSTABLE_CRATES);
            }
        }
        rustup.args([
            "--package",
            "mmwatch-ebpf",
            "--target",
            "bpfel-unknown-none",
        ]);
        rustup.arg("--target-dir").arg(self.target().join("bpf"));
        rustup.args(["--", "-D", "warnings"]);
        rustup
    }
}

/// Whether we are root: it is the owner of our own entry in /proc.
pub fn is_root() -> Result<bool> {
    let own = fs::metadata("/proc/self").context("cannot read /proc/self; is /proc mounted?")?;
    Ok(own.uid() == 0)
}

//! The repository, and cargo as it is to be called in it.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

/// The repository.
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The repository that this program was built from.
    pub fn new() -> Result<Self> {
        let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = xtask.parent().context("xtask is not in a workspace")?;
        Ok(Self::at(root.to_owned()))
    }

    /// A copy of it in another place.
    pub const fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The top directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where everything that is built or fetched goes.
    pub fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// `cargo SUBCOMMAND` in the top directory.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = Command::new("cargo");
        cargo.arg(subcommand).current_dir(&self.root);
        cargo
    }
}

/// Whether we are root: it is the owner of our own entry in /proc.
pub fn is_root() -> Result<bool> {
    let own = fs::metadata("/proc/self").context("cannot read /proc/self; is /proc mounted?")?;
    Ok(own.uid() == 0)
}

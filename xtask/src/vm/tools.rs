//! What VMs are made with: QEMU, and the programs in their file system. Debian's packages,
//! fetched once and unpacked into `target/vm`, so that every machine has the same versions and
//! nothing is installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::apt::Apt;
use crate::process;

/// The release of Debian that they are of.
const SUITE: &str = "bookworm";
const PACKAGES: [&str; 4] = ["qemu-system-x86", "busybox-static", "coreutils", "runc"];

/// Packages, unpacked.
pub struct Tools {
    root: PathBuf,
}

impl Tools {
    /// From the cache in `vm_dir` or from Debian.
    pub fn get(vm_dir: &Path) -> Result<Self> {
        let root = vm_dir.join("tools");
        let tools = Self { root: root.clone() };
        let (listed, list) = (root.join("packages"), PACKAGES.join("\n"));
        if fs::read_to_string(&listed).is_ok_and(|listed| listed == list) {
            return Ok(tools);
        }
        ensure!(
            process::exists("apt-get") && process::exists("dpkg"),
            "VMs are made of Debian's packages: run this on Debian, where apt-get and dpkg are"
        );
        eprintln!("vm: fetching {}", PACKAGES.join(", "));
        let apt = Apt::new(&vm_dir.join("apt"))?;
        apt.update()?;
        // Moved in when it is whole.
        let staging = vm_dir.join("tools.part");
        let _ = fs::remove_dir_all(&staging);
        fs::create_dir_all(&staging)
            .with_context(|| format!("cannot make {}", staging.display()))?;
        apt.unpack(SUITE, &PACKAGES, &staging)?;
        fs::write(staging.join("packages"), list)?;
        // Of another list.
        let _ = fs::remove_dir_all(&root);
        fs::rename(&staging, &root)
            .with_context(|| format!("cannot move QEMU to {}", root.display()))?;
        Ok(tools)
    }

    /// A file by its path on a Debian.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Appends the start of QEMU to a command: with the libraries of its own release.
    pub fn qemu(&self, command: &mut Command) {
        let libraries = self.path("usr/lib/x86_64-linux-gnu");
        command
            .arg(self.path("usr/lib64/ld-linux-x86-64.so.2"))
            .arg("--library-path")
            .arg(&libraries)
            .arg(self.path("usr/bin/qemu-system-x86_64"))
            .env("QEMU_MODULE_DIR", libraries.join("qemu"));
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(self.path(firmware));
        }
    }
}

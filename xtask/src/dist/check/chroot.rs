//! A clean Debian to install into, made once and unpacked anew for each check.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{process, vm, workspace};

/// The release that mmwatch is built on.
const SUITE: &str = "bookworm";

/// What dpkg and systemctl note for themselves, whatever comes and goes. What packages
/// there are is asked of dpkg instead.
const NOTES: [&str; 5] = [
    "/run/systemd",
    "/run/systemd/systemd-units-load",
    "/var/lib/dpkg/status",
    "/var/lib/dpkg/status-old",
    "/var/log/dpkg.log",
];

/// What a command printed.
pub struct Printed {
    /// On stdout.
    pub stdout: String,
    /// On stderr.
    pub stderr: String,
}

/// A directory that commands take for the root of all.
pub struct Chroot {
    base: PathBuf,
    root: PathBuf,
    /// Whether commands can have a /proc that goes away with them.
    can_mount: bool,
}

impl Chroot {
    /// In `dir`. The system is fetched where that was not done yet.
    pub fn new(dir: &Path) -> Result<Self> {
        ensure!(
            workspace::is_root()?,
            "installing the package in a chroot needs root; run this as root"
        );
        let base = dir.join(format!("{SUITE}.tar"));
        if !base.exists() {
            fetch(&base)?;
        }
        Ok(Self {
            base,
            root: dir.join("chroot"),
            can_mount: process::succeeds(Command::new("unshare").args(["--mount", "true"])),
        })
    }

    /// Makes it empty.
    pub fn empty(&self) -> Result<()> {
        super::fresh(&self.root).map(|_| ())
    }

    /// Makes it a system on which nothing was installed yet.
    pub fn clean(&self) -> Result<()> {
        self.empty()?;
        self.unpack(&self.base)
    }

    /// Takes it away.
    pub fn remove(&self) -> Result<()> {
        fs::remove_dir_all(&self.root)
            .with_context(|| format!("cannot remove {}", self.root.display()))
    }

    /// Unpacks a tarball into it.
    pub fn unpack(&self, tarball: &Path) -> Result<()> {
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--numeric-owner", "--preserve-permissions"]);
        tar.arg("--file").arg(tarball);
        process::run(tar.arg("--directory").arg(&self.root))
    }

    /// Where a file in it is from outside; `path` without a slash at the beginning.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Copies a file into it; returns the path that it has there.
    pub fn take(&self, file: &Path) -> Result<String> {
        let name = super::super::name_of(file)?;
        fs::copy(file, self.path(&name))
            .with_context(|| format!("cannot copy {} into the chroot", file.display()))?;
        Ok(format!("/{name}"))
    }

    /// Runs a command in it, which has to succeed.
    pub fn run(&self, words: &[&str]) -> Result<Printed> {
        let mut command = if self.can_mount {
            let mut unshare = Command::new("unshare");
            // What the shell mounts goes away with the command.
            unshare.args(["--mount", "sh", "-c"]).arg(
                r#"[ ! -d "$0/proc" ] || mount -t proc proc "$0/proc" 2>/dev/null || true
                   exec chroot "$0" "$@""#,
            );
            unshare
        } else {
            Command::new("chroot")
        };
        let output = command
            .arg(&self.root)
            .args(words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .output()
            .context("cannot start a command in the chroot")?;
        let printed = Printed {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        ensure!(
            output.status.success(),
            "in the chroot, `{}` failed ({}):\n{}{}",
            words.join(" "),
            output.status,
            printed.stdout,
            printed.stderr
        );
        Ok(printed)
    }

    /// Like [`Self::run`], for what has nothing to warn of; returns its stdout.
    pub fn quiet(&self, words: &[&str]) -> Result<String> {
        let printed = self.run(words)?;
        ensure!(
            printed.stderr.is_empty(),
            "in the chroot, `{}` warns:\n{}",
            words.join(" "),
            printed.stderr
        );
        Ok(printed.stdout)
    }

    /// Everything in it, a line each: type, mode, owner, path and target of a link; the
    /// checksums of files; and the packages.
    pub fn everything(&self) -> Result<BTreeSet<String>> {
        let notes: String = NOTES
            .iter()
            .map(|path| format!(" ! -path {path}"))
            .collect();
        let all = format!(
            "all() {{ find / -xdev -mindepth 1 ! -path '/proc/*'{notes} \"$@\"; }}
             all -printf '%y %m %U:%G %p %l\\n'
             all -type f -exec sha256sum {{}} +
             dpkg-query --show"
        );
        let listed = self.run(&["sh", "-euc", &all])?;
        Ok(listed.stdout.lines().map(str::to_owned).collect())
    }
}

/// Fetches a minimal system with systemd into a tarball.
fn fetch(base: &Path) -> Result<()> {
    eprintln!("dist: fetching a minimal Debian to install into, once");
    let part = base.with_extension("part");
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args(["--quiet", "--variant=minbase", "--format=tar"])
        .args(["--include=systemd", SUITE])
        .arg(&part)
        .arg(format!("deb {} {SUITE} main", vm::debian_mirror()));
    process::run(&mut mmdebstrap)?;
    fs::rename(&part, base).with_context(|| format!("cannot make {}", base.display()))
}

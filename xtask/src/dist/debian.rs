//! Debian's package: what dpkg is told of it, and dpkg-deb.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{Release, fresh, set_mode, write};
use crate::{process, workspace::Workspace};

/// What administrators edit. dpkg keeps their edits.
pub const CONFIGURATION: &str = "etc/mmwatch/mmwatch.toml";

const MAINTAINER: &str = "The mmwatch authors <mmwatch@users.noreply.github.com>";

/// Run by dpkg as the package comes and goes; from `deploy/debian`.
const SCRIPTS: [&str; 3] = ["postinst", "postrm", "prerm"];

/// Makes the package of the files in `tree`; returns its path in `dir`.
pub fn package(
    workspace: &Workspace,
    tree: &Path,
    release: &Release,
    dir: &Path,
) -> Result<PathBuf> {
    let about = fresh(&tree.join("DEBIAN"))?;
    set_mode(&about, 0o755)?;
    let files = files(tree, tree)?;
    let mut bytes = 0;
    for file in &files {
        bytes += fs::metadata(tree.join(file))?.len();
    }
    let mut md5sum = Command::new("md5sum");
    let md5sums = process::stdout(
        md5sum
            .current_dir(tree)
            .args(files.iter().filter(|file| *file != CONFIGURATION)),
    )?;
    for (name, text) in [
        ("control", control(release, bytes)),
        ("conffiles", format!("/{CONFIGURATION}\n")),
        ("md5sums", md5sums),
    ] {
        write(&about.join(name), text)?;
        set_mode(&about.join(name), 0o644)?;
    }
    for name in SCRIPTS {
        let script = workspace.root().join("deploy/debian").join(name);
        fs::copy(&script, about.join(name))
            .with_context(|| format!("cannot copy {}", script.display()))?;
        set_mode(&about.join(name), 0o755)?;
    }

    let package = dir.join(format!("mmwatch_{}_amd64.deb", release.debian_version()));
    let mut dpkg_deb = Command::new("dpkg-deb");
    dpkg_deb
        .args(["--root-owner-group", "-Zxz", "--threads-max=1", "--build"])
        .arg(tree)
        .arg(&package)
        // No file gets a later time than this, and all of ours are later.
        .env("SOURCE_DATE_EPOCH", release.epoch.to_string());
    process::stdout(&mut dpkg_deb)?;
    Ok(package)
}

/// The files below `dir`, relative to `root` and in order, but for `DEBIAN`.
fn files(root: &Path, dir: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for path in super::sorted(dir)? {
        if path == root.join("DEBIAN") {
            continue;
        }
        if path.is_dir() {
            files.extend(self::files(root, &path)?);
        } else {
            let path = path.strip_prefix(root)?;
            files.push(path.to_str().context("a path is not UTF-8")?.to_owned());
        }
    }
    Ok(files)
}

fn control(release: &Release, bytes: u64) -> String {
    format!(
        "\
Package: mmwatch
Version: {version}
Architecture: amd64
Maintainer: {MAINTAINER}
Installed-Size: {size}
Suggests: prometheus
Section: admin
Priority: optional
Homepage: {homepage}
Description: shows what the Linux kernel does to address spaces
 mmwatch tells, by eBPF, every virtual memory area (VMA) that is made,
 changed and removed: by which process, how, where, from which file, what it
 replaced, what failed and why, and how many each process has of those that
 it may have.
 .
 It shows churn live, traces single operations, sums over a command's life,
 explains address spaces, records, and runs as an agent with metrics for
 Prometheus. The agent's service is installed, but neither enabled nor
 started.
",
        version = release.debian_version(),
        size = bytes.div_ceil(1024),
        homepage = "https://github.com/mmwatch/mmwatch",
    )
}

/// What changed in the packaging, which policy wants beside the changes of mmwatch.
pub fn changelog(release: &Release) -> Result<String> {
    let mut date = Command::new("date");
    date.args(["--utc", "-R", "-d", &format!("@{}", release.epoch)])
        .env("LC_ALL", "C");
    Ok(format!(
        "\
mmwatch ({}) unstable; urgency=medium

  * Made by `cargo xtask dist`; changelog.gz has the changes of mmwatch itself.

 -- {MAINTAINER}  {}
",
        release.debian_version(),
        process::stdout(&mut date)?.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: Release = Release {
        version: "1.2.3",
        revision: 4,
        epoch: 1_700_000_000,
    };

    #[test]
    fn the_control_file_is_as_dpkg_reads_it() {
        let control = control(&RELEASE, 2049);
        let field = |name: &str| {
            control
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        assert_eq!(field("Package"), Some("mmwatch"));
        assert_eq!(field("Version"), Some("1.2.3-4"));
        assert_eq!(field("Architecture"), Some("amd64"));
        assert_eq!(field("Installed-Size"), Some("3"));
        assert!(field("Description").is_some());
        // It needs nothing of the system.
        assert_eq!(field("Depends"), None);
        assert!(control.ends_with(".\n"));
        assert!(
            control
                .lines()
                .all(|line| !line.is_empty() && line.len() <= 80)
        );
    }

    #[test]
    fn the_changelog_is_of_the_commit_s_time() {
        let changelog = changelog(&RELEASE).unwrap();
        assert!(changelog.starts_with("mmwatch (1.2.3-4) "), "{changelog}");
        assert!(
            changelog.ends_with("  Tue, 14 Nov 2023 22:13:20 +0000\n"),
            "{changelog}"
        );
    }
}

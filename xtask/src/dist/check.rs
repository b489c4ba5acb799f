//! Whether what was made is what users can install: made a second time it is the same,
//! Debian's own checker has nothing to say, shells complete, and in a clean system the
//! package comes, is upgraded and goes without a trace.

mod chroot;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use self::chroot::Chroot;
use super::{Made, Release, debian, fresh, make, write};
use crate::{process, workspace::Workspace};

/// Highest exposure that systemd may find in the unit, times ten.
const EXPOSURE: &str = "25";

const UNIT: &str = "/usr/lib/systemd/system/mmwatch.service";
const ENABLED: &str = "etc/systemd/system/multi-user.target.wants/mmwatch.service";

/// Checks all; the first thing that is wrong is the error.
pub fn run(workspace: &Workspace, mmwatch: &Path, release: &Release, made: &Made) -> Result<()> {
    let dir = workspace.target().join("dist");
    tell("made again");
    let second = fresh(&dir.join("again"))?;
    let again = make(workspace, mmwatch, release, &second)?;
    ensure!(
        fs::read(&made.sums)? == fs::read(&again.sums)?,
        "made twice, {} and {} differ: something of it depends on more than the commit",
        made.sums.display(),
        again.sums.display()
    );

    tell("lintian");
    process::run(
        Command::new("lintian")
            .args(["--allow-root", "--fail-on", "error,warning"])
            .arg(&made.package),
    )?;
    tell("completions");
    completions(&made.tree)?;

    let chroot = Chroot::new(&dir)?;
    tell("the tarball where nothing else is");
    alone(&chroot, made, release)?;
    tell("install, upgrade, purge");
    let later = later(workspace, &again.tree, release, &second)?;
    life(&chroot, &made.package, &later, release)?;
    chroot.remove()?;
    fs::remove_dir_all(&second).with_context(|| format!("cannot remove {}", second.display()))
}

fn tell(step: &str) {
    eprintln!("dist: checking: {step}");
}

/// Asks each shell what it would complete, or, where there is no asking, whether it can
/// read the script.
fn completions(tree: &Path) -> Result<()> {
    let share = tree.join("usr/share");
    let bash = share.join("bash-completion/completions/mmwatch");
    let asked = process::stdout(
        Command::new("bash")
            .args([
                "-euc",
                r#". "$1"; COMP_WORDS=(mmwatch tr); COMP_CWORD=1; _mmwatch mmwatch tr mmwatch
                   echo "${COMPREPLY[@]}""#,
                "bash",
            ])
            .arg(&bash),
    )?;
    ensure!(
        asked == "trace\n",
        "bash completes `mmwatch tr` as `{asked}`"
    );

    let fish = share.join("fish/vendor_completions.d/mmwatch.fish");
    let asked = process::stdout(
        Command::new("fish")
            .args(["--no-config", "-c"])
            .arg(r#"source $argv[1]; complete --do-complete "mmwatch trace --back""#)
            .arg(&fish),
    )?;
    ensure!(
        asked.starts_with("--backing\t"),
        "fish completes `mmwatch trace --back` as `{asked}`"
    );

    let zsh = share.join("zsh/vendor-completions/_mmwatch");
    process::run(Command::new("zsh").arg("-n").arg(zsh))
}

/// The tarball's program needs nothing of the system that it is put on.
fn alone(chroot: &Chroot, made: &Made, release: &Release) -> Result<()> {
    chroot.empty()?;
    chroot.unpack(&made.tarball)?;
    let program = format!("/{}/mmwatch", release.directory());
    let version = chroot.run(&[&program, "--version"])?;
    ensure!(
        version.stdout == format!("mmwatch {}\n", release.version),
        "the tarball's mmwatch says that it is `{}`",
        version.stdout
    );
    Ok(())
}

/// A later version, whose configuration is another.
fn later(workspace: &Workspace, tree: &Path, release: &Release, dir: &Path) -> Result<PathBuf> {
    let configuration = tree.join(debian::CONFIGURATION);
    let text = fs::read_to_string(&configuration)?;
    write(&configuration, format!("# Of a later version.\n{text}"))?;
    let release = Release {
        revision: release.revision + 1,
        ..release.clone()
    };
    debian::package(workspace, tree, &release, dir)
}

/// The package from its installation to its end.
fn life(chroot: &Chroot, package: &Path, later: &Path, release: &Release) -> Result<()> {
    chroot.clean()?;
    let before = chroot.everything()?;
    let package = chroot.take(package)?;
    chroot.quiet(&["dpkg", "--install", &package])?;

    let version = chroot.run(&["mmwatch", "--version"])?;
    ensure!(
        version.stdout == format!("mmwatch {}\n", release.version),
        "the installed mmwatch says that it is `{}`",
        version.stdout
    );
    chroot.quiet(&["mmwatch", "agent", "--check-config"])?;
    let silent = chroot.quiet(&["systemd-analyze", "verify", UNIT])?;
    ensure!(silent.is_empty(), "systemd-analyze verify says: {silent}");
    chroot.run(&[
        "systemd-analyze",
        "security",
        "--offline=yes",
        &format!("--threshold={EXPOSURE}"),
        "mmwatch.service",
    ])?;
    ensure!(
        !chroot.path(ENABLED).is_symlink(),
        "the package enables the service; that is for administrators to do"
    );

    // What an administrator does.
    chroot.run(&["systemctl", "enable", "mmwatch"])?;
    let configuration = chroot.path(debian::CONFIGURATION);
    let edited = "interval = \"5s\"\n";
    write(&configuration, edited)?;
    write(&chroot.path("etc/mmwatch/token"), "0123456789abcdef\n")?;

    let later = chroot.take(later)?;
    let keep = "--force-confold";
    chroot.run(&["dpkg", keep, "--install", &later])?;
    let kept = |when: &str| {
        let text = fs::read_to_string(&configuration)
            .with_context(|| format!("{when}, {} is gone", configuration.display()))?;
        ensure!(text == edited, "{when}, the configuration's edits are gone");
        Ok(())
    };
    kept("after an upgrade")?;
    ensure!(
        chroot.path(ENABLED).is_symlink(),
        "an upgrade disables the service"
    );
    chroot.run(&["dpkg", "--remove", "mmwatch"])?;
    kept("after a removal")?;
    chroot.run(&["dpkg", "--purge", "mmwatch"])?;

    for path in [&package, &later] {
        fs::remove_file(chroot.path(path.trim_start_matches('/')))?;
    }
    let after = chroot.everything()?;
    let left: Vec<_> = after.difference(&before).map(String::as_str).collect();
    let lost: Vec<_> = before.difference(&after).map(String::as_str).collect();
    ensure!(
        left.is_empty() && lost.is_empty(),
        "purged, the package leaves or has changed:\n{}\nand what is not as it was:\n{}",
        left.join("\n"),
        lost.join("\n")
    );
    Ok(())
}

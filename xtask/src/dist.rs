//! `cargo xtask dist`: what users install, a tarball and Debian's package.

mod check;
mod contents;
mod debian;
mod licences;

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};

use self::contents::{File, Parts};
use crate::{
    build::{self, Linking},
    process,
    setup::{self, Need},
    workspace::Workspace,
};

/// The shells that completions are for.
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// What is asked for.
#[derive(Default, clap::Args)]
pub struct Options {
    /// Also check all of it: made twice the same, lintian, completions in their shells, and the
    /// package installed, upgraded and purged in a chroot; takes root
    #[arg(long)]
    check: bool,
}

impl Options {
    /// With all checks.
    pub const fn checked() -> Self {
        Self { check: true }
    }
}

/// Makes all, and says on stdout what.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    ensure!(
        process::exists("dpkg-deb"),
        "making a Debian package takes dpkg-deb: run this on Debian"
    );
    if options.check {
        setup::ensure_for(&[Need::Packaging])?;
    }
    let mmwatch = build::agent(workspace, true, Linking::Static)?;
    let release = Release::of(workspace)?;
    let dir = workspace.target().join("dist");
    let made = make(workspace, &mmwatch, &release, &dir)?;
    if options.check {
        check::run(workspace, &mmwatch, &release, &made)?;
    }
    for path in [&made.tarball, &made.package, &made.sums] {
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// What is distributed: which version, and from when.
#[derive(Clone, Debug)]
struct Release {
    version: &'static str,
    /// Debian's number for how this version was packaged.
    revision: u32,
    /// The time that every file has, in seconds since 1970.
    epoch: u64,
}

impl Release {
    /// Of the working tree. Its time is that of the last commit, or what reproducible
    /// builds name.
    fn of(workspace: &Workspace) -> Result<Self> {
        let epoch = match env::var("SOURCE_DATE_EPOCH") {
            Ok(epoch) => epoch,
            Err(_) => process::quiet_stdout(
                Command::new("git")
                    .args(["log", "-1", "--format=%ct"])
                    .current_dir(workspace.root()),
            )
            .context("outside of a git repository, set SOURCE_DATE_EPOCH to the release's time")?,
        };
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            revision: 1,
            epoch: epoch
                .trim()
                .parse()
                .with_context(|| format!("`{}` is no time in seconds", epoch.trim()))?,
        })
    }

    /// The version as Debian writes it.
    fn debian_version(&self) -> String {
        format!("{}-{}", self.version, self.revision)
    }

    /// The directory in the tarball, and the tarball's own name.
    fn directory(&self) -> String {
        format!("mmwatch-{}-x86_64-linux", self.version)
    }
}

/// What was made.
struct Made {
    tarball: PathBuf,
    package: PathBuf,
    sums: PathBuf,
    /// The package's files as they will be installed.
    tree: PathBuf,
}

/// Makes the tarball, the package and their checksums in `dir`.
fn make(workspace: &Workspace, mmwatch: &Path, release: &Release, dir: &Path) -> Result<Made> {
    let work = dir.join("work");
    let parts = parts(workspace, mmwatch, &fresh(&work.join("parts"))?)?;

    let stage = fresh(&work.join("stage"))?;
    let directory = release.directory();
    write_tree(&stage.join(&directory), &contents::tarball(&parts))?;
    let tarball = dir.join(format!("{directory}.tar.gz"));
    tar(&stage, &directory, release.epoch, &tarball)?;

    let tree = fresh(&work.join("tree"))?;
    write_tree(&tree, &contents::debian(&parts, release)?)?;
    let package = debian::package(workspace, &tree, release, dir)?;

    let sums = dir.join("SHA256SUMS");
    let mut sha256sum = Command::new("sha256sum");
    sha256sum.current_dir(dir).args(
        [&package, &tarball]
            .into_iter()
            .filter_map(|path| path.file_name()),
    );
    write(&sums, process::stdout(&mut sha256sum)?)?;
    Ok(Made {
        tarball,
        package,
        sums,
        tree,
    })
}

/// What has to be made before it can be packed, in `dir`: the executable without what
/// only debuggers read, and what it tells of itself.
fn parts(workspace: &Workspace, mmwatch: &Path, dir: &Path) -> Result<Parts> {
    let executable = dir.join("mmwatch");
    let mut strip = Command::new("strip");
    strip.args(["--strip-unneeded", "--remove-section=.comment"]);
    process::run(strip.arg("-o").arg(&executable).arg(mmwatch))?;
    let man = fresh(&dir.join("man"))?;
    process::run(Command::new(&executable).arg("man").arg(&man))?;
    let mut pages = Vec::new();
    for page in sorted(&man)? {
        pages.push((name_of(&page)?, page));
    }
    let mut completions = Vec::new();
    for shell in SHELLS {
        let script = process::stdout(Command::new(&executable).args(["completions", shell]))?;
        completions.push((shell, script));
    }
    Ok(Parts {
        root: workspace.root().to_owned(),
        executable,
        pages,
        completions,
        docs: sorted(&workspace.root().join("docs"))?,
        third_party: licences::third_party(workspace)?,
    })
}

/// `directory` in `parent` as a tarball whose bytes depend on what is in it alone.
fn tar(parent: &Path, directory: &str, epoch: u64, tarball: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("--create")
        .arg("--file")
        .arg(tarball)
        .arg("--directory")
        .arg(parent)
        .args(["--sort=name", "--format=gnu", "--numeric-owner"])
        .args(["--owner=0", "--group=0", &format!("--mtime=@{epoch}")])
        // As with `gzip --no-name`: no time of its own.
        .args(["--use-compress-program", "gzip -9n", directory]);
    process::run(&mut tar)
}

/// Writes files into `root`; those that end in `.gz` are compressed.
fn write_tree(root: &Path, files: &[File]) -> Result<()> {
    for file in files {
        let path = root.join(&file.path);
        let plain = if is_compressed(&path) {
            path.with_extension("")
        } else {
            path.clone()
        };
        let parent = plain.parent().context("a file without a directory")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        write(&plain, file.content.read()?)?;
        if plain != path {
            process::run(Command::new("gzip").arg("-9n").arg(&plain))?;
        }
        set_mode(&path, file.mode)?;
        // Whatever our umask says.
        for directory in path.ancestors().skip(1).take_while(|dir| *dir != root) {
            set_mode(directory, 0o755)?;
        }
    }
    set_mode(root, 0o755)
}

fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

/// `dir`, empty.
fn fresh(dir: &Path) -> Result<PathBuf> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir.to_owned())
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}

/// The files in a directory, by name.
fn sorted(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(dir)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<Vec<_>, _>>()
        })
        .with_context(|| format!("cannot list {}", dir.display()))?;
    files.sort();
    Ok(files)
}

fn name_of(path: &Path) -> Result<String> {
    path.file_name()
        .and_then(|name| name.to_str())
        .map(str::to_owned)
        .with_context(|| format!("{} has no name in UTF-8", path.display()))
}

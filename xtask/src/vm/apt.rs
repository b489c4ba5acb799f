//! Debian's archive, read through an apt of our own: its lists and cache are
//! under `target`, so that the machine's sources stay as they are.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::packages::{self, Package};
use crate::process;

/// Debian's public mirrors, where the machine's sources name none.
const MIRROR: &str = "http://deb.debian.org/debian";
const SECURITY_MIRROR: &str = "http://deb.debian.org/debian-security";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Suites on the main mirror and on the security mirror that have our kernels.
const SUITES: [&str; 4] = ["bullseye", "bookworm", "trixie", "trixie-backports"];
const SECURITY_SUITES: [&str; 1] = ["bullseye-security"];

/// Real images only: metapackages have no third number, debug symbols and
/// unsigned twins end or begin otherwise.
const IMAGES: &str = r"^linux-(image|binary)-[0-9]+\.[0-9]+\.[0-9].*-cloud-amd64$";

/// An apt configuration and the directories that it names.
pub struct Apt {
    config: PathBuf,
}

impl Apt {
    /// Writes the configuration into `dir`.
    pub fn new(dir: &Path) -> Result<Self> {
        for name in [
            "state",
            "lists/partial",
            "cache/archives/partial",
            "sources.list.d",
        ] {
            let dir = dir.join(name);
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let apt = Self {
            config: dir.join("apt.conf"),
        };
        let mirrors = Mirrors::of_this_machine();
        let write = |path: &Path, text: &str| {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write(&dir.join("sources.list"), &mirrors.sources())?;
        // What is installed here is nothing to these lists.
        write(&dir.join("status"), "")?;
        write(&apt.config, &config(dir))?;
        Ok(apt)
    }

    /// Fetches the lists of packages.
    ///
    /// One suite that a mirror no longer has must not cost the others: a failure
    /// is told, and whoever misses a kernel then says which.
    pub fn update(&self) -> Result<()> {
        eprintln!("vm: reading Debian's lists of packages");
        let mut update = self.command("apt-get");
        update
            .args(["--quiet", "--quiet", "update"])
            .stdout(Stdio::null());
        let status = update.status().context("cannot start apt-get")?;
        if !status.success() {
            eprintln!("vm: some of Debian's lists could not be had; going on with the others");
        }
        Ok(())
    }

    /// Every cloud kernel of every suite.
    pub fn kernel_images(&self) -> Result<Vec<Package>> {
        let mut search = self.command("apt-cache");
        search.args(["search", "--full", "--names-only", IMAGES]);
        Ok(packages::parse(&process::stdout(&mut search)?))
    }

    /// Downloads a package, `NAME=VERSION` or `NAME/SUITE`, into `dir` and returns its
    /// path. apt checks it against the signed lists.
    pub fn download(&self, package: &str, dir: &Path) -> Result<PathBuf> {
        let mut download = self.command("apt-get");
        download
            .args(["--quiet", "--quiet", "download", package])
            .current_dir(dir);
        process::run(&mut download)?;
        fs::read_dir(dir)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| {
                format!(
                    "apt-get downloaded {package}, but left no .deb in {}",
                    dir.display()
                )
            })
    }

    /// Unpacks packages of a suite and all that they depend on into `dir`, as on a machine where
    /// nothing is installed yet. Nothing is installed here either.
    pub fn unpack(&self, suite: &str, packages: &[&str], dir: &Path) -> Result<()> {
        let archives = dir.with_extension("archives");
        let partial = archives.join("partial");
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot make {}", partial.display()))?;
        let mut download = self.command("apt-get");
        download
            .arg("-o")
            .arg(format!("Dir::Cache::archives={}", archives.display()))
            .args(["--quiet", "--quiet", "--yes", "--download-only"])
            .args(["--no-install-recommends", "--target-release", suite])
            .arg("install")
            .args(packages)
            .stdout(Stdio::null());
        process::run(&mut download)
            .with_context(|| format!("cannot fetch {}; is there a network?", packages.join(" ")))?;
        // Where every Debian has them by now: packages name either place.
        for name in ["bin", "sbin", "lib", "lib64"] {
            let (link, merged) = (dir.join(name), Path::new("usr").join(name));
            fs::create_dir_all(dir.join(&merged))?;
            symlink(&merged, &link).with_context(|| format!("cannot make {}", link.display()))?;
        }
        for entry in fs::read_dir(&archives)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                extract(&path, dir)?;
            }
        }
        fs::remove_dir_all(&archives)?;
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(&self.config).env("LC_ALL", "C");
        command
    }
}

/// Unpacks a package. As with `dpkg -x`, but links to directories stay what they are.
fn extract(package: &Path, dir: &Path) -> Result<()> {
    let mut dpkg = Command::new("dpkg");
    dpkg.arg("--fsys-tarfile").arg(package);
    let mut files = dpkg
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg")?;
    let pipe = files.stdout.take().context("dpkg has no stdout")?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--keep-directory-symlink", "--directory"]);
    process::run(tar.arg(dir).stdin(pipe))?;
    ensure!(files.wait()?.success(), "`{}` failed", process::line(&dpkg));
    Ok(())
}

/// apt reads this after the machine's own configuration, whose proxy and the like
/// stay in force; hooks on updates are the machine's business, not of these lists.
fn config(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"#clear APT::Update;
#clear DPkg::Post-Invoke;
APT::Sandbox::User "root";
Acquire::Languages "none";
Dir::Etc::sourcelist "{dir}/sources.list";
Dir::Etc::sourceparts "{dir}/sources.list.d";
Dir::State "{dir}/state";
Dir::State::lists "{dir}/lists";
Dir::State::status "{dir}/status";
Dir::Cache "{dir}/cache";
"#
    )
}

/// The main mirror that this machine gets Debian's packages from.
pub fn debian_mirror() -> String {
    Mirrors::of_this_machine().main
}

/// Where the machine gets Debian's packages from.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    main: String,
    security: String,
}

impl Mirrors {
    fn of_this_machine() -> Self {
        let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
        files.extend(
            fs::read_dir("/etc/apt/sources.list.d")
                .into_iter()
                .flatten()
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| {
                    path.extension()
                        .is_some_and(|e| e == "list" || e == "sources")
                }),
        );
        files.sort();
        let texts = files
            .iter()
            .filter_map(|path| fs::read_to_string(path).ok());
        Self::parse(&texts.collect::<Vec<_>>().join("\n\n"))
    }

    /// Both forms of sources name the archive by a URI whose last part is
    /// `debian` or `debian-security` (`.list` for a list of mirrors) and, unlike
    /// vendors' archives under such a path, have the component `main`.
    fn parse(sources: &str) -> Self {
        let uri = |archive: &str| {
            let is_archive = |word: &&str| {
                let path = word.trim_end_matches('/').trim_end_matches(".list");
                word.contains(":/") && path.rsplit('/').next() == Some(archive)
            };
            entries(sources)
                .filter(|entry| entry.contains(&"main"))
                .find_map(|entry| entry.into_iter().find(is_archive))
                .map(|uri| uri.trim_end_matches('/').to_owned())
        };
        Self {
            main: uri("debian").unwrap_or_else(|| MIRROR.to_owned()),
            security: uri("debian-security").unwrap_or_else(|| SECURITY_MIRROR.to_owned()),
        }
    }

    /// Our sources.list. The lists of a release past its support expire and are
    /// not renewed; their signatures hold all the same.
    fn sources(&self) -> String {
        let options =
            format!("arch=amd64 target=Packages check-valid-until=no signed-by={KEYRING}");
        let main = SUITES.iter().map(|suite| (&self.main, suite));
        let security = SECURITY_SUITES.iter().map(|suite| (&self.security, suite));
        main.chain(security)
            .map(|(uri, suite)| format!("deb [{options}] {uri} {suite} main\n"))
            .collect()
    }
}

/// The words of each source: one line of a `.list`, one stanza of a `.sources`.
fn entries(sources: &str) -> impl Iterator<Item = Vec<&str>> {
    let is_text = |line: &&str| !line.trim_start().starts_with('#');
    let lines = sources
        .lines()
        .filter(is_text)
        .filter(|line| line.starts_with("deb "))
        .map(|line| line.split_whitespace().collect());
    let stanzas = sources.split("\n\n").map(move |stanza| {
        stanza
            .lines()
            .filter(is_text)
            .filter(|line| !line.starts_with("deb"))
            .flat_map(str::split_whitespace)
            .collect()
    });
    lines.chain(stanzas)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrors(main: &str, security: &str) -> Mirrors {
        Mirrors {
            main: main.to_owned(),
            security: security.to_owned(),
        }
    }

    #[test]
    fn reads_stanzas() {
        let sources = "\
Types: deb
# http://snapshot.example/archive/debian
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.example/debian-security/
Suites: bookworm-security
Components: main
";
        assert_eq!(
            Mirrors::parse(sources),
            mirrors(
                "http://mirror.example/debian",
                "http://mirror.example/debian-security"
            )
        );
    }

    #[test]
    fn reads_lines_and_skips_vendors() {
        let sources = "\
# deb http://old.example/debian bookworm main
deb [arch=amd64] https://download.docker.example/linux/debian bookworm stable
deb [signed-by=/k.gpg] http://ftp.example/debian/ bookworm main contrib
";
        assert_eq!(
            Mirrors::parse(sources),
            mirrors("http://ftp.example/debian", SECURITY_MIRROR)
        );
    }

    #[test]
    fn reads_lists_of_mirrors() {
        let sources = "\
Types: deb
URIs: mirror+file:/etc/apt/mirrors/debian.list
Suites: trixie
Components: main
";
        let list = "mirror+file:/etc/apt/mirrors/debian.list";
        assert_eq!(Mirrors::parse(sources), mirrors(list, SECURITY_MIRROR));
    }

    #[test]
    fn falls_back_to_the_public_mirror() {
        let mirrors = Mirrors::parse("deb http://archive.example/ubuntu noble main\n");
        assert_eq!(mirrors.main, MIRROR);
        let sources = mirrors.sources();
        assert!(sources.contains("http://deb.debian.org/debian bullseye main"));
        assert!(sources.contains("http://deb.debian.org/debian-security bullseye-security main"));
        assert_eq!(
            sources.lines().count(),
            SUITES.len() + SECURITY_SUITES.len()
        );
    }
}

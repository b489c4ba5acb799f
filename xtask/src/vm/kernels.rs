//! The kernels of the VMs: Debian's cloud images, fetched once and kept.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::apt::Apt;
use crate::process;

/// Series that every change is tested on: the oldest that we support, those of
/// Debian's releases, the last long-term one, and the newest.
pub const STANDARD: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "7.2"];

/// Series between them, for `--all`.
const BETWEEN: [&str; 5] = ["6.16", "6.17", "6.19", "7.0", "7.1"];

/// A kernel that is on this machine.
pub struct Kernel {
    /// `6.12`
    pub series: String,
    /// `6.12.107`
    pub version: String,
    /// The compressed kernel, as a boot loader takes it.
    pub image: PathBuf,
}

/// Every series that `--all` names, oldest first.
pub fn all() -> Vec<String> {
    let mut series: Vec<String> = STANDARD
        .into_iter()
        .chain(BETWEEN)
        .map(str::to_owned)
        .collect();
    series.sort_by_key(|name| numbers(name));
    series
}

/// The newest kernel of each series, from the cache or from Debian.
///
/// What is cached is used as it is, without the network; removing its directory
/// under `target/vm/kernels` fetches it anew.
pub fn get(vm_dir: &Path, series: &[String]) -> Result<Vec<Kernel>> {
    let cache = vm_dir.join("kernels");
    let missing: Vec<&String> = series
        .iter()
        .filter(|name| !cache.join(name).is_dir())
        .collect();
    if !missing.is_empty() {
        let apt = Apt::new(&vm_dir.join("apt"))?;
        apt.update()?;
        let packages = apt.kernel_images()?;
        for name in missing {
            let package = newest(&packages, name).with_context(|| {
                format!(
                    "Debian has no cloud kernel {name}; it has {}",
                    known(&packages)
                )
            })?;
            eprintln!(
                "vm: fetching Linux {} ({})",
                package.upstream(),
                package.name
            );
            fetch(&apt, package, &cache, name)?;
        }
    }
    series.iter().map(|name| cached(&cache, name)).collect()
}

fn cached(cache: &Path, series: &str) -> Result<Kernel> {
    let dir = cache.join(series);
    let version = dir.join("version");
    Ok(Kernel {
        series: series.to_owned(),
        version: fs::read_to_string(&version).with_context(|| {
            format!(
                "cannot read {}; remove {}",
                version.display(),
                dir.display()
            )
        })?,
        image: dir.join("vmlinuz"),
    })
}

/// Downloads and unpacks beside the cache, and moves the result in when it is
/// whole: a directory in the cache is always complete.
fn fetch(apt: &Apt, package: &Package, cache: &Path, series: &str) -> Result<()> {
    let staging = cache.join(format!(".{series}"));
    let _ = fs::remove_dir_all(&staging);
    let (tree, done) = (staging.join("tree"), staging.join("done"));
    fs::create_dir_all(&done).with_context(|| format!("cannot make {}", done.display()))?;

    let archive = apt.download(&package.name, &package.version, &staging)?;
    process::run(Command::new("dpkg").arg("-x").arg(&archive).arg(&tree))?;
    let image = find_image(&tree)
        .with_context(|| format!("the package {} holds no vmlinuz", package.name))?;
    fs::rename(&image, done.join("vmlinuz"))?;
    fs::write(done.join("version"), package.upstream())?;
    fs::rename(&done, cache.join(series))
        .with_context(|| format!("cannot move the kernel to {}", cache.join(series).display()))?;
    fs::remove_dir_all(&staging)?;
    Ok(())
}

/// Packages up to 6.18 keep the image in `boot`, later ones beside the modules.
fn find_image(tree: &Path) -> Option<PathBuf> {
    let children = |dir: PathBuf| {
        fs::read_dir(dir)
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .map(|entry| entry.path())
    };
    let in_boot = children(tree.join("boot")).find(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
    });
    in_boot.or_else(|| {
        children(tree.join("usr/lib/modules"))
            .map(|dir| dir.join("vmlinuz"))
            .find(|path| path.is_file())
    })
}

/// One version of one kernel package in the archive.
#[derive(Debug, PartialEq, Eq)]
pub struct Package {
    name: String,
    version: String,
}

impl Package {
    /// The kernel's own version: `6.12.107` of `6.12.107-1`.
    fn upstream(&self) -> &str {
        self.version.split('-').next().unwrap_or(&self.version)
    }

    fn series(&self) -> String {
        let upstream = self.upstream();
        match upstream.match_indices('.').nth(1) {
            Some((end, _)) => upstream[..end].to_owned(),
            None => upstream.to_owned(),
        }
    }

    /// A later Debian release's kernel rebuilt for an earlier one, by another
    /// compiler and without some options: the release's own is what we want.
    fn is_rebuilt(&self) -> bool {
        self.version.contains("~deb")
    }
}

/// Reads package records as `apt-cache search --full` prints them.
pub fn parse_packages(records: &str) -> Vec<Package> {
    records
        .split("\n\n")
        .filter_map(|record| {
            let field = |name: &str| {
                record
                    .lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                    .map(|value| value.trim().to_owned())
            };
            Some(Package {
                name: field("Package")?,
                version: field("Version")?,
            })
        })
        .collect()
}

/// The newest package of a series that holds an image. Since 6.19 `linux-binary-…`
/// holds it and `linux-image-…` only depends on that.
fn newest<'a>(packages: &'a [Package], series: &str) -> Option<&'a Package> {
    packages
        .iter()
        .filter(|package| package.series() == series && !package.is_rebuilt())
        .max_by_key(|package| {
            (
                numbers(package.upstream()),
                package.name.starts_with("linux-binary-"),
            )
        })
}

fn known(packages: &[Package]) -> String {
    let mut series: Vec<String> = packages
        .iter()
        .filter(|package| !package.is_rebuilt())
        .map(Package::series)
        .collect();
    series.sort_by_key(|name| numbers(name));
    series.dedup();
    if series.is_empty() {
        "none at all: see what apt-get said above".to_owned()
    } else {
        series.join(", ")
    }
}

/// `6.12.107` as numbers, to compare by.
pub fn numbers(version: &str) -> Vec<u32> {
    version
        .split('.')
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// Refuses what cannot be a series, so that a slip is told before any download.
pub fn parse_series(text: &str) -> Result<String> {
    if text.split('.').count() != 2 || numbers(text).len() != 2 {
        bail!("a kernel series looks like 6.12");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: &str = "\
Package: linux-image-6.12.94+deb13-cloud-amd64
Source: linux-signed-amd64 (6.12.94+1)
Version: 6.12.94-1
Installed-Size: 1

Package: linux-image-6.12.107+deb13-cloud-amd64
Version: 6.12.107-1
Description: Linux 6.12 for x86-64 cloud (signed)
 Version: 9.9.9-1 is not a field, for it is indented

Package: linux-image-6.1.0-0.deb11.52-cloud-amd64
Version: 6.1.180-1~deb11u1

Package: linux-image-6.1.0-50-cloud-amd64
Version: 6.1.176-1

Package: linux-image-7.2.12+deb13-cloud-amd64
Version: 7.2.12-1~bpo13+1

Package: linux-binary-7.2.12+deb13-cloud-amd64
Version: 7.2.12-1~bpo13+1

Package: linux-image-7.2.9+deb13-cloud-amd64
Version: 7.2.9-1~bpo13+1
";

    fn newest_name(series: &str) -> Option<String> {
        newest(&parse_packages(RECORDS), series).map(|package| package.name.clone())
    }

    #[test]
    fn newest_compares_numbers_not_letters() {
        let name = newest_name("6.12");
        assert_eq!(
            name.as_deref(),
            Some("linux-image-6.12.107+deb13-cloud-amd64")
        );
    }

    #[test]
    fn newest_takes_the_package_with_the_image() {
        let name = newest_name("7.2");
        assert_eq!(
            name.as_deref(),
            Some("linux-binary-7.2.12+deb13-cloud-amd64")
        );
    }

    #[test]
    fn newest_leaves_out_rebuilds_for_older_releases() {
        let name = newest_name("6.1");
        assert_eq!(name.as_deref(), Some("linux-image-6.1.0-50-cloud-amd64"));
    }

    #[test]
    fn a_series_is_not_a_prefix() {
        assert_eq!(newest_name("7"), None);
        assert_eq!(newest_name("6.11"), None);
    }

    #[test]
    fn known_series_are_in_order() {
        assert_eq!(known(&parse_packages(RECORDS)), "6.1, 6.12, 7.2");
    }

    #[test]
    fn all_is_in_order_and_has_the_standard_series() {
        let all = all();
        assert!(all.is_sorted_by_key(|name| numbers(name)));
        assert!(
            STANDARD
                .iter()
                .all(|name| all.iter().any(|other| other == name))
        );
    }

    #[test]
    fn series_are_two_numbers() {
        assert!(parse_series("6.12").is_ok());
        for wrong in ["6", "6.12.1", "6.x", "v6.1", ""] {
            assert!(parse_series(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn finds_the_image_in_both_layouts() {
        let dir = std::env::temp_dir().join(format!("mmwatch-kernels-{}", std::process::id()));
        let old = dir.join("old/boot/vmlinuz-6.12");
        let new = dir.join("new/usr/lib/modules/7.2/vmlinuz");
        for path in [&old, &new] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::write(dir.join("old/boot/System.map-6.12"), "").unwrap();
        assert_eq!(find_image(&dir.join("old")), Some(old));
        assert_eq!(find_image(&dir.join("new")), Some(new));
        assert_eq!(find_image(&dir), None);
        fs::remove_dir_all(&dir).unwrap();
    }
}

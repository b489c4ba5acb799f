//! The kernels of the VMs: Debian's cloud images, fetched once and kept.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{
    apt::Apt,
    packages::{self, Package},
};
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
    // A series may be asked for more than once.
    let missing: BTreeSet<&String> = series
        .iter()
        .filter(|name| !cache.join(name).is_dir())
        .collect();
    if !missing.is_empty() {
        let apt = Apt::new(&vm_dir.join("apt"))?;
        apt.update()?;
        let images = apt.kernel_images()?;
        for name in missing {
            let package = packages::newest(&images, name).with_context(|| {
                format!(
                    "Debian has no cloud kernel {name}; it has {}",
                    packages::known(&images)
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

    let wanted = format!("{}={}", package.name, package.version);
    let archive = apt.download(&wanted, &staging)?;
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

//! Which of Debian's packages holds a kernel, and which of them is the newest.

use super::kernels::numbers;

/// One version of one kernel package in the archive.
#[derive(Debug, PartialEq, Eq)]
pub struct Package {
    /// `linux-image-6.12.107+deb13-cloud-amd64`
    pub name: String,
    /// `6.12.107-1`
    pub version: String,
}

impl Package {
    /// The kernel's own version: `6.12.107` of `6.12.107-1`.
    pub fn upstream(&self) -> &str {
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
pub fn parse(records: &str) -> Vec<Package> {
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
pub fn newest<'a>(packages: &'a [Package], series: &str) -> Option<&'a Package> {
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

/// The series that `packages` have, for a person.
pub fn known(packages: &[Package]) -> String {
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
        newest(&parse(RECORDS), series).map(|package| package.name.clone())
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
        assert_eq!(known(&parse(RECORDS)), "6.1, 6.12, 7.2");
    }
}

//! The manifest of the compiled kernel programs: the sources, the compiler and the linker that
//! made them. `build.rs` and `cargo xtask bpf` share this file.
//!
//! The text is that of `sha256sum`, so `sha256sum --check manifest` in this directory reads it
//! too. Comment lines name the tools.

use std::{collections::BTreeMap, fmt, fs, io, path::Path};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

/// The kernel programs' objects; each is in `mmwatch/bpf` with [`SUFFIX`].
pub const OBJECTS: [&str; 3] = ["watch", "probe", "places"];

/// Of a compressed object.
pub const SUFFIX: &str = ".o.gz";

/// The manifest's name in `mmwatch/bpf`.
pub const NAME: &str = "manifest";

/// The crates that the objects are compiled from, from `mmwatch/bpf`.
pub const CRATES: [&str; 2] = ["../../mmwatch-common", "../../mmwatch-ebpf"];

const HEAD: &str = "# Written by `cargo xtask bpf`. `sha256sum --check manifest` verifies it.";
const COMPILER: &str = "# compiler: ";
const LINKER: &str = "# linker: ";

/// SHA-256 in hexadecimal, by path from `mmwatch/bpf`.
pub type Sums = BTreeMap<String, String>;

/// Everything that the objects in the tree depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// What `rustc --version` prints.
    pub compiler: String,
    /// What `bpf-linker --version` prints.
    pub linker: String,
    /// Of the objects and of each source file.
    pub sums: Sums,
}

impl Manifest {
    /// Reads the manifest in `dir`, which is `mmwatch/bpf`.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(NAME);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not a manifest", path.display()))
    }

    /// Reads a manifest's text.
    pub fn parse(text: &str) -> Result<Self> {
        let mut manifest = Self::default();
        for line in text.lines() {
            if let Some(compiler) = line.strip_prefix(COMPILER) {
                compiler.clone_into(&mut manifest.compiler);
            } else if let Some(linker) = line.strip_prefix(LINKER) {
                linker.clone_into(&mut manifest.linker);
            } else if !line.starts_with('#') {
                let Some((sum, path)) = line.split_once("  ") else {
                    bail!("`{line}` is not a checksum and a path");
                };
                manifest.sums.insert(path.to_owned(), sum.to_owned());
            }
        }
        Ok(manifest)
    }

    /// The first file of `actual` or of the manifest that the other does not have with the same
    /// contents, and how it differs.
    pub fn difference(&self, actual: &Sums) -> Option<String> {
        let paths = self.sums.keys().chain(actual.keys());
        paths
            .min_by_key(|path| {
                // Equal ones last.
                (self.sums.get(*path) == actual.get(*path), *path)
            })
            .and_then(|path| {
                let name = path.trim_start_matches("../");
                match (self.sums.get(path), actual.get(path)) {
                    (Some(recorded), Some(sum)) if recorded == sum => None,
                    (Some(_), Some(_)) => Some(format!("{name} has changed")),
                    (Some(_), None) => Some(format!("{name} is missing")),
                    (None, _) => Some(format!("{name} is new")),
                }
            })
    }
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}")?;
        writeln!(f, "{COMPILER}{}", self.compiler)?;
        writeln!(f, "{LINKER}{}", self.linker)?;
        for (path, sum) in &self.sums {
            writeln!(f, "{sum}  {path}")?;
        }
        Ok(())
    }
}

/// The checksum of `bytes`, in hexadecimal.
pub fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The sums of the objects in `dir`, which is `mmwatch/bpf`, and, where the sources are beside
/// it, of each source file. A crate unpacked from an archive has the objects alone.
pub fn sums(dir: &Path) -> Result<Sums> {
    let mut sums = Sums::new();
    for object in OBJECTS {
        add(&mut sums, dir, &format!("{object}{SUFFIX}"))?;
    }
    for name in CRATES {
        if has_sources(dir) {
            add(&mut sums, dir, &format!("{name}/Cargo.toml"))?;
            add_directory(&mut sums, dir, &format!("{name}/src"))?;
        }
    }
    Ok(sums)
}

/// Whether the sources of the kernel programs are beside `dir`, which is `mmwatch/bpf`.
pub fn has_sources(dir: &Path) -> bool {
    CRATES.iter().all(|name| dir.join(name).is_dir())
}

fn add_directory(sums: &mut Sums, dir: &Path, name: &str) -> Result<()> {
    let path = dir.join(name);
    let entries: io::Result<Vec<_>> = fs::read_dir(&path).and_then(Iterator::collect);
    for entry in entries.with_context(|| format!("cannot list {}", path.display()))? {
        let child = format!("{name}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            add_directory(sums, dir, &child)?;
        } else if child.ends_with(".rs") {
            add(sums, dir, &child)?;
        }
    }
    Ok(())
}

fn add(sums: &mut Sums, dir: &Path, name: &str) -> Result<()> {
    let path = dir.join(name);
    match fs::read(&path) {
        Ok(bytes) => {
            sums.insert(name.to_owned(), sum(&bytes));
        }
        // The comparison with the manifest reports it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    }
    Ok(())
}

//! Unpacks the compiled kernel programs of `bpf/` to where `kernel::load` includes them from,
//! and fails where they are not those of the sources beside them.

#[path = "bpf/manifest.rs"]
mod manifest;

use std::{
    env, fs,
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result, ensure};
use flate2::bufread::GzDecoder;

use self::manifest::{CRATES, Manifest, OBJECTS, SUFFIX};

/// A directory with objects, not compressed, to take instead of those in the tree:
/// `cargo xtask test` tests with it what it compiled from the sources.
const OTHER_OBJECTS: &str = "MMWATCH_BPF_OBJECTS";

fn main() {
    if let Err(error) = build() {
        // One sentence, which cargo shows as its own.
        println!("cargo::error={error:#}");
        process::exit(1);
    }
}

fn build() -> Result<()> {
    println!("cargo::rerun-if-env-changed={OTHER_OBJECTS}");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=bpf");
    let bpf =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR")?).join("bpf");
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR")?);

    if let Some(dir) = env::var_os(OTHER_OBJECTS).filter(|dir| !dir.is_empty()) {
        println!("cargo::rerun-if-changed={}", dir.display());
        for name in OBJECTS {
            let from = Path::new(&dir).join(name);
            fs::copy(&from, out.join(name)).with_context(|| {
                format!("cannot copy {}; unset {OTHER_OBJECTS}", from.display())
            })?;
        }
        return Ok(());
    }
    if manifest::has_sources(&bpf) {
        for name in CRATES {
            for part in ["Cargo.toml", "src"] {
                println!(
                    "cargo::rerun-if-changed={}",
                    bpf.join(name).join(part).display()
                );
            }
        }
    }
    check(&bpf)?;
    for name in OBJECTS {
        let from = bpf.join(format!("{name}{SUFFIX}"));
        let unpack = || -> io::Result<()> {
            let mut object = GzDecoder::new(BufReader::new(File::open(&from)?));
            io::copy(&mut object, &mut File::create(out.join(name))?)?;
            Ok(())
        };
        unpack().with_context(|| format!("cannot unpack {}; {}", from.display(), remedy(&bpf)))?;
    }
    Ok(())
}

/// Objects of other sources would be programs that nobody reads here.
fn check(bpf: &Path) -> Result<()> {
    let mut manifest = Manifest::read(bpf).with_context(|| {
        format!(
            "the compiled kernel programs are not usable; {}",
            remedy(bpf)
        )
    })?;
    if !manifest::has_sources(bpf) {
        manifest.sums.retain(|path, _| path.ends_with(SUFFIX));
    }
    let difference = manifest.difference(&manifest::sums(bpf)?);
    ensure!(
        difference.is_none(),
        "the compiled kernel programs in mmwatch/bpf are stale: {}; {}",
        difference.unwrap_or_default(),
        remedy(bpf)
    );
    Ok(())
}

/// The next step where the objects cannot be used.
fn remedy(bpf: &Path) -> &'static str {
    if manifest::has_sources(bpf) {
        "run `cargo xtask bpf`, which compiles them anew (it installs a BPF toolchain where there \
         is none)"
    } else {
        "fetch this crate again, since it has changed"
    }
}

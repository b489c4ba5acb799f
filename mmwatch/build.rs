//! Builds the kernel programs and puts the objects where `kernel::object` includes them from.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain};
use object::{
    build::elf::{Builder, SectionData},
    elf,
};

/// Directory of a toolchain that carries `core` for the BPF target (Debian's `rustc-web`).
const TOOLCHAIN: &str = "MMWATCH_BPF_TOOLCHAIN";

fn main() -> Result<()> {
    println!("cargo:rerun-if-env-changed={TOOLCHAIN}");
    println!("cargo:rerun-if-changed=../mmwatch-common/src");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR")?)
        .join("../mmwatch-ebpf");
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR")?);

    let custom = env::var(TOOLCHAIN).ok();
    let toolchain = match &custom {
        Some(path) => Toolchain::Custom(path),
        None => Toolchain::Nightly,
    };
    let root_dir = root
        .to_str()
        .context("the path of mmwatch-ebpf is not UTF-8")?;
    let package = Package {
        name: "mmwatch-ebpf",
        root_dir,
        ..Package::default()
    };
    if custom.is_some() {
        // aya-ebpf and `watch` use inline assembly, which is unstable for BPF. Set here and not by whoever calls
        // cargo: other build scripts watch the variable and would all run again.
        // SAFETY: no other thread reads or writes the environment.
        unsafe { env::set_var("RUSTC_BOOTSTRAP", "aya_ebpf,watch") };
    }
    aya_build::build_ebpf([package], toolchain)?;

    // With AYA_BUILD_SKIP there is nothing to include; an empty object lets
    // everything that needs no kernel build, and `load` says what is missing.
    // The empty one may be there from the run before.
    for name in ["watch", "probe", "places"] {
        let object = out.join(name);
        if fs::metadata(&object).is_ok_and(|object| object.len() > 0) {
            strip(&object).with_context(|| format!("stripping {}", object.display()))?;
        } else {
            fs::write(&object, []).with_context(|| format!("writing {}", object.display()))?;
        }
    }
    Ok(())
}

/// Takes out what only debuggers read, nine tenths of an object: mmwatch carries
/// the rest in its own executable. The types that the kernel reads (BTF) stay.
fn strip(path: &Path) -> Result<()> {
    let data = fs::read(path)?;
    let mut object = Builder::read64(&*data)?;
    for section in &mut object.sections {
        let name = section.name.to_string();
        section.delete = name.starts_with(".debug_") || name.starts_with(".rel.debug_");
    }
    // LLVM keeps names of sections and of symbols in one table; the builder wants two.
    let names = object.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = elf::SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::with_capacity(data.len());
    object.write(&mut stripped)?;
    fs::write(path, stripped)?;
    Ok(())
}

//! `cargo xtask bpf`: compiles the kernel programs and puts them into the tree, so that nobody
//! else needs a BPF toolchain.

#[path = "../../mmwatch/bpf/manifest.rs"]
mod manifest;
mod toolchain;

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use flate2::{Compression, GzBuilder, bufread::GzDecoder};
use object::{
    build::elf::{Builder, SectionData},
    elf,
};

use self::manifest::{Manifest, OBJECTS, SUFFIX};
pub use self::toolchain::Toolchain;
use crate::{build, process, workspace::Workspace};

/// The crate of the kernel programs, which compiles for no other target.
const CRATE: &str = "mmwatch-ebpf";
const TARGET: &str = "bpfel-unknown-none";
/// Of mmwatch's build script: a directory with objects to take instead of the tree's.
pub const OTHER_OBJECTS: &str = "MMWATCH_BPF_OBJECTS";
/// The flag by which aya-ebpf picks registers and calls.
const ARCHITECTURE: &str = r#"--cfg=bpf_target_arch="x86_64""#;

/// What is asked for.
#[derive(Default, clap::Args)]
pub struct Options {
    /// Compile them and compare with those in the tree, which stay as they are
    #[arg(long)]
    check: bool,
}

/// Compiled kernel programs.
pub struct Built {
    /// The objects, not compressed, by the names of [`OBJECTS`].
    pub dir: PathBuf,
    manifest: Manifest,
}

/// Whether compiled programs are those in the tree.
pub enum Comparison {
    /// Byte for byte.
    Same,
    /// They are not, and another compiler or linker made those in the tree.
    OtherTools(String),
}

/// Compiles them; without `--check`, refreshes the tree.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let built = build(workspace)?;
    if options.check {
        match built.compare(workspace)? {
            Comparison::Same => println!("mmwatch/bpf holds what the sources compile to"),
            Comparison::OtherTools(which) => bail!("not comparable: {which}"),
        }
    } else {
        built.install(workspace)?;
        println!("mmwatch/bpf holds what the sources compile to");
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the kernel programs are compiled from this file, named from the top directory.
pub fn compiles(file: &str) -> bool {
    manifest::CRATES
        .iter()
        .any(|dir| file.starts_with(dir.trim_start_matches("../")))
}

/// Fails where the tree's objects are stale. cargo goes by the times of files and does not see
/// a change that comes with an old time.
pub fn ensure_fresh(workspace: &Workspace) -> Result<()> {
    match stale(workspace)? {
        Some(difference) => bail!(
            "the compiled kernel programs in mmwatch/bpf are stale: {difference}; run `cargo \
             xtask bpf`"
        ),
        None => Ok(()),
    }
}

/// Why the tree's objects are stale, if they are.
fn stale(workspace: &Workspace) -> Result<Option<String>> {
    let dir = tree(workspace);
    Ok(Manifest::read(&dir)?.difference(&manifest::sums(&dir)?))
}

/// `cargo clippy` for the kernel programs.
pub fn clippy(workspace: &Workspace) -> Result<()> {
    let mut clippy = Toolchain::get(false)?.cargo(workspace, "clippy");
    clippy.env("CARGO_ENCODED_RUSTFLAGS", ARCHITECTURE);
    process::run(clippy.args(["--", "-D", "warnings"]))
}

/// Compiles the kernel programs into `target/bpf`.
pub fn build(workspace: &Workspace) -> Result<Built> {
    let toolchain = Toolchain::get(false)?;
    let mut cargo = toolchain.cargo(workspace, "build");
    cargo.args([
        "--release",
        "--bins",
        "--message-format=json-render-diagnostics",
    ]);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace, toolchain)?);
    let messages = process::stdout(&mut cargo)?;
    let dir = objects(workspace);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for name in OBJECTS {
        let object = build::executable(&messages, "bin", name)?;
        let stripped = strip(&object).with_context(|| format!("stripping {}", object.display()))?;
        write(&dir.join(name), &stripped)?;
    }
    Ok(Built {
        dir,
        manifest: Manifest {
            compiler: toolchain.compiler()?,
            linker: process::quiet_stdout(Command::new("bpf-linker").arg("--version"))?
                .trim()
                .to_owned(),
            sums: manifest::Sums::new(),
        },
    })
}

impl Built {
    /// Holds the objects against those in the tree.
    ///
    /// # Errors
    ///
    /// The same tools made others of the same sources, so those in the tree are not what they
    /// claim to be; or they are stale.
    pub fn compare(&self, workspace: &Workspace) -> Result<Comparison> {
        ensure_fresh(workspace)?;
        let recorded = Manifest::read(&tree(workspace))?;
        for name in OBJECTS {
            let packed = tree(workspace).join(format!("{name}{SUFFIX}"));
            if unpacked(&packed)? == read(&self.dir.join(name))? {
                continue;
            }
            let (here, there) = (&self.manifest, &recorded);
            if here.compiler == there.compiler && here.linker == there.linker {
                bail!(
                    "{} is not what {} and {} make of the sources; run `cargo xtask bpf`",
                    packed.display(),
                    here.compiler,
                    here.linker
                );
            }
            return Ok(Comparison::OtherTools(format!(
                "the tree's are of {} and {}, these of {} and {}",
                there.compiler, there.linker, here.compiler, here.linker
            )));
        }
        Ok(Comparison::Same)
    }

    /// Puts the objects and their manifest into the tree.
    pub fn install(&self, workspace: &Workspace) -> Result<()> {
        let dir = tree(workspace);
        for name in OBJECTS {
            write(&dir.join(format!("{name}{SUFFIX}")), &self.packed(name)?)?;
        }
        let manifest = Manifest {
            sums: manifest::sums(&dir)?,
            ..self.manifest.clone()
        };
        write(&dir.join(manifest::NAME), manifest.to_string().as_bytes())
    }

    /// An object as it is in the tree. The same bytes give the same bytes.
    fn packed(&self, name: &str) -> Result<Vec<u8>> {
        let bytes = read(&self.dir.join(name))?;
        let mut gz = GzBuilder::new().read(&*bytes, Compression::best());
        let mut packed = Vec::new();
        gz.read_to_end(&mut packed)?;
        Ok(packed)
    }
}

/// Where compiled objects are, not compressed, for a build that takes them instead of the
/// tree's.
pub fn objects(workspace: &Workspace) -> PathBuf {
    workspace.target().join("bpf/objects")
}

/// Where the tree has them.
fn tree(workspace: &Workspace) -> PathBuf {
    workspace.root().join("mmwatch/bpf")
}

/// rustc's flags, separated as cargo wants them. The types of the programs name source files:
/// as seen from the top directory, so that every machine makes the same object.
fn flags(workspace: &Workspace, toolchain: Toolchain) -> Result<String> {
    let mut remapped = vec![
        (workspace.root().to_owned(), "mmwatch"),
        (toolchain.sysroot()?.join("lib/rustlib/src/rust"), "rust"),
    ];
    // A directory for each registry, named after where it is fetched from.
    let registries = home::cargo_home()
        .context("finding cargo's home directory")?
        .join("registry/src");
    // There is none where dependencies are vendored.
    for registry in fs::read_dir(&registries).into_iter().flatten() {
        remapped.push((registry?.path(), "registry"));
    }
    let mut flags = vec![
        ARCHITECTURE.to_owned(),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
    ];
    flags.extend(
        remapped
            .iter()
            .map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display())),
    );
    Ok(flags.join("\x1f"))
}

/// Takes out what only debuggers read, nine tenths of an object. The types that the kernel
/// reads (BTF) stay.
fn strip(path: &Path) -> Result<Vec<u8>> {
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
    Ok(stripped)
}

fn unpacked(path: &Path) -> Result<Vec<u8>> {
    let packed = read(path)?;
    let mut bytes = Vec::new();
    GzDecoder::new(&*packed)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot unpack {}", path.display()))?;
    Ok(bytes)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(sums: &[(&str, &str)]) -> Manifest {
        Manifest {
            compiler: "rustc 1.97.0-nightly".to_owned(),
            linker: "bpf-linker 0.13.0".to_owned(),
            sums: sums
                .iter()
                .map(|(path, sum)| ((*path).to_owned(), (*sum).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn the_objects_in_the_tree_are_those_of_the_sources() {
        let stale = stale(&Workspace::new().unwrap()).unwrap();
        assert_eq!(stale, None, "run `cargo xtask bpf`");
    }

    #[test]
    fn a_manifest_reads_back() {
        let manifest = manifest(&[
            ("../../mmwatch-ebpf/src/emit.rs", "12"),
            ("watch.o.gz", "ab"),
        ]);
        assert_eq!(Manifest::parse(&manifest.to_string()).unwrap(), manifest);
        let error = Manifest::parse("<<<<<<< HEAD\n").unwrap_err().to_string();
        assert_eq!(error, "`<<<<<<< HEAD` is not a checksum and a path");
    }

    #[test]
    fn a_difference_names_the_file() {
        let recorded = manifest(&[("../../a.rs", "1"), ("../../b.rs", "2")]);
        let against = |sums: &[(&str, &str)]| recorded.difference(&manifest(sums).sums);
        assert_eq!(against(&[("../../a.rs", "1"), ("../../b.rs", "2")]), None);
        for (sums, expected) in [
            (
                &[("../../a.rs", "1"), ("../../b.rs", "3")][..],
                "b.rs has changed",
            ),
            (&[("../../b.rs", "2")], "a.rs is missing"),
            (
                &[
                    ("../../a.rs", "1"),
                    ("../../b.rs", "2"),
                    ("../../c.rs", "3"),
                ],
                "c.rs is new",
            ),
        ] {
            assert_eq!(against(sums).as_deref(), Some(expected));
        }
    }

    #[test]
    fn the_sources_are_those_that_are_compiled() {
        assert!(compiles("mmwatch-ebpf/src/emit.rs"));
        assert!(compiles("mmwatch-common/src/event.rs"));
        assert!(!compiles("mmwatch/src/event.rs"));
    }
}

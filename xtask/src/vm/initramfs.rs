//! The VM's whole file system: an archive in the kernel's "newc" cpio format.
//!
//! Written by hand because it is forty lines, and because the archive needs
//! `/dev/console`, a device that only root could put into a directory for `cpio`.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::tools::Tools;
use crate::process;

const BUSYBOX: &str = "usr/bin/busybox";
const INIT: &str = include_str!("init.sh");

/// Programs that need ld.so, one to see how it is loaded and one that runs containers, and
/// all that they need: by their paths there, and among the unpacked packages.
const DYNAMIC: [(&str, &str); 5] = [
    ("bin/dynamic-cat", "usr/bin/cat"),
    ("bin/runc", "usr/sbin/runc"),
    (
        "lib/x86_64-linux-gnu/libseccomp.so.2",
        "usr/lib/x86_64-linux-gnu/libseccomp.so.2",
    ),
    (
        "lib64/ld-linux-x86-64.so.2",
        "usr/lib64/ld-linux-x86-64.so.2",
    ),
    (
        "lib/x86_64-linux-gnu/libc.so.6",
        "usr/lib/x86_64-linux-gnu/libc.so.6",
    ),
];

const DIRECTORIES: [&str; 11] = [
    "bin",
    "dev",
    "etc",
    "lib",
    "lib/x86_64-linux-gnu",
    "lib64",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
];

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// What every VM of one run has in common.
pub struct Rootfs {
    tools: Tools,
    applets: Vec<String>,
    /// Static executables, by their names in `/bin`.
    programs: Vec<(String, PathBuf)>,
}

impl Rootfs {
    /// busybox and `programs`, which must be static.
    pub fn new(tools: Tools, programs: Vec<(String, PathBuf)>) -> Result<Self> {
        let busybox = tools.path(BUSYBOX);
        let applets = process::quiet_stdout(Command::new(busybox).arg("--list"))?;
        let applets = applets
            .lines()
            .filter(|name| *name != "busybox")
            .map(str::to_owned)
            .collect();
        Ok(Self {
            tools,
            applets,
            programs,
        })
    }

    /// What it is made of.
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// Writes the archive; `script` is what the VM runs.
    pub fn write(&self, path: &Path, script: &str) -> Result<()> {
        let create = || -> Result<()> {
            let mut archive = Archive::new(BufWriter::new(File::create(path)?));
            for name in DIRECTORIES {
                archive.add(name, DIRECTORY | 0o755, &[])?;
            }
            archive.device("dev/console", (5, 1))?;
            archive.add(
                "etc/passwd",
                REGULAR | 0o644,
                b"root:x:0:0:root:/root:/bin/sh\n",
            )?;
            archive.add("etc/group", REGULAR | 0o644, b"root:x:0:\n")?;
            archive.add("init", REGULAR | 0o755, INIT.as_bytes())?;
            archive.add("run.sh", REGULAR | 0o755, script.as_bytes())?;
            archive.file("bin/busybox", &self.tools.path(BUSYBOX))?;
            for applet in &self.applets {
                archive.add(&format!("bin/{applet}"), SYMLINK | 0o777, b"busybox")?;
            }
            for (name, from) in DYNAMIC {
                archive.file(name, &self.tools.path(from))?;
            }
            for (name, program) in &self.programs {
                archive.file(&format!("bin/{name}"), program)?;
            }
            archive.finish()
        };
        create().with_context(|| format!("cannot write the initramfs {}", path.display()))
    }
}

/// A cpio archive being written.
struct Archive<W> {
    to: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    fn new(to: W) -> Self {
        Self { to, entries: 0 }
    }

    fn file(&mut self, name: &str, from: &Path) -> Result<()> {
        let contents = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.add(name, REGULAR | 0o755, &contents)
    }

    fn add(&mut self, name: &str, mode: u32, contents: &[u8]) -> Result<()> {
        self.entry(name, mode, (0, 0), contents)
    }

    fn device(&mut self, name: &str, number: (u32, u32)) -> Result<()> {
        self.entry(name, CHARACTER_DEVICE | 0o600, number, &[])
    }

    fn finish(mut self) -> Result<()> {
        self.add("TRAILER!!!", 0, &[])?;
        self.to.flush()?;
        Ok(())
    }

    /// A header of fourteen hexadecimal numbers, the name with its NUL, and the
    /// contents; name and contents each end on a multiple of four bytes.
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), contents: &[u8]) -> Result<()> {
        const HEADER: usize = 6 + 13 * 8;
        self.entries += 1;
        let size = u32::try_from(contents.len()).context("a file of 4 GiB or more")?;
        let name_size = u32::try_from(name.len() + 1).context("a name of 4 GiB or more")?;
        let (inode, uid, gid, links, mtime, checksum) = (self.entries, 0, 0, 1, 0, 0);
        write!(self.to, "070701")?;
        for number in [
            inode, mode, uid, gid, links, mtime, size, 0, 0, device.0, device.1, name_size,
            checksum,
        ] {
            write!(self.to, "{number:08x}")?;
        }
        write!(self.to, "{name}\0")?;
        self.pad(HEADER + name.len() + 1)?;
        self.to.write_all(contents)?;
        self.pad(contents.len())
    }

    fn pad(&mut self, written: usize) -> Result<()> {
        let padding = written.next_multiple_of(4) - written;
        self.to.write_all(&[0; 3][..padding])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(fill: impl FnOnce(&mut Archive<&mut Vec<u8>>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        fill(&mut archive);
        archive.finish().unwrap();
        bytes
    }

    /// Reads the archive back by the format's description: (name, mode, contents).
    fn entries(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        while !bytes.is_empty() {
            assert_eq!(&bytes[..6], b"070701");
            let number = |index: usize| {
                let digits = &bytes[6 + index * 8..][..8];
                u32::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            };
            let (mode, size, name_size) = (number(1), number(6) as usize, number(11) as usize);
            let name = std::str::from_utf8(&bytes[110..110 + name_size - 1]).unwrap();
            assert_eq!(bytes[110 + name_size - 1], 0);
            let start = (110 + name_size).next_multiple_of(4);
            entries.push((name.to_owned(), mode, bytes[start..start + size].to_vec()));
            bytes = &bytes[(start + size).next_multiple_of(4)..];
        }
        entries
    }

    #[test]
    fn an_archive_reads_back() {
        let bytes = archive(|archive| {
            archive.add("bin", DIRECTORY | 0o755, &[]).unwrap();
            archive.add("bin/sh", SYMLINK | 0o777, b"busybox").unwrap();
            archive.add("a", REGULAR | 0o644, b"12345").unwrap();
        });
        assert_eq!(
            entries(&bytes),
            [
                ("bin".to_owned(), 0o040_755, Vec::new()),
                ("bin/sh".to_owned(), 0o120_777, b"busybox".to_vec()),
                ("a".to_owned(), 0o100_644, b"12345".to_vec()),
                ("TRAILER!!!".to_owned(), 0, Vec::new()),
            ]
        );
    }

    #[test]
    fn devices_carry_their_numbers() {
        let bytes = archive(|archive| archive.device("dev/console", (5, 1)).unwrap());
        assert_eq!(&bytes[6 + 9 * 8..6 + 11 * 8], b"0000000500000001");
    }
}

//! Reads an address space, and what tells its parts apart.
//!
//! Of the files read, only `smaps` and, for want of anything else, `map_files`
//! take the process's `mmap_lock` on every kernel; `maps` did so up to 6.16.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::{
        ffi::OsStringExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use object::ReadCache;

use super::{
    AddressSpace, Detail, Lock, add_details, clues,
    elf::Elf,
    parse_maps, parse_smaps,
    segment::{Clues, Object, classify, code_files},
};
use crate::{
    error::{Error, Result},
    event::{Comm, Dev},
    kernel::btf::{self, Btf},
    process::{Proc, page_bytes, read_text},
    space::{Line, MalformedLine},
};

/// What was read of a process.
#[derive(Debug)]
pub struct Reading {
    pid: u32,
    comm: Comm,
    lock: Lock,
    source: Source,
    /// Of the file that `source` names.
    text: Vec<u8>,
    clues: Clues,
}

/// What to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `/proc/PID/maps`.
    Maps,
    /// `/proc/PID/smaps`: the same, and what is in memory. The kernel walks the
    /// page tables for it, with the process's `mmap_lock` taken for reading.
    Smaps,
}

impl Source {
    const fn file_name(self) -> &'static str {
        match self {
            Self::Maps => "maps",
            Self::Smaps => "smaps",
        }
    }
}

impl Reading {
    /// Reads a process.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for what has no address space, [`Error::Kernel`] when
    /// it may not be looked at, [`Error::Io`] when it ends meanwhile.
    pub fn take(proc: &Proc, pid: u32, source: Source) -> Result<Self> {
        let text = text(proc, pid, source)?;
        let dir = proc.space_dir(pid);
        let path = dir.join(source.file_name());
        let mut clues = look_around(&dir);
        let lines = match source {
            Source::Maps => parse_maps(&text),
            Source::Smaps => parse_smaps(&text).map(|(lines, _)| lines),
        };
        let lines = lines.map_err(|error| malformed(&path, error))?;
        for (id, line) in code_files(&lines) {
            clues
                .objects
                .insert(id, read_object(&dir, line, clues.page_bytes));
        }
        Ok(Self {
            pid,
            comm: proc.comm(pid).unwrap_or_default(),
            lock: match source {
                Source::Maps => lock_of_maps(proc),
                Source::Smaps => Lock::MmapAndPageTables,
            },
            source,
            text,
            clues,
        })
    }

    /// The address space that was read.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the kernel's text is not as it should be.
    pub fn space(&self) -> Result<AddressSpace<'_>> {
        let malformed = |error| malformed(Path::new(self.source.file_name()), error);
        let (lines, details): (_, Vec<Detail>) = match self.source {
            Source::Maps => (parse_maps(&self.text).map_err(malformed)?, Vec::new()),
            Source::Smaps => parse_smaps(&self.text).map_err(malformed)?,
        };
        let mut vmas = classify(lines, &self.clues);
        add_details(&mut vmas, &details);
        Ok(AddressSpace {
            pid: self.pid,
            comm: self.comm,
            lock: self.lock,
            vmas,
            watch: None,
        })
    }
}

/// The kernel's text about the address space of a process.
///
/// # Errors
///
/// As [`Reading::take`].
pub(crate) fn text(proc: &Proc, pid: u32, source: Source) -> Result<Vec<u8>> {
    let dir = proc.dir(pid);
    let path = dir.join(source.file_name());
    let text = fs::read(&path).map_err(|error| refused(pid, &path, error))?;
    if !text.is_empty() {
        return Ok(text);
    }
    let path = proc.space_dir(pid).join(source.file_name());
    let text = fs::read(&path).map_err(|error| refused(pid, &path, error))?;
    if text.is_empty() {
        return Err(no_address_space(pid, &dir));
    }
    Ok(text)
}

pub(crate) fn malformed(path: &Path, error: MalformedLine) -> Error {
    Error::io(format!("reading {}", path.display()))(io::Error::other(error))
}

/// Why a file of a process cannot be read.
fn refused(pid: u32, path: &Path, error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => Error::Kernel(format!(
            "process {pid} may not be looked at ({}: {error}); run mmwatch as root, as the \
             process's own user or with CAP_SYS_PTRACE",
            path.display()
        )),
        Some(libc::ENOENT | libc::ESRCH) => Error::io(format!(
            "process {pid} ended before its address space was read; `ps -e` lists those that \
             there are"
        ))(error),
        _ => Error::io(format!("reading {}", path.display()))(error),
    }
}

fn no_address_space(pid: u32, dir: &Path) -> Error {
    let status = read_text(&dir.join("status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    let ended = state.is_none_or(|state| state.trim_start().starts_with(['Z', 'X']));
    Error::Usage(if ended {
        format!(
            "process {pid} has ended, and has no address space any more; `ps -e` lists those \
             that there are"
        )
    } else {
        format!(
            "process {pid} has no address space of its own, as it is a thread of the kernel; \
             name a process of a program"
        )
    })
}

/// All clues but the objects. What cannot be read is left unknown.
fn look_around(dir: &Path) -> Clues {
    let page_bytes = page_bytes();
    let auxiliary = fs::read(dir.join("auxv")).unwrap_or_default();
    let auxiliary = clues::auxiliary(&auxiliary, page_bytes);
    let (stack_pointers, all_threads) = stack_pointers(dir).unwrap_or_default();
    Clues {
        objects: Default::default(),
        exe: fs::read_link(dir.join("exe"))
            .ok()
            .map(|path| path.into_os_string().into_vec()),
        entry: auxiliary.entry,
        interpreter: auxiliary.interpreter,
        stack_pointers,
        all_threads,
        hugetlbfs: hugetlbfs(dir),
        page_bytes,
    }
}

/// Devices of hugetlbfs that a process sees, by its directory in `/proc`.
pub(crate) fn hugetlbfs(dir: &Path) -> Vec<Dev> {
    let mountinfo = fs::read(dir.join("mountinfo")).unwrap_or_default();
    clues::hugetlbfs(&String::from_utf8_lossy(&mountinfo))
}

/// In order, and whether every thread has one here.
fn stack_pointers(dir: &Path) -> io::Result<(Vec<u64>, bool)> {
    let mut pointers = Vec::new();
    let mut all = true;
    for task in fs::read_dir(dir.join("task"))? {
        let text = fs::read_to_string(task?.path().join("syscall"));
        match text.ok().as_deref().and_then(clues::stack_pointer) {
            Some(pointer) => pointers.push(pointer),
            // It runs, or asking is not allowed.
            None => all = false,
        }
    }
    pointers.sort_unstable();
    Ok((pointers, all))
}

/// Reads the headers of a mapped file: by its path below the root of the
/// process, which is right for containers, or below mmwatch's own, which is for
/// a chroot; where another file has that path now, as the program that the
/// process runs, or last, as that takes `mmap_lock`, through the mapping.
fn read_object(dir: &Path, line: &Line<'_>, page_bytes: u64) -> Object {
    let open = |path: &Path| open_regular(path, line.inode);
    let path = unescaped(line.name);
    let in_root = || open(&dir.join("root").join(path.strip_prefix("/").ok()?));
    let by_mapping = || {
        let range = format!("{:x}-{:x}", line.range.start, line.range.end);
        open(&dir.join("map_files").join(range))
    };
    let file = in_root()
        .or_else(|| open(&path))
        .or_else(|| open(&dir.join("exe")))
        .or_else(by_mapping);
    match file {
        Some(file) => match Elf::parse(&ReadCache::new(file), page_bytes) {
            Some(elf) => Object::Elf(elf),
            None => Object::Other,
        },
        None => Object::Unread,
    }
}

/// A path of `/proc/PID/maps`.
fn unescaped(name: &[u8]) -> PathBuf {
    // The kernel writes newlines so.
    const NEWLINE: &[u8] = b"\\012";
    let mut path = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, after)) = rest.split_first() {
        let (byte, after) = match rest.strip_prefix(NEWLINE) {
            Some(after) => (b'\n', after),
            None => (first, after),
        };
        path.push(byte);
        rest = after;
    }
    OsString::from_vec(path).into()
}

/// Opens a file, if it is the one that is wanted. Nothing else is opened: not
/// a device, on which that may have effects, nor a pipe, which would wait.
fn open_regular(path: &Path, inode: u64) -> Option<File> {
    let is_wanted =
        |metadata: &fs::Metadata| metadata.file_type().is_file() && metadata.ino() == inode;
    if !is_wanted(&fs::metadata(path).ok()?) {
        return None;
    }
    let mut options = File::options();
    options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path).ok()?;
    is_wanted(&file.metadata().ok()?).then_some(file)
}

/// Whether this kernel reads `maps` VMA by VMA: then what it keeps of a reader
/// has a member for the VMA that is locked (6.17, and by another name since).
pub(crate) fn lock_of_maps(proc: &Proc) -> Lock {
    const LOCKED_VMA: [&str; 2] = [
        "proc_maps_locking_ctx.locked_vma",
        "proc_maps_private.locked_vma",
    ];
    match Btf::read(&proc.sysfs().join(btf::VMLINUX)) {
        Ok(btf) if LOCKED_VMA.iter().any(|path| btf.offset(path).is_some()) => Lock::PerVma,
        Ok(_) => Lock::Mmap,
        Err(error) => {
            log::info!("whether reading maps takes mmap_lock is not known: {error}");
            Lock::Unknown
        }
    }
}

#[cfg(test)]
mod tests;

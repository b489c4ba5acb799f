//! Reads who maps what.
//!
//! Takes of each process what reading its `/proc/PID/maps` takes, see
//! [`crate::maps::read`].

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    ptr,
};

use super::{ObjectId, Objects, Process, Shared, Wanted};
use crate::{
    error::{Error, Result},
    event::Dev,
    maps::{
        FileKind, parse_maps,
        read::{Source, hugetlbfs, lock_of_maps, malformed, text},
    },
    process::{Proc, page_bytes},
    space::Line,
    text::Escaped,
};

/// What the person asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// What any processes have in common.
    All,
    /// What this process may have in common with others.
    Process(u32),
    /// Who maps this file.
    File(PathBuf),
}

/// Reads every process but mmwatch itself.
///
/// # Errors
///
/// [`Error::Usage`] for a file that is not there or cannot be mapped and for a
/// process without an address space, [`Error::Kernel`] for those that may not
/// be looked at.
pub fn look(proc: &Proc, subject: &Subject) -> Result<Shared> {
    let wanted = match subject {
        Subject::All => Wanted::All,
        Subject::Process(pid) => Wanted::Process(*pid),
        Subject::File(path) => Wanted::Object(identify(proc, path)?),
    };
    let mut objects = Objects::default();
    if let Wanted::Process(pid) = wanted {
        // Whatever is wrong with this one is worth an error.
        let text = text(proc, pid, Source::Maps)?;
        add(&mut objects, proc, pid, &text, &wanted)?;
    }
    let own_pid = proc.own_pid();
    let mut unread_processes = 0;
    for pid in proc.pids()? {
        if Some(pid) == own_pid || wanted == Wanted::Process(pid) {
            continue;
        }
        match proc.maps(pid) {
            Ok(Some(text)) => add(&mut objects, proc, pid, &text, &wanted)?,
            Ok(None) => {}
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                unread_processes += 1;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Shared {
        lock: lock_of_maps(proc),
        unread_processes,
        objects: objects.wanted(&wanted),
    })
}

/// Adds what is wanted of a process, unless it has ended meanwhile.
fn add(objects: &mut Objects, proc: &Proc, pid: u32, text: &[u8], wanted: &Wanted) -> Result<()> {
    let dir = proc.dir(pid);
    let mut lines = parse_maps(text).map_err(|error| malformed(&dir.join("maps"), error))?;
    lines.retain(|line| wanted.wants(line));
    if lines.is_empty() {
        return Ok(());
    }
    let ipc_namespace = proc.ipc_namespace(pid).unwrap_or(0);
    let hugetlbfs = hugetlbfs(&dir);
    // Last, as it tells that the others were read of this process too.
    let Some(comm) = proc.comm(pid) else {
        return Ok(());
    };
    let process = Process {
        pid,
        comm,
        ipc_namespace,
        hugetlbfs,
    };
    for line in &lines {
        objects.add(&process, line);
    }
    Ok(())
}

/// What a file is told by in `/proc/PID/maps`.
///
/// That is not always what stat(2) says: btrfs and overlayfs have device
/// numbers for the one and others for the other. So the file is mapped, which
/// reads nothing of it, and looked up in mmwatch's own maps. Where it may not
/// be opened, and for devices, which opening may have an effect on, it is stat.
fn identify(proc: &Proc, path: &Path) -> Result<ObjectId> {
    let metadata = fs::metadata(path).map_err(|error| no_file(path, error))?;
    let kind = metadata.file_type();
    if kind.is_dir() || kind.is_fifo() || kind.is_socket() {
        return Err(Error::Usage(format!(
            "{} is a directory, a pipe or a socket, which cannot be mapped; name a file",
            shown(path)
        )));
    }
    if kind.is_file() {
        match by_mapping(proc, path) {
            Ok(id) => return Ok(id),
            Err(error) => log::info!("{} is looked up by stat: {error}", shown(path)),
        }
    }
    let dev = metadata.dev();
    Ok(ObjectId {
        dev: Dev(libc::major(dev) << 20 | libc::minor(dev)),
        inode: metadata.ino(),
        ipc_namespace: None,
    })
}

fn no_file(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::Usage(format!(
            "there is no file {}; correct the path, or name a process by its number",
            shown(path)
        )),
        io::ErrorKind::PermissionDenied => Error::Kernel(format!(
            "{} may not be looked at ({error}); run mmwatch as root",
            shown(path)
        )),
        _ => Error::io(format!("looking at {}", shown(path)))(error),
    }
}

fn shown(path: &Path) -> String {
    Escaped(path.as_os_str().as_encoded_bytes()).to_string()
}

/// Maps a file, without any access to it, and finds it in mmwatch's own maps.
fn by_mapping(proc: &Proc, path: &Path) -> io::Result<ObjectId> {
    let mut options = File::options();
    options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path)?;
    // A length of one byte is rounded up to a page, be it a huge one.
    // SAFETY: it takes unused addresses, which nothing else refers to.
    let addr = unsafe {
        libc::mmap(
            ptr::null_mut(),
            1,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_NORESERVE,
            file.as_raw_fd(),
            0,
        )
    };
    if addr == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let text = proc.own_maps();
    let lines = text.as_deref().ok().and_then(|text| parse_maps(text).ok());
    let line = lines.and_then(|lines| {
        let mut lines = lines.into_iter();
        lines.find(|line| line.range.start == addr as u64)
    });
    let len = line.as_ref().map_or(page_bytes(), Line::size_bytes);
    // SAFETY: these are the addresses that mmap gave.
    unsafe { libc::munmap(addr, len as usize) };
    let own_namespace = || proc.ipc_namespace(proc.own_pid()?);
    line.and_then(|line| {
        let (kind, _) = FileKind::of(&line, &[])?;
        Some(ObjectId::new(&line, kind, own_namespace().unwrap_or(0)))
    })
    .ok_or_else(|| io::Error::other("it is not among the own mappings"))
}

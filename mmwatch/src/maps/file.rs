//! What sort of file is mapped, told by its line of `/proc/PID/maps`.

use super::Certainty;
use crate::{event::Dev, space::Line};

/// The sort of a mapped file. The kernel has files for shared memory too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A file of some file system.
    File,
    /// Shared anonymous memory, or a private mapping of `/dev/zero`.
    Anonymous,
    /// A file of `memfd_create`.
    Memfd,
    /// A segment of System V; its inode number is its `shmid` (`newseg` in
    /// `ipc/shm.c`, which says that this must stay).
    SysvShm,
    /// Shared memory of POSIX (`/dev/shm`).
    PosixShm,
    /// Huge pages that were asked for (`MAP_HUGETLB`, hugetlbfs).
    Hugetlb,
    /// A device.
    Device,
    /// What the kernel has a file for, but no path: `socket:[123]`.
    Special,
}

impl FileKind {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::File,
        Self::Anonymous,
        Self::Memfd,
        Self::SysvShm,
        Self::PosixShm,
        Self::Hugetlb,
        Self::Device,
        Self::Special,
    ];

    /// The sort of a line's file and how sure that is; `None` for no file.
    /// `hugetlbfs` are the devices of that file system.
    pub fn of(line: &Line<'_>, hugetlbfs: &[Dev]) -> Option<(Self, Certainty)> {
        if !line.has_file() {
            return None;
        }
        let name = line.name;
        // Files that the kernel makes for itself are on no device of any disk.
        let internal = line.dev.0 >> 20 == 0;
        let known = if is_zero(name) {
            Self::Anonymous
        } else if internal && is_sysv(name) {
            Self::SysvShm
        } else if internal && name.starts_with(b"/memfd:") {
            Self::Memfd
        } else if internal && is_huge_memory(name) || hugetlbfs.contains(&line.dev) {
            Self::Hugetlb
        } else if name.starts_with(b"/dev/shm/") {
            Self::PosixShm
        } else if name.starts_with(b"/dev/hugepages/") {
            return Some((Self::Hugetlb, Certainty::Guessed));
        } else if name.starts_with(b"/dev/") {
            return Some((Self::Device, Certainty::Guessed));
        } else if !name.starts_with(b"/") {
            Self::Special
        } else {
            Self::File
        };
        Some((known, Certainty::Known))
    }

    /// Whether it is anonymous memory, which programs know no file of.
    pub fn is_anonymous(line: &Line<'_>) -> bool {
        !line.has_file() || is_zero(line.name) || is_huge_memory(line.name)
    }

    /// Its name in the output of `shared`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Anonymous => "shared-anonymous",
            Self::Memfd => "memfd",
            Self::SysvShm => "sysv-shm",
            Self::PosixShm => "posix-shm",
            Self::Hugetlb => "hugetlb",
            Self::Device => "device",
            Self::Special => "special",
        }
    }
}

/// Shared anonymous memory is a file by this name; private mappings of the
/// device are anonymous memory.
fn is_zero(name: &[u8]) -> bool {
    name == b"/dev/zero" || name == b"/dev/zero (deleted)" || name.starts_with(b"[anon_shmem:")
}

/// `MAP_ANONYMOUS` with `MAP_HUGETLB`.
fn is_huge_memory(name: &[u8]) -> bool {
    name.starts_with(b"/anon_hugepage")
}

/// `/SYSV`, the key in eight digits, and that it has no name in any directory.
fn is_sysv(name: &[u8]) -> bool {
    name.strip_prefix(b"/SYSV").is_some_and(|rest| {
        let (key, rest) = rest.split_at(rest.len().min(8));
        key.len() == 8
            && key.iter().all(u8::is_ascii_hexdigit)
            && (rest.is_empty() || rest == b" (deleted)")
    })
}

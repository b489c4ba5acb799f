//! The records of the ring buffer.
//!
//! A record is a [`Record`]: a [`Base`] common to all, then the payload of its
//! kind. A [`FilePath`] is the exception: it names a file once, for all later
//! records that carry the same [`FileId`], and has no base.
//!
//! One operation gives one record. A section (one stretch with `mmap_lock` held
//! for writing) that holds several operations, such as a `MAP_FIXED` that
//! replaces a mapping, gives several records with one [`Space::section`]
//! number; the last of them carries the section's net change.

use core::mem::size_of;

/// Version of everything that crosses from kernel to user: another one for every
/// change of a layout or a meaning, so that no recording is misread.
pub const WIRE_VERSION: u32 = 1;

/// Length of a task's command name in the kernel (`TASK_COMM_LEN`), NUL included.
pub const COMM_LEN: usize = 16;

/// The longest file name a directory can hold (`NAME_MAX`) and its NUL.
pub const NAME_LEN: usize = 256;

/// The last name in a [`FilePath`] starts below this. A power of two: the
/// kernel programs prove their writes in bounds with a mask.
pub const PATH_START_LEN: usize = 1024;

/// Room for a path in [`FilePath`].
pub const PATH_LEN: usize = PATH_START_LEN + NAME_LEN;

/// Defines a `u8` code on the wire together with its checked decoding.
macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $value:literal => $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vmeta])* $variant = $value,)+ }

        impl $name {
            /// Every value, in wire order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The value of a wire byte, or `None` for a byte that stands for nothing.
            pub const fn from_wire(byte: u8) -> Option<Self> {
                match byte { $($value => Some(Self::$variant),)+ _ => None }
            }

            /// The name people and JSON use.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

pub(crate) use codes;

codes! {
    /// What was done to the address space.
    Op {
        /// A mapping was made (or asked for and refused).
        Map = 0 => "map",
        /// Mappings were removed from a range.
        Unmap = 1 => "unmap",
        /// A range got another protection.
        Protect = 2 => "protect",
        /// A mapping was grown, shrunk or moved by mremap(2).
        Remap = 3 => "remap",
        /// The heap's end moved.
        Brk = 4 => "brk",
        /// A stack grew by a page fault.
        Grow = 5 => "grow",
        /// madvise, mlock, mseal and others split, merged or changed VMAs.
        Advise = 6 => "advise",
        /// A process was made.
        Fork = 7 => "fork",
        /// A process became another program.
        Exec = 8 => "exec",
        /// An address space ended.
        Exit = 9 => "exit",
    }
}

codes! {
    /// What brought an operation about.
    Cause {
        /// mmap(2).
        Mmap = 0 => "mmap",
        /// munmap(2).
        Munmap = 1 => "munmap",
        /// Replaced by a mapping with `MAP_FIXED`.
        MapFixed = 2 => "map_fixed",
        /// mprotect(2), pkey_mprotect(2).
        Mprotect = 3 => "mprotect",
        /// mremap(2).
        Mremap = 4 => "mremap",
        /// brk(2).
        Brk = 5 => "brk",
        /// shmat(2).
        Shmat = 6 => "shmat",
        /// shmdt(2).
        Shmdt = 7 => "shmdt",
        /// execve(2), execveat(2): the loader, or the old program's end.
        Exec = 8 => "exec",
        /// fork(2), vfork(2), clone(2), clone3(2).
        Fork = 9 => "fork",
        /// The last user of the address space went.
        Exit = 10 => "exit",
        /// madvise(2).
        Madvise = 11 => "madvise",
        /// mlock(2), mlock2(2), munlock(2), mlockall(2), munlockall(2).
        Mlock = 12 => "mlock",
        /// mseal(2).
        Mseal = 13 => "mseal",
        /// prctl(2).
        Prctl = 14 => "prctl",
        /// mbind(2), set_mempolicy_home_node(2).
        Mbind = 15 => "mbind",
        /// remap_file_pages(2).
        RemapFilePages = 16 => "remap_file_pages",
        /// A page fault (stack growth).
        Fault = 17 => "fault",
        /// Anything else.
        Other = 18 => "other",
    }
}

codes! {
    /// What a mapping's pages come from.
    Backing {
        /// Memory for the program alone.
        PrivateAnonymous = 0 => "private-anonymous",
        /// Memory shared with children.
        SharedAnonymous = 1 => "shared-anonymous",
        /// A file whose changes stay in the process: programs, libraries, data read.
        PrivateFile = 2 => "private-file",
        /// A file written through memory, or memory shared by name.
        SharedFile = 3 => "shared-file",
        /// Device memory and what the kernel maps for itself.
        Special = 4 => "special",
    }
}

impl Backing {
    /// A name for narrow columns.
    pub const fn short_name(self) -> &'static str {
        match self {
            Self::PrivateAnonymous => "priv-anon",
            Self::SharedAnonymous => "shr-anon",
            Self::PrivateFile => "priv-file",
            Self::SharedFile => "shr-file",
            Self::Special => "special",
        }
    }

    /// What it is for.
    pub const fn purpose(self) -> &'static str {
        match self {
            Self::PrivateAnonymous => "memory for the program alone: heap, stacks, malloc's arenas",
            Self::SharedAnonymous => "memory of no file, shared with children",
            Self::PrivateFile => {
                "programs, libraries, data read: what is written stays in the process"
            }
            Self::SharedFile => "files written through memory; memory shared by name",
            Self::Special => "device memory, and what the kernel maps for itself: vdso, vvar",
        }
    }

    /// The backing of a mapping that is shared or not, of a file or not.
    pub const fn of(shared: bool, anonymous: bool) -> Self {
        match (shared, anonymous) {
            (false, true) => Self::PrivateAnonymous,
            (true, true) => Self::SharedAnonymous,
            (false, false) => Self::PrivateFile,
            (true, false) => Self::SharedFile,
        }
    }
}

codes! {
    /// The kind of a record: an [`Op`], or a file's path.
    Kind {
        /// [`Record<Map>`](super::event::Map).
        Map = 0 => "map",
        /// [`Record<Unmap>`](super::event::Unmap).
        Unmap = 1 => "unmap",
        /// [`Record<Protect>`](super::event::Protect).
        Protect = 2 => "protect",
        /// [`Record<Remap>`](super::event::Remap).
        Remap = 3 => "remap",
        /// [`Record<Brk>`](super::event::Brk).
        Brk = 4 => "brk",
        /// [`Record<Grow>`](super::event::Grow).
        Grow = 5 => "grow",
        /// [`Record<Advise>`](super::event::Advise).
        Advise = 6 => "advise",
        /// [`Record<Fork>`](super::event::Fork).
        Fork = 7 => "fork",
        /// [`Record<Exec>`](super::event::Exec).
        Exec = 8 => "exec",
        /// [`Record<Exit>`](super::event::Exit).
        Exit = 9 => "exit",
        /// [`FilePath`].
        FilePath = 10 => "file_path",
    }
}

impl Kind {
    /// Bytes of a record of this kind.
    pub const fn record_bytes(self) -> usize {
        match self {
            Self::Map => size_of::<Record<Map>>(),
            Self::Unmap => size_of::<Record<Unmap>>(),
            Self::Protect => size_of::<Record<Protect>>(),
            Self::Remap => size_of::<Record<Remap>>(),
            Self::Brk => size_of::<Record<Brk>>(),
            Self::Grow => size_of::<Record<Grow>>(),
            Self::Advise => size_of::<Record<Advise>>(),
            Self::Fork => size_of::<Record<Fork>>(),
            Self::Exec => size_of::<Record<Exec>>(),
            Self::Exit => size_of::<Record<Exit>>(),
            Self::FilePath => size_of::<FilePath>(),
        }
    }
}

/// [`Base::known`]: [`Space`] was read at a settle point under the lock.
pub const KNOWN_SETTLED: u16 = 1 << 0;
/// [`Base::known`]: [`Space::vmas_delta`] and [`Space::pages_delta`] have a base to differ from.
pub const KNOWN_DELTA: u16 = 1 << 1;
/// [`Base::known`]: [`Space::held_ns`] was measured.
pub const KNOWN_HELD: u16 = 1 << 2;
/// [`Base::known`]: the payload's range is the kernel's, not the caller's wish.
pub const KNOWN_RANGE: u16 = 1 << 3;
/// [`Base::known`]: the mapping has a file, named by the payload's [`FileId`].
pub const KNOWN_FILE: u16 = 1 << 4;
/// [`Base::known`]: [`Map::vm_flags`] was seen.
pub const KNOWN_VM_FLAGS: u16 = 1 << 5;
/// [`Base::known`]: the call's own arguments ([`Map::flags`], requested lengths) were seen.
pub const KNOWN_ARGS: u16 = 1 << 6;
/// [`Base::known`]: [`Space::vmas`] and [`Space::pages`] hold the current values.
pub const KNOWN_SPACE: u16 = 1 << 7;
/// [`Base::known`]: something is not known: the call's return was missed, so
/// that its result and arguments are absent and it may have failed.
pub const UNRETURNED: u16 = 1 << 8;
/// [`Base::known`]: [`Base::rlimit_as_bytes`] was read.
pub const KNOWN_RLIMIT: u16 = 1 << 9;
/// [`Base::known`]: another record of the same section follows.
pub const MORE: u16 = 1 << 10;
/// [`Base::known`]: something is not known: between this section and the one
/// before it, the address space changed without a section.
pub const DRIFTED: u16 = 1 << 11;
/// [`Base::known`]: [`Protect::old_prot`] was seen.
pub const KNOWN_OLD_PROT: u16 = 1 << 12;

/// Who did it, as the kernel knew them at that moment.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Process id in the root namespace (`task_struct.tgid`).
    pub tgid: u32,
    /// Thread id in the root namespace (`task_struct.pid`).
    pub tid: u32,
    /// Start of the process, ns of the boot clock (`group_leader->start_boottime`).
    pub start_boot_ns: u64,
    /// Id of the process's cgroup in the hierarchy that counts, as
    /// [`Identity::cgroup_id`](crate::identity::Identity::cgroup_id); 0 where somebody else did
    /// what the record tells.
    pub cgroup_id: u64,
    /// Real user id in the root user namespace.
    pub uid: u32,
    /// Process id of the address space's owner; differs from `tgid` where processes share one.
    pub owner_tgid: u32,
    /// Command name of the thread, NUL padded.
    pub comm: [u8; COMM_LEN],
}

/// The address space after the section.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Which address space: the address of its `mm_struct`, which another may
    /// have later.
    pub mm: u64,
    /// When the kernel programs first met it, ns of the boot clock: tells apart
    /// two lives of one `mm_struct`.
    pub born_ns: u64,
    /// Number of the section in this address space, from 1; 0 for no section.
    pub section: u64,
    /// `mm_struct.total_vm`: pages of all mappings.
    pub pages: u64,
    /// Net change of `pages` by the section, on its last record; else 0.
    pub pages_delta: i64,
    /// How long the lock had been held for writing when the section settled, ns.
    pub held_ns: u64,
    /// `mm_struct.map_count`: number of VMAs.
    pub vmas: u32,
    /// Net change of `vmas` by the section, on its last record; else 0.
    pub vmas_delta: i32,
    /// VMAs that the section removed, pieces after splitting counted, on its
    /// last record; [`UNKNOWN_VMAS`] where not seen.
    pub vmas_removed: u32,
    /// Zero.
    pub pad: u32,
}

/// What every record but [`FilePath`] begins with.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// A [`Kind`].
    pub kind: u8,
    /// A [`Cause`].
    pub cause: u8,
    /// `KNOWN_*` bits: which fields say something.
    pub known: u16,
    /// 0 for success, else the positive errno.
    pub errno: u16,
    /// What is dangerous about what was made: [`Suspects`](crate::suspect::Suspects).
    pub suspects: u16,
    /// When the record was made, ns of the boot clock.
    pub boot_ns: u64,
    /// Bytes of mappings that the process may have (`RLIMIT_AS`, its soft
    /// limit), read where a call failed with `ENOMEM`; with [`KNOWN_RLIMIT`].
    pub rlimit_as_bytes: u64,
    /// Who.
    pub actor: Actor,
    /// The address space afterwards.
    pub space: Space,
}

/// A record: the base and its kind's payload.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<P> {
    /// Common part.
    pub base: Base,
    /// The kind's own part.
    pub payload: P,
}

/// A payload, tied to its kind.
pub trait Payload: Copy {
    /// The kind of the record that carries it.
    const KIND: Kind;
}

/// Identity of a file, as `/proc/PID/maps` shows it; zero for none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileId {
    /// `inode.i_ino`.
    pub inode: u64,
    /// `super_block.s_dev` in the kernel's encoding: major << 20 | minor.
    pub dev: u32,
    /// `inode.i_generation`: tells apart two lives of one inode number.
    pub generation: u32,
}

/// Payload of [`Kind::Map`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// Where: the kernel's answer, or the caller's wish when the call failed.
    pub addr: u64,
    /// Bytes mapped, whole pages; 0 when the call failed.
    pub len_bytes: u64,
    /// Bytes asked for.
    pub requested_len_bytes: u64,
    /// `vm_flags_t` handed to `mmap_region`.
    pub vm_flags: u64,
    /// Offset into the file, bytes.
    pub offset_bytes: u64,
    /// `PROT_*` bits.
    pub prot: u32,
    /// `MAP_*` bits of the call.
    pub flags: u32,
    /// What is mapped, with [`KNOWN_FILE`].
    pub file: FileId,
}

/// Payload of [`Kind::Unmap`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmap {
    /// Start of the range.
    pub addr: u64,
    /// Bytes that were mapped there and no longer are.
    pub len_bytes: u64,
    /// Length of the range as asked for; 0 where several ranges were.
    pub requested_len_bytes: u64,
    /// VMAs removed, pieces after splitting counted; [`UNKNOWN_VMAS`] where not seen.
    pub vmas_removed: u32,
    /// Zero.
    pub pad: u32,
}

/// [`Unmap::vmas_removed`] and [`Space::vmas_removed`] where no hook saw them.
pub const UNKNOWN_VMAS: u32 = u32::MAX;

/// Payload of [`Kind::Protect`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protect {
    /// Start of the range.
    pub addr: u64,
    /// Bytes covered, whole pages; 0 when the call failed.
    pub len_bytes: u64,
    /// Bytes asked for.
    pub requested_len_bytes: u64,
    /// `PROT_*` bits.
    pub prot: u32,
    /// `PROT_READ`, `PROT_WRITE` and `PROT_EXEC` before, of all VMAs in the range
    /// together, with [`KNOWN_OLD_PROT`]. One that had `prot` already may be left out.
    pub old_prot: u32,
}

/// Payload of [`Kind::Remap`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remap {
    /// Where the mapping is now; the old place when the call failed.
    pub addr: u64,
    /// Bytes there now, whole pages; 0 when the call failed.
    pub len_bytes: u64,
    /// New length as asked for.
    pub requested_len_bytes: u64,
    /// Where it was.
    pub old_addr: u64,
    /// Its old length as asked for, whole pages.
    pub old_len_bytes: u64,
    /// `MREMAP_*` bits.
    pub flags: u32,
    /// Zero.
    pub pad: u32,
}

/// Payload of [`Kind::Brk`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brk {
    /// Start of the range that was added or removed.
    pub addr: u64,
    /// Bytes added or removed (see [`Space::pages_delta`] for which), whole pages.
    pub len_bytes: u64,
    /// The break asked for, an address.
    pub requested_addr: u64,
}

/// Payload of [`Kind::Grow`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grow {
    /// Bytes by which the address space grew.
    pub len_bytes: u64,
}

/// Payload of [`Kind::Advise`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advise {
    /// Start of the range, with [`KNOWN_ARGS`].
    pub addr: u64,
    /// Length of the range, with [`KNOWN_ARGS`].
    pub requested_len_bytes: u64,
    /// The call's third argument (madvise's advice), with [`KNOWN_ARGS`].
    pub advice: u64,
}

/// Payload of [`Kind::Fork`]. The actor is the parent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// Start of the child, ns of the boot clock.
    pub child_start_boot_ns: u64,
    /// Process id of the child in the root namespace.
    pub child_tgid: u32,
    /// 1 when the child shares the parent's address space (vfork, `CLONE_VM`), else 0.
    pub shared: u32,
}

/// Payload of [`Kind::Exec`]. The actor is the process under its new name.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The program (`mm_struct.exe_file`), with [`KNOWN_FILE`].
    pub file: FileId,
}

/// Payload of [`Kind::Exit`]: an address space ended. The actor is its owner,
/// `tid` the thread that let go of it last.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Bytes that were still mapped.
    pub len_bytes: u64,
    /// VMAs that were still there.
    pub vmas_removed: u32,
    /// Zero.
    pub pad: u32,
}

/// A file's path, sent before the first record that carries its [`FileId`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FilePath {
    /// [`Kind::FilePath`].
    pub kind: u8,
    /// 1 when the path did not fit and its root-most part is missing.
    pub truncated: u8,
    /// Bytes of `path` in use.
    pub path_len: u16,
    /// Zero.
    pub pad: u32,
    /// Whose path it is.
    pub file: FileId,
    /// Names from the leaf to the root, each ended by a NUL.
    pub path: [u8; PATH_LEN],
}

macro_rules! payloads {
    ($($ty:ident),+ $(,)?) => {$(
        impl Payload for $ty {
            const KIND: Kind = Kind::$ty;
        }
    )+};
}

payloads!(
    Map, Unmap, Protect, Remap, Brk, Grow, Advise, Fork, Exec, Exit
);

/// Asserts that a type has exactly the given size, so that no padding hides in it.
macro_rules! layout {
    ($($ty:ty = $bytes:expr),+ $(,)?) => {$(
        const _: () = assert!(size_of::<$ty>() == $bytes && size_of::<$ty>() % 8 == 0);
    )+};
}

layout! {
    Actor = 4 + 4 + 8 + 8 + 4 + 4 + COMM_LEN,
    Space = 6 * 8 + 4 * 4,
    Base = 1 + 1 + 2 + 2 + 2 + 2 * 8 + size_of::<Actor>() + size_of::<Space>(),
    FileId = 8 + 4 + 4,
    Map = 5 * 8 + 4 + 4 + size_of::<FileId>(),
    Unmap = 3 * 8 + 4 + 4,
    Protect = 3 * 8 + 4 + 4,
    Remap = 5 * 8 + 4 + 4,
    Brk = 3 * 8,
    Grow = 8,
    Advise = 3 * 8,
    Fork = 8 + 4 + 4,
    Exec = size_of::<FileId>(),
    Exit = 8 + 4 + 4,
    FilePath = 1 + 1 + 2 + 4 + size_of::<FileId>() + PATH_LEN,
    Record<Map> = size_of::<Base>() + size_of::<Map>(),
}

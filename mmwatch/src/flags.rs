//! The kernel's numbers by the kernel's names.

use std::{fmt, num::NonZeroU32};

use serde::{Serialize, Serializer};

/// Bits of `vm_flags_t` that have kept their place in every kernel since 2.6.
pub mod vm {
    /// Writes reach the other mappings of the pages.
    pub const SHARED: u64 = 0x8;
    /// Mapped with `MAP_SHARED`, even where writing is not allowed.
    pub const MAYSHARE: u64 = 0x80;
    /// Page frames without a `struct page`.
    pub const PFNMAP: u64 = 0x400;
    /// Device memory.
    pub const IO: u64 = 0x4000;
}

/// `PROT_*` bits. Shows itself as `/proc/PID/maps` does: `rw-`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prot(pub u32);

/// `PROT_*` bits that have no letter.
const PROT_NAMES: &[(u32, &str)] = &[
    (0x8, "PROT_SEM"),
    (0x0100_0000, "PROT_GROWSDOWN"),
    (0x0200_0000, "PROT_GROWSUP"),
];

impl Prot {
    /// Whether the change of a protection reaches to the end of a mapping that
    /// grows (`PROT_GROWSDOWN`, `PROT_GROWSUP`).
    pub const fn reaches_further(self) -> bool {
        self.0 & 0x0300_0000 != 0
    }

    /// The three letters.
    pub const fn letters(self) -> &'static str {
        const LETTERS: [&str; 8] = ["---", "r--", "-w-", "rw-", "--x", "r-x", "-wx", "rwx"];
        LETTERS[(self.0 & 7) as usize]
    }

    /// Whether the memory may be written to.
    pub const fn is_writable(self) -> bool {
        self.0 & 2 != 0
    }

    /// The bits that the letters do not show.
    pub const fn others(self) -> Names {
        Names::new(self.0 & !7, PROT_NAMES)
    }
}

impl fmt::Display for Prot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.letters())
    }
}

/// `MAP_*` bits of mmap(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapFlags(pub u32);

/// The part of the flags that is a number, not bits.
const MAP_TYPE: u32 = 0xf;

const MAP_DROPPABLE: u32 = 0x8;

const MAP_TYPES: &[(u32, &str)] = &[
    (0x1, "MAP_SHARED"),
    (0x2, "MAP_PRIVATE"),
    (0x3, "MAP_SHARED_VALIDATE"),
    (MAP_DROPPABLE, "MAP_DROPPABLE"),
];

const MAP_FIXED: u32 = 0x10;
const MAP_ANONYMOUS: u32 = 0x20;
const MAP_NORESERVE: u32 = 0x4000;
const MAP_HUGETLB: u32 = 0x4_0000;
const MAP_FIXED_NOREPLACE: u32 = 0x10_0000;
const MAP_HUGE_MASK: u32 = 0x3f << 26;

/// x86-64 and arm64 agree on all that both have.
const MAP_NAMES: &[(u32, &str)] = &[
    (MAP_FIXED, "MAP_FIXED"),
    (MAP_ANONYMOUS, "MAP_ANONYMOUS"),
    #[cfg(target_arch = "x86_64")]
    (0x40, "MAP_32BIT"),
    #[cfg(target_arch = "x86_64")]
    (0x80, "MAP_ABOVE4G"),
    (0x100, "MAP_GROWSDOWN"),
    (0x800, "MAP_DENYWRITE"),
    (0x1000, "MAP_EXECUTABLE"),
    (0x2000, "MAP_LOCKED"),
    (MAP_NORESERVE, "MAP_NORESERVE"),
    (0x8000, "MAP_POPULATE"),
    (0x1_0000, "MAP_NONBLOCK"),
    (0x2_0000, "MAP_STACK"),
    (MAP_HUGETLB, "MAP_HUGETLB"),
    (0x8_0000, "MAP_SYNC"),
    (MAP_FIXED_NOREPLACE, "MAP_FIXED_NOREPLACE"),
];

/// With `MAP_HUGETLB` the top six bits are the page size's logarithm.
const MAP_HUGE_NAMES: &[(u32, &str)] = &[
    (16 << 26, "MAP_HUGE_64KB"),
    (21 << 26, "MAP_HUGE_2MB"),
    (25 << 26, "MAP_HUGE_32MB"),
    (30 << 26, "MAP_HUGE_1GB"),
];

impl MapFlags {
    /// Whether the mapping is shared; `None` for types that the kernel refuses.
    pub const fn is_shared(self) -> Option<bool> {
        match self.0 & MAP_TYPE {
            1 | 3 => Some(true),
            2 | 8 => Some(false),
            _ => None,
        }
    }

    /// Whether no file was named.
    pub const fn is_anonymous(self) -> bool {
        self.0 & MAP_ANONYMOUS != 0
    }

    /// Whether neither `MAP_SHARED` nor `MAP_PRIVATE` nor another type was named.
    pub const fn is_untyped(self) -> bool {
        self.0 & MAP_TYPE == 0
    }

    /// Whether the pages may go when memory is short (`MAP_DROPPABLE`).
    pub const fn is_droppable(self) -> bool {
        self.0 & MAP_TYPE == MAP_DROPPABLE
    }

    /// Whether the mapping is to be at the address given and nowhere else.
    pub const fn is_fixed(self) -> bool {
        self.0 & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0
    }

    /// Whether what is mapped already is left alone (`MAP_FIXED_NOREPLACE`).
    pub const fn is_kept_off(self) -> bool {
        self.0 & MAP_FIXED_NOREPLACE != 0
    }

    /// Whether what is mapped already makes way.
    pub const fn may_replace(self) -> bool {
        self.is_fixed() && !self.is_kept_off()
    }

    /// Whether huge pages were asked for (`MAP_HUGETLB`), which sit in a file
    /// of the kernel's own even where none was named.
    pub const fn is_huge(self) -> bool {
        self.0 & MAP_HUGETLB != 0
    }

    /// Whether no memory is set aside (`MAP_NORESERVE`).
    pub const fn is_unreserved(self) -> bool {
        self.0 & MAP_NORESERVE != 0
    }

    /// All of them.
    pub fn names(self) -> impl Iterator<Item = Name> {
        let huge = if self.0 & MAP_HUGETLB == 0 {
            0
        } else {
            self.0 & MAP_HUGE_MASK
        };
        one_of(self.0 & MAP_TYPE, MAP_TYPES)
            .into_iter()
            .chain(Names::new(self.0 & !MAP_TYPE & !huge, MAP_NAMES))
            .chain(one_of(huge, MAP_HUGE_NAMES))
    }
}

/// `MREMAP_*` bits of mremap(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemapFlags(pub u32);

const REMAP_NAMES: &[(u32, &str)] = &[
    (1, "MREMAP_MAYMOVE"),
    (2, "MREMAP_FIXED"),
    (4, "MREMAP_DONTUNMAP"),
];

impl RemapFlags {
    /// Whether the mapping may get another address (`MREMAP_MAYMOVE`).
    pub const fn may_move(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether the call says where to move to (`MREMAP_FIXED`, `MREMAP_DONTUNMAP`).
    pub const fn is_to_new_addr(self) -> bool {
        self.0 & (2 | 4) != 0
    }

    /// Whether the old range stays mapped (`MREMAP_DONTUNMAP`).
    pub const fn leaves_old(self) -> bool {
        self.0 & 4 != 0
    }

    /// All of them.
    pub const fn names(self) -> Names {
        Names::new(self.0, REMAP_NAMES)
    }
}

/// Advice of madvise(2), `None` where it has no name.
pub fn advice_name(advice: u64) -> Option<&'static str> {
    Some(match advice {
        0 => "MADV_NORMAL",
        1 => "MADV_RANDOM",
        2 => "MADV_SEQUENTIAL",
        3 => "MADV_WILLNEED",
        4 => "MADV_DONTNEED",
        8 => "MADV_FREE",
        9 => "MADV_REMOVE",
        10 => "MADV_DONTFORK",
        11 => "MADV_DOFORK",
        12 => "MADV_MERGEABLE",
        13 => "MADV_UNMERGEABLE",
        14 => "MADV_HUGEPAGE",
        15 => "MADV_NOHUGEPAGE",
        16 => "MADV_DONTDUMP",
        17 => "MADV_DODUMP",
        18 => "MADV_WIPEONFORK",
        19 => "MADV_KEEPONFORK",
        20 => "MADV_COLD",
        21 => "MADV_PAGEOUT",
        22 => "MADV_POPULATE_READ",
        23 => "MADV_POPULATE_WRITE",
        24 => "MADV_DONTNEED_LOCKED",
        25 => "MADV_COLLAPSE",
        100 => "MADV_HWPOISON",
        101 => "MADV_SOFT_OFFLINE",
        102 => "MADV_GUARD_INSTALL",
        103 => "MADV_GUARD_REMOVE",
        _ => return None,
    })
}

/// A flag by its name, or the bits that have none as one hex number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// What the kernel's headers call it.
    Known(&'static str),
    /// Bits without a name.
    Bits(u32),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(name) => f.write_str(name),
            Self::Bits(bits) => write!(f, "{bits:#x}"),
        }
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn one_of(value: u32, names: &[(u32, &'static str)]) -> Option<Name> {
    (value != 0).then(|| {
        names
            .iter()
            .find(|(number, _)| *number == value)
            .map_or(Name::Bits(value), |(_, name)| Name::Known(name))
    })
}

/// The names of bits, lowest first in the table's order; the nameless ones last.
#[derive(Clone, Debug)]
pub struct Names {
    left: u32,
    names: &'static [(u32, &'static str)],
}

impl Names {
    const fn new(bits: u32, names: &'static [(u32, &'static str)]) -> Self {
        Self { left: bits, names }
    }
}

impl Iterator for Names {
    type Item = Name;

    fn next(&mut self) -> Option<Name> {
        while let Some((&(bit, name), rest)) = self.names.split_first() {
            self.names = rest;
            if self.left & bit != 0 {
                self.left &= !bit;
                return Some(Name::Known(name));
            }
        }
        let bits = std::mem::take(&mut self.left);
        (bits != 0).then_some(Name::Bits(bits))
    }
}

/// Why a call failed. Shows itself by name: `ENOMEM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(NonZeroU32);

impl Errno {
    /// From a positive errno; `None` for 0, success.
    pub const fn new(errno: u32) -> Option<Self> {
        match NonZeroU32::new(errno) {
            Some(errno) => Some(Self(errno)),
            None => None,
        }
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match errno_name(self.number()) {
            Some(name) => f.pad(name),
            None => self.number().fmt(f),
        }
    }
}

impl Serialize for Errno {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

macro_rules! errno_names {
    ($($name:ident)+) => {
        fn errno_name(errno: u32) -> Option<&'static str> {
            // libc has them signed; none is negative.
            $(const $name: u32 = libc::$name as u32;)+
            Some(match errno {
                $($name => stringify!($name),)+
                // Of the kernel's own, seen where a call is hooked below its return.
                512 => "ERESTARTSYS",
                513 => "ERESTARTNOINTR",
                524 => "ENOTSUPP",
                _ => return None,
            })
        }
    };
}

errno_names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT
    ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG
    ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY
    ELOOP ENOMSG EIDRM ENODATA ETIME ENOLINK EPROTO EBADMSG EOVERFLOW EILSEQ EUSERS ENOTSOCK
    EMSGSIZE EPROTONOSUPPORT EOPNOTSUPP EADDRINUSE ENETDOWN ENOBUFS ENOTCONN ESHUTDOWN ETIMEDOUT
    ECONNREFUSED EHOSTDOWN EALREADY EINPROGRESS ESTALE EUCLEAN EREMOTEIO EDQUOT ENOMEDIUM
    ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL
    EHWPOISON
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(names: impl Iterator<Item = Name>) -> String {
        names
            .map(|name| name.to_string())
            .collect::<Vec<_>>()
            .join("|")
    }

    #[test]
    fn prot_reads_as_in_proc_maps() {
        assert_eq!(Prot(0).to_string(), "---");
        assert_eq!(
            Prot((libc::PROT_READ | libc::PROT_WRITE) as u32).to_string(),
            "rw-"
        );
        assert_eq!(Prot(libc::PROT_EXEC as u32).to_string(), "--x");
        assert_eq!(Prot(0x0100_0013).to_string(), "rw-");
        assert_eq!(text(Prot(0x0100_0013).others()), "PROT_GROWSDOWN|0x10");
    }

    #[test]
    fn map_flags_have_the_kernels_names() {
        let names = |flags: i32| text(MapFlags(flags as u32).names());
        assert_eq!(
            names(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE),
            "MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE|MAP_STACK"
        );
        assert_eq!(
            names(libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC | libc::MAP_FIXED_NOREPLACE),
            "MAP_SHARED_VALIDATE|MAP_SYNC|MAP_FIXED_NOREPLACE"
        );
        assert_eq!(
            names(libc::MAP_PRIVATE | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB),
            "MAP_PRIVATE|MAP_HUGETLB|MAP_HUGE_2MB"
        );
        assert_eq!(names(0), "");
    }

    #[test]
    fn bits_without_a_name_are_kept() {
        assert_eq!(
            text(MapFlags(0x0820_0022).names()),
            "MAP_PRIVATE|MAP_ANONYMOUS|0x8200000"
        );
        assert_eq!(text(MapFlags(0x5).names()), "0x5");
        assert_eq!(text(RemapFlags(0x9).names()), "MREMAP_MAYMOVE|0x8");
    }

    #[test]
    fn errno_has_its_name_or_number() {
        let name = |errno: i32| Errno::new(errno as u32).unwrap().to_string();
        assert_eq!(Errno::new(0), None);
        assert_eq!(name(libc::ENOMEM), "ENOMEM");
        assert_eq!(name(libc::EBADF), "EBADF");
        assert_eq!(name(9999), "9999");
    }

    #[test]
    fn advice_agrees_with_the_c_library() {
        assert_eq!(
            advice_name(libc::MADV_DONTNEED as u64),
            Some("MADV_DONTNEED")
        );
        assert_eq!(
            advice_name(libc::MADV_POPULATE_WRITE as u64),
            Some("MADV_POPULATE_WRITE")
        );
        assert_eq!(advice_name(5), None);
    }
}

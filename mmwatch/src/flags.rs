//! The kernel's numbers by the kernel's names.

mod errno;
mod question;
pub mod table;

use std::{fmt, slice};

use serde::{Serialize, Serializer};

use self::table::{Argument, Flag, MADVISE, MAP, MREMAP, PROT};
pub use self::{errno::Errno, question::Question};

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

const PROT_READ: u64 = 0x1;
const PROT_WRITE: u64 = 0x2;
const PROT_EXEC: u64 = 0x4;
const PROT_LETTERS: u64 = PROT_READ | PROT_WRITE | PROT_EXEC;
const PROT_GROWSDOWN: u64 = 0x0100_0000;
const PROT_GROWSUP: u64 = 0x0200_0000;

impl Prot {
    const fn bits(self) -> u64 {
        self.0 as u64
    }

    /// Whether the change of a protection reaches to the end of a mapping that
    /// grows (`PROT_GROWSDOWN`, `PROT_GROWSUP`).
    pub const fn reaches_further(self) -> bool {
        self.bits() & (PROT_GROWSDOWN | PROT_GROWSUP) != 0
    }

    /// The three letters.
    pub const fn letters(self) -> &'static str {
        const LETTERS: [&str; 8] = ["---", "r--", "-w-", "rw-", "--x", "r-x", "-wx", "rwx"];
        LETTERS[(self.bits() & PROT_LETTERS) as usize]
    }

    /// Whether the memory may be read.
    pub const fn is_readable(self) -> bool {
        self.bits() & PROT_READ != 0
    }

    /// Whether the memory may be written to.
    pub const fn is_writable(self) -> bool {
        self.bits() & PROT_WRITE != 0
    }

    /// The bits that the letters do not show.
    pub fn others(self) -> Names {
        PROT.names(self.bits() & !PROT_LETTERS)
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
const MAP_TYPE: u64 = 0xf;
const MAP_DROPPABLE: u64 = 0x8;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_NORESERVE: u64 = 0x4000;
const MAP_HUGETLB: u64 = 0x4_0000;
const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
/// With `MAP_HUGETLB`, the logarithm of the page size.
const MAP_HUGE_SHIFT: u32 = 26;
const MAP_HUGE_MASK: u64 = 0x3f;

impl MapFlags {
    const fn bits(self) -> u64 {
        self.0 as u64
    }

    /// Whether the mapping is shared; `None` for types that the kernel refuses.
    pub const fn is_shared(self) -> Option<bool> {
        match self.bits() & MAP_TYPE {
            1 | 3 => Some(true),
            2 | 8 => Some(false),
            _ => None,
        }
    }

    /// Whether no file was named.
    pub const fn is_anonymous(self) -> bool {
        self.bits() & MAP_ANONYMOUS != 0
    }

    /// Whether neither `MAP_SHARED` nor `MAP_PRIVATE` nor another type was named.
    pub const fn is_untyped(self) -> bool {
        self.bits() & MAP_TYPE == 0
    }

    /// Whether the pages may go when memory is short (`MAP_DROPPABLE`).
    pub const fn is_droppable(self) -> bool {
        self.bits() & MAP_TYPE == MAP_DROPPABLE
    }

    /// Whether the mapping is to be at the address given and nowhere else.
    pub const fn is_fixed(self) -> bool {
        self.bits() & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0
    }

    /// Whether what is mapped already is left alone (`MAP_FIXED_NOREPLACE`).
    pub const fn is_kept_off(self) -> bool {
        self.bits() & MAP_FIXED_NOREPLACE != 0
    }

    /// Whether what is mapped already makes way.
    pub const fn may_replace(self) -> bool {
        self.is_fixed() && !self.is_kept_off()
    }

    /// Whether huge pages were asked for (`MAP_HUGETLB`), which sit in a file
    /// of the kernel's own even where none was named.
    pub const fn is_huge(self) -> bool {
        self.bits() & MAP_HUGETLB != 0
    }

    /// Whether no memory is set aside (`MAP_NORESERVE`).
    pub const fn is_unreserved(self) -> bool {
        self.bits() & MAP_NORESERVE != 0
    }

    /// All of them.
    pub fn names(self) -> Names {
        MAP.names(self.bits())
    }
}

/// `MREMAP_*` bits of mremap(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemapFlags(pub u32);

const MREMAP_MAYMOVE: u64 = 1;
const MREMAP_FIXED: u64 = 2;
const MREMAP_DONTUNMAP: u64 = 4;

impl RemapFlags {
    const fn bits(self) -> u64 {
        self.0 as u64
    }

    /// Whether the mapping may get another address (`MREMAP_MAYMOVE`).
    pub const fn may_move(self) -> bool {
        self.bits() & MREMAP_MAYMOVE != 0
    }

    /// Whether the call says where to move to (`MREMAP_FIXED`, `MREMAP_DONTUNMAP`).
    pub const fn is_to_new_addr(self) -> bool {
        self.bits() & (MREMAP_FIXED | MREMAP_DONTUNMAP) != 0
    }

    /// Whether the old range stays mapped (`MREMAP_DONTUNMAP`).
    pub const fn leaves_old(self) -> bool {
        self.bits() & MREMAP_DONTUNMAP != 0
    }

    /// All of them.
    pub fn names(self) -> Names {
        MREMAP.names(self.bits())
    }
}

/// Advice of madvise(2), `None` where it has no name.
pub fn advice_name(advice: u64) -> Option<&'static str> {
    MADVISE
        .flags
        .iter()
        .find(|flag| flag.value == advice && flag.is_here())
        .map(|flag| flag.name)
}

impl Argument {
    /// The names of a value's bits; none for 0, see [`Argument::zero`].
    pub fn names(&self, value: u64) -> Names {
        Names {
            value,
            left: value,
            flags: self.flags.iter(),
        }
    }

    /// What 0 is called, if anything.
    pub fn zero(&self) -> Option<&'static Flag> {
        self.flags
            .iter()
            .find(|flag| flag.value == 0 && flag.is_here())
    }
}

/// A flag by its name, or the bits that have none as one hex number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// One of the table.
    Known(&'static Flag),
    /// Bits without a name.
    Bits(u64),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(flag) => f.write_str(flag.name),
            Self::Bits(bits) => write!(f, "{bits:#x}"),
        }
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Known(flag) => serializer.serialize_str(flag.name),
            Self::Bits(_) => serializer.collect_str(self),
        }
    }
}

/// The names of bits, in the table's order; the nameless ones last.
#[derive(Clone, Debug)]
pub struct Names {
    value: u64,
    left: u64,
    flags: slice::Iter<'static, Flag>,
}

impl Iterator for Names {
    type Item = Name;

    fn next(&mut self) -> Option<Name> {
        // Most values are out of bits long before the table is out of flags.
        while self.left != 0
            && let Some(flag) = self.flags.next()
        {
            let (condition, met) = flag.only_if;
            if self.left & flag.mask == flag.value
                && self.value & condition == met
                && flag.is_here()
            {
                self.left &= !flag.mask;
                return Some(Name::Known(flag));
            }
        }
        let bits = std::mem::take(&mut self.left);
        (bits != 0).then_some(Name::Bits(bits))
    }
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
    fn the_top_bits_are_a_size_with_huge_pages_only() {
        assert_eq!(
            text(MapFlags(0x400_0002).names()),
            "MAP_PRIVATE|MAP_UNINITIALIZED"
        );
        assert_eq!(
            text(MapFlags(0x8804_0002).names()),
            "MAP_PRIVATE|MAP_HUGETLB|MAP_HUGE_16GB"
        );
        // 2^17 bytes: bit 26 is part of the number, not MAP_UNINITIALIZED.
        assert_eq!(
            text(MapFlags(0x4404_0002).names()),
            "MAP_PRIVATE|MAP_HUGETLB|0x44000000"
        );
    }

    #[test]
    fn flags_of_other_architectures_are_bits_here() {
        assert_eq!(text(Prot(0x38).others()), "PROT_SEM|0x30");
        assert_eq!(advice_name(5), None);
        assert_eq!(text(MapFlags(0xc0).names()), "MAP_32BIT|MAP_ABOVE4G");
    }

    #[test]
    fn what_the_code_asks_for_is_what_the_table_says() {
        let is = |flags: u32, name| text(MapFlags(flags).names()) == name;
        assert!(MapFlags(0x8).is_droppable() && is(0x8, "MAP_DROPPABLE"));
        assert!(MapFlags(0x20).is_anonymous() && is(0x20, "MAP_ANONYMOUS"));
        assert!(MapFlags(0x10).may_replace() && is(0x10, "MAP_FIXED"));
        assert!(MapFlags(0x10_0000).is_kept_off() && is(0x10_0000, "MAP_FIXED_NOREPLACE"));
        assert!(MapFlags(0x4_0000).is_huge() && is(0x4_0000, "MAP_HUGETLB"));
        assert!(MapFlags(0x4000).is_unreserved() && is(0x4000, "MAP_NORESERVE"));
    }

    #[test]
    fn every_flag_is_decoded_from_its_value() {
        for argument in table::ARGUMENTS {
            for flag in argument.flags.iter().filter(|flag| flag.is_here()) {
                let (_, with) = flag.only_if;
                let names = text(argument.names(flag.value | with));
                let zero = argument.zero().map_or("", |flag| flag.name);
                let names = if names.is_empty() { zero } else { &names };
                assert!(
                    names.split('|').any(|name| name == flag.name),
                    "{flag:?}: {names}"
                );
            }
        }
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
    fn advice_agrees_with_the_c_library() {
        assert_eq!(
            advice_name(libc::MADV_DONTNEED as u64),
            Some("MADV_DONTNEED")
        );
        assert_eq!(
            advice_name(libc::MADV_POPULATE_WRITE as u64),
            Some("MADV_POPULATE_WRITE")
        );
        assert_eq!(advice_name(26), None);
    }
}

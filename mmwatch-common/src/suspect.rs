//! Dangerous mappings: which kinds there are, and the rules for them.
//!
//! The kernel programs and `mmwatch maps` both decide by these rules, from
//! permissions and from what is behind a mapping. All of it is free of branches,
//! for the verifiers' sake.

use core::{fmt, iter};

use crate::event::codes;

codes! {
    /// A kind of dangerous mapping. Bit n of [`Suspects`].
    Suspect {
        /// Code can be written and run in place.
        WriteExec = 0 => "write-exec",
        /// Anonymous memory is executable.
        AnonExec = 1 => "anon-exec",
        /// What could be written before became executable.
        WriteToExec = 2 => "write-to-exec",
        /// A file of memfd_create(2) is executable.
        MemfdExec = 3 => "memfd-exec",
        /// A file without a name is executable.
        DeletedExec = 4 => "deleted-exec",
        /// A stack is executable.
        StackExec = 5 => "stack-exec",
        /// The heap is executable.
        HeapExec = 6 => "heap-exec",
    }
}

impl Suspect {
    /// What it means, for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::WriteExec => "writable and executable at once",
            Self::AnonExec => "anonymous memory that is executable, or was made so",
            Self::WriteToExec => "made executable, and writable before",
            Self::MemfdExec => "a file of memfd_create that is executable, or was made so",
            Self::DeletedExec => {
                "a file without a name any more that is executable, or was made so"
            }
            Self::StackExec => "a stack that is executable, or was made so",
            Self::HeapExec => "the heap that is executable, or was made so",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// `PROT_WRITE`, `PROT_EXEC` and `PROT_READ | PROT_WRITE | PROT_EXEC`, which are also
/// the bits of `vm_flags`.
const WRITE: u64 = 1;
const EXECUTE: u64 = 2;
const PROT_MASK: u64 = 0x7;

/// 1 or 0: a bit of a protection, by its place.
const fn flag(prot: u64, place: u64) -> u16 {
    (prot >> place & 1) as u16
}

/// What is dangerous about one mapping: a set of [`Suspect`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Suspects(u16);

impl Suspects {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// One.
    pub const fn only(suspect: Suspect) -> Self {
        Self(suspect.bit())
    }

    /// One, if `is` says so.
    pub const fn when(is: bool, suspect: Suspect) -> Self {
        Self((is as u16) << suspect as u16)
    }

    /// From the wire, or `None` for bits that stand for nothing.
    pub const fn from_wire(bits: u16) -> Option<Self> {
        if bits >> Suspect::ALL.len() == 0 {
            Some(Self(bits))
        } else {
            None
        }
    }

    /// As on the wire.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// As they were handed out by [`Self::bits`].
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Those of either.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this one is among them.
    pub const fn has(self, suspect: Suspect) -> bool {
        self.0 & suspect.bit() != 0
    }

    /// Each, in wire order.
    pub fn iter(self) -> impl Iterator<Item = Suspect> {
        let mut bits = self.0;
        iter::from_fn(move || {
            let place = bits.trailing_zeros();
            bits &= bits.wrapping_sub(1);
            Suspect::ALL.get(place as usize).copied()
        })
    }

    /// Of a mapping with this protection; `memory` is what to say of what is
    /// behind it where it is executable.
    pub const fn of_mapping(prot: u64, memory: Self) -> Self {
        let execute = flag(prot, EXECUTE);
        let both = flag(prot, WRITE) & execute;
        Self((both << Suspect::WriteExec as u16) | (memory.0 * execute))
    }

    /// Of a mapping whose protection changes from `old` to `new`; `memory` as for
    /// [`Self::of_mapping`], of what was not executable before.
    pub const fn of_change(old: u64, new: u64, memory: Self) -> Self {
        let made = flag(new & !old, EXECUTE);
        let written = flag(old, WRITE) << Suspect::WriteToExec as u16;
        let both = flag(new, WRITE) & flag(new, EXECUTE);
        Self((both << Suspect::WriteExec as u16) | ((memory.0 | written) * made))
    }

    /// Whether [`Self::of_change`] looks at what is behind the mapping.
    pub const fn needs_memory(old: u64, new: u64) -> bool {
        flag(new & !old, EXECUTE) != 0
    }
}

/// The bits of a protection that [`Suspects`] and people look at.
pub const fn access(prot: u64) -> u16 {
    (prot & PROT_MASK) as u16
}

/// `write-exec,anon-exec`.
impl fmt::Display for Suspects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, suspect) in self.iter().enumerate() {
            if number > 0 {
                f.write_str(",")?;
            }
            f.write_str(suspect.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Suspects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

const _: () = assert!(Suspect::ALL.len() <= u16::BITS as usize);

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString as _;

    use super::*;

    const ANON: Suspects = Suspects::only(Suspect::AnonExec);

    #[test]
    fn a_mapping_is_judged_by_its_permissions() {
        for (prot, want) in [
            (0, ""),
            (1, ""),
            (3, ""),
            (4, "anon-exec"),
            (5, "anon-exec"),
            (6, "write-exec,anon-exec"),
            (7, "write-exec,anon-exec"),
            // Other bits of vm_flags mean nothing here.
            (0xffff_fff8, ""),
        ] {
            assert_eq!(Suspects::of_mapping(prot, ANON).to_string(), want, "{prot}");
        }
        assert_eq!(Suspects::of_mapping(5, Suspects::NONE), Suspects::NONE);
    }

    #[test]
    fn a_change_is_judged_by_what_it_makes() {
        for (old, new, want) in [
            (1, 3, ""),
            (3, 1, ""),
            (3, 5, "anon-exec,write-to-exec"),
            (3, 7, "write-exec,anon-exec,write-to-exec"),
            (1, 5, "anon-exec"),
            (0, 4, "anon-exec"),
            // It was executable already.
            (7, 5, ""),
            (5, 7, "write-exec"),
            (7, 7, "write-exec"),
            (5, 3, ""),
        ] {
            let change = Suspects::of_change(old, new, ANON);
            assert_eq!(change.to_string(), want, "{old} {new}");
            if !Suspects::needs_memory(old, new) {
                assert_eq!(change, Suspects::of_change(old, new, Suspects::NONE));
            }
        }
    }

    #[test]
    fn unknown_bits_are_none_of_ours() {
        assert_eq!(Suspects::from_wire(0), Some(Suspects::NONE));
        let all = Suspects::from_wire(0x7f).unwrap();
        assert!(all.iter().eq(Suspect::ALL.iter().copied()));
        assert_eq!(Suspects::from_wire(0x80), None);
    }
}

//! The reasons, by name for programs and in words for people.

use std::fmt;

use crate::text::Bytes;

/// Why a call failed. Shows itself as a sentence, the numbers in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The address space has as many VMAs as it may have.
    VmaLimit {
        /// VMAs that it has.
        vmas: u32,
        /// `vm.max_map_count`.
        max_map_count: u32,
    },
    /// More would be mapped than `RLIMIT_AS` allows.
    RlimitAs {
        /// The limit.
        limit_bytes: u64,
        /// What would be mapped; with `MAP_FIXED`, which may replace some, at least.
        mapped_bytes: u64,
    },
    /// More was asked for at once than there is.
    OvercommitAtOnce {
        /// What was asked for.
        wanted_bytes: u64,
        /// RAM and swap together.
        memory_bytes: u64,
    },
    /// More would be promised to all processes than may be.
    OvercommitInAll {
        /// What was asked for.
        wanted_bytes: u64,
        /// What is promised already.
        committed_bytes: u64,
        /// What may be promised, reserves left out.
        allowed_bytes: u64,
    },
    /// There is no gap of this length between the mappings.
    NoAddressSpace {
        /// What was asked for.
        wanted_bytes: u64,
        /// Where the kernel looks for room, mappings included.
        address_space_bytes: u64,
    },
    /// The range goes beyond the addresses that a process can have.
    OutsideAddressSpace {
        /// Start of the range.
        addr: u64,
        /// Its length.
        len_bytes: u64,
    },
    /// Part of the range is not mapped.
    UnmappedRange,
    /// The old range is not a mapping that mremap(2) takes.
    NotOneMapping,
    /// The length is 0.
    LengthZero,
    /// The address is not the start of a page.
    UnalignedAddress {
        /// The address.
        addr: u64,
    },
    /// The offset is not the start of a page.
    UnalignedOffset {
        /// The offset.
        offset_bytes: u64,
    },
    /// Offset and length together are more than a file can have.
    OffsetTooLarge,
    /// Neither `MAP_SHARED` nor `MAP_PRIVATE`.
    NoType,
    /// The descriptor is that of no open file.
    BadDescriptor,
    /// Something is mapped where `MAP_FIXED_NOREPLACE` was to map.
    AlreadyMapped,
    /// The address is below `vm.mmap_min_addr`.
    AddressTooLow {
        /// The address.
        addr: u64,
        /// `vm.mmap_min_addr`.
        min_addr: u64,
    },
    /// The file was not opened for what the mapping is to be used for.
    FileMode {
        /// Whether the mapping writes to the file.
        writes: bool,
    },
    /// The file is of a kind that cannot be mapped.
    NotMappable,
    /// More would be locked in memory than `RLIMIT_MEMLOCK` allows.
    RlimitMemlock,
    /// The mapping is sealed by mseal(2).
    Sealed,
}

impl Reason {
    /// What programs know it by.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::VmaLimit { .. } => "vma_limit",
            Self::RlimitAs { .. } => "rlimit_as",
            Self::OvercommitAtOnce { .. } | Self::OvercommitInAll { .. } => "overcommit",
            Self::NoAddressSpace { .. } => "no_address_space",
            Self::OutsideAddressSpace { .. } => "outside_address_space",
            Self::UnmappedRange => "unmapped_range",
            Self::NotOneMapping => "not_one_mapping",
            Self::LengthZero => "length_zero",
            Self::UnalignedAddress { .. } => "unaligned_address",
            Self::UnalignedOffset { .. } => "unaligned_offset",
            Self::OffsetTooLarge => "offset_too_large",
            Self::NoType => "no_type",
            Self::BadDescriptor => "bad_descriptor",
            Self::AlreadyMapped => "already_mapped",
            Self::AddressTooLow { .. } => "address_too_low",
            Self::FileMode { .. } => "file_mode",
            Self::NotMappable => "not_mappable",
            Self::RlimitMemlock => "rlimit_memlock",
            Self::Sealed => "sealed",
        }
    }

    /// Its name and what its numbers come down to, for narrow columns.
    pub const fn short(&self) -> Short<'_> {
        Short(self)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::VmaLimit {
                vmas,
                max_map_count,
            } => write!(
                f,
                "the process has {vmas} VMAs, and vm.max_map_count is {max_map_count}"
            ),
            Self::RlimitAs {
                limit_bytes,
                mapped_bytes,
            } => write!(
                f,
                "RLIMIT_AS allows {}, and {} would be mapped",
                Bytes(limit_bytes),
                Bytes(mapped_bytes)
            ),
            Self::OvercommitAtOnce {
                wanted_bytes,
                memory_bytes,
            } => write!(
                f,
                "{} at once is more than the {} of RAM and swap, and vm.overcommit_memory is 0",
                Bytes(wanted_bytes),
                Bytes(memory_bytes)
            ),
            Self::OvercommitInAll {
                wanted_bytes,
                committed_bytes,
                allowed_bytes,
            } => write!(
                f,
                "{} of {} are committed without the {} asked for, and vm.overcommit_memory is 2",
                Bytes(committed_bytes),
                Bytes(allowed_bytes),
                Bytes(wanted_bytes)
            ),
            Self::NoAddressSpace {
                wanted_bytes,
                address_space_bytes,
            } => write!(
                f,
                "the address space of {} has no gap of {}",
                Bytes(address_space_bytes),
                Bytes(wanted_bytes)
            ),
            Self::OutsideAddressSpace { addr, len_bytes } => write!(
                f,
                "{} from {addr:#x} on go beyond the addresses that a process can have",
                Bytes(len_bytes)
            ),
            Self::UnmappedRange => f.write_str("part of the range is not mapped"),
            Self::NotOneMapping => f.write_str(
                "the old range is not mapped, is of several mappings, or of one that cannot grow",
            ),
            Self::LengthZero => f.write_str("the length is 0"),
            Self::UnalignedAddress { addr } => {
                write!(f, "the address {addr:#x} is not the start of a page")
            }
            Self::UnalignedOffset { offset_bytes } => {
                write!(f, "the offset {offset_bytes} is not the start of a page")
            }
            Self::OffsetTooLarge => {
                f.write_str("offset and length together are more than a file can have")
            }
            Self::NoType => f.write_str("the flags have neither MAP_SHARED nor MAP_PRIVATE"),
            Self::BadDescriptor => f.write_str("the descriptor is that of no open file"),
            Self::AlreadyMapped => {
                f.write_str("something is mapped there, and MAP_FIXED_NOREPLACE leaves it")
            }
            Self::AddressTooLow { addr, min_addr } => write!(
                f,
                "the address {addr:#x} is below vm.mmap_min_addr, {min_addr:#x}"
            ),
            Self::FileMode { writes: true } => f.write_str(
                "the file was not opened for reading and writing, or is for appending only",
            ),
            Self::FileMode { writes: false } => f.write_str(
                "the file was not opened for reading, or is for appending only and shared",
            ),
            Self::NotMappable => f.write_str("the file is of a kind that cannot be mapped so"),
            Self::RlimitMemlock => {
                f.write_str("more would be locked in memory than RLIMIT_MEMLOCK allows")
            }
            Self::Sealed => f.write_str("a mapping in the range is sealed by mseal"),
        }
    }
}

/// A [`Reason`] in few words: `vma_limit 65531 of 65530`.
pub struct Short<'a>(&'a Reason);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())?;
        match *self.0 {
            Reason::VmaLimit {
                vmas,
                max_map_count,
            } => write!(f, " {vmas} of {max_map_count}"),
            Reason::RlimitAs {
                limit_bytes: limit,
                mapped_bytes: bytes,
            }
            | Reason::OvercommitAtOnce {
                wanted_bytes: bytes,
                memory_bytes: limit,
            } => write!(f, " {} of {}", Bytes(bytes), Bytes(limit)),
            Reason::OvercommitInAll {
                wanted_bytes,
                committed_bytes,
                allowed_bytes,
            } => write!(
                f,
                " {} of {}",
                Bytes(committed_bytes.saturating_add(wanted_bytes)),
                Bytes(allowed_bytes)
            ),
            Reason::NoAddressSpace { .. }
            | Reason::OutsideAddressSpace { .. }
            | Reason::UnmappedRange
            | Reason::NotOneMapping
            | Reason::LengthZero
            | Reason::UnalignedAddress { .. }
            | Reason::UnalignedOffset { .. }
            | Reason::OffsetTooLarge
            | Reason::NoType
            | Reason::BadDescriptor
            | Reason::AlreadyMapped
            | Reason::AddressTooLow { .. }
            | Reason::FileMode { .. }
            | Reason::NotMappable
            | Reason::RlimitMemlock
            | Reason::Sealed => Ok(()),
        }
    }
}

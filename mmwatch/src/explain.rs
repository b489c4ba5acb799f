//! Why a call failed: its errno, told apart by what is known of the call, of
//! the address space and of the kernel's limits.
//!
//! A reason is given when what was read is enough for the kernel to refuse the
//! call. Where several are, it is the one that the kernel meets first. Where
//! none is, there is no reason: nothing is guessed. `RLIMIT_DATA`, for one, is
//! not read, so what it may have caused stays unexplained.
//!
//! The kernel's checks are those of `do_mmap`, `__get_unmapped_area` and
//! `mmap_region` (mm/mmap.c, from 6.13 on mm/vma.c), `do_mprotect_pkey`
//! (mm/mprotect.c), `mremap` (mm/mremap.c) and `__vm_enough_memory`
//! (mm/util.c), whose order is the same from 5.10 to 6.18 unless noted.

mod reason;

use serde::{Deserialize, Serialize};

pub use self::reason::{Reason, Short};
use crate::{
    event::{Brk, Event, Map, Protect, Remap, Unmap, What},
    flags::{MapFlags, Prot},
};

/// What the kernel measures calls by, apart from the process's own limits.
/// `None` where it could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// `vm.max_map_count`.
    pub max_map_count: u32,
    /// How much memory may be promised.
    pub overcommit: Option<Overcommit>,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// End of the addresses that a process can have (`TASK_SIZE`).
    pub address_space_bytes: Option<u64>,
    /// `vm.mmap_min_addr`.
    pub mmap_min_addr: Option<u64>,
}

impl Limits {
    /// Whether they can be those of a kernel: what is measured in pages is divided
    /// by their size.
    pub const fn are_plausible(&self) -> bool {
        self.page_bytes.is_power_of_two()
    }
}

/// How much memory the kernel promises (`vm.overcommit_memory`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Overcommit {
    /// 0: no more at once than there is.
    Guess {
        /// RAM and swap together.
        memory_bytes: u64,
    },
    /// 1: anything.
    Always,
    /// 2: no more than there is, in all.
    Never {
        /// `CommitLimit`.
        limit_bytes: u64,
        /// `Committed_AS`.
        committed_bytes: u64,
        /// `vm.admin_reserve_kbytes`: kept from all but the administrator.
        admin_reserve_bytes: u64,
        /// `vm.user_reserve_kbytes`: at most this much is kept from each process.
        user_reserve_bytes: u64,
    },
}

// libc has them signed; none is negative.
const EPERM: u32 = libc::EPERM as u32;
const EBADF: u32 = libc::EBADF as u32;
const EAGAIN: u32 = libc::EAGAIN as u32;
const ENOMEM: u32 = libc::ENOMEM as u32;
const EACCES: u32 = libc::EACCES as u32;
const EFAULT: u32 = libc::EFAULT as u32;
const EEXIST: u32 = libc::EEXIST as u32;
const ENODEV: u32 = libc::ENODEV as u32;
const EINVAL: u32 = libc::EINVAL as u32;
const EOVERFLOW: u32 = libc::EOVERFLOW as u32;

/// Where x86-64 looks for room unless a hint points beyond it
/// (`DEFAULT_MAP_WINDOW`), whatever more five levels of page tables could address.
const MAP_WINDOW_BYTES: u64 = (1 << 47) - 4096;

/// VMAs that a move keeps free below the limit (`move_vma`, `prep_move_vma`).
const SPARE_TO_MOVE: u32 = 3;
/// The same where the new place is given (`mremap_to`, `check_mremap_params`):
/// either range may have to be split.
const SPARE_TO_MOVE_TO: u32 = 5;

/// Why an event's call failed; `None` for success, and where one cannot know.
pub fn explain(event: &Event, limits: &Limits) -> Option<Reason> {
    let errno = event.errno?.number();
    let failure = Failure { event, limits };
    match &event.what {
        What::Map(map) => failure.map(errno, map),
        What::Unmap(unmap) => failure.unmap(errno, unmap),
        What::Protect(protect) => failure.protect(errno, protect),
        What::Remap(remap) => failure.remap(errno, remap),
        // The kernel's brk has no errno: whatever its reason, it is ENOMEM here.
        What::Brk(brk) => failure.brk(brk),
        // Their calls are not watched for their result.
        What::Grow(_) | What::Advise(_) | What::Fork(_) | What::Exec(_) | What::Exit(_) => None,
    }
}

/// What there is to judge by.
#[derive(Clone, Copy)]
struct Failure<'a> {
    event: &'a Event,
    limits: &'a Limits,
}

impl Failure<'_> {
    fn map(self, errno: u32, map: &Map) -> Option<Reason> {
        // Without flags it is no mmap(2), which alone has its arguments known.
        let Some(flags) = map.flags else {
            return match errno {
                ENOMEM => self.vma_limit_passed(),
                _ => None,
            };
        };
        let anonymous = flags.is_anonymous();
        match errno {
            ENOMEM => self.map_enomem(map, flags),
            EINVAL => {
                let offset = map.file.as_ref().map(|(_, offset)| *offset);
                let fixed = map.range.addr.filter(|_| flags.is_fixed());
                if let Some(offset_bytes) = offset.filter(|offset| self.is_unaligned(*offset)) {
                    Some(Reason::UnalignedOffset { offset_bytes })
                } else if map.range.requested_len_bytes == Some(0) {
                    Some(Reason::LengthZero)
                } else if let Some(reason) = self.unaligned(fixed) {
                    Some(reason)
                } else {
                    flags.is_untyped().then_some(Reason::NoType)
                }
            }
            EBADF => (!anonymous).then_some(Reason::BadDescriptor),
            EEXIST => flags.is_kept_off().then_some(Reason::AlreadyMapped),
            EPERM => {
                let addr = map.range.addr.filter(|_| flags.is_fixed())?;
                let min_addr = self.limits.mmap_min_addr?;
                (addr < min_addr).then_some(Reason::AddressTooLow { addr, min_addr })
            }
            EACCES => self.file_mode(map, flags),
            EAGAIN => anonymous.then_some(Reason::RlimitMemlock),
            ENODEV => (!anonymous).then_some(Reason::NotMappable),
            EOVERFLOW => Some(Reason::OffsetTooLarge),
            _ => None,
        }
    }

    fn map_enomem(self, map: &Map, flags: MapFlags) -> Option<Reason> {
        let requested = map.range.requested_len_bytes?;
        let Some(len) = self.whole_pages(requested) else {
            return Some(Reason::NoAddressSpace {
                wanted_bytes: requested,
                address_space_bytes: self.limits.address_space_bytes?,
            });
        };
        // What MAP_FIXED replaces makes room, and how much that is is not known.
        let added = if flags.may_replace() { 0 } else { len };
        self.vma_limit_passed()
            .or_else(|| self.no_address_space(map.range.addr?, len, flags))
            .or_else(|| self.rlimit_as(added))
            .or_else(|| self.overcommit(accounted_bytes(map, flags, len, self.limits)?))
            // At the limit, not above it: MAP_FIXED may have to split what it replaces.
            .or_else(|| self.vma_limit(0))
    }

    fn unmap(self, errno: u32, unmap: &Unmap) -> Option<Reason> {
        match errno {
            ENOMEM => self.vma_limit(0),
            EINVAL => {
                let addr = unmap.range.addr?;
                let len_bytes = unmap.range.requested_len_bytes?;
                if let Some(reason) = self.unaligned(Some(addr)) {
                    return Some(reason);
                }
                let space = self.limits.address_space_bytes;
                if space.is_some_and(|end| addr.saturating_add(len_bytes) > end) {
                    return Some(Reason::OutsideAddressSpace { addr, len_bytes });
                }
                (len_bytes == 0).then_some(Reason::LengthZero)
            }
            // No security module is asked.
            EPERM => Some(Reason::Sealed),
            _ => None,
        }
    }

    fn protect(self, errno: u32, protect: &Protect) -> Option<Reason> {
        let addr = protect.range.addr?;
        match errno {
            ENOMEM => {
                let len_bytes = protect.range.requested_len_bytes?;
                let end = self
                    .whole_pages(len_bytes)
                    .and_then(|len| addr.checked_add(len));
                if end.is_none() {
                    return Some(Reason::OutsideAddressSpace { addr, len_bytes });
                }
                self.event.space.vmas?;
                self.vma_limit(0).or_else(|| {
                    // What becomes writable is also held against RLIMIT_DATA
                    // and what is committed (mprotect_fixup).
                    let writable = protect.prot?.is_writable();
                    (!writable).then_some(Reason::UnmappedRange)
                })
            }
            EINVAL => self.unaligned(Some(addr)),
            _ => None,
        }
    }

    fn remap(self, errno: u32, remap: &Remap) -> Option<Reason> {
        let flags = remap.flags?;
        match errno {
            ENOMEM => {
                let new = self.whole_pages(remap.range.requested_len_bytes?)?;
                let old = remap.old_len_bytes?;
                let added = if flags.leaves_old() {
                    new
                } else {
                    new.saturating_sub(old)
                };
                if flags.is_to_new_addr()
                    && let Some(reason) = self.vma_limit(SPARE_TO_MOVE_TO)
                {
                    return Some(reason);
                }
                if added == 0 {
                    // What is cut off may have to be split from the rest.
                    return self.vma_limit(0);
                }
                if let Some(reason) = self.rlimit_as(added) {
                    return Some(reason);
                }
                if !flags.may_move() || flags.is_to_new_addr() {
                    return None;
                }
                self.no_gap(0, new)
                    .or_else(|| self.vma_limit(SPARE_TO_MOVE))
            }
            EINVAL => self.unaligned(remap.old_addr).or_else(|| {
                (remap.range.requested_len_bytes == Some(0)).then_some(Reason::LengthZero)
            }),
            EFAULT => Some(Reason::NotOneMapping),
            EAGAIN => Some(Reason::RlimitMemlock),
            // With a new place given, that may also be one that is not allowed.
            EPERM => (!flags.is_to_new_addr()).then_some(Reason::Sealed),
            _ => None,
        }
    }

    fn brk(self, brk: &Brk) -> Option<Reason> {
        let addr = brk.range.addr?;
        let len_bytes = self
            .whole_pages(brk.requested_addr?)?
            .checked_sub(addr)
            .filter(|added| *added != 0)?;
        if addr.saturating_add(len_bytes) > self.limits.address_space_bytes.unwrap_or(u64::MAX) {
            return Some(Reason::OutsideAddressSpace { addr, len_bytes });
        }
        self.rlimit_as(len_bytes)
            .or_else(|| self.vma_limit_passed())
            .or_else(|| self.overcommit(len_bytes))
    }

    /// New mappings are refused once there is one VMA more than the limit
    /// (`do_mmap`, `do_brk_flags`).
    fn vma_limit_passed(self) -> Option<Reason> {
        self.vma_limit(0)
            .filter(|_| self.event.space.vmas > Some(self.limits.max_map_count))
    }

    /// Splits are refused at the limit (`split_vma`), moves `spare` VMAs below it.
    fn vma_limit(self, spare: u32) -> Option<Reason> {
        let max_map_count = self.limits.max_map_count;
        let vmas = self.event.space.vmas?;
        (vmas.saturating_add(spare) >= max_map_count).then_some(Reason::VmaLimit {
            vmas,
            max_map_count,
        })
    }

    /// `may_expand_vm`, which counts whole pages.
    fn rlimit_as(self, added_bytes: u64) -> Option<Reason> {
        let limit_bytes = self.event.rlimit_as_bytes?;
        let mapped_bytes = self.event.space.total_bytes?.saturating_add(added_bytes);
        let page_bytes = self.limits.page_bytes;
        (mapped_bytes / page_bytes > limit_bytes / page_bytes).then_some(Reason::RlimitAs {
            limit_bytes,
            mapped_bytes,
        })
    }

    /// `__get_unmapped_area`.
    fn no_address_space(self, addr: u64, len_bytes: u64, flags: MapFlags) -> Option<Reason> {
        let address_space_bytes = self.limits.address_space_bytes?;
        if len_bytes > address_space_bytes {
            return Some(Reason::NoAddressSpace {
                wanted_bytes: len_bytes,
                address_space_bytes,
            });
        }
        if !flags.is_fixed() {
            return self.no_gap(addr, len_bytes);
        }
        (addr > address_space_bytes - len_bytes)
            .then_some(Reason::OutsideAddressSpace { addr, len_bytes })
    }

    /// Whether there cannot be a gap of this length. Where there are gaps
    /// enough but none is long enough, that is not known.
    fn no_gap(self, hint: u64, len_bytes: u64) -> Option<Reason> {
        let all = self.limits.address_space_bytes?;
        let window = if hint > MAP_WINDOW_BYTES {
            all
        } else {
            all.min(MAP_WINDOW_BYTES)
        };
        // Mappings that lie beyond the window take no room in it.
        let taken = match self.event.space.total_bytes {
            Some(total_bytes) if window == all => total_bytes,
            Some(_) | None => 0,
        };
        (taken.saturating_add(len_bytes) > window).then_some(Reason::NoAddressSpace {
            wanted_bytes: len_bytes,
            address_space_bytes: window,
        })
    }

    /// `__vm_enough_memory`, as it is since 5.2.
    fn overcommit(self, wanted_bytes: u64) -> Option<Reason> {
        match self.limits.overcommit? {
            Overcommit::Guess { memory_bytes } => {
                (wanted_bytes > memory_bytes).then_some(Reason::OvercommitAtOnce {
                    wanted_bytes,
                    memory_bytes,
                })
            }
            Overcommit::Always => None,
            Overcommit::Never {
                limit_bytes,
                committed_bytes,
                admin_reserve_bytes,
                user_reserve_bytes,
            } => {
                let own = self.event.space.total_bytes? / 32;
                // Capabilities are not known; root may well have the one that counts.
                let admin = match self.event.actor.uid {
                    0 => 0,
                    _ => admin_reserve_bytes,
                };
                let allowed_bytes = limit_bytes
                    .saturating_sub(admin)
                    .saturating_sub(own.min(user_reserve_bytes));
                (committed_bytes.saturating_add(wanted_bytes) >= allowed_bytes).then_some(
                    Reason::OvercommitInAll {
                        wanted_bytes,
                        committed_bytes,
                        allowed_bytes,
                    },
                )
            }
        }
    }

    /// EACCES under the lock is about how the file was opened (`do_mmap`), or
    /// from the file's driver. A security module says no before the lock.
    fn file_mode(self, map: &Map, flags: MapFlags) -> Option<Reason> {
        let (file, _) = map.file.as_ref()?;
        let in_dev = file.path.as_ref()?.starts_with("/dev/");
        // mmap_region, which asks the driver, is where vm_flags are seen.
        if !self.event.space.settled || in_dev || map.vm_flags.is_some() {
            return None;
        }
        let writes = flags.is_shared()? && map.prot?.is_writable();
        Some(Reason::FileMode { writes })
    }

    fn unaligned(self, addr: Option<u64>) -> Option<Reason> {
        addr.filter(|addr| self.is_unaligned(*addr))
            .map(|addr| Reason::UnalignedAddress { addr })
    }

    fn is_unaligned(self, value: u64) -> bool {
        !value.is_multiple_of(self.limits.page_bytes)
    }

    /// `PAGE_ALIGN`; `None` where that wraps around.
    fn whole_pages(self, bytes: u64) -> Option<u64> {
        bytes.checked_next_multiple_of(self.limits.page_bytes)
    }
}

/// What of a mapping is counted as promised (`accountable_mapping`,
/// `shmem_acct_size`): what is private and writable, and shared memory.
fn accounted_bytes(map: &Map, flags: MapFlags, len_bytes: u64, limits: &Limits) -> Option<u64> {
    let strict = matches!(limits.overcommit, Some(Overcommit::Never { .. }));
    if flags.is_huge() || flags.is_droppable() || (flags.is_unreserved() && !strict) {
        return None;
    }
    let counted = if flags.is_shared()? {
        flags.is_anonymous()
    } else {
        map.prot.is_some_and(Prot::is_writable)
    };
    counted.then_some(len_bytes)
}

#[cfg(test)]
mod tests;

//! What an event means for the ranges of its address space.

use std::ops::Range;

use super::{
    model::Reason,
    ranges::{Backed, Mapping},
};
use crate::{
    event::{self, Advise, Brk, Cause, Event, FileRef, Map, Protect, Remap, Unmap, What},
    explain,
    flags::{MapFlags, Prot, vm},
};

/// mmwatch knows no machine but x86-64.
const PAGE_BYTES: u64 = 4096;

/// What one event changed. Ranges are addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing that the ranges tell.
    Nothing,
    /// Something was mapped, whatever was there before.
    Set(Range<u64>, Mapping),
    /// Nothing is mapped there any more.
    Clear(Range<u64>),
    /// What is mapped there has another protection.
    Protect(Range<u64>, Prot),
    /// mprotect(2) failed at the first page that is not mapped: what comes
    /// before it has another protection.
    ProtectUpToHole(Range<u64>, Prot),
    /// mremap(2): see [`super::ranges::Ranges::move_to`].
    Move {
        /// Where it was.
        old: Range<u64>,
        /// Where it is.
        new: Range<u64>,
        /// Whether it is in both places.
        keep_old: bool,
    },
    /// mremap(2) with an old length of 0: see [`super::ranges::Ranges::duplicate`].
    Duplicate {
        /// What.
        at: u64,
        /// Where it is now too.
        new: Range<u64>,
    },
    /// The heap grew by this range.
    Heap(Range<u64>),
    /// shmdt(2) removed as many bytes of the segment that begins where this
    /// range does, which may have had holes.
    Detach(Range<u64>),
    /// Something that is not known well enough.
    Unexplained(Reason),
}

impl Change {
    /// What an event of a section changed.
    pub(crate) fn of(event: &Event) -> Self {
        let change = match &event.what {
            What::Map(map) => Self::map(event, map),
            What::Unmap(unmap) => Self::unmap(event, unmap),
            What::Protect(protect) => Self::protect(event, protect),
            What::Remap(remap) => Self::remap(event, remap),
            What::Brk(brk) => Self::brk(event, brk),
            What::Grow(_) => Some(Self::Unexplained(Reason::StackGrew)),
            What::Advise(advise) => Some(Self::advise(event, advise)),
            What::Exec(_) => Some(Self::Unexplained(Reason::NewProgram)),
            What::Fork(_) | What::Exit(_) => Some(Self::Nothing),
        };
        change.unwrap_or(Self::Unexplained(Reason::Unseen))
    }

    fn map(event: &Event, map: &Map) -> Option<Self> {
        if event.errno.is_some() {
            return Some(Self::failed(event));
        }
        let prot = match map.vm_flags {
            Some(flags) => Prot((flags & 7) as u32),
            None => map.prot?,
        };
        let shared = match map.vm_flags {
            Some(flags) => flags & vm::MAYSHARE != 0,
            None => map.flags?.is_shared()?,
        };
        let mapping = Mapping {
            prot,
            shared,
            backed: backed(map, shared),
        };
        Some(Self::Set(covered(map.range)?, mapping))
    }

    fn unmap(event: &Event, unmap: &Unmap) -> Option<Self> {
        if event.errno.is_some() {
            return Some(Self::failed(event));
        }
        if let Some(span_bytes) = unmap.span_bytes {
            return Some(Self::Clear(range(unmap.range.addr?, span_bytes)?));
        }
        match event.cause {
            Cause::Shmdt => Some(Self::Detach(covered(unmap.range)?)),
            Cause::Mmap
            | Cause::Munmap
            | Cause::MapFixed
            | Cause::Mprotect
            | Cause::Mremap
            | Cause::Brk
            | Cause::Shmat
            | Cause::Exec
            | Cause::Fork
            | Cause::Exit
            | Cause::Madvise
            | Cause::Mlock
            | Cause::Mseal
            | Cause::Prctl
            | Cause::Mbind
            | Cause::RemapFilePages
            | Cause::Fault
            | Cause::Other => None,
        }
    }

    fn protect(event: &Event, protect: &Protect) -> Option<Self> {
        if event.errno.is_some() {
            return Some(Self::failed_protect(event, protect));
        }
        let prot = protect.prot.filter(|prot| !prot.reaches_further())?;
        Some(Self::Protect(covered(protect.range)?, prot))
    }

    /// The kernel changes one VMA after the other, so those before the one that
    /// it failed at have changed.
    fn failed_protect(event: &Event, protect: &Protect) -> Self {
        let unexplained = Self::Unexplained(Reason::Failed);
        let (Some(addr), Some(len)) = (protect.range.addr, protect.range.requested_len_bytes)
        else {
            return unexplained;
        };
        let Some(len_bytes) = len.checked_next_multiple_of(PAGE_BYTES) else {
            return Self::Nothing;
        };
        match (event.reason, protect.prot, range(addr, len_bytes)) {
            // One page is in one VMA.
            _ if len_bytes <= PAGE_BYTES => Self::Nothing,
            (Some(explain::Reason::UnmappedRange), Some(prot), Some(range)) => {
                Self::ProtectUpToHole(range, prot)
            }
            _ => unexplained,
        }
    }

    fn remap(event: &Event, remap: &Remap) -> Option<Self> {
        if event.errno.is_some() {
            // Of several mappings some may have moved: those left holes behind.
            let moved = event.space.vmas_removed.is_some_and(|vmas| vmas != 0);
            return Some(if moved {
                Self::Unexplained(Reason::Failed)
            } else {
                Self::failed(event)
            });
        }
        let new = covered(remap.range)?;
        let old = range(remap.old_addr?, remap.old_len_bytes?)?;
        let keep_old = remap.flags?.leaves_old();
        Some(if old.is_empty() {
            Self::Duplicate { at: old.start, new }
        } else if new.start == old.start && new.end <= old.end {
            Self::Clear(new.end..old.end)
        } else {
            Self::Move { old, new, keep_old }
        })
    }

    fn brk(event: &Event, brk: &Brk) -> Option<Self> {
        if event.errno.is_some() {
            return Some(Self::failed(event));
        }
        let net = event.space.total_delta_bytes?;
        let range = covered(brk.range)?;
        Some(match net {
            0 => Self::Nothing,
            1.. => Self::Heap(range),
            ..0 => Self::Clear(range),
        })
    }

    fn advise(event: &Event, _: &Advise) -> Self {
        match event.cause {
            // They split and merge VMAs; permissions, files and what is mapped stay.
            Cause::Madvise | Cause::Mlock | Cause::Mseal | Cause::Mbind | Cause::Prctl => {
                Self::Nothing
            }
            Cause::RemapFilePages => Self::Unexplained(Reason::PagesRearranged),
            Cause::Mmap
            | Cause::Munmap
            | Cause::MapFixed
            | Cause::Mprotect
            | Cause::Mremap
            | Cause::Brk
            | Cause::Shmat
            | Cause::Shmdt
            | Cause::Exec
            | Cause::Fork
            | Cause::Exit
            | Cause::Fault
            | Cause::Other => Self::Unexplained(Reason::Unseen),
        }
    }

    /// A failed call changes nothing, but for what it had done before it failed.
    fn failed(event: &Event) -> Self {
        if event.space.total_delta_bytes == Some(0) {
            Self::Nothing
        } else {
            Self::Unexplained(Reason::Failed)
        }
    }

    /// Whether what it does depends on what is there: then it cannot be done
    /// again over ranges that may have it already.
    pub(super) fn is_relative(&self) -> bool {
        match self {
            Self::ProtectUpToHole(..)
            | Self::Move { .. }
            | Self::Duplicate { .. }
            | Self::Detach(_) => true,
            Self::Nothing
            | Self::Set(..)
            | Self::Clear(_)
            | Self::Protect(..)
            | Self::Heap(_)
            | Self::Unexplained(_) => false,
        }
    }
}

/// Whether a mapping became executable because it is readable, for a process
/// with the personality `READ_IMPLIES_EXEC`: what its calls ask for is not
/// what they get.
pub(super) fn reading_implied_executing(event: &Event) -> bool {
    match &event.what {
        What::Map(Map {
            prot: Some(prot),
            vm_flags: Some(vm_flags),
            ..
        }) => prot.0 & 4 == 0 && vm_flags & 4 != 0,
        What::Map(_)
        | What::Unmap(_)
        | What::Protect(_)
        | What::Remap(_)
        | What::Brk(_)
        | What::Grow(_)
        | What::Advise(_)
        | What::Fork(_)
        | What::Exec(_)
        | What::Exit(_) => false,
    }
}

fn backed(map: &Map, shared: bool) -> Backed {
    // The kernel shares memory of its own when `/dev/zero` is mapped so; only
    // where its map function is hooked is the file known that it makes for it.
    let own = |file: &FileRef| {
        shared && map.vm_flags.is_none() && file.path.as_deref() == Some("/dev/zero")
    };
    if let Some((file, offset)) = &map.file
        && !own(file)
    {
        return Backed::File {
            dev: file.dev,
            inode: file.inode,
            offset: *offset,
        };
    }
    // The kernel makes a file of its own for shared anonymous memory and for
    // huge pages, and shows it.
    let named = map.flags.is_some_and(|flags| !flags.is_anonymous());
    let huge = map.flags.is_some_and(MapFlags::is_huge);
    if shared || named || huge {
        Backed::UnknownFile
    } else {
        Backed::Anonymous
    }
}

fn covered(of: event::Range) -> Option<Range<u64>> {
    range(of.addr?, of.len_bytes?)
}

fn range(start: u64, len_bytes: u64) -> Option<Range<u64>> {
    Some(start..start.checked_add(len_bytes)?)
}

#[cfg(test)]
mod tests;

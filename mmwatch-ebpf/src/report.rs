//! Puts records together: from the return of a call, or from the end of a
//! section that belongs to no call of ours.

mod call;

use mmwatch_common::{
    counter::Hook,
    event::{
        Advise, Backing, Cause, FileId, Grow, KNOWN_ARGS, KNOWN_FILE, KNOWN_RANGE, KNOWN_SPACE,
        KNOWN_VM_FLAGS, MORE, Map, Protect, Space, UNKNOWN_VMAS, UNRETURNED, Unmap,
    },
    suspect::Suspects,
};

pub use self::call::returned;
use crate::{
    arch::Args,
    emit::{self, Head},
    memory::PAGE_SHIFT,
    section::{
        HAS_BASE, HAS_DELTA, HAS_DRIFT, HAS_FILE, HAS_MAP, HAS_SETTLED, HAS_UNMAP_VMAS, Section,
    },
    sums::Extent,
    task::{self, Task},
};

const PAGE_BYTES: u64 = 1 << PAGE_SHIFT;

/// `PROT_READ | PROT_WRITE | PROT_EXEC`, which are also `VM_READ | VM_WRITE | VM_EXEC`.
const PROT_MASK: u64 = 0x7;
const VM_SHARED_OR_MAYSHARE: u64 = 0x8 | 0x80;
/// `VM_IO | VM_PFNMAP`: no memory of the kernel's behind it.
const VM_SPECIAL: u64 = 0x4000 | 0x400;

/// Largest errno that a kernel function returns in place of an address (`MAX_ERRNO`).
const MAX_ERRNO: u64 = 4095;
/// errno of a failing brk(2), and of mappings that there is no room for.
pub const ENOMEM: u32 = 12;

/// Which of a section's records one is. No enum with a payload: what is not
/// set on every path, the compiler may move around unset, and verifiers refuse.
#[derive(Clone, Copy)]
struct Part {
    /// Another follows; the last tells what the section cost and changed.
    more: bool,
    /// It is plain that nothing was unmapped.
    kept: bool,
}

impl Part {
    const MORE: Self = Self {
        more: true,
        kept: false,
    };

    #[inline(always)]
    const fn last(kept: bool) -> Self {
        Self { more: false, kept }
    }
}

/// The address space after the section, and which of its fields say something.
#[inline(always)]
fn space(section: &Section, part: Part) -> (Space, u16) {
    let (told, more) = if part.more {
        (HAS_SETTLED | HAS_DRIFT, MORE)
    } else {
        (HAS_SETTLED | HAS_DRIFT | HAS_BASE | HAS_DELTA, 0)
    };
    let known = KNOWN_SPACE | more | (section.has & told) as u16;
    let mut space = Space {
        mm: section.mm,
        born_ns: section.born_ns,
        section: section.number,
        pages: section.pages,
        vmas: section.vmas,
        ..NO_SPACE
    };
    if !part.more {
        space.held_ns = section.held_ns;
        space.vmas_delta = section.vmas_delta;
        space.pages_delta = section.pages_delta;
        space.vmas_removed = vmas_removed(section, part.kept);
    }
    (space, known)
}

pub const NO_SPACE: Space = Space {
    mm: 0,
    born_ns: 0,
    section: 0,
    pages: 0,
    pages_delta: 0,
    held_ns: 0,
    vmas: 0,
    vmas_delta: 0,
    vmas_removed: UNKNOWN_VMAS,
    pad: 0,
};

/// What a record begins with.
#[inline(always)]
fn head(task: &Task, cause: Cause, errno: u32, section: Option<&Section>, part: Part) -> Head {
    let (space, known, owner_tgid, boot_ns) = match section {
        Some(section) => {
            let (space, known) = space(section, part);
            (space, known, section.owner_tgid, section.settled_ns)
        }
        None => (NO_SPACE, 0, task.tgid, task::now()),
    };
    Head {
        cause: cause as u8,
        known,
        errno,
        suspects: Suspects::NONE,
        boot_ns,
        tgid: task.tgid,
        owner_tgid,
        start_boot_ns: task.start_boot_ns(),
        space,
    }
}

/// Errno of a call's result, 0 for success.
#[inline(always)]
pub fn errno(result: u64) -> u32 {
    if result >= MAX_ERRNO.wrapping_neg() {
        result.wrapping_neg() as u32
    } else {
        0
    }
}

#[inline(always)]
fn bytes(pages: u64) -> u64 {
    pages << PAGE_SHIFT
}

/// VMAs that the section removed: what the unmap core told, none where it is
/// plain that nothing was unmapped (`kept`), else [`UNKNOWN_VMAS`].
#[inline(always)]
fn vmas_removed(section: &Section, kept: bool) -> u32 {
    if section.has(HAS_UNMAP_VMAS) {
        section.unmap.vmas
    } else if kept {
        0
    } else {
        UNKNOWN_VMAS
    }
}

/// A mapping that no mmap(2) asked for.
#[inline(always)]
fn unrequested_map(addr: u64, len_bytes: u64) -> Map {
    Map {
        addr,
        len_bytes,
        requested_len_bytes: 0,
        vm_flags: 0,
        offset_bytes: 0,
        prot: 0,
        flags: 0,
        file: FileId::default(),
    }
}

/// Fills in what `mmap_region` saw; returns the `KNOWN_*` bits of it.
#[inline(always)]
fn from_detail(section: &Section, payload: &mut Map) -> u16 {
    let detail = &section.map;
    payload.vm_flags = detail.vm_flags;
    payload.prot = (detail.vm_flags & PROT_MASK) as u32;
    payload.offset_bytes = bytes(detail.offset_pages);
    if section.has(HAS_FILE) {
        payload.file = detail.file_id;
        return KNOWN_VM_FLAGS | KNOWN_FILE;
    }
    payload.offset_bytes = 0;
    KNOWN_VM_FLAGS
}

/// What a mapping that `mmap_region` made has its pages from.
#[inline(always)]
fn backing_of_detail(section: &Section) -> Option<Backing> {
    let vm_flags = section.map.vm_flags;
    if vm_flags & VM_SPECIAL != 0 {
        return Some(Backing::Special);
    }
    let shared = vm_flags & VM_SHARED_OR_MAYSHARE != 0;
    Some(Backing::of(shared, !section.has(HAS_FILE)))
}

/// What a call that only advises asked for. All zeroes where that is not known.
#[derive(Clone, Copy)]
pub struct Advised {
    addr: u64,
    len_bytes: u64,
    advice: u64,
    /// [`KNOWN_ARGS`] or 0.
    known: u16,
}

impl Advised {
    /// Not asked for by such a call.
    pub const UNKNOWN: Self = Self {
        addr: 0,
        len_bytes: 0,
        advice: 0,
        known: 0,
    };

    /// By its arguments.
    #[inline(always)]
    pub fn by(Args([addr, len_bytes, advice, ..]): Args) -> Self {
        Self {
            addr,
            len_bytes,
            advice,
            known: KNOWN_ARGS,
        }
    }
}

/// A section ended that belongs to no call whose return is hooked: the loader,
/// a page fault, a driver. Its details leave now.
#[inline(always)]
pub fn section_ended(hook: Hook, task: &Task, section: &Section, advised: Advised) {
    details(hook, task, section, advised, 0);
}

/// The return of the section's call was missed: what is known leaves now, late.
#[inline(always)]
pub fn unreturned(hook: Hook, task: &Task, section: &Section) {
    details(hook, task, section, Advised::UNKNOWN, UNRETURNED);
}

/// The records of a section, from what its hooks saw; `known` is added to theirs.
#[inline(always)]
fn details(hook: Hook, task: &Task, section: &Section, advised: Advised, known: u16) {
    // Copied, not converted: the byte on the wire is checked by its reader.
    let cause = section.cause as u8;
    let has_map = section.has(HAS_MAP);
    if section.unmap.pages != 0 {
        let part = if has_map {
            Part::MORE
        } else {
            Part::last(false)
        };
        let mut head = head(task, Cause::Other, 0, Some(section), part);
        head.cause = cause;
        head.known |= known;
        head.known |= KNOWN_RANGE;
        let unmap = &section.unmap;
        let payload = Unmap {
            addr: unmap.start,
            len_bytes: bytes(unmap.pages),
            // Of several ranges only their hull is known.
            requested_len_bytes: match unmap.runs {
                1 => unmap.end.wrapping_sub(unmap.start),
                _ => 0,
            },
            vmas_removed: vmas_removed(section, false),
            pad: 0,
        };
        let extent = Extent::unmapped(payload.len_bytes, payload.len_bytes);
        emit::record(hook, task, &head, payload, &extent);
        if !has_map {
            return;
        }
    }
    let kept = section.unmap.pages == 0 && (has_map || keeps(cause));
    let mut head = head(task, Cause::Other, 0, Some(section), Part::last(kept));
    head.cause = cause;
    head.known |= known;
    if has_map {
        head.known |= KNOWN_RANGE;
        let mut payload = unrequested_map(section.map.addr, section.map.len_bytes);
        head.known |= from_detail(section, &mut payload);
        head.suspects = section.suspects();
        let extent = Extent {
            backing: backing_of_detail(section),
            ..Extent::mapped(payload.len_bytes, payload.len_bytes)
        };
        emit::record(hook, task, &head, payload, &extent);
        return;
    }

    // No detail: the counts say what kind of change it was.
    let len_bytes = bytes(section.pages_delta.unsigned_abs());
    if section.pages_delta > 0 && cause == Cause::Fault as u8 {
        let extent = Extent::mapped(len_bytes, len_bytes).of(Backing::PrivateAnonymous);
        emit::record(hook, task, &head, Grow { len_bytes }, &extent);
    } else if section.pages_delta > 0 {
        let extent = Extent::mapped(len_bytes, len_bytes);
        emit::record(hook, task, &head, unrequested_map(0, len_bytes), &extent);
    } else if section.pages_delta < 0 {
        let payload = Unmap {
            addr: 0,
            len_bytes,
            requested_len_bytes: 0,
            vmas_removed: UNKNOWN_VMAS,
            pad: 0,
        };
        let extent = Extent::unmapped(len_bytes, len_bytes);
        emit::record(hook, task, &head, payload, &extent);
    } else if cause == Cause::Mprotect as u8 {
        let payload = Protect {
            addr: 0,
            len_bytes: 0,
            requested_len_bytes: 0,
            prot: 0,
            old_prot: 0,
        };
        emit::record(hook, task, &head, payload, &Extent::NONE);
    } else {
        head.known |= advised.known;
        let payload = Advise {
            addr: advised.addr,
            requested_len_bytes: advised.len_bytes,
            advice: advised.advice,
        };
        let extent = Extent::covered(payload.requested_len_bytes, 0);
        emit::record(hook, task, &head, payload, &extent);
    }
}

/// Whether a cause changes mappings without ever unmapping one.
#[inline(always)]
fn keeps(cause: u8) -> bool {
    let bit = |cause: Cause| 1 << cause as u32;
    let keeping = bit(Cause::Mprotect)
        | bit(Cause::Madvise)
        | bit(Cause::Mlock)
        | bit(Cause::Mseal)
        | bit(Cause::Prctl)
        | bit(Cause::Mbind)
        | bit(Cause::Fault);
    (1_u32 << (cause & 31)) & keeping != 0
}

//! Puts records together: from the return of a call, or from the end of a
//! section that belongs to no call of ours.

use mmwatch_common::{
    config::Call,
    counter::Hook,
    event::{
        Advise, Base, Brk, Cause, FileId, Grow, KNOWN_ARGS, KNOWN_FILE, KNOWN_RANGE, KNOWN_SPACE,
        KNOWN_VM_FLAGS, Map, Protect, Remap, Space, UNKNOWN_VMAS, UNRETURNED, Unmap,
    },
};

use crate::{
    arch::Args,
    emit, file,
    section::{HAS_BASE, HAS_DELTA, HAS_FILE, HAS_MAP, HAS_SETTLED, HAS_UNMAP_VMAS, Section},
    task::{self, Task},
};

const PAGE_SHIFT: u32 = 12;
const PAGE_BYTES: u64 = 1 << PAGE_SHIFT;

/// `PROT_READ | PROT_WRITE | PROT_EXEC`, which are also `VM_READ | VM_WRITE | VM_EXEC`.
const PROT_MASK: u64 = 0x7;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_HUGETLB: u64 = 0x4_0000;
const MREMAP_DONTUNMAP: u64 = 4;

/// Largest errno that a kernel function returns in place of an address (`MAX_ERRNO`).
const MAX_ERRNO: u64 = 4095;
const ENOMEM: u32 = 12;

/// The address space after the section, and which of its fields say something.
/// `net`: this is the section's last record, which tells what it cost and changed.
#[inline(always)]
fn space(section: &Section, net: bool) -> (Space, u16) {
    let told = if net {
        HAS_SETTLED | HAS_BASE | HAS_DELTA
    } else {
        HAS_SETTLED
    };
    let known = KNOWN_SPACE | (section.has & told) as u16;
    let mut space = Space {
        section: section.number,
        pages: section.pages,
        vmas: section.vmas,
        ..NO_SPACE
    };
    if net {
        space.held_ns = section.held_ns;
        space.vmas_delta = section.vmas_delta;
        space.pages_delta = section.pages_delta;
    }
    (space, known)
}

const NO_SPACE: Space = Space {
    section: 0,
    pages: 0,
    pages_delta: 0,
    held_ns: 0,
    vmas: 0,
    vmas_delta: 0,
};

/// The common part; `net` as for [`space`].
#[inline(always)]
fn base(task: &Task, cause: Cause, errno: u32, section: Option<&Section>, net: bool) -> Base {
    let (space, known, owner_tgid) = match section {
        Some(section) => {
            let (space, known) = space(section, net);
            (space, known, section.owner_tgid)
        }
        None => (NO_SPACE, 0, task.tgid),
    };
    Base {
        kind: 0,
        cause: cause as u8,
        known,
        errno,
        boot_ns: task::now(),
        actor: task.actor(owner_tgid),
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
fn whole_pages(bytes: u64) -> u64 {
    bytes.wrapping_add(PAGE_BYTES - 1) & !(PAGE_BYTES - 1)
}

#[inline(always)]
fn bytes(pages: u64) -> u64 {
    pages << PAGE_SHIFT
}

/// VMAs that the unmap core removed, where it was seen.
#[inline(always)]
fn vmas_removed(section: Option<&Section>) -> u32 {
    match section {
        Some(section) if section.has(HAS_UNMAP_VMAS) => section.unmap.vmas,
        _ => UNKNOWN_VMAS,
    }
}

/// Pages by which the section shrank the address space below what the call
/// itself adds: those that it replaced.
#[inline(always)]
fn replaced_pages(section: Option<&Section>, added_pages: i64) -> u64 {
    match section {
        Some(section) if section.has(HAS_DELTA) => {
            let replaced = added_pages - section.pages_delta;
            if replaced > 0 { replaced as u64 } else { 0 }
        }
        _ => 0,
    }
}

/// The record of mappings that made way for others.
#[inline(always)]
fn replaced(
    hook: Hook,
    task: &Task,
    cause: Cause,
    section: Option<&Section>,
    addr: u64,
    range_bytes: u64,
    pages: u64,
) {
    let mut base = base(task, cause, 0, section, false);
    base.known |= KNOWN_RANGE | KNOWN_ARGS;
    let payload = Unmap {
        addr,
        len_bytes: bytes(pages),
        requested_len_bytes: range_bytes,
        vmas_removed: vmas_removed(section),
        pad: 0,
    };
    emit::record(hook, base, payload, Some(payload.len_bytes));
}

/// A call of ours returned `result`. `section` is what it did under the lock,
/// if it got that far.
#[inline(always)]
pub fn returned(
    hook: Hook,
    task: &Task,
    call: Call,
    args: Args,
    result: u64,
    section: Option<&Section>,
) {
    match call {
        Call::Mmap => mmap(hook, task, args, result, section),
        Call::Munmap => munmap(hook, task, args, result, section),
        Call::Mprotect => mprotect(hook, task, args, result, section),
        Call::Mremap => mremap(hook, task, args, result, section),
        Call::Brk => brk(hook, task, args, result, section),
        Call::Shmat => shmat(hook, task, args, result, section),
        Call::Shmdt => shmdt(hook, task, args, result, section),
    }
}

#[inline(always)]
fn mmap(
    hook: Hook,
    task: &Task,
    Args([addr, len, prot, flags, descriptor, offset]): Args,
    result: u64,
    section: Option<&Section>,
) {
    let errno = errno(result);
    let detail = section.filter(|section| section.has(HAS_MAP));
    let len_bytes = match (detail, section) {
        _ if errno != 0 => 0,
        (Some(section), _) => section.map.len_bytes,
        // Rounded up to the size of a huge page, which only the total tells.
        (None, Some(section)) if flags & MAP_HUGETLB != 0 && section.pages_delta > 0 => {
            bytes(section.pages_delta as u64)
        }
        _ => whole_pages(len),
    };
    let replaced_pages = replaced_pages(section, (len_bytes >> PAGE_SHIFT) as i64);
    let at = if errno == 0 { result } else { addr };
    if replaced_pages != 0 {
        replaced(
            hook,
            task,
            Cause::MapFixed,
            section,
            at,
            whole_pages(len),
            replaced_pages,
        );
    }

    let mut base = base(task, Cause::Mmap, errno, section, true);
    base.known |= KNOWN_ARGS;
    let mut payload = Map {
        addr: at,
        len_bytes,
        requested_len_bytes: len,
        vm_flags: 0,
        offset_bytes: if flags & MAP_ANONYMOUS == 0 {
            offset
        } else {
            0
        },
        prot: prot as u32,
        flags: flags as u32,
        file: FileId::default(),
    };
    if errno == 0 {
        base.known |= KNOWN_RANGE;
    }
    if let Some(section) = detail {
        base.known |= KNOWN_VM_FLAGS;
        payload.vm_flags = section.map.vm_flags;
    }
    if flags & MAP_ANONYMOUS == 0 {
        match detail {
            Some(section) => {
                if section.has(HAS_FILE) {
                    base.known |= KNOWN_FILE;
                    payload.file = section.map.file_id;
                }
            }
            None => {
                if let Some(file) = task.file(descriptor)
                    && let Some(id) = file::identity(file)
                {
                    file::announce(hook, &id, file);
                    base.known |= KNOWN_FILE;
                    payload.file = id;
                }
            }
        }
    }
    let size = if errno == 0 { len_bytes } else { len };
    emit::record(hook, base, payload, Some(size));
}

#[inline(always)]
fn munmap(
    hook: Hook,
    task: &Task,
    Args([addr, len, ..]): Args,
    result: u64,
    section: Option<&Section>,
) {
    let errno = errno(result);
    let mut base = base(task, Cause::Munmap, errno, section, true);
    base.known |= KNOWN_ARGS;
    if errno == 0 && section.is_some_and(|section| section.has(HAS_DELTA)) {
        base.known |= KNOWN_RANGE;
    }
    let payload = Unmap {
        addr,
        len_bytes: bytes(replaced_pages(section, 0)),
        requested_len_bytes: len,
        vmas_removed: vmas_removed(section),
        pad: 0,
    };
    let size = if errno == 0 { payload.len_bytes } else { len };
    emit::record(hook, base, payload, Some(size));
}

#[inline(always)]
fn mprotect(
    hook: Hook,
    task: &Task,
    Args([addr, len, prot, ..]): Args,
    result: u64,
    section: Option<&Section>,
) {
    let errno = errno(result);
    let mut base = base(task, Cause::Mprotect, errno, section, true);
    base.known |= KNOWN_ARGS;
    if errno == 0 {
        base.known |= KNOWN_RANGE;
    }
    let payload = Protect {
        addr,
        len_bytes: if errno == 0 { whole_pages(len) } else { 0 },
        requested_len_bytes: len,
        prot: prot as u32,
        pad: 0,
    };
    emit::record(hook, base, payload, Some(whole_pages(len)));
}

#[inline(always)]
fn mremap(
    hook: Hook,
    task: &Task,
    Args([old_addr, old_len, new_len, flags, ..]): Args,
    result: u64,
    section: Option<&Section>,
) {
    let errno = errno(result);
    let old_len_bytes = whole_pages(old_len);
    let new_len_bytes = if errno == 0 { whole_pages(new_len) } else { 0 };
    let at = if errno == 0 { result } else { old_addr };
    let added_bytes = match errno {
        0 if flags & MREMAP_DONTUNMAP != 0 => new_len_bytes as i64,
        0 => new_len_bytes.wrapping_sub(old_len_bytes) as i64,
        _ => 0,
    };
    let replaced_pages = replaced_pages(section, added_bytes >> PAGE_SHIFT);
    if replaced_pages != 0 {
        replaced(
            hook,
            task,
            Cause::Mremap,
            section,
            at,
            new_len_bytes,
            replaced_pages,
        );
    }

    let mut base = base(task, Cause::Mremap, errno, section, true);
    base.known |= KNOWN_ARGS;
    if errno == 0 {
        base.known |= KNOWN_RANGE;
    }
    let payload = Remap {
        addr: at,
        len_bytes: new_len_bytes,
        requested_len_bytes: new_len,
        old_addr,
        old_len_bytes,
        flags: flags as u32,
        pad: 0,
    };
    emit::record(hook, base, payload, Some(whole_pages(new_len)));
}

#[inline(always)]
fn brk(hook: Hook, task: &Task, Args([wanted, ..]): Args, result: u64, section: Option<&Section>) {
    // brk(2) of the kernel returns the break, moved or not; it knows no errno.
    let failed = wanted != 0 && result != wanted;
    let pages_delta = match section {
        Some(section) if section.has(HAS_DELTA) => section.pages_delta,
        _ => 0,
    };
    if !failed && pages_delta == 0 {
        // A question, or a move within a page: nothing was done.
        return;
    }
    let mut base = base(
        task,
        Cause::Brk,
        if failed { ENOMEM } else { 0 },
        section,
        true,
    );
    base.known |= KNOWN_ARGS;
    let len_bytes = bytes(pages_delta.unsigned_abs());
    let end = whole_pages(result);
    let mut payload = Brk {
        addr: end,
        len_bytes: 0,
        requested_addr: wanted,
    };
    if !failed {
        base.known |= KNOWN_RANGE;
        payload.len_bytes = len_bytes;
        if pages_delta > 0 {
            payload.addr = end.wrapping_sub(len_bytes);
        }
    }
    let size = if failed {
        wanted.wrapping_sub(result)
    } else {
        len_bytes
    };
    emit::record(hook, base, payload, Some(size));
}

#[inline(always)]
fn shmat(
    hook: Hook,
    task: &Task,
    Args([_, addr, ..]): Args,
    result: u64,
    section: Option<&Section>,
) {
    let errno = errno(result);
    let detail = section.filter(|section| section.has(HAS_MAP));
    let len_bytes = match (detail, section) {
        _ if errno != 0 => 0,
        (Some(section), _) => section.map.len_bytes,
        (None, Some(section)) if section.pages_delta > 0 => bytes(section.pages_delta as u64),
        _ => 0,
    };
    let at = if errno == 0 { result } else { addr };
    let mut base = base(task, Cause::Shmat, errno, section, true);
    if errno == 0 {
        base.known |= KNOWN_RANGE;
    }
    let mut payload = unrequested_map(at, len_bytes);
    if let Some(section) = detail {
        base.known |= from_detail(section, &mut payload);
    }
    emit::record(hook, base, payload, Some(len_bytes));
}

#[inline(always)]
fn shmdt(hook: Hook, task: &Task, Args([addr, ..]): Args, result: u64, section: Option<&Section>) {
    let errno = errno(result);
    let mut base = base(task, Cause::Shmdt, errno, section, true);
    if errno == 0 {
        base.known |= KNOWN_RANGE;
    }
    let payload = Unmap {
        addr,
        len_bytes: bytes(replaced_pages(section, 0)),
        requested_len_bytes: 0,
        vmas_removed: vmas_removed(section),
        pad: 0,
    };
    emit::record(hook, base, payload, Some(payload.len_bytes));
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

/// A section ended that belongs to no call whose return is hooked: the loader,
/// a page fault, a driver. Its details leave now.
#[inline(always)]
pub fn section_ended(hook: Hook, task: &Task, section: &Section, args: Option<Args>) {
    details(hook, task, section, args, 0);
}

/// The return of the section's call was missed: what is known leaves now, late.
#[inline(always)]
pub fn unreturned(hook: Hook, task: &Task, section: &Section) {
    details(hook, task, section, None, UNRETURNED);
}

/// The records of a section, from what its hooks saw; `known` is added to theirs.
#[inline(always)]
fn details(hook: Hook, task: &Task, section: &Section, args: Option<Args>, known: u16) {
    // Copied, not converted: the byte on the wire is checked by its reader.
    let cause = section.cause as u8;
    let has_map = section.has(HAS_MAP);
    if section.unmap.pages != 0 {
        let mut base = base(task, Cause::Other, 0, Some(section), !has_map);
        base.cause = cause;
        base.known |= KNOWN_RANGE | known;
        let unmap = &section.unmap;
        let payload = Unmap {
            addr: unmap.start,
            len_bytes: bytes(unmap.pages),
            requested_len_bytes: unmap.end.wrapping_sub(unmap.start),
            vmas_removed: vmas_removed(Some(section)),
            pad: 0,
        };
        emit::record(hook, base, payload, Some(payload.len_bytes));
        if !has_map {
            return;
        }
    }
    let mut base = base(task, Cause::Other, 0, Some(section), true);
    base.cause = cause;
    base.known |= known;
    if has_map {
        base.known |= KNOWN_RANGE;
        let mut payload = unrequested_map(section.map.addr, section.map.len_bytes);
        base.known |= from_detail(section, &mut payload);
        emit::record(hook, base, payload, Some(payload.len_bytes));
        return;
    }

    // No detail: the counts say what kind of change it was.
    let len_bytes = bytes(section.pages_delta.unsigned_abs());
    if section.pages_delta > 0 && cause == Cause::Fault as u8 {
        emit::record(hook, base, Grow { len_bytes }, Some(len_bytes));
    } else if section.pages_delta > 0 {
        emit::record(hook, base, unrequested_map(0, len_bytes), Some(len_bytes));
    } else if section.pages_delta < 0 {
        let payload = Unmap {
            addr: 0,
            len_bytes,
            requested_len_bytes: 0,
            vmas_removed: UNKNOWN_VMAS,
            pad: 0,
        };
        emit::record(hook, base, payload, Some(len_bytes));
    } else if cause == Cause::Mprotect as u8 {
        let payload = Protect {
            addr: 0,
            len_bytes: 0,
            requested_len_bytes: 0,
            prot: 0,
            pad: 0,
        };
        emit::record(hook, base, payload, None);
    } else {
        let mut payload = Advise {
            addr: 0,
            requested_len_bytes: 0,
            advice: 0,
        };
        if let Some(Args([addr, len, advice, ..])) = args {
            base.known |= KNOWN_ARGS;
            payload = Advise {
                addr,
                requested_len_bytes: len,
                advice,
            };
        }
        emit::record(hook, base, payload, Some(payload.requested_len_bytes));
    }
}

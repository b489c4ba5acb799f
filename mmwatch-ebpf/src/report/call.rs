//! The records of calls, at their return.

use mmwatch_common::{
    config::Call,
    counter::Hook,
    event::{
        Backing, Brk, Cause, FileId, KNOWN_ARGS, KNOWN_FILE, KNOWN_OLD_PROT, KNOWN_RANGE,
        KNOWN_VM_FLAGS, Map, Protect, Remap, UNKNOWN_VMAS, Unmap,
    },
    suspect::{Suspect, Suspects},
};

use super::{
    ENOMEM, PAGE_BYTES, Part, VM_SPECIAL, backing_of_detail, bytes, errno, from_detail, head,
    unrequested_map, vmas_removed,
};
use crate::{
    arch::Args,
    emit, file,
    memory::PAGE_SHIFT,
    section::{HAS_DELTA, HAS_FILE, HAS_MAP, HAS_OLD_PROT, Section},
    sums::Extent,
    suspect,
    task::Task,
};

const MAP_TYPE: u64 = 0xf;
/// Of the types, `MAP_SHARED` and `MAP_SHARED_VALIDATE` have it.
const MAP_SHARED: u64 = 0x1;
/// Bit n: type n is one. `MAP_SHARED`, `MAP_PRIVATE`, `MAP_SHARED_VALIDATE`, `MAP_DROPPABLE`.
const MAP_TYPES: u64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 8;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_HUGETLB: u64 = 0x4_0000;
const MREMAP_DONTUNMAP: u64 = 4;
const SHM_RDONLY: u64 = 0o1_0000;
const SHM_EXEC: u64 = 0o10_0000;
/// `PROT_READ | PROT_EXEC`, and `PROT_WRITE` too.
const RX: u64 = 0x5;
const RWX: u64 = 0x7;

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
fn whole_pages(bytes: u64) -> u64 {
    bytes.wrapping_add(PAGE_BYTES - 1) & !(PAGE_BYTES - 1)
}

/// As [`vmas_removed`], of a call that may not have got as far as a section.
#[inline(always)]
fn vmas_removed_by_call(section: Option<&Section>, kept: bool) -> u32 {
    section.map_or(UNKNOWN_VMAS, |section| vmas_removed(section, kept))
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
    let mut head = head(task, cause, 0, section, Part::MORE);
    head.known |= KNOWN_RANGE | KNOWN_ARGS;
    let payload = Unmap {
        addr,
        len_bytes: bytes(pages),
        requested_len_bytes: range_bytes,
        vmas_removed: vmas_removed_by_call(section, false),
        pad: 0,
    };
    let extent = Extent::unmapped(payload.len_bytes, payload.len_bytes);
    emit::record(hook, task, &head, payload, &extent);
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

    let last = Part::last(replaced_pages == 0);
    let mut head = head(task, Cause::Mmap, errno, section, last);
    head.known |= KNOWN_ARGS;
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
        head.known |= KNOWN_RANGE;
    }
    match detail {
        // For a shared anonymous mapping, the file that the kernel made for it.
        Some(section) => {
            head.known |= KNOWN_VM_FLAGS;
            payload.vm_flags = section.map.vm_flags;
            head.suspects = section.suspects();
            if section.has(HAS_FILE) {
                head.known |= KNOWN_FILE;
                payload.file = section.map.file_id;
            }
        }
        None if flags & MAP_ANONYMOUS == 0 => {
            if let Some(file) = task.file(descriptor)
                && let Some(id) = file::identity(file)
            {
                file::announce(hook, &id, file);
                head.known |= KNOWN_FILE;
                payload.file = id;
                if errno == 0 && Suspects::needs_memory(0, prot) {
                    let memory = suspect::of_file(file).and(suspect::of_flags(flags));
                    head.suspects = Suspects::of_mapping(prot, memory);
                }
            }
        }
        None if errno == 0 => {
            let memory = suspect::ANONYMOUS.and(suspect::of_flags(flags));
            head.suspects = Suspects::of_mapping(prot, memory);
        }
        None => {}
    }
    let mut extent = if errno == 0 {
        Extent::mapped(len_bytes, len_bytes)
    } else {
        Extent::covered(len, 0)
    };
    extent.backing = backing_of_call(flags, payload.vm_flags);
    emit::record(hook, task, &head, payload, &extent);
}

/// What a mapping has its pages from, or would have, by the call's flags first: for
/// a shared anonymous one the kernel makes a file of its own. `None` for a type that
/// the kernel refuses.
#[inline(always)]
fn backing_of_call(flags: u64, vm_flags: u64) -> Option<Backing> {
    if vm_flags & VM_SPECIAL != 0 {
        return Some(Backing::Special);
    }
    if MAP_TYPES >> (flags & MAP_TYPE) & 1 == 0 {
        return None;
    }
    Some(Backing::of(
        flags & MAP_SHARED != 0,
        flags & MAP_ANONYMOUS != 0,
    ))
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
    let pages = replaced_pages(section, 0);
    let kept = pages == 0;
    let mut head = head(task, Cause::Munmap, errno, section, Part::last(kept));
    head.known |= KNOWN_ARGS;
    if errno == 0 && section.is_some_and(|section| section.has(HAS_DELTA)) {
        head.known |= KNOWN_RANGE;
    }
    let payload = Unmap {
        addr,
        len_bytes: bytes(pages),
        requested_len_bytes: len,
        vmas_removed: vmas_removed_by_call(section, kept),
        pad: 0,
    };
    let size = if errno == 0 { payload.len_bytes } else { len };
    let extent = Extent::unmapped(size, payload.len_bytes);
    emit::record(hook, task, &head, payload, &extent);
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
    let mut head = head(task, Cause::Mprotect, errno, section, Part::last(true));
    head.known |= KNOWN_ARGS;
    let mut payload = Protect {
        addr,
        len_bytes: 0,
        requested_len_bytes: len,
        prot: prot as u32,
        old_prot: 0,
    };
    if errno == 0 {
        head.known |= KNOWN_RANGE;
        payload.len_bytes = whole_pages(len);
        match section {
            Some(section) if section.has(HAS_OLD_PROT) => {
                head.known |= KNOWN_OLD_PROT;
                head.suspects = section.suspects();
                payload.old_prot = u32::from(section.old_prot);
            }
            // What it was before, nobody saw; of no page at all, nothing is said.
            _ if len != 0 => head.suspects = Suspects::of_change(prot, prot, Suspects::NONE),
            _ => {}
        }
    }
    let extent = Extent::covered(whole_pages(len), payload.len_bytes);
    emit::record(hook, task, &head, payload, &extent);
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

    let moved = at != old_addr && flags & MREMAP_DONTUNMAP == 0;
    let kept = errno == 0 && !moved && added_bytes >= 0 && replaced_pages == 0;
    let mut head = head(task, Cause::Mremap, errno, section, Part::last(kept));
    head.known |= KNOWN_ARGS;
    if errno == 0 {
        head.known |= KNOWN_RANGE;
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
    let mut extent = Extent::covered(whole_pages(new_len), new_len_bytes);
    if added_bytes > 0 {
        extent.mapped_bytes = added_bytes as u64;
    } else {
        extent.unmapped_bytes = added_bytes.unsigned_abs();
    }
    emit::record(hook, task, &head, payload, &extent);
}

#[inline(always)]
fn brk(hook: Hook, task: &Task, Args([wanted, ..]): Args, result: u64, section: Option<&Section>) {
    // brk(2) of the kernel returns the break, moved or not; it knows no errno.
    let failed = wanted != 0 && result != wanted;
    let pages_delta = match section {
        Some(section) if section.has(HAS_DELTA) => section.pages_delta,
        _ => 0,
    };
    if !failed && !section.is_some_and(Section::changed) {
        // A question, or a move within a page: nothing was done.
        return;
    }
    let errno = if failed { ENOMEM } else { 0 };
    let kept = pages_delta >= 0;
    let mut head = head(task, Cause::Brk, errno, section, Part::last(kept));
    head.known |= KNOWN_ARGS;
    let len_bytes = bytes(pages_delta.unsigned_abs());
    let end = whole_pages(result);
    let mut payload = Brk {
        addr: end,
        len_bytes: 0,
        requested_addr: wanted,
    };
    if !failed {
        head.known |= KNOWN_RANGE;
        payload.len_bytes = len_bytes;
        if pages_delta > 0 {
            payload.addr = end.wrapping_sub(len_bytes);
        }
    }
    let extent = if failed {
        // Against what the record says, so that its reader can do the same.
        Extent::covered(wanted.wrapping_sub(end), 0)
    } else if pages_delta > 0 {
        Extent::mapped(len_bytes, len_bytes)
    } else {
        Extent::unmapped(len_bytes, len_bytes)
    };
    let extent = extent.of(Backing::PrivateAnonymous);
    emit::record(hook, task, &head, payload, &extent);
}

#[inline(always)]
fn shmat(
    hook: Hook,
    task: &Task,
    Args([_, addr, flags, ..]): Args,
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
    let kept =
        section.is_some_and(|section| section.pages_delta == (len_bytes >> PAGE_SHIFT) as i64);
    let mut head = head(task, Cause::Shmat, errno, section, Part::last(kept));
    if errno == 0 {
        head.known |= KNOWN_RANGE;
    }
    let mut payload = unrequested_map(at, len_bytes);
    let mut extent = Extent::mapped(len_bytes, len_bytes);
    if let Some(section) = detail {
        head.known |= from_detail(section, &mut payload);
        head.suspects = section.suspects();
        extent.backing = backing_of_detail(section);
    } else if errno == 0 && flags & SHM_EXEC != 0 {
        let prot = if flags & SHM_RDONLY == 0 { RWX } else { RX };
        head.suspects = Suspects::of_mapping(prot, Suspects::only(Suspect::DeletedExec));
    }
    emit::record(hook, task, &head, payload, &extent);
}

#[inline(always)]
fn shmdt(hook: Hook, task: &Task, Args([addr, ..]): Args, result: u64, section: Option<&Section>) {
    let errno = errno(result);
    let pages = replaced_pages(section, 0);
    let kept = pages == 0;
    let mut head = head(task, Cause::Shmdt, errno, section, Part::last(kept));
    if errno == 0 {
        head.known |= KNOWN_RANGE;
    }
    let payload = Unmap {
        addr,
        len_bytes: bytes(pages),
        requested_len_bytes: 0,
        vmas_removed: vmas_removed_by_call(section, kept),
        pad: 0,
    };
    let extent = Extent::unmapped(payload.len_bytes, payload.len_bytes);
    emit::record(hook, task, &head, payload, &extent);
}

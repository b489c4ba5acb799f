//! Detail: the unmap core, which every munmap, replacement, shrink and move
//! goes through. It has another name on almost every kernel.

use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};

use crate::{
    globals::{config, offset},
    hooks::lock,
    memory::{load, member, member_or_zero},
    section::{self, HAS_UNMAP_VMAS, PAGES_PENDING},
    space,
    task::Task,
};

/// What a `vma_munmap_struct` lists (6.12 and later).
#[derive(Clone, Copy)]
struct Listed {
    start: u64,
    end: u64,
    vmas: u32,
    pages: u64,
}

/// The core is about to remove what is listed.
#[inline(always)]
fn completing(listed: Listed) {
    // Every mmap comes by here with nothing to remove.
    if listed.vmas == 0 {
        return;
    }
    let task = Task::current();
    if let Some(section) = lock::detail_section(&task, task.mm()) {
        section.note_unmap(listed.start, listed.end, listed.pages);
        section.unmap.vmas += listed.vmas;
        section.has |= HAS_UNMAP_VMAS;
    }
}

/// The core was entered (before 6.12): remember what was mapped.
#[inline(always)]
fn entered(start: u64, end: u64) {
    let task = Task::current();
    let mm = task.mm();
    if let Some(section) = lock::detail_section(&task, mm)
        && let Some(pages) = member!(mm, mm_total_vm: u64)
    {
        section.unmap.pages_at_enter = pages;
        section.unmap.vmas_at_enter = member_or_zero!(mm, mm_map_count: u32);
        section.unmap.splits = 0;
        if section.unmap.runs == 0 {
            section.unmap.start = start;
            section.unmap.end = end;
        }
    }
}

/// A VMA was split in two: inside the unmap core, at an end of the range.
#[inline(always)]
fn split() {
    let task = Task::current();
    if let Some(section) = section::open(task.tid, task.mm()) {
        section.unmap.splits += 1;
    }
}

/// The core returned, the lock still held if only for reading: the difference
/// is what it removed. Each split made one VMA more to be removed or kept.
#[inline(always)]
fn returned(result: i32) {
    let task = Task::current();
    let mm = task.mm();
    let Some(section) = section::open(task.tid, mm) else {
        return;
    };
    if result >= 0
        && config!(counts_splits) != 0
        && let Some(vmas) = member!(mm, mm_map_count: u32)
    {
        let unmap = &mut section.unmap;
        unmap.vmas += unmap
            .vmas_at_enter
            .wrapping_add(unmap.splits)
            .wrapping_sub(vmas);
        section.has |= HAS_UNMAP_VMAS;
    }
    let Some(pages) = member!(mm, mm_total_vm: u64) else {
        return;
    };
    let removed = section.unmap.pages_at_enter.wrapping_sub(pages);
    if removed != 0 && removed <= section.unmap.pages_at_enter {
        let (start, end) = (section.unmap.start, section.unmap.end);
        section.note_unmap(start, end, removed);
    }
    if section.state == PAGES_PENDING {
        space::settle_pages(mm, section);
    }
}

// void vms_complete_munmap_vmas(struct vma_munmap_struct *vms, struct ma_state *mas_detach),
// 6.12 and later
#[fentry]
fn fentry_vms_complete_munmap_vmas(ctx: FEntryContext) -> i32 {
    let vms: u64 = ctx.arg(0);
    completing(Listed {
        start: load(vms, offset!(vms_start)),
        end: load(vms, offset!(vms_end)),
        vmas: load(vms, offset!(vms_vma_count)),
        pages: load(vms, offset!(vms_nr_pages)),
    });
    0
}

#[kprobe]
fn kprobe_vms_complete_munmap_vmas(ctx: ProbeContext) -> u32 {
    if let Some(vms) = ctx.arg(0) {
        completing(Listed {
            start: member_or_zero!(vms, vms_start: u64),
            end: member_or_zero!(vms, vms_end: u64),
            vmas: member_or_zero!(vms, vms_vma_count: u32),
            pages: member_or_zero!(vms, vms_nr_pages: u64),
        });
    }
    0
}

/// A core that takes (_, mm, start, len, …): its range ends after whole pages.
#[inline(always)]
fn entered_with_len(start: u64, len: u64) {
    entered(start, start.wrapping_add(len).wrapping_add(0xfff) & !0xfff);
}

// int __do_munmap(struct mm_struct *mm, unsigned long start, size_t len,
//                 struct list_head *uf, bool downgrade), 5.10
#[fentry]
fn fentry_do_munmap(ctx: FEntryContext) -> i32 {
    entered_with_len(ctx.arg(1), ctx.arg(2));
    0
}

#[fexit]
fn fexit_do_munmap(ctx: FExitContext) -> i32 {
    returned(ctx.arg(5));
    0
}

#[kprobe]
fn kprobe_do_munmap(ctx: ProbeContext) -> u32 {
    if let (Some(start), Some(len)) = (ctx.arg(1), ctx.arg(2)) {
        entered_with_len(start, len);
    }
    0
}

// int do_mas_munmap(struct ma_state *mas, struct mm_struct *mm, unsigned long start, size_t len,
//                   struct list_head *uf, bool downgrade), 6.1; do_vmi_munmap, 6.3 to 6.11
#[fentry]
fn fentry_do_mas_munmap(ctx: FEntryContext) -> i32 {
    entered_with_len(ctx.arg(2), ctx.arg(3));
    0
}

#[fexit]
fn fexit_do_mas_munmap(ctx: FExitContext) -> i32 {
    returned(ctx.arg(6));
    0
}

// int do_mas_align_munmap(struct ma_state *mas, struct vm_area_struct *vma, struct mm_struct *mm,
//                         unsigned long start, unsigned long end, struct list_head *uf,
//                         bool downgrade), 6.1; do_vmi_align_munmap, 6.3 to 6.11
#[kprobe]
fn kprobe_do_align_munmap(ctx: ProbeContext) -> u32 {
    if let (Some(start), Some(end)) = (ctx.arg(3), ctx.arg(4)) {
        entered(start, end);
    }
    0
}

/// For every core before 6.12.
#[kretprobe]
fn kretprobe_munmap(ctx: RetProbeContext) -> u32 {
    returned(ctx.ret());
    0
}

// int __split_vma(struct mm_struct *mm, struct vm_area_struct *vma, unsigned long addr,
//                 int new_below), 5.10 and 6.1; a struct vma_iterator * comes first from 6.3 on
#[fexit]
fn fexit_split_vma(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(4) == 0 {
        split();
    }
    0
}

/// At its entry: its return has few slots, and where a split fails, the core
/// fails too and is not counted.
#[kprobe]
fn kprobe_split_vma(_: ProbeContext) -> u32 {
    split();
    0
}

//! Detail: `mmap_region` made a mapping.
//!
//! `unsigned long mmap_region(struct file *file, unsigned long addr, unsigned long len,
//! vm_flags_t vm_flags, unsigned long pgoff, struct list_head *uf)`: the same six
//! arguments and the address or -errno as result on 5.10 to 7.2. It runs under the
//! write lock and sees the mappings of the loader, of shmat and of drivers too.

use aya_ebpf::{
    macros::{fexit, kprobe, kretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};
use mmwatch_common::{counter::Hook, suspect::Suspects};

use crate::{
    file,
    globals::offset,
    hooks::lock,
    memory::{load, member_or_zero},
    report,
    section::{self, HAS_FILE, HAS_MAP, MapDetail, Section},
    suspect,
    task::Task,
};

/// Notes the arguments.
#[inline(always)]
fn entered(section: &mut Section, file: u64, addr: u64, len: u64, vm_flags: u64, pgoff: u64) {
    let map: &mut MapDetail = &mut section.map;
    map.addr = addr;
    map.len_bytes = len;
    map.vm_flags = vm_flags;
    map.offset_pages = pgoff;
    map.file = file;
}

/// Notes the result: the mapping counts only if there is one.
#[inline(always)]
fn returned(section: &mut Section, result: u64) {
    if report::errno(result) != 0 {
        return;
    }
    section.map.addr = result;
    section.has |= HAS_MAP;
    let file = match section.map.own_file {
        0 => section.map.file,
        own => own,
    };
    section.suspects = suspects(section.map.vm_flags, file).bits();
    if file == 0 {
        return;
    }
    if let Some(id) = file::identity(file) {
        section.map.file_id = id;
        section.has |= HAS_FILE;
        file::announce(Hook::Map, &id, file);
    }
}

/// What is dangerous about a mapping that was made, of `file` or of none.
#[inline(always)]
fn suspects(vm_flags: u64, file: u64) -> Suspects {
    if !Suspects::needs_memory(0, vm_flags) {
        return Suspects::NONE;
    }
    let memory = if file == 0 {
        suspect::ANONYMOUS
    } else {
        suspect::of_file(file)
    };
    Suspects::of_mapping(vm_flags, memory.and(suspect::of_flags(vm_flags)))
}

/// A shared mapping of no file, or of `/dev/zero`, got `file`, which the kernel
/// made for it: `mmap_region` returns under the same lock, and finds it here.
#[inline(always)]
fn got_own_file(result: i32, file: u64) {
    let task = Task::current();
    if result == 0
        && let Some(section) = lock::detail_section(&task, task.mm())
    {
        section.map.own_file = file;
    }
}

/// It is about to get one: `subject` will have it.
#[inline(always)]
fn gets_own_file(subject: Option<u64>) {
    let task = Task::current();
    if let Some(subject) = subject
        && let Some(section) = lock::detail_section(&task, task.mm())
    {
        section.map.subject = subject;
    }
}

/// What [`gets_own_file`] noted.
#[inline(always)]
fn subject() -> u64 {
    let task = Task::current();
    section::open(task.tid, task.mm()).map_or(0, |section| section.map.subject)
}

// int shmem_zero_setup(struct vm_area_struct *vma)
#[fexit]
fn fexit_shmem_zero_setup(ctx: FExitContext) -> i32 {
    got_own_file(ctx.arg(1), load(ctx.arg(0), offset!(vma_file)));
    0
}

#[kprobe]
fn kprobe_shmem_zero_setup(ctx: ProbeContext) -> u32 {
    gets_own_file(ctx.arg(0));
    0
}

#[kretprobe]
fn kretprobe_shmem_zero_setup(ctx: RetProbeContext) -> u32 {
    got_own_file(ctx.ret(), member_or_zero!(subject(), vma_file: u64));
    0
}

// int shmem_zero_setup_desc(struct vm_area_desc *desc), 7.0 and later
#[fexit]
fn fexit_shmem_zero_setup_desc(ctx: FExitContext) -> i32 {
    got_own_file(ctx.arg(1), load(ctx.arg(0), offset!(desc_file)));
    0
}

#[kprobe]
fn kprobe_shmem_zero_setup_desc(ctx: ProbeContext) -> u32 {
    gets_own_file(ctx.arg(0));
    0
}

#[kretprobe]
fn kretprobe_shmem_zero_setup_desc(ctx: RetProbeContext) -> u32 {
    got_own_file(ctx.ret(), member_or_zero!(subject(), desc_file: u64));
    0
}

#[fexit]
fn fexit_mmap_region(ctx: FExitContext) -> i32 {
    let task = Task::current();
    if let Some(section) = lock::detail_section(&task, task.mm()) {
        entered(
            section,
            ctx.arg(0),
            ctx.arg(1),
            ctx.arg(2),
            ctx.arg(3),
            ctx.arg(4),
        );
        // The result follows the six arguments.
        returned(section, ctx.arg(6));
    }
    0
}

#[kprobe]
fn kprobe_mmap_region(ctx: ProbeContext) -> u32 {
    let task = Task::current();
    if let Some(section) = lock::detail_section(&task, task.mm()) {
        let arg = |n| ctx.arg::<u64>(n).unwrap_or(0);
        entered(section, arg(0), arg(1), arg(2), arg(3), arg(4));
    }
    0
}

#[kretprobe]
fn kretprobe_mmap_region(ctx: RetProbeContext) -> u32 {
    let task = Task::current();
    if let Some(section) = section::open(task.tid, task.mm()) {
        returned(section, ctx.ret());
    }
    0
}

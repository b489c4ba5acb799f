//! Detail: a VMA is about to get another protection.
//!
//! `int security_file_mprotect(struct vm_area_struct *vma, unsigned long reqprot,
//! unsigned long prot)`: the same three arguments on 5.10 to 7.2. mprotect calls it
//! for each VMA of the range, with the lock held for writing, before it splits or
//! changes that VMA (`do_mprotect_pkey`); `prot` is what this VMA gets, with
//! `PROT_EXEC` where the personality adds that. A VMA that has this protection
//! already and merges with the one before it is passed over. A call that fails may
//! have got as far as here, so only its return says whether anything was made.

use aya_ebpf::{
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};
use mmwatch_common::suspect::{Suspect, Suspects};

use crate::{
    globals::offset,
    hooks::lock,
    memory::{Number, load, read_or_zero, task_member},
    suspect,
    task::Task,
};

/// How a VMA's members are read.
trait Read {
    fn member<T: Number>(vma: u64, offset: usize) -> T;
}

/// By plain loads: the verifier knows that it is a VMA.
struct Typed;
/// By the helper that copies.
struct Untyped;

impl Read for Typed {
    #[inline(always)]
    fn member<T: Number>(vma: u64, offset: usize) -> T {
        load(vma, offset)
    }
}

impl Read for Untyped {
    #[inline(always)]
    fn member<T: Number>(vma: u64, offset: usize) -> T {
        read_or_zero(vma, offset)
    }
}

/// `vma` is about to be protected by `prot`.
#[inline(always)]
fn protecting<R: Read>(vma: u64, prot: u64) {
    let task = Task::current();
    let Some(section) = lock::detail_section(&task, task.mm()) else {
        return;
    };
    let flags: u64 = R::member(vma, offset!(vma_flags));
    let memory = if Suspects::needs_memory(flags, prot) {
        memory::<R>(&task, vma, flags)
    } else {
        Suspects::NONE
    };
    section.note_protect(flags, Suspects::of_change(flags, prot, memory));
}

/// What to say of a VMA where it becomes executable. Stack and heap are those that
/// `/proc/PID/maps` calls so (`vma_is_initial_stack`, `vma_is_initial_heap`).
#[inline(always)]
fn memory<R: Read>(task: &Task, vma: u64, flags: u64) -> Suspects {
    let start: u64 = R::member(vma, offset!(vma_start));
    let end: u64 = R::member(vma, offset!(vma_end));
    let ops: u64 = R::member(vma, offset!(vma_ops));
    let file: u64 = R::member(vma, offset!(vma_file));
    // Asked for anew: this one comes with its type.
    let mm = task.mm();
    let first_stack = task_member!(mm, mm_start_stack: u64);
    let heap = task_member!(mm, mm_start_brk: u64);
    let heap_end = task_member!(mm, mm_brk: u64);

    let stack = Suspects::when(
        start <= first_stack && end >= first_stack,
        Suspect::StackExec,
    );
    let heap = Suspects::when(start < heap_end && end > heap, Suspect::HeapExec);
    // What the kernel maps for itself has operations, and no file.
    let behind = if ops == 0 {
        suspect::ANONYMOUS
    } else if file != 0 {
        suspect::of_file(file)
    } else {
        Suspects::NONE
    };
    behind.and(stack).and(suspect::of_flags(flags)).and(heap)
}

#[fentry]
fn fentry_security_file_mprotect(ctx: FEntryContext) -> i32 {
    protecting::<Typed>(ctx.arg(0), ctx.arg(2));
    0
}

#[kprobe]
fn kprobe_security_file_mprotect(ctx: ProbeContext) -> u32 {
    if let (Some(vma), Some(prot)) = (ctx.arg(0), ctx.arg(2)) {
        protecting::<Untyped>(vma, prot);
    }
    0
}

//! Settle programs: a write lock on an address space is taken, released, or
//! downgraded to a read lock.
//!
//! Every change of an address space happens between these points. Where the
//! kernel's own `mmap_lock` tracepoints are not worth their cost, the rwsem
//! functions beneath them are hooked and compared with the current task's
//! `mmap_lock`.

use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use mmwatch_common::{
    config::{Call, DOWNGRADE_AT_READ_RELEASE},
    counter::Hook,
    event::Cause,
};

use crate::{
    arch, emit,
    filter::{self, Process},
    globals::{config, has, offset},
    memory::read,
    report::{self, Advised},
    section::{self, HAS_BASE, IDLE, OPEN, PAGES_PENDING, Section},
    space::{self, Settled},
    task::{self, Task},
};

/// Low bits of `rw_semaphore.owner` that are flags, not part of the task's address.
const OWNER_FLAGS: u64 = 0x7;

/// The write lock of `mm`, the current task's own, was taken.
#[inline(always)]
pub fn taken(hook: Hook, task: &Task, mm: u64) {
    if filter::process(task) != Process::Wanted {
        return;
    }
    let Some(section) = section::get_or_make(task.tid) else {
        if let Some(row) = emit::ledger(hook) {
            row.scratch_full += 1;
        }
        return;
    };
    if section.waits() {
        // It will do so for ever: the kernel skipped the program at its call's
        // return, because another task was in the same program on that CPU.
        // What it did is known and is reported now.
        if let Some(row) = emit::ledger(hook) {
            row.unfinished += 1;
        }
        report::unreturned(hook, task, section);
    }
    section.begin(mm);
    if let Some(size) = space::own_size(task) {
        section.vmas_before = size.vmas;
        section.pages_before = size.pages;
        section.taken_ns = task::now();
        section.has |= HAS_BASE;
    }
}

/// The section that details met under the write lock of the current task's
/// address space go to. Where the taking of the lock was not seen (a kretprobe
/// with too many tasks in the function), it begins here; had the return of the
/// call before been missed as well, the kernel's counters tell of both, and the
/// gap in the numbers of sections of what is not reported.
#[inline(always)]
pub fn detail_section(task: &Task, mm: u64) -> Option<&'static mut Section> {
    if mm == 0 || filter::process(task) != Process::Wanted {
        return None;
    }
    if let Some(section) = section::open(task.tid, mm) {
        return Some(section);
    }
    let section = section::get_or_make(task.tid)?;
    section.begin(mm);
    Some(section)
}

/// The write lock of `mm` is about to be released, or downgraded.
#[inline(always)]
fn ending(hook: Hook, task: &Task, mm: u64, downgraded: bool) {
    if filter::process(task) != Process::Wanted {
        return;
    }
    let Some(section) = section::get_or_make(task.tid) else {
        if let Some(row) = emit::ledger(hook) {
            row.scratch_full += 1;
        }
        return;
    };
    if section.state != OPEN || section.mm != mm {
        if section.state == OPEN {
            // Two address spaces locked at once: fork fills the child's while
            // it holds the parent's. The child's is adopted when it is whole.
            return;
        }
        // Taken where no hook saw it: see `detail_section`.
        section.begin(mm);
    }
    let now = if task.mm() == mm {
        space::own_size(task)
    } else {
        space::size(mm)
    };
    let Some(now) = now else {
        section.state = IDLE;
        return;
    };
    // The return of its call reports the section; and every call of ours but
    // brk is reported whether it changed anything or not.
    let entry = task.entry();
    let call = entry
        .call()
        .filter(|call| config!(calls) & (1 << *call as u32) != 0 && task.mm() == mm);
    let numbered = call.is_some_and(|call| downgraded || call as u32 != Call::Brk as u32);
    match space::settle(task, mm, now, section, downgraded, numbered) {
        Settled::Foreign => {
            section.state = IDLE;
            return;
        }
        Settled::Full => {
            if let Some(row) = emit::ledger(hook) {
                row.spaces_full += 1;
            }
        }
        Settled::Done => {}
    }
    let cause = entry.cause();
    section.cause = cause as u32;
    if call.is_some() && (numbered || section.changed()) {
        return;
    }
    section.state = IDLE;
    if call.is_none() && section.changed() {
        report_now(hook, task, cause, section);
    }
}

/// Reports a section of which nobody else will.
#[inline(always)]
fn report_now(hook: Hook, task: &Task, cause: Cause, section: &Section) {
    let args = match cause {
        Cause::Madvise | Cause::Mlock | Cause::Mseal | Cause::Mbind => arch::args(task.user_regs()),
        _ => None,
    };
    let advised = args.map_or(Advised::UNKNOWN, Advised::by);
    report::section_ended(hook, task, section, advised);
}

/// A read lock of `mm` was taken. By the holder of its write lock, that is a downgrade.
#[inline(always)]
fn taken_for_reading(hook: Hook, task: &Task, mm: u64) {
    if let Some(section) = section::get(task.tid)
        && section.state == OPEN
        && section.mm == mm
    {
        ending(hook, task, mm, true);
    }
}

/// A read lock of `mm` is about to be released.
#[inline(always)]
fn read_ending(task: &Task, mm: u64) {
    if config!(downgrade) != DOWNGRADE_AT_READ_RELEASE {
        return;
    }
    if let Some(section) = section::get(task.tid)
        && section.state == PAGES_PENDING
        && section.mm == mm
    {
        space::settle_pages(mm, section);
    }
}

/// `mmap_lock_acquire_returned`: (mm, write, success).
#[inline(always)]
fn acquired(mm: u64, write: u64, success: u64) {
    // Arguments of type bool have dirty upper bits.
    if success & 0xff == 0 || mm == 0 {
        return;
    }
    let task = Task::current();
    if write & 0xff == 0 {
        taken_for_reading(Hook::LockTaken, &task, mm);
    } else if task.mm() == mm {
        taken(Hook::LockTaken, &task, mm);
    }
}

/// `mmap_lock_released`: (mm, write).
#[inline(always)]
fn released(mm: u64, write: u64) {
    let task = Task::current();
    if write & 0xff == 0 {
        read_ending(&task, mm);
    } else {
        ending(Hook::LockReleased, &task, mm, false);
    }
}

/// The current task's address space, if `lock` is its `mmap_lock`.
#[inline(always)]
fn own_space(task: &Task, lock: u64) -> Option<u64> {
    let mm = task.mm();
    (mm != 0 && mm + offset!(mm_mmap_lock) as u64 == lock).then_some(mm)
}

// void mmap_lock_acquire_returned(struct mm_struct *mm, bool write, bool success), 6.14
#[raw_tracepoint(tracepoint = "mmap_lock_acquire_returned")]
fn raw_lock_acquired(ctx: RawTracePointContext) -> i32 {
    acquired(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

// void mmap_lock_released(struct mm_struct *mm, bool write), 6.14
#[raw_tracepoint(tracepoint = "mmap_lock_released")]
fn raw_lock_released(ctx: RawTracePointContext) -> i32 {
    released(ctx.arg(0), ctx.arg(1));
    0
}

// void mmap_lock_acquire_returned(struct mm_struct *mm, const char *memcg_path, bool write,
//                                 bool success), 5.11 to 6.13
#[raw_tracepoint(tracepoint = "mmap_lock_acquire_returned")]
fn raw_lock_acquired_memcg(ctx: RawTracePointContext) -> i32 {
    acquired(ctx.arg(0), ctx.arg(2), ctx.arg(3));
    0
}

// void mmap_lock_released(struct mm_struct *mm, const char *memcg_path, bool write), 5.11 to 6.13
#[raw_tracepoint(tracepoint = "mmap_lock_released")]
fn raw_lock_released_memcg(ctx: RawTracePointContext) -> i32 {
    released(ctx.arg(0), ctx.arg(2));
    0
}

// int down_write_killable(struct rw_semaphore *sem)
#[fexit]
fn fexit_down_write_killable(ctx: FExitContext) -> i32 {
    let task = Task::current();
    if let Some(mm) = own_space(&task, ctx.arg(0))
        && ctx.arg::<i32>(1) == 0
    {
        taken(Hook::LockTaken, &task, mm);
    }
    0
}

// void up_write(struct rw_semaphore *sem)
#[fentry]
fn fentry_up_write(ctx: FEntryContext) -> i32 {
    let task = Task::current();
    if let Some(mm) = own_space(&task, ctx.arg(0)) {
        ending(Hook::LockReleased, &task, mm, false);
    }
    0
}

// void downgrade_write(struct rw_semaphore *sem)
#[fentry]
fn fentry_downgrade_write(ctx: FEntryContext) -> i32 {
    let task = Task::current();
    if let Some(mm) = own_space(&task, ctx.arg(0)) {
        ending(Hook::LockDowngraded, &task, mm, true);
    }
    0
}

// int down_write_killable(struct rw_semaphore *sem)
#[kretprobe]
fn kretprobe_down_write_killable(ctx: RetProbeContext) -> i32 {
    // The argument is gone by now, and the semaphore may be any: the current
    // task owns its own address space's lock if this was that one.
    if !has!(rwsem_owner) || ctx.ret::<i32>() != 0 {
        return 0;
    }
    let task = Task::current();
    let mm = task.mm();
    if mm == 0 {
        return 0;
    }
    let owner: Option<u64> = read(mm, offset!(mm_mmap_lock) + offset!(rwsem_owner));
    if owner.is_some_and(|owner| owner & !OWNER_FLAGS == task.address)
        // Not again for another semaphore while the lock is held.
        && section::open(task.tid, mm).is_none()
    {
        taken(Hook::LockTaken, &task, mm);
    }
    0
}

// void up_write(struct rw_semaphore *sem)
#[kprobe]
fn kprobe_up_write(ctx: ProbeContext) -> u32 {
    let task = Task::current();
    if let Some(mm) = ctx.arg(0).and_then(|lock| own_space(&task, lock)) {
        ending(Hook::LockReleased, &task, mm, false);
    }
    0
}

// void downgrade_write(struct rw_semaphore *sem)
#[kprobe]
fn kprobe_downgrade_write(ctx: ProbeContext) -> u32 {
    let task = Task::current();
    if let Some(mm) = ctx.arg(0).and_then(|lock| own_space(&task, lock)) {
        ending(Hook::LockDowngraded, &task, mm, true);
    }
    0
}

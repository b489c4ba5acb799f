//! The return of a system call that maps or unmaps: the operation is complete,
//! its result known, and its record leaves.

use aya_ebpf::{
    macros::{fexit, raw_tracepoint},
    programs::{FExitContext, RawTracePointContext},
};
use mmwatch_common::{config::Call, counter::Hook};

use crate::{
    arch::{self, Regs},
    emit,
    filter::{self, Process},
    globals::config,
    hooks::lock,
    report,
    section::{self, IDLE, PAGES_PENDING},
    space::{self, Settled},
    task::Task,
};

/// `call` returned `result` to the task whose registers lie at `regs`.
#[inline(always)]
fn returned(hook: Hook, task: &Task, call: Call, regs: Regs, result: u64) {
    match filter::process(task) {
        Process::Wanted => {}
        Process::Unwanted => return emit::unwanted(hook),
        Process::Agent => return,
    }
    let Some(args) = arch::args(regs) else {
        return;
    };
    let mm = task.mm();
    let section = if config!(settle_at_call) != 0 {
        settle_now(hook, task, mm)
    } else {
        section::get(task.tid)
    };
    let section = section.filter(|section| section.waits() && section.mm == mm);
    match section {
        Some(section) => {
            if section.state == PAGES_PENDING {
                // No hook met the end of the downgraded section. The lock is
                // gone, so another thread's change may be in this number; the
                // next settle point puts the sum right.
                space::settle_pages(mm, section);
            }
            section.state = IDLE;
            report::returned(hook, task, call, args, result, Some(section));
        }
        None => report::returned(hook, task, call, args, result, None),
    }
}

/// Where nothing tells of the lock (5.10 with tracepoints alone), the call
/// itself takes the place of the section: what was there at its entry is
/// compared with what is there at its return. Exact while one thread at a time
/// changes the address space.
#[inline(always)]
fn settle_now(hook: Hook, task: &Task, mm: u64) -> Option<&'static mut section::Section> {
    let section = section::open(task.tid, mm)?;
    let now = space::own_size(task)?;
    match space::settle(task, mm, now, section, false, true) {
        Settled::Done => {}
        Settled::Full => {
            if let Some(row) = emit::ledger(hook) {
                row.spaces_full += 1;
            }
        }
        Settled::Foreign => {
            section.state = IDLE;
            return None;
        }
    }
    section.has &= !section::HAS_SETTLED;
    Some(section)
}

/// Defines the entry point of one call: `long __x64_sys_NAME(const struct pt_regs *regs)`.
///
/// The argument is the registers that the task entered with; they are found from
/// the task all the same, because 5.10 knows the argument's type only as a forward
/// declaration for some calls and refuses to hand it out.
macro_rules! call {
    ($program:ident, $hook:ident, $call:ident) => {
        #[fexit]
        fn $program(ctx: FExitContext) -> i32 {
            let task = Task::current();
            returned(
                Hook::$hook,
                &task,
                Call::$call,
                task.user_regs(),
                ctx.arg(1),
            );
            0
        }
    };
}

call!(fexit_sys_mmap, CallMmap, Mmap);
call!(fexit_sys_munmap, CallMunmap, Munmap);
call!(fexit_sys_mprotect, CallMprotect, Mprotect);
call!(fexit_sys_pkey_mprotect, CallPkeyMprotect, Mprotect);
call!(fexit_sys_mremap, CallMremap, Mremap);
call!(fexit_sys_brk, CallBrk, Brk);
call!(fexit_sys_shmat, CallShmat, Shmat);
call!(fexit_sys_shmdt, CallShmdt, Shmdt);

// void sys_enter(struct pt_regs *regs, long id): only where nothing tells of the lock.
#[raw_tracepoint(tracepoint = "sys_enter")]
fn raw_sys_enter(ctx: RawTracePointContext) -> i32 {
    let task = Task::current();
    let regs = task.user_regs_at(ctx.arg(0));
    if arch::entry(&task, regs).call().is_some() {
        lock::taken(Hook::LockTaken, &task, task.mm());
    }
    0
}

// void sys_exit(struct pt_regs *regs, long ret): every call of every task comes by.
#[raw_tracepoint(tracepoint = "sys_exit")]
fn raw_sys_exit(ctx: RawTracePointContext) -> i32 {
    let task = Task::current();
    let regs = task.user_regs_at(ctx.arg(0));
    if let Some(call) = arch::entry(&task, regs).call() {
        returned(Hook::Call, &task, call, regs, ctx.arg(1));
    }
    0
}

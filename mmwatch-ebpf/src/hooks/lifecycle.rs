//! Lifecycle programs: address spaces come with fork and exec and go with
//! `exit_mmap`.

use aya_ebpf::{
    macros::{fentry, kprobe, raw_tracepoint},
    programs::{FEntryContext, ProbeContext, RawTracePointContext},
};
use aya_log_ebpf::debug;
use mmwatch_common::{
    counter::Hook,
    event::{
        Actor, Base, Cause, Exec, Exit, FileId, Fork, KNOWN_DELTA, KNOWN_FILE, KNOWN_SETTLED,
        KNOWN_SPACE, Space,
    },
};

use crate::{
    arch, emit, file,
    filter::{self, Process},
    memory::member,
    space::{self, Size},
    task::{self, Task},
};

const PAGE_SHIFT: u32 = 12;

/// Bits of a record whose counts were read where nobody writes them.
const KNOWN_EXACT: u16 = KNOWN_SPACE | KNOWN_SETTLED;

#[inline(always)]
fn base(actor: Actor, cause: Cause, known: u16, size: Size, section: u64) -> Base {
    Base {
        kind: 0,
        cause: cause as u8,
        known,
        errno: 0,
        boot_ns: task::now(),
        actor,
        space: Space {
            section,
            pages: size.pages,
            pages_delta: 0,
            held_ns: 0,
            vmas: size.vmas,
            vmas_delta: 0,
        },
    }
}

/// Adopts a whole new address space.
#[inline(always)]
fn adopt(hook: Hook, mm: u64, size: Size, tgid: u32, start_boot_ns: u64) {
    if !space::adopt(mm, size, tgid, start_boot_ns)
        && let Some(row) = emit::ledger(hook)
    {
        row.spaces_full += 1;
    }
}

/// A task was made. Nobody else runs in a new address space yet.
#[inline(always)]
fn forked(child: u64) {
    let (Some(child_tgid), Some(child_tid), Some(mm)) = (
        member!(child, task_tgid: u32),
        member!(child, task_pid: u32),
        member!(child, task_mm: u64),
    ) else {
        return;
    };
    if child_tgid != child_tid || mm == 0 {
        return; // A thread, or one of the kernel's own.
    }
    let parent = Task::current();
    let child_start_boot_ns = task::start_boot_ns(child);
    if !filter::follow(&parent, child_tgid, child_start_boot_ns)
        && let Some(row) = emit::ledger(Hook::Fork)
    {
        row.spaces_full += 1;
    }
    match filter::process(&parent) {
        Process::Wanted => {}
        Process::Unwanted => return emit::unwanted(Hook::Fork),
        Process::Agent => {
            // Its children are watched like any other process.
        }
    }
    let Some(size) = space::size(mm) else {
        return;
    };
    let shared = mm == parent.mm();
    if !shared {
        adopt(Hook::Fork, mm, size, child_tgid, child_start_boot_ns);
    }
    if filter::process(&parent) == Process::Agent {
        return;
    }
    let known = if shared { KNOWN_SPACE } else { KNOWN_EXACT };
    let owner_tgid = if shared {
        space::get(mm).map_or(parent.tgid, |state| state.owner_tgid)
    } else {
        parent.tgid
    };
    let base = base(parent.actor(owner_tgid), Cause::Fork, known, size, 0);
    let payload = Fork {
        child_start_boot_ns,
        child_tgid,
        shared: u32::from(shared),
    };
    emit::record(Hook::Fork, base, payload, None);
}

/// The current process became another program; its address space is complete.
#[inline(always)]
fn execed() {
    let task = Task::current();
    match filter::process(&task) {
        Process::Wanted => {}
        Process::Unwanted => return emit::unwanted(Hook::Exec),
        Process::Agent => return,
    }
    let mm = task.mm();
    let Some(size) = space::size(mm) else {
        return;
    };
    let section = match space::get(mm) {
        Some(state) => {
            state.vmas = size.vmas;
            state.pages = size.pages;
            state.sections += 1;
            state.sections
        }
        None => {
            adopt(Hook::Exec, mm, size, task.tgid, task.start_boot_ns());
            0
        }
    };
    let mut base = base(
        task.actor(task.tgid),
        Cause::Exec,
        KNOWN_EXACT,
        size,
        section,
    );
    let mut payload = Exec {
        file: FileId::default(),
    };
    if let Some(exe) = member!(mm, mm_exe_file: u64).filter(|exe| *exe != 0)
        && let Some(id) = file::identity(exe)
    {
        file::announce(Hook::Exec, &id, exe);
        base.known |= KNOWN_FILE;
        payload.file = id;
    }
    emit::record(Hook::Exec, base, payload, None);
}

/// The last user of `mm` is gone; all its mappings are about to be removed.
#[inline(always)]
fn exited(mm: u64) {
    let task = Task::current();
    let exiting = task.is_exiting();
    let (owner_tgid, owner_start_boot_ns, sections) = match space::get(mm) {
        Some(state) => (state.owner_tgid, state.owner_start_boot_ns, state.sections),
        // Never seen before. A task on its way out lets go of its own; anything
        // else may be an address space that never ran (a failed fork or exec).
        None if exiting => (task.tgid, task.start_boot_ns(), 0),
        None => return,
    };
    space::retire(mm);
    match filter::owner(owner_tgid, owner_start_boot_ns) {
        Process::Wanted => {}
        Process::Unwanted => return emit::unwanted(Hook::Exit),
        Process::Agent => return,
    }
    let Some(size) = space::size(mm) else {
        return;
    };
    let cause = if exiting {
        Cause::Exit
    } else {
        match task.entry().map(arch::Entry::cause) {
            Some(Cause::Exec) => Cause::Exec,
            _ => Cause::Exit,
        }
    };
    let mut actor = task.actor(owner_tgid);
    actor.tgid = owner_tgid;
    actor.start_boot_ns = owner_start_boot_ns;
    let gone = Size { vmas: 0, pages: 0 };
    let mut base = base(actor, cause, KNOWN_EXACT | KNOWN_DELTA, gone, sections + 1);
    base.space.vmas_delta = 0i32.wrapping_sub(size.vmas as i32);
    base.space.pages_delta = 0i64.wrapping_sub(size.pages as i64);
    let payload = Exit {
        len_bytes: size.pages << PAGE_SHIFT,
        vmas_removed: size.vmas,
        pad: 0,
    };
    emit::record(Hook::Exit, base, payload, Some(payload.len_bytes));
    if exiting {
        filter::forget(owner_tgid);
    }
}

// void sched_process_fork(struct task_struct *parent, struct task_struct *child)
#[raw_tracepoint(tracepoint = "sched_process_fork")]
fn raw_sched_process_fork(ctx: RawTracePointContext) -> i32 {
    forked(ctx.arg(1));
    0
}

// void sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
#[raw_tracepoint(tracepoint = "sched_process_exec")]
fn raw_sched_process_exec(ctx: RawTracePointContext) -> i32 {
    // For `-vv`: says that programs run and that the offsets fit. Execs are rare
    // enough; nothing else is ever logged from a hook.
    let mm = Task::current().mm();
    if let Some(size) = space::size(mm) {
        debug!(&ctx, "exec: {} VMAs, {} pages", size.vmas, size.pages);
    }
    execed();
    0
}

// void exit_mmap(struct mm_struct *mm), the tracepoint: 6.1 and later
#[raw_tracepoint(tracepoint = "exit_mmap")]
fn raw_exit_mmap(ctx: RawTracePointContext) -> i32 {
    exited(ctx.arg(0));
    0
}

// void exit_mmap(struct mm_struct *mm), the function
#[fentry]
fn fentry_exit_mmap(ctx: FEntryContext) -> i32 {
    exited(ctx.arg(0));
    0
}

#[kprobe]
fn kprobe_exit_mmap(ctx: ProbeContext) -> u32 {
    if let Some(mm) = ctx.arg(0) {
        exited(mm);
    }
    0
}

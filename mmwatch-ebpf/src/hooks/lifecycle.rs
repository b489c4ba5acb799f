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
        Cause, Exec, Exit, FileId, Fork, KNOWN_DELTA, KNOWN_FILE, KNOWN_SETTLED, KNOWN_SPACE, Space,
    },
    suspect::Suspects,
};

use crate::{
    emit::{self, Head},
    file,
    filter::{self, Process},
    memory::{PAGE_SHIFT, member},
    report, section,
    space::{self, Size},
    sums::Extent,
    task::{self, Task},
};

/// Bits of a record whose counts were read where nobody writes them.
const KNOWN_EXACT: u16 = KNOWN_SPACE | KNOWN_SETTLED;

/// Which address space a record is of.
#[derive(Clone, Copy)]
struct Whose {
    mm: u64,
    born_ns: u64,
    /// The record's section.
    section: u64,
}

/// What a record of the current task begins with.
#[inline(always)]
fn head(task: &Task, owner_tgid: u32, cause: Cause, known: u16, size: Size, whose: Whose) -> Head {
    Head {
        cause: cause as u8,
        known,
        errno: 0,
        suspects: Suspects::NONE,
        boot_ns: task::now(),
        tgid: task.tgid,
        owner_tgid,
        start_boot_ns: task.start_boot_ns(),
        space: Space {
            mm: whose.mm,
            born_ns: whose.born_ns,
            section: whose.section,
            pages: size.pages,
            vmas: size.vmas,
            ..report::NO_SPACE
        },
    }
}

/// Adopts a whole new address space; returns when it was born.
#[inline(always)]
fn adopt(hook: Hook, mm: u64, size: Size, tgid: u32, start_boot_ns: u64) -> u64 {
    let state = space::born(size, tgid, start_boot_ns);
    if !space::adopt(mm, &state)
        && let Some(row) = emit::ledger(hook)
    {
        row.spaces_full += 1;
    }
    state.born_ns
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
    let agent = match filter::process(&parent) {
        Process::Wanted => false,
        Process::Unwanted => return emit::unwanted(Hook::Fork),
        // Its children are watched like any other process.
        Process::Agent => true,
    };
    let Some(size) = space::size(mm) else {
        return;
    };
    let shared = mm == parent.mm();
    if !shared {
        adopt(Hook::Fork, mm, size, child_tgid, child_start_boot_ns);
    }
    if agent {
        return;
    }
    let (known, owner_tgid) = if shared {
        let state = space::get(mm);
        let owner_tgid = state.map_or(parent.tgid, |state| state.owner_tgid);
        (KNOWN_SPACE, owner_tgid)
    } else {
        (KNOWN_EXACT, parent.tgid)
    };
    // Not a section of the parent's address space; the counts are the child's.
    let whose = Whose {
        mm: 0,
        born_ns: 0,
        section: 0,
    };
    let head = head(&parent, owner_tgid, Cause::Fork, known, size, whose);
    let payload = Fork {
        child_start_boot_ns,
        child_tgid,
        shared: u32::from(shared),
    };
    emit::record(Hook::Fork, &parent, &head, payload, &Extent::NONE);
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
    let (born_ns, section) = match space::get(mm) {
        Some(state) => {
            state.vmas = size.vmas;
            state.pages = size.pages;
            state.sections += 1;
            (state.born_ns, state.sections)
        }
        None => {
            let start_boot_ns = task.start_boot_ns();
            (adopt(Hook::Exec, mm, size, task.tgid, start_boot_ns), 0)
        }
    };
    let whose = Whose {
        mm,
        born_ns,
        section,
    };
    let mut head = head(&task, task.tgid, Cause::Exec, KNOWN_EXACT, size, whose);
    let mut payload = Exec {
        file: FileId::default(),
    };
    if let Some(exe) = member!(mm, mm_exe_file: u64).filter(|exe| *exe != 0)
        && let Some(id) = file::identity(exe)
    {
        file::announce(Hook::Exec, &id, exe);
        head.known |= KNOWN_FILE;
        payload.file = id;
    }
    emit::record(Hook::Exec, &task, &head, payload, &Extent::NONE);
}

/// The last user of `mm` is gone; all its mappings are about to be removed.
#[inline(always)]
fn exited(mm: u64) {
    let task = Task::current();
    let exiting = task.is_exiting();
    let mut whose = Whose {
        mm,
        born_ns: 0,
        section: 1,
    };
    let (owner_tgid, owner_start_boot_ns) = match space::get(mm) {
        Some(state) => {
            whose.born_ns = state.born_ns;
            whose.section = state.sections + 1;
            (state.owner_tgid, state.owner_start_boot_ns)
        }
        // Never seen before. A task on its way out lets go of its own; anything
        // else may be an address space that never ran (a failed fork or exec).
        None if exiting => (task.tgid, task.start_boot_ns()),
        None => return,
    };
    space::retire(mm);
    match filter::owner(task.address, owner_tgid, owner_start_boot_ns) {
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
        match task.entry().cause() {
            Cause::Exec => Cause::Exec,
            _ => Cause::Exit,
        }
    };
    let gone = Size { vmas: 0, pages: 0 };
    let known = KNOWN_EXACT | KNOWN_DELTA;
    let mut head = head(&task, owner_tgid, cause, known, gone, whose);
    head.tgid = owner_tgid;
    head.start_boot_ns = owner_start_boot_ns;
    head.space.vmas_delta = 0i32.wrapping_sub(size.vmas as i32);
    head.space.pages_delta = 0i64.wrapping_sub(size.pages as i64);
    head.space.vmas_removed = size.vmas;
    let payload = Exit {
        len_bytes: size.pages << PAGE_SHIFT,
        vmas_removed: size.vmas,
        pad: 0,
    };
    let extent = Extent::unmapped(payload.len_bytes, payload.len_bytes);
    emit::record(Hook::Exit, &task, &head, payload, &extent);
    if exiting {
        filter::forget(owner_tgid);
    }
}

/// The current thread ends. What its last section did was reported at its
/// call's return, unless that was missed; another thread may have its id soon.
#[inline(always)]
fn thread_exited() {
    let task = Task::current();
    if filter::process(&task) == Process::Wanted
        && let Some(section) = section::get(task.tid)
        && section.waits()
    {
        if let Some(row) = emit::ledger(Hook::ThreadExit) {
            row.unfinished += 1;
        }
        report::unreturned(Hook::ThreadExit, &task, section);
    }
    section::remove(task.tid);
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
    // For `-vv`: says that programs run. Execs are rare enough; nothing else is
    // ever logged from a hook.
    debug!(&ctx, "exec");
    execed();
    0
}

// void sched_process_exit(struct task_struct *p, …), for each thread
#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn raw_sched_process_exit(_: RawTracePointContext) -> i32 {
    thread_exited();
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

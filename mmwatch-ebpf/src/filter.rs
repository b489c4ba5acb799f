//! Which processes and records are let through.

use mmwatch_common::{
    config::{
        FILTER_BACKING, FILTER_CGROUP, FILTER_COMM, FILTER_FAILED, FILTER_FOLLOW, FILTER_MIN_SIZE,
        FILTER_PID_NAMESPACE, FILTER_SUSPECT, FILTER_TGIDS, FILTER_UID,
    },
    event::{COMM_LEN, Kind},
};

use crate::{
    emit::Head,
    globals::{CONFIG, config},
    identity,
    maps::TGIDS,
    sums::Extent,
    task::{self, Task},
};

/// What becomes of a process's doings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// Reported.
    Wanted,
    /// Left out by `-p`, `-- CMD`, `--cgroup`, `--container`, `--pidns` or `--scope`.
    Unwanted,
    /// The agent itself: not even counted.
    Agent,
}

/// Looks only at what the process is; asked first, so that unwanted processes
/// cost next to nothing.
#[inline(always)]
pub fn process(task: &Task) -> Process {
    if task.tgid == config!(self_tgid) {
        return Process::Agent;
    }
    if config!(filters) & FILTER_TGIDS != 0 && !is_listed(task.tgid, || task.start_boot_ns()) {
        return Process::Unwanted;
    }
    if config!(filters) & FILTER_CGROUP != 0 && !task.is_in_cgroup() {
        return Process::Unwanted;
    }
    if config!(filters) & FILTER_PID_NAMESPACE != 0 && !identity::is_in_namespace(task.address) {
        return Process::Unwanted;
    }
    Process::Wanted
}

/// Whether what the running task itself does is let through, which is no record.
#[inline(always)]
pub fn is_wanted(task: &Task) -> bool {
    if process(task) != Process::Wanted {
        return false;
    }
    let held = config!(held_tgid);
    if held != 0 && task.tgid == held && task.is_before_exec() {
        return false;
    }
    let filters = config!(filters);
    if filters & FILTER_UID != 0 && task::uid() != config!(uid) {
        return false;
    }
    filters & FILTER_COMM == 0 || is_comm()
}

/// Whether an address space's owner is let through; `task` is the owner, or who
/// let go of the address space last.
#[inline(always)]
pub fn owner(task: u64, tgid: u32, start_boot_ns: u64) -> Process {
    if tgid == config!(self_tgid) {
        return Process::Agent;
    }
    if config!(filters) & FILTER_TGIDS != 0 && !is_listed(tgid, || start_boot_ns) {
        return Process::Unwanted;
    }
    if config!(filters) & FILTER_CGROUP != 0 && !identity::is_in_cgroup(task) {
        return Process::Unwanted;
    }
    if config!(filters) & FILTER_PID_NAMESPACE != 0 && !identity::is_in_namespace(task) {
        return Process::Unwanted;
    }
    Process::Wanted
}

/// Whether `TGIDS` has this life of a process id.
#[inline(always)]
fn is_listed(tgid: u32, start_boot_ns: impl Fn() -> u64) -> bool {
    let only = config!(only_tgid);
    if only != 0 && tgid != only {
        return false;
    }
    let Some(listed) = TGIDS.get_ptr_mut(tgid) else {
        return false;
    };
    let start = start_boot_ns();
    // SAFETY: a map value; a 64-bit access is whole. Two threads that meet a 0
    // here write the same value.
    unsafe {
        if listed.read_volatile() == 0 {
            listed.write_volatile(start);
        }
        listed.read_volatile() == start
    }
}

/// With `-- CMD`: a child joins its parent. `false` when the table is full, and
/// the child stays out.
#[inline(always)]
pub fn follow(parent: &Task, child_tgid: u32, child_start_boot_ns: u64) -> bool {
    let wanted = FILTER_TGIDS | FILTER_FOLLOW;
    if config!(filters) & wanted != wanted || !is_listed(parent.tgid, || parent.start_boot_ns()) {
        return true;
    }
    TGIDS.insert(child_tgid, child_start_boot_ns, 0).is_ok()
}

/// A process ended: its id may be another's soon, and the table has room again.
#[inline(always)]
pub fn forget(tgid: u32) {
    if config!(filters) & FILTER_TGIDS != 0 {
        // Absent is fine: it was never listed.
        let _ = TGIDS.remove(tgid);
    }
}

/// Looks at what a record of the running task will say.
#[inline(always)]
pub fn record(head: &Head, kind: Kind, extent: &Extent) -> bool {
    if config!(ops) & (1 << kind as u32) == 0 {
        return false;
    }
    let filters = config!(filters);
    if filters == 0 {
        return true;
    }
    if filters & FILTER_FAILED != 0 && head.errno == 0 {
        return false;
    }
    if filters & FILTER_BACKING != 0 && !is_of_backing(extent) {
        return false;
    }
    if filters & FILTER_SUSPECT != 0 && u32::from(head.suspects.bits()) & config!(suspects) == 0 {
        return false;
    }
    if filters & FILTER_UID != 0 && task::uid() != config!(uid) {
        return false;
    }
    if filters & FILTER_COMM != 0 && !is_comm() {
        return false;
    }
    filters & FILTER_MIN_SIZE == 0 || extent.size_bytes >= config!(min_size_bytes)
}

/// Whether the backing is one of those asked for. One that is not known is not.
#[inline(always)]
fn is_of_backing(extent: &Extent) -> bool {
    match extent.backing {
        Some(backing) => config!(backings) & (1 << backing as u32) != 0,
        None => false,
    }
}

/// Whether the running thread's name is the one asked for.
#[inline(always)]
fn is_comm() -> bool {
    let mut comm = [0; COMM_LEN];
    // SAFETY: the name is a local; two whole words each, within 16 bytes;
    // unaligned reads.
    unsafe {
        task::comm(&raw mut comm);
        let seen = comm.as_ptr().cast::<u64>();
        let wanted = (&raw const CONFIG.comm).cast::<u64>();
        seen.read_unaligned() == wanted.read_volatile()
            && seen.add(1).read_unaligned() == wanted.add(1).read_volatile()
    }
}

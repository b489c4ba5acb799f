//! The list of processes: an iterator that the agent runs, not a hook.
//!
//! It adopts address spaces that did nothing since the programs were attached,
//! so that every process has its numbers, and takes no lock.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_seq_write};
use mmwatch_common::{event::COMM_LEN, space::Listed};

use crate::{
    filter::{self, Process},
    globals::{has, offset},
    identity,
    iter::{self, Context},
    maps::SPACES,
    memory::{member_or_zero, read_or_zero},
    space::{self, Size},
    task,
};

/// Whether somebody holds the lock of an address space or waits for it: what is
/// read of it meanwhile may be halfway between two sections.
#[inline(always)]
fn is_locked(mm: u64) -> bool {
    has!(rwsem_count) && read_or_zero::<u64>(mm, offset!(mm_mmap_lock) + offset!(rwsem_count)) != 0
}

/// The row of a process, given any of its threads; `None` for a thread that
/// does not stand for its process, and for processes that are not watched.
#[inline(always)]
fn listed(thread: u64) -> Option<Listed> {
    let mm = member_or_zero!(thread, task_mm: u64);
    let leader = member_or_zero!(thread, task_group_leader: u64);
    // The first thread stands for all; where it ended before the others, any does.
    if mm == 0 || (leader != thread && member_or_zero!(leader, task_mm: u64) != 0) {
        return None;
    }
    let tgid = member_or_zero!(thread, task_tgid: u32);
    let start_boot_ns = task::start_boot_ns(thread);
    if filter::owner(leader, tgid, start_boot_ns) != Process::Wanted {
        return None;
    }
    let size = Size {
        vmas: member_or_zero!(mm, mm_map_count: u32),
        pages: member_or_zero!(mm, mm_total_vm: u64),
    };
    if space::get(mm).is_none() && member_or_zero!(mm, mm_users: u32) != 0 {
        let state = space::born(size, tgid, start_boot_ns);
        // A hook may have been first, or the table be full: the look below tells.
        let _ = SPACES.insert(mm, state, u64::from(BPF_NOEXIST));
    }
    let credentials = member_or_zero!(leader, task_cred: u64);
    let mut row = Listed {
        tgid,
        uid: member_or_zero!(credentials, cred_uid: u32),
        start_boot_ns,
        mm,
        born_ns: 0,
        sections: 0,
        pages: size.pages,
        vmas: size.vmas,
        vmas_peak: size.vmas,
        owner_tgid: tgid,
        is_locked: u32::from(is_locked(mm)),
        comm: read_or_zero::<[u8; COMM_LEN]>(leader, offset!(task_comm)),
        identity: identity::of(leader),
    };
    if let Some(state) = space::get(mm) {
        row.born_ns = state.born_ns;
        row.sections = state.sections;
        row.owner_tgid = state.owner_tgid;
        if state.vmas_peak > size.vmas {
            row.vmas_peak = state.vmas_peak;
        }
    }
    Some(row)
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
fn iter_task(context: *const Context) -> i32 {
    // SAFETY: the kernel's own context.
    let (seq, task) = unsafe { iter::parts(context) };
    if task == 0 {
        return 0;
    }
    if let Some(row) = listed(task) {
        // SAFETY: the row has the length given. Where the file's buffer is full,
        // the kernel calls again for the same task.
        unsafe { bpf_seq_write(seq, (&raw const row).cast(), size_of::<Listed>() as u32) };
    }
    0
}

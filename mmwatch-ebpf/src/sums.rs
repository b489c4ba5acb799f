//! Sums per process: every record adds to them, sent or not.
//!
//! Threads of a process add at the same time, so each number is added to
//! atomically; no number depends on another.

use core::arch::asm;

use aya_ebpf::bindings::BPF_NOEXIST;
use mmwatch_common::{
    counter::Ledger,
    event::{Backing, Cause, KNOWN_DELTA, KNOWN_HELD, Kind, Op, UNKNOWN_VMAS},
    identity::Identity,
    sums::{BackingSums, OpSums, Process, ProcessKey, Sums, made_and_removed},
    suspect::Suspect,
};

use crate::{
    emit::Head,
    identity,
    maps::PROCESSES,
    memory::PAGE_SHIFT,
    task::{self, Task},
};

/// What a record covers, apart from what its base says.
#[derive(Clone, Copy)]
pub struct Extent {
    /// What `--min-size` compares with; 0 for operations without a size.
    pub size_bytes: u64,
    /// Bytes really covered.
    pub bytes: u64,
    /// Bytes mapped.
    pub mapped_bytes: u64,
    /// Bytes unmapped.
    pub unmapped_bytes: u64,
    /// What the mapping has its pages from, where that is known: of one that was
    /// made or asked for, of a heap, of a stack.
    pub backing: Option<Backing>,
}

impl Extent {
    /// No size at all.
    pub const NONE: Self = Self {
        size_bytes: 0,
        bytes: 0,
        mapped_bytes: 0,
        unmapped_bytes: 0,
        backing: None,
    };

    /// Of a range that stayed what it was, or of a call that failed and covered nothing.
    #[inline(always)]
    pub fn covered(size_bytes: u64, bytes: u64) -> Self {
        Self {
            size_bytes,
            bytes,
            ..Self::NONE
        }
    }

    /// The same, of a mapping with this backing.
    #[inline(always)]
    pub fn of(self, backing: Backing) -> Self {
        Self {
            backing: Some(backing),
            ..self
        }
    }

    /// Of mappings made.
    #[inline(always)]
    pub fn mapped(size_bytes: u64, bytes: u64) -> Self {
        Self {
            mapped_bytes: bytes,
            ..Self::covered(size_bytes, bytes)
        }
    }

    /// Of mappings removed.
    #[inline(always)]
    pub fn unmapped(size_bytes: u64, bytes: u64) -> Self {
        Self {
            unmapped_bytes: bytes,
            ..Self::covered(size_bytes, bytes)
        }
    }
}

/// A new entry. Static, because it is too large for the stack.
static NOTHING: Process = Process {
    sums: Sums {
        ops: [OpSums {
            count: 0,
            errors: 0,
            bytes: 0,
            vmas_delta: 0,
            total_delta_bytes: 0,
            held_count: 0,
            held_ns: 0,
        }; Op::ALL.len()],
        backings: [BackingSums { maps: 0, bytes: 0 }; Backing::ALL.len()],
        suspects: [0; Suspect::ALL.len()],
        mapped_bytes: 0,
        unmapped_bytes: 0,
        vmas_removed: 0,
        minor_faults: 0,
        major_faults: 0,
        touched_bytes: 0,
    },
    comm: [0; 16],
    uid: 0,
    ended: 0,
    identity: Identity {
        cgroup_id: 0,
        pid_namespace: 0,
        namespace_tgid: 0,
    },
};

/// The process's entry, made if this is its first record; where there is no
/// room, the one of all others.
#[inline(always)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a copy would not fit the stack"
)]
fn entry(row: &mut Ledger, key: &ProcessKey) -> Option<*mut Process> {
    if let Some(process) = PROCESSES.get_ptr_mut(key) {
        return Some(process);
    }
    // Another thread may be first, so only the look after it counts.
    let _ = PROCESSES.insert(key, &NOTHING, u64::from(BPF_NOEXIST));
    if let Some(process) = PROCESSES.get_ptr_mut(key) {
        return Some(process);
    }
    row.processes_full += 1;
    PROCESSES.get_ptr_mut(ProcessKey::OTHER)
}

/// Adds to one number.
///
/// # Safety
///
/// `number` points to an aligned number in a live map value, to which all
/// others add in this way too.
#[inline(always)]
pub unsafe fn grow(number: *mut u64, by: u64) {
    // The language has no atomic addition for this target, which cannot
    // compare and swap before 5.12; the instruction itself is as old as BPF.
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "lock *(u64 *)({number} + 0) += {by}",
            number = in(reg) number,
            by = in(reg) by,
            options(nostack),
        );
    }
}

/// Adds to one number what is mostly 0: a look is cheaper than an atomic
/// addition, but the verifier has two ways to follow.
///
/// # Safety
///
/// As for [`grow`].
#[inline(always)]
unsafe fn grow_rarely(number: *mut u64, by: u64) {
    if by != 0 {
        // SAFETY: the caller's promise.
        unsafe { grow(number, by) };
    }
}

/// Adds to one number that may shrink.
///
/// # Safety
///
/// As for [`grow`].
#[inline(always)]
unsafe fn shift(number: *mut i64, by: i64) {
    // SAFETY: the caller's promise; two's complement addition knows no sign.
    unsafe { grow(number.cast(), by as u64) };
}

/// 1 where a record says what `bit` stands for, else 0. What a record does not say adds
/// nothing, without a branch: the verifier follows each way of each.
#[inline(always)]
fn is_known(head: &Head, bit: u16) -> u64 {
    u64::from(head.known >> bit.trailing_zeros() & 1)
}

/// 1 where two numbers differ, else 0.
#[inline(always)]
fn is_other(one: u32, other: u32) -> u32 {
    (u64::from(one ^ other).wrapping_neg() >> 63) as u32
}

/// Adds a record to its process's sums.
#[inline(always)]
pub fn add(row: &mut Ledger, task: &Task, head: &Head, kind: Kind, extent: &Extent) {
    let key = ProcessKey::new(head.tgid, head.start_boot_ns);
    let Some(process) = entry(row, &key) else {
        return;
    };
    // SAFETY: only addresses are taken, of fields of a live map value; kinds of
    // records with a base are the operations.
    let (sums, op) = unsafe {
        let sums = &raw mut (*process).sums;
        let ops: *mut OpSums = (&raw mut (*sums).ops).cast();
        (sums, ops.add(kind as usize))
    };
    let space = &head.space;
    // SAFETY: as above.
    unsafe {
        grow(&raw mut (*op).count, 1);
        if head.errno != 0 {
            grow(&raw mut (*op).errors, 1);
        }
        grow(&raw mut (*op).bytes, extent.bytes);
        let held = is_known(head, KNOWN_HELD);
        grow(&raw mut (*op).held_count, held);
        grow(&raw mut (*op).held_ns, held * space.held_ns);
        let delta = is_known(head, KNOWN_DELTA) as i64;
        let vmas_delta = delta * i64::from(space.vmas_delta);
        let pages_delta = delta * space.pages_delta;
        shift(&raw mut (*op).vmas_delta, vmas_delta);
        shift(&raw mut (*op).total_delta_bytes, pages_delta << PAGE_SHIFT);
        let seen = is_other(space.vmas_removed, UNKNOWN_VMAS) * delta as u32;
        let (_, removed) = made_and_removed(vmas_delta as i32, seen * space.vmas_removed);
        grow(&raw mut (*sums).vmas_removed, removed);
        grow_rarely(&raw mut (*sums).mapped_bytes, extent.mapped_bytes);
        grow_rarely(&raw mut (*sums).unmapped_bytes, extent.unmapped_bytes);
        // Mappings that were made: heaps and stacks only grow.
        if kind as u8 == Kind::Map as u8
            && head.errno == 0
            && let Some(backing) = extent.backing
        {
            let backings: *mut BackingSums = (&raw mut (*sums).backings).cast();
            let backing = backings.add(backing as usize);
            grow(&raw mut (*backing).maps, 1);
            grow(&raw mut (*backing).bytes, extent.bytes);
        }
    }
    // Nothing else can be dangerous.
    if (kind as u8 == Kind::Map as u8 || kind as u8 == Kind::Protect as u8)
        && !head.suspects.is_empty()
    {
        // SAFETY: as above.
        unsafe { count_suspects(&raw mut (*sums).suspects, u64::from(head.suspects.bits())) };
    }
    identify(process, task, head, kind);
}

/// Counts each kind of `bits`.
///
/// # Safety
///
/// As for [`grow`], of each number.
#[inline(always)]
unsafe fn count_suspects(numbers: *mut [u64; Suspect::ALL.len()], bits: u64) {
    let numbers: *mut u64 = numbers.cast();
    for place in 0..Suspect::ALL.len() {
        // SAFETY: within the array; the caller's promise.
        unsafe { grow(numbers.add(place), bits >> place & 1) };
    }
}

/// Notes who the process is, at its first record and when it becomes another
/// program. A thread may have a name of its own, and names change: while the
/// process is alive, the list of processes knows better.
#[inline(always)]
fn identify(process: *mut Process, task: &Task, head: &Head, kind: Kind) {
    let exec = kind as u8 == Kind::Exec as u8;
    name(process, task, exec);
    // SAFETY: fields of a live map value.
    unsafe {
        if kind as u8 == Kind::Exit as u8 && head.cause != Cause::Exec as u8 {
            (*process).ended = 1;
        }
    }
}

/// Notes the name, the user and the identity of the running task, unless there is one and it
/// need not be made `anew`.
#[inline(always)]
fn name(process: *mut Process, task: &Task, anew: bool) {
    // SAFETY: fields of a live map value. Two threads may write at the same
    // time: then the name is one or the other, or for a moment a mixture.
    unsafe {
        if anew || (*process).comm[0] == 0 {
            task::comm(&raw mut (*process).comm);
            (*process).uid = task::uid();
            (*process).identity = identity::of(task.address);
        }
    }
}

/// Adds a page fault of the running task to its process's sums.
#[inline(always)]
pub fn add_fault(row: &mut Ledger, task: &Task, is_major: bool, touched_bytes: u64) {
    let key = ProcessKey::new(task.tgid, task.start_boot_ns());
    let Some(process) = entry(row, &key) else {
        return;
    };
    // SAFETY: numbers of a live map value.
    unsafe {
        let sums = &raw mut (*process).sums;
        if is_major {
            grow(&raw mut (*sums).major_faults, 1);
        } else {
            grow(&raw mut (*sums).minor_faults, 1);
        }
        grow(&raw mut (*sums).touched_bytes, touched_bytes);
    }
    name(process, task, false);
}

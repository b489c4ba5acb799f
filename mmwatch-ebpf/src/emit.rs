//! Records into the ring buffer, and the ledger of what became of them.
//!
//! Nothing else writes records. A record is reserved, written and submitted,
//! or its loss is counted by cause.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::bpf_get_prandom_u32,
    maps::ring_buf::RingBufEntry,
};
use mmwatch_common::{
    config::{STREAM_NEVER, STREAM_SWITCHED},
    counter::{Hook, Ledger},
    event::{KNOWN_RLIMIT, Payload, Record, Space},
    suspect::Suspects,
};

use crate::{
    filter,
    globals::config,
    maps::{EVENTS, LEDGER, STREAMING},
    report,
    sums::{self, Extent},
    task::{self, Task},
};

/// The running program's row. Its only writer, see `mmwatch_common::counter`.
#[inline(always)]
pub fn ledger(hook: Hook) -> Option<&'static mut Ledger> {
    // SAFETY: a per-CPU value that no other program writes.
    LEDGER
        .get_ptr_mut(hook as u32)
        .map(|row| unsafe { &mut *row })
}

/// How far beyond a multiple of `wake_bytes` the reader is still woken: a few
/// records, since several may be reserved before the first looks.
const WAKE_WINDOW_BYTES: u64 = 1024;

/// Counts a record that a filter on the process turned away before it was put together.
#[inline(always)]
pub fn unwanted(hook: Hook) {
    if let Some(row) = ledger(hook) {
        row.fired += 1;
        row.filtered += 1;
    }
}

/// What a record begins with, but for what the running task can be asked when
/// it is written.
#[derive(Clone, Copy)]
pub struct Head {
    /// A `Cause`.
    pub cause: u8,
    /// `KNOWN_*` bits.
    pub known: u16,
    /// 0 for success.
    pub errno: u32,
    /// What is dangerous about what was made.
    pub suspects: Suspects,
    /// When the operation was complete, ns of the boot clock.
    pub boot_ns: u64,
    /// Process that the record is of.
    pub tgid: u32,
    /// Process that owns the address space.
    pub owner_tgid: u32,
    /// Start of the process that the record is of, ns of the boot clock.
    pub start_boot_ns: u64,
    /// The address space afterwards.
    pub space: Space,
}

/// Filters, sums, counts, writes and submits one record of what `task`, the
/// running one, did.
#[inline(always)]
pub fn record<P: Payload + 'static>(
    hook: Hook,
    task: &Task,
    head: &Head,
    payload: P,
    extent: &Extent,
) {
    let Some(row) = ledger(hook) else {
        return;
    };
    row.fired += 1;
    if !filter::record(head, P::KIND, extent) {
        row.filtered += 1;
        return;
    }
    sums::add(row, task, head, P::KIND, extent);
    if !is_streaming() {
        row.summed += 1;
        return;
    }
    if is_lost_on_purpose() {
        row.simulated += 1;
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<Record<P>>(0) else {
        row.ring_full += 1;
        return;
    };
    write(entry.as_mut_ptr(), task, head, payload);
    submit(entry);
    row.submitted += 1;
}

/// Whether records are sent at all.
#[inline(always)]
pub fn is_streaming() -> bool {
    match config!(stream) {
        STREAM_NEVER => false,
        STREAM_SWITCHED => STREAMING
            .get_ptr(0)
            // SAFETY: a live map's value; volatile as the agent writes to it meanwhile.
            .is_some_and(|wanted| unsafe { wanted.read_volatile() } != 0),
        _ => true,
    }
}

/// Writes a record where the reader will find it: no copy on the stack.
#[inline(always)]
fn write<P: Payload>(record: *mut Record<P>, task: &Task, head: &Head, payload: P) {
    let (rlimit_as_bytes, known) = match head.errno {
        report::ENOMEM => (task.rlimit_as_bytes(), head.known | KNOWN_RLIMIT),
        _ => (0, head.known),
    };
    // SAFETY: reserved memory of the record's size, not yet visible to the
    // reader; every field is written.
    unsafe {
        let base = &raw mut (*record).base;
        (&raw mut (*base).kind).write(P::KIND as u8);
        (&raw mut (*base).cause).write(head.cause);
        (&raw mut (*base).known).write(known);
        // At most 4095.
        (&raw mut (*base).errno).write(head.errno as u16);
        (&raw mut (*base).suspects).write(head.suspects.bits());
        (&raw mut (*base).boot_ns).write(head.boot_ns);
        (&raw mut (*base).rlimit_as_bytes).write(rlimit_as_bytes);
        let actor = &raw mut (*base).actor;
        (&raw mut (*actor).tgid).write(head.tgid);
        (&raw mut (*actor).tid).write(task.tid);
        (&raw mut (*actor).start_boot_ns).write(head.start_boot_ns);
        (&raw mut (*actor).cgroup_id).write(if head.tgid == task.tgid {
            task.cgroup_id()
        } else {
            0
        });
        (&raw mut (*actor).uid).write(task::uid());
        (&raw mut (*actor).owner_tgid).write(head.owner_tgid);
        task::comm(&raw mut (*actor).comm);
        (&raw mut (*base).space).write(head.space);
        (&raw mut (*record).payload).write(payload);
    }
}

/// With `--simulate-loss`: throws the dice.
#[inline(always)]
fn is_lost_on_purpose() -> bool {
    let loss = config!(simulate_loss);
    // SAFETY: no arguments, no preconditions.
    loss != 0 && unsafe { bpf_get_prandom_u32() } < loss
}

/// Submits without waking the reader, who comes by a short timer, unless much
/// has piled up, and then once for each such pile: a wake-up costs the watched
/// several times what all else does, and a reader who is behind is awake.
#[inline(always)]
pub fn submit<T>(entry: RingBufEntry<T>) {
    let unread = EVENTS.query(u64::from(BPF_RB_AVAIL_DATA));
    let piled = unread & !(config!(wake_bytes) - 1);
    let flags = if piled != 0 && unread - piled < WAKE_WINDOW_BYTES {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    entry.submit(u64::from(flags));
}

//! Records into the ring buffer, and the ledger of what became of them.
//!
//! Nothing else writes records. A record is reserved, written and submitted,
//! or its loss is counted by cause.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    maps::ring_buf::RingBufEntry,
};
use mmwatch_common::{
    counter::{Hook, Ledger},
    event::{Base, Payload, Record},
};

use crate::{
    filter,
    globals::config,
    maps::{EVENTS, LEDGER},
};

/// The running program's row. Its only writer, see `mmwatch_common::counter`.
#[inline(always)]
pub fn ledger(hook: Hook) -> Option<&'static mut Ledger> {
    // SAFETY: a per-CPU value that no other program writes.
    LEDGER
        .get_ptr_mut(hook as u32)
        .map(|row| unsafe { &mut *row })
}

/// Counts a record that a filter on the process turned away before it was put together.
#[inline(always)]
pub fn unwanted(hook: Hook) {
    if let Some(row) = ledger(hook) {
        row.fired += 1;
        row.filtered += 1;
    }
}

/// Filters, counts and submits one record. `size_bytes` is what `--min-size`
/// compares with.
#[inline(always)]
pub fn record<P: Payload + 'static>(
    hook: Hook,
    mut base: Base,
    payload: P,
    size_bytes: Option<u64>,
) {
    let Some(row) = ledger(hook) else {
        return;
    };
    row.fired += 1;
    if !filter::record(&base, P::KIND, size_bytes) {
        row.filtered += 1;
        return;
    }
    base.kind = P::KIND as u8;
    let Some(mut entry) = EVENTS.reserve::<Record<P>>(0) else {
        row.ring_full += 1;
        return;
    };
    entry.write(Record { base, payload });
    submit(entry);
    row.submitted += 1;
}

/// Submits without waking the reader, who comes by a short timer, unless much
/// has piled up: a wake-up costs the watched several times what all else does.
#[inline(always)]
pub fn submit<T>(entry: RingBufEntry<T>) {
    let flags = if EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) >= config!(wake_bytes) {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    entry.submit(u64::from(flags));
}

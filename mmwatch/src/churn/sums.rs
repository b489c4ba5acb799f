//! What is summed of events. The kernel programs keep the same sums, of the
//! same records; `verify` holds one against the other.

use mmwatch_common::sums::made_and_removed;
pub use mmwatch_common::sums::{BackingSums, OpSums, Process as ProcessSums, ProcessKey, Sums};

use crate::{
    event::{Event, Map, Unmap, What},
    flags::RemapFlags,
};

/// Adds one event.
pub fn add_event(sums: &mut Sums, event: &Event) {
    let bytes = event.covered_bytes().unwrap_or(0);
    let space = &event.space;
    sums.ops[event.op() as usize] += &OpSums {
        count: 1,
        errors: u64::from(event.errno.is_some()),
        bytes,
        vmas_delta: space.vmas_delta.map_or(0, i64::from),
        total_delta_bytes: space.total_delta_bytes.unwrap_or(0),
        held_count: u64::from(space.held_ns.is_some()),
        held_ns: space.held_ns.unwrap_or(0),
    };
    let (mapped, unmapped) = mapped_and_unmapped(event, bytes);
    sums.mapped_bytes = sums.mapped_bytes.wrapping_add(mapped);
    sums.unmapped_bytes = sums.unmapped_bytes.wrapping_add(unmapped);
    if let Some(delta) = space.vmas_delta {
        let (_, removed) = made_and_removed(delta, space.vmas_removed.unwrap_or(0));
        sums.vmas_removed = sums.vmas_removed.wrapping_add(removed);
    }
    for suspect in event.suspects.iter() {
        sums.suspects[suspect as usize] += 1;
    }
    if let (What::Map(_), None, Some(backing)) = (&event.what, event.errno, event.backing()) {
        let sums = &mut sums.backings[backing as usize];
        sums.maps += 1;
        sums.bytes = sums.bytes.wrapping_add(bytes);
    }
}

/// What an event that covered `bytes` added to its address space, and took away.
fn mapped_and_unmapped(event: &Event, bytes: u64) -> (u64, u64) {
    let shrank = event.space.total_delta_bytes.is_some_and(|delta| delta < 0);
    match &event.what {
        // Where the range was not seen, `bytes` is the net change.
        What::Map(Map { range, .. }) | What::Unmap(Unmap { range, .. })
            if range.len_bytes.is_none() =>
        {
            if shrank {
                (0, bytes)
            } else {
                (bytes, 0)
            }
        }
        What::Map(_) | What::Grow(_) => (bytes, 0),
        What::Unmap(_) | What::Exit(_) => (0, bytes),
        What::Brk(_) if shrank => (0, bytes),
        What::Brk(_) if event.space.total_delta_bytes.is_some() => (bytes, 0),
        // Which way it went is not known.
        What::Brk(_) => (0, 0),
        What::Remap(_) if event.errno.is_some() => (0, 0),
        What::Remap(remap) => match (remap.range.len_bytes, remap.old_len_bytes) {
            (Some(now), Some(_)) if remap.flags.is_some_and(RemapFlags::leaves_old) => (now, 0),
            (Some(now), Some(before)) => (now.saturating_sub(before), before.saturating_sub(now)),
            (Some(_), None) => (0, 0),
            (None, _) if shrank => (0, bytes),
            (None, _) => (bytes, 0),
        },
        What::Protect(_) | What::Advise(_) | What::Fork(_) | What::Exec(_) => (0, 0),
    }
}

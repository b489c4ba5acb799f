//! What is summed.

use crate::{
    event::{Backing, Event, Map, Op, Unmap, What},
    flags::RemapFlags,
};

/// Sums over any set of events. Bytes are those that the kernel really covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    ops: [OpSums; Op::ALL.len()],
    backings: [BackingSums; Backing::ALL.len()],
    mapped_bytes: u64,
    unmapped_bytes: u64,
}

/// Sums of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpSums {
    /// How often it was done or tried.
    pub count: u64,
    /// How often it failed; part of `count`.
    pub errors: u64,
    /// Bytes covered.
    pub bytes: u64,
    /// VMAs made less VMAs removed.
    pub vmas_delta: i64,
    /// Bytes mapped less bytes unmapped.
    pub total_delta_bytes: i64,
    /// How often `held_ns` was measured.
    pub held_count: u64,
    /// Time that the lock was held for writing, ns.
    pub held_ns: u64,
}

/// Mappings made of one backing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackingSums {
    /// Mappings made by the program: `map` operations that succeeded.
    pub maps: u64,
    /// Bytes that they cover.
    pub bytes: u64,
}

impl OpSums {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.errors += other.errors;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.vmas_delta = self.vmas_delta.saturating_add(other.vmas_delta);
        self.total_delta_bytes = self
            .total_delta_bytes
            .saturating_add(other.total_delta_bytes);
        self.held_count += other.held_count;
        self.held_ns = self.held_ns.saturating_add(other.held_ns);
    }
}

impl Sums {
    /// Nothing.
    pub const ZERO: Self = Self {
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
        mapped_bytes: 0,
        unmapped_bytes: 0,
    };

    /// One operation's sums.
    pub const fn op(&self, op: Op) -> &OpSums {
        &self.ops[op as usize]
    }

    /// One backing's sums.
    pub const fn backing(&self, backing: Backing) -> &BackingSums {
        &self.backings[backing as usize]
    }

    /// Over all operations.
    pub fn all_ops(&self) -> OpSums {
        let mut all = OpSums::default();
        for op in &self.ops {
            all.add(op);
        }
        all
    }

    /// Bytes that were mapped: by mmap(2), and by heaps, stacks and mappings that grew.
    pub const fn mapped_bytes(&self) -> u64 {
        self.mapped_bytes
    }

    /// Bytes that were unmapped: by munmap(2), by what replaced or shrank
    /// mappings, and by exit.
    pub const fn unmapped_bytes(&self) -> u64 {
        self.unmapped_bytes
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.ops.iter_mut().zip(&other.ops) {
            mine.add(theirs);
        }
        for (mine, theirs) in self.backings.iter_mut().zip(&other.backings) {
            mine.maps += theirs.maps;
            mine.bytes = mine.bytes.saturating_add(theirs.bytes);
        }
        self.mapped_bytes = self.mapped_bytes.saturating_add(other.mapped_bytes);
        self.unmapped_bytes = self.unmapped_bytes.saturating_add(other.unmapped_bytes);
    }

    /// Adds one event.
    pub fn apply(&mut self, event: &Event) {
        let bytes = event.covered_bytes().unwrap_or(0);
        let space = &event.space;
        self.ops[event.op() as usize].add(&OpSums {
            count: 1,
            errors: u64::from(event.errno.is_some()),
            bytes,
            vmas_delta: space.vmas_delta.map_or(0, i64::from),
            total_delta_bytes: space.total_delta_bytes.unwrap_or(0),
            held_count: u64::from(space.held_ns.is_some()),
            held_ns: space.held_ns.unwrap_or(0),
        });
        let (mapped, unmapped) = mapped_and_unmapped(event, bytes);
        self.mapped_bytes = self.mapped_bytes.saturating_add(mapped);
        self.unmapped_bytes = self.unmapped_bytes.saturating_add(unmapped);
        if let (What::Map(_), None, Some(backing)) = (&event.what, event.errno, event.backing()) {
            let sums = &mut self.backings[backing as usize];
            sums.maps += 1;
            sums.bytes = sums.bytes.saturating_add(bytes);
        }
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

//! Sums per process, kept by the kernel programs and read by the agent.
//!
//! A record adds to its process's sums whether the ring buffer has room for it
//! or not, so that they are exact at any rate and any loss. The threads of a
//! process add at the same time, hence atomically; values only grow, but for
//! the signed ones.

use core::{mem::size_of, ops::AddAssign};

use crate::{
    event::{Backing, COMM_LEN, Op},
    identity::Identity,
    suspect::Suspect,
};

/// Identity of a process: ids are reused, ids with a start time are not.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    /// Process id in the root namespace.
    pub tgid: u32,
    /// Zero.
    pub pad: u32,
    /// Start of the process, ns of the boot clock.
    pub start_boot_ns: u64,
}

impl ProcessKey {
    /// Stands for all processes that found no room in the kernel's table.
    pub const OTHER: Self = Self::new(0, 0);

    /// The key of one life of a process id.
    pub const fn new(tgid: u32, start_boot_ns: u64) -> Self {
        Self {
            tgid,
            pad: 0,
            start_boot_ns,
        }
    }
}

/// Sums of one operation.
#[repr(C)]
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
    /// How often it was measured how long the lock was held for writing.
    pub held_count: u64,
    /// Time that the lock was held for writing, ns.
    pub held_ns: u64,
}

/// Mappings made of one backing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackingSums {
    /// Mappings made by the program: `map` operations that succeeded.
    pub maps: u64,
    /// Bytes that they cover.
    pub bytes: u64,
}

/// Sums over any set of records. Bytes are those that the kernel really covered.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// By [`Op`].
    pub ops: [OpSums; Op::ALL.len()],
    /// By [`Backing`].
    pub backings: [BackingSums; Backing::ALL.len()],
    /// Mappings made and protections changed that were dangerous, by [`Suspect`];
    /// one can be of several kinds.
    pub suspects: [u64; Suspect::ALL.len()],
    /// Bytes that were mapped: by mmap(2), and by heaps, stacks and mappings that grew.
    pub mapped_bytes: u64,
    /// Bytes that were unmapped: by munmap(2), by what replaced or shrank
    /// mappings, and by exit.
    pub unmapped_bytes: u64,
    /// VMAs removed or merged into others; where no hook tells them from those
    /// made, the net change if that is fewer.
    pub vmas_removed: u64,
    /// Minor page faults: the page was in memory, or was made from nothing.
    pub minor_faults: u64,
    /// Major page faults: the page was read from a file or a swap device.
    pub major_faults: u64,
    /// Bytes of pages that were not there when they were touched.
    pub touched_bytes: u64,
}

/// The kernel's entry for one process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its sums.
    pub sums: Sums,
    /// Its name: of the thread that its first record is of, or that its last
    /// exec is of.
    pub comm: [u8; COMM_LEN],
    /// Its real user id.
    pub uid: u32,
    /// 1 once the process ended with its address space.
    pub ended: u32,
    /// Whose it is, at its first record or its last exec.
    pub identity: Identity,
}

impl OpSums {
    /// What was added since `earlier`.
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            count: self.count.wrapping_sub(earlier.count),
            errors: self.errors.wrapping_sub(earlier.errors),
            bytes: self.bytes.wrapping_sub(earlier.bytes),
            vmas_delta: self.vmas_delta.wrapping_sub(earlier.vmas_delta),
            total_delta_bytes: self
                .total_delta_bytes
                .wrapping_sub(earlier.total_delta_bytes),
            held_count: self.held_count.wrapping_sub(earlier.held_count),
            held_ns: self.held_ns.wrapping_sub(earlier.held_ns),
        }
    }
}

// Wrapping, as the kernel's own additions: no sum of real sizes comes near the
// end of 64 bits, and one of damaged records must not panic.
impl AddAssign<&Self> for OpSums {
    fn add_assign(&mut self, other: &Self) {
        self.count = self.count.wrapping_add(other.count);
        self.errors = self.errors.wrapping_add(other.errors);
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.vmas_delta = self.vmas_delta.wrapping_add(other.vmas_delta);
        self.total_delta_bytes = self.total_delta_bytes.wrapping_add(other.total_delta_bytes);
        self.held_count = self.held_count.wrapping_add(other.held_count);
        self.held_ns = self.held_ns.wrapping_add(other.held_ns);
    }
}

impl Sums {
    /// One operation's sums.
    pub const fn op(&self, op: Op) -> &OpSums {
        &self.ops[op as usize]
    }

    /// One backing's sums.
    pub const fn backing(&self, backing: Backing) -> &BackingSums {
        &self.backings[backing as usize]
    }

    /// How often a kind of dangerous mapping was made.
    pub const fn suspect(&self, suspect: Suspect) -> u64 {
        self.suspects[suspect as usize]
    }

    /// Over all operations.
    pub fn all_ops(&self) -> OpSums {
        let mut all = OpSums::default();
        for op in &self.ops {
            all += op;
        }
        all
    }

    /// VMAs made: the net change, and those removed.
    pub fn vmas_made(&self) -> u64 {
        self.vmas_removed
            .wrapping_add_signed(self.all_ops().vmas_delta)
    }

    /// Bytes that were mapped and never touched since, at least: what was touched
    /// may have been mapped before, or be the same page once more.
    pub const fn untouched_bytes(&self) -> u64 {
        self.mapped_bytes.saturating_sub(self.touched_bytes)
    }

    /// What was added since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = *self;
        for (mine, theirs) in since.ops.iter_mut().zip(&earlier.ops) {
            *mine = mine.since(theirs);
        }
        for (mine, theirs) in since.backings.iter_mut().zip(&earlier.backings) {
            mine.maps = mine.maps.wrapping_sub(theirs.maps);
            mine.bytes = mine.bytes.wrapping_sub(theirs.bytes);
        }
        for (mine, theirs) in since.suspects.iter_mut().zip(&earlier.suspects) {
            *mine = mine.wrapping_sub(*theirs);
        }
        since.mapped_bytes = self.mapped_bytes.wrapping_sub(earlier.mapped_bytes);
        since.unmapped_bytes = self.unmapped_bytes.wrapping_sub(earlier.unmapped_bytes);
        since.vmas_removed = self.vmas_removed.wrapping_sub(earlier.vmas_removed);
        since.minor_faults = self.minor_faults.wrapping_sub(earlier.minor_faults);
        since.major_faults = self.major_faults.wrapping_sub(earlier.major_faults);
        since.touched_bytes = self.touched_bytes.wrapping_sub(earlier.touched_bytes);
        since
    }
}

impl AddAssign<&Self> for Sums {
    fn add_assign(&mut self, other: &Self) {
        for (mine, theirs) in self.ops.iter_mut().zip(&other.ops) {
            *mine += theirs;
        }
        for (mine, theirs) in self.backings.iter_mut().zip(&other.backings) {
            mine.maps = mine.maps.wrapping_add(theirs.maps);
            mine.bytes = mine.bytes.wrapping_add(theirs.bytes);
        }
        for (mine, theirs) in self.suspects.iter_mut().zip(&other.suspects) {
            *mine = mine.wrapping_add(*theirs);
        }
        self.mapped_bytes = self.mapped_bytes.wrapping_add(other.mapped_bytes);
        self.unmapped_bytes = self.unmapped_bytes.wrapping_add(other.unmapped_bytes);
        self.vmas_removed = self.vmas_removed.wrapping_add(other.vmas_removed);
        self.minor_faults = self.minor_faults.wrapping_add(other.minor_faults);
        self.major_faults = self.major_faults.wrapping_add(other.major_faults);
        self.touched_bytes = self.touched_bytes.wrapping_add(other.touched_bytes);
    }
}

/// VMAs that a section made, and that it removed or merged away, from its net
/// change and the number that the unmap core was seen to remove; 0 where it was
/// not seen.
///
/// Without a branch, for the verifier's sake.
#[inline(always)]
pub const fn made_and_removed(vmas_delta: i32, vmas_removed: u32) -> (u64, u64) {
    let made = vmas_delta as i64 + vmas_removed as i64;
    let merged_away = made & (made >> 63);
    (
        (made - merged_away) as u64,
        (vmas_removed as i64 - merged_away) as u64,
    )
}

const _: () = assert!(size_of::<ProcessKey>() == 16);
const _: () = assert!(size_of::<OpSums>() == 7 * 8);
const _: () = assert!(size_of::<Sums>() == (10 * 7 + 5 * 2 + 7 + 6) * 8);
const _: () =
    assert!(size_of::<Process>() == size_of::<Sums>() + COMM_LEN + 8 + size_of::<Identity>());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gross_follows_from_net_and_removed() {
        for (delta, removed, want) in [
            // A fixed mapping over three others.
            (-2, 3, (1, 3)),
            // A hole in the middle of one.
            (1, 1, (2, 1)),
            // Merged with a neighbour, and with both.
            (0, 0, (0, 0)),
            (-1, 0, (0, 1)),
            (5, 0, (5, 0)),
            (-5, 0, (0, 5)),
        ] {
            assert_eq!(made_and_removed(delta, removed), want);
        }
    }

    #[test]
    fn what_is_left_untouched_is_never_less_than_nothing() {
        let mut sums = Sums {
            mapped_bytes: 8192,
            touched_bytes: 4096,
            ..Sums::default()
        };
        assert_eq!(sums.untouched_bytes(), 4096);
        sums.touched_bytes = 12288;
        assert_eq!(sums.untouched_bytes(), 0);
    }

    #[test]
    fn each_sum_is_added_up_and_taken_away() {
        // No number is 0 or another's.
        let op = |from: u64| OpSums {
            count: from,
            errors: from + 1,
            bytes: from + 2,
            vmas_delta: -3 - from as i64,
            total_delta_bytes: -4 - from as i64,
            held_count: from + 5,
            held_ns: from + 6,
        };
        let backing = |from: u64| BackingSums {
            maps: from,
            bytes: from + 1,
        };
        let sums = |factor: u64| Sums {
            ops: core::array::from_fn(|place| op(factor * (10 + place as u64))),
            backings: core::array::from_fn(|place| backing(factor * (100 + place as u64))),
            suspects: core::array::from_fn(|place| factor * (150 + place as u64)),
            mapped_bytes: factor * 201,
            unmapped_bytes: factor * 202,
            vmas_removed: factor * 204,
            minor_faults: factor * 205,
            major_faults: factor * 206,
            touched_bytes: factor * 207,
        };
        let (one, other) = (sums(1), sums(1_000));
        let mut both = other;
        both += &one;
        assert_eq!(both.mapped_bytes, 201_201);
        assert_eq!(both.minor_faults, 205_205);
        assert_eq!(both.major_faults, 206_206);
        assert_eq!(both.touched_bytes, 207_207);
        assert_eq!(both.suspect(Suspect::MemfdExec), 153_153);
        assert_eq!(both.ops[1].vmas_delta, -3 - 11 - 3 - 11_000);
        assert_eq!(both.vmas_made() as i64, 204_204 + both.all_ops().vmas_delta);
        assert_eq!(both.since(&one), other);
        assert_eq!(both.since(&other), one);
        assert_ne!(both, other);
    }
}

//! The loss ledger: what became of every record, program by program.
//!
//! Each program owns one row per CPU and is the only writer of it. The kernel
//! never runs a program inside itself on one CPU (it skips the run and counts
//! it as missed), so plain additions are exact.

use core::{mem::size_of, ops::AddAssign};

macro_rules! hooks {
    ($($(#[$meta:meta])* $hook:ident = $row:literal => $name:literal,)+) => {
        /// A program that can make records, each with a row of its own in the ledger.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Hook { $($(#[$meta])* $hook = $row,)+ }

        impl Hook {
            /// Every hook, in the order of the rows.
            pub const ALL: &'static [Self] = &[$(Self::$hook,)+];
            /// Number of rows of the ledger.
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// Its name in JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$hook => $name,)+ }
            }
        }
    };
}

hooks! {
    /// A write lock was taken.
    LockTaken = 0 => "lock_taken",
    /// A write lock was released.
    LockReleased = 1 => "lock_released",
    /// A write lock became a read lock.
    LockDowngraded = 2 => "lock_downgraded",
    /// `mmap_region` was entered.
    MapEnter = 3 => "map_enter",
    /// `mmap_region` returned.
    Map = 4 => "map",
    /// The unmap core was entered.
    UnmapEnter = 5 => "unmap_enter",
    /// The unmap core returned, or is about to remove what it gathered.
    Unmap = 6 => "unmap",
    /// A system call of ours returned (one program for all, `kprobe` and `tracepoint`).
    Call = 7 => "call",
    /// mmap(2) returned.
    CallMmap = 8 => "call_mmap",
    /// munmap(2) returned.
    CallMunmap = 9 => "call_munmap",
    /// mprotect(2) returned.
    CallMprotect = 10 => "call_mprotect",
    /// pkey_mprotect(2) returned.
    CallPkeyMprotect = 11 => "call_pkey_mprotect",
    /// mremap(2) returned.
    CallMremap = 12 => "call_mremap",
    /// brk(2) returned.
    CallBrk = 13 => "call_brk",
    /// shmat(2) returned.
    CallShmat = 14 => "call_shmat",
    /// shmdt(2) returned.
    CallShmdt = 15 => "call_shmdt",
    /// A task was made.
    Fork = 16 => "fork",
    /// A program was replaced.
    Exec = 17 => "exec",
    /// An address space ended.
    Exit = 18 => "exit",
    /// A thread ended.
    ThreadExit = 19 => "thread_exit",
    /// A VMA was split.
    Split = 20 => "split",
    /// A shared anonymous mapping got its file.
    SharedFile = 21 => "shared_file",
    /// A minor page fault was complete.
    MinorFault = 22 => "minor_fault",
    /// A major page fault was complete.
    MajorFault = 23 => "major_fault",
    /// A page fault of a program began.
    FaultUser = 24 => "fault_user",
    /// A page fault of the kernel's own code began.
    FaultKernel = 25 => "fault_kernel",
    /// A cgroup was made. Makes no records.
    Cgroup = 26 => "cgroup",
    /// A VMA is about to get another protection.
    Protect = 27 => "protect",
}

/// One program's row. `fired = filtered + summed + submitted + ring_full + simulated`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Records that were due.
    pub fired: u64,
    /// Records that a filter turned away.
    pub filtered: u64,
    /// Records that were summed and, because nobody asked for single events, not sent.
    pub summed: u64,
    /// Records handed to the ring buffer.
    pub submitted: u64,
    /// Records for which the ring buffer had no room.
    pub ring_full: u64,
    /// Records lost on purpose.
    pub simulated: u64,
    /// File paths handed to the ring buffer; not part of `fired`.
    pub paths_submitted: u64,
    /// File paths for which the ring buffer had no room; they are sent again later.
    pub paths_ring_full: u64,
    /// Sections and page faults whose details found no room in kernel scratch
    /// space: they are told without them.
    pub scratch_full: u64,
    /// Address spaces that found no room in the kernel's table: their
    /// records come without sums. Also children of a followed command that
    /// could not be followed for want of room.
    pub spaces_full: u64,
    /// Records of processes that found no room in the kernel's table of sums:
    /// they are summed under [`ProcessKey::OTHER`](crate::sums::ProcessKey::OTHER).
    pub processes_full: u64,
    /// Calls whose return was missed; what they did under the lock is reported
    /// when the thread takes a lock again.
    pub unfinished: u64,
}

impl AddAssign for Ledger {
    fn add_assign(&mut self, row: Self) {
        self.fired += row.fired;
        self.filtered += row.filtered;
        self.summed += row.summed;
        self.submitted += row.submitted;
        self.ring_full += row.ring_full;
        self.simulated += row.simulated;
        self.paths_submitted += row.paths_submitted;
        self.paths_ring_full += row.paths_ring_full;
        self.scratch_full += row.scratch_full;
        self.spaces_full += row.spaces_full;
        self.processes_full += row.processes_full;
        self.unfinished += row.unfinished;
    }
}

impl Ledger {
    /// What was counted since `earlier`.
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            fired: self.fired.wrapping_sub(earlier.fired),
            filtered: self.filtered.wrapping_sub(earlier.filtered),
            summed: self.summed.wrapping_sub(earlier.summed),
            submitted: self.submitted.wrapping_sub(earlier.submitted),
            ring_full: self.ring_full.wrapping_sub(earlier.ring_full),
            simulated: self.simulated.wrapping_sub(earlier.simulated),
            paths_submitted: self.paths_submitted.wrapping_sub(earlier.paths_submitted),
            paths_ring_full: self.paths_ring_full.wrapping_sub(earlier.paths_ring_full),
            scratch_full: self.scratch_full.wrapping_sub(earlier.scratch_full),
            spaces_full: self.spaces_full.wrapping_sub(earlier.spaces_full),
            processes_full: self.processes_full.wrapping_sub(earlier.processes_full),
            unfinished: self.unfinished.wrapping_sub(earlier.unfinished),
        }
    }
}

const _: () = assert!(size_of::<Ledger>() == 12 * 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_is_added_up() {
        let row = Ledger {
            fired: 1,
            filtered: 2,
            summed: 3,
            submitted: 4,
            ring_full: 5,
            simulated: 6,
            paths_submitted: 7,
            paths_ring_full: 8,
            scratch_full: 9,
            spaces_full: 10,
            processes_full: 11,
            unfinished: 12,
        };
        let mut sum = row;
        sum += row;
        let twice = Ledger {
            fired: 2,
            filtered: 4,
            summed: 6,
            submitted: 8,
            ring_full: 10,
            simulated: 12,
            paths_submitted: 14,
            paths_ring_full: 16,
            scratch_full: 18,
            spaces_full: 20,
            processes_full: 22,
            unfinished: 24,
        };
        assert_eq!(sum, twice);
        assert_eq!(twice.since(&row), row);
    }
}

//! The loss ledger: what became of every record, program by program.
//!
//! Each program owns one row per CPU and is the only writer of it. The kernel
//! never runs a program inside itself on one CPU (it skips the run and counts
//! it as missed), so plain additions are exact.

use core::mem::size_of;

/// A program that can make records, each with a row of its own in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// A write lock was taken.
    LockTaken = 0,
    /// A write lock was released.
    LockReleased = 1,
    /// A write lock became a read lock.
    LockDowngraded = 2,
    /// `mmap_region` returned.
    Map = 3,
    /// The unmap core was entered.
    UnmapEnter = 4,
    /// The unmap core returned.
    Unmap = 5,
    /// A system call of ours returned (one program for all, `tracepoint`).
    Call = 6,
    /// mmap(2) returned.
    CallMmap = 7,
    /// munmap(2) returned.
    CallMunmap = 8,
    /// mprotect(2) returned.
    CallMprotect = 9,
    /// pkey_mprotect(2) returned.
    CallPkeyMprotect = 10,
    /// mremap(2) returned.
    CallMremap = 11,
    /// brk(2) returned.
    CallBrk = 12,
    /// shmat(2) returned.
    CallShmat = 13,
    /// shmdt(2) returned.
    CallShmdt = 14,
    /// A task was made.
    Fork = 15,
    /// A program was replaced.
    Exec = 16,
    /// An address space ended.
    Exit = 17,
    /// `mmap_region` was entered.
    MapEnter = 18,
}

impl Hook {
    /// Number of rows of the ledger.
    pub const COUNT: u32 = 19;
}

/// One program's row. `fired = filtered + submitted + ring_full`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Records that were due.
    pub fired: u64,
    /// Records that a filter turned away.
    pub filtered: u64,
    /// Records handed to the ring buffer.
    pub submitted: u64,
    /// Records for which the ring buffer had no room.
    pub ring_full: u64,
    /// File paths handed to the ring buffer; not part of `fired`.
    pub paths_submitted: u64,
    /// File paths for which the ring buffer had no room; they are sent again later.
    pub paths_ring_full: u64,
    /// Sections whose details found no room in kernel scratch space: their
    /// records come without them.
    pub scratch_full: u64,
    /// Address spaces that found no room in the kernel's table: their
    /// records come without sums.
    pub spaces_full: u64,
    /// Sections that ended without the return of the call that they belong to.
    pub unfinished: u64,
}

const _: () = assert!(size_of::<Ledger>() == 9 * 8);

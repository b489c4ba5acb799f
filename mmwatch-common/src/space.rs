//! Address spaces as the kernel programs know them, and the list of processes
//! that use them.

use core::mem::size_of;

use crate::{event::COMM_LEN, identity::Identity};

/// What is known of one address space. Written only while its `mmap_lock` is
/// held for writing, or by the one reader that a writer became.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// `total_vm` at the last settle point.
    pub pages: u64,
    /// Sections that changed something.
    pub sections: u64,
    /// When it was first met, ns of the boot clock.
    pub born_ns: u64,
    /// Start of the owner, ns of the boot clock.
    pub owner_start_boot_ns: u64,
    /// Process that the address space was first seen with.
    pub owner_tgid: u32,
    /// `map_count` at the last settle point.
    pub vmas: u32,
    /// The largest `map_count` at any settle point.
    pub vmas_peak: u32,
    /// Zero.
    pub pad: u32,
}

/// One process in the list: what it is, and what the kernel says of its
/// address space at that moment. The numbers are read without a lock, each
/// whole, one after the other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Process id in the root namespace.
    pub tgid: u32,
    /// Real user id in the root user namespace.
    pub uid: u32,
    /// Start of the process, ns of the boot clock.
    pub start_boot_ns: u64,
    /// Address of its `mm_struct`.
    pub mm: u64,
    /// [`State::born_ns`]; 0 where the table of address spaces is full.
    pub born_ns: u64,
    /// [`State::sections`].
    pub sections: u64,
    /// `mm_struct.total_vm`.
    pub pages: u64,
    /// `mm_struct.map_count`.
    pub vmas: u32,
    /// [`State::vmas_peak`].
    pub vmas_peak: u32,
    /// [`State::owner_tgid`].
    pub owner_tgid: u32,
    /// 1 while anyone holds its `mmap_lock` or waits for it, by
    /// `rw_semaphore.count`. Always 0 on PREEMPT_RT kernels, whose rwsem has none.
    pub is_locked: u32,
    /// Name of its first thread.
    pub comm: [u8; COMM_LEN],
    /// Whose it is.
    pub identity: Identity,
}

/// Size of the kernel's note of one thread's section, which only the kernel
/// programs read.
pub const SECTION_BYTES: usize = 224;

const _: () = assert!(size_of::<State>() == 4 * 8 + 4 * 4);
const _: () =
    assert!(size_of::<Listed>() == 2 * 4 + 5 * 8 + 4 * 4 + COMM_LEN + size_of::<Identity>());

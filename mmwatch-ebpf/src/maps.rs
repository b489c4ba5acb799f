//! The maps. Those that the agent opens have their names in `mmwatch_common::names`.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use mmwatch_common::{
    counter::{Hook, Ledger},
    event::FileId,
    fault::{Block, BlockKey},
    identity::CgroupPath,
    space::State,
    sums::{Process, ProcessKey},
};

use crate::section::Section;

/// Records on their way to the agent. The agent sets the size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 24, 0);

/// 1 while somebody wants the records, where that changes.
#[map]
pub static STREAMING: Array<u32> = Array::with_max_entries(1, 0);

/// What became of the records, a row per program and CPU.
#[map]
pub static LEDGER: PerCpuArray<Ledger> = PerCpuArray::with_max_entries(Hook::COUNT, 0);

/// Sums per process. Entries come with a process's first record; the agent
/// takes those of the ended away. Processes that find no room share
/// [`ProcessKey::OTHER`], which the agent puts there before anything else.
#[map]
pub static PROCESSES: HashMap<ProcessKey, Process> = HashMap::with_max_entries(1 << 13, 0);

/// Address spaces by the address of their `mm_struct`. Entries come at the
/// first section, fork or exec and go at `exit_mmap`.
#[map]
pub static SPACES: HashMap<u64, State> = HashMap::with_max_entries(1 << 16, 0);

/// The section under way or waiting for its call's return, by thread id.
/// Least-recently-used, so that neither the end of a thread nor a missed
/// return leaves anything behind.
#[map]
pub static SECTIONS: LruHashMap<u32, Section> = LruHashMap::with_max_entries(1 << 14, 0);

/// Files whose path was sent.
#[map]
pub static FILES: LruHashMap<FileId, u8> = LruHashMap::with_max_entries(1 << 14, 0);

/// Processes let through, by their start in ns of the boot clock; 0 where the
/// agent only knew the number, until the first look.
#[map]
pub static TGIDS: HashMap<u32, u64> = HashMap::with_max_entries(1 << 14, 0);

/// Paths of cgroups that were made, by their ids.
#[map]
pub static CGROUPS: LruHashMap<u64, CgroupPath> = LruHashMap::with_max_entries(1 << 11, 0);

/// Where such a path is put together.
#[map]
pub static CGROUP_SCRATCH: PerCpuArray<CgroupPath> = PerCpuArray::with_max_entries(1, 0);
/// The page fault under way, by thread id: the page's address, and in its low
/// bit whether the page was there when it began. Least-recently-used, because
/// faults that fail and threads that end leave theirs behind. The agent gives it
/// room when faults are counted.
#[map]
pub static FAULTS: LruHashMap<u32, u64> = LruHashMap::with_max_entries(1, 0);

/// Page faults page by page. The agent gives it room when they are asked for.
#[map]
pub static BLOCKS: HashMap<BlockKey, Block> = HashMap::with_max_entries(1, 0);

//! Names that both sides use for maps, globals and programs.

/// Ring buffer of records.
pub const EVENTS: &str = "EVENTS";
/// Per-CPU array of [`Ledger`](crate::counter::Ledger) rows, by [`Hook`](crate::counter::Hook).
pub const LEDGER: &str = "LEDGER";
/// Hash of [`Process`](crate::sums::Process) by [`ProcessKey`](crate::sums::ProcessKey).
pub const PROCESSES: &str = "PROCESSES";
/// Hash of process ids let through, with [`FILTER_TGIDS`](crate::config::FILTER_TGIDS).
pub const TGIDS: &str = "TGIDS";
/// LRU hash of the page faults under way, by thread.
pub const FAULTS: &str = "FAULTS";
/// Hash of [`Block`](crate::fault::Block) by [`BlockKey`](crate::fault::BlockKey).
pub const BLOCKS: &str = "BLOCKS";
/// Hash of [`State`](crate::space::State) by the address of the `mm_struct`.
pub const SPACES: &str = "SPACES";
/// LRU hash of sections by thread.
pub const SECTIONS: &str = "SECTIONS";
/// LRU hash of files whose path was sent.
pub const FILES: &str = "FILES";
/// Array of one `u32`: 1 while records are sent, with [`STREAM_SWITCHED`](crate::config::STREAM_SWITCHED).
pub const STREAMING: &str = "STREAMING";

/// Hash of [`CgroupPath`](crate::identity::CgroupPath) by the cgroup's id.
pub const CGROUPS: &str = "CGROUPS";

/// The program that lists processes.
pub const LIST: &str = "iter_task";

/// Global of type [`Offsets`](crate::config::Offsets).
pub const OFFSETS: &str = "OFFSETS";
/// Global of type [`Config`](crate::config::Config).
pub const CONFIG: &str = "CONFIG";

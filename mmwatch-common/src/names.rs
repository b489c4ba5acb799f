//! Names that both sides use for maps, globals and programs.

/// Ring buffer of records.
pub const EVENTS: &str = "EVENTS";
/// Per-CPU array of [`Ledger`](crate::counter::Ledger) rows, by [`Hook`](crate::counter::Hook).
pub const LEDGER: &str = "LEDGER";
/// Hash of [`Process`](crate::sums::Process) by [`ProcessKey`](crate::sums::ProcessKey).
pub const PROCESSES: &str = "PROCESSES";
/// Hash of process ids let through, with [`FILTER_TGIDS`](crate::config::FILTER_TGIDS).
pub const TGIDS: &str = "TGIDS";

/// Hash of [`CgroupPath`](crate::identity::CgroupPath) by the cgroup's id.
pub const CGROUPS: &str = "CGROUPS";

/// The program that lists processes.
pub const LIST: &str = "iter_task";

/// Global of type [`Offsets`](crate::config::Offsets).
pub const OFFSETS: &str = "OFFSETS";
/// Global of type [`Config`](crate::config::Config).
pub const CONFIG: &str = "CONFIG";

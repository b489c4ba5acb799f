//! Where records come from.

use std::{future::Future, io, sync::Arc};

use mmwatch_common::counter::{self, Hook};
pub use mmwatch_common::{
    identity::Identity,
    space::Listed,
    sums::{Process as ProcessSums, ProcessKey},
};

use crate::{clock::boot_ns, error::Error, explain::Limits, identity::Cgroup, recording::Replay};

/// What a source has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Records, perhaps.
    Records,
    /// What the kernel kept at that moment; of a recording only.
    Look,
    /// Nothing, and never again; of a recording only.
    End,
}

/// Lends raw records one at a time, oldest first.
pub trait Source {
    /// Waits until there may be records to read: a wake-up from the kernel, or
    /// the end of a short timer. A recording never waits. Cancelling it loses
    /// nothing.
    fn ready(&mut self) -> impl Future<Output = io::Result<Wake>>;

    /// The next record, borrowed until the next call; `None` when all were read.
    fn next(&mut self) -> Option<&[u8]>;

    /// Has records sent, or only summed, from now on. Nothing, where that cannot be
    /// switched.
    fn stream(&mut self, wanted: bool) -> Result<(), Error> {
        let _ = wanted;
        Ok(())
    }

    /// The kernel's counters, summed over all possible CPUs, never reset.
    fn counters(&mut self) -> Result<KernelCounters, Error>;

    /// The sums that the kernel keeps per process, in no order. They only grow;
    /// those of processes that found no room are under [`ProcessKey::OTHER`].
    fn sums(&mut self) -> Result<Vec<(ProcessKey, ProcessSums)>, Error>;

    /// Makes room for another process's sums in the kernel. To be called of
    /// processes that ended, whose sums were read.
    fn forget(&mut self, key: ProcessKey);

    /// Every watched process that has an address space, as the kernel sees it now.
    fn processes(&mut self) -> Result<Vec<Listed>, Error>;

    /// Whose a process is, of which there was a record; `None` where that is not
    /// known (any more).
    fn identity(&mut self, key: ProcessKey) -> Option<Identity>;

    /// The path of a cgroup that was made since the start.
    fn cgroup_path(&mut self, id: u64) -> Option<String>;

    /// Whether records tell every change of an address space and their order.
    /// If not, they tell only what calls did, as far as that can be told apart.
    fn tells_order(&self) -> bool;

    /// Stops the kernel programs from making more records. What was made can
    /// still be read, and so can the counters.
    fn stop(&mut self);

    /// The boot clock, ns: now or, of a recording, where it is.
    fn now(&mut self) -> Result<u64, Error> {
        boot_ns()
    }

    /// What the kernel measured mapping calls by then; `None` where that is now.
    fn limits(&mut self) -> Option<Limits> {
        None
    }

    /// Of a recording: the cgroup with this id, and the names of its container, as
    /// they were then.
    fn recorded_cgroup(&mut self, id: u64) -> Option<Arc<Cgroup>> {
        let _ = id;
        None
    }

    /// What there is to say of a recording; `None` where the kernel itself is
    /// the source.
    fn replay(&self) -> Option<Replay> {
        None
    }
}

/// What the kernel programs counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters {
    /// One entry per attached program.
    pub hooks: Vec<HookCounters>,
}

/// What one program counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookCounters {
    /// Its row.
    pub hook: Hook,
    /// Its name in the kernel.
    pub program: String,
    /// Sum of its row over all CPUs.
    pub ledger: counter::Ledger,
    /// Runs that the kernel skipped; `None` where the kernel does not say.
    pub missed: Option<u64>,
}

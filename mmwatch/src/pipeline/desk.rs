//! What is made of events, and of what the kernel keeps.

use std::time::Duration;

use super::{HEAL, LOOK, Pace, record::Tape};
use crate::{
    churn::{By, Churn, Faults},
    maps::{History, Past},
    process::{Proc, Programs},
    recording::Recorder,
    verify::Verifier,
};

/// What to make of events, and of what the kernel keeps.
#[derive(Debug)]
pub enum Work {
    /// Nothing: the sink gets each event.
    Events,
    /// A recording.
    Record(Box<Recorder>),
    /// Reports from the kernel's sums.
    Sums {
        /// Time between reports; `None` for one at the end.
        interval: Option<Duration>,
        /// Processes in a report, or groups of them.
        rows: usize,
        /// What they are grouped by.
        by: By,
        /// What of page faults the kernel counts.
        faults: Option<Faults>,
    },
    /// Rounds of comparing models and sums with the kernel's.
    Verify {
        /// Time between rounds.
        interval: Duration,
    },
    /// What is mapped, and what became of it, at each look.
    Maps {
        /// Of which process.
        pid: u32,
        /// Time between looks.
        interval: Duration,
    },
    /// What was mapped at the end of a recording, and what had become of it.
    Past {
        /// Of which process.
        pid: u32,
    },
}

impl Work {
    /// When it is looked at.
    pub(super) const fn pace(&self) -> Pace {
        let (interval, look) = match self {
            Self::Events | Self::Past { .. } => (None, None),
            Self::Record(_) => (None, Some(LOOK)),
            Self::Sums { interval, .. } => (*interval, Some(LOOK)),
            Self::Verify { interval } => (Some(*interval), Some(HEAL)),
            Self::Maps { interval, .. } => (Some(*interval), None),
        };
        Pace { interval, look }
    }

    /// Whether it tells of cgroups. A recorder looks them up by itself.
    pub(super) const fn tells_cgroups(&self) -> bool {
        match self {
            Self::Events | Self::Sums { .. } => true,
            Self::Record(_) | Self::Verify { .. } | Self::Maps { .. } | Self::Past { .. } => false,
        }
    }
}

/// The state of a [`Work`].
pub(super) enum Desk {
    Events,
    Record(Tape),
    Sums {
        churn: Box<Churn>,
        rows: usize,
        by: By,
        /// Where they are asked for.
        programs: Option<Programs>,
    },
    Verify(Box<Verifier>),
    Maps {
        pid: u32,
        since_boot_ns: u64,
        history: Box<History>,
    },
    Past {
        pid: u32,
        since_boot_ns: u64,
        past: Box<Past>,
    },
}

impl Desk {
    /// `proc` and `pid_namespace` are where live processes are looked up.
    pub(super) fn new(
        work: Work,
        now_boot_ns: u64,
        page_bytes: u64,
        proc: &Proc,
        pid_namespace: Option<u32>,
    ) -> Self {
        match work {
            Work::Events => Self::Events,
            Work::Record(recorder) => Self::Record(Tape::new(recorder)),
            Work::Sums {
                rows, by, faults, ..
            } => Self::Sums {
                churn: Box::new(Churn::new(now_boot_ns, page_bytes).with_faults(faults)),
                rows,
                by,
                programs: (by == By::Exe).then(|| Programs::new(proc.clone(), pid_namespace)),
            },
            Work::Verify { .. } => Self::Verify(Box::new(Verifier::new(now_boot_ns, page_bytes))),
            Work::Maps { pid, .. } => Self::Maps {
                pid,
                since_boot_ns: now_boot_ns,
                history: Box::default(),
            },
            Work::Past { pid } => Self::Past {
                pid,
                since_boot_ns: now_boot_ns,
                past: Box::default(),
            },
        }
    }

    /// What the ledger calls it where it takes the events itself.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Record(_) => "recording",
            Self::Sums { .. } => "sums",
            Self::Verify(_) => "verify",
            Self::Maps { .. } | Self::Past { .. } => "maps",
        }
    }

    /// Whether there is nothing left to watch.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Events | Self::Sums { .. } | Self::Verify(_) | Self::Past { .. } => false,
            Self::Record(tape) => tape.is_full(),
            Self::Maps { history, .. } => history.has_ended(),
        }
    }

    /// Whether what was compared is not the same.
    pub(super) fn found_differences(&self) -> bool {
        match self {
            Self::Verify(verifier) => verifier.differences() > 0,
            Self::Events
            | Self::Record(_)
            | Self::Sums { .. }
            | Self::Maps { .. }
            | Self::Past { .. } => false,
        }
    }

    /// Takes a record that is no event.
    pub(super) fn keep(&mut self) {
        match self {
            Self::Record(tape) => tape.keep(),
            Self::Events
            | Self::Sums { .. }
            | Self::Verify(_)
            | Self::Maps { .. }
            | Self::Past { .. } => {}
        }
    }
}

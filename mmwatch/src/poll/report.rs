//! What is told of what was seen.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use super::{Reading, Tally};
use crate::{
    churn::{By, Member},
    event::Comm,
    identity::{Container, Who},
};

/// What is known at a moment.
#[derive(Clone, Debug, Default)]
pub struct Poll {
    /// When it was put together, ns of the boot clock.
    pub boot_ns: u64,
    /// Time since the one before, or since the start, ns.
    pub interval_ns: u64,
    /// Time since the start, ns.
    pub elapsed_ns: u64,
    /// `vm.max_map_count`.
    pub max_map_count: u32,
    /// How much was seen, and how much was not.
    pub counts: Counts,
    /// Those whose number of VMAs changed most first, then by VMAs and bytes.
    pub processes: Vec<Polled>,
    /// In their place, where that was asked for.
    pub groups: Option<Groups>,
    /// All others that are alive.
    pub other: Sum,
    /// All that are alive.
    pub all: Sum,
    /// When the oldest of all their readings was made, ns of the boot clock.
    pub oldest_boot_ns: Option<u64>,
}

/// How much was seen, and how much was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Processes whose maps were read since the report before.
    pub read: u64,
    /// Processes that were read for the first time, those of the first look left out.
    pub new: u64,
    /// Processes that ended.
    pub ended: u64,
    /// Processes that show nothing but their id.
    pub closed: u64,
    /// Whether there are processes that do not even show that.
    pub hides: bool,
}

/// A process, as it was last seen.
#[derive(Clone, Debug)]
pub struct Polled {
    /// Its id.
    pub pid: u32,
    /// When it started, clock ticks since boot.
    pub start_ticks: u64,
    /// The name of its first thread.
    pub comm: Comm,
    /// Its real user id.
    pub uid: u32,
    /// Whose it is.
    pub who: Arc<Who>,
    /// The path of its program, where that may be known.
    pub program: Option<Arc<str>>,
    /// Whether it was there at the last look.
    pub alive: bool,
    /// Most VMAs that a look found.
    pub vmas_peak: Option<u64>,
    /// What the last look at it found.
    pub reading: Reading,
    /// What that is compared with: its last reading before the report before
    /// this one, or its first; `None` where it was not read since.
    pub since: Option<Reading>,
}

impl Polled {
    /// How its number of VMAs changed.
    pub fn vmas_delta(&self) -> Option<i64> {
        let before = self.since?.vmas()?;
        Some(self.reading.vmas()?.cast_signed() - before.cast_signed())
    }

    /// How the bytes of all its mappings changed.
    pub fn total_delta_bytes(&self) -> Option<i64> {
        let before = self.since?.total_bytes;
        Some(self.reading.total_bytes.wrapping_sub(before).cast_signed())
    }

    /// Time between the two readings that are compared, ns.
    pub fn span_ns(&self) -> Option<u64> {
        Some(self.reading.boot_ns.saturating_sub(self.since?.boot_ns))
    }

    /// How old the last reading was at a moment, ns.
    pub const fn age_ns(&self, boot_ns: u64) -> u64 {
        boot_ns.saturating_sub(self.reading.boot_ns)
    }
}

/// What several processes have together, of which those that are alive count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many they are.
    pub processes: u64,
    /// Of these, those whose maps may not be read, so that only their bytes are known.
    pub unread: u64,
    /// What is mapped.
    pub tally: Tally,
    /// VMAs of the one that has most: it is the one near its limit.
    pub vmas_of_largest: u64,
    /// Sum of the changes that are known.
    pub vmas_delta: i64,
    /// Bytes of all mappings.
    pub total_bytes: u64,
    /// Sum of the changes that are known, bytes.
    pub total_delta_bytes: i64,
}

impl Sum {
    fn add(&mut self, process: &Polled) {
        if !process.alive {
            return;
        }
        self.processes += 1;
        self.unread += u64::from(process.reading.tally.is_none());
        self.tally
            .add_all(&process.reading.tally.unwrap_or_default());
        let vmas = process.reading.vmas().unwrap_or(0);
        self.vmas_of_largest = self.vmas_of_largest.max(vmas);
        self.vmas_delta += process.vmas_delta().unwrap_or(0);
        self.total_bytes += process.reading.total_bytes;
        self.total_delta_bytes += process.total_delta_bytes().unwrap_or(0);
    }

    pub(super) fn add_sum(&mut self, other: &Self) {
        self.processes += other.processes;
        self.unread += other.unread;
        self.tally.add_all(&other.tally);
        self.vmas_of_largest = self.vmas_of_largest.max(other.vmas_of_largest);
        self.vmas_delta += other.vmas_delta;
        self.total_bytes += other.total_bytes;
        self.total_delta_bytes += other.total_delta_bytes;
    }

    /// Number of VMAs.
    pub fn vmas(&self) -> u64 {
        self.tally.total().vmas
    }
}

/// The groups of a [`Poll`].
#[derive(Clone, Debug)]
pub struct Groups {
    /// By what.
    pub by: By,
    /// Those whose number of VMAs changed most first, then by VMAs.
    pub rows: Vec<Group>,
}

/// Processes that belong together.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they have in common; `None` for those that have nothing of the sort.
    pub name: Option<String>,
    /// Of a group by container or pod: the container, or one of the pod's.
    pub container: Option<Container>,
    /// What they have together.
    pub sum: Sum,
}

impl Poll {
    /// Of these processes, in any order.
    pub(crate) fn new(processes: Vec<Polled>) -> Self {
        let mut all = Sum::default();
        processes.iter().for_each(|process| all.add(process));
        let alive = processes.iter().filter(|process| process.alive);
        Self {
            oldest_boot_ns: alive.map(|process| process.reading.boot_ns).min(),
            processes,
            all,
            ..Self::default()
        }
    }

    /// Puts first what changed most, and sums all but `rows` processes up.
    pub(crate) fn ranked(mut self, rows: usize) -> Self {
        self.processes.sort_by_cached_key(|process| {
            let changed = process.vmas_delta().map_or(0, i64::unsigned_abs);
            let size = (process.reading.vmas(), process.reading.total_bytes);
            (Reverse((changed, size)), process.pid, process.start_ticks)
        });
        for process in self.processes.drain(rows.min(self.processes.len())..) {
            self.other.add(&process);
        }
        self
    }

    /// Puts the processes into groups, and sums all but `rows` of them up.
    pub(crate) fn grouped(
        mut self,
        by: By,
        rows: usize,
        mut user: impl FnMut(u32) -> String,
    ) -> Self {
        let mut groups: BTreeMap<Option<String>, (Option<Container>, Sum)> = BTreeMap::new();
        for process in self.processes.drain(..).filter(|process| process.alive) {
            let member = Member {
                pid: process.pid,
                comm: process.comm,
                uid: process.uid,
                program: process.program.as_deref(),
                who: Some(&process.who),
            };
            let name = by.of(&member, &mut user);
            let (known, sum) = groups.entry(name).or_default();
            if let Some(container) = by.container(Some(&process.who)) {
                Container::stand_for(known, container);
            }
            sum.add(&process);
        }
        let mut shown: Vec<_> = groups
            .into_iter()
            .map(|(name, (container, sum))| Group {
                name,
                container,
                sum,
            })
            .collect();
        shown.sort_by_key(|Group { sum, .. }| Reverse((sum.vmas_delta.unsigned_abs(), sum.vmas())));
        for group in shown.drain(rows.min(shown.len())..) {
            self.other.add_sum(&group.sum);
        }
        self.groups = Some(Groups { by, rows: shown });
        self
    }
}

//! What each process did to its address space, in the last interval and since
//! the start, and how close it is to its limit.
//!
//! Nothing here reads a clock or a file: what the kernel keeps and the time
//! come in, a [`Report`] goes out.

mod groups;
mod sums;
mod trend;

use std::{cmp::Reverse, mem, sync::Arc};

use mmwatch_common::{identity::Identity, space::Listed};
use rustc_hash::{FxHashMap, FxHashSet};

pub(crate) use self::groups::Member;
use self::trend::Trend;
pub use self::{
    groups::{By, Group, Groups},
    sums::{BackingSums, OpSums, ProcessKey, ProcessSums, Sums, add_event},
    trend::Slope,
};
use crate::{event::Comm, identity::Who};

/// Processes that ended and were not reported yet, at most. A process that
/// finds no room adds to [`Report::other`].
const MAX_ENDED: usize = 8192;

/// What of page faults is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Whether it is known which pages were there when they were touched.
    pub touched: bool,
}

/// All processes.
#[derive(Debug)]
pub struct Churn {
    faults: Option<Faults>,
    page_bytes: u64,
    processes: FxHashMap<ProcessKey, Process>,
    /// Processes that found no room in the kernel's table.
    roomless: Counted,
    /// Totals of processes that are no longer in `processes`.
    retired: Sums,
    started_boot_ns: u64,
    ticked_boot_ns: u64,
}

#[derive(Debug)]
struct Process {
    comm: Comm,
    /// Its name at its first record or its last exec, by the kernel's sums.
    exec_comm: Option<Comm>,
    uid: u32,
    /// Whose it is, by the list while it is alive.
    identity: Identity,
    /// The same by the kernel's sums.
    exec_identity: Identity,
    /// The last that was seen of its address space.
    space: Option<Seen>,
    trend: Trend,
    alive: bool,
    /// It ended, and its sums were looked at since: they are final.
    settled: bool,
    /// Boxed, because most processes do nothing.
    counted: Option<Box<Counted>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    vmas: u32,
    vmas_peak: u32,
    total_bytes: u64,
}

/// Sums as the kernel last told, and what of them is new in this interval.
#[derive(Clone, Debug, Default)]
struct Counted {
    total: Sums,
    interval: Sums,
}

impl Counted {
    /// Takes what the kernel says now. Returns whether it is more than before.
    fn update(&mut self, now: &Sums) -> bool {
        let new = now.since(&self.total);
        self.interval += &new;
        self.total = *now;
        new != Sums::default()
    }

    fn end_interval(&mut self) -> Row {
        Row {
            interval: mem::take(&mut self.interval),
            total: self.total,
        }
    }
}

impl Process {
    fn new(comm: Comm, uid: u32) -> Self {
        Self {
            comm,
            exec_comm: None,
            uid,
            identity: Identity::default(),
            exec_identity: Identity::default(),
            space: None,
            trend: Trend::default(),
            alive: true,
            settled: false,
            counted: None,
        }
    }

    fn done(&self) -> u64 {
        let counted = self.counted.as_ref();
        counted.map_or(0, |counted| counted.interval.all_ops().count)
    }

    fn vmas(&self) -> Option<u32> {
        self.space.filter(|_| self.alive).map(|space| space.vmas)
    }
}

/// What one tick found. Values of `interval` are since the tick before.
#[derive(Clone, Debug)]
pub struct Report {
    /// When it was made, ns of the boot clock.
    pub boot_ns: u64,
    /// Length of the interval, ns.
    pub interval_ns: u64,
    /// Time since the start, ns.
    pub elapsed_ns: u64,
    /// `vm.max_map_count`.
    pub max_map_count: u32,
    /// What of page faults is in the sums, if they are counted.
    pub faults: Option<Faults>,
    /// Those that did most in the interval first, then by VMAs.
    pub processes: Vec<ProcessReport>,
    /// In their place, where that was asked for: see [`Report::grouped`].
    pub groups: Option<Groups>,
    /// All others, the sums of the dead that were shown among them.
    pub other: Row,
    /// The sum of `processes` and `other`.
    pub all: Row,
}

/// One process of a [`Report`].
#[derive(Clone, Debug)]
pub struct ProcessReport {
    /// Which.
    pub key: ProcessKey,
    /// Its name.
    pub comm: Comm,
    /// Its real user id.
    pub uid: u32,
    /// Whose it is, as the kernel tells it.
    pub identity: Identity,
    /// The same in words; filled in by who can look it up.
    pub who: Option<Arc<Who>>,
    /// The path of its program; filled in where that is asked for.
    pub program: Option<Arc<str>>,
    /// Whether it had an address space at the end of the interval.
    pub alive: bool,
    /// VMAs now; `None` until the kernel told, and once it ended.
    pub vmas: Option<u32>,
    /// Most VMAs that it was seen to have.
    pub vmas_peak: Option<u32>,
    /// How its VMAs change.
    pub slope: Option<Slope>,
    /// Bytes of all its mappings now; `None` as for `vmas`.
    pub total_bytes: Option<u64>,
    /// Its sums. Shared, because most processes do nothing, and reports are kept.
    pub row: Arc<Row>,
}

impl ProcessReport {
    /// Time until the process has `limit` VMAs if it goes on like this, ns;
    /// `None` when it does not grow.
    pub fn time_to_limit_ns(&self, limit: u32) -> Option<u64> {
        let left = limit.saturating_sub(self.vmas?);
        self.slope?.time_for_ns(left)
    }
}

impl Report {
    /// Leaves the first `rows` processes; all others go into [`Report::other`].
    #[must_use]
    pub fn cut(mut self, rows: usize) -> Self {
        for process in self.processes.drain(rows.min(self.processes.len())..) {
            self.other.add(&process.row);
        }
        self
    }
}

/// Sums of the interval and since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Since the tick before.
    pub interval: Sums,
    /// Since the start.
    pub total: Sums,
}

impl Row {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.interval += &other.interval;
        self.total += &other.total;
    }
}

impl Churn {
    /// Nothing yet; `now_boot_ns` starts the first interval.
    pub fn new(now_boot_ns: u64, page_bytes: u64) -> Self {
        Self {
            faults: None,
            page_bytes,
            processes: FxHashMap::default(),
            roomless: Counted::default(),
            retired: Sums::default(),
            started_boot_ns: now_boot_ns,
            ticked_boot_ns: now_boot_ns,
        }
    }

    /// The same, of a kernel that counts page faults.
    #[must_use]
    pub fn with_faults(self, faults: Option<Faults>) -> Self {
        Self { faults, ..self }
    }

    /// Takes what the kernel keeps: its sums, then, read after them, its list
    /// of processes. Returns the processes whose sums are final and may be
    /// forgotten there.
    pub fn update(
        &mut self,
        now_boot_ns: u64,
        sums: &[(ProcessKey, ProcessSums)],
        listed: &[Listed],
    ) -> Vec<ProcessKey> {
        let alive: FxHashSet<_> = listed
            .iter()
            .map(|row| ProcessKey::new(row.tgid, row.start_boot_ns))
            .collect();
        let mut grown = FxHashSet::default();
        for (key, now) in sums {
            if *key == ProcessKey::OTHER {
                self.roomless.update(&now.sums);
                continue;
            }
            let process = self
                .processes
                .entry(*key)
                .or_insert_with(|| Process::new(Comm::new(now.comm), now.uid));
            // While it is alive, the list knows better, but for a program that
            // it became since.
            let comm = Comm::new(now.comm);
            if process.exec_comm != Some(comm) {
                process.exec_comm = Some(comm);
                process.comm = comm;
                process.uid = now.uid;
            }
            if process.exec_identity != now.identity {
                process.exec_identity = now.identity;
                process.identity = now.identity;
            }
            if process.counted.get_or_insert_default().update(&now.sums) {
                grown.insert(*key);
            }
        }
        for row in listed {
            let key = ProcessKey::new(row.tgid, row.start_boot_ns);
            let comm = Comm::new(row.comm);
            let process = self
                .processes
                .entry(key)
                .or_insert_with(|| Process::new(comm, row.uid));
            process.comm = comm;
            process.uid = row.uid;
            process.identity = row.identity;
            process.trend.note(now_boot_ns, row.vmas);
            let peak = process.space.map_or(0, |space| space.vmas_peak);
            process.space = Some(Seen {
                vmas: row.vmas,
                vmas_peak: row.vmas_peak.max(row.vmas).max(peak),
                total_bytes: row.pages.saturating_mul(self.page_bytes),
            });
        }

        // A process may end between the two readings: its sums are final only
        // when it was gone before they were read.
        let mut final_sums = Vec::new();
        for (key, process) in &mut self.processes {
            let gone = !alive.contains(key);
            if gone && !process.alive && !process.settled && !grown.contains(key) {
                process.settled = true;
                if process.counted.is_some() {
                    final_sums.push(*key);
                }
            }
            process.alive = !gone;
        }
        self.make_room();
        final_sums
    }

    /// Keeps the number of processes that ended within bounds.
    fn make_room(&mut self) {
        let ended = |process: &Process| !process.alive && process.settled;
        let count = self.processes.values().filter(|p| ended(p)).count();
        if count <= MAX_ENDED {
            return;
        }
        let Self {
            processes,
            roomless,
            retired,
            ..
        } = self;
        processes.retain(|_, process| {
            if let Some(counted) = process.counted.as_ref().filter(|_| ended(process)) {
                roomless.interval += &counted.interval;
                *retired += &counted.total;
            }
            !ended(process)
        });
    }

    /// Ends the interval and reports the `rows` processes that did most, or
    /// have most VMAs. The dead are in a report for the last time once their
    /// sums are final; from then on they are part of [`Report::other`].
    pub fn tick(&mut self, now_boot_ns: u64, max_map_count: u32, rows: usize) -> Report {
        let mut order: Vec<_> = self
            .processes
            .iter()
            .map(|(key, process)| (Reverse((process.done(), process.vmas())), *key))
            .collect();
        if let Some(last) = rows.checked_sub(1).filter(|last| *last < order.len()) {
            order.select_nth_unstable(last);
        }
        let shown = rows.min(order.len());
        order[..shown].sort_unstable();

        let mut other = self.roomless.end_interval();
        other.total += &self.retired;
        let mut all = other.clone();
        let idle = Arc::new(Row::default());
        let mut processes = Vec::with_capacity(shown);
        for (place, (_, key)) in order.iter().enumerate() {
            let Some(process) = self.processes.get_mut(key) else {
                continue;
            };
            let counted = process.counted.as_mut();
            if place >= shown {
                if let Some(row) = counted.map(|counted| counted.end_interval()) {
                    other.add(&row);
                    all.add(&row);
                }
                continue;
            }
            let row = counted.map_or_else(
                || idle.clone(),
                |counted| {
                    let row = counted.end_interval();
                    all.add(&row);
                    Arc::new(row)
                },
            );
            processes.push(ProcessReport {
                key: *key,
                comm: process.comm,
                uid: process.uid,
                identity: process.identity,
                who: None,
                program: None,
                alive: process.alive,
                vmas: process.vmas(),
                vmas_peak: process.space.map(|space| space.vmas_peak),
                slope: process.trend.slope().filter(|_| process.alive),
                total_bytes: process
                    .space
                    .filter(|_| process.alive)
                    .map(|space| space.total_bytes),
                row,
            });
        }
        let retired = &mut self.retired;
        self.processes.retain(|_, process| {
            let over = !process.alive && process.settled;
            if let Some(counted) = process.counted.as_ref().filter(|_| over) {
                *retired += &counted.total;
            }
            !over
        });
        Report {
            boot_ns: now_boot_ns,
            interval_ns: now_boot_ns
                .saturating_sub(mem::replace(&mut self.ticked_boot_ns, now_boot_ns)),
            elapsed_ns: now_boot_ns.saturating_sub(self.started_boot_ns),
            max_map_count,
            faults: self.faults,
            processes,
            groups: None,
            other,
            all,
        }
    }
}

#[cfg(test)]
mod tests;

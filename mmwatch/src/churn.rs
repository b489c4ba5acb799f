//! Per-process sums: what each process did to its address space, in the last
//! interval and since the start.
//!
//! Nothing here reads a clock or a file: events and times come in, a [`Report`]
//! goes out.

mod sums;

use std::{cmp::Reverse, mem};

use rustc_hash::FxHashMap;

pub use mmwatch_common::sums::ProcessKey;

use self::sums::add_event;
pub use self::sums::{BackingSums, OpSums, Sums};
use crate::event::{Comm, Event};

/// Processes with sums of their own at most; about 1.2 KiB each.
///
/// A process that finds no room adds to [`Report::other`] until a tick made
/// room by moving processes that did nothing in the interval there.
pub const MAX_PROCESSES: usize = 8192;

/// The sums of all processes.
#[derive(Debug)]
pub struct Churn {
    capacity: usize,
    processes: FxHashMap<ProcessKey, Process>,
    /// Processes without sums of their own.
    other: Process,
    started_boot_ns: u64,
    ticked_boot_ns: u64,
}

#[derive(Debug)]
struct Process {
    comm: Comm,
    uid: u32,
    vmas: Option<u32>,
    total_bytes: Option<u64>,
    alive: bool,
    interval: Sums,
    total: Sums,
}

impl Process {
    fn nameless() -> Self {
        Self {
            comm: Comm::new([0; 16]),
            uid: 0,
            vmas: None,
            total_bytes: None,
            alive: true,
            interval: Sums::default(),
            total: Sums::default(),
        }
    }

    fn apply(&mut self, event: &Event) {
        add_event(&mut self.interval, event);
        // A thread may have a name of its own; the first thread's is the process's.
        if event.actor.tid == event.actor.tgid || self.comm.as_bytes().is_empty() {
            self.comm = event.actor.comm;
        }
        self.uid = event.actor.uid;
        if event.ends_process() {
            self.alive = false;
            self.vmas = Some(0);
            self.total_bytes = Some(0);
        } else if !event.is_replaced_space() {
            self.vmas = event.space.vmas.or(self.vmas);
            self.total_bytes = event.space.total_bytes.or(self.total_bytes);
        }
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
    /// The processes, in no order.
    pub processes: Vec<ProcessReport>,
    /// Those that found no room, or were idle when room was needed, or are
    /// dead and were shown.
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
    /// Whether it had an address space at the end of the interval.
    pub alive: bool,
    /// VMAs now; `None` until the kernel told.
    pub vmas: Option<u32>,
    /// Bytes of all its mappings now; `None` until the kernel told.
    pub total_bytes: Option<u64>,
    /// Its sums.
    pub row: Row,
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

impl Report {
    /// Puts the processes that did most in the interval first, and adds those
    /// beyond `rows` to `other`.
    pub fn rank(&mut self, rows: usize) {
        self.processes.sort_by_cached_key(|process| {
            let done = process.row.interval.all_ops().count;
            (Reverse(done), Reverse(process.vmas), process.key)
        });
        for process in self.processes.drain(rows.min(self.processes.len())..) {
            self.other.add(&process.row);
        }
    }
}

impl Churn {
    /// Nothing yet; `now_boot_ns` starts the first interval.
    pub fn new(now_boot_ns: u64) -> Self {
        Self::with_capacity(now_boot_ns, MAX_PROCESSES)
    }

    fn with_capacity(now_boot_ns: u64, capacity: usize) -> Self {
        Self {
            capacity,
            processes: FxHashMap::default(),
            other: Process::nameless(),
            started_boot_ns: now_boot_ns,
            ticked_boot_ns: now_boot_ns,
        }
    }

    /// Adds an event to its process's sums.
    pub fn apply(&mut self, event: &Event) {
        let key = ProcessKey::new(event.actor.tgid, event.actor.start_boot_ns);
        if let Some(process) = self.processes.get_mut(&key) {
            process.apply(event);
        } else if self.processes.len() < self.capacity {
            self.processes
                .entry(key)
                .or_insert_with(Process::nameless)
                .apply(event);
        } else {
            add_event(&mut self.other.interval, event);
        }
    }

    /// Ends the interval. The dead are in the report for the last time; their
    /// sums go on in [`Report::other`].
    pub fn tick(&mut self, now_boot_ns: u64, max_map_count: u32) -> Report {
        let mut all = Row::default();
        let full = self.processes.len() >= self.capacity;
        let mut processes = Vec::with_capacity(self.processes.len());
        let mut retired = Sums::default();
        self.processes.retain(|&key, process| {
            let row = end_interval(process);
            all.add(&row);
            let idle = row.interval == Sums::default();
            let stays = process.alive && !(full && idle);
            if !stays {
                retired += &process.total;
            }
            processes.push(ProcessReport {
                key,
                comm: process.comm,
                uid: process.uid,
                alive: process.alive,
                vmas: process.vmas,
                total_bytes: process.total_bytes,
                row,
            });
            stays
        });
        let other = end_interval(&mut self.other);
        all.add(&other);
        // From the next report on.
        self.other.total += &retired;
        Report {
            boot_ns: now_boot_ns,
            interval_ns: now_boot_ns
                .saturating_sub(mem::replace(&mut self.ticked_boot_ns, now_boot_ns)),
            elapsed_ns: now_boot_ns.saturating_sub(self.started_boot_ns),
            max_map_count,
            processes,
            other,
            all,
        }
    }
}

fn end_interval(process: &mut Process) -> Row {
    let interval = mem::replace(&mut process.interval, Sums::default());
    process.total += &interval;
    Row {
        interval,
        total: process.total,
    }
}

#[cfg(test)]
mod tests;

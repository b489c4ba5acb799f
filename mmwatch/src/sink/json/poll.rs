//! What polling saw, one line a report; `docs/proc.md` is the reference.

use std::io::{self, Write};

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::{
    SCHEMA, as_text, lossy,
    report::{KnownFields, WhoFields},
    write_line,
};
use crate::{
    churn::By,
    clock::{WallClock, WallTime},
    event::Backing,
    poll::{Amount, Group, Poll, Polled, Sum, Tally},
};

/// Writes a report as a line.
///
/// # Errors
///
/// What `to` says.
pub fn write(to: &mut impl Write, clock: WallClock, poll: &Poll) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(4096);
    write_line(&mut buffer, &PollLine::new(clock, poll))?;
    to.write_all(&buffer)?;
    to.flush()
}

#[derive(Serialize)]
struct PollLine<'a> {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(serialize_with = "as_text")]
    time: WallTime,
    boot_ns: u64,
    interval_ns: u64,
    elapsed_ns: u64,
    max_map_count: u32,
    read_processes: u64,
    new_processes: u64,
    ended_processes: u64,
    unread_processes: u64,
    hidden_processes: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_age_ns: Option<u64>,
    processes: Vec<ProcessFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupFields<'a>>>,
    other: SumFields<'a>,
    all: SumFields<'a>,
}

#[derive(Serialize)]
struct ProcessFields<'a> {
    pid: u32,
    start_ticks: u64,
    #[serde(serialize_with = "lossy")]
    comm: &'a [u8],
    uid: u32,
    #[serde(flatten)]
    who: WhoFields<'a>,
    alive: bool,
    age_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    changing: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vmas: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vmas_peak: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vmas_delta: Option<i64>,
    total_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_delta_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta_span_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backings: Option<Backings<'a>>,
}

#[derive(Serialize)]
struct GroupFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(flatten)]
    known: KnownFields<'a>,
    #[serde(flatten)]
    sum: SumFields<'a>,
}

#[derive(Serialize)]
struct SumFields<'a> {
    processes: u64,
    vmas: u64,
    vmas_of_largest: u64,
    vmas_delta: i64,
    total_bytes: u64,
    total_delta_bytes: i64,
    backings: Backings<'a>,
}

/// Backings that there are any mappings of.
struct Backings<'a>(&'a Tally);

#[derive(Serialize)]
struct AmountFields {
    vmas: u64,
    bytes: u64,
}

impl<'a> PollLine<'a> {
    fn new(clock: WallClock, poll: &'a Poll) -> Self {
        let counts = &poll.counts;
        let oldest = poll.oldest_boot_ns;
        Self {
            schema: SCHEMA,
            kind: "poll",
            time: clock.at(poll.boot_ns),
            boot_ns: poll.boot_ns,
            interval_ns: poll.interval_ns,
            elapsed_ns: poll.elapsed_ns,
            max_map_count: poll.max_map_count,
            read_processes: counts.read,
            new_processes: counts.new,
            ended_processes: counts.ended,
            unread_processes: poll.all.unread + counts.closed,
            hidden_processes: counts.hides,
            oldest_age_ns: oldest.map(|oldest| poll.boot_ns.saturating_sub(oldest)),
            processes: poll
                .processes
                .iter()
                .map(|process| ProcessFields::new(process, poll.boot_ns))
                .collect(),
            by: poll.groups.as_ref().map(|groups| groups.by.name()),
            groups: poll.groups.as_ref().map(|groups| {
                let fields = |group| GroupFields::new(groups.by, group);
                groups.rows.iter().map(fields).collect()
            }),
            other: SumFields::new(&poll.other),
            all: SumFields::new(&poll.all),
        }
    }
}

impl<'a> ProcessFields<'a> {
    fn new(process: &'a Polled, now_boot_ns: u64) -> Self {
        let reading = &process.reading;
        Self {
            pid: process.pid,
            start_ticks: process.start_ticks,
            comm: process.comm.as_bytes(),
            uid: process.uid,
            who: WhoFields::new(&process.who),
            alive: process.alive,
            age_ns: process.age_ns(now_boot_ns),
            changing: reading.changing.then_some(true),
            vmas: reading.vmas(),
            vmas_peak: process.vmas_peak,
            vmas_delta: process.vmas_delta(),
            total_bytes: reading.total_bytes,
            total_delta_bytes: process.total_delta_bytes(),
            delta_span_ns: process.span_ns(),
            backings: reading.tally.as_ref().map(Backings),
        }
    }
}

impl<'a> GroupFields<'a> {
    fn new(by: By, group: &'a Group) -> Self {
        Self {
            name: group.name.as_deref(),
            known: KnownFields::new(by, group.container.as_ref()),
            sum: SumFields::new(&group.sum),
        }
    }
}

impl<'a> SumFields<'a> {
    fn new(sum: &'a Sum) -> Self {
        Self {
            processes: sum.processes,
            vmas: sum.vmas(),
            vmas_of_largest: sum.vmas_of_largest,
            vmas_delta: sum.vmas_delta,
            total_bytes: sum.total_bytes,
            total_delta_bytes: sum.total_delta_bytes,
            backings: Backings(&sum.tally),
        }
    }
}

impl Serialize for Backings<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for &backing in Backing::ALL {
            let Amount { vmas, bytes } = self.0.of(backing);
            if vmas > 0 {
                map.serialize_entry(backing.name(), &AmountFields { vmas, bytes })?;
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests;

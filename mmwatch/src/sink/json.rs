//! JSON: one object a line. `docs/events.md` is the reference,
//! `docs/event.schema.json` the schema.

mod line;
pub mod maps;
pub mod poll;
pub mod recording;
mod report;
pub mod shared;
mod verdict;

use std::{
    fmt,
    io::{self, Write},
};

use serde::{Serialize, Serializer};

pub use self::line::write_line;
use super::{Output, Sink};
use crate::{
    churn::{ProcessReport, Report},
    clock::WallClock,
    event::{Cause, Event, FileRef, Suspects, What},
    explain::Reason,
    flags::{Errno, MapFlags, Name, RemapFlags, advice_name},
    ledger::{Ledger, LedgerJson, SinkCounters},
    maps::AddressSpace,
    verify::Round,
};

/// Version of the fields; additions keep it.
pub const SCHEMA: u32 = 1;

/// Writes events, reports and the ledger.
#[derive(Debug)]
pub struct Json<W> {
    output: Output<W>,
    clock: WallClock,
}

impl<W: Write> Json<W> {
    /// A sink that writes to `to`.
    pub fn new(to: W, clock: WallClock) -> Self {
        Self {
            output: Output::new(to),
            clock,
        }
    }
}

impl<W: Write> Sink for Json<W> {
    fn event(&mut self, seq: u64, event: &Event) -> io::Result<()> {
        let line = EventLine::new(seq, self.clock, event);
        self.output.event(|buffer| write_line(buffer, &line))
    }

    fn report(&mut self, report: &Report, ledger: &Ledger) -> io::Result<()> {
        let line = report::ReportLine::new(self.clock, report, ledger);
        self.output.lines(|buffer| write_line(buffer, &line))
    }

    fn round(&mut self, round: &Round, ledger: &Ledger) -> io::Result<()> {
        let line = verdict::VerdictLine::new(self.clock, round, ledger);
        self.output.lines(|buffer| write_line(buffer, &line))
    }

    fn space(&mut self, space: &AddressSpace<'_>) -> io::Result<()> {
        let line = maps::SpaceLine::new(space);
        self.output.lines(|buffer| write_line(buffer, &line))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }

    fn finish(&mut self, ledger: &Ledger) -> io::Result<()> {
        let line = LedgerLine {
            schema: SCHEMA,
            kind: "ledger",
            ledger: ledger.to_json(),
        };
        self.output.lines(|buffer| write_line(buffer, &line))?;
        self.output.flush()
    }

    fn counters(&self) -> SinkCounters {
        self.output.counters("json")
    }
}

/// Writes a report as a line.
///
/// # Errors
///
/// What serializing says.
pub fn write_report(
    to: &mut Vec<u8>,
    clock: WallClock,
    report: &Report,
    ledger: &Ledger,
) -> io::Result<()> {
    write_line(to, &report::ReportLine::new(clock, report, ledger))
}

/// Writes an event as a line; `seq` as for [`Sink::event`].
///
/// # Errors
///
/// What serializing says.
pub fn write_event(to: &mut Vec<u8>, clock: WallClock, seq: u64, event: &Event) -> io::Result<()> {
    write_line(to, &EventLine::new(seq, clock, event))
}

/// Writes one process of a report as a line.
///
/// # Errors
///
/// What serializing says.
pub fn write_process(
    to: &mut Vec<u8>,
    clock: WallClock,
    report: &Report,
    process: &ProcessReport,
) -> io::Result<()> {
    write_line(to, &report::ProcessLine::new(clock, report, process))
}

#[derive(Serialize)]
struct LedgerLine<'a> {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    ledger: LedgerJson<'a>,
}

/// An event. Fields that are not known are left out.
#[derive(Serialize)]
struct EventLine<'a> {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    section: Option<u64>,
    #[serde(serialize_with = "as_text")]
    time: crate::clock::WallTime,
    boot_ns: u64,
    op: &'static str,
    cause: &'static str,
    pid: u32,
    tid: u32,
    #[serde(serialize_with = "lossy")]
    comm: &'a [u8],
    uid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ns_pid: Option<u32>,
    start_boot_ns: u64,
    cgroup_id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<Errno>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno_reason: Option<&'static str>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "known_as_text"
    )]
    errno_text: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreturned: Option<bool>,
    #[serde(skip_serializing_if = "no_suspects", serialize_with = "names")]
    suspects: Suspects,
    #[serde(skip_serializing_if = "Option::is_none")]
    addr: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    len_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_len_bytes: Option<u64>,
    #[serde(flatten)]
    what: WhatFields<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vmas: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vmas_delta: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vmas_made: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vmas_merged: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_delta_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ns: Option<u64>,
}

/// What only some operations have.
#[derive(Default, Serialize)]
struct WhatFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    prot: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_prot: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prot_flags: Vec<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<Flags>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backing: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<FileFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vmas_removed: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_addr: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_len_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_addr: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<Advice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    child_pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    child_start_boot_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shared_mm: Option<bool>,
}

#[derive(Serialize)]
struct FileFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(serialize_with = "as_text")]
    dev: crate::event::Dev,
    inode: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset_bytes: Option<u64>,
}

impl<'a> EventLine<'a> {
    fn new(seq: u64, clock: WallClock, event: &'a Event) -> Self {
        let range = event.range();
        let Event {
            boot_ns,
            cause,
            errno,
            suspects,
            reason,
            unreturned,
            more: _,
            rlimit_as_bytes: _,
            actor,
            who,
            space,
            what: _,
        } = event;
        let container = who.as_ref().and_then(|who| who.container());
        let names = container.map(|container| &container.names);
        let (vmas_made, vmas_merged) = space.vmas_made_and_merged().unzip();
        Self {
            schema: SCHEMA,
            kind: "event",
            seq,
            section: space.section.map(Into::into),
            time: clock.at(*boot_ns),
            boot_ns: *boot_ns,
            op: event.op().name(),
            cause: cause.name(),
            pid: actor.tgid,
            tid: actor.tid,
            comm: actor.comm.as_bytes(),
            uid: actor.uid,
            owner_pid: (actor.owner_tgid != actor.tgid).then_some(actor.owner_tgid),
            ns_pid: who.as_ref().and_then(|who| who.namespace_pid),
            start_boot_ns: actor.start_boot_ns,
            cgroup_id: actor.cgroup_id,
            container: container.map(|container| container.id.as_str()),
            container_name: names.and_then(|names| names.name.as_deref()),
            pod_name: names.and_then(|names| names.pod.as_deref()),
            pod_namespace: names.and_then(|names| names.pod_namespace.as_deref()),
            errno: *errno,
            errno_reason: reason.as_ref().map(Reason::name),
            errno_text: *reason,
            unreturned: unreturned.then_some(true),
            suspects: *suspects,
            addr: range.addr.map(Hex),
            len_bytes: range.len_bytes,
            requested_len_bytes: range.requested_len_bytes,
            what: WhatFields::new(event),
            vmas: space.vmas,
            total_bytes: space.total_bytes,
            settled: space.vmas.map(|_| space.settled),
            vmas_delta: space.vmas_delta,
            vmas_made,
            vmas_merged: vmas_merged.filter(|merged| *merged > 0),
            total_delta_bytes: space.total_delta_bytes,
            duration_ns: space.held_ns,
        }
    }
}

impl<'a> WhatFields<'a> {
    fn new(event: &'a Event) -> Self {
        let fields = Self {
            backing: event.backing().map(|backing| backing.name()),
            ..Self::default()
        };
        match &event.what {
            What::Map(map) => Self {
                prot: map.prot.map(|prot| prot.letters()),
                // Empty, hence without allocation, but for rare bits.
                prot_flags: map
                    .prot
                    .map_or_else(Vec::new, |prot| prot.others().collect()),
                flags: map.flags.map(Flags::Map),
                file: map
                    .file
                    .as_ref()
                    .map(|(file, offset)| FileFields::new(file, Some(*offset))),
                ..fields
            },
            What::Unmap(unmap) => Self {
                vmas_removed: unmap.vmas_removed,
                ..fields
            },
            What::Protect(protect) => Self {
                prot: protect.prot.map(|prot| prot.letters()),
                prot_flags: protect
                    .prot
                    .map_or_else(Vec::new, |prot| prot.others().collect()),
                old_prot: protect.old_prot.map(|prot| prot.letters()),
                ..fields
            },
            What::Remap(remap) => Self {
                flags: remap.flags.map(Flags::Remap),
                old_addr: remap.old_addr.map(Hex),
                old_len_bytes: remap.old_len_bytes,
                ..fields
            },
            What::Brk(brk) => Self {
                requested_addr: brk.requested_addr.map(Hex),
                ..fields
            },
            What::Grow(_) => fields,
            What::Advise(advise) => Self {
                // Other calls put other things into their third argument.
                advice: advise
                    .advice
                    .filter(|_| event.cause == Cause::Madvise)
                    .map(Advice),
                ..fields
            },
            What::Fork(fork) => Self {
                child_pid: Some(fork.child_tgid),
                child_start_boot_ns: Some(fork.child_start_boot_ns),
                shared_mm: Some(fork.shared),
                ..fields
            },
            What::Exec(exec) => Self {
                file: exec.file.as_ref().map(|file| FileFields::new(file, None)),
                ..fields
            },
            What::Exit(exit) => Self {
                vmas_removed: Some(exit.vmas_removed),
                ..fields
            },
        }
    }
}

impl<'a> FileFields<'a> {
    fn new(file: &'a FileRef, offset_bytes: Option<u64>) -> Self {
        Self {
            path: file.path.as_deref(),
            dev: file.dev,
            inode: file.inode,
            offset_bytes,
        }
    }
}

/// An address: JSON's numbers are not exact beyond 53 bits everywhere.
struct Hex(u64);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // By hand, as an event has up to three of them.
        let mut text = [b'0'; 18];
        let mut start = text.len();
        let mut rest = self.0;
        loop {
            start -= 1;
            text[start] = b"0123456789abcdef"[(rest & 0xf) as usize];
            rest >>= 4;
            if rest == 0 {
                break;
            }
        }
        start -= 2;
        text[start + 1] = b'x';
        let text = str::from_utf8(&text[start..]).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(text)
    }
}

enum Flags {
    Map(MapFlags),
    Remap(RemapFlags),
}

impl Serialize for Flags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Map(flags) => serializer.collect_seq(flags.names()),
            Self::Remap(flags) => serializer.collect_seq(flags.names()),
        }
    }
}

struct Advice(u64);

impl Serialize for Advice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match advice_name(self.0) {
            Some(name) => serializer.serialize_str(name),
            None => Hex(self.0).serialize(serializer),
        }
    }
}

fn no_suspects(suspects: &Suspects) -> bool {
    suspects.is_empty()
}

/// Kinds of dangerous mappings by their names.
fn names<S: Serializer>(suspects: &Suspects, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(suspects.iter().map(|suspect| suspect.name()))
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// As [`as_text`], of what is left out where it is not known.
fn known_as_text<S: Serializer>(
    value: &Option<impl fmt::Display>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

/// Bytes that are not UTF-8 become U+FFFD.
fn lossy<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(bytes))
}

#[cfg(test)]
mod tests;

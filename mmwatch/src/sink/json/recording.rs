//! What a recording is, in JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::{SCHEMA, as_text, write_line};
use crate::{
    clock::{WallClock, WallTime},
    recording::{Cause, Ending, Loss, Summary},
};

#[derive(Serialize)]
struct SummaryLine<'a> {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(serialize_with = "as_text")]
    time: WallTime,
    boot_ns: u64,
    #[serde(serialize_with = "as_text")]
    until: WallTime,
    elapsed_ns: u64,
    bytes: u64,
    kernel: &'a str,
    boot_id: &'a str,
    mmwatch: &'a str,
    backend: &'a str,
    command_line: &'a [String],
    part: u64,
    ending: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken_at_byte: Option<u64>,
    losses_count: u64,
    losses: Vec<LossFields>,
}

#[derive(Serialize)]
struct LossFields {
    #[serde(serialize_with = "as_text")]
    from: WallTime,
    #[serde(serialize_with = "as_text")]
    until: WallTime,
    from_boot_ns: u64,
    until_boot_ns: u64,
    events: u64,
    cause: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<i32>,
}

/// Writes one line.
pub fn write_summary(to: &mut impl Write, summary: &Summary) -> io::Result<()> {
    let header = &summary.header;
    let clock = WallClock::with_offset(header.boot_at_unix_ns);
    let line = SummaryLine {
        schema: SCHEMA,
        kind: "recording",
        time: clock.at(header.start_boot_ns),
        boot_ns: header.start_boot_ns,
        until: clock.at(summary.until_boot_ns),
        elapsed_ns: summary.elapsed_ns(),
        bytes: summary.bytes,
        kernel: &header.kernel,
        boot_id: &header.boot_id,
        mmwatch: &header.mmwatch,
        backend: &header.backend,
        command_line: &header.command_line,
        part: header.part,
        ending: summary.ending.name(),
        broken_at_byte: match summary.ending {
            Ending::Broken(broken) => Some(broken.at_byte),
            Ending::On(_) | Ending::Open | Ending::Unread => None,
        },
        losses_count: summary.losses_count,
        losses: summary
            .losses
            .iter()
            .map(|loss| LossFields::new(loss, clock))
            .collect(),
    };
    let mut buffer = Vec::new();
    write_line(&mut buffer, &line)?;
    to.write_all(&buffer)
}

impl LossFields {
    fn new(loss: &Loss, clock: WallClock) -> Self {
        Self {
            from: clock.at(loss.from_boot_ns),
            until: clock.at(loss.until_boot_ns),
            from_boot_ns: loss.from_boot_ns,
            until_boot_ns: loss.until_boot_ns,
            events: loss.events,
            cause: loss.cause.map_or("kernel", |cause| cause.name()),
            errno: match loss.cause {
                Some(Cause::Failed(errno)) => Some(errno),
                Some(Cause::Slow | Cause::Full) | None => None,
            },
        }
    }
}

//! What people look at. Drawing is a pure function of a report and the ledger,
//! of a question about flags, of an address space, of a recording, of who shares
//! memory, or of what polling saw.

pub mod dot;
mod faults;
pub mod flags;
mod groups;
pub mod maps;
pub mod picture;
pub mod poll;
pub mod recording;
pub mod shared;
pub mod stat;
pub mod top;

use std::fmt::{self, Write};

use crate::{
    churn::{ProcessReport, Row, Sums},
    event::Backing,
    text::{Bytes, Rate},
};

/// A count as a part of a limit, with one decimal, never rounded up to it.
struct Percent {
    part: u64,
    limit: u64,
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thousandths = self.part * 1000 / self.limit.max(1);
        f.pad(&format!("{}.{}", thousandths / 10, thousandths % 10))
    }
}

/// A time that may be long, in whole units.
struct Left(u64);

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0 / 1_000_000_000;
        let text = match s {
            0..120 => format!("{s}s"),
            120..7_200 => format!("{}m", s / 60),
            7_200..172_800 => format!("{}h", s / 3_600),
            172_800..86_400_000 => format!("{}d", s / 86_400),
            _ => ">999d".to_owned(),
        };
        f.pad(&text)
    }
}

/// A difference in bytes.
struct Signed(i64);

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { '-' } else { '+' };
        write!(f, "{sign}{}", Bytes(self.0.unsigned_abs()))
    }
}

/// Columns of [`vmas`].
const VMAS_HEADER: &str = "  VMAS   PEAK %LIMIT  VMAS/s  FULL";
const VMAS_WIDTH: usize = VMAS_HEADER.len();

/// How many VMAs a process has and had at most, its share of the limit, its
/// pace, and the time until the limit at that pace.
fn vmas(out: &mut String, process: &ProcessReport, limit: u32) -> fmt::Result {
    let Some(vmas) = process.vmas else {
        let state = if process.alive { "-" } else { "exited" };
        let peak = match process.vmas_peak {
            Some(peak) => peak.to_string(),
            None => "-".to_owned(),
        };
        return write!(
            out,
            "{state:>6} {peak:>6} {:>6} {:>7} {:>5} ",
            "-", "-", "-"
        );
    };
    let percent = Percent {
        part: u64::from(vmas),
        limit: u64::from(limit),
    };
    let peak = process.vmas_peak.unwrap_or(vmas);
    write!(out, "{vmas:>6} {peak:>6} {percent:>6} ")?;
    match process.slope.filter(|slope| slope.vmas_delta != 0) {
        Some(slope) => write!(out, "{:>+7.1} ", slope.vmas_per_s())?,
        None => write!(out, "{:>7} ", "-")?,
    }
    match process.time_to_limit_ns(limit) {
        Some(ns) => write!(out, "{:>5} ", Left(ns)),
        None => write!(out, "{:>5} ", "-"),
    }
}

/// Bytes per second.
fn bytes_rate(bytes: u64, span_ns: u64) -> Bytes {
    Bytes(
        Rate {
            count: bytes,
            span_ns,
        }
        .per_second(),
    )
}

/// Count per second.
fn rate(count: u64, span_ns: u64) -> u64 {
    Rate { count, span_ns }.per_second()
}

/// Mappings by backing, those without any left out.
fn backings(
    out: &mut String,
    sums: &Sums,
    line: impl Fn(&mut String, Backing) -> fmt::Result,
) -> fmt::Result {
    for &backing in Backing::ALL {
        if sums.backing(backing).maps > 0 {
            line(out, backing)?;
        }
    }
    out.write_char('\n')
}

/// Whether anything was done at all, ever.
fn is_empty(row: &Row) -> bool {
    row.total.all_ops().count == 0
}

#[cfg(test)]
mod tests;

//! What people look at. Drawing is a pure function of a report and the ledger.

pub mod stat;
pub mod top;

use std::fmt::{self, Write};

use crate::{
    churn::{Row, Sums},
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

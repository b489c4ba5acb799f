//! Page faults of processes, and how much of what they mapped they touched: the
//! tables that `--faults` adds to a report.

use std::fmt::{self, Write as _};

use super::{bytes_rate, rate};
use crate::{
    churn::{Faults, Report, Row, Sums},
    identity::Who,
    text::{Bytes, Escaped},
};

/// Since the start. Nothing where no faults are counted.
pub(super) fn totals(out: &mut String, report: &Report) -> fmt::Result {
    let Some(told) = report.faults else {
        return Ok(());
    };
    writeln!(
        out,
        "\n{:>7} {:<15} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "PID", "COMM", "MAPPED", "TOUCHED", "UNTOUCHED", "MINOR", "MAJOR"
    )?;
    rows(out, report, |out, row| {
        let sums = &row.total;
        write!(out, "{:>9} ", Bytes(sums.mapped_bytes))?;
        bytes(
            out,
            told,
            [sums.touched_bytes, sums.untouched_bytes()].map(Bytes),
        )?;
        writeln!(out, "{:>9} {:>9}", sums.minor_faults, sums.major_faults)
    })
}

/// In the interval, per second. Nothing where no faults are counted.
pub(super) fn rates(out: &mut String, report: &Report) -> fmt::Result {
    let Some(told) = report.faults else {
        return Ok(());
    };
    let span = report.interval_ns;
    writeln!(
        out,
        "\n{:>7} {:<15} {:>9} {:>9} {:>9} {:>9}",
        "PID", "COMM", "MAPPED/s", "TOUCHED/s", "MINOR/s", "MAJOR/s"
    )?;
    rows(out, report, |out, row| {
        let sums = &row.interval;
        write!(out, "{:>9} ", bytes_rate(sums.mapped_bytes, span))?;
        bytes(out, told, [bytes_rate(sums.touched_bytes, span)])?;
        let [minor, major] = [sums.minor_faults, sums.major_faults].map(|n| rate(n, span));
        writeln!(out, "{minor:>9} {major:>9}")
    })
}

/// A row for each process, for the others if there are any, and for all.
fn rows(
    out: &mut String,
    report: &Report,
    counts: impl Fn(&mut String, &Row) -> fmt::Result,
) -> fmt::Result {
    for process in &report.processes {
        let comm = Escaped(process.comm.as_bytes());
        let pid = Who::shown_pid(process.who.as_deref(), process.key.tgid);
        write!(out, "{pid:>7} {comm:<15} ")?;
        counts(out, &process.row)?;
    }
    for (name, row) in [("other", &report.other), ("all", &report.all)] {
        if row.total != Sums::default() || name == "all" {
            write!(out, "{:>7} {name:<15} ", "")?;
            counts(out, row)?;
        }
    }
    Ok(())
}

/// Columns that are known only where it is told what was touched.
fn bytes<const N: usize>(out: &mut String, told: Faults, of: [Bytes; N]) -> fmt::Result {
    for bytes in of {
        if told.touched {
            write!(out, "{bytes:>9} ")?;
        } else {
            write!(out, "{:>9} ", "-")?;
        }
    }
    Ok(())
}

//! `top`: a table per interval.

use std::fmt::{self, Write as _};

use super::{VMAS_HEADER, backings, bytes_rate, faults, groups, is_empty, rate, vmas};
use crate::{
    churn::{Report, Row},
    clock::WallClock,
    event::Op,
    identity::Who,
    ledger::Ledger,
    text::{Escaped, Nanos},
};

/// The table of a ranked report, with the ledger as its end.
pub fn draw(report: &Report, ledger: &Ledger, clock: WallClock) -> String {
    let mut out = String::with_capacity(4096);
    // Writing to a String cannot fail.
    let _ = tables(&mut out, report, ledger, clock);
    out
}

fn tables(out: &mut String, report: &Report, ledger: &Ledger, clock: WallClock) -> fmt::Result {
    let span = report.interval_ns;
    writeln!(
        out,
        "{}  last {}  limit {} VMAs per process\n",
        clock.at(report.boot_ns).local_time_of_day(),
        Nanos(span),
        report.max_map_count,
    )?;
    let rates_header = format!(
        "{:>7} {:>7} {:>9} {:>9} {:>5}",
        "MAPS/s", "UNMAP/s", "MAPPED/s", "UNMAPPED", "ERRS"
    );
    match &report.groups {
        Some(groups) => groups::header(out, groups, &rates_header)?,
        None => writeln!(
            out,
            "{:>7} {:<15} {VMAS_HEADER} {rates_header}",
            "PID", "COMM"
        )?,
    }
    groups::rows(out, report, |out, row| rates(out, row, span))?;
    for process in &report.processes {
        write!(
            out,
            "{:>7} {:<15} ",
            Who::shown_pid(process.who.as_deref(), process.key.tgid),
            Escaped(process.comm.as_bytes())
        )?;
        vmas(out, process, report.max_map_count)?;
        rates(out, &process.row, span)?;
    }
    for (name, row) in [("other", &report.other), ("all", &report.all)] {
        if !is_empty(row) || name == "all" {
            groups::sum(out, report.groups.as_ref(), name)?;
            rates(out, row, span)?;
        }
    }

    faults::rates(out, report)?;

    let sums = &report.all.interval;
    writeln!(
        out,
        "\n{:<17} {:>8} {:>10}",
        "BACKING", "MAPS/s", "MAPPED/s"
    )?;
    backings(out, sums, |out, backing| {
        let of = sums.backing(backing);
        writeln!(
            out,
            "{:<17} {:>8} {:>10}",
            backing.name(),
            rate(of.maps, span),
            bytes_rate(of.bytes, span)
        )
    })?;

    in_all(out, report)?;
    writeln!(out, "{ledger}")
}

/// What was done since the start, over as many lines as it takes.
fn in_all(out: &mut String, report: &Report) -> fmt::Result {
    const COLUMNS: usize = 100;
    let total = &report.all.total;
    let all = total.all_ops();
    let mut line = format!(
        "in all {}: {} operations, {} failed;",
        Nanos(report.elapsed_ns),
        all.count,
        all.errors
    );
    for &op in Op::ALL {
        let count = total.op(op).count;
        if count == 0 {
            continue;
        }
        let word = format!(" {} {count}", op.name());
        if line.len() + word.len() > COLUMNS {
            writeln!(out, "{line}")?;
            line = " ".repeat("in all".len());
        }
        line.push_str(&word);
    }
    writeln!(out, "{}", line.trim_end_matches(';'))
}

fn rates(out: &mut String, row: &Row, span: u64) -> fmt::Result {
    let sums = &row.interval;
    writeln!(
        out,
        "{:>7} {:>7} {:>9} {:>9} {:>5}",
        rate(sums.op(Op::Map).count, span),
        rate(sums.op(Op::Unmap).count, span),
        bytes_rate(sums.mapped_bytes, span),
        bytes_rate(sums.unmapped_bytes, span),
        sums.all_ops().errors,
    )
}

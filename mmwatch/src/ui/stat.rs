//! `stat`: sums of the whole run.

use std::fmt::{self, Write as _};

use super::{Signed, VMAS_HEADER, backings, faults, groups, is_empty, vmas};
use crate::{
    churn::{OpSums, Report, Row, Sums},
    event::{Op, Suspect},
    identity::Who,
    ledger::Ledger,
    text::{Bytes, Escaped, Nanos},
};

/// The sums of a ranked report, with the ledger as their end. `subject` says
/// of what: `every process`, `'make -j2'`.
pub fn draw(report: &Report, ledger: &Ledger, subject: &str) -> String {
    let mut out = String::with_capacity(4096);
    // Writing to a String cannot fail.
    let _ = tables(&mut out, report, ledger, subject);
    out
}

fn tables(out: &mut String, report: &Report, ledger: &Ledger, subject: &str) -> fmt::Result {
    let sums = &report.all.total;
    writeln!(
        out,
        "\nAddress-space operations of {subject}, {}, limit {} VMAs per process:\n",
        Nanos(report.elapsed_ns),
        report.max_map_count
    )?;
    writeln!(
        out,
        "{:<8} {:>9} {:>8} {:>10} {:>8} {:>11} {:>10} {:>10}",
        "OP", "COUNT", "ERRORS", "BYTES", "VMAS +/-", "BYTES +/-", "HELD", "HELD MEAN"
    )?;
    for &op in Op::ALL {
        if sums.op(op).count > 0 {
            let of = sums.op(op);
            op_line(out, op.name(), of, has_bytes(op).then_some(of.bytes))?;
        }
    }
    // Bytes mapped and bytes unmapped have no sum that means anything.
    op_line(out, "all", &sums.all_ops(), None)?;

    writeln!(out, "\n{:<17} {:>9} {:>10}", "BACKING", "MAPS", "MAPPED")?;
    backings(out, sums, |out, backing| {
        let of = sums.backing(backing);
        writeln!(
            out,
            "{:<17} {:>9} {:>10}",
            backing.name(),
            of.maps,
            Bytes(of.bytes)
        )
    })?;

    suspects(out, sums)?;
    let counts_header = format!(
        "{:>9} {:>9} {:>9} {:>7}",
        "OPS", "MAPPED", "UNMAPPED", "ERRORS"
    );
    match &report.groups {
        Some(groups) => groups::header(out, groups, &counts_header)?,
        None => writeln!(
            out,
            "{:>7} {:<15} {VMAS_HEADER} {counts_header}",
            "PID", "COMM"
        )?,
    }
    groups::rows(out, report, counts)?;
    for process in &report.processes {
        write!(
            out,
            "{:>7} {:<15} ",
            Who::shown_pid(process.who.as_deref(), process.key.tgid),
            Escaped(process.comm.as_bytes())
        )?;
        vmas(out, process, report.max_map_count)?;
        counts(out, &process.row)?;
    }
    for (name, row) in [("other", &report.other), ("all", &report.all)] {
        if !is_empty(row) || name == "all" {
            groups::sum(out, report.groups.as_ref(), name)?;
            counts(out, row)?;
        }
    }
    faults::totals(out, report)?;
    write!(out, "\n{ledger}")
}

/// How often dangerous mappings were made, where any was.
fn suspects(out: &mut String, sums: &Sums) -> fmt::Result {
    let any = Suspect::ALL
        .iter()
        .any(|&suspect| sums.suspect(suspect) > 0);
    if !any {
        return Ok(());
    }
    writeln!(out, "{:<17} {:>9}  MEANING", "SUSPECT", "COUNT")?;
    for &suspect in Suspect::ALL {
        let count = sums.suspect(suspect);
        if count > 0 {
            writeln!(
                out,
                "{:<17} {count:>9}  {}",
                suspect.name(),
                suspect.meaning()
            )?;
        }
    }
    out.write_char('\n')
}

/// Whether what an operation covered is told in bytes.
const fn has_bytes(op: Op) -> bool {
    match op {
        Op::Map | Op::Unmap | Op::Protect | Op::Remap | Op::Brk | Op::Grow | Op::Exit => true,
        Op::Advise | Op::Fork | Op::Exec => false,
    }
}

fn op_line(out: &mut String, name: &str, sums: &OpSums, bytes: Option<u64>) -> fmt::Result {
    write!(out, "{name:<8} {:>9} {:>8} ", sums.count, sums.errors)?;
    match bytes {
        Some(bytes) => write!(out, "{:>10} ", Bytes(bytes))?,
        None => write!(out, "{:>10} ", "-")?,
    }
    write!(
        out,
        "{:>+8} {:>11} ",
        sums.vmas_delta,
        Signed(sums.total_delta_bytes).to_string(),
    )?;
    match sums.held_ns.checked_div(sums.held_count) {
        Some(mean) => writeln!(out, "{:>10} {:>10}", Nanos(sums.held_ns), Nanos(mean)),
        None => writeln!(out, "{:>10} {:>10}", "-", "-"),
    }
}

fn counts(out: &mut String, row: &Row) -> fmt::Result {
    let sums = &row.total;
    let all = sums.all_ops();
    writeln!(
        out,
        "{:>9} {:>9} {:>9} {:>7}",
        all.count,
        Bytes(sums.mapped_bytes),
        Bytes(sums.unmapped_bytes),
        all.errors,
    )
}

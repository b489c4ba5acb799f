//! `top` and `stat` where `/proc` is polled: what is mapped, and how it changed
//! between two looks.

use std::fmt::{self, Write as _};

use super::{Left, Percent, groups};
use crate::{
    clock::WallClock,
    event::Backing,
    poll::{Poll, Polled, Sum, Tally},
    text::{Compact, Escaped, Nanos},
};

/// Width of the name of a group.
const NAME_WIDTH: usize = 22;

/// The table of an interval, for `top`.
pub fn top(poll: &Poll, clock: WallClock) -> String {
    let title = format!(
        "{}  last {}  limit {} VMAs per process\n",
        clock.at(poll.boot_ns).local_time_of_day(),
        Nanos(poll.interval_ns),
        poll.max_map_count,
    );
    draw(poll, &title)
}

/// The table of the whole run, for `stat`. `subject` says of what: `all
/// processes`, `'make -j2'`.
pub fn stat(poll: &Poll, subject: &str) -> String {
    let title = format!(
        "\nAddress spaces of {subject}, {}, limit {} VMAs per process:\n",
        Nanos(poll.elapsed_ns),
        poll.max_map_count
    );
    draw(poll, &title)
}

fn draw(poll: &Poll, title: &str) -> String {
    let mut out = String::with_capacity(4096);
    // Writing to a String cannot fail.
    let _ = tables(&mut out, poll, title);
    out
}

fn tables(out: &mut String, poll: &Poll, title: &str) -> fmt::Result {
    const AMOUNTS: &str = "VMAS+/-    SIZE  SIZE+/-    ANON    FILE  SHARED";

    writeln!(out, "{title}")?;
    match &poll.groups {
        Some(groups) => writeln!(
            out,
            "{:<NAME_WIDTH$} {:>5} {:>7} {:>6} {:>6} {AMOUNTS}",
            groups.by.name().to_uppercase(),
            "PROCS",
            "VMAS",
            "MOST",
            "%LIMIT",
        )?,
        None => writeln!(
            out,
            "{:>7} {:<15} {:>6} {:>6} {:>6} {AMOUNTS}  AGE",
            "PID", "COMM", "VMAS", "PEAK", "%LIMIT"
        )?,
    }
    if let Some(groups) = &poll.groups {
        for group in &groups.rows {
            let (name, container) = (group.name.as_deref(), group.container.as_ref());
            out.push_str(&groups::name(groups.by, name, container, NAME_WIDTH));
            group_row(out, &group.sum, poll.max_map_count)?;
        }
    }
    for process in &poll.processes {
        process_row(out, process, poll)?;
    }
    for (name, sum) in [("other", &poll.other), ("all", &poll.all)] {
        if sum.processes == 0 && name == "other" {
            continue;
        }
        if poll.groups.is_some() {
            write!(out, "{name:<NAME_WIDTH$}")?;
            group_row(out, sum, poll.max_map_count)?;
        } else {
            sum_row(out, name, sum)?;
        }
    }
    out.write_char('\n')?;
    seen(out, poll)
}

fn process_row(out: &mut String, process: &Polled, poll: &Poll) -> fmt::Result {
    let reading = &process.reading;
    let vmas = match reading.vmas() {
        // Of no one moment.
        Some(vmas) if reading.changing => format!("~{vmas}"),
        vmas => or_dash(vmas),
    };
    let percent = reading.vmas().map(|part| Percent {
        part,
        limit: u64::from(poll.max_map_count),
    });
    write!(
        out,
        "{:>7} {:<15} {vmas:>6} {:>6} {:>6}",
        process.pid,
        Escaped(process.comm.as_bytes()),
        or_dash(process.vmas_peak),
        or_dash(percent),
    )?;
    amounts(
        out,
        process.vmas_delta(),
        reading.total_bytes,
        process.total_delta_bytes(),
        reading.tally.as_ref(),
    )?;
    if process.alive {
        writeln!(out, " {:>4}", Left(process.age_ns(poll.boot_ns)))
    } else {
        writeln!(out, " gone")
    }
}

fn sum_row(out: &mut String, name: &str, sum: &Sum) -> fmt::Result {
    write!(out, "{:>7} {name:<15} {:>6} {:>13}", "", sum.vmas(), "")?;
    sum_amounts(out, sum)?;
    out.write_char('\n')
}

fn group_row(out: &mut String, sum: &Sum, limit: u32) -> fmt::Result {
    let percent = Percent {
        part: sum.vmas_of_largest,
        limit: u64::from(limit),
    };
    write!(
        out,
        " {:>5} {:>7} {:>6} {percent:>6}",
        sum.processes,
        sum.vmas(),
        sum.vmas_of_largest,
    )?;
    sum_amounts(out, sum)?;
    out.write_char('\n')
}

fn sum_amounts(out: &mut String, sum: &Sum) -> fmt::Result {
    amounts(
        out,
        Some(sum.vmas_delta),
        sum.total_bytes,
        Some(sum.total_delta_bytes),
        Some(&sum.tally),
    )
}

/// The columns that all rows have.
fn amounts(
    out: &mut String,
    vmas_delta: Option<i64>,
    total_bytes: u64,
    total_delta_bytes: Option<i64>,
    tally: Option<&Tally>,
) -> fmt::Result {
    let vmas_delta = vmas_delta.map(|delta| format!("{delta:+}"));
    let bytes = |backings: &[Backing]| {
        let of = |tally: &Tally| backings.iter().map(|&of| tally.of(of).bytes).sum();
        or_dash(tally.map(|tally| Compact(of(tally))))
    };
    write!(
        out,
        " {:>7} {:>7} {:>8} {:>7} {:>7} {:>7}",
        or_dash(vmas_delta),
        Compact(total_bytes),
        or_dash(total_delta_bytes.map(compact_signed)),
        bytes(&[Backing::PrivateAnonymous]),
        bytes(&[Backing::PrivateFile]),
        bytes(&[Backing::SharedAnonymous, Backing::SharedFile]),
    )
}

fn compact_signed(bytes: i64) -> String {
    let sign = if bytes < 0 { '-' } else { '+' };
    format!("{sign}{}", Compact(bytes.unsigned_abs()))
}

/// What is not known is a dash.
fn or_dash(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// How much was seen, and what was not.
fn seen(out: &mut String, poll: &Poll) -> fmt::Result {
    let counts = &poll.counts;
    let processes = poll.all.processes;
    write!(
        out,
        "read:   {} of {processes} processes, {} of them new",
        counts.read, counts.new
    )?;
    write!(out, ", {} ended", counts.ended)?;
    match poll.oldest_boot_ns {
        Some(oldest) => writeln!(
            out,
            "; the oldest reading is {} old",
            Left(poll.boot_ns.saturating_sub(oldest))
        )?,
        None => out.write_char('\n')?,
    }
    let unread = poll.all.unread + counts.closed;
    if unread > 0 {
        writeln!(
            out,
            "unread: {unread}, which may not be looked at; run mmwatch as root or with CAP_SYS_PTRACE"
        )?;
    }
    if counts.hides {
        writeln!(
            out,
            "hidden: there are processes that /proc does not list (hidepid); how many is not known"
        )?;
    }
    writeln!(
        out,
        "polled: what happened between two looks is not known, nor causes, callers and failures"
    )
}

#[cfg(test)]
mod tests;

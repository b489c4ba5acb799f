//! Groups of processes, as the first columns of a table.

use std::fmt::{self, Write as _};

use super::{Percent, VMAS_WIDTH};
use crate::{
    churn::{Group, Groups},
    text::Escaped,
};

/// Width of the name.
const NAME_WIDTH: usize = 28;
/// Width of all columns here.
const WIDTH: usize = NAME_WIDTH + 1 + 6 + 1 + 7 + 1 + 6 + 1 + 6;
/// Digits of an id by which people know a container.
const SHORT_ID: usize = 12;

/// What the columns are called; `others` come behind them.
pub(super) fn header(out: &mut String, groups: &Groups, others: &str) -> fmt::Result {
    let name = groups.by.name().to_uppercase();
    writeln!(
        out,
        "{name:<NAME_WIDTH$} {:>6} {:>7} {:>6} {:>6} {others}",
        "PROCS", "VMAS", "MOST", "%LIMIT"
    )
}

/// The name of a row that is the sum of others, in as many columns.
pub(super) fn sum(out: &mut String, groups: Option<&Groups>, name: &str) -> fmt::Result {
    match groups {
        Some(_) => write!(out, "{name:<WIDTH$} "),
        None => write!(out, "{:>7} {name:<15} {:>VMAS_WIDTH$} ", "", ""),
    }
}

/// The name of a group in so many columns. Of an id the beginning is shown, as
/// container runtimes do; of a long path the end, which says more.
pub(super) fn name(out: &mut String, name: Option<&str>, width: usize) -> fmt::Result {
    let name = name.unwrap_or("-");
    let is_id = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let name = if is_id { &name[..SHORT_ID] } else { name };
    let name = Escaped(name.as_bytes()).to_string();
    let skipped = name.chars().count().saturating_sub(width);
    if skipped == 0 {
        write!(out, "{name:<width$}")
    } else {
        let tail: String = name.chars().skip(skipped + 1).collect();
        write!(out, "…{tail}")
    }
}

/// One group.
pub(super) fn row(out: &mut String, group: &Group, limit: u32) -> fmt::Result {
    name(out, group.name.as_deref(), NAME_WIDTH)?;
    let percent = Percent {
        part: u64::from(group.vmas_of_largest),
        limit: u64::from(limit),
    };
    write!(
        out,
        " {:>6} {:>7} {:>6} {percent:>6} ",
        group.processes, group.vmas, group.vmas_of_largest,
    )
}

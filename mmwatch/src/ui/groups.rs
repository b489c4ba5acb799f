//! Groups of processes, as the first columns of a table.

use std::fmt::{self, Write as _};

use super::{Percent, VMAS_WIDTH};
use crate::{
    churn::{By, Group, Groups, Report, Row},
    identity::{Container, Names},
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

/// The rows of all groups; `others` writes the columns behind each.
pub(super) fn rows(
    out: &mut String,
    report: &Report,
    mut others: impl FnMut(&mut String, &Row) -> fmt::Result,
) -> fmt::Result {
    let Some(groups) = &report.groups else {
        return Ok(());
    };
    for group in &groups.rows {
        row(out, groups.by, group, report.max_map_count)?;
        others(out, &group.row)?;
    }
    Ok(())
}

/// What people call a group, given its name and its container, in so many columns: of what
/// is too long the end is shown, which says more.
pub(super) fn name(
    by: By,
    name: Option<&str>,
    container: Option<&Container>,
    width: usize,
) -> String {
    let name = name.unwrap_or("-");
    let is_id = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    // As container runtimes do.
    let name = if is_id { &name[..SHORT_ID] } else { name };
    let name = Escaped(name.as_bytes()).to_string();
    let known = container.map(|container| &container.names);
    let shown = match (by, known) {
        (
            By::Container,
            Some(Names {
                name: Some(known), ..
            }),
        ) if *known != name => {
            // Containers of several pods may share a name, so the id stays.
            let room = width.saturating_sub(name.chars().count() + " ()".len());
            let known = beginning(&Escaped(known.as_bytes()).to_string(), room);
            end(&format!("{known} ({name})"), width)
        }
        (
            By::Pod,
            Some(Names {
                pod: Some(pod),
                pod_namespace,
                ..
            }),
        ) => {
            let namespace = pod_namespace.as_deref().unwrap_or("-");
            let known = format!("{namespace}/{pod}");
            end(&Escaped(known.as_bytes()).to_string(), width)
        }
        _ => end(&name, width),
    };
    format!("{shown:<width$}")
}

/// The beginning of a text, as far as there is room.
fn beginning(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let head: String = text.chars().take(room.saturating_sub(1)).collect();
    format!("{head}…")
}

/// The end of a text, as far as there is room.
fn end(text: &str, room: usize) -> String {
    let skipped = text.chars().count().saturating_sub(room);
    if skipped == 0 {
        return text.to_owned();
    }
    let tail: String = text.chars().skip(skipped + 1).collect();
    format!("…{tail}")
}

fn row(out: &mut String, by: By, group: &Group, limit: u32) -> fmt::Result {
    let container = group.container.as_ref();
    out.push_str(&name(by, group.name.as_deref(), container, NAME_WIDTH));
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

//! `maps`: an address space as a table.

pub mod faults;

use std::fmt::{self, Write as _};

use super::Signed;
use crate::{
    maps::{
        AddressSpace, Certainty, Deed, Life, Lock, Residency, Sum, Vma, Watch,
        diff::{Change, Difference},
    },
    text::{Bytes, Escaped, Nanos},
};

/// Every VMA, the sums by segment and by backing, and what reading took.
pub fn draw(space: &AddressSpace<'_>) -> String {
    let mut out = String::with_capacity(4096 + space.vmas.len() * 140);
    // Writing to a String cannot fail.
    let _ = tables(&mut out, space);
    out
}

/// `process 1234 (cat): 25 VMAs, 6.1MiB`.
pub(super) fn title(out: &mut String, space: &AddressSpace<'_>) -> fmt::Result {
    let total = space.total();
    writeln!(
        out,
        "process {} ({}): {} VMAs, {}",
        space.pid,
        space.comm,
        total.vmas,
        Bytes(total.bytes)
    )
}

fn tables(out: &mut String, space: &AddressSpace<'_>) -> fmt::Result {
    title(out, space)?;
    let total = space.total();
    let details = total.residency.is_some();
    write!(
        out,
        "\n{:<25} {:<4} {:<8} {:<5} {:>8} {:<19} {:<9} {:>9}",
        "ADDRESS", "PERM", "OFFSET", "DEV", "INODE", "SEGMENT", "BACKING", "SIZE"
    )?;
    header(out, details)?;
    if space.watch.is_some() {
        write!(out, " {:>8} {:<28} {:<20}", "AGE", "MADE BY", "CHANGES")?;
    }
    writeln!(out, " NAME")?;
    for vma in &space.vmas {
        row(out, vma, space.watch.as_ref())?;
    }

    write!(out, "\n{:<19} {:>6} {:>9}", "SEGMENT", "VMAS", "SIZE")?;
    header(out, details)?;
    out.write_char('\n')?;
    for (segment, sum) in space.by_segment() {
        sums(out, format_args!("{segment:<19}"), &sum)?;
    }
    sums(out, format_args!("{:<19}", "all"), &total)?;

    write!(out, "\n{:<19} {:>6} {:>9}", "BACKING", "VMAS", "SIZE")?;
    header(out, details)?;
    out.write_char('\n')?;
    for (backing, sum) in space.by_backing() {
        sums(out, format_args!("{:<19}", backing.name()), &sum)?;
    }
    let suspects = space.by_suspect();
    if !suspects.is_empty() {
        write!(out, "\n{:<19} {:>6} {:>9}", "SUSPECT", "VMAS", "SIZE")?;
        header(out, details)?;
        out.write_char('\n')?;
    }
    for (suspect, sum) in suspects {
        sums(out, format_args!("{:<19}", suspect.name()), &sum)?;
    }
    let guessed = space
        .vmas
        .iter()
        .any(|vma| vma.certainty == Certainty::Guessed);
    out.write_char('\n')?;
    if guessed {
        writeln!(out, "?: guessed; docs/maps.md says by what.")?;
    }
    if let Some(watch) = &space.watch {
        let watched = Nanos(watch.now_boot_ns.saturating_sub(watch.since_boot_ns));
        write!(out, "Watched for {watched}")?;
        match watch.lost_events {
            0 => writeln!(out, ".")?,
            lost => writeln!(
                out,
                "; {lost} events were lost, so that some ages are of what was there before."
            )?,
        }
    }
    writeln!(out, "{}", took(space.lock))
}

/// What changed between two moments, and how much there is of each sort.
pub fn changes(space: &AddressSpace<'_>, changes: &[Difference<'_>]) -> String {
    let mut out = String::with_capacity(4096);
    // Writing to a String cannot fail.
    let _ = list(&mut out, space, changes);
    out
}

fn list(out: &mut String, space: &AddressSpace<'_>, changes: &[Difference<'_>]) -> fmt::Result {
    title(out, space)?;
    writeln!(
        out,
        "\n{:<8} {:>10} {:<25} {:<4} {:<19} {:<9} {:>9} NAME",
        "CHANGE", "BYTES +/-", "ADDRESS", "PERM", "SEGMENT", "BACKING", "SIZE"
    )?;
    for change in changes {
        let vma = change.vma;
        write!(
            out,
            "{:<8} {:>10} {:<25} {}{} {:<19} {:<9} {:>9}",
            change.change.name(),
            Signed(change.delta_bytes).to_string(),
            range(vma),
            vma.line.prot.letters(),
            kind(vma),
            segment(vma),
            vma.backing.short_name(),
            Bytes(vma.line.size_bytes()),
        )?;
        if change.change == Change::Changed
            && let Some(was) = change.was
        {
            write!(out, " was {}{}", was.line.prot.letters(), kind(was))?;
        }
        name(out, vma)?;
    }
    writeln!(out, "\n{:<8} {:>6} {:>10}", "CHANGE", "VMAS", "BYTES +/-")?;
    for of in Change::ALL {
        let those = changes.iter().filter(|change| change.change == of);
        let bytes: i64 = those.clone().map(|change| change.delta_bytes).sum();
        let bytes = Signed(bytes).to_string();
        writeln!(out, "{:<8} {:>6} {bytes:>10}", of.name(), those.count())?;
    }
    Ok(())
}

fn header(out: &mut String, details: bool) -> fmt::Result {
    if details {
        let names = ["RESIDENT", "SHARED", "SWAPPED", "HUGE"];
        names
            .iter()
            .try_for_each(|name| write!(out, " {name:>9}"))?;
    }
    Ok(())
}

fn details(out: &mut String, residency: Option<&Residency>) -> fmt::Result {
    let Some(residency) = residency else {
        return Ok(());
    };
    for bytes in [
        residency.resident_bytes,
        residency.shared_bytes,
        residency.swapped_bytes,
        residency.huge_bytes,
    ] {
        write!(out, " {:>9}", Bytes(bytes))?;
    }
    Ok(())
}

fn row(out: &mut String, vma: &Vma<'_>, watch: Option<&Watch>) -> fmt::Result {
    let line = &vma.line;
    write!(
        out,
        "{:<25} {}{} {:08x} {} {:>8} {:<19} {:<9} {:>9}",
        range(vma),
        line.prot.letters(),
        kind(vma),
        line.offset,
        line.dev,
        line.inode,
        segment(vma),
        vma.backing.short_name(),
        Bytes(line.size_bytes()),
    )?;
    details(out, vma.residency.as_ref())?;
    if let Some(watch) = watch {
        lives(out, &vma.lives, watch.now_boot_ns)?;
    }
    name(out, vma)
}

/// What became of a VMA: of its youngest part who made it, and what was done last.
fn lives(out: &mut String, lives: &[Life], now_boot_ns: u64) -> fmt::Result {
    let age = |deed: &Deed| Nanos(now_boot_ns.saturating_sub(deed.boot_ns));
    let made = lives.iter().filter_map(|life| life.made.as_ref());
    match made.clone().max_by_key(|deed| deed.boot_ns) {
        Some(deed) => {
            let comm = Escaped(deed.comm.as_bytes());
            let mut by = format!("{} {} {comm}", deed.cause.name(), deed.tid);
            let parts = made.count();
            if parts > 1 {
                write!(by, " +{}", parts - 1)?;
            }
            write!(out, " {:>8} {by:<28}", age(deed))?;
        }
        None => write!(out, " {:>8} {:<28}", "-", "-")?,
    }
    let changed = lives.iter().filter_map(|life| life.last_change.as_ref());
    match changed.max_by_key(|deed| deed.boot_ns) {
        Some(deed) => {
            let count: u64 = lives.iter().map(|life| life.changes).sum();
            let changes = format!("{count}, {} {}", deed.cause.name(), age(deed));
            write!(out, " {changes:<20}")
        }
        None => write!(out, " {:<20}", "-"),
    }
}

fn range(vma: &Vma<'_>) -> String {
    format!("{:08x}-{:08x}", vma.line.range.start, vma.line.range.end)
}

/// As `/proc/PID/maps` has it: shared or private.
const fn kind(vma: &Vma<'_>) -> char {
    if vma.line.shared { 's' } else { 'p' }
}

/// With a mark where it is guessed.
fn segment(vma: &Vma<'_>) -> String {
    let mark = match vma.certainty {
        Certainty::Known => "",
        Certainty::Guessed => "?",
    };
    format!("{}{mark}", vma.segment)
}

/// The end of a row.
fn name(out: &mut String, vma: &Vma<'_>) -> fmt::Result {
    let name = vma.line.name;
    match vma.object {
        // What it is a part of, where its own line does not say so.
        Some(object) if name.is_empty() => write!(out, " ({})", Escaped(object))?,
        _ if name.is_empty() => {}
        _ => write!(out, " {}", Escaped(name))?,
    }
    let suspects = vma.suspects();
    if !suspects.is_empty() {
        write!(out, " SUSPECT {suspects}")?;
    }
    out.write_char('\n')
}

fn sums(out: &mut String, name: fmt::Arguments<'_>, sum: &Sum) -> fmt::Result {
    write!(out, "{name} {:>6} {:>9}", sum.vmas, Bytes(sum.bytes))?;
    details(out, sum.residency.as_ref())?;
    out.write_char('\n')
}

/// What reading took, as a sentence.
pub(super) const fn took(lock: Lock) -> &'static str {
    match lock {
        Lock::PerVma => "Read VMA by VMA, without taking the process's mmap_lock.",
        Lock::Mmap => {
            "Read with the process's mmap_lock taken for reading, for some fifty VMAs at a time."
        }
        Lock::MmapAndPageTables => {
            "Read with the process's mmap_lock taken for reading while its page tables were walked."
        }
        Lock::Unknown => "Whether this kernel takes the process's mmap_lock for it is not known.",
        Lock::Recording => {
            "By recorded events alone: what was mapped before them, and what none tells, is not here."
        }
    }
}

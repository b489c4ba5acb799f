//! `shared`: objects with the processes that map them, and who could talk to whom.

use std::fmt::{self, Write as _};

use super::maps::took;
use crate::{
    maps::Certainty,
    shared::{Mapping, Object, Shared, read::Subject, talk::Talk},
    text::{Bytes, Escaped},
};

/// So many processes are named at each end of an arrow; the table has them all.
const NAMED: usize = 4;

/// A block for each object, and what reading took.
pub fn draw(shared: &Shared, subject: &Subject) -> String {
    let mut out = String::with_capacity(4096);
    // Writing to a String cannot fail.
    let _ = blocks(&mut out, shared, subject);
    out
}

fn blocks(out: &mut String, shared: &Shared, subject: &Subject) -> fmt::Result {
    if shared.objects.is_empty() {
        return match subject {
            Subject::All => writeln!(out, "No two processes have a shared mapping of one object."),
            Subject::Process(pid) => writeln!(out, "Process {pid} has no shared mapping."),
            Subject::File(path) => {
                let path = Escaped(path.as_os_str().as_encoded_bytes());
                writeln!(out, "No process maps {path}.")
            }
        };
    }
    for object in &shared.objects {
        block(out, object)?;
        out.write_char('\n')?;
    }
    let any = |wanted: fn(&Object) -> bool| shared.objects.iter().any(wanted);
    if any(|object| object.certainty == Certainty::Guessed) {
        writeln!(out, "?: guessed by its path.")?;
    }
    if any(|object| !object.tells_memory()) {
        writeln!(
            out,
            "device: whether its users get the same memory is up to the driver."
        )?;
    }
    if any(|object| mappings(object).any(|mapping| !mapping.shared)) {
        writeln!(
            out,
            "p: a private mapping, which takes no part; what is written there stays there."
        )?;
    }
    writeln!(out, "{}", took(shared.lock))
}

fn mappings(object: &Object) -> impl Iterator<Item = &Mapping> {
    object.members.iter().flat_map(|member| &member.mappings)
}

fn block(out: &mut String, object: &Object) -> fmt::Result {
    let mark = match object.certainty {
        Certainty::Known => "",
        Certainty::Guessed => "?",
    };
    write!(out, "{}{mark}", object.kind.name())?;
    for path in &object.paths {
        write!(out, " {}", Escaped(path))?;
    }
    write!(out, "\n  {}:{}", object.id.dev, object.id.inode)?;
    match object.members.as_slice() {
        [_] => write!(out, ", one process alone")?,
        members => write!(
            out,
            ", {} processes, {} in common",
            members.len(),
            Bytes(object.common_bytes())
        )?,
    }
    writeln!(
        out,
        "\n{:>8} {:<15} {:<4} {:<25} {:<25} {:>9}",
        "PID", "COMM", "PERM", "OFFSET", "ADDRESS", "SIZE"
    )?;
    for member in &object.members {
        for mapping in &member.mappings {
            let (at, in_file) = (&mapping.range, mapping.extent());
            writeln!(
                out,
                "{:>8} {:<15} {}{} {:<25} {:<25} {:>9}",
                member.pid,
                member.comm,
                mapping.prot.letters(),
                if mapping.shared { 's' } else { 'p' },
                format!("{:08x}-{:08x}", in_file.start, in_file.end),
                format!("{:08x}-{:08x}", at.start, at.end),
                Bytes(mapping.size_bytes()),
            )?;
        }
    }
    arrows(out, object)
}

/// An arrow both ways stands for two of the same.
fn arrows(out: &mut String, object: &Object) -> fmt::Result {
    let talks = object.talks();
    if talks.is_empty() && object.tells_memory() && object.members.len() > 1 {
        writeln!(out, "  none can write what another can read")?;
    }
    for (at, talk) in talks.iter().enumerate() {
        let (writers, readers) = (&talk.writers, &talk.readers);
        let is_back = |other: &Talk| {
            (&other.writers, &other.readers, other.bytes) == (readers, writers, talk.bytes)
        };
        let back = talks.iter().position(is_back);
        if back.is_some_and(|back| back < at) {
            // Told already.
            continue;
        }
        out.write_char(' ')?;
        named(out, object, writers)?;
        out.write_str(if back.is_some() { " <->" } else { " ->" })?;
        if writers == readers {
            out.write_str(" each other")?;
        } else {
            named(out, object, readers)?;
        }
        writeln!(out, ": {}", Bytes(talk.bytes))?;
    }
    Ok(())
}

/// ` 1234 (writer), 1240 (reader), 7 more`.
fn named(out: &mut String, object: &Object, pids: &[u32]) -> fmt::Result {
    // One more takes as much room as to say so.
    let named = if pids.len() > NAMED + 1 {
        NAMED
    } else {
        pids.len()
    };
    let members = object.members.iter();
    let members = members.filter(|member| pids.binary_search(&member.pid).is_ok());
    for (at, member) in members.take(named).enumerate() {
        let comma = if at == 0 { "" } else { "," };
        write!(out, "{comma} {} ({})", member.pid, member.comm)?;
    }
    if named < pids.len() {
        write!(out, ", {} more", pids.len() - named)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! `shared -o dot`: processes and objects as a graph, in the language of Graphviz.

use std::fmt::{self, Write as _};

use crate::{
    flags::Prot,
    maps::Certainty,
    shared::{Member, Object, Shared},
    text::{Bytes, Escaped},
};

/// A graph: a box for each process, another for each object, and between them
/// arrows the way that data can go.
pub fn draw(shared: &Shared) -> String {
    let mut out = String::with_capacity(4096);
    // Writing to a String cannot fail.
    let _ = graph(&mut out, &shared.objects);
    out
}

fn graph(out: &mut String, objects: &[Object]) -> fmt::Result {
    out.write_str("digraph shared {\n  rankdir=LR\n  node [shape=box]\n")?;
    let mut processes: Vec<_> = objects
        .iter()
        .flat_map(|object| &object.members)
        .map(|member| (member.pid, member.comm))
        .collect();
    processes.sort_unstable_by_key(|&(pid, _)| pid);
    processes.dedup_by_key(|&mut (pid, _)| pid);
    for (pid, comm) in processes {
        writeln!(out, "  p{pid} [label=\"{pid}\\n{}\"]", Label(comm))?;
    }
    for (number, object) in objects.iter().enumerate() {
        let mark = match object.certainty {
            Certainty::Known => "",
            Certainty::Guessed => "?",
        };
        write!(
            out,
            "  o{number} [shape=folder label=\"{}{mark}",
            object.kind.name()
        )?;
        for path in &object.paths {
            write!(out, "\\n{}", Label(Escaped(path)))?;
        }
        writeln!(out, "\\n{}:{}\"]", object.id.dev, object.id.inode)?;
        for member in &object.members {
            edge(out, number, member)?;
        }
    }
    out.write_str("}\n")
}

fn edge(out: &mut String, number: usize, member: &Member) -> fmt::Result {
    let can = |allowed: fn(Prot) -> bool| {
        let mut shared = member.mappings.iter().filter(|mapping| mapping.shared);
        shared.any(|mapping| allowed(mapping.prot))
    };
    let sees = member
        .mappings
        .iter()
        .any(|mapping| mapping.prot.is_readable());
    let way = match (can(Prot::is_writable), sees) {
        (true, true) => "both",
        (true, false) => "forward",
        (false, true) => "back",
        (false, false) => "none",
    };
    write!(out, "  p{} -> o{number} [dir={way}", member.pid)?;
    if member.mappings.iter().all(|mapping| !mapping.shared) {
        out.write_str(" style=dashed")?;
    }
    out.write_str(" label=\"")?;
    for (at, (perm, bytes)) in by_permissions(member).into_iter().enumerate() {
        let line_end = if at == 0 { "" } else { "\\n" };
        write!(out, "{line_end}{perm} {}", Bytes(bytes))?;
    }
    out.write_str("\"]\n")
}

/// What a process has mapped with each set of permissions, in the order in
/// which they come.
fn by_permissions(member: &Member) -> Vec<(String, u64)> {
    let mut sums: Vec<(String, u64)> = Vec::new();
    for mapping in &member.mappings {
        let kind = if mapping.shared { 's' } else { 'p' };
        let perm = format!("{}{kind}", mapping.prot.letters());
        match sums.iter_mut().find(|(known, _)| *known == perm) {
            Some((_, bytes)) => *bytes += mapping.size_bytes(),
            None => sums.push((perm, mapping.size_bytes())),
        }
    }
    sums
}

/// A text between the quotes of a label, where a backslash begins an escape and
/// `&` an entity.
struct Label<T>(T);

impl<T: fmt::Display> fmt::Display for Label<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '&' => f.write_str("&amp;")?,
                _ => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! Who could talk to whom through an object: whoever may write a byte of it,
//! to whoever may read it.
//!
//! Private mappings take no part: what is written there stays there, and what
//! others write shows only until then.

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::{Member, Object};
use crate::maps::FileKind;

/// Processes, each of which can write what each of the others can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Talk {
    /// Who can write, by process id.
    pub writers: Vec<u32>,
    /// Who can read. Either all of the writers, which then talk among
    /// themselves, or none of them.
    pub readers: Vec<u32>,
    /// Bytes of the object that a writer can write and a reader read.
    pub bytes: u64,
}

/// What a process may do with an object: ordered parts of it, bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Access {
    writes: Vec<Range<u64>>,
    reads: Vec<Range<u64>>,
}

impl Access {
    fn new(member: &Member) -> Self {
        let parts = |wanted: fn(&super::Mapping) -> bool| {
            let mappings = member.mappings.iter();
            union(
                mappings
                    .filter(|mapping| mapping.shared && wanted(mapping))
                    .map(super::Mapping::extent),
            )
        };
        Self {
            writes: parts(|mapping| mapping.prot.is_writable()),
            reads: parts(|mapping| mapping.prot.is_readable()),
        }
    }
}

impl Object {
    /// Bytes of it that two processes or more have shared mappings of.
    pub fn common_bytes(&self) -> u64 {
        let mut borders = Vec::new();
        for member in &self.members {
            let shared = member.mappings.iter().filter(|mapping| mapping.shared);
            for part in union(shared.map(super::Mapping::extent)) {
                borders.push((part.start, 1));
                borders.push((part.end, -1));
            }
        }
        borders.sort_unstable();
        let (mut bytes, mut users, mut before) = (0, 0, 0);
        for (at, change) in borders {
            if users > 1 {
                bytes += at - before;
            }
            users += change;
            before = at;
        }
        bytes
    }

    /// Whether its file tells what memory is behind it. Behind a device, that
    /// is up to the driver: two that map the same offset may get memory each.
    pub fn tells_memory(&self) -> bool {
        self.kind != FileKind::Device
    }

    /// Who could talk to whom. Processes that may do the same are told together:
    /// a server may have hundreds of them.
    pub fn talks(&self) -> Vec<Talk> {
        if !self.tells_memory() {
            return Vec::new();
        }
        let mut groups: Vec<(Access, Vec<u32>)> = Vec::new();
        let mut group_of: FxHashMap<Access, usize> = FxHashMap::default();
        for member in &self.members {
            let access = Access::new(member);
            let at = *group_of.entry(access.clone()).or_insert_with(|| {
                groups.push((access, Vec::new()));
                groups.len() - 1
            });
            groups[at].1.push(member.pid);
        }
        let mut talks = Vec::new();
        for (from, (writer, writers)) in groups.iter().enumerate() {
            for (to, (reader, readers)) in groups.iter().enumerate() {
                let bytes = overlap_bytes(&writer.writes, &reader.reads);
                if bytes > 0 && (from != to || writers.len() > 1) {
                    talks.push(Talk {
                        writers: writers.clone(),
                        readers: readers.clone(),
                        bytes,
                    });
                }
            }
        }
        talks
    }
}

/// Ranges in order, those that overlap or touch made one.
fn union(ranges: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut ranges: Vec<_> = ranges.filter(|range| !range.is_empty()).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    let mut union: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match union.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => union.push(range),
        }
    }
    union
}

/// Bytes that both have. Each is in order and does not overlap itself.
fn overlap_bytes(a: &[Range<u64>], b: &[Range<u64>]) -> u64 {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut bytes = 0;
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        bytes += x.end.min(y.end).saturating_sub(x.start.max(y.start));
        if x.end < y.end {
            a.next();
        } else {
            b.next();
        }
    }
    bytes
}

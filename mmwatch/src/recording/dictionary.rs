//! What records refer to and no later record says again: paths of files and of
//! cgroups, and limits. Kept to be said at the begin of each file, and after a loss.

use std::mem;

use mmwatch_common::event::FileId;
use rustc_hash::FxHashMap;

use super::entry::{self, Entries, Entry};
use crate::{decode, explain::Limits};

/// Bytes of paths kept at most: some ten thousand paths.
const CAPACITY_BYTES: usize = 4 << 20;

/// Cgroups kept at most: then all are forgotten.
const MAX_CGROUPS: usize = 1 << 14;

/// What was said so far, bounded.
///
/// Paths are kept in two generations, as [`decode`] does: when the young one is
/// half of what may be kept, it becomes the old one, which is dropped.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    young: Generation,
    old: Generation,
    cgroups: FxHashMap<u64, Box<str>>,
    limits: Option<Limits>,
}

#[derive(Debug, Default)]
struct Generation {
    /// Records without the zeroes that they end in.
    paths: FxHashMap<FileId, Path>,
    bytes: usize,
}

#[derive(Debug)]
struct Path {
    trimmed: Box<[u8]>,
    len: usize,
}

impl Dictionary {
    /// Takes what a frame of events says.
    pub(super) fn note(&mut self, entries: &[u8]) {
        for entry in Entries::new(entries).flatten() {
            match entry {
                Entry::Record(record) | Entry::Again(record) => {
                    if let Some(file) = decode::path_of(record) {
                        self.note_path(file, record);
                    }
                }
                Entry::Cgroup(id, text) => {
                    if self.cgroups.len() >= MAX_CGROUPS {
                        self.cgroups.clear();
                    }
                    self.cgroups.insert(id, text.into());
                }
                Entry::Limits(limits) => self.limits = Some(limits),
                // The next look says these.
                Entry::Identity(..) | Entry::Unknown => {}
            }
        }
    }

    fn note_path(&mut self, file: FileId, record: &[u8]) {
        let used = record.iter().rposition(|byte| *byte != 0);
        let trimmed: Box<[u8]> = record.get(..=used.unwrap_or(0)).unwrap_or_default().into();
        if self.young.bytes + trimmed.len() > CAPACITY_BYTES / 2 {
            self.old = mem::take(&mut self.young);
        }
        self.young.bytes += trimmed.len();
        let path = Path {
            trimmed,
            len: record.len(),
        };
        if let Some(before) = self.young.paths.insert(file, path) {
            self.young.bytes -= before.trimmed.len();
        }
    }

    /// Says all of it.
    pub(super) fn say(&self, to: &mut Vec<u8>) {
        if let Some(limits) = self.limits {
            entry::push(to, &Entry::Limits(limits));
        }
        for (id, text) in &self.cgroups {
            entry::push(to, &Entry::Cgroup(*id, text));
        }
        let mut record = Vec::new();
        // The young ones last: of two of one file, the later counts.
        for path in self.old.paths.values().chain(self.young.paths.values()) {
            record.clear();
            record.extend_from_slice(&path.trimmed);
            record.resize(path.len, 0);
            entry::push(to, &Entry::Again(&record));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decode::tests as records, process::Proc};

    #[test]
    fn what_was_said_is_said_again() {
        let mut entries = Vec::new();
        let limits = Proc::at("/nowhere").limits();
        entry::push(&mut entries, &Entry::Record(&records::path()));
        entry::push(&mut entries, &Entry::Record(&records::grow(0)));
        entry::push(&mut entries, &Entry::Cgroup(7, "/x"));
        entry::push(&mut entries, &Entry::Cgroup(7, "/y"));
        entry::push(&mut entries, &Entry::Limits(limits));
        let mut dictionary = Dictionary::default();
        dictionary.note(&entries);
        dictionary.note(&entries);
        let mut said = Vec::new();
        dictionary.say(&mut said);
        let said: Vec<_> = Entries::new(&said).map(Result::unwrap).collect();
        assert_eq!(
            said,
            [
                Entry::Limits(limits),
                Entry::Cgroup(7, "/y"),
                Entry::Again(&records::path()),
            ]
        );
        assert!(dictionary.young.bytes < 100);
    }

    #[test]
    fn paths_are_bounded() {
        let mut dictionary = Dictionary::default();
        for number in 0..100_000_u64 {
            let mut record = records::path();
            // The inode number.
            record[8..16].copy_from_slice(&number.to_le_bytes());
            let mut entries = Vec::new();
            entry::push(&mut entries, &Entry::Record(&record));
            dictionary.note(&entries);
        }
        let kept = dictionary.young.bytes + dictionary.old.bytes;
        assert!((CAPACITY_BYTES / 4..=CAPACITY_BYTES).contains(&kept));
    }
}

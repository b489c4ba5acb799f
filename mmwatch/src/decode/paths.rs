//! The paths of the files that events name.

use std::{mem, sync::Arc};

use mmwatch_common::event::FileId;
use rustc_hash::FxHashMap;

/// Paths kept at most.
const CAPACITY: usize = 65_536;

/// Bytes of paths kept at most: the longest paths would fill 64 MiB otherwise.
const CAPACITY_BYTES: usize = 16 << 20;

/// File → path, bounded.
///
/// Two generations: what is new or used goes to the young one; when that is
/// half of what may be kept, it becomes the old one and the old one is dropped.
/// So a path in use stays, and one unused for at least half a capacity of other
/// paths goes. Its file then shows device and inode alone.
#[derive(Debug, Default)]
pub(super) struct PathTable {
    young: Generation,
    old: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    paths: FxHashMap<FileId, Arc<str>>,
    bytes: usize,
}

impl PathTable {
    /// Remembers a path given as names from the leaf to the root, each ended by
    /// a NUL. Bytes that are not UTF-8 become U+FFFD.
    pub(super) fn insert(&mut self, file: FileId, leaf_first: &[u8], truncated: bool) {
        self.keep(file, join(leaf_first, truncated).into());
    }

    pub(super) fn get(&mut self, file: FileId) -> Option<Arc<str>> {
        if let Some(path) = self.young.paths.get(&file) {
            return Some(Arc::clone(path));
        }
        let path = self.old.paths.remove(&file)?;
        self.old.bytes -= path.len();
        self.keep(file, Arc::clone(&path));
        Some(path)
    }

    fn keep(&mut self, file: FileId, path: Arc<str>) {
        if self.young.paths.len() >= CAPACITY / 2
            || self.young.bytes + path.len() > CAPACITY_BYTES / 2
        {
            self.old = mem::take(&mut self.young);
        }
        self.young.bytes += path.len();
        if let Some(before) = self.young.paths.insert(file, path) {
            self.young.bytes -= before.len();
        }
    }
}

/// `c\0b\0a\0` → `/a/b/c`, and `.../a/b/c` when more was before `a`.
fn join(leaf_first: &[u8], truncated: bool) -> String {
    let names = leaf_first.strip_suffix(b"\0").unwrap_or(leaf_first);
    let mut path = Vec::with_capacity(names.len() + 4);
    if truncated {
        path.extend_from_slice(b"...");
    }
    if names.is_empty() {
        path.push(b'/');
    } else {
        for name in names.rsplit(|&byte| byte == 0) {
            path.push(b'/');
            path.extend_from_slice(name);
        }
    }
    String::from_utf8(path)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(inode: u64) -> FileId {
        FileId {
            inode,
            dev: 1,
            generation: 0,
        }
    }

    #[test]
    fn names_are_put_in_order() {
        assert_eq!(join(b"c\0b\0a\0", false), "/a/b/c");
        assert_eq!(join(b"c\0b\0a\0", true), ".../a/b/c");
        assert_eq!(join(b"c\0b\0a", false), "/a/b/c");
        assert_eq!(join(b"memfd:name\0", false), "/memfd:name");
        assert_eq!(join(b"", false), "/");
        assert_eq!(join(b"caf\xe9\0", false), "/caf\u{fffd}");
    }

    #[test]
    fn lives_of_an_inode_number_are_apart() {
        let mut table = PathTable::default();
        table.insert(id(1), b"a\0", false);
        let reused = FileId {
            generation: 1,
            ..id(1)
        };
        assert_eq!(table.get(reused), None);
        table.insert(reused, b"b\0", false);
        assert_eq!(table.get(id(1)).as_deref(), Some("/a"));
        assert_eq!(table.get(reused).as_deref(), Some("/b"));
    }

    #[test]
    fn a_newer_path_replaces() {
        let mut table = PathTable::default();
        table.insert(id(1), b"old\0", false);
        table.insert(id(1), b"new\0", false);
        assert_eq!(table.get(id(1)).as_deref(), Some("/new"));
        assert_eq!(table.young.bytes, "/new".len());
    }

    #[test]
    fn what_is_used_stays_and_the_table_stays_bounded() {
        let mut table = PathTable::default();
        for inode in 0..3 * CAPACITY as u64 {
            table.insert(id(inode), b"name\0", false);
            assert!(table.get(id(0)).is_some(), "lost after {inode}");
            assert!(table.young.paths.len() + table.old.paths.len() <= CAPACITY);
        }
        assert_eq!(table.get(id(1)), None);
    }

    #[test]
    fn bytes_are_bounded() {
        let mut table = PathTable::default();
        let long = [b'x'; 1024];
        for inode in 0..2 * CAPACITY as u64 {
            table.insert(id(inode), &long, false);
            assert!(table.young.bytes + table.old.bytes <= CAPACITY_BYTES);
        }
    }
}

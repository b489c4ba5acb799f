//! What is mapped where: ordered ranges that do not overlap.

use std::{collections::BTreeMap, iter, ops::Range};

use crate::{event::Dev, flags::Prot};

/// What every page of a range has in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The three permissions; bits that have no letter are not kept.
    pub prot: Prot,
    /// Whether `/proc/PID/maps` says `s`, not `p`.
    pub shared: bool,
    /// Where the pages come from.
    pub backed: Backed,
}

/// Where the pages of a range come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backed {
    /// No file.
    Anonymous,
    /// A file, as `/proc/PID/maps` identifies it.
    File {
        /// Device of its file system.
        dev: Dev,
        /// Inode number.
        inode: u64,
        /// Offset at the start of the range, bytes.
        offset: u64,
    },
    /// A file that no hook saw.
    UnknownFile,
}

/// A range and what is mapped there; file offsets are those of its start.
pub type Area = (Range<u64>, Mapping);

/// A range where two [`Ranges`] differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The range, addresses.
    pub range: Range<u64>,
    /// What the one has there; `None` for nothing.
    pub this: Option<Mapping>,
    /// What the other has there.
    pub other: Option<Mapping>,
}

impl Mapping {
    /// What brk(2) maps.
    pub const HEAP: Self = Self {
        prot: Prot(3),
        shared: false,
        backed: Backed::Anonymous,
    };

    /// The same `bytes` further on.
    #[must_use]
    pub const fn further(self, bytes: u64) -> Self {
        let backed = match self.backed {
            Backed::File { dev, inode, offset } => Backed::File {
                dev,
                inode,
                offset: offset.wrapping_add(bytes),
            },
            Backed::Anonymous | Backed::UnknownFile => self.backed,
        };
        Self { backed, ..self }
    }

    /// Device and inode of its file.
    pub const fn file(&self) -> Option<(Dev, u64)> {
        match self.backed {
            Backed::File { dev, inode, .. } => Some((dev, inode)),
            Backed::Anonymous | Backed::UnknownFile => None,
        }
    }

    /// Whether both may be the same: an unknown file may be any file, or none
    /// that is shown.
    fn agrees(&self, other: &Self) -> bool {
        let files = self.backed == other.backed
            || self.backed == Backed::UnknownFile
            || other.backed == Backed::UnknownFile;
        files && self.prot == other.prot && self.shared == other.shared
    }
}

/// The address space's mapped ranges. Neighbours that a single range can
/// describe are one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    entries: BTreeMap<u64, Entry>,
    total_bytes: u64,
    /// Entries whose file is unknown.
    unknown_files: usize,
}

/// A [`Mapping`] and its end, packed: address spaces have 65,530 of them and
/// more, and there are many address spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    end: u64,
    /// 0 but for a file.
    inode: u64,
    /// 0 but for a file.
    offset: u64,
    /// 0 but for a file.
    dev: Dev,
    prot: u8,
    shared: bool,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Anonymous,
    File,
    UnknownFile,
}

const _: () = assert!(size_of::<(u64, Entry)>() <= 40);

impl Entry {
    fn new(end: u64, mapping: Mapping) -> Self {
        let (kind, dev, inode, offset) = match mapping.backed {
            Backed::Anonymous => (Kind::Anonymous, Dev(0), 0, 0),
            Backed::File { dev, inode, offset } => (Kind::File, dev, inode, offset),
            Backed::UnknownFile => (Kind::UnknownFile, Dev(0), 0, 0),
        };
        Self {
            end,
            inode,
            offset,
            dev,
            prot: (mapping.prot.0 & 7) as u8,
            shared: mapping.shared,
            kind,
        }
    }

    fn mapping(&self) -> Mapping {
        Mapping {
            prot: Prot(self.prot.into()),
            shared: self.shared,
            backed: match self.kind {
                Kind::Anonymous => Backed::Anonymous,
                Kind::File => Backed::File {
                    dev: self.dev,
                    inode: self.inode,
                    offset: self.offset,
                },
                Kind::UnknownFile => Backed::UnknownFile,
            },
        }
    }

    /// What `next`, which begins at this one's end, would be if it were part of
    /// this one that begins at `start`.
    fn goes_on_as(&self, start: u64, next: &Self) -> bool {
        *next == Self::new(next.end, self.mapping().further(self.end - start))
    }
}

impl Ranges {
    /// Maps `range`, whatever was there.
    pub fn set(&mut self, range: Range<u64>, mapping: Mapping) {
        if range.is_empty() {
            return;
        }
        self.clear(range.clone());
        self.insert(range.start, Entry::new(range.end, mapping));
        self.join(range.end);
        self.join(range.start);
    }

    /// Unmaps `range`.
    pub fn clear(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.cut(range.start);
        self.cut(range.end);
        for (start, entry) in self.entries.extract_if(range, |_, _| true) {
            self.total_bytes -= entry.end - start;
            self.unknown_files -= usize::from(entry.kind == Kind::UnknownFile);
        }
    }

    /// Gives what is mapped in `range` another protection.
    pub fn protect(&mut self, range: Range<u64>, prot: Prot) {
        if range.is_empty() {
            return;
        }
        self.cut(range.start);
        self.cut(range.end);
        let mut borders = Vec::new();
        for (&start, entry) in self.entries.range_mut(range.clone()) {
            entry.prot = (prot.0 & 7) as u8;
            borders.push(start);
        }
        borders.push(range.end);
        for border in borders {
            self.join(border);
        }
    }

    /// What mremap(2) does: what is mapped in `old` goes to `new`, whose first
    /// bytes it takes; a tail that finds no room is dropped, and where there is
    /// more room, what is at the end of `old` goes on. What was in `new` before
    /// is replaced; `old` is left mapped with `keep_old`, or where `new` covers it.
    ///
    /// Returns whether `old` was one mapping throughout. Where it was not and
    /// the mapping grows or moves, the kernel may do otherwise.
    pub fn move_to(&mut self, old: Range<u64>, new: Range<u64>, keep_old: bool) -> bool {
        let (old_bytes, new_bytes) = (length(&old), length(&new));
        let areas: Vec<Area> = self.within(old.clone()).collect();
        let uniform = areas.len() == 1 && areas.first().is_some_and(|(range, _)| *range == old);
        if new.start == old.start && new_bytes <= old_bytes {
            // In place nothing but the tail can change.
            self.clear(new.end..old.end);
            return true;
        }
        if !keep_old {
            self.clear(old.clone());
        }
        self.clear(new.clone());
        for (range, mapping) in &areas {
            let begin = range.start - old.start;
            let last = range.end == old.end;
            let end = if last {
                new_bytes
            } else {
                range.end - old.start
            };
            let (begin, end) = (begin.min(new_bytes), end.min(new_bytes));
            self.set(new.start + begin..new.start + end, *mapping);
        }
        uniform
    }

    /// What mremap(2) does with an old length of 0: maps what is mapped at `at`,
    /// and what would follow it, a second time. Returns whether anything is there.
    pub fn duplicate(&mut self, at: u64, new: Range<u64>) -> bool {
        match self.get(at) {
            Some(mapping) => {
                self.set(new, mapping);
                true
            }
            None => false,
        }
    }

    /// What is mapped at an address; a file's offset is that of the address.
    pub fn get(&self, addr: u64) -> Option<Mapping> {
        let (start, entry) = self.entry_at(addr)?;
        Some(entry.mapping().further(addr - start))
    }

    /// All of them, by address.
    pub fn iter(&self) -> impl Iterator<Item = Area> + Clone {
        self.entries
            .iter()
            .map(|(&start, entry)| (start..entry.end, entry.mapping()))
    }

    /// What is mapped in `range`, cut off at its ends.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Area> {
        let first = self
            .entry_at(range.start)
            .map_or(range.start, |(start, _)| start);
        // A range that ends before it begins has nothing in it, but panics.
        let last = range.end.max(first);
        self.entries
            .range(first..last)
            .map(move |(&start, entry)| {
                let from = start.max(range.start);
                let to = entry.end.min(range.end);
                (from..to, entry.mapping().further(from - start))
            })
            .filter(|(range, _)| !range.is_empty())
    }

    /// Number of ranges. Not of VMAs: neighbours that are alike are one here.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all of them.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Whether the file of any is unknown.
    pub fn has_unknown_files(&self) -> bool {
        self.unknown_files != 0
    }

    /// Where the two say different things, page by page, by address. An
    /// unknown file differs from none.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut differences = Vec::new();
        let mut these = self.iter().peekable();
        let mut others = other.iter().peekable();
        let mut at = 0;
        loop {
            let this = next_from(&mut these, at);
            let other = next_from(&mut others, at);
            // Up to the nearest border of either, both are uniform.
            let Some(end) = border(&this, at)
                .into_iter()
                .chain(border(&other, at))
                .min()
            else {
                return differences;
            };
            let this = mapped_at(this, at);
            let other = mapped_at(other, at);
            let agree = match (&this, &other) {
                (Some(this), Some(other)) => this.agrees(other),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !agree {
                differences.push(Difference {
                    range: at..end,
                    this,
                    other,
                });
            }
            at = end;
        }
    }

    fn entry_at(&self, addr: u64) -> Option<(u64, &Entry)> {
        let (&start, entry) = self.entries.range(..=addr).next_back()?;
        (addr < entry.end).then_some((start, entry))
    }

    /// Adds an entry where nothing is.
    fn insert(&mut self, start: u64, entry: Entry) {
        self.total_bytes += entry.end - start;
        self.unknown_files += usize::from(entry.kind == Kind::UnknownFile);
        self.entries.insert(start, entry);
    }

    /// Makes `at` a border, if it is inside an entry.
    fn cut(&mut self, at: u64) {
        let Some((&start, entry)) = self.entries.range_mut(..at).next_back() else {
            return;
        };
        if entry.end <= at {
            return;
        }
        let tail = Entry::new(entry.end, entry.mapping().further(at - start));
        entry.end = at;
        self.unknown_files += usize::from(tail.kind == Kind::UnknownFile);
        self.entries.insert(at, tail);
    }

    /// Makes one entry of those that meet at `at`, if they are alike.
    fn join(&mut self, at: u64) {
        let Some(&next) = self.entries.get(&at) else {
            return;
        };
        let Some((&start, entry)) = self.entries.range_mut(..at).next_back() else {
            return;
        };
        if entry.end != at || !entry.goes_on_as(start, &next) {
            return;
        }
        entry.end = next.end;
        self.unknown_files -= usize::from(next.kind == Kind::UnknownFile);
        self.entries.remove(&at);
    }
}

/// As if each was [`set`](Ranges::set), but fast as long as they come by address.
impl FromIterator<Area> for Ranges {
    fn from_iter<T: IntoIterator<Item = Area>>(areas: T) -> Self {
        let mut areas = areas.into_iter();
        let mut entries: Vec<(u64, Entry)> = Vec::new();
        let mut unordered = None;
        for (range, mapping) in areas.by_ref() {
            let entry = Entry::new(range.end, mapping);
            match entries.last_mut() {
                _ if range.is_empty() => {}
                Some((_, last)) if last.end > range.start => {
                    unordered = Some((range, mapping));
                    break;
                }
                Some((start, last))
                    if last.end == range.start && last.goes_on_as(*start, &entry) =>
                {
                    last.end = entry.end;
                }
                Some(_) | None => entries.push((range.start, entry)),
            }
        }
        let mut ranges = Self {
            total_bytes: entries.iter().map(|(start, entry)| entry.end - start).sum(),
            unknown_files: entries
                .iter()
                .filter(|(_, entry)| entry.kind == Kind::UnknownFile)
                .count(),
            // Built as a whole, several times as fast as one by one.
            entries: entries.into_iter().collect(),
        };
        for (range, mapping) in unordered.into_iter().chain(areas) {
            ranges.set(range, mapping);
        }
        ranges
    }
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// The first area that does not end at or before `at`.
fn next_from(areas: &mut iter::Peekable<impl Iterator<Item = Area>>, at: u64) -> Option<Area> {
    while areas.next_if(|(range, _)| range.end <= at).is_some() {}
    areas.peek().cloned()
}

/// The nearest border of an area above `at`.
fn border(area: &Option<Area>, at: u64) -> Option<u64> {
    let (range, _) = area.as_ref()?;
    Some(if range.start > at {
        range.start
    } else {
        range.end
    })
}

fn mapped_at(area: Option<Area>, at: u64) -> Option<Mapping> {
    let (range, mapping) = area?;
    let inside = at.checked_sub(range.start)?;
    Some(mapping.further(inside))
}

#[cfg(test)]
mod tests;

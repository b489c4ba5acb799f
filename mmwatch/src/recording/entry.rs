//! What a frame of events holds: records as the ring lent them, and what else
//! is to be known from then on.

use mmwatch_common::identity::Identity;

use super::layout::{self, Bytes};
use crate::{explain::Limits, source::ProcessKey};

/// Bytes before an entry: its kind, a zero, its length.
const HEAD_BYTES: usize = 4;

/// One entry. An entry is about all that follow it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Entry<'a> {
    /// A record, byte for byte.
    Record(&'a [u8]),
    /// A record that was met before, said again for who has not read that.
    Again(&'a [u8]),
    /// Whose a process is.
    Identity(ProcessKey, Identity),
    /// What there is to say of the cgroup with this id: see [`super::cgroup`].
    Cgroup(u64, &'a str),
    /// What the kernel measures calls by.
    Limits(Limits),
    /// Something that came later than this mmwatch.
    Unknown,
}

/// On the wire.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Record = 0,
    Again = 1,
    Identity = 2,
    Cgroup = 3,
    Limits = 4,
}

/// Appends an entry. One that is longer than an entry can be, which no record
/// is, is left out.
pub(super) fn push(to: &mut Vec<u8>, entry: &Entry<'_>) {
    match entry {
        Entry::Record(bytes) => put(to, Kind::Record, |to| to.extend_from_slice(bytes)),
        Entry::Again(bytes) => put(to, Kind::Again, |to| to.extend_from_slice(bytes)),
        Entry::Identity(key, identity) => put(to, Kind::Identity, |to| {
            layout::put(to, key);
            layout::put(to, identity);
        }),
        Entry::Cgroup(id, path) => put(to, Kind::Cgroup, |to| {
            to.extend_from_slice(&id.to_le_bytes());
            to.extend_from_slice(path.as_bytes());
        }),
        Entry::Limits(limits) => put(to, Kind::Limits, |to| {
            // Numbers alone, so that it cannot fail.
            to.extend_from_slice(&serde_json::to_vec(limits).unwrap_or_default());
        }),
        Entry::Unknown => {}
    }
}

fn put(to: &mut Vec<u8>, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) {
    let start = to.len();
    to.extend_from_slice(&[kind as u8, 0, 0, 0]);
    write(to);
    let len = to.len() - start - HEAD_BYTES;
    match (
        u16::try_from(len),
        to.get_mut(start + 2..start + HEAD_BYTES),
    ) {
        (Ok(len), Some(place)) => place.copy_from_slice(&len.to_le_bytes()),
        _ => to.truncate(start),
    }
}

/// The entries of a frame, in order. Ends with an error where they are malformed.
pub(super) struct Entries<'a> {
    bytes: Bytes<'a>,
}

/// Bytes that are no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl<'a> Entries<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes: Bytes::new(bytes),
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let entry = parse(&mut self.bytes);
        if entry.is_none() {
            self.bytes = Bytes::new(&[]);
        }
        Some(entry.ok_or(Malformed))
    }
}

/// The first entry, and how many bytes it takes.
pub(super) fn first(bytes: &[u8]) -> Option<(Result<Entry<'_>, Malformed>, usize)> {
    let mut entries = Entries::new(bytes);
    let entry = entries.next()?;
    Some((entry, bytes.len() - entries.bytes.len()))
}

fn parse<'a>(bytes: &mut Bytes<'a>) -> Option<Entry<'a>> {
    let kind = bytes.u8()?;
    bytes.u8()?;
    let len = bytes.u16()?;
    let payload = bytes.take(len.into())?;
    let mut fields = Bytes::new(payload);
    let is = |wanted: Kind| kind == wanted as u8;
    Some(if is(Kind::Record) {
        Entry::Record(payload)
    } else if is(Kind::Again) {
        Entry::Again(payload)
    } else if is(Kind::Identity) {
        Entry::Identity(fields.value()?, fields.value()?)
    } else if is(Kind::Cgroup) {
        let id = fields.u64()?;
        Entry::Cgroup(id, str::from_utf8(fields.rest()).ok()?)
    } else if is(Kind::Limits) {
        let limits: Limits = serde_json::from_slice(payload).ok()?;
        Entry::Limits(Some(limits).filter(Limits::are_plausible)?)
    } else {
        Entry::Unknown
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Proc;

    #[test]
    fn entries_come_back_in_order() {
        let identity = Identity {
            cgroup_id: 1 << 40,
            pid_namespace: 5,
            namespace_tgid: 1,
        };
        let entries = [
            Entry::Cgroup(7, "/größe"),
            Entry::Identity(ProcessKey::new(1, 2), identity),
            Entry::Limits(Proc::at("/nowhere").limits()),
            Entry::Record(&[1, 2, 3]),
            Entry::Again(&[4]),
            Entry::Record(&[]),
        ];
        let mut bytes = Vec::new();
        for entry in &entries {
            push(&mut bytes, entry);
        }
        let read: Vec<_> = Entries::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(read, entries);
        let (entry, len) = first(&bytes).unwrap();
        assert_eq!((entry.unwrap(), len), (entries[0], 4 + 8 + 8));

        // Cut off anywhere, nothing is made up.
        for len in 0..bytes.len() {
            let read: Vec<_> = Entries::new(&bytes[..len]).collect();
            let whole = read.iter().flatten().count();
            assert!(whole < entries.len());
            for (one, other) in read.iter().flatten().zip(&entries) {
                assert_eq!(one, other);
            }
        }
    }

    #[test]
    fn entries_that_come_later_are_skipped() {
        let mut bytes = vec![99, 0, 2, 0, 1, 1];
        push(&mut bytes, &Entry::Record(&[9]));
        let read: Vec<_> = Entries::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(read, [Entry::Unknown, Entry::Record(&[9])]);
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut bytes = Vec::new();
        push(&mut bytes, &Entry::Cgroup(1, &"x".repeat(70_000)));
        assert!(bytes.is_empty());
    }
}

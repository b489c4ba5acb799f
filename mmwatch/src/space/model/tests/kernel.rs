//! A kernel that does things to one address space and tells of them.

use std::{num::NonZeroU64, ops::Range};

use super::*;
use crate::{
    event::{self, Brk, Cause, Dev, FileRef, Grow, Map, Op, Protect, Remap, Unmap},
    flags::{MapFlags, RemapFlags},
    sample,
};

pub(super) const PAGE: u64 = 4096;
/// Pages that the kernel of these tests uses.
pub(super) const PAGES: u64 = 64;
pub(super) const ID: SpaceId = SpaceId {
    mm: 1,
    born_boot_ns: 1,
};
/// Time between two sections.
pub(super) const STEP_NS: u64 = 1_000;

pub(super) fn anonymous(prot: u32) -> Mapping {
    Mapping {
        prot: Prot(prot),
        ..Mapping::HEAP
    }
}

pub(super) fn pages(range: Range<u64>) -> Range<u64> {
    range.start * PAGE..range.end * PAGE
}

pub(super) fn at(range: &Range<u64>) -> event::Range {
    let len_bytes = Some(range.end - range.start);
    event::Range {
        addr: Some(range.start),
        len_bytes,
        requested_len_bytes: len_bytes,
    }
}

/// A kernel with one address space: does things, tells of them, and knows what
/// was mapped after each section.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// After section 0, 1, 2…
    pub(super) after: Vec<Ranges>,
    pub(super) events: Vec<Event>,
}

impl Kernel {
    pub(super) fn new() -> Self {
        Self {
            after: vec![Ranges::default()],
            events: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> &Ranges {
        self.after.last().unwrap()
    }

    pub(super) fn last_section(&self) -> u64 {
        self.after.len() as u64 - 1
    }

    pub(super) fn boot_ns(&self) -> u64 {
        self.last_section() * STEP_NS
    }

    /// A section with these events, which had that effect.
    pub(super) fn section(&mut self, whats: Vec<(Cause, What)>, effect: impl FnOnce(&mut Ranges)) {
        let mut now = self.now().clone();
        let before = now.total_bytes();
        effect(&mut now);
        let delta = now.total_bytes().cast_signed() - before.cast_signed();
        let total_bytes = now.total_bytes();
        self.after.push(now);
        let last = whats.len() - 1;
        for (index, (cause, what)) in whats.into_iter().enumerate() {
            let mut event = sample::event(Op::Fork);
            event.boot_ns = self.boot_ns();
            event.cause = cause;
            event.more = index != last;
            event.space.id = Some(ID);
            event.space.section = NonZeroU64::new(self.last_section());
            event.space.total_bytes = Some(total_bytes);
            event.space.total_delta_bytes = (index == last).then_some(delta);
            event.space.vmas_removed = None;
            event.what = what;
            self.events.push(event);
        }
    }

    /// The unmap that goes before what replaces something.
    fn replaced(&self, cause: Cause, range: &Range<u64>) -> Vec<(Cause, What)> {
        if self.now().within(range.clone()).next().is_none() {
            return Vec::new();
        }
        vec![(cause, unmap(range))]
    }

    pub(super) fn map(&mut self, range: Range<u64>, mapping: Mapping) {
        let mut whats = self.replaced(Cause::MapFixed, &range);
        let file = match mapping.backed {
            Backed::File { dev, inode, offset } => Some((
                FileRef {
                    dev,
                    inode,
                    generation: 0,
                    path: None,
                },
                offset,
            )),
            Backed::Anonymous | Backed::UnknownFile => None,
        };
        let flags =
            MapFlags(if mapping.shared { 1 } else { 2 } | if file.is_none() { 0x20 } else { 0 });
        let vm_flags = u64::from(mapping.prot.0) | if mapping.shared { 0xf8 } else { 0x70 };
        let map = What::Map(Map {
            range: at(&range),
            prot: Some(mapping.prot),
            flags: Some(flags),
            vm_flags: Some(vm_flags),
            file,
        });
        whats.push((Cause::Mmap, map));
        self.section(whats, |ranges| ranges.set(range, mapping));
    }

    pub(super) fn unmap(&mut self, range: Range<u64>) {
        self.section(vec![(Cause::Munmap, unmap(&range))], |ranges| {
            ranges.clear(range);
        });
    }

    pub(super) fn protect(&mut self, range: Range<u64>, prot: u32) {
        let protect = What::Protect(Protect {
            range: at(&range),
            prot: Some(Prot(prot)),
            old_prot: None,
        });
        self.section(vec![(Cause::Mprotect, protect)], |ranges| {
            ranges.protect(range, Prot(prot));
        });
    }

    pub(super) fn remap(&mut self, old: Range<u64>, new: Range<u64>, flags: u32) {
        let mut whats = Vec::new();
        if old.start != new.start {
            whats = self.replaced(Cause::Mremap, &new);
        }
        let remap = What::Remap(Remap {
            range: at(&new),
            old_addr: Some(old.start),
            old_len_bytes: Some(old.end - old.start),
            flags: Some(RemapFlags(flags)),
        });
        whats.push((Cause::Mremap, remap));
        self.section(whats, |ranges| {
            if old.is_empty() {
                ranges.duplicate(old.start, new);
            } else {
                ranges.move_to(old, new, flags & 4 != 0);
            }
        });
    }

    pub(super) fn brk(&mut self, range: Range<u64>, grows: bool) {
        let brk = What::Brk(Brk {
            range: at(&range),
            requested_addr: None,
        });
        self.section(vec![(Cause::Brk, brk)], |ranges| {
            if grows {
                ranges.set(range, Mapping::HEAP);
            } else {
                ranges.clear(range);
            }
        });
    }

    /// A stack grows; the event does not tell which.
    pub(super) fn grow(&mut self, range: Range<u64>) {
        let before = self.now().total_bytes();
        self.section(
            vec![(Cause::Fault, What::Grow(Grow { len_bytes: 0 }))],
            |ranges| {
                ranges.set(range, anonymous(3));
            },
        );
        let len_bytes = self.now().total_bytes().saturating_sub(before);
        self.events.last_mut().unwrap().what = What::Grow(Grow { len_bytes });
    }

    pub(super) fn last_event(&mut self) -> &mut Event {
        self.events.last_mut().unwrap()
    }

    /// A model that has been told everything, from the beginning on.
    pub(super) fn model(&self) -> Space {
        let mut space = Space::new(ID);
        assert_eq!(
            space.heal(Read::between(0, 0), Ranges::default(), 0),
            Healed::Exact
        );
        for event in &self.events {
            space.note(event);
        }
        space
    }
}

pub(super) fn unmap(range: &Range<u64>) -> What {
    What::Unmap(Unmap {
        range: at(range),
        span_bytes: Some(range.end - range.start),
        vmas_removed: None,
    })
}

pub(super) fn file(inode: u64, page: u64, shared: bool) -> Mapping {
    Mapping {
        backed: Backed::File {
            dev: Dev(1),
            inode,
            offset: page * PAGE,
        },
        shared,
        ..anonymous(1)
    }
}

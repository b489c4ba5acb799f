//! What a process had mapped, by its recorded events alone: nothing is left of
//! it to be read.
//!
//! What was mapped before the recording, and what no event told, is not there.

use std::{fmt::Write as _, mem, ops::Range, sync::Arc};

use rustc_hash::FxHashMap;

use super::{AddressSpace, History, Lock, Vma, Watch, history, parse_maps, segment};
use crate::{
    event::{Comm, Dev, Event, SpaceId, What},
    space::{Backed, Change, MalformedLine, Mapping, Ranges},
};

/// Events kept until they are applied in the order of their sections, at most.
const MAX_PENDING: usize = 1 << 16;

/// The address space of a process: of its last program, as that left it.
#[derive(Debug, Default)]
pub struct Past {
    comm: Comm,
    space: Option<SpaceId>,
    ranges: Ranges,
    history: History,
    /// Where the heap was seen.
    heap: Option<Range<u64>>,
    /// Paths of the files that were mapped.
    names: FxHashMap<(Dev, u64), Arc<str>>,
    exe: Option<Arc<str>>,
    pending: Vec<Pending>,
}

/// An event that waits for its turn.
#[derive(Debug)]
struct Pending {
    space: SpaceId,
    section: u64,
    change: Change,
}

impl Past {
    /// Takes an event of the process.
    pub fn note(&mut self, event: &Event) {
        if let Some(file) = event.file()
            && let Some(path) = &file.path
        {
            let path = Arc::clone(path);
            if let What::Exec(_) = event.what {
                self.exe = Some(Arc::clone(&path));
            }
            self.names.insert((file.dev, file.inode), path);
        }
        let Some(space) = event.space.id else {
            return;
        };
        // What is left at the end is what there was to be seen.
        if let What::Exit(_) = event.what {
            return;
        }
        self.comm = event.actor.comm;
        self.history.note(event);
        self.pending.push(Pending {
            space,
            section: event.space.section.map_or(0, u64::from),
            change: Change::of(event),
        });
        if self.pending.len() >= MAX_PENDING {
            self.apply();
        }
    }

    /// Whether anything is known of it.
    pub fn is_empty(&self) -> bool {
        self.space.is_none() && self.pending.is_empty()
    }

    fn apply(&mut self) {
        self.history.apply();
        let mut pending = mem::take(&mut self.pending);
        pending.sort_by_key(|event| (event.space.born_boot_ns, event.section));
        for event in pending {
            if self.space != Some(event.space) {
                // The process became another program.
                self.space = Some(event.space);
                self.ranges = Ranges::default();
                self.heap = None;
            }
            self.change(event.change);
        }
    }

    /// As the model of an address space does, but that nothing can be read again.
    fn change(&mut self, change: Change) {
        let ranges = &mut self.ranges;
        match change {
            Change::Set(range, mapping) => ranges.set(range, mapping),
            Change::Clear(range) | Change::Detach(range) => ranges.clear(range),
            Change::Protect(range, prot) | Change::ProtectUpToHole(range, prot) => {
                ranges.protect(range, prot);
            }
            Change::Move { old, new, keep_old } => {
                if !ranges.move_to(old.clone(), new.clone(), keep_old) {
                    // Of several, or of what was not seen.
                    if !keep_old {
                        ranges.clear(old);
                    }
                    ranges.clear(new);
                }
            }
            Change::Duplicate { at, new } => {
                if !ranges.duplicate(at, new.clone()) {
                    ranges.clear(new);
                }
            }
            Change::Heap(range) => {
                let (start, end) = (range.start, range.end);
                self.heap = Some(match &self.heap {
                    Some(heap) => heap.start.min(start)..heap.end.max(end),
                    None => start..end,
                });
                ranges.set(range, Mapping::HEAP);
            }
            Change::Nothing | Change::Unexplained(_) => {}
        }
    }

    /// As `/proc/PID/maps` would have it.
    fn text(&mut self) -> String {
        self.apply();
        let mut text = String::new();
        for (range, mapping) in self.ranges.iter() {
            let (dev, inode, offset) = match mapping.backed {
                Backed::File { dev, inode, offset } => (dev, inode, offset),
                Backed::Anonymous | Backed::UnknownFile => (Dev(0), 0, 0),
            };
            let is_heap = mapping.backed == Backed::Anonymous
                && self
                    .heap
                    .as_ref()
                    .is_some_and(|heap| heap.start <= range.start && range.end <= heap.end);
            let name = match self.names.get(&(dev, inode)) {
                Some(path) => path.replace('\n', "\\012"),
                None if is_heap => "[heap]".to_owned(),
                None => String::new(),
            };
            let kind = if mapping.shared { 's' } else { 'p' };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{:08x}-{:08x} {}{kind} {offset:08x} {dev} {inode} {name}",
                range.start,
                range.end,
                mapping.prot.letters(),
            );
        }
        text
    }

    /// The address space at the end, and what became of each part of it, for
    /// whoever shows such.
    ///
    /// # Errors
    ///
    /// What `show` returns; inside of it a line that could not be read back.
    pub fn show<T>(
        &mut self,
        pid: u32,
        watch: Watch,
        page_bytes: u64,
        show: impl FnOnce(&AddressSpace<'_>) -> T,
    ) -> Result<T, MalformedLine> {
        let text = self.text();
        let clues = segment::Clues {
            exe: self.exe.as_ref().map(|path| path.as_bytes().to_vec()),
            page_bytes,
            ..segment::Clues::default()
        };
        let mut vmas: Vec<Vma<'_>> = segment::classify(parse_maps(text.as_bytes())?, &clues);
        history::add_history(&mut vmas, &self.history);
        Ok(show(&AddressSpace {
            pid,
            comm: self.comm,
            lock: Lock::Recording,
            vmas,
            watch: Some(watch),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::{
        event::{Backing, Cause, Op},
        flags::MapFlags,
        sample,
    };

    const ADDR: u64 = 0x7f12_3456_7000;

    /// The sample of an operation in this section.
    fn event(op: Op, section: u64) -> Event {
        let mut event = sample::event(op);
        event.space.section = NonZeroU64::new(section);
        event
    }

    fn shown(past: &mut Past) -> Vec<(String, Backing, usize)> {
        let watch = Watch {
            since_boot_ns: 1,
            now_boot_ns: 2,
            lost_events: 0,
        };
        let lines = past.show(100, watch, 4096, |space| {
            assert_eq!((space.pid, space.lock), (100, Lock::Recording));
            space
                .vmas
                .iter()
                .map(|vma| {
                    let line = &vma.line;
                    let text = format!(
                        "{:x}-{:x} {} {:x} {}",
                        line.range.start,
                        line.range.end,
                        line.prot.letters(),
                        line.offset,
                        String::from_utf8_lossy(line.name)
                    );
                    (text, vma.backing, vma.lives.len())
                })
                .collect()
        });
        lines.unwrap()
    }

    #[test]
    fn events_make_an_address_space() {
        let mut past = Past::default();
        assert!(past.is_empty());
        // In the order of the ring, which is not that of the sections.
        let mut protect = event(Op::Protect, 3);
        if let What::Protect(protect) = &mut protect.what {
            protect.range.addr = Some(ADDR + 4096);
        }
        past.note(&protect);
        past.note(&event(Op::Map, 2));
        past.note(&event(Op::Brk, 4));
        assert!(!past.is_empty());
        past.note(&event(Op::Exit, 5));
        assert_eq!(
            shown(&mut past),
            [
                (
                    "555500000000-555500021000 rw- 0 [heap]".to_owned(),
                    Backing::PrivateAnonymous,
                    1
                ),
                (
                    format!("{ADDR:x}-{:x} rw- 1000 /usr/lib/libc.so.6", ADDR + 4096),
                    Backing::PrivateFile,
                    1
                ),
                (
                    format!(
                        "{:x}-{:x} r-- 2000 /usr/lib/libc.so.6",
                        ADDR + 4096,
                        ADDR + 8192
                    ),
                    Backing::PrivateFile,
                    1
                ),
            ]
        );
    }

    #[test]
    fn what_was_unmapped_is_gone_and_another_program_begins_anew() {
        let mut past = Past::default();
        past.note(&event(Op::Map, 1));
        past.note(&event(Op::Unmap, 2));
        assert_eq!(shown(&mut past), []);

        past.note(&event(Op::Map, 3));
        let mut anonymous = event(Op::Map, 1);
        anonymous.space.id = Some(SpaceId {
            mm: 7,
            born_boot_ns: 9_000,
        });
        anonymous.cause = Cause::Mmap;
        if let What::Map(map) = &mut anonymous.what {
            map.flags = Some(MapFlags(0x22));
            map.file = None;
        }
        past.note(&anonymous);
        let want = format!("{ADDR:x}-{:x} rw- 0 ", ADDR + 8192);
        assert_eq!(shown(&mut past), [(want, Backing::PrivateAnonymous, 1)]);
    }

    #[test]
    fn names_are_told_as_the_kernel_would() {
        let mut past = Past::default();
        let mut map = event(Op::Map, 1);
        if let What::Map(map) = &mut map.what
            && let Some((file, _)) = &mut map.file
        {
            file.path = Some("/tmp/a\nb c".into());
        }
        past.note(&map);
        let shown = shown(&mut past);
        assert!(shown[0].0.ends_with(r" /tmp/a\012b c"), "{shown:?}");
    }
}

//! A recording as a source: lends the records that were written, and says what
//! the kernel kept then.

use std::{
    fs::File,
    io::{self, BufReader},
    ops::Range,
    path::Path,
    sync::Arc,
};

use mmwatch_common::sums::Sums;
use rustc_hash::FxHashMap;

use super::{
    cgroup,
    entry::{self, Entry, Malformed},
    frame::{Kind, Next, NotReadable, Unpacker},
    gap::{Ending, Gap, Replay, Why},
    header::Header,
    look::Kept,
};
use crate::{
    clock::WallClock,
    error::{Error, Result},
    explain::Limits,
    identity::Cgroup,
    source::{
        HookCounters, Identity, KernelCounters, Listed, ProcessKey, ProcessSums, Source, Wake,
    },
};

/// A file, or whatever frames are read from.
type Frames = Unpacker<BufReader<File>>;

/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;

/// Opens a recording and reads its header.
pub(super) fn open(path: &Path) -> Result<(Header, Frames)> {
    let shown = path.display();
    let file = File::open(path).map_err(Error::io(format!("opening {shown}")))?;
    let reading = || Error::io(format!("reading {shown}"));
    let file = BufReader::with_capacity(READ_BYTES, file);
    let mut frames = match Unpacker::new(file).map_err(reading())? {
        Ok(frames) => frames,
        Err(NotReadable::Foreign) => {
            return Err(Error::Usage(format!(
                "{shown} is no recording; `mmwatch record -o FILE` makes one"
            )));
        }
        Err(NotReadable::Newer(version)) => {
            return Err(Error::Usage(format!(
                "{shown} is a recording of format {version}, which is newer than this mmwatch; \
                 read it with the mmwatch that recorded it"
            )));
        }
    };
    match frames.next().map_err(reading())? {
        Next::Frame(Some(Kind::Header)) => {
            let header = Header::parse(frames.payload()).map_err(|what| {
                Error::Usage(format!(
                    "{shown} is a recording that cannot be read: {what}"
                ))
            })?;
            Ok((header, frames))
        }
        _ => Err(Error::Usage(format!(
            "{shown} is a recording that ends before it says anything; nothing can be read from it"
        ))),
    }
}

/// Reads a recording.
pub struct Recording {
    header: Header,
    frames: Frames,
    /// Why there is nothing more to come; `None` until then.
    ending: Option<Ending>,
    /// The entries of a frame, and how many bytes of them were read.
    entries: Vec<u8>,
    read_bytes: usize,
    /// Where the recording is, ns of the boot clock.
    boot_ns: u64,
    /// Whether all records came before the last look.
    is_closed: bool,
    counters: KernelCounters,
    kept: Kept,
    /// What the kernel kept before this file, where it is not the first.
    base: Option<Base>,
    identities: FxHashMap<ProcessKey, Identity>,
    cgroups: FxHashMap<u64, Arc<Cgroup>>,
    limits: Limits,
    gaps: u64,
    lost_events: u64,
    lost_records: u64,
    repeated: u64,
}

struct Base {
    counters: KernelCounters,
    sums: FxHashMap<ProcessKey, Sums>,
}

impl Recording {
    /// Opens a recording.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for what is none, or not of this mmwatch's kind;
    /// [`Error::Io`] where it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let (header, frames) = open(path)?;
        let counters = header.counters().map_err(|what| {
            Error::Usage(format!(
                "{} is a recording that cannot be read: {what}",
                path.display()
            ))
        })?;
        Ok(Self {
            boot_ns: header.start_boot_ns,
            limits: header.limits,
            header,
            frames,
            ending: None,
            entries: Vec::new(),
            read_bytes: 0,
            is_closed: false,
            counters,
            kept: Kept::default(),
            base: None,
            identities: FxHashMap::default(),
            cgroups: FxHashMap::default(),
            gaps: 0,
            lost_events: 0,
            lost_records: 0,
            repeated: 0,
        })
    }

    /// What holds for the whole file.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The clock that shows when something was recorded.
    pub const fn clock(&self) -> WallClock {
        WallClock::with_offset(self.header.boot_at_unix_ns)
    }

    /// Reads frames up to one that there is something to be done with.
    fn next_wake(&mut self) -> io::Result<Wake> {
        let mut why = None;
        while self.ending.is_none() {
            let kind = match self.frames.next()? {
                Next::Frame(Some(kind)) => kind,
                Next::Frame(None) => continue,
                Next::Nothing => {
                    self.ending = Some(why.map_or(Ending::Open, Ending::On));
                    break;
                }
                Next::Broken(broken) => {
                    self.ending = Some(Ending::Broken(broken));
                    break;
                }
            };
            let (understood, wake) = match kind {
                Kind::Header => (Some(()), None),
                Kind::Events => (self.events(), Some(Wake::Records)),
                Kind::Look => (self.look(), Some(Wake::Look)),
                Kind::Gap => (self.gap(), None),
                Kind::End => {
                    let end = Why::parse(self.frames.payload());
                    if let Some((ended, boot_ns)) = end {
                        why = Some(ended);
                        self.boot_ns = self.boot_ns.max(boot_ns);
                    }
                    (end.map(|_| ()), None)
                }
            };
            match (understood, wake) {
                (Some(()), Some(wake)) => return Ok(wake),
                (Some(()), None) => {}
                (None, _) => self.malformed(),
            }
        }
        Ok(Wake::End)
    }

    /// A frame is whole, but does not say what it should.
    fn malformed(&mut self) {
        self.entries.clear();
        self.ending = Some(Ending::Broken(self.frames.malformed()));
    }

    fn events(&mut self) -> Option<()> {
        self.frames.swap_payload(&mut self.entries);
        let until = self.entries.first_chunk()?;
        self.boot_ns = self.boot_ns.max(u64::from_le_bytes(*until));
        self.read_bytes = until.len();
        Some(())
    }

    fn look(&mut self) -> Option<()> {
        let at = self.kept.apply(self.frames.payload(), &mut self.counters)?;
        self.is_closed = at.closed;
        // The first one of a later file says what was before it.
        if self.header.part > 0 && self.base.is_none() {
            let sums = self.kept.sums();
            self.base = Some(Base {
                counters: self.counters.clone(),
                sums: sums.map(|(key, process)| (key, process.sums)).collect(),
            });
        }
        self.boot_ns = at.boot_ns;
        Some(())
    }

    fn gap(&mut self) -> Option<()> {
        let gap = Gap::parse(self.frames.payload())?;
        self.gaps += 1;
        self.lost_events = self.lost_events.saturating_add(gap.events);
        self.lost_records = self.lost_records.saturating_add(gap.records);
        Some(())
    }

    /// The next entry's place, if it is a record; the others are taken in.
    fn next_record(&mut self) -> Option<Range<usize>> {
        loop {
            let rest = self.entries.get(self.read_bytes..)?;
            let (entry, len) = entry::first(rest)?;
            let end = self.read_bytes + len;
            self.read_bytes = end;
            match entry {
                Ok(Entry::Record(record)) => return Some(end - record.len()..end),
                Ok(Entry::Again(record)) => {
                    self.repeated += 1;
                    return Some(end - record.len()..end);
                }
                Ok(Entry::Identity(key, identity)) => {
                    self.identities.insert(key, identity);
                }
                Ok(Entry::Cgroup(id, text)) => {
                    if let Some(cgroup) = cgroup::of_text(text) {
                        self.cgroups.insert(id, Arc::new(cgroup));
                    }
                }
                Ok(Entry::Limits(limits)) => self.limits = limits,
                Ok(Entry::Unknown) => {}
                Err(Malformed) => {
                    self.malformed();
                    return None;
                }
            }
        }
    }
}

impl Source for Recording {
    async fn ready(&mut self) -> io::Result<Wake> {
        self.next_wake()
    }

    fn next(&mut self) -> Option<&[u8]> {
        let place = self.next_record()?;
        self.entries.get(place)
    }

    fn counters(&mut self) -> Result<KernelCounters> {
        let mut counters = self.counters.clone();
        if let Some(base) = &self.base {
            for (hook, base) in counters.hooks.iter_mut().zip(&base.counters.hooks) {
                subtract(hook, base);
            }
        }
        Ok(counters)
    }

    fn sums(&mut self) -> Result<Vec<(ProcessKey, ProcessSums)>> {
        let before = |key| self.base.as_ref()?.sums.get(&key);
        let sums = self.kept.sums().map(|(key, process)| {
            let mut process = *process;
            if let Some(before) = before(key) {
                process.sums = process.sums.since(before);
            }
            (key, process)
        });
        Ok(sums.collect())
    }

    /// The next look says what was forgotten.
    fn forget(&mut self, key: ProcessKey) {
        self.identities.remove(&key);
    }

    fn processes(&mut self) -> Result<Vec<Listed>> {
        Ok(self.kept.listed().copied().collect())
    }

    fn identity(&mut self, key: ProcessKey) -> Option<Identity> {
        if let Some(identity) = self.identities.get(&key) {
            return Some(*identity);
        }
        let identity = self.kept.process(key)?.identity;
        (identity != Identity::default()).then_some(identity)
    }

    fn cgroup_path(&mut self, id: u64) -> Option<String> {
        Some(self.cgroups.get(&id)?.path.clone())
    }

    fn tells_order(&self) -> bool {
        self.header.tells_order
    }

    fn stop(&mut self) {}

    fn now(&mut self) -> Result<u64> {
        Ok(self.boot_ns)
    }

    fn limits(&mut self) -> Option<Limits> {
        Some(self.limits)
    }

    fn recorded_cgroup(&mut self, id: u64) -> Option<Arc<Cgroup>> {
        self.cgroups.get(&id).cloned()
    }

    fn replay(&self) -> Option<Replay> {
        Some(Replay {
            gaps: self.gaps,
            lost_events: self.lost_events,
            lost_records: self.lost_records,
            repeated: self.repeated,
            is_whole: self.is_closed
                && self.header.part == 0
                && matches!(self.ending, Some(Ending::On(_))),
            ending: self.ending.unwrap_or(Ending::Unread),
            sums_events: false,
        })
    }
}

/// Takes away what was counted before.
fn subtract(hook: &mut HookCounters, base: &HookCounters) {
    hook.ledger = hook.ledger.since(&base.ledger);
    hook.missed = hook
        .missed
        .map(|missed| missed.saturating_sub(base.missed.unwrap_or(0)));
}

//! The pipeline's end of a recording: puts records into blocks, and hands these
//! to the writer without ever waiting for it.

use std::{
    io, mem,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use mmwatch_common::identity::Identity;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    cgroup,
    destination::Destination,
    entry::{self, Entries, Entry},
    gap::{Cause, Gap},
    header::Header,
    look::Look,
    writer::{Block, Message, Outcome, Signals, Writer},
};
use crate::{
    churn::Churn,
    clock::boot_ns,
    decode,
    error::{Error, Result},
    event::{Event, What},
    explain::Limits,
    identity::Directory,
    source::{ProcessKey, Source},
};

/// Bytes of records after which a block is handed on, before a second is over.
const BLOCK_BYTES: usize = 256 << 10;

/// Blocks that wait for the writer, at most: 16 MiB.
const QUEUE: usize = 64;

/// Processes whose identity is remembered at most, and cgroups: then all are said
/// anew.
const MAX_SAID: usize = 1 << 16;

/// Bytes that are kept of blocks that found no room: what later ones refer to.
const MAX_CARRIED_BYTES: usize = 4 << 20;

/// Puts a recording together.
#[derive(Debug)]
pub struct Recorder {
    block: Block,
    /// The record that is looked at.
    held: Vec<u8>,
    queue: SyncSender<Message>,
    spare: Receiver<Vec<u8>>,
    /// After the queue, whose end ends it.
    writer: WriterThread,
    is_full: Arc<AtomicBool>,
    /// What found no room in the queue, and is not said yet.
    lost: Option<Gap>,
    /// Entries of lost blocks that later records refer to.
    carried: Vec<u8>,
    /// What is said already.
    processes: FxHashMap<ProcessKey, Identity>,
    directory: Directory,
    said_cgroups: FxHashSet<u64>,
    said_limits: Option<Limits>,
    /// Knows when the sums of a process are final.
    churn: Churn,
    /// Processes with final sums, and the time of the first look with these, until such a look
    /// is written.
    over: FxHashMap<ProcessKey, u64>,
    /// The time of the last look that was written, which the writer sets.
    written_boot_ns: Arc<AtomicU64>,
}

impl Recorder {
    /// Begins a recording; `directory` knows the cgroups.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where its beginning cannot be written.
    pub fn begin(destination: Destination, header: Header, directory: Directory) -> Result<Self> {
        let is_full = Arc::new(AtomicBool::new(false));
        let churn = Churn::new(header.start_boot_ns, header.limits.page_bytes);
        let said_limits = Some(header.limits);
        let (queue, messages) = sync_channel(QUEUE);
        let (give_back, spare) = sync_channel(QUEUE);
        let written_boot_ns = Arc::new(AtomicU64::new(0));
        let signals = Signals {
            is_full: Arc::clone(&is_full),
            written_boot_ns: Arc::clone(&written_boot_ns),
        };
        let writer = Writer::new(destination, header, signals, give_back)?;
        let writer = thread::Builder::new()
            .name("recorder".into())
            .spawn(move || writer.run(&messages))
            .map_err(Error::io("starting the recorder"))?;
        Ok(Self {
            block: Block::default(),
            held: Vec::new(),
            queue,
            spare,
            writer: WriterThread(Some(writer)),
            is_full,
            lost: None,
            carried: Vec::new(),
            processes: FxHashMap::default(),
            directory,
            said_cgroups: FxHashSet::default(),
            said_limits,
            churn,
            over: FxHashMap::default(),
            written_boot_ns,
        })
    }

    /// Whether there may be nothing more.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Takes a record as the ring lends it, to be kept once it was looked at.
    pub fn hold(&mut self, record: &[u8]) {
        self.held.clear();
        self.held.extend_from_slice(record);
    }

    /// Keeps the record that is held, which is no event.
    pub fn keep(&mut self) {
        self.make_room();
        entry::push(&mut self.block.entries, &Entry::Record(&self.held));
        self.block.records += 1;
    }

    /// Keeps the record that is held, which is this event. What it is to be read
    /// with comes before it; `limits` where it failed.
    pub fn keep_event(&mut self, event: &Event, limits: Option<Limits>, source: &mut impl Source) {
        self.make_room();
        if let Some(limits) = limits {
            self.say_limits(limits);
        }
        let key = ProcessKey::new(event.actor.tgid, event.actor.start_boot_ns);
        if let What::Exec(_) = event.what {
            self.processes.remove(&key);
        }
        if !self.processes.contains_key(&key)
            && let Some(identity) = source.identity(key)
        {
            if self.processes.len() >= MAX_SAID {
                self.processes.clear();
            }
            self.processes.insert(key, identity);
            self.say_cgroup(identity.cgroup_id, source);
            entry::push(&mut self.block.entries, &Entry::Identity(key, identity));
        }
        self.say_cgroup(event.actor.cgroup_id, source);
        entry::push(&mut self.block.entries, &Entry::Record(&self.held));
        self.block.records += 1;
        self.block.events += 1;
        if event.ends_process() {
            self.processes.remove(&key);
        }
    }

    fn say_limits(&mut self, limits: Limits) {
        if self.said_limits != Some(limits) {
            self.said_limits = Some(limits);
            entry::push(&mut self.block.entries, &Entry::Limits(limits));
        }
    }

    /// Says what there is to say of a cgroup, where it is known and was not said.
    fn say_cgroup(&mut self, id: u64, source: &mut impl Source) {
        if self.said_cgroups.len() >= MAX_SAID {
            self.said_cgroups.clear();
        }
        if !self.said_cgroups.insert(id) {
            return;
        }
        if let Some(cgroup) = self.directory.cgroup(id, source) {
            let text = cgroup::to_text(&cgroup);
            entry::push(&mut self.block.entries, &Entry::Cgroup(id, &text));
        }
    }

    /// Hands on what there is, and what the kernel keeps. Returns the processes whose sums are
    /// final and in the file, and may be forgotten there: until then each look has them, so that
    /// one that finds no room, or a full disk, costs nothing.
    pub fn look(
        &mut self,
        look: Look,
        limits: Limits,
        source: &mut impl Source,
    ) -> Vec<ProcessKey> {
        let over = self.prepare(&look, limits, source);
        for key in over {
            self.over.entry(key).or_insert(look.boot_ns);
        }
        self.send();
        // Where there is no room, the next one says what this one would have.
        let _ = self.queue.try_send(Message::Look(look));
        let written_boot_ns = self.written_boot_ns.load(Ordering::Relaxed);
        let is_written = |boot_ns: u64| boot_ns <= written_boot_ns;
        let written = self.over.extract_if(|_, boot_ns| is_written(*boot_ns));
        written.map(|(key, _)| key).collect()
    }

    /// Ends the recording after the programs had stopped and all records were
    /// kept, and waits until it is written.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the thread that writes is no more.
    pub fn finish(
        mut self,
        look: Look,
        limits: Limits,
        source: &mut impl Source,
    ) -> Result<Outcome> {
        let ended = || Error::io("writing the recording")(io::Error::other("its thread ended"));
        self.prepare(&look, limits, source);
        let block = self.take_block();
        // There is time now.
        for message in [
            Message::Block(block, self.lost.take()),
            Message::Finish(look),
        ] {
            self.queue.send(message).map_err(|_| ended())?;
        }
        let writer = self.writer.0.take().ok_or_else(ended)?;
        writer.join().map_err(|_| ended())
    }

    /// Says what there is to be known with a look.
    fn prepare(
        &mut self,
        look: &Look,
        limits: Limits,
        source: &mut impl Source,
    ) -> Vec<ProcessKey> {
        self.begin_block();
        self.say_limits(limits);
        for (_, process) in &look.sums {
            self.say_cgroup(process.identity.cgroup_id, source);
        }
        for row in &look.listed {
            self.say_cgroup(row.identity.cgroup_id, source);
        }
        let over = self.churn.update(look.boot_ns, &look.sums, &look.listed);
        self.churn.tick(look.boot_ns, 0, 0);
        over
    }

    /// Begins a block if there is none, and hands on one that is full.
    fn make_room(&mut self) {
        if self.block.entries.len() >= BLOCK_BYTES {
            self.send();
        }
        self.begin_block();
    }

    fn begin_block(&mut self) {
        if self.block.from_boot_ns == 0 {
            self.block.from_boot_ns = now();
            self.block.entries.append(&mut self.carried);
        }
    }

    fn take_block(&mut self) -> Block {
        let next = Block {
            entries: self.spare.try_recv().unwrap_or_default(),
            ..Block::default()
        };
        let mut block = mem::replace(&mut self.block, next);
        block.until_boot_ns = now();
        block
    }

    /// Hands on the block, unless it is empty.
    fn send(&mut self) {
        if self.block.entries.is_empty() && self.lost.is_none() {
            return;
        }
        let block = self.take_block();
        match self.queue.try_send(Message::Block(block, self.lost)) {
            Ok(()) => self.lost = None,
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => {
                if let Message::Block(block, _) = message {
                    self.lose(&block);
                }
            }
        }
    }

    /// Counts what is in a block as lost, but for what later records refer to.
    fn lose(&mut self, block: &Block) {
        let gap = block.gap(Cause::Slow);
        self.lost = Some(match self.lost {
            Some(lost) => lost.and(gap),
            None => gap,
        });
        for entry in Entries::new(&block.entries).flatten() {
            if self.carried.len() >= MAX_CARRIED_BYTES {
                return;
            }
            match entry {
                Entry::Record(record) if decode::path_of(record).is_some() => {
                    // The record itself is lost; what it says need not be.
                    entry::push(&mut self.carried, &Entry::Again(record));
                }
                Entry::Record(_) => {}
                other => entry::push(&mut self.carried, &other),
            }
        }
    }
}

/// The thread that writes. Whatever becomes of the watch, what was handed on is
/// written before it is over.
#[derive(Debug)]
struct WriterThread(Option<JoinHandle<Outcome>>);

impl Drop for WriterThread {
    fn drop(&mut self) {
        if let Some(writer) = self.0.take() {
            // That it panicked, it said itself.
            let _ = writer.join();
        }
    }
}

/// Of a clock that can always be read once it could.
fn now() -> u64 {
    boot_ns().unwrap_or(0)
}

#[cfg(test)]
mod tests;

//! Writes a recording, on a thread of its own: what is slow or fails here does
//! not hold up the reading of the ring.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender},
    },
    time::{Duration, Instant},
};

use super::{
    destination::Destination,
    dictionary::Dictionary,
    frame::{self, Kind, Packer},
    gap::{Cause, Gap, Why},
    header::Header,
    look::{Kept, Look},
};
use crate::error::{Error, Result};

/// Kept free below `--max-size` for what comes last: the final look, and the end.
const RESERVE_BYTES: u64 = 64 << 10;

/// Time between two attempts to write where nothing can be written.
const RETRY: Duration = Duration::from_millis(200);

/// Records on their way to the file.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// What there is to be known, as in a frame of events.
    pub(super) entries: Vec<u8>,
    /// When it was begun and ended, ns of the boot clock.
    pub(super) from_boot_ns: u64,
    pub(super) until_boot_ns: u64,
    /// Events among the records.
    pub(super) events: u64,
    /// Records among the entries.
    pub(super) records: u64,
}

impl Block {
    /// What is missing without it.
    pub(super) fn gap(&self, cause: Cause) -> Gap {
        Gap {
            from_boot_ns: self.from_boot_ns,
            until_boot_ns: self.until_boot_ns,
            events: self.events,
            records: self.records,
            cause,
        }
    }
}

/// What the writer is told.
pub(super) enum Message {
    /// Records, and what was lost before them.
    Block(Block, Option<Gap>),
    /// What the kernel kept.
    Look(Look),
    /// The last look.
    Finish(Look),
}

/// What came of a recording.
#[derive(Debug)]
pub struct Outcome {
    /// Events that were written.
    pub delivered: u64,
    /// Events that were not.
    pub dropped: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files that there are.
    pub files: usize,
    /// Why it ended.
    pub why: Why,
    /// What went wrong last, if anything did.
    pub failure: Option<io::Error>,
    /// Whether the file says that it ended.
    pub is_finished: bool,
}

/// What the writer says to the watch, which never waits for it.
#[derive(Debug)]
pub(super) struct Signals {
    /// Set once there may be nothing more.
    pub(super) is_full: Arc<AtomicBool>,
    /// The time of the last look that was written.
    pub(super) written_boot_ns: Arc<AtomicU64>,
}

pub(super) struct Writer {
    destination: Destination,
    header: Header,
    packer: Packer,
    dictionary: Dictionary,
    /// What the file's looks say so far.
    kept: Kept,
    /// The last look that was written.
    last_look: Look,
    /// What was lost and is not said in the file yet.
    gap: Option<Gap>,
    /// Whether something was lost that the dictionary has.
    is_behind: bool,
    /// Nothing can be written, it seems; when to try again.
    retry_at: Option<Instant>,
    delivered: u64,
    dropped: u64,
    failure: Option<io::Error>,
    signals: Signals,
    /// Where blocks go that are done with.
    spare: SyncSender<Vec<u8>>,
}

impl Writer {
    /// Begins the file.
    pub(super) fn new(
        destination: Destination,
        header: Header,
        signals: Signals,
        spare: SyncSender<Vec<u8>>,
    ) -> Result<Self> {
        let failed = format!("writing {}", destination.path().display());
        let counters = header.counters().map_err(Error::Kernel)?;
        let mut writer = Self {
            destination,
            packer: Packer::new().map_err(Error::io("starting zstd"))?,
            dictionary: Dictionary::default(),
            kept: Kept::default(),
            last_look: Look {
                boot_ns: header.start_boot_ns,
                counters,
                ..Look::default()
            },
            header,
            gap: None,
            is_behind: false,
            retry_at: None,
            delivered: 0,
            dropped: 0,
            failure: None,
            signals,
            spare,
        };
        let begin = |writer: &mut Self| {
            let begin = writer.begin()?;
            writer.destination.begin(&begin)
        };
        begin(&mut writer).map_err(Error::io(failed))?;
        Ok(writer)
    }

    /// Writes what it is told until the end.
    pub(super) fn run(mut self, messages: &Receiver<Message>) -> Outcome {
        while let Ok(message) = messages.recv() {
            match message {
                Message::Block(block, lost) => self.block(block, lost),
                Message::Look(look) => self.look(&look, RESERVE_BYTES),
                Message::Finish(look) => return self.finish(&look),
            }
        }
        // Whoever watched failed: the file ends as it is.
        self.outcome(Why::Finished, false)
    }

    fn block(&mut self, block: Block, lost: Option<Gap>) {
        if let Some(lost) = lost {
            self.lose(lost);
        }
        self.dictionary.note(&block.entries);
        let mut payload = block.until_boot_ns.to_le_bytes().to_vec();
        payload.extend_from_slice(&block.entries);
        match self.put(Kind::Events, &payload, RESERVE_BYTES) {
            Ok(()) => self.delivered += block.events,
            Err(cause) => {
                self.is_behind = true;
                self.lose(block.gap(cause));
            }
        }
        let Block { mut entries, .. } = block;
        entries.clear();
        // Nobody may be there any more to reuse it.
        let _ = self.spare.try_send(entries);
    }

    /// Writes how a look differs from the last one that was written.
    fn look(&mut self, look: &Look, reserve: u64) {
        let difference = self.kept.difference(look);
        // Where it fails, the next one says what this one would have.
        if self.put(Kind::Look, &difference, reserve).is_ok() {
            self.kept.note(look);
            self.last_look = look.clone();
            self.signals
                .written_boot_ns
                .store(look.boot_ns, Ordering::Relaxed);
        }
    }

    fn finish(mut self, look: &Look) -> Outcome {
        let why = if self.signals.is_full.load(Ordering::Relaxed) {
            Why::Full
        } else {
            Why::Finished
        };
        self.retry_at = None;
        self.look(look, 0);
        self.retry_at = None;
        let end = why.payload(look.boot_ns);
        let is_finished = self.put(Kind::End, &end, 0).is_ok();
        if let Err(error) = self.destination.sync() {
            self.failure = Some(error);
        }
        self.outcome(why, is_finished)
    }

    fn outcome(self, why: Why, is_finished: bool) -> Outcome {
        Outcome {
            delivered: self.delivered,
            dropped: self.dropped,
            bytes: self.destination.bytes(),
            files: self.destination.files(),
            why,
            failure: self.failure,
            is_finished,
        }
    }

    /// Notes that records are missing.
    fn lose(&mut self, lost: Gap) {
        self.dropped += lost.events;
        self.gap = Some(match self.gap {
            Some(gap) => gap.and(lost),
            None => lost,
        });
    }

    /// Writes a frame, after what has to be said before it.
    fn put(&mut self, kind: Kind, payload: &[u8], reserve: u64) -> Result<(), Cause> {
        if reserve != 0 && self.signals.is_full.load(Ordering::Relaxed) {
            return Err(Cause::Full);
        }
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return Err(self.failure.as_ref().map_or(Cause::Failed(0), Cause::of));
        }
        match self.try_put(kind, payload, reserve) {
            Ok(true) => {
                self.gap = None;
                self.is_behind = false;
                if self.retry_at.take().is_some() {
                    log::warn!(
                        "{} can be written again; {} events were lost",
                        self.destination.path().display(),
                        self.dropped
                    );
                }
                Ok(())
            }
            Ok(false) => {
                self.signals.is_full.store(true, Ordering::Relaxed);
                Err(Cause::Full)
            }
            Err(error) => {
                if self.retry_at.is_none() {
                    log::warn!(
                        "{} cannot be written ({error}); what happens until it can be is lost",
                        self.destination.path().display()
                    );
                }
                self.retry_at = Some(Instant::now() + RETRY);
                let cause = Cause::of(&error);
                self.failure = Some(error);
                Err(cause)
            }
        }
    }

    /// `false` where there may be nothing more.
    fn try_put(&mut self, kind: Kind, payload: &[u8], reserve: u64) -> io::Result<bool> {
        let mut frames = Vec::new();
        if let Some(gap) = self.gap {
            self.packer.pack(Kind::Gap, &gap.payload(), &mut frames)?;
        }
        let mut after_dictionary = Vec::new();
        self.packer.pack(kind, payload, &mut after_dictionary)?;

        let end = Why::Rotated.payload(self.last_look.boot_ns);
        let mut rotated = Vec::new();
        self.packer.pack(Kind::End, &end, &mut rotated)?;
        let bytes = frames.len() + after_dictionary.len() + rotated.len();
        if kind != Kind::End && self.destination.is_to_rotate(bytes) {
            return self.rotate(&rotated, &[frames, after_dictionary].concat(), reserve);
        }

        if self.is_behind {
            self.pack_dictionary(&mut frames)?;
        }
        frames.append(&mut after_dictionary);
        if !self.destination.make_room(frames.len() as u64 + reserve) {
            return Ok(false);
        }
        self.destination.append(&frames)?;
        Ok(true)
    }

    /// Goes on in another file.
    fn rotate(&mut self, rotated: &[u8], frames: &[u8], reserve: u64) -> io::Result<bool> {
        let before = self.header.clone();
        self.header.part += 1;
        self.header.start_boot_ns = self.last_look.boot_ns;
        self.kept = Kept::default();
        let result = self.begin().and_then(|mut begin| {
            begin.extend_from_slice(frames);
            let bytes = (rotated.len() + begin.len()) as u64;
            if !self.destination.make_room(bytes + reserve) {
                return Ok(false);
            }
            // That it goes on is good to know, and no more.
            let _ = self.destination.append(rotated);
            self.destination.rotate(&begin)?;
            Ok(true)
        });
        self.kept.note(&self.last_look);
        if !matches!(result, Ok(true)) {
            self.header = before;
        }
        result
    }

    /// What a file begins with: all that is to be known for what follows.
    fn begin(&mut self) -> io::Result<Vec<u8>> {
        let mut out = frame::preamble().to_vec();
        let header = self.header.payload()?;
        self.packer.pack(Kind::Header, &header, &mut out)?;
        if self.header.part > 0 {
            self.pack_dictionary(&mut out)?;
            let look = self.kept.difference(&self.last_look);
            self.packer.pack(Kind::Look, &look, &mut out)?;
        }
        Ok(out)
    }

    fn pack_dictionary(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let mut payload = self.last_look.boot_ns.to_le_bytes().to_vec();
        self.dictionary.say(&mut payload);
        self.packer.pack(Kind::Events, &payload, out)
    }
}

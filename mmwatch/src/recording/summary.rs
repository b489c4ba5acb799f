//! What a recording is, without what is in it: from when to when, and what is
//! missing.

use std::{fs, path::Path};

use super::{
    frame::{Kind, Next},
    gap::{Cause, Ending, Gap, Why},
    header::Header,
    look::Kept,
    reader,
};
use crate::{
    error::{Error, Result},
    source::KernelCounters,
};

/// Losses that are told one by one, at most.
const MAX_LOSSES: usize = 1000;

/// A recording from outside.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What holds for all of it.
    pub header: Header,
    /// Size of the file, bytes.
    pub bytes: u64,
    /// When its last frame was written, ns of the boot clock.
    pub until_boot_ns: u64,
    /// How it ended.
    pub ending: Ending,
    /// Events that are not in it, the first thousand times.
    pub losses: Vec<Loss>,
    /// How often it is that events are not in it.
    pub losses_count: u64,
}

/// Events that are missing in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Since when, ns of the boot clock.
    pub from_boot_ns: u64,
    /// Until when.
    pub until_boot_ns: u64,
    /// How many.
    pub events: u64,
    /// Why they were not written; `None` where they never came out of the kernel.
    pub cause: Option<Cause>,
}

impl Summary {
    /// Reads a whole file.
    ///
    /// # Errors
    ///
    /// As [`Recording::open`](super::Recording::open).
    pub fn of(path: &Path) -> Result<Self> {
        let (header, mut frames) = reader::open(path)?;
        let reading = || Error::io(format!("reading {}", path.display()));
        let bytes = fs::metadata(path).map_err(reading())?.len();
        let counters = header.counters().map_err(|what| {
            Error::Usage(format!(
                "{} is a recording that cannot be read: {what}",
                path.display()
            ))
        })?;
        let mut scan = Scan {
            counters,
            kept: Kept::default(),
            lost: 0,
            looked_boot_ns: header.start_boot_ns,
            why: None,
            is_base: header.part > 0,
        };
        let mut summary = Self {
            until_boot_ns: header.start_boot_ns,
            header,
            bytes,
            ending: Ending::Open,
            losses: Vec::new(),
            losses_count: 0,
        };
        summary.ending = loop {
            match frames.next().map_err(reading())? {
                Next::Frame(Some(kind)) => {
                    if scan.frame(&mut summary, kind, frames.payload()).is_none() {
                        break Ending::Broken(frames.malformed());
                    }
                }
                Next::Frame(None) => {}
                Next::Nothing => break scan.why.map_or(Ending::Open, Ending::On),
                Next::Broken(broken) => break Ending::Broken(broken),
            }
        };
        Ok(summary)
    }

    /// Length of what is recorded, ns.
    pub const fn elapsed_ns(&self) -> u64 {
        self.until_boot_ns.saturating_sub(self.header.start_boot_ns)
    }

    fn lose(&mut self, loss: Loss) {
        self.losses_count += 1;
        if self.losses.len() < MAX_LOSSES {
            self.losses.push(loss);
        }
    }
}

struct Scan {
    counters: KernelCounters,
    kept: Kept,
    /// Events lost in the kernel, by the last look, and when that was.
    lost: u64,
    looked_boot_ns: u64,
    why: Option<Why>,
    /// Whether the next look is of what was before this file.
    is_base: bool,
}

impl Scan {
    fn frame(&mut self, to: &mut Summary, kind: Kind, payload: &[u8]) -> Option<()> {
        match kind {
            Kind::Header => {}
            Kind::Events => {
                let until = payload.first_chunk()?;
                to.until_boot_ns = to.until_boot_ns.max(u64::from_le_bytes(*until));
            }
            Kind::Look => self.look(to, payload)?,
            Kind::Gap => {
                let gap = Gap::parse(payload)?;
                to.lose(Loss {
                    from_boot_ns: gap.from_boot_ns,
                    until_boot_ns: gap.until_boot_ns,
                    events: gap.events,
                    cause: Some(gap.cause),
                });
            }
            Kind::End => {
                let (why, boot_ns) = Why::parse(payload)?;
                self.why = Some(why);
                to.until_boot_ns = to.until_boot_ns.max(boot_ns);
            }
        }
        Some(())
    }

    fn look(&mut self, to: &mut Summary, payload: &[u8]) -> Option<()> {
        let at = self.kept.apply(payload, &mut self.counters)?;
        let lost: u64 = self
            .counters
            .hooks
            .iter()
            .map(|hook| hook.ledger.ring_full.saturating_add(hook.ledger.simulated))
            .fold(0, u64::saturating_add);
        if lost > self.lost && !self.is_base {
            to.lose(Loss {
                from_boot_ns: self.looked_boot_ns,
                until_boot_ns: at.boot_ns,
                events: lost - self.lost,
                cause: None,
            });
        }
        self.is_base = false;
        self.lost = lost;
        self.looked_boot_ns = at.boot_ns;
        to.until_boot_ns = to.until_boot_ns.max(at.boot_ns);
        Some(())
    }
}

//! What a recording needs beyond what the kernel does: filters, a clock of its
//! own, and under a filter sums of its own.

use std::{io, time::Duration};

use rustc_hash::FxHashMap;

use super::{Desk, LOOK, Watch};
use crate::{
    churn::add_event,
    error::{Error, Result},
    event::{Event, Op},
    filter::Filter,
    identity::Directory,
    maps::Watch as Watched,
    recording::Replay,
    source::{Listed, ProcessKey, ProcessSums, Source},
};

/// The state that goes with a recording.
pub(super) struct Replayed {
    /// `None` where everything is let through.
    filter: Option<Filter>,
    /// Under a filter: the sums of what it lets through. Without one, the
    /// kernel's are exact, whatever was lost.
    sums: FxHashMap<ProcessKey, ProcessSums>,
    interval: Option<Duration>,
    /// When the next report is due, ns of the boot clock.
    due_boot_ns: Option<u64>,
}

impl Replayed {
    pub(super) fn new(filter: Option<Filter>, interval: Option<Duration>) -> Self {
        Self {
            filter: filter.filter(|filter| !filter.is_all()),
            sums: FxHashMap::default(),
            interval,
            due_boot_ns: None,
        }
    }

    /// Adds an event to the sums, as the kernel programs do.
    pub(super) fn add(&mut self, event: &Event, source: &mut impl Source) {
        if self.filter.is_none() {
            return;
        }
        let actor = &event.actor;
        let key = ProcessKey::new(actor.tgid, actor.start_boot_ns);
        let process = self.sums.entry(key).or_default();
        add_event(&mut process.sums, event);
        if process.comm == [0; 16] || event.op() == Op::Exec {
            process.comm = actor.comm.bytes();
            process.uid = actor.uid;
            process.identity = source.identity(key).unwrap_or_default();
        }
    }

    /// The sums that reports are made from.
    pub(super) fn sums(&self, source: &mut impl Source) -> Result<Vec<(ProcessKey, ProcessSums)>> {
        match self.filter {
            None => source.sums(),
            Some(_) => Ok(self.sums.iter().map(|(key, sums)| (*key, *sums)).collect()),
        }
    }

    /// Leaves out the processes that no filter lets through.
    pub(super) fn retain(
        &self,
        listed: &mut Vec<Listed>,
        directory: &mut Directory,
        source: &mut impl Source,
    ) {
        let Some(filter) = &self.filter else {
            return;
        };
        listed.retain(|row| {
            let who = filter
                .needs_who()
                .then(|| directory.of(row.tgid, row.identity, source));
            filter.wants_listed(row, who.as_deref())
        });
    }

    /// Forgets a process whose sums are final.
    pub(super) fn forget(&mut self, key: ProcessKey) {
        self.sums.remove(&key);
    }

    /// Whether a report is due at a look: each is due at the look next to it.
    fn is_due(&mut self, now_boot_ns: u64) -> bool {
        let Some(interval) = self.interval else {
            return false;
        };
        let interval_ns = nanos(interval).max(1);
        // The first look is where it begins.
        let due = *self
            .due_boot_ns
            .get_or_insert(now_boot_ns.saturating_add(interval_ns));
        if now_boot_ns.saturating_add(nanos(LOOK) / 2) < due {
            return false;
        }
        let over = now_boot_ns.saturating_sub(due) / interval_ns;
        self.due_boot_ns = Some(due.saturating_add((over + 1).saturating_mul(interval_ns)));
        true
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl<S: Source> Watch<S> {
    /// Whether a filter turns an event of a recording away.
    pub(super) fn is_unwanted(&mut self, event: &Event) -> bool {
        let Some(Replayed {
            filter: Some(filter),
            ..
        }) = &self.replayed
        else {
            return false;
        };
        let who = filter
            .needs_who()
            .then(|| self.directory.of_event(event, &mut self.source));
        !filter.wants(event, who.as_deref())
    }

    /// A recording has come to a look.
    pub(super) fn replay_look(&mut self) -> Result<()> {
        let now_boot_ns = self.source.now()?;
        let replayed = self.replayed.as_mut();
        if replayed.is_some_and(|replayed| replayed.is_due(now_boot_ns)) {
            self.report(false)
        } else {
            self.look()
        }
    }

    /// At its end: tells what a process had mapped.
    pub(super) fn tell_past(&mut self, closed: bool) -> Result<()> {
        let now_boot_ns = self.source.now()?;
        let page_bytes = self.limits(now_boot_ns).page_bytes;
        let lost_events = self.ledger(closed)?.lost();
        let Desk::Past {
            pid,
            since_boot_ns,
            past,
        } = &mut self.desk
        else {
            return Ok(());
        };
        if past.is_empty() {
            return Err(Error::Usage(format!(
                "the recording has no mapping of a process {pid}; `mmwatch report` shows which \
                 processes it has"
            )));
        }
        let watch = Watched {
            since_boot_ns: *since_boot_ns,
            now_boot_ns,
            lost_events,
        };
        let sink = &mut self.sink;
        let result = past
            .show(*pid, watch, page_bytes, |space| sink.space(space))
            .map_err(|error| Error::io("telling mappings")(io::Error::other(error)))?;
        self.written(result)
    }

    /// What there is to say of the recording, if it is one.
    pub(super) fn replay(&self) -> Option<Replay> {
        let is_filtered = self
            .replayed
            .as_ref()
            .is_some_and(|replayed| replayed.filter.is_some());
        self.source.replay().map(|replay| Replay {
            sums_events: is_filtered && matches!(self.desk, Desk::Sums { .. }),
            ..replay
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At which of these looks, in tenths of a second, a report is due.
    fn due(interval_tenths: u64, looks: &[u64]) -> Vec<u64> {
        let tenth = 100_000_000;
        let interval = Duration::from_nanos(interval_tenths * tenth);
        let mut replayed = Replayed::new(None, Some(interval));
        let looks = looks.iter().copied();
        looks
            .filter(|look| replayed.is_due(look * tenth + 1))
            .collect()
    }

    #[test]
    fn reports_are_due_at_the_nearest_look() {
        assert_eq!(due(10, &[100, 110, 119, 131, 140]), [110, 119, 131, 140]);
        assert_eq!(due(20, &[100, 110, 120, 130, 140]), [120, 140]);
        // No oftener than there are looks.
        assert_eq!(due(1, &[100, 110, 120]), [100, 110, 120]);
        // What is missing is not made up for.
        assert_eq!(due(10, &[100, 110, 175, 180, 190]), [110, 175, 180, 190]);
    }
}

//! The rounds of `verify`: models and sums are read, healed and compared.

use std::time::Duration;

use super::{Desk, Watch};
use crate::{
    clock::boot_ns,
    error::{Error, Result},
    event::SpaceId,
    identity::here::pid_here,
    process::Proc,
    source::{Identity, Listed, Source},
    space::Snapshot,
    verify::Look,
};

/// Looks at what is busy or different in a round of `verify`, at most.
const LOOKS: usize = 4;

/// Pauses before sums that differ are compared again, each twice as long as the
/// one before: half a second in all. A thread that is preempted between summing
/// a record and submitting it holds up what all others submit after it.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(256);

impl<S: Source> Watch<S> {
    /// Reads the maps of processes whose models want healing.
    pub(super) fn heal(&mut self) -> Result<()> {
        self.drain()?;
        let missed = self.ledger(false)?.missed().unwrap_or(0);
        let order = self.source.tells_order();
        let Desk::Verify(verifier) = &mut self.desk else {
            return Ok(());
        };
        let before = self.source.processes()?;
        let wanting = verifier.wanting(boot_ns()?, &before, missed, order);
        if wanting.is_empty() {
            return Ok(());
        }
        let snapshots = snapshots(&self.proc, &wanting, &before, self.pid_namespace)?;
        let after = self.source.processes()?;
        let look = Look {
            before: &before,
            snapshots,
            after: &after,
        };
        verifier.heal(boot_ns()?, look);
        Ok(())
    }

    /// Compares, a few times where processes are busy or seem different.
    pub(super) fn compare(&mut self, closed: bool) -> Result<()> {
        let mut listed = self.source.processes()?;
        let Desk::Verify(verifier) = &mut self.desk else {
            return Ok(());
        };
        let mut todo = verifier.begin(&listed);
        for _ in 0..LOOKS {
            let snapshots = snapshots(&self.proc, &todo, &listed, self.pid_namespace)?;
            let after = self.source.processes()?;
            self.drain()?;
            let Desk::Verify(verifier) = &mut self.desk else {
                return Ok(());
            };
            let look = Look {
                before: &listed,
                snapshots,
                after: &after,
            };
            todo = verifier.compare(boot_ns()?, &look);
            if todo.is_empty() {
                break;
            }
            listed = self.source.processes()?;
        }

        let mut pause = FIRST_PAUSE;
        loop {
            let before = self.source.sums()?;
            self.drain()?;
            let after = self.source.sums()?;
            let lost = self.ledger(closed)?.lost() > 0;
            let Desk::Verify(verifier) = &mut self.desk else {
                return Ok(());
            };
            if lost || !verifier.compare_sums(&before, &after) || pause > LAST_PAUSE {
                break;
            }
            self.wait(pause)?;
            pause *= 2;
        }
        let sums = self.source.sums()?;
        let listed = self.source.processes()?;
        let ledger = self.ledger(closed)?;
        let now = boot_ns()?;
        let Desk::Verify(verifier) = &mut self.desk else {
            return Ok(());
        };
        for key in verifier.note_sums(now, &sums, &listed) {
            self.source.forget(key);
        }
        let result = self.sink.round(verifier.end(now), &ledger);
        self.written(result)
    }
}

/// What `/proc` says of address spaces, each by a process that uses it. Who
/// ended meanwhile is left out.
fn snapshots(
    proc: &Proc,
    spaces: &[(SpaceId, u32)],
    listed: &[Listed],
    pid_namespace: Option<u32>,
) -> Result<Vec<(SpaceId, Snapshot)>> {
    let mut snapshots = Vec::with_capacity(spaces.len());
    for (id, tgid) in spaces {
        let row = listed.iter().find(|row| row.tgid == *tgid);
        let identity = row.map_or_else(Identity::default, |row| row.identity);
        let Some(pid) = pid_here(pid_namespace, *tgid, &identity) else {
            continue;
        };
        if let Some(text) = proc.maps(pid)? {
            let snapshot = Snapshot::parse(&text).map_err(|error| {
                Error::Kernel(format!(
                    "/proc/{pid}/maps is not as mmwatch knows it: {error}"
                ))
            })?;
            snapshots.push((*id, snapshot));
        }
    }
    Ok(snapshots)
}

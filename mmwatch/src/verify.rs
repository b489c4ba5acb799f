//! Holds what mmwatch believes against what the kernel says: the model of each
//! address space against `/proc/PID/maps`, its VMAs against `map_count`, and
//! the sums of the events that came against those kept in the kernel.
//!
//! A process can only be compared while it stands still. It does when the
//! kernel's list says the same before and after its maps were read; whoever
//! does not is busy, and is looked at again in the next round.

mod difference;

use std::mem;

use rustc_hash::{FxHashMap, FxHashSet};

pub use self::difference::Difference;
use crate::{
    churn::{Churn, ProcessKey, ProcessSums, Sums, add_event},
    event::{Comm, Event, SpaceId},
    source::Listed,
    space::{Read, Reason, Snapshot, Space, Spaces},
};

/// Spaces that are healed at a time, at most: reading the maps of a process
/// takes its lock for reading.
const HEALED_AT_ONCE: usize = 256;

/// Compares, round after round.
#[derive(Debug)]
pub struct Verifier {
    page_bytes: u64,
    spaces: Spaces,
    /// Sums of the events that came.
    received: FxHashMap<ProcessKey, Sums>,
    /// Knows when the sums of a process are final.
    churn: Churn,
    /// Runs of programs that the kernel had skipped when last asked.
    missed: u64,
    /// Times that a model was made anew.
    heals: u64,
    round: Round,
    /// Processes whose sums differed when last looked at.
    differing: Vec<(ProcessKey, Comm, Vec<Difference>)>,
    differences: u64,
}

/// What one round found.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// When it ended, ns of the boot clock.
    pub boot_ns: u64,
    /// Which it is, from 1.
    pub number: u64,
    /// Processes, by id.
    pub processes: Vec<Checked>,
    /// Events that models were made of, in all.
    pub events_applied: u64,
    /// Times that a model was made anew from what the kernel says, in all.
    pub heals: u64,
}

/// One process in a round.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Which.
    pub key: ProcessKey,
    /// Its name.
    pub comm: Comm,
    /// Its VMAs, by the kernel's count.
    pub vmas: u32,
    /// Number of its address space's last section.
    pub section: u64,
    /// Operations that it did since the start, by the kernel's sums.
    pub operations: u64,
    /// Events that its model was made of since it was healed last.
    pub events_applied: u64,
    /// What came of it.
    pub verdict: Verdict,
}

/// What came of comparing a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All that mmwatch says of it is what the kernel says.
    Same,
    /// These are not.
    Different(Vec<Difference>),
    /// It did not stand still.
    Busy,
    /// Its model is known not to be exact, for this reason, and about to be healed.
    Healing(Reason),
}

impl Verdict {
    /// Its name in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Different(_) => "different",
            Self::Busy => "busy",
            Self::Healing(_) => "healing",
        }
    }
}

impl Round {
    /// Processes of which one thing or another is told.
    pub fn count(&self, wanted: impl Fn(&Verdict) -> bool) -> usize {
        let verdicts = self.processes.iter().map(|process| &process.verdict);
        verdicts.filter(|verdict| wanted(verdict)).count()
    }
}

/// What `/proc/PID/maps` said of some address spaces, and the kernel's list
/// before and after.
pub struct Look<'a> {
    /// The list before.
    pub before: &'a [Listed],
    /// The maps, those that could be read.
    pub snapshots: Vec<(SpaceId, Snapshot)>,
    /// The list after.
    pub after: &'a [Listed],
}

impl Verifier {
    /// Knows nothing yet; `now_boot_ns` is when it starts.
    pub fn new(now_boot_ns: u64, page_bytes: u64) -> Self {
        Self {
            page_bytes,
            spaces: Spaces::default(),
            received: FxHashMap::default(),
            churn: Churn::new(now_boot_ns, page_bytes),
            missed: 0,
            heals: 0,
            round: Round::default(),
            differing: Vec::new(),
            differences: 0,
        }
    }

    /// Takes an event, in the order of the ring.
    pub fn note(&mut self, event: &Event) {
        self.spaces.note(event);
        let key = ProcessKey::new(event.actor.tgid, event.actor.start_boot_ns);
        add_event(self.received.entry(key).or_default(), event);
    }

    /// Differences found in all rounds.
    pub const fn differences(&self) -> u64 {
        self.differences
    }

    /// Which address spaces to read for [`Verifier::heal`], and whose maps tell
    /// of them. `missed` is the ledger's; `tells_order` the source's.
    pub fn wanting(
        &mut self,
        now_boot_ns: u64,
        listed: &[Listed],
        missed: u64,
        tells_order: bool,
    ) -> Vec<(SpaceId, u32)> {
        let current: FxHashMap<_, _> = listed.iter().filter_map(with_id).collect();
        self.spaces.retain(|id| current.contains_key(&id));
        if missed != self.missed {
            // What the skipped programs would have told is not known.
            self.missed = missed;
            for space in self.spaces.iter_mut() {
                space.mark_approximate(Reason::Skipped);
            }
        }
        let mut wanting = Vec::new();
        for (id, row) in current {
            let Some(space) = self.spaces.meet(id) else {
                continue;
            };
            if !tells_order && (space.applied_since_heal() > 0 || !space.is_exact()) {
                space.mark_approximate(Reason::Unordered);
            }
            audit(space, row, self.page_bytes, now_boot_ns);
            if space.wants_healing(now_boot_ns).is_some() {
                wanting.push((id, row.tgid));
                if wanting.len() == HEALED_AT_ONCE {
                    break;
                }
            }
        }
        wanting
    }

    /// Makes models anew from what was read.
    pub fn heal(&mut self, now_boot_ns: u64, look: Look<'_>) {
        let before: FxHashMap<_, _> = look.before.iter().filter_map(with_id).collect();
        let after: FxHashMap<_, _> = look.after.iter().filter_map(with_id).collect();
        for (id, snapshot) in look.snapshots {
            if let (Some(before), Some(after)) = (before.get(&id), after.get(&id))
                && let Some(space) = self.spaces.meet(id)
            {
                let read = Read {
                    before: before.sections,
                    after: after.sections,
                    under_way: is_locked(after),
                };
                if let Some(file) = snapshot.zero_file {
                    space.meet_zero_file(file);
                }
                let healed = space.heal(read, snapshot.ranges, now_boot_ns);
                log::debug!("{read:?} of {id:?}: {healed:?}");
                self.heals += 1;
            }
        }
    }

    /// Begins a round: which address spaces to read for [`Verifier::compare`],
    /// and whose maps tell of them. Later looks of a round go on with what was
    /// different or busy.
    pub fn begin(&mut self, listed: &[Listed]) -> Vec<(SpaceId, u32)> {
        self.round.number += 1;
        self.round.processes.clear();
        let mut met = FxHashSet::default();
        let rows = listed.iter().filter_map(with_id);
        rows.filter(|(id, _)| met.insert(*id))
            .map(|(id, row)| (id, row.tgid))
            .collect()
    }

    /// Compares. All events up to the list's `after` must have been noted.
    /// Returns what to look at again: see [`Verifier::begin`].
    pub fn compare(&mut self, now_boot_ns: u64, look: &Look<'_>) -> Vec<(SpaceId, u32)> {
        let before: FxHashMap<_, _> = look.before.iter().filter_map(with_id).collect();
        let after: FxHashMap<_, _> = look.after.iter().filter_map(with_id).collect();
        let mut again = Vec::new();
        for (id, snapshot) in &look.snapshots {
            let (Some(before), Some(after)) = (before.get(id), after.get(id)) else {
                // It ended.
                continue;
            };
            let verdict = if stands_still(before, after) {
                self.verdict(now_boot_ns, *id, after, snapshot)
            } else {
                Verdict::Busy
            };
            if matches!(verdict, Verdict::Busy | Verdict::Different(_)) {
                again.push((*id, after.tgid));
            }
            let checked = Checked {
                key: ProcessKey::new(after.tgid, after.start_boot_ns),
                comm: Comm::new(after.comm),
                vmas: after.vmas,
                section: after.sections,
                operations: 0,
                events_applied: self.spaces.get(*id).map_or(0, Space::applied_since_heal),
                verdict,
            };
            let processes = &mut self.round.processes;
            match processes.iter_mut().find(|known| known.key == checked.key) {
                Some(known) => *known = checked,
                None => processes.push(checked),
            }
        }
        again
    }

    fn verdict(
        &mut self,
        now_boot_ns: u64,
        id: SpaceId,
        row: &Listed,
        snapshot: &Snapshot,
    ) -> Verdict {
        let Some(space) = self.spaces.meet(id) else {
            return Verdict::Busy;
        };
        audit(space, row, self.page_bytes, now_boot_ns);
        if let Some(reason) = space.wants_healing(now_boot_ns) {
            return Verdict::Healing(reason);
        }
        if !space.is_exact() || space.applied_section() != row.sections {
            // A section is known whose call has not returned, or one that came
            // after the maps were read.
            return Verdict::Busy;
        }
        let mut differences: Vec<_> = space
            .ranges()
            .differences(&snapshot.ranges)
            .into_iter()
            .map(Difference::Range)
            .collect();
        if snapshot.vmas != row.vmas {
            differences.push(Difference::Vmas {
                counted: row.vmas,
                listed: snapshot.vmas,
            });
        }
        if differences.is_empty() {
            Verdict::Same
        } else {
            Verdict::Different(differences)
        }
    }

    /// Compares the sums of those processes whose sums were the same before and
    /// after all events were noted. Returns whether any differ: a record may be
    /// on its way, summed and not yet in the ring, so that only a difference
    /// that stays is one. Not to be called once events were lost: then the
    /// kernel knows more.
    pub fn compare_sums(
        &mut self,
        before: &[(ProcessKey, ProcessSums)],
        after: &[(ProcessKey, ProcessSums)],
    ) -> bool {
        let before: FxHashMap<_, _> = before.iter().map(|(key, sums)| (*key, sums)).collect();
        self.differing.clear();
        for (key, kernel) in after {
            let still = before.get(key).is_some_and(|b| b.sums == kernel.sums);
            if !still || *key == ProcessKey::OTHER {
                continue;
            }
            let received = self.received.get(key).copied().unwrap_or_default();
            let found = difference::of_sums(&kernel.sums, &received);
            if !found.is_empty() {
                self.differing.push((*key, Comm::new(kernel.comm), found));
            }
        }
        !self.differing.is_empty()
    }

    /// Notes what the kernel's sums are at the end of a round. Returns the
    /// processes whose sums are final: the kernel may forget them.
    pub fn note_sums(
        &mut self,
        now_boot_ns: u64,
        sums: &[(ProcessKey, ProcessSums)],
        listed: &[Listed],
    ) -> Vec<ProcessKey> {
        let done = self.churn.update(now_boot_ns, sums, listed);
        self.churn.tick(now_boot_ns, 0, 0);
        for key in &done {
            self.received.remove(key);
        }
        let kernel: FxHashMap<_, _> = sums.iter().map(|(key, sums)| (*key, sums)).collect();
        for process in &mut self.round.processes {
            let sums = kernel.get(&process.key);
            process.operations = sums.map_or(0, |process| process.sums.all_ops().count);
        }
        done
    }

    /// Adds differences of sums to a process, which may be over already.
    fn differ(&mut self, key: ProcessKey, comm: Comm, mut found: Vec<Difference>) {
        let processes = &mut self.round.processes;
        match processes.iter_mut().find(|known| known.key == key) {
            Some(known) => {
                if let Verdict::Different(differences) = &mut known.verdict {
                    differences.append(&mut found);
                } else {
                    known.verdict = Verdict::Different(found);
                }
            }
            None => processes.push(Checked {
                key,
                comm,
                vmas: 0,
                section: 0,
                operations: 0,
                events_applied: 0,
                verdict: Verdict::Different(found),
            }),
        }
    }

    /// Ends the round.
    pub fn end(&mut self, now_boot_ns: u64) -> &Round {
        for (key, comm, found) in mem::take(&mut self.differing) {
            self.differ(key, comm, found);
        }
        let round = &mut self.round;
        round.boot_ns = now_boot_ns;
        round.processes.sort_by_key(|process| process.key);
        round.events_applied = self.spaces.applied_events();
        round.heals = self.heals;
        for process in &round.processes {
            if let Verdict::Different(differences) = &process.verdict {
                self.differences += differences.len() as u64;
            }
        }
        round
    }
}

/// A row with the id of its address space, where the kernel keeps one.
fn with_id(row: &Listed) -> Option<(SpaceId, &Listed)> {
    (row.born_ns != 0).then_some((
        SpaceId {
            mm: row.mm,
            born_boot_ns: row.born_ns,
        },
        row,
    ))
}

/// Whether a section may be under way: what was read meanwhile may show a part
/// of it.
const fn is_locked(row: &Listed) -> bool {
    row.is_locked != 0
}

/// Holds a model against the numbers in the kernel's list.
fn audit(space: &mut Space, row: &Listed, page_bytes: u64, now_boot_ns: u64) {
    if is_locked(row) {
        space.expect(row.sections, now_boot_ns);
    } else {
        let total_bytes = row.pages.saturating_mul(page_bytes);
        space.audit(row.sections, total_bytes, now_boot_ns);
    }
}

fn stands_still(before: &Listed, after: &Listed) -> bool {
    !is_locked(before)
        && !is_locked(after)
        && (before.sections, before.pages, before.vmas) == (after.sections, after.pages, after.vmas)
}

#[cfg(test)]
mod tests;

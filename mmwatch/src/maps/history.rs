//! Since when a mapping is there, who made it, and what was done to it since:
//! what the events of one process say.

use std::{collections::BTreeMap, mem, ops::Range};

use super::Vma;
use crate::{
    event::{Cause, Comm, Event, SpaceId, What},
    space::Change,
};

/// Events kept until the next look, at most; then they are applied early.
const MAX_PENDING: usize = 1 << 16;

/// Who did something, when and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deed {
    /// When, ns of the boot clock.
    pub boot_ns: u64,
    /// Which thread.
    pub tid: u32,
    /// Its name.
    pub comm: Comm,
    /// By which call.
    pub cause: Cause,
}

impl Deed {
    fn of(event: &Event) -> Self {
        Self {
            boot_ns: event.boot_ns,
            tid: event.actor.tid,
            comm: event.actor.comm,
            cause: event.cause,
        }
    }
}

/// What became of a range of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// The range.
    pub range: Range<u64>,
    /// Who mapped it; `None` if that was before the watch.
    pub made: Option<Deed>,
    /// How often it was changed since: another protection, another place, advice.
    pub changes: u64,
    /// Who did so last.
    pub last_change: Option<Deed>,
}

impl Life {
    /// Of a range that nothing is known of.
    const fn unknown(range: Range<u64>) -> Self {
        Self {
            range,
            made: None,
            changes: 0,
            last_change: None,
        }
    }
}

/// An event that waits for the next look.
#[derive(Debug)]
struct Pending {
    space: SpaceId,
    section: u64,
    deed: Deed,
    change: Change,
    /// Where advice was given: it changes how pages behave, which a [`Change`] does not tell.
    advised: Option<Range<u64>>,
}

/// What became of an address space since the watch began.
#[derive(Debug, Default)]
pub struct History {
    space: Option<SpaceId>,
    /// By their starts.
    lives: BTreeMap<u64, Life>,
    pending: Vec<Pending>,
    has_ended: bool,
}

impl History {
    /// Takes an event of the process.
    ///
    /// Records leave when calls return, and not in the order in which threads
    /// had the lock, so they are applied at the next look, by section.
    pub fn note(&mut self, event: &Event) {
        if event.ends_process() {
            self.end();
        }
        let Some(space) = event.space.id else {
            return;
        };
        if let What::Exit(_) | What::Fork(_) = event.what {
            return;
        }
        self.pending.push(Pending {
            space,
            section: event.space.section.map_or(0, u64::from),
            deed: Deed::of(event),
            change: Change::of(event),
            advised: advised(event),
        });
        if self.pending.len() >= MAX_PENDING {
            self.apply();
        }
    }

    /// Notes that the process has ended.
    pub const fn end(&mut self) {
        self.has_ended = true;
    }

    /// Whether the process has ended.
    pub const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Applies what was noted.
    pub fn apply(&mut self) {
        let mut pending = mem::take(&mut self.pending);
        pending.sort_by_key(|event| (event.space.born_boot_ns, event.section));
        for event in pending {
            if self.space != Some(event.space) {
                // The process became another program.
                self.lives.clear();
                self.space = Some(event.space);
            }
            self.change(event);
        }
    }

    fn change(&mut self, event: Pending) {
        let deed = event.deed;
        if let Some(range) = event.advised {
            self.touch(range, deed);
        }
        match event.change {
            Change::Set(range, _) | Change::Heap(range) => self.set(range, deed),
            Change::Duplicate { new, .. } => self.set(new, deed),
            Change::Clear(range) | Change::Detach(range) => {
                self.take(range);
            }
            Change::Protect(range, _) | Change::ProtectUpToHole(range, _) => {
                self.touch(range, deed);
            }
            Change::Move { old, new, keep_old } => self.move_to(old, new, keep_old, deed),
            Change::Nothing | Change::Unexplained(_) => {}
        }
    }

    fn set(&mut self, range: Range<u64>, deed: Deed) {
        self.put(Life {
            made: Some(deed),
            ..Life::unknown(range)
        });
    }

    /// Puts a life in the place of what was there.
    fn put(&mut self, life: Life) {
        if life.range.is_empty() {
            return;
        }
        self.take(life.range.clone());
        if life.made.is_some() || life.changes != 0 {
            self.lives.insert(life.range.start, life);
        }
    }

    /// Notes a change of whatever is there, known or not.
    fn touch(&mut self, range: Range<u64>, deed: Deed) {
        for mut life in self.take(range) {
            life.changes += 1;
            life.last_change = Some(deed);
            self.put(life);
        }
    }

    fn move_to(&mut self, old: Range<u64>, new: Range<u64>, keep_old: bool, deed: Deed) {
        let moved = self.take(old.clone());
        if keep_old {
            moved.iter().cloned().for_each(|life| self.put(life));
        }
        // What it grew by is as new as the call.
        self.set(new.clone(), deed);
        let place = |addr: u64| (addr - old.start).saturating_add(new.start).min(new.end);
        for life in moved {
            self.put(Life {
                range: place(life.range.start)..place(life.range.end),
                changes: life.changes + 1,
                last_change: Some(deed),
                ..life
            });
        }
    }

    /// Takes away what is known of a range, and what is not: all of it in pieces.
    fn take(&mut self, range: Range<u64>) -> Vec<Life> {
        self.split(range.start);
        self.split(range.end);
        let starts: Vec<_> = self.lives.range(range.clone()).map(|(at, _)| *at).collect();
        let mut pieces = Vec::with_capacity(starts.len() * 2 + 1);
        let mut at = range.start;
        for life in starts.iter().filter_map(|start| self.lives.remove(start)) {
            pieces.push(Life::unknown(at..life.range.start));
            at = life.range.end;
            pieces.push(life);
        }
        pieces.push(Life::unknown(at..range.end));
        pieces.retain(|life| !life.range.is_empty());
        pieces
    }

    /// Makes sure that no life reaches across an address.
    fn split(&mut self, at: u64) {
        if let Some((_, life)) = self.lives.range_mut(..at).next_back()
            && life.range.end > at
        {
            let mut rest = life.clone();
            rest.range.start = at;
            life.range.end = at;
            self.lives.insert(at, rest);
        }
    }

    /// What is known of a range, by address; neighbours of one thread's same
    /// call are one, with the younger one's time.
    pub fn within(&self, range: &Range<u64>) -> Vec<Life> {
        let before = self.lives.range(..range.start).next_back();
        let inside = self.lives.range(range.clone());
        let mut found: Vec<Life> = Vec::new();
        for (_, life) in before.into_iter().chain(inside) {
            let mut life = life.clone();
            life.range = life.range.start.max(range.start)..life.range.end.min(range.end);
            if life.range.is_empty() {
                continue;
            }
            match found.last_mut() {
                Some(last) if last.goes_on_as(&life) => last.join(life),
                _ => found.push(life),
            }
        }
        found
    }
}

impl Life {
    /// Whether both are of one story.
    fn goes_on_as(&self, next: &Self) -> bool {
        let who = |deed: &Deed| (deed.tid, deed.cause);
        self.range.end == next.range.start
            && self.made.as_ref().map(who) == next.made.as_ref().map(who)
            && self.last_change.as_ref().map(who) == next.last_change.as_ref().map(who)
    }

    fn join(&mut self, next: Self) {
        let later = |one: Option<Deed>, other: Option<Deed>| {
            one.into_iter().chain(other).max_by_key(|deed| deed.boot_ns)
        };
        self.range.end = next.range.end;
        self.made = later(self.made, next.made);
        // One call may have changed both.
        self.changes = self.changes.max(next.changes);
        self.last_change = later(self.last_change, next.last_change);
    }
}

/// Where advice was given.
fn advised(event: &Event) -> Option<Range<u64>> {
    let What::Advise(advise) = &event.what else {
        return None;
    };
    if event.errno.is_some() {
        return None;
    }
    let start = advise.range.addr?;
    let len_bytes = advise
        .range
        .len_bytes
        .or(advise.range.requested_len_bytes)?;
    Some(start..start.checked_add(len_bytes)?)
}

/// Puts what is known of each VMA to it.
pub fn add_history(vmas: &mut [Vma<'_>], history: &History) {
    for vma in vmas {
        vma.lives = history.within(&vma.line.range);
    }
}

#[cfg(test)]
mod tests;

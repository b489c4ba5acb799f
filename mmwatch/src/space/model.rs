//! One address space, kept up to date by its events.

use std::{collections::BTreeMap, fmt};

use super::{
    change::{self, Change},
    ranges::{Backed, Mapping, Ranges},
};
use crate::{
    event::{Dev, Event, SpaceId, What},
    flags::Prot,
};

/// Sections that wait for one before them, at most.
pub const MAX_PENDING: usize = 4096;

/// How long a missing section is waited for. Records leave when their calls
/// return, so sections of several threads come out of order; one that takes
/// longer than this sleeps, or was lost.
pub const MAX_GAP_NS: u64 = 100_000_000;

/// Why the ranges may not be what `/proc/PID/maps` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// `/proc/PID/maps` was never read.
    NeverRead,
    /// The process became another program.
    NewProgram,
    /// No hook saw what a section did.
    Unseen,
    /// A call failed after it had changed something, or may have.
    Failed,
    /// A stack grew; which one is not told.
    StackGrew,
    /// remap_file_pages(2).
    PagesRearranged,
    /// mremap(2) of several mappings, or of one that is not in the model.
    SeveralMoved,
    /// mremap(2) of `/dev/zero` mapped privately: its offsets are the kernel's secret.
    ZeroMoved,
    /// Reading implies executing (`READ_IMPLIES_EXEC`).
    ReadImpliesExec,
    /// The address space changed without a section.
    Drifted,
    /// The total is not what the kernel says.
    TotalDiffers,
    /// A section is missing.
    Gap,
    /// Too many sections wait for a missing one.
    TooMuchPending,
    /// `/proc/PID/maps` changed while it was read, in a way that cannot be redone.
    TornRead,
    /// The file of a mapping was not seen.
    UnknownFile,
    /// The kernel skipped programs.
    Skipped,
    /// The backend does not tell in which order threads change it.
    Unordered,
}

impl Reason {
    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NeverRead => "never_read",
            Self::NewProgram => "new_program",
            Self::Unseen => "change_not_seen",
            Self::Failed => "failed_call",
            Self::StackGrew => "stack_grew",
            Self::PagesRearranged => "pages_rearranged",
            Self::SeveralMoved => "several_mappings_moved",
            Self::ZeroMoved => "dev_zero_moved",
            Self::ReadImpliesExec => "reading_implies_executing",
            Self::Drifted => "changed_without_a_section",
            Self::TotalDiffers => "total_differs",
            Self::Gap => "section_missing",
            Self::TooMuchPending => "too_many_sections_missing",
            Self::TornRead => "changed_while_read",
            Self::UnknownFile => "unknown_file",
            Self::Skipped => "programs_skipped",
            Self::Unordered => "order_not_told",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name().replace('_', " "))
    }
}

/// When the maps of an address space were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// The kernel's last section, before.
    pub before: u64,
    /// The kernel's last section, after.
    pub after: u64,
    /// Whether another section may have been under way by then, which the maps
    /// show in part: since 6.17 they are read without the lock.
    pub under_way: bool,
}

impl Read {
    /// Between two sections, or over some that all ended.
    pub const fn between(before: u64, after: u64) -> Self {
        Self {
            before,
            after,
            under_way: false,
        }
    }
}

/// What came of [`Space::heal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Healed {
    /// The ranges are exact.
    Exact,
    /// They will be when the events of sections that have ended already are in.
    Waiting,
    /// They are not: what was read cannot be made whole. To be read again.
    Not(Reason),
    /// What was read is older than what is known; nothing was changed.
    TooOld,
}

/// One address space: what is mapped where.
///
/// Events are taken in the order in which they come, and applied in the order
/// of their sections.
#[derive(Clone, Debug)]
pub struct Space {
    id: SpaceId,
    ranges: Ranges,
    /// Sections up to this one are in `ranges`.
    applied: u64,
    /// Sections up to this one may be in `ranges`, in part.
    torn_until: u64,
    /// Sections up to this one are known to have ended.
    awaited: u64,
    /// Sections after `applied`, by their numbers.
    pending: BTreeMap<u64, Section>,
    /// Since when a section has been missing, ns of the boot clock.
    missing_since_ns: Option<u64>,
    /// Why `ranges` are approximate; while they are, nothing is applied.
    approximate: Option<Reason>,
    /// Whether the process was seen to have `READ_IMPLIES_EXEC`.
    read_implies_exec: bool,
    /// Device and inode of `/dev/zero`, once it was met. Mapped privately it is
    /// anonymous memory to the kernel, which gives it offsets of its own when
    /// it moves untouched (`copy_vma`).
    zero_file: Option<(Dev, u64)>,
    over: bool,
    heals: u64,
    applied_events: u64,
    applied_since_heal: u64,
}

/// A section, as far as its events are in.
#[derive(Clone, Debug)]
struct Section {
    changes: Vec<Change>,
    outcome: Outcome,
}

/// What a section's last event says about all of it.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    boot_ns: u64,
    complete: bool,
    drifted: bool,
    /// Net change of the total, bytes, where it is exact.
    total_delta_bytes: Option<i64>,
}

impl Outcome {
    fn of(event: &Event) -> Self {
        Self {
            boot_ns: event.boot_ns,
            complete: !event.more,
            drifted: event.space.drifted,
            total_delta_bytes: event
                .space
                .total_delta_bytes
                .filter(|_| event.space.settled && !event.more),
        }
    }
}

impl Space {
    /// An address space of which nothing is known yet.
    pub fn new(id: SpaceId) -> Self {
        Self {
            id,
            ranges: Ranges::default(),
            applied: 0,
            torn_until: 0,
            awaited: 0,
            pending: BTreeMap::new(),
            missing_since_ns: None,
            approximate: Some(Reason::NeverRead),
            read_implies_exec: false,
            zero_file: None,
            over: false,
            heals: 0,
            applied_events: 0,
            applied_since_heal: 0,
        }
    }

    /// Takes an event of this address space, in the order of the ring.
    pub fn note(&mut self, event: &Event) {
        if matches!(event.what, What::Exit(_)) {
            self.over = true;
        }
        if self.over {
            return;
        }
        let Some(section) = event.space.section.map(u64::from) else {
            // One that the kernel programs did not know before.
            if matches!(event.what, What::Exec(_)) {
                self.mark_approximate(Reason::NewProgram);
            }
            return;
        };
        if section <= self.applied {
            return; // It was in what was read.
        }
        self.read_implies_exec |= change::reading_implied_executing(event);
        if let Some(file) = event.file()
            && file.path.as_deref() == Some("/dev/zero")
        {
            self.meet_zero_file((file.dev, file.inode));
        }
        let change = Change::of(event);
        let outcome = Outcome::of(event);
        let next = self.approximate.is_none()
            && section == self.applied + 1
            && outcome.complete
            && !self.pending.contains_key(&section);
        if !next || !self.apply(section, std::slice::from_ref(&change), outcome) {
            self.keep(section, change, outcome);
        }
        self.apply_pending();
        self.note_missing(event.boot_ns);
    }

    /// Starts anew from what was read of `/proc/PID/maps`. `now_boot_ns` is the
    /// time, ns of the boot clock.
    ///
    /// Sections up to `read.before` are in it. Those up to `read.after` may be,
    /// in part, and so may the one under way; they are applied again, whether
    /// their events are in or still to come.
    pub fn heal(&mut self, read: Read, snapshot: Ranges, now_boot_ns: u64) -> Healed {
        let Read { before, after, .. } = read;
        if before < self.applied {
            return Healed::TooOld;
        }
        self.ranges = snapshot;
        self.applied = before;
        self.torn_until = after + u64::from(read.under_way);
        self.awaited = self.awaited.max(after);
        self.pending = match before.checked_add(1) {
            Some(first) => self.pending.split_off(&first),
            None => BTreeMap::new(),
        };
        self.approximate = None;
        self.missing_since_ns = None;
        self.heals += 1;
        self.applied_since_heal = 0;
        self.apply_pending();
        self.note_missing(now_boot_ns);
        match self.approximate {
            Some(reason) => Healed::Not(reason),
            None if self.is_exact() => Healed::Exact,
            None => Healed::Waiting,
        }
    }

    /// Tells device and inode of `/dev/zero`.
    pub fn meet_zero_file(&mut self, file: (Dev, u64)) {
        self.zero_file = Some(file);
    }

    /// Learns the number of the kernel's last section at `now_boot_ns`.
    ///
    /// Sections whose events are not in by then may still be under way; they
    /// are waited for as any other.
    pub fn expect(&mut self, last_section: u64, now_boot_ns: u64) {
        if self.approximate.is_none() {
            self.awaited = self.awaited.max(last_section);
            self.note_missing(now_boot_ns);
        }
    }

    /// Compares with the kernel's own numbers: its last section and its total
    /// after that one, read together at `now_boot_ns`, with no section under way.
    pub fn audit(&mut self, last_section: u64, total_bytes: u64, now_boot_ns: u64) {
        self.expect(last_section, now_boot_ns);
        // Ranges that may be torn are not yet meant to add up.
        if self.approximate.is_none()
            && self.applied == last_section
            && !self.is_behind()
            && self.ranges.total_bytes() != total_bytes
        {
            self.mark_approximate(Reason::TotalDiffers);
        }
    }

    /// From now on the ranges may be wrong, until they are healed.
    pub fn mark_approximate(&mut self, reason: Reason) {
        self.approximate.get_or_insert(reason);
    }

    /// Why `/proc/PID/maps` should be read (again), if it should.
    pub fn wants_healing(&self, now_boot_ns: u64) -> Option<Reason> {
        if self.over {
            return None;
        }
        let late = self
            .missing_since_ns
            .is_some_and(|since| now_boot_ns.saturating_sub(since) >= MAX_GAP_NS);
        let unknown = self.ranges.has_unknown_files();
        self.approximate
            .or(late.then_some(Reason::Gap))
            .or(unknown.then_some(Reason::UnknownFile))
    }

    /// Whether the ranges are what `/proc/PID/maps` says, as of the last
    /// section that is known to have ended.
    pub fn is_exact(&self) -> bool {
        self.approximate.is_none() && !self.is_behind() && !self.ranges.has_unknown_files()
    }

    /// Whether the address space has ended.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Which address space.
    pub fn id(&self) -> SpaceId {
        self.id
    }

    /// What is mapped where.
    pub fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Number of the last section that the ranges have.
    pub fn applied_section(&self) -> u64 {
        self.applied
    }

    /// Events applied, ever.
    pub fn applied_events(&self) -> u64 {
        self.applied_events
    }

    /// Events applied since it was last healed.
    pub fn applied_since_heal(&self) -> u64 {
        self.applied_since_heal
    }

    /// How often it was healed; the first time included.
    pub fn heals(&self) -> u64 {
        self.heals
    }

    fn is_behind(&self) -> bool {
        !self.pending.is_empty() || self.applied < self.awaited
    }

    /// Since when the next section is missing: since the event that showed it.
    fn note_missing(&mut self, now_boot_ns: u64) {
        if !self.is_behind() {
            self.missing_since_ns = None;
        } else if self.missing_since_ns.is_none() {
            let first = self.pending.first_key_value();
            let shown = first.map(|(_, section)| section.outcome.boot_ns);
            self.missing_since_ns = Some(shown.unwrap_or(now_boot_ns).min(now_boot_ns));
        }
    }

    /// Keeps a change whose turn has not come.
    fn keep(&mut self, section: u64, change: Change, outcome: Outcome) {
        let kept = self.pending.entry(section).or_insert_with(|| Section {
            changes: Vec::with_capacity(1),
            outcome,
        });
        kept.changes.push(change);
        kept.outcome = Outcome {
            drifted: kept.outcome.drifted | outcome.drifted,
            ..outcome
        };
        if self.pending.len() > MAX_PENDING {
            if self.approximate.is_none() {
                self.mark_approximate(Reason::TooMuchPending);
            }
            // What will be read has the oldest in it.
            self.pending.pop_first();
        }
    }

    /// Applies what waits, up to the first section that is missing.
    fn apply_pending(&mut self) {
        while self.approximate.is_none()
            && let Some(first) = self.pending.first_entry()
            && *first.key() == self.applied + 1
            && first.get().outcome.complete
        {
            let (number, section) = first.remove_entry();
            if !self.apply(number, &section.changes, section.outcome) {
                // Should what is read be older than it, it is met again.
                self.pending.insert(number, section);
            }
        }
    }

    /// Applies the next section. `false`: it is not known well enough, and the
    /// ranges are approximate now.
    fn apply(&mut self, number: u64, changes: &[Change], outcome: Outcome) -> bool {
        let torn = number <= self.torn_until;
        let before = self.ranges.total_bytes();
        if outcome.drifted {
            self.mark_approximate(Reason::Drifted);
        }
        for change in changes {
            if torn && change.is_relative() {
                self.mark_approximate(Reason::TornRead);
            } else if let Err(reason) = self.change(change) {
                self.mark_approximate(reason);
            }
        }
        // Over a torn base the difference says nothing.
        if !torn
            && let Some(delta) = outcome.total_delta_bytes
            && before.checked_add_signed(delta) != Some(self.ranges.total_bytes())
        {
            self.mark_approximate(Reason::TotalDiffers);
        }
        if self.approximate.is_some() {
            return false;
        }
        self.applied = number;
        self.missing_since_ns = None;
        self.applied_events += changes.len() as u64;
        self.applied_since_heal += changes.len() as u64;
        true
    }

    fn change(&mut self, change: &Change) -> Result<(), Reason> {
        let ranges = &mut self.ranges;
        match change {
            Change::Nothing => {}
            Change::Set(range, mapping) => ranges.set(range.clone(), *mapping),
            Change::Clear(range) => ranges.clear(range.clone()),
            Change::Protect(range, prot) => {
                if self.read_implies_exec && prot.0 & 1 != 0 && prot.0 & 4 == 0 {
                    return Err(Reason::ReadImpliesExec);
                }
                ranges.protect(range.clone(), *prot);
            }
            Change::ProtectUpToHole(range, prot) => {
                let mut end = range.start;
                for (mapped, _) in ranges.within(range.clone()) {
                    if mapped.start != end {
                        break;
                    }
                    end = mapped.end;
                }
                if end == range.end {
                    return Err(Reason::Failed);
                }
                ranges.protect(range.start..end, *prot);
            }
            Change::Move { old, new, keep_old } => {
                let zero = |mapping: &Mapping| {
                    !mapping.shared
                        && self
                            .zero_file
                            .is_some_and(|zero| mapping.file() == Some(zero))
                };
                if ranges
                    .within(old.clone())
                    .any(|(_, mapping)| zero(&mapping))
                {
                    return Err(Reason::ZeroMoved);
                }
                if !ranges.move_to(old.clone(), new.clone(), *keep_old) {
                    return Err(Reason::SeveralMoved);
                }
            }
            Change::Duplicate { at, new } => {
                if !ranges.duplicate(*at, new.clone()) {
                    return Err(Reason::SeveralMoved);
                }
            }
            Change::Heap(range) => {
                let below = range.start.checked_sub(1).and_then(|addr| ranges.get(addr));
                // All heap may be executable, or mprotect(2) made this part so.
                let executable = below.is_some_and(|below| {
                    below.backed == Backed::Anonymous && below.prot == Prot(7)
                });
                if self.read_implies_exec || executable {
                    return Err(Reason::ReadImpliesExec);
                }
                ranges.set(range.clone(), Mapping::HEAP);
            }
            Change::Detach(range) => {
                // As many bytes as are mapped of the segment from its start on:
                // then they are those. Else holes hide others.
                let whole = ranges
                    .within(range.clone())
                    .next()
                    .is_some_and(|(found, mapping)| {
                        found == *range
                            && mapping.shared
                            && matches!(mapping.backed, Backed::File { offset: 0, .. })
                    });
                if !whole && !range.is_empty() {
                    return Err(Reason::Unseen);
                }
                ranges.clear(range.clone());
            }
            Change::Unexplained(reason) => return Err(*reason),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

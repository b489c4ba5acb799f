//! Looks at what the kernel keeps: its counters, its sums, its list of
//! processes. Each is written as its difference from the one before.

use mmwatch_common::{
    space::Listed,
    sums::{Process, ProcessKey},
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::layout::{self, Bytes, Raw};
use crate::source::KernelCounters;

/// A program of which the kernel does not say how many runs it skipped.
const UNKNOWN: u64 = u64::MAX;

/// [`Look::closed`].
const CLOSED: u32 = 1;

/// What the kernel kept at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    /// When, ns of the boot clock.
    pub boot_ns: u64,
    /// Whether the programs had stopped and all records came before it.
    pub closed: bool,
    /// Its counters.
    pub counters: KernelCounters,
    /// Its sums per process.
    pub sums: Vec<(ProcessKey, Process)>,
    /// Its list of processes, read after the sums.
    pub listed: Vec<Listed>,
}

/// What was kept at the last look.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    sums: FxHashMap<ProcessKey, Process>,
    listed: FxHashMap<ProcessKey, Listed>,
}

/// A look as it was read: what is the same at each is in [`Kept`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) boot_ns: u64,
    pub(super) closed: bool,
}

fn key(row: &Listed) -> ProcessKey {
    ProcessKey::new(row.tgid, row.start_boot_ns)
}

impl Kept {
    /// The payload of a frame: how a look differs from the last one.
    pub(super) fn difference(&self, look: &Look) -> Vec<u8> {
        let mut out = Vec::new();
        let flags = if look.closed { CLOSED } else { 0 };
        out.extend_from_slice(&look.boot_ns.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        put_len(&mut out, look.counters.hooks.len());
        for hook in &look.counters.hooks {
            layout::put(&mut out, &hook.ledger);
            out.extend_from_slice(&hook.missed.unwrap_or(UNKNOWN).to_le_bytes());
        }
        let sums = look.sums.iter().map(|(key, process)| (*key, process));
        put_changes(&mut out, &self.sums, sums, |out, key, process| {
            layout::put(out, key);
            layout::put(out, process);
        });
        let listed = look.listed.iter().map(|row| (key(row), row));
        put_changes(&mut out, &self.listed, listed, |out, _, row| {
            layout::put(out, row);
        });
        out
    }

    /// Notes that a look was written.
    pub(super) fn note(&mut self, look: &Look) {
        self.sums = look.sums.iter().copied().collect();
        self.listed = look.listed.iter().map(|row| (key(row), *row)).collect();
    }

    /// Takes a difference; `None` if it is malformed.
    pub(super) fn apply(&mut self, payload: &[u8], counters: &mut KernelCounters) -> Option<At> {
        let mut bytes = Bytes::new(payload);
        let boot_ns = bytes.u64()?;
        let closed = bytes.u32()? & CLOSED != 0;
        if bytes.u32()? as usize != counters.hooks.len() {
            return None;
        }
        for hook in &mut counters.hooks {
            hook.ledger = bytes.value()?;
            hook.missed = Some(bytes.u64()?).filter(|missed| *missed != UNKNOWN);
        }
        take_changes(&mut bytes, &mut self.sums, |bytes| {
            Some((bytes.value()?, bytes.value()?))
        })?;
        take_changes(&mut bytes, &mut self.listed, |bytes| {
            let row = bytes.value()?;
            Some((key(&row), row))
        })?;
        Some(At { boot_ns, closed })
    }

    /// The sums at the last look.
    pub(super) fn sums(&self) -> impl Iterator<Item = (ProcessKey, &Process)> {
        self.sums.iter().map(|(key, process)| (*key, process))
    }

    /// The sums of a process at the last look.
    pub(super) fn process(&self, key: ProcessKey) -> Option<&Process> {
        self.sums.get(&key)
    }

    /// The list of processes at the last look.
    pub(super) fn listed(&self) -> impl Iterator<Item = &Listed> {
        self.listed.values()
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    // What is in memory is never so many.
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
}

/// Values that are new or others than before, then keys of those that are gone.
fn put_changes<'a, T: Raw + PartialEq + 'a>(
    out: &mut Vec<u8>,
    before: &FxHashMap<ProcessKey, T>,
    now: impl Iterator<Item = (ProcessKey, &'a T)>,
    put: impl Fn(&mut Vec<u8>, &ProcessKey, &T),
) {
    let mut there = FxHashSet::default();
    let mut changed: Vec<(ProcessKey, &T)> = Vec::new();
    for (key, value) in now {
        if there.insert(key) && before.get(&key) != Some(value) {
            changed.push((key, value));
        }
    }
    put_len(out, changed.len());
    for (key, value) in &changed {
        put(out, key, value);
    }
    let gone: Vec<_> = before.keys().filter(|key| !there.contains(key)).collect();
    put_len(out, gone.len());
    for key in gone {
        layout::put(out, key);
    }
}

fn take_changes<T: Raw>(
    bytes: &mut Bytes<'_>,
    to: &mut FxHashMap<ProcessKey, T>,
    take: impl Fn(&mut Bytes<'_>) -> Option<(ProcessKey, T)>,
) -> Option<()> {
    for _ in 0..bytes.u32()? {
        let (key, value) = take(bytes)?;
        to.insert(key, value);
    }
    for _ in 0..bytes.u32()? {
        to.remove(&bytes.value()?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use mmwatch_common::counter::{Hook, Ledger};

    use super::*;
    use crate::{event::Op, sample, source::HookCounters};

    fn counters(fired: u64, missed: Option<u64>) -> KernelCounters {
        let ledger = Ledger {
            fired,
            ..Ledger::default()
        };
        KernelCounters {
            hooks: vec![HookCounters {
                hook: Hook::Exec,
                program: "p".into(),
                ledger,
                missed,
            }],
        }
    }

    fn look(boot_ns: u64, pids: &[u32], maps: usize) -> Look {
        let mut events = Vec::new();
        for &pid in pids {
            let map = || sample::by(pid, "p", sample::event(Op::Map));
            events.extend(std::iter::repeat_with(map).take(maps));
        }
        Look {
            boot_ns,
            closed: false,
            counters: counters(boot_ns, (boot_ns > 1).then_some(boot_ns)),
            sums: sample::kernel_sums(&events),
            listed: pids
                .iter()
                .map(|&pid| sample::listed(pid, "p", 20))
                .collect(),
        }
    }

    /// As a look that was just taken.
    fn read(kept: &Kept, counters: &KernelCounters, at: At) -> Look {
        let mut sums: Vec<_> = kept.sums().map(|(key, process)| (key, *process)).collect();
        sums.sort_by_key(|(key, _)| *key);
        let mut listed: Vec<_> = kept.listed().copied().collect();
        listed.sort_by_key(|row| row.tgid);
        Look {
            boot_ns: at.boot_ns,
            closed: at.closed,
            counters: counters.clone(),
            sums,
            listed,
        }
    }

    #[test]
    fn looks_come_back_from_their_differences() {
        let mut looks = vec![
            look(1, &[], 0),
            look(2, &[10, 11, 12], 1),
            look(3, &[10, 11, 12], 1),
            look(4, &[11, 13], 3),
            look(5, &[], 0),
        ];
        looks[4].closed = true;
        let (mut written, mut kept) = (Kept::default(), Kept::default());
        let mut counters = counters(0, None);
        for look in looks {
            let payload = written.difference(&look);
            written.note(&look);
            let at = kept.apply(&payload, &mut counters).unwrap();
            assert_eq!(read(&kept, &counters, at), look);
        }
    }

    #[test]
    fn what_stays_takes_no_room() {
        let mut kept = Kept::default();
        let all: Vec<u32> = (1..100).collect();
        let full = kept.difference(&look(2, &all, 1)).len();
        kept.note(&look(2, &all, 1));
        let same = kept.difference(&look(3, &all, 1)).len();
        assert!(same < 200 && full > 99 * size_of::<Process>(), "{same}");
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let payload = Kept::default().difference(&look(2, &[1, 2], 1));
        for len in 0..payload.len() {
            let read = Kept::default().apply(&payload[..len], &mut counters(0, None));
            assert_eq!(read, None, "{len}");
        }
        // Of other programs than the header says.
        let mut none = KernelCounters::default();
        assert_eq!(Kept::default().apply(&payload, &mut none), None);
    }
}

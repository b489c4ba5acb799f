//! The loss ledger: what became of every record, from the kernel to the sinks.

use std::fmt;

use mmwatch_common::counter;
use serde::Serialize;

use crate::{
    recording::{Ending, Replay, Why},
    source::{HookCounters, KernelCounters},
};

/// What user space counted. Counters only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Records that named an operation.
    pub events: u64,
    /// Records that named a file.
    pub paths: u64,
    /// Records that were none.
    pub undecodable: u64,
    /// Records of a recording that named an operation which a filter turned away.
    pub unwanted: u64,
}

impl Received {
    /// Records of all sorts.
    pub const fn records(&self) -> u64 {
        self.events + self.paths + self.undecodable + self.unwanted
    }
}

/// What one sink counted. `received events = delivered + dropped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SinkCounters {
    /// The sink: `text`, `json`, `recording`, or `sums` for what is only summed.
    pub sink: &'static str,
    /// Events that it passed on.
    pub delivered: u64,
    /// Events that it could not pass on.
    pub dropped: u64,
}

/// All counters at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// The kernel's side.
    pub kernel: KernelCounters,
    /// What came out of the ring buffer.
    pub received: Received,
    /// What became of it.
    pub sinks: Vec<SinkCounters>,
    /// Whether the programs had stopped and the ring buffer was read to its
    /// end. Before that, the counters are those of slightly different moments.
    pub closed: bool,
    /// Where records came from a recording, what there is to say of it.
    pub replay: Option<Replay>,
}

/// One sum of the ledger: `total` should be what `parts` add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equation {
    /// In words.
    pub name: String,
    /// The left side.
    pub total: u64,
    /// The right side's sum.
    pub parts: u64,
}

impl Equation {
    /// Whether both sides are the same.
    pub const fn holds(&self) -> bool {
        self.total == self.parts
    }
}

impl Ledger {
    /// The kernel's rows added up.
    pub fn kernel_sum(&self) -> counter::Ledger {
        let mut sum = counter::Ledger::default();
        for hook in &self.kernel.hooks {
            sum += hook.ledger;
        }
        sum
    }

    /// Runs of programs that the kernel skipped, over the programs of which it says so.
    pub fn missed(&self) -> Option<u64> {
        let mut known = self.kernel.hooks.iter().filter_map(|hook| hook.missed);
        let first = known.next()?;
        Some(known.fold(first, |sum, missed| sum + missed))
    }

    /// Records, paths among them, that are still in the ring buffer: none once
    /// it was read to its end, else what the two sides' counters say.
    pub fn unread(&self) -> u64 {
        if self.closed {
            return 0;
        }
        self.handed_on().saturating_sub(self.arrived())
    }

    /// Records that the kernel handed on, those that a recording has again among them.
    fn handed_on(&self) -> u64 {
        let sum = self.kernel_sum();
        sum.submitted + sum.paths_submitted + self.replay.map_or(0, |replay| replay.repeated)
    }

    /// Records that came, and those that came and were not recorded.
    fn arrived(&self) -> u64 {
        self.received.records() + self.replay.map_or(0, |replay| replay.lost_records)
    }

    /// Events that fired, were wanted, and did not reach a sink's reader. `missed`
    /// runs are not among them: what they would have found is not known.
    pub fn lost(&self) -> u64 {
        let dropped: u64 = self.sinks.iter().map(|sink| sink.dropped).sum();
        let sum = self.kernel_sum();
        let unrecorded = self.replay.map_or(0, |replay| replay.lost_events);
        sum.ring_full + sum.simulated + self.received.undecodable + dropped + unrecorded
    }

    /// Whether every sum holds; `None` before the ledger is closed.
    pub fn is_balanced(&self) -> Option<bool> {
        self.closed
            .then(|| self.balance().iter().all(Equation::holds))
    }

    /// Every sum that must hold in a closed ledger.
    pub fn balance(&self) -> Vec<Equation> {
        let mut equations: Vec<_> = self
            .kernel
            .hooks
            .iter()
            .map(
                |HookCounters {
                     hook,
                     program,
                     ledger,
                     ..
                 }| Equation {
                    name: format!(
                        "{} ({program}): fired = filtered + summed + submitted + ring full + \
                         simulated",
                        hook.name()
                    ),
                    total: ledger.fired,
                    parts: ledger.filtered
                        + ledger.summed
                        + ledger.submitted
                        + ledger.ring_full
                        + ledger.simulated,
                },
            )
            .collect();
        equations.push(Equation {
            name: "submitted + paths = received + still in ring".into(),
            total: self.handed_on(),
            parts: self.arrived() + self.unread(),
        });
        equations.extend(self.sinks.iter().map(|sink| Equation {
            name: format!("{}: received = delivered + dropped", sink.sink),
            total: self.received.events,
            parts: sink.delivered + sink.dropped,
        }));
        equations
    }

    /// The form of JSON output.
    pub fn to_json(&self) -> LedgerJson<'_> {
        let sum = self.kernel_sum();
        LedgerJson {
            fired: sum.fired,
            filtered: sum.filtered,
            summed: sum.summed,
            submitted: sum.submitted,
            ring_full: sum.ring_full,
            simulated: sum.simulated,
            missed: self.missed(),
            paths_submitted: sum.paths_submitted,
            paths_ring_full: sum.paths_ring_full,
            scratch_full: sum.scratch_full,
            spaces_full: sum.spaces_full,
            processes_full: sum.processes_full,
            unfinished: sum.unfinished,
            received: self.received.events,
            paths_received: self.received.paths,
            undecodable: self.received.undecodable,
            unread: self.unread(),
            lost: self.lost(),
            balanced: self.is_balanced(),
            recording: self.replay.map(|replay| RecordingJson {
                ending: replay.ending.name(),
                gaps: replay.gaps,
                lost: replay.lost_events,
                lost_records: replay.lost_records,
                repeated: replay.repeated,
                unwanted: self.received.unwanted,
                sums: if replay.sums_events {
                    "events"
                } else {
                    "kernel"
                },
            }),
            sinks: &self.sinks,
            hooks: self
                .kernel
                .hooks
                .iter()
                .map(
                    |HookCounters {
                         hook,
                         program,
                         ledger,
                         missed,
                     }| HookJson {
                        hook: hook.name(),
                        program,
                        fired: ledger.fired,
                        filtered: ledger.filtered,
                        summed: ledger.summed,
                        submitted: ledger.submitted,
                        ring_full: ledger.ring_full,
                        simulated: ledger.simulated,
                        missed: *missed,
                    },
                )
                .collect(),
        }
    }
}

impl Ledger {
    /// What there is to say of a recording that is no more than its events.
    fn write_replay(&self, f: &mut fmt::Formatter<'_>, replay: &Replay) -> fmt::Result {
        writeln!(
            f,
            "        recording: {} not recorded, gaps: {}; {} filtered here",
            replay.lost_events, replay.gaps, self.received.unwanted
        )?;
        match replay.ending {
            // As it should be, or not known yet.
            Ending::On(Why::Finished) | Ending::Unread => {}
            ending @ (Ending::On(Why::Full | Why::Rotated) | Ending::Open | Ending::Broken(_)) => {
                writeln!(f, "        the recording {ending}")?;
            }
        }
        let lost = self.lost();
        if replay.sums_events && lost > 0 {
            writeln!(
                f,
                "        under a filter, sums are those of the events in the recording: as {lost} \
                 are not in it, they are lower bounds"
            )?;
        }
        Ok(())
    }
}

/// The last lines of every text output.
impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = self.kernel_sum();
        write!(
            f,
            "ledger: {} fired = {} filtered + {} summed + {} submitted + {} ring full",
            sum.fired, sum.filtered, sum.summed, sum.submitted, sum.ring_full
        )?;
        if sum.simulated > 0 {
            write!(f, " + {} lost on purpose", sum.simulated)?;
        }
        f.write_str("; ")?;
        match self.missed() {
            Some(missed) => writeln!(f, "{missed} missed")?,
            None => writeln!(f, "missed: not known on this kernel")?,
        }
        write!(
            f,
            "        {} received, {} undecodable, {} unread",
            self.received.events,
            self.received.undecodable,
            self.unread()
        )?;
        for sink in &self.sinks {
            write!(
                f,
                "; {}: {} delivered, {} dropped",
                sink.sink, sink.delivered, sink.dropped
            )?;
        }
        writeln!(f)?;
        if let Some(replay) = &self.replay {
            self.write_replay(f, replay)?;
        }
        if sum.scratch_full + sum.spaces_full + sum.unfinished + sum.paths_ring_full > 0 {
            writeln!(
                f,
                "        incomplete: {} without details, {} without counts, {} sections without \
                 their call's return, {} paths to be sent again",
                sum.scratch_full, sum.spaces_full, sum.unfinished, sum.paths_ring_full
            )?;
        }
        if sum.processes_full > 0 {
            writeln!(
                f,
                "        {} of processes without room are summed in `other`",
                sum.processes_full
            )?;
        }
        if !self.closed {
            return Ok(());
        }
        for equation in self.balance().iter().filter(|equation| !equation.holds()) {
            writeln!(
                f,
                "        does not balance: {} ({} against {})",
                equation.name, equation.total, equation.parts
            )?;
        }
        Ok(())
    }
}

/// The ledger in JSON; `docs/events.md` says what the fields mean.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/events.md is their reference")]
pub struct LedgerJson<'a> {
    pub fired: u64,
    pub filtered: u64,
    pub summed: u64,
    pub submitted: u64,
    pub ring_full: u64,
    pub simulated: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
    pub paths_submitted: u64,
    pub paths_ring_full: u64,
    pub scratch_full: u64,
    pub spaces_full: u64,
    pub processes_full: u64,
    pub unfinished: u64,
    pub received: u64,
    pub paths_received: u64,
    pub undecodable: u64,
    pub unread: u64,
    pub lost: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balanced: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording: Option<RecordingJson>,
    pub sinks: &'a [SinkCounters],
    pub hooks: Vec<HookJson<'a>>,
}

/// What there is to say of a recording, in JSON.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/events.md is their reference")]
pub struct RecordingJson {
    pub ending: &'static str,
    pub gaps: u64,
    pub lost: u64,
    pub lost_records: u64,
    pub repeated: u64,
    pub unwanted: u64,
    pub sums: &'static str,
}

/// One program's row in JSON.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/events.md is their reference")]
pub struct HookJson<'a> {
    pub hook: &'static str,
    pub program: &'a str,
    pub fired: u64,
    pub filtered: u64,
    pub summed: u64,
    pub submitted: u64,
    pub ring_full: u64,
    pub simulated: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
}

#[cfg(test)]
mod tests {
    use mmwatch_common::counter::Hook;

    use super::*;
    use crate::sample;

    fn ledger() -> Ledger {
        let hook = |hook, ledger, missed| HookCounters {
            hook,
            program: "program".into(),
            ledger,
            missed,
        };
        // No part is 0, or a sum could do without it.
        let released = counter::Ledger {
            fired: 100,
            filtered: 40,
            summed: 4,
            submitted: 40,
            ring_full: 10,
            simulated: 6,
            paths_submitted: 2,
            ..counter::Ledger::default()
        };
        let exit = counter::Ledger {
            fired: 3,
            submitted: 3,
            ..counter::Ledger::default()
        };
        Ledger {
            kernel: KernelCounters {
                hooks: vec![
                    hook(Hook::LockReleased, released, Some(2)),
                    hook(Hook::Exit, exit, None),
                ],
            },
            received: Received {
                events: 42,
                paths: 2,
                undecodable: 1,
                unwanted: 0,
            },
            sinks: vec![SinkCounters {
                sink: "text",
                delivered: 40,
                dropped: 2,
            }],
            closed: true,
            replay: None,
        }
    }

    fn broken(ledger: &Ledger) -> Vec<String> {
        ledger
            .balance()
            .into_iter()
            .filter(|equation| !equation.holds())
            .map(|equation| equation.name)
            .collect()
    }

    #[test]
    fn a_full_account_balances() {
        let ledger = ledger();
        assert_eq!(broken(&ledger), [""; 0]);
        assert_eq!(ledger.lost(), 10 + 6 + 1 + 2);
        assert_eq!(ledger.missed(), Some(2));
        let json = ledger.to_json();
        assert_eq!(json.balanced, Some(true));
        assert_eq!((json.fired, json.submitted, json.unread), (103, 43, 0));
    }

    #[test]
    fn each_equation_can_fail() {
        let mut changed = ledger();
        changed.kernel.hooks[1].ledger.fired += 1;
        assert_eq!(
            broken(&changed),
            ["exit (program): fired = filtered + summed + submitted + ring full + simulated"]
        );

        let mut changed = ledger();
        changed.received.undecodable -= 1;
        assert_eq!(
            broken(&changed),
            ["submitted + paths = received + still in ring"]
        );

        let mut changed = ledger();
        changed.sinks[0].dropped = 0;
        assert_eq!(broken(&changed), ["text: received = delivered + dropped"]);
        assert_eq!(changed.to_json().balanced, Some(false));
        assert!(changed.to_string().contains("does not balance: text"));
    }

    #[test]
    fn what_is_in_the_ring_is_no_loss() {
        let mut ledger = ledger();
        ledger.received.events = 30;
        ledger.sinks[0].delivered = 28;
        ledger.closed = false;
        assert_eq!(ledger.unread(), 12);
        assert_eq!(broken(&ledger), [""; 0]);
        assert_eq!(ledger.is_balanced(), None);
        // A closed ledger may not explain a difference with the ring.
        ledger.closed = true;
        assert_eq!(ledger.unread(), 0);
        assert_eq!(ledger.is_balanced(), Some(false));
    }

    #[test]
    fn an_open_ledger_claims_nothing() {
        let mut open = ledger();
        open.closed = false;
        open.kernel.hooks[1].ledger.fired += 1;
        assert_eq!(open.to_json().balanced, None);
        assert!(!open.to_string().contains("balance"));
    }

    #[test]
    fn what_is_not_in_a_recording_is_accounted_for() {
        let mut ledger = ledger();
        // Of what came, 5 events and 3 paths were not written, the paths again; of
        // the rest, a filter turned 7 away.
        ledger.received.events = 30;
        ledger.received.unwanted = 7;
        ledger.sinks[0].delivered = 28;
        ledger.replay = Some(Replay {
            lost_events: 5,
            lost_records: 8,
            ending: Ending::Open,
            sums_events: true,
            ..sample::replay()
        });
        assert_eq!(broken(&ledger), [""; 0]);
        assert_eq!(ledger.lost(), 10 + 6 + 1 + 2 + 5);
        let text = ledger.to_string();
        assert!(text.contains("recording: 5 not recorded, gaps: 1; 7 filtered here\n"));
        assert!(text.contains("the recording has no end"));
        assert!(text.contains("24 are not in it, they are lower bounds"));
        ledger.received.unwanted -= 1;
        assert_eq!(
            broken(&ledger),
            ["submitted + paths = received + still in ring"]
        );
    }

    #[test]
    fn text_names_every_stage() {
        assert_eq!(
            ledger().to_string(),
            "ledger: 103 fired = 40 filtered + 4 summed + 43 submitted + 10 ring full + 6 lost on \
             purpose; 2 missed\n        \
             42 received, 1 undecodable, 0 unread; text: 40 delivered, 2 dropped\n"
        );
    }
}

//! Rounds of `verify`: a line each, and one for each difference.

use std::{
    fmt,
    io::{self, Write},
};

use super::super::Sink;
use crate::{
    clock::WallClock,
    event::Event,
    ledger::{Ledger, SinkCounters},
    text::Escaped,
    verify::{Checked, Round, Verdict},
};

/// A line per round; the ledger at the end.
#[derive(Debug)]
pub struct Rounds<W> {
    to: W,
    clock: WallClock,
}

impl<W: Write> Rounds<W> {
    /// A sink that writes to `to`.
    pub fn new(to: W, clock: WallClock) -> Self {
        Self { to, clock }
    }
}

impl<W: Write> Sink for Rounds<W> {
    fn event(&mut self, _: u64, _: &Event) -> io::Result<()> {
        Ok(())
    }

    fn round(&mut self, round: &Round, _: &Ledger) -> io::Result<()> {
        write!(
            self.to,
            "{} {}",
            self.clock.at(round.boot_ns).local_time_of_day(),
            Lines(round)
        )
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    fn finish(&mut self, ledger: &Ledger) -> io::Result<()> {
        write!(self.to, "{ledger}")?;
        self.to.flush()
    }

    fn counters(&self) -> SinkCounters {
        SinkCounters {
            sink: "text",
            delivered: 0,
            dropped: 0,
        }
    }
}

/// A round after its time.
struct Lines<'a>(&'a Round);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let round = self.0;
        writeln!(
            f,
            "{} same, {} different, {} busy, {} healing; {} events applied, {} heals in all",
            round.count(|verdict| *verdict == Verdict::Same),
            round.count(|verdict| matches!(verdict, Verdict::Different(_))),
            round.count(|verdict| *verdict == Verdict::Busy),
            round.count(|verdict| matches!(verdict, Verdict::Healing(_))),
            round.events_applied,
            round.heals,
        )?;
        for process in &round.processes {
            match &process.verdict {
                Verdict::Different(differences) => {
                    for difference in differences {
                        writeln!(f, "  {}: {difference}", Who(process))?;
                    }
                }
                Verdict::Healing(reason) => {
                    writeln!(f, "  {}: its model is healed: {reason}", Who(process))?;
                }
                Verdict::Same | Verdict::Busy => {}
            }
        }
        Ok(())
    }
}

/// A process by its id and name.
struct Who<'a>(&'a Checked);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Checked { key, comm, .. } = self.0;
        write!(f, "{} {}", key.tgid, Escaped(comm.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{churn::ProcessKey, sample, space::Reason, verify::Difference};

    #[test]
    fn a_round_names_what_differs_and_what_heals() {
        let checked = |tgid, verdict| Checked {
            key: ProcessKey::new(tgid, 1),
            comm: sample::comm("p\n"),
            vmas: 20,
            section: 3,
            operations: 5,
            events_applied: 4,
            verdict,
        };
        let vmas = Difference::Vmas {
            counted: 20,
            listed: 21,
        };
        let round = Round {
            processes: vec![
                checked(1, Verdict::Same),
                checked(2, Verdict::Busy),
                checked(3, Verdict::Different(vec![vmas])),
                checked(4, Verdict::Healing(Reason::Skipped)),
            ],
            events_applied: 7,
            heals: 2,
            ..Round::default()
        };
        let text = Lines(&round).to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            "1 same, 1 different, 1 busy, 1 healing; 7 events applied, 2 heals in all"
        );
        assert_eq!(
            lines[1],
            r"  3 p\n: 20 VMAs by the kernel's count, 21 in /proc/PID/maps"
        );
        assert!(lines[2].starts_with(r"  4 p\n: its model is healed: "));
        assert_eq!(lines.len(), 3);
    }
}

//! Text for people: a line per event, or what [`ui`](crate::ui) draws.

mod recorded;
mod rounds;
mod spaces;

use std::{
    fmt,
    io::{self, Write},
};

pub use self::{recorded::Recorded, rounds::Rounds, spaces::Spaces};
use super::{Output, Sink};
use crate::{
    churn::Report,
    clock::WallClock,
    event::{Cause, Event, Op, What},
    identity::Who,
    ledger::{Ledger, SinkCounters},
    text::{Compact, Escaped},
};

/// One line per event; the ledger at the end goes to another writer.
#[derive(Debug)]
pub struct Trace<W, L> {
    output: Output<W>,
    ledger_to: L,
    clock: WallClock,
}

impl<W: Write, L: Write> Trace<W, L> {
    /// A sink that writes events to `to`, under a header, and the ledger to `ledger_to`.
    pub fn new(to: W, ledger_to: L, clock: WallClock) -> Self {
        Self {
            output: Output::with_header(to, HEADER),
            ledger_to,
            clock,
        }
    }
}

impl<W: Write, L: Write> Sink for Trace<W, L> {
    fn event(&mut self, _seq: u64, event: &Event) -> io::Result<()> {
        let line = Line {
            event,
            clock: self.clock,
        };
        self.output.event(|buffer| writeln!(buffer, "{line}"))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }

    fn finish(&mut self, ledger: &Ledger) -> io::Result<()> {
        write!(self.ledger_to, "{ledger}")?;
        self.ledger_to.flush()
    }

    fn counters(&self) -> SinkCounters {
        self.output.counters("text")
    }
}

/// What [`Tables`] draws with: a pure function of a report and the ledger.
pub type Draw = Box<dyn FnMut(&Report, &Ledger, WallClock) -> String>;

/// Tables, one per report, each with the ledger as its end.
pub struct Tables<W> {
    to: W,
    draw: Draw,
    clock: WallClock,
}

impl<W: Write> Tables<W> {
    /// A sink that writes to `to` what `draw` makes of a report.
    pub fn new(to: W, clock: WallClock, draw: Draw) -> Self {
        Self { to, draw, clock }
    }
}

impl<W: Write> Sink for Tables<W> {
    fn event(&mut self, _: u64, _: &Event) -> io::Result<()> {
        Ok(())
    }

    fn report(&mut self, report: &Report, ledger: &Ledger) -> io::Result<()> {
        let text = (self.draw)(report, ledger, self.clock);
        self.to.write_all(text.as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    fn finish(&mut self, _: &Ledger) -> io::Result<()> {
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

const HEADER: &str = "TIME             PID     TID COMM            OP                ADDR     LEN PROT \
                      BACKING    VMAS INFO";

/// One event as a line. All but INFO are columns of 96 characters together.
struct Line<'a> {
    event: &'a Event,
    clock: WallClock,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.event;
        let actor = &event.actor;
        let pid = Who::shown_pid(event.who.as_deref(), actor.tgid);
        // Other threads have an id of the root namespace only.
        let tid = match actor.tid {
            first if first == actor.tgid => pid,
            other => other,
        };
        write!(
            f,
            "{} {pid:>7} {tid:>7} {:<15} {:<7} ",
            self.clock.at(event.boot_ns).local_time_of_day(),
            Escaped(actor.comm.as_bytes()),
            event.op().name(),
        )?;
        let range = event.range();
        match range.addr {
            Some(addr) => write!(f, "{addr:>14x} ")?,
            None => write!(f, "{:>14} ", "-")?,
        }
        // Of a call that failed, what it wanted says more than that it got nothing.
        let len = match event.errno {
            Some(_) => range.requested_len_bytes,
            None => event.covered_bytes().or(range.requested_len_bytes),
        };
        match len {
            Some(len) => write!(f, "{:>7} ", Compact(len))?,
            None => write!(f, "{:>7} ", "-")?,
        }
        let prot = match &event.what {
            What::Map(map) => map.prot,
            What::Protect(protect) => protect.prot,
            What::Unmap(_)
            | What::Remap(_)
            | What::Brk(_)
            | What::Grow(_)
            | What::Advise(_)
            | What::Fork(_)
            | What::Exec(_)
            | What::Exit(_) => None,
        };
        match prot {
            Some(prot) => write!(f, "{prot:<4} ")?,
            None => write!(f, "{:<4} ", "-")?,
        }
        let backing = event.backing().map_or("-", |backing| backing.short_name());
        write!(f, "{backing:<9} ")?;
        match event.space.vmas {
            Some(vmas) => write!(f, "{vmas:>5}")?,
            None => write!(f, "{:>5}", "-")?,
        }
        self.info(f)
    }
}

impl Line<'_> {
    /// What the columns have no room for.
    fn info(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.event;
        if let Some((made, merged)) = event.space.vmas_made_and_merged() {
            let gone = merged + u64::from(event.space.vmas_removed.unwrap_or(0));
            if made + gone != 0 {
                f.write_str(" ")?;
            }
            if made != 0 {
                write!(f, "+{made}")?;
            }
            if gone != 0 {
                write!(f, "-{gone}")?;
            }
        }
        if let Some(errno) = event.errno {
            write!(f, " {errno}")?;
        }
        if let Some(reason) = &event.reason {
            write!(f, " {}", reason.short())?;
        }
        if event.cause != usual_cause(event.op()) {
            write!(f, " by {}", event.cause.name())?;
        }
        if event.actor.owner_tgid != event.actor.tgid {
            write!(f, " in {}", event.actor.owner_tgid)?;
        }
        if let Some(file) = event.file() {
            match &file.path {
                Some(path) => write!(f, " {}", Escaped(path.as_bytes()))?,
                None => write!(f, " {} {}", file.dev, file.inode)?,
            }
        }
        self.particulars(f)?;
        if event.suspects.is_empty() {
            return Ok(());
        }
        write!(f, " SUSPECT {}", event.suspects)
    }

    /// What only some operations have.
    fn particulars(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.event;
        match &event.what {
            What::Map(_) | What::Brk(_) | What::Grow(_) | What::Exec(_) => Ok(()),
            What::Protect(protect) => match protect.old_prot {
                Some(old) => write!(f, " was {old}"),
                None => Ok(()),
            },
            What::Unmap(unmap) => match unmap.vmas_removed {
                Some(vmas) if vmas != 1 => write!(f, " {vmas} VMAs"),
                Some(_) | None => Ok(()),
            },
            What::Remap(remap) => match (remap.old_addr, remap.old_len_bytes) {
                (Some(addr), Some(len)) => write!(f, " from {addr:x} {}", Compact(len)),
                _ => Ok(()),
            },
            What::Advise(advise) => match (event.cause, advise.advice) {
                (Cause::Madvise, Some(advice)) => match crate::flags::advice_name(advice) {
                    Some(name) => write!(f, " {name}"),
                    None => write!(f, " {advice:#x}"),
                },
                _ => Ok(()),
            },
            What::Fork(fork) => {
                write!(f, " child {}", fork.child_tgid)?;
                if fork.shared {
                    write!(f, " shared")?;
                }
                Ok(())
            }
            What::Exit(exit) => write!(f, " {} VMAs", exit.vmas_removed),
        }
    }
}

/// The cause that goes without saying.
const fn usual_cause(op: Op) -> Cause {
    match op {
        Op::Map => Cause::Mmap,
        Op::Unmap => Cause::Munmap,
        Op::Protect => Cause::Mprotect,
        Op::Remap => Cause::Mremap,
        Op::Brk => Cause::Brk,
        Op::Grow => Cause::Fault,
        Op::Advise => Cause::Madvise,
        Op::Fork => Cause::Fork,
        Op::Exec => Cause::Exec,
        Op::Exit => Cause::Exit,
    }
}

#[cfg(test)]
mod tests;

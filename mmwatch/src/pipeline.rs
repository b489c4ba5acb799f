//! The one loop: records → events → sums and sinks, until something ends it.
//!
//! One task owns all state. What ends the watch (a signal, the duration, the
//! command's end, a closed output) goes the same way out: stop the kernel
//! programs, read what is left, report, close the sinks.

mod signals;
mod verify;

use std::{io, thread, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until},
};

use self::signals::{Request, Signals};
use crate::{
    churn::{By, Churn, Faults},
    clock::boot_ns,
    decode::Decoder,
    error::{Error, Result},
    explain::explain,
    identity::{Directory, Here, Hierarchy},
    launch::{Held, Running},
    ledger::{Ledger, Received, SinkCounters},
    maps::{self, History, read::Reading},
    process::{Proc, RecentLimits, Users, page_bytes},
    sink::Sink,
    source::{ProcessKey, Source},
    verify::Verifier,
};

/// Records read before signals and ticks get their turn.
const BATCH: usize = 16_384;

/// What the loop is to do.
pub struct Job {
    /// Where events or reports go.
    pub sink: Box<dyn Sink>,
    /// What is made of events and of what the kernel keeps.
    pub work: Work,
    /// The interval of reports, where it can change on the way.
    pub pace: Option<watch::Receiver<Duration>>,
    /// When to end.
    pub duration: Option<Duration>,
    /// What to run meanwhile.
    pub command: Option<Held>,
    /// Where the kernel's limits are read.
    pub proc: Proc,
    /// The hierarchy of cgroups by which processes are told apart.
    pub hierarchy: Option<Hierarchy>,
    /// Where mmwatch runs.
    pub here: Here,
}

/// Time between two looks at what the kernel keeps, at most: processes that
/// ended make room there only when they were looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Time between two looks for models that need healing: soon enough for a
/// model to be whole within a second, and late enough for short-lived
/// processes to end before anybody reads their maps.
const HEAL: Duration = Duration::from_millis(200);

/// Time between two readings of the ring in such a pause.
const READ_AGAIN: Duration = Duration::from_millis(5);

/// Batches that are read in a row, at most: on a busy machine there is no end.
const BATCHES: usize = 64;

/// What to make of events, and of what the kernel keeps.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Nothing: the sink gets each event.
    Events,
    /// Reports from the kernel's sums.
    Sums {
        /// Time between reports; `None` for one at the end.
        interval: Option<Duration>,
        /// Processes in a report, or groups of them.
        rows: usize,
        /// What they are grouped by.
        by: By,
        /// What of page faults the kernel counts.
        faults: Option<Faults>,
    },
    /// Rounds of comparing models and sums with the kernel's.
    Verify {
        /// Time between rounds.
        interval: Duration,
    },
    /// What is mapped, and what became of it, at each look.
    Maps {
        /// Of which process.
        pid: u32,
        /// Time between looks.
        interval: Duration,
    },
}

/// The state of a [`Work`].
enum Desk {
    Events,
    Sums {
        churn: Box<Churn>,
        rows: usize,
        by: By,
    },
    Verify(Box<Verifier>),
    Maps {
        pid: u32,
        since_boot_ns: u64,
        history: Box<History>,
    },
}

impl Desk {
    /// What the ledger calls it where it takes the events itself.
    const fn name(&self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Sums { .. } => "sums",
            Self::Verify(_) => "verify",
            Self::Maps { .. } => "maps",
        }
    }

    /// Whether there is nothing left to watch.
    const fn is_done(&self) -> bool {
        match self {
            Self::Events | Self::Sums { .. } | Self::Verify(_) => false,
            Self::Maps { history, .. } => history.has_ended(),
        }
    }
}

/// Why the watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Asked to by the user, or nobody reads any more.
    Asked,
    /// The time is over.
    Duration,
    /// The command ended, with this code.
    Command(u8),
}

/// Says what became of the events where nobody may read the ledger.
fn tell_losses(ledger: &Ledger) {
    let (received, lost) = (ledger.received.events, ledger.lost());
    log::info!("{received} events received, {lost} lost");
    let ring_full = ledger.kernel_sum().ring_full;
    if ring_full > 0 {
        log::warn!(
            "the ring buffer was full for {ring_full} of {} events; a larger --buffer holds more",
            received + lost
        );
    }
}

/// Watches until the end and returns the exit code.
pub async fn run<S: Source>(source: S, job: Job) -> Result<u8> {
    let mut signals = Signals::new()?;
    // The default dispositions are replaced, so the command can start: from
    // here on an interrupt that ends it does not end mmwatch before its report.
    let mut command = job.command.map(Held::release).transpose()?;
    let mut watch = Watch {
        source,
        decoder: Decoder::new(page_bytes()),
        received: Received::default(),
        sink: job.sink,
        desk: match job.work {
            Work::Events => Desk::Events,
            Work::Sums {
                rows, by, faults, ..
            } => Desk::Sums {
                churn: Box::new(Churn::new(boot_ns()?, page_bytes()).with_faults(faults)),
                rows,
                by,
            },
            Work::Verify { .. } => Desk::Verify(Box::new(Verifier::new(boot_ns()?, page_bytes()))),
            Work::Maps { pid, .. } => Desk::Maps {
                pid,
                since_boot_ns: boot_ns()?,
                history: Box::default(),
            },
        },
        limits: RecentLimits::new(job.proc.clone()),
        proc: job.proc,
        directory: Directory::new(
            match job.work {
                Work::Events | Work::Sums { .. } => job.hierarchy,
                // They tell of no cgroups.
                Work::Verify { .. } | Work::Maps { .. } => None,
            },
            &job.here,
        ),
        pid_namespace: job.here.pid_namespace.map(|namespace| namespace.inode),
        users: None,
        noted: 0,
        output_closed: false,
        pace: job.pace,
    };
    let deadline = job.duration.map(|duration| Instant::now() + duration);
    let (interval, look) = match job.work {
        Work::Events => (None, None),
        Work::Sums { interval, .. } => (interval, Some(LOOK)),
        Work::Verify { interval } => (Some(interval), Some(HEAL)),
        Work::Maps { interval, .. } => (Some(interval), None),
    };

    let end = watch
        .until_end(interval, look, deadline, command.as_mut(), &mut signals)
        .await;
    watch.source.stop();
    let finished = match end {
        Ok(_) => watch.finish(),
        // The first failure is the one to tell; the account may be incomplete.
        Err(_) => Ok(()),
    };
    let different = match &watch.desk {
        Desk::Verify(verifier) => verifier.differences() > 0,
        Desk::Events | Desk::Sums { .. } | Desk::Maps { .. } => false,
    };
    drop(watch);

    // Whatever became of the watch, the command is the user's own.
    let code = match (&end, command.as_mut()) {
        (Ok(End::Command(code)), _) => Ok(*code),
        (_, None) => Ok(0),
        (end, Some(command)) => {
            if matches!(end, Ok(End::Duration)) {
                command.terminate();
            }
            ended(command, &mut signals).await
        }
    };
    end?;
    finished?;
    if different {
        return Ok(DIFFERENT);
    }
    code
}

/// Exit code of a `verify` that found a difference.
const DIFFERENT: u8 = 1;

/// Waits for the command's end, after the watch.
async fn ended(command: &mut Running, signals: &mut Signals) -> Result<u8> {
    loop {
        tokio::select! {
            code = command.ended() => return code,
            request = signals.next() => pass_on(request, command),
        }
    }
}

/// Hands a request to end to the command. The terminal interrupts the command
/// by itself.
fn pass_on(request: Request, command: &Running) {
    match request {
        Request::Interrupt => {}
        Request::Terminate => command.terminate(),
    }
}

struct Watch<S> {
    source: S,
    decoder: Decoder,
    received: Received,
    sink: Box<dyn Sink>,
    desk: Desk,
    limits: RecentLimits,
    proc: Proc,
    directory: Directory,
    /// Inode number of mmwatch's own pid namespace, if that is not the root's.
    pid_namespace: Option<u32>,
    /// Read once somebody asks for a name.
    users: Option<Users>,
    /// Events that the verifier took.
    noted: u64,
    output_closed: bool,
    /// The interval of reports, as it changes.
    pace: Option<watch::Receiver<Duration>>,
}

impl<S: Source> Watch<S> {
    async fn until_end(
        &mut self,
        interval: Option<Duration>,
        look: Option<Duration>,
        deadline: Option<Instant>,
        mut command: Option<&mut Running>,
        signals: &mut Signals,
    ) -> Result<End> {
        let mut ticks = interval.map(every);
        let mut looks = look.map(every);
        // Whether records were left when a batch was full.
        let mut more = false;
        loop {
            // In this order: on a busy machine records are always ready.
            tokio::select! {
                biased;
                request = signals.next() => match &command {
                    // It ends, or not, as it sees fit; the watch ends with it.
                    Some(command) => pass_on(request, command),
                    None => return Ok(End::Asked),
                },
                code = when(command.as_deref_mut(), Running::ended) => return Ok(End::Command(code?)),
                () = when(deadline, sleep_until) => return Ok(End::Duration),
                _ = when(ticks.as_mut(), Interval::tick) => {
                    more = self.read()?;
                    self.report(false)?;
                    // A report looks by itself; a round heals nothing.
                    if let (Desk::Sums { .. }, Some(looks)) = (&self.desk, &mut looks) {
                        looks.reset();
                    }
                }
                _ = when(looks.as_mut(), Interval::tick) => self.look()?,
                pace = when(self.pace.as_mut(), changed) => match pace {
                    Some(interval) => ticks = Some(every(interval)),
                    None => self.pace = None,
                },
                ready = self.source.ready(), if !more => {
                    ready.map_err(Error::io("waiting for records"))?;
                    more = self.read()?;
                }
                () = tokio::task::yield_now(), if more => more = self.read()?,
            }
            if self.output_closed || self.desk.is_done() {
                return Ok(End::Asked);
            }
        }
    }

    /// Reads a batch. Returns whether there may be more.
    fn read(&mut self) -> Result<bool> {
        for _ in 0..BATCH {
            let Some(record) = self.source.next() else {
                self.flush()?;
                return Ok(false);
            };
            let mut event = match self.decoder.decode(record) {
                Ok(Some(event)) => event,
                Ok(None) => {
                    self.received.paths += 1;
                    continue;
                }
                Err(error) => {
                    self.received.undecodable += 1;
                    log::debug!("undecodable: {error}");
                    continue;
                }
            };
            self.received.events += 1;
            if event.errno.is_some() {
                event.reason = explain(&event, &self.limits.at(event.boot_ns));
            }
            match &mut self.desk {
                // It takes all there is, and cannot stall.
                Desk::Verify(verifier) => {
                    verifier.note(&event);
                    self.noted += 1;
                }
                Desk::Maps { history, .. } => {
                    history.note(&event);
                    self.noted += 1;
                }
                Desk::Events => {
                    event.who = self.directory.of_event(&event, &mut self.source);
                    let result = self.sink.event(self.received.events, &event);
                    self.written(result)?;
                    if event.ends_process() {
                        let key = ProcessKey::new(event.actor.tgid, event.actor.start_boot_ns);
                        self.directory.forget(key);
                        self.source.forget(key);
                    }
                }
                Desk::Sums { .. } => {
                    let result = self.sink.event(self.received.events, &event);
                    self.written(result)?;
                }
            }
        }
        self.flush()?;
        Ok(true)
    }

    /// Reads until there is nothing left, or no end in sight.
    fn drain(&mut self) -> Result<()> {
        for _ in 0..BATCHES {
            if !self.read()? {
                break;
            }
        }
        Ok(())
    }

    /// Reads on for a while.
    fn wait(&mut self, pause: Duration) -> Result<()> {
        let end = Instant::now() + pause;
        loop {
            self.drain()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(READ_AGAIN));
        }
    }

    /// Looks at what the kernel keeps.
    fn look(&mut self) -> Result<()> {
        match &mut self.desk {
            Desk::Events | Desk::Maps { .. } => {}
            Desk::Sums { churn, .. } => {
                // The sums before the list: see `Churn::update`.
                let sums = self.source.sums()?;
                let listed = self.source.processes()?;
                for key in churn.update(boot_ns()?, &sums, &listed) {
                    self.source.forget(key);
                }
            }
            Desk::Verify(_) => self.heal()?,
        }
        Ok(())
    }

    /// Ends the interval. `closed` as in [`Ledger::closed`].
    fn report(&mut self, closed: bool) -> Result<()> {
        match &self.desk {
            Desk::Events => return Ok(()),
            Desk::Sums { .. } => self.look()?,
            // Detached, the programs tell nothing of what goes on meanwhile.
            Desk::Verify(_) if closed => return Ok(()),
            Desk::Verify(_) => self.compare(closed)?,
            Desk::Maps { .. } => self.explain(closed)?,
        }
        let ledger = self.ledger(closed)?;
        if let Desk::Sums { churn, rows, by } = &mut self.desk {
            let shown = match by {
                By::Process => *rows,
                _ => usize::MAX,
            };
            let mut report = churn.tick(boot_ns()?, self.proc.max_map_count(), shown);
            for process in &mut report.processes {
                let (tgid, identity) = (process.key.tgid, process.identity);
                process.who = Some(self.directory.of(tgid, identity, &mut self.source));
            }
            if *by != By::Process {
                let users = &mut self.users;
                report = report.grouped(*by, *rows, |uid| {
                    users.get_or_insert_with(Users::new).name(uid)
                });
            }
            let result = self.sink.report(&report, &ledger);
            self.written(result)?;
        }
        self.flush()
    }

    /// Tells what is mapped, and what became of it.
    fn explain(&mut self, closed: bool) -> Result<()> {
        let &Desk::Maps { pid, .. } = &self.desk else {
            return Ok(());
        };
        let reading = match Reading::take(&self.proc, pid, maps::read::Source::Maps) {
            // It ended, which not every kernel lets be seen otherwise.
            Err(_) if self.proc.maps(pid)?.is_none_or(|text| text.is_empty()) => {
                if let Desk::Maps { history, .. } = &mut self.desk {
                    history.end();
                }
                return Ok(());
            }
            reading => reading?,
        };
        // After the reading, so that nothing is in it that is not told of.
        self.drain()?;
        let lost_events = self.ledger(closed)?.lost();
        let Desk::Maps {
            since_boot_ns,
            history,
            ..
        } = &mut self.desk
        else {
            return Ok(());
        };
        history.apply();
        let mut space = reading.space()?;
        maps::history::add_history(&mut space.vmas, history);
        space.watch = Some(maps::Watch {
            since_boot_ns: *since_boot_ns,
            now_boot_ns: boot_ns()?,
            lost_events,
        });
        let result = self.sink.space(&space);
        self.written(result)
    }

    /// After the programs were stopped: reads what is left, reports, closes.
    fn finish(&mut self) -> Result<()> {
        while self.read()? {}
        self.report(true)?;
        let ledger = self.ledger(true)?;
        tell_losses(&ledger);
        let result = self.sink.finish(&ledger);
        self.written(result)
    }

    fn ledger(&mut self, closed: bool) -> Result<Ledger> {
        Ok(Ledger {
            kernel: self.source.counters()?,
            received: self.received,
            sinks: vec![match &self.desk {
                Desk::Events | Desk::Sums { .. } => self.sink.counters(),
                Desk::Verify(_) | Desk::Maps { .. } => SinkCounters {
                    sink: self.desk.name(),
                    delivered: self.noted,
                    dropped: 0,
                },
            }],
            closed,
        })
    }

    fn flush(&mut self) -> Result<()> {
        let result = self.sink.flush();
        self.written(result)
    }

    /// Takes the end of the reader (`| head`) for a wish to end.
    fn written(&mut self, result: io::Result<()>) -> Result<()> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.output_closed = true;
                Ok(())
            }
            result => result.map_err(Error::io("writing the output")),
        }
    }
}

/// Ticks, the first after one period.
fn every(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// The next value; `None` when there will be none.
async fn changed(pace: &mut watch::Receiver<Duration>) -> Option<Duration> {
    pace.changed().await.ok()?;
    Some(*pace.borrow_and_update())
}

/// A future of something that may not be there: then it never ends.
async fn when<T, F: Future>(value: Option<T>, future: impl FnOnce(T) -> F) -> F::Output {
    match value {
        Some(value) => future(value).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;

//! The one loop: records → events → sums and sinks, until something ends it.
//!
//! One task owns all state. What ends the watch (a signal, the duration, the
//! command's end, a closed output) goes the same way out: stop the kernel
//! programs, read what is left, report, close the sinks.

mod desk;
mod maps;
pub mod poll;
mod record;
mod replay;
mod signals;
mod switch;
mod verify;

use std::{io, thread, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until},
};

use self::{
    desk::Desk,
    replay::Replayed,
    signals::{Request, Signals},
};
pub use self::{desk::Work, switch::Switch};
use crate::{
    churn::By,
    decode::Decoder,
    error::{Error, Result},
    event::Event,
    explain::{Limits, explain},
    filter::Filter,
    identity::{Directory, Here, Hierarchy, Runtimes},
    launch::{Held, Running},
    ledger::{Ledger, Received, SinkCounters},
    process::{Proc, RecentLimits, Users, page_bytes},
    sink::Sink,
    source::{ProcessKey, Source, Wake},
};

/// Records read before signals and ticks get their turn.
const BATCH: usize = 16_384;

/// The same where others in this thread take the events: no more than they have room for.
const SHARED_BATCH: usize = 4096;

/// What the loop is to do.
pub struct Job {
    /// Where events or reports go.
    pub sink: Box<dyn Sink>,
    /// What is made of events and of what the kernel keeps.
    pub work: Work,
    /// The interval of reports, where it can change on the way.
    pub pace: Option<watch::Receiver<Duration>>,
    /// Where the sink says whether it wants events that are only summed else.
    pub events: Option<Switch>,
    /// When to end.
    pub duration: Option<Duration>,
    /// What to run meanwhile.
    pub command: Option<Held>,
    /// Where the kernel's limits are read.
    pub proc: Proc,
    /// The hierarchy of cgroups by which processes are told apart.
    pub hierarchy: Option<Hierarchy>,
    /// Where containers have their names from.
    pub runtimes: Runtimes,
    /// Where mmwatch runs.
    pub here: Here,
    /// What of a recording is let through; the kernel filters by itself.
    pub filter: Option<Filter>,
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
    // Of a recording, nobody can change it any more.
    if ring_full > 0 && ledger.replay.is_none() {
        log::warn!(
            "the ring buffer was full for {ring_full} of {} events; a larger --buffer holds more",
            received + lost
        );
    }
}

/// Watches until the end and returns the exit code.
pub async fn run<S: Source>(mut source: S, job: Job) -> Result<u8> {
    let mut signals = Signals::new()?;
    // The default dispositions are replaced, so the command can start: from
    // here on an interrupt that ends it does not end mmwatch before its report.
    let mut command = job.command.map(Held::release).transpose()?;
    let pid_namespace = job.here.pid_namespace.map(|namespace| namespace.inode);
    let recorded_limits = source.limits();
    let page_bytes = recorded_limits.map_or_else(page_bytes, |limits| limits.page_bytes);
    let pace = job.work.pace();
    let tells_cgroups = job.work.tells_cgroups();
    let replayed = source
        .replay()
        .is_some()
        .then(|| Replayed::new(job.filter, pace.interval));
    let mut watch = Watch {
        decoder: Decoder::new(page_bytes),
        received: Received::default(),
        sink: job.sink,
        desk: Desk::new(
            job.work,
            source.now()?,
            page_bytes,
            &job.proc,
            pid_namespace,
        ),
        source,
        limits: RecentLimits::new(job.proc.clone()),
        proc: job.proc,
        directory: Directory::new(
            job.hierarchy.filter(|_| tells_cgroups),
            job.runtimes,
            &job.here,
        ),
        pid_namespace,
        users: None,
        noted: 0,
        output_closed: false,
        replayed,
        pace: job.pace,
        events: job.events,
    };
    let deadline = job.duration.map(|duration| Instant::now() + duration);

    let end = watch
        .until_end(pace, deadline, command.as_mut(), &mut signals)
        .await;
    watch.source.stop();
    let finished = match end {
        Ok(_) => watch.finish(),
        // The first failure is the one to tell; the account may be incomplete.
        Err(_) => Ok(()),
    };
    let different = watch.desk.found_differences();
    drop(watch);

    let code = code(&end, command.as_mut(), &mut signals).await;
    end?;
    finished?;
    if different {
        return Ok(DIFFERENT);
    }
    code
}

/// Exit code of a `verify` that found a difference.
const DIFFERENT: u8 = 1;

/// The exit code: whatever became of the watch, the command is the user's own.
async fn code(
    end: &Result<End>,
    command: Option<&mut Running>,
    signals: &mut Signals,
) -> Result<u8> {
    match (end, command) {
        (Ok(End::Command(code)), _) => Ok(*code),
        (_, None) => Ok(0),
        (end, Some(command)) => {
            if matches!(end, Ok(End::Duration)) {
                command.terminate();
            }
            ended(command, signals).await
        }
    }
}

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
    /// Events that the desk took itself.
    noted: u64,
    output_closed: bool,
    /// What there is to be done for a recording; `None` for the kernel.
    replayed: Option<Replayed>,
    /// The interval of reports, as it changes.
    pace: Option<watch::Receiver<Duration>>,
    events: Option<Switch>,
}

/// When a desk is looked at, by the clock on the wall.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Time between reports.
    interval: Option<Duration>,
    /// Time between looks at what the kernel keeps.
    look: Option<Duration>,
}

impl<S: Source> Watch<S> {
    async fn until_end(
        &mut self,
        pace: Pace,
        deadline: Option<Instant>,
        mut command: Option<&mut Running>,
        signals: &mut Signals,
    ) -> Result<End> {
        // A recording has a clock of its own.
        let is_live = self.replayed.is_none();
        let mut ticks = pace.interval.filter(|_| is_live).map(every);
        let mut looks = pace.look.filter(|_| is_live).map(every);
        if is_live {
            self.begin()?;
        }
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
                wanted = when(self.events.as_mut(), Switch::wanted) => self.switch(wanted)?,
                ready = self.source.ready(), if !more => {
                    match ready.map_err(Error::io("waiting for records"))? {
                        Wake::Records => more = self.read()?,
                        Wake::Look => self.replay_look()?,
                        Wake::End => return Ok(End::Asked),
                    }
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
        let batch = match self.events {
            Some(_) => SHARED_BATCH,
            None => BATCH,
        };
        for _ in 0..batch {
            let Some(record) = self.source.next() else {
                self.flush()?;
                return Ok(false);
            };
            if let Desk::Record(tape) = &mut self.desk {
                tape.hold(record);
            }
            let mut event = match self.decoder.decode(record) {
                Ok(Some(event)) => event,
                Ok(None) => {
                    self.received.paths += 1;
                    self.desk.keep();
                    continue;
                }
                Err(error) => {
                    self.received.undecodable += 1;
                    self.desk.keep();
                    log::debug!("undecodable: {error}");
                    continue;
                }
            };
            if self.is_unwanted(&event) {
                self.received.unwanted += 1;
                continue;
            }
            self.received.events += 1;
            let limits = event.errno.map(|_| self.limits(event.boot_ns));
            if let Some(limits) = &limits {
                event.reason = explain(&event, limits);
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
                Desk::Past { past, .. } => {
                    past.note(&event);
                    self.noted += 1;
                }
                Desk::Record(tape) => tape.keep_event(&event, limits, &mut self.source),
                Desk::Events => {
                    self.hand_on(&mut event)?;
                    if event.ends_process() {
                        let key = ProcessKey::new(event.actor.tgid, event.actor.start_boot_ns);
                        self.directory.forget(key);
                        self.source.forget(key);
                    }
                }
                Desk::Sums { .. } => match &mut self.replayed {
                    Some(replayed) => {
                        replayed.add(&event, &mut self.source);
                        self.noted += 1;
                    }
                    // The kernel sends what is summed only to a sink that wants it.
                    None => self.hand_on(&mut event)?,
                },
            }
        }
        self.flush()?;
        Ok(true)
    }

    /// Gives an event to the sink, with whose it is.
    fn hand_on(&mut self, event: &mut Event) -> Result<()> {
        event.who = Some(self.directory.of_event(event, &mut self.source));
        let result = self.sink.event(self.received.events, event);
        self.written(result)
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
            Desk::Events | Desk::Maps { .. } | Desk::Past { .. } => {}
            Desk::Sums {
                churn, programs, ..
            } => {
                // The sums before the list: see `Churn::update`.
                let sums = match &self.replayed {
                    Some(replayed) => replayed.sums(&mut self.source)?,
                    None => self.source.sums()?,
                };
                let mut listed = self.source.processes()?;
                if let Some(replayed) = &self.replayed {
                    replayed.retain(&mut listed, &mut self.directory, &mut self.source);
                }
                let of_sums = sums.iter().map(|(_, process)| process.identity);
                for identity in of_sums.chain(listed.iter().map(|row| row.identity)) {
                    self.directory.meet(identity, &mut self.source);
                }
                if let Some(programs) = programs {
                    programs.look(&listed);
                }
                for key in churn.update(self.source.now()?, &sums, &listed) {
                    self.source.forget(key);
                    if let Some(replayed) = &mut self.replayed {
                        replayed.forget(key);
                    }
                }
            }
            Desk::Record(_) => self.record_look()?,
            Desk::Verify(_) => self.heal()?,
        }
        Ok(())
    }

    /// What the kernel measured calls by, about then.
    fn limits(&mut self, boot_ns: u64) -> Limits {
        match self.source.limits() {
            Some(limits) => limits,
            None => self.limits.at(boot_ns),
        }
    }

    /// Ends the interval. `closed` as in [`Ledger::closed`].
    fn report(&mut self, closed: bool) -> Result<()> {
        match &self.desk {
            Desk::Events | Desk::Record(_) => return Ok(()),
            Desk::Past { .. } => self.tell_past(closed)?,
            Desk::Sums { .. } => self.look()?,
            // Detached, the programs tell nothing of what goes on meanwhile.
            Desk::Verify(_) if closed => return Ok(()),
            Desk::Verify(_) => self.compare(closed)?,
            Desk::Maps { .. } => self.explain(closed)?,
        }
        let ledger = self.ledger(closed)?;
        let now = self.source.now()?;
        let max_map_count = match self.source.limits() {
            Some(limits) => limits.max_map_count,
            None => self.proc.max_map_count(),
        };
        if let Desk::Sums {
            churn,
            rows,
            by,
            programs,
        } = &mut self.desk
        {
            let shown = match by {
                By::Process => *rows,
                _ => usize::MAX,
            };
            let mut report = churn.tick(now, max_map_count, shown);
            for process in &mut report.processes {
                let (tgid, identity) = (process.key.tgid, process.identity);
                process.who = Some(self.directory.of(tgid, identity, &mut self.source));
                process.program = programs
                    .as_ref()
                    .and_then(|programs| programs.of(process.key));
            }
            if let Some(programs) = programs {
                // The dead are in a report for the last time once their sums are final.
                programs.keep(report.processes.iter().map(|process| process.key));
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

    /// After the programs were stopped: reads what is left, reports, closes.
    fn finish(&mut self) -> Result<()> {
        while self.read()? {}
        self.report(true)?;
        self.finish_recording()?;
        let ledger = self.ledger(true)?;
        tell_losses(&ledger);
        let result = self.sink.finish(&ledger);
        self.written(result)
    }

    fn ledger(&mut self, closed: bool) -> Result<Ledger> {
        let sink = match &self.desk {
            Desk::Record(tape) => tape.counters(self.received.events),
            Desk::Events => self.sink.counters(),
            Desk::Sums { .. } if self.replayed.is_none() => self.sink.counters(),
            Desk::Sums { .. } | Desk::Verify(_) | Desk::Maps { .. } | Desk::Past { .. } => {
                SinkCounters {
                    sink: self.desk.name(),
                    delivered: self.noted,
                    dropped: 0,
                }
            }
        };
        let replay = self.replay();
        Ok(Ledger {
            kernel: self.source.counters()?,
            received: self.received,
            sinks: vec![sink],
            closed: closed && replay.is_none_or(|replay| replay.is_whole),
            replay,
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
async fn changed<T: Copy>(values: &mut watch::Receiver<T>) -> Option<T> {
    values.changed().await.ok()?;
    Some(*values.borrow_and_update())
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

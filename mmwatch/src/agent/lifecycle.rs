//! From the start to the end: readiness, reloading, systemd, the last sums.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

use super::{
    canary::{self, Sight},
    config::{Config, Origin},
    feed::Feed,
    http::{self, Door, Token},
    otlp::{Exporter, Files, Sender},
    series::{Counters, Series},
};
use crate::{
    churn::{By, Report},
    clock::WallClock,
    error::{Error, Result},
    event::Event,
    ledger::{Ledger, SinkCounters},
    options::System,
    pipeline::Switch,
    process::Users,
    sink::Sink,
};

/// What the agent knew at the end of an interval.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Every process.
    pub report: Report,
    /// What became of the kernel's records.
    pub ledger: Ledger,
    /// Counters of those that have series.
    pub counters: Counters,
    /// What the series are of.
    pub by: By,
    /// Groups, and processes, that have series of their own, at most.
    pub top_k: usize,
    /// How the kernel is hooked.
    pub hooks: &'static str,
    /// What times mean.
    pub clock: WallClock,
    /// When it was made.
    pub at: Instant,
}

/// What can change at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Live {
    interval: Duration,
    top_k: usize,
    canary_interval: Duration,
}

impl Live {
    fn new(config: &Config) -> Self {
        Self {
            interval: config.interval,
            top_k: config.top_k,
            canary_interval: config.canary_interval,
        }
    }
}

/// Whether the agent works, told to all who ask.
#[derive(Clone, Debug)]
pub struct Health {
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    sight: watch::Receiver<Sight>,
    live: watch::Receiver<Live>,
}

/// What is left to a report or a flight that comes late, at least.
const PATIENCE: Duration = Duration::from_secs(5);

impl Health {
    /// The last snapshot, if there is one.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshots.borrow().clone()
    }

    /// When the canary was seen last, if it can be and was.
    pub fn seen(&self) -> Option<Instant> {
        match *self.sight.borrow() {
            Sight::Seen(at) => Some(at),
            Sight::Filtered | Sight::Full | Sight::Unseen => None,
        }
    }

    /// Whether what is told can be relied upon, else why not.
    pub fn readiness(&self, now: Instant) -> Result<(), String> {
        let live = *self.live.borrow();
        let patience = (3 * live.interval).max(PATIENCE);
        let made = self.snapshots.borrow().as_ref().map(|made| made.at);
        is_ready(
            now,
            made,
            *self.sight.borrow(),
            patience,
            live.canary_interval,
        )
    }
}

fn is_ready(
    now: Instant,
    made: Option<Instant>,
    sight: Sight,
    patience: Duration,
    canary_interval: Duration,
) -> Result<(), String> {
    let age = |at| now.saturating_duration_since(at);
    match made {
        None => return Err("there is no report yet".into()),
        Some(at) if age(at) > patience => {
            return Err(format!("the last report is {} s old", age(at).as_secs()));
        }
        Some(_) => {}
    }
    match sight {
        Sight::Unseen => Err("the canary is not seen in the kernel's sums".into()),
        // Its flight takes some reports.
        Sight::Seen(at) if age(at) > canary_interval + 3 * patience => Err(format!(
            "the canary was seen {} s ago for the last time",
            age(at).as_secs()
        )),
        Sight::Filtered | Sight::Full | Sight::Seen(_) => Ok(()),
    }
}

/// What needs privileges, or may fail for reasons of others, and comes before anything else.
pub struct Prepared {
    config: Config,
    origin: Origin,
    token: Option<Token>,
    sender: Option<Sender>,
    door: Door,
}

impl Prepared {
    /// Reads the token and what requests to receivers need, and starts to listen.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] for an address that cannot be had, [`Error::Usage`] for files that
    /// cannot be read.
    pub fn new(config: Config, origin: Origin) -> Result<Self> {
        let token = config.token_file.as_deref().map(Token::read).transpose()?;
        let sender = config.otlp.as_ref().map(Sender::new).transpose()?;
        let door = Door::open(&config.listen)?;
        log::info!("listening on {}", config.listen);
        Ok(Self {
            config,
            origin,
            token,
            sender,
            door,
        })
    }
}

/// The agent apart from the loop that reads the kernel's sums.
pub struct Agent {
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    live: watch::Receiver<Live>,
    pace: watch::Receiver<Duration>,
    by: By,
    feed: Feed,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    exporter: Option<Exporter>,
}

/// Time that requests under way, and the last export, have to end.
const DRAIN: Duration = Duration::from_secs(1);

impl Agent {
    /// Starts to answer, to fly the canary, and to tell systemd.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the event loop does not take what it is to wait for.
    pub fn start(prepared: Prepared, system: &System) -> Result<Self> {
        let Prepared {
            config,
            origin,
            token,
            sender,
            door,
        } = prepared;
        let hangup = signal(SignalKind::hangup()).map_err(Error::io("listening for signals"))?;

        let is_filtered = config.cgroup.is_some() || config.container.is_some();
        let snapshots = watch::Sender::new(None);
        let sight = watch::Sender::new(if is_filtered {
            Sight::Filtered
        } else {
            Sight::Unseen
        });
        let live = watch::Sender::new(Live::new(&config));
        let pace = watch::Sender::new(config.interval);
        let stop = watch::Sender::new(false);
        let token = watch::Sender::new(token);
        let health = Health {
            snapshots: snapshots.subscribe(),
            sight: sight.subscribe(),
            live: live.subscribe(),
        };
        let (paced, lived) = (pace.subscribe(), live.subscribe());
        if !is_filtered {
            let live = live.subscribe();
            let period = move || live.borrow().canary_interval;
            tokio::spawn(canary::watch(snapshots.subscribe(), period, sight));
        }
        let feed = Feed::default();
        let exporter = match (&config.otlp, sender) {
            (Some(otlp), Some(sender)) => {
                let (otlp, health) = (otlp.clone(), health.clone());
                Some(Exporter::start(otlp, sender, health, &feed, system)?)
            }
            _ => None,
        };
        let books = exporter.as_ref().map(|exporter| exporter.books().clone());
        let told = http::Told {
            health: health.clone(),
            feed: feed.clone(),
            system: system.clone(),
        };
        let server = http::serve(
            door,
            http::Site::new(&config, told, token.subscribe(), books),
            &config,
            stop.subscribe(),
        )?;
        let server = tokio::spawn(server);
        tokio::spawn(tell_systemd(health));
        let by = config.group_by;
        let files = exporter.as_ref().map(Exporter::files);
        tokio::spawn(reload(hangup, config, origin, live, pace, token, files));
        Ok(Self {
            snapshots,
            live: lived,
            pace: paced,
            by,
            feed,
            stop,
            server,
            exporter,
        })
    }

    /// Where the loop's reports go. `hooks` names how the kernel is hooked.
    pub fn sink(&self, hooks: &'static str, clock: WallClock) -> Box<dyn Sink> {
        Box::new(AgentSink {
            series: Series::new(self.by, Users::new()),
            snapshots: self.snapshots.clone(),
            feed: self.feed.clone(),
            live: self.live.clone(),
            hooks,
            clock,
            last: None,
            received: 0,
        })
    }

    /// The interval of the loop, as it changes.
    pub fn pace(&self) -> watch::Receiver<Duration> {
        self.pace.clone()
    }

    /// Where it says whether anybody wants events.
    pub fn events(&self) -> Switch {
        self.feed.switch()
    }

    /// Takes no more requests, lets those end that are under way, and sends the last sums.
    pub async fn end(self) {
        self.stop.send_replace(true);
        let export = async {
            if let Some(exporter) = self.exporter {
                exporter.end(DRAIN).await;
            }
        };
        // The rest is cut off.
        let _ = tokio::join!(tokio::time::timeout(DRAIN, self.server), export);
    }
}

/// Reads the configuration anew at each SIGHUP. What is wrong changes nothing.
async fn reload(
    mut hangup: Signal,
    mut config: Config,
    origin: Origin,
    live: watch::Sender<Live>,
    pace: watch::Sender<Duration>,
    token: watch::Sender<Option<Token>>,
    files: Option<Files>,
) {
    while hangup.recv().await.is_some() {
        let new = match origin.load() {
            Ok(new) => new,
            Err(error) => {
                log::error!("the configuration stays as it was: {error}");
                continue;
            }
        };
        // From where it was at the start, as a new file needs a restart.
        match config.token_file.as_deref().map(Token::read).transpose() {
            Ok(new) => token.send_replace(new),
            Err(error) => {
                log::error!("the configuration stays as it was: {error}");
                continue;
            }
        };
        if let Some(Err(error)) = files.as_ref().map(Files::read) {
            log::error!("the configuration stays as it was: {error}");
            continue;
        }
        let restart = config.needs_restart(&new);
        if !restart.is_empty() {
            log::warn!(
                "these change at the next start only: {}",
                restart.join(", ")
            );
        }
        config.interval = new.interval;
        config.top_k = new.top_k;
        config.canary_interval = new.canary_interval;
        live.send_replace(Live::new(&config));
        pace.send_replace(config.interval);
        log::info!("read {} again", origin.path().display());
    }
}

/// Tells systemd when the agent is ready, and with each report that it goes on.
async fn tell_systemd(mut health: Health) {
    if let Some(watchdog) = sd_notify::watchdog_enabled()
        && health.live.borrow().interval > watchdog / 2
    {
        log::warn!("the interval is longer than half of WatchdogSec: systemd will lose patience");
    }
    let mut is_told = false;
    loop {
        let changed = tokio::select! {
            changed = health.snapshots.changed() => {
                if changed.is_ok() {
                    notify(&[NotifyState::Watchdog]);
                }
                changed
            }
            changed = health.sight.changed() => match changed {
                // With a filter nobody looks for the canary.
                Err(_) => health.snapshots.changed().await,
                changed => changed,
            },
        };
        if changed.is_err() {
            return;
        }
        if !is_told && health.readiness(Instant::now()).is_ok() {
            log::info!("ready");
            notify(&[NotifyState::Ready]);
            is_told = true;
        }
    }
}

/// Does nothing where systemd did not start the agent.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("systemd cannot be told: {error}");
    }
}

/// Makes a snapshot of each report, and hands on events.
struct AgentSink {
    series: Series,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    feed: Feed,
    live: watch::Receiver<Live>,
    hooks: &'static str,
    clock: WallClock,
    last: Option<Arc<Snapshot>>,
    received: u64,
}

impl Sink for AgentSink {
    fn event(&mut self, seq: u64, event: &Event) -> io::Result<()> {
        self.received += 1;
        self.feed.publish(seq, event);
        Ok(())
    }

    fn report(&mut self, report: &Report, ledger: &Ledger) -> io::Result<()> {
        let top_k = self.live.borrow().top_k;
        self.series.count(report, top_k);
        self.feed.report(ledger);
        let snapshot = Arc::new(Snapshot {
            report: report.clone(),
            ledger: ledger.clone(),
            counters: self.series.counters().clone(),
            by: self.series.by(),
            top_k,
            hooks: self.hooks,
            clock: self.clock,
            at: Instant::now(),
        });
        self.snapshots.send_replace(Some(snapshot.clone()));
        self.last = Some(snapshot);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, ledger: &Ledger) -> io::Result<()> {
        notify(&[NotifyState::Stopping]);
        self.feed.report(ledger);
        self.feed.close();
        if let Some(last) = &self.last {
            let all = &last.report.all.total;
            let ops = all.all_ops();
            log::info!(
                "ended after {} s: {} operations, {} errors, {} bytes mapped, {} bytes unmapped",
                last.report.elapsed_ns / 1_000_000_000,
                ops.count,
                ops.errors,
                all.mapped_bytes,
                all.unmapped_bytes
            );
        }
        for line in ledger.to_string().lines() {
            log::info!("{line}");
        }
        Ok(())
    }

    fn counters(&self) -> SinkCounters {
        SinkCounters {
            sink: "agent",
            delivered: self.received,
            dropped: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_who_sees_the_canary_in_fresh_reports() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let ready = |now, made, sight| {
            is_ready(
                now,
                made,
                sight,
                Duration::from_secs(5),
                Duration::from_secs(15),
            )
        };
        for (now, made, sight, want) in [
            (0, None, Sight::Filtered, Some("there is no report yet")),
            (0, Some(0), Sight::Unseen, Some("the canary is not seen")),
            (5, Some(0), Sight::Filtered, None),
            (5, Some(0), Sight::Full, None),
            (
                6,
                Some(0),
                Sight::Filtered,
                Some("the last report is 6 s old"),
            ),
            (30, Some(30), Sight::Seen(start), None),
            (31, Some(31), Sight::Seen(start), Some("was seen 31 s ago")),
        ] {
            let result = ready(after(now), made.map(after), sight);
            match want {
                None => assert_eq!(result, Ok(())),
                Some(want) => assert!(result.unwrap_err().contains(want), "{want}"),
            }
        }
    }
}

//! The export by OTLP: what `/metrics` tells is sent to a receiver of OpenTelemetry.
//!
//! Each signal has a bounded queue and one who delivers what is in it, so
//! that neither waits for the other, and nobody waits for the receiver.

mod accounts;
mod backoff;
mod deliver;
mod events;
mod logs;
mod metrics;
mod queue;
mod resource;
mod send;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};

pub use self::{
    accounts::{Accounts, Books},
    send::Sender,
};
use self::{deliver::deliver, events::Hopper, metrics::Encoder, queue::Queue};
use super::{
    config::Otlp,
    feed::{Feed, Losses},
    lifecycle::Health,
    metrics::Sources,
};
use crate::{
    clock::WallClock,
    error::{Error, Result},
    options::{System, of_query},
    process::Proc,
};

/// Events that may wait until they are encoded.
const ROOM: usize = 16 << 10;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Data points.
    Metrics,
    /// Events.
    Logs,
}

impl Signal {
    /// Its name by OpenTelemetry.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }

    /// What there are several of in a request.
    const fn items(self) -> &'static str {
        match self {
            Self::Metrics => "data points",
            Self::Logs => "events",
        }
    }

    /// Where requests go by HTTP.
    const fn path(self) -> &'static str {
        match self {
            Self::Metrics => "/v1/metrics",
            Self::Logs => "/v1/logs",
        }
    }

    /// Where they go by gRPC.
    const fn method(self) -> &'static str {
        match self {
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }
}

/// The export, while it goes on.
pub struct Exporter {
    config: Otlp,
    books: Books,
    sender: watch::Sender<Arc<Sender>>,
    closing: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Exporter {
    /// Starts to send what `health` tells and, where that is asked for, what comes by `feed`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] for a clock that cannot be read.
    pub fn start(
        config: Otlp,
        sender: Sender,
        health: Health,
        feed: &Feed,
        system: &System,
    ) -> Result<Self> {
        let sender = watch::Sender::new(Arc::new(sender));
        let closing = watch::Sender::new(false);
        let clock = WallClock::sample()?;
        let resource = resource::resource();
        let metrics = Arc::new(Queue::new(config.queue));
        let logs = config.events.then(|| Arc::new(Queue::new(config.queue)));
        let lost = watch::Sender::new(Losses::default());
        let books = Books::new(metrics.clone(), logs.clone(), lost.subscribe());
        let mut tasks = Vec::new();
        let mut deliver = |signal, queue| {
            let delivery = deliver(signal, queue, sender.subscribe(), closing.subscribe());
            tasks.push(tokio::spawn(delivery));
        };
        deliver(Signal::Metrics, metrics.clone());
        if let Some(queue) = &logs {
            deliver(Signal::Logs, queue.clone());
        }
        if let Some(queue) = logs {
            // All of them, as far as the agent's own filter goes.
            let subscription = feed
                .subscribe(of_query(&[], system)?, ROOM)
                .ok_or_else(|| Error::Usage("there are too many subscribers".to_owned()))?;
            let encoder = logs::Encoder::new(clock, resource.clone());
            let hopper = Hopper::new(encoder, queue, config.events_per_second);
            tasks.push(tokio::spawn(events::produce(subscription, hopper, lost)));
        }
        log::info!("sending to {}", config.endpoint);
        tasks.push(tokio::spawn(produce(
            Encoder::new(clock, unix_ns(), resource),
            health,
            system.proc.clone(),
            books.clone(),
            metrics,
            config.interval,
            closing.subscribe(),
        )));
        Ok(Self {
            config,
            books,
            sender,
            closing,
            tasks,
        })
    }

    /// What became of all that was to be sent.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// Something that reads the files anew.
    pub fn files(&self) -> Files {
        Files {
            config: self.config.clone(),
            sender: self.sender.clone(),
        }
    }

    /// Sends what there is, in so much time, and tells what is left.
    pub async fn end(self, time: Duration) {
        self.closing.send_replace(true);
        let all = async {
            for task in self.tasks {
                // One that panicked has said so.
                let _ = task.await;
            }
        };
        // The rest is told below.
        let _ = timeout(time, all).await;
        self.books.tell();
    }
}

/// Headers and certificates of requests.
pub struct Files {
    config: Otlp,
    sender: watch::Sender<Arc<Sender>>,
}

impl Files {
    /// Reads them again, and connects anew.
    ///
    /// # Errors
    ///
    /// As [`Sender::new`]; then all stays as it was.
    pub fn read(&self) -> Result<()> {
        self.sender
            .send_replace(Arc::new(Sender::new(&self.config)?));
        Ok(())
    }
}

/// Puts all metrics into the queue, once per interval and at the end.
async fn produce(
    mut encoder: Encoder,
    health: Health,
    proc: Proc,
    books: Books,
    queue: Arc<Queue>,
    period: Duration,
    mut closing: watch::Receiver<bool>,
) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first is at once, when there is nothing yet.
    ticks.tick().await;
    let mut is_last = false;
    while !is_last {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = closing.changed() => is_last = true,
        }
        let sources = Sources::look(&health, &proc, Some(books.accounts()), Instant::now());
        for batch in encoder.encode(&sources.metrics(), unix_ns()) {
            queue.put(batch);
        }
    }
    queue.close();
}

/// The wall clock, ns after 1970.
fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

//! From the feed to the queue of logs, not more in a second than was asked for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::logs::v1::LogRecord;
use tokio::{sync::watch, time::sleep_until};

use super::{logs::Encoder, queue::Queue, unix_ns};
use crate::agent::feed::{Item, Losses, Subscription, Told};

/// Events in one request, at most.
const MAX_RECORDS: usize = 512;

/// Time that an event waits for others, at most.
const LINGER: Duration = Duration::from_secs(1);

/// Puts events into the queue until there are no more. What the feed lost goes to `lost`.
pub async fn produce(
    mut subscription: Subscription,
    mut hopper: Hopper,
    lost: watch::Sender<Losses>,
) {
    loop {
        let due = hopper.due();
        tokio::select! {
            item = subscription.next() => match item {
                Some(Item::Event(told)) => hopper.take(&told, Instant::now()),
                Some(Item::Lost(losses)) => {
                    lost.send_replace(losses);
                }
                None => break,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                hopper.empty();
            }
        }
    }
    hopper.empty();
    hopper.queue.close();
}

/// Events that wait for others of the same request.
pub struct Hopper {
    encoder: Encoder,
    queue: Arc<Queue>,
    limit: Limit,
    records: Vec<LogRecord>,
    /// When the first of them came.
    since: Option<Instant>,
}

impl Hopper {
    /// An empty one.
    pub fn new(encoder: Encoder, queue: Arc<Queue>, per_second: u32) -> Self {
        Self {
            encoder,
            queue,
            limit: Limit::new(per_second, Instant::now()),
            records: Vec::new(),
            since: None,
        }
    }

    fn take(&mut self, told: &Told, now: Instant) {
        if !self.limit.allows(now) {
            self.queue.leave_out();
            return;
        }
        match self.encoder.record(told, unix_ns()) {
            Ok(record) => self.records.push(record),
            Err(error) => {
                log::debug!("otlp: an event cannot be written: {error}");
                self.queue.leave_out();
            }
        }
        self.since.get_or_insert(now);
        if self.records.len() >= MAX_RECORDS {
            self.empty();
        }
    }

    /// When it has to be emptied; `None` while nothing is in it.
    fn due(&self) -> Option<Instant> {
        Some(self.since? + LINGER)
    }

    fn empty(&mut self) {
        self.since = None;
        let records = std::mem::take(&mut self.records);
        if !records.is_empty() {
            self.queue.put(self.encoder.batch(records));
        }
    }
}

/// So many in a second, and at once as many as in one second.
#[derive(Debug)]
struct Limit {
    per_second: f64,
    allowed: f64,
    last: Instant,
}

impl Limit {
    fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self {
            per_second,
            allowed: per_second,
            last: now,
        }
    }

    /// Whether there may be one now, which then there was.
    fn allows(&mut self, now: Instant) -> bool {
        let passed_s = now.saturating_duration_since(self.last).as_secs_f64();
        self.allowed = (self.allowed + passed_s * self.per_second).min(self.per_second);
        self.last = now;
        let allows = self.allowed >= 1.0;
        if allows {
            self.allowed -= 1.0;
        }
        allows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::WallClock, event::Op, sample};

    #[test]
    fn so_many_are_allowed_in_a_second() {
        let start = Instant::now();
        let mut limit = Limit::new(10, start);
        let mut allowed = |at_ms: u64| {
            let now = start + Duration::from_millis(at_ms);
            (0..100).filter(|_| limit.allows(now)).count()
        };
        assert_eq!(allowed(0), 10);
        assert_eq!(allowed(0), 0);
        assert_eq!(allowed(500), 5);
        // What was not used in an hour is not kept.
        assert_eq!(allowed(3_600_000), 10);
    }

    #[test]
    fn events_wait_for_each_other_and_are_all_accounted_for() {
        let queue = Arc::new(Queue::new(1 << 20));
        let encoder = Encoder::new(WallClock::with_offset(0), Default::default());
        let mut hopper = Hopper::new(encoder, queue.clone(), 600);
        let told = Told {
            seq: 1,
            event: sample::event(Op::Map),
        };
        assert_eq!(hopper.due(), None);
        let now = Instant::now();
        for _ in 0..700 {
            hopper.take(&told, now);
        }
        assert_eq!(queue.account().waiting, MAX_RECORDS as u64);
        assert_eq!(hopper.due(), Some(now + LINGER));
        hopper.empty();
        assert_eq!(hopper.due(), None);
        let account = queue.account();
        assert_eq!((account.waiting, account.made), (600, 700));
        assert_eq!(account.rate_limited, 100);
    }
}

//! What the export says of itself, in the agent's metrics and at its end.

use std::sync::Arc;

use tokio::sync::watch;

use super::{
    Signal,
    queue::{Account, Queue},
};
use crate::agent::{
    feed::Losses,
    metrics::{Labels, Metric},
};

/// Where all that is to be sent is accounted for.
#[derive(Clone, Debug)]
pub struct Books {
    metrics: Arc<Queue>,
    /// Of events, where these are sent.
    logs: Option<Arc<Queue>>,
    /// Events that did not come to the queue.
    lost: watch::Receiver<Losses>,
}

impl Books {
    /// Those of these queues.
    pub(super) fn new(
        metrics: Arc<Queue>,
        logs: Option<Arc<Queue>>,
        lost: watch::Receiver<Losses>,
    ) -> Self {
        Self {
            metrics,
            logs,
            lost,
        }
    }

    /// As they are now.
    pub fn accounts(&self) -> Accounts {
        let metrics = (Signal::Metrics, self.metrics.account());
        let logs = self.logs.as_ref();
        let logs = logs.map(|logs| (Signal::Logs, logs.account()));
        Accounts {
            lost: logs.map(|_| *self.lost.borrow()),
            signals: [Some(metrics), logs].into_iter().flatten().collect(),
        }
    }

    /// Says in the log what was sent, and what was not.
    pub(super) fn tell(&self) {
        let Accounts { signals, lost } = self.accounts();
        if let Some(lost) = lost.filter(|lost| *lost != Losses::default()) {
            log::warn!(
                "otlp: events were lost before they were to be sent: {} ring full, {} missed, {} \
                 undecodable, {} dropped",
                lost.ring_full,
                lost.missed,
                lost.undecodable,
                lost.dropped
            );
        }
        for (signal, account) in signals {
            log::info!(
                "otlp: {} {} = {} sent + {} rejected + {} refused + {} dropped (queue full) + {} \
                 dropped (rate limit) + {} not sent",
                account.made,
                signal.items(),
                account.sent,
                account.rejected,
                account.refused,
                account.queue_full,
                account.rate_limited,
                account.waiting
            );
        }
    }
}

/// What became of the items of each signal.
#[derive(Clone, Debug)]
pub struct Accounts {
    signals: Vec<(Signal, Account)>,
    /// Where events are sent.
    lost: Option<Losses>,
}

impl Accounts {
    /// Of an export that did all there is.
    #[cfg(test)]
    pub(in crate::agent) fn sample() -> Self {
        let account = Account {
            made: 21,
            sent: 1,
            rejected: 2,
            refused: 3,
            queue_full: 4,
            rate_limited: 5,
            waiting: 6,
            waiting_bytes: 600,
            ..Account::default()
        };
        Self {
            signals: vec![(Signal::Metrics, account), (Signal::Logs, account)],
            lost: Some(Losses::default()),
        }
    }

    /// The same as metrics.
    pub fn metrics(&self) -> Vec<Metric> {
        let lost = self.lost.iter().flat_map(|lost| {
            [
                ("ring_full", lost.ring_full),
                ("missed", lost.missed),
                ("undecodable", lost.undecodable),
                ("dropped", lost.dropped),
            ]
            .map(|(cause, count)| (vec![("cause", cause.to_owned())], count))
        });
        vec![
            Metric::counter(
                "mmwatch_otlp_events_lost",
                "Events that were lost before they were to be sent",
                lost,
            ),
            Metric::counter(
                "mmwatch_otlp_items",
                "Data points and events that were to be sent",
                self.each(|account| account.made),
            ),
            Metric::counter(
                "mmwatch_otlp_item_fates",
                "What became of these; adds up to them with those that wait",
                self.each_of("fate", |account| {
                    vec![
                        ("sent", account.sent),
                        ("rejected", account.rejected),
                        ("refused", account.refused),
                        ("queue_full", account.queue_full),
                        ("rate_limited", account.rate_limited),
                    ]
                }),
            ),
            Metric::level(
                "mmwatch_otlp_waiting",
                "Items that wait, or are under way",
                self.each(|account| account.waiting),
            ),
            Metric::level(
                "mmwatch_otlp_waiting",
                "Bytes of the items that wait",
                self.each(|account| account.waiting_bytes),
            )
            .bytes(),
            Metric::counter(
                "mmwatch_otlp_requests",
                "Requests that were made, by what became of them",
                self.each_of("result", |account| {
                    let requests = account.requests;
                    vec![
                        ("accepted", requests.accepted),
                        ("partial", requests.partial),
                        ("failed", requests.failed),
                        ("refused", requests.refused),
                    ]
                }),
            ),
        ]
    }

    fn each(&self, value: impl Fn(&Account) -> u64) -> Vec<(Labels, u64)> {
        let row = |(signal, account): &(Signal, Account)| {
            (vec![("signal", signal.name().to_owned())], value(account))
        };
        self.signals.iter().map(row).collect()
    }

    fn each_of(
        &self,
        label: &'static str,
        values: impl Fn(&Account) -> Vec<(&'static str, u64)>,
    ) -> Vec<(Labels, u64)> {
        let mut rows = Vec::new();
        for (signal, account) in &self.signals {
            for (name, value) in values(account) {
                let labels = vec![
                    ("signal", signal.name().to_owned()),
                    (label, name.to_owned()),
                ];
                rows.push((labels, value));
            }
        }
        rows
    }
}

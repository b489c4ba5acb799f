//! What the export says of itself, in the agent's metrics and at its end.

use std::sync::Arc;

use super::{
    Signal,
    queue::{Account, Queue},
};
use crate::agent::metrics::{Labels, Metric};

/// Where all that is to be sent is accounted for.
#[derive(Clone, Debug)]
pub struct Books {
    metrics: Arc<Queue>,
}

impl Books {
    /// Those of these queues.
    pub(super) fn new(metrics: Arc<Queue>) -> Self {
        Self { metrics }
    }

    /// As they are now.
    pub fn accounts(&self) -> Accounts {
        Accounts {
            signals: vec![(Signal::Metrics, self.metrics.account())],
        }
    }

    /// Says in the log what was sent, and what was not.
    pub(super) fn tell(&self) {
        for (signal, account) in self.accounts().signals {
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
        }
    }

    /// The same as metrics.
    pub fn metrics(&self) -> Vec<Metric> {
        vec![
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

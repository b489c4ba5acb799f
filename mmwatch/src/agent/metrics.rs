//! Metrics, described once for all who are told; docs/metrics.md is the reference.

mod ledger;
mod metric;
mod spaces;
mod sums;
mod text;

use std::{sync::Arc, time::Instant};

use self::metric::one;
pub use self::{
    metric::{Kind, Labels, Metric, Row, Unit, Value},
    text::{CONTENT_TYPE, PLAIN_CONTENT_TYPE, plain, text},
};
use super::{
    lifecycle::{Health, Snapshot},
    otlp::Accounts,
    own,
};
use crate::process::Proc;

/// What metrics are made of.
#[derive(Debug)]
pub struct Sources {
    snapshot: Option<Arc<Snapshot>>,
    is_ready: bool,
    /// Time since the canary was seen.
    seen_s: Option<f64>,
    now: Instant,
    own: Own,
    export: Option<Accounts>,
}

/// What the agent costs.
#[derive(Clone, Copy, Debug)]
struct Own {
    cpu_s: f64,
    resident_bytes: Option<u64>,
    bpf_s: Option<f64>,
}

impl Sources {
    /// As they are at this moment. `export` are those of the export by OTLP, if there is one.
    pub fn look(health: &Health, proc: &Proc, export: Option<Accounts>, now: Instant) -> Self {
        Self {
            snapshot: health.snapshot(),
            is_ready: health.readiness(now).is_ok(),
            seen_s: health
                .seen()
                .map(|at| now.saturating_duration_since(at).as_secs_f64()),
            now,
            own: Own {
                cpu_s: own::cpu_seconds(),
                resident_bytes: own::resident_bytes(),
                bpf_s: own::bpf_seconds(proc),
            },
            export,
        }
    }

    /// All metrics.
    pub fn metrics(&self) -> Vec<Metric> {
        let mut all = self.agent();
        if let Some(export) = &self.export {
            all.extend(export.metrics());
        }
        if let Some(snapshot) = &self.snapshot {
            all.extend(sums::totals(&snapshot.counters.all));
            all.extend(sums::groups(snapshot));
            all.extend(spaces::of(snapshot));
            all.extend(ledger::of(&snapshot.ledger));
        }
        all
    }

    fn agent(&self) -> Vec<Metric> {
        let snapshot = self.snapshot.as_ref();
        let hooks = snapshot.map_or("", |snapshot| snapshot.hooks);
        let age_s = snapshot.map(|snapshot| {
            let age = self.now.saturating_duration_since(snapshot.at);
            age.as_secs_f64()
        });
        vec![
            Metric::info(
                "mmwatch_build",
                "The agent's version, and how it hooks the kernel",
                vec![
                    ("version", env!("CARGO_PKG_VERSION").to_owned()),
                    ("hooks", hooks.to_owned()),
                ],
            ),
            Metric::gauge(
                "mmwatch_ready",
                "1 if reports are fresh and the canary is seen, else 0",
                one(u32::from(self.is_ready)),
            ),
            Metric::gauge(
                "mmwatch_canary_age",
                "Time since the agent's own mapping was seen in the kernel's sums",
                self.seen_s.into_iter().flat_map(one),
            )
            .seconds(),
            Metric::gauge(
                "mmwatch_report_age",
                "Age of what is told here",
                age_s.into_iter().flat_map(one),
            )
            .seconds(),
            Metric::counter(
                "process_cpu",
                "CPU time of the agent, user and system",
                one(self.own.cpu_s),
            )
            .seconds()
            .known_as("process.cpu.time"),
            Metric::level(
                "process_resident_memory",
                "Memory of the agent",
                self.own.resident_bytes.into_iter().flat_map(one),
            )
            .bytes()
            .known_as("process.memory.usage"),
            Metric::counter(
                "mmwatch_bpf_run",
                "Time that the kernel ran the agent's programs, where it measures that",
                self.own.bpf_s.into_iter().flat_map(one),
            )
            .seconds(),
        ]
    }
}

#[cfg(test)]
pub(super) mod tests;

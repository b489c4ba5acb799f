//! Metrics in the text of OpenMetrics; docs/metrics.md is the reference.

use std::{
    cmp::Reverse,
    fmt::{Error, Result},
    sync::Arc,
    time::Instant,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::{
    lifecycle::{Health, Snapshot},
    own,
    series::{Name, OTHER},
};
use crate::{
    churn::{ProcessReport, Slope, Sums},
    event::{Backing, Op, Suspect},
    identity::Who,
    process::Proc,
};

/// The type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics at this moment.
///
/// # Errors
///
/// None that a text in memory has.
pub fn text(health: &Health, proc: &Proc, now: Instant) -> std::result::Result<String, Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics {
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
    }));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// What the agent costs.
#[derive(Clone, Copy, Debug)]
struct Own {
    cpu_s: f64,
    resident_bytes: Option<u64>,
    bpf_s: Option<f64>,
}

#[derive(Debug)]
struct Metrics {
    snapshot: Option<Arc<Snapshot>>,
    is_ready: bool,
    /// Time since the canary was seen.
    seen_s: Option<f64>,
    now: Instant,
    own: Own,
}

type Labels = Vec<(&'static str, String)>;

/// Writes metrics one after the other.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    /// Counters; `_total` is added to their name.
    fn counters<V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        rows: impl IntoIterator<Item = (Labels, V)>,
    ) -> Result {
        let mut metric =
            self.0
                .encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for (labels, value) in rows {
            if labels.is_empty() {
                metric.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
            } else {
                metric
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, f64>(&value, None)?;
            }
        }
        Ok(())
    }

    fn gauges<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        rows: impl IntoIterator<Item = (Labels, V)>,
    ) -> Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in rows {
            if labels.is_empty() {
                metric.encode_gauge(&value)?;
            } else {
                metric.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result {
        let mut to = Writer(encoder);
        self.agent(&mut to)?;
        let Some(snapshot) = &self.snapshot else {
            return Ok(());
        };
        totals(&mut to, &snapshot.counters.all)?;
        groups(&mut to, snapshot)?;
        vmas(&mut to, snapshot)?;
        ledger(&mut to, snapshot)
    }
}

impl Metrics {
    fn agent(&self, to: &mut Writer<'_>) -> Result {
        to.0.encode_descriptor(
            "mmwatch_build",
            "The agent's version, and how it hooks the kernel",
            None,
            MetricType::Info,
        )?
        .encode_info(&vec![
            ("version", env!("CARGO_PKG_VERSION")),
            (
                "hooks",
                self.snapshot.as_ref().map_or("", |snapshot| snapshot.hooks),
            ),
        ])?;
        to.gauges(
            "mmwatch_ready",
            "1 if reports are fresh and the canary is seen, else 0",
            None,
            [(vec![], u32::from(self.is_ready))],
        )?;
        to.gauges(
            "mmwatch_canary_age",
            "Time since the agent's own mapping was seen in the kernel's sums",
            Some(Unit::Seconds),
            self.seen_s.map(|seen| (vec![], seen)),
        )?;
        let age = self.snapshot.as_ref().map(|snapshot| {
            let age = self.now.saturating_duration_since(snapshot.at);
            (vec![], age.as_secs_f64())
        });
        to.gauges(
            "mmwatch_report_age",
            "Age of what is told here",
            Some(Unit::Seconds),
            age,
        )?;
        to.counters(
            "process_cpu",
            "CPU time of the agent, user and system",
            Some(Unit::Seconds),
            [(vec![], self.own.cpu_s)],
        )?;
        to.gauges(
            "process_resident_memory",
            "Memory of the agent",
            Some(Unit::Bytes),
            self.own.resident_bytes.map(|bytes| (vec![], bytes)),
        )?;
        to.counters(
            "mmwatch_bpf_run",
            "Time that the kernel ran the agent's programs, where it measures that",
            Some(Unit::Seconds),
            self.own.bpf_s.map(|seconds| (vec![], seconds)),
        )
    }
}

fn totals(to: &mut Writer<'_>, all: &Sums) -> Result {
    let by_op = |value: fn(&Sums, Op) -> u64| {
        Op::ALL
            .iter()
            .map(move |&op| (vec![("op", op.name().to_owned())], value(all, op)))
    };
    to.counters(
        "mmwatch_operations",
        "Operations on address spaces, failed ones too",
        None,
        by_op(|sums, op| sums.op(op).count),
    )?;
    to.counters(
        "mmwatch_operation_errors",
        "Operations that failed",
        None,
        by_op(|sums, op| sums.op(op).errors),
    )?;
    to.counters(
        "mmwatch_operation",
        "Bytes that operations covered",
        Some(Unit::Bytes),
        by_op(|sums, op| sums.op(op).bytes),
    )?;
    to.counters(
        "mmwatch_lock_held",
        "Time that mmap_lock was held for writing",
        Some(Unit::Seconds),
        Op::ALL.iter().map(|&op| {
            let held_s = all.op(op).held_ns as f64 / 1e9;
            (vec![("op", op.name().to_owned())], held_s)
        }),
    )?;
    to.counters(
        "mmwatch_lock_holds",
        "How often that was measured",
        None,
        by_op(|sums, op| sums.op(op).held_count),
    )?;
    let by_backing = |value: fn(&Sums, Backing) -> u64| {
        Backing::ALL.iter().map(move |&backing| {
            let labels = vec![("backing", backing.name().to_owned())];
            (labels, value(all, backing))
        })
    };
    to.counters(
        "mmwatch_mappings",
        "Mappings that programs made",
        None,
        by_backing(|sums, backing| sums.backing(backing).maps),
    )?;
    to.counters(
        "mmwatch_mappings",
        "Bytes of the mappings that programs made",
        Some(Unit::Bytes),
        by_backing(|sums, backing| sums.backing(backing).bytes),
    )?;
    to.counters(
        "mmwatch_suspect_mappings",
        "Dangerous mappings, by kind; one can be of several",
        None,
        Suspect::ALL.iter().map(|&kind| {
            let labels = vec![("kind", kind.name().to_owned())];
            (labels, all.suspect(kind))
        }),
    )?;
    to.counters(
        "mmwatch_mapped",
        "Bytes mapped, and by which heaps, stacks and mappings grew",
        Some(Unit::Bytes),
        [(vec![], all.mapped_bytes)],
    )?;
    to.counters(
        "mmwatch_unmapped",
        "Bytes unmapped, those at exit too",
        Some(Unit::Bytes),
        [(vec![], all.unmapped_bytes)],
    )?;
    to.counters(
        "mmwatch_vmas_removed",
        "VMAs removed or merged into others",
        None,
        [(vec![], all.vmas_removed)],
    )
}

/// What groups did. Sums of what is there once it is not 0: most groups do few things.
fn groups(to: &mut Writer<'_>, snapshot: &Snapshot) -> Result {
    let counters = &snapshot.counters;
    let other = Name {
        group: OTHER.to_owned(),
        comm: None,
    };
    let all: Vec<_> = counters
        .groups
        .iter()
        .chain([(&other, &counters.other)])
        .collect();
    let labels = |name: &Name| {
        let mut labels = vec![
            ("by", snapshot.by.name().to_owned()),
            ("group", name.group.clone()),
        ];
        labels.extend(name.comm.clone().map(|comm| ("comm", comm)));
        labels
    };
    let rows = |key: &'static str, values: fn(&Sums) -> Vec<(&'static str, u64)>| {
        let mut rows = Vec::new();
        for (name, sums) in &all {
            for (value_name, value) in values(sums) {
                if value > 0 {
                    let mut labels = labels(name);
                    labels.push((key, value_name.to_owned()));
                    rows.push((labels, value));
                }
            }
        }
        rows
    };
    to.counters(
        "mmwatch_group_operations",
        "Operations of a group of processes",
        None,
        rows("op", |sums| {
            let count = |op: &Op| (op.name(), sums.op(*op).count);
            Op::ALL.iter().map(count).collect()
        }),
    )?;
    to.counters(
        "mmwatch_group_operation_errors",
        "Operations of a group of processes that failed",
        None,
        rows("op", |sums| {
            let errors = |op: &Op| (op.name(), sums.op(*op).errors);
            Op::ALL.iter().map(errors).collect()
        }),
    )?;
    to.counters(
        "mmwatch_group_mappings",
        "Bytes of the mappings that a group of processes made",
        Some(Unit::Bytes),
        rows("backing", |sums| {
            let bytes = |backing: &Backing| (backing.name(), sums.backing(*backing).bytes);
            Backing::ALL.iter().map(bytes).collect()
        }),
    )?;
    to.counters(
        "mmwatch_group_suspect_mappings",
        "Dangerous mappings of a group of processes",
        None,
        rows("kind", |sums| {
            let count = |kind: &Suspect| (kind.name(), sums.suspect(*kind));
            Suspect::ALL.iter().map(count).collect()
        }),
    )?;
    to.counters(
        "mmwatch_group_mapped",
        "Bytes that a group of processes mapped",
        Some(Unit::Bytes),
        all.iter()
            .map(|(name, sums)| (labels(name), sums.mapped_bytes)),
    )?;
    to.counters(
        "mmwatch_group_unmapped",
        "Bytes that a group of processes unmapped",
        Some(Unit::Bytes),
        all.iter()
            .map(|(name, sums)| (labels(name), sums.unmapped_bytes)),
    )
}

/// VMAs of the processes that have most, however busy they are.
fn vmas(to: &mut Writer<'_>, snapshot: &Snapshot) -> Result {
    let report = &snapshot.report;
    let limit = report.max_map_count;
    let mut order: Vec<_> = report
        .processes
        .iter()
        .filter(|process| process.alive)
        .collect();
    order.sort_by_key(|process| (Reverse(process.vmas), process.key));
    let (shown, rest) = order.split_at(snapshot.top_k.min(order.len()));
    let each = |value: fn(&ProcessReport, u32) -> Option<f64>| {
        shown.iter().filter_map(move |process| {
            let value = value(process, limit)?;
            Some((process_labels(process), value))
        })
    };
    let with_rest = |value: fn(&ProcessReport) -> u64| {
        let rest: u64 = rest.iter().map(|process| value(process)).sum();
        shown
            .iter()
            .map(|process| (process_labels(process), value(process)))
            .chain([(vec![("pid", OTHER.to_owned())], rest)])
            .collect::<Vec<_>>()
    };

    to.gauges(
        "mmwatch_vmas_limit",
        "Most VMAs that a process may have (vm.max_map_count)",
        None,
        [(vec![], limit)],
    )?;
    to.gauges(
        "mmwatch_processes",
        "Processes that are watched and have an address space",
        None,
        [(vec![], order.len() as u64)],
    )?;
    to.gauges(
        "mmwatch_process_vmas",
        "VMAs of a process",
        None,
        with_rest(|process| process.vmas.map_or(0, u64::from)),
    )?;
    to.gauges(
        "mmwatch_process_virtual_memory",
        "Bytes of all mappings of a process",
        Some(Unit::Bytes),
        with_rest(|process| process.total_bytes.unwrap_or(0)),
    )?;
    to.gauges(
        "mmwatch_process_vmas_peak",
        "Most VMAs that a process was seen to have",
        None,
        each(|process, _| process.vmas_peak.map(f64::from)),
    )?;
    to.gauges(
        "mmwatch_process_vmas_ratio",
        "Share of its limit that the VMAs of a process are",
        None,
        each(|process, limit| Some(f64::from(process.vmas?) / f64::from(limit.max(1)))),
    )?;
    to.gauges(
        "mmwatch_process_vmas_per_second",
        "Pace of the VMAs of a process",
        None,
        each(|process, _| process.slope.map(Slope::vmas_per_s)),
    )?;
    to.gauges(
        "mmwatch_process_vmas_exhaustion",
        "Time until a process has all VMAs that it may have, while it goes on as it does",
        Some(Unit::Seconds),
        each(|process, limit| Some(process.time_to_limit_ns(limit)? as f64 / 1e9)),
    )
}

/// The same labels of whichever process, so that their values alone tell them apart.
fn process_labels(process: &ProcessReport) -> Labels {
    let who = process.who.as_deref();
    let container = who.and_then(Who::container);
    let pod = container.and_then(|container| container.pod_uid.clone());
    vec![
        ("pid", Who::shown_pid(who, process.key.tgid).to_string()),
        ("comm", process.comm.to_string()),
        (
            "container",
            container.map_or_else(String::new, |container| container.id.clone()),
        ),
        ("pod", pod.unwrap_or_default()),
    ]
}

fn ledger(to: &mut Writer<'_>, snapshot: &Snapshot) -> Result {
    let ledger = &snapshot.ledger;
    let hooks = &ledger.kernel.hooks;
    let of_hook = |hook: &crate::source::HookCounters| {
        vec![
            ("hook", hook.hook.name().to_owned()),
            ("program", hook.program.clone()),
        ]
    };
    to.counters(
        "mmwatch_hook_fired",
        "How often a hook fired",
        None,
        hooks.iter().map(|hook| (of_hook(hook), hook.ledger.fired)),
    )?;
    to.counters(
        "mmwatch_hook_records",
        "What became of that; adds up to what fired",
        None,
        hooks.iter().flat_map(|hook| {
            let ledger = &hook.ledger;
            [
                ("filtered", ledger.filtered),
                ("summed", ledger.summed),
                ("submitted", ledger.submitted),
                ("ring_full", ledger.ring_full),
                ("simulated", ledger.simulated),
            ]
            .map(|(fate, count)| {
                let mut labels = of_hook(hook);
                labels.push(("fate", fate.to_owned()));
                (labels, count)
            })
        }),
    )?;
    to.counters(
        "mmwatch_hook_missed",
        "Runs of a program that the kernel skipped, where it says so",
        None,
        hooks
            .iter()
            .filter_map(|hook| Some((of_hook(hook), hook.missed?))),
    )?;
    let sum = ledger.kernel_sum();
    let dropped = ledger.sinks.iter().map(|sink| sink.dropped).sum();
    let labelled = |key: &'static str, rows: Vec<(&str, u64)>| {
        rows.into_iter()
            .map(|(value, count)| (vec![(key, value.to_owned())], count))
            .collect::<Vec<_>>()
    };
    to.counters(
        "mmwatch_events_lost",
        "Events that fired, were wanted and did not arrive",
        None,
        labelled(
            "stage",
            vec![
                ("ring_full", sum.ring_full),
                ("simulated", sum.simulated),
                ("undecodable", ledger.received.undecodable),
                ("sink", dropped),
            ],
        ),
    )?;
    to.counters(
        "mmwatch_incomplete",
        "What is counted with a part of it unknown",
        None,
        labelled(
            "cause",
            vec![
                ("scratch_full", sum.scratch_full),
                ("spaces_full", sum.spaces_full),
                ("processes_full", sum.processes_full),
                ("unfinished", sum.unfinished),
                ("paths_ring_full", sum.paths_ring_full),
            ],
        ),
    )?;
    to.counters(
        "mmwatch_received",
        "Records that came out of the ring buffer",
        None,
        labelled(
            "kind",
            vec![
                ("events", ledger.received.events),
                ("paths", ledger.received.paths),
                ("undecodable", ledger.received.undecodable),
            ],
        ),
    )?;
    to.gauges(
        "mmwatch_unread",
        "Records that are still in the ring buffer",
        None,
        [(vec![], ledger.unread())],
    )
}

#[cfg(test)]
mod tests;

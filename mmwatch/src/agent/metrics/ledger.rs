//! What became of the kernel's records.

use super::metric::{Labels, Metric, one};
use crate::{ledger::Ledger, source::HookCounters};

pub(super) fn of(ledger: &Ledger) -> Vec<Metric> {
    let hooks = &ledger.kernel.hooks;
    let of_hook = |hook: &HookCounters| {
        vec![
            ("hook", hook.hook.name().to_owned()),
            ("program", hook.program.clone()),
        ]
    };
    let records = hooks.iter().flat_map(|hook| {
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
    });
    let sum = ledger.kernel_sum();
    let received = &ledger.received;
    let dropped = ledger.sinks.iter().map(|sink| sink.dropped).sum();
    vec![
        Metric::counter(
            "mmwatch_hook_fired",
            "How often a hook fired",
            hooks.iter().map(|hook| (of_hook(hook), hook.ledger.fired)),
        ),
        Metric::counter(
            "mmwatch_hook_records",
            "What became of that; adds up to what fired",
            records,
        ),
        Metric::counter(
            "mmwatch_hook_missed",
            "Runs of a program that the kernel skipped, where it says so",
            hooks
                .iter()
                .filter_map(|hook| Some((of_hook(hook), hook.missed?))),
        ),
        Metric::counter(
            "mmwatch_events_lost",
            "Events that fired, were wanted and did not arrive",
            labelled(
                "stage",
                &[
                    ("ring_full", sum.ring_full),
                    ("simulated", sum.simulated),
                    ("undecodable", received.undecodable),
                    ("sink", dropped),
                ],
            ),
        ),
        Metric::counter(
            "mmwatch_incomplete",
            "What is counted with a part of it unknown",
            labelled(
                "cause",
                &[
                    ("scratch_full", sum.scratch_full),
                    ("spaces_full", sum.spaces_full),
                    ("processes_full", sum.processes_full),
                    ("unfinished", sum.unfinished),
                    ("paths_ring_full", sum.paths_ring_full),
                ],
            ),
        ),
        Metric::counter(
            "mmwatch_received",
            "Records that came out of the ring buffer",
            labelled(
                "kind",
                &[
                    ("events", received.events),
                    ("paths", received.paths),
                    ("undecodable", received.undecodable),
                ],
            ),
        ),
        Metric::level(
            "mmwatch_unread",
            "Records that are still in the ring buffer",
            one(ledger.unread()),
        ),
    ]
}

fn labelled(key: &'static str, rows: &[(&'static str, u64)]) -> Vec<(Labels, u64)> {
    rows.iter()
        .map(|&(value, count)| (vec![(key, value.to_owned())], count))
        .collect()
}

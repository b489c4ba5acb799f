//! VMAs of the processes that have most, however busy they are.

use std::cmp::Reverse;

use super::metric::{Labels, Metric, one};
use crate::{
    agent::{lifecycle::Snapshot, series::OTHER},
    churn::{ProcessReport, Slope},
    identity::Who,
};

pub(super) fn of(snapshot: &Snapshot) -> Vec<Metric> {
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
            Some((labels(process), value))
        })
    };
    let with_rest = |value: fn(&ProcessReport) -> u64| {
        let rest: u64 = rest.iter().map(|process| value(process)).sum();
        shown
            .iter()
            .map(|process| (labels(process), value(process)))
            .chain([(vec![("pid", OTHER.to_owned())], rest)])
            .collect::<Vec<_>>()
    };

    vec![
        Metric::gauge(
            "mmwatch_vmas_limit",
            "Most VMAs that a process may have (vm.max_map_count)",
            one(limit),
        ),
        Metric::level(
            "mmwatch_processes",
            "Processes that are watched and have an address space",
            one(order.len() as u64),
        ),
        Metric::level(
            "mmwatch_process_vmas",
            "VMAs of a process",
            with_rest(|process| process.vmas.map_or(0, u64::from)),
        ),
        Metric::level(
            "mmwatch_process_virtual_memory",
            "Bytes of all mappings of a process",
            with_rest(|process| process.total_bytes.unwrap_or(0)),
        )
        .bytes(),
        Metric::gauge(
            "mmwatch_process_vmas_peak",
            "Most VMAs that a process was seen to have",
            each(|process, _| process.vmas_peak.map(f64::from)),
        ),
        Metric::gauge(
            "mmwatch_process_vmas_ratio",
            "Share of its limit that the VMAs of a process are",
            each(|process, limit| Some(f64::from(process.vmas?) / f64::from(limit.max(1)))),
        ),
        Metric::gauge(
            "mmwatch_process_vmas_per_second",
            "Pace of the VMAs of a process",
            each(|process, _| process.slope.map(Slope::vmas_per_s)),
        ),
        Metric::gauge(
            "mmwatch_process_vmas_exhaustion",
            "Time until a process has all VMAs that it may have, while it goes on as it does",
            each(|process, limit| Some(process.time_to_limit_ns(limit)? as f64 / 1e9)),
        )
        .seconds(),
    ]
}

/// The same labels of whichever process, so that their values alone tell them apart.
fn labels(process: &ProcessReport) -> Labels {
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

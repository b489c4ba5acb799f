use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    agent::series::Series, churn::By, clock::WallClock, event::Op, process::Users, sample,
};

const DOCS: &str = include_str!("../../../../docs/metrics.md");

pub(in crate::agent) fn snapshot(by: By, top_k: usize) -> Snapshot {
    let report = sample::report();
    let mut series = Series::new(by, Users::read("/nonexistent".as_ref()));
    series.count(&report, top_k);
    Snapshot {
        report,
        ledger: sample::ledger(),
        counters: series.counters().clone(),
        by,
        top_k,
        hooks: "fentry",
        clock: WallClock::with_offset(sample::BOOT_AT_UNIX_NS),
        at: Instant::now(),
    }
}

pub(in crate::agent) fn sources(snapshot: Option<Snapshot>) -> Sources {
    Sources {
        snapshot: snapshot.map(Arc::new),
        is_ready: true,
        seen_s: Some(1.0),
        now: Instant::now(),
        own: Own {
            cpu_s: 1.5,
            resident_bytes: Some(1 << 20),
            bpf_s: Some(0.25),
        },
        export: Some(Accounts::sample()),
    }
}

fn written(snapshot: Option<Snapshot>) -> String {
    text(sources(snapshot).metrics()).unwrap()
}

/// Samples by name and labels.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(
            samples.insert(name, value.parse().unwrap()).is_none(),
            "{name}"
        );
    }
    samples
}

fn sum(samples: &BTreeMap<&str, f64>, name: &str, label: &str) -> f64 {
    let start = format!("{name}{{");
    samples
        .iter()
        .filter(|(sample, _)| sample.starts_with(&start) && sample.contains(label))
        .map(|(_, value)| value)
        .sum()
}

#[test]
fn groups_add_up_to_the_totals() {
    for (by, top_k) in [
        (By::Process, 1),
        (By::Process, 9),
        (By::Comm, 1),
        (By::Container, 9),
    ] {
        let text = written(Some(snapshot(by, top_k)));
        let samples = samples(&text);
        for &op in Op::ALL {
            let label = format!("op=\"{}\"", op.name());
            for metric in ["operations", "operation_errors"] {
                assert_eq!(
                    sum(&samples, &format!("mmwatch_group_{metric}_total"), &label),
                    sum(&samples, &format!("mmwatch_{metric}_total"), &label),
                    "{metric} {label}"
                );
            }
        }
        assert_eq!(
            sum(&samples, "mmwatch_group_mapped_bytes_total", ""),
            samples["mmwatch_mapped_bytes_total"]
        );
        assert_eq!(
            sum(&samples, "mmwatch_group_mappings_bytes_total", ""),
            sum(&samples, "mmwatch_mappings_bytes_total", "")
        );
    }
}

#[test]
fn names_are_escaped_and_numbers_are_those_of_the_report() {
    let text = written(Some(snapshot(By::Process, 9)));
    let samples = samples(&text);
    assert_eq!(
        samples[r#"mmwatch_group_operations_total{by="process",group="200",comm="busy\\x07",op="map"}"#],
        100.0
    );
    assert_eq!(
        samples[r#"mmwatch_process_vmas{pid="200",comm="busy\\x07",container="",pod=""}"#],
        120.0
    );
    assert_eq!(samples[r#"mmwatch_process_vmas{pid="other"}"#], 0.0);
    assert_eq!(samples["mmwatch_vmas_limit"], 65_530.0);
    assert_eq!(
        samples[r#"mmwatch_process_vmas_ratio{pid="200",comm="busy\\x07",container="",pod=""}"#],
        120.0 / 65_530.0
    );
    assert_eq!(samples["mmwatch_bpf_run_seconds_total"], 0.25);
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn the_older_text_has_the_same_samples() {
    let metrics = sources(Some(snapshot(By::Process, 9))).metrics();
    let (plain, text) = (plain(&metrics).unwrap(), text(metrics).unwrap());
    let number = |text: &str| {
        let samples = samples(text);
        let all = samples
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        all.collect::<Vec<_>>()
    };
    assert_eq!(number(&plain), number(&text));
    assert!(!plain.contains("# EOF") && !plain.contains("# UNIT"));
    // Each sample is of the metric that was declared last.
    let mut declared = "";
    for line in plain.lines() {
        if let Some(of) = line.strip_prefix("# TYPE ") {
            declared = of.split(' ').next().unwrap();
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            assert_eq!(name, declared, "{line}");
        }
    }
    for help in text.lines().filter(|line| line.starts_with("# HELP ")) {
        let help = help.splitn(4, ' ').last().unwrap();
        assert!(plain.contains(help), "{help}");
    }
}

#[test]
fn vmas_of_all_processes_add_up() {
    let text = written(Some(snapshot(By::Process, 1)));
    let samples = samples(&text);
    let processes = sample::report().processes;
    let all: u32 = processes.iter().filter_map(|process| process.vmas).sum();
    assert_eq!(sum(&samples, "mmwatch_process_vmas", ""), f64::from(all));
}

#[test]
fn before_the_first_report_there_is_the_agent_alone() {
    let text = written(None);
    assert!(text.contains("mmwatch_ready 1"));
    assert!(!text.contains("mmwatch_operations"));
}

/// The series that samples of a metric have.
fn series(name: &str, kind: &str) -> String {
    match kind {
        "counter" => format!("{name}_total"),
        "info" => format!("{name}_info"),
        _ => name.to_owned(),
    }
}

#[test]
fn the_reference_has_every_metric_and_its_labels_and_no_other() {
    let text = written(Some(snapshot(By::Process, 9)));
    let kinds: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (series(name, kind), kind.to_owned()))
        .collect();
    let mut documented = BTreeMap::new();
    for line in DOCS.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let labels: BTreeSet<_> = cells[4]
            .split(", ")
            .map(|label| label.trim_matches('`').to_owned())
            .filter(|label| !label.is_empty())
            .collect();
        documented.insert(
            cells[1].trim_matches('`').to_owned(),
            (cells[2].to_owned(), labels),
        );
    }
    let documented_kinds: BTreeMap<_, _> = documented
        .iter()
        .map(|(name, (kind, _))| (name.clone(), kind.clone()))
        .collect();
    assert_eq!(documented_kinds, kinds);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once(' ').unwrap().0;
        let Some((name, labels)) = series.strip_suffix('}').and_then(|s| s.split_once('{')) else {
            continue;
        };
        for pair in labels.split("\",") {
            let label = pair.split('=').next().unwrap();
            assert!(documented[name].1.contains(label), "{name}: {label}");
        }
    }
}

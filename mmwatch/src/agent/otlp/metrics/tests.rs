use opentelemetry_proto::tonic::common::v1::any_value;

use super::*;
use crate::{
    agent::metrics::{
        tests::{snapshot, sources},
        text,
    },
    churn::By,
};

const START_NS: u64 = 1_000_000_000;
const NOW_NS: u64 = 9_000_000_000;

fn encoder() -> Encoder {
    Encoder::new(
        WallClock::with_offset(2_000_000_000),
        START_NS,
        Resource::default(),
    )
}

fn metrics(top_k: usize) -> Vec<Metric> {
    sources(Some(snapshot(By::Process, top_k))).metrics()
}

fn decoded(batches: &[Batch]) -> Vec<OtlpMetric> {
    let mut metrics = Vec::new();
    for batch in batches {
        let request = ExportMetricsServiceRequest::decode(batch.body.clone()).unwrap();
        let [resource] = &request.resource_metrics[..] else {
            panic!("one resource");
        };
        let found = &resource.scope_metrics[0].metrics;
        let items: usize = found.iter().map(|metric| points(metric).len()).sum();
        assert_eq!(items as u64, batch.items);
        metrics.extend(found.iter().cloned());
    }
    metrics
}

fn points(metric: &OtlpMetric) -> &[NumberDataPoint] {
    match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => &sum.data_points,
        Data::Gauge(gauge) => &gauge.data_points,
        other => panic!("{other:?}"),
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| {
        let Some(any_value::Value::StringValue(text)) = pair.value.clone().unwrap().value else {
            panic!("{pair:?}");
        };
        (pair.key.clone(), text)
    };
    attributes.iter().map(text).collect()
}

fn value(point: &NumberDataPoint) -> f64 {
    match point.value.unwrap() {
        OtlpValue::AsInt(count) => count as f64,
        OtlpValue::AsDouble(number) => number,
    }
}

/// The name that receivers make for Prometheus: letters and `_`, the unit, `_total`.
fn translated(metric: &OtlpMetric) -> String {
    let mut name = metric.name.replace('.', "_");
    let unit = match metric.unit.as_str() {
        "By" => "_bytes",
        "s" => "_seconds",
        unit => unit,
    };
    if !name.ends_with(unit) {
        name += unit;
    }
    if matches!(&metric.data, Some(Data::Sum(sum)) if sum.is_monotonic) {
        name += "_total";
    }
    name
}

#[test]
fn values_and_names_are_those_of_the_text() {
    let metrics = metrics(9);
    let text = text(metrics.clone()).unwrap();
    let mut want: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            // These have names of OpenTelemetry's own.
            let name = match name {
                "process_cpu_seconds_total" => "process_cpu_time_seconds_total",
                "process_resident_memory_bytes" => "process_memory_usage_bytes",
                name => name,
            };
            let labels = series.matches("=\"").count() - series.matches("=\"\"").count();
            (
                name.to_owned(),
                labels,
                value.parse::<f64>().unwrap().to_bits(),
            )
        })
        .collect();
    let mut got = Vec::new();
    for metric in decoded(&encoder().encode(&metrics, NOW_NS)) {
        for point in points(&metric) {
            let labels = point.attributes.len();
            got.push((translated(&metric), labels, value(point).to_bits()));
        }
    }
    want.sort();
    got.sort();
    assert_eq!(got, want);
}

#[test]
fn no_two_metrics_have_one_name() {
    let metrics = decoded(&encoder().encode(&metrics(9), NOW_NS));
    let names: BTreeSet<_> = metrics.iter().map(|metric| &metric.name).collect();
    assert_eq!(names.len(), metrics.len());
    assert!(names.contains(&"mmwatch.mappings".to_owned()));
    assert!(names.contains(&"mmwatch.mappings.bytes".to_owned()));
    assert!(names.contains(&"mmwatch.build.info".to_owned()));
}

#[test]
fn counters_say_since_when_and_levels_that_they_may_fall() {
    let snapshot = snapshot(By::Process, 9);
    let since = *snapshot.counters.since_boot_ns.values().next().unwrap();
    let metrics = sources(Some(snapshot)).metrics();
    for metric in decoded(&encoder().encode(&metrics, u64::MAX)) {
        let is_monotonic = match metric.data.as_ref().unwrap() {
            Data::Sum(sum) => {
                let cumulative = AggregationTemporality::Cumulative as i32;
                assert_eq!(sum.aggregation_temporality, cumulative);
                sum.is_monotonic
            }
            _ => false,
        };
        match metric.name.as_str() {
            "mmwatch.group.operations" | "process.cpu.time" => assert!(is_monotonic),
            "mmwatch.process.vmas" | "mmwatch.ready" => assert!(!is_monotonic),
            _ => {}
        }
        for point in points(&metric) {
            let group = texts(&point.attributes).remove("group");
            let start = match group.filter(|group| group != "other") {
                Some(_) => since + 2_000_000_000,
                None => START_NS,
            };
            assert_eq!(point.start_time_unix_nano, start, "{}", metric.name);
            assert_eq!(point.time_unix_nano, u64::MAX);
        }
    }
}

#[test]
fn a_series_that_ends_is_marked_once() {
    let mut encoder = encoder();
    let ended = |batches: Vec<Batch>| {
        let mut ended = Vec::new();
        for metric in decoded(&batches) {
            for point in points(&metric) {
                if point.flags == DataPointFlags::NoRecordedValueMask as u32 {
                    assert_eq!(point.value, None);
                    let labels = texts(&point.attributes);
                    ended.push((metric.name.clone(), labels));
                }
            }
        }
        ended
    };
    assert_eq!(ended(encoder.encode(&metrics(9), NOW_NS)), []);
    let gone = ended(encoder.encode(&metrics(1), NOW_NS));
    let processes: Vec<_> = gone
        .iter()
        .filter(|(name, _)| name == "mmwatch.group.mapped")
        .collect();
    assert!(!processes.is_empty(), "{gone:?}");
    assert!(
        processes
            .iter()
            .all(|(_, labels)| labels["group"] != "other")
    );
    assert_eq!(ended(encoder.encode(&metrics(1), NOW_NS)), []);
}

#[test]
fn a_request_has_so_many_points_and_no_more() {
    let labels = |n: usize| vec![("pid", n.to_string())];
    let metric = |name, count| Metric {
        name,
        semantic: None,
        help: "",
        kind: Kind::Gauge,
        unit: None,
        rows: (0..count).map(|n| Row::from((labels(n), 1_u64))).collect(),
    };
    let metrics = [metric("a", 10), metric("b", 2 * MAX_POINTS), metric("c", 0)];
    let batches = encoder().encode(&metrics, NOW_NS);
    let items: Vec<_> = batches.iter().map(|batch| batch.items).collect();
    assert_eq!(items, [MAX_POINTS as u64, MAX_POINTS as u64, 10]);
    let all = decoded(&batches);
    let names: Vec<_> = all.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "b", "b"]);
    assert!(encoder().encode(&[], NOW_NS).is_empty());
}

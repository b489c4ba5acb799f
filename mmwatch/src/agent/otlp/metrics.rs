//! Metrics as OTLP has them: the same values as at `/metrics`, by names that receivers
//! which make Prometheus's names of them make equal to those there.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{InstrumentationScope, KeyValue},
    metrics::v1::{
        AggregationTemporality, DataPointFlags, Gauge, Metric as OtlpMetric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point::Value as OtlpValue,
    },
    resource::v1::Resource,
};
use prost::Message as _;

use super::{
    queue::Batch,
    resource::{attribute, scope},
};
use crate::{
    agent::metrics::{Kind, Labels, Metric, Row, Unit, Value},
    clock::WallClock,
};

/// Data points in one request, at most: far from the 4 MiB that receivers take by gRPC.
const MAX_POINTS: usize = 4000;

/// Encodes metrics, and remembers which series there were.
#[derive(Debug)]
pub struct Encoder {
    resource: Resource,
    scope: InstrumentationScope,
    clock: WallClock,
    /// When what has no time of its own began, ns after 1970.
    start_unix_ns: u64,
    /// Series of the last time, by the name of their metric.
    told: BTreeMap<String, BTreeSet<Labels>>,
}

impl Encoder {
    /// One for counters that are 0 at `start_unix_ns`, unless they know better.
    pub fn new(clock: WallClock, start_unix_ns: u64, resource: Resource) -> Self {
        Self {
            resource,
            scope: scope(),
            clock,
            start_unix_ns,
            told: BTreeMap::new(),
        }
    }

    /// The requests that tell all of `metrics`, as they are at `now_unix_ns`.
    pub fn encode(&mut self, metrics: &[Metric], now_unix_ns: u64) -> Vec<Batch> {
        let mut all = Vec::new();
        let mut told = BTreeMap::new();
        for metric in metrics {
            let name = name(metric, metrics);
            let series: BTreeSet<_> = metric.rows.iter().map(|row| row.labels.clone()).collect();
            let gone = self.told.get(&name).into_iter().flatten();
            let gone = gone.filter(|labels| !series.contains(*labels));
            let gone = gone.map(|labels| self.mark_of_the_end(labels, now_unix_ns));
            let points: Vec<_> = metric
                .rows
                .iter()
                .map(|row| self.point(row, now_unix_ns))
                .chain(gone)
                .collect();
            if !points.is_empty() {
                all.push((named(metric, &name), points));
            }
            told.insert(name, series);
        }
        self.told = told;
        self.batches(all)
    }

    fn point(&self, row: &Row, now_unix_ns: u64) -> NumberDataPoint {
        let start = match row.since_boot_ns {
            Some(boot_ns) => self.clock.at(boot_ns).unix_ns(),
            None => self.start_unix_ns,
        };
        NumberDataPoint {
            attributes: attributes(&row.labels),
            // The wall clock may have been set back.
            start_time_unix_nano: start.min(now_unix_ns),
            time_unix_nano: now_unix_ns,
            value: Some(match row.value {
                Value::Count(count) => OtlpValue::AsInt(i64::try_from(count).unwrap_or(i64::MAX)),
                Value::Number(number) => OtlpValue::AsDouble(number),
            }),
            ..NumberDataPoint::default()
        }
    }

    /// Says that a series has ended: else receivers would take its last value for the present
    /// one for minutes, and what is in `other` by now would be counted twice.
    fn mark_of_the_end(&self, labels: &Labels, now_unix_ns: u64) -> NumberDataPoint {
        NumberDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: self.start_unix_ns.min(now_unix_ns),
            time_unix_nano: now_unix_ns,
            flags: DataPointFlags::NoRecordedValueMask as u32,
            ..NumberDataPoint::default()
        }
    }

    /// As few requests as points fit in.
    fn batches(&self, all: Vec<(OtlpMetric, Vec<NumberDataPoint>)>) -> Vec<Batch> {
        let mut batches = Vec::new();
        let (mut metrics, mut count) = (Vec::new(), 0);
        for (metric, mut points) in all {
            while !points.is_empty() {
                let rest = points.split_off(points.len().min(MAX_POINTS - count));
                count += points.len();
                if !points.is_empty() {
                    metrics.push(with(metric.clone(), points));
                }
                if count == MAX_POINTS {
                    batches.push(self.batch(std::mem::take(&mut metrics), count));
                    count = 0;
                }
                points = rest;
            }
        }
        if count > 0 {
            batches.push(self.batch(metrics, count));
        }
        batches
    }

    fn batch(&self, metrics: Vec<OtlpMetric>, count: usize) -> Batch {
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.resource.clone()),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(self.scope.clone()),
                    metrics,
                    ..ScopeMetrics::default()
                }],
                ..ResourceMetrics::default()
            }],
        };
        Batch {
            body: request.encode_to_vec().into(),
            items: count as u64,
        }
    }
}

/// Dots for underscores, and no unit, which stands beside the name: unless another metric
/// differs in nothing else.
fn name(metric: &Metric, all: &[Metric]) -> String {
    if let Some(name) = metric.semantic {
        return name.to_owned();
    }
    let mut name = metric.name.replace('_', ".");
    if metric.kind == Kind::Info {
        name += ".info";
    }
    let is_ambiguous = |other: &Metric| other.name == metric.name && other.unit.is_none();
    match metric.unit {
        Some(Unit::Bytes) if all.iter().any(is_ambiguous) => name + ".bytes",
        Some(Unit::Seconds) if all.iter().any(is_ambiguous) => name + ".seconds",
        _ => name,
    }
}

/// The metric without its points.
fn named(metric: &Metric, name: &str) -> OtlpMetric {
    let unit = match metric.unit {
        Some(Unit::Bytes) => "By",
        Some(Unit::Seconds) => "s",
        None => "",
    };
    let data = match metric.kind {
        Kind::Counter | Kind::Level => Data::Sum(Sum {
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: metric.kind == Kind::Counter,
            ..Sum::default()
        }),
        Kind::Gauge | Kind::Info => Data::Gauge(Gauge::default()),
    };
    OtlpMetric {
        name: name.to_owned(),
        description: metric.help.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..OtlpMetric::default()
    }
}

fn with(mut metric: OtlpMetric, points: Vec<NumberDataPoint>) -> OtlpMetric {
    match &mut metric.data {
        Some(Data::Sum(sum)) => sum.data_points = points,
        Some(Data::Gauge(gauge)) => gauge.data_points = points,
        Some(Data::Histogram(_) | Data::ExponentialHistogram(_) | Data::Summary(_)) | None => {}
    }
    metric
}

/// Labels, by OpenTelemetry's names where it has some for the very same. `pid` stays as it
/// is, because `other` is no number. What is not known is left out.
fn attributes(labels: &Labels) -> Vec<KeyValue> {
    let name = |label: &'static str| match label {
        "container" => "container.id",
        "pod" => "k8s.pod.uid",
        label => label,
    };
    labels
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(label, value)| attribute(name(label), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests;

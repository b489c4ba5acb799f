//! Metrics as the text of OpenMetrics.

use std::fmt::{Error, Result};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::{Registry, Unit as TextUnit},
};

use super::metric::{Kind, Metric, Row, Unit, Value};

/// The type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes all of them.
///
/// # Errors
///
/// None that a text in memory has.
pub fn text(metrics: Vec<Metric>) -> std::result::Result<String, Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Collected(metrics)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Collected(Vec<Metric>);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result {
        for metric in &self.0 {
            let unit = metric.unit.map(|unit| match unit {
                Unit::Bytes => TextUnit::Bytes,
                Unit::Seconds => TextUnit::Seconds,
            });
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Level | Kind::Gauge => MetricType::Gauge,
                Kind::Info => MetricType::Info,
            };
            let mut to =
                encoder.encode_descriptor(metric.name, metric.help, unit.as_ref(), kind)?;
            for row in &metric.rows {
                match metric.kind {
                    Kind::Info => to.encode_info(&row.labels)?,
                    _ if row.labels.is_empty() => write(&mut to, metric.kind, row)?,
                    _ => write(&mut to.encode_family(&row.labels)?, metric.kind, row)?,
                }
            }
        }
        Ok(())
    }
}

fn write(to: &mut MetricEncoder<'_>, kind: Kind, row: &Row) -> Result {
    match (kind, row.value) {
        (Kind::Counter, Value::Count(count)) => {
            to.encode_counter::<NoLabelSet, _, f64>(&count, None)
        }
        (Kind::Counter, Value::Number(number)) => {
            to.encode_counter::<NoLabelSet, _, f64>(&number, None)
        }
        (_, Value::Count(count)) => to.encode_gauge(&count),
        (_, Value::Number(number)) => to.encode_gauge(&number),
    }
}

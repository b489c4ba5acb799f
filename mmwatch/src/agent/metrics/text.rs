//! Metrics as text: that of OpenMetrics, and the older one of Prometheus.

use std::fmt::{Display, Error, Result, Write as _};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::{Registry, Unit as TextUnit},
};

use super::metric::{Kind, Metric, Row, Unit, Value};

/// The type of the older text.
pub const PLAIN_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

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

/// Writes all of them in the older text, which has no units and no end, and in which a counter
/// is called what its samples are.
///
/// # Errors
///
/// None that a text in memory has.
pub fn plain(metrics: &[Metric]) -> std::result::Result<String, Error> {
    let mut text = String::new();
    for metric in metrics {
        let unit = match metric.unit {
            Some(Unit::Bytes) => "_bytes",
            Some(Unit::Seconds) => "_seconds",
            None => "",
        };
        let (suffix, kind) = match metric.kind {
            Kind::Counter => ("_total", "counter"),
            Kind::Level | Kind::Gauge => ("", "gauge"),
            Kind::Info => ("_info", "gauge"),
        };
        let name = format!("{}{unit}{suffix}", metric.name);
        writeln!(text, "# HELP {name} {}.", metric.help)?;
        writeln!(text, "# TYPE {name} {kind}")?;
        for row in &metric.rows {
            let value: &dyn Display = match &row.value {
                Value::Count(count) => count,
                Value::Number(number) => number,
            };
            let mut between = '{';
            text.push_str(&name);
            for (label, of) in &row.labels {
                let of = of
                    .replace('\\', r"\\")
                    .replace('"', "\\\"")
                    .replace('\n', r"\n");
                write!(text, "{between}{label}=\"{of}\"")?;
                between = ',';
            }
            let end = if row.labels.is_empty() { "" } else { "}" };
            writeln!(text, "{end} {value}")?;
        }
    }
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

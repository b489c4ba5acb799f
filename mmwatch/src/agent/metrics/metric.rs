//! What a metric is, whoever is told of it.

use std::borrow::Cow;

use crate::text::harmless;

/// One metric with all its series.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// By the rules of Prometheus, but without its unit and `_total`.
    pub name: &'static str,
    /// What OpenTelemetry calls it, where its conventions have a name for it.
    pub semantic: Option<&'static str>,
    /// What it means, in a few words.
    pub help: &'static str,
    /// How its values change.
    pub kind: Kind,
    /// What its values are in; `None` for numbers of things.
    pub unit: Option<Unit>,
    /// Its series.
    pub rows: Vec<Row>,
}

/// How values change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They only grow.
    Counter,
    /// They go up and down, and add up over series.
    Level,
    /// They go up and down, and their sum means nothing.
    Gauge,
    /// 1: what counts are the labels.
    Info,
}

/// What values are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "units explain themselves")]
pub enum Unit {
    Bytes,
    Seconds,
}

/// What tells the series of a metric from each other.
pub type Labels = Vec<(&'static str, String)>;

/// One series, now.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which.
    pub labels: Labels,
    /// What it is now.
    pub value: Value,
    /// When a counter was 0, ns of the boot clock; `None` for the agent's start.
    pub since_boot_ns: Option<u64>,
}

/// A number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Of things, or bytes.
    Count(u64),
    /// Of seconds, or a share.
    Number(f64),
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<u32> for Value {
    fn from(count: u32) -> Self {
        Self::Count(count.into())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl<V: Into<Value>> From<(Labels, V)> for Row {
    fn from((labels, value): (Labels, V)) -> Self {
        Self {
            labels,
            value: value.into(),
            since_boot_ns: None,
        }
    }
}

impl Metric {
    fn new(
        kind: Kind,
        name: &'static str,
        help: &'static str,
        rows: impl IntoIterator<Item: Into<Row>>,
    ) -> Self {
        let mut rows: Vec<Row> = rows.into_iter().map(Into::into).collect();
        // Names of cgroups and the like are whatever their makers chose.
        for (_, value) in rows.iter_mut().flat_map(|row| &mut row.labels) {
            if let Cow::Owned(escaped) = harmless(value) {
                *value = escaped;
            }
        }
        Self {
            name,
            semantic: None,
            help,
            kind,
            unit: None,
            rows,
        }
    }

    pub(in crate::agent) fn counter(
        name: &'static str,
        help: &'static str,
        rows: impl IntoIterator<Item: Into<Row>>,
    ) -> Self {
        Self::new(Kind::Counter, name, help, rows)
    }

    pub(in crate::agent) fn level(
        name: &'static str,
        help: &'static str,
        rows: impl IntoIterator<Item: Into<Row>>,
    ) -> Self {
        Self::new(Kind::Level, name, help, rows)
    }

    pub(in crate::agent) fn gauge(
        name: &'static str,
        help: &'static str,
        rows: impl IntoIterator<Item: Into<Row>>,
    ) -> Self {
        Self::new(Kind::Gauge, name, help, rows)
    }

    pub(in crate::agent) fn info(name: &'static str, help: &'static str, labels: Labels) -> Self {
        Self::new(Kind::Info, name, help, [(labels, 1_u32)])
    }

    pub(in crate::agent) fn bytes(self) -> Self {
        Self {
            unit: Some(Unit::Bytes),
            ..self
        }
    }

    pub(in crate::agent) fn seconds(self) -> Self {
        Self {
            unit: Some(Unit::Seconds),
            ..self
        }
    }

    pub(in crate::agent) fn known_as(self, semantic: &'static str) -> Self {
        Self {
            semantic: Some(semantic),
            ..self
        }
    }
}

/// The only series of a metric without labels.
pub(in crate::agent) fn one<V: Into<Value>>(value: V) -> [(Labels, V); 1] {
    [(vec![], value)]
}

/// A series for each of `all`, told apart by one label.
pub(in crate::agent) fn each<T: Copy, V>(
    all: &[T],
    label: &'static str,
    name: impl Fn(T) -> &'static str,
    value: impl Fn(T) -> V,
) -> Vec<(Labels, V)> {
    let row = |&of: &T| (vec![(label, name(of).to_owned())], value(of));
    all.iter().map(row).collect()
}

//! Events as logs: the fields of docs/events.md as attributes.

use std::io;

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{
        AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value as OtlpValue,
    },
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
};
use prost::Message as _;
use serde_json::{Map, Value};

use super::{
    queue::Batch,
    resource::{pair, scope},
};
use crate::{
    agent::feed::Told,
    clock::WallClock,
    event::Event,
    identity::Who,
    sink::json,
    text::{Compact, Escaped},
};

/// Encodes events.
#[derive(Debug)]
pub struct Encoder {
    resource: Resource,
    scope: InstrumentationScope,
    clock: WallClock,
}

impl Encoder {
    /// One whose times are of this clock.
    pub fn new(clock: WallClock, resource: Resource) -> Self {
        Self {
            resource,
            scope: scope(),
            clock,
        }
    }

    /// One event, seen at `now_unix_ns`.
    ///
    /// # Errors
    ///
    /// What serializing says.
    pub fn record(&self, told: &Told, now_unix_ns: u64) -> io::Result<LogRecord> {
        let event = &told.event;
        let mut line = Vec::new();
        json::write_event(&mut line, self.clock, told.seq, event)?;
        let fields: Map<String, Value> = serde_json::from_slice(&line)?;
        let mut attributes = Vec::with_capacity(fields.len());
        add(&mut attributes, "", fields);
        let time = self.clock.at(event.boot_ns).unix_ns();
        let (severity, severity_text) = match event.errno {
            Some(_) => (SeverityNumber::Warn, "WARN"),
            None => (SeverityNumber::Info, "INFO"),
        };
        Ok(LogRecord {
            time_unix_nano: time,
            // The wall clock may have been set back.
            observed_time_unix_nano: now_unix_ns.max(time),
            severity_number: severity.into(),
            severity_text: severity_text.to_owned(),
            body: Some(any(OtlpValue::StringValue(words(event)))),
            attributes,
            event_name: format!("mmwatch.{}", event.op().name()),
            ..LogRecord::default()
        })
    }

    /// The request that has these in it.
    pub fn batch(&self, records: Vec<LogRecord>) -> Batch {
        let items = records.len() as u64;
        let request = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(self.resource.clone()),
                scope_logs: vec![ScopeLogs {
                    scope: Some(self.scope.clone()),
                    log_records: records,
                    ..ScopeLogs::default()
                }],
                ..ResourceLogs::default()
            }],
        };
        Batch {
            body: request.encode_to_vec().into(),
            items,
        }
    }
}

/// An event in a few words.
fn words(event: &Event) -> String {
    let (actor, op) = (&event.actor, event.op().name());
    let pid = Who::shown_pid(event.who.as_deref(), actor.tgid);
    let mut words = format!("{}[{pid}] {op}", Escaped(actor.comm.as_bytes()));
    let asked = event.range().requested_len_bytes;
    if let Some(bytes) = event.errno.map_or_else(|| event.covered_bytes(), |_| asked) {
        words += &format!(" of {}", Compact(bytes));
    }
    if let Some(errno) = event.errno {
        words += &format!(" failed with {errno}");
    }
    words
}

/// Adds fields by their names, those of objects behind a dot.
fn add(attributes: &mut Vec<KeyValue>, before: &str, fields: Map<String, Value>) {
    for (name, value) in fields {
        let name = format!("{before}{name}");
        let Some(name) = attribute_name(&name) else {
            continue;
        };
        match value {
            Value::Object(fields) => add(attributes, &format!("{name}."), fields),
            value => attributes.extend(otlp_value(value).map(|value| pair(name, value))),
        }
    }
}

/// The name by OpenTelemetry's conventions, where they have one; `None` for what the record
/// itself has.
fn attribute_name(field: &str) -> Option<&str> {
    Some(match field {
        "schema" | "type" | "time" => return None,
        "pid" => "process.pid",
        "uid" => "process.real_user.id",
        "tid" => "thread.id",
        "comm" => "thread.name",
        "container" => "container.id",
        "container_name" => "container.name",
        "pod_name" => "k8s.pod.name",
        "pod_namespace" => "k8s.namespace.name",
        "errno" => "error.type",
        field => field,
    })
}

fn otlp_value(value: Value) -> Option<OtlpValue> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(bool) => OtlpValue::BoolValue(bool),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => OtlpValue::IntValue(number),
            // Beyond what its integers can be.
            (None, _) if number.is_u64() => OtlpValue::StringValue(number.to_string()),
            (None, number) => OtlpValue::DoubleValue(number?),
        },
        Value::String(text) => OtlpValue::StringValue(text),
        Value::Array(values) => OtlpValue::ArrayValue(ArrayValue {
            values: values.into_iter().filter_map(otlp_value).map(any).collect(),
        }),
        // Only in an array, where no event has one.
        Value::Object(_) => OtlpValue::StringValue(value.to_string()),
    })
}

fn any(value: OtlpValue) -> AnyValue {
    AnyValue { value: Some(value) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Op, flags::Errno, sample};

    fn record(event: Event) -> LogRecord {
        let encoder = Encoder::new(
            WallClock::with_offset(sample::BOOT_AT_UNIX_NS),
            Resource::default(),
        );
        let batch = encoder.batch(vec![encoder.record(&Told { seq: 7, event }, 1).unwrap()]);
        assert_eq!(batch.items, 1);
        let request = ExportLogsServiceRequest::decode(batch.body).unwrap();
        request.resource_logs[0].scope_logs[0].log_records[0].clone()
    }

    fn attribute(record: &LogRecord, key: &str) -> Option<OtlpValue> {
        let mut found = record.attributes.iter().filter(|pair| pair.key == key);
        let value = found.next()?.value.clone()?.value;
        assert!(found.next().is_none(), "{key} twice");
        value
    }

    #[test]
    fn fields_are_attributes_by_known_names() {
        for &op in Op::ALL {
            let event = sample::event(op);
            let record = record(event.clone());
            let int = |value: u32| Some(OtlpValue::IntValue(value.into()));
            assert_eq!(attribute(&record, "process.pid"), int(event.actor.tgid));
            assert_eq!(attribute(&record, "thread.id"), int(event.actor.tid));
            assert_eq!(attribute(&record, "seq"), int(7));
            let text = |text: &str| Some(OtlpValue::StringValue(text.to_owned()));
            assert_eq!(attribute(&record, "op"), text(op.name()));
            for gone in ["pid", "time", "type", "schema", "comm"] {
                assert_eq!(attribute(&record, gone), None, "{gone}");
            }
            assert_eq!(record.event_name, format!("mmwatch.{}", op.name()));
            let clock = WallClock::with_offset(sample::BOOT_AT_UNIX_NS);
            assert_eq!(record.time_unix_nano, clock.at(event.boot_ns).unix_ns());
            assert!(record.observed_time_unix_nano >= record.time_unix_nano);
            assert_eq!(record.severity_number(), SeverityNumber::Info);
        }
    }

    #[test]
    fn a_failure_is_a_warning() {
        let failed = Event {
            errno: Errno::new(12),
            ..sample::event(Op::Map)
        };
        let record = record(failed);
        assert_eq!(record.severity_number(), SeverityNumber::Warn);
        let name = OtlpValue::StringValue("ENOMEM".to_owned());
        assert_eq!(attribute(&record, "error.type"), Some(name));
        let Some(OtlpValue::StringValue(body)) = record.body.unwrap().value else {
            panic!("words");
        };
        assert!(body.ends_with(" failed with ENOMEM"), "{body}");
    }

    #[test]
    fn what_is_of_a_file_stands_behind_a_dot() {
        let mut attributes = Vec::new();
        let fields = serde_json::json!({
            "file": {"path": "/lib/x", "inode": u64::MAX},
            "suspects": ["memfd"],
            "settled": true,
        });
        let Value::Object(fields) = fields else {
            panic!("fields");
        };
        add(&mut attributes, "", fields);
        let text = |text: &str| OtlpValue::StringValue(text.to_owned());
        let names = OtlpValue::ArrayValue(ArrayValue {
            values: vec![any(text("memfd"))],
        });
        for (key, value) in [
            ("file.path", text("/lib/x")),
            ("file.inode", text(&u64::MAX.to_string())),
            ("suspects", names),
            ("settled", OtlpValue::BoolValue(true)),
        ] {
            assert!(attributes.contains(&pair(key, value)), "{key}");
        }
        assert_eq!(attributes.len(), 4);
    }
}

//! Who tells: attributes of the agent and its host, by the conventions of OpenTelemetry.

use std::fs;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
};

/// The agent: which of all, and where it runs. What cannot be read is left out.
pub fn resource() -> Resource {
    // Another one at each start: what it tells begins anew, too.
    let instance = line("/proc/sys/kernel/random/uuid");
    let known = [
        ("service.name", Some("mmwatch".to_owned())),
        (
            "service.version",
            Some(env!("CARGO_PKG_VERSION").to_owned()),
        ),
        ("service.instance.id", instance),
        ("host.name", line("/proc/sys/kernel/hostname")),
        ("host.id", line("/etc/machine-id")),
        ("host.arch", Some(arch().to_owned())),
        ("os.type", Some("linux".to_owned())),
    ];
    Resource {
        attributes: known
            .into_iter()
            .filter_map(|(key, value)| Some(attribute(key, value?)))
            .collect(),
        ..Resource::default()
    }
}

/// What the telling is done by.
pub fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "mmwatch".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

/// A text by its name.
pub fn attribute(key: &str, value: String) -> KeyValue {
    pair(key, Value::StringValue(value))
}

/// A value by its name.
pub fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// The conventions have names of their own.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_agent_is_another() {
        let id = || {
            let attributes = resource().attributes;
            let id = attributes
                .into_iter()
                .find(|attribute| attribute.key == "service.instance.id");
            id.unwrap()
        };
        assert_ne!(id(), id());
    }
}

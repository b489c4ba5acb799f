//! The table `[otlp]`: to whom metrics and events are sent.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use axum::http::Uri;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Deserializer};

use super::{bytes, duration, parsed, usage, word};
use crate::{
    error::Result,
    text::{parse_bytes, parse_duration},
};

/// Time between two exports of metrics.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));

/// Time for an answer.
const TIMEOUTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));

/// Bytes that wait, at most.
const QUEUES: (u64, u64) = (1 << 20, 1 << 30);

/// Events in a second, at most.
const MAX_EVENTS_PER_SECOND: u32 = 100_000;

/// What was set of it; what was not has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpSettings {
    /// Send metrics to the OpenTelemetry receiver at this URL, such as
    /// http://localhost:4318; nothing is sent without
    #[arg(id = "otlp.endpoint", long = "otlp-endpoint", value_name = "URL", value_parser = Endpoint::from_str, help_heading = "OpenTelemetry")]
    #[serde(deserialize_with = "endpoint")]
    pub endpoint: Option<Endpoint>,
    /// How to talk to it [default: http]
    #[arg(
        id = "otlp.protocol",
        long = "otlp-protocol",
        value_enum,
        value_name = "PROTOCOL",
        help_heading = "OpenTelemetry"
    )]
    #[serde(deserialize_with = "word")]
    pub protocol: Option<Protocol>,
    /// Send the headers of this file along, one `name: value` a line
    #[arg(
        id = "otlp.headers_file",
        long = "otlp-headers-file",
        value_name = "FILE",
        help_heading = "OpenTelemetry"
    )]
    pub headers_file: Option<PathBuf>,
    /// Trust the certificates of this PEM file, and not the system's
    #[arg(
        id = "otlp.ca_file",
        long = "otlp-ca-file",
        value_name = "FILE",
        help_heading = "OpenTelemetry"
    )]
    pub ca_file: Option<PathBuf>,
    /// Time between two exports of metrics [default: 15s]
    #[arg(id = "otlp.interval", long = "otlp-interval", value_name = "TIME", value_parser = parse_duration, help_heading = "OpenTelemetry")]
    #[serde(deserialize_with = "duration")]
    pub interval: Option<Duration>,
    /// Time for the receiver to answer [default: 10s]
    #[arg(id = "otlp.timeout", long = "otlp-timeout", value_name = "TIME", value_parser = parse_duration, help_heading = "OpenTelemetry")]
    #[serde(deserialize_with = "duration")]
    pub timeout: Option<Duration>,
    /// What waits for a receiver that is away, at most; then the oldest is dropped [default: 8m]
    #[arg(id = "otlp.queue", long = "otlp-queue", value_name = "SIZE", value_parser = parse_bytes, help_heading = "OpenTelemetry")]
    #[serde(deserialize_with = "bytes")]
    pub queue: Option<u64>,
    /// Send events too, as logs
    #[arg(id = "otlp.events", long = "otlp-events", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "OpenTelemetry")]
    pub events: Option<bool>,
    /// Events in a second, at most; others are counted as dropped [default: 100]
    #[arg(
        id = "otlp.events_per_second",
        long = "otlp-events-per-second",
        value_name = "N",
        help_heading = "OpenTelemetry"
    )]
    pub events_per_second: Option<u32>,
}

impl OtlpSettings {
    /// These, and of `others` what these leave open.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            endpoint: self.endpoint.or(others.endpoint),
            protocol: self.protocol.or(others.protocol),
            headers_file: self.headers_file.or(others.headers_file),
            ca_file: self.ca_file.or(others.ca_file),
            interval: self.interval.or(others.interval),
            timeout: self.timeout.or(others.timeout),
            queue: self.queue.or(others.queue),
            events: self.events.or(others.events),
            events_per_second: self.events_per_second.or(others.events_per_second),
        }
    }
}

/// How requests are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Protobuf in HTTP/1.1
    Http,
    /// gRPC, in HTTP/2
    Grpc,
}

/// A URL of a receiver: scheme, host, port, and for HTTP a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Uri);

impl Endpoint {
    /// The URL.
    pub fn uri(&self) -> &Uri {
        &self.0
    }

    /// Whether what is sent is encrypted.
    pub fn is_https(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// Its path without a slash at the end.
    pub fn base(&self) -> &str {
        self.0.path().trim_end_matches('/')
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected a URL such as http://localhost:4318 or https://host/path".into();
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let has_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let Some(authority) = uri.authority().filter(|_| has_scheme) else {
            return Err(wrong());
        };
        if authority.as_str().contains('@') {
            return Err("a URL must not have a password in it; use headers_file".into());
        }
        if uri.query().is_some() {
            return Err("a URL must not have a query".into());
        }
        Ok(Self(uri))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// To whom metrics and events are sent: every setting has its value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the setting of its name")]
pub struct Otlp {
    pub endpoint: Endpoint,
    pub protocol: Protocol,
    pub headers_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub interval: Duration,
    pub timeout: Duration,
    pub queue: u64,
    pub events: bool,
    pub events_per_second: u32,
}

impl Otlp {
    /// Fills in the defaults, and checks; `None` where nothing is to be sent.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`](crate::error::Error::Usage) for values that cannot be.
    pub(super) fn new(settings: OtlpSettings) -> Result<Option<Self>> {
        let interval = settings.interval.unwrap_or(Duration::from_secs(15));
        let timeout = settings.timeout.unwrap_or(Duration::from_secs(10));
        let queue = settings.queue.unwrap_or(8 << 20);
        let events = settings.events.unwrap_or(false);
        let events_per_second = settings.events_per_second.unwrap_or(100);
        let protocol = settings.protocol.unwrap_or(Protocol::Http);
        if !(INTERVALS.0..=INTERVALS.1).contains(&interval) {
            return Err(usage("otlp.interval must be from 100ms to 1h"));
        }
        if !(TIMEOUTS.0..=TIMEOUTS.1).contains(&timeout) {
            return Err(usage("otlp.timeout must be from 100ms to 10m"));
        }
        if !(QUEUES.0..=QUEUES.1).contains(&queue) {
            return Err(usage("otlp.queue must be from 1m to 1g"));
        }
        if !(1..=MAX_EVENTS_PER_SECOND).contains(&events_per_second) {
            return Err(usage(format!(
                "otlp.events_per_second must be from 1 to {MAX_EVENTS_PER_SECOND}"
            )));
        }
        let Some(endpoint) = settings.endpoint else {
            for (key, is_set) in [
                ("events", events),
                ("headers_file", settings.headers_file.is_some()),
                ("ca_file", settings.ca_file.is_some()),
            ] {
                if is_set {
                    return Err(usage(format!(
                        "otlp.{key} is of no use without otlp.endpoint; name the receiver's URL"
                    )));
                }
            }
            return Ok(None);
        };
        if settings.ca_file.is_some() && !endpoint.is_https() {
            return Err(usage(format!(
                "otlp.ca_file is for https, and {endpoint} is not encrypted"
            )));
        }
        if protocol == Protocol::Grpc && !endpoint.base().is_empty() {
            return Err(usage(format!(
                "otlp.endpoint {endpoint}: for gRPC a URL must not have a path"
            )));
        }
        Ok(Some(Self {
            endpoint,
            protocol,
            headers_file: settings.headers_file,
            ca_file: settings.ca_file,
            interval,
            timeout,
            queue,
            events,
            events_per_second,
        }))
    }
}

fn endpoint<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Endpoint>, D::Error> {
    parsed(from, Endpoint::from_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(settings: OtlpSettings) -> String {
        Otlp::new(settings).unwrap_err().to_string()
    }

    fn to(url: &str) -> OtlpSettings {
        OtlpSettings {
            endpoint: Some(url.parse().unwrap()),
            ..OtlpSettings::default()
        }
    }

    #[test]
    fn a_url_has_a_scheme_and_a_host() {
        for (url, base) in [
            ("http://localhost:4318", ""),
            ("http://localhost:4318/", ""),
            ("https://[::1]:4318/otlp/", "/otlp"),
        ] {
            let endpoint: Endpoint = url.parse().unwrap();
            assert_eq!(endpoint.base(), base, "{url}");
            assert_eq!(endpoint.is_https(), url.starts_with("https"), "{url}");
        }
        for wrong in ["localhost:4318", "localhost", "ftp://localhost", "/v1", ""] {
            let error = wrong.parse::<Endpoint>().unwrap_err();
            assert!(error.starts_with("expected a URL"), "{wrong}: {error}");
        }
        let error = |url: &str| url.parse::<Endpoint>().unwrap_err();
        assert!(error("http://me:word@localhost").contains("headers_file"));
        assert!(error("http://localhost/?a=b").contains("query"));
    }

    #[test]
    fn nothing_is_sent_without_a_receiver() {
        assert_eq!(Otlp::new(OtlpSettings::default()).unwrap(), None);
        let events = OtlpSettings {
            events: Some(true),
            ..OtlpSettings::default()
        };
        assert!(refusal(events.clone()).starts_with("otlp.events is of no use"));
        assert!(
            Otlp::new(events.or(to("http://a")))
                .unwrap()
                .unwrap()
                .events
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let with = |change: fn(&mut OtlpSettings), url: &str| {
            let mut settings = to(url);
            change(&mut settings);
            refusal(settings)
        };
        let http = "http://a";
        for (got, want) in [
            (
                with(|s| s.interval = Some(Duration::ZERO), http),
                "otlp.interval must be from 100ms to 1h",
            ),
            (
                with(|s| s.timeout = Some(Duration::ZERO), http),
                "otlp.timeout must be from 100ms to 10m",
            ),
            (
                with(|s| s.queue = Some(1), http),
                "otlp.queue must be from 1m to 1g",
            ),
            (
                with(|s| s.events_per_second = Some(0), http),
                "otlp.events_per_second must be from 1 to 100000",
            ),
            (
                with(|s| s.ca_file = Some("x".into()), http),
                "otlp.ca_file is for https, and http://a/ is not encrypted",
            ),
            (
                with(|s| s.protocol = Some(Protocol::Grpc), "http://a/b"),
                "otlp.endpoint http://a/b: for gRPC a URL must not have a path",
            ),
        ] {
            assert_eq!(got, want);
        }
    }
}

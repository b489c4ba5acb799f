//! Receivers of OTLP: one in Python by OpenTelemetry's own definitions, and VictoriaMetrics.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::Value;

use super::daemon::{Scratch, free_address, get, until};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agent/receiver.py");

/// A program that `cargo xtask test` fetches and names in `variable`; else whatever is in PATH.
fn program(variable: &str, name: &str) -> Command {
    Command::new(env::var_os(variable).unwrap_or_else(|| name.into()))
}

/// Python's receiver.
pub struct Receiver {
    pub address: String,
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Receiver {
    /// Listens by `protocol`: `http` or `grpc`.
    pub fn new(protocol: &str) -> Self {
        Self::with(protocol, &[])
    }

    /// The same encrypted.
    pub fn encrypted(protocol: &str, certificate: &Path, key: &Path) -> Self {
        Self::with(protocol, &[certificate, key])
    }

    fn with(protocol: &str, files: &[&Path]) -> Self {
        let address = free_address();
        let port = address.rsplit_once(':').unwrap().1;
        let mut child = program("MMWATCH_OTLP_PYTHON", "python3")
            .args([PROGRAM, protocol, port])
            .args(files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 with opentelemetry-proto and grpcio; `cargo xtask test` has it");
        let mut receiver = Self {
            commands: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
            address,
        };
        assert_eq!(receiver.answer(), "ready");
        receiver
    }

    /// Does as it is told.
    #[track_caller]
    pub fn tell(&mut self, command: &str) -> Value {
        writeln!(self.commands, "{command}").unwrap();
        self.answer()
    }

    /// What arrived, of which nothing may be wrong.
    #[track_caller]
    pub fn totals(&mut self) -> Totals {
        let totals = self.tell("totals");
        assert_eq!(totals["complaints"], Value::Array(vec![]));
        Totals(totals)
    }

    #[track_caller]
    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).expect("an answer of the receiver")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What arrived.
pub struct Totals(pub Value);

impl Totals {
    pub fn number(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap()
    }

    /// The value of every series of a metric whose attributes have these.
    pub fn values(&self, metric: &str, attributes: &[(&str, &str)]) -> Vec<f64> {
        let Some(series) = self.0["metrics"][metric]["series"].as_array() else {
            return Vec::new();
        };
        series
            .iter()
            .filter(|series| {
                attributes
                    .iter()
                    .all(|(key, value)| series["attributes"][*key] == *value)
            })
            .map(|series| series["value"].as_f64().unwrap())
            .collect()
    }

    pub fn sum(&self, metric: &str, attributes: &[(&str, &str)]) -> f64 {
        self.values(metric, attributes).iter().sum()
    }

    pub fn records(&self) -> &[Value] {
        self.0["records"].as_array().unwrap()
    }
}

/// VictoriaMetrics, which stores what it is sent by Prometheus's names.
pub struct VictoriaMetrics {
    pub address: String,
    child: Child,
    _scratch: Scratch,
}

impl VictoriaMetrics {
    pub fn new() -> Self {
        let (scratch, address) = (Scratch::new(), free_address());
        let child = program("MMWATCH_VICTORIA_METRICS", "victoria-metrics")
            .arg(format!("-httpListenAddr={address}"))
            .arg(format!(
                "-storageDataPath={}",
                scratch.path("data").display()
            ))
            .arg("-opentelemetry.usePrometheusNaming")
            // What was sent is found at once.
            .arg("-search.latencyOffset=0s")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("victoria-metrics; `cargo xtask test` has it");
        let victoria = Self {
            address,
            child,
            _scratch: scratch,
        };
        until("VictoriaMetrics", || {
            get(&victoria.address, "/health").filter(|answer| answer.status == 200)
        });
        victoria
    }

    /// What a query finds now.
    pub fn query(&self, query: &str) -> Vec<Value> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let path = format!("/api/v1/query?nocache=1&query={escaped}");
        let answer = get(&self.address, &path).expect("an answer").json();
        answer["data"]["result"].as_array().unwrap().clone()
    }

    /// The value of the only series.
    pub fn value(&self, query: &str) -> Option<f64> {
        let found = self.query(query);
        assert!(found.len() < 2, "{query}: {found:?}");
        found.first()?["value"][1].as_str()?.parse().ok()
    }
}

impl Drop for VictoriaMetrics {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! Dangerous mappings: what is flagged, and what is not.

use std::{collections::BTreeMap, fs, process::Command};

use serde_json::{Value, json};

use super::{hex, limit};
use crate::{
    run::{Trace, temporary, trace, watcher, workload},
    together::{self, Program, Seen},
    workload::suspects::Told,
};

/// A trace of the workload in which the kernel skipped no program, and what the workload
/// says that it did.
fn traced(mut tries: impl Iterator<Item = Seen>) -> (Trace, Vec<Told>) {
    let seen = tries
        .find(|seen| seen.trace.missed() == 0)
        .expect("one run of five without a skipped program");
    let calls = seen.notes();
    (seen.trace, calls)
}

/// The same under a filter.
fn filtered(backend: &str, args: &[&str]) -> (Trace, Vec<Told>) {
    traced((0..5).map(|_| together::alone(backend, args, Program::Suspects)))
}

/// What a backend must flag, and whether it tells what was before.
fn expected<'a>(backend: &str, call: &'a Told) -> (&'a [String], Option<&'a str>) {
    let by_arguments = match call.op.as_str() {
        "map" => limit(backend, "without address, flags and file"),
        _ => limit(backend, "what a range was before"),
    };
    if by_arguments {
        (&call.by_arguments, None)
    } else {
        (&call.suspects, call.old_prot.as_deref())
    }
}

fn suspects(event: &Value) -> Vec<&str> {
    let list = event["suspects"].as_array();
    let list = list.map_or(&[][..], Vec::as_slice);
    list.iter().map(|kind| kind.as_str().unwrap()).collect()
}

/// How often each kind was made.
fn counts(backend: &str, calls: &[Told]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for call in calls {
        for kind in expected(backend, call).0 {
            *counts.entry(kind.clone()).or_default() += 1;
        }
    }
    counts
}

pub fn suspects_are_told(backend: &str) {
    let (trace, calls) = traced(together::tries(backend, Program::Suspects));
    let mut events = trace.events.iter();
    for (number, call) in calls.iter().enumerate() {
        // What the allocator does between is none of the workload's.
        let event = events.by_ref().find(|event| {
            let same = event["op"] == call.op && hex(&event["addr"]) == Some(call.addr);
            assert!(
                same || suspects(event).is_empty(),
                "before {call:?}: {event}"
            );
            same
        });
        let event = event.unwrap_or_else(|| panic!("no event for call {number}, {call:?}"));
        let (want, old_prot) = expected(backend, call);
        assert_eq!(suspects(event), want, "call {number}, {call:?}: {event}");
        assert_eq!(
            event["old_prot"].as_str(),
            old_prot,
            "call {number}: {event}"
        );
    }
    for event in events {
        assert_eq!(suspects(event), [""; 0], "after all calls: {event}");
    }

    // The kernel's own sums say the same.
    let (told, scratch) = (temporary("told"), temporary("scratch"));
    let paths = [&told, &scratch].map(|path| path.to_str().unwrap());
    let output = watcher()
        .args(["stat", "-o", "json", "--hooks", backend, "--"])
        .args(workload(&["suspects", paths[0], paths[1]]))
        .output()
        .unwrap();
    fs::remove_file(&told).unwrap();
    let report = output.stdout.split(|&byte| byte == b'\n').next().unwrap();
    let report: Value = serde_json::from_slice(report).unwrap();
    let total = &report["all"]["total"]["suspects"];
    if report["ledger"]["missed"].as_u64().unwrap_or(0) == 0 {
        assert_eq!(*total, json!(counts(backend, &calls)));
    }
}

pub fn a_filter_lets_suspects_through(backend: &str) {
    let (all, calls) = filtered(backend, &["--suspect"]);
    let flagged = |wanted: &[&str]| {
        let is_wanted = |kind: &String| wanted.is_empty() || wanted.contains(&kind.as_str());
        calls
            .iter()
            .filter(|call| expected(backend, call).0.iter().any(is_wanted))
            .count()
    };
    assert!(all.events.iter().all(|event| !suspects(event).is_empty()));
    assert_eq!(all.events.len(), flagged(&[]));

    let kinds = ["memfd-exec", "stack-exec"];
    let (some, _) = filtered(backend, &["--suspect", &kinds.join(",")]);
    let is_one = |event: &Value| suspects(event).iter().any(|kind| kinds.contains(kind));
    assert!(some.events.iter().all(is_one));
    assert_eq!(some.events.len(), flagged(&kinds));
    assert_ne!(some.events.len(), all.events.len());
}

pub fn ordinary_programs_are_no_suspects(backend: &str) {
    let python = Command::new("python3").arg("-V").output();
    let python = python.is_ok_and(|output| output.status.success());
    let programs: [(bool, &[&str]); 3] = [
        (true, &["/bin/true"]),
        (true, &["/bin/sh", "-c", "ls / >&2; exit 0"]),
        (python, &["python3", "-c", "import json, threading"]),
    ];
    for (_, command) in programs.iter().filter(|(there, _)| *there) {
        let command: Vec<_> = command.iter().map(|word| (*word).to_owned()).collect();
        let all = trace(backend, &[], &command);
        all.assert_whole();
        assert!(all.events.iter().any(|event| event["op"] == "exec"));
        let flagged: Vec<_> = all
            .events
            .iter()
            .filter(|event| !suspects(event).is_empty())
            .collect();
        assert!(flagged.is_empty(), "{command:?}: {flagged:#?}");
    }
}

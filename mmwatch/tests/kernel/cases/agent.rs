//! What the agent does around the kernel programs.

use std::{
    io::Read as _,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{STAT_PAIRS, STORM_LEN, filtered, first_line, limit, stat_of_storm};
use crate::{
    run::{interrupt, mmwatch, start_trace, take_apart, trace, wait_until_watching, workload},
    together::{self, Program},
};

pub fn nobody_else_s_operations_come_with_a_user(backend: &str) {
    let trace = filtered(backend, &["-u", "54321"]);
    assert_eq!(trace.events.len(), 0);
}

pub fn a_running_process_is_watched_by_pid(backend: &str) {
    // One process in the filter, one that is not; both unmap at their end,
    // which comes with that of their input.
    let waiting = || {
        Command::new("/bin/cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let (mut watched, mut other) = (waiting(), waiting());
    let pid = watched.id();
    let child = start_trace(backend, &["-p", &pid.to_string()], &[]);
    wait_until_watching(&child);
    for process in [&mut watched, &mut other] {
        drop(process.stdin.take());
        process.wait().unwrap();
    }
    interrupt(&child);
    let trace = take_apart(&child.wait_with_output().unwrap());
    trace.assert_whole();
    assert!(
        trace.events.iter().all(|event| event["pid"] == pid),
        "{:#?}",
        trace.events.iter().find(|event| event["pid"] != pid)
    );
    if !limit(backend, "end of an address space") {
        assert_eq!(trace.of("exit").count(), 1);
    }
}

pub fn the_command_s_exit_code_is_passed_on(backend: &str) {
    // `together` asserts that mmwatch itself ends with 0.
    let seen = together::watch(backend, Program::True);
    let trace = trace(backend, &[], &workload(&["exit", "7"]));
    for (trace, code) in [(&seen.trace, 0), (&trace, 7)] {
        assert_eq!(trace.code, Some(code));
        assert!(!trace.events.is_empty());
    }
    let missing = mmwatch()
        .args(["trace", "--hooks", backend, "--", "/no/such/command"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(127));
}

pub fn an_interrupt_ends_with_the_ledger(backend: &str) {
    let mut child = start_trace(backend, &[], &[]);
    let (line, mut stdout) = first_line(&mut child);
    interrupt(&child);
    let mut rest = line;
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let last: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    assert_eq!(last["type"], "ledger");
    assert_eq!(last["balanced"], true, "{last}");
}

pub fn a_closed_pipe_is_a_good_end(backend: &str) {
    let mut child = start_trace(backend, &[], &[]);
    drop(first_line(&mut child));
    // It ends with the next write: something has to be written about.
    while child.try_wait().unwrap().is_none() {
        Command::new("/bin/true").status().unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

pub fn stat_sums_a_command(backend: &str) {
    let text = stat_of_storm(backend);
    let report: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(report["type"], "report");
    assert_eq!(report["ledger"]["balanced"], true, "{report:#}");
    let sums = &report["all"]["total"];
    if !limit(backend, "outside of the lock") {
        let map = &sums["ops"]["map"];
        assert!(map["held_count"].as_u64().unwrap() > 0, "{map}");
        assert!(map["held_ns"].as_u64().unwrap() > 0, "{map}");
    }
    // Each skipped program can cost an operation.
    let pairs = STAT_PAIRS - report["ledger"]["missed"].as_u64().unwrap_or(0);
    assert!(
        sums["ops"]["map"]["count"].as_u64().unwrap() >= pairs,
        "{sums}"
    );
    assert!(
        sums["ops"]["unmap"]["bytes"].as_u64().unwrap() >= pairs * STORM_LEN,
        "{sums}"
    );
    assert!(
        sums["backings"]["private-anonymous"]["maps"]
            .as_u64()
            .unwrap()
            >= pairs,
        "{sums}"
    );
}

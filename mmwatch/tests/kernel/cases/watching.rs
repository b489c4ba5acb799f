//! What the kernel programs do.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead as _, BufReader},
    thread,
    time::Duration,
};

use aya::programs::loaded_programs;
use serde_json::Value;

use super::{STORM_ONLY, check, filtered, first_line, hex, is_emulated, limit, low_limit, storm};
use crate::{
    run::{Trace, start_trace, take_apart, trace},
    together::{self, Program, ROUNDS, Seen, THREADS},
    workload::{MARK_BEGIN, MARK_END, Note},
};

/// The events of the thread that made the marks, between them.
pub fn between_marks(trace: &Trace) -> Option<Vec<&Value>> {
    let mark = |len: u64| {
        let mut events = trace.events.iter();
        events.position(|event| event["requested_len_bytes"] == len)
    };
    let (begin, end) = (mark(MARK_BEGIN)?, mark(MARK_END)?);
    let tid = &trace.events[begin]["tid"];
    let between = trace.events[begin + 1..end].iter();
    Some(between.filter(|event| event["tid"] == *tid).collect())
}

/// Compares event by event. Where the kernel says that it skipped a program,
/// which a preemptible kernel does now and then, one of the events may be
/// missing, as the ledger says, and it is tried again.
fn compare(tries: impl Iterator<Item = Seen>) {
    let (trace, expected) = tries
        .map(|seen| {
            let expected: Vec<Note> = seen.notes();
            (seen.trace, expected)
        })
        .find(|(trace, expected)| {
            trace.missed() == 0
                || between_marks(trace).is_some_and(|seen| seen.len() == expected.len())
        })
        .expect("one run of five without a skipped program");
    let seen = between_marks(&trace)
        .unwrap_or_else(|| panic!("no marks in {} events", trace.events.len()));

    for (number, (note, event)) in expected.iter().zip(&seen).enumerate() {
        let differences = differences(note, event);
        assert!(
            differences.is_empty(),
            "event {number} differs in {}:\nexpected {note:?}\nreported {event}",
            differences.join(", ")
        );
    }
    assert_eq!(
        seen.len(),
        expected.len(),
        "calls and events; last events: {:#?}",
        seen.last()
    );
}

/// Names of the fields in which an event is not what the program noted.
pub fn differences(note: &Note, event: &Value) -> Vec<&'static str> {
    let mut differences = Vec::new();
    let mut compare = |name, same: bool| {
        if !same {
            differences.push(name);
        }
    };
    let text = |field: &str| event[field].as_str().map(str::to_owned);
    compare("op", text("op").as_ref() == Some(&note.op));
    compare("cause", text("cause").as_ref() == Some(&note.cause));
    compare("errno", text("errno") == note.errno);
    compare(
        "errno_reason",
        note.errno_reason.is_none() || note.errno_reason == text("errno_reason"),
    );
    let known = |expected: Option<u64>, seen: Option<u64>| expected.is_none() || expected == seen;
    compare("addr", known(note.addr, hex(&event["addr"])));
    compare(
        "len_bytes",
        known(note.len_bytes, event["len_bytes"].as_u64()),
    );
    let requested = event["requested_len_bytes"].as_u64();
    compare(
        "requested_len_bytes",
        known(note.requested_len_bytes, requested),
    );
    compare("prot", note.prot.is_none() || note.prot == text("prot"));
    compare(
        "backing",
        note.backing.is_none() || note.backing == text("backing"),
    );
    let path = event["file"]["path"].as_str().map(str::to_owned);
    compare("path", note.path.is_none() || note.path == path);
    compare(
        "offset",
        known(note.offset_bytes, event["file"]["offset_bytes"].as_u64()),
    );
    compare("old_addr", known(note.old_addr, hex(&event["old_addr"])));
    compare(
        "old_len_bytes",
        known(note.old_len_bytes, event["old_len_bytes"].as_u64()),
    );
    compare("vmas", known(note.vmas, event["vmas"].as_u64()));
    differences
}

pub fn calls_give_exactly_their_events(backend: &str) {
    compare(together::tries(backend, Program::Calls));
}

pub fn failing_calls_give_their_errno(backend: &str) {
    compare(together::tries(backend, Program::Failures));
}

pub fn failures_are_explained(backend: &str) {
    let _low = low_limit();
    compare((0..5).map(|_| together::alone(backend, &["-x"], Program::Refusals)));
}

pub fn a_process_is_followed_from_fork_to_exit(backend: &str) {
    let trace = together::watch(backend, Program::Shell).trace;
    let exec: Vec<_> = trace.of("exec").collect();
    assert!(
        exec[0]["file"]["path"].as_str().unwrap().starts_with('/'),
        "{}",
        exec[0]
    );
    assert!(exec[0]["vmas"].as_u64().unwrap() > 3, "{}", exec[0]);

    // Its section comes after those in which the loader mapped it.
    let loaded = trace
        .events
        .iter()
        .take_while(|event| event["seq"] != exec[0]["seq"])
        .filter(|event| event["pid"] == exec[0]["pid"] && event["op"] != "exit")
        .filter(|event| event["cause"] == "exec")
        .filter_map(|event| event["section"].as_u64())
        .max();
    if loaded.is_some() {
        assert!(exec[0]["section"].as_u64() > loaded, "{loaded:?}");
    }

    let shell = &exec[0]["pid"];
    let children: Vec<_> = trace
        .of("fork")
        .filter(|fork| fork["pid"] == *shell)
        .map(|fork| &fork["child_pid"])
        .collect();
    assert!(!children.is_empty());
    if limit(backend, "end of an address space") {
        return;
    }
    // A child that only ends has no other event.
    for child in &children {
        assert!(
            trace.events.iter().any(|event| event["pid"] == **child),
            "no event of child {child}"
        );
    }
    // What an address space had at its last event is what its exit removes.
    let mut exits = 0;
    for exit in trace.of("exit") {
        exits += 1;
        let before = trace.events.iter().rfind(|event| {
            event["section"].as_u64().is_some()
                && event["pid"] == exit["pid"]
                && event["section"].as_u64() < exit["section"].as_u64()
                && event["seq"].as_u64() < exit["seq"].as_u64()
        });
        if let Some(before) = before
            && before["section"].as_u64().unwrap() + 1 == exit["section"].as_u64().unwrap()
        {
            assert_eq!(before["vmas"], exit["vmas_removed"], "{before}\n{exit}");
            assert_eq!(before["total_bytes"], exit["len_bytes"], "{before}\n{exit}");
        }
    }
    assert!(exits >= 2, "{exits} exits");
}

pub fn sections_of_threads_are_in_order(backend: &str) {
    let trace = together::alone(backend, &[], Program::Threads).trace;
    let pid = &trace.of("exec").last().unwrap()["pid"];
    let ours: Vec<_> = trace
        .events
        .iter()
        .filter(|event| event["pid"] == *pid && event["section"].is_u64())
        .collect();
    let calls = |cause: &str| {
        ours.iter()
            .filter(|event| event["cause"] == cause && event["tid"] != *pid)
            .count()
    };
    assert!(calls("mprotect") as u64 + trace.missed() >= THREADS * ROUNDS);
    if limit(backend, "outside of the lock") {
        return;
    }
    // In the order of their sections, each count follows from the one before.
    let mut sections: BTreeMap<u64, (i64, i64)> = BTreeMap::new();
    for event in ours {
        if event["op"] == "exit" {
            continue;
        }
        let number = event["section"].as_u64().unwrap();
        let vmas = event["vmas"].as_i64().unwrap();
        // The section's last record has its net change; earlier ones have none.
        let net = event["vmas_delta"].as_i64().unwrap_or(0);
        let section = sections.entry(number).or_insert((vmas, 0));
        section.1 += net;
    }
    let numbered: Vec<_> = sections.into_iter().collect();
    let breaks: Vec<_> = numbered
        .windows(2)
        .filter(|pair| {
            let (first, (before, _)) = pair[0];
            let (second, (after, net)) = pair[1];
            first + 1 != second || before + net != after
        })
        .collect();
    // Where the kernel skipped no program, the chain is whole.
    assert!(
        breaks.len() as u64 <= trace.missed(),
        "{} breaks, {} missed: {breaks:?}",
        breaks.len(),
        trace.missed()
    );
}

/// Pairs of calls in a storm.
fn pairs() -> u64 {
    if is_emulated() { 5_000 } else { 200_000 }
}

pub fn a_storm_is_counted_whole(backend: &str) {
    let pairs = pairs();
    let trace = trace(backend, &STORM_ONLY, &storm(pairs));
    trace.assert_balanced();
    let own: u64 = trace
        .stderr
        .lines()
        .find_map(|line| line.parse().ok())
        .unwrap();
    assert_eq!(own, 2 * pairs);
    trace.assert_accounts_for(own);
}

pub fn a_tiny_ring_loses_and_says_so(backend: &str) {
    let pairs = 2_000;
    // Nobody reads the pipe until the storm is over: mmwatch stalls, the ring fills.
    let args = [&STORM_ONLY[..], &["--buffer", "4096"]].concat();
    let mut child = start_trace(backend, &args, &storm(pairs));
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while line.trim().parse() != Ok(2 * pairs) {
        line.clear();
        assert!(
            stderr.read_line(&mut line).unwrap() > 0,
            "the storm did not end"
        );
    }
    let trace = take_apart(&child.wait_with_output().unwrap());
    trace.assert_balanced();
    assert!(trace.counter("ring_full") > 0, "{}", trace.ledger);
    assert_eq!(trace.counter("lost"), trace.counter("ring_full"));
    trace.assert_accounts_for(2 * pairs);
}

pub fn the_agent_never_sees_itself(backend: &str) {
    let child = start_trace(backend, &["-d", "1"], &[]);
    let pid = child.id();
    let trace = take_apart(&child.wait_with_output().unwrap());
    trace.assert_balanced();
    let own: Vec<_> = trace
        .events
        .iter()
        .filter(|event| event["pid"] == pid)
        .collect();
    assert!(own.is_empty(), "{own:#?}");
}

pub fn filters_let_through_what_they_say(backend: &str) {
    // SAFETY: no arguments, cannot fail.
    let uid = unsafe { libc::getuid() }.to_string();
    let trace = filtered(backend, &["-u", &uid, "--op", "protect,remap"]);
    assert!(trace.events.len() >= 3);
    assert!(
        trace
            .events
            .iter()
            .all(|event| event["op"] == "protect" || event["op"] == "remap")
    );

    let trace = filtered(backend, &["-x", "--min-size", "1G"]);
    assert!(!trace.events.is_empty());
    let size = |event: &Value| event["requested_len_bytes"].as_u64();
    assert!(trace.events.iter().all(|event| event["errno"].is_string()));
    assert!(
        trace
            .events
            .iter()
            .all(|event| size(event).is_none_or(|size| size >= 1 << 30))
    );

    // Names are cut by the kernel after 15 bytes.
    let exe = env::current_exe().unwrap();
    let name = exe.file_name().unwrap().to_str().unwrap();
    let name = &name[..name.len().min(15)];
    let trace = filtered(backend, &["-n", name, "--op", "map"]);
    assert!(!trace.events.is_empty());
    assert!(trace.events.iter().all(|event| event["comm"] == name));
}

/// The filter in the kernel and the column of user space know a backing alike:
/// what the one lets through is what the other shows without it.
pub fn a_backing_is_let_through_whole(backend: &str) {
    let programs = [Program::Calls, Program::Failures];
    // The backings of what a program maps.
    let backings = |seen: &Seen| -> Vec<String> {
        let backing = |event: &Value| event["backing"].as_str().unwrap_or("").to_owned();
        seen.trace.of("map").map(backing).collect()
    };
    let all = programs.map(|program| {
        let seen = together::tries(backend, program)
            .find(|seen| seen.trace.missed() == 0)
            .expect("one run of five without a skipped program");
        backings(&seen)
    });
    for wanted in [
        "private-anonymous",
        "shared-anonymous,private-file",
        "shared-file,special",
    ] {
        let is_wanted = |backing: &&String| wanted.split(',').any(|name| name == *backing);
        let filtered = (0..5)
            .map(|_| together::in_turn(backend, &["--backing", wanted], &programs))
            .find(|seen| seen.iter().all(|seen| seen.trace.missed() == 0))
            .expect("one run of five without a skipped program");
        for ((name, all), seen) in programs.iter().zip(&all).zip(&filtered) {
            let seen = backings(seen);
            let want: Vec<_> = all.iter().filter(is_wanted).collect();
            assert!(!want.is_empty(), "{name:?}: no {wanted} in {all:?}");
            assert_eq!(seen.iter().collect::<Vec<_>>(), want, "{name:?}: {wanted}");
        }
    }
}

pub fn check_predicts_what_trace_does(backend: &str) {
    let check = check(backend);
    let names = |list: &Value, field: &str| -> Vec<String> {
        let list = list.as_array().unwrap();
        list.iter()
            .map(|entry| entry[field].as_str().unwrap().to_owned())
            .collect()
    };
    let trace = together::watch(backend, Program::True).trace;
    assert_eq!(
        names(&check["plan"]["programs"], "name"),
        names(&trace.ledger["hooks"], "program")
    );
    assert_eq!(check["plan"]["backend"], backend);
}

/// Programs of mmwatch's that the kernel has, by the names in the plan.
pub fn programs_of_ours(backend: &str) -> impl Fn() -> usize {
    let check = check(backend);
    let names: Vec<String> = check["plan"]["programs"]
        .as_array()
        .unwrap()
        .iter()
        // The kernel keeps 15 bytes of a name.
        .map(|program| program["name"].as_str().unwrap().chars().take(15).collect())
        .collect();
    move || {
        let ours = |name: &str| names.iter().any(|own| own == name);
        loaded_programs()
            .filter_map(Result::ok)
            .filter(|program| program.name_as_str().is_some_and(ours))
            .count()
    }
}

/// Waits for the kernel to free programs, which it does after a grace period.
pub fn wait_until_gone(count: impl Fn() -> usize) {
    for _ in 0..200 {
        if count() == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{} programs are left", count());
}

pub fn nothing_is_left_in_the_kernel(backend: &str) {
    let count = programs_of_ours(backend);
    wait_until_gone(&count);

    let mut child = start_trace(backend, &["-d", "60"], &[]);
    first_line(&mut child);
    assert!(count() > 0);
    // The hard way: nothing may depend on a clean end.
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until_gone(&count);
}

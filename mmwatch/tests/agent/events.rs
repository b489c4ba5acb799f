//! Events as they happen, to who asks for them.

use std::{
    fs::{self, Permissions},
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
};

use serde_json::Value;

use super::{
    daemon::{Answer, Daemon, Scratch, ask, until},
    storm::Storm,
};

/// Calls of a storm of which each has an event: it maps, unmaps, and fails to map.
const CALLS: u64 = 3;

/// An agent that tells addresses to who has a token.
struct Private {
    daemon: Daemon,
    _token: Scratch,
}

const BEARER: &str = "Host: localhost\r\nAuthorization: Bearer 0123456789abcdef\r\n";

impl Private {
    fn ready(args: &[&str]) -> Self {
        let scratch = Scratch::new();
        let token = scratch.file("token", "0123456789abcdef\n");
        fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
        let args = [&["--token-file", token.to_str().unwrap()], args].concat();
        let daemon = Daemon::ready(&args);
        Self {
            daemon,
            _token: scratch,
        }
    }

    fn get(&self, path: &str) -> Answer {
        let stream = TcpStream::connect(&self.daemon.address).unwrap();
        ask(stream, path, BEARER).unwrap()
    }

    /// Records that the kernel sent so far.
    fn submitted(&self) -> u64 {
        let text = self.get("/metrics").body;
        text.lines()
            .filter(|line| line.starts_with("mmwatch_hook_records_total"))
            .filter(|line| line.contains("fate=\"submitted\""))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
            .sum()
    }

    fn subscribe(&self, query: &str) -> Stream {
        let mut stream = TcpStream::connect(&self.daemon.address).unwrap();
        write!(
            stream,
            "GET /api/v1/events?{query} HTTP/1.0\r\n{BEARER}\r\n"
        )
        .unwrap();
        let mut stream = Stream(BufReader::new(stream));
        while stream.line() != "" {}
        assert_eq!(stream.next().0, "begin");
        stream
    }
}

/// What is told to a subscriber.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next event's name and data.
    fn next(&mut self) -> (String, Value) {
        let mut name = String::from("message");
        loop {
            let line = self.line();
            if let Some(of) = line.strip_prefix("event: ") {
                of.clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data: Value = serde_json::from_str(data).unwrap();
                assert_eq!(data["schema"], 1);
                assert_eq!(self.line(), "");
                return (name, data);
            } else {
                // What keeps a quiet connection alive.
                assert!(line.is_empty() || line == ":", "{line}");
            }
        }
    }

    /// All events, and the last account of what was lost.
    fn rest(mut self) -> (Vec<Value>, Value) {
        let (mut events, mut lost) = (Vec::new(), Value::Null);
        loop {
            let (name, data) = self.next();
            match name.as_str() {
                "message" => events.push(data),
                "lost" => lost = data,
                "end" => return (events, lost),
                other => panic!("{other}"),
            }
        }
    }
}

fn count(events: &[Value], op: &str, failed: bool) -> usize {
    let is = |event: &&Value| event["op"] == op && event.get("errno").is_some() == failed;
    events.iter().filter(is).count()
}

pub fn subscribers_are_told_what_they_asked_for() {
    let agent = Private::ready(&["--buffer", "64M"]);
    let mut storm = Storm::new();
    let pid = storm.pid();
    let every = agent.subscribe(&format!("pid={pid}&op=map,unmap"));
    let failed = agent.subscribe(&format!("pid={pid}&failed&min_size=1"));
    let failures = agent.subscribe(&format!("pid={pid}&failed"));
    let others = agent.subscribe(&format!("pid={}", std::process::id()));
    storm.rage(500);
    agent.daemon.end();
    let (events, lost) = every.rest();
    assert_eq!(lost["ring_full"].as_u64().unwrap_or(0), 0, "{lost}");
    assert_eq!(count(&events, "map", false), 501);
    assert_eq!(count(&events, "map", true), 500);
    assert_eq!(count(&events, "unmap", false), 500);
    assert!(events.iter().all(|event| event["pid"] == pid));
    assert!(events.iter().all(|event| event["type"] == "event"));
    // They are of no length.
    assert_eq!(failed.rest().0.len(), 0);
    assert_eq!(failures.rest().0.len(), 500);
    assert!(others.rest().0.iter().all(|event| event["pid"] != pid));
}

pub fn the_kernel_sends_events_while_somebody_listens() {
    let agent = Private::ready(&["--interval", "200ms"]);
    let mut storm = Storm::new();
    storm.rage(100);
    assert_eq!(agent.submitted(), 0);
    let mut stream = agent.subscribe(&format!("pid={}", storm.pid()));
    storm.rage(100);
    assert_eq!(stream.next().0, "message");
    until("the records to be counted", || {
        (agent.submitted() >= 100 * CALLS).then_some(())
    });
    drop(stream);
    // Who left is missed when there is something to tell.
    until("the kernel to send no more", || {
        storm.rage(1);
        let before = agent.submitted();
        storm.rage(1000);
        let sums = || agent.get("/metrics").body;
        let first = sums();
        until("another report", || (sums() != first).then_some(()));
        (agent.submitted() == before).then_some(())
    });
    let ledger = agent.daemon.end();
    assert!(!ledger.contains("does not balance"), "{ledger}");
}

pub fn who_reads_slowly_learns_what_is_lost() {
    let agent = Private::ready(&["--buffer", "256M"]);
    let mut storm = Storm::new();
    let mut stream = agent.subscribe(&format!("pid={}&op=map,unmap", storm.pid()));
    // More than fits into the queue and what the connection holds.
    let rounds = 40_000;
    storm.rage(rounds);
    let (mut told, mut lost) = (0, Value::Null);
    while told + lost["dropped"].as_u64().unwrap_or(0) < rounds * CALLS + 1 {
        match stream.next() {
            (name, _) if name == "message" => told += 1,
            (name, data) if name == "lost" => lost = data,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lost["ring_full"], 0, "{lost}");
    assert!(lost["dropped"].as_u64().unwrap() > 0);
    assert_eq!(told + lost["dropped"].as_u64().unwrap(), rounds * CALLS + 1);
    agent.daemon.end();
}

pub fn addresses_are_not_for_everybody() {
    let daemon = Daemon::ready(&[]);
    for path in ["/api/v1/events", "/api/v1/maps/1"] {
        let answer = daemon.get(path);
        assert_eq!(answer.status, 403);
        assert!(answer.body.contains("token_file"), "{}", answer.body);
    }
    let agent = Private::ready(&[]);
    for (query, want) in [
        ("colour=red", "there is no such filter"),
        ("op=mop", "invalid value 'mop'"),
        ("uid=nobody-at-all", "there is no user"),
    ] {
        let answer = agent.get(&format!("/api/v1/events?{query}"));
        assert_eq!(answer.status, 400);
        assert!(answer.body.contains(want), "{}", answer.body);
    }
}

//! What arrives at receivers of OpenTelemetry.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    daemon::{Daemon, Scratch, until},
    receiver::{Receiver, Totals, VictoriaMetrics},
    storm::{LEN_BYTES, Storm},
};

const COUNT: u64 = 5_000;

/// An agent that sends to this address.
fn agent(protocol: &str, url: &str, args: &[&str]) -> Daemon {
    let export = [
        "--interval",
        "200ms",
        "--top-k",
        "1000",
        "--otlp-interval",
        "200ms",
        "--otlp-protocol",
        protocol,
        "--otlp-endpoint",
        url,
    ];
    Daemon::ready(&[&export, args].concat())
}

fn sending_to(receiver: &Receiver, protocol: &str, args: &[&str]) -> Daemon {
    agent(protocol, &format!("http://{}", receiver.address), args)
}

/// The agent's own metrics, by name and labels.
fn metrics(agent: &Daemon) -> BTreeMap<String, f64> {
    let text = agent.get("/metrics").body;
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        })
        .collect()
}

fn waiting(agent: &Daemon) -> f64 {
    metrics(agent)["mmwatch_otlp_waiting{signal=\"metrics\"}"]
}

fn fate(agent: &Daemon, signal: &str, fate: &str) -> f64 {
    let series = format!("mmwatch_otlp_item_fates_total{{signal=\"{signal}\",fate=\"{fate}\"}}");
    metrics(agent)[&series]
}

/// What was made, sent, rejected, refused, dropped as the queue was full, dropped by the rate
/// limit, and not sent, as the agent said at its end.
#[track_caller]
fn account(said: &str, items: &str) -> [u64; 7] {
    let line = said
        .lines()
        .find(|line| line.contains(&format!(" {items} = ")))
        .unwrap_or_else(|| panic!("{said}"));
    let numbers: Vec<u64> = line
        .rsplit_once("otlp: ")
        .unwrap()
        .1
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    let account: [u64; 7] = numbers.try_into().unwrap();
    assert_eq!(account[0], account[1..].iter().sum::<u64>(), "{line}");
    account
}

/// The sums that the agent logged at its end are those that the receiver has.
#[track_caller]
fn assert_last_sums(said: &str, totals: &Totals) {
    let line = said.lines().find(|line| line.contains("ended after"));
    let numbers: Vec<f64> = line
        .unwrap()
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    let got = [
        totals.sum("mmwatch.operations", &[]),
        totals.sum("mmwatch.operation.errors", &[]),
        totals.sum("mmwatch.mapped", &[]),
        totals.sum("mmwatch.unmapped", &[]),
    ];
    // Before them is the time.
    assert_eq!(numbers[1..], got, "{said}");
    assert!(got[0] > 0.0);
}

/// Seconds after 1970.
fn now_s() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs_f64()
}

/// Waits until what was done before this is in the agent's reports.
fn reported(agent: &Daemon) {
    let made_s = || now_s() - metrics(agent)["mmwatch_report_age_seconds"];
    let first = now_s();
    let second = until("a report", || Some(made_s()).filter(|made| *made > first));
    // One that began after it. Its age is not told to the nanosecond.
    until("another report", || {
        (made_s() > second + 0.05).then_some(())
    });
}

/// Waits until what was done before this arrived.
fn settle(agent: &Daemon, receiver: &mut Receiver) {
    reported(agent);
    // An export is of several requests; the first of the next one says that all arrived.
    for _ in 0..2 {
        let before_ns = now_s() * 1e9;
        until("another export", || {
            let totals = receiver.totals();
            let ready = &totals.0["metrics"]["mmwatch.ready"]["series"][0];
            (ready["time"].as_f64()? > before_ns).then_some(())
        });
    }
}

fn a_storm_arrives(protocol: &str) {
    let mut receiver = Receiver::new(protocol);
    let agent = sending_to(&receiver, protocol, &[]);
    let mut storm = Storm::new();
    let pid = storm.pid().to_string();
    let group = [("group", pid.as_str())];
    until("the child", || {
        let values = receiver.totals().values("mmwatch.group.operations", &group);
        (!values.is_empty()).then_some(())
    });
    let look = |receiver: &mut Receiver| {
        settle(&agent, receiver);
        let totals = receiver.totals();
        let of =
            |metric, label: (&'static str, &'static str)| totals.sum(metric, &[group[0], label]);
        [
            of("mmwatch.group.operations", ("op", "map")),
            of("mmwatch.group.operations", ("op", "unmap")),
            of("mmwatch.group.operation.errors", ("op", "map")),
            of("mmwatch.group.mappings", ("backing", "private-anonymous")),
            of("mmwatch.group.suspect.mappings", ("kind", "write-exec")),
        ]
    };
    let before = look(&mut receiver);
    storm.rage(COUNT);
    let after = look(&mut receiver);
    let (count, len) = (COUNT as f64, LEN_BYTES as f64);
    let want = [2.0 * count + 1.0, count, count, (count + 1.0) * len, 1.0];
    for ((want, before), after) in want.iter().zip(before).zip(after) {
        assert_eq!(after - before, *want, "{before} {after}");
    }

    // The very values that /metrics has, of what does nothing any more.
    let told = metrics(&agent);
    let totals = receiver.totals();
    let of_storm = |series: &str| {
        series.starts_with("mmwatch_group_operations_total{")
            && series.contains(&format!("group=\"{pid}\""))
            && series.contains("op=\"map\"")
    };
    let mut maps = told.iter().filter(|(series, _)| of_storm(series));
    assert_eq!(maps.next().map(|(_, value)| *value), Some(after[0]));
    // And whatever goes on, groups add up.
    for op in ["map", "unmap", "exit"] {
        let op = [("op", op)];
        assert_eq!(
            totals.sum("mmwatch.group.operations", &op),
            totals.sum("mmwatch.operations", &op)
        );
    }
    let resource = &totals.0["resource"];
    assert_eq!(resource["service.name"], "mmwatch");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(resource["os.type"], "linux");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(resource["host.name"], host.trim());
    assert_eq!(totals.0["metrics"]["mmwatch.mapped"]["unit"], "By");

    // Whose end is seen has no series any more.
    drop(storm);
    until("the end of the series", || {
        let totals = receiver.totals();
        let values = totals.values("mmwatch.group.operations", &group);
        (values.is_empty() && totals.number("ends") > 0).then_some(())
    });
    let said = agent.end();
    let totals = receiver.totals();
    assert_last_sums(&said, &totals);
    let [made, sent, ..] = account(&said, "data points");
    assert_eq!((made, sent), (totals.number("points"), made));
    assert_eq!(totals.number("unknown_ends"), 0);
}

pub fn totals_are_the_agents_by_http() {
    a_storm_arrives("http");
}

pub fn totals_are_the_agents_by_grpc() {
    a_storm_arrives("grpc");
}

/// How long the receiver is away, in reports that could not be sent.
fn an_absence(protocol: &str) {
    let mut receiver = Receiver::new(protocol);
    let agent = sending_to(&receiver, protocol, &[]);
    settle(&agent, &mut receiver);
    receiver.tell("leave");
    let mut storm = Storm::new();
    storm.rage(COUNT);
    let start = receiver.totals().number("points") as f64;
    until("points that wait", || {
        (waiting(&agent) > 3.0 * start).then_some(())
    });
    agent.wait_until_said("the receiver takes no metrics now");
    receiver.tell("return");
    agent.wait_until_said("the receiver takes metrics again");
    // All that was made meanwhile, late but in order.
    let pid = storm.pid().to_string();
    until("the storm", || {
        let totals = receiver.totals();
        let group = [("group", pid.as_str()), ("op", "map")];
        (totals.sum("mmwatch.group.operations", &group) > 2.0 * COUNT as f64).then_some(())
    });
    until("an empty queue", || (waiting(&agent) == 0.0).then_some(()));
    let said = agent.end();
    let totals = receiver.totals();
    assert_last_sums(&said, &totals);
    let points = totals.number("points");
    assert_eq!(
        account(&said, "data points"),
        [points, points, 0, 0, 0, 0, 0]
    );
    assert_eq!(totals.number("unknown_ends"), 0);
}

pub fn nothing_is_lost_while_the_receiver_is_away() {
    an_absence("http");
}

pub fn nothing_is_lost_while_grpc_is_away() {
    an_absence("grpc");
}

pub fn what_does_not_fit_is_counted() {
    let mut receiver = Receiver::new("http");
    let agent = sending_to(&receiver, "http", &["--otlp-queue", "1m"]);
    settle(&agent, &mut receiver);
    receiver.tell("leave");
    until("a full queue", || {
        (fate(&agent, "metrics", "queue_full") > 0.0).then_some(())
    });
    let bytes = metrics(&agent)["mmwatch_otlp_waiting_bytes{signal=\"metrics\"}"];
    assert!(bytes <= f64::from(1 << 20), "{bytes}");
    receiver.tell("return");
    agent.wait_until_said("the receiver takes metrics again");
    settle(&agent, &mut receiver);
    let said = agent.end();
    let totals = receiver.totals();
    // Sums are absolute: with the next report all is told.
    assert_last_sums(&said, &totals);
    let [made, sent, .., queue_full, rate_limited, left] = account(&said, "data points");
    assert_eq!(sent, totals.number("points"));
    assert!(queue_full > 0);
    assert_eq!((made - sent - queue_full, rate_limited, left), (0, 0, 0));
}

fn answers_are_understood(protocol: &str, again: [&str; 2], refusal: &str) {
    let mut receiver = Receiver::new(protocol);
    let agent = sending_to(&receiver, protocol, &[]);
    settle(&agent, &mut receiver);
    for answer in again {
        receiver.tell(&format!("answer {answer} 1"));
        settle(&agent, &mut receiver);
    }
    receiver.tell("answer partial 3 1");
    agent.wait_until_said("rejected 3 of them: not these");
    receiver.tell(&format!("answer {refusal} 1"));
    agent.wait_until_said("the receiver refused");
    settle(&agent, &mut receiver);
    let requests = |result: &str| {
        let labels = format!("signal=\"metrics\",result=\"{result}\"");
        metrics(&agent)[&format!("mmwatch_otlp_requests_total{{{labels}}}")]
    };
    assert_eq!(requests("failed"), 2.0);
    assert_eq!(requests("partial"), 1.0);
    assert_eq!(requests("refused"), 1.0);
    let said = agent.end();
    let totals = receiver.totals();
    let [made, sent, rejected, refused, queue_full, ..] = account(&said, "data points");
    assert_eq!((sent, rejected), (totals.number("points"), 3));
    assert_eq!(totals.number("rejected"), 3);
    assert!(refused > 0);
    assert_eq!((made - sent - rejected - refused, queue_full), (0, 0));
    assert_last_sums(&said, &totals);
}

pub fn answers_by_http_are_understood() {
    answers_are_understood("http", ["429", "503"], "400");
}

pub fn answers_by_grpc_are_understood() {
    let again = ["UNAVAILABLE", "ABORTED"];
    answers_are_understood("grpc", again, "INVALID_ARGUMENT");
}

/// A certificate for 127.0.0.1 with its key, and that of who signed it.
fn certificates(scratch: &Scratch) -> [std::path::PathBuf; 3] {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::new([]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let names = ["127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &Issuer::new(ca, ca_key))
        .unwrap();
    [
        scratch.file("certificate.pem", &certificate.pem()),
        scratch.file("key.pem", &key.serialize_pem()),
        scratch.file("ca.pem", &ca_certificate.pem()),
    ]
}

fn encrypted(protocol: &str) {
    let scratch = Scratch::new();
    let [certificate, key, ca] = certificates(&scratch);
    let headers = scratch.file("headers", "Authorization: Bearer first\n");
    let closed = |path| fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    closed(&headers);
    let mut receiver = Receiver::encrypted(protocol, &certificate, &key);
    let url = format!("https://{}", receiver.address);
    let args = [
        "--otlp-headers-file",
        headers.to_str().unwrap(),
        "--otlp-ca-file",
        ca.to_str().unwrap(),
    ];
    let trusting = agent(protocol, &url, &args);
    let header = |receiver: &mut Receiver, name: &str| {
        receiver.totals().0["headers"][name]
            .as_str()
            .map(str::to_owned)
    };
    settle(&trusting, &mut receiver);
    let authorization = header(&mut receiver, "authorization").unwrap();
    assert_eq!(authorization, "Bearer first");
    let user_agent = header(&mut receiver, "user-agent").unwrap();
    assert!(user_agent.starts_with("mmwatch/"), "{user_agent}");
    // Another password counts from the next SIGHUP on.
    fs::write(&headers, "Authorization: Bearer second\n").unwrap();
    trusting.signal(libc::SIGHUP);
    until("the new password", || {
        header(&mut receiver, "authorization").filter(|value| value == "Bearer second")
    });
    let said = trusting.end();
    assert!(!said.contains("Bearer"), "{said}");

    // Who trusts the system's certificates alone sends nothing.
    let points = receiver.totals().number("points");
    let careful = agent(protocol, &url, &[]);
    careful.wait_until_said("UnknownIssuer");
    drop(careful);
    assert_eq!(receiver.totals().number("points"), points);
}

pub fn tls_and_headers_by_http() {
    encrypted("http");
}

pub fn tls_and_headers_by_grpc() {
    encrypted("grpc");
}

pub fn victoria_metrics_has_what_the_agent_says() {
    let victoria = VictoriaMetrics::new();
    let url = format!("http://{}/opentelemetry", victoria.address);
    let agent = agent("http", &url, &[]);
    let mut storm = Storm::new();
    let pid = storm.pid();
    let maps = format!("mmwatch_group_operations_total{{group=\"{pid}\",op=\"map\"}}");
    until("the child", || victoria.value(&maps));
    reported(&agent);
    let told = metrics(&agent);
    let of_storm = format!("group=\"{pid}\"");
    let operations = |series: &&String| {
        series.starts_with("mmwatch_group_operations_total{")
            && series.contains(&of_storm)
            && series.contains("op=\"map\"")
    };
    let before = told[told.keys().find(operations).unwrap()];
    storm.rage(COUNT);
    let want = before + 2.0 * COUNT as f64 + 1.0;
    // It makes what it got visible after a moment.
    until("the storm", || {
        (victoria.value(&maps)? == want).then_some(())
    });

    // What of the agent's text does not change any more is there by the same name.
    let told = metrics(&agent);
    let mut compared = 0;
    for (series, value) in &told {
        if series.contains(&of_storm) {
            until(series, || (victoria.value(series)? == *value).then_some(()));
            compared += 1;
        }
    }
    assert!(compared > 5, "{told:?}");
    for name in told.keys().filter(|name| !name.starts_with("process_")) {
        let name = name.split('{').next().unwrap();
        until(name, || (!victoria.query(name).is_empty()).then_some(()));
    }
    // Of one export, groups add up, those that ended too.
    drop(storm);
    until("the end of the series", || {
        victoria.query(&maps).is_empty().then_some(())
    });
    let said = agent.end();
    let [_, sent, rest @ ..] = account(&said, "data points");
    assert!(sent > 0);
    assert_eq!(rest, [0; 5]);
    let last = said
        .lines()
        .find_map(|line| line.split_once(" s: ")?.1.split_once(" operations"))
        .unwrap()
        .0;
    let last: f64 = last.parse().unwrap();
    for query in [
        "sum(mmwatch_operations_total)",
        "sum(mmwatch_group_operations_total)",
    ] {
        until(query, || (victoria.value(query)? == last).then_some(()));
    }
}

/// The events of a process that arrived, by name and whether they failed.
fn events(totals: &Totals, pid: u32, name: &str, has_failed: bool) -> usize {
    totals
        .records()
        .iter()
        .filter(|record| {
            record["attributes"]["process.pid"] == pid
                && record["name"] == name
                && (record["severity_text"] == "WARN") == has_failed
        })
        .count()
}

fn events_arrive(protocol: &str) {
    const COUNT: usize = 300;
    let mut receiver = Receiver::new(protocol);
    // All of the machine's.
    let args = [
        "--otlp-events",
        "--otlp-events-per-second",
        "100000",
        "--otlp-queue",
        "64M",
        "--buffer",
        "64M",
    ];
    let agent = sending_to(&receiver, protocol, &args);
    let mut storm = Storm::new();
    let pid = storm.pid();
    let look = |receiver: &mut Receiver| {
        let totals = receiver.totals();
        [
            events(&totals, pid, "mmwatch.map", false),
            events(&totals, pid, "mmwatch.map", true),
            events(&totals, pid, "mmwatch.unmap", false),
        ]
    };
    // The first of them, from which on all are sent.
    until("events", || {
        storm.rage(1);
        (look(&mut receiver)[1] > 0).then_some(())
    });
    // Whatever was done before arrives before.
    let mut settled = look(&mut receiver);
    until("the last of these", || {
        // Longer than events wait for each other.
        thread::sleep(Duration::from_secs(2));
        let before = std::mem::replace(&mut settled, look(&mut receiver));
        (before == settled).then_some(())
    });
    storm.rage(COUNT as u64);
    let want = [
        settled[0] + COUNT + 1,
        settled[1] + COUNT,
        settled[2] + COUNT,
    ];
    until("the storm", || (look(&mut receiver) == want).then_some(()));

    let totals = receiver.totals();
    let failed = totals
        .records()
        .iter()
        .find(|record| record["attributes"]["process.pid"] == pid && record["severity"] == 13)
        .unwrap();
    assert_eq!(failed["attributes"]["error.type"], "EINVAL");
    assert_eq!(failed["attributes"]["op"], "map");
    let body = failed["body"].as_str().unwrap();
    assert!(body.ends_with("failed with EINVAL"), "{body}");
    let said = agent.end();
    let totals = receiver.totals();
    let sent = totals.records().len() as u64;
    assert_eq!(account(&said, "events"), [sent, sent, 0, 0, 0, 0, 0]);
    assert!(!said.contains("were lost"), "{said}");
    assert_last_sums(&said, &totals);
}

pub fn events_arrive_by_http() {
    events_arrive("http");
}

pub fn events_arrive_by_grpc() {
    events_arrive("grpc");
}

pub fn too_many_events_are_counted() {
    let mut receiver = Receiver::new("http");
    let args = ["--otlp-events", "--otlp-events-per-second", "10"];
    let agent = sending_to(&receiver, "http", &args);
    let mut storm = Storm::new();
    until("too many events", || {
        storm.rage(200);
        (fate(&agent, "logs", "rate_limited") > 0.0).then_some(())
    });
    receiver.tell("leave");
    storm.rage(200);
    agent.wait_until_said("the receiver takes no logs now");
    receiver.tell("return");
    agent.wait_until_said("the receiver takes logs again");
    let said = agent.end();
    let sent = receiver.totals().records().len() as u64;
    let [made, arrived, rest @ ..] = account(&said, "events");
    assert_eq!(arrived, sent);
    assert_eq!(rest, [0, 0, 0, made - sent, 0]);
}

pub fn a_wrong_export_is_refused_at_the_start() {
    let scratch = Scratch::new();
    let open = scratch.file("headers", "a: b\n");
    let refusal = |args: &[&str]| -> (Option<i32>, String) {
        let mut command = super::daemon::mmwatch();
        let output = command.arg("agent").args(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    let (code, said) = refusal(&["--otlp-endpoint", "localhost:4318"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("expected a URL such as"), "{said}");
    let url = ["--otlp-endpoint", "http://127.0.0.1:1"];
    let address = super::daemon::free_address();
    let file = ["--otlp-headers-file", open.to_str().unwrap()];
    let (code, said) = refusal(&[&url[..], &file, &["--listen", &address]].concat());
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("chmod 600"), "{said}");
}

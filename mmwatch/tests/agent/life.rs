//! From the configuration to the end.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, Write as _},
    net::TcpStream,
    os::unix::{net::UnixDatagram, process::CommandExt as _},
    process::Command,
    time::{Duration, Instant},
};

use seccompiler::{BpfProgram, TargetArch};
use serde_json::{Value, json};

use super::daemon::{Daemon, Scratch, free_address, mmwatch, until};

const UNIT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/systemd/mmwatch.service"
);

pub fn the_configuration_is_checked() {
    let scratch = Scratch::new();
    let check = |text: &str| {
        let file = scratch.file("mmwatch.toml", text);
        let mut command = mmwatch();
        command
            .args(["agent", "--check-config", "--config"])
            .arg(file);
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (
            output.status.code(),
            text(&output.stdout) + &text(&output.stderr),
        )
    };
    let (code, said) = check("interval = \"2s\"\n");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("mmwatch.toml is fine\n"), "{said}");
    let (code, said) = check("interval = \"2s\"\ntopk = 5\n");
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.ends_with("mmwatch.toml:2:1: there is no key `topk`; did you mean `top_k`?\n"),
        "{said}"
    );
    let missing = scratch.path("missing");
    let mut command = mmwatch();
    command
        .args(["agent", "--check-config", "--config"])
        .arg(missing);
    assert_eq!(command.status().unwrap().code(), Some(2));
}

pub fn a_signal_reads_the_configuration_again() {
    let scratch = Scratch::new();
    let file = scratch.file("mmwatch.toml", "interval = \"200ms\"\ntop_k = 50\n");
    let daemon = Daemon::ready(&["--config", file.to_str().unwrap()]);
    let series = || {
        let text = daemon.get("/metrics").body;
        text.lines()
            .filter(|line| line.starts_with("mmwatch_process_vmas{"))
            .count()
    };
    until("many series", || (series() > 4).then_some(()));
    fs::write(&file, "interval = \"200ms\"\ntop_k = 2\n").unwrap();
    daemon.signal(libc::SIGHUP);
    until("two and the rest", || (series() == 3).then_some(()));

    fs::write(&file, "interval = \"200ms\"\ntop_k = 0\n").unwrap();
    daemon.signal(libc::SIGHUP);
    daemon.wait_until_said("stays as it was");
    assert_eq!(series(), 3);
    fs::write(
        &file,
        "interval = \"100ms\"\ntop_k = 1\ngroup_by = \"comm\"\n",
    )
    .unwrap();
    daemon.signal(libc::SIGHUP);
    until("one and the rest", || (series() == 2).then_some(()));
    daemon.wait_until_said("at the next start only: group_by");
}

pub fn systemd_is_told_and_the_end_is_quick() {
    let scratch = Scratch::new();
    let path = scratch.path("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let hear = || {
        let mut bytes = [0; 256];
        let len = systemd.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    };
    let address = free_address();
    let args = [
        ["--interval", "200ms"],
        ["--listen", &address],
        ["--request-timeout", "1h"],
    ];
    let args = args.concat();
    let daemon = Daemon::spawn(&args, address.clone(), &[("NOTIFY_SOCKET", &path)]);
    let (mut beats, mut is_ready) = (0, false);
    while !is_ready || beats < 3 {
        match hear().trim() {
            "WATCHDOG=1" => beats += 1,
            "READY=1" => {
                is_ready = true;
                assert_eq!(daemon.get("/readyz").status, 200);
            }
            said => panic!("{said}"),
        }
    }
    // A request that never ends holds nothing up: two seconds are promised, and ten is
    // when systemd loses patience.
    let mut endless = TcpStream::connect(&address).unwrap();
    endless
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: loc")
        .unwrap();
    let start = Instant::now();
    let said = daemon.end();
    assert!(start.elapsed() < Duration::from_secs(9));
    assert!(said.contains(" operations, "), "{said}");
    assert!(said.contains("ledger: "), "{said}");
    assert!(!said.contains("does not balance"), "{said}");
    while hear().trim() != "STOPPING=1" {}
}

pub fn two_capabilities_are_enough() {
    let address = free_address();
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set=-all,+bpf,+perfmon", "--inh-caps=-all"])
        .arg(mmwatch().get_program())
        .args(["agent", "--listen", &address]);
    let daemon = Daemon::of(&mut command, address);
    daemon.wait_until_ready();
    let own = std::process::id();
    assert_eq!(daemon.get(&format!("/api/v1/process/{own}")).status, 200);
}

pub fn the_unit_is_sound() {
    let Ok(output) = Command::new("systemd-analyze").arg("--version").output() else {
        println!("systemd-analyze is not there");
        return;
    };
    assert!(output.status.success());
    // What it starts is where the test has it.
    let unit = fs::read_to_string(UNIT).unwrap();
    let here = env::current_exe().unwrap();
    let unit = unit.replace("/usr/bin/mmwatch", here.to_str().unwrap());
    let scratch = Scratch::new();
    let unit = scratch.file("mmwatch.service", &unit);
    let analyze = |args: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(args).arg(&unit).output().unwrap()
    };
    let output = analyze(&["verify"]);
    assert!(output.status.success(), "{output:?}");
    let said = [output.stdout, output.stderr].concat();
    assert_eq!(String::from_utf8(said).unwrap(), "");
    // A threshold in tenths: fails above it.
    let output = analyze(&["security", "--no-pager", "--offline=true", "--threshold=25"]);
    assert!(output.status.success(), "{output:?}");
}

/// The names of a set of system calls, as systemd knows it.
fn members(set: &str) -> BTreeSet<String> {
    let output = Command::new("systemd-analyze")
        .args(["syscall-filter", "--no-pager", set])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().skip(1).map(str::trim);
    names
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .flat_map(|name| match name.strip_prefix('@') {
            Some(_) => members(name),
            None => BTreeSet::from([name.to_owned()]),
        })
        .collect()
}

/// The calls that the unit allows.
fn calls_of_the_unit() -> BTreeSet<String> {
    let unit = fs::read_to_string(UNIT).unwrap();
    let mut allowed = members("@default");
    for filter in unit
        .lines()
        .filter_map(|line| line.strip_prefix("SystemCallFilter="))
    {
        let (is_taken, words) = match filter.strip_prefix('~') {
            Some(words) => (true, words),
            None => (false, filter),
        };
        for word in words.split_whitespace() {
            let names = match word.strip_prefix('@') {
                Some(_) => members(word),
                None => BTreeSet::from([word.to_owned()]),
            };
            if is_taken {
                allowed.retain(|name| !names.contains(name));
            } else {
                allowed.extend(names);
            }
        }
    }
    allowed
}

/// What lets these calls through, and refuses others as systemd does. Names of other
/// machines' calls are left out.
fn filter(calls: &BTreeSet<String>) -> BpfProgram {
    let compile = |calls: &[Value]| {
        let program = json!({"unit": {
            "mismatch_action": {"errno": libc::EPERM},
            "match_action": "allow",
            "filter": calls,
        }});
        seccompiler::compile_from_json(program.to_string().as_bytes(), TargetArch::x86_64)
    };
    let known: Vec<_> = calls
        .iter()
        .map(|name| json!({ "syscall": name }))
        .filter(|call| compile(std::slice::from_ref(call)).is_ok())
        .collect();
    // A list that lost its members would allow nothing.
    assert!(known.len() > 150, "{}", known.len());
    compile(&known).unwrap().remove("unit").unwrap()
}

pub fn the_unit_s_calls_are_enough() {
    let filter = filter(&calls_of_the_unit());
    let address = free_address();
    let mut command = mmwatch();
    command.args(["agent", "--listen", &address]);
    let apply = move || seccompiler::apply_filter(&filter).map_err(io::Error::other);
    // SAFETY: two system calls, of a filter that is made already; nothing is allocated
    // where they succeed.
    unsafe { command.pre_exec(apply) };
    let daemon = Daemon::of(&mut command, address);
    daemon.wait_until_ready();
    assert_eq!(daemon.get("/metrics").status, 200);
    let said = daemon.end();
    assert!(said.contains("confined, with"), "{said}");
}

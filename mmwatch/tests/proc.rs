//! `mmwatch top` and `stat` where `/proc` is polled, against the
//! `/proc/PID/maps` of this test's own children. Needs no privileges.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead as _, BufReader, Lines, PipeReader, PipeWriter, Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    process::{Child, ChildStdout, Command, Output, Stdio},
    ptr,
};

use common::Still;
use serde_json::Value;

/// Whoever has no rights; files of a container's root are not this user's.
const NOBODY: u32 = 65_534;

fn run(args: &[&str]) -> Output {
    common::mmwatch()
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

fn parse(line: &str) -> Value {
    let value = serde_json::from_str(line).unwrap();
    let schema = include_str!("../../docs/event.schema.json");
    let schema = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    let errors: Vec<_> = schema.iter_errors(&value).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{value:#}\n{errors:#?}");
    value
}

/// The reports of a run that ends by itself, valid by the schema.
#[track_caller]
fn reports(args: &[&str]) -> Vec<Value> {
    let output = run(args);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{args:?}: {}",
        stderr(&output)
    );
    let text = str::from_utf8(&output.stdout).unwrap();
    text.lines().map(parse).collect()
}

/// A run that goes on until it is dropped.
struct Watching {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn new(args: &[&str], stdin: Stdio) -> Self {
        let mut command = common::mmwatch();
        let mut child = command
            .args(args)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        parse(&self.lines.next().unwrap().unwrap())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cat() -> Still {
    Still::after(&mut Command::new("/bin/cat"), |stdin| {
        stdin.write_all(b"here\n").unwrap();
    })
}

fn processes(report: &Value) -> &[Value] {
    report["processes"].as_array().unwrap()
}

fn process(report: &Value, pid: u32) -> &Value {
    let found = processes(report).iter().find(|of| of["pid"] == pid);
    found.unwrap_or_else(|| panic!("no {pid} in {report:#}"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value}"))
}

/// Lines and bytes of a `/proc/PID/maps`, the kernel's own page left out.
fn sizes(maps: &str) -> (u64, u64) {
    let bytes = |line: &str| {
        let (start, rest) = line.split_once('-').unwrap();
        let end = rest.split_once(' ').unwrap().0;
        let hex = |text| u64::from_str_radix(text, 16).unwrap();
        hex(end) - hex(start)
    };
    let lines = maps.lines().filter(|line| !line.ends_with("[vsyscall]"));
    lines.fold((0, 0), |(vmas, sum), line| (vmas + 1, sum + bytes(line)))
}

/// What a report says of a process is what its `maps` says.
#[track_caller]
fn assert_same(process: &Value, maps: &str) {
    let (vmas, bytes) = sizes(maps);
    assert_eq!(process["vmas"], vmas, "{process:#}\n{maps}");
    assert_eq!(process["total_bytes"], bytes, "{process:#}\n{maps}");
    let backings = process["backings"].as_object().unwrap();
    let sum = |key: &str| backings.values().map(|of| number(&of[key])).sum::<u64>();
    assert_eq!((sum("vmas"), sum("bytes")), (vmas, bytes));
}

/// A copy of this test that maps more when it is told to, until it is dropped.
struct Mapping {
    pid: u32,
    go: PipeWriter,
    done: PipeReader,
}

/// What [`Mapping`] adds: VMAs at each step.
const STEP_VMAS: u64 = 1000;

impl Mapping {
    fn new() -> Self {
        let (go_in, go) = io::pipe().unwrap();
        let (done, done_out) = io::pipe().unwrap();
        let (go_fd, done_fd) = (go_in.as_raw_fd(), done_out.as_raw_fd());
        // SAFETY: the child makes nothing but system calls, and never returns.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: the descriptors are this process's copies.
            unsafe { map_when_told(go_fd, done_fd) }
        }
        Self {
            pid: u32::try_from(pid).unwrap(),
            go,
            done,
        }
    }

    /// Makes it take steps.
    fn map(&mut self, steps: u8) {
        self.go.write_all(&[steps]).unwrap();
        self.done.read_exact(&mut [0]).unwrap();
    }

    fn maps(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/maps", self.pid)).unwrap()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let pid = self.pid.cast_signed();
        // SAFETY: ends a child of this process that nobody waited for yet. The end
        // of its input would not do: other copies of this test may hold it open.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, ptr::null_mut(), 0);
        }
    }
}

/// For each byte that is read, so many times: maps memory and makes it
/// [`STEP_VMAS`] VMAs, every second of which can be written to.
///
/// # Safety
///
/// Both descriptors are open.
unsafe fn map_when_told(go: i32, done: i32) -> ! {
    const PAGE: usize = 4096;
    // SAFETY: the buffer is a local of that length; memory that is mapped and
    // protected is new and nobody else's.
    unsafe {
        let mut steps = 0_u8;
        while libc::read(go, (&raw mut steps).cast(), 1) == 1 {
            for _ in 0..steps {
                let len = (STEP_VMAS as usize + 1) * PAGE;
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let at = libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0);
                if at == libc::MAP_FAILED {
                    libc::_exit(1);
                }
                for page in (1..=STEP_VMAS as usize).step_by(2) {
                    let at = at.byte_add(page * PAGE);
                    if libc::mprotect(at, PAGE, libc::PROT_READ | libc::PROT_WRITE) != 0 {
                        libc::_exit(2);
                    }
                }
            }
            libc::write(done, (&raw const steps).cast(), 1);
        }
        libc::_exit(0);
    }
}

#[test]
fn what_is_at_rest_is_told_exactly() {
    let (one, other) = (cat(), cat());
    let (first, second) = (one.pid().to_string(), other.pid().to_string());
    for command in ["top", "stat"] {
        let args = [
            command, "--hooks", "proc", "-d", "100ms", "-o", "json", "-p", &first, "-p", &second,
        ];
        let reports = reports(&args);
        assert_eq!(reports.len(), 1, "{command}");
        let report = &reports[0];
        assert_eq!(processes(report).len(), 2);
        for still in [&one, &other] {
            let told = process(report, still.pid());
            assert_same(told, &still.maps());
            assert_eq!(told["comm"], "cat");
            assert_eq!(told["vmas_peak"], told["vmas"]);
            assert!(told["changing"].is_null());
        }
        let sum: u64 = processes(report).iter().map(|of| number(&of["vmas"])).sum();
        assert_eq!(report["all"]["vmas"], sum);
        assert_eq!(report["unread_processes"], 0);
    }
}

#[test]
fn text_has_the_same_numbers() {
    let cat = cat();
    let output = run(&[
        "stat",
        "--hooks",
        "proc",
        "-d",
        "50ms",
        "-p",
        &cat.pid().to_string(),
    ]);
    let text = str::from_utf8(&output.stdout).unwrap();
    let (vmas, _) = sizes(&cat.maps());
    let row = text.lines().find(|line| line.contains(" cat ")).unwrap();
    let words: Vec<_> = row.split_ascii_whitespace().collect();
    assert_eq!(
        words[..4],
        [
            &cat.pid().to_string(),
            "cat",
            &vmas.to_string(),
            &vmas.to_string()
        ]
    );
    assert!(text.contains("polled: "), "{text}");
    assert_eq!(stderr(&output), "");
}

#[test]
fn what_a_process_maps_between_two_polls_is_told() {
    let mut mapping = Mapping::new();
    let pid = mapping.pid;
    let before = sizes(&mapping.maps());
    let mut top = Watching::new(
        &[
            "top",
            "--hooks",
            "proc",
            "-i",
            "50ms",
            "-o",
            "json",
            "-p",
            &pid.to_string(),
        ],
        Stdio::null(),
    );
    let first = top.next();
    assert_same(process(&first, pid), &mapping.maps());

    mapping.map(2);
    let after = sizes(&mapping.maps());
    // Beside those that were made one may have grown into another.
    assert!(after.0 - before.0 >= 2 * STEP_VMAS, "{before:?} {after:?}");
    let (mut vmas_delta, mut delta_bytes) = (0, 0);
    let last = loop {
        let report = top.next();
        let told = process(&report, pid);
        vmas_delta += told["vmas_delta"].as_i64().unwrap_or(0);
        delta_bytes += told["total_delta_bytes"].as_i64().unwrap_or(0);
        if told["vmas"] == after.0 {
            break report;
        }
    };
    assert_same(process(&last, pid), &mapping.maps());
    let delta = |before: u64, after: u64| after.cast_signed() - before.cast_signed();
    assert_eq!(vmas_delta, delta(before.0, after.0));
    assert_eq!(delta_bytes, delta(before.1, after.1));
}

#[test]
fn one_with_sixty_thousand_vmas_is_told_exactly() {
    let mut mapping = Mapping::new();
    mapping.map(60);
    let (vmas, _) = sizes(&mapping.maps());
    assert!(vmas >= 60 * STEP_VMAS, "{vmas}");
    let args = ["stat", "--hooks", "proc", "-d", "50ms", "-o", "json", "-p"];
    let reports = reports(&[&args[..], &[&mapping.pid.to_string()]].concat());
    let told = process(&reports[0], mapping.pid);
    assert_same(told, &mapping.maps());
    assert_eq!(
        (&told["vmas_delta"], &told["total_delta_bytes"]),
        (&0.into(), &0.into())
    );
}

#[test]
fn a_command_is_polled_with_its_children() {
    let (go_in, go) = io::pipe().unwrap();
    let command = ["sh", "-c", "cat; exit 7"];
    let args = ["top", "--hooks", "proc", "-i", "50ms", "-o", "json", "--"];
    let mut top = Watching::new(&[&args[..], &command].concat(), go_in.into());
    let report = loop {
        let report = top.next();
        let names = ["sh", "cat"];
        let is_there = |name| processes(&report).iter().any(|of| of["comm"] == name);
        let same = |of: &Value| {
            let maps = std::fs::read_to_string(format!("/proc/{}/maps", of["pid"])).unwrap();
            of["vmas"] == sizes(&maps).0
        };
        if names.into_iter().all(is_there) && processes(&report).iter().all(same) {
            break report;
        }
    };
    assert_eq!(processes(&report).len(), 2, "{report:#}");
    drop(go);
    assert_eq!(top.child.wait().unwrap().code(), Some(7));
    // The last report has them once more, and says that they ended.
    let rest: Vec<_> = top
        .lines
        .by_ref()
        .map(|line| parse(&line.unwrap()))
        .collect();
    let ended: u64 = rest.iter().map(|of| number(&of["ended_processes"])).sum();
    assert_eq!(ended, 2);
    assert!(
        processes(rest.last().unwrap())
            .iter()
            .all(|of| of["alive"] == false)
    );
}

#[test]
fn the_sums_of_a_command_go_to_stderr_and_its_code_is_passed_on() {
    let output = run(&[
        "stat",
        "--hooks",
        "proc",
        "--",
        "sh",
        "-c",
        "echo out; exit 3",
    ]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stdout, b"out\n");
    assert!(stderr(&output).contains("Address spaces of 'sh -c echo out; exit 3', "));
}

#[test]
fn filters_are_honoured() {
    let cat = cat();
    let args = [
        "stat", "--hooks", "proc", "-d", "50ms", "-o", "json", "--rows", "9999",
    ];
    let of = |more: &[&str]| reports(&[&args[..], more].concat()).remove(0);
    let uid = process(&of(&["-n", "cat"]), cat.pid())["uid"].to_string();
    for report in [of(&["-n", "cat"]), of(&["-n", "cat", "-u", &uid])] {
        assert!(processes(&report).iter().all(|of| of["comm"] == "cat"));
        assert_same(process(&report, cat.pid()), &cat.maps());
    }
    // Nobody has this number.
    assert_eq!(
        processes(&of(&["-n", "cat", "-u", "4294967294"])),
        [] as [Value; 0]
    );
    let everybody = of(&[]);
    let Some(cgroup) = process(&everybody, cat.pid())["cgroup"].as_str() else {
        println!("no cgroups here: not tested");
        return;
    };
    let report = of(&["--cgroup", cgroup]);
    assert_same(process(&report, cat.pid()), &cat.maps());
    let is_below = |of: &Value| of["cgroup"].as_str().unwrap().starts_with(cgroup);
    assert!(processes(&report).iter().all(is_below));
}

#[test]
fn groups_hold_everybody() {
    let cat = cat();
    let args = [
        "stat", "--hooks", "proc", "-d", "50ms", "-o", "json", "-n", "cat",
    ];
    let report = reports(&[&args[..], &["--by", "comm"]].concat()).remove(0);
    assert_eq!(report["by"], "comm");
    let groups = report["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0]["name"], "cat");
    assert!(number(&groups[0]["vmas"]) >= sizes(&cat.maps()).0);
    assert_eq!(report["all"]["vmas"], groups[0]["vmas"]);
}

#[test]
fn what_polling_cannot_know_is_refused() {
    for (args, names) in [
        (&["trace"][..], "trace is about operations"),
        (&["verify"], "verify is about operations"),
        (
            &["maps", "--watch", "1", "1"],
            "--watch is about operations",
        ),
        (
            &["maps", "--faults", "1", "1"],
            "--faults is about page faults",
        ),
        (&["top", "--faults"], "--faults is about page faults"),
        (&["top", "--op", "map"], "leave --op out"),
        (&["stat", "-x"], "leave --failed out"),
        (&["stat", "--min-size", "1"], "leave --min-size out"),
        (&["top", "--suspect"], "leave --suspect out"),
        (&["top", "--backing", "shared-file"], "leave --backing out"),
        (
            &["top", "--simulate-loss", "0.5"],
            "leave --simulate-loss out",
        ),
    ] {
        let output = run(&[args, &["--hooks", "proc"]].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(output.stdout, b"", "{args:?}");
        let text = stderr(&output);
        assert!(text.contains(names), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    // What needs no hooks needs no others.
    let own = std::process::id().to_string();
    let output = run(&["maps", "--hooks", "proc", &own]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// The binary as a user without rights, wherever it lies.
fn as_nobody(args: &[&str]) -> Output {
    let binary = File::open(common::mmwatch().get_program()).unwrap();
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    command.args(args).stdin(Stdio::null());
    drop_rights(&mut command);
    command.output().unwrap()
}

/// Where it has rights, that is.
fn drop_rights(command: &mut Command) {
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
}

#[test]
fn who_may_not_use_bpf_gets_polling_and_is_told_once() {
    let mut command = Command::new("/bin/cat");
    drop_rights(&mut command);
    let cat = Still::after(&mut command, |stdin| stdin.write_all(b"here\n").unwrap());
    for command in ["top", "stat"] {
        let pid = cat.pid().to_string();
        let output = as_nobody(&[command, "-d", "100ms", "-o", "json", "-p", &pid]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = str::from_utf8(&output.stdout).unwrap();
        for report in text.lines().map(parse) {
            assert_eq!(report["type"], "poll");
            assert_same(process(&report, cat.pid()), &cat.maps());
        }
        let told = stderr(&output);
        assert_eq!(told.lines().count(), 1, "{told}");
        for words in [
            "refuses BPF",
            "run mmwatch as root",
            "/proc is polled",
            "not what happens",
        ] {
            assert!(told.contains(words), "{words}: {told}");
        }
    }
}

#[test]
fn what_polling_cannot_know_stays_refused_without_bpf() {
    for (args, names) in [
        (&["trace", "-d", "1"][..], "`mmwatch top --hooks proc`"),
        (&["verify"], "`mmwatch top --hooks proc`"),
        (&["top", "--op", "map"], "as --op is about operations"),
        (&["stat", "--faults"], "as --faults is about page faults"),
    ] {
        let output = as_nobody(args);
        assert_eq!(output.status.code(), Some(3), "{args:?}");
        assert_eq!(output.stdout, b"", "{args:?}");
        let text = stderr(&output);
        assert!(
            text.contains("refuses BPF") && text.contains(names),
            "{args:?}: {text}"
        );
    }
    // Who asks for hooks gets these or none.
    let output = as_nobody(&["top", "-d", "1", "--hooks", "fentry"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(!stderr(&output).contains("polled"));
}

#[test]
fn others_processes_are_counted_where_they_may_not_be_read() {
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        println!("not root, so nothing here is another's: not tested");
        return;
    }
    let cat = cat();
    let args = ["stat", "--hooks", "proc", "-d", "50ms", "-p"];
    let pid = cat.pid().to_string();
    let output = as_nobody(&[&args[..], &[&pid, "-o", "json"]].concat());
    let report = parse(str::from_utf8(&output.stdout).unwrap());
    let told = process(&report, cat.pid());
    assert_eq!(told["total_bytes"], sizes(&cat.maps()).1);
    assert!(told["vmas"].is_null() && told["backings"].is_null());
    assert_eq!(report["unread_processes"], 1);
    assert_eq!(report["all"]["vmas"], 0);
    let output = as_nobody(&[&args[..], &[&pid]].concat());
    let text = str::from_utf8(&output.stdout).unwrap();
    assert!(text.contains("unread: 1, "), "{text}");
}

#[test]
fn check_says_whether_proc_would_be_polled() {
    let check = |args: &[&str]| {
        let output = run(&[&["check", "-o", "json"], args].concat());
        let json: BTreeMap<String, Value> = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code().unwrap(), json)
    };
    let (code, json) = check(&[]);
    assert_eq!(json["polling"], json.contains_key("refusal"));
    assert_eq!(json["polling"], code == 3);
    let (code, json) = check(&["--hooks", "proc"]);
    assert_eq!((code, &json["polling"]), (0, &true.into()));
    assert!(!json.contains_key("plan") && !json.contains_key("refusal"));
    let output = run(&["check", "--hooks", "proc"]);
    assert!(
        str::from_utf8(&output.stdout)
            .unwrap()
            .contains("top and stat poll /proc")
    );
    let output = as_nobody(&["check", "-o", "json"]);
    assert_eq!(output.status.code(), Some(3));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["polling"], true);
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    let mut command = common::mmwatch();
    command.args(["top", "--hooks", "proc", "-i", "20ms"]);
    let mut top = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(top.stdout.take().unwrap());
    assert_ne!(out.read_line(&mut String::new()).unwrap(), 0);
    drop(out);
    assert_eq!(top.wait().unwrap().code(), Some(0));
}

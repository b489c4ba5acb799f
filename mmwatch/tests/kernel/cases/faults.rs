//! Page faults: held against what the kernel itself counts for a process.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{hex, stat_of_storm};
use crate::{
    run::{mmwatch, temporary, watcher, workload},
    workload::{
        PAGE,
        faults::{FEW, MANY, SHARED, TWELVE_BYTES, UNMAPPED, UNTOUCHED, WRITTEN},
    },
};

/// Of each way to touch memory: how often a page is touched that is not there.
const TOUCHED: &[(&str, u64)] = &[
    ("write", 1),
    ("read-then-write", 1),
    ("twelve-bytes", 1),
    ("shared", 1),
    ("shared-file", 1),
    ("kernel", 1),
    ("populate", 0),
    ("discard", 2),
    ("refused", 0),
];

/// A process that touched memory in one way.
struct Note {
    way: String,
    pages: u64,
    pid: u64,
    minor: u64,
    major: u64,
}

fn note(line: &str) -> Note {
    let words: Vec<_> = line.split(' ').collect();
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    Note {
        way: words[0].to_owned(),
        pages: number(1),
        pid: number(2),
        // Less those that the kernel made without an access.
        minor: number(3) - number(5),
        major: number(4),
    }
}

/// Faults of these programs that the kernel skipped.
fn missed(ledger: &Value) -> u64 {
    let hooks = ledger["hooks"].as_array().unwrap();
    let of = |hook: &Value| hook["hook"].as_str().unwrap().contains("fault");
    hooks
        .iter()
        .filter(|hook| of(hook))
        .map(|hook| hook["missed"].as_u64().unwrap_or(0))
        .sum()
}

/// The row of a process, and what it was counted.
fn faults_of(report: &Value, pid: u64) -> &Value {
    let processes = report["processes"].as_array().unwrap();
    let process = processes.iter().find(|process| process["pid"] == pid);
    &process.unwrap_or_else(|| panic!("no {pid}: {report:#}"))["total"]["faults"]
}

pub fn faults_are_those_that_the_kernel_counts(backend: &str) {
    let (notes, file) = (temporary("notes"), temporary("file"));
    let command = workload(&["faults", notes.to_str().unwrap(), file.to_str().unwrap()]);
    let output = watcher()
        .args(["stat", "--faults", "--rows", "100", "-o", "json"])
        .args(["--hooks", backend, "--"])
        .args(command)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let ledger = &report["ledger"];
    assert_eq!(ledger["balanced"], true, "{ledger}");
    assert_eq!(ledger["scratch_full"], 0, "{ledger}");
    let missed = missed(ledger);
    let notes_text = fs::read_to_string(&notes).unwrap();
    remove(&notes, &file);

    let told = |note: &Note| {
        let faults = faults_of(&report, note.pid);
        let number = |name: &str| faults[name].as_u64().unwrap();
        let (minor, major) = (number("minor"), number("major"));
        let line = format!("{} of {} pages: {faults}", note.way, note.pages);
        for (told, own) in [(minor, note.minor), (major, note.major)] {
            let exact = told == own || (told < own && told + missed >= own);
            assert!(exact, "{line}: not {own}, {missed} missed");
        }
        (number("touched_bytes") / PAGE, major)
    };
    let notes: Vec<_> = notes_text.lines().map(note).collect();
    for (way, times) in TOUCHED {
        let of: Vec<_> = notes.iter().filter(|note| note.way == *way).collect();
        let [few, many] = of.as_slice() else {
            panic!("{way}: {notes_text}");
        };
        let ((few, _), (many, _)) = (told(few), told(many));
        let (touched, own) = (many.wrapping_sub(few), times * (MANY - FEW));
        assert!(
            touched == own || (missed > 0 && touched.abs_diff(own) <= missed),
            "{way}: {touched} more touched, not {own}; {missed} missed"
        );
    }
    let mut majors = 0;
    for note in notes.iter().filter(|note| note.way == "major") {
        let (_, major) = told(note);
        assert!(major > 0, "{notes_text}");
        majors += 1;
    }
    if majors == 0 {
        println!(
            "no major faults: the file system of {} is in memory",
            file.display()
        );
    }
    // The command's own row, from its exec on: it cannot touch more than it maps.
    let all = &report["all"]["total"];
    let touched = all["faults"]["touched_bytes"].as_u64().unwrap();
    let untouched = all["faults"]["untouched_bytes"].as_u64().unwrap();
    let mapped = all["mapped_bytes"].as_u64().unwrap();
    assert_eq!(untouched, mapped.saturating_sub(touched), "{all}");
}

pub fn without_being_asked_no_fault_is_told(backend: &str) {
    let text = stat_of_storm(backend);
    let report: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert!(report["all"]["total"].get("faults").is_none(), "{report:#}");
    assert!(!text.contains("fault"), "{text}");
}

/// Counts the faults of a workload, for this time. None where the workload may have
/// taken longer.
fn counted(time: Duration) -> Option<Output> {
    let file = temporary("file");
    let command = workload(&["mappings", file.to_str().unwrap()]);
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    expect(&mut lines, "ready");

    let seconds = time.as_secs().to_string();
    let begin = Instant::now();
    let mmwatch = mmwatch()
        .args(["maps", "-o", "json", "--faults", &seconds])
        .arg(child.id().to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let begin = wait_until_counting(&mmwatch, begin);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"\n").unwrap();
    expect(&mut lines, "done");
    let is_in_time = begin.elapsed() < time;
    let output = mmwatch.wait_with_output().unwrap();
    drop(stdin);
    child.wait().unwrap();
    remove(&file, &file);
    assert!(output.status.success());
    is_in_time.then_some(output)
}

pub fn faults_are_put_to_mappings(_: &str) {
    // The whole time is waited for: a long one only where a short one is not enough.
    let output = [3, 20]
        .into_iter()
        .find_map(|seconds| counted(Duration::from_secs(seconds)))
        .expect("a workload that is done in time");
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["type"], "maps-faults");
    let ledger = &line["ledger"];
    assert_eq!(ledger["balanced"], true, "{ledger}");
    let missed = missed(ledger);

    let vmas = line["vmas"].as_array().unwrap();
    let at = |start: u64| {
        let vma = vmas.iter().find(|vma| hex(&vma["start"]) == Some(start));
        &vma.unwrap_or_else(|| panic!("nothing at {start:#x}"))["faults"]
    };
    let faults = |pages: u64, minor: u64| serde_json::json!({"minor": minor, "major": 0, "touched_bytes": pages * PAGE});
    if missed == 0 {
        // Read and then written: two faults, one page.
        assert_eq!(at(WRITTEN), &faults(FEW, 2 * FEW));
        assert_eq!(at(TWELVE_BYTES), &faults(1, 1));
        assert_eq!(at(SHARED), &faults(FEW, FEW));
        assert_eq!(at(UNTOUCHED), &faults(0, 0));
        assert!(!vmas.iter().any(|vma| hex(&vma["start"]) == Some(UNMAPPED)));
        assert!(
            line["unmapped"]["minor"].as_u64().unwrap() >= FEW,
            "{line:#}"
        );
    }
    assert_eq!(line["roomless"]["minor"], 0);
    // All parts are the whole.
    for name in ["minor", "major", "touched_bytes"] {
        let number = |of: &Value| of[name].as_u64().unwrap();
        let vmas: u64 = vmas.iter().map(|vma| number(&vma["faults"])).sum();
        assert_eq!(
            vmas + number(&line["unmapped"]),
            number(&line["total"]["faults"]),
            "{name}"
        );
    }
    let total = &line["total"]["faults"];
    assert_eq!(
        ledger["summed"].as_u64().unwrap(),
        total["minor"].as_u64().unwrap() + total["major"].as_u64().unwrap()
    );
}

fn expect(lines: &mut BufReader<ChildStdout>, want: &str) {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), want);
}

/// Waits until both events are open on every CPU: those that mmwatch first asks
/// with are half as many. Returns the last moment at which they were not yet, as they
/// were not at `begin`.
fn wait_until_counting(mmwatch: &Child, mut begin: Instant) -> Instant {
    let cpus = thread::available_parallelism().unwrap().get();
    let fds = format!("/proc/{}/fd", mmwatch.id());
    let events = || {
        let links = fs::read_dir(&fds).unwrap().filter_map(Result::ok);
        links
            .filter_map(|link| fs::read_link(link.path()).ok())
            .filter(|target| target == Path::new("anon_inode:[perf_event]"))
            .count()
    };
    loop {
        let look = Instant::now();
        if events() >= 2 * cpus {
            return begin;
        }
        begin = look;
        thread::sleep(Duration::from_millis(10));
    }
}

fn remove(notes: &Path, file: &Path) {
    let _ = fs::remove_file(notes);
    for name in ["cached", "uncached"] {
        let _ = fs::remove_file(format!("{}-{name}", file.display()));
    }
}

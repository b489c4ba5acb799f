//! Recordings: what is read from one is what happened, whatever became of the
//! recorder and of its disk.

use std::{
    ffi::CString,
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    ptr, thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    hex, is_emulated,
    watching::{between_marks, differences, programs_of_ours, wait_until_gone},
};
use crate::{
    run::{
        Trace, interrupt, mmwatch, report, start_record, temporary, trace, trace_from,
        wait_until_watching, watcher, workload,
    },
    together::{self, Program},
    workload::Note,
};

/// A file that is gone with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(temporary(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Records a workload that takes notes, and reads the recording. Where the kernel
/// says that it skipped a program, it is done again.
fn recorded(backend: &str, file: &Path, name: &str) {
    for _ in 0..5 {
        let _ = fs::remove_file(file);
        let (notes, scratch) = (Scratch::new("notes"), Scratch::new("file"));
        let paths = [&notes.0, &scratch.0].map(|path| path.to_str().unwrap());
        let command = workload(&[name, paths[0], paths[1]]);
        let child = start_record(backend, file, &[], &command);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        let trace = trace_from(file, &[]);
        trace.assert_whole();
        if trace.missed() == 0 {
            return;
        }
    }
    panic!("no run of five without a skipped program");
}

pub fn what_is_recorded_is_what_happened(backend: &str) {
    let file = Scratch::new("recording");
    let programs = [Program::Calls, Program::Failures];
    let (trace, seen) = (0..5)
        .map(|_| {
            let _ = fs::remove_file(&file.0);
            together::recorded_in_turn(backend, &file.0, &programs)
        })
        .find(|(trace, _)| trace.missed() == 0)
        .expect("one run of five without a skipped program");
    for seen in &seen {
        let notes: Vec<Note> = seen.notes();
        let events = between_marks(&seen.trace).expect("marks");
        assert_eq!(events.len(), notes.len());
        for (note, event) in notes.iter().zip(&events) {
            let differences = differences(note, event);
            assert!(differences.is_empty(), "{differences:?}: {note:?}\n{event}");
        }
    }

    let lines = report(&file.0, &[]);
    let [recording, report, ledger] = lines.as_slice() else {
        panic!("{lines:#?}");
    };
    assert_eq!(recording["type"], "recording");
    assert_eq!(recording["ending"], "finished");
    assert_eq!(recording["losses"], json!([]));
    assert_eq!(ledger["balanced"], true, "{ledger}");
    let ops = report["all"]["total"]["ops"].as_object().unwrap();
    for (op, sums) in ops {
        let events: Vec<_> = trace.of(op).collect();
        assert_eq!(sums["count"], events.len(), "{op}");
        let failed = events.iter().filter(|event| event["errno"].is_string());
        assert_eq!(sums["errors"], failed.count(), "{op}");
    }
    let all: u64 = ops.values().filter_map(|sums| sums["count"].as_u64()).sum();
    assert_eq!(all, trace.events.len() as u64);
}

/// The totals of a report, but for times, which each watcher takes by itself.
fn totals(report: &Value) -> Value {
    let mut totals = report["all"]["total"].clone();
    for sums in totals["ops"].as_object_mut().unwrap().values_mut() {
        sums["held_ns"].take();
    }
    totals
}

pub fn a_report_is_the_stat_of_the_same_time(backend: &str) {
    let command = workload(&["storm", "3000", "8192"]);
    let name = Path::new(&command[0]).file_name().unwrap();
    let name: String = name.to_str().unwrap().chars().take(15).collect();
    for _ in 0..5 {
        let file = Scratch::new("recording");
        let record = start_record(backend, &file.0, &["-n", &name], &[]);
        let stat = watcher()
            .args(["stat", "-o", "json", "--hooks", backend, "-n", &name])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        for child in [&record, &stat] {
            wait_until_watching(child);
        }
        let mut program = Command::new(&command[0]);
        program.args(&command[1..]).stdout(Stdio::null());
        assert!(program.status().unwrap().success());
        // Its name, but another process.
        assert!(program.status().unwrap().success());
        for child in [&record, &stat] {
            interrupt(child);
        }
        assert!(record.wait_with_output().unwrap().status.success());
        let stat = stat.wait_with_output().unwrap().stdout;
        let stat = String::from_utf8(stat).unwrap();
        let stat: Value = serde_json::from_str(stat.lines().next().unwrap()).unwrap();
        let lines = report(&file.0, &[]);
        let missed = |report: &Value| report["ledger"]["missed"].as_u64().unwrap_or(0);
        if missed(&stat) + missed(&lines[1]) > 0 {
            continue;
        }
        assert!(stat["all"]["total"]["ops"]["map"]["count"].as_u64() >= Some(6000));
        assert_eq!(totals(&lines[1]), totals(&stat));
        // Under a filter that lets all of it through, events give the same sums.
        let filtered = report(&file.0, &["-n", &name]);
        assert_eq!(totals(&filtered[1]), totals(&stat));
        assert_eq!(filtered[2]["recording"]["sums"], "events");
        assert_eq!(filtered[2]["recording"]["unwanted"], 0);
        return;
    }
    panic!("no run of five without a skipped program");
}

/// What tells an event from others, in every run of the same program.
fn what(event: &Value) -> Value {
    json!([
        event["op"],
        event["cause"],
        event["errno"],
        event["requested_len_bytes"],
        event["len_bytes"],
        event["backing"],
        event["suspects"],
    ])
}

pub fn filters_on_a_recording_are_the_kernel_s(backend: &str) {
    let file = Scratch::new("recording");
    let of_calls = [
        &["--op", "map,remap,exit"][..],
        &["--min-size", "64k", "--op", "map,brk,protect"],
        &["--backing", "private-anonymous,shared-file"],
        &["--suspect"],
        &["-n", "sh"],
    ];
    let of_failures = [
        &["-x"][..],
        &["--min-size", "4097"],
        &["-x", "--min-size", "1G"],
        &["-u", "54321"],
    ];
    for (name, filters) in [("calls", &of_calls[..]), ("failures", &of_failures)] {
        recorded(backend, &file.0, name);
        for filter in filters {
            let live = (0..5)
                .map(|_| {
                    let (notes, scratch) = (Scratch::new("notes"), Scratch::new("file"));
                    let paths = [&notes.0, &scratch.0].map(|path| path.to_str().unwrap());
                    trace(backend, filter, &workload(&[name, paths[0], paths[1]]))
                })
                .find(|trace| trace.missed() == 0)
                .expect("one run of five without a skipped program");
            let replayed = trace_from(&file.0, filter);
            replayed.assert_balanced();
            // Where the loader puts a stack is another place each time, and who
            // lets go of mmwatch's own address space before it is a matter of luck.
            let is_loaders = |event: &&Value| event["cause"] == "exec" || event["op"] == "exit";
            let list = |trace: &Trace| -> Vec<Value> {
                let events = trace.events.iter().filter(|event| !is_loaders(event));
                events.map(what).collect()
            };
            let (live, replayed) = (list(&live), list(&replayed));
            assert_eq!(replayed, live, "{name} {filter:?}");
        }
    }
}

pub fn what_a_process_mapped_is_told_after_its_end(backend: &str) {
    let file = Scratch::new("recording");
    let (count, len) = (20_u64, 0x77_6000_u64);
    let command = workload(&["maps", &count.to_string(), &len.to_string()]);
    let child = start_record(backend, &file.0, &[], &command);
    assert!(child.wait_with_output().unwrap().status.success());
    let trace = trace_from(&file.0, &["--op", "exec"]);
    let pid = trace.events[0]["pid"].to_string();
    let maps = |pid: &str| {
        let mut maps = mmwatch();
        maps.args(["maps", "-o", "json", pid, "--from"]);
        maps.arg(&file.0).output().unwrap()
    };
    let output = maps(&pid);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    let space: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(space["lock"], "recording");
    let vmas = space["vmas"].as_array().unwrap();
    // The kernel puts them side by side.
    let address = |name: &str, vma: &Value| hex(&vma[name]).unwrap();
    let longest = vmas
        .iter()
        .max_by_key(|vma| address("end", vma) - address("start", vma))
        .unwrap();
    let bytes = address("end", longest) - address("start", longest);
    assert!(bytes + trace.missed() * len >= count * len, "{longest}");
    assert_eq!(longest["backing"], "private-anonymous");
    assert_eq!(longest["lives"][0]["made"]["cause"], "mmap", "{longest}");
    assert!(vmas.iter().any(|vma| vma["segment"] == "heap"), "{text}");

    let nobody = maps("4194305");
    assert_eq!(nobody.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no mapping of a process"));
}

/// Numbers that look random; a seed gives the same ones again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A program that is ended with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn a_killed_recorder_leaves_what_it_wrote(backend: &str) {
    let ours = programs_of_ours(backend);
    let storm = workload(&["storm", "1000000000", "8192"]);
    let _storm = Running(
        Command::new(&storm[0])
            .args(&storm[1..])
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    // Not of the clock, so that who sees it fail sees it again.
    let mut random = Random(0x5eed_0001);
    let mut read = 0;
    for round in 0..if is_emulated() { 4 } else { 20 } {
        let file = Scratch::new("killed");
        let mut child = start_record(backend, &file.0, &[], &[]);
        // From the first byte on.
        while fs::metadata(&file.0).map_or(0, |file| file.len()) == 0 {
            assert_eq!(child.try_wait().unwrap(), None, "it ended by itself");
            thread::sleep(Duration::from_millis(1));
        }
        let moment = Duration::from_micros(random.below(800_000));
        thread::sleep(moment);
        child.kill().unwrap();
        child.wait().unwrap();

        let lines = report(&file.0, &[]);
        let recording = &lines[0];
        println!("round {round}, {moment:?}: {recording}");
        let bytes = fs::metadata(&file.0).unwrap().len();
        let whole = match recording["ending"].as_str() {
            Some("open") => bytes,
            Some("broken") => recording["broken_at_byte"].as_u64().unwrap(),
            other => panic!("{other:?}: {recording}"),
        };
        assert!(whole <= bytes);
        let events = events_in(&file.0);
        read += events.0;
        // Cut down to its last whole frame, it says the same.
        fs::File::options()
            .write(true)
            .open(&file.0)
            .unwrap()
            .set_len(whole)
            .unwrap();
        assert_eq!(events_in(&file.0), (events.0, "open".to_owned()));
        assert_eq!(report(&file.0, &[])[1]["all"], lines[1]["all"]);
    }
    assert!(read > 10_000, "{read} events in all");
    wait_until_gone(ours);
}

/// How many events a recording has, and how it ends. A filter that lets nothing
/// through spares the writing of them.
fn events_in(file: &Path) -> (u64, String) {
    // Above any limit of /proc/sys/kernel/pid_max.
    let trace = trace_from(file, &["-p", "4194305"]);
    assert_eq!(trace.counter("received"), 0);
    let recording = &trace.ledger["recording"];
    let ending = recording["ending"].as_str().unwrap().to_owned();
    (recording["unwanted"].as_u64().unwrap(), ending)
}

/// A small disk that nobody else sees, until it is dropped.
struct Disk {
    holder: Child,
    _stdin: ChildStdin,
    mount_point: PathBuf,
}

impl Disk {
    fn new(bytes: u64) -> Self {
        let mount_point = temporary("disk");
        fs::create_dir(&mount_point).unwrap();
        let target = CString::new(mount_point.to_str().unwrap()).unwrap();
        let size = CString::new(format!("size={bytes}")).unwrap();
        let mut command = Command::new("/bin/cat");
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        // SAFETY: system calls alone, on strings that were made before the fork.
        unsafe {
            command.pre_exec(move || {
                let private = libc::MS_REC | libc::MS_PRIVATE;
                let tmpfs = c"tmpfs".as_ptr();
                let mounted = libc::unshare(libc::CLONE_NEWNS) == 0
                    && libc::mount(
                        ptr::null(),
                        c"/".as_ptr(),
                        ptr::null(),
                        private,
                        ptr::null(),
                    ) == 0
                    && libc::mount(tmpfs, target.as_ptr(), tmpfs, 0, size.as_ptr().cast()) == 0;
                if mounted {
                    Ok(())
                } else {
                    Err(io::Error::last_os_error())
                }
            });
        }
        let mut holder = command.spawn().unwrap();
        Self {
            _stdin: holder.stdin.take().unwrap(),
            holder,
            mount_point,
        }
    }

    /// A file on it, as everybody can reach it.
    fn path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let below = self.mount_point.strip_prefix("/").unwrap();
        root.join(below).join(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let _ = fs::remove_dir(&self.mount_point);
    }
}

/// Waits for a line with these words.
fn wait_for(lines: &mut impl Iterator<Item = io::Result<String>>, words: &str) {
    let found = lines.by_ref().any(|line| {
        let line = line.unwrap();
        println!("{line}");
        line.contains(words)
    });
    assert!(found, "nothing said {words}");
}

pub fn a_full_disk_is_a_gap(backend: &str) {
    // Mappings of these lengths are nobody else's.
    let (before, during, after) = (0x77_3000_u64, 0x77_4000_u64, 0x77_5000_u64);
    let pairs: u64 = if is_emulated() { 10_000 } else { 100_000 };
    let disk = Disk::new(512 << 10);
    let (file, ballast) = (disk.path("rec"), disk.path("ballast"));
    let filter = ["--op", "map,unmap", "--min-size", &before.to_string()];
    let mut record = start_record(backend, &file, &filter, &[]);
    let mut stderr = BufReader::new(record.stderr.take().unwrap()).lines();
    wait_until_watching(&record);
    let storm = |pairs: u64, len: u64| {
        let command = workload(&["storm", &pairs.to_string(), &len.to_string()]);
        let mut program = Command::new(&command[0]);
        program.args(&command[1..]).stdout(Stdio::null());
        assert!(program.status().unwrap().success());
    };
    storm(500, before);
    // Nothing but the start has to be there by now.
    while fs::metadata(&file).unwrap().len() == 0 {
        thread::sleep(Duration::from_millis(10));
    }
    fill(&ballast);
    storm(pairs, during);
    wait_for(&mut stderr, "cannot be written");
    storm(500, during);
    fs::remove_file(&ballast).unwrap();
    wait_for(&mut stderr, "can be written again");
    storm(500, after);
    interrupt(&record);
    wait_for(
        &mut stderr,
        "events are not in it, as they could not be written",
    );
    assert_eq!(record.wait().unwrap().code(), Some(0));

    let trace = trace_from(&file, &[]);
    trace.assert_balanced();
    let of = |len: u64| {
        trace
            .events
            .iter()
            .filter(move |event| event["requested_len_bytes"] == len)
    };
    // Each skipped program can cost an event.
    let few = trace.missed() + trace.counter("ring_full");
    assert!(of(after).count() as u64 + few >= 1000, "{}", trace.ledger);
    let lost = trace.ledger["recording"]["lost"].as_u64().unwrap();
    assert!(lost > 0);
    assert!(trace.ledger["recording"]["gaps"].as_u64() >= Some(1));
    let in_all = trace.events.len() as u64 + lost + few;
    assert!(in_all >= 2 * (pairs + 1500), "{in_all}: {}", trace.ledger);

    // The sums are of all of it.
    let lines = report(&file, &[]);
    assert_eq!(lines[0]["ending"], "finished");
    assert_eq!(lines[0]["losses"][0]["errno"], libc::ENOSPC);
    let maps = lines[1]["all"]["total"]["ops"]["map"]["count"].as_u64();
    assert!(maps.unwrap() + trace.missed() >= pairs + 1500, "{maps:?}");
}

/// Writes to a file until nothing more fits.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
}

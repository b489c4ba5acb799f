//! Exactness: what mmwatch believes is what the kernel says, and sums do not
//! depend on what the ring buffer took.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    io::{BufRead as _, BufReader, Write as _},
    mem::offset_of,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use aya::{
    Pod,
    maps::{HashMap, Map, MapData},
};
use mmwatch_common::{
    space::{SECTION_BYTES, State},
    sums::{Process, ProcessKey},
};
use serde_json::Value;

use super::{MAX_MAP_COUNT, Sysctl, hex, is_emulated, low_limit};
use crate::{
    run::{trace, watcher, workload},
    together::{self, Program},
    workload::exact,
};

/// Rounds of `verify` after which a process that stands still must be whole.
const ROUNDS: u64 = 100;

/// A random program under `mmwatch verify`, which stops at barriers.
struct Verified {
    mmwatch: Child,
    stdin: ChildStdin,
    lines: Receiver<Line>,
}

/// What comes in.
enum Line {
    /// A line of mmwatch's JSON.
    Verdict(Value),
    /// A line of the program's.
    Program(String),
}

impl Verified {
    fn start(backend: &str, args: &[&str], program: &[&str]) -> Self {
        // mmwatch's own stdout is not to be mixed with the program's.
        let script = format!("exec {} >&2", workload(program).join(" "));
        let mut child = watcher()
            .args(["verify", "-o", "json", "-i", "200ms", "--hooks", backend])
            .args(args)
            .args(["--", "/bin/sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = channel();
        let verdicts = BufReader::new(child.stdout.take().unwrap());
        let from_mmwatch = send.clone();
        thread::spawn(move || {
            for line in verdicts.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap();
                let _ = from_mmwatch.send(Line::Verdict(value));
            }
        });
        let program = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            for line in program.lines().map_while(Result::ok) {
                let _ = send.send(Line::Program(line));
            }
        });
        Self {
            stdin: child.stdin.take().unwrap(),
            mmwatch: child,
            lines,
        }
    }

    /// Lets the program go on from each barrier once its processes are whole.
    /// Returns the operations that it did, and the verdict at each barrier.
    fn run(mut self, name: &str) -> (u64, Vec<Value>) {
        let mut stopped: Vec<u64> = Vec::new();
        let mut waited = 0;
        let mut done = None;
        let mut verdicts = Vec::new();
        for line in &self.lines {
            match line {
                Line::Program(line) => {
                    println!("{name}: {line}");
                    if let Some((_, pids)) = line.split_once(" pids ") {
                        stopped = pids.split(',').map(|pid| pid.parse().unwrap()).collect();
                        waited = 0;
                    } else if let Some(count) = line.strip_prefix("done ") {
                        done = Some(count.parse().unwrap());
                    }
                }
                Line::Verdict(value) if value["type"] == "verdict" => {
                    assert_eq!(value["different"], 0, "{name}: {value:#}");
                    for process in value["processes"].as_array().unwrap() {
                        if let Some(reason) = process["reason"].as_str() {
                            println!("{name}: healing: {reason}");
                        }
                    }
                    if !stopped.is_empty() {
                        waited += 1;
                        assert!(waited < ROUNDS, "{name}: never whole: {value:#}");
                    }
                    // The first round after the barrier may have begun before it.
                    if waited > 1 && stopped.iter().all(|pid| is_same(&value, *pid)) {
                        stopped.clear();
                        waited = 0;
                        verdicts.push(value);
                        self.stdin.write_all(b"\n").unwrap();
                    }
                }
                Line::Verdict(ledger) => assert_eq!(ledger["balanced"], true, "{ledger}"),
            }
        }
        assert_eq!(self.mmwatch.wait().unwrap().code(), Some(0), "{name}");
        (done.expect("the program's own count"), verdicts)
    }
}

/// A process in a verdict.
fn process(verdict: &Value, pid: u64) -> Option<&Value> {
    let processes = verdict["processes"].as_array().unwrap();
    processes.iter().find(|process| process["pid"] == pid)
}

fn is_same(verdict: &Value, pid: u64) -> bool {
    process(verdict, pid).is_some_and(|process| process["verdict"] == "same")
}

/// More than 200,000 operations of threads and processes, compared at barriers.
pub fn random_operations_leave_no_difference(backend: &str) {
    for (seed, operations, threads, processes, set) in [
        ("1", "40000", "4", "1", "plain"),
        ("2", "12000", "2", "2", "all"),
    ] {
        let program = ["random", seed, operations, threads, processes, set];
        let name = program.join(" ");
        let verified = Verified::start(backend, &["--buffer", "64M"], &program);
        let (done, verdicts) = verified.run(&name);
        let last = verdicts.last().expect("a barrier");
        let total = [operations, threads, processes]
            .iter()
            .map(|number| number.parse::<u64>().unwrap())
            .product::<u64>();
        assert!(done >= total, "{name}: {done} operations");
        println!(
            "{name}: {} events applied, {} heals",
            last["events_applied"], last["heals"]
        );
        // What events explain is not looked up: that would be no test of the
        // model. Under emulation the lock is nearly always held when maps are
        // read, and many a model has to be made anew before it applies anything.
        let explains = match backend {
            "tracepoint" => !is_emulated() && !super::limit(backend, "outside of the lock"),
            _ => true,
        };
        if set == "plain" && explains {
            let least = total / if is_emulated() { 100 } else { 4 };
            let applied = last["events_applied"].as_u64().unwrap();
            assert!(applied > least, "{name}: {applied} events applied");
        }
    }
}

/// Sums of a storm, whatever share of its events was lost.
pub fn what_was_lost_on_purpose_is_in_the_sums(backend: &str) {
    let pairs = 2_000;
    let program = ["pairs", &pairs.to_string()];
    let verified = Verified::start(backend, &["--simulate-loss", "0.99"], &program);
    let (done, verdicts) = verified.run("lossy");
    let [before, after] = verdicts.as_slice() else {
        panic!("{} barriers", verdicts.len());
    };
    let ledger = &after["ledger"];
    let number = |name: &str| ledger[name].as_u64().unwrap();
    assert!(number("simulated") > 10 * number("submitted"), "{ledger}");
    assert_eq!(number("lost"), number("simulated") + number("ring_full"));

    // The program does nothing else, and the kernel counted all of it.
    let pid = after["processes"][0]["pid"].as_u64().unwrap();
    let operations = |verdict| {
        process(verdict, pid).unwrap()["operations"]
            .as_u64()
            .unwrap()
    };
    let counted = operations(after) - operations(before);
    let missed = ledger["missed"].as_u64().unwrap_or(0);
    assert_eq!(done, 2 * pairs);
    assert!(
        counted <= done && done <= counted + missed,
        "{counted} of {done}: {ledger}"
    );
}

/// Requested and effective, gross and net: what no list of arguments tells.
pub fn gross_and_net_are_told(backend: &str) {
    let trace = together::tries(backend, Program::Gross)
        .map(|seen| seen.trace)
        .find(|trace| trace.missed() == 0)
        .expect("one run of five without a skipped program");
    let at = |cause: &str, addr: u64| {
        let mut found = trace
            .events
            .iter()
            .filter(|event| event["cause"] == cause && hex(&event["addr"]) == Some(addr));
        found
            .next_back()
            .unwrap_or_else(|| panic!("no {cause} at {addr:#x}"))
    };
    // 1 TiB of which 4 MiB are mapped.
    let unmap = at("munmap", 0x1000_0000_0000);
    assert_eq!(unmap["requested_len_bytes"], 1_u64 << 40, "{unmap:#}");
    assert_eq!(unmap["len_bytes"], 4 << 20, "{unmap:#}");
    assert_eq!(unmap["vmas_delta"], -1, "{unmap:#}");

    // Over three mappings of different protection, at their very edges.
    let (unmap, map) = (
        at("map_fixed", 0x2000_0000_0000),
        at("mmap", 0x2000_0000_0000),
    );
    assert_eq!(unmap["section"], map["section"]);
    assert_eq!(unmap["len_bytes"], 3 << 12, "{unmap:#}");
    assert_eq!(map["vmas_delta"], -2, "{map:#}");
    // How many VMAs were removed is told where the unmap core is hooked.
    if backend != "tracepoint" {
        assert_eq!(unmap["vmas_removed"], 3, "{unmap:#}");
        assert_eq!(map["vmas_made"], 1, "{map:#}");
    }

    // Next to one like it.
    let merged = at("mmap", 0x3000_0000_1000);
    assert_eq!(merged["vmas_made"], 0, "{merged:#}");
    assert_eq!(merged["vmas_delta"], 0, "{merged:#}");
    // Between two like it: three became one.
    let joined = at("mmap", 0x4000_0000_1000);
    assert_eq!(joined["vmas_made"], 0, "{joined:#}");
    assert_eq!(joined["vmas_merged"], 1, "{joined:#}");

    // A hole in the middle of one: three pieces, one of them removed.
    let hole = at("munmap", 0x5000_0000_1000);
    assert_eq!(hole["vmas_delta"], 1, "{hole:#}");
    if backend != "tracepoint" {
        assert_eq!(hole["vmas_removed"], 1, "{hole:#}");
        assert_eq!(hole["vmas_made"], 2, "{hole:#}");
    }
    // Another protection in the middle of one.
    let split = at("mprotect", 0x6000_0000_1000);
    assert_eq!(split["vmas_made"], 2, "{split:#}");
}

/// A process id that comes again is another process.
pub fn ids_that_come_again_are_other_processes(backend: &str) {
    const LIVES: u64 = 10_000;
    // With few ids for all processes, each comes again many times. Other
    // programs of a real machine would suffer: there, ids are as many as ever.
    // The least that the kernel takes is 301, and once numbers have wrapped it
    // keeps those below 300 for itself: that leaves one. A few more are needed
    // for mmwatch and its command.
    let few = is_emulated().then(|| Sysctl::set("/proc/sys/kernel/pid_max", 340));
    if few.is_none() {
        println!("kernel.pid_max is left as it is: this is no VM of ours");
    }
    let command = workload(&["lives", &LIVES.to_string()]);
    let args = ["--op", "map,exit,fork", "--buffer", "64M"];
    let trace = trace(backend, &args, &command);
    assert_eq!(trace.code, Some(0), "{}", trace.stderr);
    trace.assert_balanced();
    assert_eq!(trace.counter("lost"), 0);
    let key = |event: &Value| {
        (
            event["pid"].as_u64().unwrap(),
            event["start_boot_ns"].as_u64().unwrap(),
        )
    };

    // The address of a life's only mapping tells which it is.
    let mut lives: BTreeMap<(u64, u64), Vec<u64>> = BTreeMap::new();
    for event in trace.of("map") {
        let offset = hex(&event["addr"]).and_then(|addr| addr.checked_sub(exact::LIVES));
        if let Some(number) = offset.map(|offset| offset / exact::LIFE)
            && number < LIVES
        {
            lives.entry(key(event)).or_default().push(number);
        }
    }
    let missed = trace.missed();
    assert!(
        lives.len() as u64 + missed >= LIVES,
        "{} lives",
        lives.len()
    );
    for (key, numbers) in &lives {
        assert_eq!(numbers.len(), 1, "{key:?} has the mappings of {numbers:?}");
    }
    let pids: BTreeSet<_> = lives.keys().map(|(pid, _)| pid).collect();
    if few.is_some() {
        assert!(pids.len() * 4 < lives.len(), "ids did not come again");
    }

    // What forked them knows them by the same keys, and each ends once.
    let forked: BTreeSet<_> = trace
        .of("fork")
        .map(|fork| {
            let start = fork["child_start_boot_ns"].as_u64();
            (fork["child_pid"].as_u64().unwrap(), start.unwrap())
        })
        .collect();
    let mut ends: BTreeMap<_, u64> = BTreeMap::new();
    for exit in trace.of("exit") {
        *ends.entry(key(exit)).or_default() += 1;
    }
    let sees_ends = !super::limit(backend, "end of an address space");
    let (mut unforked, mut unended) = (0, 0);
    for key in lives.keys() {
        unforked += u64::from(!forked.contains(key));
        match ends.get(key) {
            Some(1) => {}
            Some(count) => panic!("{key:?} ended {count} times"),
            None => unended += u64::from(sees_ends),
        }
    }
    assert!(
        unforked <= missed && unended <= missed,
        "{unforked} {unended}"
    );
}

/// A process that has all VMAs that it may have is shown so.
pub fn the_limit_is_shown_as_reached(backend: &str) {
    let _low = low_limit();
    let limit = fs::read_to_string(MAX_MAP_COUNT).unwrap();
    let limit: u64 = limit.trim().parse().unwrap();
    // It fills its address space, says so, and waits.
    let command = workload(&["full"]);
    let mut full = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(full.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let output = watcher()
        .args(["top", "--plain", "-i", "500ms", "-d", "1"])
        .args(["--hooks", backend, "-p", &full.id().to_string()])
        .output()
        .unwrap();
    drop(full.stdin.take());
    full.wait().unwrap();

    let text = String::from_utf8_lossy(&output.stdout);
    let pid = full.id().to_string();
    let row: Vec<&str> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words.first() == Some(&pid.as_str()))
        .unwrap_or_else(|| panic!("no row of {pid}: {text}"));
    let vmas: u64 = row[2].parse().unwrap();
    assert!(vmas >= limit, "{text}");
    assert_eq!(row[4], "100.0", "{text}");
    assert_eq!(line.trim(), vmas.to_string(), "{text}");
}

/// The most VMAs that a process had between two looks are told.
pub fn a_peak_between_two_looks_is_told(backend: &str) {
    if super::limit(backend, "outside of the lock") {
        return; // Told by sections alone.
    }
    // It lets go of its VMAs at once, and is there for a while.
    const PEAK: u64 = 3_000;
    let output = watcher()
        .args(["top", "-o", "json", "-i", "500ms", "--hooks", backend, "--"])
        .args(workload(&["peak", &PEAK.to_string()]))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let peaks: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .flat_map(|report| {
            let processes = report["processes"].as_array().cloned();
            processes.unwrap_or_default()
        })
        .filter(|process| process["vmas"].is_u64())
        .map(|process| {
            let number = |name: &str| process[name].as_u64().unwrap();
            (number("vmas"), number("vmas_peak"))
        })
        .collect();
    assert!(
        peaks
            .iter()
            .any(|(vmas, peak)| *vmas < PEAK / 2 && *peak > PEAK),
        "{peaks:?}"
    );
}

/// Entries of one of mmwatch's maps, by the map's name.
fn entries<K: Pod, V: Pod>(mmwatch: u32, name: &str) -> Vec<(K, V)> {
    let map_id = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix("map_id:"))?;
        line.trim().parse().ok()
    };
    let data = fs::read_dir(format!("/proc/{mmwatch}/fdinfo"))
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
        .filter_map(map_id)
        .filter_map(|id| MapData::from_id(id).ok())
        .find(|map| {
            map.info()
                .is_ok_and(|info| info.name_as_str() == Some(name))
        });
    let map = Map::from_map_data(data.expect(name)).unwrap();
    let map: HashMap<MapData, K, V> = HashMap::try_from(map).unwrap();
    map.iter().filter_map(Result::ok).collect()
}

/// Id and start of the process that owns an address space.
fn owner(state: &[u8; size_of::<State>()]) -> (u32, u64) {
    let tgid = offset_of!(State, owner_tgid);
    let start = offset_of!(State, owner_start_boot_ns);
    (
        u32::from_ne_bytes(state[tgid..tgid + 4].try_into().unwrap()),
        u64::from_ne_bytes(state[start..start + 8].try_into().unwrap()),
    )
}

/// More processes than the kernel's table of sums has room for share one entry,
/// and are counted. Of what is lost the agent does not hear, and forgets nobody.
pub fn a_full_table_of_sums_is_counted(backend: &str) {
    let args = ["--op", "map,exit", "--simulate-loss", "1"];
    let trace = trace(backend, &args, &workload(&["lives", "9000"]));
    assert_eq!(trace.code, Some(0), "{}", trace.stderr);
    assert_eq!(trace.ledger["balanced"], true, "{}", trace.ledger);
    assert!(trace.counter("processes_full") > 0, "{}", trace.ledger);
}

/// What ended leaves nothing in the kernel's tables but its sums, which say so.
pub fn the_ended_leave_nothing_behind(backend: &str) {
    if super::limit(backend, "end of an address space") {
        return;
    }
    const LIVES: usize = 1_000;
    // The command waits for the end of its input when its children are over.
    let script = format!(
        "{}; echo done >&2; read line",
        workload(&["lives", &LIVES.to_string()]).join(" ")
    );
    let mut child = watcher()
        .args(["trace", "-o", "json", "--hooks", backend, "--op", "exit"])
        // So that the agent does not hear of their ends, and forgets nobody's sums.
        .args(["--simulate-loss", "1", "--", "/bin/sh", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while line.trim() != "done" {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended early");
    }
    let pid = child.id();
    let spaces = entries::<u64, [u8; size_of::<State>()]>(pid, "SPACES");
    let listed = entries::<u32, u64>(pid, "TGIDS").len();
    let sections = entries::<u32, [u8; SECTION_BYTES]>(pid, "SECTIONS").len();
    let processes = entries::<ProcessKey, Process>(pid, "PROCESSES");
    let ended: HashSet<_> = processes
        .iter()
        .filter(|(_, process)| process.ended == 1)
        .map(|(key, _)| (key.tgid, key.start_boot_ns))
        .collect();
    drop(child.stdin.take());
    child.wait().unwrap();

    assert!(ended.len() >= LIVES - 10, "{} ended", ended.len());
    // Addresses come again, so that few entries are no proof.
    let kept = spaces
        .iter()
        .filter(|(_, state)| ended.contains(&owner(state)))
        .count();
    assert_eq!(kept, 0, "address spaces of {} processes", ended.len());
    let few = LIVES / 10;
    assert!(spaces.len() < few, "{} address spaces", spaces.len());
    assert!(listed < few, "{listed} ids");
    assert!(sections < few, "{sections} sections");
}

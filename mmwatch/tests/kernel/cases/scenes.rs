//! Scenes that the textbooks of mmap(2) teach with, and what mmwatch shows of them.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{hex, limit};
use crate::{
    run::{Trace, mmwatch, start_trace, temporary, trace, wait_until_watching, watcher, workload},
    together::{self, Program, dynamic},
};

/// A pipe with a name, at which a program waits.
struct Gate(PathBuf);

impl Gate {
    fn new() -> Self {
        let path = temporary("gate");
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: a NUL-terminated path.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Waits until the program is there, and lets it go on.
    fn open(&self) {
        fs::File::options().write(true).open(&self.0).unwrap();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A file that is gone with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, contents: &[u8]) -> Self {
        let path = temporary(name);
        fs::write(&path, contents).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What `mmwatch maps -o json` says.
fn maps(pid: &str) -> Value {
    let output = mmwatch()
        .args(["maps", "-o", "json", pid])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Prints the scene's events, for whoever wants to see it.
fn show(trace: &Trace) {
    println!();
    for event in &trace.events {
        println!("{event}");
    }
}

/// The events, whole, of a scene that is over.
fn played(backend: &str, command: &[String]) -> Trace {
    let trace = trace(backend, &[], command);
    show(&trace);
    assert_eq!(trace.code, Some(0), "{}", trace.stderr);
    trace.assert_whole();
    trace
}

#[track_caller]
fn assert_fields(event: &Value, fields: &[(&str, Value)]) {
    for (name, value) in fields {
        assert_eq!(event[name], *value, "{name} of {event}");
    }
}

/// Writes through memory: path, device, inode and the page that 1 KiB needs.
pub fn a_file_is_written_through_memory(backend: &str) {
    let gate = Gate::new();
    let file = Scratch::new("written", b"");
    let command = workload(&["writes-through-memory", file.path(), "word", gate.path()]);
    let mut child = start_trace(backend, &[], &command);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut lines = Vec::new();
    let map = loop {
        let mut line = String::new();
        assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "no such mapping");
        let event: Value = serde_json::from_str(&line).unwrap();
        lines.push(line);
        if event["op"] == "map" && event["file"]["path"] == file.path() {
            break event;
        }
    };
    println!("{map}");
    let pid = map["pid"].to_string();
    let space = maps(&pid);
    gate.open();
    stdout.read_to_string(lines.last_mut().unwrap()).unwrap();
    assert!(child.wait().unwrap().success());
    let last = lines.last().unwrap();
    let exit = last
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|event| event["op"] == "exit" && event["pid"] == map["pid"]);
    println!("{exit:?}");

    assert_fields(
        &map,
        &[
            ("len_bytes", 4096.into()),
            ("requested_len_bytes", 1024.into()),
            ("prot", "-w-".into()),
            ("backing", "shared-file".into()),
        ],
    );
    assert_eq!(map["file"]["offset_bytes"], 0, "{map}");
    let row = space["vmas"]
        .as_array()
        .unwrap()
        .iter()
        .find(|vma| vma["start"] == map["addr"])
        .expect("its row");
    assert_fields(
        row,
        &[
            ("prot", "-w-".into()),
            ("shared", true.into()),
            ("size_bytes", 4096.into()),
            ("segment", "file".into()),
            ("backing", "shared-file".into()),
        ],
    );
    for field in ["path", "dev", "inode", "offset_bytes"] {
        assert_eq!(row["file"][field], map["file"][field], "{row}");
    }
    assert_eq!(fs::read(&file.0).unwrap()[..4], *b"word");
    if !limit(backend, "end of an address space") {
        let exit = exit.expect("its end");
        assert_eq!(exit["cause"], "exit", "{exit}");
    }
}

/// Twelve bytes of a file take a page.
pub fn a_file_is_read_through_memory(backend: &str) {
    let file = Scratch::new("read", b"twelve bytes and more");
    let trace = played(backend, &workload(&["reads-through-memory", file.path()]));
    assert!(trace.stderr.contains("twelve bytes"), "{}", trace.stderr);
    let map = trace
        .of("map")
        .find(|event| event["file"]["path"] == file.path())
        .expect("the mapping");
    assert_fields(
        map,
        &[
            ("len_bytes", 4096.into()),
            ("requested_len_bytes", 12.into()),
            ("prot", "r--".into()),
            ("backing", "private-file".into()),
        ],
    );
}

/// With `MAP_FIXED` a mapping takes the place of another, without it it does not.
pub fn a_mapping_takes_another_s_place_only_by_force(backend: &str) {
    let trace = together::watch(backend, Program::MapsOverItself).trace;
    show(&trace);
    let asked = |len: u64| {
        let mut maps = trace.of("map");
        maps.find(|event| event["requested_len_bytes"] == len)
            .unwrap_or_else(|| panic!("no mapping of {len} bytes"))
    };
    let (first, second, third) = (asked(10_240), asked(1_024), asked(1_023));
    assert_fields(first, &[("len_bytes", 12_288.into())]);
    assert_fields(
        second,
        &[
            ("addr", first["addr"].clone()),
            ("len_bytes", 4_096.into()),
            // One VMA became two.
            ("vmas_delta", 1.into()),
        ],
    );
    let replaced = trace
        .of("unmap")
        .find(|event| event["cause"] == "map_fixed" && event["addr"] == first["addr"])
        .expect("what it replaced");
    assert_fields(
        replaced,
        &[
            ("len_bytes", 4_096.into()),
            ("section", second["section"].clone()),
        ],
    );
    let (at, there) = (hex(&third["addr"]).unwrap(), hex(&first["addr"]).unwrap());
    assert!(!(there..there + 12_288).contains(&at), "{third}");
    let by_third = trace
        .of("unmap")
        .find(|event| event["section"] == third["section"] && event["pid"] == third["pid"]);
    assert_eq!(by_third, None, "nothing was replaced");
}

/// A program comes to life: the kernel's loader, then ld.so.
pub fn a_program_is_linked_before_it_runs(backend: &str) {
    let trace = together::watch(backend, Program::Dynamic).trace;
    show(&trace);
    let exec = trace
        .events
        .iter()
        .position(|event| event["op"] == "exec")
        .expect("its exec");
    let (loaded, linked) = trace.events.split_at(exec);
    let path = |event: &Value| event["file"]["path"].as_str().unwrap_or("").to_owned();
    let program = path(&linked[0]);

    // What the kernel's loader maps, in front of the exec that is complete then.
    let by_loader: Vec<_> = loaded
        .iter()
        .filter(|event| event["op"] == "map" && event["cause"] == "exec")
        .collect();
    if limit(backend, "counts are read when a call returns") {
        // The loader makes no calls.
        assert!(by_loader.is_empty(), "{by_loader:#?}");
    } else if limit(backend, "made by the loader at exec") {
        // Sizes and counts are known all the same.
        let sizes = by_loader
            .iter()
            .filter(|event| event["total_delta_bytes"].as_i64() > Some(0));
        assert!(sizes.count() >= 4, "{by_loader:#?}");
    } else {
        for wanted in [program.as_str(), "ld-linux"] {
            let of_it = by_loader.iter().any(|event| path(event).contains(wanted));
            assert!(of_it, "{wanted} in {by_loader:#?}");
        }
    }

    // Then ld.so maps the library in its parts, and seals what it has relocated.
    let of_libc: Vec<_> = linked
        .iter()
        .filter(|event| event["op"] == "map" && path(event).contains("/libc.so"))
        .collect();
    let prots: Vec<_> = of_libc
        .iter()
        .map(|event| event["prot"].as_str().unwrap())
        .collect();
    for prot in ["r--", "r-x", "rw-"] {
        assert!(prots.contains(&prot), "{prots:?}");
    }
    let data = of_libc.iter().find(|event| event["prot"] == "rw-").unwrap();
    let relro = linked
        .iter()
        .find(|event| event["op"] == "protect" && event["addr"] == data["addr"])
        .expect("relro of libc");
    assert_eq!(relro["prot"], "r--", "{relro}");
    if !limit(backend, "end of an address space") {
        let last = linked.last().unwrap();
        assert_fields(last, &[("op", "exit".into()), ("cause", "exit".into())]);
    }
}

/// A program stands still, and every one of its rows has a name.
pub fn every_row_of_a_program_has_a_name(_backend: &str) {
    let mut child = Command::new(dynamic())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // What it copies, it read as a program that is linked and runs.
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"x\n").unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let space = maps(&child.id().to_string());
    drop(stdin);
    child.wait().unwrap();

    let segments: Vec<_> = space["vmas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|vma| {
            println!("{vma}");
            let segment = vma["segment"].as_str().unwrap();
            match vma["part"].as_str() {
                Some(part) => format!("{segment}:{part}"),
                None => segment.to_owned(),
            }
        })
        .collect();
    for wanted in [
        "text",
        "rodata",
        "data",
        "heap",
        "interpreter:text",
        "interpreter:data",
        "library:text",
        "library:rodata",
        "library:data",
        "stack",
        "vdso",
        "vvar",
    ] {
        assert!(
            segments.iter().any(|segment| segment == wanted),
            "{wanted}: {segments:?}"
        );
    }
}

/// Who made a mapping, when, and what became of it.
pub fn a_mapping_s_age_and_changes_are_told(backend: &str) {
    let gate = Gate::new();
    let (go, command) = (Gate::new(), workload(&["makes-and-changes", gate.path()]));
    // Held before its first call until somebody watches it.
    let script = format!("read line < {}; exec {}", go.path(), command.join(" "));
    let mut program = Command::new("/bin/sh")
        .args(["-c", &script])
        .spawn()
        .unwrap();
    let pid = program.id().to_string();
    let mut watch = watcher()
        .args([
            "maps", "-o", "json", "--watch", "100ms", "--hooks", backend, &pid,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until_watching(&watch);
    go.open();
    let mut stdout = BufReader::new(watch.stdout.take().unwrap());
    let schema = include_str!("../../../../docs/maps.schema.json");
    let schema = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    let lives = loop {
        let mut line = String::new();
        assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "no such VMA");
        let space: Value = serde_json::from_str(&line).unwrap();
        let errors: Vec<_> = schema.iter_errors(&space).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{errors:#?}");
        assert_eq!(space["lost_events"], 0, "{line}");
        let vmas = space["vmas"].as_array().unwrap();
        let all: Vec<Value> = vmas
            .iter()
            .filter(|vma| !vma["lives"].is_null())
            .cloned()
            .collect();
        // Protected twice, once in its first half only.
        if all.iter().any(|vma| vma["lives"][0]["changes"] == 2) {
            break all;
        }
    };
    gate.open();
    assert!(program.wait().unwrap().success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let status = watch.wait().unwrap();
    assert!(
        status.success(),
        "{status}: the end of the process is that of the watch"
    );
    let ledger: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    assert_eq!(ledger["balanced"], true, "{ledger}");

    let told: Vec<_> = lives
        .iter()
        .flat_map(|vma| vma["lives"].as_array().unwrap())
        .filter(|life| life["changes"] != 0 && life["last_change"]["cause"] == "mprotect")
        .collect();
    println!("{told:#?}");
    let twice = told.iter().find(|life| life["changes"] == 2).unwrap();
    assert_eq!(
        hex(&twice["end"]).unwrap() - hex(&twice["start"]).unwrap(),
        4096
    );
    for deed in [&twice["made"], &twice["last_change"]] {
        assert_eq!(deed["tid"].to_string(), pid, "{twice}");
        assert!(deed["age_ns"].is_u64(), "{twice}");
    }
    assert_eq!(twice["made"]["cause"], "mmap", "{twice}");
    assert!(twice["made"]["age_ns"].as_u64() > twice["last_change"]["age_ns"].as_u64());
    let end = &twice["end"];
    let once = told
        .iter()
        .find(|life| life["start"] == *end)
        .expect("its second page");
    assert_eq!(once["changes"], 1, "{once}");
}

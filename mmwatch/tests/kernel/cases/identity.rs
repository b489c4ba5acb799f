//! Whose a process is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::check;
use crate::run::{
    Trace, interrupt, report, start_record, start_trace, take_apart, temporary, trace, trace_from,
    wait_until_watching, watcher, workload,
};

const ONE: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const TWO: &str = "2222222222222222222222222222222222222222222222222222222222222222";

/// Lengths that nothing else has.
const LEN_ONE: u64 = 0x77_1000;
const LEN_TWO: u64 = 0x77_2000;
const MAPS_ONE: u64 = 20;
const MAPS_TWO: u64 = 30;

/// A cgroup that is gone with the value.
struct Cgroup(PathBuf);

impl Cgroup {
    /// Where Docker would make it, in the hierarchy that mmwatch goes by.
    fn of_container(backend: &str, id: &str) -> Self {
        let check = check(backend);
        let mount = check["facts"]["hierarchy"]["mount"]
            .as_str()
            .expect("cgroups");
        let path = Path::new(mount).join("docker").join(id);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Runs a program in it, which is over then.
    fn run(&self, count: u64, len: u64) {
        let path = self.0.to_str().unwrap();
        let command = workload(&["contained", path, &count.to_string(), &len.to_string()]);
        let status = Command::new(&command[0]).args(&command[1..]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).unwrap();
        // Not ours alone, perhaps.
        let _ = fs::remove_dir(self.0.parent().unwrap());
    }
}

/// Runs two containers while something watches; one was there before, and both
/// are gone before anybody looks for them.
fn contain(backend: &str, watching: impl FnOnce()) {
    let two = Cgroup::of_container(backend, TWO);
    watching();
    let one = Cgroup::of_container(backend, ONE);
    one.run(MAPS_ONE, LEN_ONE);
    drop(one);
    two.run(MAPS_TWO, LEN_TWO);
}

fn assert_told(trace: &Trace, len: u64, count: u64, container: &str) {
    let events: Vec<_> = trace
        .of("map")
        .filter(|event| event["requested_len_bytes"] == len)
        .collect();
    assert_eq!(events.len() as u64, count, "mappings of {container}");
    for event in events {
        assert_eq!(event["container"], container, "{event}");
        assert_eq!(event["ns_pid"], 1, "{event}");
        assert_ne!(event["pid"], 1, "{event}");
    }
}

/// Two containers, of which each has a process 1, are told apart.
pub fn containers_are_told_apart(backend: &str) {
    let child = start_trace(backend, &["--op", "map,exec"], &[]);
    contain(backend, || wait_until_watching(&child));
    interrupt(&child);
    let trace = take_apart(&child.wait_with_output().unwrap());
    assert_told(&trace, LEN_ONE, MAPS_ONE, ONE);
    assert_told(&trace, LEN_TWO, MAPS_TWO, TWO);
}

/// A process that is moved has the cgroup that it is in.
pub fn a_process_that_moves_is_told_where_it_is(backend: &str) {
    let one = Cgroup::of_container(backend, ONE);
    let two = Cgroup::of_container(backend, TWO);
    let paths = [&one, &two].map(|cgroup| cgroup.0.to_str().unwrap().to_owned());
    let (count, len) = (MAPS_ONE.to_string(), LEN_ONE.to_string());
    let command = workload(&["moves", &paths[0], &paths[1], &count, &len]);
    let trace = trace(backend, &["--op", "map"], &command);
    let containers: Vec<_> = trace
        .of("map")
        .filter(|event| event["requested_len_bytes"] == LEN_ONE)
        .filter_map(|event| event["container"].as_str())
        .collect();
    let want = [
        [ONE].repeat(MAPS_ONE as usize),
        [TWO].repeat(MAPS_ONE as usize),
    ];
    assert_eq!(containers, want.concat());
}

/// Lengths of all mappings that were traced under a filter.
fn filtered_lens(backend: &str, filter: &[&str]) -> Vec<u64> {
    let two = Cgroup::of_container(backend, TWO);
    let child = start_trace(backend, filter, &[]);
    wait_until_watching(&child);
    let one = Cgroup::of_container(backend, ONE);
    one.run(MAPS_ONE, LEN_ONE);
    two.run(MAPS_TWO, LEN_TWO);
    Command::new("/bin/true").status().unwrap();
    interrupt(&child);
    let trace = take_apart(&child.wait_with_output().unwrap());
    trace.assert_balanced();
    assert!(trace.counter("filtered") > 0, "{}", trace.ledger);
    for event in &trace.events {
        // What the kernel lets through is what user space would have.
        let container = event["container"].as_str();
        assert!([Some(ONE), Some(TWO)].contains(&container), "{event}");
    }
    let lens = trace
        .of("map")
        .filter_map(|event| event["requested_len_bytes"].as_u64());
    lens.filter(|len| [LEN_ONE, LEN_TWO].contains(len))
        .collect()
}

/// A container, or a cgroup and all below it, is let through whole, and nothing else.
pub fn a_container_is_let_through_alone(backend: &str) {
    let lens = filtered_lens(backend, &["--container", &TWO[..9]]);
    assert_eq!(lens, [LEN_TWO].repeat(MAPS_TWO as usize));
    let lens = filtered_lens(backend, &["--cgroup", "/docker"]);
    let both = [
        [LEN_ONE].repeat(MAPS_ONE as usize),
        [LEN_TWO].repeat(MAPS_TWO as usize),
    ];
    assert_eq!(lens, both.concat());
}

/// What a program's processes do is in its row.
pub fn programs_have_their_sums(backend: &str) {
    let child = watcher()
        .args(["stat", "-o", "json", "--by", "exe", "--hooks", backend])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    wait_until_watching(&child);
    let len = LEN_ONE as usize;
    for _ in 0..MAPS_ONE {
        // SAFETY: new memory, where the kernel has room for it, that nobody uses.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let at = libc::mmap(std::ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(at, libc::MAP_FAILED);
            libc::munmap(at, len);
        }
    }
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(report["by"], "exe");
    let own = fs::read_link("/proc/self/exe").unwrap();
    let groups = report["groups"].as_array().unwrap();
    let group = groups
        .iter()
        .find(|group| group["name"].as_str() == own.to_str());
    let group = group.unwrap_or_else(|| panic!("no {}: {groups:#?}", own.display()));
    let bytes = group["total"]["backings"]["private-anonymous"]["bytes"].as_u64();
    assert!(bytes >= Some(MAPS_ONE * LEN_ONE), "{group}");
}

/// Their sums are theirs, whoever else does something meanwhile.
pub fn containers_have_their_sums(backend: &str) {
    let child = watcher()
        .args([
            "stat",
            "-o",
            "json",
            "--by",
            "container",
            "--hooks",
            backend,
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    contain(backend, || wait_until_watching(&child));
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(report["by"], "container");
    for (container, count, len) in [(ONE, MAPS_ONE, LEN_ONE), (TWO, MAPS_TWO, LEN_TWO)] {
        let groups = report["groups"].as_array().unwrap();
        let group = groups.iter().find(|group| group["name"] == container);
        let group = group.unwrap_or_else(|| panic!("no {container}: {groups:#?}"));
        // Those of its start come on top.
        let bytes = group["total"]["backings"]["private-anonymous"]["bytes"].as_u64();
        assert!(bytes >= Some(count * len), "{group}");
        assert!(bytes < Some((count + 1) * len), "{group}");
    }
    let all = report["all"]["total"]["ops"]["map"]["count"].as_u64();
    let sum: u64 = report["groups"]
        .as_array()
        .unwrap()
        .iter()
        .chain([&report["other"]])
        .filter_map(|group| group["total"]["ops"]["map"]["count"].as_u64())
        .sum();
    assert_eq!(all, Some(sum));
}

/// A recording knows whose its processes were when nobody else does any more.
pub fn containers_are_told_apart_in_a_recording(backend: &str) {
    let file = temporary("recording");
    let child = start_record(backend, &file, &[], &[]);
    contain(backend, || wait_until_watching(&child));
    interrupt(&child);
    assert!(child.wait_with_output().unwrap().status.success());

    let trace = trace_from(&file, &[]);
    assert_told(&trace, LEN_ONE, MAPS_ONE, ONE);
    assert_told(&trace, LEN_TWO, MAPS_TWO, TWO);
    for (filter, wanted) in [
        (["--container", &TWO[..9]], &[TWO][..]),
        (["--cgroup", "/docker"], &[ONE, TWO]),
    ] {
        let trace = trace_from(&file, &filter);
        trace.assert_balanced();
        assert!(!trace.events.is_empty());
        for event in &trace.events {
            let container = event["container"].as_str().unwrap();
            assert!(wanted.contains(&container), "{event}");
        }
        let all = trace_from(&file, &[]);
        let is_wanted = |event: &&Value| {
            event["container"]
                .as_str()
                .is_some_and(|container| wanted.contains(&container))
        };
        assert_eq!(
            trace.events.len(),
            all.events.iter().filter(is_wanted).count()
        );
    }
    let lines = report(&file, &["--by", "container"]);
    for (container, count, len) in [(ONE, MAPS_ONE, LEN_ONE), (TWO, MAPS_TWO, LEN_TWO)] {
        let groups = lines[1]["groups"].as_array().unwrap();
        let group = groups.iter().find(|group| group["name"] == container);
        let bytes = group.unwrap()["total"]["backings"]["private-anonymous"]["bytes"].as_u64();
        assert!(bytes >= Some(count * len), "{lines:?}");
    }
    fs::remove_file(&file).unwrap();
}

//! Holds the program of random calls to its own word: that it reaches its
//! end, and that nothing moves at a barrier. What is found in a model's
//! difference from `/proc` is worth nothing otherwise.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use super::ROUNDS;

/// Runs both sets with several seeds, with one thread and with several.
pub fn main() {
    for set in ["plain", "all"] {
        for threads in ["1", "4"] {
            for seed in ["1", "2", "3"] {
                let args = [seed, "20000", threads, "2", set];
                let done = run(&args);
                println!("random {}: {done}", args.join(" "));
            }
        }
    }
}

/// One run; returns its last line.
fn run(args: &[&str]) -> String {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["workload", "random"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), format!("seed {}", args[0]));
    for round in 1..=ROUNDS {
        let line = lines.next().unwrap().unwrap();
        let pids = line
            .strip_prefix(&format!("barrier {round} pids {}", child.id()))
            .unwrap();
        // The main process, then a comma before each other.
        let pids = format!("{}{pids}", child.id());
        let first = maps(&pids);
        thread::sleep(Duration::from_millis(20));
        assert!(first == maps(&pids), "{args:?}: moved at barrier {round}");
        input.write_all(b"\n").unwrap();
    }
    let done = lines.next().unwrap().unwrap();
    let calls = done.strip_prefix("done ").unwrap();
    assert!(calls.parse::<u64>().unwrap() > 0);
    assert!(lines.next().is_none());
    assert!(child.wait().unwrap().success());
    done
}

fn maps(pids: &str) -> Vec<String> {
    pids.split(',')
        .map(|pid| fs::read_to_string(format!("/proc/{pid}/maps")).unwrap())
        .collect()
}

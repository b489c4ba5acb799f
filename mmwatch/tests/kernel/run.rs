//! Runs mmwatch and takes its output apart.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::BACKENDS;

/// The binary under test.
pub fn mmwatch() -> Command {
    let path = env::var_os("MMWATCH_BIN").unwrap_or_else(|| {
        option_env!("CARGO_BIN_EXE_mmwatch")
            .unwrap_or("mmwatch")
            .into()
    });
    Command::new(path)
}

/// How often mmwatch was started so that it attaches the programs of a backend.
static STARTS: AtomicU32 = AtomicU32::new(0);

/// The binary under test, to be started so that it attaches the programs of a backend.
pub fn watcher() -> Command {
    count_start();
    mmwatch()
}

/// Counts such a start where the command is not made by [`watcher`].
pub fn count_start() {
    STARTS.fetch_add(1, Ordering::Relaxed);
}

/// Counts the start if it is one, which a backend among its arguments tells.
pub fn count_start_with(args: &[&str]) {
    if args.iter().any(|arg| BACKENDS.contains(arg)) && args[0] != "check" {
        count_start();
    }
}

/// How many starts there were. Those of `maps --faults`, which attaches few programs, are
/// not among them.
pub fn starts() -> u32 {
    STARTS.load(Ordering::Relaxed)
}

/// How long a start takes, which is mostly the kernel's verifier. None where it fails.
pub fn time_of_start(backend: &str) -> Option<Duration> {
    let begin = Instant::now();
    let output = mmwatch()
        .args(["stat", "--hooks", backend, "--", "/bin/true"])
        .output();
    let time = begin.elapsed();
    output
        .is_ok_and(|output| output.status.success())
        .then_some(time)
}

/// Where it is.
pub fn program() -> PathBuf {
    let named = PathBuf::from(mmwatch().get_program());
    let path = env::var_os("PATH").unwrap_or_default();
    let mut found = env::split_paths(&path).map(|dir| dir.join(&named));
    // An absolute path stays what it is.
    found.find(|path| path.is_file()).unwrap_or(named)
}

/// Whether a backend can be had here, else why not.
pub fn availability(backend: &str) -> Result<(), String> {
    let output = mmwatch()
        .args(["check", "--hooks", backend])
        .output()
        .expect("mmwatch runs");
    match output.status.code() {
        Some(0) => Ok(()),
        _ => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// A file name of our own in the temporary directory.
pub fn temporary(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    env::temp_dir().join(format!(
        "mmwatch-test-{}-{number}-{name}",
        std::process::id()
    ))
}

/// This binary, to be run as a workload.
pub fn workload(args: &[&str]) -> Vec<String> {
    let exe = env::current_exe().expect("own path");
    let mut command = vec![
        exe.to_str().expect("UTF-8 path").to_owned(),
        "workload".to_owned(),
    ];
    command.extend(args.iter().map(|arg| (*arg).to_owned()));
    command
}

/// Starts `mmwatch trace -o json --hooks BACKEND ARGS -- COMMAND`.
pub fn start_trace(backend: &str, args: &[&str], command: &[String]) -> Child {
    let mut mmwatch = watcher();
    mmwatch
        .args(["trace", "-o", "json", "--hooks", backend])
        .args(args);
    if !command.is_empty() {
        mmwatch.arg("--").args(command);
    }
    mmwatch
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mmwatch starts")
}

/// Starts `mmwatch record -o FILE --hooks BACKEND ARGS -- COMMAND`.
pub fn start_record(backend: &str, file: &Path, args: &[&str], command: &[String]) -> Child {
    let mut mmwatch = watcher();
    mmwatch.arg("record").arg("-o").arg(file);
    mmwatch.args(["--hooks", backend]).args(args);
    if !command.is_empty() {
        mmwatch.arg("--").args(command);
    }
    mmwatch
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mmwatch starts")
}

/// What `mmwatch trace --from FILE -o json ARGS` prints.
pub fn trace_from(file: &Path, args: &[&str]) -> Trace {
    let mut mmwatch = mmwatch();
    mmwatch.args(["trace", "-o", "json", "--from"]).arg(file);
    take_apart(&mmwatch.args(args).output().expect("output"))
}

/// The lines of `mmwatch report FILE -o json ARGS`.
pub fn report(file: &Path, args: &[&str]) -> Vec<Value> {
    let mut mmwatch = mmwatch();
    mmwatch.arg("report").arg(file).args(["-o", "json"]);
    let output = mmwatch.args(args).output().expect("output");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// Waits until a trace is attached: from then on it handles SIGINT.
pub fn wait_until_watching(mmwatch: &Child) {
    wait_until_pid_watches(mmwatch.id());
}

/// The same, of any process.
pub fn wait_until_pid_watches(pid: u32) {
    while !watches(pid).expect("it has not ended before it watched") {
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a mmwatch is attached; `None` when it has ended.
pub fn watches(pid: u32) -> Option<bool> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mask = text.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
    let is_zombie = text.contains("\nState:\tZ");
    let catches = |signal: i32| mask & 1 << (signal - 1) != 0;
    // An exec keeps the handlers of the program before for a moment after `/proc/PID/exe` is the
    // new one. runc, which is written in Go, catches SIGURG too; mmwatch does not.
    (!is_zombie).then_some(catches(libc::SIGINT) && !catches(libc::SIGURG))
}

/// Asks a trace to end.
pub fn interrupt(mmwatch: &Child) {
    interrupt_pid(mmwatch.id());
}

/// The same, by its id; the caller knows that it still is its own.
pub fn interrupt_pid(pid: u32) {
    // SAFETY: a plain system call.
    assert_eq!(unsafe { libc::kill(pid as i32, libc::SIGINT) }, 0);
}

/// What a trace printed.
#[derive(Clone)]
pub struct Trace {
    pub events: Vec<Value>,
    pub ledger: Value,
    pub code: Option<i32>,
    pub stderr: String,
}

/// Runs a trace to its end.
pub fn trace(backend: &str, args: &[&str], command: &[String]) -> Trace {
    let child = start_trace(backend, args, command);
    take_apart(&child.wait_with_output().expect("output"))
}

/// Takes the lines of a finished trace apart.
pub fn take_apart(output: &Output) -> Trace {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut events = Vec::new();
    let mut ledger = Value::Null;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let value: Value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {line}\n{stderr}"));
        match value["type"].as_str() {
            Some("event") => events.push(value),
            Some("ledger") => ledger = value,
            _ => panic!("neither event nor ledger: {line}"),
        }
    }
    assert!(ledger.is_object(), "no ledger at the end\n{stderr}");
    Trace {
        events,
        ledger,
        code: output.status.code(),
        stderr,
    }
}

impl Trace {
    /// Asserts that the ledger balances and nothing was lost.
    pub fn assert_whole(&self) {
        self.assert_balanced();
        for counter in [
            "lost",
            "ring_full",
            "undecodable",
            "unread",
            "scratch_full",
            "spaces_full",
        ] {
            assert_eq!(self.counter(counter), 0, "{counter}: {}", self.ledger);
        }
        // A return goes unseen only where the kernel says that it skipped a program.
        let missed = self.missed();
        assert!(self.counter("unfinished") <= missed, "{}", self.ledger);
    }

    /// Asserts that `own` events, by the program's own count, were delivered or
    /// lost, by mmwatch's: exactly, but for runs that the kernel skipped.
    pub fn assert_accounts_for(&self, own: u64) {
        let told = self.events.len() as u64 + self.counter("lost");
        assert!(
            told <= own && own <= told + self.missed(),
            "{told} of {own}: {}",
            self.ledger
        );
    }

    /// Runs of programs that the kernel skipped, as far as it says.
    pub fn missed(&self) -> u64 {
        self.ledger["missed"].as_u64().unwrap_or(0)
    }

    /// Asserts that the ledger balances.
    pub fn assert_balanced(&self) {
        assert_eq!(self.ledger["balanced"], true, "{}", self.ledger);
        assert_eq!(
            self.counter("fired"),
            self.counter("filtered") + self.counter("submitted") + self.counter("ring_full"),
            "{}",
            self.ledger
        );
        assert_eq!(
            self.counter("received"),
            self.events.len() as u64,
            "{}",
            self.ledger
        );
    }

    /// A number of the ledger.
    pub fn counter(&self, name: &str) -> u64 {
        self.ledger[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no {name}: {}", self.ledger))
    }

    /// Events of one operation.
    pub fn of<'a>(&'a self, op: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events.iter().filter(move |event| event["op"] == op)
    }
}

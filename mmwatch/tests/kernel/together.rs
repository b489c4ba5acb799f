//! Programs that are watched together: a start of mmwatch takes seconds where no
//! instruction runs as it is, so cases that watch a program without a filter share one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    run::{Trace, start_record, temporary, trace, trace_from, workload},
    workload::turns::Ended,
};

/// Threads of [`Program::Threads`], and what each does.
pub const THREADS: u64 = 4;
pub const ROUNDS: u64 = 300;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Calls that succeed, and notes of them.
    Calls,
    /// Calls that fail, and notes of them.
    Failures,
    /// Calls that are refused, with the reasons, and notes of them.
    Refusals,
    /// A shell, a child of it that becomes another program, and both ends.
    Shell,
    Threads,
    Gross,
    Suspects,
    MapsOverItself,
    /// A program that is dynamically linked.
    Dynamic,
    /// A program that does nothing.
    True,
}

/// Those that cases watch without a filter. Not the threads: on a preemptible kernel they
/// have it skip programs, and the ledger counts skips for a run as a whole.
const SHARED: [Program; 8] = [
    Program::Calls,
    Program::Failures,
    Program::Shell,
    Program::Gross,
    Program::Suspects,
    Program::MapsOverItself,
    Program::Dynamic,
    Program::True,
];

impl Program {
    fn command(self, files: &Files) -> Vec<String> {
        let (notes, file) = (path(&files.notes), path(&files.file));
        match self {
            Self::Calls => workload(&["calls", notes, file]),
            Self::Failures => workload(&["failures", notes, file]),
            Self::Refusals => workload(&["refusals", notes, file]),
            Self::Shell => {
                let script = "/bin/true; (exit 3); /bin/true";
                ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
            }
            Self::Threads => workload(&["threads", &THREADS.to_string(), &ROUNDS.to_string()]),
            Self::Gross => workload(&["gross"]),
            Self::Suspects => workload(&["suspects", notes, file]),
            Self::MapsOverItself => workload(&["maps-over-itself"]),
            Self::Dynamic => vec![dynamic().to_owned()],
            Self::True => vec!["/bin/true".to_owned()],
        }
    }
}

/// A program that is dynamically linked: busybox, which is all that a VM of ours
/// has otherwise, is not.
pub fn dynamic() -> &'static str {
    const OF_THE_VM: &str = "/bin/dynamic-cat";
    if fs::exists(OF_THE_VM).unwrap() {
        OF_THE_VM
    } else {
        "/bin/cat"
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What a program writes, gone with the value.
struct Files {
    notes: PathBuf,
    file: PathBuf,
}

impl Files {
    fn new() -> Self {
        Self {
            notes: temporary("notes"),
            file: temporary("file"),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.notes);
        let _ = fs::remove_file(&self.file);
    }
}

/// What was seen of a program: the events of its processes, the ledger of the whole run,
/// its own exit code.
#[derive(Clone)]
pub struct Seen {
    pub trace: Trace,
    /// What it noted; nothing where it takes no notes.
    notes: Vec<u8>,
}

impl Seen {
    fn new(trace: Trace, files: &Files) -> Self {
        Self {
            trace,
            notes: fs::read(&files.notes).unwrap_or_default(),
        }
    }

    /// What the program noted.
    pub fn notes<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.notes).unwrap()
    }

    /// Programs say by their exit code that they did what they should.
    fn assert_succeeded(self) -> Self {
        assert_eq!(self.trace.code, Some(0), "{}", self.trace.stderr);
        self
    }
}

/// Watches a program by itself.
pub fn alone(backend: &str, args: &[&str], program: Program) -> Seen {
    let files = Files::new();
    let trace = trace(backend, args, &program.command(&files));
    trace.assert_whole();
    Seen::new(trace, &files).assert_succeeded()
}

/// Watches programs one after the other, of which each is one process.
pub fn in_turn(backend: &str, args: &[&str], programs: &[Program]) -> Vec<Seen> {
    let turns = Turns::new(programs);
    let trace = trace(backend, args, &turns.command());
    let seen = turns.seen(&trace, |ended| BTreeSet::from([ended.pid]));
    seen.into_iter().map(Seen::assert_succeeded).collect()
}

/// The same of a recording, which is kept; and all that is read from it.
pub fn recorded_in_turn(
    backend: &str,
    recording: &Path,
    programs: &[Program],
) -> (Trace, Vec<Seen>) {
    let turns = Turns::new(programs);
    let child = start_record(backend, recording, &[], &turns.command());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let trace = trace_from(recording, &[]);
    let seen = turns.seen(&trace, |ended| BTreeSet::from([ended.pid]));
    let seen = seen.into_iter().map(Seen::assert_succeeded).collect();
    (trace, seen)
}

/// What to watch for a case that may watch again: first what all cases share, then
/// the program by itself.
pub fn tries(backend: &str, program: Program) -> impl Iterator<Item = Seen> {
    let shared = shared(backend, program);
    let left = 5 - shared.iter().len();
    shared
        .into_iter()
        .chain((0..left).map(move |_| alone(backend, &[], program)))
}

/// A program that is watched without a filter: with others, or else by itself.
pub fn watch(backend: &str, program: Program) -> Seen {
    shared(backend, program).unwrap_or_else(|| alone(backend, &[], program))
}

/// What one run saw of a program. None where the kernel skipped something each time, which
/// may be of any program, or where the processes of one are not distinct from another's.
fn shared(backend: &str, program: Program) -> Option<Seen> {
    static RUNS: Mutex<BTreeMap<String, Option<Vec<Seen>>>> = Mutex::new(BTreeMap::new());
    let place = SHARED.iter().position(|shared| *shared == program)?;
    // A run that fails is made again by the next case, which then fails as it did.
    let mut runs = RUNS.lock().unwrap_or_else(PoisonError::into_inner);
    let run = match runs.get(backend) {
        Some(run) => run,
        None => {
            let run = run_shared(backend);
            runs.entry(backend.to_owned()).or_insert(run)
        }
    };
    let seen = run.as_ref()?[place].clone();
    Some(seen.assert_succeeded())
}

fn run_shared(backend: &str) -> Option<Vec<Seen>> {
    // Cheaper than that each program is watched by itself.
    const RUNS: usize = 3;
    let (turns, trace) = (0..RUNS)
        .map(|_| {
            let turns = Turns::new(&SHARED);
            let trace = trace(backend, &[], &turns.command());
            (turns, trace)
        })
        .find(|(_, trace)| trace.missed() == 0)?;
    let parents: BTreeMap<_, _> = trace
        .of("fork")
        .map(|fork| (number(&fork["child_pid"]), number(&fork["pid"])))
        .collect();
    let seen = turns.seen(&trace, |ended| family(ended.pid, &parents));
    let ended = turns.ended();
    let drivers: BTreeSet<_> = ended.iter().map(|ended| parents.get(&ended.pid)).collect();
    if drivers.len() != 1 || drivers.contains(&None) {
        println!("{ended:?} are not children of one process by {parents:?}: none shared");
        return None;
    }
    Some(seen)
}

fn number(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

/// A process and all that come from it.
fn family(pid: u32, parents: &BTreeMap<u32, u32>) -> BTreeSet<u32> {
    let comes_from = |mut child: u32| {
        while let Some(parent) = parents.get(&child) {
            if *parent == pid {
                return true;
            }
            child = *parent;
        }
        false
    };
    let mut family: BTreeSet<_> = parents
        .keys()
        .copied()
        .filter(|of| comes_from(*of))
        .collect();
    family.insert(pid);
    family
}

/// Programs that run one after the other.
struct Turns {
    /// What each writes.
    files: Vec<Files>,
    /// Their commands, and how they ended.
    own: Files,
}

impl Turns {
    fn new(programs: &[Program]) -> Self {
        let files: Vec<_> = programs.iter().map(|_| Files::new()).collect();
        let commands: Vec<_> = programs
            .iter()
            .zip(&files)
            .map(|(program, files)| program.command(files))
            .collect();
        let own = Files::new();
        fs::write(&own.file, serde_json::to_vec(&commands).unwrap()).unwrap();
        Self { files, own }
    }

    fn command(&self) -> Vec<String> {
        workload(&["in-turn", path(&self.own.file), path(&self.own.notes)])
    }

    /// How each ended.
    fn ended(&self) -> Vec<Ended> {
        serde_json::from_slice(&fs::read(&self.own.notes).unwrap()).unwrap()
    }

    /// What a whole trace has of each.
    fn seen(&self, trace: &Trace, processes: impl Fn(&Ended) -> BTreeSet<u32>) -> Vec<Seen> {
        assert_eq!(trace.code, Some(0), "{}", trace.stderr);
        trace.assert_whole();
        let each = self.ended().into_iter().zip(&self.files);
        each.map(|(ended, files)| {
            let processes = processes(&ended);
            let is_its = |event: &&Value| processes.contains(&number(&event["pid"]));
            let trace = Trace {
                events: trace.events.iter().filter(is_its).cloned().collect(),
                ledger: trace.ledger.clone(),
                code: ended.code,
                stderr: trace.stderr.clone(),
            };
            Seen::new(trace, files)
        })
        .collect()
    }
}

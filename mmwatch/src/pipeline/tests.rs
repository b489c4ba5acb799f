use std::{
    cell::RefCell,
    collections::VecDeque,
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use mmwatch_common::{
    counter::{self, Hook},
    event::KNOWN_SPACE,
};

use super::*;
use crate::{
    churn::Report,
    decode::tests::{grow, path},
    event::{Event, Op},
    filter::all_ops,
    kernel::load::KernelFilter,
    launch,
    ledger::SinkCounters,
    recording::{Destination, Recorder, Recording, Size},
    sample,
    source::{HookCounters, KernelCounters, Listed, ProcessKey, ProcessSums},
};

/// Records that a test wrote, instead of the kernel.
#[derive(Default)]
struct Memory {
    records: VecDeque<Vec<u8>>,
    /// Handed out only once the source was stopped: what is in the ring then.
    late: Vec<Vec<u8>>,
    current: Vec<u8>,
    counters: counter::Ledger,
    fail: bool,
    /// What the kernel would keep; more of it once the source was stopped.
    sums: Vec<Event>,
    late_sums: Vec<Event>,
    listed: Vec<Listed>,
    forgotten: Rc<RefCell<Vec<ProcessKey>>>,
    /// The path of every cgroup.
    cgroup: Option<String>,
    /// Made, or made empty, when the processes are listed.
    at_look: Option<PathBuf>,
    /// The same when the source is stopped.
    at_stop: Option<PathBuf>,
}

impl Memory {
    fn new(records: Vec<Vec<u8>>, late: Vec<Vec<u8>>) -> Self {
        let submitted = (records.len() + late.len()) as u64;
        Self {
            records: records.into(),
            late,
            counters: counter::Ledger {
                fired: submitted + 3,
                filtered: 1,
                submitted,
                ring_full: 2,
                ..counter::Ledger::default()
            },
            ..Self::default()
        }
    }
}

impl Source for Memory {
    async fn ready(&mut self) -> io::Result<Wake> {
        if self.fail {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.records.is_empty() {
            std::future::pending::<()>().await;
        }
        Ok(Wake::Records)
    }

    fn next(&mut self) -> Option<&[u8]> {
        self.current = self.records.pop_front()?;
        Some(&self.current)
    }

    fn counters(&mut self) -> Result<KernelCounters> {
        Ok(KernelCounters {
            hooks: vec![HookCounters {
                hook: Hook::LockReleased,
                program: "memory".into(),
                ledger: self.counters,
                missed: None,
            }],
        })
    }

    fn sums(&mut self) -> Result<Vec<(ProcessKey, ProcessSums)>> {
        Ok(sample::kernel_sums(&self.sums))
    }

    fn forget(&mut self, key: ProcessKey) {
        self.sums.retain(|event| event.actor.tgid != key.tgid);
        self.forgotten.borrow_mut().push(key);
    }

    fn processes(&mut self) -> Result<Vec<Listed>> {
        if let Some(path) = &self.at_look {
            fs::write(path, "").unwrap();
        }
        Ok(self.listed.clone())
    }

    fn identity(&mut self, _: ProcessKey) -> Option<crate::source::Identity> {
        None
    }

    fn cgroup_path(&mut self, _: u64) -> Option<String> {
        self.cgroup.clone()
    }

    fn tells_order(&self) -> bool {
        true
    }

    fn stop(&mut self) {
        self.sums.append(&mut self.late_sums);
        self.records.extend(self.late.drain(..));
        if let Some(path) = &self.at_stop {
            fs::write(path, "").unwrap();
        }
    }
}

/// What a sink saw.
#[derive(Default)]
struct Seen {
    seqs: Vec<u64>,
    reports: Vec<(Report, Ledger)>,
    last: Option<Ledger>,
}

#[derive(Clone, Default)]
struct Memo {
    seen: Rc<RefCell<Seen>>,
    /// Events taken before the reader is gone.
    room: Option<u64>,
    /// Reports taken before it is gone.
    reports_room: Option<usize>,
    dropped: u64,
}

impl Sink for Memo {
    fn event(&mut self, seq: u64, _: &Event) -> io::Result<()> {
        let mut seen = self.seen.borrow_mut();
        if self.room.is_some_and(|room| seen.seqs.len() as u64 >= room) {
            self.dropped += 1;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        seen.seqs.push(seq);
        Ok(())
    }

    fn report(&mut self, report: &Report, ledger: &Ledger) -> io::Result<()> {
        let reports = &mut self.seen.borrow_mut().reports;
        reports.push((report.clone(), ledger.clone()));
        if self.reports_room.is_some_and(|room| reports.len() >= room) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, ledger: &Ledger) -> io::Result<()> {
        self.seen.borrow_mut().last = Some(ledger.clone());
        Ok(())
    }

    fn counters(&self) -> SinkCounters {
        SinkCounters {
            sink: "memo",
            delivered: self.seen.borrow().seqs.len() as u64,
            dropped: self.dropped,
        }
    }
}

fn job(sink: &Memo) -> Job {
    Job {
        sink: Box::new(sink.clone()),
        work: Work::Events,
        pace: None,
        events: None,
        duration: None,
        command: None,
        proc: Proc::default(),
        hierarchy: None,
        runtimes: Runtimes::default(),
        here: Here::default(),
        filter: None,
    }
}

fn run(source: Memory, job: Job) -> Result<u8> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(super::run(source, job))
}

/// A file name that is free, and the file gone with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("mmwatch-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Records what a source has.
fn record(source: Memory, path: &Path) -> Rc<RefCell<Seen>> {
    let destination = Destination::open(path, Size::default(), false).unwrap();
    let header = sample::header(Hook::LockReleased, "memory");
    let recorder = Recorder::begin(destination, header, Directory::default()).unwrap();
    let sink = Memo::default();
    let job = Job {
        work: Work::Record(Box::new(recorder)),
        duration: SHORT,
        ..job(&sink)
    };
    assert_eq!(run(source, job).unwrap(), 0);
    sink.seen
}

fn replay(path: &Path, job: Job) -> Result<u8> {
    let source = Recording::open(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(super::run(source, job))
}

fn sh(script: &str) -> Option<Held> {
    Some(launch::hold(&["sh", "-c", script].map(OsString::from)).unwrap())
}

fn assert_balanced(ledger: &Ledger) {
    for equation in ledger.balance() {
        assert!(equation.holds(), "{equation:?}");
    }
}

const SHORT: Option<Duration> = Some(Duration::from_millis(20));

#[test]
fn every_record_is_accounted_for() {
    let records = vec![
        grow(KNOWN_SPACE),
        path(),
        vec![255],
        vec![],
        grow(KNOWN_SPACE),
    ];
    // What comes between the last look and the end of the programs counts too.
    let late = vec![grow(KNOWN_SPACE)];
    let sink = Memo::default();
    let job = Job {
        duration: SHORT,
        ..job(&sink)
    };
    assert_eq!(run(Memory::new(records, late), job).unwrap(), 0);
    let seen = sink.seen.borrow();
    assert_eq!(seen.seqs, [1, 2, 3]);
    assert!(seen.reports.is_empty());
    let ledger = seen.last.as_ref().unwrap();
    assert_eq!(
        ledger.received,
        Received {
            events: 3,
            paths: 1,
            undecodable: 2,
            unwanted: 0,
        }
    );
    assert_balanced(ledger);
    assert_eq!(ledger.lost(), 2 + 2);
}

#[test]
fn a_recording_gives_what_its_source_gave() {
    let scratch = Scratch::new("replayed");
    let records = vec![
        path(),
        grow(KNOWN_SPACE),
        vec![255],
        vec![],
        grow(KNOWN_SPACE),
    ];
    let live = Memo::default();
    let job_of = |sink: &Memo| Job {
        duration: SHORT,
        ..job(sink)
    };
    let late = || vec![grow(KNOWN_SPACE)];
    run(Memory::new(records.clone(), late()), job_of(&live)).unwrap();
    let recorded = record(Memory::new(records, late()), &scratch.0);
    let written = recorded.borrow_mut().last.take().unwrap();
    assert_balanced(&written);
    assert_eq!(written.sinks[0].delivered, 3);

    let sink = Memo::default();
    // It ends by itself.
    assert_eq!(replay(&scratch.0, job(&sink)).unwrap(), 0);
    let (live, seen) = (live.seen.borrow(), sink.seen.borrow());
    assert_eq!(seen.seqs, live.seqs);
    let (live, ledger) = (live.last.as_ref().unwrap(), seen.last.as_ref().unwrap());
    assert_balanced(ledger);
    assert_eq!(ledger.is_balanced(), Some(true));
    assert_eq!(ledger.received, live.received);
    assert_eq!(ledger.kernel, live.kernel);
    assert_eq!(ledger.sinks, live.sinks);
}

#[test]
fn a_filter_on_a_recording_counts_what_it_turns_away() {
    let scratch = Scratch::new("filtered");
    let records = vec![path(), grow(KNOWN_SPACE), grow(KNOWN_SPACE)];
    record(Memory::new(records, vec![]), &scratch.0);
    let filter = |pid| Filter {
        kernel: KernelFilter {
            pids: vec![pid],
            ops: all_ops(),
            ..KernelFilter::NONE
        },
        cgroups: None,
        page_bytes: 4096,
    };
    for (pid, wanted) in [(10, 2), (11, 0)] {
        for work in [Work::Events, stat()] {
            let is_sums = matches!(work, Work::Sums { .. });
            let sink = Memo::default();
            let job = Job {
                work,
                filter: Some(filter(pid)),
                ..job(&sink)
            };
            replay(&scratch.0, job).unwrap();
            let seen = sink.seen.borrow();
            let ledger = seen.last.as_ref().unwrap();
            assert_balanced(ledger);
            assert_eq!(ledger.received.events, wanted);
            assert_eq!(ledger.received.unwanted, 2 - wanted);
            if is_sums {
                // Those of the events, as the kernel keeps none under a filter.
                let (report, _) = &seen.reports[0];
                assert_eq!(report.all.total.all_ops().count, wanted);
                assert_eq!(report.processes.len() as u64, wanted / 2);
                assert!(ledger.replay.unwrap().sums_events);
            }
        }
    }
}

fn stat() -> Work {
    Work::Sums {
        interval: None,
        rows: 5,
        by: By::Process,
        faults: None,
    }
}

#[test]
fn sums_of_a_recording_are_the_kernels() {
    let scratch = Scratch::new("summed");
    let source = Memory {
        sums: vec![sample::event(Op::Map)],
        late_sums: vec![sample::by(200, "late", sample::event(Op::Unmap))],
        listed: vec![sample::listed(200, "late", 20)],
        ..Memory::new(vec![grow(0)], vec![])
    };
    record(source, &scratch.0);
    let sink = Memo::default();
    let job = Job {
        work: stat(),
        ..job(&sink)
    };
    replay(&scratch.0, job).unwrap();
    let seen = sink.seen.borrow();
    let (report, ledger) = seen.reports.last().unwrap();
    assert_eq!(report.all.total.all_ops().count, 2);
    let late = report.processes.iter().find(|p| p.key.tgid == 200).unwrap();
    assert_eq!(late.vmas, Some(20));
    assert_eq!(ledger.sinks[0].sink, "sums");
    assert_balanced(ledger);
}

#[test]
fn more_than_a_batch_is_read_to_the_end() {
    let count = 2 * BATCH + 5;
    let records = vec![grow(0); count];
    let sink = Memo::default();
    let job = Job {
        duration: SHORT,
        ..job(&sink)
    };
    run(Memory::new(records, vec![]), job).unwrap();
    let seen = sink.seen.borrow();
    assert_eq!(seen.seqs.len(), count);
    assert_balanced(seen.last.as_ref().unwrap());
}

#[test]
fn a_closed_output_ends_the_watch_and_the_rest_is_dropped() {
    let sink = Memo {
        room: Some(2),
        ..Memo::default()
    };
    let source = Memory::new(vec![grow(0); 10], vec![grow(0)]);
    assert_eq!(run(source, job(&sink)).unwrap(), 0);
    let seen = sink.seen.borrow();
    let ledger = seen.last.as_ref().unwrap();
    assert_eq!(ledger.sinks[0].delivered, 2);
    assert_eq!(ledger.sinks[0].dropped, 9);
    assert_balanced(ledger);
}

#[test]
fn sums_come_at_each_interval_and_at_the_end() {
    let sink = Memo {
        reports_room: Some(3),
        ..Memo::default()
    };
    let job = Job {
        work: Work::Sums {
            interval: Some(Duration::from_millis(10)),
            rows: 5,
            by: By::Process,
            faults: None,
        },
        ..job(&sink)
    };
    let forgotten = Rc::default();
    let source = Memory {
        sums: vec![sample::event(Op::Map)],
        late_sums: vec![sample::by(200, "late", sample::event(Op::Unmap))],
        listed: vec![sample::listed(200, "late", 20)],
        forgotten: Rc::clone(&forgotten),
        ..Memory::default()
    };
    run(source, job).unwrap();
    let seen = sink.seen.borrow();
    // Three in their time, and the last.
    assert_eq!(seen.reports.len(), 4);
    let (first, _) = seen.reports.first().unwrap();
    assert_eq!(first.all.total.all_ops().count, 1);
    let (report, ledger) = seen.reports.last().unwrap();
    assert_eq!(report.all.total.all_ops().count, 2);
    assert_eq!(report.processes[0].vmas, Some(20));
    assert_balanced(ledger);
    // The process that is not listed is over.
    assert_eq!(*forgotten.borrow(), [ProcessKey::new(100, 1_000)]);
}

/// Whoever asks only at the end finds the state of its runtime gone.
#[test]
fn containers_are_named_while_they_are_there() {
    let root = env::temp_dir().join(format!("mmwatch-{}-pipeline", std::process::id()));
    let state = root.join("var/lib/docker/containers/web/config.v2.json");
    fs::create_dir_all(state.parent().unwrap()).unwrap();
    fs::write(&state, r#"{ "Name": "/shop", "Config": {} }"#).unwrap();
    let looked = root.join("looked");
    let script = format!("while [ ! -e {} ]; do sleep 0.01; done", looked.display());
    let sink = Memo::default();
    let job = Job {
        work: Work::Sums {
            interval: None,
            rows: 5,
            by: By::Process,
            faults: None,
        },
        command: sh(&script),
        runtimes: Runtimes::at(&root),
        ..job(&sink)
    };
    let mut listed = sample::listed(200, "web", 20);
    listed.identity.cgroup_id = 7;
    let source = Memory {
        listed: vec![listed],
        cgroup: Some("/docker/web".to_owned()),
        at_look: Some(looked),
        at_stop: Some(state),
        ..Memory::default()
    };
    run(source, job).unwrap();
    let seen = sink.seen.borrow();
    let who = seen.reports[0].0.processes[0].who.as_ref().unwrap();
    let container = who.container().unwrap();
    assert_eq!(container.names.name.as_deref(), Some("shop"));
    fs::remove_dir_all(&root).unwrap();
}

#[test]
fn the_commands_code_is_passed_on() {
    for (script, code) in [("exit 0", 0), ("exit 5", 5), ("kill -9 $$", 137)] {
        let sink = Memo::default();
        let job = Job {
            command: sh(script),
            ..job(&sink)
        };
        // Records of the command may still be in the ring at its end.
        assert_eq!(run(Memory::new(vec![], vec![grow(0)]), job).unwrap(), code);
        assert_eq!(sink.seen.borrow().seqs, [1]);
    }
}

#[test]
fn the_durations_end_ends_the_command() {
    let sink = Memo::default();
    let job = Job {
        command: sh("exec sleep 1000"),
        duration: SHORT,
        ..job(&sink)
    };
    assert_eq!(run(Memory::default(), job).unwrap(), 128 + 15);
}

#[test]
fn the_command_outlives_a_closed_output() {
    let sink = Memo {
        room: Some(0),
        ..Memo::default()
    };
    let job = Job {
        command: sh("sleep 0.1; exit 4"),
        ..job(&sink)
    };
    assert_eq!(run(Memory::new(vec![grow(0)], vec![]), job).unwrap(), 4);
}

#[test]
fn a_failing_exec_is_the_result() {
    let sink = Memo::default();
    let command = launch::hold(&["/nonexistent".into()]).unwrap();
    let job = Job {
        command: Some(command),
        ..job(&sink)
    };
    assert_eq!(run(Memory::default(), job).unwrap_err().exit_code(), 127);
}

#[test]
fn a_failing_source_is_an_error_after_the_commands_end() {
    let stopped = env::temp_dir().join(format!("mmwatch-{}-stopped", std::process::id()));
    let script = format!(
        "while [ ! -e {0} ]; do sleep 0.01; done; rm {0}",
        stopped.display()
    );
    let sink = Memo::default();
    let job = Job {
        command: sh(&script),
        ..job(&sink)
    };
    let source = Memory {
        fail: true,
        at_stop: Some(stopped.clone()),
        ..Memory::default()
    };
    assert_eq!(run(source, job).unwrap_err().exit_code(), 1);
    assert!(!stopped.exists());
}

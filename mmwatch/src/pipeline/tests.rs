use std::{cell::RefCell, collections::VecDeque, env, ffi::OsString, fs, path::PathBuf, rc::Rc};

use mmwatch_common::{
    counter::{self, Hook},
    event::KNOWN_SPACE,
};

use super::*;
use crate::{
    churn::Report,
    decode::tests::{grow, path},
    event::{Event, Op},
    launch,
    ledger::SinkCounters,
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
    /// Made when the source is stopped.
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
    async fn ready(&mut self) -> io::Result<()> {
        if self.fail {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.records.is_empty() {
            std::future::pending::<()>().await;
        }
        Ok(())
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
        Ok(self.listed.clone())
    }

    fn identity(&mut self, _: ProcessKey) -> Option<crate::source::Identity> {
        None
    }

    fn cgroup_path(&mut self, _: u64) -> Option<String> {
        None
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
        duration: None,
        command: None,
        proc: Proc::default(),
        hierarchy: None,
        here: Here::default(),
    }
}

fn run(source: Memory, job: Job) -> Result<u8> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(super::run(source, job))
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
            undecodable: 2
        }
    );
    assert_balanced(ledger);
    assert_eq!(ledger.lost(), 2 + 2);
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

//! Recordings, written and read again.

mod damage;

use std::{
    collections::VecDeque,
    env, fs,
    path::{Path, PathBuf},
};

use mmwatch_common::{counter::Hook, event::KNOWN_SPACE};

use super::*;
use crate::{
    decode::{Decoder, tests as records},
    event::Op,
    process::Proc,
    recording::{Ending, Recording, Size, Why},
    sample,
    source::{HookCounters, KernelCounters, Listed, ProcessSums, Wake},
};

/// A directory that is gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("mmwatch-{}-tape-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Bytes of all files.
    fn bytes(&self) -> u64 {
        let files = fs::read_dir(&self.0).unwrap();
        // The writer may remove one meanwhile.
        files
            .filter_map(|file| Some(file.unwrap().metadata().ok()?.len()))
            .sum()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the recorder asks.
#[derive(Default)]
struct Answers {
    identity: Identity,
}

impl Source for Answers {
    async fn ready(&mut self) -> io::Result<Wake> {
        Ok(Wake::End)
    }

    fn next(&mut self) -> Option<&[u8]> {
        None
    }

    fn counters(&mut self) -> Result<KernelCounters> {
        Ok(KernelCounters::default())
    }

    fn sums(&mut self) -> Result<Vec<(ProcessKey, ProcessSums)>> {
        Ok(Vec::new())
    }

    fn forget(&mut self, _: ProcessKey) {}

    fn processes(&mut self) -> Result<Vec<Listed>> {
        Ok(Vec::new())
    }

    fn identity(&mut self, _: ProcessKey) -> Option<Identity> {
        Some(self.identity)
    }

    fn cgroup_path(&mut self, id: u64) -> Option<String> {
        (id != 0).then(|| format!("/cgroup/{id}"))
    }

    fn tells_order(&self) -> bool {
        true
    }

    fn stop(&mut self) {}
}

fn limits() -> Limits {
    Proc::at("/nowhere").limits()
}

fn header() -> Header {
    Header {
        start_boot_ns: 1,
        ..sample::header(Hook::Exec, "p")
    }
}

fn recorder(path: &Path, size: Size) -> Recorder {
    let destination = Destination::open(path, size, false).unwrap();
    Recorder::begin(destination, header(), Directory::default()).unwrap()
}

/// A recorder that is told records, and keeps the account that the kernel would.
struct Session {
    recorder: Recorder,
    decoder: Decoder,
    answers: Answers,
    events: u64,
    paths: u64,
}

impl Session {
    fn new(path: &Path, size: Size) -> Self {
        Self {
            recorder: recorder(path, size),
            decoder: Decoder::new(4096),
            answers: Answers::default(),
            events: 0,
            paths: 0,
        }
    }

    fn record(&mut self, record: &[u8]) {
        self.recorder.hold(record);
        match self.decoder.decode(record) {
            Ok(Some(event)) => {
                let limits = event.errno.map(|_| limits());
                self.recorder.keep_event(&event, limits, &mut self.answers);
                self.events += 1;
            }
            _ => {
                self.recorder.keep();
                self.paths += 1;
            }
        }
    }

    /// What the kernel kept so far, of a process that did all of it.
    fn look(&self, boot_ns: u64) -> Look {
        let mut counters = header().counters().unwrap();
        let HookCounters { ledger, .. } = &mut counters.hooks[0];
        ledger.fired = self.events;
        ledger.submitted = self.events;
        ledger.paths_submitted = self.paths;
        let mut process = ProcessSums::default();
        process.sums.ops[Op::Grow as usize].count = self.events;
        Look {
            boot_ns,
            closed: false,
            counters,
            sums: vec![(ProcessKey::new(10, 900), process)],
            listed: vec![sample::listed(10, "worker", 20)],
        }
    }

    fn tick(&mut self, boot_ns: u64) {
        let look = self.look(boot_ns);
        self.recorder.look(look, limits(), &mut self.answers);
    }

    fn finish(mut self, boot_ns: u64) -> Outcome {
        let look = Look {
            closed: true,
            ..self.look(boot_ns)
        };
        let outcome = self.recorder.finish(look, limits(), &mut self.answers);
        outcome.unwrap()
    }
}

/// What a recording lends.
#[derive(Debug, Default, PartialEq)]
struct Read {
    records: Vec<Vec<u8>>,
    /// With the time and the operations summed so far.
    looks: Vec<(u64, u64)>,
    replay: Option<crate::recording::Replay>,
    counters: KernelCounters,
}

fn read(path: &Path) -> Read {
    read_from(Recording::open(path).unwrap())
}

fn read_from(mut recording: Recording) -> Read {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let mut read = Read::default();
    loop {
        match runtime
            .as_ref()
            .unwrap()
            .block_on(recording.ready())
            .unwrap()
        {
            Wake::Records => {
                while let Some(record) = recording.next() {
                    read.records.push(record.to_vec());
                }
            }
            Wake::Look => {
                let sums = recording.sums().unwrap();
                let count = sums.iter().map(|(_, process)| process.sums.all_ops().count);
                read.looks.push((recording.now().unwrap(), count.sum()));
            }
            Wake::End => break,
        }
    }
    read.replay = recording.replay();
    read.counters = recording.counters().unwrap();
    read
}

/// Records that do not pack well.
fn noise(count: u64, seed: u64) -> VecDeque<Vec<u8>> {
    let mut state = seed;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state
    };
    let records = (0..count).map(|_| {
        let mut record = records::grow(KNOWN_SPACE);
        // All that a record may say anything in: the address space, and the bytes.
        let start = record.len() - 80;
        for bytes in record[start..].chunks_mut(8) {
            bytes.copy_from_slice(&random().to_le_bytes()[..bytes.len()]);
        }
        record
    });
    records.collect()
}

#[test]
fn what_was_recorded_is_read() {
    let scratch = Scratch::new("whole");
    let path = scratch.file("rec");
    let mut session = Session::new(&path, Size::default());
    session.answers.identity.cgroup_id = 7;
    session.tick(2);
    let all = [
        records::path(),
        records::grow(KNOWN_SPACE),
        vec![255],
        records::grow(0),
    ];
    session.record(&all[0]);
    session.record(&all[1]);
    session.tick(3);
    session.record(&all[2]);
    session.record(&all[3]);
    let outcome = session.finish(4);
    assert_eq!((outcome.delivered, outcome.dropped), (2, 0));
    assert!(outcome.is_finished && outcome.failure.is_none());
    assert_eq!(outcome.bytes, scratch.bytes());

    let read = read(&path);
    assert_eq!(read.records, all);
    assert_eq!(read.looks, [(2, 0), (3, 1), (4, 2)]);
    let replay = read.replay.unwrap();
    assert!(replay.is_whole);
    assert_eq!(replay.ending, Ending::On(Why::Finished));
    assert_eq!(
        (replay.gaps, replay.lost_events, replay.repeated),
        (0, 0, 0)
    );
    assert_eq!(read.counters.hooks[0].ledger.submitted, 2);
    assert_eq!(read.counters.hooks[0].missed, None);

    let mut recording = Recording::open(&path).unwrap();
    assert_eq!(*recording.header(), header());
    assert_eq!(recording.limits(), Some(limits()));
    // Nothing is known before it was read.
    assert_eq!(recording.cgroup_path(7), None);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    while runtime
        .as_ref()
        .unwrap()
        .block_on(recording.ready())
        .unwrap()
        != Wake::End
    {
        while recording.next().is_some() {}
    }
    assert_eq!(recording.cgroup_path(7).as_deref(), Some("/cgroup/7"));
    let identity = recording.identity(ProcessKey::new(10, 900)).unwrap();
    assert_eq!(identity.cgroup_id, 7);
    recording.forget(ProcessKey::new(10, 900));
    assert_eq!(recording.identity(ProcessKey::new(10, 900)), None);
}

#[test]
fn an_identity_is_known_with_the_first_record_and_not_before() {
    let scratch = Scratch::new("identity");
    let path = scratch.file("rec");
    let mut session = Session::new(&path, Size::default());
    session.record(&records::grow(0));
    session.answers.identity.cgroup_id = 8;
    session.record(&records::exec());
    session.finish(2);

    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let mut recording = Recording::open(&path).unwrap();
    while runtime
        .as_ref()
        .unwrap()
        .block_on(recording.ready())
        .unwrap()
        != Wake::Records
    {}
    let mut seen = Vec::new();
    while recording.next().is_some() {
        let identity = recording.identity(ProcessKey::new(10, 900));
        seen.push(identity.unwrap().cgroup_id);
    }
    assert_eq!(seen, [0, 8]);
}

#[test]
fn a_recording_keeps_to_its_size() {
    let scratch = Scratch::new("cap");
    let path = scratch.file("rec");
    let size = Size {
        max_bytes: Some(1 << 20),
        ..Size::default()
    };
    let mut session = Session::new(&path, size);
    session.tick(2);
    for record in noise(30_000, 1) {
        session.record(&record);
    }
    // The writer says so in its own time.
    session.recorder.send();
    while !session.recorder.is_full() {
        thread::yield_now();
    }
    let outcome = session.finish(3);
    assert_eq!(outcome.why, Why::Full);
    assert!(outcome.is_finished);
    assert_eq!(outcome.delivered + outcome.dropped, 30_000);
    assert!(outcome.dropped > 0);
    let bytes = fs::metadata(&path).unwrap().len();
    assert!((800_000..=1 << 20).contains(&bytes), "{bytes}");

    let read = read(&path);
    assert_eq!(read.records.len() as u64, outcome.delivered);
    let replay = read.replay.unwrap();
    assert_eq!(replay.ending, Ending::On(Why::Full));
    assert_eq!(replay.lost_events, outcome.dropped);
    assert!(replay.is_whole);
    // The sums are of all that happened, written or not.
    assert_eq!(read.looks, [(2, 0), (3, 30_000)]);
}

#[test]
fn files_of_a_rotated_recording_can_be_read_alone() {
    let scratch = Scratch::new("rotate");
    let path = scratch.file("rec");
    let size = Size {
        rotate_bytes: Some(1 << 20),
        ..Size::default()
    };
    let mut session = Session::new(&path, size);
    session.answers.identity.cgroup_id = 7;
    session.record(&records::path());
    let noise = noise(40_000, 2);
    for (number, record) in (0_u64..).zip(&noise) {
        // The queue has room for all of it, however slow the writer is.
        if number.is_multiple_of(4_000) {
            session.tick(2 + number);
        }
        session.record(record);
    }
    let outcome = session.finish(50_000);
    assert_eq!((outcome.delivered, outcome.dropped), (40_000, 0));
    assert!(outcome.files >= 3, "{outcome:?}");
    assert_eq!(outcome.bytes, scratch.bytes());

    let mut events = 0;
    let mut summed = 0;
    for number in (0..outcome.files).rev() {
        let file = match number {
            0 => path.clone(),
            number => scratch.file(&format!("rec.{number}")),
        };
        assert!(fs::metadata(&file).unwrap().len() <= 1 << 20);
        let read = read(&file);
        let is_path = |record: &&Vec<u8>| decode::path_of(record).is_some();
        // Each says it for itself.
        assert_eq!(read.records.iter().filter(is_path).count(), 1, "{number}");
        events += read.records.len() as u64 - 1;
        summed += read.looks.last().unwrap().1;
        let replay = read.replay.unwrap();
        let is_last = number == 0;
        let is_first = number == outcome.files - 1;
        let why = if is_last { Why::Finished } else { Why::Rotated };
        assert_eq!(replay.ending, Ending::On(why), "{number}");
        assert_eq!(replay.repeated, u64::from(!is_first), "{number}");
        assert!(!replay.is_whole, "{number}");
        let recording = Recording::open(&file).unwrap();
        assert_eq!(recording.header().part, (outcome.files - 1 - number) as u64);
        // It begins where the one before was looked at last.
        assert!(is_first || read.looks[0] == (recording.header().start_boot_ns, 0));
    }
    assert_eq!(events, 40_000);
    // What one file sums, no other does.
    assert_eq!(summed, 40_000);
}

#[test]
fn old_files_make_room_for_new_ones() {
    let scratch = Scratch::new("ring");
    let path = scratch.file("rec");
    let size = Size {
        rotate_bytes: Some(1 << 20),
        max_bytes: Some(2 << 20),
        keep: None,
    };
    let mut session = Session::new(&path, size);
    let mut most = 0;
    for round in 0..20 {
        for record in noise(4_000, round) {
            session.record(&record);
        }
        session.tick(2 + round);
        most = most.max(scratch.bytes());
    }
    let outcome = session.finish(50_000);
    assert_eq!(outcome.why, Why::Finished);
    assert_eq!(outcome.bytes, scratch.bytes());
    assert!(most.max(outcome.bytes) <= 2 << 20, "{most}");
    assert!(outcome.files <= 3);
    let read = read(&path);
    assert_eq!(read.replay.unwrap().ending, Ending::On(Why::Finished));
}

#[test]
fn what_finds_no_room_is_a_gap() {
    let scratch = Scratch::new("gap");
    let path = scratch.file("rec");
    let mut session = Session::new(&path, Size::default());
    session.answers.identity.cgroup_id = 7;
    session.record(&records::path());
    session.record(&records::grow(0));
    session.record(&records::grow(0));
    // As if the queue were full.
    let block = session.recorder.take_block();
    session.recorder.lose(&block);
    session.record(&records::grow(KNOWN_SPACE));
    session.finish(2);
    let mut read = read(&path);
    // The path is said again, as later records may refer to it.
    assert_eq!(read.records.len(), 2);
    assert_eq!(read.records.remove(0), records::path());
    let replay = read.replay.unwrap();
    assert_eq!((replay.gaps, replay.lost_events), (1, 2));
    assert_eq!((replay.lost_records, replay.repeated), (3, 1));
    let mut recording = Recording::open(&path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    while runtime
        .as_ref()
        .unwrap()
        .block_on(recording.ready())
        .unwrap()
        != Wake::End
    {
        while recording.next().is_some() {}
    }
    assert_eq!(recording.cgroup_path(7).as_deref(), Some("/cgroup/7"));
    let summary = crate::recording::Summary::of(&path).unwrap();
    assert_eq!(summary.losses_count, 1);
    assert_eq!(summary.losses[0].cause, Some(Cause::Slow));
    assert_eq!(summary.losses[0].until_boot_ns, block.until_boot_ns);
}

/// Looks at a process, then at its absence; returns what may be forgotten at each.
fn looks_at_an_end(session: &mut Session, boot_ns: &[u64]) -> Vec<Vec<ProcessKey>> {
    let looks = boot_ns.iter().enumerate().map(|(number, &boot_ns)| {
        let mut look = session.look(boot_ns);
        if number > 0 {
            look.listed.clear();
        }
        let over = session.recorder.look(look, limits(), &mut session.answers);
        // Until the writer has dealt with it.
        let written = Arc::clone(&session.recorder.written_boot_ns);
        while !session.recorder.is_full() && written.load(Ordering::Relaxed) < boot_ns {
            thread::yield_now();
        }
        over
    });
    looks.collect()
}

#[test]
fn sums_are_forgotten_once_they_are_written() {
    let scratch = Scratch::new("over");
    let mut session = Session::new(&scratch.file("rec"), Size::default());
    session.record(&records::grow(0));
    let over = looks_at_an_end(&mut session, &[2, 3, 4]);
    // They are final at the second look: forgotten then, if the writer is quick, else at the
    // third.
    assert_eq!(over.concat().first(), Some(&ProcessKey::new(10, 900)));
    session.finish(5);
}

#[test]
fn sums_that_are_not_written_are_not_forgotten() {
    let scratch = Scratch::new("kept");
    let path = scratch.file("rec");
    let size = Size {
        max_bytes: Some(1 << 20),
        ..Size::default()
    };
    let mut session = Session::new(&path, size);
    session.tick(2);
    for record in noise(30_000, 1) {
        session.record(&record);
    }
    session.recorder.send();
    while !session.recorder.is_full() {
        thread::yield_now();
    }
    let over = looks_at_an_end(&mut session, &[3, 4, 5, 6, 7]);
    assert!(over.concat().is_empty(), "{over:?}");
    session.finish(8);
}

#[test]
fn what_was_handed_on_is_written_without_an_end_too() {
    let scratch = Scratch::new("endless");
    let path = scratch.file("rec");
    let mut session = Session::new(&path, Size::default());
    session.record(&records::grow(0));
    session.tick(2);
    // As if the watch had failed.
    session.record(&records::grow(0));
    drop(session);
    let read = read(&path);
    assert_eq!(read.records.len(), 1);
    assert_eq!(read.looks, [(2, 1)]);
    let replay = read.replay.unwrap();
    assert_eq!(replay.ending, Ending::Open);
    assert!(!replay.is_whole);
}

#[test]
fn recordings_of_others_are_refused_in_words() {
    let scratch = Scratch::new("others");
    let refusal = |bytes: &[u8]| {
        let path = scratch.file("other");
        fs::write(&path, bytes).unwrap();
        match Recording::open(&path) {
            Err(Error::Usage(message)) => message,
            other => panic!("{:?}", other.err()),
        }
    };
    assert!(refusal(b"").contains("is no recording"));
    assert!(refusal(b"#!/bin/sh\n").contains("`mmwatch record -o FILE`"));
    let file = |change: &dyn Fn(&mut Header)| {
        let mut header = header();
        change(&mut header);
        let path = scratch.file("made");
        let destination = Destination::open(&path, Size::default(), true).unwrap();
        drop(Recorder::begin(destination, header, Directory::default()).unwrap());
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        bytes
    };
    let newer = refusal(&file(&|header| header.wire += 1));
    assert!(
        newer.contains("read it with the mmwatch that recorded it (0.1.0)"),
        "{newer}"
    );
    let other = refusal(&file(&|header| {
        header.sizes.insert("map".into(), 1);
    }));
    assert!(other.contains("records are of version"), "{other}");
    let mut bytes = file(&|_| {});
    bytes[8] = 9;
    assert!(refusal(&bytes).contains("format 9"));
    let bytes = file(&|_| {});
    assert!(refusal(&bytes[..40]).contains("before it says anything"));
}

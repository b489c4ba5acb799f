//! Files that are not as they were written.

use std::fs;

use mmwatch_common::event::KNOWN_SPACE;

use super::{Scratch, Session, limits, read, read_from, records};
use crate::{
    churn::{Sums, add_event},
    decode::Decoder,
    explain::Limits,
    ledger::{Ledger, Received},
    recording::{
        Ending, Recording, Size, Summary,
        frame::{Next, Packer, Unpacker, preamble},
    },
};

#[test]
fn whatever_becomes_of_the_bytes_reading_ends_well() {
    let scratch = Scratch::new("damage");
    let path = scratch.file("rec");
    let mut session = Session::new(&path, Size::default());
    session.tick(2);
    session.record(&records::path());
    session.record(&records::grow(KNOWN_SPACE));
    session.tick(3);
    session.record(&records::grow(0));
    session.finish(4);
    let whole = fs::read(&path).unwrap();
    let all = read(&path);
    let header_ends = whole
        .windows(4)
        .rposition(|bytes| bytes == b"\n}mm")
        .unwrap()
        + 2;

    let damaged = scratch.file("damaged");
    // How its reading ended, if it can be opened at all.
    let check = |bytes: &[u8], what: &str| {
        fs::write(&damaged, bytes).unwrap();
        let recording = Recording::open(&damaged).ok()?;
        let read = read_from(recording);
        assert_eq!(read.records, all.records[..read.records.len()], "{what}");
        assert_eq!(read.looks, all.looks[..read.looks.len()], "{what}");
        let ending = read.replay.unwrap().ending;
        let summary = Summary::of(&damaged).unwrap();
        assert_eq!(summary.ending, ending, "{what}");
        Some(ending)
    };
    for len in 0..whole.len() {
        let ending = check(&whole[..len], &format!("cut at {len}"));
        let is_right = match ending {
            None => len < header_ends,
            Some(Ending::Open) => true,
            Some(Ending::Broken(broken)) => broken.at_byte < len as u64,
            Some(Ending::On(_) | Ending::Unread) => false,
        };
        assert!(is_right, "cut at {len}: {ending:?}");
    }
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        let ending = check(&bytes, &format!("byte {at}"));
        let is_right = match ending {
            None => at < header_ends,
            Some(Ending::Broken(broken)) => broken.at_byte <= at as u64,
            // Of the preamble, what is kept for later.
            Some(Ending::On(_)) => (12..16).contains(&at),
            Some(Ending::Open | Ending::Unread) => false,
        };
        assert!(is_right, "byte {at}: {ending:?}");
    }
    // Whatever comes after its end is no part of it.
    let longer = check(&[&whole[..], b"more"].concat(), "longer");
    assert!(matches!(longer, Some(Ending::Broken(broken)) if broken.at_byte == whole.len() as u64));
}

/// Whole frames that say something else: what nobody but an enemy would write.
#[test]
fn whatever_frames_say_reading_ends_well() {
    let scratch = Scratch::new("nonsense");
    let path = scratch.file("rec");
    let mut session = Session::new(&path, Size::default());
    session.answers.identity.cgroup_id = 7;
    session.tick(2);
    session.record(&records::path());
    session.record(&records::exec());
    let block = session.recorder.take_block();
    session.recorder.lose(&block);
    session.record(&records::grow(KNOWN_SPACE));
    session.recorder.say_limits(Limits {
        max_map_count: 1,
        ..limits()
    });
    session.finish(4);
    let bytes = fs::read(&path).unwrap();
    let mut unpacker = Unpacker::new(&*bytes).unwrap().unwrap();
    let mut frames = Vec::new();
    while let Next::Frame(Some(kind)) = unpacker.next().unwrap() {
        frames.push((kind, unpacker.payload().to_vec()));
    }
    let kinds: Vec<_> = frames.iter().map(|(kind, _)| *kind as u8).collect();
    assert_eq!(kinds, [1, 3, 4, 2, 3, 5]);

    let damaged = scratch.file("damaged");
    let mut packer = Packer::new().unwrap();
    let mut opened = 0;
    for changed in 0..frames.len() {
        // Paths have more than a thousand bytes of nothing.
        let places = (0..frames[changed].1.len()).filter(|at| at % 3 == 0 || *at < 400);
        for at in places {
            let mut file = preamble().to_vec();
            for (place, (kind, payload)) in frames.iter().enumerate() {
                let mut payload = payload.clone();
                if place == changed {
                    payload[at] = !payload[at];
                }
                packer.pack(*kind, &payload, &mut file).unwrap();
            }
            fs::write(&damaged, &file).unwrap();
            let Ok(recording) = Recording::open(&damaged) else {
                continue;
            };
            opened += 1;
            let read = read_from(recording);
            let mut decoder = Decoder::new(4096);
            let mut sums = Sums::default();
            for record in &read.records {
                if let Ok(Some(event)) = decoder.decode(record) {
                    add_event(&mut sums, &event);
                }
            }
            let ledger = Ledger {
                kernel: read.counters,
                received: Received::default(),
                sinks: Vec::new(),
                closed: true,
                replay: read.replay,
            };
            assert!(!ledger.to_string().is_empty());
            let _ = Summary::of(&damaged);
        }
    }
    assert!(opened > 1000, "{opened}");
}

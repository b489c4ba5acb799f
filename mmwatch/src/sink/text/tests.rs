use super::*;
use crate::sample;

/// The lines that a sink writes, the time of day left out: it depends on where
/// the test runs.
fn lines(events: &[Event]) -> Vec<String> {
    let mut out = Vec::new();
    let mut sink = Trace::new(
        &mut out,
        io::sink(),
        WallClock::with_offset(sample::BOOT_AT_UNIX_NS),
    );
    for event in events {
        sink.event(1, event).unwrap();
    }
    sink.flush().unwrap();
    assert_eq!(sink.counters().delivered, events.len() as u64);
    drop(sink);
    String::from_utf8(out)
        .unwrap()
        .lines()
        .map(|line| line.chars().skip("10:00:01.234 ".len()).collect())
        .collect()
}

#[test]
fn columns_are_aligned() {
    let mut events: Vec<_> = Op::ALL.iter().map(|&op| sample::event(op)).collect();
    events.push(sample::failed_map());
    events.push(sample::bare(Op::Map));
    events.push(sample::suspect());
    assert_eq!(
        lines(&events),
        [
            "    PID     TID COMM            OP                ADDR     LEN PROT BACKING    VMAS INFO",
            "    100     100 sample          map       7f1234567000    8KiB rw-  priv-file    20 +2-1 /usr/lib/libc.so.6",
            "    100     100 sample          unmap     7f1234567000    4KiB -    -            20 +2-1 2 VMAs",
            "    100     100 sample          protect   7f1234567000    4KiB r--  -            20 +2-1 was rw-",
            "    100     100 sample          remap     7f1234567000   16KiB -    -            20 +2-1 from 7f1200000000 4KiB",
            "    100     100 sample          brk       555500000000  132KiB -    priv-anon    20 +2-1",
            "    100     100 sample          grow                 -    4KiB -    priv-anon    20 +2-1",
            "    100     100 sample          advise    7f1234567000    4KiB -    -            20 +2-1 MADV_DONTFORK",
            "    100     100 sample          fork                 -       - -    -            20 +2-1 child 101 shared",
            "    100     100 sample          exec                 -       - -    -            20 +2-1 /usr/bin/env",
            "    100     100 sample          exit                 -  400KiB -    -            20 +2-1 20 VMAs",
            "    100     100 sample          map       7f1234567000  4.8KiB rw-  priv-anon    20 +2-1 ENOMEM vma_limit 20 of 19",
            "    100     100 sample          map                  -       - -    -             - by other",
            "    100     100 sample          protect   7f1234567000    4KiB r-x  -            20 +2-1 was rw- SUSPECT anon-exec,write-to-exec",
        ]
    );
}

#[test]
fn names_cannot_reach_the_terminal() {
    let mut event = sample::by(100, "a\x1b[2J\n", sample::event(Op::Exec));
    if let What::Exec(exec) = &mut event.what {
        exec.file = Some(sample::file(Some("/tmp/\x1b]0;x\x07\u{202e}")));
    }
    let text = lines(&[event]).remove(1);
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.contains(r"a\x1b[2J\n"), "{text:?}");
    assert!(text.ends_with(r"/tmp/\x1b]0;x\x07\u{202e}"), "{text:?}");
}

#[test]
fn what_is_unusual_is_said() {
    let mut event = sample::event(Op::Unmap);
    event.cause = Cause::MapFixed;
    event.actor.owner_tgid = 99;
    assert!(lines(&[event])[1].ends_with(" 20 +2-1 by map_fixed in 99 2 VMAs"));
}

#[test]
fn vmas_made_and_gone_follow_their_count() {
    let change = |delta, removed| {
        let mut event = sample::event(Op::Brk);
        event.space.vmas_delta = delta;
        event.space.vmas_removed = removed;
        lines(&[event])[1].split_once("   20").unwrap().1.to_owned()
    };
    assert_eq!(change(Some(2), Some(0)), " +2");
    // Merged with both neighbours.
    assert_eq!(change(Some(-2), Some(0)), " -2");
    // Removed, and one of them replaced.
    assert_eq!(change(Some(-2), Some(3)), " +1-3");
    assert_eq!(change(Some(0), Some(0)), "");
    assert_eq!(change(Some(1), None), "");
    assert_eq!(change(None, None), "");
}

#[test]
fn lengths_keep_to_their_column() {
    for (bytes, want) in [
        (4096, "4KiB"),
        (1536 << 10, "1.5MiB"),
        ((1 << 20) - 4096, "1020KiB"),
        ((1 << 30) - 4096, "1023MiB"),
        (u64::MAX, "15.9EiB"),
    ] {
        assert_eq!(Compact(bytes).to_string(), want);
        assert!(want.len() <= 7);
    }
}

#[test]
fn the_ledger_goes_elsewhere() {
    let (mut out, mut ledger) = (Vec::new(), Vec::new());
    let mut sink = Trace::new(&mut out, &mut ledger, WallClock::with_offset(0));
    sink.finish(&sample::ledger()).unwrap();
    drop(sink);
    // Not even the header: that waits for the first flush.
    assert!(out.is_empty());
    assert!(
        String::from_utf8(ledger)
            .unwrap()
            .starts_with("ledger: 300 fired")
    );
}

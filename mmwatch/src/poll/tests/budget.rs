//! What a poller reads when there is no time for all.

use super::*;

#[test]
fn there_is_time_for_some_and_those_that_changed_go_first() {
    let procfs = Procfs::new("budget");
    let (few, many) = (pages(2), pages(3));
    for pid in 20..30 {
        procfs.put(&Made::new(pid, &few));
    }
    let mut poller = procfs.poller(Filter::default());
    everything(&mut poller);
    // Each glance at the clock takes 1 ms, of 20 ms that a second is good for:
    // one for each process seen by `stat`, and one for each that is read.
    CPU_STEP_NS.set(1_000_000);
    let mut read = |now: u64, changed: &[u32]| {
        at(now * S);
        for &pid in changed {
            procfs.put(&Made::new(pid, &many));
        }
        poller.look(Depth::Share).unwrap();
        let poll = poller.report(usize::MAX, By::Process).unwrap();
        let mut read: Vec<_> = poll
            .processes
            .iter()
            .filter(|process| process.age_ns(poll.boot_ns) == 0)
            .map(|process| process.pid)
            .collect();
        read.sort_unstable();
        (read, poll)
    };
    // Half of that is for `stat`: 1 to 27 are seen, and 25 to have changed.
    let (pids, poll) = read(11, &[25, 29]);
    assert_eq!(pids, [20, 21, 22, 23, 24, 25, 26, 27, 28]);
    assert_eq!(told(&poll)[0], (25, Some(3), Some(1)));
    assert_eq!(poll.counts.read, 9);
    assert_eq!(poll.oldest_boot_ns, Some(10 * S));
    // It goes on where it stopped: with 28 and 29, and then from the beginning.
    let (pids, poll) = read(12, &[]);
    assert_eq!(pids, [20, 21, 22, 23, 24, 25, 26, 29]);
    assert_eq!(told(&poll)[0], (29, Some(3), Some(1)));
    assert_eq!(poll.processes[0].span_ns(), Some(2 * S));
    // Whoever was not read is as it was, and tells no change.
    let not_read = poll.processes.iter().find(|p| p.pid == 27).unwrap();
    assert_eq!(
        (not_read.vmas_delta(), not_read.reading.vmas()),
        (None, Some(2))
    );
    assert_eq!(not_read.age_ns(poll.boot_ns), S);
    // They waited longest, and come first but for what changed.
    let (pids, _) = read(13, &[26]);
    assert_eq!(pids, [20, 21, 22, 23, 24, 26, 27, 28]);
    // That 28 changed is seen as `stat` went on from 23 to 24.
    let (pids, _) = read(14, &[28]);
    assert_eq!(pids, [20, 21, 22, 23, 24, 25, 28, 29]);
}

#[test]
fn one_that_is_too_large_costs_the_next_looks() {
    let procfs = Procfs::new("debt");
    procfs.put(&Made::new(20, &pages(2)));
    let mut poller = procfs.poller(Filter::default());
    everything(&mut poller);
    // It takes 120 ms of the 100 that there are: the next look has to wait.
    at(15 * S);
    CPU_STEP_NS.set(30_000_000);
    poller.look(Depth::Share).unwrap();
    CPU_STEP_NS.set(1_000_000);
    at(15 * S + S / 2);
    procfs.put(&Made::new(20, &pages(5)));
    poller.look(Depth::Share).unwrap();
    let poll = poller.report(9, By::Process).unwrap();
    assert_eq!(told(&poll), [(20, Some(2), Some(0))]);
    at(17 * S);
    poller.look(Depth::Share).unwrap();
    let poll = poller.report(9, By::Process).unwrap();
    assert_eq!(told(&poll), [(20, Some(5), Some(3))]);
}

#[test]
fn who_changes_all_the_time_does_not_keep_others_waiting() {
    let procfs = Procfs::new("busy");
    let maps = pages(2);
    for pid in 20..=40 {
        procfs.put(&Made::new(pid, &maps));
    }
    let mut poller = procfs.poller(Filter::default());
    everything(&mut poller);
    CPU_STEP_NS.set(1_000_000);
    for second in 0..20 {
        at((11 + second) * S);
        for pid in 20..40 {
            let total_bytes = Some(0x10_0000 + second * 0x1000);
            procfs.put(&Made {
                total_bytes,
                ..Made::new(pid, &maps)
            });
        }
        poller.look(Depth::Share).unwrap();
    }
    let poll = poller.report(99, By::Process).unwrap();
    let quiet = poll.processes.iter().find(|p| p.pid == 40).unwrap();
    assert!(quiet.age_ns(poll.boot_ns) < 10 * S, "{quiet:#?}");
}

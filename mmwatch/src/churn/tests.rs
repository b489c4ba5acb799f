use super::*;
use crate::{
    event::{Backing, Event, Op, Suspect, What},
    flags::RemapFlags,
    sample,
};

const LIMIT: u32 = 65_530;
const ALL_ROWS: usize = 100;

/// What the kernel shows: events so far, and who is alive.
#[derive(Default)]
struct Kernel {
    events: Vec<Event>,
    listed: Vec<Listed>,
}

impl Kernel {
    fn done(&mut self, tgid: u32, op: Op) -> &mut Self {
        self.events.push(sample::by(tgid, "p", sample::event(op)));
        self
    }

    fn alive(&mut self, tgids: &[u32]) -> &mut Self {
        let row = |tgid: &u32| sample::listed(*tgid, "p", 20 + tgid);
        self.listed = tgids.iter().map(row).collect();
        self
    }

    fn tick(&self, churn: &mut Churn, now_boot_ns: u64) -> Report {
        churn.update(
            now_boot_ns,
            &sample::kernel_sums(&self.events),
            &self.listed,
        );
        let report = churn.tick(now_boot_ns, LIMIT, ALL_ROWS);
        assert_adds_up(&report);
        report
    }
}

fn find(report: &Report, tgid: u32) -> &ProcessReport {
    let found = report
        .processes
        .iter()
        .find(|process| process.key.tgid == tgid);
    found.unwrap_or_else(|| panic!("no process {tgid}"))
}

fn order(report: &Report) -> Vec<u32> {
    report.processes.iter().map(|p| p.key.tgid).collect()
}

/// What every report must satisfy.
fn assert_adds_up(report: &Report) {
    let mut sum = report.other.clone();
    for process in &report.processes {
        sum.add(&process.row);
    }
    assert_eq!(sum, report.all);
}

fn sums_of(events: &[Event]) -> Sums {
    let mut sums = Sums::default();
    for event in events {
        add_event(&mut sums, event);
    }
    sums
}

#[test]
fn operations_are_summed_by_kind() {
    let map = sample::event(Op::Map);
    let sums = sums_of(&[map.clone(), map, sample::failed_map()]);
    assert_eq!(
        *sums.op(Op::Map),
        OpSums {
            count: 3,
            errors: 1,
            bytes: 16_384,
            vmas_delta: 3,
            total_delta_bytes: 24_576,
            held_count: 3,
            held_ns: 7_500,
        }
    );
    assert_eq!(
        *sums.backing(Backing::PrivateFile),
        BackingSums {
            maps: 2,
            bytes: 16_384
        }
    );
    // One removed and two made by each.
    assert_eq!((sums.vmas_made(), sums.vmas_removed), (6, 3));
}

#[test]
fn suspects_are_summed_by_kind() {
    let sums = sums_of(&[sample::suspect(), sample::event(Op::Map), sample::suspect()]);
    let counts: Vec<_> = Suspect::ALL
        .iter()
        .map(|&kind| sums.suspect(kind))
        .collect();
    assert_eq!(counts, [0, 2, 2, 0, 0, 0, 0]);
}

#[test]
fn bytes_mapped_and_unmapped_follow_the_operation() {
    let changes = |event: &Event| {
        let sums = sums_of(std::slice::from_ref(event));
        (sums.mapped_bytes, sums.unmapped_bytes)
    };
    assert_eq!(changes(&sample::event(Op::Map)), (8192, 0));
    assert_eq!(changes(&sample::failed_map()), (0, 0));
    assert_eq!(changes(&sample::event(Op::Unmap)), (0, 4096));
    assert_eq!(changes(&sample::event(Op::Grow)), (4096, 0));
    assert_eq!(changes(&sample::event(Op::Exit)), (0, 409_600));
    for op in [Op::Protect, Op::Advise, Op::Fork, Op::Exec] {
        assert_eq!(changes(&sample::event(op)), (0, 0), "{op:?}");
    }
    let mut brk = sample::event(Op::Brk);
    assert_eq!(changes(&brk), (135_168, 0));
    brk.space.total_delta_bytes = Some(-8192);
    assert_eq!(changes(&brk), (0, 135_168));
    brk.space.total_delta_bytes = None;
    assert_eq!(changes(&brk), (0, 0));

    // Where no range was seen, the net change stands in.
    for op in [Op::Map, Op::Unmap, Op::Remap] {
        let mut unseen = sample::bare(op);
        assert_eq!(changes(&unseen), (0, 0), "{op:?}");
        unseen.space.total_delta_bytes = Some(4096);
        assert_eq!(changes(&unseen), (4096, 0), "{op:?}");
        unseen.space.total_delta_bytes = Some(-4096);
        assert_eq!(changes(&unseen), (0, 4096), "{op:?}");
    }

    let mut remap = sample::event(Op::Remap);
    assert_eq!(changes(&remap), (12_288, 0));
    if let What::Remap(what) = &mut remap.what {
        what.old_len_bytes = Some(20_480);
    }
    assert_eq!(changes(&remap), (0, 4096));
    if let What::Remap(what) = &mut remap.what {
        what.flags = Some(RemapFlags(5));
    }
    assert_eq!(changes(&remap), (16_384, 0));
}

#[test]
fn intervals_start_anew_and_totals_go_on() {
    let mut churn = Churn::new(0, 4096);
    let mut kernel = Kernel::default();
    kernel.done(100, Op::Map).alive(&[100]).tick(&mut churn, 10);
    kernel.done(100, Op::Map).done(100, Op::Map);
    let report = kernel.tick(&mut churn, 15);
    assert_eq!((report.interval_ns, report.elapsed_ns), (5, 15));
    let row = &find(&report, 100).row;
    assert_eq!(row.interval.op(Op::Map).count, 2);
    assert_eq!(row.total.op(Op::Map).count, 3);

    let idle = kernel.tick(&mut churn, 20);
    assert_eq!(find(&idle, 100).row.interval, Sums::default());
    assert_eq!(idle.all.total.op(Op::Map).count, 3);
}

#[test]
fn looks_between_ticks_add_up() {
    let mut churn = Churn::new(0, 4096);
    let mut kernel = Kernel::default();
    kernel.alive(&[100]);
    for now in 1..4 {
        kernel.done(100, Op::Map);
        churn.update(now, &sample::kernel_sums(&kernel.events), &kernel.listed);
    }
    let report = kernel.tick(&mut churn, 4);
    assert_eq!(report.all.interval.op(Op::Map).count, 3);
}

#[test]
fn processes_that_do_nothing_have_their_counts() {
    let mut churn = Churn::new(0, 4096);
    let mut kernel = Kernel::default();
    let report = kernel.alive(&[100]).tick(&mut churn, 1);
    let process = find(&report, 100);
    assert_eq!((process.vmas, process.vmas_peak), (Some(120), Some(125)));
    assert_eq!(process.total_bytes, Some(409_600));
    assert_eq!(*process.row, Row::default());
}

#[test]
fn the_dead_are_shown_until_their_sums_are_final() {
    let mut churn = Churn::new(0, 4096);
    let mut kernel = Kernel::default();
    kernel.done(100, Op::Map).alive(&[100]).tick(&mut churn, 1);

    // It ends after the sums were read and before the list is.
    let key = ProcessKey::new(100, 1_000);
    let sums = sample::kernel_sums(&kernel.events);
    assert_eq!(churn.update(2, &sums, &[]), []);
    let report = churn.tick(2, LIMIT, ALL_ROWS);
    let process = find(&report, 100);
    assert!(!process.alive);
    assert_eq!((process.vmas, process.vmas_peak), (None, Some(125)));

    // What it did last shows up; then nothing more can come.
    kernel.done(100, Op::Exit);
    let sums = sample::kernel_sums(&kernel.events);
    assert_eq!(churn.update(3, &sums, &[]), []);
    assert_eq!(churn.update(4, &sums, &[]), [key]);
    let report = churn.tick(4, LIMIT, ALL_ROWS);
    assert_eq!(find(&report, 100).row.interval.op(Op::Exit).count, 1);

    // Forgotten by the kernel, it stays in the totals.
    assert_eq!(churn.update(5, &[], &[]), []);
    let report = churn.tick(5, LIMIT, ALL_ROWS);
    assert_adds_up(&report);
    assert_eq!(order(&report), [0; 0]);
    assert_eq!(report.all.total.op(Op::Map).count, 1);
    assert_eq!(report.other.total.op(Op::Exit).count, 1);
    assert_eq!(report.all.interval, Sums::default());
}

#[test]
fn a_reused_id_is_another_process() {
    let mut churn = Churn::new(0, 4096);
    let mut kernel = Kernel::default();
    kernel.done(100, Op::Map);
    let mut reused = sample::event(Op::Unmap);
    reused.actor.start_boot_ns += 1;
    kernel.events.push(reused);
    let report = kernel.tick(&mut churn, 1);
    assert_eq!(order(&report), [100, 100]);
    for process in &report.processes {
        assert_eq!(process.row.total.all_ops().count, 1);
    }
}

#[test]
fn those_without_room_are_summed_together() {
    let mut churn = Churn::new(0, 4096);
    let mut other = ProcessSums::default();
    add_event(&mut other.sums, &sample::event(Op::Map));
    churn.update(1, &[(ProcessKey::OTHER, other)], &[]);
    let report = churn.tick(1, LIMIT, ALL_ROWS);
    assert_adds_up(&report);
    assert_eq!(report.other.interval.op(Op::Map).count, 1);
    assert_eq!(order(&report), [0; 0]);
}

#[test]
fn the_ended_that_nobody_asks_for_are_bounded() {
    let mut churn = Churn::new(0, 4096);
    let count = MAX_ENDED as u32 + 10;
    let ended: Vec<_> = (1..=count)
        .map(|tgid| {
            let mut process = ProcessSums::default();
            add_event(&mut process.sums, &sample::event(Op::Map));
            (ProcessKey::new(tgid, 1), process)
        })
        .collect();
    churn.update(1, &ended, &[]);
    assert_eq!(churn.update(2, &ended, &[]).len(), ended.len());
    churn.update(3, &[], &[]);
    assert!(churn.processes.len() <= MAX_ENDED);
    let report = churn.tick(4, LIMIT, ALL_ROWS);
    assert_adds_up(&report);
    assert_eq!(report.all.total.op(Op::Map).count, u64::from(count));
    assert_eq!(report.all.interval.op(Op::Map).count, u64::from(count));
}

#[test]
fn the_busiest_come_first_and_the_rest_is_folded() {
    let mut churn = Churn::new(0, 4096);
    let mut kernel = Kernel::default();
    kernel.alive(&[1, 2, 3, 4, 5]);
    for (tgid, count) in [(1, 1), (2, 5), (3, 3)] {
        for _ in 0..count {
            kernel.done(tgid, Op::Map);
        }
    }
    churn.update(1, &sample::kernel_sums(&kernel.events), &kernel.listed);
    let report = churn.tick(1, LIMIT, 4);
    assert_adds_up(&report);
    // Of those that did nothing, the one with most VMAs.
    assert_eq!(order(&report), [2, 3, 1, 5]);
    kernel.done(1, Op::Map);
    churn.update(2, &sample::kernel_sums(&kernel.events), &kernel.listed);
    let report = churn.tick(2, LIMIT, 0);
    assert_adds_up(&report);
    assert_eq!(report.other.interval.op(Op::Map).count, 1);
    assert_eq!(report.other.total.op(Op::Map).count, 10);
}

#[test]
fn the_time_to_the_limit_follows_from_the_pace() {
    let mut churn = Churn::new(0, 4096);
    for (now, vmas) in [(0, 100), (2_000_000_000, 300)] {
        churn.update(now, &[], &[sample::listed(7, "grows", vmas)]);
    }
    let report = churn.tick(2_000_000_000, LIMIT, ALL_ROWS);
    let process = find(&report, 7);
    assert_eq!(process.slope.unwrap().vmas_per_s(), 100.0);
    assert_eq!(process.time_to_limit_ns(1_300), Some(10_000_000_000));
    assert_eq!(process.time_to_limit_ns(300), Some(0));
}

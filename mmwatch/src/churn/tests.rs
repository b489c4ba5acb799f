use super::*;
use crate::{
    event::{Backing, Cause, Op, What},
    sample,
};

const LIMIT: u32 = 65_530;

fn find(report: &Report, tgid: u32) -> &ProcessReport {
    report
        .processes
        .iter()
        .find(|process| process.key.tgid == tgid)
        .unwrap()
}

fn has(report: &Report, tgid: u32) -> bool {
    report
        .processes
        .iter()
        .any(|process| process.key.tgid == tgid)
}

/// What every report must satisfy.
fn assert_adds_up(report: &Report) {
    let mut sum = report.other.clone();
    for process in &report.processes {
        sum.add(&process.row);
    }
    assert_eq!(sum, report.all);
}

#[test]
fn operations_are_summed_by_kind() {
    let mut churn = Churn::new(1_000);
    churn.apply(&sample::event(Op::Map));
    churn.apply(&sample::event(Op::Map));
    churn.apply(&sample::failed_map());
    churn.apply(&sample::event(Op::Unmap));
    let report = churn.tick(3_000, LIMIT);
    assert_adds_up(&report);
    assert_eq!((report.interval_ns, report.elapsed_ns), (2_000, 2_000));
    let process = find(&report, 100);
    assert_eq!(process.vmas, Some(20));
    assert_eq!(process.row.interval, process.row.total);
    assert_eq!(
        *process.row.total.op(Op::Map),
        OpSums {
            count: 3,
            errors: 1,
            bytes: 2 * 8192,
            vmas_delta: 3,
            total_delta_bytes: 3 * 8192,
            held_count: 3,
            held_ns: 3 * 2_500,
        }
    );
    assert_eq!(
        *process.row.total.backing(Backing::PrivateFile),
        BackingSums {
            maps: 2,
            bytes: 2 * 8192
        }
    );
    // The failed one was to be private-anonymous, and was not made.
    assert_eq!(
        *process.row.total.backing(Backing::PrivateAnonymous),
        BackingSums::default()
    );
    assert_eq!(process.row.total.unmapped_bytes, 4096);
    assert_eq!(process.row.total.all_ops().count, 4);
}

#[test]
fn bytes_go_up_and_down_by_what_was_done() {
    let changes = |event: &Event| {
        let mut churn = Churn::new(0);
        churn.apply(event);
        let sums = churn.tick(1, LIMIT).all.total;
        (sums.mapped_bytes, sums.unmapped_bytes)
    };
    let shrinking = |op| {
        let mut event = sample::event(op);
        event.space.total_delta_bytes = Some(-4096);
        event
    };
    assert_eq!(changes(&sample::event(Op::Map)), (8192, 0));
    assert_eq!(changes(&sample::event(Op::Unmap)), (0, 4096));
    assert_eq!(changes(&sample::event(Op::Grow)), (4096, 0));
    assert_eq!(changes(&sample::event(Op::Exit)), (0, 409_600));
    assert_eq!(changes(&sample::event(Op::Brk)), (135_168, 0));
    assert_eq!(changes(&shrinking(Op::Brk)), (0, 135_168));
    assert_eq!(changes(&sample::event(Op::Remap)), (16_384 - 4096, 0));
    for op in [Op::Protect, Op::Advise, Op::Fork, Op::Exec] {
        assert_eq!(changes(&sample::event(op)), (0, 0), "{op:?}");
    }

    // The loader's mappings come without a range on some kernels.
    for op in [Op::Map, Op::Unmap, Op::Remap] {
        let mut unseen = sample::bare(op);
        assert_eq!(changes(&unseen), (0, 0), "{op:?}");
        unseen.space.total_delta_bytes = Some(4096);
        assert_eq!(changes(&unseen), (4096, 0), "{op:?}");
        unseen.space.total_delta_bytes = Some(-4096);
        assert_eq!(changes(&unseen), (0, 4096), "{op:?}");
    }

    let mut remap = sample::event(Op::Remap);
    if let What::Remap(what) = &mut remap.what {
        what.old_len_bytes = Some(20_480);
    }
    assert_eq!(changes(&remap), (0, 4096));
    if let What::Remap(what) = &mut remap.what {
        what.flags = Some(crate::flags::RemapFlags(5));
    }
    assert_eq!(changes(&remap), (16_384, 0));
}

#[test]
fn intervals_start_anew_and_totals_go_on() {
    let mut churn = Churn::new(0);
    churn.apply(&sample::event(Op::Map));
    churn.tick(10, LIMIT);
    churn.apply(&sample::event(Op::Map));
    churn.apply(&sample::event(Op::Map));
    let report = churn.tick(15, LIMIT);
    assert_adds_up(&report);
    assert_eq!((report.interval_ns, report.elapsed_ns), (5, 15));
    let row = &find(&report, 100).row;
    assert_eq!(row.interval.op(Op::Map).count, 2);
    assert_eq!(row.total.op(Op::Map).count, 3);

    let idle = churn.tick(20, LIMIT);
    assert_eq!(find(&idle, 100).row.interval, Sums::default());
    assert_eq!(idle.all.total.op(Op::Map).count, 3);
}

#[test]
fn the_dead_are_shown_once_and_stay_in_the_totals() {
    let mut churn = Churn::new(0);
    churn.apply(&sample::event(Op::Map));
    churn.apply(&sample::event(Op::Exit));
    let report = churn.tick(1, LIMIT);
    let process = find(&report, 100);
    assert!(!process.alive);
    assert_eq!(process.vmas, Some(0));
    let report = churn.tick(2, LIMIT);
    assert_adds_up(&report);
    assert!(!has(&report, 100));
    assert_eq!(report.all.total.op(Op::Map).count, 1);
    assert_eq!(report.other.total.op(Op::Exit).count, 1);
    assert_eq!(report.all.interval, Sums::default());
}

#[test]
fn exec_ends_an_address_space_but_no_process() {
    let mut churn = Churn::new(0);
    churn.apply(&sample::event(Op::Map));
    let mut old = sample::event(Op::Exit);
    old.cause = Cause::Exec;
    old.space.vmas = Some(0);
    churn.apply(&old);
    let report = churn.tick(1, LIMIT);
    let process = find(&report, 100);
    assert!(process.alive);
    // The old space's last count is not the new one's.
    assert_eq!(process.vmas, Some(20));
}

#[test]
fn a_reused_id_is_another_process() {
    let mut churn = Churn::new(0);
    churn.apply(&sample::event(Op::Map));
    let mut reused = sample::event(Op::Map);
    reused.actor.start_boot_ns += 1;
    churn.apply(&reused);
    let report = churn.tick(1, LIMIT);
    assert_eq!(report.processes.len(), 2);
    assert_adds_up(&report);
}

#[test]
fn the_first_threads_name_is_the_processs() {
    let mut churn = Churn::new(0);
    let mut thread = sample::event(Op::Map);
    thread.actor.tid += 1;
    thread.actor.comm = sample::comm("worker");
    churn.apply(&thread);
    assert_eq!(
        find(&churn.tick(1, LIMIT), 100).comm,
        sample::comm("worker")
    );
    churn.apply(&sample::event(Op::Map));
    churn.apply(&thread);
    assert_eq!(
        find(&churn.tick(2, LIMIT), 100).comm,
        sample::comm("sample")
    );
}

#[test]
fn memory_is_bounded_and_the_totals_stay_right() {
    let mut churn = Churn::with_capacity(0, 3);
    for tgid in 1..=5 {
        churn.apply(&sample::by(tgid, "p", sample::event(Op::Map)));
    }
    let report = churn.tick(1, LIMIT);
    assert_eq!(report.processes.len(), 3);
    assert_eq!(report.other.total.op(Op::Map).count, 2);
    assert_eq!(report.all.total.op(Op::Map).count, 5);
    assert_adds_up(&report);

    // Full: at the next tick those that did nothing make room.
    churn.apply(&sample::by(1, "p", sample::event(Op::Map)));
    let report = churn.tick(2, LIMIT);
    assert_adds_up(&report);
    churn.apply(&sample::by(9, "p", sample::event(Op::Map)));
    let report = churn.tick(3, LIMIT);
    assert_adds_up(&report);
    assert!(has(&report, 1) && has(&report, 9) && report.processes.len() == 2);
    assert_eq!(report.all.total.op(Op::Map).count, 7);
}

#[test]
fn ranking_puts_the_busiest_first_and_folds_the_rest() {
    let mut churn = Churn::new(0);
    for (tgid, count) in [(1, 1), (2, 5), (3, 3)] {
        for _ in 0..count {
            churn.apply(&sample::by(tgid, "p", sample::event(Op::Map)));
        }
    }
    let mut report = churn.tick(1, LIMIT);
    let all = report.all.clone();
    report.rank(2);
    let order: Vec<_> = report
        .processes
        .iter()
        .map(|process| process.key.tgid)
        .collect();
    assert_eq!(order, [2, 3]);
    assert_eq!(report.other.total.op(Op::Map).count, 1);
    assert_eq!(report.all, all);
    assert_adds_up(&report);
    report.rank(0);
    assert_adds_up(&report);
}

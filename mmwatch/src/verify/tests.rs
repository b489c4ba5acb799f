use super::*;
use crate::{
    event::Op,
    flags::Prot,
    sample,
    space::{Mapping, Ranges},
};

const PAGE: u64 = 4096;
const TGID: u32 = 100;

/// A process that stands still: 100 pages in one range, in 20 VMAs.
fn listed() -> Listed {
    sample::listed(TGID, "p", 20)
}

fn id() -> SpaceId {
    let row = listed();
    SpaceId {
        mm: row.mm,
        born_boot_ns: row.born_ns,
    }
}

fn snapshot() -> Snapshot {
    let mut ranges = Ranges::default();
    ranges.set(0..100 * PAGE, Mapping::HEAP);
    Snapshot {
        ranges,
        vmas: 20,
        zero_file: None,
    }
}

/// A verifier whose model of the process is whole.
fn verifier() -> Verifier {
    let mut verifier = Verifier::new(0, PAGE);
    let rows = [listed()];
    assert_eq!(verifier.wanting(1, &rows, 0, true), [(id(), TGID)]);
    let look = Look {
        before: &rows,
        snapshots: vec![(id(), snapshot())],
        after: &rows,
    };
    verifier.heal(1, look);
    assert_eq!(verifier.wanting(1, &rows, 0, true), []);
    verifier
}

/// One look; returns the verdict and whether there is to be another.
fn compare(
    verifier: &mut Verifier,
    before: &Listed,
    snapshot: Snapshot,
    after: &Listed,
) -> (Verdict, bool) {
    let (before, after) = ([*before], [*after]);
    verifier.begin(&before);
    let look = Look {
        before: &before,
        snapshots: vec![(id(), snapshot)],
        after: &after,
    };
    let again = verifier.compare(2, &look);
    let [checked] = &verifier.round.processes[..] else {
        panic!("{:?}", verifier.round.processes);
    };
    (checked.verdict.clone(), !again.is_empty())
}

#[test]
fn what_is_the_same_is_told_so() {
    let mut verifier = verifier();
    let row = listed();
    assert_eq!(
        compare(&mut verifier, &row, snapshot(), &row),
        (Verdict::Same, false)
    );
    let round = verifier.end(3);
    assert_eq!(round.count(|verdict| *verdict == Verdict::Same), 1);
    assert_eq!(
        (round.number, round.heals, verifier.differences()),
        (1, 1, 0)
    );
}

#[test]
fn a_difference_is_told_and_counted() {
    let mut verifier = verifier();
    let row = listed();
    let mut other = snapshot();
    other.vmas = 21;
    other.ranges.protect(5 * PAGE..6 * PAGE, Prot(1));
    let (verdict, again) = compare(&mut verifier, &row, other, &row);
    let Verdict::Different(differences) = &verdict else {
        panic!("{verdict:?}");
    };
    assert!(again);
    let names: Vec<_> = differences.iter().map(Difference::name).collect();
    assert_eq!(names, ["range", "vmas"]);
    verifier.end(3);
    assert_eq!(verifier.differences(), 2);
}

#[test]
fn who_does_not_stand_still_is_busy() {
    let row = listed();
    let busy = (Verdict::Busy, true);
    for moved in [
        Listed { sections: 4, ..row },
        Listed { pages: 101, ..row },
        Listed { vmas: 21, ..row },
    ] {
        let mut verifier = verifier();
        assert_eq!(compare(&mut verifier, &row, snapshot(), &moved), busy);
        assert_eq!(
            verifier.end(3).count(|verdict| *verdict == Verdict::Busy),
            1
        );
        assert_eq!(verifier.differences(), 0);
    }
    // It stands still, but not all of what it did came.
    let ahead = Listed { sections: 4, ..row };
    assert_eq!(compare(&mut verifier(), &ahead, snapshot(), &ahead), busy);
}

#[test]
fn what_is_not_whole_is_healing() {
    let row = listed();
    let mut verifier = Verifier::new(0, PAGE);
    assert_eq!(
        compare(&mut verifier, &row, snapshot(), &row),
        (Verdict::Healing(Reason::NeverRead), false)
    );
}

#[test]
fn skipped_programs_are_to_be_healed() {
    let mut verifier = verifier();
    let rows = [listed()];
    assert_eq!(verifier.wanting(2, &rows, 1, true), [(id(), TGID)]);
    assert_eq!(
        compare(&mut verifier, &rows[0], snapshot(), &rows[0]).0,
        Verdict::Healing(Reason::Skipped)
    );
}

#[test]
fn a_difference_of_sums_is_told_and_counted() {
    let event = sample::event(Op::Protect);
    let once = sample::kernel_sums(std::slice::from_ref(&event));
    let twice = sample::kernel_sums(&[event.clone(), event.clone()]);
    let mut verifier = verifier();
    verifier.note(&event);
    assert!(!verifier.compare_sums(&once, &once));
    assert!(verifier.compare_sums(&twice, &twice));
    let row = listed();
    assert_eq!(
        compare(&mut verifier, &row, snapshot(), &row),
        (Verdict::Same, false)
    );
    verifier.end(3);
    let found = verifier.differences();
    assert!(found > 0);

    // And of a process that differs anyway.
    assert!(verifier.compare_sums(&twice, &twice));
    let mut other = snapshot();
    other.vmas = 21;
    compare(&mut verifier, &row, other, &row);
    verifier.end(4);
    assert_eq!(verifier.differences(), found + found + 1);
}

#[test]
fn sums_that_move_are_not_compared() {
    let event = sample::event(Op::Protect);
    let once = sample::kernel_sums(std::slice::from_ref(&event));
    let twice = sample::kernel_sums(&[event.clone(), event]);
    let mut verifier = verifier();
    assert!(!verifier.compare_sums(&once, &twice));
    // It has an entry only now.
    assert!(!verifier.compare_sums(&[], &once));
    // Nor are those of all who found no room.
    let other = [(ProcessKey::OTHER, once[0].1)];
    assert!(!verifier.compare_sums(&other, &other));
    verifier.end(3);
    assert_eq!(verifier.differences(), 0);
}

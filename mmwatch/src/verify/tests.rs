use super::*;
use crate::{
    churn::OpSums,
    event::Op,
    sample::{self, kernel_sums, listed},
    space::Reason,
};

const NOW: u64 = 10_000_000_000;

/// One anonymous range of 100 pages, as the sample's process is listed with.
const MAPS: &str = "7f0000000000-7f0000064000 rw-p 00000000 00:00 0 \n";

fn row(sections: u64) -> Listed {
    Listed {
        sections,
        vmas: 1,
        ..listed(100, "sample", 20)
    }
}

fn id(row: &Listed) -> SpaceId {
    with_id(row).unwrap().0
}

fn look<'a>(before: &'a [Listed], maps: &str, after: &'a [Listed]) -> Look<'a> {
    let snapshot = Snapshot::parse(maps.as_bytes()).unwrap();
    Look {
        before,
        snapshots: vec![(id(&before[0]), snapshot)],
        after,
    }
}

/// A verifier whose model was healed at section 3.
fn healed() -> Verifier {
    let mut verifier = Verifier::new(0, 4096);
    let listed = [row(3)];
    assert_eq!(
        verifier.wanting(NOW, &listed, 0, true),
        [(id(&row(3)), 100)]
    );
    verifier.heal(NOW, look(&listed, MAPS, &listed));
    assert_eq!(verifier.wanting(NOW, &listed, 0, true), []);
    verifier
}

/// The verdict of one look, and what is to be looked at again.
fn verdict(verifier: &mut Verifier, look: &Look<'_>) -> (Verdict, usize) {
    verifier.begin(look.before);
    let again = verifier.compare(NOW, look).len();
    let round = verifier.end(NOW);
    assert_eq!(round.processes.len(), 1);
    (round.processes[0].verdict.clone(), again)
}

#[test]
fn a_model_that_says_the_same_is_the_same() {
    let mut verifier = healed();
    let listed = [row(3)];
    let found = verdict(&mut verifier, &look(&listed, MAPS, &listed));
    assert_eq!(found, (Verdict::Same, 0));
    assert_eq!(verifier.differences(), 0);
}

#[test]
fn a_range_that_differs_is_told_and_counted() {
    let mut verifier = healed();
    let listed = [row(3)];
    let other = MAPS.replace("rw-p", "r--p");
    let (found, again) = verdict(&mut verifier, &look(&listed, &other, &listed));
    let Verdict::Different(differences) = found else {
        panic!("{found:?}");
    };
    assert_eq!(again, 1);
    assert_eq!(
        differences[0].to_string(),
        "7f0000000000-7f0000064000 is r--p anonymous in the kernel and rw-p anonymous here"
    );
    assert_eq!(verifier.differences(), 1);
}

#[test]
fn lines_and_count_must_agree() {
    let mut verifier = healed();
    let listed = [Listed { vmas: 2, ..row(3) }];
    let (found, _) = verdict(&mut verifier, &look(&listed, MAPS, &listed));
    let vmas = Difference::Vmas {
        counted: 2,
        listed: 1,
    };
    assert_eq!(found, Verdict::Different(vec![vmas]));
}

#[test]
fn who_does_not_stand_still_is_busy() {
    let mut verifier = healed();
    let (found, again) = verdict(&mut verifier, &look(&[row(3)], "", &[row(4)]));
    assert_eq!((found, again), (Verdict::Busy, 1));

    // A section may be under way that is in the maps already.
    let quiet = [row(3)];
    let locked = [Listed {
        is_locked: 1,
        ..row(3)
    }];
    for (before, after) in [(&quiet, &locked), (&locked, &quiet)] {
        let (found, again) = verdict(&mut verifier, &look(before, "", after));
        assert_eq!((found, again), (Verdict::Busy, 1));
    }
    // Nor is the total looked at while it is.
    let halfway = Listed {
        pages: 1,
        ..locked[0]
    };
    let wanting = verifier.wanting(NOW, &[halfway], 0, true);
    assert_eq!(wanting, []);
    let (found, _) = verdict(&mut verifier, &look(&quiet, MAPS, &quiet));
    assert_eq!(found, Verdict::Same);
}

#[test]
fn a_model_that_went_on_is_not_compared_with_what_was_before() {
    let mut verifier = healed();
    let mut event = sample::bare(Op::Advise);
    event.cause = crate::event::Cause::Madvise;
    event.space = sample::event(Op::Advise).space;
    event.space.id = Some(id(&row(3)));
    event.space.section = std::num::NonZeroU64::new(4);
    event.space.total_delta_bytes = Some(0);
    verifier.note(&event);
    let listed = [row(3)];
    let (found, _) = verdict(&mut verifier, &look(&listed, "", &listed));
    assert_eq!(found, Verdict::Busy);
}

#[test]
fn what_is_not_known_heals() {
    let mut verifier = Verifier::new(0, 4096);
    let listed = [row(3)];
    let (found, again) = verdict(&mut verifier, &look(&listed, MAPS, &listed));
    assert_eq!((found, again), (Verdict::Healing(Reason::NeverRead), 0));

    // Programs that the kernel skipped may have told of anything.
    let mut verifier = healed();
    assert_eq!(verifier.wanting(NOW, &listed, 1, true).len(), 1);
    // A section that nobody told of: it may be on its way, and is given up after a while.
    let mut verifier = healed();
    let listed = [row(4)];
    assert_eq!(verifier.wanting(NOW, &listed, 0, true), []);
    assert_eq!(
        verifier.wanting(NOW + 200_000_000, &listed, 0, true).len(),
        1
    );
    // Ended processes are forgotten.
    assert_eq!(verifier.wanting(NOW, &[], 0, true), []);
    assert!(verifier.spaces.is_empty());
}

#[test]
fn without_the_order_of_events_every_event_asks_for_a_look() {
    let mut verifier = healed();
    assert_eq!(verifier.wanting(NOW, &[row(3)], 0, false), []);
    assert_eq!(verifier.wanting(NOW, &[row(4)], 0, false), []);
    let later = NOW + 200_000_000;
    assert_eq!(verifier.wanting(later, &[row(4)], 0, false).len(), 1);
}

#[test]
fn sums_are_held_against_the_kernels() {
    let mut verifier = healed();
    let event = sample::event(Op::Map);
    let kernel = kernel_sums(std::slice::from_ref(&event));
    // Not while they change.
    assert!(!verifier.compare_sums(&[], &kernel));
    assert!(verifier.compare_sums(&kernel, &kernel));
    verifier.note(&event);
    assert!(!verifier.compare_sums(&kernel, &kernel));

    let mut wrong = kernel.clone();
    wrong[0].1.sums.ops[Op::Map as usize] += &OpSums {
        held_ns: 1,
        ..OpSums::default()
    };
    assert!(verifier.compare_sums(&wrong, &wrong));
    verifier.begin(&[]);
    let round = verifier.end(NOW);
    assert_eq!(round.count(|v| matches!(v, Verdict::Different(_))), 1);
    assert_eq!(verifier.differences(), 1);

    // Together with what else differs of the same process.
    let listed = [Listed {
        tgid: kernel[0].0.tgid,
        start_boot_ns: kernel[0].0.start_boot_ns,
        vmas: 2,
        ..row(3)
    }];
    verifier.begin(&listed);
    verifier.compare(NOW, &look(&listed, MAPS, &listed));
    assert!(verifier.compare_sums(&wrong, &wrong));
    let processes = &verifier.end(NOW).processes;
    assert_eq!(processes.len(), 1);
    let Verdict::Different(differences) = &processes[0].verdict else {
        panic!("{:?}", processes[0].verdict);
    };
    let names: Vec<_> = differences.iter().map(Difference::name).collect();
    assert_eq!(names, ["vmas", "sum"]);
}

#[test]
fn the_finished_are_forgotten_and_operations_told() {
    let mut verifier = healed();
    let event = sample::event(Op::Map);
    verifier.note(&event);
    let kernel = kernel_sums(&[event.clone(), event]);
    let listed = [row(3)];
    verifier.begin(&listed);
    verifier.compare(NOW, &look(&listed, MAPS, &listed));
    assert_eq!(verifier.note_sums(NOW, &kernel, &listed), []);
    assert_eq!(verifier.end(NOW).processes[0].operations, 2);
    assert_eq!(verifier.note_sums(NOW, &kernel, &[]), []);
    assert_eq!(verifier.note_sums(NOW, &kernel, &[]), [kernel[0].0]);
    assert!(verifier.received.is_empty());
}

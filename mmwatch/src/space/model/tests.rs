mod kernel;
mod random;

use std::ops::Range;

use self::kernel::*;
use super::*;
use crate::{
    event::{self, Advise, Cause, Exit, Op},
    flags::Errno,
    sample,
};

#[track_caller]
fn assert_exact(kernel: &Kernel) {
    let space = kernel.model();
    assert_eq!(space.wants_healing(u64::MAX), None);
    assert!(space.is_exact());
    assert_eq!(space.ranges(), kernel.now());
    assert_eq!(space.applied_section(), kernel.last_section());
}

#[track_caller]
fn assert_wants(kernel: &Kernel, reason: Reason) {
    let space = kernel.model();
    assert_eq!(space.wants_healing(0), Some(reason));
    assert!(!space.is_exact());
}

#[test]
fn every_kind_of_change_is_redone() {
    let mut kernel = Kernel::new();
    kernel.map(pages(0..8), anonymous(3));
    kernel.map(pages(2..4), file(1, 5, false));
    kernel.protect(pages(1..3), 5);
    kernel.unmap(pages(6..7));
    kernel.remap(pages(3..4), pages(20..22), 1);
    kernel.remap(pages(20..22), pages(0..2), 3);
    kernel.remap(pages(0..2), pages(0..1), 0);
    kernel.remap(pages(4..5), pages(30..31), 7);
    kernel.map(pages(40..41), file(2, 0, true));
    kernel.remap(pages(40..40), pages(42..46), 1);
    kernel.brk(pages(50..53), true);
    kernel.brk(pages(53..55), true);
    kernel.brk(pages(54..55), false);
    assert_exact(&kernel);
    let space = kernel.model();
    assert_eq!(space.applied_events(), kernel.events.len() as u64);
    assert_eq!(
        (space.applied_since_heal(), space.heals()),
        (space.applied_events(), 1)
    );
}

#[test]
fn nothing_is_known_before_it_was_read() {
    let space = Space::new(ID);
    assert_eq!(space.wants_healing(0), Some(Reason::NeverRead));
    assert!(!space.is_exact());
    let mut kernel = Kernel::new();
    kernel.map(pages(0..1), anonymous(3));
    let mut space = Space::new(ID);
    space.note(&kernel.events[0]);
    assert!(space.ranges().is_empty());
    // What was kept is applied to what is read.
    assert_eq!(
        space.heal(Read::between(0, 0), Ranges::default(), 0),
        Healed::Exact
    );
    assert_eq!(space.ranges(), kernel.now());
}

#[test]
fn what_is_not_told_is_to_be_read() {
    let mut kernel = Kernel::new();
    kernel.grow(pages(0..1));
    assert_wants(&kernel, Reason::StackGrew);

    let mut kernel = Kernel::new();
    kernel.map(pages(0..1), anonymous(3));
    kernel.last_event().space.drifted = true;
    assert_wants(&kernel, Reason::Drifted);

    let mut kernel = Kernel::new();
    kernel.section(vec![(Cause::Exec, sample::event(Op::Exec).what)], |_| {});
    assert_wants(&kernel, Reason::NewProgram);
    // One that the kernel programs had not met.
    kernel.last_event().space.section = None;
    assert_wants(&kernel, Reason::NewProgram);

    let mut kernel = Kernel::new();
    kernel.map(
        pages(0..1),
        Mapping {
            shared: true,
            ..anonymous(3)
        },
    );
    assert_wants(&kernel, Reason::UnknownFile);
}

#[test]
fn events_without_a_section_change_nothing() {
    let mut kernel = Kernel::new();
    kernel.map(pages(0..1), anonymous(3));
    let mut space = kernel.model();
    let before = space.clone();
    let mut failed = kernel.events[0].clone();
    failed.space.section = None;
    failed.errno = Errno::new(libc::EINVAL as u32);
    space.note(&failed);
    space.note(&Event {
        space: event::Space {
            section: None,
            ..failed.space
        },
        ..sample::event(Op::Fork)
    });
    assert!(space.is_exact());
    assert_eq!(space.ranges(), before.ranges());
}

#[test]
fn a_total_that_is_not_the_kernels_is_noticed() {
    let mut kernel = Kernel::new();
    kernel.map(pages(0..4), anonymous(3));
    kernel.last_event().space.total_delta_bytes = Some(5 * PAGE as i64);
    assert_wants(&kernel, Reason::TotalDiffers);
    // Not if the numbers were not read under the lock.
    kernel.last_event().space.settled = false;
    assert_exact(&kernel);
}

#[test]
fn a_move_that_does_not_fit_what_is_known_is_to_be_read() {
    let mut kernel = Kernel::new();
    kernel.map(pages(0..1), anonymous(3));
    kernel.map(pages(1..2), anonymous(1));
    kernel.remap(pages(0..2), pages(10..12), 3);
    assert_wants(&kernel, Reason::SeveralMoved);

    let mut kernel = Kernel::new();
    kernel.remap(pages(0..0), pages(10..12), 1);
    assert_wants(&kernel, Reason::SeveralMoved);

    // A shrink only unmaps, whatever is there.
    let mut kernel = Kernel::new();
    kernel.map(pages(0..1), anonymous(3));
    kernel.map(pages(1..2), anonymous(1));
    kernel.map(pages(3..4), anonymous(1));
    kernel.remap(pages(0..4), pages(0..1), 0);
    assert_exact(&kernel);
}

#[test]
fn a_heap_is_executable_where_reading_implies_it() {
    let mut kernel = Kernel::new();
    kernel.map(pages(0..1), anonymous(7));
    kernel.brk(pages(1..2), true);
    assert_wants(&kernel, Reason::ReadImpliesExec);

    let mut kernel = Kernel::new();
    kernel.map(pages(10..11), anonymous(5));
    if let What::Map(map) = &mut kernel.last_event().what {
        map.prot = Some(Prot(1));
    }
    assert_exact(&kernel);
    let mut heap = kernel.clone();
    heap.brk(pages(1..2), true);
    assert_wants(&heap, Reason::ReadImpliesExec);
    let mut other = kernel.clone();
    other.protect(pages(10..11), 0);
    assert_exact(&other);
    kernel.protect(pages(10..11), 3);
    assert_wants(&kernel, Reason::ReadImpliesExec);
}

#[test]
fn a_segment_without_holes_is_detached() {
    let detach = |kernel: &mut Kernel, range: Range<u64>| {
        let mut unmap = unmap(&range);
        if let What::Unmap(unmap) = &mut unmap {
            unmap.span_bytes = None;
        }
        kernel.section(vec![(Cause::Shmdt, unmap)], |ranges| ranges.clear(range));
    };
    let mut kernel = Kernel::new();
    kernel.map(pages(0..4), file(7, 0, true));
    let attached = kernel.clone();
    detach(&mut kernel, pages(0..4));
    assert_exact(&kernel);
    // A hole: the two pages told of may be any two.
    let mut kernel = attached.clone();
    kernel.unmap(pages(1..3));
    detach(&mut kernel, pages(0..2));
    assert_wants(&kernel, Reason::Unseen);
    // Not the start of a segment.
    let mut kernel = attached;
    kernel.unmap(pages(0..1));
    detach(&mut kernel, pages(1..4));
    assert_wants(&kernel, Reason::Unseen);
}

#[test]
fn sections_are_applied_in_their_order() {
    let mut kernel = Kernel::new();
    kernel.map(pages(0..4), anonymous(3));
    kernel.unmap(pages(0..4));
    kernel.map(pages(0..2), anonymous(1));
    kernel.events.rotate_left(1);
    let space = kernel.model();
    assert!(space.is_exact());
    assert_eq!(space.ranges(), kernel.now());
}

#[test]
fn a_section_is_applied_when_all_of_it_is_in() {
    let mut kernel = Kernel::new();
    kernel.map(pages(0..4), anonymous(3));
    kernel.map(pages(0..4), anonymous(1));
    let last = kernel.events.pop().unwrap();
    assert!(kernel.events[1].more);
    let mut space = kernel.model();
    assert!(!space.is_exact());
    assert_eq!(space.ranges(), &kernel.after[1]);
    space.note(&last);
    assert!(space.is_exact());
    assert_eq!(space.ranges(), kernel.now());
}

#[test]
fn a_missing_section_is_waited_for_but_not_for_ever() {
    let mut kernel = Kernel::new();
    kernel.map(pages(0..1), anonymous(3));
    kernel.map(pages(2..3), anonymous(3));
    kernel.map(pages(4..5), anonymous(3));
    let lost = kernel.events.remove(1);
    let mut space = kernel.model();
    let shown_ns = kernel.boot_ns();
    assert!(!space.is_exact());
    assert_eq!(space.wants_healing(shown_ns + MAX_GAP_NS - 1), None);
    assert_eq!(
        space.wants_healing(shown_ns + MAX_GAP_NS),
        Some(Reason::Gap)
    );
    // It was late, not lost.
    space.note(&lost);
    assert_eq!(space.wants_healing(u64::MAX), None);
    assert_eq!(space.ranges(), kernel.now());
    // What was read has it, and it comes after all.
    let mut space = kernel.model();
    assert_eq!(
        space.heal(Read::between(3, 3), kernel.now().clone(), 0),
        Healed::Exact
    );
    space.note(&lost);
    space.note(&kernel.events[1]);
    assert!(space.is_exact());
    assert_eq!(space.ranges(), kernel.now());
    assert_eq!((space.heals(), space.applied_since_heal()), (2, 0));
}

#[test]
fn what_waits_is_bounded() {
    let mut kernel = Kernel::new();
    for page in 0..MAX_PENDING as u64 + 2 {
        kernel.map(pages(page..page + 1), anonymous(3));
    }
    kernel.events.remove(0);
    let last = kernel.events.pop().unwrap();
    let full = kernel.model();
    assert_eq!(full.wants_healing(0), None);
    assert_eq!(full.pending.len(), MAX_PENDING);
    kernel.events.push(last);
    let mut space = kernel.model();
    assert_eq!(space.wants_healing(0), Some(Reason::TooMuchPending));
    assert_eq!(space.pending.len(), MAX_PENDING);
    let section = kernel.last_section();
    // The oldest went: read before that, it is missing.
    let mut older = space.clone();
    assert_eq!(
        older.heal(Read::between(1, 1), kernel.after[1].clone(), 0),
        Healed::Waiting
    );
    assert_eq!(older.wants_healing(u64::MAX), Some(Reason::Gap));
    assert_eq!(
        space.heal(
            Read::between(section - 1, section - 1),
            kernel.after[section as usize - 1].clone(),
            0
        ),
        Healed::Exact
    );
    assert_eq!(space.ranges(), kernel.now());
}

#[test]
fn what_changed_while_it_was_read_is_redone() {
    let mut kernel = Kernel::new();
    kernel.map(pages(0..4), anonymous(3));
    kernel.unmap(pages(1..2));
    kernel.protect(pages(2..4), 1);
    // Read between 1 and 3: the unmap is in it, the protection in part.
    let mut torn = kernel.after[2].clone();
    torn.protect(pages(3..4), Prot(1));
    let mut space = Space::new(ID);
    space.note(&kernel.events[0]);
    assert_eq!(space.heal(Read::between(1, 3), torn, 5), Healed::Waiting);
    assert!(!space.is_exact());
    assert_eq!(space.wants_healing(5), None);
    assert_eq!(space.wants_healing(5 + MAX_GAP_NS), Some(Reason::Gap));
    space.note(&kernel.events[1]);
    assert!(!space.is_exact());
    space.note(&kernel.events[2]);
    assert!(space.is_exact());
    assert_eq!(space.ranges(), kernel.now());
}

#[test]
fn a_move_while_it_was_read_cannot_be_redone() {
    let mut kernel = Kernel::new();
    kernel.map(pages(0..1), anonymous(3));
    kernel.remap(pages(0..1), pages(4..5), 1);
    let mut space = Space::new(ID);
    for event in &kernel.events {
        space.note(event);
    }
    let both = {
        let mut ranges = kernel.after[1].clone();
        ranges.set(pages(4..5), anonymous(3));
        ranges
    };
    assert_eq!(
        space.heal(Read::between(1, 2), both.clone(), 0),
        Healed::Not(Reason::TornRead)
    );
    // Its event comes later.
    let mut space = Space::new(ID);
    assert_eq!(space.heal(Read::between(1, 2), both, 0), Healed::Waiting);
    space.note(&kernel.events[1]);
    assert_eq!(space.wants_healing(0), Some(Reason::TornRead));
    // Read again.
    assert_eq!(
        space.heal(Read::between(2, 2), kernel.now().clone(), 0),
        Healed::Exact
    );
}

#[test]
fn what_was_read_too_early_is_refused() {
    let mut kernel = Kernel::new();
    kernel.map(pages(0..1), anonymous(3));
    kernel.map(pages(1..2), anonymous(3));
    let mut space = kernel.model();
    assert_eq!(
        space.heal(Read::between(1, 1), kernel.after[1].clone(), 0),
        Healed::TooOld
    );
    assert_eq!(space.ranges(), kernel.now());
    assert_eq!(space.heals(), 1);
}

#[test]
fn an_unexplained_section_is_met_again_unless_it_was_read() {
    let mut kernel = Kernel::new();
    kernel.grow(pages(0..1));
    kernel.map(pages(2..3), anonymous(3));
    let mut early = kernel.model();
    assert_eq!(
        early.heal(Read::between(0, 0), Ranges::default(), 0),
        Healed::Not(Reason::StackGrew)
    );
    let mut space = kernel.model();
    assert_eq!(
        space.heal(Read::between(1, 1), kernel.after[1].clone(), 0),
        Healed::Exact
    );
    assert_eq!(space.ranges(), kernel.now());
}

#[test]
fn an_audit_finds_what_no_event_told() {
    let mut kernel = Kernel::new();
    kernel.map(pages(0..1), anonymous(3));
    let total_bytes = kernel.now().total_bytes();
    let mut space = kernel.model();
    space.audit(1, total_bytes, 0);
    assert!(space.is_exact());
    // The kernel is ahead: the event may be under way.
    space.audit(2, total_bytes + PAGE, 10);
    assert!(!space.is_exact());
    assert_eq!(space.wants_healing(10), None);
    assert_eq!(space.wants_healing(10 + MAX_GAP_NS), Some(Reason::Gap));
    kernel.map(pages(1..2), anonymous(3));
    space.note(&kernel.events[1]);
    assert!(space.is_exact());
    // Numbers from before the last event say nothing.
    space.audit(1, total_bytes, 20);
    assert!(space.is_exact());
    space.audit(2, total_bytes, 30);
    assert_eq!(space.wants_healing(30), Some(Reason::TotalDiffers));
}

#[test]
fn the_first_reason_stays_until_it_is_healed() {
    let mut space = Kernel::new().model();
    space.mark_approximate(Reason::Skipped);
    space.mark_approximate(Reason::Drifted);
    assert_eq!(space.wants_healing(0), Some(Reason::Skipped));
    assert_eq!(
        space.heal(Read::between(0, 0), Ranges::default(), 0),
        Healed::Exact
    );
    assert_eq!(space.wants_healing(0), None);
}

#[test]
fn an_address_space_ends() {
    let mut kernel = Kernel::new();
    kernel.map(pages(0..1), anonymous(3));
    let exit = What::Exit(Exit {
        len_bytes: PAGE,
        vmas_removed: 1,
    });
    kernel.section(vec![(Cause::Exit, exit)], |ranges| {
        ranges.clear(pages(0..1))
    });
    let mut space = kernel.model();
    assert!(space.is_over());
    space.mark_approximate(Reason::Skipped);
    assert_eq!(space.wants_healing(u64::MAX), None);
}

#[test]
fn advice_is_no_change() {
    let mut kernel = Kernel::new();
    kernel.map(pages(0..1), anonymous(3));
    let advise = What::Advise(Advise {
        range: at(&pages(0..1)),
        advice: Some(10),
    });
    kernel.section(vec![(Cause::Madvise, advise)], |_| {});
    assert_exact(&kernel);
}

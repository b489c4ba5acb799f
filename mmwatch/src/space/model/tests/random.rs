//! Random things in random order, with losses and readings in between.

use std::ops::Range;

use proptest::{prelude::*, test_runner::TestCaseError};

use super::{kernel::*, *};

/// What the kernel of the random tests may do, in pages.
#[derive(Clone, Debug)]
enum Step {
    Map(Range<u64>, Mapping),
    Unmap(Range<u64>),
    Protect(Range<u64>, u32),
    /// Of the mapping with this index, as far as there are so many.
    Remap(usize, u64, Range<u64>, bool),
    Grow(Range<u64>),
}

fn a_range() -> impl Strategy<Value = Range<u64>> {
    (0..PAGES - 1, 1..12_u64).prop_map(|(start, len)| start..(start + len).min(PAGES))
}

fn a_step() -> impl Strategy<Value = Step> {
    let mapping = prop_oneof![
        (0..4_u32).prop_map(anonymous),
        (1..3_u64, 0..3_u64, any::<bool>())
            .prop_map(|(inode, page, shared)| file(inode, page, shared)),
    ];
    prop_oneof![
        5 => (a_range(), mapping).prop_map(|(range, mapping)| Step::Map(range, mapping)),
        3 => a_range().prop_map(Step::Unmap),
        3 => (a_range(), 0..4_u32).prop_map(|(range, prot)| Step::Protect(range, prot)),
        2 => (any::<usize>(), 0..4_u64, a_range(), any::<bool>())
            .prop_map(|(index, skip, new, keep)| Step::Remap(index, skip, new, keep)),
    ]
}

fn do_step(kernel: &mut Kernel, step: Step) {
    match step {
        Step::Map(range, mapping) => kernel.map(pages(range), mapping),
        Step::Unmap(range) => kernel.unmap(pages(range)),
        Step::Protect(range, prot) => kernel.protect(pages(range), prot),
        Step::Grow(range) => kernel.grow(pages(range)),
        Step::Remap(index, skip, new, keep) => {
            let count = kernel.now().len();
            let Some((found, mapping)) = kernel.now().iter().nth(index % count.max(1)) else {
                return;
            };
            let start = (found.start + skip * PAGE).min(found.end - PAGE);
            let old = start..found.end;
            let mut new = pages(new);
            if new.start < old.end && old.start < new.end {
                if mapping.shared && !new.contains(&old.start) {
                    kernel.remap(old.start..old.start, old.end..old.end + PAGE, 3);
                } else {
                    // The kernel refuses an overlap; in place there is none.
                    kernel.remap(
                        old.clone(),
                        old.start..old.end - (old.end - old.start) / PAGE / 2 * PAGE,
                        0,
                    );
                }
                return;
            }
            if keep {
                new.end = new.start + (old.end - old.start);
            }
            if keep && new.start < old.end && old.start < new.end {
                return;
            }
            kernel.remap(old, new, if keep { 7 } else { 3 });
        }
    }
}

/// Events as they may come: each up to so many places late, those of a section
/// in their order.
fn deliver(kernel: &Kernel, late: &[u64]) -> Vec<Event> {
    let mut events: Vec<(u64, &Event)> = kernel
        .events
        .iter()
        .map(|event| {
            let section = event.space.section.unwrap().get();
            (section + late[section as usize % late.len()], event)
        })
        .collect();
    events.sort_by_key(|(place, _)| *place);
    events.into_iter().map(|(_, event)| event.clone()).collect()
}

/// Unless it says otherwise, a model has what was mapped after its last section.
fn check(space: &Space, kernel: &Kernel) -> Result<(), TestCaseError> {
    if space.approximate.is_none() && space.applied >= space.torn_until {
        prop_assert_eq!(space.ranges(), &kernel.after[space.applied as usize]);
    }
    Ok(())
}

proptest! {
    #[test]
    fn without_loss_reading_once_is_enough(
        steps in prop::collection::vec(a_step(), 1..60),
        late in prop::collection::vec(0..8_u64, 1..60),
    ) {
        let mut kernel = Kernel::new();
        for step in steps {
            do_step(&mut kernel, step);
        }
        let mut space = Space::new(ID);
        space.heal(Read::between(0, 0), Ranges::default(), 0);
        for event in deliver(&kernel, &late) {
            space.note(&event);
            check(&space, &kernel)?;
        }
        space.audit(kernel.last_section(), kernel.now().total_bytes(), kernel.boot_ns());
        prop_assert_eq!(space.wants_healing(u64::MAX), None);
        prop_assert!(space.is_exact());
        prop_assert_eq!(space.ranges(), kernel.now());
        prop_assert_eq!(space.heals(), 1);
    }

    #[test]
    fn with_losses_it_is_healed(
        steps in prop::collection::vec(
            prop_oneof![9 => a_step(), 1 => a_range().prop_map(Step::Grow)],
            1..60,
        ),
        late in prop::collection::vec(0..8_u64, 1..60),
        lost in prop::collection::vec(prop::bool::weighted(0.1), 1..90),
        read_at in prop::collection::vec(prop::bool::weighted(0.2), 1..90),
        ahead in prop::collection::vec((0..3_u64, 0..4_u64), 1..20),
        torn in prop::collection::vec(0..4_u64, PAGES as usize),
    ) {
        let mut kernel = Kernel::new();
        for step in steps {
            do_step(&mut kernel, step);
        }
        let last = kernel.last_section();
        let mut space = Space::new(ID);
        let mut latest = 0;
        for (index, event) in deliver(&kernel, &late).iter().enumerate() {
            latest = latest.max(event.space.section.unwrap().get());
            if !lost[index % lost.len()] {
                space.note(event);
            }
            check(&space, &kernel)?;
            if read_at[index % read_at.len()] {
                let (ended, while_read) = ahead[index % ahead.len()];
                let before = (latest + ended).min(last);
                let after = (before + while_read).min(last);
                let healed = space.heal(Read::between(before, after), torn_read(&kernel, before, after, &torn), 0);
                if healed == Healed::Exact {
                    prop_assert!(space.is_exact());
                }
                check(&space, &kernel)?;
            }
        }
        space.audit(last, kernel.now().total_bytes(), kernel.boot_ns());
        if space.wants_healing(kernel.boot_ns() + MAX_GAP_NS).is_some() {
            prop_assert!(!space.is_exact());
            prop_assert_eq!(space.heal(Read::between(last, last), kernel.now().clone(), 0), Healed::Exact);
        }
        prop_assert!(space.is_exact());
        prop_assert_eq!(space.ranges(), kernel.now());
    }
}

/// What `/proc/PID/maps` may say while sections go on: each page as it was after
/// one of them.
fn torn_read(kernel: &Kernel, before: u64, after: u64, torn: &[u64]) -> Ranges {
    let mut read = Ranges::default();
    for page in 0..PAGES * 2 {
        let section = (before + torn[page as usize % torn.len()]).min(after);
        let addr = page * PAGE;
        if let Some(mapping) = kernel.after[section as usize].get(addr) {
            read.set(addr..addr + PAGE, mapping);
        }
    }
    read
}

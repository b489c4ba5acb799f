use std::{iter, num::NonZeroU64};

use proptest::prelude::*;

use super::*;
use crate::{
    event::{Map, Op, Protect, Remap, Unmap},
    sample,
};

const PAGE: u64 = 4096;
const PAGES: usize = 24;

/// An event of the section `number`, which happened then.
fn event(op: Op, number: u64, mm: u64) -> Event {
    let mut event = sample::event(op);
    event.boot_ns = number;
    event.actor.tid = number as u32;
    event.space.id = Some(SpaceId {
        mm,
        born_boot_ns: mm,
    });
    event.space.section = NonZeroU64::new(number);
    event
}

fn at(pages: &Range<usize>) -> crate::event::Range {
    crate::event::Range {
        addr: Some(pages.start as u64 * PAGE),
        len_bytes: Some(pages.len() as u64 * PAGE),
        requested_len_bytes: Some(pages.len() as u64 * PAGE),
    }
}

fn map(number: u64, pages: Range<usize>) -> Event {
    let mut event = event(Op::Map, number, 1);
    let What::Map(map) = &mut event.what else {
        panic!("not a map");
    };
    *map = Map {
        range: at(&pages),
        ..map.clone()
    };
    event
}

fn protect(number: u64, pages: Range<usize>) -> Event {
    let mut event = event(Op::Protect, number, 1);
    let What::Protect(protect) = &mut event.what else {
        panic!("not a protect");
    };
    *protect = Protect {
        range: at(&pages),
        ..*protect
    };
    event
}

fn unmap(number: u64, pages: Range<usize>) -> Event {
    let mut event = event(Op::Unmap, number, 1);
    let What::Unmap(unmap) = &mut event.what else {
        panic!("not an unmap");
    };
    *unmap = Unmap {
        range: at(&pages),
        span_bytes: Some(pages.len() as u64 * PAGE),
        ..*unmap
    };
    event
}

fn remap(number: u64, old: Range<usize>, new: Range<usize>) -> Event {
    let mut event = event(Op::Remap, number, 1);
    let What::Remap(remap) = &mut event.what else {
        panic!("not a remap");
    };
    *remap = Remap {
        range: at(&new),
        old_addr: Some(old.start as u64 * PAGE),
        old_len_bytes: Some(old.len() as u64 * PAGE),
        ..*remap
    };
    event
}

fn history(events: &[Event]) -> History {
    let mut history = History::default();
    events.iter().for_each(|event| history.note(event));
    history.apply();
    history
}

/// Of a page: the section that made it, how often it was changed, by which last.
type Page = (Option<u64>, u64, Option<u64>);

fn page(history: &History, page: usize) -> Page {
    let start = page as u64 * PAGE;
    let lives = history.within(&(start..start + PAGE));
    assert!(lives.len() <= 1, "{lives:?}");
    lives.first().map_or((None, 0, None), |life| {
        let number = |deed: Option<Deed>| deed.map(|deed| deed.boot_ns);
        (number(life.made), life.changes, number(life.last_change))
    })
}

#[derive(Clone, Debug)]
enum Step {
    Map(Range<usize>),
    Unmap(Range<usize>),
    Protect(Range<usize>),
    /// To pages that do not overlap with it.
    Remap(Range<usize>, Range<usize>),
}

fn pages() -> impl Strategy<Value = Range<usize>> {
    (0..PAGES, 1..6_usize).prop_map(|(start, len)| start..(start + len).min(PAGES))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        pages().prop_map(Step::Map),
        pages().prop_map(Step::Unmap),
        pages().prop_map(Step::Protect),
        (pages(), pages())
            .prop_filter("apart", |(old, new)| old.end <= new.start
                || new.end <= old.start)
            .prop_map(|(old, new)| Step::Remap(old, new)),
    ]
}

proptest! {
    #[test]
    fn every_page_has_its_own_history(
        steps in proptest::collection::vec(step(), 1..40),
        seed in any::<u64>(),
    ) {
        let mut truth: [Page; PAGES] = [(None, 0, None); PAGES];
        let mut events = Vec::new();
        for (number, step) in (1..).zip(&steps) {
            match step {
                Step::Map(range) => {
                    truth[range.clone()].fill((Some(number), 0, None));
                    events.push(map(number, range.clone()));
                }
                Step::Unmap(range) => {
                    truth[range.clone()].fill((None, 0, None));
                    events.push(unmap(number, range.clone()));
                }
                Step::Protect(range) => {
                    for page in &mut truth[range.clone()] {
                        *page = (page.0, page.1 + 1, Some(number));
                    }
                    events.push(protect(number, range.clone()));
                }
                Step::Remap(old, new) => {
                    let moved: Vec<_> = truth[old.clone()]
                        .iter()
                        .map(|page| (page.0, page.1 + 1, Some(number)))
                        .chain(iter::repeat((Some(number), 0, None)))
                        .take(new.len())
                        .collect();
                    truth[old.clone()].fill((None, 0, None));
                    truth[new.clone()].copy_from_slice(&moved);
                    events.push(remap(number, old.clone(), new.clone()));
                }
            }
        }
        // Threads overtake each other on their way to the ring.
        let mut random = seed;
        for at in 1..events.len() {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            if random >> 63 == 0 {
                events.swap(at - 1, at);
            }
        }
        let history = history(&events);
        for (number, truth) in truth.iter().enumerate() {
            prop_assert_eq!(page(&history, number), *truth, "page {}", number);
        }
    }
}

#[test]
fn what_failed_changed_nothing() {
    let mut failed = map(2, 0..4);
    failed.errno = sample::failed_map().errno;
    failed.space.total_delta_bytes = Some(0);
    let history = history(&[map(1, 0..4), failed]);
    assert_eq!(page(&history, 0), (Some(1), 0, None));
}

#[test]
fn advice_is_a_change() {
    let mut advice = event(Op::Advise, 2, 1);
    let What::Advise(advise) = &mut advice.what else {
        panic!("not advice");
    };
    advise.range = at(&(1..2));
    let history = history(&[map(1, 0..4), advice]);
    assert_eq!(page(&history, 0), (Some(1), 0, None));
    assert_eq!(page(&history, 1), (Some(1), 1, Some(2)));
}

#[test]
fn a_new_program_begins_anew() {
    let mut later = map(1, 8..9);
    later.space.id = Some(SpaceId {
        mm: 7,
        born_boot_ns: 7,
    });
    // Late, from the address space before.
    let history = history(&[later, map(5, 0..4)]);
    assert_eq!(page(&history, 0), (None, 0, None));
    assert_eq!(page(&history, 8), (Some(1), 0, None));
    assert!(!history.has_ended());
}

#[test]
fn neighbours_of_one_thread_are_told_together() {
    let mut second = map(2, 4..6);
    second.actor.tid = 1;
    let other = map(3, 6..8);
    let history = history(&[map(1, 0..4), second, other]);
    let lives = history.within(&(0..PAGE * 10));
    let told: Vec<_> = lives
        .iter()
        .map(|life| {
            let made = life.made.unwrap();
            (life.range.start / PAGE..life.range.end / PAGE, made.boot_ns)
        })
        .collect();
    assert_eq!(told, [(0..6, 2), (6..8, 3)]);
}

#[test]
fn the_end_of_the_process_is_noticed() {
    assert!(history(&[sample::event(Op::Exit)]).has_ended());
}

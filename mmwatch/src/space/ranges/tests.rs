use proptest::{prelude::*, test_runner::TestCaseError};

use super::*;

const PAGE: u64 = 4096;
/// Pages of the window that the random tests work in.
const PAGES: u64 = 64;

fn anonymous(prot: u32) -> Mapping {
    Mapping {
        prot: Prot(prot),
        shared: false,
        backed: Backed::Anonymous,
    }
}

fn file(inode: u64, offset: u64) -> Mapping {
    Mapping {
        backed: Backed::File {
            dev: Dev(1),
            inode,
            offset,
        },
        ..anonymous(1)
    }
}

fn unknown_file() -> Mapping {
    Mapping {
        backed: Backed::UnknownFile,
        shared: true,
        ..anonymous(3)
    }
}

fn pages(range: Range<u64>) -> Range<u64> {
    range.start * PAGE..range.end * PAGE
}

fn shape(ranges: &Ranges) -> Vec<(u64, u64)> {
    ranges
        .iter()
        .map(|(range, _)| (range.start / PAGE, range.end / PAGE))
        .collect()
}

#[test]
fn bits_without_a_letter_are_not_kept() {
    let mut ranges = Ranges::default();
    ranges.set(pages(0..1), anonymous(0x0100_000b));
    assert_eq!(ranges.get(0), Some(anonymous(3)));
    ranges.protect(pages(0..1), Prot(0x0200_0009));
    assert_eq!(ranges.get(0), Some(anonymous(1)));
}

#[test]
fn neighbours_that_are_alike_are_one() {
    let mut ranges = Ranges::default();
    ranges.set(pages(0..2), anonymous(3));
    ranges.set(pages(4..6), anonymous(3));
    ranges.set(pages(2..4), anonymous(3));
    assert_eq!(shape(&ranges), [(0, 6)]);
    ranges.protect(pages(1..3), Prot(1));
    assert_eq!(shape(&ranges), [(0, 1), (1, 3), (3, 6)]);
    ranges.protect(pages(1..3), Prot(3));
    assert_eq!(shape(&ranges), [(0, 6)]);
    let shared = Mapping {
        shared: true,
        ..anonymous(3)
    };
    ranges.set(pages(6..7), shared);
    assert_eq!(shape(&ranges), [(0, 6), (6, 7)]);
}

#[test]
fn files_are_one_where_their_offsets_go_on() {
    let mut ranges = Ranges::default();
    ranges.set(pages(0..2), file(7, 8 * PAGE));
    ranges.set(pages(2..4), file(7, 10 * PAGE));
    assert_eq!(shape(&ranges), [(0, 4)]);
    ranges.set(pages(4..5), file(7, 13 * PAGE));
    ranges.set(pages(5..6), file(8, 14 * PAGE));
    assert_eq!(shape(&ranges), [(0, 4), (4, 5), (5, 6)]);
    assert_eq!(ranges.get(3 * PAGE + 1), Some(file(7, 11 * PAGE + 1)));
    // The missing piece again, from the middle of what is there.
    ranges.clear(pages(1..2));
    assert_eq!(shape(&ranges), [(0, 1), (2, 4), (4, 5), (5, 6)]);
    ranges.set(pages(1..2), file(7, 9 * PAGE));
    assert_eq!(shape(&ranges), [(0, 4), (4, 5), (5, 6)]);
}

#[test]
fn empty_and_reversed_ranges_change_nothing() {
    let mut ranges = Ranges::default();
    ranges.set(pages(0..4), anonymous(3));
    let before = ranges.clone();
    let reversed = Range {
        start: 3 * PAGE,
        end: PAGE,
    };
    for range in [pages(2..2), reversed] {
        ranges.set(range.clone(), anonymous(0));
        ranges.clear(range.clone());
        ranges.protect(range.clone(), Prot(0));
        assert_eq!(ranges.within(range).count(), 0);
    }
    assert_eq!(ranges, before);
}

#[test]
fn the_top_of_all_addresses_is_a_range_like_others() {
    let mut ranges = Ranges::default();
    ranges.set(u64::MAX - PAGE..u64::MAX, file(1, u64::MAX - 1));
    ranges.set(0..PAGE, anonymous(0));
    ranges.protect(0..u64::MAX, Prot(7));
    assert_eq!(ranges.total_bytes(), 2 * PAGE);
    ranges.clear(0..u64::MAX);
    assert!(ranges.is_empty());
}

#[test]
fn unknown_files_are_counted_and_differ_from_no_file() {
    let mut ranges = Ranges::default();
    ranges.set(pages(0..4), unknown_file());
    ranges.set(pages(8..9), unknown_file());
    ranges.clear(pages(1..2));
    assert_eq!(ranges.unknown_files, 3);
    ranges.set(pages(1..2), unknown_file());
    assert_eq!(ranges.unknown_files, 2);

    let mut known = ranges.clone();
    known.set(
        pages(0..4),
        Mapping {
            shared: true,
            ..file(5, 0)
        },
    );
    known.protect(pages(0..4), Prot(3));
    assert_eq!(ranges.differences(&known), []);
    known.protect(pages(2..3), Prot(1));
    let differences = ranges.differences(&known);
    assert_eq!(differences.len(), 1);
    assert_eq!(differences[0].range, pages(2..3));

    ranges.clear(pages(0..9));
    assert!(!ranges.has_unknown_files());
}

#[test]
fn a_difference_says_what_each_side_has() {
    let mut this = Ranges::default();
    let mut other = Ranges::default();
    this.set(pages(0..8), file(1, 0));
    other.set(pages(2..4), file(1, 2 * PAGE));
    other.set(pages(6..10), file(1, 7 * PAGE));
    let row = |range, this, other| Difference {
        range: pages(range),
        this,
        other,
    };
    assert_eq!(
        this.differences(&other),
        [
            row(0..2, Some(file(1, 0)), None),
            row(4..6, Some(file(1, 4 * PAGE)), None),
            row(6..8, Some(file(1, 6 * PAGE)), Some(file(1, 7 * PAGE))),
            row(8..10, None, Some(file(1, 9 * PAGE))),
        ]
    );
}

#[test]
fn a_move_takes_what_is_there() {
    let mut ranges = Ranges::default();
    ranges.set(pages(0..4), file(1, 0));
    // From the middle, growing.
    assert!(ranges.move_to(pages(1..2), pages(10..13), false));
    assert_eq!(shape(&ranges), [(0, 1), (2, 4), (10, 13)]);
    assert_eq!(ranges.get(12 * PAGE), Some(file(1, 3 * PAGE)));
    // Shrinking, while the old place stays.
    assert!(ranges.move_to(pages(10..13), pages(20..21), true));
    assert_eq!(shape(&ranges), [(0, 1), (2, 4), (10, 13), (20, 21)]);
    // In place.
    assert!(ranges.move_to(pages(20..21), pages(20..23), false));
    assert!(ranges.move_to(pages(10..13), pages(10..11), false));
    assert_eq!(shape(&ranges), [(0, 1), (2, 4), (10, 11), (20, 23)]);
    // Two mappings, and a hole.
    assert!(!ranges.move_to(pages(0..4), pages(30..34), false));
    assert_eq!(shape(&ranges), [(10, 11), (20, 23), (30, 31), (32, 34)]);
    assert!(!ranges.move_to(pages(40..41), pages(10..11), false));
    assert_eq!(shape(&ranges), [(20, 23), (30, 31), (32, 34)]);
}

/// What can be done to ranges, in pages.
#[derive(Clone, Debug)]
enum Step {
    Set(Range<u64>, Mapping),
    Clear(Range<u64>),
    Protect(Range<u64>, u32),
    Move(Range<u64>, Range<u64>, bool),
    Duplicate(u64, Range<u64>),
}

fn a_range() -> impl Strategy<Value = Range<u64>> {
    (0..PAGES, 0..16_u64).prop_map(|(start, len)| start..(start + len).min(PAGES))
}

fn a_mapping() -> impl Strategy<Value = Mapping> {
    let backed = prop_oneof![
        Just(Backed::Anonymous),
        Just(Backed::UnknownFile),
        // Few files and offsets, so that they meet and go on as one.
        (1..3_u64, 0..4_u64).prop_map(|(inode, page)| Backed::File {
            dev: Dev(1),
            inode,
            offset: page * PAGE,
        }),
    ];
    (0..3_u32, any::<bool>(), backed).prop_map(|(prot, shared, backed)| Mapping {
        prot: Prot(prot),
        shared,
        backed,
    })
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (a_range(), a_mapping()).prop_map(|(range, mapping)| Step::Set(range, mapping)),
        2 => a_range().prop_map(Step::Clear),
        2 => (a_range(), 0..3_u32).prop_map(|(range, prot)| Step::Protect(range, prot)),
        2 => (a_range(), a_range(), any::<bool>())
            .prop_map(|(old, new, keep)| Step::Move(old, new, keep)),
        1 => (0..PAGES, a_range()).prop_map(|(at, new)| Step::Duplicate(at, new)),
    ]
}

/// The same, page by page, without any cleverness.
struct Pages(Vec<Option<Mapping>>);

impl Pages {
    fn apply(&mut self, step: &Step) {
        let page = |number: u64| number as usize;
        match step {
            Step::Set(range, mapping) => {
                for number in range.clone() {
                    self.0[page(number)] = Some(mapping.further((number - range.start) * PAGE));
                }
            }
            Step::Clear(range) => {
                for number in range.clone() {
                    self.0[page(number)] = None;
                }
            }
            Step::Protect(range, prot) => {
                for number in range.clone() {
                    if let Some(mapping) = &mut self.0[page(number)] {
                        mapping.prot = Prot(*prot);
                    }
                }
            }
            Step::Move(old, new, keep) => {
                let before = self.0.clone();
                let in_place = old.start == new.start && new.end <= old.end;
                if !keep || in_place {
                    self.apply(&Step::Clear(old.clone()));
                }
                self.apply(&Step::Clear(new.clone()));
                let old_pages = old.end - old.start;
                for (index, number) in new.clone().enumerate() {
                    let index = index as u64;
                    self.0[page(number)] = if index < old_pages {
                        before[page(old.start + index)]
                    } else if old_pages == 0 {
                        None
                    } else {
                        before[page(old.end - 1)]
                            .map(|last| last.further((index - (old_pages - 1)) * PAGE))
                    };
                }
            }
            Step::Duplicate(at, new) => {
                if let Some(mapping) = self.0[page(*at)] {
                    self.apply(&Step::Set(new.clone(), mapping));
                }
            }
        }
    }
}

fn apply(ranges: &mut Ranges, step: &Step) {
    match step.clone() {
        Step::Set(range, mapping) => ranges.set(pages(range), mapping),
        Step::Clear(range) => ranges.clear(pages(range)),
        Step::Protect(range, prot) => ranges.protect(pages(range), Prot(prot)),
        Step::Move(old, new, keep) => {
            ranges.move_to(pages(old), pages(new), keep);
        }
        Step::Duplicate(at, new) => {
            ranges.duplicate(at * PAGE, pages(new));
        }
    }
}

/// What must hold whatever was done.
fn check(ranges: &Ranges) -> Result<(), TestCaseError> {
    let areas: Vec<Area> = ranges.iter().collect();
    for (range, _) in &areas {
        prop_assert!(range.start < range.end);
    }
    for pair in areas.windows(2) {
        let [(left, one), (right, two)] = pair else {
            unreachable!()
        };
        prop_assert!(left.end <= right.start, "{left:?} overlaps {right:?}");
        let alike = one.further(left.end - left.start) == *two;
        prop_assert!(
            left.end < right.start || !alike,
            "{left:?} goes on as {right:?}"
        );
    }
    let total: u64 = areas.iter().map(|(range, _)| range.end - range.start).sum();
    prop_assert_eq!(ranges.total_bytes(), total);
    let unknown = areas
        .iter()
        .filter(|(_, mapping)| mapping.backed == Backed::UnknownFile);
    prop_assert_eq!(ranges.unknown_files, unknown.count());
    Ok(())
}

proptest! {
    #[test]
    fn page_by_page_it_is_the_same(steps in prop::collection::vec(a_step(), 1..40)) {
        let mut ranges = Ranges::default();
        let mut truth = Pages(vec![None; PAGES as usize]);
        for step in &steps {
            apply(&mut ranges, step);
            truth.apply(step);
            check(&ranges)?;
            for (number, mapping) in truth.0.iter().enumerate() {
                let addr = number as u64 * PAGE;
                prop_assert_eq!(ranges.get(addr), *mapping, "page {} after {:?}", number, step);
                let within: Vec<Area> = ranges.within(addr..addr + PAGE).collect();
                prop_assert_eq!(
                    within,
                    mapping.map(|mapping| (addr..addr + PAGE, mapping)).into_iter().collect::<Vec<_>>()
                );
            }
        }
    }

    #[test]
    fn collected_they_are_as_set_one_by_one(
        areas in prop::collection::vec((a_range(), a_mapping()), 0..20),
        sorted in any::<bool>(),
    ) {
        let mut areas: Vec<Area> =
            areas.into_iter().map(|(range, mapping)| (pages(range), mapping)).collect();
        if sorted {
            areas.sort_by_key(|(range, _)| range.start);
        }
        let mut set = Ranges::default();
        for (range, mapping) in areas.clone() {
            set.set(range, mapping);
        }
        prop_assert_eq!(&areas.into_iter().collect::<Ranges>(), &set);
        // In order and apart.
        prop_assert_eq!(&set.iter().collect::<Ranges>(), &set);
    }

    #[test]
    fn differences_are_the_pages_that_differ(
        these in prop::collection::vec(a_step(), 1..12),
        others in prop::collection::vec(a_step(), 0..4),
    ) {
        let mut one = Ranges::default();
        for step in &these {
            apply(&mut one, step);
        }
        let mut two = one.clone();
        for step in &others {
            apply(&mut two, step);
        }
        let differences = one.differences(&two);
        for page in 0..PAGES {
            let (this, other) = (one.get(page * PAGE), two.get(page * PAGE));
            let found = differences
                .iter()
                .find(|difference| difference.range.contains(&(page * PAGE)))
                .map(|difference| {
                    let inside = page * PAGE - difference.range.start;
                    let at = |mapping: Option<Mapping>| mapping.map(|it| it.further(inside));
                    (at(difference.this), at(difference.other))
                });
            let agree = match (this, other) {
                (Some(this), Some(other)) => this.agrees(&other),
                (this, other) => this == other,
            };
            prop_assert_eq!(found, (!agree).then_some((this, other)));
        }
        prop_assert_eq!(one.differences(&one), []);
    }
}

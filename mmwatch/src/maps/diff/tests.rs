use super::*;
use crate::maps::{parse_maps, segment::classify};

fn vmas(text: &str) -> Vec<Vma<'_>> {
    classify(parse_maps(text.as_bytes()).unwrap(), &Default::default())
}

/// What became of which address, and by how many pages.
fn compared(before: &str, after: &str) -> Vec<(&'static str, u64, i64)> {
    let (before, after) = (vmas(before), vmas(after));
    let differences = compare(&before, &after);
    let bytes = |vmas: &[Vma<'_>]| {
        vmas.iter()
            .map(|vma| vma.line.size_bytes() as i64)
            .sum::<i64>()
    };
    let sum: i64 = differences
        .iter()
        .map(|difference| difference.delta_bytes)
        .sum();
    assert_eq!(sum, bytes(&after) - bytes(&before));
    differences
        .iter()
        .map(|of| {
            (
                of.change.name(),
                of.vma.line.range.start,
                of.delta_bytes / 4096,
            )
        })
        .collect()
}

const HEAP: &str = "10000-20000 rw-p 00000000 00:00 0 [heap]\n";
const FILE: &str = "30000-40000 r--p 00000000 fe:00 7 /f\n";

#[test]
fn nothing_changes_between_two_that_are_alike() {
    let both = [HEAP, FILE].concat();
    assert_eq!(compared(&both, &both), []);
}

#[test]
fn what_comes_and_goes_is_told() {
    let both = [HEAP, FILE].concat();
    assert_eq!(compared(HEAP, &both), [("appeared", 0x30000, 16)]);
    assert_eq!(compared(&both, FILE), [("vanished", 0x10000, -16)]);
    // Another file in the same place.
    let other = FILE.replace("/f", "/g");
    assert_eq!(
        compared(FILE, &other),
        [("appeared", 0x30000, 16), ("vanished", 0x30000, -16)]
    );
}

#[test]
fn growth_is_told_at_either_end() {
    let up = HEAP.replace("-20000", "-21000");
    assert_eq!(compared(HEAP, &up), [("grew", 0x10000, 1)]);
    assert_eq!(compared(&up, HEAP), [("shrank", 0x10000, -1)]);
    let down = HEAP.replace("10000-", "f000-");
    assert_eq!(compared(HEAP, &down), [("grew", 0xf000, 1)]);
    assert_eq!(compared(&down, HEAP), [("shrank", 0x10000, -1)]);
}

#[test]
fn other_permissions_are_a_change() {
    let other = FILE.replace("r--", "rw-");
    assert_eq!(compared(FILE, &other), [("changed", 0x30000, 0)]);
}

#[test]
fn what_is_split_shrinks_and_its_rest_appears() {
    let split = "10000-14000 rw-p 00000000 00:00 0 [heap]\n\
                 14000-15000 r--p 00000000 00:00 0 [heap]\n\
                 15000-20000 rw-p 00000000 00:00 0 [heap]\n";
    assert_eq!(
        compared(HEAP, split),
        [
            ("shrank", 0x10000, -12),
            ("appeared", 0x14000, 1),
            ("appeared", 0x15000, 11)
        ]
    );
    assert_eq!(
        compared(split, HEAP),
        [
            ("grew", 0x10000, 12),
            ("vanished", 0x14000, -1),
            ("vanished", 0x15000, -11)
        ]
    );
}

#[test]
fn a_range_that_stayed_is_nobody_elses() {
    // The second stays; the first must not be taken for it.
    let before = "10000-11000 rw-p 00000000 00:00 0\n11000-12000 r--p 00000000 00:00 0\n";
    let after = "11000-12000 r--p 00000000 00:00 0\n12000-13000 rw-p 00000000 00:00 0\n";
    assert_eq!(
        compared(before, after),
        [("vanished", 0x10000, -1), ("appeared", 0x12000, 1)]
    );
}

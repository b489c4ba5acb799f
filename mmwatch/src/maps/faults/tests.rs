use super::*;
use crate::maps::{parse_maps, segment::classify};

const MAPS: &str = "\
10000-20000 rw-p 00000000 00:00 0 [heap]
20000-21000 r--p 00000000 fe:00 7 /f
30000-40000 r--p 00000000 fe:00 7 /f
";

fn page(address: impl Into<Option<u64>>, minor: u64, touched: bool) -> FaultedPage {
    FaultedPage {
        address: address.into(),
        minor,
        major: 1,
        touched,
    }
}

fn faults(pages: Vec<FaultedPage>) -> PageFaults {
    PageFaults {
        minor: pages.iter().map(|page| page.minor).sum(),
        major: pages.iter().map(|page| page.major).sum(),
        pages,
        page_bytes: 4096,
        tells_touched: true,
    }
}

fn of(faults: &PageFaults) -> ByMapping {
    let vmas = classify(parse_maps(MAPS.as_bytes()).unwrap(), &Default::default());
    by_mapping(faults, &vmas)
}

fn sum(minor: u64, major: u64, touched_bytes: u64) -> Sum {
    Sum {
        minor,
        major,
        touched_bytes,
    }
}

#[test]
fn a_page_is_its_mapping_s() {
    let faults = faults(vec![
        page(0x10000, 1, true),
        page(0x1f000, 10, false),
        page(0x20000, 100, true),
        page(0x3f000, 1000, true),
    ]);
    let of = of(&faults);
    assert_eq!(
        of.vmas,
        [sum(11, 2, 4096), sum(100, 1, 4096), sum(1000, 1, 4096)]
    );
    assert!(of.unmapped.is_empty() && of.roomless.is_empty());
    assert_eq!(of.total, sum(1111, 4, 12288));
}

#[test]
fn what_is_in_no_mapping_is_told_apart() {
    let faults = faults(vec![
        page(0xf000, 1, true),
        page(0x21000, 10, true),
        page(0x40000, 100, false),
        // Of an address space that is no more, at an address that is used again.
        page(None, 1000, true),
    ]);
    let of = of(&faults);
    assert_eq!(of.vmas, [Sum::default(); 3]);
    assert_eq!(of.unmapped, sum(1111, 4, 12288));
    assert_eq!(of.total, of.unmapped);
}

#[test]
fn what_found_no_room_is_in_the_total() {
    let mut faults = faults(vec![page(0x10000, 5, true)]);
    faults.minor += 7;
    faults.major += 2;
    let of = of(&faults);
    assert_eq!(of.roomless, sum(7, 2, 0));
    assert_eq!(of.total, sum(12, 3, 4096));
}

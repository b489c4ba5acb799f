use super::*;
use crate::{
    event::Comm,
    maps::{Lock, parse_maps, segment::classify},
};

fn space(text: &str) -> AddressSpace<'_> {
    let lines = parse_maps(text.as_bytes()).unwrap();
    AddressSpace {
        pid: 7,
        comm: Comm::new(*b"p\x1bq\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        lock: Lock::PerVma,
        vmas: classify(lines, &Default::default()),
        watch: None,
    }
}

const TEXT: &str = "\
00400000-00500000 rw-p 00000000 fe:00 1                          /data/one
00500000-00504000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0040000000 rw-p 00000000 00:00 0 
7f0040000000-7f0040001000 r--p 00000000 fe:00 2                          /data/t\x1bwo
7f0040001000-7f0040002000 r--p 00001000 fe:00 2                          /data/t\x1bwo
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
";

#[test]
fn every_size_and_gap_is_drawn_to_scale() {
    assert_eq!(
        draw(&space(TEXT), 40, 100),
        "\
process 7 (p\\x1bq): 6 VMAs, 1.0GiB

         ADDRESS      SIZE   VMAS
               0      4MiB      - ...........
          400000      1MiB      1 fffffffff one
          500000     16KiB      1 hhh heap
          504000  126.9TiB      - ...................................
    7f0000000000      1GiB      1 aaaaaaaaaaaaaaaaaaa anon
    7f0040000000      8KiB      2 ff t\\x1bwo
    7f0040002000 1006.9GiB      - ............................
    7ffc00000000    132KiB      1 ssssss stack

Each character doubles the size: one is 4KiB, 11 are 4MiB, 21 are 4GiB, 31 are 4TiB.
a anon, f file, h heap, s stack; . nothing
"
    );
}

#[test]
fn it_fits_the_screen_whatever_is_mapped() {
    let mut text = String::new();
    for vma in 0..1000_u64 {
        let start = 0x10_0000 * (vma + 1) + vma / 100 * 0x1000_0000;
        writeln!(
            text,
            "{start:x}-{:x} r--p 00000000 fe:00 {vma} /a/file-{vma}",
            start + 0x1000 * (1 + vma % 16)
        )
        .unwrap();
    }
    let space = space(&text);
    for rows in 10..60 {
        let picture = draw(&space, rows, 80);
        assert!(picture.lines().count() <= rows, "{rows}:\n{picture}");
        // Nothing is left out, and nothing counted twice.
        let vmas = picture
            .lines()
            .skip(3)
            .filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse::<u64>().ok());
        assert_eq!(vmas.sum::<u64>(), 1000, "{rows}:\n{picture}");
        assert!(
            picture
                .lines()
                .skip(3)
                .take(rows - 6)
                .all(|line| line.chars().count() <= 80)
        );
    }
    // The largest gaps are those that are shown.
    let gaps = draw(&space, 40, 80).matches("256").count();
    assert!(gaps >= 9, "{}", draw(&space, 40, 80));
}

#[test]
fn a_bar_has_every_letter_that_it_has_room_for() {
    let text = "1000-2000 rw-p 00000000 00:00 0 [heap]\n2000-1000000 rw-p 00000000 00:00 0\n";
    let space = space(text);
    let group = Group { vmas: &space.vmas };
    assert_eq!(group.bar(), "haaaaaaaaaaa");
    assert_eq!(group.bar().len(), cells(0xfff000));
    assert_eq!(group.label(30), "anon, heap");
    assert_eq!(group.label(8), "anon +1");
    assert_eq!(group.label(0), "anon +1");
}

#[test]
fn a_character_is_a_doubling() {
    for (bytes, characters) in [
        (4096, 1),
        (8191, 1),
        (8192, 2),
        (4 << 20, 11),
        (4 << 40, 31),
    ] {
        assert_eq!(cells(bytes), characters);
    }
    assert_eq!(cells(1 << 47), 36);
    assert_eq!(cells(u64::MAX), BAR);
}

#[test]
fn nothing_mapped_is_no_picture() {
    assert!(draw(&space(""), 24, 80).starts_with("process 7"));
}

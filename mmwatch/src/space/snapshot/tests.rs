use std::{fmt::Write, time::Instant};

use super::*;

fn parse(text: &str) -> Snapshot {
    Snapshot::parse(text.as_bytes()).unwrap()
}

fn mapping(prot: u32, shared: bool, backed: Backed) -> Mapping {
    Mapping {
        prot: Prot(prot),
        shared,
        backed,
    }
}

#[test]
fn every_field_is_read() {
    let snapshot = parse(
        "55d0c0a00000-55d0c0a02000 r-xp 00003000 103:0123 42                         /bin/a b (deleted)\n\
         55d0c0b00000-55d0c0b21000 rw-p 00000000 00:00 0                          [heap]\n\
         7f0000000000-7f0000001000 ---p 00000000 00:00 0 \n\
         7f0000002000-7f0000003000 rw-s 00001000 00:01 1025                       /dev/zero (deleted)\n\
         7f0000004000-7f0000005000 -w-s 00000000 00:2a 0                          anon_inode:x\n\
         7ffc00000000-7ffc00002000 r--p 00001000 00:00 0                          [vvar]\n\
         ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n",
    );
    assert_eq!(snapshot.vmas, 6);
    let file = |dev, inode, offset| Backed::File {
        dev: Dev(dev),
        inode,
        offset,
    };
    assert_eq!(
        snapshot.ranges.iter().collect::<Vec<_>>(),
        [
            (
                0x55d0_c0a0_0000..0x55d0_c0a0_2000,
                mapping(5, false, file(0x103 << 20 | 0x123, 42, 0x3000))
            ),
            (
                0x55d0_c0b0_0000..0x55d0_c0b2_1000,
                mapping(3, false, Backed::Anonymous)
            ),
            (
                0x7f00_0000_0000..0x7f00_0000_1000,
                mapping(0, false, Backed::Anonymous)
            ),
            (
                0x7f00_0000_2000..0x7f00_0000_3000,
                mapping(3, true, file(1, 1025, 0x1000))
            ),
            (
                0x7f00_0000_4000..0x7f00_0000_5000,
                mapping(2, true, file(0x2a, 0, 0))
            ),
            (
                0x7ffc_0000_0000..0x7ffc_0000_2000,
                mapping(1, false, Backed::Anonymous)
            ),
        ]
    );
}

#[test]
fn a_line_has_its_name_and_what_stands_before() {
    let line = |text: &'static str| Line::parse(text.as_bytes()).unwrap();
    let file =
        line("1000-3000 r-xs 00003000 103:0123 42                         /bin/a b (deleted)");
    assert_eq!(
        file,
        Line {
            range: 0x1000..0x3000,
            prot: Prot(5),
            shared: true,
            offset: 0x3000,
            dev: Dev(0x103 << 20 | 0x123),
            inode: 42,
            name: b"/bin/a b (deleted)",
        }
    );
    assert!(file.has_file());
    assert_eq!(file.size_bytes(), 0x2000);
    let heap = line("1000-2000 rw-p 00000000 00:00 0                          [heap]");
    assert_eq!(heap.name, b"[heap]");
    assert!(!heap.has_file());
    for nameless in [
        "1000-2000 rw-p 00000000 00:00 0 ",
        "1000-2000 rw-p 00000000 00:00 0",
    ] {
        assert_eq!(line(nameless).name, b"");
    }
}

#[test]
fn vmas_that_are_alike_are_counted_apart() {
    let snapshot = parse(
        "1000-2000 rw-p 00000000 00:00 0 [heap]\n2000-3000 rw-p 00000000 00:00 0\n\
         3000-4000 r--p 00005000 08:01 7 /f\n4000-5000 r--p 00006000 08:01 7 /f\n\
         5000-6000 r--p 00006000 08:01 7 /f",
    );
    assert_eq!(snapshot.vmas, 5);
    assert_eq!(snapshot.ranges.len(), 3);
    assert_eq!(snapshot.ranges.total_bytes(), 0x5000);
}

#[test]
fn what_comes_later_counts() {
    let snapshot = parse(
        "1000-4000 rw-p 00000000 00:00 0\n2000-3000 r--p 00000000 00:00 0\n\
         1000-2000 ---p 00000000 00:00 0\n",
    );
    assert_eq!(
        snapshot
            .ranges
            .iter()
            .map(|(range, mapping)| (range.start, mapping.prot.0))
            .collect::<Vec<_>>(),
        [(0x1000, 0), (0x2000, 1), (0x3000, 3)]
    );
    assert_eq!(snapshot.ranges.total_bytes(), 0x3000);
}

#[test]
fn nothing_is_an_address_space_without_mappings() {
    assert_eq!(parse(""), Snapshot::default());
}

#[test]
fn a_malformed_line_is_named() {
    let good = "1000-2000 rw-p 00000000 00:00 0 [heap]";
    for bad in [
        "",
        "-2000 rw-p 0 00:00 0",
        "1000-2000",
        "1000-2000 rw-p",
        "1000-2000 rw-x 0 00:00 0",
        "1000-2000 wr-p 0 00:00 0",
        "2000-1000 rw-p 0 00:00 0",
        "1000-1000 rw-p 0 00:00 0",
        "1000-2000 rw-p 0 00:00",
        "1000-2000 rw-p 0 00:00 ",
        "1000-2000 rw-p 0 00:00 x",
        "1000-2000 rw-p 0 1000:00 0",
        "1000-2000 rw-p 0 00:00 18446744073709551616",
        "1000-2000 rw-p 00:00 0",
        "10000000000000000-20000000000000000 rw-p 0 00:00 0",
        "size: 4 kB",
    ] {
        let text = format!("{good}\n{bad}\n{good}\n");
        let error = Snapshot::parse(text.as_bytes()).unwrap_err();
        assert_eq!((error.number, error.line.as_str()), (2, bad));
    }
}

#[test]
fn names_may_be_any_bytes() {
    let snapshot = Snapshot::parse(b"1000-2000 rw-p 00000000 08:01 9 /\xff\x1b[1m\n").unwrap();
    assert_eq!(snapshot.vmas, 1);
}

#[test]
fn this_process_has_a_vma_a_line() {
    let text = std::fs::read("/proc/self/maps").unwrap();
    let lines = text.split(|&byte| byte == b'\n');
    let vmas = lines
        .filter(|line| !line.is_empty() && !line.ends_with(b"[vsyscall]"))
        .count();
    let snapshot = Snapshot::parse(&text).unwrap();
    assert_eq!(snapshot.vmas as usize, vmas);
    assert!(snapshot.ranges.len() <= vmas);
    let local = 0u8;
    let stack = snapshot
        .ranges
        .get(std::ptr::from_ref(&local).addr() as u64);
    assert_eq!(stack.unwrap(), mapping(3, false, Backed::Anonymous));
}

#[test]
fn a_full_address_space_is_read_at_once() {
    let mut text = String::new();
    for vma in 0..65_530_u64 {
        let start = 0x7f00_0000_0000 + vma * 0x2000;
        let prot = if vma % 2 == 0 { "rw-p" } else { "r--p" };
        writeln!(
            text,
            "{start:x}-{:x} {prot} {:08x} 08:01 {}                     /usr/lib/x86_64/lib.so.6",
            start + 0x2000,
            vma * 0x2000,
            vma % 7 + 1,
        )
        .unwrap();
    }
    let started = Instant::now();
    let snapshot = parse(&text);
    println!("{:?}", started.elapsed());
    assert_eq!(snapshot.vmas, 65_530);
    assert_eq!(snapshot.ranges.len(), 65_530);
}

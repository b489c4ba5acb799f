use super::*;
use crate::event::Dev;

const SMAPS: &str = "\
55d0c0a00000-55d0c0a02000 r-xp 00003000 fe:00 42                         /bin/a
Size:                  8 kB
KernelPageSize:        4 kB
Rss:                   8 kB
Pss:                   3 kB
Shared_Clean:          4 kB
Shared_Dirty:          1 kB
Private_Clean:         2 kB
Private_Dirty:         1 kB
AnonHugePages:         0 kB
Swap:                 12 kB
THPeligible:           0
VmFlags: rd ex mr mw me 
7f0000200000-7f0000400000 rw-p 00000000 00:0f 7                          /anon_x
Rss:                   0 kB
Private_Hugetlb:    2048 kB
VmFlags: rd wr mr mw me ht 
7f0000400000-7f0000401000 rw-s 00000000 fe:00 9                          /dev9
Rss:                   0 kB
VmFlags: rd wr sh io pf 
";

fn space(vmas: Vec<Vma<'_>>) -> AddressSpace<'_> {
    AddressSpace {
        pid: 1,
        comm: Comm::new([0; _]),
        lock: Lock::PerVma,
        vmas,
        watch: None,
    }
}

#[test]
fn smaps_says_what_is_in_memory() {
    let (lines, details) = parse_smaps(SMAPS.as_bytes()).unwrap();
    assert_eq!(lines.len(), 3);
    assert_eq!((lines[1].dev, lines[1].inode), (Dev(0xf), 7));
    assert_eq!(
        details[0],
        Detail {
            residency: Residency {
                resident_bytes: 8 << 10,
                proportional_bytes: 3 << 10,
                shared_bytes: 5 << 10,
                private_bytes: 3 << 10,
                swapped_bytes: 12 << 10,
                huge_bytes: 0,
            },
            is_device: false,
            is_hugetlb: false,
        }
    );
    assert_eq!(details[1].residency.huge_bytes, 2 << 20);

    let mut vmas = segment::classify(lines, &Default::default());
    add_details(&mut vmas, &details);
    let got: Vec<_> = vmas.iter().map(|vma| (vma.segment, vma.backing)).collect();
    assert_eq!(
        got,
        [
            (Segment::File, Backing::PrivateFile),
            (Segment::Hugetlb, Backing::PrivateFile),
            (Segment::Special, Backing::Special),
        ]
    );
    let total = space(vmas).total();
    assert_eq!(total.bytes, 0x2000 + 0x20_0000 + 0x1000);
    let residency = total.residency.unwrap();
    assert_eq!(residency.resident_bytes, 8 << 10);
    assert_eq!(residency.huge_bytes, 2 << 20);
}

#[test]
fn malformed_lines_are_named() {
    let error = parse_maps(b"1000-2000 rw-p 00000000 00:00 0\nRss: 1 kB\n").unwrap_err();
    assert_eq!(error.number, 2);
    for bad in [
        "Rss: 8 MB",
        "Rss:",
        "Rss",
        "\u{1}",
        "1000-1000 rw-p 00000000 00:00 0",
    ] {
        let text = format!("1000-2000 rw-p 00000000 00:00 0\n{bad}\n");
        assert_eq!(parse_smaps(text.as_bytes()).unwrap_err().number, 2, "{bad}");
    }
    assert_eq!(parse_smaps(b"Rss: 1 kB\n").unwrap_err().number, 1);
}

#[test]
fn sums_are_of_all_vmas_and_nothing_else() {
    let text = "1000-3000 rw-p 00000000 00:00 0 [heap]\n3000-4000 rw-p 00000000 00:00 0\n\
                4000-5000 r--s 00000000 fe:00 9 /f\n5000-9000 rw-p 00000000 00:00 0\n";
    let lines = parse_maps(text.as_bytes()).unwrap();
    let space = space(segment::classify(lines, &Default::default()));
    let sum = |vmas, bytes| Sum {
        vmas,
        bytes,
        residency: None,
    };
    assert_eq!(space.total(), sum(4, 0x8000));
    assert_eq!(
        space.by_segment().into_iter().collect::<Vec<_>>(),
        [
            (Segment::Heap, sum(1, 0x2000)),
            (Segment::File, sum(1, 0x1000)),
            (Segment::Anon, sum(2, 0x5000)),
        ]
    );
    assert_eq!(
        space.by_backing(),
        [
            (Backing::PrivateAnonymous, sum(3, 0x7000)),
            (Backing::SharedFile, sum(1, 0x1000)),
        ]
    );
}

/// Suspects of each line.
fn suspects(text: &str, clues: &segment::Clues) -> Vec<String> {
    let vmas = segment::classify(parse_maps(text.as_bytes()).unwrap(), clues);
    vmas.iter().map(|vma| vma.suspects().to_string()).collect()
}

#[test]
fn dangerous_mappings_are_told_by_permissions_and_by_what_is_behind() {
    for (line, want) in [
        ("r-xp 00000000 fe:00 42 /bin/a", ""),
        ("rw-p 00000000 00:00 0 ", ""),
        ("rwxp 00000000 fe:00 42 /bin/a", "write-exec"),
        ("r-xp 00000000 00:00 0 ", "anon-exec"),
        ("rwxp 00000000 00:00 0 ", "write-exec,anon-exec"),
        ("r-xs 00000000 00:01 7 /dev/zero (deleted)", "anon-exec"),
        (
            "r-xp 00000000 00:0f 7 /anon_hugepage (deleted)",
            "anon-exec",
        ),
        (
            "rwxp 00000000 00:00 0 [heap]",
            "write-exec,anon-exec,heap-exec",
        ),
        ("r-xp 00000000 00:00 0 [stack]", "anon-exec,stack-exec"),
        ("rw-p 00000000 00:00 0 [stack]", ""),
        ("r-xp 00000000 00:01 7 /memfd:x (deleted)", "memfd-exec"),
        ("rw-s 00000000 00:01 7 /memfd:x (deleted)", ""),
        // A file on a disk may have any name.
        ("r-xp 00000000 fe:00 7 /memfd:x (deleted)", "deleted-exec"),
        (
            "rwxp 00000000 fe:00 42 /bin/a (deleted)",
            "write-exec,deleted-exec",
        ),
        (
            "rwxs 00000000 00:01 0 /SYSV00000000 (deleted)",
            "write-exec,deleted-exec",
        ),
        // The kernel's own.
        ("r-xp 00000000 00:00 0 [vdso]", ""),
        ("--xp 00000000 00:00 0 [vsyscall]", ""),
        ("--xp 00000000 00:00 0 [uprobes]", ""),
        ("rwxs 00000000 00:06 9 /dev/mem", "write-exec"),
    ] {
        let text = format!("10000-20000 {line}\n");
        assert_eq!(
            suspects(&text, &segment::Clues::default()),
            [want],
            "{line}"
        );
    }
}

#[test]
fn a_thread_s_stack_is_one_where_that_is_known() {
    let text = "10000-11000 ---p 00000000 00:00 0 \n11000-20000 rwxp 00000000 00:00 0 \n";
    let clues = |stack_pointers| segment::Clues {
        stack_pointers,
        ..segment::Clues::default()
    };
    let known = suspects(text, &clues(vec![0x1_1f00]));
    assert_eq!(known, ["", "write-exec,anon-exec,stack-exec"]);
    // Guessed by the guard below it.
    assert_eq!(suspects(text, &clues(vec![])), ["", "write-exec,anon-exec"]);
}

#[test]
fn a_vma_of_several_kinds_is_in_the_sum_of_each() {
    let text = "10000-12000 rwxp 00000000 00:00 0 \n20000-21000 r-xp 00000000 00:00 0 \n";
    let lines = parse_maps(text.as_bytes()).unwrap();
    let sums = space(segment::classify(lines, &Default::default())).by_suspect();
    let sums: Vec<_> = sums
        .iter()
        .map(|(suspect, sum)| (suspect.name(), sum.vmas, sum.bytes))
        .collect();
    assert_eq!(sums, [("write-exec", 1, 8192), ("anon-exec", 2, 12288)]);
}

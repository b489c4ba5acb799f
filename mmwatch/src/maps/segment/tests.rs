use super::*;
use crate::maps::{
    elf::tests::{LIBRARY, PAGE, object},
    parse_maps,
};

/// The parts of `LIBRARY`, mapped once it is loaded.
fn image(base: u64, inode: u64, path: &str) -> String {
    [
        (0, 0x2000, "r--p", 0),
        (0x2000, 0x8000, "r-xp", 0x2000),
        (0x8000, 0xb000, "r--p", 0x8000),
        (0xb000, 0xc000, "r--p", 0xa000),
        (0xc000, 0xd000, "rw-p", 0xb000),
    ]
    .iter()
    .map(|(start, end, prot, offset)| {
        let (start, end) = (base + start, base + end);
        format!("{start:x}-{end:x} {prot} {offset:08x} fe:00 {inode}                  {path}\n")
    })
    .chain([format!(
        "{:x}-{:x} rw-p 00000000 00:00 0 \n",
        base + 0xd000,
        base + 0xf000
    )])
    .collect()
}

const PROGRAM: u64 = 0x5500_0000_0000;
const LIBC: u64 = 0x7f00_0000_0000;
const LD: u64 = 0x7f00_1000_0000;

fn clues() -> Clues {
    let objects = [1, 2, 3].map(|inode| {
        let id = (Dev(0xfe << 20), inode);
        (id, Object::Elf(object(&LIBRARY)))
    });
    Clues {
        objects: objects.into_iter().collect(),
        exe: Some(b"/bin/p".to_vec()),
        entry: Some(PROGRAM + 0x2100),
        interpreter: Some(LD),
        page_bytes: PAGE,
        all_threads: true,
        ..Clues::default()
    }
}

/// Each VMA's segment, marked when guessed, and its backing.
fn explained(text: &str, clues: &Clues) -> Vec<String> {
    let vmas = classify(parse_maps(text.as_bytes()).unwrap(), clues);
    let mark = |certainty| match certainty {
        Certainty::Known => "",
        Certainty::Guessed => "?",
    };
    vmas.iter()
        .map(|vma| {
            let mark = mark(vma.certainty);
            format!("{}{mark} {}", vma.segment, vma.backing.short_name())
        })
        .collect()
}

/// As [`explained`], of one line.
#[track_caller]
fn assert_is(line: &str, want: &str) {
    assert_eq!(explained(line, &clues()), [want], "{line}");
}

#[test]
fn a_process_is_explained() {
    let text = [
        image(PROGRAM, 1, "/bin/p"),
        "5500aaaa0000-5500aaac1000 rw-p 00000000 00:00 0                          [heap]\n".into(),
        image(LIBC, 2, "/lib/libc.so.6"),
        "7f0000020000-7f0000023000 rw-p 00000000 00:00 0 \n".into(),
        "7f0000ffa000-7f0000ffe000 r--p 00000000 00:00 0                          [vvar]\n".into(),
        "7f0000ffe000-7f0001000000 r--p 00000000 00:00 0                   [vvar_vclock]\n".into(),
        "7f0001000000-7f0001002000 r-xp 00000000 00:00 0                          [vdso]\n".into(),
        image(LD, 3, "/lib/ld-linux-x86-64.so.2"),
        "7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                         [stack]\n".into(),
        "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0              [vsyscall]\n".into(),
    ]
    .concat();
    let parts = |owner: &str| {
        ["rodata", "text", "rodata", "relro", "data", "bss"].map(|part| match part {
            "bss" => format!("{owner}bss priv-anon"),
            _ => format!("{owner}{part} priv-file"),
        })
    };
    let mut want = parts("").to_vec();
    want.push("heap priv-anon".into());
    want.extend(parts("library:"));
    want.extend(
        [
            "anon priv-anon",
            "vvar special",
            "vvar special",
            "vdso special",
        ]
        .map(Into::into),
    );
    want.extend(parts("interpreter:"));
    want.extend(["stack priv-anon", "vsyscall special"].map(Into::into));
    assert_eq!(explained(&text, &clues()), want);

    let vmas = classify(parse_maps(text.as_bytes()).unwrap(), &clues());
    let objects: Vec<_> = vmas.iter().filter_map(|vma| vma.object).collect();
    assert_eq!(objects.len(), 18);
    assert_eq!(objects[5], b"/bin/p");
    assert_eq!(objects[11], b"/lib/libc.so.6");
}

#[test]
fn the_same_library_may_be_there_twice() {
    let text = image(LIBC, 2, "/l") + &image(LD, 2, "/l");
    let clues = Clues {
        interpreter: None,
        ..clues()
    };
    let got = explained(&text, &clues);
    assert_eq!(got[..6], got[6..]);
    assert_eq!(got[5], "library:bss priv-anon");
}

#[test]
fn without_auxv_the_program_is_known_by_its_path() {
    let text = image(PROGRAM, 1, "/bin/p") + &image(LIBC, 2, "/lib/libc.so.6");
    let clues = Clues {
        entry: None,
        interpreter: None,
        ..clues()
    };
    let got = explained(&text, &clues);
    assert_eq!(
        (got[1].as_str(), got[7].as_str()),
        ("text priv-file", "library:text priv-file")
    );
}

#[test]
fn a_library_that_is_read_as_a_file_is_a_file() {
    let text = image(LIBC, 2, "/l") + "7f0000100000-7f000010d000 r--p 00000000 fe:00 2      /l\n";
    assert_eq!(explained(&text, &clues())[6], "file priv-file");
}

#[test]
fn parts_of_objects_that_cannot_be_read_are_guessed() {
    let mut clues = clues();
    for object in clues.objects.values_mut() {
        *object = Object::Unread;
    }
    let text = image(PROGRAM, 1, "/bin/p") + &image(LIBC, 2, "/l") + &image(LD, 3, "/ld");
    let got = explained(&text, &clues);
    assert_eq!(
        got[..6],
        [
            "rodata? priv-file",
            "text? priv-file",
            "rodata? priv-file",
            "rodata? priv-file",
            "data? priv-file",
            "anon priv-anon"
        ]
    );
    assert_eq!(got[7], "library:text? priv-file");
    assert_eq!(got[12], "interpreter:rodata? priv-file");

    for object in clues.objects.values_mut() {
        *object = Object::Other;
    }
    assert_eq!(explained(&text, &clues)[1], "file priv-file");
}

#[test]
fn memory_that_reaches_beyond_bss_is_guessed() {
    let text = image(LIBC, 2, "/l").replace("7f000000f000", "7f0000011000");
    assert_eq!(explained(&text, &clues())[5], "library:bss? priv-anon");
}

#[test]
fn names_of_the_kernel_tell() {
    for (line, want) in [
        (
            "1000-2000 rw-s 00000000 00:01 98304                      /SYSV0000abcd (deleted)",
            "shm shr-file",
        ),
        (
            "1000-2000 rw-s 00000000 00:01 98304                      /SYSV00000000",
            "shm shr-file",
        ),
        (
            "1000-2000 rw-s 00000000 00:1a 12                         /dev/shm/ring",
            "shm shr-file",
        ),
        (
            "1000-2000 rw-s 00000000 00:01 1025                       /memfd:jit (deleted)",
            "memfd shr-file",
        ),
        (
            "1000-2000 r-xp 00000000 00:01 1025                       /memfd:jit (deleted)",
            "memfd priv-file",
        ),
        (
            "1000-2000 rw-s 00000000 00:01 1025                       /dev/zero (deleted)",
            "anon shr-anon",
        ),
        (
            "1000-2000 rw-p 00000000 00:06 5                          /dev/zero",
            "anon priv-anon",
        ),
        (
            "1000-2000 rw-s 00000000 00:01 1025                       [anon_shmem:ring]",
            "anon shr-anon",
        ),
        (
            "1000-2000 rw-p 00000000 00:00 0                          [anon:arena]",
            "anon priv-anon",
        ),
        (
            "1000-2000 rw-p 00000000 00:00 0                          [anon:stack_and_tls:7]",
            "thread-stack priv-anon",
        ),
        (
            "1000-2000 rw-p 00000000 00:00 0                          [anon: glibc: thread stack: 7]",
            "thread-stack priv-anon",
        ),
        (
            "200000-400000 rw-p 00000000 00:0f 99                     /anon_hugepage (deleted)",
            "hugetlb priv-anon",
        ),
        (
            "200000-400000 rw-s 00000000 00:0f 99                     /anon_hugepage (deleted)",
            "hugetlb shr-anon",
        ),
        (
            "200000-400000 rw-s 00000000 00:0e 99                     /dev/hugepages/x",
            "hugetlb? shr-file",
        ),
        (
            "1000-2000 rw-s 00000000 00:06 300                        /dev/dri/card0",
            "special? special",
        ),
        (
            "1000-2000 rw-s 00000000 00:0d 9                          anon_inode:[perf_event]",
            "special special",
        ),
        (
            "1000-2000 --xp 00000000 00:00 0                          [uprobes]",
            "special special",
        ),
        (
            "1000-2000 rw-s 00000000 fe:00 12                         /data/log",
            "file shr-file",
        ),
        // Of a disk: only called so.
        (
            "1000-2000 rw-s 00000000 fe:00 12                         /memfd:x (deleted)",
            "file shr-file",
        ),
        (
            "1000-2000 rw-s 00000000 fe:00 12                         /SYSV00000000",
            "file shr-file",
        ),
        (
            "1000-2000 rw-s 00000000 00:01 12                         /SYSV0000000",
            "file shr-file",
        ),
    ] {
        assert_is(line, want);
    }
    let clues = Clues {
        hugetlbfs: vec![Dev(0x1d)],
        ..clues()
    };
    let huge = "200000-400000 rw-s 00000000 00:1d 99                 /huge/x";
    assert_eq!(explained(huge, &clues), ["hugetlb shr-file"]);
}

#[test]
fn permissions_tell_of_memory() {
    assert_is("1000-2000 rw-p 00000000 00:00 0 ", "anon priv-anon");
    assert_is("1000-2000 r--p 00000000 00:00 0 ", "anon priv-anon");
    assert_is("1000-2000 rwxp 00000000 00:00 0 ", "jit? priv-anon");
    assert_is(
        "1000-2000 r-xs 00000000 00:01 9 /dev/zero (deleted)",
        "jit? shr-anon",
    );
    assert_is("100000-200000 ---p 00000000 00:00 0 ", "guard? priv-anon");
    assert_is(
        "100000-201000 ---p 00000000 00:00 0 ",
        "reserved? priv-anon",
    );
}

const THREAD: &str = "10000-11000 ---p 00000000 00:00 0 \n11000-20000 rw-p 00000000 00:00 0 \n";

#[test]
fn stack_pointers_and_guards_tell_stacks() {
    let with = |stack_pointers: &[u64], all_threads| {
        let clues = Clues {
            stack_pointers: stack_pointers.to_vec(),
            all_threads,
            ..clues()
        };
        explained(THREAD, &clues)
    };
    let stack = ["guard priv-anon", "thread-stack priv-anon"];
    let guess = ["guard? priv-anon", "thread-stack? priv-anon"];
    let none = ["guard? priv-anon", "anon priv-anon"];
    assert_eq!(with(&[0x1ff8, 0x1_fff8, 0x7fff_0000], true), stack);
    assert_eq!(with(&[0x1_1000], true), stack);
    assert_eq!(with(&[0x2_0000], true), none);
    assert_eq!(with(&[], true), none);
    // A thread whose stack pointer is not known may be here.
    assert_eq!(with(&[], false), guess);

    let clues = Clues {
        stack_pointers: vec![0x1_fff8],
        ..clues()
    };
    let unguarded = "11000-20000 rw-p 00000000 00:00 0 \n";
    assert_eq!(explained(unguarded, &clues), ["thread-stack? priv-anon"]);
    let executable = "11000-20000 rwxp 00000000 00:00 0 \n";
    assert_eq!(explained(executable, &clues), ["thread-stack? priv-anon"]);
}

#[test]
fn what_is_reserved_guards_no_stack() {
    let text = "1000000-2000000 ---p 00000000 00:00 0 \n2000000-2010000 rw-p 00000000 00:00 0 \n";
    let clues = Clues {
        all_threads: false,
        ..clues()
    };
    assert_eq!(
        explained(text, &clues),
        ["reserved? priv-anon", "anon priv-anon"]
    );
}

#[test]
fn headers_are_wanted_of_files_with_code_once() {
    let text = image(LIBC, 2, "/l")
        + &image(LD, 2, "/l")
        + "1000-2000 r-xp 00000000 00:00 0 \n2000-3000 r--p 00000000 fe:00 9 /d\n\
           3000-4000 r-xs 00000000 fe:00 8 /s\n";
    let lines = parse_maps(text.as_bytes()).unwrap();
    let files: Vec<_> = code_files(&lines).into_iter().map(|(id, _)| id).collect();
    assert_eq!(files, [(Dev(0xfe << 20), 2)]);
}

#[test]
fn a_line_alone_tells_its_backing_as_all_of_them_do() {
    let own = std::fs::read_to_string("/proc/self/maps").unwrap();
    let made_up = "\
1000-2000 rw-p 00000000 00:00 0 [anon:x]
2000-3000 rw-s 00000000 00:01 8 [anon_shmem:x]
3000-4000 rw-s 00000000 00:01 8 /dev/zero (deleted)
4000-5000 rw-p 00000000 00:05 8 /dev/zero
5000-6000 rw-s 00000000 00:05 9 /dev/dri/card0
6000-7000 rw-s 00000000 00:01 3 /SYSV00000000 (deleted)
7000-8000 rw-s 00000000 00:1a 4 /dev/shm/x
8000-9000 rw-s 00000000 00:0e 5 anon_inode:[perf_event]
9000-a000 r--p 00000000 00:00 0 [vvar_vclock]
a000-b000 rw-p 00000000 00:0f 6 /anon_hugepage (deleted)
b000-c000 r-xp 00000000 00:00 0 [uprobes]
c000-d000 rw-p 00000000 fe:00 7 /bin/x
d000-e000 rw-p 00000000 00:00 0
e000-f000 rw-p 00000000 00:00 0 [stack]
f000-10000 rw-s 00000000 00:10 8 /dev/hugepages/x
";
    for text in [own.as_str(), made_up, &image(PROGRAM, 1, "/bin/p")] {
        for vma in classify(parse_maps(text.as_bytes()).unwrap(), &clues()) {
            assert_eq!(backing_of(&vma.line), vma.backing, "{vma:?}");
        }
    }
}

//! `mmwatch maps` of real processes, against their own `/proc/PID/maps`. Needs
//! no privileges: the processes are this test's children.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    process::{Command, Output},
    thread,
};

use common::Still;
use serde_json::Value;

fn cat() -> Still {
    echo(&mut Command::new("/bin/cat"))
}

/// A child that copies its input, and has copied a line.
fn echo(command: &mut Command) -> Still {
    Still::after(command, |stdin| stdin.write_all(b"here\n").unwrap())
}

/// A Python that does this, and then nothing. `None` where there is no Python.
fn python(program: &str) -> Option<Still> {
    let found = Command::new("python3").arg("-V").output();
    if !found.is_ok_and(|output| output.status.success()) {
        println!("no python3 here: not tested");
        return None;
    }
    let program = format!("{program}\nimport sys\nprint('ready', flush=True)\nsys.stdin.read()");
    Some(Still::new(Command::new("python3").args(["-c", &program])))
}

fn mmwatch(args: &[&str]) -> Output {
    common::mmwatch().arg("maps").args(args).output().unwrap()
}

#[track_caller]
fn stdout(args: &[&str]) -> String {
    let output = mmwatch(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What `maps -o json` says, valid by its schema.
#[track_caller]
fn explained(pid: u32, more: &[&str]) -> Value {
    let pid = pid.to_string();
    let text = stdout(&[&["-o", "json", pid.as_str()], more].concat());
    let value = serde_json::from_str(&text).unwrap();
    let schema = include_str!("../../docs/maps.schema.json");
    let schema = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    let errors: Vec<_> = schema.iter_errors(&value).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    value
}

fn vmas(space: &Value) -> &Vec<Value> {
    space["vmas"].as_array().unwrap()
}

/// A VMA's segment, with the part.
fn segment(vma: &Value) -> String {
    let segment = vma["segment"].as_str().unwrap();
    match vma["part"].as_str() {
        Some(part) => format!("{segment}:{part}"),
        None => segment.to_owned(),
    }
}

/// The line of `/proc/PID/maps` that a VMA is, runs of spaces made one.
fn line(vma: &Value) -> String {
    let hex = |key: &str| {
        vma[key]
            .as_str()
            .unwrap()
            .strip_prefix("0x")
            .unwrap()
            .to_owned()
    };
    let file = &vma["file"];
    let name = file["path"].as_str().or_else(|| vma["name"].as_str());
    format!(
        "{:0>8}-{:0>8} {}{} {:08x} {} {} {}",
        hex("start"),
        hex("end"),
        vma["prot"].as_str().unwrap(),
        if vma["shared"] == true { 's' } else { 'p' },
        file["offset_bytes"].as_u64().unwrap_or(0),
        file["dev"].as_str().unwrap_or("00:00"),
        file["inode"].as_u64().unwrap_or(0),
        name.unwrap_or("")
    )
}

fn squeezed(line: &str) -> String {
    line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// Ranges, permissions, files and sums are those of `/proc/PID/maps`.
#[track_caller]
fn assert_same(space: &Value, maps: &str) {
    let got: Vec<_> = vmas(space).iter().map(|vma| squeezed(&line(vma))).collect();
    let want: Vec<_> = maps.lines().map(squeezed).collect();
    assert_eq!(got, want);

    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for vma in vmas(space) {
        let start = u64::from_str_radix(&vma["start"].as_str().unwrap()[2..], 16).unwrap();
        let end = u64::from_str_radix(&vma["end"].as_str().unwrap()[2..], 16).unwrap();
        let bytes = vma["size_bytes"].as_u64().unwrap();
        assert_eq!(bytes, end - start);
        for key in [
            segment(vma),
            vma["backing"].as_str().unwrap().to_owned(),
            "all".into(),
        ] {
            let sum = sums.entry(key).or_default();
            *sum = (sum.0 + 1, sum.1 + bytes);
        }
    }
    let sum = |of: &Value| {
        let number = |key: &str| of[key].as_u64().unwrap();
        (number("vmas"), number("size_bytes"))
    };
    let mut told: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for of in space["segments"].as_array().unwrap() {
        told.insert(segment(of), sum(of));
    }
    for of in space["backings"].as_array().unwrap() {
        told.insert(of["backing"].as_str().unwrap().to_owned(), sum(of));
    }
    told.insert("all".into(), sum(&space["total"]));
    assert_eq!(told, sums);
}

/// The segments of all VMAs of which something is true, each once.
fn segments(space: &Value, wanted: impl Fn(&Value) -> bool) -> Vec<String> {
    let mut segments: Vec<_> = vmas(space)
        .iter()
        .filter(|vma| wanted(vma))
        .map(segment)
        .collect();
    segments.sort();
    segments.dedup();
    segments
}

fn of_object(space: &Value, part_of_path: &str) -> Vec<String> {
    segments(space, |vma| {
        vma["object"]
            .as_str()
            .is_some_and(|path| path.contains(part_of_path))
    })
}

#[test]
fn every_row_of_a_program_is_named() {
    let cat = cat();
    let space = explained(cat.pid(), &[]);
    assert_same(&space, &cat.maps());
    assert_eq!(space["comm"], "cat");

    let named = |name: &'static str| segments(&space, move |vma| vma["name"] == name);
    assert_eq!(named("[heap]"), ["heap"]);
    assert_eq!(named("[stack]"), ["stack"]);
    assert_eq!(named("[vdso]"), ["vdso"]);
    assert_eq!(named("[vvar]"), ["vvar"]);

    let program = of_object(&space, "/cat");
    for part in ["text", "rodata", "relro", "data"] {
        assert!(
            program.iter().any(|segment| segment == part),
            "{part}: {program:?}"
        );
    }
    for (object, owner, parts) in [
        (
            "/libc",
            "library",
            &["text", "rodata", "relro", "data", "bss"][..],
        ),
        ("/ld-", "interpreter", &["text", "rodata", "relro", "data"]),
    ] {
        let got = of_object(&space, object);
        for part in parts {
            let want = format!("{owner}:{part}");
            assert!(got.contains(&want), "{want}: {got:?}");
        }
        assert!(
            got.iter().all(|segment| segment.starts_with(owner)),
            "{got:?}"
        );
    }
    // Code is text, and text is code.
    for vma in vmas(&space) {
        let is_code = vma["prot"].as_str().unwrap().ends_with('x');
        let is_text = segment(vma).ends_with("text") || segment(vma).starts_with('v');
        assert!(!is_code || is_text, "{vma}");
        assert_eq!(vma["certainty"], "known", "{vma}");
    }
}

#[test]
fn text_has_the_rows_and_the_sums() {
    let cat = cat();
    let text = stdout(&[&cat.pid().to_string()]);
    for line in cat.maps().lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        let prot = &rest[..4];
        assert!(
            text.contains(&format!("{range:<25} {prot} ")),
            "{line}\n{text}"
        );
    }
    let vmas = cat.maps().lines().count();
    assert!(text.starts_with(&format!("process {} (cat): {vmas} VMAs", cat.pid())));
    let all = text.lines().find(|line| line.starts_with("all ")).unwrap();
    assert_eq!(
        all.split_ascii_whitespace().nth(1).unwrap(),
        vmas.to_string()
    );
    for word in ["library:relro", "private-anonymous", "mmap_lock"] {
        assert!(text.contains(word), "{word}\n{text}");
    }
}

#[test]
fn several_processes_are_a_line_each() {
    let (a, b) = (cat(), cat());
    let (a, b) = (a.pid().to_string(), b.pid().to_string());
    let text = stdout(&["-o", "json", &a, &b]);
    let pids: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["pid"].to_string())
        .collect();
    assert_eq!(pids, [a, b]);
}

#[test]
fn a_process_that_is_gone_hides_no_other() {
    let mut gone = Command::new("/bin/true").spawn().unwrap();
    let pid = gone.id().to_string();
    gone.wait().unwrap();
    let there = cat();
    let output = mmwatch(&["-o", "json", &pid, &there.pid().to_string()]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains(&format!("no process {pid}")), "{errors}");
    let space: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(space["pid"], there.pid());
}

#[test]
fn shared_memory_threads_and_code_are_told() {
    let Some(python) = python(
        "import ctypes, mmap, os, threading, time\n\
         threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n\
         fd = os.memfd_create('ring'); os.ftruncate(fd, 8192); a = mmap.mmap(fd, 8192)\n\
         b = mmap.mmap(-1, 12288)\n\
         c = mmap.mmap(-1, 16384, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 7)\n\
         libc = ctypes.CDLL(None); libc.shmat.restype = ctypes.c_void_p\n\
         id = libc.shmget(0, 20480, 0o1600); libc.shmat(id, None, 0); libc.shmctl(id, 0, None)",
    ) else {
        return;
    };
    let space = explained(python.pid(), &[]);
    assert_same(&space, &python.maps());
    let found = |segment: &str, backing: &str, bytes: u64| {
        vmas(&space).iter().any(|vma| {
            vma["segment"] == segment && vma["backing"] == backing && vma["size_bytes"] == bytes
        })
    };
    assert!(found("memfd", "shared-file", 8192));
    assert!(found("anon", "shared-anonymous", 12288));
    assert!(found("jit", "private-anonymous", 16384));
    assert!(found("shm", "shared-file", 20480));

    let at = vmas(&space)
        .iter()
        .position(|vma| vma["segment"] == "thread-stack")
        .unwrap();
    let (guard, stack) = (&vmas(&space)[at - 1], &vmas(&space)[at]);
    assert_eq!(guard["segment"], "guard");
    assert_eq!(guard["end"], stack["start"]);
    assert_eq!(stack["backing"], "private-anonymous");
}

/// Sizes of the VMAs of each dangerous kind, smallest first.
fn suspects(space: &Value) -> BTreeMap<String, Vec<u64>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for vma in vmas(space) {
        let kinds = vma["suspects"].as_array();
        for kind in kinds.map_or(&[][..], Vec::as_slice) {
            let size = vma["size_bytes"].as_u64().unwrap();
            let sizes = found.entry(kind.as_str().unwrap().to_owned());
            sizes.or_default().push(size);
        }
    }
    found.values_mut().for_each(|sizes| sizes.sort_unstable());
    found
}

#[test]
fn an_ordinary_process_has_no_dangerous_mappings() {
    let cat = cat();
    let space = explained(cat.pid(), &[]);
    assert_eq!(suspects(&space), BTreeMap::new());
    assert_eq!(space["suspects"], Value::Array(vec![]));
    assert!(!stdout(&[&cat.pid().to_string()]).contains("SUSPECT"));
}

#[test]
fn dangerous_mappings_are_told() {
    let Some(python) = python(
        "import ctypes, mmap, os, tempfile\n\
         P = mmap.MAP_PRIVATE; A = P | mmap.MAP_ANONYMOUS\n\
         fd = os.memfd_create('code'); os.ftruncate(fd, 8192); a = mmap.mmap(fd, 8192, P, 5)\n\
         b = mmap.mmap(-1, 12288, A, 7)\n\
         c = mmap.mmap(-1, 16384, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS, 5)\n\
         f = tempfile.TemporaryFile(); f.truncate(20480); d = mmap.mmap(f.fileno(), 20480, P, 5)\n\
         libc = ctypes.CDLL(None); libc.sbrk.restype = ctypes.c_void_p\n\
         heap = (libc.sbrk(12288) + 4095) // 4096 * 4096\n\
         assert libc.mprotect(ctypes.c_void_p(heap), 4096, 5) == 0",
    ) else {
        return;
    };
    let space = explained(python.pid(), &[]);
    assert_same(&space, &python.maps());
    let mut found = suspects(&space);
    // libffi may have some of its own.
    let has = |sizes: Option<Vec<u64>>, wanted: &[u64]| {
        let sizes = sizes.unwrap_or_default();
        wanted.iter().all(|size| sizes.contains(size))
    };
    assert!(has(found.remove("write-exec"), &[12288]));
    assert!(has(found.remove("anon-exec"), &[4096, 12288, 16384]));
    assert!(has(found.remove("memfd-exec"), &[8192]));
    assert_eq!(found.remove("deleted-exec"), Some(vec![20480]));
    assert_eq!(found.remove("heap-exec"), Some(vec![4096]));
    assert_eq!(found, BTreeMap::new());

    // The sums are those of the VMAs.
    for (kind, sizes) in suspects(&space) {
        let sum = space["suspects"].as_array().unwrap();
        let sum = sum.iter().find(|sum| sum["suspect"] == *kind).unwrap();
        assert_eq!(sum["vmas"], sizes.len());
        assert_eq!(sum["size_bytes"], sizes.iter().sum::<u64>());
    }
    let text = stdout(&[&python.pid().to_string()]);
    assert!(text.contains(" (deleted) SUSPECT deleted-exec\n"), "{text}");
    assert!(
        text.contains("\nSUSPECT               VMAS      SIZE\n"),
        "{text}"
    );
}

#[test]
fn a_program_whose_file_is_gone_is_known_still() {
    let copy = std::env::temp_dir().join(format!("mmwatch-maps-{}-cat", std::process::id()));
    fs::copy("/bin/cat", &copy).unwrap();
    let cat = echo(&mut Command::new(&copy));
    fs::remove_file(&copy).unwrap();
    let space = explained(cat.pid(), &[]);
    let parts = of_object(&space, "(deleted)");
    for part in ["text", "rodata", "relro", "data"] {
        assert!(parts.iter().any(|got| got == part), "{part}: {parts:?}");
    }
    assert!(vmas(&space).iter().all(|vma| vma["certainty"] == "known"));
}

#[test]
fn what_is_in_memory_is_told_on_demand() {
    let cat = cat();
    assert!(explained(cat.pid(), &[])["total"]["resident_bytes"].is_null());
    let space = explained(cat.pid(), &["--smaps"]);
    assert_same(&space, &cat.maps());
    let resident = |vma: &Value| vma["resident_bytes"].as_u64().unwrap();
    let sum: u64 = vmas(&space).iter().map(resident).sum();
    assert_eq!(resident(&space["total"]), sum);
    assert!(
        vmas(&space)
            .iter()
            .all(|vma| resident(vma) <= vma["size_bytes"].as_u64().unwrap())
    );
    let stack = vmas(&space)
        .iter()
        .find(|vma| vma["segment"] == "stack")
        .unwrap();
    assert_ne!(resident(stack), 0);

    // What that costs is said, apart from the output.
    let warned = mmwatch(&["--smaps", &cat.pid().to_string()]).stderr;
    let warned = String::from_utf8(warned).unwrap();
    assert!(
        warned.contains("mmap_lock") && warned.contains("page tables"),
        "{warned}"
    );
    assert_eq!(mmwatch(&[&cat.pid().to_string()]).stderr, b"");
}

#[test]
fn sixty_thousand_vmas_are_explained() {
    // Neighbours of other permissions do not merge.
    let Some(python) = python(
        "import ctypes, mmap\n\
         libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p\n\
         libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]\n\
         libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]\n\
         at = libc.mmap(None, 60000 * 4096, 1, 0x22, -1, 0)\n\
         for page in range(0, 60000, 2):\n    assert libc.mprotect(at + page * 4096, 4096, 3) == 0",
    ) else {
        return;
    };
    let space = explained(python.pid(), &[]);
    assert!(vmas(&space).len() >= 60_000);
    assert_same(&space, &python.maps());
    let pid = python.pid().to_string();
    let rows = stdout(&[&pid]);
    let rows = rows.lines().filter(|line| line.contains(" anon "));
    let anon = vmas(&space).iter().filter(|vma| vma["segment"] == "anon");
    assert_eq!(rows.count(), anon.count());
    assert!(stdout(&["--picture", &pid]).lines().count() <= 40);
}

#[test]
fn a_picture_shows_all_of_it() {
    let cat = cat();
    let picture = stdout(&["--picture", &cat.pid().to_string()]);
    assert!(picture.lines().count() <= 40, "{picture}");
    let vmas = picture
        .lines()
        .skip(3)
        .filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse::<usize>().ok());
    assert_eq!(vmas.sum::<usize>(), cat.maps().lines().count(), "{picture}");
    for word in ["heap", "stack", "vdso", "libc", "ld-"] {
        assert!(picture.contains(word), "{word}\n{picture}");
    }
}

#[test]
fn what_changes_is_told() {
    let Some(python) = python(
        "import mmap, threading, time\n\
         kept = []\n\
         def go():\n    \
             while len(kept) < 10000:\n        \
                 kept.append(mmap.mmap(-1, 4096)); time.sleep(0.01)\n\
         threading.Thread(target=go, daemon=True).start()",
    ) else {
        return;
    };
    // It maps on and on, in its own time.
    let change = (0..100).find_map(|_| {
        let value = explained(python.pid(), &["--diff", "100ms"]);
        assert_eq!(value["type"], "maps-diff");
        let changes = value["changes"].as_array().unwrap();
        let new = changes
            .iter()
            .find(|change| change["backing"] == "shared-anonymous");
        new.cloned()
    });
    let change = change.unwrap();
    assert_eq!(change["change"], "appeared");
    assert_eq!(change["delta_bytes"], 4096);
    assert_eq!(change["segment"], "anon");

    let cat = cat();
    let nothing = stdout(&["--diff", "1ms", &cat.pid().to_string()]);
    for sort in ["appeared", "vanished", "grew", "shrank", "changed"] {
        let row = nothing.lines().find(|line| line.starts_with(sort)).unwrap();
        let words: Vec<_> = row.split_ascii_whitespace().skip(1).collect();
        assert_eq!(words, ["0", "+0B"], "{nothing}");
    }
}

#[track_caller]
fn assert_refused(args: &[&str], code: i32, names: &[&str]) {
    let output = mmwatch(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
    assert_eq!(output.stdout, b"", "{args:?}");
    for name in names {
        assert!(errors.contains(name), "{args:?}: {errors}");
    }
}

#[test]
fn what_cannot_be_explained_is_named() {
    assert_refused(&[], 2, &["PID"]);
    assert_refused(&["me"], 2, &["me"]);
    assert_refused(&["0"], 2, &["0"]);
    assert_refused(&["4194305"], 2, &["no process 4194305", "ps -e"]);
    assert_refused(&["1", "--picture", "-o", "json"], 2, &["--picture"]);
    assert_refused(&["1", "--picture", "--smaps"], 2, &["--smaps"]);
    assert_refused(&["1", "--picture", "--diff", "1"], 2, &["--diff"]);
    assert_refused(&["1", "1", "--diff", "1"], 2, &["--diff"]);
    assert_refused(&["1", "1", "--watch", "1"], 2, &["--watch"]);
    assert_refused(&["1", "--watch", "1ms"], 2, &["--watch", "10ms"]);
    assert_refused(&["1", "--watch", "1", "--smaps"], 2, &["--smaps"]);
    assert_refused(&["1", "--duration", "1"], 2, &["--watch"]);

    // A child that ended, and that nobody asked for yet.
    let mut child = Command::new("/bin/true").spawn().unwrap();
    let pid = child.id().to_string();
    while !fs::read_to_string(format!("/proc/{pid}/stat"))
        .unwrap()
        .contains(") Z ")
    {
        thread::yield_now();
    }
    assert_refused(&[&pid], 2, &[&pid, "has ended", "ps -e"]);
    child.wait().unwrap();
    assert_refused(&[&pid], 2, &[&format!("no process {pid}")]);
}

#[test]
fn a_process_outlives_its_first_thread() {
    let Some(python) = python(
        "import ctypes, mmap, sys, threading, time\n\
         m = mmap.mmap(-1, 12288)\n\
         def rest():\n\
         \x20   print('ready', flush=True); sys.stdin.read()\n\
         \x20   ctypes.CDLL(None)._exit(0)\n\
         threading.Thread(target=rest).start()\n\
         ctypes.CDLL(None).pthread_exit(None)",
    ) else {
        return;
    };
    let state = || fs::read_to_string(format!("/proc/{}/stat", python.pid())).unwrap();
    while !state().contains(") Z ") {
        thread::yield_now();
    }
    let space = explained(python.pid(), &[]);
    assert!(vmas(&space).iter().any(|vma| vma["size_bytes"] == 12288));
}

#[test]
fn a_name_that_is_not_utf8_is_no_obstacle() {
    let Some(python) =
        python("import ctypes\nctypes.CDLL(None).prctl(15, b'bad\\xff\\x00', 0, 0, 0)")
    else {
        return;
    };
    let text = stdout(&[&python.pid().to_string()]);
    assert!(text.contains(r"bad\xff"), "{text}");
}

#[test]
fn a_thread_is_not_a_process() {
    let Some(python) = python(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
    ) else {
        return;
    };
    let pid = python.pid().to_string();
    let thread = fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .map(|task| task.unwrap().file_name().into_string().unwrap())
        .find(|task| *task != pid)
        .unwrap();
    assert_refused(&[&thread], 2, &[&format!("mmwatch maps {pid}")]);
}

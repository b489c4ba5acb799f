//! `mmwatch shared` of real processes: of this very binary, called as
//! `shared child …`, so that it runs in VMs too, where there is nothing else.
//! Needs no privileges.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod child;
#[path = "../common/mod.rs"]
mod common;

use std::{
    env,
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output},
};

use common::Still;
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    if args.next().as_deref() == Some("child") {
        child::main(&args.collect::<Vec<_>>());
        return ExitCode::SUCCESS;
    }
    let trials = TESTS.iter().map(|&(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

macro_rules! tests {
    ($($name:ident,)*) => { &[$((stringify!($name), $name as fn())),*] };
}

const TESTS: &[(&str, fn())] = tests![
    a_second_program_appears_beside_the_first,
    every_mapping_is_that_of_proc_maps,
    segments_of_system_v_are_shared,
    posix_shared_memory_is_shared,
    a_memfd_is_shared_with_whom_it_was_passed_to,
    anonymous_memory_is_shared_over_fork,
    private_mappings_are_shown_and_take_no_part,
    only_what_overlaps_is_common,
    a_file_is_found_by_each_of_its_names,
    what_nobody_else_maps_is_shown_alone,
    nothing_shared_is_no_failure,
    a_graph_has_an_edge_for_each_process,
    what_cannot_be_looked_at_is_named,
    processes_of_others_are_counted,
];

/// A file that is gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("mmwatch-shared-{}-{name}", std::process::id()));
        fs::write(&path, vec![0; 4 * PAGE as usize]).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

const PAGE: u64 = 4096;

/// This binary, doing what [`child::main`] knows by these words.
#[track_caller]
fn child(words: &[&str]) -> Still {
    Still::new(
        Command::new(env::current_exe().unwrap())
            .arg("child")
            .args(words),
    )
}

fn mmwatch(args: &[&str]) -> Output {
    common::mmwatch().arg("shared").args(args).output().unwrap()
}

#[track_caller]
fn stdout(args: &[&str]) -> String {
    let output = mmwatch(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What `shared -o json` says, valid by its schema.
#[track_caller]
fn objects(args: &[&str]) -> Vec<Value> {
    let text = stdout(&[&["-o", "json"], args].concat());
    let schema = include_str!("../../../docs/shared.schema.json");
    let schema = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    let objects = text.lines().map(|line| {
        let value = serde_json::from_str(line).unwrap();
        let errors: Vec<_> = schema.iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{value:#}\n{errors:#?}");
        value
    });
    objects.collect()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn pids(object: &Value) -> Vec<u32> {
    let processes = list(&object["processes"]).iter();
    processes
        .map(|process| process["pid"].as_u64().unwrap() as u32)
        .collect()
}

/// The one object that this process has of this kind, by its own list.
#[track_caller]
fn of_kind(pid: u32, kind: &str) -> Value {
    let objects = objects(&[&pid.to_string()]);
    let mut found = objects.into_iter().filter(|object| object["kind"] == kind);
    let object = found.next().unwrap();
    assert_eq!(found.next(), None);
    object
}

/// Whether the list of all has an object.
#[track_caller]
fn is_among_all(object: &Value) -> bool {
    let id = |object: &Value| {
        (
            object["kind"].clone(),
            object["dev"].clone(),
            object["inode"].clone(),
        )
    };
    // Without its processes, of which others may come and go.
    objects(&[]).iter().any(|other| id(other) == id(object))
}

fn talk(writers: &[u32], readers: &[u32], bytes: u64) -> Value {
    json!({ "writers": writers, "readers": readers, "bytes": bytes })
}

fn in_order(mut pids: [u32; 2]) -> [u32; 2] {
    pids.sort_unstable();
    pids
}

fn a_second_program_appears_beside_the_first() {
    let file = Scratch::new("beside");
    let writer = child(&["file", file.path(), "rw-s", "0", "4"]);
    let pid = writer.pid().to_string();
    let alone = &objects(&[file.path()])[0];
    assert_eq!(pids(alone), [writer.pid()]);
    assert_eq!(alone["talks"], json!([]));

    let reader = child(&["file", file.path(), "r--s", "1", "2"]);
    let both = in_order([writer.pid(), reader.pid()]);
    for args in [file.path(), &pid, &reader.pid().to_string()] {
        let objects = objects(&[args]);
        let object = objects
            .iter()
            .find(|object| object["paths"][0] == file.path());
        let object = object.unwrap();
        assert_eq!(object["kind"], "file");
        assert_eq!(pids(object), both);
        assert_eq!(object["common_bytes"], 2 * PAGE);
        assert_eq!(
            object["talks"],
            json!([talk(&[writer.pid()], &[reader.pid()], 2 * PAGE)])
        );
        assert!(is_among_all(object));
    }
    let text = stdout(&[file.path()]);
    let arrow = format!("  {pid} (writer) -> {} (reader): 8KiB\n", reader.pid())
        .replace("writer", &comm(&writer))
        .replace("reader", &comm(&reader));
    assert!(text.contains(&arrow), "{arrow}{text}");

    drop(reader);
    assert_eq!(pids(&objects(&[file.path()])[0]), [writer.pid()]);
}

fn comm(child: &Still) -> String {
    let comm = fs::read_to_string(format!("/proc/{}/comm", child.pid())).unwrap();
    comm.trim().to_owned()
}

fn every_mapping_is_that_of_proc_maps() {
    let file = Scratch::new("mappings");
    // Apart, as they are of different permissions or parts of the file.
    let words = [
        "rw-s", "0", "1", "r--s", "2", "2", "r--p", "0", "4", "---s", "1", "1",
    ];
    let program = child(&[&["file", file.path()], &words[..]].concat());
    let object = &objects(&[file.path()])[0];
    let mappings = list(&object["processes"][0]["mappings"])
        .iter()
        .map(|mapping| {
            let hex = |key: &str| mapping[key].as_str().unwrap()[2..].to_owned();
            format!(
                "{}-{} {}{} {:08x} {} {} {}",
                hex("start"),
                hex("end"),
                mapping["prot"].as_str().unwrap(),
                if mapping["shared"] == true { 's' } else { 'p' },
                mapping["offset_bytes"].as_u64().unwrap(),
                object["dev"].as_str().unwrap(),
                object["inode"],
                object["paths"][0].as_str().unwrap()
            )
        });
    let maps = program.maps();
    let lines = maps.lines().filter(|line| line.ends_with(file.path()));
    let lines = lines.map(|line| line.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
    assert_eq!(mappings.collect::<Vec<_>>(), lines.collect::<Vec<_>>());
    assert_eq!(maps.matches(file.path()).count(), 4);
}

fn segments_of_system_v_are_shared() {
    let owner = child(&["sysv", "new", "rw-s"]);
    let shmid = owner.said.trim().strip_prefix("ready ").unwrap().to_owned();
    let reader = child(&["sysv", &shmid, "r--s"]);
    // Gone for who comes later, not for these two.
    child::remove_segment(shmid.parse().unwrap());
    let object = of_kind(reader.pid(), "sysv-shm");
    assert_eq!(object["shmid"].to_string(), shmid);
    assert!(
        object["paths"][0]
            .as_str()
            .unwrap()
            .starts_with("/SYSV00000000")
    );
    assert_eq!(pids(&object), in_order([owner.pid(), reader.pid()]));
    assert_eq!(
        object["talks"],
        json!([talk(&[owner.pid()], &[reader.pid()], 2 * PAGE)])
    );
    assert!(is_among_all(&object));
}

fn posix_shared_memory_is_shared() {
    let name = format!("/mmwatch-shared-{}", std::process::id());
    let (a, b) = (child(&["posix", &name]), child(&["posix", &name]));
    let file = Scratch(Path::new("/dev/shm").join(&name[1..]));
    let both = in_order([a.pid(), b.pid()]);
    for object in [&of_kind(a.pid(), "posix-shm"), &objects(&[file.path()])[0]] {
        assert_eq!(object["paths"], json!([file.path()]));
        assert_eq!(object["talks"], json!([talk(&both, &both, 2 * PAGE)]));
    }
}

fn a_memfd_is_shared_with_whom_it_was_passed_to() {
    let owner = child(&["memfd", "ring"]);
    let (pid, fd) = owner.said.trim()["ready ".len()..].split_once(' ').unwrap();
    let (passed_to, fd): (u32, u32) = (pid.parse().unwrap(), fd.parse().unwrap());
    // Files without a name anywhere are found by whom they are open of.
    let open = format!("/proc/{}/fd/{fd}", owner.pid());
    for object in [&of_kind(passed_to, "memfd"), &objects(&[&open])[0]] {
        assert_eq!(object["paths"], json!(["/memfd:ring (deleted)"]));
        assert_eq!(pids(object), in_order([owner.pid(), passed_to]));
        assert_eq!(
            object["talks"],
            json!([talk(&[owner.pid()], &[passed_to], PAGE)])
        );
    }
}

fn anonymous_memory_is_shared_over_fork() {
    let parent = child(&["fork"]);
    let child: u32 = parent.said.trim()["ready ".len()..].parse().unwrap();
    let object = of_kind(child, "shared-anonymous");
    let both = in_order([parent.pid(), child]);
    assert_eq!(object["talks"], json!([talk(&both, &both, 3 * PAGE)]));
    assert_eq!(object, of_kind(parent.pid(), "shared-anonymous"));
    assert!(is_among_all(&object));
}

fn private_mappings_are_shown_and_take_no_part() {
    let file = Scratch::new("private");
    let writer = child(&["file", file.path(), "rw-s", "0", "4"]);
    let private = child(&["file", file.path(), "rw-p", "0", "4"]);
    let object = &objects(&[file.path()])[0];
    assert_eq!(pids(object), in_order([writer.pid(), private.pid()]));
    assert_eq!(object["common_bytes"], 0);
    assert_eq!(object["talks"], json!([]));
    for process in list(&object["processes"]) {
        let shared = process["pid"] == writer.pid();
        assert_eq!(process["mappings"][0]["shared"], shared);
    }
    assert!(stdout(&[file.path()]).contains("none can write what another can read"));

    assert!(!is_among_all(object));
    let of_file = |pid: u32| {
        let objects = objects(&[&pid.to_string()]);
        let mut objects = objects.into_iter();
        objects.find(|object| object["paths"][0] == file.path())
    };
    assert_eq!(pids(&of_file(writer.pid()).unwrap()), [writer.pid()]);
    assert_eq!(of_file(private.pid()), None);
}

fn only_what_overlaps_is_common() {
    let file = Scratch::new("overlap");
    let first = child(&["file", file.path(), "rw-s", "0", "2"]);
    let second = child(&["file", file.path(), "rw-s", "2", "2"]);
    let apart = &objects(&[file.path()])[0];
    assert_eq!(pids(apart), in_order([first.pid(), second.pid()]));
    assert_eq!(apart["common_bytes"], 0);
    assert_eq!(apart["talks"], json!([]));
    // Shared all the same, by who may map more of it.
    assert!(is_among_all(apart));

    let third = child(&["file", file.path(), "rw-s", "1", "2"]);
    let object = &objects(&[file.path()])[0];
    assert_eq!(object["common_bytes"], 2 * PAGE);
    let talks = list(&object["talks"]);
    for other in [first.pid(), second.pid()] {
        assert!(talks.contains(&talk(&[third.pid()], &[other], PAGE)));
        assert!(talks.contains(&talk(&[other], &[third.pid()], PAGE)));
    }
    assert_eq!(talks.len(), 4);
}

fn a_file_is_found_by_each_of_its_names() {
    let file = Scratch::new("name");
    let link = Scratch(file.0.with_extension("link"));
    fs::hard_link(&file.0, &link.0).unwrap();
    let a = child(&["file", file.path(), "rw-s", "0", "1"]);
    let b = child(&["file", link.path(), "rw-s", "0", "1"]);
    for path in [file.path(), link.path()] {
        let object = &objects(&[path])[0];
        assert_eq!(pids(object), in_order([a.pid(), b.pid()]));
        let mut paths = list(&object["paths"]).clone();
        paths.sort_by_key(|path| path.as_str().unwrap().len());
        assert_eq!(paths, [file.path(), link.path()]);
    }
}

fn what_nobody_else_maps_is_shown_alone() {
    let file = Scratch::new("alone");
    let program = child(&["file", file.path(), "rw-s", "0", "4"]);
    let object = of_kind_and_path(program.pid(), file.path());
    assert_eq!(pids(&object), [program.pid()]);
    assert_eq!(object["common_bytes"], 0);
    assert!(!is_among_all(&object));
    let text = stdout(&[&program.pid().to_string()]);
    assert!(text.contains(", one process alone"), "{text}");
}

#[track_caller]
fn of_kind_and_path(pid: u32, path: &str) -> Value {
    let objects = objects(&[&pid.to_string()]);
    let mut objects = objects.into_iter();
    objects.find(|object| object["paths"][0] == path).unwrap()
}

fn nothing_shared_is_no_failure() {
    let file = Scratch::new("nobody");
    assert_eq!(
        stdout(&[file.path()]),
        format!("No process maps {}.\n", file.path())
    );
    assert_eq!(stdout(&["-o", "json", file.path()]), "");
    let graph = stdout(&["-o", "dot", file.path()]);
    assert!(
        graph.starts_with("digraph ") && !graph.contains("->"),
        "{graph}"
    );
}

fn a_graph_has_an_edge_for_each_process() {
    let file = Scratch::new("graph \"&<\\");
    let writer = child(&["file", file.path(), "rw-s", "0", "4"]);
    let private = child(&["file", file.path(), "r--p", "0", "1"]);
    let graph = stdout(&["-o", "dot", file.path()]);
    for edge in [
        format!(
            "  p{} -> o0 [dir=both label=\"rw-s 16KiB\"]\n",
            writer.pid()
        ),
        format!(
            "  p{} -> o0 [dir=back style=dashed label=\"r--p 4KiB\"]\n",
            private.pid()
        ),
    ] {
        assert!(graph.contains(&edge), "{edge}{graph}");
    }
    assert_eq!(graph.matches("->").count(), 2, "{graph}");
    let path = file.path().replace('&', "&amp;");
    // The backslash is escaped for people, then each of the two for Graphviz.
    let path = path.replace('\\', r"\\\\").replace('"', "\\\"");
    assert!(graph.contains(&path), "{path}\n{graph}");

    let input = Scratch::new("graph.dot");
    fs::write(&input.0, &graph).unwrap();
    match Command::new("dot").arg("-Tplain").arg(&input.0).output() {
        Ok(output) => {
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "{output:?}"
            );
            let plain = String::from_utf8(output.stdout).unwrap();
            let count = |kind| plain.lines().filter(|line| line.starts_with(kind)).count();
            assert_eq!((count("node "), count("edge ")), (3, 2), "{plain}");
        }
        Err(_) => println!("no dot here: the graph was not given to Graphviz"),
    }
}

#[track_caller]
fn assert_refused(args: &[&str], names: &[&str]) {
    let output = mmwatch(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {errors}");
    assert_eq!(output.stdout, b"", "{args:?}");
    for name in names {
        assert!(errors.contains(name), "{args:?}: {errors}");
    }
}

fn what_cannot_be_looked_at_is_named() {
    assert_refused(&["0"], &["0", "./0"]);
    assert_refused(&["99999999999"], &["./99999999999"]);
    assert_refused(&["4194305"], &["no process 4194305", "ps -e"]);
    assert_refused(&["/no/such\nfile"], &[r"no file /no/such\nfile"]);
    assert_refused(&[""], &["no file"]);
    assert_refused(&["/"], &["/", "cannot be mapped"]);
    assert_refused(&["1", "2"], &["2"]);
    assert_refused(&["-o", "svg"], &["svg", "dot"]);
    // A kernel thread, where the machine shows them.
    let comm = fs::read_to_string("/proc/2/comm");
    if comm.is_ok_and(|comm| comm == "kthreadd\n") {
        assert_refused(&["2"], &["2", "thread of the kernel"]);
    }
}

fn processes_of_others_are_counted() {
    const NOBODY: u32 = 65_534;
    let file = Scratch::new("others");
    fs::set_permissions(&file.0, Permissions::from_mode(0o666)).unwrap();
    let words = ["child", "file", file.path(), "rw-s", "0", "4"];
    let _other = child(&words[1..]);
    let mut mmwatch = common::mmwatch();
    mmwatch.args(["shared", file.path()]).uid(NOBODY);
    let Ok(output) = mmwatch.output() else {
        println!("nobody may not run mmwatch here, or who is not root would: not tested");
        return;
    };
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("CAP_SYS_PTRACE"), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("No process maps "), "{text}");

    let exe = env::current_exe().unwrap();
    let own = Still::new(Command::new(exe).args(words).uid(NOBODY));
    // Who may not open it any more still finds it by stat.
    fs::set_permissions(&file.0, Permissions::from_mode(0o000)).unwrap();
    let text = String::from_utf8(mmwatch.output().unwrap().stdout).unwrap();
    assert!(text.contains(&format!(" {} ", own.pid())), "{text}");
    assert!(text.contains(", one process alone"), "{text}");
}

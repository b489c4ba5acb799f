use super::*;
use crate::{
    event::{Backing, Op},
    identity::{CgroupRoot, Container, Names},
    shared::read::Subject,
};

fn task(args: &[&str]) -> Result<Task> {
    let args = ["mmwatch"].iter().chain(args).map(OsString::from);
    Task::new(Cli::read(args).unwrap(), &System::default())
}

fn options(args: &[&str]) -> Options {
    match task(args).unwrap() {
        Task::Watch(options) => options,
        other => panic!("{other:?}"),
    }
}

/// The message of wrong use.
fn refusal(args: &[&str]) -> String {
    match task(args) {
        Err(Error::Usage(message)) => message,
        other => panic!("{args:?}: {other:?}"),
    }
}

#[test]
fn without_anything_it_is_top_of_everything() {
    let options = options(&[]);
    let second = Duration::from_secs(1);
    assert_eq!(
        options.view,
        View::Top {
            interval: second,
            rows: 20,
            by: By::Process,
        }
    );
    assert_eq!(options.form, Form::Text);
    assert_eq!(options.hooks, Some(Hooks::Auto));
    assert_eq!(options.delivery.buffer_bytes, 8 << 20);
    assert_eq!(options.duration, None);
    assert_eq!(options.command, None);
    assert_eq!(
        options.filter,
        KernelFilter {
            ops: 0x3ff,
            ..KernelFilter::NONE
        }
    );
}

#[test]
fn filters_are_put_together() {
    let pid = std::process::id();
    let options = options(&[
        "trace",
        "-p",
        &pid.to_string(),
        "-n",
        "worker",
        "-u",
        "root",
        "--op",
        "map,brk",
        "--min-size",
        "4k",
        "--backing",
        "shared-anonymous,private-file",
        "-x",
        "-o",
        "json",
        "-d",
        "500ms",
        "--hooks",
        "kprobe",
        "--buffer",
        "5k",
    ]);
    assert_eq!(options.view, View::Trace);
    assert_eq!(options.form, Form::Json);
    assert_eq!(options.hooks, Some(Hooks::Only(Backend::Kprobe)));
    assert_eq!(options.delivery.buffer_bytes, 8192);
    assert_eq!(options.duration, Some(Duration::from_millis(500)));
    assert_eq!(
        options.filter,
        KernelFilter {
            pids: vec![pid],
            comm: Some(*b"worker\0\0\0\0\0\0\0\0\0\0"),
            uid: Some(0),
            ops: 1 << Op::Map as u32 | 1 << Op::Brk as u32,
            min_size_bytes: 4096,
            failed_only: true,
            backings: 1 << Backing::SharedAnonymous as u32 | 1 << Backing::PrivateFile as u32,
            ..KernelFilter::NONE
        }
    );
}

#[test]
fn suspects_are_all_or_some() {
    let suspects = |args: &[&str]| options(args).filter.suspects;
    assert_eq!(suspects(&["trace"]), 0);
    assert_eq!(suspects(&["trace", "--suspect"]), 0x7f);
    assert_eq!(suspects(&["trace", "--suspect", "-n", "x"]), 0x7f);
    assert_eq!(suspects(&["stat", "--suspect", "--", "sh"]), 0x7f);
    let some = suspects(&[
        "top",
        "--suspect",
        "anon-exec,heap-exec",
        "--suspect=write-exec",
    ]);
    assert_eq!(some, 0b100_0011);
}

#[test]
fn a_command_is_followed() {
    let options = options(&["stat", "--", "sh", "-c", "exit 3"]);
    assert!(options.filter.follow);
    assert_eq!(options.command.unwrap(), ["sh", "-c", "exit 3"]);
    let error = task(&["stat", "--", "no-such-command-here"]).unwrap_err();
    assert_eq!(error.exit_code(), 127);
}

#[test]
fn what_nobody_can_satisfy_is_refused() {
    assert!(refusal(&["-x", "--op", "fork,exit"]).contains("--op fork,exit"));
    assert!(refusal(&["--min-size", "1", "--op", "exec"]).contains("--min-size"));
    assert!(refusal(&["--backing", "special", "--op", "unmap"]).contains("add one of map to"));
    assert!(
        refusal(&["--backing", "private-anonymous", "--op", "exit"])
            .contains("one of map,brk,grow")
    );
    assert!(refusal(&["--backing", "shared-file", "--op", "brk"]).contains("--backing"));
    assert!(refusal(&["--suspect", "--op", "exit,brk"]).contains("one of map,protect"));
    assert!(refusal(&["--suspect", "-x"]).contains("--failed"));
    assert!(refusal(&["-p", "4194305"]).contains("no process 4194305"));
    assert!(refusal(&["-p", "1", "--", "sh"]).contains("--pid"));
    assert!(refusal(&["-u", "no such user"]).contains("no such user"));
    assert!(refusal(&["-n", ""]).contains("--comm"));
    assert!(refusal(&["-n", "sixteen-bytes-xx"]).ends_with("use --comm sixteen-bytes-x"));
    assert!(refusal(&["-i", "1ms"]).contains("--interval"));
    // A part that can be satisfied is enough.
    options(&["-x", "--op", "fork,map"]);
    options(&["--min-size", "0", "--op", "exec"]);
    options(&[
        "--backing",
        "shared-file,private-anonymous",
        "--op",
        "brk,exit",
    ]);
    options(&["-n", "fifteen-bytes-x"]);
}

#[test]
fn polling_takes_what_it_can_know() {
    let polled = options(&["--hooks", "proc", "-n", "x", "-u", "0", "-i", "10ms"]);
    assert_eq!((polled.hooks, polled.unpollable()), (None, None));
    options(&["stat", "--hooks", "proc", "--by", "pod", "--", "sh"]);
    let about = |args: &[&str]| {
        let Unpollable { what, about, .. } = options(args).unpollable().unwrap();
        (what, about)
    };
    assert_eq!(about(&["trace"]), ("trace", "operations"));
    assert_eq!(about(&["verify"]), ("verify", "operations"));
    assert_eq!(about(&["top", "--faults"]), ("--faults", "page faults"));
    for (args, option) in [
        (&["--op", "map"][..], "--op"),
        (&["--min-size", "1"], "--min-size"),
        (&["--backing", "special"], "--backing"),
        (&["--suspect"], "--suspect"),
        (&["-x"], "--failed"),
        (&["--simulate-loss", "0.1"], "--simulate-loss"),
    ] {
        assert_eq!(about(&[&["top"], args].concat()).0, option);
        let message = refusal(&[&["top", "--hooks", "proc"], args].concat());
        assert!(
            message.contains(&format!("leave {option} out")),
            "{message}"
        );
    }
}

#[test]
fn a_container_goes_by_id_or_name() {
    let container = |id: &str, name: Option<&str>, pod: Option<&str>| Container {
        id: id.to_owned(),
        names: Names {
            name: name.map(str::to_owned),
            pod: pod.map(str::to_owned),
            ..Names::default()
        },
        ..Container::default()
    };
    let containers = [
        container("4f0c1", Some("web"), None),
        container("4f0c2", Some("app"), Some("one")),
        container("5a", Some("app"), Some("two")),
        container("5a77", None, None),
        container("cafe", Some("5a7"), None),
    ];
    let containers: Vec<_> = (0..)
        .zip(containers)
        .map(|(id, container)| (container, CgroupRoot { id, level: 2 }))
        .collect();
    let chosen = |wanted: &str| match filter::chosen(wanted, &containers) {
        Ok(cgroup) => Ok(cgroup.id),
        Err(Error::Usage(message)) => Err(message),
        Err(other) => panic!("{other:?}"),
    };
    assert_eq!(chosen("web"), Ok(0));
    assert_eq!(chosen("4f0c2"), Ok(1));
    // A whole id goes before the beginning of one, and so does a name.
    assert_eq!(chosen("5a"), Ok(2));
    assert_eq!(chosen("5a7"), Ok(4));
    let message = chosen("4f0c").unwrap_err();
    assert!(message.contains("4f0c1, 4f0c2 (of pod one)"), "{message}");
    let message = chosen("app").unwrap_err();
    assert!(
        message.contains("4f0c2 (of pod one), 5a (of pod two)"),
        "{message}"
    );
    for nobody in ["", "shop", "web2"] {
        let message = chosen(nobody).unwrap_err();
        assert!(message.contains("no container here"), "{message}");
    }
}

#[test]
fn a_thread_is_not_a_process() {
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        // SAFETY: takes nothing, returns a number.
        tell.send(unsafe { libc::gettid() }).unwrap();
        let _ = ended.recv();
    });
    let tid = told.recv().unwrap().to_string();
    let message = refusal(&["-p", &tid]);
    assert!(
        message.contains(&format!("use --pid {}", std::process::id())),
        "{message}"
    );
    drop(end);
    thread.join().unwrap();
}

#[test]
fn a_process_that_shows_nothing_is_no_wrong_use() {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    let root = std::env::temp_dir().join(format!("mmwatch-{}-closed", std::process::id()));
    fs::create_dir_all(root.join("7")).unwrap();
    fs::set_permissions(root.join("7"), fs::Permissions::from_mode(0o0)).unwrap();
    let proc = Proc::at(&root);
    let nobody = std::thread::spawn(move || {
        // SAFETY: takes a number; of this thread alone, which then ends.
        unsafe { libc::setfsuid(65_534) };
        filter::check_pid(7, &proc)
    });
    let error = nobody.join().unwrap().unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("hidepid"), "{error}");
    fs::remove_dir(root.join("7")).unwrap();
    fs::remove_dir(root).unwrap();
}

#[test]
fn the_ring_is_a_power_of_two_of_whole_pages() {
    for (wanted, want) in [
        (1, 4096),
        (4096, 4096),
        (4097, 8192),
        (3 << 20, 4 << 20),
        (1 << 30, 1 << 30),
    ] {
        assert_eq!(buffer_bytes(wanted, 4096).unwrap(), want);
    }
    assert_eq!(buffer_bytes(4096, 65_536).unwrap(), 65_536);
    for wanted in [0, (1 << 30) + 1, u64::MAX] {
        assert_eq!(buffer_bytes(wanted, 4096).unwrap_err().exit_code(), 2);
    }
}

#[test]
fn sharing_is_of_all_of_a_process_or_of_a_file() {
    let subject = |args: &[&str]| match task(&[&["shared"], args].concat()).unwrap() {
        Task::Shared(sharing) => sharing.subject,
        other => panic!("{other:?}"),
    };
    let pid = std::process::id();
    assert_eq!(subject(&[]), Subject::All);
    assert_eq!(subject(&[&pid.to_string()]), Subject::Process(pid));
    for path in ["./1", "/1", "1x", "x1", ""] {
        assert_eq!(subject(&[path]), Subject::File(path.into()));
    }
    for number in ["0", "4294967296"] {
        assert!(refusal(&["shared", number]).contains(&format!("./{number}")));
    }
    assert!(refusal(&["shared", "4194305"]).contains("no process 4194305"));
}

#[test]
fn only_sharing_is_drawn_as_a_graph() {
    let sharing = task(&["shared", "-o", "dot"]).unwrap();
    let want = Sharing {
        subject: Subject::All,
        form: SharedForm::Dot,
    };
    assert_eq!(sharing, Task::Shared(want));
    let args = ["mmwatch", "maps", "-o", "dot", "1"].map(OsString::from);
    assert!(Cli::read(args).is_err());
}

#[test]
fn faults_go_with_all_that_was_mapped() {
    assert!(options(&["stat", "--faults"]).delivery.faults);
    assert!(options(&["top", "--faults", "-n", "x"]).delivery.faults);
    assert!(!options(&["stat"]).delivery.faults);
    for filter in [
        &["--op", "map"][..],
        &["--min-size", "1"],
        &["--backing", "shared-file"],
        &["-x"],
    ] {
        let message = refusal(&[&["stat", "--faults"], filter].concat());
        assert!(message.contains("--faults"), "{message}");
        assert!(message.contains("leave one of the two out"), "{message}");
    }
    let message = refusal(&["maps", "--faults", "1", "1", "2"]);
    assert!(
        message.contains("--faults looks at one process"),
        "{message}"
    );
}

use super::*;
use crate::{
    event::Dev,
    sample::{self, SHARING},
    shared::{ObjectId, Wanted},
};

#[test]
fn an_object_is_a_block() {
    let text = draw(&sample::shared(&SHARING, &Wanted::All), &Subject::All);
    assert!(text.lines().all(|line| line.chars().count() <= 100));
    assert_eq!(
        text,
        r#"posix-shm /dev/shm/ri"ng
  00:1a:42, 3 processes, 4KiB in common
     PID COMM            PERM OFFSET                    ADDRESS                        SIZE
       7 w"&\n           rw-s 00000000-00002000         00001000-00003000              8KiB
       8 reader          r--s 00001000-00002000         00001000-00002000              4KiB
       9 both            r--s 00001000-00002000         00001000-00002000              4KiB
  7 (w"&\n) -> 8 (reader), 9 (both): 4KiB

sysv-shm /SYSV00000000 (deleted)
  00:01:3, 2 processes, 4KiB in common
     PID COMM            PERM OFFSET                    ADDRESS                        SIZE
       7 w"&\n           rw-s 00000000-00001000         00005000-00006000              4KiB
       9 both            rw-s 00000000-00001000         00005000-00006000              4KiB
  7 (w"&\n), 9 (both) <-> each other: 4KiB

device? /dev/fb0
  00:05:9, 2 processes, 4KiB in common
     PID COMM            PERM OFFSET                    ADDRESS                        SIZE
       7 w"&\n           rw-s 00000000-00001000         00007000-00008000              4KiB
       8 reader          rw-s 00000000-00001000         00007000-00008000              4KiB

?: guessed by its path.
device: whether its users get the same memory is up to the driver.
Read VMA by VMA, without taking the process's mmap_lock.
"#
    );
}

/// The lines below the table of a file that each process maps so.
fn arrows(maps: &[&str]) -> Vec<String> {
    let processes: Vec<_> = (1..)
        .zip(maps)
        .map(|(pid, maps)| (pid, "p", maps.replace("/f", "fe:00 4 /f\n")))
        .collect();
    let processes: Vec<_> = processes
        .iter()
        .map(|(pid, p, maps)| (*pid, *p, maps.as_str()))
        .collect();
    let id = ObjectId {
        dev: Dev(0xfe << 20),
        inode: 4,
        ipc_namespace: None,
    };
    let shared = sample::shared(&processes, &Wanted::Object(id));
    let text = draw(&shared, &Subject::File("/f".into()));
    let is_below = |line: &&str| {
        line.starts_with("  ") && !line.contains("fe:00") && !line.contains("ADDRESS")
    };
    let is_arrow = |line: &&str| is_below(line) && !line.starts_with("   ");
    text.lines().filter(is_arrow).map(str::to_owned).collect()
}

#[test]
fn arrows_go_where_data_can_go() {
    let (all, first, read) = (
        "1000-3000 rw-s 00000000 /f",
        "1000-2000 rw-s 00000000 /f",
        "1000-2000 r--s 00001000 /f",
    );
    assert_eq!(arrows(&[all, first]), ["  1 (p) <-> 2 (p): 4KiB"]);
    assert_eq!(arrows(&[read, all]), ["  2 (p) -> 1 (p): 4KiB"]);
    assert_eq!(
        arrows(&[first, read]),
        ["  none can write what another can read"]
    );
    assert_eq!(arrows(&[all]), [""; 0]);
    assert_eq!(
        arrows(&[all, "1000-2000 -w-s 00000000 /f1000-3000 r--s 00000000 /f"]),
        ["  1 (p) -> 2 (p): 8KiB", "  2 (p) -> 1 (p): 4KiB"]
    );
    assert_eq!(
        arrows(&[all, "1000-2000 rw-p 00000000 /f"]),
        ["  none can write what another can read"]
    );
}

#[test]
fn many_are_named_in_part() {
    let all = "1000-3000 rw-s 00000000 /f";
    assert_eq!(
        arrows(&[all; 5]),
        ["  1 (p), 2 (p), 3 (p), 4 (p), 5 (p) <-> each other: 8KiB"]
    );
    assert_eq!(
        arrows(&[all; 600]),
        ["  1 (p), 2 (p), 3 (p), 4 (p), 596 more <-> each other: 8KiB"]
    );
}

#[test]
fn nothing_is_said_to_be_nothing() {
    let text = |subject| draw(&sample::shared(&[], &Wanted::All), &subject);
    assert!(text(Subject::All).contains("No two processes"));
    assert!(text(Subject::Process(7)).contains("Process 7"));
    assert_eq!(
        text(Subject::File("/a\nb".into())),
        "No process maps /a\\nb.\n"
    );
}

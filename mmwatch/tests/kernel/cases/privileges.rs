//! The table of docs/privileges.md, row by row: what works with which capabilities, and
//! what is said where one is missing.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Output, Stdio},
};

use crate::run::{count_start_with, mmwatch};

/// Capabilities, by their numbers (`linux/capability.h`).
const SYS_PTRACE: u32 = 19;
const SYS_ADMIN: u32 = 21;
const SYS_RESOURCE: u32 = 24;
const PERFMON: u32 = 38;
const BPF: u32 = 39;
const LAST: u32 = 40;

/// Somebody who is not root.
const NOBODY: u32 = 65_534;

/// Runs mmwatch as root with these capabilities alone, and with so much memory that it
/// may lock.
fn run(capabilities: &'static [u32], memlock_bytes: u64, args: &[&str]) -> Output {
    let mut command = mmwatch();
    command.args(args).stdin(Stdio::null());
    let limit = libc::rlimit {
        rlim_cur: memlock_bytes,
        rlim_max: memlock_bytes,
    };
    let drop_others = move || {
        // SAFETY: plain system calls between fork and exec.
        unsafe {
            libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit);
            for capability in (0..=LAST).filter(|number| !capabilities.contains(number)) {
                // Kernels know fewer of them, and refuse those alone.
                libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
            }
        }
        Ok(())
    };
    // SAFETY: it makes system calls and nothing else.
    unsafe { command.pre_exec(drop_others) };
    let output = command.output().unwrap();
    // Where it is refused it attaches nothing.
    if output.status.success() {
        count_start_with(args);
    }
    output
}

fn assert_works(output: &Output, what: &str) {
    assert!(output.status.success(), "{what}: {output:?}");
}

/// Exit code, and one sentence with these words.
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let messages: Vec<_> = stderr
        .lines()
        .filter(|line| line.starts_with("mmwatch: "))
        .collect();
    let [message] = messages.as_slice() else {
        panic!("not one sentence: {stderr}");
    };
    for word in words {
        assert!(message.contains(word), "no {word}: {message}");
    }
}

/// Works with the two; where the kernel is more paranoid about perf than upstream ever is,
/// it may take one more for what goes through that.
fn works_unless_paranoid(args: &[&str], by_perf: bool) {
    let output = run(&[BPF, PERFMON], u64::MAX, args);
    let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap();
    let paranoid: i32 = paranoid.trim().parse().unwrap();
    if by_perf && paranoid > 2 && !output.status.success() {
        let words = ["kernel.perf_event_paranoid", "CAP_SYS_ADMIN"];
        assert_refused(&output, 3, &words);
        let output = run(&[BPF, PERFMON, SYS_ADMIN], u64::MAX, args);
        return assert_works(&output, &args.join(" "));
    }
    assert_works(&output, &args.join(" "));
}

/// Each capability that watching needs, and none.
pub fn two_capabilities_are_enough_and_both_are_needed(backend: &str) {
    let stat = ["stat", "-d", "0.01", "--hooks", backend];
    let faults = ["stat", "-d", "0.01", "--faults", "--hooks", backend];
    // What goes through perf_event_open(2): kprobes, and counting faults.
    works_unless_paranoid(&stat, backend == "kprobe");
    works_unless_paranoid(&faults, true);
    for without in [&[BPF][..], &[PERFMON], &[]] {
        let output = run(without, u64::MAX, &stat);
        assert_refused(&output, 3, &["CAP_BPF and CAP_PERFMON"]);
    }
}

/// Before 5.11, maps are locked memory, which has a limit.
pub fn locked_memory_is_asked_for_where_it_counts(backend: &str) {
    const LITTLE: u64 = 64 << 10;
    let stat = ["stat", "-d", "0.01", "--hooks", backend];
    let output = run(&[BPF, PERFMON], LITTLE, &stat);
    if !output.status.success() {
        assert_refused(&output, 3, &["RLIMIT_MEMLOCK", "CAP_SYS_RESOURCE"]);
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let old = ["5.8.", "5.9.", "5.10."];
        assert!(old.iter().any(|old| release.starts_with(old)), "{release}");
    }
    let output = run(&[BPF, PERFMON, SYS_RESOURCE], LITTLE, &stat);
    assert_works(&output, "stat with CAP_SYS_RESOURCE");
}

/// Reading somebody else's maps takes no BPF.
pub fn the_maps_of_others_take_sys_ptrace(_backend: &str) {
    let mut other = Command::new("/bin/sleep");
    let mut other = other.arg("1000").uid(NOBODY).gid(NOBODY).spawn().unwrap();
    let pid = other.id().to_string();
    let refused = run(&[], u64::MAX, &["maps", &pid]);
    let works = run(&[SYS_PTRACE], u64::MAX, &["maps", &pid]);
    other.kill().unwrap();
    other.wait().unwrap();
    assert_refused(&refused, 3, &["CAP_SYS_PTRACE"]);
    assert_works(&works, "maps");
}

//! A process as container runtimes make it: in a cgroup and a pid namespace of its own.

use std::{
    env, fs,
    io::{self, Read as _},
    os::unix::process::CommandExt as _,
    process::Command,
};

use super::{ANON, RW, mmap};

/// Runs [`maps`] as the first process of a new pid namespace, in a cgroup.
pub fn run(cgroup: &str, count: &str, len: &str) {
    // SAFETY: only what is made from here on is in the new namespace.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWPID) }, 0);
    let procs = format!("{cgroup}/cgroup.procs");
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["workload", "maps", count, len]);
    // SAFETY: a file is opened and written, without memory of others being touched.
    unsafe { child.pre_exec(move || join(&procs)) };
    assert!(child.status().unwrap().success());
}

fn join(procs: &str) -> io::Result<()> {
    fs::write(procs, "0")
}

/// Makes mappings of a size that tells who made them.
pub fn maps(count: u64, len: u64) {
    for _ in 0..count {
        mmap(0, len, RW, ANON, -1, 0).unwrap();
    }
}

/// The same, once there is a byte to read; then it stays until there is no more.
pub fn maps_when_told(count: u64, len: u64) {
    println!("ready");
    let mut input = io::stdin();
    input.read_exact(&mut [0]).unwrap();
    maps(count, len);
    println!("done");
    let _ = input.read(&mut [0]).unwrap();
}

/// Maps in one cgroup and then, by the same program, in another.
pub fn moves(one: &str, two: &str, count: u64, len: u64) {
    for cgroup in [one, two] {
        join(&format!("{cgroup}/cgroup.procs")).unwrap();
        maps(count, len);
    }
    // So that both can be removed.
    let root = std::path::Path::new(one).parent().unwrap().parent();
    join(root.unwrap().join("cgroup.procs").to_str().unwrap()).unwrap();
}

/// Makes a call that always succeeds and that mmwatch never makes; exits with what became of
/// it.
pub fn forbidden() {
    // SAFETY: a plain system call.
    let result = unsafe { libc::unshare(0) };
    let errno = io::Error::last_os_error().raw_os_error().unwrap();
    std::process::exit(if result == -1 { errno } else { 0 });
}

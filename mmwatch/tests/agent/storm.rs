//! A child that maps as often as it is told to.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    ptr,
};

/// Bytes of each mapping.
pub const LEN_BYTES: usize = 3 * 4096;

/// For each line with a number: so many mappings and unmappings, as many mappings that
/// fail, and one that is writable and executable and stays.
pub fn main() {
    let mut line = String::with_capacity(64);
    let mut commands = io::stdin().lock();
    loop {
        println!("ready");
        line.clear();
        if commands.read_line(&mut line).unwrap() == 0 {
            return;
        }
        for _ in 0..line.trim().parse().unwrap() {
            let addr = map(LEN_BYTES, libc::PROT_READ | libc::PROT_WRITE);
            assert_ne!(addr, libc::MAP_FAILED);
            // SAFETY: nothing refers to the mapping that was just made.
            assert_eq!(unsafe { libc::munmap(addr, LEN_BYTES) }, 0);
            assert_eq!(map(0, libc::PROT_READ), libc::MAP_FAILED);
        }
        let rwx = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        assert_ne!(map(LEN_BYTES, rwx), libc::MAP_FAILED);
    }
}

fn map(len_bytes: usize, prot: i32) -> *mut libc::c_void {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a mapping at no address in particular replaces nothing.
    unsafe { libc::mmap(ptr::null_mut(), len_bytes, prot, flags, -1, 0) }
}

pub struct Storm {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Storm {
    pub fn new() -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .arg("storm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut storm = Self {
            commands: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        storm.wait();
        storm
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Does it, to its end.
    pub fn rage(&mut self, count: u64) {
        writeln!(self.commands, "{count}").unwrap();
        self.wait();
    }

    fn wait(&mut self) {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

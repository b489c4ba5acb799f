//! What tests of commands that look at processes have in common.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
};

/// The binary under test: in a VM it is not where cargo built it.
pub fn mmwatch() -> Command {
    let path = env::var_os("MMWATCH_BIN");
    Command::new(path.unwrap_or_else(|| env!("CARGO_BIN_EXE_mmwatch").into()))
}

/// A child that does nothing until it is dropped.
pub struct Still {
    child: Child,
    /// Its end is the child's.
    _stdin: ChildStdin,
    /// The line that it wrote, once it was ready.
    pub said: String,
}

impl Still {
    /// A child that writes a line, and then reads its input.
    #[track_caller]
    pub fn new(command: &mut Command) -> Self {
        Self::after(command, |_| ())
    }

    /// A child to which something is done before it writes a line.
    #[track_caller]
    pub fn after(command: &mut Command, prompt: impl FnOnce(&mut ChildStdin)) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        prompt(&mut stdin);
        let mut said = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        assert_ne!(out.read_line(&mut said).unwrap(), 0, "{command:?}");
        Self {
            child,
            _stdin: stdin,
            said,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its `/proc/PID/maps`.
    pub fn maps(&self) -> String {
        fs::read_to_string(format!("/proc/{}/maps", self.pid())).unwrap()
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! Runs commands one after the other, so that one mmwatch watches all of them.

use std::{
    fs, io,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

/// A command that has ended.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ended {
    pub pid: u32,
    /// None where a signal ended it.
    pub code: Option<i32>,
}

/// Reads the commands from one file, and writes how each ended to another.
pub fn main(commands: &str, ended: &str) {
    let commands: Vec<Vec<String>> = serde_json::from_slice(&fs::read(commands).unwrap()).unwrap();
    let all: Vec<_> = commands.iter().map(|command| run(command)).collect();
    fs::write(ended, serde_json::to_vec(&all).unwrap()).unwrap();
}

fn run(command: &[String]) -> Ended {
    let mut program = Command::new(&command[0]);
    program
        .args(&command[1..])
        .stdin(Stdio::null())
        // The standard output is mmwatch's.
        .stdout(io::stderr());
    // SAFETY: it does nothing.
    //
    // It is there because without it the child would use this process's memory up to
    // its exec, and what is mmwatch's own child does not.
    unsafe { program.pre_exec(|| Ok(())) };
    let mut child = program.spawn().unwrap();
    let code = child.wait().unwrap().code();
    Ended {
        pid: child.id(),
        code,
    }
}

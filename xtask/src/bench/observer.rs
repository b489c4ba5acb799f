//! What watches: a program that runs beside the workload, or around it.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// Time between two looks at a program.
const POLL: Duration = Duration::from_millis(2);
/// Time that a program may take to attach, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// How to tell that a program watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// It handles SIGINT: mmwatch does from the moment its programs are attached.
    HandlesInterrupt,
    /// Its output has this word, and then this much time has passed.
    Says(&'static str, Duration),
    /// This much time has passed: it does not tell.
    After(Duration),
}

/// A program that watches the whole machine.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Where its output goes.
    pub output: PathBuf,
    /// Where its messages go.
    pub messages: PathBuf,
    /// How to tell that it watches.
    pub attached: Attached,
}

/// One that runs. It ends, at the latest, when this is dropped.
pub struct Observer {
    child: Child,
    /// Ends with us, should we be killed.
    _stdin: Option<ChildStdin>,
    messages: PathBuf,
    /// How long it took to attach.
    pub took: Duration,
}

impl Observer {
    /// Starts it and waits until it watches.
    pub fn start(spec: &Spec) -> Result<Self> {
        let (program, args) = spec.argv.split_first().context("no program")?;
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("cannot write {}", path.display()))
        };
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(create(&spec.output)?)
            .stderr(create(&spec.messages)?);
        let start = Instant::now();
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start `{}`", process::line(&command)))?;
        let mut observer = Self {
            _stdin: child.stdin.take(),
            child,
            messages: spec.messages.clone(),
            took: Duration::ZERO,
        };
        observer.wait_until_attached(spec, start)?;
        observer.took = start.elapsed();
        Ok(observer)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails with its last message if it has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait().context("waiting for a child")? {
            Some(status) => bail!("it ended ({status}): {}", last_line(&self.messages)),
            None => Ok(()),
        }
    }

    /// Ends it as Ctrl-C does.
    pub fn stop(mut self) -> Result<()> {
        self.check()?;
        let pid = i32::try_from(self.pid()).context("a process id")?;
        // SAFETY: a plain system call. The child was not waited for, so the id is still its own.
        unsafe { libc::kill(pid, libc::SIGINT) };
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self
                .child
                .try_wait()
                .context("waiting for a child")?
                .is_some()
            {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!("it did not end when interrupted")
    }

    fn wait_until_attached(&mut self, spec: &Spec, start: Instant) -> Result<()> {
        let wait = |observer: &mut Self, time| {
            thread::sleep(time);
            observer.check()
        };
        let (word, settle) = match spec.attached {
            Attached::After(time) => return wait(self, time),
            Attached::HandlesInterrupt => (None, Duration::ZERO),
            Attached::Says(word, settle) => (Some(word), settle),
        };
        while start.elapsed() < PATIENCE {
            let attached = match word {
                Some(word) => [&spec.output, &spec.messages]
                    .iter()
                    .any(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(word))),
                None => handles_interrupt(self.pid())?,
            };
            if attached {
                return wait(self, settle);
            }
            wait(self, POLL)?;
        }
        bail!("it did not attach: {}", last_line(&self.messages))
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // Both fail only when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process has a handler for SIGINT.
fn handles_interrupt(pid: u32) -> Result<bool> {
    match fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => Ok(catches(&status, 2)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).context("reading /proc"),
    }
}

fn catches(status: &str, signal: u32) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 << (signal - 1) != 0)
}

/// The last thing that a program said.
pub fn last_line(messages: &Path) -> String {
    let text = fs::read(messages).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or("it said nothing").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handled_signals_are_a_mask_in_hex() {
        let status = "Name:\tx\nSigIgn:\tffffffffffffffff\nSigCgt:\t0000000000004002\n";
        assert!(catches(status, 2) && catches(status, 15));
        assert!(!catches(status, 1) && !catches("", 2));
    }
}

//! The proof that what a process maps is counted: a child of the agent maps and unmaps a
//! known number of bytes, and the kernel's sums have to show exactly that.
//!
//! The child is a process of its own because the kernel programs leave the agent's out.

use std::{
    io::{self, Read as _, Write as _},
    process::Stdio,
    ptr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::watch,
    time::{sleep, timeout},
};

use super::lifecycle::Snapshot;
use crate::{
    churn::Sums,
    error::{Error, Result},
    event::Op,
    identity::Who,
};

/// The hidden command that the child runs.
pub const COMMAND: &str = "agent-canary";

/// What it maps and unmaps each time.
const LEN_BYTES: usize = 64 << 10;

/// Reports until which its doings must be counted: the first may be under way already.
const REPORTS: u32 = 3;

/// Time for the child to do as it was told.
const ANSWER: Duration = Duration::from_secs(5);

/// What is known of the way from a call to the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// The filter leaves the canary out, so that nothing can be known.
    Filtered,
    /// Not seen yet, or not any more.
    Unseen,
    /// Last seen then.
    Seen(Instant),
}

/// What the child does: for each byte that it reads, it maps and unmaps, and writes a byte.
///
/// # Errors
///
/// [`Error::Io`] when it cannot map, or nobody listens.
pub fn main() -> Result<u8> {
    // `/proc/self/exe` says nothing to who reads it in a list.
    // SAFETY: PR_SET_NAME reads a string that ends, which this is.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"mmwatch-canary".as_ptr()) };
    let failed = || Error::io("the canary");
    let (mut commands, mut answers) = (io::stdin().lock(), io::stdout().lock());
    let mut byte = [0];
    loop {
        answers.write_all(b"\n").map_err(failed())?;
        answers.flush().map_err(failed())?;
        match commands.read(&mut byte) {
            // The agent ended.
            Ok(0) => return Ok(0),
            Ok(_) => map_and_unmap().map_err(failed())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed()(error)),
        }
    }
}

fn map_and_unmap() -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a mapping at no address in particular replaces nothing.
    let addr = unsafe { libc::mmap(ptr::null_mut(), LEN_BYTES, libc::PROT_NONE, flags, -1, 0) };
    if addr == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping was just made, and nothing refers to it.
    match unsafe { libc::munmap(addr, LEN_BYTES) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends it out again and again. `period` is the time between two flights.
pub async fn watch(
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    period: impl Fn() -> Duration,
    sight: watch::Sender<Sight>,
) {
    loop {
        match Bird::hatch().await {
            Ok(mut bird) => loop {
                match bird.fly(&mut snapshots).await {
                    Ok(true) => sight.send_replace(Sight::Seen(Instant::now())),
                    Ok(false) => {
                        log::warn!("what the canary maps is not what the kernel's sums say");
                        sight.send_replace(Sight::Unseen)
                    }
                    Err(error) => {
                        log::warn!("the canary: {error}");
                        break;
                    }
                };
                sleep(period()).await;
            },
            Err(error) => log::warn!("the canary cannot be started: {error}"),
        }
        sight.send_replace(Sight::Unseen);
        sleep(period()).await;
    }
}

/// The child.
struct Bird {
    pid: u32,
    commands: ChildStdin,
    answers: ChildStdout,
    /// Killed when dropped.
    _child: Child,
}

impl Bird {
    /// Starts it, and waits until it is ready.
    async fn hatch() -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg(COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let gone = || io::Error::other("it ended at once");
        let mut bird = Self {
            pid: child.id().ok_or_else(gone)?,
            commands: child.stdin.take().ok_or_else(gone)?,
            answers: child.stdout.take().ok_or_else(gone)?,
            _child: child,
        };
        bird.answer().await?;
        Ok(bird)
    }

    async fn answer(&mut self) -> io::Result<()> {
        timeout(ANSWER, self.answers.read_u8()).await??;
        Ok(())
    }

    /// Lets it map and unmap once. Returns whether the sums show that and nothing else.
    async fn fly(
        &mut self,
        snapshots: &mut watch::Receiver<Option<Arc<Snapshot>>>,
    ) -> io::Result<bool> {
        let mut before = None;
        for _ in 0..REPORTS {
            before = self.sums(snapshots).await?;
            if before.is_some() {
                break;
            }
        }
        let Some(before) = before else {
            return Ok(false);
        };
        self.commands.write_all(b"\n").await?;
        self.commands.flush().await?;
        self.answer().await?;
        let mut is_seen = false;
        for _ in 0..REPORTS {
            if let Some(now) = self.sums(snapshots).await? {
                is_seen = is_one_flight(&now.since(&before));
            }
            if is_seen {
                break;
            }
        }
        Ok(is_seen)
    }

    /// Its sums in the next report; `None` if it is not in there.
    async fn sums(
        &self,
        snapshots: &mut watch::Receiver<Option<Arc<Snapshot>>>,
    ) -> io::Result<Option<Sums>> {
        snapshots.mark_unchanged();
        snapshots
            .changed()
            .await
            .map_err(|_| io::Error::other("the watch has ended"))?;
        let snapshot = snapshots.borrow().clone();
        let report = snapshot.as_ref().map(|snapshot| &snapshot.report);
        Ok(report.and_then(|report| {
            let process = report.processes.iter().find(|process| {
                Who::shown_pid(process.who.as_deref(), process.key.tgid) == self.pid
                    && process.alive
            })?;
            Some(process.row.total)
        }))
    }
}

fn is_one_flight(sums: &Sums) -> bool {
    [Op::Map, Op::Unmap].into_iter().all(|op| {
        let op = sums.op(op);
        (op.count, op.bytes) == (1, LEN_BYTES as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flight_is_one_mapping_and_one_unmapping_of_its_length() {
        let mut sums = Sums::default();
        assert!(!is_one_flight(&sums));
        for op in [Op::Map, Op::Unmap] {
            assert!(!is_one_flight(&sums));
            sums.ops[op as usize].count = 1;
            sums.ops[op as usize].bytes = LEN_BYTES as u64;
        }
        assert!(is_one_flight(&sums));
        sums.ops[Op::Map as usize].count = 2;
        assert!(!is_one_flight(&sums));
    }
}

//! The proof that what a process maps is counted: a child of the agent maps and unmaps a
//! known number of bytes, and the kernel's sums have to show exactly that.
//!
//! The child is a process of its own because the kernel programs leave the agent's out. It
//! is a fork that runs no other program, since the agent may not start any.

use std::{
    io,
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::net::UnixStream as StdUnixStream,
    },
    ptr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::watch,
    time::{sleep, timeout},
};

use super::lifecycle::Snapshot;
use crate::{churn::Sums, event::Op, identity::Who};

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
    /// The kernel's table of sums has no room for it, so that nothing can be known.
    Full,
    /// Not seen yet, or not any more.
    Unseen,
    /// Last seen then.
    Seen(Instant),
}

/// What the child does, with a copy of the agent's memory in which any lock may be held:
/// plain system calls only. For each byte that it reads from `socket`, it maps and unmaps,
/// and writes a byte.
fn live(parent: libc::pid_t, socket: RawFd) -> ! {
    // SAFETY: plain system calls that take no memory but a name that ends and a byte of
    // this stack. Descriptors but the socket are closed as the agent's programs live as
    // long as those. The mapping is this function's own.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"mmwatch-canary".as_ptr());
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let has_socket = libc::dup2(socket, 0) == 0;
        let is_alone = libc::syscall(libc::SYS_close_range, 1, u32::MAX, 0) == 0;
        // It may have ended before its end was a signal.
        let mut goes_on = has_socket && is_alone && libc::getppid() == parent;
        while goes_on {
            let mut byte = 0_u8;
            let buffer = (&raw mut byte).cast();
            goes_on =
                libc::write(0, buffer, 1) == 1 && libc::read(0, buffer, 1) == 1 && map_and_unmap();
        }
        libc::_exit(0)
    }
}

fn map_and_unmap() -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a mapping at no address in particular replaces nothing.
    let addr = unsafe { libc::mmap(ptr::null_mut(), LEN_BYTES, libc::PROT_NONE, flags, -1, 0) };
    // SAFETY: the mapping was just made, and nothing refers to it.
    addr != libc::MAP_FAILED && unsafe { libc::munmap(addr, LEN_BYTES) } == 0
}

/// Sends it out again and again. `period` is the time between two flights.
pub async fn watch(
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    period: impl Fn() -> Duration,
    sight: watch::Sender<Sight>,
) {
    // The kernel is to clear away what is left of those that ended.
    // SAFETY: to ignore a signal needs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    loop {
        match Bird::hatch().await {
            Ok(mut bird) => loop {
                match bird.fly(&mut snapshots).await {
                    Ok(true) => sight.send_replace(Sight::Seen(Instant::now())),
                    Ok(false) if has_no_room(&snapshots) => sight.send_replace(Sight::Full),
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

/// Whether there are processes that share one row of sums.
fn has_no_room(snapshots: &watch::Receiver<Option<Arc<Snapshot>>>) -> bool {
    let snapshot = snapshots.borrow();
    let sum = snapshot.as_ref().map(|last| last.ledger.kernel_sum());
    sum.is_some_and(|sum| sum.processes_full > 0)
}

/// The child, which ends when its socket does.
struct Bird {
    pid: u32,
    socket: UnixStream,
}

impl Bird {
    /// Starts it, and waits until it is ready.
    async fn hatch() -> io::Result<Self> {
        let (ours, its) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        // SAFETY: getpid touches nothing.
        let parent = unsafe { libc::getpid() };
        // SAFETY: the child does nothing but what `live` does, which is all that may be
        // done after a fork of a process with threads.
        let pid = match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            0 => live(parent, its.as_raw_fd()),
            pid => pid.cast_unsigned(),
        };
        let mut bird = Self {
            pid,
            socket: UnixStream::from_std(ours)?,
        };
        drop(its);
        bird.answer().await?;
        Ok(bird)
    }

    async fn answer(&mut self) -> io::Result<()> {
        timeout(ANSWER, self.socket.read_u8()).await??;
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
        self.socket.write_all(b"\n").await?;
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

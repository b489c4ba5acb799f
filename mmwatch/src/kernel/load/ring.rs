//! The ring buffer: lends records, and waits for them.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep_until},
};

/// How long a record may lie in a quiet ring before somebody looks. The kernel
/// wakes the reader earlier when a share of the ring is full; a wake-up per
/// record would cost the watched several times what all else does.
const POLL: Duration = Duration::from_millis(10);

/// The same where records are summed and not sent.
const POLL_UNSENT: Duration = Duration::from_secs(1);

pub(super) struct Ring {
    wake: Option<AsyncFd<OwnedFd>>,
    ring: RingBuf<MapData>,
    /// The record that is lent out.
    record: Vec<u8>,
    poll: Duration,
    next_poll: Option<Instant>,
}

impl Ring {
    /// `sent`: whether records are sent at all.
    pub(super) fn new(ring: RingBuf<MapData>, sent: bool) -> Self {
        let mut ring = Self {
            wake: None,
            ring,
            record: Vec::new(),
            poll: POLL,
            next_poll: None,
        };
        ring.set_sent(sent);
        ring
    }

    /// From now on records are sent, or not.
    pub(super) fn set_sent(&mut self, sent: bool) {
        self.poll = if sent { POLL } else { POLL_UNSENT };
        self.next_poll = None;
    }

    /// Waits for a wake-up from the kernel or for the poll timer. Cancelling
    /// it loses neither: the timer's end is kept.
    pub(super) async fn ready(&mut self) -> io::Result<()> {
        let poll = *self
            .next_poll
            .get_or_insert_with(|| Instant::now() + self.poll);
        if self.wake.is_none() {
            // Here and not in `new`, which runs before there is a reactor.
            let ring = self.ring.as_fd().try_clone_to_owned()?;
            // SAFETY: the descriptor is owned by the AsyncFd and stays open
            // and the same as long as it.
            let wake = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
            self.wake = Some(wake?);
        }
        if let Some(wake) = &self.wake {
            tokio::select! {
                guard = wake.readable() => guard?.clear_ready(),
                () = sleep_until(poll) => {}
            }
        }
        self.next_poll = None;
        Ok(())
    }

    /// The next record, copied out: the ring's own memory goes back to the
    /// kernel when its guard drops, which cannot outlive this call.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        let item = self.ring.next()?;
        self.record.clear();
        self.record.extend_from_slice(&item);
        Some(&self.record)
    }
}

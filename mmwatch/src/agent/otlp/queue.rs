//! What waits to be sent: so many bytes at most, the oldest first, and an account of what
//! became of every item.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use axum::body::Bytes;
use tokio::sync::Notify;

/// The body of a request.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Encoded.
    pub body: Bytes,
    /// Data points or events that are in it.
    pub items: u64,
}

impl Batch {
    fn len_bytes(&self) -> u64 {
        self.body.len() as u64
    }
}

/// What became of items, which are data points or events. `made` is the sum of `sent`,
/// `rejected`, `refused`, `queue_full`, `rate_limited` and `waiting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// All that were to be sent.
    pub made: u64,
    /// The receiver has them.
    pub sent: u64,
    /// It took the request, but not these.
    pub rejected: u64,
    /// It did not take the request, and never would.
    pub refused: u64,
    /// They gave way to later ones.
    pub queue_full: u64,
    /// There were too many at a time.
    pub rate_limited: u64,
    /// They are still here, those of a request under way too.
    pub waiting: u64,
    /// Bytes of these, encoded.
    pub waiting_bytes: u64,
    /// Requests by their result.
    pub requests: Requests,
}

/// Requests by their result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Taken, with all that was in them.
    pub accepted: u64,
    /// Taken without some of that.
    pub partial: u64,
    /// To be made again.
    pub failed: u64,
    /// Not taken for good.
    pub refused: u64,
}

/// A queue with one who takes from it.
#[derive(Debug)]
pub struct Queue {
    max_bytes: u64,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Batch>,
    /// What was taken, and not settled yet.
    taken: Option<Batch>,
    is_closed: bool,
    account: Account,
}

impl Queue {
    /// An empty one.
    pub fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Adds a batch. Where there is no room the oldest give way, and if that does not do,
    /// this one does.
    pub fn put(&self, batch: Batch) {
        let mut state = self.state();
        let State {
            waiting, account, ..
        } = &mut *state;
        account.made += batch.items;
        while account.waiting_bytes + batch.len_bytes() > self.max_bytes {
            let Some(oldest) = waiting.pop_front() else {
                account.queue_full += batch.items;
                return;
            };
            account.queue_full += oldest.items;
            account.waiting -= oldest.items;
            account.waiting_bytes -= oldest.len_bytes();
        }
        account.waiting += batch.items;
        account.waiting_bytes += batch.len_bytes();
        waiting.push_back(batch);
        drop(state);
        self.changed.notify_one();
    }

    /// Counts an item that is not sent, as there are too many at a time.
    pub fn leave_out(&self) {
        let mut state = self.state();
        state.account.made += 1;
        state.account.rate_limited += 1;
    }

    /// The oldest batch, to be [settled](Self::settle); `None` once the queue is closed and
    /// empty.
    pub async fn take(&self) -> Option<Batch> {
        loop {
            {
                let mut state = self.state();
                if let Some(batch) = state.waiting.pop_front() {
                    state.taken = Some(batch.clone());
                    return Some(batch);
                }
                if state.is_closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    /// A request that is to be made again.
    pub fn failed(&self) {
        self.state().account.requests.failed += 1;
    }

    /// What was taken arrived, all but `rejected` items.
    pub fn accepted(&self, rejected: u64) {
        let mut state = self.state();
        let items = state.settle();
        let rejected = rejected.min(items);
        state.account.rejected += rejected;
        state.account.sent += items - rejected;
        match rejected {
            0 => state.account.requests.accepted += 1,
            _ => state.account.requests.partial += 1,
        }
    }

    /// What was taken is not wanted.
    pub fn refused(&self) {
        let mut state = self.state();
        let items = state.settle();
        state.account.refused += items;
        state.account.requests.refused += 1;
    }

    /// Nothing is put in any more.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_one();
    }

    /// What became of everything, at one moment.
    pub fn account(&self) -> Account {
        self.state().account
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No panic leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Ends the life of what was taken. Returns its number of items.
    fn settle(&mut self) -> u64 {
        let Some(batch) = self.taken.take() else {
            return 0;
        };
        self.account.waiting -= batch.items;
        self.account.waiting_bytes -= batch.len_bytes();
        batch.items
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(items: u64, len_bytes: usize) -> Batch {
        Batch {
            body: vec![0; len_bytes].into(),
            items,
        }
    }

    /// What is there now, without waiting.
    fn take(queue: &Queue) -> Option<Batch> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let is_empty = {
            let state = queue.state();
            state.waiting.is_empty() && !state.is_closed
        };
        (!is_empty).then(|| runtime.block_on(queue.take()))?
    }

    #[track_caller]
    fn assert_balance(account: Account) {
        let Account {
            made,
            sent,
            rejected,
            refused,
            queue_full,
            rate_limited,
            waiting,
            ..
        } = account;
        let sum = sent + rejected + refused + queue_full + rate_limited + waiting;
        assert_eq!(made, sum, "{account:?}");
    }

    #[test]
    fn the_oldest_gives_way_but_not_while_it_is_sent() {
        let queue = Queue::new(10);
        queue.put(batch(1, 4));
        queue.put(batch(2, 4));
        assert_eq!(take(&queue).unwrap().items, 1);
        queue.put(batch(4, 6));
        assert_eq!(queue.account().queue_full, 2);
        assert_eq!(queue.account().waiting_bytes, 10);
        queue.accepted(0);
        assert_eq!(take(&queue).unwrap().items, 4);
        // More than there is room for at all.
        queue.put(batch(8, 11));
        assert_eq!(queue.account().queue_full, 10);
        queue.refused();
        let account = queue.account();
        assert_eq!((account.sent, account.refused, account.waiting), (1, 4, 0));
        assert_eq!(account.waiting_bytes, 0);
        assert_balance(account);
    }

    #[test]
    fn a_receiver_cannot_reject_more_than_it_got() {
        let queue = Queue::new(10);
        queue.put(batch(3, 1));
        take(&queue);
        queue.accepted(2);
        queue.put(batch(3, 1));
        take(&queue);
        queue.accepted(u64::MAX);
        let account = queue.account();
        assert_eq!((account.sent, account.rejected), (1, 5));
        assert_eq!(account.requests.partial, 2);
        assert_balance(account);
    }

    #[test]
    fn a_closed_queue_is_emptied_first() {
        let queue = Queue::new(10);
        queue.put(batch(1, 1));
        queue.close();
        assert_eq!(take(&queue).unwrap().items, 1);
        queue.accepted(0);
        assert!(take(&queue).is_none());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_uncounted(steps in prop::collection::vec((0_u8..6, 0_u64..5, 0_usize..7), 1..60)) {
            let queue = Queue::new(12);
            let mut is_taken = false;
            for (step, items, len_bytes) in steps {
                match step {
                    0..3 => queue.put(batch(items, len_bytes)),
                    3 => queue.leave_out(),
                    _ if !is_taken => is_taken = take(&queue).is_some(),
                    4 => {
                        queue.accepted(items);
                        is_taken = false;
                    }
                    _ => {
                        queue.refused();
                        is_taken = false;
                    }
                }
                let account = queue.account();
                assert_balance(account);
                prop_assert!(account.waiting_bytes <= 12);
            }
        }
    }
}

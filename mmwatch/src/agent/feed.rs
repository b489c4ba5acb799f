//! Events for those who subscribe while the agent runs.
//!
//! The kernel sends events only while somebody does, so that an agent without
//! subscribers costs what its sums cost. Who takes too long loses events and learns how
//! many; nobody waits for anybody.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use serde::Serialize;
use tokio::{
    sync::{mpsc, watch},
    task::unconstrained,
};

use crate::{event::Event, filter::Filter, ledger::Ledger, pipeline::Switch};

/// Subscriptions at the same time, at most: each costs something for every event.
const MAX_SUBSCRIPTIONS: usize = 16;

/// An event on its way to all who want it.
#[derive(Debug)]
pub struct Told {
    /// Its place among those received by the agent, from 1.
    pub seq: u64,
    /// What was done, and by whom.
    pub event: Event,
}

/// What a subscription has next.
#[derive(Clone, Debug)]
pub enum Item {
    /// An event that its filter lets through.
    Event(Arc<Told>),
    /// What was lost since the subscription began, when that grew.
    Lost(Losses),
}

/// Events that did not get through, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// The kernel's ring buffer had no room for them. Nobody knows which filter they
    /// would have passed.
    pub ring_full: u64,
    /// Runs of kernel programs that the kernel skipped.
    pub missed: u64,
    /// Records that were none, and those lost on purpose.
    pub undecodable: u64,
    /// The subscriber did not take them in time.
    pub dropped: u64,
}

impl Losses {
    fn of_kernel(ledger: &Ledger) -> Self {
        let sum = ledger.kernel_sum();
        Self {
            ring_full: sum.ring_full,
            missed: ledger.missed().unwrap_or(0),
            undecodable: ledger.received.undecodable + sum.simulated,
            dropped: 0,
        }
    }

    const fn since(self, before: &Self) -> Self {
        Self {
            ring_full: self.ring_full.saturating_sub(before.ring_full),
            missed: self.missed.saturating_sub(before.missed),
            undecodable: self.undecodable.saturating_sub(before.undecodable),
            dropped: self.dropped.saturating_sub(before.dropped),
        }
    }
}

/// Where events come in, and subscribers too. Clones are the same feed.
#[derive(Clone, Debug)]
pub struct Feed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// `None` once there will be no more events.
    subscribers: Mutex<Option<Vec<Subscriber>>>,
    wanted: watch::Sender<bool>,
    are_sent: watch::Sender<bool>,
    /// What the kernel lost up to the last report.
    lost: watch::Sender<Losses>,
}

#[derive(Debug)]
struct Subscriber {
    filter: Filter,
    to: mpsc::Sender<Arc<Told>>,
    dropped: Arc<AtomicU64>,
}

impl Default for Feed {
    fn default() -> Self {
        Self(Arc::new(Shared {
            subscribers: Mutex::new(Some(Vec::new())),
            wanted: watch::Sender::new(false),
            are_sent: watch::Sender::new(false),
            lost: watch::Sender::default(),
        }))
    }
}

impl Feed {
    /// What switches the kernel's events on and off.
    pub fn switch(&self) -> Switch {
        let mut wanted = self.0.wanted.subscribe();
        // Who subscribed before is not to be overlooked.
        if *wanted.borrow() {
            wanted.mark_changed();
        }
        Switch {
            wanted,
            are_sent: self.0.are_sent.clone(),
        }
    }

    /// Subscribes to the events that a filter lets through, of which so many may wait.
    /// `None` where there are too many subscriptions, or the agent ends.
    pub fn subscribe(&self, filter: Filter, room: usize) -> Option<Subscription> {
        let (to, items) = mpsc::channel(room.max(1));
        let dropped = Arc::new(AtomicU64::new(0));
        let mut subscribers = self.subscribers();
        let list = subscribers
            .as_mut()
            .filter(|list| list.len() < MAX_SUBSCRIPTIONS)?;
        list.push(Subscriber {
            filter,
            to,
            dropped: dropped.clone(),
        });
        let mut lost = self.0.lost.subscribe();
        let before = *lost.borrow_and_update();
        self.0.wanted.send_replace(true);
        Some(Subscription {
            feed: self.clone(),
            items,
            dropped,
            lost,
            before,
            told: Losses::default(),
        })
    }

    /// Hands an event on to all who want it.
    pub fn publish(&self, seq: u64, event: &Event) {
        let mut told = None;
        let subscribers = self.subscribers();
        for subscriber in subscribers.iter().flatten() {
            if !subscriber.filter.wants(event, event.who.as_deref()) {
                continue;
            }
            let told = told.get_or_insert_with(|| {
                Arc::new(Told {
                    seq,
                    event: event.clone(),
                })
            });
            if subscriber.to.try_send(told.clone()).is_err() {
                subscriber.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Has subscribers look at what was lost up to now.
    pub fn report(&self, ledger: &Ledger) {
        self.0.lost.send_replace(Losses::of_kernel(ledger));
    }

    /// There are no more events. What waits is still read.
    pub fn close(&self) {
        self.subscribers().take();
    }

    fn subscribers(&self) -> MutexGuard<'_, Option<Vec<Subscriber>>> {
        // Nothing is ever left half done.
        let subscribers = self.0.subscribers.lock();
        subscribers.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events that somebody asked for; dropping it ends that.
#[derive(Debug)]
pub struct Subscription {
    feed: Feed,
    items: mpsc::Receiver<Arc<Told>>,
    dropped: Arc<AtomicU64>,
    lost: watch::Receiver<Losses>,
    /// What was lost before it began.
    before: Losses,
    /// What was lost since then, as told.
    told: Losses,
}

impl Subscription {
    /// Waits until the kernel sends events: what happens from then on is told, or counted
    /// as lost.
    pub async fn begun(&self) {
        let mut are_sent = self.feed.0.are_sent.subscribe();
        // The sender lives as long as the feed.
        let _ = are_sent.wait_for(|are_sent| *are_sent).await;
    }

    /// What comes next; `None` at the agent's end. Losses are told once per report, at
    /// most. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Item> {
        // Whoever takes all that waits before others get their turn loses less of a storm.
        unconstrained(self.following()).await
    }

    async fn following(&mut self) -> Option<Item> {
        loop {
            tokio::select! {
                biased;
                // The sender lives as long as the feed.
                _ = self.lost.changed() => {
                    if let Some(losses) = self.losses() {
                        return Some(Item::Lost(losses));
                    }
                }
                told = self.items.recv() => {
                    return match told {
                        Some(told) => Some(Item::Event(told)),
                        None => self.losses().map(Item::Lost),
                    };
                }
            }
        }
    }

    /// The next event that waits already.
    pub fn waiting(&mut self) -> Option<Arc<Told>> {
        self.items.try_recv().ok()
    }

    /// What was lost, if that was not told.
    fn losses(&mut self) -> Option<Losses> {
        let of_kernel = *self.lost.borrow_and_update();
        let losses = Losses {
            dropped: self.dropped.load(Ordering::Relaxed),
            ..of_kernel.since(&self.before)
        };
        if losses == self.told {
            return None;
        }
        self.told = losses;
        Some(losses)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.items.close();
        let mut subscribers = self.feed.subscribers();
        if let Some(list) = subscribers.as_mut() {
            list.retain(|subscriber| !Arc::ptr_eq(&subscriber.dropped, &self.dropped));
            self.feed.0.wanted.send_if_modified(|wanted| {
                let was = std::mem::replace(wanted, !list.is_empty());
                was != *wanted
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Op, kernel::load::KernelFilter, sample};

    fn filter(kernel: KernelFilter) -> Filter {
        Filter {
            kernel,
            cgroups: None,
            page_bytes: 4096,
        }
    }

    fn all() -> Filter {
        filter(KernelFilter::NONE)
    }

    fn seq(item: Option<Item>) -> u64 {
        match item {
            Some(Item::Event(told)) => told.seq,
            other => panic!("{other:?}"),
        }
    }

    fn dropped(item: Option<Item>) -> u64 {
        match item {
            Some(Item::Lost(losses)) => losses.dropped,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn events_are_wanted_while_somebody_subscribes() {
        let feed = Feed::default();
        let mut switch = feed.switch();
        assert!(!*switch.wanted.borrow_and_update());
        let one = feed.subscribe(all(), 1).unwrap();
        let two = feed.subscribe(all(), 1).unwrap();
        assert!(*switch.wanted.borrow_and_update());
        drop(one);
        assert!(!switch.wanted.has_changed().unwrap());
        drop(two);
        assert!(!*switch.wanted.borrow_and_update());
    }

    #[tokio::test]
    async fn who_subscribes_before_the_loop_begins_is_not_overlooked() {
        let feed = Feed::default();
        assert!(!feed.switch().wanted.has_changed().unwrap());
        let _one = feed.subscribe(all(), 1).unwrap();
        assert!(feed.switch().wanted.has_changed().unwrap());
    }

    #[tokio::test]
    async fn each_gets_what_its_filter_lets_through() {
        let feed = Feed::default();
        let mut every = feed.subscribe(all(), 10).unwrap();
        let mut maps = feed
            .subscribe(
                filter(KernelFilter {
                    ops: 1 << Op::Map as u32,
                    ..KernelFilter::NONE
                }),
                10,
            )
            .unwrap();
        for (seq, op) in [(1, Op::Unmap), (2, Op::Map)] {
            feed.publish(seq, &sample::event(op));
        }
        assert_eq!(seq(every.next().await), 1);
        assert_eq!(every.waiting().unwrap().seq, 2);
        assert!(every.waiting().is_none());
        assert_eq!(seq(maps.next().await), 2);
    }

    #[tokio::test]
    async fn who_is_too_slow_learns_how_many_are_lost() {
        let feed = Feed::default();
        let mut slow = feed.subscribe(all(), 2).unwrap();
        for seq in 1..=5 {
            feed.publish(seq, &sample::event(Op::Map));
        }
        feed.report(&sample::ledger());
        assert_eq!(dropped(slow.next().await), 3);
        assert_eq!(seq(slow.next().await), 1);
        feed.publish(6, &sample::event(Op::Map));
        feed.publish(7, &sample::event(Op::Map));
        feed.close();
        assert_eq!(seq(slow.next().await), 2);
        assert_eq!(seq(slow.next().await), 6);
        assert_eq!(dropped(slow.next().await), 4);
        assert!(slow.next().await.is_none());
        assert!(feed.subscribe(all(), 1).is_none());
    }

    #[tokio::test]
    async fn there_is_a_limit() {
        let feed = Feed::default();
        let all: Vec<_> = (0..MAX_SUBSCRIPTIONS)
            .map(|_| feed.subscribe(all(), 1).unwrap())
            .collect();
        assert!(feed.subscribe(self::all(), 1).is_none());
        drop(all);
        assert!(feed.subscribe(self::all(), 1).is_some());
    }
}

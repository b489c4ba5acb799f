//! From a queue to the receiver, again and again until it has taken what it is sent.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep};

use super::{
    Signal,
    backoff::{Backoff, random},
    queue::Queue,
    send::{Answer, Sender},
};

/// Time between two warnings about the same.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);

/// Sends what is in the queue until it is closed and empty. Once `closing`, nothing is tried
/// twice: what the receiver does not take then stays.
pub async fn deliver(
    signal: Signal,
    queue: Arc<Queue>,
    sender: watch::Receiver<Arc<Sender>>,
    mut closing: watch::Receiver<bool>,
) {
    let mut warnings = Warnings::new(signal);
    while let Some(batch) = queue.take().await {
        let mut backoff = Backoff::new();
        loop {
            let current = sender.borrow().clone();
            match current.send(signal, batch.body.clone()).await {
                Answer::Accepted { rejected, message } => {
                    queue.accepted(rejected);
                    warnings.accepted(rejected, &message);
                    break;
                }
                Answer::Refused { reason } => {
                    queue.refused();
                    warnings.refused(batch.items, &reason);
                    break;
                }
                Answer::Again { after, reason } => {
                    queue.failed();
                    warnings.away(&reason);
                    if *closing.borrow() {
                        return;
                    }
                    let pause = backoff.pause(after, random());
                    tokio::select! {
                        () = sleep(pause) => {}
                        // Who is gone says nothing any more.
                        _ = closing.changed() => {}
                    }
                }
            }
        }
    }
}

/// Tells what is wrong, and not too often.
struct Warnings {
    signal: Signal,
    /// Since when the receiver takes nothing.
    away: Option<Instant>,
    refused: Option<Instant>,
    rejected: Option<Instant>,
}

impl Warnings {
    fn new(signal: Signal) -> Self {
        Self {
            signal,
            away: None,
            refused: None,
            rejected: None,
        }
    }

    fn away(&mut self, reason: &str) {
        if self.away.is_none() {
            log::warn!(
                "otlp: the receiver takes no {} now, which wait until it does: {reason}",
                self.signal.name()
            );
            self.away = Some(Instant::now());
        }
    }

    fn accepted(&mut self, rejected: u64, message: &str) {
        if let Some(since) = self.away.take() {
            log::info!(
                "otlp: the receiver takes {} again, after {} s",
                self.signal.name(),
                since.elapsed().as_secs()
            );
        }
        if (rejected > 0 || !message.is_empty()) && is_due(&mut self.rejected) {
            log::warn!(
                "otlp: the receiver took {}, and rejected {rejected} of them: {message}",
                self.signal.name()
            );
        }
    }

    fn refused(&mut self, items: u64, reason: &str) {
        self.away = None;
        if is_due(&mut self.refused) {
            log::warn!(
                "otlp: the receiver refused {items} {}: {reason}",
                self.signal.items()
            );
        }
    }
}

fn is_due(last: &mut Option<Instant>) -> bool {
    let is_due = last.is_none_or(|last| last.elapsed() > BETWEEN_WARNINGS);
    if is_due {
        *last = Some(Instant::now());
    }
    is_due
}

//! How long to wait before a request is made again.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

/// The first pause, at most; each is twice the one before.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// What a receiver can ask for, at most.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// The pauses of one request.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Nothing failed yet.
    pub fn new() -> Self {
        Self { next: FIRST }
    }

    /// The pause after another failure: between half and all of what it is at most, so that
    /// agents whose receiver comes back do not all begin at once; or what the receiver
    /// `asked` for, if that is longer. `random` is any number.
    pub fn pause(&mut self, asked: Option<Duration>, random: u64) -> Duration {
        let half = self.next / 2;
        self.next = (self.next * 2).min(LONGEST);
        let pause = half + half.mul_f64(random as f64 / u64::MAX as f64);
        pause.max(asked.unwrap_or_default().min(LONGEST_ASKED))
    }
}

/// A number that nobody knows beforehand.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new();
        let longest: Vec<_> = (0..7)
            .map(|_| backoff.pause(None, u64::MAX).as_secs())
            .collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 30, 30]);
        let shortest = backoff.pause(None, 0);
        assert_eq!(shortest, LONGEST / 2);
    }

    #[test]
    fn a_receiver_is_given_the_time_that_it_asks_for() {
        let mut backoff = Backoff::new();
        let asked = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(backoff.pause(asked(7), 0), Duration::from_secs(7));
        // It may be sooner than that.
        assert_eq!(backoff.pause(asked(0), u64::MAX), Duration::from_secs(2));
        assert_eq!(backoff.pause(asked(86_400), 0), LONGEST_ASKED);
    }

    #[test]
    fn numbers_differ() {
        assert_ne!(random(), random());
    }
}

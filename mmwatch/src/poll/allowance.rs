//! How much CPU time polling may take.

/// Of the time that passes, polling may take one part in so many.
const SHARE: u64 = 50;

/// What is saved up at most, ns: no look takes longer at once, but for one
/// process that is so large.
const MAX_SAVED_NS: i64 = 200_000_000;

/// CPU time that is left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    left_ns: i64,
    earned_boot_ns: u64,
}

impl Allowance {
    /// None yet.
    pub(super) const fn new(now_boot_ns: u64) -> Self {
        Self {
            left_ns: 0,
            earned_boot_ns: now_boot_ns,
        }
    }

    /// Adds what the time since the last call is good for. Returns what may be
    /// taken now, ns; `None` while an earlier look took more than it had.
    pub(super) fn earn(&mut self, now_boot_ns: u64) -> Option<u64> {
        let elapsed_ns = now_boot_ns.saturating_sub(self.earned_boot_ns);
        self.earned_boot_ns = now_boot_ns;
        let earned_ns = i64::try_from(elapsed_ns / SHARE).unwrap_or(i64::MAX);
        self.left_ns = self.left_ns.saturating_add(earned_ns).min(MAX_SAVED_NS);
        u64::try_from(self.left_ns).ok().filter(|left| *left > 0)
    }

    /// Takes off what a look took.
    pub(super) fn spend(&mut self, cpu_ns: u64) {
        let cpu_ns = i64::try_from(cpu_ns).unwrap_or(i64::MAX);
        self.left_ns = self.left_ns.saturating_sub(cpu_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fiftieth_of_the_time_is_earned_and_debts_are_paid_first() {
        let s = |n: u64| n * 1_000_000_000;
        let mut allowance = Allowance::new(s(1));
        assert_eq!(allowance.earn(s(1)), None);
        assert_eq!(allowance.earn(s(2)), Some(20_000_000));
        allowance.spend(50_000_000);
        assert_eq!(allowance.earn(s(3)), None);
        assert_eq!(allowance.earn(s(4)), Some(10_000_000));
        // A clock that seems to go back earns nothing.
        assert_eq!(allowance.earn(s(3)), Some(10_000_000));
    }

    #[test]
    fn a_long_pause_does_not_save_up_without_end() {
        let mut allowance = Allowance::new(0);
        assert_eq!(allowance.earn(u64::MAX), Some(200_000_000));
        allowance.spend(u64::MAX);
        assert_eq!(allowance.earn(u64::MAX), None);
    }
}

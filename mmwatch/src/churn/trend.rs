//! How a process's number of VMAs changes.

/// Readings that are remembered.
const READINGS: usize = 8;

/// The last readings of a number of VMAs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trend {
    /// (ns of the boot clock, VMAs), the oldest first.
    readings: [(u64, u32); READINGS],
    len: usize,
}

impl Trend {
    /// Adds a reading, later than all before.
    pub(super) fn note(&mut self, boot_ns: u64, vmas: u32) {
        if self.len == READINGS {
            self.readings.rotate_left(1);
            self.len -= 1;
        }
        self.readings[self.len] = (boot_ns, vmas);
        self.len += 1;
    }

    /// From the oldest reading to the newest; `None` for want of two.
    pub(super) fn slope(&self) -> Option<Slope> {
        let readings = &self.readings[..self.len];
        let (first, last) = (readings.first()?, readings.last()?);
        let span_ns = last.0.checked_sub(first.0).filter(|span| *span > 0)?;
        Some(Slope {
            vmas_delta: i64::from(last.1) - i64::from(first.1),
            span_ns,
        })
    }
}

/// Change of a number of VMAs over a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slope {
    /// VMAs at the end less VMAs at the beginning.
    pub vmas_delta: i64,
    /// Length of the time, ns, not 0.
    pub span_ns: u64,
}

impl Slope {
    /// VMAs per second.
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    pub fn vmas_per_s(self) -> f64 {
        self.vmas_delta as f64 * 1e9 / self.span_ns as f64
    }

    /// Time that `vmas` more take at this pace, ns; `None` when there are not more.
    pub fn time_for_ns(self, vmas: u32) -> Option<u64> {
        let delta = u128::try_from(self.vmas_delta).ok().filter(|d| *d > 0)?;
        let ns = u128::from(vmas) * u128::from(self.span_ns) / delta;
        Some(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trend(readings: &[(u64, u32)]) -> Trend {
        let mut trend = Trend::default();
        for (boot_ns, vmas) in readings {
            trend.note(*boot_ns, *vmas);
        }
        trend
    }

    #[test]
    fn two_readings_make_a_slope() {
        assert_eq!(trend(&[]).slope(), None);
        assert_eq!(trend(&[(1, 5)]).slope(), None);
        let slope = trend(&[(0, 100), (2_000_000_000, 300)]).slope().unwrap();
        assert_eq!(slope.vmas_per_s(), 100.0);
        assert_eq!(slope.time_for_ns(50), Some(500_000_000));
        let falling = trend(&[(0, 100), (1, 99)]).slope().unwrap();
        assert_eq!(falling.time_for_ns(1), None);
        let still = trend(&[(0, 100), (1, 100)]).slope().unwrap();
        assert_eq!(still.time_for_ns(1), None);
    }

    #[test]
    fn old_readings_are_forgotten() {
        let readings: Vec<_> = (0..20).map(|n| (n, 10 * n as u32)).collect();
        let slope = trend(&readings).slope().unwrap();
        assert_eq!((slope.vmas_delta, slope.span_ns), (70, 7));
    }
}

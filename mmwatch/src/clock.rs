//! The kernel's clocks, and boot time as wall time.

use std::{fmt, io, mem::MaybeUninit};

use crate::error::{Error, Result};

/// Nanoseconds of the boot clock, which events carry.
pub fn boot_ns() -> Result<u64> {
    let ns = clock_ns(libc::CLOCK_BOOTTIME)?;
    Ok(u64::try_from(ns).unwrap_or(0))
}

/// CPU time that this thread took since it began, ns.
pub fn cpu_ns() -> Result<u64> {
    let ns = clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(u64::try_from(ns).unwrap_or(0))
}

fn clock_ns(clock: libc::clockid_t) -> Result<i64> {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the pointer is valid for one timespec.
    if unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) } != 0 {
        return Err(Error::io("reading the clock")(io::Error::last_os_error()));
    }
    // SAFETY: the call succeeded, so it filled the timespec.
    let time = unsafe { time.assume_init() };
    Ok(time.tv_sec * 1_000_000_000 + time.tv_nsec)
}

/// Boot time → wall time, by the distance between the two clocks at the start.
///
/// Later steps of the wall clock are left out on purpose: the times of one
/// stream stay in order.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    offset_ns: i64,
}

impl WallClock {
    /// Samples both clocks.
    pub fn sample() -> Result<Self> {
        let real = clock_ns(libc::CLOCK_REALTIME)?;
        let boot = clock_ns(libc::CLOCK_BOOTTIME)?;
        Ok(Self {
            offset_ns: real - boot,
        })
    }

    /// A clock of which boot was at `offset_ns` after 1970.
    pub const fn with_offset(offset_ns: i64) -> Self {
        Self { offset_ns }
    }

    /// When boot was, ns after 1970.
    pub const fn offset_ns(self) -> i64 {
        self.offset_ns
    }

    /// Wall time of a moment.
    pub fn at(self, boot_ns: u64) -> WallTime {
        let ns = i128::from(boot_ns) + i128::from(self.offset_ns);
        WallTime {
            unix_ns: u64::try_from(ns.max(0)).unwrap_or(u64::MAX),
        }
    }
}

/// A moment after 1970. Shows itself by RFC 3339, in UTC, with nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallTime {
    unix_ns: u64,
}

const DAY_S: u64 = 86_400;

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ns) = (self.unix_ns / 1_000_000_000, self.unix_ns % 1_000_000_000);
        let (year, month, day) = civil(seconds / DAY_S);
        let second = seconds % DAY_S;
        // By hand: seven padded numbers cost the formatter more than all the
        // other fields of an event's line together.
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        for (place, digits, number) in [
            (0, 4, year),
            (5, 2, month),
            (8, 2, day),
            (11, 2, second / 3600),
            (14, 2, second / 60 % 60),
            (17, 2, second % 60),
            (20, 9, ns),
        ] {
            write_decimal(&mut text[place..place + digits], number);
        }
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// Fills `digits` with a number's last ones.
fn write_decimal(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

impl WallTime {
    /// Nanoseconds after 1970.
    pub const fn unix_ns(self) -> u64 {
        self.unix_ns
    }

    /// Time of day where the machine is, `HH:MM:SS.mmm`.
    pub fn local_time_of_day(self) -> TimeOfDay {
        let seconds = self.unix_ns / 1_000_000_000;
        let mut local = MaybeUninit::<libc::tm>::uninit();
        // SAFETY: both pointers are valid for the call. It reads TZ, which
        // nothing in this process sets.
        let done = unsafe { libc::localtime_r(&seconds.cast_signed(), local.as_mut_ptr()) };
        let second_of_day = if done.is_null() {
            seconds % DAY_S
        } else {
            // SAFETY: the call succeeded, so it filled the tm.
            let local = unsafe { local.assume_init() };
            let of_day = (local.tm_hour * 60 + local.tm_min) * 60 + local.tm_sec;
            u64::from(of_day.unsigned_abs())
        };
        TimeOfDay {
            ms: second_of_day * 1000 + self.unix_ns / 1_000_000 % 1000,
        }
    }

    /// Whole seconds since 1970.
    pub const fn unix_s(self) -> u64 {
        self.unix_ns / 1_000_000_000
    }
}

/// Shows itself as `HH:MM:SS.mmm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeOfDay {
    ms: u64,
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let second = self.ms / 1000;
        write!(
            f,
            "{:02}:{:02}:{:02}.{:03}",
            second / 3600,
            second / 60 % 60,
            second % 60,
            self.ms % 1000,
        )
    }
}

/// Year, month and day of a day counted from 1970-01-01.
fn civil(day: u64) -> (u64, u64, u64) {
    // Years are counted from March, so that the leap day is a year's last, and
    // from the year 0, with which a 400-year cycle begins.
    const CYCLE: u64 = 400 * 365 + 97;
    const FROM_YEAR_0: u64 = 719_468;
    let day = day + FROM_YEAR_0;
    let (cycle, day) = (day / CYCLE, day % CYCLE);
    // Take out the leap days that lie before, then years all have 365 days.
    // A cycle's last day would count as a year of its own without the third term.
    let year = (day - day / 1460 + day / 36_524 - day / (CYCLE - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // From March on, five months have 153 days, again and again.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (cycle * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_follow_one_another() {
        // Every day of 1970..2500 against the calendar's own rules.
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for number in 0..530 * 366 {
            assert_eq!(civil(number), (year, month, day), "day {number}");
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn wall_time_reads_as_rfc_3339() {
        let at = |offset, boot| WallClock::with_offset(offset).at(boot).to_string();
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(
            at(951_782_399_000_000_000, 999_999_999),
            "2000-02-28T23:59:59.999999999Z"
        );
        assert_eq!(
            at(1_795_247_561_000_000_000, 5),
            "2026-11-21T07:52:41.000000005Z"
        );
        assert_eq!(at(-5, 3), "1970-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn clocks_can_be_read() {
        assert!(boot_ns().unwrap() > 0);
        let now = WallClock::sample().unwrap().at(boot_ns().unwrap());
        assert!(now.unix_s() > 1_700_000_000);
        assert_eq!(
            now.local_time_of_day().to_string().len(),
            "00:00:00.000".len()
        );
    }
}

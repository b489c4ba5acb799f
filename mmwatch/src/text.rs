//! Writing for people: names without control characters, bytes and times in
//! units, local time of day; and reading the units back.

mod escape;

use std::{
    fmt::{self, Write as _},
    str,
    time::Duration,
};

pub use self::escape::{Escaped, harmless, is_harmful};

/// A short text built without the heap, so that `{:>8}` pads values that are
/// made of several parts.
struct Short {
    bytes: [u8; 32],
    len: usize,
}

impl Short {
    fn pad(f: &mut fmt::Formatter<'_>, args: fmt::Arguments<'_>) -> fmt::Result {
        let mut short = Self {
            bytes: [0; 32],
            len: 0,
        };
        short.write_fmt(args)?;
        f.pad(str::from_utf8(&short.bytes[..short.len]).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Write for Short {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = self
            .bytes
            .get_mut(self.len..self.len + s.len())
            .ok_or(fmt::Error)?;
        room.copy_from_slice(s.as_bytes());
        self.len += s.len();
        Ok(())
    }
}

/// A size in bytes, in the largest binary unit that keeps it at 1 or more.
///
/// Whole numbers of a unit show no fraction: `4KiB`, `1.5MiB`, `1MiB`.
#[derive(Clone, Copy)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let exponent = (self.0.max(1).ilog2() / 10) as usize;
        let unit = 1_u64 << (10 * exponent);
        if self.0.is_multiple_of(unit) {
            Short::pad(f, format_args!("{}{}", self.0 / unit, UNITS[exponent]))
        } else {
            // Rounded down, so that 1023.99 KiB does not become 1024.0.
            let tenths = u128::from(self.0 % unit) * 10 / u128::from(unit);
            Short::pad(
                f,
                format_args!("{}.{tenths}{}", self.0 / unit, UNITS[exponent]),
            )
        }
    }
}

/// A size in 7 columns: `4KiB`, `1.5MiB`, but `1020KiB`, `1023MiB` without a fraction.
#[derive(Clone, Copy)]
pub struct Compact(pub u64);

impl fmt::Display for Compact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = 1_u64 << (self.0.max(1).ilog2() / 10 * 10);
        if self.0 / unit < 100 {
            Bytes(self.0).fmt(f)
        } else {
            Bytes(self.0 / unit * unit).fmt(f)
        }
    }
}

/// A time span in nanoseconds, in the largest unit that keeps it at 1 or more.
#[derive(Clone, Copy)]
pub struct Nanos(pub u64);

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..1_000 => return Short::pad(f, format_args!("{}ns", self.0)),
            1_000..1_000_000 => (1_000, "µs"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => (1_000_000_000, "s"),
        };
        let hundredths = self.0 % unit * 100 / unit;
        Short::pad(f, format_args!("{}.{hundredths:02}{name}", self.0 / unit))
    }
}

/// A count per second.
#[derive(Clone, Copy)]
pub struct Rate {
    /// How many.
    pub count: u64,
    /// In how long, ns.
    pub span_ns: u64,
}

impl Rate {
    /// Per second, rounded; 0 over no time at all.
    pub fn per_second(self) -> u64 {
        let span = u128::from(self.span_ns);
        let scaled = u128::from(self.count) * 1_000_000_000 + span / 2;
        scaled
            .checked_div(span)
            .map_or(0, |rate| u64::try_from(rate).unwrap_or(u64::MAX))
    }
}

/// Reads a size such as `4096`, `4k`, `1M`, `2GiB` (powers of 1024).
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err("expected a size such as 4096, 4k, 1M or 2G".into()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a size such as 4096, 4k, 1M or 2G")?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "that is more than 64 bits can hold".into())
}

/// Reads a time span such as `5`, `5s`, `0.5`, `500ms`, `2m`, `1h`; above zero.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let seconds = match unit {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("expected a time such as 5, 5s, 500ms, 2m or 1h".into()),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "expected a time such as 5, 5s, 500ms, 2m or 1h")?;
    match Duration::try_from_secs_f64(number * seconds) {
        Ok(Duration::ZERO) => Err("expected a time longer than zero".into()),
        Ok(duration) if duration <= MAX_DURATION => Ok(duration),
        _ => Err("expected at most 1000 days".into()),
    }
}

/// Keeps deadlines inside what timers can hold.
const MAX_DURATION: Duration = Duration::from_secs(1000 * 86_400);

fn split_unit(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_their_unit() {
        for (bytes, want) in [
            (0, "0B"),
            (1, "1B"),
            (1023, "1023B"),
            (4096, "4KiB"),
            (6 * 1024, "6KiB"),
            (1536, "1.5KiB"),
            ((1 << 20) - 1, "1023.9KiB"),
            (1 << 20, "1MiB"),
            (u64::MAX, "15.9EiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), want);
        }
        assert_eq!(format!("{:>8}", Bytes(4096)), "    4KiB");
    }

    #[test]
    fn spans_keep_their_unit() {
        for (ns, want) in [
            (0, "0ns"),
            (999, "999ns"),
            (1_500, "1.50µs"),
            (999_999, "999.99µs"),
            (2_000_000, "2.00ms"),
            (61_000_000_000, "61.00s"),
        ] {
            assert_eq!(Nanos(ns).to_string(), want);
        }
        assert_eq!(format!("{:>8}", Nanos(1_500)), "  1.50µs");
    }

    #[test]
    fn rates_are_rounded_and_never_divide_by_zero() {
        let rate = |count, span_ns| Rate { count, span_ns }.per_second();
        assert_eq!(rate(5, 0), 0);
        assert_eq!(rate(5, 2_000_000_000), 3);
        assert_eq!(rate(u64::MAX, 1), u64::MAX);
    }

    #[test]
    fn sizes_are_read() {
        for (text, want) in [
            ("0", 0),
            ("4096", 4096),
            ("4k", 4096),
            ("4K", 4096),
            ("4KiB", 4096),
            ("4kb", 4096),
            ("10b", 10),
            ("1M", 1 << 20),
            ("2GiB", 2 << 30),
            ("1t", 1 << 40),
        ] {
            assert_eq!(parse_bytes(text), Ok(want), "{text}");
        }
        for text in [
            "",
            "k",
            "4x",
            "-1",
            "1.5M",
            "4 k",
            "ib",
            "99999999999999999999",
            "99999999T",
        ] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read() {
        for (text, ms) in [
            ("5", 5_000),
            ("5s", 5_000),
            ("0.5", 500),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
        for text in [
            "",
            "0",
            "0ms",
            "s",
            "-1",
            "1d",
            "1..2",
            "1e999",
            "99999999999999999999h",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}

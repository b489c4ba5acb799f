//! What a recording lacks, and how it ends.

use std::{fmt, io};

use super::{frame::Broken, layout::Bytes};

/// Records that were not written, in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Since when, ns of the boot clock.
    pub from_boot_ns: u64,
    /// Until when.
    pub until_boot_ns: u64,
    /// Events among them.
    pub events: u64,
    /// All of them, paths and what could not be decoded among them.
    pub records: u64,
    /// Why.
    pub cause: Cause,
}

/// Why records were not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The disk did not keep up.
    Slow,
    /// The recording has the size that it may have.
    Full,
    /// Writing failed, with this errno; 0 where there was none.
    Failed(i32),
}

impl Cause {
    /// Of a write that failed.
    pub(super) fn of(error: &io::Error) -> Self {
        Self::Failed(error.raw_os_error().unwrap_or(0))
    }

    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Full => "full",
            Self::Failed(_) => "failed",
        }
    }

    const fn to_wire(self) -> [u32; 2] {
        match self {
            Self::Slow => [0, 0],
            Self::Full => [1, 0],
            Self::Failed(errno) => [2, errno.cast_unsigned()],
        }
    }

    const fn from_wire(code: u32, errno: u32) -> Option<Self> {
        match code {
            0 => Some(Self::Slow),
            1 => Some(Self::Full),
            2 => Some(Self::Failed(errno.cast_signed())),
            _ => None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow => f.write_str("the disk did not keep up"),
            Self::Full => f.write_str("the recording had the size that it may have"),
            Self::Failed(0) => f.write_str("writing failed"),
            Self::Failed(errno) => {
                write!(
                    f,
                    "writing failed: {}",
                    io::Error::from_raw_os_error(*errno)
                )
            }
        }
    }
}

impl Gap {
    /// This gap and a later one as one. That the disk is slow says less than
    /// that it failed.
    #[must_use]
    pub(super) fn and(self, later: Self) -> Self {
        Self {
            from_boot_ns: self.from_boot_ns.min(later.from_boot_ns),
            until_boot_ns: self.until_boot_ns.max(later.until_boot_ns),
            events: self.events + later.events,
            records: self.records + later.records,
            cause: match self.cause {
                Cause::Slow => later.cause,
                Cause::Full | Cause::Failed(_) => self.cause,
            },
        }
    }

    pub(super) fn payload(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [
            self.from_boot_ns,
            self.until_boot_ns,
            self.events,
            self.records,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in self.cause.to_wire() {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out
    }

    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let mut bytes = Bytes::new(payload);
        Some(Self {
            from_boot_ns: bytes.u64()?,
            until_boot_ns: bytes.u64()?,
            events: bytes.u64()?,
            records: bytes.u64()?,
            cause: Cause::from_wire(bytes.u32()?, bytes.u32()?)?,
        })
    }
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The watch ended.
    Finished,
    /// It has the size that it may have.
    Full,
    /// It goes on in another file.
    Rotated,
}

impl Why {
    pub(super) fn payload(self, boot_ns: u64) -> Vec<u8> {
        let code: u32 = match self {
            Self::Finished => 0,
            Self::Full => 1,
            Self::Rotated => 2,
        };
        let mut out = boot_ns.to_le_bytes().to_vec();
        out.extend_from_slice(&code.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out
    }

    /// With the time of the end.
    pub(super) fn parse(payload: &[u8]) -> Option<(Self, u64)> {
        let mut bytes = Bytes::new(payload);
        let boot_ns = bytes.u64()?;
        let why = match bytes.u32()? {
            0 => Self::Finished,
            1 => Self::Full,
            2 => Self::Rotated,
            _ => return None,
        };
        Some((why, boot_ns))
    }
}

/// How reading a recording came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It says that it ended, and why.
    On(Why),
    /// It does not: whoever wrote it was ended, or is still writing.
    Open,
    /// What comes next is no whole frame.
    Broken(Broken),
    /// It was not read to its end.
    Unread,
}

impl Ending {
    /// Its name in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::On(Why::Finished) => "finished",
            Self::On(Why::Full) => "full",
            Self::On(Why::Rotated) => "rotated",
            Self::Open => "open",
            Self::Broken(_) => "broken",
            Self::Unread => "unread",
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On(Why::Finished) => f.write_str("ended with the watch"),
            Self::On(Why::Full) => f.write_str("ended with the size that it may have"),
            Self::On(Why::Rotated) => f.write_str("goes on in a newer file"),
            Self::Open => f.write_str(
                "has no end: the mmwatch that wrote it was ended by force, or is still writing",
            ),
            Self::Broken(Broken { at_byte, why }) => {
                write!(f, "can be read up to byte {at_byte}, where there is {why}")
            }
            Self::Unread => f.write_str("was not read to its end"),
        }
    }
}

/// What there is to say of records that come from a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// How often records were not written.
    pub gaps: u64,
    /// Events among them.
    pub lost_events: u64,
    /// All of them.
    pub lost_records: u64,
    /// Records that are in the recording more than once, beyond the first time.
    pub repeated: u64,
    /// Whether its last look at the kernel's counters is the final one, and all
    /// records came before it.
    pub is_whole: bool,
    /// How it ended.
    pub ending: Ending,
    /// Whether sums are those of its events, and not the kernel's own.
    pub sums_events: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_ends_come_back() {
        for cause in [Cause::Slow, Cause::Full, Cause::Failed(libc::ENOSPC)] {
            let gap = Gap {
                from_boot_ns: 1,
                until_boot_ns: 2,
                events: 3,
                records: 4,
                cause,
            };
            let payload = gap.payload();
            assert_eq!(Gap::parse(&payload), Some(gap));
            for len in 0..payload.len() {
                assert_eq!(Gap::parse(&payload[..len]), None);
            }
        }
        for why in [Why::Finished, Why::Full, Why::Rotated] {
            assert_eq!(Why::parse(&why.payload(9)), Some((why, 9)));
        }
        assert_eq!(Why::parse(&[0; 11]), None);
        assert_eq!(Why::parse(&[9; 16]), None);
    }

    #[test]
    fn gaps_in_a_row_are_one() {
        let gap = |from, until, events, cause| Gap {
            from_boot_ns: from,
            until_boot_ns: until,
            events,
            records: events + 1,
            cause,
        };
        let both = gap(10, 20, 3, Cause::Slow).and(gap(20, 35, 4, Cause::Failed(28)));
        assert_eq!(
            both,
            Gap {
                records: 9,
                ..gap(10, 35, 7, Cause::Failed(28))
            }
        );
        assert_eq!(both.and(gap(35, 36, 0, Cause::Slow)).cause, both.cause);
        assert!(both.cause.to_string().contains("No space left"));
    }
}

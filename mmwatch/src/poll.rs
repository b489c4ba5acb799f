//! What processes have mapped, by looking at `/proc` again and again: what is
//! left where the kernel cannot be hooked.
//!
//! [`read`] alone reads processes, one at a time. [`poller`] decides what is
//! read when, so that it stays cheap, and what of it is worth a [`report`].

mod allowance;
pub mod poller;
pub mod read;
pub mod report;

use crate::{event::Backing, maps::segment::backing_of, space::Line};

pub use self::{
    poller::{Depth, Filter, Poller},
    report::{Group, Groups, Poll, Polled, Sum},
};

/// How much there is of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Number of VMAs.
    pub vmas: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, other: Self) {
        self.vmas += other.vmas;
        self.bytes += other.bytes;
    }
}

/// What an address space has of each backing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    by_backing: [Amount; Backing::ALL.len()],
}

impl Tally {
    /// Adds a VMA. `[vsyscall]` is left out, which the kernel does not count either.
    pub fn add(&mut self, line: &Line<'_>) {
        if line.name != b"[vsyscall]" {
            self.by_backing[backing_of(line) as usize].add(Amount {
                vmas: 1,
                bytes: line.size_bytes(),
            });
        }
    }

    fn add_all(&mut self, other: &Self) {
        for (sum, amount) in self.by_backing.iter_mut().zip(other.by_backing) {
            sum.add(amount);
        }
    }

    /// What it has of one backing.
    pub fn of(&self, backing: Backing) -> Amount {
        self.by_backing[backing as usize]
    }

    /// What it has in all.
    pub fn total(&self) -> Amount {
        let mut total = Amount::default();
        self.by_backing.iter().for_each(|amount| total.add(*amount));
        total
    }
}

/// What one look at a process found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// When, ns of the boot clock.
    pub boot_ns: u64,
    /// Bytes of all mappings.
    pub total_bytes: u64,
    /// What is mapped; `None` where that may not be looked at.
    pub tally: Option<Tally>,
    /// Whether it changed meanwhile, so that the numbers are of no one moment.
    pub changing: bool,
}

impl Reading {
    /// Number of VMAs: the lines of `/proc/PID/maps` less `[vsyscall]`.
    pub fn vmas(&self) -> Option<u64> {
        self.tally.map(|tally| tally.total().vmas)
    }
}

#[cfg(test)]
mod tests;

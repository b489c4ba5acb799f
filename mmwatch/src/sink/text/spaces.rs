//! Address spaces that are watched: a table at each look.

use std::io::{self, Write};

use super::super::Sink;
use crate::{
    event::Event,
    ledger::{Ledger, SinkCounters},
    maps::AddressSpace,
    ui,
};

/// Tables one after the other, a blank line between two.
#[derive(Debug)]
pub struct Spaces<W> {
    to: W,
    is_first: bool,
}

impl<W: Write> Spaces<W> {
    /// A sink that writes to `to`.
    pub const fn new(to: W) -> Self {
        Self { to, is_first: true }
    }
}

impl<W: Write> Sink for Spaces<W> {
    fn event(&mut self, _: u64, _: &Event) -> io::Result<()> {
        Ok(())
    }

    fn space(&mut self, space: &AddressSpace<'_>) -> io::Result<()> {
        if !self.is_first {
            self.to.write_all(b"\n")?;
        }
        self.is_first = false;
        self.to.write_all(ui::maps::draw(space).as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    fn finish(&mut self, _: &Ledger) -> io::Result<()> {
        self.to.flush()
    }

    fn counters(&self) -> SinkCounters {
        SinkCounters {
            sink: "text",
            delivered: 0,
            dropped: 0,
        }
    }
}

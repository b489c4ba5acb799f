//! Where events and reports go. A sink sees those two and the ledger, nothing else.

pub mod json;
pub mod text;

use std::io::{self, Write};

use crate::{
    churn::Report,
    event::Event,
    ledger::{Ledger, SinkCounters},
    maps::AddressSpace,
    recording::Outcome,
    verify::Round,
};

/// Writes what it is given.
///
/// After an error a sink takes events only to count them as dropped, so that
/// the ledger stays true.
pub trait Sink {
    /// One event; `seq` is its place among those received, from 1.
    fn event(&mut self, seq: u64, event: &Event) -> io::Result<()>;

    /// The sums at the end of an interval. Nothing, unless the sink shows them.
    fn report(&mut self, report: &Report, ledger: &Ledger) -> io::Result<()> {
        let _ = (report, ledger);
        Ok(())
    }

    /// A round of `verify`. Nothing, unless the sink shows it.
    fn round(&mut self, round: &Round, ledger: &Ledger) -> io::Result<()> {
        let _ = (round, ledger);
        Ok(())
    }

    /// An address space at a moment. Nothing, unless the sink shows it.
    fn space(&mut self, space: &AddressSpace<'_>) -> io::Result<()> {
        let _ = space;
        Ok(())
    }

    /// What came of a recording. Nothing, unless the sink shows it.
    fn recorded(&mut self, outcome: &Outcome) -> io::Result<()> {
        let _ = outcome;
        Ok(())
    }

    /// Hands on what is still buffered.
    fn flush(&mut self) -> io::Result<()>;

    /// The last call: the final ledger, taken after a flush.
    fn finish(&mut self, ledger: &Ledger) -> io::Result<()>;

    /// What became of the events.
    fn counters(&self) -> SinkCounters;
}

/// Bytes after which an output is written without waiting for a flush.
const FLUSH_BYTES: usize = 64 << 10;

/// A writer with one reused buffer that knows how many events got through.
#[derive(Debug)]
pub(crate) struct Output<W> {
    to: W,
    buffer: Vec<u8>,
    /// Lines at the start of the buffer that are no events.
    header_lines: usize,
    /// Events in the buffer, a line each, after the header lines.
    pending: u64,
    delivered: u64,
    dropped: u64,
    failed: bool,
}

impl<W: Write> Output<W> {
    pub(crate) fn new(to: W) -> Self {
        Self {
            to,
            buffer: Vec::with_capacity(FLUSH_BYTES + 4096),
            header_lines: 0,
            pending: 0,
            delivered: 0,
            dropped: 0,
            failed: false,
        }
    }

    /// An output that begins with a line that is no event.
    pub(crate) fn with_header(to: W, header: &str) -> Self {
        let mut output = Self::new(to);
        output.buffer.extend_from_slice(header.as_bytes());
        output.buffer.push(b'\n');
        output.header_lines = 1;
        output
    }

    /// Writes one event's line with `write`, its newline included.
    pub(crate) fn event(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.failed {
            self.dropped += 1;
            return Ok(());
        }
        let before = self.buffer.len();
        if let Err(error) = write(&mut self.buffer) {
            self.buffer.truncate(before);
            self.dropped += 1;
            return Err(error);
        }
        self.pending += 1;
        if self.buffer.len() >= FLUSH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes lines that are no events.
    pub(crate) fn lines(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.flush()?;
        if self.failed {
            return Ok(());
        }
        write(&mut self.buffer)?;
        self.header_lines = newlines(&self.buffer);
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.failed {
            return Ok(());
        }
        let mut accepted = 0;
        let result = loop {
            match self.to.write(&self.buffer[accepted..]) {
                Ok(_) if accepted == self.buffer.len() => break self.to.flush(),
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => accepted += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        let delivered = if accepted == self.buffer.len() {
            self.pending
        } else {
            // Of a write that failed half-way, whole lines count.
            let lines = newlines(&self.buffer[..accepted]).saturating_sub(self.header_lines);
            self.pending.min(lines as u64)
        };
        self.delivered += delivered;
        self.dropped += self.pending - delivered;
        self.failed = result.is_err();
        self.buffer.clear();
        self.header_lines = 0;
        self.pending = 0;
        result
    }

    pub(crate) const fn counters(&self, sink: &'static str) -> SinkCounters {
        SinkCounters {
            sink,
            delivered: self.delivered,
            dropped: self.dropped,
        }
    }
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then is closed.
    struct Pipe {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room).min(7);
            if taken == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.room -= taken;
            self.taken.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(text: &str) -> impl FnOnce(&mut Vec<u8>) -> io::Result<()> {
        move |buffer| writeln!(buffer, "{text}")
    }

    #[test]
    fn what_was_written_is_delivered() {
        let mut output = Output::with_header(
            Pipe {
                room: 1000,
                taken: vec![],
            },
            "header",
        );
        output.event(line("one")).unwrap();
        output.event(line("two")).unwrap();
        assert_eq!(output.counters("x").delivered, 0);
        output.flush().unwrap();
        assert_eq!(output.to.taken, b"header\none\ntwo\n");
        assert_eq!((output.delivered, output.dropped), (2, 0));
    }

    #[test]
    fn a_closed_pipe_drops_what_did_not_get_through() {
        let mut output = Output::new(Pipe {
            room: "header\none\ntw".len(),
            taken: vec![],
        });
        output.lines(line("header")).unwrap();
        for text in ["one", "two", "three"] {
            output.event(line(text)).unwrap();
        }
        assert_eq!(
            output.flush().unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
        assert_eq!((output.delivered, output.dropped), (1, 2));
        output.event(line("four")).unwrap();
        output.lines(line("ledger")).unwrap();
        output.flush().unwrap();
        assert_eq!((output.delivered, output.dropped), (1, 3));
        assert_eq!(output.to.taken, b"header\none\ntw");
    }

    #[test]
    fn long_batches_are_written_on_the_way() {
        let mut output = Output::new(Pipe {
            room: usize::MAX,
            taken: vec![],
        });
        let text = "x".repeat(1023);
        for _ in 0..64 {
            output.event(line(&text)).unwrap();
        }
        assert_eq!(output.delivered, 64);
    }
}

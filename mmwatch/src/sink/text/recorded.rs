//! What came of a recording: a few lines at the end.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::super::Sink;
use crate::{
    event::Event,
    ledger::{Ledger, SinkCounters},
    recording::{Outcome, Why},
    text::{Bytes, Escaped},
};

/// Says what was written, and what was not; then the ledger.
#[derive(Debug)]
pub struct Recorded<W> {
    to: W,
    path: PathBuf,
}

impl<W: Write> Recorded<W> {
    /// A sink that writes to `to` what came of the recording at `path`.
    pub fn new(to: W, path: &Path) -> Self {
        Self {
            to,
            path: path.to_owned(),
        }
    }
}

impl<W: Write> Sink for Recorded<W> {
    fn event(&mut self, _: u64, _: &Event) -> io::Result<()> {
        Ok(())
    }

    fn recorded(&mut self, outcome: &Outcome) -> io::Result<()> {
        let Outcome {
            delivered,
            dropped,
            bytes,
            files,
            why,
            failure,
            is_finished,
        } = outcome;
        let to = &mut self.to;
        let file = Escaped(self.path.as_os_str().as_encoded_bytes());
        write!(to, "{file}: {delivered} events in {}", Bytes(*bytes))?;
        match files {
            1 => writeln!(to)?,
            files => writeln!(to, ", in {files} files")?,
        }
        if *why == Why::Full {
            writeln!(
                to,
                "{file}: the recording ended with the size that --max-size gives it; --rotate \
                 keeps the latest instead"
            )?;
        }
        match failure {
            Some(error) if *dropped > 0 => writeln!(
                to,
                "{file}: {dropped} events are not in it, as they could not be written: {error}"
            )?,
            None if *dropped > 0 => writeln!(to, "{file}: {dropped} events are not in it")?,
            _ => {}
        }
        if !is_finished {
            writeln!(
                to,
                "{file}: its end could not be written; it can be read up to the last that was"
            )?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    fn finish(&mut self, ledger: &Ledger) -> io::Result<()> {
        write!(self.to, "{ledger}")?;
        self.to.flush()
    }

    /// The recorder's own count.
    fn counters(&self) -> SinkCounters {
        SinkCounters {
            sink: "recording",
            delivered: 0,
            dropped: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(outcome: &Outcome) -> String {
        let mut out = Vec::new();
        let mut sink = Recorded::new(&mut out, Path::new("a\u{7}rec"));
        sink.recorded(outcome).unwrap();
        drop(sink);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_missing_is_said() {
        let whole = Outcome {
            delivered: 12,
            dropped: 0,
            bytes: 4096,
            files: 1,
            why: Why::Finished,
            failure: None,
            is_finished: true,
        };
        assert_eq!(lines(&whole), "a\\x07rec: 12 events in 4KiB\n");
        let lacking = lines(&Outcome {
            dropped: 3,
            files: 2,
            why: Why::Full,
            failure: Some(io::Error::from_raw_os_error(libc::ENOSPC)),
            is_finished: false,
            ..whole
        });
        let lines: Vec<_> = lacking.lines().collect();
        assert!(lines[0].ends_with("12 events in 4KiB, in 2 files"));
        assert!(lines[1].contains("--max-size"));
        assert!(lines[2].contains("3 events are not in it") && lines[2].contains("No space left"));
        assert!(lines[3].contains("its end could not be written"));
    }
}

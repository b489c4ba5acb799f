//! A recording being made.

use std::io;

use super::{Desk, Watch};
use crate::{
    error::{Error, Result},
    event::Event,
    explain::Limits,
    ledger::SinkCounters,
    recording::{Look, Outcome, Recorder},
    source::Source,
};

/// A recording, while it is made and after.
pub(super) struct Tape {
    /// `None` once it is over.
    recorder: Option<Box<Recorder>>,
    outcome: Option<Outcome>,
}

impl Tape {
    pub(super) const fn new(recorder: Box<Recorder>) -> Self {
        Self {
            recorder: Some(recorder),
            outcome: None,
        }
    }

    /// Takes a record as the source lends it.
    pub(super) fn hold(&mut self, record: &[u8]) {
        if let Some(recorder) = &mut self.recorder {
            recorder.hold(record);
        }
    }

    /// Keeps it, where it is no event.
    pub(super) fn keep(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.keep();
        }
    }

    /// Keeps it, where it is this event.
    pub(super) fn keep_event(
        &mut self,
        event: &Event,
        limits: Option<Limits>,
        source: &mut impl Source,
    ) {
        if let Some(recorder) = &mut self.recorder {
            recorder.keep_event(event, limits, source);
        }
    }

    /// Whether there may be nothing more.
    pub(super) fn is_full(&self) -> bool {
        self.recorder
            .as_ref()
            .is_some_and(|recorder| recorder.is_full())
    }

    /// What became of the events; all of them are under way before the end.
    pub(super) fn counters(&self, received: u64) -> SinkCounters {
        let (delivered, dropped) = match &self.outcome {
            Some(outcome) => (outcome.delivered, outcome.dropped),
            None => (received, 0),
        };
        SinkCounters {
            sink: "recording",
            delivered,
            dropped,
        }
    }
}

impl<S: Source> Watch<S> {
    /// Before the first record: what there is already.
    pub(super) fn begin(&mut self) -> Result<()> {
        if let Desk::Record(_) = self.desk {
            self.record_look()?;
        }
        Ok(())
    }

    /// Records what the kernel keeps.
    pub(super) fn record_look(&mut self) -> Result<()> {
        let look = self.take_look()?;
        let limits = self.limits(look.boot_ns);
        if let Desk::Record(tape) = &mut self.desk
            && let Some(recorder) = &mut tape.recorder
        {
            for key in recorder.look(look, limits, &mut self.source) {
                self.source.forget(key);
            }
        }
        Ok(())
    }

    /// Once the programs had stopped and the ring was read to its end.
    pub(super) fn finish_recording(&mut self) -> Result<()> {
        let Desk::Record(tape) = &mut self.desk else {
            return Ok(());
        };
        let Some(recorder) = tape.recorder.take() else {
            return Ok(());
        };
        let look = Look {
            closed: true,
            ..self.take_look()?
        };
        let limits = self.limits(look.boot_ns);
        let outcome = recorder.finish(look, limits, &mut self.source)?;
        let result = self.sink.recorded(&outcome);
        self.written(result)?;
        let nothing = outcome.delivered == 0 && outcome.dropped > 0;
        let failure = outcome.failure.as_ref().map(same);
        if let Desk::Record(tape) = &mut self.desk {
            tape.outcome = Some(outcome);
        }
        match failure {
            Some(failure) if nothing => Err(Error::io("writing the recording")(failure)),
            _ => Ok(()),
        }
    }

    fn take_look(&mut self) -> Result<Look> {
        // The sums before the list: see `Churn::update`.
        let sums = self.source.sums()?;
        let listed = self.source.processes()?;
        Ok(Look {
            boot_ns: self.source.now()?,
            closed: false,
            counters: self.source.counters()?,
            sums,
            listed,
        })
    }
}

/// The same error once more.
fn same(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => error.kind().into(),
    }
}

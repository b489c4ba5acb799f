//! The same loop where nothing tells of what happens: looks and reports by the
//! clock, until something ends it.

use std::{io, time::Duration};

use tokio::time::{Instant, Interval, sleep_until};

use super::{End, code, every, pass_on, signals::Signals, when};
use crate::{
    churn::By,
    error::{Error, Result},
    launch::{Held, Running},
    poll::{Depth, Poll, Poller},
};

/// Time between two looks where reports are far apart: soon enough to meet
/// most children of a command. [`Depth::Share`] keeps it cheap.
const LOOK: Duration = Duration::from_millis(100);

/// Writes a report.
pub type Show = Box<dyn FnMut(&Poll) -> io::Result<()>>;

/// What the loop is to do.
pub struct Job {
    /// What looks at processes.
    pub poller: Poller,
    /// Where reports go.
    pub show: Show,
    /// Time between reports; `None` for one at the end.
    pub interval: Option<Duration>,
    /// Processes in a report, or groups of them.
    pub rows: usize,
    /// What they are grouped by.
    pub by: By,
    /// When to end.
    pub duration: Option<Duration>,
    /// What to run meanwhile.
    pub command: Option<Held>,
}

/// Polls until the end and returns the exit code.
///
/// # Errors
///
/// Those of looking, of writing and of the command.
pub async fn run(job: Job) -> Result<u8> {
    let Job {
        poller,
        show,
        interval,
        rows,
        by,
        duration,
        command,
    } = job;
    let mut signals = Signals::new()?;
    let mut polling = Polling {
        poller,
        show,
        rows,
        by,
        output_closed: false,
    };
    // What was there before is told from what comes, and read whole.
    polling.poller.look(Depth::Everything)?;
    let mut command = command.map(Held::release).transpose()?;
    let deadline = duration.map(|duration| Instant::now() + duration);
    let end = polling
        .until_end(interval, deadline, command.as_mut(), &mut signals)
        .await;
    let finished = match end {
        Ok(_) => polling.finish(if interval.is_some() && command.is_none() {
            Depth::Share
        } else {
            // What is there at the end, and what is not, is a part of the answer.
            Depth::Everything
        }),
        Err(_) => Ok(()),
    };
    let code = code(&end, command.as_mut(), &mut signals).await;
    end?;
    finished?;
    code
}

struct Polling {
    poller: Poller,
    show: Show,
    rows: usize,
    by: By,
    output_closed: bool,
}

impl Polling {
    async fn until_end(
        &mut self,
        interval: Option<Duration>,
        deadline: Option<Instant>,
        mut command: Option<&mut Running>,
        signals: &mut Signals,
    ) -> Result<End> {
        let mut ticks = every(interval.unwrap_or(LOOK));
        loop {
            tokio::select! {
                biased;
                request = signals.next() => match &command {
                    // It ends, or not, as it sees fit; the watch ends with it.
                    Some(command) => pass_on(request, command),
                    None => return Ok(End::Asked),
                },
                code = when(command.as_deref_mut(), Running::ended) => return Ok(End::Command(code?)),
                () = when(deadline, sleep_until) => return Ok(End::Duration),
                _ = Interval::tick(&mut ticks) => {
                    self.poller.look(Depth::Share)?;
                    if interval.is_some() {
                        self.report()?;
                    }
                }
            }
            if self.output_closed {
                return Ok(End::Asked);
            }
        }
    }

    /// The last look and the last report.
    fn finish(&mut self, depth: Depth) -> Result<()> {
        if self.output_closed {
            return Ok(());
        }
        self.poller.look(depth)?;
        self.report()
    }

    fn report(&mut self) -> Result<()> {
        let poll = self.poller.report(self.rows, self.by)?;
        match (self.show)(&poll) {
            // Nobody reads it any more.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.output_closed = true;
                Ok(())
            }
            result => result.map_err(Error::io("writing the output")),
        }
    }
}

//! Events that are sent from time to time, beside the sums that are kept always.

use tokio::sync::watch;

use super::{Watch, changed};
use crate::{error::Result, source::Source};

/// Where a sink says whether it wants events, and learns whether they come.
pub struct Switch {
    /// Whether they are wanted.
    pub wanted: watch::Receiver<bool>,
    /// Whether the kernel sends them.
    pub are_sent: watch::Sender<bool>,
}

impl Switch {
    /// The next wish; `None` when there will be none.
    pub(super) async fn wanted(&mut self) -> Option<bool> {
        changed(&mut self.wanted).await
    }
}

impl<S: Source> Watch<S> {
    /// Has the kernel send events, or sum them only.
    pub(super) fn switch(&mut self, wanted: Option<bool>) -> Result<()> {
        let (Some(wanted), Some(switch)) = (wanted, &self.events) else {
            self.events = None;
            return Ok(());
        };
        self.source.stream(wanted)?;
        switch.are_sent.send_replace(wanted);
        Ok(())
    }
}

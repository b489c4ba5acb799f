//! What `maps --watch` tells at each look.

use super::{Desk, Watch};
use crate::{
    error::Result,
    maps::{self, read::Reading},
    source::Source,
};

impl<S: Source> Watch<S> {
    /// Tells what is mapped, and what became of it.
    pub(super) fn explain(&mut self, closed: bool) -> Result<()> {
        let &Desk::Maps { pid, .. } = &self.desk else {
            return Ok(());
        };
        let reading = match Reading::take(&self.proc, pid, maps::read::Source::Maps) {
            // It ended, which not every kernel lets be seen otherwise.
            Err(_) if self.proc.maps(pid)?.is_none_or(|text| text.is_empty()) => {
                if let Desk::Maps { history, .. } = &mut self.desk {
                    history.end();
                }
                return Ok(());
            }
            reading => reading?,
        };
        // After the reading, so that nothing is in it that is not told of.
        self.drain()?;
        let lost_events = self.ledger(closed)?.lost();
        let Desk::Maps {
            since_boot_ns,
            history,
            ..
        } = &mut self.desk
        else {
            return Ok(());
        };
        history.apply();
        let mut space = reading.space()?;
        maps::history::add_history(&mut space.vmas, history);
        space.watch = Some(maps::Watch {
            since_boot_ns: *since_boot_ns,
            now_boot_ns: self.source.now()?,
            lost_events,
        });
        let result = self.sink.space(&space);
        self.written(result)
    }
}

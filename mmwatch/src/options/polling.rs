//! What polling `/proc` cannot do.

use super::{Options, View};
use crate::event::Op;

/// Something that polling `/proc` cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpollable {
    /// The command or the option.
    pub what: &'static str,
    /// What that is about, of which polling tells nothing.
    pub about: &'static str,
    is_command: bool,
}

impl Unpollable {
    /// `--faults`, of whichever command.
    pub(super) const FAULTS: Self = Self::option("--faults", "page faults");

    const fn option(what: &'static str, about: &'static str) -> Self {
        Self {
            what,
            about,
            is_command: false,
        }
    }

    const fn command(what: &'static str) -> Self {
        Self {
            what,
            about: "operations",
            is_command: true,
        }
    }

    /// What to say to who asked for it.
    pub fn refusal(&self) -> String {
        let Self {
            what,
            about,
            is_command,
        } = self;
        let next = if *is_command {
            "use other --hooks, or `mmwatch top --hooks proc`".to_owned()
        } else {
            format!("leave {what} out, or use other --hooks")
        };
        format!(
            "{what} is about {about}, and with --hooks proc none are seen, only what is mapped at \
             the moment; {next}"
        )
    }
}

impl Options {
    /// What of it polling `/proc` cannot do, if anything.
    pub fn unpollable(&self) -> Option<Unpollable> {
        match self.view {
            View::Top { .. } | View::Stat { .. } => {}
            View::Trace => return Some(Unpollable::command("trace")),
            View::Record => return Some(Unpollable::command("record")),
            View::Verify { .. } => return Some(Unpollable::command("verify")),
            View::Maps { .. } | View::Past { .. } => {
                return Some(Unpollable::option("--watch", "operations"));
            }
        }
        if self.delivery.faults {
            return Some(Unpollable::FAULTS);
        }
        let all_ops = Op::ALL.iter().fold(0, |bits, &op| bits | 1 << op as u32);
        let filter = &self.filter;
        let options = [
            ("--op", filter.ops != all_ops),
            ("--min-size", filter.min_size_bytes > 0),
            ("--backing", filter.backings != 0),
            ("--suspect", filter.suspects != 0),
            ("--failed", filter.failed_only),
            ("--simulate-loss", self.delivery.simulate_loss > 0),
        ];
        let given = options.iter().find(|(_, is_given)| *is_given);
        if let Some((option, _)) = given {
            return Some(Unpollable::option(option, "operations"));
        }
        // What is polled are the processes of the pid namespace of the mounted /proc.
        let elsewhere = [
            ("--scope", "containers", self.scope.is_some()),
            ("--pidns", "pid namespaces", self.pid_namespace.is_some()),
        ];
        let given = elsewhere.iter().find(|(_, _, is_given)| *is_given);
        given.map(|(option, about, _)| Unpollable::option(option, about))
    }
}

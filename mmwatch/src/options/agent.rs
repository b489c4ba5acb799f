//! The agent's options: its configuration, checked against the system.

use super::{Options, System, Task, View, usage};
use crate::{
    agent::config::{Config, Origin},
    churn::By,
    cli::{AgentArgs, HooksArg, KernelArgs, OutputArg, WatchArgs},
    error::Result,
    kernel::load::Stream,
};

/// What the agent is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Every setting.
    pub config: Config,
    /// From where they are.
    pub origin: Origin,
    /// How to watch.
    pub options: Options,
}

pub(super) fn task(args: AgentArgs, system: &System) -> Result<Task> {
    let origin = Origin {
        file: args.config,
        flags: args.settings,
    };
    let config = origin.load()?;
    if args.check_config {
        return Ok(Task::ConfigIsFine {
            file: origin.path().to_owned(),
        });
    }
    let kernel = KernelArgs {
        hooks: config.hooks,
        buffer: config.buffer,
        simulate_loss: None,
    };
    if config.hooks == HooksArg::Proc {
        return Err(usage(
            "the agent counts what happens, which polling /proc does not see; use other hooks",
        ));
    }
    if config.group_by == By::Exe {
        return Err(usage(
            "the agent does not look up what processes run; group by comm, for their names",
        ));
    }
    let mut watch = WatchArgs::everything(Vec::new(), OutputArg::Json, kernel);
    watch.scope.scope = config.scope;
    watch.filters.cgroup = config.cgroup.clone();
    watch.filters.container = config.container.clone();
    // All of them: who has series of its own is for the agent to choose.
    let view = View::Top {
        interval: config.interval,
        rows: usize::MAX,
        by: By::Process,
    };
    let mut options = Options::new(view, watch, false, system)?;
    // Nobody pays for events while nobody wants them.
    options.delivery.stream = Stream::Switched;
    Ok(Task::Agent(Box::new(Agent {
        options,
        config,
        origin,
    })))
}

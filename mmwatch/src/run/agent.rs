//! `mmwatch agent`.

use std::time::Duration;

use super::{attach, give_back, print, runtime};
use crate::{
    agent::{
        config::Listen,
        confine::{Needs, confine},
        lifecycle::{self, Prepared},
    },
    churn::By,
    clock::WallClock,
    error::Result,
    identity::{Here, Hierarchy, Runtimes},
    kernel::{facts::Facts, load::Attached, plan::Hooks},
    options::{Agent, System},
    pipeline::{self, Job, Work},
    source::Source as _,
};

/// Serves until it is asked to end.
pub fn serve(agent: Agent, system: &System) -> Result<u8> {
    let Agent {
        config,
        origin,
        options,
    } = agent;
    let interval = config.interval;
    let confined = config.confine.then_some(Needs {
        others_maps: config.tells_addresses(),
        own_socket: matches!(config.listen, Listen::Unix(_)),
    });
    // First, as an address that cannot be had is no reason to load programs.
    let prepared = Prepared::new(config, origin)?;
    let mut facts = Facts::gather(system.proc.sysfs());
    let hooks = options.hooks.unwrap_or(Hooks::Auto);
    let (mut source, here) = attach(&options, hooks, &mut facts, &system.proc, None)?;
    give_back();
    log::info!("hooked by {}", source.plan().backend.name());
    // Before the event loop, which has threads.
    if let Some(needs) = confined {
        let left = confine(needs, || source.counters().is_ok())?;
        log::info!("confined, with {left}");
    }
    let watched = Watched {
        source,
        here,
        hierarchy: facts.hierarchy,
        interval,
    };
    let runtime = runtime()?;
    let result = runtime.block_on(watch(prepared, watched, system));
    // Nobody waits any more for an address space that is still being read.
    runtime.shutdown_background();
    result
}

/// What is attached, and what was found out about where that is.
struct Watched {
    source: Attached,
    here: Here,
    hierarchy: Option<Hierarchy>,
    interval: Duration,
}

async fn watch(prepared: Prepared, watched: Watched, system: &System) -> Result<u8> {
    let Watched {
        source,
        here,
        hierarchy,
        interval,
    } = watched;
    let agent = lifecycle::Agent::start(prepared, system)?;
    let job = Job {
        sink: agent.sink(source.plan().backend.name(), WallClock::sample()?),
        work: Work::Sums {
            interval: Some(interval),
            rows: usize::MAX,
            by: By::Process,
            faults: None,
        },
        pace: Some(agent.pace()),
        events: Some(agent.events()),
        duration: None,
        command: None,
        proc: system.proc.clone(),
        hierarchy,
        runtimes: Runtimes::default(),
        here,
        filter: None,
    };
    let result = pipeline::run(source, job).await;
    agent.end().await;
    result
}

/// `--check-config`, of a configuration that was read.
pub fn is_fine(file: &std::path::Path) -> Result<u8> {
    if file.exists() {
        print(&format!("{} is fine", file.display()))?;
    } else {
        print(&format!(
            "there is no {}; the defaults and the options are fine",
            file.display()
        ))?;
    }
    Ok(0)
}

//! `mmwatch agent`.

use super::{attach, give_back, print, runtime};
use crate::{
    agent::lifecycle,
    churn::By,
    clock::WallClock,
    error::Result,
    identity::Runtimes,
    kernel::{facts::Facts, plan::Hooks},
    options::{Agent, System},
    pipeline::{self, Job, Work},
};

/// Serves until it is asked to end.
pub fn serve(agent: Agent, system: &System) -> Result<u8> {
    let runtime = runtime()?;
    let result = runtime.block_on(watch(agent, system));
    // Nobody waits any more for an address space that is still being read.
    runtime.shutdown_background();
    result
}

async fn watch(agent: Agent, system: &System) -> Result<u8> {
    let Agent {
        config,
        origin,
        options,
    } = agent;
    let interval = config.interval;
    // First, as an address that cannot be had is no reason to load programs.
    let agent = lifecycle::Agent::start(config, origin, system)?;
    let mut facts = Facts::gather(system.proc.sysfs());
    let hooks = options.hooks.unwrap_or(Hooks::Auto);
    let (source, here) = attach(&options, hooks, &mut facts, &system.proc, None)?;
    give_back();
    let hooks = source.plan().backend.name();
    log::info!("hooked by {hooks}");
    let job = Job {
        sink: agent.sink(hooks, WallClock::sample()?),
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
        hierarchy: facts.hierarchy,
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

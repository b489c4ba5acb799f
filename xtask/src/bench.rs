//! `cargo xtask bench`: what watching costs, and whom; `docs/performance.md`
//! says what is measured and why like this.

mod agent;
mod bars;
mod guest;
pub mod instructions;
mod modes;
mod observer;
mod paired;
mod report;
mod scratch;
mod stats;
mod watched;

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use self::{paired::Table, report::Report, scratch::Scratch};
use crate::{
    build,
    setup::{self, Need},
    vm,
    workspace::{self, Workspace},
};

/// What is asked of the benchmark.
#[derive(clap::Args)]
pub struct Options {
    /// Only see that all of it runs: a minute, figures that mean nothing, no file changed
    #[arg(long)]
    quick: bool,
    /// Compare with what is installed, and install nothing to compare with
    #[arg(long)]
    no_rivals: bool,
    /// Only this part, into no file but target/bench (may be repeated)
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// How mmwatch hooks this machine's kernel
    #[arg(long, value_name = "B", default_value = "auto", value_parser = ["auto", "fentry", "kprobe", "tracepoint"])]
    hooks: String,
    /// Count in VMs with every kernel of the matrix, not 6.18 and 7.2 alone
    #[arg(long)]
    all_kernels: bool,
    /// Only count user space's instructions, and fail if they are more than the baseline's
    #[arg(long, conflicts_with_all = ["quick", "only", "all_kernels"])]
    instructions: bool,
    /// Make what is counted the new baseline
    #[arg(long, requires = "instructions", conflicts_with_all = ["quick", "only", "all_kernels"])]
    record: bool,
}

impl Options {
    /// Those of `--quick`; with or without what is only compared with.
    pub fn quick(rivals: bool) -> Self {
        Self {
            quick: true,
            no_rivals: !rivals,
            only: Vec::new(),
            hooks: "auto".to_owned(),
            all_kernels: false,
            instructions: false,
            record: false,
        }
    }
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Loops of system calls, under mmwatch and its rivals
    Loops,
    /// Whole programs, under mmwatch
    Programs,
    /// The agent: its speed, memory, idle time, start, losses
    Agent,
    /// Instructions in VMs
    Guests,
    /// Instructions of user space
    Instructions,
}

/// What is run, how long, and how often.
#[derive(Debug)]
struct Setting {
    /// mmwatch.
    agent: PathBuf,
    /// The benchmark of its parts.
    agent_bench: PathBuf,
    /// What is watched.
    workload: PathBuf,
    /// `--hooks` of mmwatch.
    hooks: String,
    /// How often everything is measured.
    repetitions: u32,
    /// Time of one loop.
    loop_ms: u64,
    /// Runs of a program per repetition.
    program_runs: u32,
    /// Time for each case of the agent's benchmark.
    agent_ms: u64,
    /// Time that the agent idles.
    idle: Duration,
    /// Time of a storm.
    storm_ms: u64,
    /// Kernels of the VMs.
    kernels: Vec<String>,
    /// Backends in the VMs.
    guest_hooks: &'static [&'static str],
}

impl Setting {
    fn new(built: build::Benches, options: &Options) -> Self {
        let setting = Self {
            agent: built.mmwatch,
            agent_bench: built.agent,
            workload: built.workload,
            hooks: options.hooks.clone(),
            repetitions: 9,
            loop_ms: 80,
            program_runs: 12,
            agent_ms: 1500,
            idle: Duration::from_secs(10),
            storm_ms: 2000,
            kernels: if options.all_kernels {
                vm::all_series()
            } else {
                guest::KERNELS.map(str::to_owned).to_vec()
            },
            guest_hooks: &guest::HOOKS,
        };
        if !options.quick {
            return setting;
        }
        Self {
            repetitions: 1,
            loop_ms: 5,
            program_runs: 1,
            agent_ms: 10,
            idle: Duration::from_millis(500),
            storm_ms: 100,
            kernels: guest::KERNELS
                .last()
                .map(|&k| k.to_owned())
                .into_iter()
                .collect(),
            guest_hooks: &guest::HOOKS[..1],
            ..setting
        }
    }
}

/// Everything that was measured; what was not asked for is absent.
#[derive(Default)]
struct Results {
    /// The loops under every mode.
    loops: Option<Table>,
    /// Programs under a few.
    programs: Option<Table>,
    /// The agent.
    agent: Option<agent::Figures>,
    /// Instructions in VMs.
    guests: Option<Vec<guest::Guest>>,
    /// Instructions of user space for an event.
    instructions: Option<instructions::Counts>,
    /// How rivals could be had.
    notes: Vec<String>,
}

/// Measures, prints and writes it down.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if options.instructions {
        return instructions::run(workspace, options.record);
    }
    ensure!(
        workspace::is_root()?,
        "benchmarks load kernel programs, as most of what they compare with does: run this as root"
    );
    setup::ensure_for(&[Need::Instructions])?;
    if !options.no_rivals {
        setup::ensure_for(&[Need::Bench])?;
    }
    let setting = Setting::new(build::benches(workspace)?, options);
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let start = Instant::now();

    let scratch = Scratch::new()?;
    let modes = modes::all(&setting, scratch.path())?;
    let mut results = Results {
        notes: modes.notes.clone(),
        ..Results::default()
    };
    if wanted(Part::Loops) {
        results.loops = Some(watched::loops(&setting, &modes.rows)?);
    }
    if wanted(Part::Programs) {
        results.programs = Some(watched::programs(&setting, &modes.rows, scratch.path())?);
    }
    if wanted(Part::Agent) {
        results.agent = Some(agent::run(&setting, scratch.path())?);
    }
    if wanted(Part::Guests) {
        results.guests = Some(guest::run(workspace, &setting)?);
    }
    // Once is enough, and `cargo xtask test` counts them anyway.
    if wanted(Part::Instructions) && !options.quick {
        results.instructions = Some(instructions::count(&setting.agent_bench)?);
    }
    drop(scratch);

    let report = Report::new(&setting, &results, start.elapsed());
    print!("{}", report.markdown());
    write(workspace, options, &report)?;
    let failures = results.failures();
    for failure in &failures {
        eprintln!("bench: {failure}");
    }
    Ok(if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Results {
    /// Whatever mmwatch itself could not do. A rival that cannot run is no failure,
    /// and nor is a bar that is not met.
    fn failures(&self) -> Vec<String> {
        let tables = self.loops.iter().chain(&self.programs);
        let modes = tables
            .flat_map(|table| &table.rows)
            .filter(|row| modes::OWN.contains(&row.id))
            .filter_map(|row| Some(format!("{}: {}", row.label, row.absent.as_ref()?)));
        let guests = self.guests.iter().flatten();
        modes
            .chain(guests.filter_map(guest::Guest::failure))
            .collect()
    }
}

/// A whole run goes into the documentation; any other only beside it.
fn write(workspace: &Workspace, options: &Options, report: &Report<'_>) -> Result<()> {
    let dir = workspace.target().join("bench");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let is_whole = !options.quick && options.only.is_empty();
    let json = dir.join(if is_whole { "bench.json" } else { "part.json" });
    let text = serde_json::to_string_pretty(&report.json()).context("the figures as JSON")?;
    fs::write(&json, text + "\n").with_context(|| format!("cannot write {}", json.display()))?;
    eprintln!("bench: all values are in {}", json.display());
    if is_whole {
        let docs = workspace.root().join("docs/performance.md");
        let page = fs::read_to_string(&docs).with_context(|| docs.display().to_string())?;
        fs::write(&docs, report::between_marks(&page, &report.markdown())?)
            .with_context(|| format!("cannot write {}", docs.display()))?;
        eprintln!("bench: the tables are in {}", docs.display());
    }
    Ok(())
}

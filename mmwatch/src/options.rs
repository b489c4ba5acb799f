//! What the agent does: the command line, checked against itself and the system.

mod agent;
mod filter;
mod polling;
mod query;
mod recording;
mod spaces;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use clap_complete::Shell;

pub use self::{
    agent::Agent,
    polling::Unpollable,
    query::of_query,
    recording::{Recorded, Target},
    spaces::{Maps, SharedForm, Sharing, Shown, check_space},
};
use self::{
    recording::{past, record, report},
    spaces::{maps, sharing, watch_maps},
};
use crate::{
    churn::By,
    cli::{
        Cli, CliCommand, FilterArgs, HooksArg, KernelArgs, MapsArgs, OutputArg, ScopeArg,
        ScopeArgs, TopArgs, VerifyArgs, WatchArgs,
    },
    error::{Error, Result},
    flags::Question,
    identity::{Hierarchy, Runtimes},
    kernel::{
        load::{Delivery, KernelFilter, Stream},
        plan::{Backend, Hooks},
    },
    launch,
    process::{PASSWD, PROCFS, Proc, SYSFS, page_bytes},
    text::Bytes,
};

/// Largest ring buffer: beyond it, it is memory that is missing, not a larger buffer.
const MAX_BUFFER_BYTES: u64 = 1 << 30;

/// Shortest interval: reports must not become the load.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Attach and watch.
    Watch(Options),
    /// Attach and record.
    Record(Options, Target),
    /// Look at a recording.
    Replay(Recorded),
    /// Explain address spaces.
    Maps(Maps),
    /// Tell who shares memory with whom.
    Shared(Sharing),
    /// Tell what the kernel sums to whoever asks.
    Agent(Box<Agent>),
    /// Say that the agent's configuration is fine.
    ConfigIsFine {
        /// The file that was read, if it is there.
        file: PathBuf,
    },
    /// Say what could be attached.
    Check {
        /// Form of the output.
        form: Form,
        /// Hooks to plan for; `None` for none.
        hooks: Option<Hooks>,
    },
    /// Say what flags mean.
    Flags {
        /// Form of the output.
        form: Form,
        /// Which flags.
        question: Question,
    },
    /// Print what a shell completes with.
    Completions(Shell),
    /// Write the man pages.
    Manual {
        /// Into this directory.
        dir: PathBuf,
    },
}

/// How to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What to show.
    pub view: View,
    /// In which form.
    pub form: Form,
    /// What the kernel lets through. With `command`, its process is still to be added.
    pub filter: KernelFilter,
    /// Whose doings are seen, if that was typed.
    pub scope: Option<Scope>,
    /// The pid namespace to which they are to belong.
    pub pid_namespace: Option<NamespaceOf>,
    /// How to hook the kernel; `None`: `/proc` is polled.
    pub hooks: Option<Hooks>,
    /// What becomes of records.
    pub delivery: Delivery,
    /// When to end.
    pub duration: Option<Duration>,
    /// What to run.
    pub command: Option<Vec<OsString>>,
}

/// What to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Each event.
    Trace,
    /// Nothing: what happens is recorded.
    Record,
    /// Sums per interval.
    Top {
        /// Length of an interval.
        interval: Duration,
        /// Processes shown, or groups of them.
        rows: usize,
        /// What they are grouped by.
        by: By,
    },
    /// Sums of all.
    Stat {
        /// Processes shown, or groups of them.
        rows: usize,
        /// What they are grouped by.
        by: By,
    },
    /// What mmwatch believes against what the kernel says.
    Verify {
        /// Time between two rounds.
        interval: Duration,
    },
    /// What is mapped, and what became of it.
    Maps {
        /// Of which process.
        pid: u32,
        /// Time between two looks.
        interval: Duration,
    },
    /// What was mapped, and what had become of it; of a recording.
    Past {
        /// Of which process.
        pid: u32,
    },
}

impl View {
    /// Whether it shows what single events tell; sums are kept in the kernel.
    const fn needs_events(self) -> bool {
        match self {
            Self::Trace
            | Self::Record
            | Self::Verify { .. }
            | Self::Maps { .. }
            | Self::Past { .. } => true,
            Self::Top { .. } | Self::Stat { .. } => false,
        }
    }
}

/// Whose doings are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of the pod or container that mmwatch runs in.
    Own,
    /// Those of all processes of the host.
    Host,
}

/// Whose pid namespace is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceOf {
    /// mmwatch's.
    Own,
    /// This process's.
    Process(u32),
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Where the system keeps what options refer to; elsewhere in tests only.
#[derive(Clone, Debug)]
pub struct System {
    /// procfs and sysfs.
    pub proc: Proc,
    /// The user database.
    pub passwd: PathBuf,
    /// Finds the hierarchy of cgroups that tells processes apart; called where one is named.
    pub hierarchy: fn(&Path) -> Option<Hierarchy>,
    /// What container runtimes keep.
    pub runtimes: Runtimes,
}

impl System {
    /// With procfs and sysfs at these places.
    pub fn new(procfs: PathBuf, sysfs: PathBuf) -> Self {
        Self {
            proc: Proc::at(procfs).with_sysfs(sysfs),
            passwd: PASSWD.into(),
            hierarchy: Hierarchy::find,
            runtimes: Runtimes::default(),
        }
    }
}

impl Default for System {
    fn default() -> Self {
        Self::new(PROCFS.into(), SYSFS.into())
    }
}

impl Task {
    /// Checks what was typed.
    pub fn new(cli: Cli, system: &System) -> Result<Self> {
        let (view, watch, faults) = match cli.command {
            CliCommand::Check(args) => {
                return Ok(Self::Check {
                    form: args.output.into(),
                    hooks: hooks(args.hooks),
                });
            }
            CliCommand::Flags(args) => {
                return Ok(Self::Flags {
                    form: args.output.into(),
                    question: Question::new(args.what.as_deref(), args.value.as_deref())
                        .map_err(usage)?,
                });
            }
            CliCommand::Completions(args) => return Ok(Self::Completions(args.shell.into())),
            CliCommand::Man(args) => return Ok(Self::Manual { dir: args.dir }),
            CliCommand::Maps(MapsArgs {
                from: Some(path),
                pid,
                output,
                ..
            }) => return past(path, &pid, output).map(Self::Replay),
            CliCommand::Maps(args) => {
                let maps = maps(&args, system)?;
                match (args.watch, maps.pids.as_slice()) {
                    (Some(interval), &[pid]) => {
                        let (view, watch) = watch_maps(args, pid, interval)?;
                        (view, watch, false)
                    }
                    _ => return Ok(Self::Maps(maps)),
                }
            }
            CliCommand::Agent(args) => return agent::task(*args, system),
            CliCommand::Shared(args) => return sharing(args, system).map(Self::Shared),
            CliCommand::Top(args) => {
                let faults = args.faults;
                let (view, watch) = top(args)?;
                (view, watch, faults)
            }
            CliCommand::Trace(args) => (View::Trace, args.watch, false),
            CliCommand::Stat(args) => {
                let (rows, by) = (args.rows, args.by);
                (View::Stat { rows, by }, args.watch, args.faults)
            }
            CliCommand::Verify(args) => {
                let (view, watch) = verify(args)?;
                (view, watch, false)
            }
            CliCommand::Record(args) => return record(args, system),
            CliCommand::Report(args) => return report(args, system).map(Self::Replay),
        };
        if let Some(path) = &watch.from {
            return Recorded::new(path, view, &watch, faults, system).map(Self::Replay);
        }
        Options::new(view, watch, faults, system).map(Self::Watch)
    }
}

fn top(args: TopArgs) -> Result<(View, WatchArgs)> {
    let TopArgs {
        watch,
        interval,
        rows,
        by,
        faults: _,
        // Until there is another way to draw.
        plain: _,
    } = args;
    if interval < MIN_INTERVAL {
        return Err(usage("--interval must be at least 10ms"));
    }
    Ok((View::Top { interval, rows, by }, watch))
}

/// A check that nobody ends is over after this time.
const VERIFY: Duration = Duration::from_secs(5);

fn verify(args: VerifyArgs) -> Result<(View, WatchArgs)> {
    let VerifyArgs {
        pid,
        interval,
        duration,
        output,
        kernel,
        cmd,
    } = args;
    if interval < MIN_INTERVAL {
        return Err(usage("--interval must be at least 10ms"));
    }
    let watch = WatchArgs {
        duration: duration.or_else(|| cmd.is_empty().then_some(VERIFY)),
        cmd,
        ..WatchArgs::everything(pid, output, kernel)
    };
    Ok((View::Verify { interval }, watch))
}

impl WatchArgs {
    /// All that a model is made of, without an end.
    fn everything(pid: Vec<u32>, output: OutputArg, kernel: KernelArgs) -> Self {
        Self {
            filters: FilterArgs {
                pid,
                ..FilterArgs::default()
            },
            scope: ScopeArgs::default(),
            from: None,
            duration: None,
            output,
            kernel,
            cmd: Vec::new(),
        }
    }
}

impl Options {
    fn new(view: View, args: WatchArgs, faults: bool, system: &System) -> Result<Self> {
        if faults {
            filter::refuse_with_faults(&args.filters)?;
        }
        if !args.cmd.is_empty() && !args.filters.pid.is_empty() {
            return Err(usage(
                "--pid and a command exclude each other, because the command is the process to \
                 watch; leave one of them out",
            ));
        }
        let filter = filter::of_kernel(
            &args.filters,
            args.scope.follow || !args.cmd.is_empty(),
            system,
        )?;
        let delivery = Delivery {
            buffer_bytes: buffer_bytes(args.kernel.buffer, page_bytes())?,
            stream: if view.needs_events() {
                Stream::Always
            } else {
                Stream::Never
            },
            simulate_loss: simulate_loss(args.kernel.simulate_loss)?,
            faults,
        };
        if let Some(name) = args.cmd.first() {
            launch::check(name)?;
        }
        let options = Self {
            view,
            form: args.output.into(),
            filter,
            scope: args.scope.scope.map(Into::into),
            pid_namespace: args
                .scope
                .pidns
                .as_deref()
                .map(|pidns| filter::pid_namespace(pidns, &system.proc))
                .transpose()?,
            hooks: hooks(args.kernel.hooks),
            delivery,
            duration: args.duration,
            command: (!args.cmd.is_empty()).then_some(args.cmd),
        };
        match options.unpollable() {
            Some(unpollable) if options.hooks.is_none() => Err(usage(unpollable.refusal())),
            _ => Ok(options),
        }
    }
}

impl From<OutputArg> for Form {
    fn from(output: OutputArg) -> Self {
        match output {
            OutputArg::Text => Self::Text,
            OutputArg::Json => Self::Json,
        }
    }
}

impl From<ScopeArg> for Scope {
    fn from(scope: ScopeArg) -> Self {
        match scope {
            ScopeArg::Own => Self::Own,
            ScopeArg::Host => Self::Host,
        }
    }
}

/// `None` where nothing is to be hooked.
const fn hooks(hooks: HooksArg) -> Option<Hooks> {
    match hooks {
        HooksArg::Auto => Some(Hooks::Auto),
        HooksArg::Fentry => Some(Hooks::Only(Backend::Fentry)),
        HooksArg::Kprobe => Some(Hooks::Only(Backend::Kprobe)),
        HooksArg::Tracepoint => Some(Hooks::Only(Backend::Tracepoint)),
        HooksArg::Proc => None,
    }
}

fn usage(message: impl Into<String>) -> Error {
    Error::Usage(message.into())
}

/// A share as one of 2^32.
fn simulate_loss(ratio: Option<f64>) -> Result<u32> {
    let Some(ratio) = ratio else {
        return Ok(0);
    };
    if !(0.0..=1.0).contains(&ratio) {
        return Err(usage(
            "--simulate-loss must be from 0 (nothing) to 1 (everything)",
        ));
    }
    // Saturates at u32::MAX, which is as good as everything.
    Ok((ratio * 2_f64.powi(32)) as u32)
}

/// The ring buffer wants a power of two of whole pages.
fn buffer_bytes(wanted: u64, page_bytes: u64) -> Result<u32> {
    wanted
        .max(page_bytes)
        .checked_next_power_of_two()
        .filter(|&bytes| wanted > 0 && bytes <= MAX_BUFFER_BYTES)
        .and_then(|bytes| u32::try_from(bytes).ok())
        .ok_or_else(|| {
            usage(format!(
                "--buffer must be from {} to {}",
                Bytes(page_bytes),
                Bytes(MAX_BUFFER_BYTES)
            ))
        })
}

#[cfg(test)]
mod tests;

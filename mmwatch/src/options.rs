//! What the agent does: the command line, checked against itself and the system.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    time::Duration,
};

use mmwatch_common::event::COMM_LEN;

use crate::{
    cli::{Cli, CliCommand, HooksArg, MapsArgs, OutputArg, TopArgs, VerifyArgs, WatchArgs},
    error::{Error, Result},
    event::{Backing, Op, Suspect},
    flags::Question,
    kernel::{
        load::{Delivery, KernelFilter},
        plan::{Backend, Hooks},
    },
    launch,
    maps::read::Source,
    process::{PidKind, Proc, page_bytes, user_id},
    text::{Bytes, Escaped},
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
    /// Explain address spaces.
    Maps(Maps),
    /// Say what could be attached.
    Check {
        /// Form of the output.
        form: Form,
        /// Hooks to plan for.
        hooks: Hooks,
    },
    /// Say what flags mean.
    Flags {
        /// Form of the output.
        form: Form,
        /// Which flags.
        question: Question,
    },
}

/// How to show address spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maps {
    /// Whose.
    pub pids: Vec<u32>,
    /// From which of the kernel's files.
    pub source: Source,
    /// In which form.
    pub form: Form,
    /// What of them.
    pub shown: Shown,
}

/// What to show of an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Every VMA.
    Vmas,
    /// All of it to scale; as text only.
    Picture,
    /// What changes within this time.
    Changes(Duration),
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
    /// How to hook the kernel.
    pub hooks: Hooks,
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
    /// Sums per interval.
    Top {
        /// Length of an interval.
        interval: Duration,
        /// Processes shown.
        rows: usize,
    },
    /// Sums of all.
    Stat {
        /// Processes shown.
        rows: usize,
    },
    /// What mmwatch believes against what the kernel says.
    Verify {
        /// Time between two rounds.
        interval: Duration,
    },
}

impl View {
    /// Whether it shows what single events tell; sums are kept in the kernel.
    const fn needs_events(self) -> bool {
        match self {
            Self::Trace | Self::Verify { .. } => true,
            Self::Top { .. } | Self::Stat { .. } => false,
        }
    }
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
    /// procfs.
    pub proc: Proc,
    /// The user database.
    pub passwd: PathBuf,
}

impl Default for System {
    fn default() -> Self {
        Self {
            proc: Proc::default(),
            passwd: "/etc/passwd".into(),
        }
    }
}

impl Task {
    /// Checks what was typed.
    pub fn new(cli: Cli, system: &System) -> Result<Self> {
        let (view, watch) = match cli.command {
            CliCommand::Check(args) => {
                return Ok(Self::Check {
                    form: args.output.into(),
                    hooks: args.hooks.into(),
                });
            }
            CliCommand::Flags(args) => {
                return Ok(Self::Flags {
                    form: args.output.into(),
                    question: Question::new(args.what.as_deref(), args.value.as_deref())
                        .map_err(usage)?,
                });
            }
            CliCommand::Maps(args) => return maps(args, system).map(Self::Maps),
            CliCommand::Top(args) => top(args)?,
            CliCommand::Trace(args) => (View::Trace, args.watch),
            CliCommand::Stat(args) => (View::Stat { rows: args.rows }, args.watch),
            CliCommand::Verify(args) => verify(args)?,
        };
        Options::new(view, watch, system).map(Self::Watch)
    }
}

fn maps(args: MapsArgs, system: &System) -> Result<Maps> {
    let MapsArgs {
        pid: pids,
        smaps,
        diff,
        picture,
        output,
    } = args;
    let form = output.into();
    if diff.is_some() && pids.len() > 1 {
        return Err(usage(
            "--diff looks at one process at a time; leave the others out",
        ));
    }
    if picture && form == Form::Json {
        return Err(usage(
            "--picture is for people and -o json for programs; leave one of them out",
        ));
    }
    for &pid in &pids {
        if let PidKind::ThreadOf(tgid) = system.proc.pid_kind(pid)? {
            return Err(usage(format!(
                "{pid} is a thread of process {tgid}, and its mappings are the process's; use \
                 mmwatch maps {tgid}"
            )));
        }
        check_pid(pid, &system.proc)?;
    }
    Ok(Maps {
        pids,
        source: if smaps { Source::Smaps } else { Source::Maps },
        form,
        shown: match diff {
            Some(time) => Shown::Changes(time),
            None if picture => Shown::Picture,
            None => Shown::Vmas,
        },
    })
}

fn top(args: TopArgs) -> Result<(View, WatchArgs)> {
    let TopArgs {
        watch,
        interval,
        rows,
        // Until there is another way to draw.
        plain: _,
    } = args;
    if interval < MIN_INTERVAL {
        return Err(usage("--interval must be at least 10ms"));
    }
    Ok((View::Top { interval, rows }, watch))
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
        pid,
        // All that a model is made of.
        comm: None,
        uid: None,
        op: Vec::new(),
        min_size: None,
        backing: Vec::new(),
        suspect: Vec::new(),
        failed: false,
        duration: duration.or_else(|| cmd.is_empty().then_some(VERIFY)),
        output,
        kernel,
        cmd,
    };
    Ok((View::Verify { interval }, watch))
}

impl Options {
    fn new(view: View, args: WatchArgs, system: &System) -> Result<Self> {
        let ops = if args.op.is_empty() {
            Op::ALL
        } else {
            &args.op
        };
        if args.failed && !ops.iter().any(|&op| can_fail(op)) {
            return Err(usage(format!(
                "--failed with --op {} shows nothing, because no call of that sort fails; \
                 add one of {} to --op or leave --failed out",
                names(ops),
                names_where(can_fail)
            )));
        }
        let min_size_bytes = args.min_size.unwrap_or(0);
        if min_size_bytes > 0 && !ops.iter().any(|&op| has_size(op)) {
            return Err(usage(format!(
                "--min-size with --op {} shows nothing, because these have no size; \
                 add one of {} to --op or leave --min-size out",
                names(ops),
                names_where(has_size)
            )));
        }
        if !args.cmd.is_empty() && !args.pid.is_empty() {
            return Err(usage(
                "--pid and a command exclude each other, because the command is the process to \
                 watch; leave one of them out",
            ));
        }
        for &pid in &args.pid {
            check_pid(pid, &system.proc)?;
        }
        let filter = KernelFilter {
            pids: args.pid,
            // Children join the command that they belong to, not a process that
            // was picked by its id.
            follow: !args.cmd.is_empty(),
            comm: args.comm.as_deref().map(comm).transpose()?,
            uid: args.uid.map(|user| uid(&user, system)).transpose()?,
            ops: ops.iter().fold(0, |bits, &op| bits | 1 << op as u32),
            min_size_bytes,
            failed_only: args.failed,
            backings: backings(&args.backing, ops)?,
            suspects: suspects(&args.suspect, ops, args.failed)?,
        };
        let delivery = Delivery {
            buffer_bytes: buffer_bytes(args.kernel.buffer, page_bytes())?,
            stream: view.needs_events(),
            simulate_loss: simulate_loss(args.kernel.simulate_loss)?,
        };
        if let Some(name) = args.cmd.first() {
            launch::check(name)?;
        }
        Ok(Self {
            view,
            form: args.output.into(),
            filter,
            hooks: args.kernel.hooks.into(),
            delivery,
            duration: args.duration,
            command: (!args.cmd.is_empty()).then_some(args.cmd),
        })
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

impl From<HooksArg> for Hooks {
    fn from(hooks: HooksArg) -> Self {
        match hooks {
            HooksArg::Auto => Self::Auto,
            HooksArg::Fentry => Self::Only(Backend::Fentry),
            HooksArg::Kprobe => Self::Only(Backend::Kprobe),
            HooksArg::Tracepoint => Self::Only(Backend::Tracepoint),
        }
    }
}

fn usage(message: impl Into<String>) -> Error {
    Error::Usage(message.into())
}

/// Whether failures of an operation are seen: those of calls whose return is hooked.
const fn can_fail(op: Op) -> bool {
    match op {
        Op::Map | Op::Unmap | Op::Protect | Op::Remap | Op::Brk => true,
        Op::Grow | Op::Advise | Op::Fork | Op::Exec | Op::Exit => false,
    }
}

/// Whether an operation is on a number of bytes.
const fn has_size(op: Op) -> bool {
    match op {
        Op::Map
        | Op::Unmap
        | Op::Protect
        | Op::Remap
        | Op::Brk
        | Op::Grow
        | Op::Advise
        | Op::Exit => true,
        Op::Fork | Op::Exec => false,
    }
}

/// Which backings events of an operation can have.
const fn backings_of(op: Op) -> &'static [Backing] {
    match op {
        Op::Map => Backing::ALL,
        Op::Brk | Op::Grow => &[Backing::PrivateAnonymous],
        Op::Unmap | Op::Protect | Op::Remap | Op::Advise | Op::Fork | Op::Exec | Op::Exit => &[],
    }
}

/// The bits of `--backing`.
fn backings(wanted: &[Backing], ops: &[Op]) -> Result<u32> {
    let can_have = |op: Op| {
        backings_of(op)
            .iter()
            .any(|backing| wanted.contains(backing))
    };
    if !wanted.is_empty() && !ops.iter().any(|&op| can_have(op)) {
        let backings: Vec<_> = wanted.iter().map(|backing| backing.name()).collect();
        return Err(usage(format!(
            "--backing {} with --op {} shows nothing, because these are not about mappings of \
             that backing; add one of {} to --op or leave --backing out",
            backings.join(","),
            names(ops),
            names_where(can_have)
        )));
    }
    Ok(wanted
        .iter()
        .fold(0, |bits, &backing| bits | 1 << backing as u32))
}

/// Whether an operation can make a dangerous mapping.
const fn can_be_suspect(op: Op) -> bool {
    match op {
        Op::Map | Op::Protect => true,
        Op::Unmap
        | Op::Remap
        | Op::Brk
        | Op::Grow
        | Op::Advise
        | Op::Fork
        | Op::Exec
        | Op::Exit => false,
    }
}

/// The bits of `--suspect`.
fn suspects(wanted: &[Suspect], ops: &[Op], failed: bool) -> Result<u32> {
    if !wanted.is_empty() && !ops.iter().any(|&op| can_be_suspect(op)) {
        return Err(usage(format!(
            "--suspect with --op {} shows nothing, because these make no mapping executable; \
             add one of {} to --op or leave --suspect out",
            names(ops),
            names_where(can_be_suspect)
        )));
    }
    if !wanted.is_empty() && failed {
        return Err(usage(
            "--suspect with --failed shows nothing, because what failed made nothing; leave one \
             of them out",
        ));
    }
    Ok(wanted
        .iter()
        .fold(0, |bits, &suspect| bits | 1 << suspect as u32))
}

fn names(ops: &[Op]) -> String {
    let names: Vec<_> = ops.iter().map(|op| op.name()).collect();
    names.join(",")
}

fn names_where(wanted: impl Fn(Op) -> bool) -> String {
    let ops: Vec<_> = Op::ALL.iter().copied().filter(|&op| wanted(op)).collect();
    names(&ops)
}

fn check_pid(pid: u32, proc: &Proc) -> Result<()> {
    match proc.pid_kind(pid)? {
        PidKind::Process => Ok(()),
        PidKind::ThreadOf(tgid) => Err(usage(format!(
            "{pid} is a thread of process {tgid}; use --pid {tgid}, perhaps with --comm for the \
             thread's name"
        ))),
        PidKind::Missing => Err(usage(format!(
            "there is no process {pid}; `ps -e` lists those that there are"
        ))),
    }
}

fn comm(name: &OsStr) -> Result<[u8; COMM_LEN]> {
    let bytes = name.as_bytes();
    let mut comm = [0; COMM_LEN];
    // The last byte stays NUL.
    match comm[..COMM_LEN - 1].get_mut(..bytes.len()) {
        Some(_) if bytes.is_empty() => Err(usage(
            "--comm is empty, and no thread is without a name; give the name to look for",
        )),
        Some(room) => {
            room.copy_from_slice(bytes);
            Ok(comm)
        }
        None => Err(usage(format!(
            "--comm {} is longer than the 15 bytes that the kernel keeps of a name; use --comm {}",
            Escaped(bytes),
            Escaped(&bytes[..COMM_LEN - 1]),
        ))),
    }
}

fn uid(user: &str, system: &System) -> Result<u32> {
    user_id(user, &system.passwd)?.ok_or_else(|| {
        usage(format!(
            "there is no user {} in {}; correct the name or give the user's number",
            Escaped(user.as_bytes()),
            system.passwd.display()
        ))
    })
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

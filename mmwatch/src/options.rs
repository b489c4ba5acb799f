//! What the agent does: the command line, checked against itself and the system.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    time::Duration,
};

use mmwatch_common::event::COMM_LEN;

use crate::{
    churn::By,
    cli::{
        Cli, CliCommand, HooksArg, KernelArgs, MapsArgs, OutputArg, SharedArgs, SharedOutputArg,
        TopArgs, VerifyArgs, WatchArgs,
    },
    error::{Error, Result},
    event::{Backing, Op, Suspect},
    flags::Question,
    identity::{CgroupRoot, Hierarchy},
    kernel::{
        load::{Delivery, KernelFilter},
        plan::{Backend, Hooks},
    },
    launch,
    maps::read::Source,
    process::{PASSWD, PidKind, Proc, page_bytes, user_id},
    shared::read::Subject,
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
    /// Tell who shares memory with whom.
    Shared(Sharing),
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
    /// Every VMA with its page faults within this time.
    Faults(Duration),
}

/// How to show who shares memory with whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// What is asked about.
    pub subject: Subject,
    /// In which form.
    pub form: SharedForm,
}

/// Form of the output of `shared`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedForm {
    /// For people.
    Text,
    /// One object a line.
    Json,
    /// A graph for Graphviz.
    Dot,
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
}

impl View {
    /// Whether it shows what single events tell; sums are kept in the kernel.
    const fn needs_events(self) -> bool {
        match self {
            Self::Trace | Self::Verify { .. } | Self::Maps { .. } => true,
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
    /// The hierarchy of cgroups that tells processes apart.
    pub hierarchy: Option<Hierarchy>,
}

impl Default for System {
    fn default() -> Self {
        Self {
            proc: Proc::default(),
            passwd: PASSWD.into(),
            hierarchy: Hierarchy::find(),
        }
    }
}

impl Task {
    /// Checks what was typed.
    pub fn new(cli: Cli, system: &System) -> Result<Self> {
        let (view, watch, faults) = match cli.command {
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
        };
        Options::new(view, watch, faults, system).map(Self::Watch)
    }
}

fn maps(args: &MapsArgs, system: &System) -> Result<Maps> {
    let form = args.output.into();
    for (option, is_given) in [
        ("--diff", args.diff.is_some()),
        ("--faults", args.faults.is_some()),
        ("--watch", args.watch.is_some()),
    ] {
        if is_given && args.pid.len() > 1 {
            return Err(usage(format!(
                "{option} looks at one process at a time; leave the others out"
            )));
        }
    }
    if args.picture && form == Form::Json {
        return Err(usage(
            "--picture is for people and -o json for programs; leave one of them out",
        ));
    }
    for &pid in &args.pid {
        check_space(pid, "maps", system)?;
    }
    Ok(Maps {
        pids: args.pid.clone(),
        source: if args.smaps {
            Source::Smaps
        } else {
            Source::Maps
        },
        form,
        shown: match (args.diff, args.faults) {
            (Some(time), _) => Shown::Changes(time),
            (None, Some(time)) => Shown::Faults(time),
            (None, None) if args.picture => Shown::Picture,
            (None, None) => Shown::Vmas,
        },
    })
}

fn watch_maps(args: MapsArgs, pid: u32, interval: Duration) -> Result<(View, WatchArgs)> {
    if interval < MIN_INTERVAL {
        return Err(usage("--watch must be at least 10ms"));
    }
    let watch = WatchArgs {
        duration: args.duration,
        ..WatchArgs::everything(args.pid, args.output, args.kernel)
    };
    Ok((View::Maps { pid, interval }, watch))
}

/// Whether a number is that of a process, which has an address space of its own.
fn check_space(pid: u32, command: &str, system: &System) -> Result<()> {
    if let PidKind::ThreadOf(tgid) = system.proc.pid_kind(pid)? {
        return Err(usage(format!(
            "{pid} is a thread of process {tgid}, and its mappings are the process's; use \
             mmwatch {command} {tgid}"
        )));
    }
    check_pid(pid, &system.proc)
}

fn sharing(args: SharedArgs, system: &System) -> Result<Sharing> {
    let is_number = |of: &OsStr| {
        let bytes = of.as_bytes();
        !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit)
    };
    let subject = match args.of {
        None => Subject::All,
        Some(of) if is_number(&of) => {
            let number = of.to_string_lossy();
            let pid = number.parse().ok().filter(|&pid: &u32| pid > 0);
            let pid = pid.ok_or_else(|| {
                usage(format!(
                    "{number} is no number that a process can have; for a file of that name use \
                     ./{number}"
                ))
            })?;
            check_space(pid, "shared", system)?;
            Subject::Process(pid)
        }
        Some(of) => Subject::File(of.into()),
    };
    Ok(Sharing {
        subject,
        form: match args.output {
            SharedOutputArg::Text => SharedForm::Text,
            SharedOutputArg::Json => SharedForm::Json,
            SharedOutputArg::Dot => SharedForm::Dot,
        },
    })
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
    const fn everything(pid: Vec<u32>, output: OutputArg, kernel: KernelArgs) -> Self {
        Self {
            pid,
            cgroup: None,
            container: None,
            comm: None,
            uid: None,
            op: Vec::new(),
            min_size: None,
            backing: Vec::new(),
            suspect: Vec::new(),
            failed: false,
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
            refuse_with_faults(&args)?;
        }
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
            cgroup: match (&args.cgroup, &args.container) {
                (Some(path), _) => Some(cgroup(path, system)?),
                (None, Some(id)) => Some(container(id, system)?),
                (None, None) => None,
            },
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
            faults,
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

/// Filters on operations leave out a part of what was mapped, and no faults.
fn refuse_with_faults(args: &WatchArgs) -> Result<()> {
    for (option, given) in [
        ("--op", !args.op.is_empty()),
        ("--min-size", args.min_size.is_some()),
        ("--backing", !args.backing.is_empty()),
        ("--failed", args.failed),
    ] {
        if given {
            return Err(usage(format!(
                "--faults holds what was touched against all that was mapped, and {option} leaves \
                 a part of that out; leave one of the two out"
            )));
        }
    }
    Ok(())
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

/// The hierarchy in which cgroups are named.
fn hierarchy(system: &System) -> Result<&Hierarchy> {
    system.hierarchy.as_ref().ok_or_else(|| {
        Error::Kernel(
            "no hierarchy of cgroups is mounted here; mount one, such as with `mount -t cgroup2 \
             cgroup2 /sys/fs/cgroup`, or leave --cgroup and --container out"
                .to_owned(),
        )
    })
}

fn cgroup(path: &str, system: &System) -> Result<CgroupRoot> {
    let hierarchy = hierarchy(system)?;
    hierarchy.cgroup(path).ok_or_else(|| {
        usage(format!(
            "there is no cgroup {} in {mount}; `find {mount} -type d` lists those that there are",
            Escaped(path.as_bytes()),
            mount = hierarchy.mount.display()
        ))
    })
}

fn container(id: &str, system: &System) -> Result<CgroupRoot> {
    let hierarchy = hierarchy(system)?;
    let found = if id.is_empty() {
        Vec::new()
    } else {
        hierarchy.containers(id)
    };
    let shown = Escaped(id.as_bytes());
    match found.as_slice() {
        [(_, cgroup)] => Ok(*cgroup),
        [] => Err(usage(format!(
            "no container here has an id that begins with {shown}; `mmwatch top --by container` \
             shows those that do something"
        ))),
        several => {
            // The id itself may be the beginning of another's.
            if let Some((_, cgroup)) = several.iter().find(|(of, _)| of == id) {
                return Ok(*cgroup);
            }
            let ids: Vec<_> = several.iter().map(|(id, _)| id.as_str()).collect();
            Err(usage(format!(
                "the ids of several containers begin with {shown}: {}; give more of the one's",
                ids.join(", ")
            )))
        }
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

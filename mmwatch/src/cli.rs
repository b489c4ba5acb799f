//! The command line as typed. [`options`](crate::options) makes it into what
//! the agent does.

mod filter;
mod manual;
mod recording;
mod spaces;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    Args, CommandFactory as _, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser as _},
    error::ErrorKind,
};

pub use self::{
    filter::{FilterArgs, ScopeArg, ScopeArgs},
    manual::{CompletionsArgs, ManArgs, ShellArg},
    recording::{RecordArgs, ReportArgs},
    spaces::{MapsArgs, SharedArgs, SharedOutputArg},
};
use crate::{
    agent::config::Settings,
    churn::By,
    text::{parse_bytes, parse_duration},
};

/// Shows what the Linux kernel does to address spaces: every VMA made, changed and removed.
///
/// Without a command, mmwatch runs `top`, and takes its options.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: CliCommand,
    /// Say on stderr what mmwatch itself does (-vv: in detail)
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Where procfs is mounted
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/proc",
        global = true,
        hide_short_help = true
    )]
    pub procfs: PathBuf,
    /// Where sysfs is mounted, with the tree of cgroups in fs/cgroup
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/sys",
        global = true,
        hide_short_help = true
    )]
    pub sysfs: PathBuf,
}

impl Cli {
    /// Reads the arguments, the program's name first.
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let args: Vec<OsString> = args.into_iter().collect();
        // An empty variable of a script does not mean the whole machine.
        if args.last().is_some_and(|last| last == "--") {
            return Err(Self::command().error(
                ErrorKind::TooFewValues,
                "the command after `--` is missing; name one, or leave `--` out to watch all processes",
            ));
        }
        Self::try_parse_from(with_command(args))
    }
}

/// Puts `top` where no command is named: before the first option that is not
/// mmwatch's own. A first word without a dash is left to be a command, so that
/// a mistyped one is called that.
fn with_command(mut args: Vec<OsString>) -> Vec<OsString> {
    let verbose = |arg: &OsString| {
        arg == "--verbose"
            || arg.to_str().is_some_and(|arg| {
                arg.strip_prefix('-').is_some_and(|letters| {
                    !letters.is_empty() && letters.bytes().all(|b| b == b'v')
                })
            })
    };
    let own = |arg: &OsString| {
        ["-h", "--help", "-V", "--version"]
            .iter()
            .any(|own| arg == own)
    };
    let valued = |arg: &OsString| ["--procfs", "--sysfs"].iter().any(|own| arg == own);
    let with_value = |arg: &OsString| {
        let arg = arg.as_encoded_bytes();
        arg.starts_with(b"--procfs=") || arg.starts_with(b"--sysfs=")
    };
    let mut at = 1;
    while let Some(arg) = args.get(at) {
        at += match arg {
            arg if valued(arg) => 2,
            arg if verbose(arg) || with_value(arg) => 1,
            _ => break,
        };
    }
    let at = at.min(args.len());
    let named = args
        .get(at)
        .is_some_and(|arg| own(arg) || !arg.as_encoded_bytes().starts_with(b"-"));
    if !named {
        args.insert(at, "top".into());
    }
    args
}

const EXAMPLES: &str = "\
Examples:
  mmwatch                                   churn of every process, each second
  mmwatch trace -p 1234 --op map,unmap      mappings of one process as they happen
  mmwatch trace -x -o json                  failing calls, one JSON object a line
  mmwatch stat -- make                      sums over a command and its children
  mmwatch record -o make.rec -- make        all of its events, into a file
  mmwatch trace --from make.rec -x          what of them failed
  mmwatch flags map 0x22                    what the flags of a call mean
  mmwatch maps 1234                         what each mapping of a process is
  mmwatch shared /dev/shm/ring              who maps a file, and who could talk to whom
  mmwatch top --hooks proc                  what is mapped, without BPF and without root
  mmwatch agent                             metrics and an HTTP API, until SIGTERM
  mmwatch check                             what this kernel and these privileges allow

Exit codes:
  0  done (a closed pipe too)
  1  failed while running
  2  wrong use
  3  the kernel or the privileges lack something; the message says what
  With `-- CMD`: CMD's own code, 128 and the signal's number when a signal ended it,
  127 when there is no such command, 126 when it cannot be run.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Live churn per process: a table every interval
    ///
    /// Rates are per second of the interval, errors are counts. Processes are
    /// sorted by what they did in the interval; those beyond --rows are summed
    /// in the row `other`.
    #[command(after_help = "\
Examples:
  mmwatch top -i 5 -d 60          twelve tables, then end
  mmwatch top -n java --rows 5    the five busiest threads named java
  mmwatch top --by container      a row for each container
  mmwatch top --hooks proc        what is mapped, without BPF
  mmwatch top --from FILE -i 10   of a recording, a table for each ten seconds of it
  mmwatch top -o json             one JSON object per interval")]
    Top(TopArgs),
    /// Every operation as it happens
    ///
    /// Text has one line per operation, and the loss ledger on stderr at the
    /// end. JSON (-o json) has one object per line, the ledger last.
    #[command(after_help = "\
Examples:
  mmwatch trace -p 1234 -p 1235                 two processes
  mmwatch trace --op map --min-size 1M          large mappings only
  mmwatch trace --backing shared-file           files written through memory
  mmwatch trace --suspect                       mappings that can run what was written
  mmwatch trace -u www-data -x                  what fails for a user
  mmwatch trace --container web                 one container, by its name or id
  mmwatch trace --cgroup /system.slice          all services
  mmwatch trace -o json -d 5 | jq .op           five seconds, as JSON
  mmwatch trace --from FILE --op map            what was recorded
  mmwatch trace -- python3 -c 'import mmap'     a command from its first exec on")]
    Trace(TraceArgs),
    /// Sums over a time or a command's life
    ///
    /// Ends with Ctrl-C, after --duration, or with the command. With a command
    /// the text goes to stderr, so that it keeps apart from the command's
    /// output; else, and for -o json, to stdout.
    #[command(after_help = "\
Examples:
  mmwatch stat -d 5            five seconds of the whole machine
  mmwatch stat -p 1234         one process, until Ctrl-C
  mmwatch stat -- make -j2     a command and its children
  mmwatch stat --faults -- ls  how much of what ls maps it touches")]
    Stat(StatArgs),
    /// Write all that happens to a file, to be looked at later
    ///
    /// Ends with Ctrl-C, after --duration, with the command, or once the file has
    /// the size that it may have. Whatever ends it, the file can be read up to its
    /// last whole second, by `report` and by `top`, `trace` and `stat` with
    /// --from. What could not be written is counted, in the file too.
    /// docs/recording.md explains the format.
    #[command(after_help = "\
Examples:
  mmwatch record -o make.rec -- make           a command and its children
  mmwatch record -o rec -d 1h --max-size 1G    an hour, or one GiB of it
  mmwatch record -o rec --rotate 64M --keep 4  the last 256 MiB: rec, rec.1, rec.2, rec.3
  mmwatch record -o rec -p 1234 --op map       mappings of one process
  mmwatch report rec                           what was recorded, in sums")]
    Record(RecordArgs),
    /// What a recording has, in sums: `stat` of it
    ///
    /// Says first from when to when it is and what is missing in it. The same
    /// filters as when watching take effect; without any, sums are the kernel's
    /// own, exact whatever was lost.
    #[command(after_help = "\
Examples:
  mmwatch report rec                    sums, and the processes that did most
  mmwatch report rec --by container     by container
  mmwatch report rec -p 1234 --op map   of one process's mappings alone
  mmwatch report rec -o json            as JSON lines")]
    Report(ReportArgs),
    /// Hold what mmwatch says against what the kernel says
    ///
    /// Each round compares, for every process that stands still meanwhile, the
    /// model made of events with /proc/PID/maps, the number of VMAs with both,
    /// and the sums of events with those kept in the kernel. Prints every
    /// difference, and exits with 1 if there was any. Reading the maps of a
    /// process takes its lock for reading: this is a check, not a way to watch.
    #[command(after_help = "\
Examples:
  mmwatch verify                    all processes, for five seconds
  mmwatch verify -p 1234 -d 60      one process, for a minute
  mmwatch verify -- make -j2        a command and its children, until it ends")]
    Verify(VerifyArgs),
    /// The address space of a process explained: what each mapping is
    ///
    /// The columns of /proc/PID/maps, then the segment that each VMA is, its
    /// backing and its size, and the sums of both. `?` marks what is guessed.
    /// Needs no BPF, but for --watch and --faults. docs/maps.md explains each field.
    #[command(after_help = "\
Examples:
  mmwatch maps 1234               every VMA of a process, and sums
  mmwatch maps --picture $$       the shell's address space on one screen
  mmwatch maps --smaps 1234       what of it is in memory, too
  mmwatch maps --diff 10 1234     what changes in ten seconds
  mmwatch maps --watch 5 1234     who maps it, every five seconds
  mmwatch maps --faults 10 1234   which mappings it touches in ten seconds
  mmwatch maps --from FILE 1234   what it mapped while it was recorded
  mmwatch maps -o json 1234 | jq '.vmas[] | select(.segment == \"jit\")'")]
    Maps(MapsArgs),
    /// Who shares memory with whom: files, memfds, System V and POSIX segments, and more
    ///
    /// Without an argument, all objects that two processes or more have shared
    /// mappings of. With a PID, those that it has, others or not. With a FILE,
    /// who maps it, private mappings too. Each with ranges, permissions and,
    /// as arrows, who could write what whom could read. Needs no BPF.
    /// docs/shared.md explains each field.
    #[command(after_help = "\
Examples:
  mmwatch shared                         whatever is shared on this machine
  mmwatch shared 1234                    what a process shares, and with whom
  mmwatch shared /dev/shm/ring           who maps a file
  mmwatch shared /proc/1234/fd/5         who maps a memfd that a process has open
  mmwatch shared -o dot | dot -Tsvg      a graph of all, drawn by Graphviz
  mmwatch shared -o json | jq .paths")]
    Shared(SharedArgs),
    /// The daemon: metrics for Prometheus and an HTTP API, from the sums that the kernel keeps
    ///
    /// Every option but the first two is a key of the configuration file too, where it has
    /// underscores for dashes; an option counts more. SIGHUP reads the file again.
    /// docs/agent.md explains it, docs/metrics.md lists the metrics.
    #[command(after_help = "\
Examples:
  mmwatch agent                                  listen on 127.0.0.1:9464
  mmwatch agent --check-config                   is /etc/mmwatch/mmwatch.toml fine?
  mmwatch agent --group-by container --top-k 50  counters by container
  mmwatch agent --listen unix:/run/mmwatch.sock  a socket instead of a port
  curl -s localhost:9464/metrics                 what it counts")]
    Agent(Box<AgentArgs>),
    /// What this kernel and these privileges allow; attaches nothing
    ///
    /// Prints what was found, which hooks would be used, and for each thing
    /// not chosen why not. Exits with 3 when nothing can be hooked; then top and
    /// stat poll /proc.
    Check(CheckArgs),
    /// The flags of mmap and its relatives: names, values, meanings; or a number decoded
    ///
    /// Without arguments, all of them. NAME is a flag, or one of prot, map,
    /// mremap, madvise, mlock2, mlockall and vm for all that this argument can
    /// have. With a NUMBER (34 or 0x22) after it, or alone, what that means.
    /// Values are those of x86-64, the only architecture that mmwatch runs on;
    /// where another one has another value, that is told too.
    #[command(after_help = "\
Examples:
  mmwatch flags                   every flag there is
  mmwatch flags madvise           every advice
  mmwatch flags MAP_STACK         one flag
  mmwatch flags map 0x20022       a number as the flags of mmap(2)
  mmwatch flags 3                 a number as each argument
  mmwatch flags -o json           the table, one JSON object a line")]
    Flags(FlagsArgs),
    /// Print what a shell needs to complete mmwatch's commands, options and values
    ///
    /// Debian's package and the tarball bring it along for all three shells.
    #[command(after_help = "\
Examples:
  . <(mmwatch completions bash)   in this shell, until it ends
  mmwatch completions fish > ~/.config/fish/completions/mmwatch.fish")]
    Completions(CompletionsArgs),
    /// Write the man pages into a directory
    #[command(hide = true)]
    Man(ManArgs),
}

/// Flags of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Flags that it shares.
    #[command(flatten)]
    pub watch: WatchArgs,
    /// Time between two tables: 1, 500ms, 2m
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = parse_duration, help_heading = "Output")]
    pub interval: Duration,
    /// Processes shown, or groups of them
    #[arg(long, value_name = "N", default_value_t = 20, help_heading = "Output")]
    pub rows: usize,
    /// Group processes, and show a row for each group
    #[arg(long, value_name = "WHAT", default_value = "process", value_parser = by_parser(), help_heading = "Output")]
    pub by: By,
    /// Also page faults, and how much of what was mapped was touched
    #[arg(long, help_heading = "Output")]
    pub faults: bool,
    /// Plain tables one after the other, on a terminal too
    #[arg(long, help_heading = "Output")]
    pub plain: bool,
}

/// Flags of `trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Flags that it shares.
    #[command(flatten)]
    pub watch: WatchArgs,
}

/// Flags of `stat`.
#[derive(Debug, Args)]
pub struct StatArgs {
    /// Flags that it shares.
    #[command(flatten)]
    pub watch: WatchArgs,
    /// Processes shown, or groups of them
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = "Output")]
    pub rows: usize,
    /// Group processes, and show a row for each group
    #[arg(long, value_name = "WHAT", default_value = "process", value_parser = by_parser(), help_heading = "Output")]
    pub by: By,
    /// Also page faults, and how much of what was mapped was touched
    #[arg(long, help_heading = "Output")]
    pub faults: bool,
}

/// Flags of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Only this process (repeatable)
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Filters")]
    pub pid: Vec<u32>,
    /// Time between two rounds: 1, 500ms, 2m
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub interval: Duration,
    /// End after this time [default: 5s, with CMD its end]
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Form of the output
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = OutputArg::Text, help_heading = "Output")]
    pub output: OutputArg,
    /// Flags on how to get at the kernel.
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// Run this command and check it and its children, from its exec to its end
    #[arg(last = true, value_name = "CMD")]
    pub cmd: Vec<OsString>,
}

/// Flags of `agent`.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// The configuration file [default: /etc/mmwatch/mmwatch.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Say whether the configuration is fine, or what is wrong with it, and end
    #[arg(long)]
    pub check_config: bool,
    /// What the file can say, too.
    #[command(flatten)]
    pub settings: Settings,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Form of the output
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = OutputArg::Text)]
    pub output: OutputArg,
    /// Hooks to plan for
    #[arg(long, value_enum, value_name = "HOOKS", default_value_t = HooksArg::Auto)]
    pub hooks: HooksArg,
}

/// Flags of `flags`.
#[derive(Debug, Args)]
pub struct FlagsArgs {
    /// A flag, an argument, or a number
    #[arg(value_name = "NAME|NUMBER")]
    pub what: Option<String>,
    /// With an argument's name: what to decode
    #[arg(value_name = "NUMBER")]
    pub value: Option<String>,
    /// Form of the output
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = OutputArg::Text)]
    pub output: OutputArg,
}

/// Flags of every command that watches.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Filters.
    #[command(flatten)]
    pub filters: FilterArgs,
    /// Whose doings these are of.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Look at a recording, and not at what happens now
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = [
            "duration",
            "hooks",
            "buffer",
            "simulate_loss",
            "cmd",
            "follow",
            "scope",
            "pidns"
        ]
    )]
    pub from: Option<PathBuf>,
    /// End after this time: 5, 5s, 500ms, 2m, 1h
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Form of the output
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = OutputArg::Text, help_heading = "Output")]
    pub output: OutputArg,
    /// Flags on how to get at the kernel.
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// Run this command and watch it and its children, from its exec to its end
    #[arg(last = true, value_name = "CMD")]
    pub cmd: Vec<OsString>,
}

/// Flags on how to get at the kernel.
#[derive(Debug, Args)]
pub struct KernelArgs {
    /// How to hook the kernel; `mmwatch check` says what each can see here
    #[arg(long, value_enum, value_name = "HOOKS", default_value_t = HooksArg::Auto, help_heading = "Kernel")]
    pub hooks: HooksArg,
    /// Size of the ring buffer, rounded up to a power of two
    #[arg(long, value_name = "SIZE", default_value = "8M", value_parser = parse_bytes, help_heading = "Kernel")]
    pub buffer: u64,
    /// Lose this share of the events on purpose, from 0 to 1, to test what notices losses
    #[arg(
        long,
        value_name = "RATIO",
        hide_short_help = true,
        help_heading = "Kernel"
    )]
    pub simulate_loss: Option<f64>,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputArg {
    /// For people
    Text,
    /// One JSON object a line; docs/events.md is the reference
    Json,
}

/// How to hook the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HooksArg {
    /// The best that works; for top and stat, where none does, as proc
    Auto,
    /// Function entries and exits by BPF trampoline
    Fentry,
    /// Function entries and exits by breakpoint or ftrace
    Kprobe,
    /// Raw tracepoints of mmap_lock and of system calls
    Tracepoint,
    /// None, and no BPF: top and stat poll /proc, see docs/proc.md
    Proc,
}

pub(crate) fn by_parser() -> impl clap::builder::TypedValueParser<Value = By> {
    PossibleValuesParser::new(By::ALL.iter().map(|by| by.name())).try_map(|name| {
        By::ALL
            .iter()
            .copied()
            .find(|by| by.name() == name)
            .ok_or("not a way to group")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Op;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    fn read(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::read(["mmwatch"].iter().chain(args).map(OsString::from))
    }

    #[test]
    fn top_is_what_no_command_means() {
        for (typed, meant) in [
            (&[][..], &["top"][..]),
            (&["-v"], &["-v", "top"]),
            (&["-p", "1"], &["top", "-p", "1"]),
            (&["-vv", "-p", "1", "-v"], &["-vv", "top", "-p", "1", "-v"]),
            (&["--", "trace"], &["top", "--", "trace"]),
            (&["-v", "trace"], &["-v", "trace"]),
            (&["--sysfs", "/s"], &["--sysfs", "/s", "top"]),
            (&["--sysfs", "/s", "trace"], &["--sysfs", "/s", "trace"]),
            (
                &["--procfs=/p", "-p", "1"],
                &["--procfs=/p", "top", "-p", "1"],
            ),
            (&["mistyped"], &["mistyped"]),
            (&["-V"], &["-V"]),
            (&["--help"], &["--help"]),
        ] {
            let args = |words: &[&str]| -> Vec<OsString> {
                ["mmwatch"]
                    .iter()
                    .chain(words)
                    .map(OsString::from)
                    .collect()
            };
            assert_eq!(with_command(args(typed)), args(meant));
        }
        // Options of `top` are not options of another command's.
        assert!(read(&["-i", "2", "trace"]).is_err());
    }

    #[test]
    fn options_are_read() {
        let Ok(Cli {
            command: CliCommand::Top(top),
            ..
        }) = read(&["-p", "1", "-i", "2"])
        else {
            panic!("not top");
        };
        assert_eq!(top.watch.filters.pid, [1]);
        assert_eq!(top.interval, Duration::from_secs(2));

        let cli = read(&[
            "trace",
            "--op",
            "map,unmap",
            "--op",
            "brk",
            "-vv",
            "--",
            "make",
            "-j2",
        ]);
        let Ok(Cli {
            command: CliCommand::Trace(trace),
            verbose,
            ..
        }) = cli
        else {
            panic!("not trace");
        };
        assert_eq!(trace.watch.filters.op, [Op::Map, Op::Unmap, Op::Brk]);
        assert_eq!(trace.watch.cmd, ["make", "-j2"]);
        assert_eq!(verbose, 2);
    }
}

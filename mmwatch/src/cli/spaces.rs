//! Address spaces as they are: `maps` and `shared`.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{KernelArgs, OutputArg};
use crate::text::parse_duration;

/// Flags of `maps`.
#[derive(Debug, Args)]
pub struct MapsArgs {
    /// The processes to look at
    #[arg(required = true, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Vec<u32>,
    /// Also what is resident, shared, swapped and huge; takes the process's lock while its page
    /// tables are walked
    #[arg(long)]
    pub smaps: bool,
    /// What appears, vanishes, grows and changes within this time, instead of what is there
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with_all = ["smaps", "picture"])]
    pub diff: Option<Duration>,
    /// Also the age of each mapping, who made it and what was done to it since: a table every
    /// TIME, until Ctrl-C or the process's end; needs BPF
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with_all = ["smaps", "picture", "diff"])]
    pub watch: Option<Duration>,
    /// With --watch: end after this time
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration, requires = "watch")]
    pub duration: Option<Duration>,
    /// Which mappings have page faults within this time, and how much of each is touched; as the
    /// kernel counts them, so it takes root or CAP_BPF and CAP_PERFMON
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with_all = ["smaps", "picture", "diff"])]
    pub faults: Option<Duration>,
    /// By the events of a recording: what the process, which may be over, mapped, and what became
    /// of it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["smaps", "diff", "watch", "faults", "picture", "hooks", "buffer", "simulate_loss"])]
    pub from: Option<PathBuf>,
    /// A picture of the whole address space instead of a table, each character twice the size
    #[arg(long, conflicts_with = "smaps", help_heading = "Output")]
    pub picture: bool,
    /// Form of the output
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = OutputArg::Text, help_heading = "Output")]
    pub output: OutputArg,
    /// Flags on how to get at the kernel.
    #[command(flatten)]
    pub kernel: KernelArgs,
}

/// Flags of `shared`.
#[derive(Debug, Args)]
pub struct SharedArgs {
    /// A process, or a file: digits alone are a process, ./123 is a file
    #[arg(value_name = "PID|FILE")]
    pub of: Option<OsString>,
    /// Form of the output
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = SharedOutputArg::Text, help_heading = "Output")]
    pub output: SharedOutputArg,
}

/// Form of the output of `shared`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SharedOutputArg {
    /// For people
    Text,
    /// One JSON object a line; docs/shared.md is the reference
    Json,
    /// A graph for Graphviz
    Dot,
}

//! Making recordings, and looking at them.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::Args;

use super::{FilterArgs, KernelArgs, OutputArg, ScopeArgs, by_parser};
use crate::{
    churn::By,
    text::{parse_bytes, parse_duration},
};

/// Flags of `record`.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// Filters.
    #[command(flatten)]
    pub filters: FilterArgs,
    /// Whose doings these are of.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Where to: a file that is not there yet, or is empty
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub output: PathBuf,
    /// Never let the file become larger than this, or all files together; without --rotate, the
    /// recording ends then
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Output")]
    pub max_size: Option<u64>,
    /// Begin another file after this size; the ones before get .1, .2 and so on added to their names
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Output")]
    pub rotate: Option<u64>,
    /// With --rotate: keep so many files, the newest among them, and remove older ones
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), requires = "rotate", help_heading = "Output")]
    pub keep: Option<u32>,
    /// Overwrite a recording, with its older files
    #[arg(long, help_heading = "Output")]
    pub force: bool,
    /// End after this time: 5, 5s, 500ms, 2m, 1h
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Flags on how to get at the kernel.
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// Run this command and record it and its children, from its exec to its end
    #[arg(last = true, value_name = "CMD")]
    pub cmd: Vec<OsString>,
}

/// Flags of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The recording
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Filters.
    #[command(flatten)]
    pub filters: FilterArgs,
    /// Processes shown, or groups of them
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = "Output")]
    pub rows: usize,
    /// Group processes, and show a row for each group
    #[arg(long, value_name = "WHAT", default_value = "process", value_parser = by_parser(), help_heading = "Output")]
    pub by: By,
    /// Form of the output
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = OutputArg::Text, help_heading = "Output")]
    pub output: OutputArg,
}

//! Filters, the same for every command that watches or looks at a recording.

use std::ffi::OsString;

use clap::{
    Args, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser as _},
};

use crate::{
    event::{Backing, Op, Suspect},
    text::parse_bytes,
};

/// Which processes and operations are let through.
#[derive(Debug, Default, Args)]
pub struct FilterArgs {
    /// Only this process (repeatable)
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Filters")]
    pub pid: Vec<u32>,
    /// Only processes of this cgroup and of those below it, by its path
    #[arg(
        long,
        value_name = "PATH",
        conflicts_with = "container",
        help_heading = "Filters"
    )]
    pub cgroup: Option<String>,
    /// Only processes of this container, by its name, its id or how that begins
    #[arg(long, value_name = "ID|NAME", help_heading = "Filters")]
    pub container: Option<String>,
    /// Only threads of exactly this name (15 bytes at most)
    #[arg(short = 'n', long, value_name = "NAME", help_heading = "Filters")]
    pub comm: Option<OsString>,
    /// Only this real user, by name or number
    #[arg(short, long, value_name = "USER", help_heading = "Filters")]
    pub uid: Option<String>,
    /// Only these operations (repeatable, or a list with commas)
    #[arg(long, value_name = "OP", value_delimiter = ',', value_parser = op_parser(), help_heading = "Filters")]
    pub op: Vec<Op>,
    /// Only operations on at least this many bytes: 4096, 4k, 1M
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Filters")]
    pub min_size: Option<u64>,
    /// Only mappings whose pages come from there (repeatable, or a list with commas)
    #[arg(long, value_name = "BACKING", value_delimiter = ',', value_parser = backing_parser(), help_heading = "Filters")]
    pub backing: Vec<Backing>,
    /// Only dangerous mappings; those of some kinds, where given (repeatable, or a list with commas)
    #[arg(
        long,
        value_name = "KIND",
        num_args = 0..=1,
        default_missing_values = suspect_names(),
        value_delimiter = ',',
        value_parser = suspect_parser(),
        help_heading = "Filters"
    )]
    pub suspect: Vec<Suspect>,
    /// Only calls that failed
    #[arg(short = 'x', long, help_heading = "Filters")]
    pub failed: bool,
}

/// Of whose doings, beside what processes they are: by containers and namespaces.
#[derive(Debug, Default, Args)]
pub struct ScopeArgs {
    /// With --pid: also the children that they make from now on
    #[arg(long, requires = "pid", help_heading = "Filters")]
    pub follow: bool,
    /// All of the host, or only mmwatch's own pod or container [default: self in a container's
    /// pid namespace, else host]
    #[arg(long, value_enum, value_name = "SCOPE", help_heading = "Filters")]
    pub scope: Option<ScopeArg>,
    /// Only processes of this pid namespace and of those below it: that of mmwatch itself, or of
    /// a process
    #[arg(long, value_name = "self|PID", help_heading = "Filters")]
    pub pidns: Option<String>,
}

/// Whose doings are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScopeArg {
    /// Those of the pod or container that mmwatch runs in
    #[value(name = "self")]
    Own,
    /// Those of all processes of the host
    Host,
}

fn op_parser() -> impl clap::builder::TypedValueParser<Value = Op> {
    PossibleValuesParser::new(Op::ALL.iter().map(|op| op.name())).try_map(|name| {
        Op::ALL
            .iter()
            .copied()
            .find(|op| op.name() == name)
            .ok_or("not an operation")
    })
}

fn suspect_names() -> impl Iterator<Item = &'static str> {
    Suspect::ALL.iter().map(|suspect| suspect.name())
}

fn suspect_parser() -> impl clap::builder::TypedValueParser<Value = Suspect> {
    let names = Suspect::ALL
        .iter()
        .map(|suspect| PossibleValue::new(suspect.name()).help(suspect.meaning()));
    PossibleValuesParser::new(names).try_map(|name| {
        Suspect::ALL
            .iter()
            .copied()
            .find(|suspect| suspect.name() == name)
            .ok_or("not a kind")
    })
}

fn backing_parser() -> impl clap::builder::TypedValueParser<Value = Backing> {
    let names = Backing::ALL
        .iter()
        .map(|backing| PossibleValue::new(backing.name()).help(backing.purpose()));
    PossibleValuesParser::new(names).try_map(|name| {
        Backing::ALL
            .iter()
            .copied()
            .find(|backing| backing.name() == name)
            .ok_or("not a backing")
    })
}

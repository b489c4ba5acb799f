//! How address spaces that are there are shown: `maps` and `shared`.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, time::Duration};

use super::{Form, MIN_INTERVAL, System, Unpollable, View, filter::check_pid, usage};
use crate::{
    cli::{HooksArg, MapsArgs, SharedArgs, SharedOutputArg, WatchArgs},
    error::Result,
    maps::read::Source,
    process::PidKind,
    shared::read::Subject,
};

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

pub(super) fn maps(args: &MapsArgs, system: &System) -> Result<Maps> {
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
    if args.faults.is_some() && args.kernel.hooks == HooksArg::Proc {
        return Err(usage(Unpollable::FAULTS.refusal()));
    }
    if args.picture && form == Form::Json {
        return Err(usage(
            "--picture is for people and -o json for programs; leave one of them out",
        ));
    }
    // Of several, each is checked when it is its turn: one that is gone hides no other.
    if let &[pid] = args.pid.as_slice() {
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

pub(super) fn watch_maps(
    args: MapsArgs,
    pid: u32,
    interval: Duration,
) -> Result<(View, WatchArgs)> {
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
///
/// # Errors
///
/// [`Error::Usage`](crate::error::Error::Usage) where it is a thread's, or nobody's.
pub fn check_space(pid: u32, command: &str, system: &System) -> Result<()> {
    if let PidKind::ThreadOf(tgid) = system.proc.pid_kind(pid)? {
        return Err(usage(format!(
            "{pid} is a thread of process {tgid}, and its mappings are the process's; use \
             mmwatch {command} {tgid}"
        )));
    }
    check_pid(pid, &system.proc)
}

pub(super) fn sharing(args: SharedArgs, system: &System) -> Result<Sharing> {
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

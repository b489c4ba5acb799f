//! Making recordings, and looking at them.

use std::path::{Path, PathBuf};

use super::{Form, Options, System, Task, View, filter, usage};
use crate::{
    churn::By,
    cli::{OutputArg, RecordArgs, ReportArgs, WatchArgs},
    error::Result,
    filter::Within,
    kernel::load::KernelFilter,
    recording::Size,
    text::Bytes,
};

/// The least that a file may be asked to keep to: what it begins with has to fit.
const MIN_FILE_BYTES: u64 = 1 << 20;

/// Where a recording goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The file.
    pub path: PathBuf,
    /// How large it may become.
    pub size: Size,
    /// Whether it may overwrite a recording.
    pub force: bool,
}

/// A recording to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The file.
    pub path: PathBuf,
    /// What to show.
    pub view: View,
    /// In which form.
    pub form: Form,
    /// What is let through, apart from cgroups.
    pub filter: KernelFilter,
    /// Which cgroups are.
    pub cgroups: Option<Within>,
    /// Whether to say first what the recording is.
    pub summary: bool,
}

impl Recorded {
    /// With `--from`.
    pub(super) fn new(
        path: &Path,
        view: View,
        args: &WatchArgs,
        faults: bool,
        system: &System,
    ) -> Result<Self> {
        if faults {
            return Err(usage(
                "a recording has no page faults; leave --faults out, or --from",
            ));
        }
        if let View::Top { by, .. } | View::Stat { by, .. } = view {
            check_by(by)?;
        }
        Ok(Self {
            path: path.to_owned(),
            view,
            form: args.output.into(),
            filter: filter::of_events(&args.filters, system)?,
            cgroups: filter::within(&args.filters),
            summary: false,
        })
    }
}

pub(super) fn report(args: ReportArgs, system: &System) -> Result<Recorded> {
    let ReportArgs {
        file,
        filters,
        rows,
        by,
        output,
    } = args;
    check_by(by)?;
    Ok(Recorded {
        path: file,
        view: View::Stat { rows, by },
        form: output.into(),
        filter: filter::of_events(&filters, system)?,
        cgroups: filter::within(&filters),
        summary: true,
    })
}

/// What processes ran is looked up while they live.
fn check_by(by: By) -> Result<()> {
    if by == By::Exe {
        return Err(usage(
            "a recording has no paths of programs; use --by comm, for their names",
        ));
    }
    Ok(())
}

/// `maps` of a recording.
pub(super) fn past(path: PathBuf, pids: &[u32], output: OutputArg) -> Result<Recorded> {
    let &[pid] = pids else {
        return Err(usage(
            "--from looks at one process at a time; leave the others out",
        ));
    };
    Ok(Recorded {
        path,
        view: View::Past { pid },
        form: output.into(),
        filter: KernelFilter {
            pids: vec![pid],
            ..filter::everything()
        },
        cgroups: None,
        summary: false,
    })
}

pub(super) fn record(args: RecordArgs, system: &System) -> Result<Task> {
    let RecordArgs {
        filters,
        scope,
        output,
        max_size,
        rotate,
        keep,
        force,
        duration,
        kernel,
        cmd,
    } = args;
    for (option, size) in [("--max-size", max_size), ("--rotate", rotate)] {
        if size.is_some_and(|size| size < MIN_FILE_BYTES) {
            return Err(usage(format!(
                "{option} must be at least {}",
                Bytes(MIN_FILE_BYTES)
            )));
        }
    }
    if let (Some(max_size), Some(rotate)) = (max_size, rotate)
        && max_size / 2 < rotate
    {
        return Err(usage(
            "--max-size must be at least twice --rotate, for a file that grows and one before it",
        ));
    }
    let watch = WatchArgs {
        filters,
        scope,
        from: None,
        duration,
        output: OutputArg::Text,
        kernel,
        cmd,
    };
    let target = Target {
        path: output,
        size: Size {
            max_bytes: max_size,
            rotate_bytes: rotate,
            keep: keep.map(|keep| keep as usize),
        },
        force,
    };
    let options = Options::new(View::Record, watch, false, system)?;
    Ok(Task::Record(options, target))
}

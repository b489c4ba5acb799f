//! `top` and `stat` without hooks: `/proc` is polled.

use std::io::{self, Write};

use super::subject;
use crate::{
    clock::WallClock,
    error::{Error, Result},
    event::Comm,
    identity::{Hierarchy, Runtimes},
    kernel::load::KernelFilter,
    launch::Held,
    options::{Form, Options, View},
    pipeline::poll::{self as polling, Job, Show},
    poll::{Filter, Poller, poller::Clocks},
    process::Proc,
    sink::json,
    ui,
};

/// Says that `/proc` is polled as nothing can be hooked, and why.
///
/// # Errors
///
/// [`Error::Kernel`] with what else there is to say where polling cannot do
/// what is asked for.
pub(super) fn instead(options: &Options, refusal: String) -> Result<()> {
    match (options.view, options.unpollable()) {
        (View::Top { .. } | View::Stat { .. }, None) => {
            // Nobody is left to read it, if this fails.
            let _ = writeln!(
                io::stderr(),
                "mmwatch: {refusal}; until then /proc is polled: what is mapped is shown, and not \
                 what happens between two looks, its causes, callers and failures"
            );
            Ok(())
        }
        (View::Top { .. } | View::Stat { .. }, Some(unpollable)) => Err(Error::Kernel(format!(
            "{refusal}; nor can /proc be polled instead, as {} is about {}",
            unpollable.what, unpollable.about
        ))),
        (
            View::Trace
            | View::Record
            | View::Verify { .. }
            | View::Maps { .. }
            | View::Past { .. },
            _,
        ) => Err(Error::Kernel(format!(
            "{refusal}; without BPF there is `mmwatch top --hooks proc`"
        ))),
    }
}

/// Polls until the end and returns the exit code.
pub(super) async fn run(
    options: &Options,
    proc: &Proc,
    command: Option<Held>,
    hierarchy: Option<Hierarchy>,
) -> Result<u8> {
    let (interval, rows, by) = match options.view {
        View::Top { interval, rows, by } => (Some(interval), rows, by),
        View::Stat { rows, by } => (None, rows, by),
        View::Trace
        | View::Record
        | View::Verify { .. }
        | View::Maps { .. }
        | View::Past { .. } => {
            return Err(Error::Usage("only top and stat can poll /proc".to_owned()));
        }
    };
    let filter = filter(&options.filter, command.as_ref(), hierarchy.as_ref())?;
    let poller = Poller::new(
        proc.clone(),
        hierarchy,
        Runtimes::default(),
        filter,
        Clocks::default(),
    )?;
    let job = Job {
        poller,
        show: show(options, WallClock::sample()?),
        interval,
        rows,
        by,
        duration: options.duration,
        command,
    };
    polling::run(job).await
}

/// The filters of the kernel that can be had without it.
fn filter(
    wanted: &KernelFilter,
    command: Option<&Held>,
    hierarchy: Option<&Hierarchy>,
) -> Result<Filter> {
    let cgroup = wanted.cgroup.map(|cgroup| {
        hierarchy
            .and_then(|hierarchy| hierarchy.path(cgroup.id))
            .ok_or_else(|| Error::Usage("the cgroup is no more; name one that is there".to_owned()))
    });
    Ok(Filter {
        pids: match command {
            Some(command) => vec![command.pid()],
            None => wanted.pids.clone(),
        },
        follow: wanted.follow,
        comm: wanted.comm.map(Comm::new),
        uid: wanted.uid,
        cgroup: cgroup.transpose()?,
    })
}

/// Where reports go: those of a command apart from what it prints itself.
fn show(options: &Options, clock: WallClock) -> Show {
    fn write(mut to: impl Write, text: &str) -> io::Result<()> {
        to.write_all(text.as_bytes())?;
        to.flush()
    }
    match (options.form, options.view) {
        (Form::Json, _) => {
            Box::new(move |poll| json::poll::write(&mut io::stdout().lock(), clock, poll))
        }
        (Form::Text, View::Stat { .. }) => {
            let subject = subject(options);
            let is_apart = options.command.is_some();
            Box::new(move |poll| {
                let text = ui::poll::stat(poll, &subject);
                if is_apart {
                    write(io::stderr(), &text)
                } else {
                    write(io::stdout(), &text)
                }
            })
        }
        (Form::Text, _) => Box::new(move |poll| write(io::stdout(), &ui::poll::top(poll, clock))),
    }
}

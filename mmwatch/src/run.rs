//! What each command does, from options to the exit code.

mod agent;
mod faults;
mod flags;
mod poll;
mod recording;
mod scope;
mod shared;

use std::{
    ffi::OsString,
    io::{self, Write},
    thread,
};

use serde::Serialize;
use tokio::runtime::Runtime;

use self::scope::Scoped;
use crate::{
    churn::Faults,
    clock::WallClock,
    error::{Error, Result},
    identity::{Here, Hierarchy, Runtimes},
    kernel::{
        facts::Facts,
        load::{self, Attached},
        plan::{self, FaultPlan, Hooks, Plan},
    },
    launch, manual,
    maps::{
        diff,
        read::{Reading, Source},
    },
    options::{Form, Maps, Options, Shown, System, Target, Task, View, check_space},
    pipeline::{self, Job, Work},
    process::Proc,
    recording::Destination,
    sink::{
        Sink,
        json::{self, Json, SCHEMA},
        text::{Recorded, Rounds, Spaces, Tables, Trace},
    },
    text::Escaped,
    ui,
};

/// Does what was asked and returns the exit code.
pub fn run(task: Task, system: &System) -> Result<u8> {
    match task {
        Task::Watch(options) => watch(&options, None, system),
        Task::Record(options, target) => watch(&options, Some(&target), system),
        Task::Replay(recorded) => recording::replay(recorded, system),
        Task::Maps(maps) => explain(&maps, system),
        Task::Shared(sharing) => shared::show(&sharing, &system.proc),
        Task::Agent(task) => agent::serve(*task, system),
        Task::ConfigIsFine { file } => agent::is_fine(&file),
        Task::Check { form, hooks } => check(form, hooks, system),
        Task::Flags { form, question } => flags::answer(form, question),
        Task::Completions(shell) => print(&manual::completions(shell)).map(|()| 0),
        Task::Manual { dir } => manual::write(&dir).map(|()| 0),
    }
}

/// Watches what happens; with a `target`, to record it.
fn watch(options: &Options, target: Option<&Target>, system: &System) -> Result<u8> {
    // First, as it is most likely to fail.
    let destination = target
        .map(|target| Destination::open(&target.path, target.size, target.force))
        .transpose()?;
    let runtime = runtime()?;
    let Some(hooks) = options.hooks else {
        let command = options.command.as_deref().map(launch::hold).transpose()?;
        return runtime.block_on(poll::run(
            options,
            &system.proc,
            command,
            Hierarchy::find(system.proc.sysfs()),
        ));
    };
    let mut facts = Facts::gather(system.proc.sysfs());
    let command = options.command.as_deref().map(launch::hold).transpose()?;
    let held = command.as_ref().map(launch::Held::pid);
    // The ring's descriptor belongs to the event loop.
    let guard = runtime.enter();
    let attached = attach(options, hooks, &mut facts, &system.proc, held);
    drop(guard);
    give_back();
    let (mut source, here) = match attached {
        Err(Error::Kernel(refusal)) if hooks == Hooks::Auto => {
            poll::instead(options, refusal)?;
            let polled = poll::run(options, &system.proc, command, facts.hierarchy);
            return runtime.block_on(polled);
        }
        attached => attached?,
    };

    let clock = WallClock::sample()?;
    let (work, sink): (_, Box<dyn Sink>) = match (destination, target) {
        (Some(destination), Some(target)) => (
            recording::work(destination, &facts, &here, &system.proc, &mut source)?,
            Box::new(Recorded::new(io::stderr(), &target.path)),
        ),
        _ => {
            let shown = Output {
                form: options.form,
                view: options.view,
                is_apart: options.command.is_some(),
                subject: subject(options),
            };
            (work(options.view, source.faults()), sink(shown, clock))
        }
    };
    let job = Job {
        sink,
        work,
        pace: None,
        events: None,
        duration: options.duration,
        command,
        proc: system.proc.clone(),
        hierarchy: facts.hierarchy,
        runtimes: Runtimes::default(),
        here,
        filter: None,
    };
    runtime.block_on(pipeline::run(source, job))
}

/// Attaches, and says where mmwatch runs. `held` is the command that waits to be started.
fn attach(
    options: &Options,
    hooks: Hooks,
    facts: &mut Facts,
    proc: &Proc,
    held: Option<u32>,
) -> Result<(Attached, Here)> {
    // First whether it is possible at all: that says more than whatever fails next.
    plan::plan(facts, hooks).map_err(|refusal| Error::Kernel(refusal.to_string()))?;
    let Scoped { filter, here } = scope::resolve(options, facts, proc, held)?;
    let attached = load::attach(facts, hooks, &filter, options.delivery)?;
    Ok((attached, here))
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("starting the event loop"))
}

/// What is made of events for a view; `faults` is what is counted of them.
fn work(view: View, faults: Option<Faults>) -> Work {
    match view {
        View::Trace | View::Record => Work::Events,
        View::Top { interval, rows, by } => Work::Sums {
            interval: Some(interval),
            rows,
            by,
            faults,
        },
        View::Stat { rows, by } => Work::Sums {
            interval: None,
            rows,
            by,
            faults,
        },
        View::Verify { interval } => Work::Verify { interval },
        View::Maps { pid, interval } => Work::Maps { pid, interval },
        View::Past { pid } => Work::Past { pid },
    }
}

/// Returns to the kernel what reading its types and loading the programs took,
/// half of all memory otherwise. musl's allocator does so by itself.
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no preconditions; it only releases pages that are not in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// How a view is shown.
struct Output {
    form: Form,
    view: View,
    /// Whether the text of sums goes to stderr, apart from what a command prints.
    is_apart: bool,
    /// Of what `stat` shows the sums.
    subject: String,
}

fn sink(shown: Output, clock: WallClock) -> Box<dyn Sink> {
    let Output {
        form,
        view,
        is_apart,
        subject,
    } = shown;
    match (form, view) {
        (Form::Json, _) => Box::new(Json::new(io::stdout().lock(), clock)),
        (Form::Text, View::Trace | View::Record) => {
            Box::new(Trace::new(io::stdout().lock(), io::stderr(), clock))
        }
        (Form::Text, View::Top { .. }) => Box::new(Tables::new(
            io::stdout().lock(),
            clock,
            Box::new(ui::top::draw),
        )),
        (Form::Text, View::Verify { .. }) if is_apart => Box::new(Rounds::new(io::stderr(), clock)),
        (Form::Text, View::Verify { .. }) => Box::new(Rounds::new(io::stdout().lock(), clock)),
        (Form::Text, View::Maps { .. } | View::Past { .. }) => {
            Box::new(Spaces::new(io::stdout().lock()))
        }
        (Form::Text, View::Stat { .. }) => {
            let draw =
                Box::new(move |report: &_, ledger: &_, _| ui::stat::draw(report, ledger, &subject));
            if is_apart {
                Box::new(Tables::new(io::stderr(), clock, draw))
            } else {
                Box::new(Tables::new(io::stdout().lock(), clock, draw))
            }
        }
    }
}

/// Of what `stat` shows the sums.
fn subject(options: &Options) -> String {
    if let Some(command) = &options.command {
        let words: Vec<_> = command
            .iter()
            .map(|word: &OsString| Escaped(word.as_encoded_bytes()).to_string())
            .collect();
        return format!("'{}'", words.join(" "));
    }
    processes(&options.filter.pids)
}

/// Processes in words; none are all.
fn processes(pids: &[u32]) -> String {
    match pids {
        [] => "all processes".into(),
        [pid] => format!("process {pid}"),
        pids => {
            let pids: Vec<_> = pids.iter().map(u32::to_string).collect();
            format!("processes {}", pids.join(", "))
        }
    }
}

/// `check -o json`.
#[derive(Serialize)]
struct Checked<'a> {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    facts: &'a Facts,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<&'a Plan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
    /// Whether `top` and `stat` would poll `/proc`.
    polling: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    faults: Option<&'a FaultPlan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    faults_refusal: Option<String>,
}

/// Prints what is no stream.
fn print(text: &str) -> Result<()> {
    written(writeln!(io::stdout(), "{}", text.trim_end())).map(|_| ())
}

/// Whether anybody reads what was written. That nobody does is no failure.
fn written(result: io::Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::io("writing the output")(error)),
    }
}

fn explain(maps: &Maps, system: &System) -> Result<u8> {
    if maps.source == Source::Smaps {
        // Nobody is left to read it, if this fails.
        let _ = writeln!(
            io::stderr(),
            "mmwatch: --smaps makes the kernel walk the page tables of the process with its \
             mmap_lock taken for reading, so that its own mapping calls wait; leave --smaps out \
             to spare it"
        );
    }
    let mut code = 0;
    for &pid in &maps.pids {
        match explain_one(maps, pid, system) {
            Ok(true) => {}
            Ok(false) => break,
            // The others are shown all the same; the exit code is that of the first failure.
            Err(error) if maps.pids.len() > 1 => {
                let _ = writeln!(io::stderr(), "mmwatch: {error}");
                if code == 0 {
                    code = error.exit_code();
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(code)
}

/// Shows one process; whether anybody still reads.
fn explain_one(maps: &Maps, pid: u32, system: &System) -> Result<bool> {
    let proc = &system.proc;
    if maps.pids.len() > 1 {
        check_space(pid, "maps", system)?;
    }
    let mut out = io::stdout();
    let result = match (maps.shown, maps.form) {
        (Shown::Changes(time), form) => {
            let before = Reading::take(proc, pid, maps.source)?;
            let before = before.space()?;
            thread::sleep(time);
            let after = Reading::take(proc, pid, maps.source)?;
            let after = after.space()?;
            let changes = diff::compare(&before.vmas, &after.vmas);
            match form {
                Form::Json => json::maps::write_changes(&mut out, &after, &changes),
                Form::Text => out.write_all(ui::maps::changes(&after, &changes).as_bytes()),
            }
        }
        (Shown::Faults(time), form) => {
            let counted = faults::count(pid, time, system)?;
            let after = Reading::take(proc, pid, maps.source)?;
            faults::write(&mut out, form, &after.space()?, &counted)
        }
        (Shown::Picture, _) => {
            let reading = Reading::take(proc, pid, maps.source)?;
            let (rows, columns) = screen();
            out.write_all(ui::picture::draw(&reading.space()?, rows, columns).as_bytes())
        }
        (Shown::Vmas, form) => {
            let reading = Reading::take(proc, pid, maps.source)?;
            let space = reading.space()?;
            match form {
                Form::Json => json::maps::write_space(&mut out, &space),
                Form::Text => out.write_all(ui::maps::draw(&space).as_bytes()),
            }
        }
    };
    written(result.and_then(|()| out.flush()))
}

/// Lines and columns of the terminal, less the line that the shell's prompt
/// takes; elsewhere those of a usual one.
fn screen() -> (usize, usize) {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes a winsize to where the pointer, which is valid
    // for writing one, points, or fails.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    if result != 0 || size.ws_row < 10 || size.ws_col < 60 {
        return (40, 100);
    }
    (usize::from(size.ws_row) - 1, usize::from(size.ws_col))
}

fn check(form: Form, hooks: Option<Hooks>, system: &System) -> Result<u8> {
    let facts = Facts::gather(system.proc.sysfs());
    let plan = hooks.map(|hooks| plan::plan(&facts, hooks)).transpose();
    let faults = plan::faults(&facts);
    let polling = match &plan {
        Ok(plan) => plan.is_none(),
        Err(_) => hooks == Some(Hooks::Auto),
    };
    let text = match form {
        Form::Text => {
            let mut text = facts.to_string();
            if polling {
                text += "without BPF          top and stat poll /proc (--hooks proc)\n";
            }
            match (&plan, &faults) {
                (Ok(Some(plan)), Ok(faults)) => format!("{text}\n{plan}{faults}"),
                (Ok(Some(plan)), Err(refusal)) => {
                    format!("{text}\n{plan}with --faults\n  {refusal}\n")
                }
                (Ok(None) | Err(_), _) => text,
            }
        }
        Form::Json => serde_json::to_string(&Checked {
            schema: SCHEMA,
            kind: "check",
            facts: &facts,
            plan: plan.as_ref().ok().and_then(Option::as_ref),
            refusal: plan.as_ref().err().map(ToString::to_string),
            polling,
            faults: faults.as_ref().ok(),
            faults_refusal: faults.as_ref().err().map(ToString::to_string),
        })
        .map_err(|error| Error::io("writing the output")(error.into()))?,
    };
    print(&text)?;
    match plan {
        Ok(_) => Ok(0),
        Err(refusal) => Err(Error::Kernel(refusal.to_string())),
    }
}

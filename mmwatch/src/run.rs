//! What each command does, from options to the exit code.

mod agent;
mod faults;
mod flags;
mod scope;
mod shared;

use std::{
    ffi::OsString,
    io::{self, Write},
    thread,
};

use serde::Serialize;

use self::scope::Scoped;
use crate::{
    agent::canary,
    clock::WallClock,
    error::{Error, Result},
    kernel::{
        facts::Facts,
        load,
        plan::{self, FaultPlan, Hooks, Plan},
    },
    launch,
    maps::{
        diff,
        read::{Reading, Source},
    },
    options::{Form, Maps, Options, Shown, System, Task, View},
    pipeline::{self, Job, Work},
    sink::{
        Sink,
        json::{self, Json, SCHEMA},
        text::{Rounds, Spaces, Tables, Trace},
    },
    text::Escaped,
    ui,
};

/// Does what was asked and returns the exit code.
pub fn run(task: Task, system: &System) -> Result<u8> {
    match task {
        Task::Watch(options) => watch(options, system),
        Task::Maps(maps) => explain(&maps, system),
        Task::Shared(sharing) => shared::show(&sharing, &system.proc),
        Task::Agent(task) => agent::serve(*task, system),
        Task::ConfigIsFine { file } => agent::is_fine(&file),
        Task::Canary => canary::main(),
        Task::Check { form, hooks } => check(form, hooks, system),
        Task::Flags { form, question } => flags::answer(form, question),
    }
}

fn watch(options: Options, system: &System) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("starting the event loop"))?;
    let mut facts = Facts::gather(system.proc.sysfs());
    let command = options.command.as_deref().map(launch::hold).transpose()?;
    let held = command.as_ref().map(launch::Held::pid);
    let Scoped { filter, here } = scope::resolve(&options, &mut facts, &system.proc, held)?;

    // The ring's descriptor belongs to the event loop.
    let guard = runtime.enter();
    let source = load::attach(&mut facts, options.hooks, &filter, options.delivery)?;
    drop(guard);
    give_back();

    let job = Job {
        sink: sink(&options, WallClock::sample()?),
        work: match options.view {
            View::Trace => Work::Events,
            View::Top { interval, rows, by } => Work::Sums {
                interval: Some(interval),
                rows,
                by,
                faults: source.faults(),
            },
            View::Stat { rows, by } => Work::Sums {
                interval: None,
                rows,
                by,
                faults: source.faults(),
            },
            View::Verify { interval } => Work::Verify { interval },
            View::Maps { pid, interval } => Work::Maps { pid, interval },
        },
        pace: None,
        duration: options.duration,
        command,
        proc: system.proc.clone(),
        hierarchy: facts.hierarchy,
        here,
    };
    runtime.block_on(pipeline::run(source, job))
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

fn sink(options: &Options, clock: WallClock) -> Box<dyn Sink> {
    match (options.form, options.view) {
        (Form::Json, _) => Box::new(Json::new(io::stdout().lock(), clock)),
        (Form::Text, View::Trace) => Box::new(Trace::new(io::stdout().lock(), io::stderr(), clock)),
        (Form::Text, View::Top { .. }) => Box::new(Tables::new(
            io::stdout().lock(),
            clock,
            Box::new(ui::top::draw),
        )),
        // Apart from what the command itself prints, here and below.
        (Form::Text, View::Verify { .. }) if options.command.is_some() => {
            Box::new(Rounds::new(io::stderr(), clock))
        }
        (Form::Text, View::Verify { .. }) => Box::new(Rounds::new(io::stdout().lock(), clock)),
        (Form::Text, View::Maps { .. }) => Box::new(Spaces::new(io::stdout().lock())),
        (Form::Text, View::Stat { .. }) => {
            let subject = subject(options);
            let draw =
                Box::new(move |report: &_, ledger: &_, _| ui::stat::draw(report, ledger, &subject));
            if options.command.is_some() {
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
    match options.filter.pids.as_slice() {
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
    let proc = &system.proc;
    if maps.source == Source::Smaps {
        // Nobody is left to read it, if this fails.
        let _ = writeln!(
            io::stderr(),
            "mmwatch: --smaps makes the kernel walk the page tables of the process with its \
             mmap_lock taken for reading, so that its own mapping calls wait; leave --smaps out \
             to spare it"
        );
    }
    for &pid in &maps.pids {
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
        if !written(result.and_then(|()| out.flush()))? {
            break;
        }
    }
    Ok(0)
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

fn check(form: Form, hooks: Hooks, system: &System) -> Result<u8> {
    let facts = Facts::gather(system.proc.sysfs());
    let plan = plan::plan(&facts, hooks);
    let faults = plan::faults(&facts);
    let text = match form {
        Form::Text => match (&plan, &faults) {
            (Ok(plan), Ok(faults)) => format!("{facts}\n{plan}{faults}"),
            (Ok(plan), Err(refusal)) => format!("{facts}\n{plan}with --faults\n  {refusal}\n"),
            (Err(_), _) => facts.to_string(),
        },
        Form::Json => serde_json::to_string(&Checked {
            schema: SCHEMA,
            kind: "check",
            facts: &facts,
            plan: plan.as_ref().ok(),
            refusal: plan.as_ref().err().map(ToString::to_string),
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

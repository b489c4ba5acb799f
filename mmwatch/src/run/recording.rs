//! `record`, `report`, and what `--from` looks at.

use std::{
    env,
    io::{self, Write as _},
};

use super::{Output, processes, runtime, sink, written};
use crate::{
    error::Result,
    filter::{Filter, Within},
    identity::{Directory, Here, Runtimes},
    kernel::{facts::Facts, load::Attached},
    options::{Form, Recorded, System},
    pipeline::{self, Job, Work},
    process::Proc,
    recording::{Destination, Header, Recorder, Recording, Summary},
    sink::json,
    source::Source as _,
    text::Escaped,
    ui,
};

/// A recording of what is attached.
pub(super) fn work(
    destination: Destination,
    facts: &Facts,
    here: &Here,
    proc: &Proc,
    source: &mut Attached,
) -> Result<Work> {
    let counters = source.counters()?;
    let header = Header::new(
        facts,
        source.plan(),
        source.tells_order(),
        &counters,
        proc.limits(),
        env::args_os(),
    )?;
    let header = Header {
        pid_namespace: here.pid_namespace,
        ..header
    };
    let directory = Directory::new(facts.hierarchy.clone(), Runtimes::default(), here);
    let recorder = Recorder::begin(destination, header, directory)?;
    Ok(Work::Record(Box::new(recorder)))
}

/// Looks at a recording.
pub(super) fn replay(recorded: Recorded, system: &System) -> Result<u8> {
    let source = Recording::open(&recorded.path)?;
    if recorded.summary && !written(summary(&recorded)?)? {
        return Ok(0);
    }
    let header = source.header();
    let filter = Filter {
        kernel: recorded.filter.clone(),
        cgroups: recorded.cgroups.clone().map(|within| below(within, header)),
        page_bytes: header.limits.page_bytes,
    };
    let file = Escaped(recorded.path.as_os_str().as_encoded_bytes()).to_string();
    let output = Output {
        form: recorded.form,
        view: recorded.view,
        is_apart: false,
        subject: format!("{} in {file}", processes(&recorded.filter.pids)),
    };
    let job = Job {
        sink: sink(output, source.clock()),
        work: super::work(recorded.view, None),
        duration: None,
        command: None,
        proc: system.proc.clone(),
        // The recording says what cgroups there were.
        hierarchy: None,
        runtimes: Runtimes::default(),
        here: Here::then(header.pid_namespace),
        filter: Some(filter),
        pace: None,
        events: None,
    };
    runtime()?.block_on(pipeline::run(source, job))
}

/// A cgroup given by where it was mounted, as its path in the hierarchy.
fn below(within: Within, header: &Header) -> Within {
    match (within, &header.hierarchy) {
        (Within::Path(path), Some(hierarchy)) => {
            let mount = hierarchy.mount.to_string_lossy();
            Within::Path(path.strip_prefix(&*mount).unwrap_or(&path).to_owned())
        }
        (within, _) => within,
    }
}

/// Says what the recording is. The result of writing is for the caller to judge.
fn summary(recorded: &Recorded) -> Result<io::Result<()>> {
    let summary = Summary::of(&recorded.path)?;
    let mut out = io::stdout();
    Ok(match recorded.form {
        Form::Text => out.write_all(ui::recording::draw(&summary, &recorded.path).as_bytes()),
        Form::Json => json::recording::write_summary(&mut out, &summary),
    }
    .and_then(|()| out.flush()))
}

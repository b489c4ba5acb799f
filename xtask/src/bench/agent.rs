//! What the agent itself costs, and whether it loses anything.

use std::{
    fs, iter,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{
    Setting,
    observer::{Attached, Observer, Spec},
    stats::Values,
    watched::values,
};
use crate::process;

/// Processes beside which the agent idles.
pub const SLEEPERS: u32 = 500;

/// Before the idle time begins, so that the start is over.
const WARM_UP: Duration = Duration::from_secs(1);

/// What was found, where it could be.
#[derive(Debug, Default)]
pub struct Figures {
    /// Events a second on one core: by what is made of them.
    pub rates: Vec<(&'static str, f64)>,
    /// Bytes of memory for a VMA in a model.
    pub vma_bytes: Option<f64>,
    /// Seconds from the start until it watches.
    pub attach_s: Option<Values>,
    /// Memory that it has then, and that it had at most, bytes.
    pub memory_bytes: Option<(f64, f64)>,
    /// Memory of its state for so many processes, bytes.
    pub processes_bytes: Vec<(&'static str, f64)>,
    /// Share of a core that it takes while nothing happens.
    pub idle: Option<f64>,
    /// Size of the executable, and without what debuggers read.
    pub executable_bytes: Option<(u64, Option<u64>)>,
    /// Mappings at full speed.
    pub storms: Vec<Storm>,
}

/// A storm of mappings, written as JSON.
#[derive(Debug)]
pub struct Storm {
    /// Processes that map and unmap, of one thread each.
    pub writers: usize,
    /// Size of the ring buffer, as `--buffer` takes it.
    pub buffer: Option<&'static str>,
    /// Events a second.
    pub per_s: f64,
    /// Events that were read from the ring.
    pub received: u64,
    /// Events that were lost, wherever.
    pub lost: u64,
    /// Time on a CPU that the agent took for a million of them, seconds.
    pub cpu_s_per_million: f64,
}

impl Storm {
    /// What it was, for people.
    pub fn name(&self) -> String {
        let writers = match self.writers {
            1 => "one process".to_owned(),
            more => format!("{more} processes"),
        };
        let buffer = self.buffer.unwrap_or("the default");
        format!("storm of {writers}, JSON, buffer: {buffer}")
    }

    /// For machines.
    pub fn to_json(&self) -> Value {
        json!({
            "writers": self.writers,
            "buffer": self.buffer,
            "events_per_s": self.per_s,
            "received": self.received,
            "lost": self.lost,
            "cpu_s_per_million": self.cpu_s_per_million,
        })
    }
}

/// How many write, and into which ring buffer: the default, or a large one. More
/// writers than there are cores stand in for the cores of a larger machine.
const STORMS: [(usize, Option<&str>); 6] = [
    (1, None),
    (1, Some("128M")),
    (2, None),
    (2, Some("128M")),
    (4, None),
    (4, Some("128M")),
];

/// Numbers of processes that the benchmark of user space simulates.
pub const SIMULATED: [&str; 3] = ["1000", "10000", "100000"];

/// The cases of the benchmark of user space, in the order of the tables.
pub const CASES: [(&str, &str); 5] = [
    ("decode", "decoded"),
    ("sums", "decoded, summed per process"),
    ("space", "decoded, applied to models"),
    ("json", "decoded, as JSON"),
    ("text", "decoded, as text"),
];

/// Measures all of it.
pub fn run(setting: &Setting, scratch: &Path) -> Result<Figures> {
    let mut figures = Figures::default();
    throughput(setting, &mut figures)?;
    idle(setting, scratch, &mut figures)?;
    for (writers, buffer) in STORMS {
        let storm = storm(setting, scratch, writers, buffer)?;
        figures.storms.push(storm);
    }
    figures.executable_bytes = Some(size(&setting.agent, scratch)?);
    Ok(figures)
}

fn throughput(setting: &Setting, figures: &mut Figures) -> Result<()> {
    eprintln!("bench: the agent's own speed");
    let mut bench = Command::new(&setting.agent_bench);
    let output = process::stdout(bench.arg(setting.agent_ms.to_string()))?;
    let values = values(&output);
    for (id, _) in CASES {
        let rate = values.get(id);
        figures.rates.push((
            id,
            *rate.with_context(|| format!("the benchmark has no {id}"))?,
        ));
    }
    figures.vma_bytes = values.get("vma_bytes").copied();
    for count in SIMULATED {
        let bytes = values.get(format!("processes_{count}_bytes").as_str());
        figures.processes_bytes.push((
            count,
            *bytes.context("the benchmark has no memory of processes")?,
        ));
    }
    Ok(())
}

fn idle(setting: &Setting, scratch: &Path, figures: &mut Figures) -> Result<()> {
    eprintln!("bench: the agent beside {SLEEPERS} processes that sleep");
    let sleepers = Observer::start(&Spec {
        argv: [
            &setting.workload.display().to_string(),
            "sleepers",
            &SLEEPERS.to_string(),
        ]
        .map(str::to_owned)
        .into(),
        output: scratch.join("sleepers.out"),
        messages: scratch.join("sleepers.err"),
        attached: Attached::Says("ready", Duration::ZERO),
    })?;
    let top = agent(
        setting,
        scratch,
        &["top", "--plain"],
        PathBuf::from("/dev/null"),
    );
    let mut times = Vec::new();
    for _ in 1..setting.repetitions {
        let observer = Observer::start(&top)?;
        times.push(observer.took.as_secs_f64());
        observer.stop()?;
    }
    let observer = Observer::start(&top)?;
    times.push(observer.took.as_secs_f64());
    figures.attach_s = Values::new(times);
    thread::sleep(WARM_UP);
    let before = cpu_ns(observer.pid())?;
    let start = Instant::now();
    thread::sleep(setting.idle);
    let spent = cpu_ns(observer.pid())?.saturating_sub(before);
    figures.idle = Some(spent as f64 / start.elapsed().as_nanos() as f64);
    figures.memory_bytes = Some(memory_bytes(observer.pid())?);
    observer.stop()?;
    sleepers.stop()
}

/// Runs mmwatch, which ends by itself some time.
fn agent(setting: &Setting, scratch: &Path, args: &[&str], output: PathBuf) -> Spec {
    let argv = iter::once(setting.agent.display().to_string())
        .chain(args.iter().map(|&arg| arg.to_owned()))
        .chain(["--hooks", &setting.hooks, "-d", "600"].map(str::to_owned));
    Spec {
        argv: argv.collect(),
        output,
        messages: scratch.join("agent.err"),
        attached: Attached::HandlesInterrupt,
    }
}

/// Time on a CPU, of all threads, from the scheduler: ticks are too coarse.
fn cpu_ns(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("the agent's threads")? {
        let path = task
            .context("the agent's threads")?
            .path()
            .join("schedstat");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let first = text
            .split_whitespace()
            .next()
            .and_then(|ns| ns.parse::<u64>().ok());
        sum += first.with_context(|| format!("{}: {text:?}", path.display()))?;
    }
    Ok(sum)
}

/// Resident now, and at most.
fn memory_bytes(pid: u32) -> Result<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the agent's memory")?;
    let bytes = |name| field_bytes(&status, name).with_context(|| format!("no {name} in /proc"));
    Ok((bytes("VmRSS:")?, bytes("VmHWM:")?))
}

/// A field of `/proc/PID/status` that is in KiB.
fn field_bytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

/// Written to `/dev/null`, so that only what the agent does counts; what became of
/// the events it says itself.
fn storm(
    setting: &Setting,
    scratch: &Path,
    writers: usize,
    buffer: Option<&'static str>,
) -> Result<Storm> {
    eprintln!("bench: a storm of mappings, writers: {writers}");
    let mut args = vec!["trace", "-v", "-o", "json"];
    args.extend(buffer.iter().flat_map(|size| ["--buffer", *size]));
    let trace = agent(setting, scratch, &args, PathBuf::from("/dev/null"));
    let observer = Observer::start(&trace)?;
    let before = cpu_ns(observer.pid())?;
    let pairs_per_s = write(setting, writers)?;
    let cpu_ns = cpu_ns(observer.pid())?.saturating_sub(before);
    observer.stop()?;
    let said = fs::read_to_string(&trace.messages).context("what the agent said")?;
    let (received, lost) = received_and_lost(&said)
        .with_context(|| format!("the agent did not say what it lost: {said}"))?;
    Ok(Storm {
        writers,
        buffer,
        per_s: EVENTS_OF_A_PAIR * pairs_per_s,
        received,
        lost,
        // What is left in the ring by then is little.
        cpu_s_per_million: cpu_ns as f64 / 1e9 / (received as f64 / 1e6),
    })
}

/// A mapping made, and removed.
const EVENTS_OF_A_PAIR: f64 = 2.0;

/// Runs the writers beside each other; returns pairs a second of all of them.
fn write(setting: &Setting, writers: usize) -> Result<f64> {
    let run = || -> Result<f64> {
        let mut workload = Command::new(&setting.workload);
        let output = process::stdout(workload.args(["storm", &setting.storm_ms.to_string()]))?;
        let values = values(&output);
        let (Some(operations), Some(ns)) = (values.get("operations"), values.get("ns")) else {
            bail!("the storm did not tell how it went");
        };
        Ok(operations / ns * 1e9)
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..writers).map(|_| scope.spawn(run)).collect();
        let mut per_s = 0.0;
        for one in all {
            match one.join() {
                Ok(rate) => per_s += rate?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(per_s)
    })
}

/// The numbers in `N events received, M lost`.
fn received_and_lost(said: &str) -> Option<(u64, u64)> {
    let line = said
        .lines()
        .find(|line| line.contains(" events received, "))?;
    let (_, line) = line.rsplit_once("] ")?;
    let (received, lost) = line.split_once(" events received, ")?;
    let lost = lost.strip_suffix(" lost")?;
    Some((received.parse().ok()?, lost.parse().ok()?))
}

/// Size of an executable, with and without symbols and the like.
fn size(path: &Path, scratch: &Path) -> Result<(u64, Option<u64>)> {
    let len = |path: &Path| {
        let metadata = fs::metadata(path);
        metadata
            .with_context(|| path.display().to_string())
            .map(|file| file.len())
    };
    let stripped = scratch.join("stripped");
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&stripped).arg(path);
    let stripped = process::succeeds(&mut strip).then(|| len(&stripped));
    Ok((len(path)?, stripped.transpose()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_status_are_in_kib() {
        let status = "VmPeak:\t    8 kB\nVmHWM:\t    2 kB\nThreads:\t1\n";
        assert_eq!(field_bytes(status, "VmHWM:"), Some(2048.0));
        assert_eq!(field_bytes(status, "VmRSS:"), None);
        assert_eq!(field_bytes(status, "Threads:"), None);
    }

    #[test]
    fn what_the_agent_says_is_understood() {
        let said = "something else\n\
                    [2026-01-01T00:00:00Z INFO  mmwatch::pipeline] 12 events received, 3 lost\n";
        assert_eq!(received_and_lost(said), Some((12, 3)));
        assert_eq!(received_and_lost("12 events received"), None);
    }
}

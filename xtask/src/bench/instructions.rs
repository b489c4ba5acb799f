//! Instructions that user space takes for an event, against a baseline in the
//! repository. They do not depend on what else the machine does.

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{agent::CASES, watched::values};
use crate::{
    build, process,
    setup::{self, Need},
    workspace::Workspace,
};

/// From the top directory.
const BASELINE: &str = "mmwatch/benches/instructions.json";

/// What a case may take more than its baseline. The C library picks its functions
/// by the CPU, which is a part of this.
const TOLERANCE: f64 = 0.05;

/// The difference between so many rounds and one is free of what only the start
/// takes.
const ROUNDS: u32 = 3;

/// Instructions per event, by case.
pub type Counts = BTreeMap<String, f64>;

/// What was counted before, and with which compiler.
#[derive(Debug, PartialEq)]
struct Baseline {
    rustc: String,
    counts: Counts,
}

/// Counts, and holds it against the baseline or makes it the new one.
pub fn run(workspace: &Workspace, record: bool) -> Result<ExitCode> {
    setup::ensure_for(&[Need::Instructions])?;
    let built = build::benches(workspace)?;
    let counted = Baseline {
        rustc: rustc()?,
        counts: count(&built.agent)?,
    };
    let path = workspace.root().join(BASELINE);
    if record {
        let text = serde_json::to_string_pretty(&counted.to_json()).context("the baseline")?;
        fs::write(&path, text + "\n").with_context(|| format!("cannot write {BASELINE}"))?;
        println!("recorded in {BASELINE}:");
        print!("{}", table(&counted.counts, &counted.counts));
        return Ok(ExitCode::SUCCESS);
    }
    let baseline = Baseline::read(&path)?;
    print!("{}", table(&baseline.counts, &counted.counts));
    let changes = changes(&baseline.counts, &counted.counts);
    if changes.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for change in &changes {
        println!("{change}");
    }
    println!("if that is meant: cargo xtask bench --instructions --record");
    // Another compiler's code is another baseline's business.
    if baseline.rustc != counted.rustc {
        println!(
            "no failure, for the baseline is of {} and this is {}",
            baseline.rustc, counted.rustc
        );
        return Ok(ExitCode::SUCCESS);
    }
    let is_worse = |change: &Change| change.ratio > 1.0;
    Ok(if changes.iter().any(is_worse) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

impl Baseline {
    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| {
            format!("there is no {BASELINE}; cargo xtask bench --instructions --record makes it")
        })?;
        let value =
            serde_json::from_str(&text).with_context(|| format!("{BASELINE} is no JSON"))?;
        Self::parse(&value).with_context(|| format!("{BASELINE} is no baseline"))
    }

    fn parse(value: &Value) -> Option<Self> {
        let counts = value["instructions_per_event"].as_object()?;
        Some(Self {
            rustc: value["rustc"].as_str()?.to_owned(),
            counts: counts
                .iter()
                .map(|(case, count)| Some((case.clone(), count.as_f64()?)))
                .collect::<Option<_>>()?,
        })
    }

    fn to_json(&self) -> Value {
        json!({"rustc": self.rustc, "instructions_per_event": self.counts})
    }
}

/// The compiler, without the machine that it is for.
fn rustc() -> Result<String> {
    let version = process::quiet_stdout(Command::new("rustc").arg("-V"))?;
    Ok(version.trim().to_owned())
}

/// Instructions per event of every case.
pub fn count(agent_bench: &Path) -> Result<Counts> {
    let mut counts = Counts::new();
    for (case, _) in CASES {
        let (few, _) = rounds(agent_bench, case, 1)?;
        let (many, events) = rounds(agent_bench, case, ROUNDS)?;
        ensure!(events > 0.0, "the benchmark had no events");
        let per_event = (many - few) / f64::from(ROUNDS - 1) / events;
        // More digits would change with every build.
        counts.insert(case.to_owned(), (per_event * 10.0).round() / 10.0);
    }
    Ok(counts)
}

/// Instructions of so many rounds, and the events of one.
fn rounds(agent_bench: &Path, case: &str, rounds: u32) -> Result<(f64, f64)> {
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(agent_bench)
        .args(["rounds", &rounds.to_string(), case])
        // The size of the environment moves the stack, which moves a few counts.
        .env_clear()
        .envs(env::var_os("PATH").map(|path| ("PATH", path)))
        .stdin(Stdio::null());
    let output = valgrind
        .output()
        .with_context(|| format!("cannot start `{}`", process::line(&valgrind)))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "`{}` failed: {messages}",
        process::line(&valgrind)
    );
    let stdout = String::from_utf8_lossy(&output.stdout);
    let events = values(&stdout).get("events").copied();
    Ok((
        collected(&messages).with_context(|| format!("valgrind counted nothing: {messages}"))?,
        events.context("the benchmark did not tell its events")?,
    ))
}

/// `==17== Collected : 123` of callgrind.
fn collected(messages: &str) -> Option<f64> {
    messages
        .lines()
        .find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

/// A case that is not what it was.
#[derive(Debug, PartialEq)]
struct Change {
    case: String,
    ratio: f64,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { case, ratio } = self;
        if ratio.is_infinite() {
            return write!(f, "{case}: not in the baseline");
        }
        let more = if *ratio > 1.0 { "more" } else { "fewer" };
        let percent = (ratio - 1.0).abs() * 100.0;
        write!(
            f,
            "{case}: {percent:.1} % {more} instructions than the baseline"
        )
    }
}

/// The cases that changed by more than the tolerance.
fn changes(baseline: &Counts, counted: &Counts) -> Vec<Change> {
    counted
        .iter()
        .map(|(case, count)| Change {
            case: case.clone(),
            ratio: baseline
                .get(case)
                .map_or(f64::INFINITY, |base| count / base),
        })
        .filter(|change| (change.ratio - 1.0).abs() > TOLERANCE)
        .collect()
}

fn table(baseline: &Counts, counted: &Counts) -> String {
    let mut text = format!("{:<8} {:>12} {:>12}\n", "case", "baseline", "instructions");
    for (case, count) in counted {
        let base = baseline
            .get(case)
            .map_or_else(|| "-".to_owned(), |base| format!("{base:.1}"));
        text.push_str(&format!("{case:<8} {base:>12} {count:>12.1}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(values: &[(&str, f64)]) -> Counts {
        values
            .iter()
            .map(|(case, n)| ((*case).to_owned(), *n))
            .collect()
    }

    #[test]
    fn only_more_than_the_tolerance_is_a_change() {
        let baseline = counts(&[("decode", 100.0), ("json", 1000.0), ("text", 1000.0)]);
        let same = counts(&[("decode", 104.9), ("json", 951.0), ("text", 1000.0)]);
        assert_eq!(changes(&baseline, &same), []);
        let other = counts(&[("decode", 110.0), ("json", 900.0), ("new", 1.0)]);
        let lines: Vec<_> = changes(&baseline, &other)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            lines,
            [
                "decode: 10.0 % more instructions than the baseline",
                "json: 10.0 % fewer instructions than the baseline",
                "new: not in the baseline",
            ]
        );
    }

    #[test]
    fn a_baseline_reads_back() {
        let baseline = Baseline {
            rustc: "rustc 1.95.0".to_owned(),
            counts: counts(&[("decode", 100.5)]),
        };
        assert_eq!(Baseline::parse(&baseline.to_json()), Some(baseline));
        assert_eq!(Baseline::parse(&json!({})), None);
    }

    #[test]
    fn callgrind_tells_its_count_at_the_end() {
        let messages = "==7== Events    : Ir\n==7== Collected : 123456\n==7==\n";
        assert_eq!(collected(messages), Some(123_456.0));
        assert_eq!(collected("==7== killed"), None);
    }
}

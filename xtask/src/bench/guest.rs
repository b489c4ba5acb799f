//! What watching costs in instructions, in VMs that count them: the same on any
//! machine, and the same tomorrow.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Setting, watched::values};
use crate::{vm, workspace::Workspace};

/// Kernels that have bars.
pub const KERNELS: [&str; 2] = ["6.18", "7.2"];

/// Backends, the one with bars first.
pub const HOOKS: [&str; 3] = ["fentry", "kprobe", "tracepoint"];

/// Loops that are counted.
pub const LOOPS: [&str; 3] = ["pair", "fault", "getppid"];

/// Ways to watch that are counted.
pub const MODES: [&str; 2] = ["stat", "trace"];

/// The one in which programs are counted one by one.
const EVENTS: &str = "trace";

/// The mode that is none.
const UNWATCHED: &str = "unwatched";

/// Begins a line with the name of a mode, and the one with a reason.
const MODE: &str = "bench mode ";
const REFUSED: &str = "bench refused ";

/// One kernel under one backend.
#[derive(Debug)]
pub struct Guest {
    /// The series of the kernel.
    pub series: String,
    /// The backend.
    pub hooks: &'static str,
    /// What was counted, or why nothing was.
    pub counts: Result<Counts, String>,
}

/// Instructions per operation.
#[derive(Debug, Default, PartialEq)]
pub struct Counts {
    /// By mode and loop.
    loops: BTreeMap<String, BTreeMap<String, f64>>,
    /// Of a pair, by kernel program, while every event is sent.
    pub programs: Vec<Program>,
}

/// One kernel program's part of a pair.
#[derive(Debug, PartialEq)]
pub struct Program {
    /// As much of its name as the kernel keeps.
    pub name: String,
    /// How often it runs.
    pub runs: f64,
    /// Instructions of all runs, with those of taking the time.
    pub instructions: f64,
}

impl Program {
    /// `program NAME RUNS INSTRUCTIONS`
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("program ")?.split(' ');
        Some(Self {
            name: words.next()?.to_owned(),
            runs: words.next()?.parse().ok()?,
            instructions: words.next()?.parse().ok()?,
        })
    }
}

impl Guest {
    /// Why a backend that any of these kernels has was not counted.
    pub fn failure(&self) -> Option<String> {
        let reason = self.counts.as_ref().err()?;
        let expected = self.hooks == HOOKS[0] || KERNELS.contains(&self.series.as_str());
        expected.then(|| format!("Linux {}, {}: {reason}", self.series, self.hooks))
    }

    /// Instructions of a loop that nobody watches.
    pub fn unwatched(&self, name: &str) -> Option<f64> {
        self.counts.as_ref().ok()?.of(UNWATCHED, name)
    }

    /// Instructions that watching in this mode adds.
    pub fn added(&self, mode: &str, name: &str) -> Option<f64> {
        let watched = self.counts.as_ref().ok()?.of(mode, name)?;
        Some(watched - self.unwatched(name)?)
    }

    /// For machines.
    pub fn to_json(&self) -> Value {
        match &self.counts {
            Ok(counts) => {
                let programs = counts.programs.iter().map(|program| {
                    let Program {
                        name,
                        runs,
                        instructions,
                    } = program;
                    json!({"name": name, "runs": runs, "instructions": instructions})
                });
                json!({
                    "kernel": self.series,
                    "hooks": self.hooks,
                    "instructions": counts.loops,
                    "programs": programs.collect::<Vec<_>>(),
                })
            }
            Err(reason) => json!({"kernel": self.series, "hooks": self.hooks, "reason": reason}),
        }
    }
}

impl Counts {
    fn of(&self, mode: &str, name: &str) -> Option<f64> {
        self.loops.get(mode)?.get(name).copied()
    }

    /// Of what the script wrote. A mode that comes twice has the smaller values:
    /// nothing makes code take fewer instructions than it has.
    fn parse(lines: &[String]) -> Result<Self, String> {
        let mut counts = Self::default();
        let mut blocks: Vec<(&str, String)> = Vec::new();
        for line in lines {
            if let Some(reason) = line.strip_prefix(REFUSED) {
                return Err(reason.to_owned());
            }
            if let Some(mode) = line.strip_prefix(MODE) {
                blocks.push((mode, String::new()));
            } else if let Some(program) = Program::parse(line) {
                counts.programs.push(program);
            } else if let Some((_, text)) = blocks.last_mut() {
                text.push_str(line);
                text.push('\n');
            }
        }
        for (mode, text) in &blocks {
            let of_mode = counts.loops.entry((*mode).to_owned()).or_default();
            for (name, value) in values(text) {
                if LOOPS.contains(&name) {
                    let smallest = of_mode.entry(name.to_owned()).or_insert(value);
                    *smallest = smallest.min(value);
                }
            }
        }
        for mode in [UNWATCHED].iter().chain(&MODES) {
            if let Some(name) = LOOPS.iter().find(|name| counts.of(mode, name).is_none()) {
                return Err(format!("the VM did not tell of {name} ({mode})"));
            }
        }
        Ok(counts)
    }
}

/// Boots a VM for each kernel and backend.
pub fn run(workspace: &Workspace, setting: &Setting) -> Result<Vec<Guest>> {
    eprintln!(
        "bench: instructions in VMs with Linux {}",
        setting.kernels.join(", ")
    );
    let scripts: Vec<_> = setting
        .guest_hooks
        .iter()
        .map(|hooks| (*hooks, script(hooks)))
        .collect();
    let programs = vec![
        ("mmwatch".to_owned(), setting.agent.clone()),
        ("workload".to_owned(), setting.workload.clone()),
    ];
    let all = vm::counted(workspace, programs, &setting.kernels, &scripts)?;
    Ok(all
        .into_iter()
        .map(|counted| Guest {
            series: counted.series,
            hooks: counted.name,
            counts: counted.lines.and_then(|lines| Counts::parse(&lines)),
        })
        .collect())
}

/// What the VM runs. Sleep takes no time there, so it can wait until the kernel's
/// late boot work is over. mmwatch watches once it handles SIGINT: bit 1 of the
/// mask, thus the last digit. Before it is mmwatch at all, it is a copy of the
/// shell, with the shell's handlers.
fn script(hooks: &str) -> String {
    let (loops, modes) = (LOOPS.join(" "), MODES.join(" "));
    format!(
        r#"
measure() {{
    echo "{MODE}$1"
    workload count 20 {loops} || exit 1
}}
attached() {{
    grep -q '^Name:.*mmwatch' $1 && grep -q 'SigCgt:.*[2367abef]$' $1
}}
sleep 30
measure {UNWATCHED}
for mode in {modes}; do
    mmwatch $mode --hooks {hooks} >/dev/null 2>/tmp/messages &
    agent=$!
    until attached /proc/$agent/status; do
        if grep -q 'State:.*Z' /proc/$agent/status; then
            echo "{REFUSED}$(tail -n 1 /tmp/messages)"
            exit 0
        fi
        sleep 0.1
    done
    sleep 1
    measure $mode
    test $mode = {EVENTS} && workload programs 50
    kill -TERM $agent
    wait $agent || exit 1
done
measure {UNWATCHED}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn programs_have_their_own_lines() {
        let program = Program {
            name: "released".to_owned(),
            runs: 2.0,
            instructions: 812.0,
        };
        assert_eq!(Program::parse("program released 2.0 812"), Some(program));
        assert_eq!(Program::parse("program released 2.0"), None);
        assert_eq!(Program::parse("pair 812"), None);
    }

    const ALL: &str = "\
bench mode unwatched
pair 10000.5
fault 7000
getppid 300
[   12.3] a message of the kernel 17
bench mode stat
pair 10500.5
fault 7000
getppid 301
bench mode trace
pair 12000.5
fault 7000
getppid 300
bench mode unwatched
pair 10100.0
fault 6990
getppid 300
";

    #[test]
    fn added_is_over_the_smallest_unwatched() {
        let guest = Guest {
            series: "7.2".to_owned(),
            hooks: "fentry",
            counts: Counts::parse(&lines(ALL)),
        };
        assert_eq!(guest.unwatched("pair"), Some(10_000.5));
        assert_eq!(guest.added("stat", "pair"), Some(500.0));
        assert_eq!(guest.added("trace", "pair"), Some(2000.0));
        assert_eq!(guest.added("trace", "fault"), Some(10.0));
        assert_eq!(guest.added("trace", "other"), None);
    }

    #[test]
    fn a_refusal_and_a_gap_are_no_counts() {
        let refused = lines("bench mode unwatched\npair 1\nbench refused error: no kprobes\n");
        assert_eq!(Counts::parse(&refused), Err("error: no kprobes".to_owned()));
        let torn: Vec<_> = lines(ALL).into_iter().take(6).collect();
        assert!(Counts::parse(&torn).is_err());
    }

    #[test]
    fn the_script_names_all_that_is_counted() {
        let script = script("kprobe");
        assert!(script.contains("--hooks kprobe"));
        assert!(script.contains("workload count 20 pair fault getppid"));
        assert!(script.contains("for mode in stat trace"));
    }
}

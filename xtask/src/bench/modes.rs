//! Everything that can watch, and how it is started.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    Setting,
    observer::{Attached, Spec},
};
use crate::process;

/// How long rivals that do not tell when they are attached have for it.
const SETTLE: Duration = Duration::from_millis(1500);

/// mmwatch ends by itself after this time, should we be killed.
const END_S: &str = "600";

/// The calls that rivals are to watch: those that the workloads make.
const CALLS: [&str; 4] = ["mmap", "munmap", "mprotect", "mremap"];

/// The modes that are mmwatch, by their names in JSON.
pub const OWN: [&str; 6] = [
    "stat",
    "trace",
    "trace_json",
    "record",
    "trace_other",
    "trace_cgroup",
];

/// A row of the tables.
pub struct Mode {
    /// Its name in JSON.
    pub id: &'static str,
    /// What it is, for people.
    pub label: &'static str,
    /// How it watches.
    pub how: How,
}

/// How a mode watches.
pub enum How {
    /// Beside the workload.
    Beside(Spec),
    /// The workload is its child.
    Around(Vec<String>),
    /// It cannot, for this reason.
    Not(String),
}

/// All modes.
pub struct Modes {
    /// The rows of the tables.
    pub rows: Vec<Mode>,
    /// Notes on how they could be had.
    pub notes: Vec<String>,
    /// What one of them watches.
    _cgroup: Option<EmptyCgroup>,
}

/// A cgroup without processes. It goes when this is dropped.
struct EmptyCgroup(PathBuf);

impl EmptyCgroup {
    /// In the hierarchy by which mmwatch tells processes apart.
    fn make(hierarchy: &Value) -> std::result::Result<Self, String> {
        let mount = hierarchy["mount"]
            .as_str()
            .ok_or("no cgroups are mounted")?;
        let path = Path::new(mount).join(format!("mmwatch-bench-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for EmptyCgroup {
    fn drop(&mut self) {
        // Left behind, it is empty and harms nobody.
        let _ = fs::remove_dir(&self.0);
    }
}

/// Finds out what can watch here.
pub fn all(setting: &Setting, scratch: &Path) -> Result<Modes> {
    let mut check = Command::new(&setting.agent);
    check.args(["check", "-o", "json", "--hooks", &setting.hooks]);
    let checked: Value =
        serde_json::from_str(&process::quiet_stdout(&mut check)?).context("mmwatch check")?;
    let cgroup = EmptyCgroup::make(&checked["facts"]["hierarchy"]);
    let mut notes = Vec::new();
    let mut rows = vec![empty(setting, scratch, &checked["plan"])];
    rows.extend(mmwatch(setting, scratch, &cgroup));
    let prefix = tracefs_prefix(&mut notes);
    rows.extend(rivals(scratch, &prefix));
    Ok(Modes {
        rows,
        notes,
        _cgroup: cgroup.ok(),
    })
}

fn spec(scratch: &Path, id: &str, argv: Vec<String>, attached: Attached) -> Spec {
    Spec {
        argv,
        output: PathBuf::from("/dev/null"),
        messages: scratch.join(format!("{id}.err")),
        attached,
    }
}

/// An empty program wherever mmwatch has one: the least that watching there costs.
fn empty(setting: &Setting, scratch: &Path, plan: &Value) -> Mode {
    let how = match tracepoints(plan) {
        Ok(tracepoints) => {
            let id = "empty";
            let mut argv = vec![setting.workload.display().to_string(), id.into()];
            argv.extend(tracepoints);
            How::Beside(Spec {
                output: scratch.join("empty.out"),
                ..spec(scratch, id, argv, Attached::Says("ready", Duration::ZERO))
            })
        }
        Err(reason) => How::Not(reason),
    };
    Mode {
        id: "empty",
        label: "an empty program on the same hooks",
        how,
    }
}

/// The raw tracepoints of a plan.
fn tracepoints(plan: &Value) -> std::result::Result<Vec<String>, String> {
    let programs = plan["programs"].as_array().map_or(&[][..], Vec::as_slice);
    programs
        .iter()
        .map(|program| match (&program["kind"], &program["target"]) {
            (Value::String(kind), Value::String(target)) if kind == "raw_tracepoint" => {
                Ok(target.clone())
            }
            _ => Err("some hooks are functions, not tracepoints; try `--hooks tracepoint`".into()),
        })
        .collect()
}

fn mmwatch(
    setting: &Setting,
    scratch: &Path,
    cgroup: &std::result::Result<EmptyCgroup, String>,
) -> Vec<Mode> {
    let own_pid = std::process::id().to_string();
    let cgroup = cgroup.as_ref().map(|cgroup| cgroup.0.display().to_string());
    let recording = scratch.join("record.mmw").display().to_string();
    let rows: [(_, _, &[&str]); 6] = [
        ("stat", "mmwatch stat: sums in the kernel", &["stat"]),
        (
            "trace",
            "mmwatch trace > /dev/null: every event",
            &["trace"],
        ),
        (
            "trace_json",
            "mmwatch trace -o json > FILE, in memory",
            &["trace", "-o", "json"],
        ),
        (
            "record",
            "mmwatch record, in memory, rotated",
            // Room for as long as it takes.
            &[
                "record",
                "-o",
                &recording,
                "--force",
                "--rotate",
                "64M",
                "--max-size",
                "256M",
            ],
        ),
        (
            "trace_other",
            "mmwatch trace -p PID, of another process",
            &["trace", "-p", &own_pid],
        ),
        (
            "trace_cgroup",
            "mmwatch trace --cgroup PATH, of nobody",
            &["trace", "--cgroup", cgroup.as_deref().unwrap_or_default()],
        ),
    ];
    rows.into_iter()
        .map(|(id, label, args)| {
            let mut argv = vec![setting.agent.display().to_string()];
            argv.extend(args.iter().map(|&arg| arg.to_owned()));
            argv.extend(["--hooks", &setting.hooks, "-d", END_S].map(str::to_owned));
            let mut spec = spec(scratch, id, argv, Attached::HandlesInterrupt);
            if id == "trace_json" {
                spec.output = scratch.join("trace.json");
            }
            let how = match &cgroup {
                Err(reason) if id == "trace_cgroup" => How::Not((*reason).clone()),
                _ => How::Beside(spec),
            };
            Mode { id, label, how }
        })
        .collect()
}

/// What a rival is run with where tracefs is not mounted: it gets one of its own.
fn tracefs_prefix(notes: &mut Vec<String>) -> Vec<String> {
    if Path::new("/sys/kernel/tracing/events").is_dir() {
        return Vec::new();
    }
    notes.push(
        "tracefs was not mounted here; bpftrace and perf had it in a mount namespace of their own"
            .into(),
    );
    let script = "mount -t tracefs tracefs /sys/kernel/tracing && exec \"$@\"";
    ["unshare", "--mount", "sh", "-c", script, "sh"]
        .map(str::to_owned)
        .into()
}

fn rivals(scratch: &Path, prefix: &[String]) -> Vec<Mode> {
    let enter: Vec<String> = CALLS
        .iter()
        .map(|call| format!("sys_enter_{call}"))
        .collect();
    let probes: Vec<String> = enter
        .iter()
        .map(|name| format!("tracepoint:syscalls:{name}"))
        .collect();
    let probes = probes.join(",");
    let events: Vec<String> = enter
        .iter()
        .map(|name| format!("syscalls:{name}"))
        .collect();

    let words = |line: &[&str]| line.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let bpftrace = |action: &str| words(&["bpftrace", "-e", &format!("{probes} {{ {action} }}")]);
    let data = scratch.join("perf.data").display().to_string();
    // bpftrace says this before it attaches.
    let bpftrace_attached = Attached::Says("Attaching", SETTLE);
    let rows = [
        (
            "bpftrace_count",
            "bpftrace, counting calls",
            bpftrace("@[comm] = count();"),
            bpftrace_attached,
        ),
        (
            "bpftrace_print",
            "bpftrace, printing calls",
            bpftrace("printf(\"%d %s %s\\n\", pid, comm, probe);"),
            bpftrace_attached,
        ),
        (
            "perf_record",
            "perf record, entries of calls",
            words(&["perf", "record", "-a", "-o", &data, "-e", &events.join(",")]),
            Attached::After(SETTLE),
        ),
        (
            "perf_trace",
            "perf trace",
            words(&[
                "perf",
                "trace",
                "-a",
                "-o",
                "/dev/null",
                "-e",
                &CALLS.join(","),
            ]),
            Attached::After(SETTLE),
        ),
    ];
    let mut modes: Vec<_> = rows
        .into_iter()
        .map(|(id, label, argv, attached)| {
            let how = if in_path(&argv[0]) {
                let argv = prefix.iter().chain(&argv).cloned().collect();
                let mut spec = spec(scratch, id, argv, attached);
                if let Attached::Says(..) = attached {
                    spec.output = scratch.join(format!("{id}.out"));
                }
                How::Beside(spec)
            } else {
                How::Not(format!("there is no {}", argv[0]))
            };
            Mode { id, label, how }
        })
        .collect();
    let strace = words(&[
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=%memory",
    ]);
    modes.push(Mode {
        id: "strace",
        label: "strace -f -e trace=%memory",
        how: if in_path("strace") {
            How::Around(strace)
        } else {
            How::Not("there is no strace".into())
        },
    });
    modes
}

/// Whether there is a program of this name. Asking it for its version is not
/// enough: a rival may be a script that looks for another one.
fn in_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| {
        env::split_paths(&path)
            .any(|dir| fs::metadata(dir.join(program)).is_ok_and(|f| f.is_file()))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_program_needs_tracepoints() {
        let raw = json!({"kind": "raw_tracepoint", "target": "sys_exit"});
        let function = json!({"kind": "fentry", "target": "mmap_region"});
        assert_eq!(
            tracepoints(&json!({"programs": [raw]})),
            Ok(vec!["sys_exit".to_owned()])
        );
        assert!(tracepoints(&json!({"programs": [raw, function]})).is_err());
    }
}

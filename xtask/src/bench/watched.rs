//! What watching costs those who are watched.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Setting,
    modes::Mode,
    paired::{self, Table},
    stats::Values,
};
use crate::process;

/// The loops of the workload, by the name it gives them.
const LOOPS: [&str; 9] = [
    "pair", "pair2", "touched", "file", "fixed", "protect", "remap", "fault", "getppid",
];

/// Modes that whole programs are run under.
const PROGRAM_MODES: [&str; 2] = ["stat", "trace"];

/// The loops under every mode.
pub fn loops(setting: &Setting, modes: &[Mode]) -> Result<Table> {
    let modes: Vec<_> = modes.iter().collect();
    paired::run(&modes, &LOOPS, setting.repetitions, |prefix| {
        let mut command = command(prefix, &setting.workload);
        command.args(["run", &setting.loop_ms.to_string()]);
        let output = process::stdout(&mut command)?;
        let values = values(&output);
        LOOPS
            .iter()
            .map(|&name| {
                let value = values.get(name).copied();
                value.with_context(|| format!("the workload did not tell of {name}"))
            })
            .collect()
    })
}

/// Programs as users run them, under the modes that users run most.
pub fn programs(setting: &Setting, modes: &[Mode], scratch: &Path) -> Result<Table> {
    let tiny = tiny_crate(scratch)?;
    let redis = scratch.join("redis.sh");
    fs::write(&redis, REDIS).context("a script for redis")?;
    let runs = setting.program_runs;
    let mut all = vec![
        Program::new("true", &["true"], 4 * runs),
        Program::new("python3 -c pass", &["python3", "-c", "pass"], runs),
        Program::new("node -e 0", &["node", "-e", "0"], runs.div_ceil(4)),
        Program::new("java -version", &["java", "-version"], runs.div_ceil(4)),
        Program {
            dir: Some(scratch.to_owned()),
            ..Program::new("redis-benchmark", &["bash", "redis.sh"], runs.div_ceil(4))
        },
        Program {
            touch: Some(tiny.join("src/lib.rs")),
            dir: Some(tiny),
            ..Program::new(
                "cargo check",
                &["cargo", "check", "--quiet", "--offline"],
                runs.div_ceil(4),
            )
        },
    ];
    all.retain(|program| {
        let works = program.time().is_ok();
        if !works {
            eprintln!("bench: `{}` does not run here", program.name);
        }
        works
    });
    let names: Vec<_> = all.iter().map(|program| program.name).collect();
    let modes: Vec<_> = modes
        .iter()
        .filter(|mode| PROGRAM_MODES.contains(&mode.id))
        .collect();
    paired::run(&modes, &names, setting.repetitions, |_| {
        all.iter().map(Program::median).collect()
    })
}

/// redis under its own benchmark. Debian's server is the same executable as one of
/// the tools, which goes by its name.
const REDIS: &str = r#"
set -e
for program in redis-check-rdb redis-cli redis-benchmark; do command -v "$program"; done
dir=$(mktemp -d)
trap 'rm -r "$dir"' EXIT
(exec -a redis-server redis-check-rdb --port 0 --unixsocket "$dir/socket" --save '') &
server=$!
until redis-cli -s "$dir/socket" ping; do kill -0 "$server"; sleep 0.01; done
redis-benchmark -s "$dir/socket" -n 30000 -t set,get -d 4096 -r 10000
redis-cli -s "$dir/socket" shutdown nosave || true
wait
"#;

/// A program that is run whole, several times.
struct Program {
    name: &'static str,
    argv: Vec<&'static str>,
    runs: u32,
    dir: Option<PathBuf>,
    /// A file that is new for every run.
    touch: Option<PathBuf>,
}

impl Program {
    fn new(name: &'static str, argv: &[&'static str], runs: u32) -> Self {
        Self {
            name,
            argv: argv.to_vec(),
            runs,
            dir: None,
            touch: None,
        }
    }

    fn median(&self) -> Result<f64> {
        let times = (0..self.runs.max(1))
            .map(|_| self.time())
            .collect::<Result<Vec<_>>>()?;
        Ok(Values::new(times).context("no time")?.median())
    }

    /// One run, in nanoseconds.
    fn time(&self) -> Result<f64> {
        if let Some(path) = &self.touch {
            fs::write(path, "//! Nothing.\n").context("a source file")?;
        }
        let (program, args) = self.argv.split_first().context("no program")?;
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(dir) = &self.dir {
            command.current_dir(dir).env_remove("CARGO_TARGET_DIR");
        }
        let start = Instant::now();
        let status = command.status().with_context(|| self.name)?;
        let elapsed = start.elapsed();
        ensure!(status.success(), "`{}` failed ({status})", self.name);
        Ok(elapsed.as_nanos() as f64)
    }
}

/// A crate of one line, outside any workspace.
fn tiny_crate(scratch: &Path) -> Result<PathBuf> {
    let dir = scratch.join("tiny");
    let manifest = "[package]\nname = \"tiny\"\nedition = \"2024\"\n\n[workspace]\n";
    fs::create_dir_all(dir.join("src"))
        .and_then(|()| fs::write(dir.join("Cargo.toml"), manifest))
        .context("a crate to check")?;
    Ok(dir)
}

/// `program`, with what is to be around it.
pub fn command(prefix: &[String], program: &Path) -> Command {
    match prefix.split_first() {
        None => Command::new(program),
        Some((around, args)) => {
            let mut command = Command::new(around);
            command.args(args).arg(program);
            command
        }
    }
}

/// `NAME VALUE` by lines.
pub fn values(output: &str) -> HashMap<&str, f64> {
    output
        .lines()
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name, value.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_name_and_a_value() {
        let values = values("pair 5200.5\nnot a line\ngetppid 100\n");
        assert_eq!(values.len(), 2);
        assert_eq!(values.get("pair"), Some(&5200.5));
    }

    #[test]
    fn what_is_around_comes_first() {
        let prefix = ["strace", "-f"].map(str::to_owned);
        let around = command(&prefix, Path::new("/w"));
        assert_eq!(process::line(&around), "strace -f /w");
        assert_eq!(process::line(&command(&[], Path::new("/w"))), "/w");
    }
}

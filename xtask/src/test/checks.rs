//! What was checked, how long it took, and what failed.

use std::{
    fmt::Write as _,
    process::ExitCode,
    thread::ScopedJoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

/// Disk that a run may take.
const MOST_BYTES: u64 = 12 << 30;

/// The checks of one run, in the order in which they ended.
pub struct Checks {
    start: Instant,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    name: String,
    time: Duration,
    /// Whether others were done meanwhile.
    is_beside: bool,
    failure: Option<String>,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            steps: Vec::new(),
        }
    }
}

fn disk(bytes: u64) -> String {
    let tenths = bytes * 10 / (1 << 30);
    let more = if bytes > MOST_BYTES {
        ", which is more than the 12 GiB that a fresh run may take"
    } else {
        ""
    };
    format!("{}.{} GiB in target{more}", tenths / 10, tenths % 10)
}

/// Does something and says how long it took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    (work(), start.elapsed())
}

impl Checks {
    /// Announces and does one check; whether it passed.
    pub fn step(&mut self, name: &str, check: impl FnOnce() -> Result<()>) -> bool {
        self.value(name, check).is_some()
    }

    /// The same for a check that has a result.
    pub fn value<T>(&mut self, name: &str, check: impl FnOnce() -> Result<T>) -> Option<T> {
        println!("\n==> {name}");
        let (result, time) = timed(check);
        self.ended(name, time, false, result)
    }

    /// Waits for a check that is done meanwhile.
    pub fn join(&mut self, name: &str, check: ScopedJoinHandle<'_, (Result<()>, Duration)>) {
        println!("\n==> waiting for: {name}");
        let (result, time) = check
            .join()
            .unwrap_or_else(|_| (Err(anyhow!("its thread panicked")), Duration::ZERO));
        self.ended(name, time, true, result);
    }

    fn ended<T>(
        &mut self,
        name: &str,
        time: Duration,
        is_beside: bool,
        result: Result<T>,
    ) -> Option<T> {
        let failure = result.as_ref().err().map(|error| format!("{error:#}"));
        if let Some(failure) = &failure {
            println!("FAILED: {name}: {failure}");
        }
        self.steps.push(Step {
            name: name.to_owned(),
            time,
            is_beside,
            failure,
        });
        result.ok()
    }

    /// Prints where the time went, what failed, and the disk that `target` takes.
    pub fn summary(&self, disk_bytes: Option<u64>) -> ExitCode {
        let total = self.start.elapsed();
        print!("\n{}", self.table(total));
        match disk_bytes {
            Some(bytes) => println!("disk: {}", disk(bytes)),
            None => println!("disk: du cannot read target"),
        }

        let failures: Vec<_> = self
            .steps
            .iter()
            .filter_map(|step| Some((&step.name, step.failure.as_ref()?)))
            .collect();
        let count = self.steps.len();
        let time = format!("{} min {} s", total.as_secs() / 60, total.as_secs() % 60);
        if failures.is_empty() {
            println!("\n==> all {count} checks passed in {time}");
            return ExitCode::SUCCESS;
        }
        println!(
            "\n==> {} of {count} checks failed in {time}:",
            failures.len()
        );
        for (name, failure) in failures {
            println!("  {name}: {failure}");
        }
        ExitCode::FAILURE
    }

    /// Each step with its share of the whole. Those done beside others are not part of the sum.
    fn table(&self, total: Duration) -> String {
        let mut text = format!("{:<48}{:>8}{:>7}\n", "step", "seconds", "share");
        let mut row = |name: &str, time: Duration| {
            let share = 100.0 * time.as_secs_f64() / total.as_secs_f64().max(0.001);
            let _ = writeln!(text, "{name:<48}{:>8.0}{share:>6.0}%", time.as_secs_f64());
        };
        let mut sum = Duration::ZERO;
        for step in self.steps.iter().filter(|step| !step.is_beside) {
            row(&step.name, step.time);
            sum += step.time;
        }
        row("waiting, and between steps", total.saturating_sub(sum));
        row("in all", total);
        for step in self.steps.iter().filter(|step| step.is_beside) {
            row(&format!("beside them: {}", step.name), step.time);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn one_failure_fails_all_and_stops_nothing() {
        let mut checks = Checks::default();
        assert!(!checks.step("first", || bail!("no")));
        assert!(checks.step("second", || Ok(())));
        assert_eq!(checks.value("third", || Ok(3)), Some(3));
        let failures: Vec<_> = checks.steps.iter().map(|step| &step.failure).collect();
        assert_eq!(failures, [&Some("no".to_owned()), &None, &None]);
        assert_eq!(checks.summary(None), ExitCode::FAILURE);
        assert_eq!(Checks::default().summary(None), ExitCode::SUCCESS);
    }

    #[test]
    fn a_check_beside_others_counts_too() {
        let mut checks = Checks::default();
        std::thread::scope(|scope| {
            let beside = scope.spawn(|| timed(|| bail!("no boot")));
            checks.step("meanwhile", || Ok(()));
            checks.join("VMs", beside);
        });
        assert_eq!(checks.summary(None), ExitCode::FAILURE);
    }

    #[test]
    fn disk_is_in_gib() {
        assert_eq!(disk(0), "0.0 GiB in target");
        assert_eq!(disk(6_800_000_000), "6.3 GiB in target");
        assert!(disk(MOST_BYTES + 1).contains("more than"));
    }

    #[test]
    fn the_table_adds_up() {
        let step = |name: &str, seconds, is_beside| Step {
            name: name.to_owned(),
            time: Duration::from_secs(seconds),
            is_beside,
            failure: None,
        };
        let checks = Checks {
            start: Instant::now(),
            steps: vec![
                step("build", 60, false),
                step("VMs", 90, true),
                step("unit tests", 30, false),
            ],
        };
        let table = checks.table(Duration::from_secs(120));
        assert!(table.contains("build                                                 60    50%"));
        assert!(table.contains("waiting, and between steps                            30    25%"));
        assert!(table.contains("in all                                               120   100%"));
        assert!(table.contains("beside them: VMs                                      90    75%"));
    }
}

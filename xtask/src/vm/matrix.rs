//! Kernels × backends: what each pair came to, as people read it.

use std::{fmt::Write as _, fs, path::PathBuf};

use super::{
    Hooks,
    console::{Outcome, Times},
    kernels::Kernel,
};

/// So much of a failed VM's console is printed at once.
const TAIL_LINES: usize = 15;

/// The tests of one kernel with one backend.
pub struct Cell {
    /// Version of the kernel.
    pub kernel: String,
    pub hooks: Hooks,
    pub outcome: Outcome,
    pub times: Times,
    pub log: PathBuf,
}

impl Cell {
    /// Judges an outcome: Debian's kernels all have trampolines, kprobes and raw tracepoints, so a
    /// backend that is not available is our fault.
    pub fn new(
        kernel: &Kernel,
        hooks: Hooks,
        outcome: Outcome,
        times: Times,
        log: PathBuf,
    ) -> Self {
        let outcome = match outcome {
            Outcome::NotAvailable(reason) => {
                Outcome::Failed(format!("must be available here: {reason}"))
            }
            other => other,
        };
        Self {
            kernel: kernel.version.clone(),
            hooks,
            outcome,
            times,
            log,
        }
    }

    pub fn has_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }

    fn verdict(&self) -> String {
        match &self.outcome {
            Outcome::Passed(count) => format!("ok ({count})"),
            Outcome::NotAvailable(_) => "n/a".to_owned(),
            Outcome::Failed(_) => "FAILED".to_owned(),
        }
    }
}

/// A table with a row for each kernel, in the order of `cells`, and the reason of
/// everything that is not plainly ok below it.
pub fn table(cells: &[Cell]) -> String {
    let mut kernels: Vec<&str> = cells.iter().map(|cell| cell.kernel.as_str()).collect();
    kernels.dedup();
    let mut columns: Vec<Hooks> = cells.iter().map(|cell| cell.hooks).collect();
    columns.sort_unstable();
    columns.dedup();

    let mut rows = vec![vec!["kernel".to_owned()]];
    rows[0].extend(columns.iter().map(|hooks| hooks.name().to_owned()));
    for kernel in kernels {
        let verdict = |hooks: &Hooks| {
            let cell = cells
                .iter()
                .find(|cell| cell.kernel == kernel && cell.hooks == *hooks);
            cell.map(Cell::verdict).unwrap_or_default()
        };
        let mut row = vec![kernel.to_owned()];
        row.extend(columns.iter().map(verdict));
        rows.push(row);
    }

    let mut text = String::new();
    for row in &rows {
        let line: String = row.iter().map(|word| format!("{word:<12}")).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for cell in cells {
        let (Outcome::NotAvailable(reason) | Outcome::Failed(reason)) = &cell.outcome else {
            continue;
        };
        let (kernel, hooks, verdict) = (&cell.kernel, cell.hooks.name(), cell.verdict());
        let _ = writeln!(text, "{verdict}: {kernel} {hooks}: {reason}");
    }
    text
}

/// Where the time of each cell went, in seconds: its boot, all starts of mmwatch, which are
/// mostly the kernel's verifier, its cases with those starts in them, and the longest case.
pub fn times(cells: &[Cell]) -> String {
    let mut text = format!(
        "{:<22}{:>6}{:>8}{:>8}  longest case\n",
        "seconds", "boot", "starts", "cases"
    );
    for cell in cells {
        let times = &cell.times;
        let name = format!("{} {}", cell.kernel, cell.hooks.name());
        let starts = times.starts.map_or_else(
            || "-".to_owned(),
            |(count, each)| format!("{:.0}", f64::from(count) * each.as_secs_f64()),
        );
        let longest = times.cases.iter().max_by_key(|(_, time)| *time);
        let longest = longest.map_or_else(String::new, |(case, time)| {
            let case = case.rsplit("::").next().unwrap_or(case);
            format!("{case}, {:.0}", time.as_secs_f64())
        });
        let line = format!(
            "{name:<22}{:>6.0}{starts:>8}{:>8.0}  {longest}",
            times.boot.as_secs_f64(),
            times.run.as_secs_f64()
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The end of each failed VM's console, with the path of the whole.
pub fn failures(cells: &[Cell]) -> String {
    let mut text = String::new();
    for cell in cells.iter().filter(|cell| cell.has_failed()) {
        let log = fs::read_to_string(&cell.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        let (kernel, hooks) = (&cell.kernel, cell.hooks.name());
        let _ = writeln!(
            text,
            "\n{kernel} {hooks}, the end of {}:",
            cell.log.display()
        );
        for line in tail {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn cell(version: &str, hooks: Hooks, outcome: Outcome) -> Cell {
        let kernel = Kernel {
            series: String::new(),
            version: version.to_owned(),
            image: PathBuf::new(),
        };
        let log = PathBuf::from("/nowhere/x.log");
        Cell::new(&kernel, hooks, outcome, Times::default(), log)
    }

    #[test]
    fn each_cell_has_its_times() {
        let other = cell("6.1.1", Hooks::Kprobe, Outcome::Passed(1));
        let mut cell = cell("7.2.12", Hooks::Fentry, Outcome::Passed(2));
        cell.times = Times {
            boot: Duration::from_secs(4),
            run: Duration::from_secs(60),
            starts: Some((10, Duration::from_millis(4_400))),
            cases: vec![
                ("fentry::short".to_owned(), Duration::from_secs(20)),
                ("fentry::long".to_owned(), Duration::from_secs(40)),
            ],
        };
        assert_eq!(
            times(&[cell, other]),
            "\
seconds                 boot  starts   cases  longest case
7.2.12 fentry              4      44      60  long, 40
6.1.1 kprobe               0       -       0
"
        );
    }

    #[test]
    fn a_table_tells_all() {
        let cells = [
            cell("5.10.262", Hooks::Fentry, Outcome::Passed(12)),
            cell("5.10.262", Hooks::Tracepoint, Outcome::Passed(9)),
            cell(
                "7.2.12",
                Hooks::Fentry,
                Outcome::Failed("no verdict".to_owned()),
            ),
            cell("7.2.12", Hooks::Tracepoint, Outcome::Passed(11)),
        ];
        assert_eq!(
            table(&cells),
            "\
kernel      fentry      tracepoint
5.10.262    ok (12)     ok (9)
7.2.12      FAILED      ok (11)
FAILED: 7.2.12 fentry: no verdict
"
        );
        let failures = failures(&cells);
        assert!(failures.contains("7.2.12 fentry, the end of /nowhere/x.log:"));
        assert!(!failures.contains("5.10"));
    }

    #[test]
    fn no_backend_may_be_missing() {
        for hooks in [Hooks::Fentry, Hooks::Kprobe, Hooks::Tracepoint] {
            let cell = cell("6.1.1", hooks, Outcome::NotAvailable("old".to_owned()));
            assert!(cell.has_failed(), "{hooks:?}");
        }
    }
}

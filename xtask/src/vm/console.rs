//! What a VM's console says: the command's output, its verdict, what the kernel has to
//! complain about, and when.

use std::time::Duration;

/// Before this line it is the firmware and the kernel that speak.
const BEGIN: &str = "mmwatch-vm: begin";
const VERDICT: &str = "mmwatch-vm: exit ";
/// What the kernel tests print when the kernel cannot have the backend at all.
const NOT_AVAILABLE: &str = "not available: ";
/// Before what the kernel tests print of their starts of mmwatch.
const STARTS: &str = "starts of mmwatch: ";
/// Their exit code in that case.
const NOT_AVAILABLE_CODE: i32 = 77;

/// Reads a console line by line.
#[derive(Default)]
pub struct Console {
    began: bool,
    exit: Option<i32>,
    complaint: Option<String>,
    not_available: Option<String>,
    /// What each harness wrote last.
    results: Vec<String>,
    times: Times,
}

/// Where the time of a VM went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    /// From QEMU's start to the first line of ours.
    pub boot: Duration,
    /// From there to the verdict.
    pub run: Duration,
    /// How often mmwatch was started, and how long one start takes, which is mostly the
    /// kernel's verifier.
    pub starts: Option<(u32, Duration)>,
    /// Each case, in the order in which they were run.
    pub cases: Vec<(String, Duration)>,
}

/// How the tests of one VM ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of so many tests passed.
    Passed(u32),
    /// The kernel cannot have this backend, for this reason.
    NotAvailable(String),
    /// Anything else.
    Failed(String),
}

impl Console {
    /// Takes the next line, which came so long after QEMU's start; returns what of it the
    /// command wrote, or the kernel meanwhile. A command may end in the middle of a line, so our
    /// marks can stand at the end of one.
    pub fn line<'a>(&mut self, line: &'a str, now: Duration) -> Option<&'a str> {
        if self.complaint.is_none() && is_complaint(line) {
            self.complaint = Some(line.trim().to_owned());
        }
        if !self.began {
            self.began = line.ends_with(BEGIN);
            self.times.boot = now;
            return None;
        }
        if self.exit.is_some() {
            return None;
        }
        if let Some((before, code)) = line.split_once(VERDICT) {
            self.exit = code.parse().ok();
            self.times.run = now.saturating_sub(self.times.boot);
            return Some(before).filter(|text| !text.is_empty());
        }
        if let Some(reason) = line.strip_prefix(NOT_AVAILABLE) {
            self.not_available = Some(reason.to_owned());
        } else if line.starts_with("test result: ") {
            self.results.push(line.to_owned());
        } else if let Some(starts) = line.strip_prefix(STARTS) {
            self.times.starts = starts_of(starts);
        } else if let Some(name) = line.strip_prefix("test ") {
            // The harness ends the line when the case has ended.
            let name = name.split(' ').next().unwrap_or(name).to_owned();
            let before: Duration = self.times.cases.iter().map(|(_, time)| *time).sum();
            let time = now.saturating_sub(self.times.boot + before);
            self.times.cases.push((name, time));
        }
        Some(line)
    }

    /// Where the time went so far.
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// Whether the verdict has come, so that nothing but the power-off is left.
    pub fn is_over(&self) -> bool {
        self.exit.is_some()
    }

    /// The exit code of a command, or why there is none that could be trusted.
    pub fn exit_code(&self) -> Result<i32, String> {
        match (&self.complaint, self.exit) {
            (Some(complaint), _) => Err(complaint.clone()),
            (None, Some(code)) => Ok(code),
            (None, None) if self.began => Err("no verdict".to_owned()),
            (None, None) => Err("did not boot".to_owned()),
        }
    }

    /// The outcome, if the command was tests.
    ///
    /// Success takes all of it: an exit code of 0, each harness's own last line, and
    /// at least one test behind it.
    pub fn outcome(&self) -> Outcome {
        let code = match self.exit_code() {
            Ok(code) => code,
            Err(reason) => return Outcome::Failed(reason),
        };
        match (code, self.results.last(), &self.not_available) {
            (NOT_AVAILABLE_CODE, _, Some(reason)) => Outcome::NotAvailable(reason.clone()),
            (NOT_AVAILABLE_CODE, _, None) => {
                Outcome::Failed("not available, but no reason given".to_owned())
            }
            (0, Some(_), _) => match self.passed() {
                Ok(count) => Outcome::Passed(count),
                Err(reason) => Outcome::Failed(reason),
            },
            (0, None, _) => Outcome::Failed("exit code 0, but no result of tests".to_owned()),
            (code, Some(result), _) => Outcome::Failed(format!("exit code {code}, {result}")),
            (code, None, _) => Outcome::Failed(format!("exit code {code}, no result of tests")),
        }
    }

    /// How many tests passed, if none failed.
    fn passed(&self) -> Result<u32, String> {
        let mut count = 0;
        for result in &self.results {
            count += match passed(result) {
                Some(0) => return Err("ran no test".to_owned()),
                Some(count) => count,
                None => return Err(format!("exit code 0, but `{result}`")),
            };
        }
        Ok(count)
    }
}

/// `44 of 4.40 s`
fn starts_of(text: &str) -> Option<(u32, Duration)> {
    let (count, each) = text.strip_suffix(" s")?.split_once(" of ")?;
    let each = Duration::try_from_secs_f64(each.parse().ok()?).ok()?;
    Some((count.parse().ok()?, each))
}

/// `7` of `test result: ok. 7 passed; 0 failed; …`.
fn passed(result: &str) -> Option<u32> {
    let counts = result.strip_prefix("test result: ok. ")?;
    counts.split_once(" passed;")?.0.parse().ok()
}

/// Whether the kernel reports a fault of its own: a panic, an oops, a bug, or a
/// warning from memory management, BPF or tracing. Only lines of the kernel count,
/// which begin with a time in brackets; another line's beginning may stand before.
fn is_complaint(line: &str) -> bool {
    const FAULTS: [&str; 5] = [
        "Kernel panic",
        "BUG:",
        "kernel BUG at",
        "Oops:",
        "general protection fault",
    ];
    const PLACES: [&str; 4] = [
        " mm/",
        " kernel/bpf/",
        " kernel/trace/",
        " include/linux/mm",
    ];
    let Some((stamp, message)) = line.split_once("] ") else {
        return false;
    };
    let has_time = stamp.rsplit_once('[').is_some_and(|(_, time)| {
        let time = time.trim_start();
        time.contains('.') && time.chars().all(|c| c.is_ascii_digit() || c == '.')
    });
    let is_warning = message.starts_with("WARNING:") && PLACES.iter().any(|p| message.contains(p));
    has_time && (is_warning || FAULTS.iter().any(|fault| message.starts_with(fault)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(lines: &[&str]) -> Outcome {
        let mut console = Console::default();
        for line in lines {
            console.line(line, Duration::ZERO);
        }
        console.outcome()
    }

    fn failed(reason: &str) -> Outcome {
        Outcome::Failed(reason.to_owned())
    }

    const OK: &str = "test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";

    #[test]
    fn passing_takes_a_verdict_and_a_result() {
        assert_eq!(
            outcome(&[BEGIN, OK, "mmwatch-vm: exit 0"]),
            Outcome::Passed(7)
        );
        assert_eq!(
            outcome(&[BEGIN, OK, OK, "mmwatch-vm: exit 0"]),
            Outcome::Passed(14)
        );
        assert_eq!(outcome(&[BEGIN, OK]), failed("no verdict"));
        assert_eq!(
            outcome(&[BEGIN, "mmwatch-vm: exit 0"]),
            failed("exit code 0, but no result of tests")
        );
        let none = "test result: ok. 0 passed; 0 failed;";
        assert_eq!(
            outcome(&[BEGIN, none, "mmwatch-vm: exit 0"]),
            failed("ran no test")
        );
        let bad = "test result: FAILED. 7 passed; 1 failed;";
        assert_eq!(
            outcome(&[BEGIN, bad, "mmwatch-vm: exit 0"]),
            failed("exit code 0, but `test result: FAILED. 7 passed; 1 failed;`")
        );
        // Whichever harness it is.
        for results in [[bad, OK], [OK, bad]] {
            assert_eq!(
                outcome(&[BEGIN, results[0], results[1], "mmwatch-vm: exit 0"]),
                failed("exit code 0, but `test result: FAILED. 7 passed; 1 failed;`")
            );
        }
        assert_eq!(
            outcome(&[BEGIN, bad, "mmwatch-vm: exit 101"]),
            failed("exit code 101, test result: FAILED. 7 passed; 1 failed;")
        );
    }

    #[test]
    fn a_silent_or_torn_console_fails() {
        assert_eq!(outcome(&[]), failed("did not boot"));
        assert_eq!(outcome(&[OK, "mmwatch-vm: exit 0"]), failed("did not boot"));
        assert_eq!(
            outcome(&[BEGIN, OK, "mmwatch-vm: exit"]),
            failed("no verdict")
        );
    }

    #[test]
    fn not_available_needs_its_reason() {
        let reason = "not available: no tracepoints of mmap_lock";
        assert_eq!(
            outcome(&[BEGIN, reason, "mmwatch-vm: exit 77"]),
            Outcome::NotAvailable("no tracepoints of mmap_lock".to_owned())
        );
        assert_eq!(
            outcome(&[BEGIN, "mmwatch-vm: exit 77"]),
            failed("not available, but no reason given")
        );
    }

    #[test]
    fn the_kernels_faults_outdo_any_verdict() {
        for fault in [
            "[    3.141592] Kernel panic - not syncing: Fatal exception",
            "[   12.000001] BUG: kernel NULL pointer dereference, address: 0000000000000000",
            "[   12.000001] general protection fault, probably for non-canonical address 0x1",
            "[   12.000001] kernel BUG at mm/mmap.c:123!",
            "[    4.000000] WARNING: CPU: 0 PID: 1 at mm/mmap.c:3309 exit_mmap+0x1/0x2",
            "[    4.000000] WARNING: kernel/bpf/verifier.c:17 at f+0x1/0x2, CPU#0: kernel-tests/60",
            "test a ... [    4.000000] Oops: 0002 [#1] SMP",
        ] {
            assert_eq!(
                outcome(&[BEGIN, fault, OK, "mmwatch-vm: exit 0"]),
                failed(fault)
            );
        }
    }

    #[test]
    fn other_lines_are_no_faults() {
        for line in [
            "BUG: printed by a test",
            "test [x] Oops: ok",
            "[    0.100000] WARNING: CPU: 0 PID: 0 at arch/x86/kernel/apic.c:1 f+0x1/0x2",
            "[    0.100000] traps: victim[60] general protection fault ip:1 sp:2 error:0",
        ] {
            assert!(!is_complaint(line), "{line}");
        }
    }

    #[test]
    fn times_are_those_of_the_lines() {
        let mut console = Console::default();
        for (line, second) in [
            ("SeaBIOS", 1),
            (BEGIN, 4),
            ("test fentry::first   ... ok", 9),
            ("a line of the next", 10),
            ("test fentry::second  ... seed 1", 16),
            ("ok", 17),
            ("starts of mmwatch: 2 of 4.50 s", 17),
            ("mmwatch-vm: exit 0", 18),
        ] {
            console.line(line, Duration::from_secs(second));
        }
        let seconds = Duration::from_secs;
        assert_eq!(
            *console.times(),
            Times {
                boot: seconds(4),
                run: seconds(14),
                starts: Some((2, Duration::from_millis(4_500))),
                cases: vec![
                    ("fentry::first".to_owned(), seconds(5)),
                    ("fentry::second".to_owned(), seconds(7)),
                ],
            }
        );
    }

    #[test]
    fn only_the_commands_lines_are_shown() {
        let mut console = Console::default();
        let lines = [
            "SeaBIOS",
            BEGIN,
            "hello",
            "",
            "no end of linemmwatch-vm: exit 3",
            "[ 9.1] x",
        ];
        let shown: Vec<&str> = lines
            .iter()
            .filter_map(|line| console.line(line, Duration::ZERO))
            .collect();
        assert_eq!(shown, ["hello", "", "no end of line"]);
        assert!(console.is_over());
        assert_eq!(console.exit_code(), Ok(3));
    }
}

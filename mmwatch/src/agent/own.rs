//! What the agent itself costs.

use std::{fs, mem};

use crate::process::{Proc, page_bytes};

/// CPU time of the agent, s.
pub(super) fn cpu_seconds() -> f64 {
    // SAFETY: all bits zero are a rusage.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: getrusage writes to where the pointer, which is valid for that, points.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    [usage.ru_utime, usage.ru_stime]
        .iter()
        .map(|time| time.tv_sec as f64 + time.tv_usec as f64 / 1e6)
        .sum()
}

/// Memory of the agent, bytes.
pub(super) fn resident_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_bytes())
}

/// Time that the kernel ran the agent's programs, s; `None` unless it measures that
/// (`sysctl kernel.bpf_stats_enabled=1`).
pub(super) fn bpf_seconds(proc: &Proc) -> Option<f64> {
    if proc.bpf_stats() != Some(true) {
        return None;
    }
    let run_ns: u64 = fs::read_dir("/proc/self/fdinfo")
        .ok()?
        .flatten()
        // The directory's own descriptor is gone meanwhile.
        .filter_map(|entry| run_ns(&fs::read_to_string(entry.path()).ok()?))
        .sum();
    Some(run_ns as f64 / 1e9)
}

/// Time that a program ran, if the descriptor is one's.
fn run_ns(fdinfo: &str) -> Option<u64> {
    let line = fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("run_time_ns:"));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_from_other_descriptors() {
        let program =
            "pos:\t0\nprog_type:\t17\nprog_jited:\t1\nrun_time_ns:\t81920\nrun_cnt:\t64\n";
        assert_eq!(run_ns(program), Some(81_920));
        assert_eq!(run_ns("pos:\t0\nflags:\t02\nmap_type:\t1\n"), None);
    }

    #[test]
    fn the_agent_costs_something() {
        assert!(cpu_seconds() > 0.0);
        assert!(resident_bytes().unwrap() > 1 << 20);
    }
}

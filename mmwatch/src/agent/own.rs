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
    let mut run_ns = 0_u64;
    for entry in fs::read_dir("/proc/self/fdinfo").ok()?.flatten() {
        // The directory's own descriptor is gone meanwhile.
        let Ok(text) = fs::read_to_string(entry.path()) else {
            continue;
        };
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("run_time_ns:"));
        run_ns += line
            .and_then(|ns| ns.trim().parse::<u64>().ok())
            .unwrap_or(0);
    }
    Some(run_ns as f64 / 1e9)
}

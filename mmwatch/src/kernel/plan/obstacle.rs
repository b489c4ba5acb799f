//! What stands in the way of watching, or of one program.

use super::{Attach, Program, Refusal};
use crate::kernel::facts::{Answer, Facts};

/// Members without which nothing can be counted.
const ESSENTIAL_OFFSETS: &[&str] = &[
    "mm_struct.map_count",
    "mm_struct.total_vm",
    "mm_struct.mm_users",
    "task_struct.mm",
    "task_struct.tgid",
    "task_struct.pid",
    "task_struct.group_leader",
    "task_struct.start_boottime",
    "task_struct.stack",
];

/// What every backend needs.
pub(super) fn basics(facts: &Facts) -> Result<(), Refusal> {
    if facts.machine != "x86_64" {
        return Err(Refusal(format!(
            "mmwatch knows the registers of x86_64 only, and this is {}; run it on an x86_64 host",
            facts.machine
        )));
    }
    if let Some(reason) = facts.raw_tracepoint.reason() {
        let next = if facts.euid == 0 {
            "give the container or service CAP_BPF and CAP_PERFMON (CAP_SYS_ADMIN before Linux 5.8)"
        } else {
            "run mmwatch as root, or give it CAP_BPF and CAP_PERFMON"
        };
        return Err(Refusal(format!(
            "the kernel refuses BPF programs ({reason}); {next}"
        )));
    }
    if let Some(error) = &facts.btf_error {
        return Err(Refusal(format!(
            "the kernel's BTF cannot be read ({error}); boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, and mount sysfs or say with --sysfs where it is"
        )));
    }
    let missing: Vec<_> = ESSENTIAL_OFFSETS
        .iter()
        .copied()
        .filter(|path| !facts.offsets.contains_key(*path))
        .collect();
    if !missing.is_empty() {
        return Err(Refusal(format!(
            "the kernel's BTF has no {}; this kernel is not supported yet, please report it with the output of `mmwatch check -o json`",
            missing.join(", ")
        )));
    }
    if !facts.functions.contains_key(LIST_FUNCTION) {
        return Err(Refusal(
            "this kernel cannot list processes by a BPF iterator; mmwatch needs Linux 5.8 or later \
             with CONFIG_BPF_SYSCALL=y"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Says that the kernel has an iterator over tasks.
pub(super) const LIST_FUNCTION: &str = "bpf_iter_task";

/// Beyond this, distributions that know such values ask for more than `CAP_PERFMON`.
const MAX_PERF_EVENT_PARANOID: i32 = 2;

/// Why what goes through perf_event_open(2) was refused, if so.
pub(super) fn perf_reason(facts: &Facts, answer: &Answer) -> Option<String> {
    let reason = answer.reason()?;
    match facts.perf_event_paranoid {
        Some(paranoid) if paranoid > MAX_PERF_EVENT_PARANOID && reason.contains("os error 13") => {
            Some(format!(
                "{reason}; kernel.perf_event_paranoid is {paranoid}, with which some kernels take \
                 CAP_SYS_ADMIN alone: set it to {MAX_PERF_EVENT_PARANOID} or grant that"
            ))
        }
        _ => Some(reason.to_owned()),
    }
}

/// Why a program cannot be attached, if so.
pub(super) fn obstacle(facts: &Facts, program: &Program) -> Option<String> {
    if let Some(reason) = facts.refused.get(program.name) {
        return Some(format!("the kernel refused {}: {reason}", program.name));
    }
    let (answer, known, what) = match program.attach {
        Attach::Fentry(_) | Attach::Fexit(_) => (&facts.fentry, &facts.functions, "function"),
        Attach::Kprobe(_) | Attach::Kretprobe(_) => (&facts.kprobe, &facts.functions, "function"),
        Attach::RawTracepoint(_) => (&facts.raw_tracepoint, &facts.tracepoints, "tracepoint"),
        // Older than anything else that is needed.
        Attach::PerfEvent(_) => return perf_reason(facts, &facts.perf_event),
    };
    let target = program.attach.target();
    let reason = match program.attach {
        Attach::Kprobe(_) | Attach::Kretprobe(_) => perf_reason(facts, answer),
        _ => answer.reason().map(str::to_owned),
    };
    if reason.is_some() {
        return reason;
    }
    (!known.contains_key(target)).then(|| format!("this kernel has no {what} {target}"))
}

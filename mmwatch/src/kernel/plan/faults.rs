//! Which programs count page faults: the same under every backend.

use std::fmt;

use serde::Serialize;

use super::{
    Program, Refusal, Skipped,
    obstacle::{basics, obstacle},
    programs::{FAULT_BEGINS, FAULTS},
};
use crate::kernel::facts::Facts;

/// What is attached to count page faults, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FaultPlan {
    /// The programs.
    pub programs: Vec<Program>,
    /// What this kernel does not allow.
    pub skipped: Vec<Skipped>,
    /// What cannot be told this way.
    pub limits: Vec<&'static str>,
    /// Whether it is told if a page was there when it was touched.
    #[serde(skip)]
    pub tells_touched: bool,
}

const NO_BEGINS: &str = "which of the faults were of pages that were not there, so how much of what was mapped was touched";

/// Decides.
pub fn faults(facts: &Facts) -> Result<FaultPlan, Refusal> {
    basics(facts)?;
    if let Some(why) = FAULTS.iter().find_map(|program| obstacle(facts, program)) {
        let next = if facts.euid == 0 {
            "give the container or service CAP_PERFMON, and let its seccomp profile allow \
             perf_event_open"
        } else {
            "run mmwatch as root, or give it CAP_BPF and CAP_PERFMON"
        };
        return Err(Refusal(format!(
            "page faults cannot be counted, because the kernel refuses its software events \
             ({why}); {next}, or leave --faults out"
        )));
    }
    let mut plan = FaultPlan {
        programs: Vec::new(),
        skipped: Vec::new(),
        limits: Vec::new(),
        tells_touched: true,
    };
    // A fault that is complete asks how it began.
    match FAULT_BEGINS
        .iter()
        .find_map(|program| obstacle(facts, program))
    {
        None => plan.programs.extend_from_slice(FAULT_BEGINS),
        Some(why) => {
            plan.skipped.push(Skipped::new(FAULT_BEGINS, why));
            plan.limits.push(NO_BEGINS);
            plan.tells_touched = false;
        }
    }
    plan.programs.extend_from_slice(FAULTS);
    Ok(plan)
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "with --faults")?;
        for program in &self.programs {
            writeln!(f, "  {program}")?;
        }
        for Skipped { what, why } in &self.skipped {
            writeln!(f, "  not {what}: {why}")?;
        }
        for limit in &self.limits {
            writeln!(f, "  not told: {limit}")?;
        }
        Ok(())
    }
}

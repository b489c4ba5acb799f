//! Which programs to attach where, decided from facts alone.
//!
//! A plan fills a few roles: the lock (settle points), mappings, unmaps, the
//! returns of calls, forks, execs and exits. A role has alternatives, best
//! first; the first that the facts allow is taken, and for each that was passed
//! over the plan says why.

mod faults;
mod limits;
mod obstacle;
mod programs;
#[cfg(test)]
mod tests;

use std::fmt;

use mmwatch_common::{
    config::{DOWNGRADE_AT_READ_RELEASE, DOWNGRADE_AT_UNMAP},
    counter::Hook,
};
use serde::Serialize;

pub use self::faults::{FaultPlan, faults};
use self::limits::{
    LOOKED_UP, NO_CGROUP, NO_COMPAT_CALLS, NO_EXIT, NO_LOCK, NO_MAP_DETAIL, NO_OLD_PROT,
    NO_SHARED_FILE, NO_UNLINKED, NO_UNMAP_DETAIL, UNMAP_WITHOUT_BRK,
};
use self::obstacle::{basics, obstacle, perf_reason};
use self::programs::{
    ALL_CALLS, CALL_ENTER, CALL_EXIT, CALLS, CGROUP, DESCRIBED_FILE, DESCRIBED_FILE_FENTRY,
    DESCRIBED_FILE_KPROBE, EXEC, EXIT, FORK, LOCK_FENTRY, LOCK_KPROBE, LOCK_TRACEPOINTS,
    LOCK_TRACEPOINTS_MEMCG, MAP_FENTRY, MAP_KPROBE, PROTECT_FENTRY, PROTECT_KPROBE,
    SHARED_FILE_FENTRY, SHARED_FILE_KPROBE, SPLIT_FENTRY, SPLIT_KPROBE, THREAD_EXIT, UNMAP_FENTRY,
    UNMAP_KPROBE,
};
use super::facts::Facts;

/// How the kernel is hooked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// BPF trampolines at function entry and exit.
    Fentry,
    /// Breakpoints or ftrace at function entry and return.
    Kprobe,
    /// Raw tracepoints.
    Tracepoint,
}

/// What `--hooks` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// The best that works.
    Auto,
    /// This one or none.
    Only(Backend),
}

impl Backend {
    /// Best first.
    pub const ALL: [Self; 3] = [Self::Fentry, Self::Kprobe, Self::Tracepoint];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "target", rename_all = "snake_case")]
pub enum Attach {
    /// Entry of a kernel function, by trampoline.
    Fentry(&'static str),
    /// Return of a kernel function, by trampoline.
    Fexit(&'static str),
    /// Entry of a kernel function, by kprobe.
    Kprobe(&'static str),
    /// Return of a kernel function, by kretprobe.
    Kretprobe(&'static str),
    /// A tracepoint, raw.
    RawTracepoint(&'static str),
    /// A software event, each single one on every CPU.
    PerfEvent(SoftwareEvent),
}

/// An event that the kernel counts (`enum perf_sw_ids`, `include/uapi/linux/perf_event.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SoftwareEvent {
    /// `PERF_COUNT_SW_PAGE_FAULTS_MIN`.
    MinorFaults = 5,
    /// `PERF_COUNT_SW_PAGE_FAULTS_MAJ`.
    MajorFaults = 6,
}

impl SoftwareEvent {
    /// Its name, as perf(1) has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MinorFaults => "minor-faults",
            Self::MajorFaults => "major-faults",
        }
    }
}

impl Attach {
    /// The function, tracepoint or event.
    pub fn target(self) -> &'static str {
        match self {
            Self::Fentry(target)
            | Self::Fexit(target)
            | Self::Kprobe(target)
            | Self::Kretprobe(target)
            | Self::RawTracepoint(target) => target,
            Self::PerfEvent(event) => event.name(),
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Fentry(_) => "fentry",
            Self::Fexit(_) => "fexit",
            Self::Kprobe(_) => "kprobe",
            Self::Kretprobe(_) => "kretprobe",
            Self::RawTracepoint(_) => "raw_tracepoint",
            Self::PerfEvent(_) => "perf_event",
        }
    }
}

/// One program and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Program {
    /// Its name in the object.
    pub name: &'static str,
    /// Its place.
    #[serde(flatten)]
    pub attach: Attach,
    /// Its row in the ledger.
    #[serde(skip)]
    pub hook: Hook,
}

/// Something that was passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

impl Skipped {
    fn new(programs: &[Program], why: String) -> Self {
        let what: Vec<_> = programs.iter().map(ToString::to_string).collect();
        Self {
            what: what.join(" and "),
            why,
        }
    }
}

/// What is attached, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// How.
    pub backend: Backend,
    /// The programs.
    pub programs: Vec<Program>,
    /// Better ways that this kernel does not allow.
    pub skipped: Vec<Skipped>,
    /// What cannot be seen this way.
    pub limits: Vec<&'static str>,
    /// Bit n: the return of the call with number n of
    /// [`Call`](mmwatch_common::config::Call) is hooked.
    #[serde(skip)]
    pub calls: u32,
    /// Whether calls settle at their return, for want of lock events.
    #[serde(skip)]
    pub settle_at_call: bool,
    /// A `DOWNGRADE_*` value of `mmwatch_common::config`.
    #[serde(skip)]
    pub downgrade: u32,
    /// Whether splits of VMAs are seen, so that the unmap core's counts tell
    /// how many VMAs it removed.
    #[serde(skip)]
    pub counts_splits: bool,
}

/// No plan: what is missing, and how to get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Members that tell what a VMA is before it is protected.
const PROTECT_OFFSETS: &[&str] = &[
    "mm_struct.brk",
    "mm_struct.start_brk",
    "mm_struct.start_stack",
    "vm_area_struct.vm_end",
    "vm_area_struct.vm_file",
    "vm_area_struct.vm_flags",
    "vm_area_struct.vm_ops",
    "vm_area_struct.vm_start",
];

/// Member that tells whether a file has a name.
const NLINK: &str = "inode.i_nlink";

/// Decides.
pub fn plan(facts: &Facts, hooks: Hooks) -> Result<Plan, Refusal> {
    let wanted: &[Backend] = match &hooks {
        Hooks::Auto => &Backend::ALL,
        Hooks::Only(backend) => std::slice::from_ref(backend),
    };
    basics(facts)?;
    let mut skipped = Vec::new();
    for backend in wanted {
        match Planner::new(facts, *backend).plan() {
            Ok(mut plan) => {
                skipped.append(&mut plan.skipped);
                plan.skipped = skipped;
                return Ok(plan);
            }
            Err(why) => skipped.push(Skipped {
                what: backend.name().to_owned(),
                why,
            }),
        }
    }
    let reasons: Vec<_> = skipped
        .iter()
        .map(|skipped| format!("{}: {}", skipped.what, skipped.why))
        .collect();
    let next = match hooks {
        Hooks::Auto => {
            "mmwatch needs one of them; run it as root on the host, outside of any container that hides the kernel"
        }
        Hooks::Only(_) => "use --hooks auto to take the best that works",
    };
    Err(Refusal(format!(
        "this kernel cannot be hooked ({}); {next}",
        reasons.join("; ")
    )))
}

/// Plans for one backend.
struct Planner<'a> {
    facts: &'a Facts,
    backend: Backend,
    programs: Vec<Program>,
    skipped: Vec<Skipped>,
    limits: Vec<&'static str>,
}

impl<'a> Planner<'a> {
    fn new(facts: &'a Facts, backend: Backend) -> Self {
        Self {
            facts,
            backend,
            programs: Vec::new(),
            skipped: Vec::new(),
            limits: Vec::new(),
        }
    }

    fn plan(mut self) -> Result<Plan, String> {
        match self.backend {
            Backend::Fentry => self.facts.fentry.reason().map(str::to_owned),
            Backend::Kprobe => perf_reason(self.facts, &self.facts.kprobe),
            Backend::Tracepoint => None,
        }
        .map_or(Ok(()), Err)?;
        // Lifecycle first: an address space seen from its birth needs no baseline.
        self.essential(FORK)?;
        self.essential(EXEC)?;
        self.essential(THREAD_EXIT)?;
        self.exit();
        if let Err(why) = self.take(&[CGROUP]) {
            self.skip(&[CGROUP], why);
            self.limits.push(NO_CGROUP);
        }
        self.map();
        self.protect();
        let (unmap, counts_splits) = self.unmap();
        let calls = self.calls()?;
        // The lock last: sections wait for returns, which are hooked by now.
        let (settle_at_call, lock_tells_reads) = self.lock()?;
        let downgrade = match unmap {
            // Its pages at the downgrade are told only where reads are seen too.
            None if lock_tells_reads => DOWNGRADE_AT_READ_RELEASE,
            None => DOWNGRADE_AT_UNMAP,
            Some(downgrade) => downgrade,
        };
        self.limits.push(NO_COMPAT_CALLS);
        self.limits.push(LOOKED_UP);
        Ok(Plan {
            backend: self.backend,
            programs: self.programs,
            skipped: self.skipped,
            limits: self.limits,
            calls,
            settle_at_call,
            downgrade,
            counts_splits,
        })
    }

    /// Takes all of `programs`, or says why not.
    fn take(&mut self, programs: &[Program]) -> Result<(), String> {
        let facts = self.facts;
        if let Some(why) = programs.iter().find_map(|program| obstacle(facts, program)) {
            return Err(why);
        }
        self.programs.extend_from_slice(programs);
        Ok(())
    }

    fn skip(&mut self, programs: &[Program], why: String) {
        self.skipped.push(Skipped::new(programs, why));
    }

    fn essential(&mut self, program: Program) -> Result<(), String> {
        self.take(&[program])
    }

    fn exit(&mut self) {
        for program in EXIT {
            let fits = match (program.attach, self.backend) {
                (Attach::RawTracepoint(_), _) => true,
                (Attach::Fentry(_), backend) => backend == Backend::Fentry,
                (_, backend) => backend == Backend::Kprobe,
            };
            if !fits {
                continue;
            }
            match self.take(&[*program]) {
                Ok(()) => return,
                Err(why) => self.skip(&[*program], why),
            }
        }
        self.limits.push(NO_EXIT);
    }

    fn map(&mut self) {
        let (programs, files) = match self.backend {
            Backend::Fentry => (MAP_FENTRY, [SHARED_FILE_FENTRY, DESCRIBED_FILE_FENTRY]),
            Backend::Kprobe => (MAP_KPROBE, [SHARED_FILE_KPROBE, DESCRIBED_FILE_KPROBE]),
            Backend::Tracepoint => return self.limits.push(NO_MAP_DETAIL),
        };
        match self.take(programs) {
            Ok(()) => {
                let [shared, described] = files;
                let mut results = vec![(shared, self.take(shared))];
                // Only newer kernels have it, and only they need it.
                if self.facts.functions.contains_key(DESCRIBED_FILE) {
                    results.push((described, self.take(described)));
                }
                let mut seen = true;
                for (programs, result) in results {
                    if let Err(why) = result {
                        self.skip(programs, why);
                        seen = false;
                    }
                }
                if !seen {
                    self.limits.push(NO_SHARED_FILE);
                }
            }
            Err(why) => {
                self.skip(programs, why);
                self.limits.push(NO_MAP_DETAIL);
            }
        }
    }

    fn protect(&mut self) {
        if !self.facts.offsets.contains_key(NLINK) {
            self.limits.push(NO_UNLINKED);
        }
        let program = match self.backend {
            Backend::Fentry => PROTECT_FENTRY,
            Backend::Kprobe => PROTECT_KPROBE,
            Backend::Tracepoint => return self.limits.push(NO_OLD_PROT),
        };
        let missing = PROTECT_OFFSETS
            .iter()
            .find(|path| !self.facts.offsets.contains_key(**path));
        let taken = match missing {
            Some(path) => Err(format!("this kernel's BTF has no {path}")),
            None => self.take(&[program]),
        };
        if let Err(why) = taken {
            self.skip(&[program], why);
            self.limits.push(NO_OLD_PROT);
        }
    }

    /// Returns what the choice means for downgraded sections, if there is one,
    /// and whether splits are needed, and seen, to count removed VMAs.
    fn unmap(&mut self) -> (Option<u32>, bool) {
        let (alternatives, split) = match self.backend {
            Backend::Fentry => (UNMAP_FENTRY, SPLIT_FENTRY),
            Backend::Kprobe => (UNMAP_KPROBE, SPLIT_KPROBE),
            Backend::Tracepoint => (&[][..], SPLIT_KPROBE),
        };
        for (programs, downgrade) in alternatives {
            match self.take(programs) {
                Ok(()) => {
                    let target = programs.first().map(|program| program.attach.target());
                    let mut counts_splits = false;
                    if target != Some("vms_complete_munmap_vmas") {
                        match self.take(&[split]) {
                            Ok(()) => counts_splits = true,
                            Err(why) => {
                                self.skip(&[split], why);
                                self.limits.push(NO_UNMAP_DETAIL);
                            }
                        }
                    }
                    if target == Some("do_mas_munmap") {
                        self.limits.push(UNMAP_WITHOUT_BRK);
                    }
                    return (Some(*downgrade), counts_splits);
                }
                Err(why) => self.skip(programs, why),
            }
        }
        self.limits.push(NO_UNMAP_DETAIL);
        (None, false)
    }

    /// Returns the bits of the calls whose return is hooked.
    fn calls(&mut self) -> Result<u32, String> {
        if self.backend != Backend::Fentry {
            // A kretprobe has room for few tasks at a time inside of a function
            // (as few as there are CPUs), and calls sleep on the lock: with
            // many threads their returns would be missed. A tracepoint never is.
            self.essential(CALL_EXIT)?;
            return Ok(ALL_CALLS);
        }
        let mut calls = 0;
        for (call, program) in CALLS {
            match self.take(&[*program]) {
                Ok(()) => calls |= 1 << *call as u32,
                Err(why) => self.skip(&[*program], why),
            }
        }
        Ok(calls)
    }

    /// Returns whether calls must settle at their return, and whether the end
    /// of read locks is seen.
    fn lock(&mut self) -> Result<(bool, bool), String> {
        // 2-argument events cost a few hundred instructions. With 3 arguments
        // the kernel builds a cgroup path for every one, and up to 6.3 every
        // page fault has one, so they are the last resort.
        match self.facts.tracepoints.get("mmap_lock_released") {
            Some(2) => match self.take(LOCK_TRACEPOINTS) {
                Ok(()) => return Ok((false, true)),
                Err(why) => self.skip(LOCK_TRACEPOINTS, why),
            },
            Some(args) if self.backend != Backend::Tracepoint => {
                let why = format!("they have {args} arguments here and cost every page fault");
                self.skip(LOCK_TRACEPOINTS_MEMCG, why);
            }
            Some(_) => {}
            None => self.skip(
                LOCK_TRACEPOINTS,
                "this kernel has no mmap_lock tracepoints".into(),
            ),
        }
        match self.backend {
            Backend::Fentry => self.take(LOCK_FENTRY).map(|()| (false, false)),
            Backend::Kprobe => self.take(LOCK_KPROBE).map(|()| (false, false)),
            Backend::Tracepoint => {
                if self.facts.tracepoints.get("mmap_lock_released") == Some(&3) {
                    match self.take(LOCK_TRACEPOINTS_MEMCG) {
                        Ok(()) => return Ok((false, true)),
                        Err(why) => self.skip(LOCK_TRACEPOINTS_MEMCG, why),
                    }
                }
                self.essential(CALL_ENTER)?;
                self.limits.push(NO_LOCK);
                Ok((true, false))
            }
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.attach.kind(), self.attach.target())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "backend              {}", self.backend.name())?;
        writeln!(f, "programs")?;
        for program in &self.programs {
            writeln!(f, "  {program}")?;
        }
        if !self.skipped.is_empty() {
            writeln!(f, "not chosen")?;
        }
        for Skipped { what, why } in &self.skipped {
            writeln!(f, "  {what}: {why}")?;
        }
        writeln!(f, "limits")?;
        for limit in &self.limits {
            writeln!(f, "  {limit}")?;
        }
        Ok(())
    }
}

//! Loads and attaches what a plan says, and lends the records that come of it.
//!
//! With the modules below it, the only one that knows the BPF library.

mod missed;
pub mod probe;
mod ring;
mod tables;

use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader,
    maps::{HashMap, MapData, MapError, PerCpuArray, RingBuf},
    programs::{
        FEntry, FExit, KProbe, ProgramError, RawTracePoint, fentry::FEntryLink, fexit::FExitLink,
        kprobe::KProbeLink, raw_trace_point::RawTracePointLink,
    },
};
use aya_log::EbpfLogger;
use mmwatch_common::{
    config::{
        Config, FILTER_BACKING, FILTER_COMM, FILTER_FAILED, FILTER_FOLLOW, FILTER_MIN_SIZE,
        FILTER_SUSPECT, FILTER_TGIDS, FILTER_UID, Offsets,
    },
    counter::{Hook, Ledger},
    event::COMM_LEN,
    names,
};

use self::{ring::Ring, tables::Tables};
use super::{
    facts::Facts,
    plan::{self, Attach, Hooks, Plan, Program},
};
use crate::{
    error::Error,
    source::{HookCounters, KernelCounters, Listed, ProcessKey, ProcessSums, Source},
};

/// The kernel programs, as compiled by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/watch"));

/// Share of the ring buffer from which on the kernel wakes the reader: one in this many.
const WAKE_SHARE: u64 = 4;

/// Filters that the kernel applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFilter {
    /// Only these processes, ids of the root namespace; empty for all.
    pub pids: Vec<u32>,
    /// And the children that they make from now on.
    pub follow: bool,
    /// Only threads of this command name, NUL padded.
    pub comm: Option<[u8; COMM_LEN]>,
    /// Only this real user id.
    pub uid: Option<u32>,
    /// Bit n lets [`Op`](mmwatch_common::event::Op) n through.
    pub ops: u32,
    /// Only operations of at least this many bytes; 0 for all.
    pub min_size_bytes: u64,
    /// Only calls that failed.
    pub failed_only: bool,
    /// Bit n lets operations on mappings of [`Backing`](mmwatch_common::event::Backing) n
    /// through, and nothing else; 0 for all.
    pub backings: u32,
    /// Bit n lets dangerous mappings of the kind [`Suspect`](mmwatch_common::suspect::Suspect) n
    /// through, and nothing else; 0 for all.
    pub suspects: u32,
}

/// What becomes of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Size of the ring buffer, a power of two of whole pages.
    pub buffer_bytes: u32,
    /// Whether records are sent, not only summed.
    pub stream: bool,
    /// Of 2^32 records, so many are lost on purpose.
    pub simulate_loss: u32,
}

/// Attached programs. Dropping it detaches and unloads them all.
pub struct Attached {
    plan: Plan,
    links: Vec<Link>,
    /// Runs skipped, by program, once the programs are detached.
    missed_at_stop: Vec<Option<u64>>,
    ring: Ring,
    ledger: PerCpuArray<MapData, Ledger>,
    tables: Tables,
    log: Option<EbpfLogger<&'static dyn log::Log>>,
    ebpf: Ebpf,
}

/// A link, held until [`Source::stop`] or the end.
enum Link {
    Fentry(#[expect(dead_code, reason = "held for its Drop")] FEntryLink),
    Fexit(#[expect(dead_code, reason = "held for its Drop")] FExitLink),
    Kprobe(#[expect(dead_code, reason = "held for its Drop")] KProbeLink),
    RawTracepoint(#[expect(dead_code, reason = "held for its Drop")] RawTracePointLink),
}

/// Plans, loads and attaches. A program that the kernel refuses is noted in
/// `facts.refused` and planned around, until a plan holds or none is left.
pub fn attach(
    facts: &mut Facts,
    hooks: Hooks,
    filter: &KernelFilter,
    delivery: Delivery,
) -> Result<Attached, Error> {
    if OBJECT.is_empty() {
        return Err(Error::Kernel(
            "this mmwatch was built without its kernel programs; build it with `cargo xtask build`"
                .to_owned(),
        ));
    }
    loop {
        let plan =
            plan::plan(facts, hooks).map_err(|refusal| Error::Kernel(refusal.to_string()))?;
        match try_attach(facts, plan, filter, delivery) {
            Ok(attached) => return Ok(attached),
            Err(Failure::Program(program, reason)) => {
                log::warn!("the kernel refused {program} ({reason}); planning without it");
                facts.refused.insert(program.name.to_owned(), reason);
            }
            Err(Failure::Other(error)) => return Err(error),
        }
    }
}

/// Why an attempt came to nothing.
enum Failure {
    /// One program was refused, with this reason; there may be another way.
    Program(Program, String),
    /// There is no other way.
    Other(Error),
}

fn try_attach(
    facts: &Facts,
    plan: Plan,
    filter: &KernelFilter,
    delivery: Delivery,
) -> Result<Attached, Failure> {
    let btf = Btf::from_sys_fs().map_err(|error| other("reading the kernel's BTF", &error))?;
    let offsets: Offsets = facts.offsets();
    let config = config(facts, &plan, filter, delivery);
    let verbose = log::log_enabled!(log::Level::Debug);
    let log_level = if verbose { log::Level::Debug as u8 } else { 0 };
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .override_global(names::OFFSETS, &offsets, true)
        .override_global(names::CONFIG, &config, true)
        // A constant to the verifier, which drops the logging where nobody listens.
        .override_global("AYA_LOG_LEVEL", &log_level, true)
        .map_max_entries(names::EVENTS, delivery.buffer_bytes)
        .load(OBJECT)
        .map_err(|error| load_failure(&error, delivery.buffer_bytes))?;

    list_pids(&mut ebpf, filter)?;
    let ring = take(&mut ebpf, names::EVENTS, RingBuf::try_from)?;
    let ring = Ring::new(ring, delivery.stream);
    let ledger = take(&mut ebpf, names::LEDGER, PerCpuArray::try_from)?;
    let tables = Tables::new(&mut ebpf)?;
    tables::load_list(&mut ebpf, &btf)
        .map_err(|error| other("loading the list of processes", &error))?;
    let log = if verbose {
        let log = EbpfLogger::init(&mut ebpf);
        Some(log.map_err(|error| other("listening to the kernel programs' log", &error))?)
    } else {
        None
    };

    let mut links = Vec::with_capacity(plan.programs.len());
    for program in &plan.programs {
        let link = attach_program(&mut ebpf, program, &btf)
            .map_err(|error| Failure::Program(*program, chain(&error)))?;
        links.push(link);
    }
    // Sections settle only once their details are hooked; in the other order
    // the first records would lack them. The plan lists the lock last.
    Ok(Attached {
        plan,
        links,
        missed_at_stop: Vec::new(),
        ring,
        ledger,
        tables,
        log,
        ebpf,
    })
}

fn config(facts: &Facts, plan: &Plan, filter: &KernelFilter, delivery: Delivery) -> Config {
    let mut filters = 0;
    let mut set = |bit, wanted| {
        if wanted {
            filters |= bit;
        }
    };
    set(FILTER_TGIDS, !filter.pids.is_empty());
    set(FILTER_FOLLOW, filter.follow);
    set(FILTER_UID, filter.uid.is_some());
    set(FILTER_COMM, filter.comm.is_some());
    set(FILTER_MIN_SIZE, filter.min_size_bytes != 0);
    set(FILTER_FAILED, filter.failed_only);
    set(FILTER_BACKING, filter.backings != 0);
    set(FILTER_SUSPECT, filter.suspects != 0);
    Config {
        self_tgid: facts.self_tgid.unwrap_or_else(std::process::id),
        filters,
        ops: filter.ops,
        uid: filter.uid.unwrap_or(0),
        comm: filter.comm.unwrap_or_default(),
        min_size_bytes: filter.min_size_bytes,
        wake_bytes: u64::from(delivery.buffer_bytes) / WAKE_SHARE,
        user_regs_offset: facts.user_regs_offset.unwrap_or(0),
        calls: plan.calls,
        settle_at_call: u32::from(plan.settle_at_call),
        downgrade: plan.downgrade,
        stream: u32::from(delivery.stream),
        simulate_loss: delivery.simulate_loss,
        counts_splits: u32::from(plan.counts_splits),
        typed_task: u32::from(facts.typed_task),
        typed_regs: u32::from(facts.typed_regs),
        only_tgid: match filter.pids.as_slice() {
            [pid] if !filter.follow => *pid,
            _ => 0,
        },
        backings: filter.backings,
        suspects: filter.suspects,
    }
}

/// Tells the kernel which processes to let through.
fn list_pids(ebpf: &mut Ebpf, filter: &KernelFilter) -> Result<(), Failure> {
    let Some(map) = ebpf.map_mut(names::TGIDS) else {
        return Err(missing(names::TGIDS));
    };
    let mut tgids: HashMap<_, u32, u64> =
        HashMap::try_from(map).map_err(|error| map_failure(&error))?;
    for pid in &filter.pids {
        // 0: the kernel fills in the start at the first look.
        tgids
            .insert(pid, 0, 0)
            .map_err(|error| map_failure(&error))?;
    }
    Ok(())
}

fn take<M>(
    ebpf: &mut Ebpf,
    name: &'static str,
    convert: impl FnOnce(aya::maps::Map) -> Result<M, MapError>,
) -> Result<M, Failure> {
    let map = ebpf.take_map(name).ok_or_else(|| missing(name))?;
    convert(map).map_err(|error| map_failure(&error))
}

fn attach_program(ebpf: &mut Ebpf, program: &Program, btf: &Btf) -> Result<Link, ProgramError> {
    let loaded = ebpf
        .program_mut(program.name)
        .ok_or(ProgramError::NotLoaded)?;
    Ok(match program.attach {
        Attach::Fentry(function) => {
            let fentry: &mut FEntry = loaded.try_into()?;
            fentry.load(function, btf)?;
            let id = fentry.attach()?;
            Link::Fentry(fentry.take_link(id)?)
        }
        Attach::Fexit(function) => {
            let fexit: &mut FExit = loaded.try_into()?;
            fexit.load(function, btf)?;
            let id = fexit.attach()?;
            Link::Fexit(fexit.take_link(id)?)
        }
        Attach::Kprobe(function) | Attach::Kretprobe(function) => {
            let kprobe: &mut KProbe = loaded.try_into()?;
            kprobe.load()?;
            let id = kprobe.attach(function, 0)?;
            Link::Kprobe(kprobe.take_link(id)?)
        }
        Attach::RawTracepoint(tracepoint) => {
            let raw: &mut RawTracePoint = loaded.try_into()?;
            raw.load()?;
            let id = raw.attach(tracepoint)?;
            Link::RawTracepoint(raw.take_link(id)?)
        }
    })
}

impl Attached {
    /// What was attached.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Runs of a program that the kernel skipped, as far as it says.
    fn missed(&self, program: &Program) -> Option<u64> {
        let loaded = self.ebpf.program(program.name)?;
        let recursion = missed::recursion(loaded);
        match program.attach {
            Attach::Kprobe(_) | Attach::Kretprobe(_) => {
                let probe = missed::probe(loaded)?;
                Some(probe + recursion.unwrap_or(0))
            }
            Attach::Fentry(_) | Attach::Fexit(_) | Attach::RawTracepoint(_) => recursion,
        }
    }

    fn row(&self, hook: Hook) -> Result<Ledger, MapError> {
        let mut sum = Ledger::default();
        for row in self.ledger.get(&(hook as u32), 0)?.iter() {
            sum += *row;
        }
        Ok(sum)
    }
}

impl Source for Attached {
    async fn ready(&mut self) -> std::io::Result<()> {
        if let Some(log) = &mut self.log {
            log.flush();
        }
        self.ring.ready().await
    }

    fn next(&mut self) -> Option<&[u8]> {
        self.ring.next()
    }

    fn counters(&mut self) -> Result<KernelCounters, Error> {
        let mut hooks = Vec::with_capacity(self.plan.programs.len());
        for (number, program) in self.plan.programs.iter().enumerate() {
            hooks.push(HookCounters {
                hook: program.hook,
                program: program.name.to_owned(),
                ledger: self.row(program.hook).map_err(|error| {
                    Error::Kernel(format!("reading the kernel's counters: {}", chain(&error)))
                })?,
                missed: match self.missed_at_stop.get(number) {
                    Some(missed) => *missed,
                    None => self.missed(program),
                },
            });
        }
        Ok(KernelCounters { hooks })
    }

    fn sums(&mut self) -> Result<Vec<(ProcessKey, ProcessSums)>, Error> {
        self.tables.sums()
    }

    fn forget(&mut self, key: ProcessKey) {
        self.tables.forget(key);
    }

    fn processes(&mut self) -> Result<Vec<Listed>, Error> {
        tables::list(&mut self.ebpf)
    }

    fn tells_order(&self) -> bool {
        !self.plan.settle_at_call
    }

    fn stop(&mut self) {
        // Probes take their counters along.
        let programs = &self.plan.programs;
        self.missed_at_stop = programs
            .iter()
            .map(|program| self.missed(program))
            .collect();
        // In the order of the plan reversed: the lock goes first, so that no
        // section begins whose call's return is no longer hooked.
        while let Some(link) = self.links.pop() {
            drop(link);
        }
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }
}

/// An error and its causes in one line. Of a verifier's log, which some
/// messages carry, only the objection is kept; `-vv` shows it whole.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let message = error.to_string();
        let message = match message.split_once("Verifier output:") {
            None => message,
            Some((what, log)) => {
                log::debug!("{what}Verifier output:\n{log}");
                let what = what.trim_end_matches(['.', ' ']);
                match objection(log) {
                    Some(objection) => format!("{what}: {objection}"),
                    None => what.to_owned(),
                }
            }
        };
        if !text.contains(&message) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&message);
        }
        next = error.source();
    }
    text
}

/// The line of a verifier's log that says what it objects to: the last one
/// before the statistics.
fn objection(log: &str) -> Option<&str> {
    let statistics = ["processed ", "verification time", "stack depth", "insns "];
    log.lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty() && !statistics.iter().any(|start| line.starts_with(start)))
}

fn other(what: &str, error: &dyn std::error::Error) -> Failure {
    Failure::Other(Error::Kernel(format!("{what}: {}", chain(error))))
}

fn missing(name: &str) -> Failure {
    Failure::Other(Error::Kernel(format!(
        "the kernel object has no map {name}; rebuild with `cargo xtask build`"
    )))
}

fn map_failure(error: &MapError) -> Failure {
    other("setting up a BPF map", error)
}

fn load_failure(error: &EbpfError, buffer_bytes: u32) -> Failure {
    Failure::Other(Error::Kernel(format!(
        "the kernel did not take mmwatch's maps ({}); if memory is short, ask for a smaller --buffer than {} KiB",
        chain(error),
        buffer_bytes / 1024
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objection_is_the_line_before_the_statistics() {
        let log = "0: (b7) r0 = 0\nR1 invalid mem access 'inv'\nverification time 3 usec\n\
                   stack depth 0\nprocessed 1 insns (limit 1000000)\n\n";
        assert_eq!(objection(log), Some("R1 invalid mem access 'inv'"));
        assert_eq!(objection("processed 1 insns"), None);
    }
}

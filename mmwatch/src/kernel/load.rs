//! Loads and attaches what a plan says, and lends the records that come of it.
//!
//! With the modules below it, the only one that knows the BPF library.

pub mod faults;
mod missed;
mod perf;
pub mod places;
pub mod probe;
mod programs;
mod ring;
mod tables;

use aya::{
    Btf, Ebpf, EbpfLoader, Endianness,
    maps::{HashMap, MapError, RingBuf},
};
use aya_log::EbpfLogger;
use mmwatch_common::{
    config::{
        Config, FILTER_BACKING, FILTER_CGROUP, FILTER_COMM, FILTER_FAILED, FILTER_FOLLOW,
        FILTER_MIN_SIZE, FILTER_PID_NAMESPACE, FILTER_SUSPECT, FILTER_TGIDS, FILTER_UID, Offsets,
        STREAM_ALWAYS, STREAM_NEVER, STREAM_SWITCHED,
    },
    event::COMM_LEN,
    names,
};

use self::{programs::Programs, ring::Ring, tables::Tables};
use super::{
    facts::Facts,
    plan::{self, FaultPlan, Hooks, Plan, Program},
};
use crate::{
    churn::Faults,
    error::Error,
    identity::{CgroupRoot, PidNamespace, here::is_in_root_pid_namespace},
    source::{Identity, KernelCounters, Listed, ProcessKey, ProcessSums, Source, Wake},
};

/// The kernel programs, as the build script unpacked them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/watch"));

/// Share of the ring buffer from which on the kernel wakes the reader: one in this many.
const WAKE_SHARE: u64 = 4;

/// Threads whose page faults can be under way at the same time.
const THREADS: u32 = 1 << 14;

/// Filters that the kernel applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFilter {
    /// Only these processes, ids of the root namespace; empty for all.
    pub pids: Vec<u32>,
    /// And the children that they make from now on.
    pub follow: bool,
    /// The one of `pids` that is held before its exec: what it does until then is not meant.
    pub held: Option<u32>,
    /// Only processes of this pid namespace, and of those below it.
    pub pid_namespace: Option<PidNamespace>,
    /// Only threads of this command name, NUL padded.
    pub comm: Option<[u8; COMM_LEN]>,
    /// Only processes in this cgroup, or below it.
    pub cgroup: Option<CgroupRoot>,
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

impl KernelFilter {
    /// Lets everything through.
    pub const NONE: Self = Self {
        pids: Vec::new(),
        follow: false,
        held: None,
        pid_namespace: None,
        comm: None,
        cgroup: None,
        uid: None,
        ops: u32::MAX,
        min_size_bytes: 0,
        failed_only: false,
        backings: 0,
        suspects: 0,
    };
}

/// Whether records are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// They are summed only.
    Never,
    /// They are.
    Always,
    /// They are from [`Source::stream`] with `true` to that with `false`.
    Switched,
}

/// What becomes of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Size of the ring buffer, a power of two of whole pages.
    pub buffer_bytes: u32,
    /// Whether records are sent, not only summed.
    pub stream: Stream,
    /// Of 2^32 records, so many are lost on purpose.
    pub simulate_loss: u32,
    /// Whether page faults, which are no records, are counted too.
    pub faults: bool,
}

/// Attached programs. Dropping it detaches and unloads them all.
pub struct Attached {
    plan: Plan,
    faults: Option<FaultPlan>,
    ring: Ring,
    tables: Tables,
    log: Option<EbpfLogger<&'static dyn log::Log>>,
    programs: Programs,
    /// Whether the kernel lists all processes: it lists those of the caller's pid namespace.
    lists_all: bool,
}

/// Plans, loads and attaches. A program that the kernel refuses is noted in
/// `facts.refused` and planned around, until a plan holds or none is left.
pub fn attach(
    facts: &mut Facts,
    hooks: Hooks,
    filter: &KernelFilter,
    delivery: Delivery,
) -> Result<Attached, Error> {
    loop {
        let plan =
            plan::plan(facts, hooks).map_err(|refusal| Error::Kernel(refusal.to_string()))?;
        let faults = if delivery.faults {
            Some(fault_plan(facts)?)
        } else {
            None
        };
        match try_attach(facts, plan, faults, filter, delivery) {
            Ok(attached) => return Ok(attached),
            Err(failure) => plan_around(facts, failure)?,
        }
    }
}

fn fault_plan(facts: &Facts) -> Result<FaultPlan, Error> {
    plan::faults(facts).map_err(|refusal| Error::Kernel(refusal.to_string()))
}

/// Notes what was refused, unless there is no other way.
fn plan_around(facts: &mut Facts, failure: Failure) -> Result<(), Error> {
    match failure {
        Failure::Program(program, reason) => {
            log::warn!("the kernel refused {program} ({reason}); planning without it");
            facts.refused.insert(program.name.to_owned(), reason);
            Ok(())
        }
        Failure::Other(error) => Err(error),
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
    faults: Option<FaultPlan>,
    filter: &KernelFilter,
    delivery: Delivery,
) -> Result<Attached, Failure> {
    let mut config = config(facts, filter);
    config.calls = plan.calls;
    config.settle_at_call = u32::from(plan.settle_at_call);
    config.downgrade = plan.downgrade;
    config.counts_splits = u32::from(plan.counts_splits);
    config.wake_bytes = u64::from(delivery.buffer_bytes) / WAKE_SHARE;
    config.stream = match delivery.stream {
        Stream::Never => STREAM_NEVER,
        Stream::Always => STREAM_ALWAYS,
        Stream::Switched => STREAM_SWITCHED,
    };
    config.simulate_loss = delivery.simulate_loss;
    let mut sizes = vec![(names::EVENTS, delivery.buffer_bytes)];
    // What counts faults first: it is to see all that the rest sees.
    let mut programs = Vec::new();
    if let Some(faults) = &faults {
        config.fault_begins = u32::from(faults.tells_touched);
        sizes.push((names::FAULTS, THREADS));
        programs.extend_from_slice(&faults.programs);
    }
    // Sections settle only once their details are hooked; in the other order
    // the first records would lack them. The plan lists the lock last.
    programs.extend_from_slice(&plan.programs);

    let (mut ebpf, btf) = load_object(facts, &config, &sizes, || {
        let kib = delivery.buffer_bytes / 1024;
        format!("ask for a smaller --buffer than {kib} KiB")
    })?;
    list_pids(&mut ebpf, filter)?;
    let ring = take(&mut ebpf, names::EVENTS, RingBuf::try_from)?;
    let ring = Ring::new(ring, delivery.stream == Stream::Always);
    let tables = Tables::new(&mut ebpf)?;
    tables::load_list(&mut ebpf, &btf)
        .map_err(|error| other("loading the list of processes", &error))?;
    let log = if is_verbose() {
        let log = EbpfLogger::init(&mut ebpf);
        Some(log.map_err(|error| other("listening to the kernel programs' log", &error))?)
    } else {
        None
    };
    Ok(Attached {
        plan,
        faults,
        ring,
        tables,
        log,
        programs: Programs::attach(ebpf, &btf, programs)?,
        lists_all: is_in_root_pid_namespace(),
    })
}

fn is_verbose() -> bool {
    log::log_enabled!(log::Level::Debug)
}

/// Loads the object: its constants are set and its maps made, the latter with
/// these sizes in entries or, of a ring, in bytes. `smaller` says what to do when
/// memory is short.
fn load_object(
    facts: &Facts,
    config: &Config,
    sizes: &[(&'static str, u32)],
    smaller: impl FnOnce() -> String,
) -> Result<(Ebpf, Btf), Failure> {
    let btf = Btf::parse_file(facts.vmlinux(), Endianness::default())
        .map_err(|error| other("reading the kernel's BTF", &error))?;
    let offsets: Offsets = facts.offsets();
    let log_level = if is_verbose() {
        log::Level::Debug as u8
    } else {
        0
    };
    let mut loader = EbpfLoader::new();
    loader
        .btf(Some(&btf))
        .override_global(names::OFFSETS, &offsets, true)
        .override_global(names::CONFIG, config, true)
        // A constant to the verifier, which drops the logging where nobody listens.
        .override_global("AYA_LOG_LEVEL", &log_level, true);
    for (map, size) in sizes {
        loader.map_max_entries(map, *size);
    }
    let ebpf = loader.load(OBJECT);
    drop(loader);
    match ebpf {
        Ok(ebpf) => Ok((ebpf, btf)),
        Err(error) => {
            let reason = chain(&error);
            let advice = if reason.contains("os error 1)") && is_memlock_limited() {
                "before Linux 5.11 maps count as locked memory, so raise RLIMIT_MEMLOCK (`ulimit \
                 -l unlimited`, `docker run --ulimit memlock=-1`) or grant CAP_SYS_RESOURCE"
                    .to_owned()
            } else {
                format!("if memory is short, {}", smaller())
            };
            Err(Failure::Other(Error::Kernel(format!(
                "the kernel did not take mmwatch's maps ({reason}); {advice}"
            ))))
        }
    }
}

/// Whether there is a limit on the memory that the caller may lock.
fn is_memlock_limited() -> bool {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit writes to where the pointer, which is valid for that, points.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    result == 0 && limit.rlim_cur != libc::RLIM_INFINITY
}

/// What the programs are told whatever they are to do.
fn config(facts: &Facts, filter: &KernelFilter) -> Config {
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
    set(FILTER_CGROUP, filter.cgroup.is_some());
    set(FILTER_PID_NAMESPACE, filter.pid_namespace.is_some());
    set(FILTER_SUSPECT, filter.suspects != 0);
    Config {
        self_tgid: facts.self_tgid.unwrap_or_else(std::process::id),
        filters,
        ops: filter.ops,
        uid: filter.uid.unwrap_or(0),
        comm: filter.comm.unwrap_or_default(),
        min_size_bytes: filter.min_size_bytes,
        wake_bytes: 0,
        user_regs_offset: facts.user_regs_offset.unwrap_or(0),
        calls: 0,
        settle_at_call: 0,
        downgrade: 0,
        stream: STREAM_NEVER,
        simulate_loss: 0,
        counts_splits: 0,
        typed_task: u32::from(facts.typed_task),
        typed_regs: u32::from(facts.typed_regs),
        only_tgid: match filter.pids.as_slice() {
            [pid] if !filter.follow => *pid,
            _ => 0,
        },
        backings: filter.backings,
        // Without the controller's number, what is left is v2.
        cgroup_subsystem: facts.subsystem.map_or(0, |number| number + 1),
        cgroup_hierarchy: match (&facts.hierarchy, facts.subsystem) {
            (Some(hierarchy), Some(_)) => hierarchy.number,
            _ => 0,
        },
        cgroup_level: filter.cgroup.map_or(0, |cgroup| cgroup.level),
        held_tgid: filter.held.unwrap_or(0),
        fault_begins: 0,
        fault_pages: 0,
        suspects: filter.suspects,
        cgroup_id: filter.cgroup.map_or(0, |cgroup| cgroup.id),
        pid_namespace: filter.pid_namespace.map_or(0, |namespace| namespace.inode),
        pid_level: filter.pid_namespace.map_or(0, |namespace| namespace.level),
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

impl Attached {
    /// What was attached.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What of page faults is counted, if they are.
    pub fn faults(&self) -> Option<Faults> {
        self.faults.as_ref().map(|plan| Faults {
            touched: plan.tells_touched,
        })
    }
}

impl Source for Attached {
    async fn ready(&mut self) -> std::io::Result<Wake> {
        if let Some(log) = &mut self.log {
            log.flush();
        }
        self.ring.ready().await?;
        Ok(Wake::Records)
    }

    fn next(&mut self) -> Option<&[u8]> {
        self.ring.next()
    }

    fn counters(&mut self) -> Result<KernelCounters, Error> {
        self.programs.counters()
    }

    fn stream(&mut self, wanted: bool) -> Result<(), Error> {
        self.ring.set_sent(wanted);
        self.tables.stream(wanted)
    }

    fn sums(&mut self) -> Result<Vec<(ProcessKey, ProcessSums)>, Error> {
        self.tables.sums()
    }

    fn forget(&mut self, key: ProcessKey) {
        self.tables.forget(key);
    }

    fn processes(&mut self) -> Result<Vec<Listed>, Error> {
        let mut listed = tables::list(self.programs.ebpf_mut())?;
        if !self.lists_all {
            self.tables.add_unlisted(&mut listed)?;
        }
        Ok(listed)
    }

    fn identity(&mut self, key: ProcessKey) -> Option<Identity> {
        self.tables.identity(key)
    }

    fn cgroup_path(&mut self, id: u64) -> Option<String> {
        self.tables.cgroup_path(id)
    }

    fn tells_order(&self) -> bool {
        !self.plan.settle_at_call
    }

    fn stop(&mut self) {
        self.programs.stop();
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

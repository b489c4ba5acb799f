//! Reports in JSON.

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::{SCHEMA, as_text, lossy};
use crate::{
    churn::{
        BackingSums, By, Faults, Group, Groups, OpSums, ProcessReport, Report, Row, Slope, Sums,
    },
    clock::{WallClock, WallTime},
    event::{Backing, Op, Suspect},
    identity::{Container, Runtime, Who},
    ledger::{Ledger, LedgerJson},
};

#[derive(Serialize)]
pub(super) struct ReportLine<'a> {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(serialize_with = "as_text")]
    time: WallTime,
    boot_ns: u64,
    interval_ns: u64,
    elapsed_ns: u64,
    max_map_count: u32,
    processes: Vec<ProcessFields<'a>>,
    #[serde(flatten)]
    groups: Option<GroupsFields<'a>>,
    other: RowFields<'a>,
    all: RowFields<'a>,
    ledger: LedgerJson<'a>,
}

/// One process of a report, as it is in there.
#[derive(Serialize)]
pub(super) struct ProcessLine<'a> {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(serialize_with = "as_text")]
    time: WallTime,
    boot_ns: u64,
    interval_ns: u64,
    max_map_count: u32,
    #[serde(flatten)]
    process: ProcessFields<'a>,
}

#[derive(Serialize)]
struct ProcessFields<'a> {
    pid: u32,
    start_boot_ns: u64,
    #[serde(serialize_with = "lossy")]
    comm: &'a [u8],
    uid: u32,
    #[serde(flatten)]
    who: Option<WhoFields<'a>>,
    alive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    vmas: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vmas_peak: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vmas_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_to_limit_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_bytes: Option<u64>,
    #[serde(flatten)]
    row: RowFields<'a>,
}

/// Whose a process is.
#[derive(Serialize)]
pub(super) struct WhoFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ns_pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
    #[serde(flatten)]
    of_container: Option<ContainerFields<'a>>,
}

/// What is known of a container but its id.
#[derive(Serialize)]
struct ContainerFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    container_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_image: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<&'static str>,
    #[serde(flatten)]
    pod: PodFields<'a>,
}

#[derive(Serialize)]
struct PodFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_namespace: Option<&'a str>,
}

/// What is known of a group but its name.
#[derive(Serialize)]
pub(super) struct KnownFields<'a> {
    #[serde(flatten)]
    container: Option<ContainerFields<'a>>,
    #[serde(flatten)]
    pod: Option<PodFields<'a>>,
}

#[derive(Serialize)]
struct GroupsFields<'a> {
    by: &'static str,
    groups: Vec<GroupFields<'a>>,
}

#[derive(Serialize)]
struct GroupFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(flatten)]
    known: KnownFields<'a>,
    processes: u64,
    vmas: u64,
    vmas_of_largest: u32,
    total_bytes: u64,
    #[serde(flatten)]
    row: RowFields<'a>,
}

#[derive(Serialize)]
struct RowFields<'a> {
    interval: SumsFields<'a>,
    total: SumsFields<'a>,
}

#[derive(Serialize)]
struct SumsFields<'a> {
    vmas_made: u64,
    vmas_removed: u64,
    mapped_bytes: u64,
    unmapped_bytes: u64,
    ops: Ops<'a>,
    backings: Backings<'a>,
    suspects: SuspectCounts<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    faults: Option<FaultFields>,
}

/// Page faults, where they are counted.
#[derive(Serialize)]
struct FaultFields {
    minor: u64,
    major: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    touched_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    untouched_bytes: Option<u64>,
}

impl FaultFields {
    fn new(sums: &Sums, faults: Faults) -> Self {
        Self {
            minor: sums.minor_faults,
            major: sums.major_faults,
            touched_bytes: faults.touched.then_some(sums.touched_bytes),
            untouched_bytes: None,
        }
    }
}

/// Operations that were done at all.
struct Ops<'a>(&'a Sums);

/// Backings that were mapped at all.
struct Backings<'a>(&'a Sums);

/// Kinds of dangerous mappings that were made at all.
struct SuspectCounts<'a>(&'a Sums);

#[derive(Serialize)]
struct OpFields {
    count: u64,
    errors: u64,
    bytes: u64,
    vmas_delta: i64,
    total_delta_bytes: i64,
    held_count: u64,
    held_ns: u64,
}

#[derive(Serialize)]
struct BackingFields {
    maps: u64,
    bytes: u64,
}

impl<'a> ReportLine<'a> {
    pub(super) fn new(clock: WallClock, report: &'a Report, ledger: &'a Ledger) -> Self {
        Self {
            schema: SCHEMA,
            kind: "report",
            time: clock.at(report.boot_ns),
            boot_ns: report.boot_ns,
            interval_ns: report.interval_ns,
            elapsed_ns: report.elapsed_ns,
            max_map_count: report.max_map_count,
            processes: report
                .processes
                .iter()
                .map(|process| ProcessFields::new(process, report))
                .collect(),
            groups: report
                .groups
                .as_ref()
                .map(|groups| GroupsFields::new(groups, report.faults)),
            other: RowFields::new(&report.other, report.faults),
            all: RowFields::new(&report.all, report.faults),
            ledger: ledger.to_json(),
        }
    }
}

impl<'a> ProcessLine<'a> {
    pub(super) fn new(clock: WallClock, report: &'a Report, process: &'a ProcessReport) -> Self {
        Self {
            schema: SCHEMA,
            kind: "process",
            time: clock.at(report.boot_ns),
            boot_ns: report.boot_ns,
            interval_ns: report.interval_ns,
            max_map_count: report.max_map_count,
            process: ProcessFields::new(process, report),
        }
    }
}

impl<'a> ProcessFields<'a> {
    fn new(process: &'a ProcessReport, report: &Report) -> Self {
        Self {
            pid: process.key.tgid,
            start_boot_ns: process.key.start_boot_ns,
            comm: process.comm.as_bytes(),
            uid: process.uid,
            who: process.who.as_deref().map(WhoFields::new),
            alive: process.alive,
            vmas: process.vmas,
            vmas_peak: process.vmas_peak,
            vmas_per_s: process.slope.map(Slope::vmas_per_s),
            time_to_limit_ns: process.time_to_limit_ns(report.max_map_count),
            total_bytes: process.total_bytes,
            row: RowFields::new(&process.row, report.faults),
        }
    }
}

impl<'a> WhoFields<'a> {
    pub(super) fn new(who: &'a Who) -> Self {
        let cgroup = who.cgroup.as_deref();
        let container = who.container();
        Self {
            ns_pid: who.namespace_pid,
            cgroup: cgroup.map(|cgroup| cgroup.path.as_str()),
            unit: cgroup.and_then(|cgroup| cgroup.owner.unit.as_deref()),
            container: container.map(|container| container.id.as_str()),
            of_container: container.map(ContainerFields::new),
        }
    }
}

impl<'a> ContainerFields<'a> {
    fn new(container: &'a Container) -> Self {
        Self {
            container_name: container.names.name.as_deref(),
            container_image: container.names.image.as_deref(),
            runtime: container.runtime.map(Runtime::name),
            pod: PodFields::new(container),
        }
    }
}

impl<'a> PodFields<'a> {
    fn new(container: &'a Container) -> Self {
        Self {
            pod_uid: container.pod_uid.as_deref(),
            pod_name: container.names.pod.as_deref(),
            pod_namespace: container.names.pod_namespace.as_deref(),
        }
    }
}

impl<'a> KnownFields<'a> {
    /// Of a group that has a container, or is of one.
    pub(super) fn new(by: By, container: Option<&'a Container>) -> Self {
        let of = |wanted| container.filter(|_| by == wanted);
        Self {
            container: of(By::Container).map(ContainerFields::new),
            pod: of(By::Pod).map(PodFields::new),
        }
    }
}

impl<'a> GroupsFields<'a> {
    fn new(groups: &'a Groups, faults: Option<Faults>) -> Self {
        let group = |group: &'a Group| GroupFields {
            name: group.name.as_deref(),
            known: KnownFields::new(groups.by, group.container.as_ref()),
            processes: group.processes,
            vmas: group.vmas,
            vmas_of_largest: group.vmas_of_largest,
            total_bytes: group.total_bytes,
            row: RowFields::new(&group.row, faults),
        };
        Self {
            by: groups.by.name(),
            groups: groups.rows.iter().map(group).collect(),
        }
    }
}

impl<'a> RowFields<'a> {
    fn new(row: &'a Row, faults: Option<Faults>) -> Self {
        let sums = |sums: &'a Sums| SumsFields {
            vmas_made: sums.vmas_made(),
            vmas_removed: sums.vmas_removed,
            mapped_bytes: sums.mapped_bytes,
            unmapped_bytes: sums.unmapped_bytes,
            ops: Ops(sums),
            backings: Backings(sums),
            faults: faults.map(|faults| FaultFields::new(sums, faults)),
            suspects: SuspectCounts(sums),
        };
        let mut total = sums(&row.total);
        // What is touched in an interval may have been mapped before it.
        if let Some(fields) = &mut total.faults {
            fields.untouched_bytes = fields.touched_bytes.map(|_| row.total.untouched_bytes());
        }
        Self {
            interval: sums(&row.interval),
            total,
        }
    }
}

impl Serialize for Ops<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for &op in Op::ALL {
            let &OpSums {
                count,
                errors,
                bytes,
                vmas_delta,
                total_delta_bytes,
                held_count,
                held_ns,
            } = self.0.op(op);
            if count > 0 {
                let fields = OpFields {
                    count,
                    errors,
                    bytes,
                    vmas_delta,
                    total_delta_bytes,
                    held_count,
                    held_ns,
                };
                map.serialize_entry(op.name(), &fields)?;
            }
        }
        map.end()
    }
}

impl Serialize for Backings<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for &backing in Backing::ALL {
            let &BackingSums { maps, bytes } = self.0.backing(backing);
            if maps > 0 {
                map.serialize_entry(backing.name(), &BackingFields { maps, bytes })?;
            }
        }
        map.end()
    }
}

impl Serialize for SuspectCounts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let counts = Suspect::ALL
            .iter()
            .map(|&suspect| (suspect.name(), self.0.suspect(suspect)));
        serializer.collect_map(counts.filter(|(_, count)| *count > 0))
    }
}

//! What was done: by all, and by each group that has series of its own.

use super::metric::{Labels, Metric, Row, each, one};
use crate::{
    agent::{
        lifecycle::Snapshot,
        series::{Name, OTHER},
    },
    churn::Sums,
    event::{Backing, Op, Suspect},
};

pub(super) fn totals(all: &Sums) -> Vec<Metric> {
    vec![
        Metric::counter(
            "mmwatch_operations",
            "Operations on address spaces, failed ones too",
            each(Op::ALL, "op", Op::name, |op| all.op(op).count),
        ),
        Metric::counter(
            "mmwatch_operation_errors",
            "Operations that failed",
            each(Op::ALL, "op", Op::name, |op| all.op(op).errors),
        ),
        Metric::counter(
            "mmwatch_operation",
            "Bytes that operations covered",
            each(Op::ALL, "op", Op::name, |op| all.op(op).bytes),
        )
        .bytes(),
        Metric::counter(
            "mmwatch_lock_held",
            "Time that mmap_lock was held for writing",
            each(Op::ALL, "op", Op::name, |op| {
                all.op(op).held_ns as f64 / 1e9
            }),
        )
        .seconds(),
        Metric::counter(
            "mmwatch_lock_holds",
            "How often that was measured",
            each(Op::ALL, "op", Op::name, |op| all.op(op).held_count),
        ),
        Metric::counter(
            "mmwatch_mappings",
            "Mappings that programs made",
            each(Backing::ALL, "backing", Backing::name, |backing| {
                all.backing(backing).maps
            }),
        ),
        Metric::counter(
            "mmwatch_mappings",
            "Bytes of the mappings that programs made",
            each(Backing::ALL, "backing", Backing::name, |backing| {
                all.backing(backing).bytes
            }),
        )
        .bytes(),
        Metric::counter(
            "mmwatch_suspect_mappings",
            "Dangerous mappings, by kind; one can be of several",
            each(Suspect::ALL, "kind", Suspect::name, |kind| {
                all.suspect(kind)
            }),
        ),
        Metric::counter(
            "mmwatch_mapped",
            "Bytes mapped, and by which heaps, stacks and mappings grew",
            one(all.mapped_bytes),
        )
        .bytes(),
        Metric::counter(
            "mmwatch_unmapped",
            "Bytes unmapped, those at exit too",
            one(all.unmapped_bytes),
        )
        .bytes(),
        Metric::counter(
            "mmwatch_vmas_removed",
            "VMAs removed or merged into others",
            one(all.vmas_removed),
        ),
    ]
}

/// What groups did.
pub(super) fn groups(snapshot: &Snapshot) -> Vec<Metric> {
    let groups = Groups::new(snapshot);
    vec![
        Metric::counter(
            "mmwatch_group_operations",
            "Operations of a group of processes",
            groups.by_each(Op::ALL, "op", Op::name, |sums, op| sums.op(op).count),
        ),
        Metric::counter(
            "mmwatch_group_operation_errors",
            "Operations of a group of processes that failed",
            groups.by_each(Op::ALL, "op", Op::name, |sums, op| sums.op(op).errors),
        ),
        Metric::counter(
            "mmwatch_group_mappings",
            "Bytes of the mappings that a group of processes made",
            groups.by_each(Backing::ALL, "backing", Backing::name, |sums, backing| {
                sums.backing(backing).bytes
            }),
        )
        .bytes(),
        Metric::counter(
            "mmwatch_group_suspect_mappings",
            "Dangerous mappings of a group of processes",
            groups.by_each(Suspect::ALL, "kind", Suspect::name, Sums::suspect),
        ),
        Metric::counter(
            "mmwatch_group_mapped",
            "Bytes that a group of processes mapped",
            groups.of(|sums| sums.mapped_bytes),
        )
        .bytes(),
        Metric::counter(
            "mmwatch_group_unmapped",
            "Bytes that a group of processes unmapped",
            groups.of(|sums| sums.unmapped_bytes),
        )
        .bytes(),
    ]
}

/// Those that have series, and the rest.
struct Groups<'a>(Vec<Group<'a>>);

struct Group<'a> {
    labels: Labels,
    sums: &'a Sums,
    since_boot_ns: Option<u64>,
}

impl<'a> Groups<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        let counters = &snapshot.counters;
        let other = Name {
            group: OTHER.to_owned(),
            comm: None,
        };
        let group = |name: &Name, sums: &'a Sums| {
            let mut labels = vec![
                ("by", snapshot.by.name().to_owned()),
                ("group", name.group.clone()),
            ];
            labels.extend(name.comm.clone().map(|comm| ("comm", comm)));
            Group {
                labels,
                sums,
                since_boot_ns: counters.since_boot_ns.get(name).copied(),
            }
        };
        let mut all: Vec<_> = counters
            .groups
            .iter()
            .map(|(name, sums)| group(name, sums))
            .collect();
        all.push(group(&other, &counters.other));
        Self(all)
    }

    fn of(&self, value: impl Fn(&Sums) -> u64) -> Vec<Row> {
        let row = |group: &Group<'_>| Row {
            labels: group.labels.clone(),
            value: value(group.sums).into(),
            since_boot_ns: group.since_boot_ns,
        };
        self.0.iter().map(row).collect()
    }

    /// Only what is not 0, as most groups do few things.
    fn by_each<T: Copy>(
        &self,
        all: &[T],
        label: &'static str,
        name: impl Fn(T) -> &'static str,
        value: impl Fn(&Sums, T) -> u64,
    ) -> Vec<Row> {
        let mut rows = Vec::new();
        for group in &self.0 {
            for &of in all {
                let value = value(group.sums, of);
                if value > 0 {
                    let mut labels = group.labels.clone();
                    labels.push((label, name(of).to_owned()));
                    rows.push(Row {
                        labels,
                        value: value.into(),
                        since_boot_ns: group.since_boot_ns,
                    });
                }
            }
        }
        rows
    }
}

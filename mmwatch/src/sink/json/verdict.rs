//! Rounds of `verify` in JSON.

use serde::Serialize;

use super::{Hex, SCHEMA, as_text, lossy};
use crate::{
    clock::{WallClock, WallTime},
    ledger::{Ledger, LedgerJson},
    space::ranges::{Backed, Mapping},
    verify::{Checked, Difference, Round, Verdict},
};

#[derive(Serialize)]
pub(super) struct VerdictLine<'a> {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(serialize_with = "as_text")]
    time: WallTime,
    boot_ns: u64,
    round: u64,
    same: usize,
    different: usize,
    busy: usize,
    healing: usize,
    events_applied: u64,
    heals: u64,
    processes: Vec<CheckedFields<'a>>,
    ledger: LedgerJson<'a>,
}

#[derive(Serialize)]
struct CheckedFields<'a> {
    pid: u32,
    start_boot_ns: u64,
    #[serde(serialize_with = "lossy")]
    comm: &'a [u8],
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    vmas: u32,
    section: u64,
    operations: u64,
    events_applied: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differences: Vec<DifferenceFields>,
}

#[derive(Serialize)]
struct DifferenceFields {
    kind: &'static str,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<MappingFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<MappingFields>,
}

#[derive(Serialize)]
struct MappingFields {
    prot: &'static str,
    shared: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    dev: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inode: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset_bytes: Option<u64>,
}

impl<'a> VerdictLine<'a> {
    pub(super) fn new(clock: WallClock, round: &'a Round, ledger: &'a Ledger) -> Self {
        Self {
            schema: SCHEMA,
            kind: "verdict",
            time: clock.at(round.boot_ns),
            boot_ns: round.boot_ns,
            round: round.number,
            same: round.count(|verdict| *verdict == Verdict::Same),
            different: round.count(|verdict| matches!(verdict, Verdict::Different(_))),
            busy: round.count(|verdict| *verdict == Verdict::Busy),
            healing: round.count(|verdict| matches!(verdict, Verdict::Healing(_))),
            events_applied: round.events_applied,
            heals: round.heals,
            processes: round.processes.iter().map(CheckedFields::new).collect(),
            ledger: ledger.to_json(),
        }
    }
}

impl<'a> CheckedFields<'a> {
    fn new(checked: &'a Checked) -> Self {
        let (reason, differences) = match &checked.verdict {
            Verdict::Same | Verdict::Busy => (None, Vec::new()),
            Verdict::Healing(reason) => (Some(reason.name()), Vec::new()),
            Verdict::Different(differences) => {
                let fields = differences.iter().map(DifferenceFields::new);
                (None, fields.collect())
            }
        };
        Self {
            pid: checked.key.tgid,
            start_boot_ns: checked.key.start_boot_ns,
            comm: checked.comm.as_bytes(),
            verdict: checked.verdict.name(),
            reason,
            vmas: checked.vmas,
            section: checked.section,
            operations: checked.operations,
            events_applied: checked.events_applied,
            differences,
        }
    }
}

impl DifferenceFields {
    fn new(difference: &Difference) -> Self {
        let fields = Self {
            kind: difference.name(),
            text: difference.to_string(),
            start: None,
            end: None,
            model: None,
            kernel: None,
        };
        match difference {
            Difference::Range(range) => Self {
                start: Some(Hex(range.range.start)),
                end: Some(Hex(range.range.end)),
                model: range.this.as_ref().map(MappingFields::new),
                kernel: range.other.as_ref().map(MappingFields::new),
                ..fields
            },
            Difference::Vmas { .. } | Difference::Sum { .. } => fields,
        }
    }
}

impl MappingFields {
    fn new(mapping: &Mapping) -> Self {
        let (dev, inode, offset_bytes) = match mapping.backed {
            Backed::File { dev, inode, offset } => {
                (Some(dev.to_string()), Some(inode), Some(offset))
            }
            Backed::Anonymous | Backed::UnknownFile => (None, None, None),
        };
        Self {
            prot: mapping.prot.letters(),
            shared: mapping.shared,
            dev,
            inode,
            offset_bytes,
        }
    }
}

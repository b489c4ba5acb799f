//! An address space with the page faults of some time.

use std::io::{self, Write};

use serde::Serialize;

use super::{SumFields, VmaFields, write_alone};
use crate::{
    ledger::{Ledger, LedgerJson},
    maps::{
        AddressSpace,
        faults::{ByMapping, Sum},
    },
    sink::json::{SCHEMA, lossy},
};

/// Writes an address space with the page faults of the `elapsed_ns` before it
/// was read as a line.
///
/// # Errors
///
/// What `to` says.
pub fn write(
    to: &mut impl Write,
    space: &AddressSpace<'_>,
    faults: &ByMapping,
    elapsed_ns: u64,
    ledger: &Ledger,
) -> io::Result<()> {
    let told = faults.tells_touched;
    let vmas = space.vmas.iter().zip(&faults.vmas);
    let line = FaultsLine {
        schema: SCHEMA,
        kind: "maps-faults",
        pid: space.pid,
        comm: space.comm.as_bytes(),
        lock: space.lock.name(),
        elapsed_ns,
        vmas: vmas
            .map(|(vma, sum)| VmaFaults {
                vma: VmaFields::new(vma),
                faults: FaultFields::new(sum, told),
            })
            .collect(),
        unmapped: FaultFields::new(&faults.unmapped, told),
        roomless: FaultFields::new(&faults.roomless, false),
        total: TotalFields {
            sum: space.total().into(),
            faults: FaultFields::new(&faults.total, told),
        },
        ledger: ledger.to_json(),
    };
    write_alone(to, &line, 0)
}

#[derive(Serialize)]
struct FaultsLine<'a> {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    pid: u32,
    #[serde(serialize_with = "lossy")]
    comm: &'a [u8],
    lock: &'static str,
    elapsed_ns: u64,
    vmas: Vec<VmaFaults<'a>>,
    unmapped: FaultFields,
    roomless: FaultFields,
    total: TotalFields,
    ledger: LedgerJson<'a>,
}

#[derive(Serialize)]
struct VmaFaults<'a> {
    #[serde(flatten)]
    vma: VmaFields<'a>,
    faults: FaultFields,
}

#[derive(Serialize)]
struct TotalFields {
    #[serde(flatten)]
    sum: SumFields,
    faults: FaultFields,
}

#[derive(Serialize)]
struct FaultFields {
    minor: u64,
    major: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    touched_bytes: Option<u64>,
}

impl FaultFields {
    fn new(sum: &Sum, tells_touched: bool) -> Self {
        Self {
            minor: sum.minor,
            major: sum.major,
            touched_bytes: tells_touched.then_some(sum.touched_bytes),
        }
    }
}

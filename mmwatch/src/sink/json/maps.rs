//! An address space as one object, or what changed of it; `docs/maps.schema.json` is the schema.

pub mod faults;

use std::io::{self, Write};

use serde::Serialize;

use super::{Hex, SCHEMA, as_text, lossy, names, no_suspects, write_line};
use crate::{
    event::{Dev, Suspects},
    maps::{AddressSpace, Deed, Life, Residency, Segment, Sum, Vma, diff::Difference},
    space::Line,
};

/// Writes an address space as a line.
///
/// # Errors
///
/// What `to` says.
pub fn write_space(to: &mut impl Write, space: &AddressSpace<'_>) -> io::Result<()> {
    write_alone(to, &SpaceLine::new(space), 4096 + space.vmas.len() * 400)
}

/// Writes one line of about `len_bytes` at once.
fn write_alone(to: &mut impl Write, line: &impl Serialize, len_bytes: usize) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(len_bytes);
    write_line(&mut buffer, line)?;
    to.write_all(&buffer)?;
    to.flush()
}

/// Writes what changed as a line; `space` is the address space afterwards.
///
/// # Errors
///
/// What `to` says.
pub fn write_changes(
    to: &mut impl Write,
    space: &AddressSpace<'_>,
    changes: &[Difference<'_>],
) -> io::Result<()> {
    let line = ChangesLine {
        schema: SCHEMA,
        kind: "maps-diff",
        pid: space.pid,
        comm: space.comm.as_bytes(),
        lock: space.lock.name(),
        changes: changes.iter().map(ChangeFields::new).collect(),
        total: space.total().into(),
    };
    write_alone(to, &line, 0)
}

#[derive(Serialize)]
struct ChangesLine<'a> {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    pid: u32,
    #[serde(serialize_with = "lossy")]
    comm: &'a [u8],
    lock: &'static str,
    changes: Vec<ChangeFields<'a>>,
    total: SumFields,
}

#[derive(Serialize)]
struct ChangeFields<'a> {
    change: &'static str,
    delta_bytes: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<WasFields>,
    #[serde(flatten)]
    vma: VmaFields<'a>,
}

/// What a VMA was like that changed.
#[derive(Serialize)]
struct WasFields {
    start: Hex,
    end: Hex,
    prot: &'static str,
}

impl<'a> ChangeFields<'a> {
    fn new(difference: &Difference<'a>) -> Self {
        Self {
            change: difference.change.name(),
            delta_bytes: difference.delta_bytes,
            was: difference.was.map(|was| WasFields {
                start: Hex(was.line.range.start),
                end: Hex(was.line.range.end),
                prot: was.line.prot.letters(),
            }),
            vma: VmaFields::new(difference.vma),
        }
    }
}

#[derive(Serialize)]
pub(super) struct SpaceLine<'a> {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    pid: u32,
    #[serde(serialize_with = "lossy")]
    comm: &'a [u8],
    lock: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    watched_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_events: Option<u64>,
    vmas: Vec<VmaFields<'a>>,
    segments: Vec<SegmentSum>,
    backings: Vec<BackingSum>,
    suspects: Vec<SuspectSum>,
    total: SumFields,
}

/// A VMA. Fields that are not known are left out.
#[derive(Serialize)]
struct VmaFields<'a> {
    start: Hex,
    end: Hex,
    size_bytes: u64,
    prot: &'static str,
    shared: bool,
    #[serde(flatten)]
    segment: SegmentFields,
    certainty: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<Lossy<'a>>,
    backing: &'static str,
    #[serde(skip_serializing_if = "no_suspects", serialize_with = "names")]
    suspects: Suspects,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Lossy<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<FileFields<'a>>,
    #[serde(flatten)]
    residency: Option<ResidencyFields>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lives: Vec<LifeFields<'a>>,
}

#[derive(Serialize)]
struct LifeFields<'a> {
    start: Hex,
    end: Hex,
    #[serde(skip_serializing_if = "Option::is_none")]
    made: Option<DeedFields<'a>>,
    changes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_change: Option<DeedFields<'a>>,
}

#[derive(Serialize)]
struct DeedFields<'a> {
    age_ns: u64,
    tid: u32,
    #[serde(serialize_with = "lossy")]
    comm: &'a [u8],
    cause: &'static str,
}

#[derive(Serialize)]
struct SegmentFields {
    segment: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<&'static str>,
}

#[derive(Serialize)]
struct FileFields<'a> {
    #[serde(serialize_with = "lossy")]
    path: &'a [u8],
    #[serde(serialize_with = "as_text")]
    dev: Dev,
    inode: u64,
    offset_bytes: u64,
}

#[derive(Serialize)]
struct ResidencyFields {
    resident_bytes: u64,
    proportional_bytes: u64,
    shared_bytes: u64,
    private_bytes: u64,
    swapped_bytes: u64,
    huge_bytes: u64,
}

#[derive(Serialize)]
struct SegmentSum {
    #[serde(flatten)]
    segment: SegmentFields,
    #[serde(flatten)]
    sum: SumFields,
}

#[derive(Serialize)]
struct BackingSum {
    backing: &'static str,
    #[serde(flatten)]
    sum: SumFields,
}

#[derive(Serialize)]
struct SuspectSum {
    suspect: &'static str,
    #[serde(flatten)]
    sum: SumFields,
}

#[derive(Serialize)]
struct SumFields {
    vmas: u64,
    size_bytes: u64,
    #[serde(flatten)]
    residency: Option<ResidencyFields>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Lossy<'a>(#[serde(serialize_with = "lossy")] &'a [u8]);

impl<'a> SpaceLine<'a> {
    pub(super) fn new(space: &'a AddressSpace<'a>) -> Self {
        let segments = space.by_segment().into_iter();
        let backings = space.by_backing().into_iter();
        let watch = space.watch.as_ref();
        let suspects = space.by_suspect().into_iter();
        Self {
            schema: SCHEMA,
            kind: "maps",
            pid: space.pid,
            comm: space.comm.as_bytes(),
            lock: space.lock.name(),
            watched_ns: watch.map(|watch| watch.now_boot_ns.saturating_sub(watch.since_boot_ns)),
            lost_events: watch.map(|watch| watch.lost_events),
            vmas: space
                .vmas
                .iter()
                .map(|vma| VmaFields::at(vma, watch.map_or(0, |watch| watch.now_boot_ns)))
                .collect(),
            segments: segments
                .map(|(segment, sum)| SegmentSum {
                    segment: segment.into(),
                    sum: sum.into(),
                })
                .collect(),
            backings: backings
                .map(|(backing, sum)| BackingSum {
                    backing: backing.name(),
                    sum: sum.into(),
                })
                .collect(),
            suspects: suspects
                .map(|(suspect, sum)| SuspectSum {
                    suspect: suspect.name(),
                    sum: sum.into(),
                })
                .collect(),
            total: space.total().into(),
        }
    }
}

impl<'a> VmaFields<'a> {
    fn new(vma: &'a Vma<'a>) -> Self {
        Self::at(vma, 0)
    }

    /// At the moment from which ages are told.
    fn at(vma: &'a Vma<'a>, now_boot_ns: u64) -> Self {
        let line = &vma.line;
        Self {
            start: Hex(line.range.start),
            end: Hex(line.range.end),
            size_bytes: line.size_bytes(),
            prot: line.prot.letters(),
            shared: line.shared,
            segment: vma.segment.into(),
            certainty: vma.certainty.name(),
            object: vma.object.map(Lossy),
            backing: vma.backing.name(),
            suspects: vma.suspects(),
            name: (!line.has_file() && !line.name.is_empty()).then_some(Lossy(line.name)),
            file: line.has_file().then(|| FileFields::new(line)),
            residency: vma.residency.map(Into::into),
            lives: vma
                .lives
                .iter()
                .map(|life| LifeFields::at(life, now_boot_ns))
                .collect(),
        }
    }
}

impl<'a> LifeFields<'a> {
    fn at(life: &'a Life, now_boot_ns: u64) -> Self {
        let deed = |deed: &'a Deed| DeedFields {
            age_ns: now_boot_ns.saturating_sub(deed.boot_ns),
            tid: deed.tid,
            comm: deed.comm.as_bytes(),
            cause: deed.cause.name(),
        };
        Self {
            start: Hex(life.range.start),
            end: Hex(life.range.end),
            made: life.made.as_ref().map(deed),
            changes: life.changes,
            last_change: life.last_change.as_ref().map(deed),
        }
    }
}

impl<'a> FileFields<'a> {
    const fn new(line: &Line<'a>) -> Self {
        Self {
            path: line.name,
            dev: line.dev,
            inode: line.inode,
            offset_bytes: line.offset,
        }
    }
}

impl From<Segment> for SegmentFields {
    fn from(segment: Segment) -> Self {
        Self {
            segment: segment.name(),
            part: segment.part().map(|part| part.name()),
        }
    }
}

impl From<Residency> for ResidencyFields {
    fn from(residency: Residency) -> Self {
        let Residency {
            resident_bytes,
            proportional_bytes,
            shared_bytes,
            private_bytes,
            swapped_bytes,
            huge_bytes,
        } = residency;
        Self {
            resident_bytes,
            proportional_bytes,
            shared_bytes,
            private_bytes,
            swapped_bytes,
            huge_bytes,
        }
    }
}

impl From<Sum> for SumFields {
    fn from(sum: Sum) -> Self {
        Self {
            vmas: sum.vmas,
            size_bytes: sum.bytes,
            residency: sum.residency.map(Into::into),
        }
    }
}

#[cfg(test)]
mod tests;

//! Bytes of the ring buffer → [`Event`]. No other module knows the wire.

mod paths;

use std::num::NonZeroU64;

use mmwatch_common::{
    event::{self as wire, Base, FilePath, Kind, Record},
    suspect::Suspects,
};

use self::paths::PathTable;
use crate::{
    event::{
        Actor, Advise, Brk, Comm, Dev, Event, Exec, Exit, FileRef, Fork, Grow, Map, Protect, Range,
        Remap, Space, SpaceId, Unmap, What,
    },
    flags::{Errno, MapFlags, Prot, RemapFlags},
};

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not even a kind.
    #[error("an empty record")]
    Empty,
    /// The first byte stands for no kind.
    #[error("a record of the unknown kind {kind}")]
    UnknownKind {
        /// That byte.
        kind: u8,
    },
    /// The length is not the kind's.
    #[error("a record of kind {} with {len} bytes instead of {expected}", kind.name())]
    Length {
        /// What the first byte says.
        kind: Kind,
        /// Bytes that came.
        len: usize,
        /// Bytes that the kind has.
        expected: usize,
    },
    /// The cause byte stands for nothing.
    #[error("a record of kind {} with the unknown cause {cause}", kind.name())]
    UnknownCause {
        /// What the first byte says.
        kind: Kind,
        /// That byte.
        cause: u8,
    },
    /// A suspect bit stands for nothing.
    #[error("a record of kind {} with the unknown suspects {bits:#x}", kind.name())]
    UnknownSuspects {
        /// What the first byte says.
        kind: Kind,
        /// Those bits.
        bits: u16,
    },
    /// A path longer than its record.
    #[error("a record of kind {} whose path has {path_len} bytes", Kind::FilePath.name())]
    PathLength {
        /// The length that it states.
        path_len: u16,
    },
}

/// Decodes records in the order they were made, and remembers the paths among them.
#[derive(Debug)]
pub struct Decoder {
    page_bytes: u64,
    paths: PathTable,
}

impl Decoder {
    /// A decoder for records of a kernel with pages of `page_bytes`.
    pub fn new(page_bytes: u64) -> Self {
        Self {
            page_bytes,
            paths: PathTable::default(),
        }
    }

    /// One record. `None` for a path, which later events carry.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Option<Event>, DecodeError> {
        let &first = bytes.first().ok_or(DecodeError::Empty)?;
        let kind = Kind::from_wire(first).ok_or(DecodeError::UnknownKind { kind: first })?;
        let event = match kind {
            Kind::Map => self.event(kind, bytes, Self::map)?,
            Kind::Unmap => self.event(kind, bytes, Self::unmap)?,
            Kind::Protect => self.event(kind, bytes, Self::protect)?,
            Kind::Remap => self.event(kind, bytes, Self::remap)?,
            Kind::Brk => self.event(kind, bytes, Self::brk)?,
            Kind::Grow => self.event(kind, bytes, Self::grow)?,
            Kind::Advise => self.event(kind, bytes, Self::advise)?,
            Kind::Fork => self.event(kind, bytes, Self::fork)?,
            Kind::Exec => self.event(kind, bytes, Self::exec)?,
            Kind::Exit => self.event(kind, bytes, Self::exit)?,
            Kind::FilePath => {
                let record: FilePath = read(kind, bytes)?;
                let used = record.path.get(..usize::from(record.path_len)).ok_or(
                    DecodeError::PathLength {
                        path_len: record.path_len,
                    },
                )?;
                self.paths.insert(record.file, used, record.truncated != 0);
                return Ok(None);
            }
        };
        Ok(Some(event))
    }

    fn event<P>(
        &mut self,
        kind: Kind,
        bytes: &[u8],
        what: fn(&mut Self, Known, &P) -> What,
    ) -> Result<Event, DecodeError>
    where
        Record<P>: Wire,
    {
        let Record { base, payload }: Record<P> = read(kind, bytes)?;
        let cause = wire::Cause::from_wire(base.cause).ok_or(DecodeError::UnknownCause {
            kind,
            cause: base.cause,
        })?;
        let suspects = Suspects::from_wire(base.suspects).ok_or(DecodeError::UnknownSuspects {
            kind,
            bits: base.suspects,
        })?;
        let errno = Errno::new(base.errno.into());
        let known = Known {
            bits: base.known,
            failed: errno.is_some(),
        };
        Ok(Event {
            boot_ns: base.boot_ns,
            cause,
            errno,
            suspects,
            reason: None,
            who: None,
            unreturned: known.has(wire::UNRETURNED),
            more: known.has(wire::MORE),
            rlimit_as_bytes: known
                .has(wire::KNOWN_RLIMIT)
                .then_some(base.rlimit_as_bytes),
            actor: actor(&base),
            space: self.space(known, &base.space),
            what: what(self, known, &payload),
        })
    }

    fn space(&self, known: Known, space: &wire::Space) -> Space {
        let page_bytes = self.page_bytes;
        // Saturating: the kernel's page counts cannot overflow, a damaged record's can.
        let signed = i64::try_from(page_bytes).unwrap_or(i64::MAX);
        let current = known.has(wire::KNOWN_SPACE);
        let delta = known.has(wire::KNOWN_DELTA);
        Space {
            id: (space.mm != 0).then_some(SpaceId {
                mm: space.mm,
                born_boot_ns: space.born_ns,
            }),
            section: NonZeroU64::new(space.section),
            settled: known.has(wire::KNOWN_SETTLED),
            vmas: current.then_some(space.vmas),
            total_bytes: current.then(|| space.pages.saturating_mul(page_bytes)),
            vmas_delta: delta.then_some(space.vmas_delta),
            total_delta_bytes: delta.then(|| space.pages_delta.saturating_mul(signed)),
            vmas_removed: (delta && space.vmas_removed != wire::UNKNOWN_VMAS)
                .then_some(space.vmas_removed),
            held_ns: known.has(wire::KNOWN_HELD).then_some(space.held_ns),
            drifted: known.has(wire::DRIFTED),
        }
    }

    fn map(&mut self, known: Known, map: &wire::Map) -> What {
        let vm_flags = known.has(wire::KNOWN_VM_FLAGS);
        let file = known
            .has(wire::KNOWN_FILE)
            .then(|| (self.file(map.file), map.offset_bytes));
        What::Map(Map {
            range: known.range(map.addr, map.len_bytes, map.requested_len_bytes),
            // VM_READ, VM_WRITE and VM_EXEC are PROT_*'s bits.
            prot: if known.args() {
                Some(Prot(map.prot))
            } else {
                vm_flags.then_some(Prot((map.vm_flags & 7) as u32))
            },
            flags: known.args().then_some(MapFlags(map.flags)),
            vm_flags: vm_flags.then_some(map.vm_flags),
            file,
        })
    }

    fn unmap(&mut self, known: Known, unmap: &wire::Unmap) -> What {
        // Without a call's arguments, what the unmap core was asked for; shmdt
        // names no length.
        let asked = known.args() || known.has(wire::KNOWN_RANGE) && unmap.requested_len_bytes != 0;
        What::Unmap(Unmap {
            range: known.range(unmap.addr, unmap.len_bytes, unmap.requested_len_bytes),
            span_bytes: (asked && !known.failed)
                .then(|| {
                    unmap
                        .requested_len_bytes
                        .checked_next_multiple_of(self.page_bytes)
                })
                .flatten(),
            vmas_removed: (unmap.vmas_removed != wire::UNKNOWN_VMAS).then_some(unmap.vmas_removed),
        })
    }

    fn protect(&mut self, known: Known, protect: &wire::Protect) -> What {
        What::Protect(Protect {
            range: known.range(protect.addr, protect.len_bytes, protect.requested_len_bytes),
            prot: known.args().then_some(Prot(protect.prot)),
            old_prot: known
                .has(wire::KNOWN_OLD_PROT)
                .then_some(Prot(protect.old_prot)),
        })
    }

    fn remap(&mut self, known: Known, remap: &wire::Remap) -> What {
        What::Remap(Remap {
            range: known.range(remap.addr, remap.len_bytes, remap.requested_len_bytes),
            old_addr: known.args().then_some(remap.old_addr),
            old_len_bytes: known.args().then_some(remap.old_len_bytes),
            flags: known.args().then_some(RemapFlags(remap.flags)),
        })
    }

    fn brk(&mut self, known: Known, brk: &wire::Brk) -> What {
        let mut range = known.range(brk.addr, brk.len_bytes, 0);
        range.requested_len_bytes = None;
        What::Brk(Brk {
            range,
            requested_addr: known.args().then_some(brk.requested_addr),
        })
    }

    fn grow(&mut self, _: Known, grow: &wire::Grow) -> What {
        What::Grow(Grow {
            len_bytes: grow.len_bytes,
        })
    }

    fn advise(&mut self, known: Known, advise: &wire::Advise) -> What {
        What::Advise(Advise {
            range: Range {
                addr: known.args().then_some(advise.addr),
                len_bytes: None,
                requested_len_bytes: known.args().then_some(advise.requested_len_bytes),
            },
            advice: known.args().then_some(advise.advice),
        })
    }

    fn fork(&mut self, _: Known, fork: &wire::Fork) -> What {
        What::Fork(Fork {
            child_tgid: fork.child_tgid,
            child_start_boot_ns: fork.child_start_boot_ns,
            shared: fork.shared != 0,
        })
    }

    fn exec(&mut self, known: Known, exec: &wire::Exec) -> What {
        What::Exec(Exec {
            file: known.has(wire::KNOWN_FILE).then(|| self.file(exec.file)),
        })
    }

    fn exit(&mut self, _: Known, exit: &wire::Exit) -> What {
        What::Exit(Exit {
            len_bytes: exit.len_bytes,
            vmas_removed: exit.vmas_removed,
        })
    }

    fn file(&mut self, id: wire::FileId) -> FileRef {
        FileRef {
            dev: Dev(id.dev),
            inode: id.inode,
            generation: id.generation,
            path: self.paths.get(id),
        }
    }
}

/// The file whose path a record is; `None` for a record of another kind.
pub(crate) fn path_of(bytes: &[u8]) -> Option<wire::FileId> {
    let kind = Kind::from_wire(*bytes.first()?)?;
    if kind != Kind::FilePath {
        return None;
    }
    read::<FilePath>(kind, bytes).ok().map(|path| path.file)
}

fn actor(base: &Base) -> Actor {
    let wire::Actor {
        tgid,
        tid,
        start_boot_ns,
        cgroup_id,
        uid,
        owner_tgid,
        comm,
    } = base.actor;
    Actor {
        tgid,
        tid,
        start_boot_ns,
        cgroup_id,
        uid,
        owner_tgid,
        comm: Comm::new(comm),
    }
}

/// Which fields of a record say something.
#[derive(Clone, Copy)]
struct Known {
    bits: u16,
    failed: bool,
}

impl Known {
    fn has(self, bit: u16) -> bool {
        self.bits & bit != 0
    }

    fn args(self) -> bool {
        self.has(wire::KNOWN_ARGS)
    }

    /// The start is known from either side; what was covered, from the kernel
    /// alone, unless the call failed and covered nothing.
    fn range(self, addr: u64, len_bytes: u64, requested_len_bytes: u64) -> Range {
        let effective = self.has(wire::KNOWN_RANGE);
        Range {
            addr: (effective || self.args()).then_some(addr),
            len_bytes: (effective || self.failed).then_some(len_bytes),
            requested_len_bytes: self.args().then_some(requested_len_bytes),
        }
    }
}

/// What may be read from bytes of its length.
///
/// # Safety
///
/// The type is `repr(C)` and consists of integers only, so that any bytes are a value.
unsafe trait Wire: Copy {}

macro_rules! wire {
    ($($ty:ty),+ $(,)?) => {$(
        // SAFETY: repr(C), integers only, as mmwatch-common lays down.
        unsafe impl Wire for $ty {}
    )+};
}

wire! {
    Record<wire::Map>,
    Record<wire::Unmap>,
    Record<wire::Protect>,
    Record<wire::Remap>,
    Record<wire::Brk>,
    Record<wire::Grow>,
    Record<wire::Advise>,
    Record<wire::Fork>,
    Record<wire::Exec>,
    Record<wire::Exit>,
    FilePath,
}

fn read<T: Wire>(kind: Kind, bytes: &[u8]) -> Result<T, DecodeError> {
    let expected = size_of::<T>();
    if bytes.len() != expected {
        return Err(DecodeError::Length {
            kind,
            len: bytes.len(),
            expected,
        });
    }
    // SAFETY: the bytes are as many as T has, their alignment does not matter
    // to read_unaligned, and any bytes are a T by Wire's contract.
    Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
pub(crate) mod tests;

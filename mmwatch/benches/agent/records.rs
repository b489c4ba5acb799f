//! Records as the kernel programs write them: what a few processes do that map
//! and unmap in turn.

use std::slice;

use mmwatch_common::event::{
    Actor, Base, Cause, FileId, FilePath, KNOWN_ARGS, KNOWN_DELTA, KNOWN_FILE, KNOWN_HELD,
    KNOWN_RANGE, KNOWN_SETTLED, KNOWN_SPACE, KNOWN_VM_FLAGS, Kind, Map, PATH_LEN, Payload, Record,
    Space, UNKNOWN_VMAS, Unmap,
};

/// Size of a page.
pub const PAGE_BYTES: u64 = 4096;

/// Processes that the events are of.
pub const PROCESSES: u32 = 64;

/// When the kernel programs met all of them, ns of the boot clock.
pub const BORN_NS: u64 = 1_000_000;

/// Pairs of each process. All records together are less than the default
/// buffer, and about as much as the agent reads in a row.
const PAIRS: u64 = 128;

/// One process in so many maps a file.
const WITH_FILE: u32 = 8;

const LEN_BYTES: u64 = 4 * PAGE_BYTES;

const KNOWN: u16 = KNOWN_SETTLED
    | KNOWN_DELTA
    | KNOWN_HELD
    | KNOWN_RANGE
    | KNOWN_ARGS
    | KNOWN_SPACE
    | KNOWN_VM_FLAGS;

const FILE: FileId = FileId {
    inode: 4_711,
    dev: 8 << 20 | 1,
    generation: 1,
};

/// Names from the leaf to the root, as the kernel programs find them.
const PATH: &[u8] = b"libexample.so.6\0x86_64-linux-gnu\0lib\0usr\0";

/// The address of a process's `mm_struct`.
pub fn mm(process: u32) -> u64 {
    0xffff_8880_0000_0000 + u64::from(process) * 0x1000
}

/// Records one after the other, as in the ring.
pub struct Records {
    bytes: Vec<u8>,
    lens: Vec<usize>,
    events: u64,
}

impl Records {
    /// Pairs of all processes, in turn.
    pub fn new() -> Self {
        let mut records = Self {
            bytes: Vec::new(),
            lens: Vec::new(),
            events: 0,
        };
        records.push(&path());
        for pair in 0..PAIRS {
            for process in 0..PROCESSES {
                records.push(&map(process, pair));
                records.push(&unmap(process, pair));
                records.events += 2;
            }
        }
        records
    }

    /// How many of them are events.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        self.lens.iter().map(move |&len| {
            let (record, later) = rest.split_at(len);
            rest = later;
            record
        })
    }

    fn push<T: Wire>(&mut self, record: &T) {
        // SAFETY: Wire types are integers without padding.
        let bytes =
            unsafe { slice::from_raw_parts(std::ptr::from_ref(record).cast(), size_of::<T>()) };
        self.bytes.extend_from_slice(bytes);
        self.lens.push(bytes.len());
    }
}

/// What may be read as bytes.
///
/// # Safety
///
/// The type is `repr(C)` and consists of integers without padding.
unsafe trait Wire {}

// SAFETY: as mmwatch-common lays down and asserts.
unsafe impl Wire for Record<Map> {}
// SAFETY: as above.
unsafe impl Wire for Record<Unmap> {}
// SAFETY: as above.
unsafe impl Wire for FilePath {}

fn path() -> FilePath {
    let mut path = [0; PATH_LEN];
    path[..PATH.len()].copy_from_slice(PATH);
    FilePath {
        kind: Kind::FilePath as u8,
        truncated: 0,
        path_len: PATH.len() as u16,
        pad: 0,
        file: FILE,
        path,
    }
}

fn map(process: u32, pair: u64) -> Record<Map> {
    let with_file = process.is_multiple_of(WITH_FILE);
    let known = KNOWN | if with_file { KNOWN_FILE } else { 0 };
    Record {
        base: base::<Map>(process, 2 * pair + 1, known, Cause::Mmap, 1),
        payload: Map {
            addr: addr(pair),
            len_bytes: LEN_BYTES,
            requested_len_bytes: LEN_BYTES,
            vm_flags: 0x73,
            offset_bytes: if with_file { 2 * PAGE_BYTES } else { 0 },
            prot: 3,
            flags: if with_file { 0x02 } else { 0x22 },
            file: if with_file { FILE } else { FileId::default() },
        },
    }
}

fn unmap(process: u32, pair: u64) -> Record<Unmap> {
    Record {
        base: base::<Unmap>(process, 2 * pair + 2, KNOWN, Cause::Munmap, -1),
        payload: Unmap {
            addr: addr(pair),
            len_bytes: LEN_BYTES,
            requested_len_bytes: LEN_BYTES,
            vmas_removed: UNKNOWN_VMAS,
            pad: 0,
        },
    }
}

fn addr(pair: u64) -> u64 {
    0x7f00_0000_0000 + pair % 16 * LEN_BYTES
}

fn base<P: Payload>(process: u32, section: u64, known: u16, cause: Cause, delta: i32) -> Base {
    let mut comm = [0; 16];
    comm[..6].copy_from_slice(b"worker");
    let pages = (LEN_BYTES / PAGE_BYTES).cast_signed();
    Base {
        kind: P::KIND as u8,
        cause: cause as u8,
        known,
        errno: 0,
        suspects: 0,
        boot_ns: BORN_NS + section * 2_500,
        rlimit_as_bytes: 0,
        actor: Actor {
            tgid: 1000 + process,
            tid: 1000 + process,
            start_boot_ns: BORN_NS / 2,
            cgroup_id: 77,
            uid: 1000,
            owner_tgid: 1000 + process,
            comm,
        },
        space: Space {
            mm: mm(process),
            born_ns: BORN_NS,
            section,
            pages: 100_000,
            pages_delta: pages * i64::from(delta),
            held_ns: 450,
            vmas: 200,
            vmas_delta: delta,
            vmas_removed: UNKNOWN_VMAS,
            pad: 0,
        },
    }
}

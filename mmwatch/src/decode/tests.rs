use std::slice;

use mmwatch_common::event::{
    COMM_LEN, FileId, KNOWN_ARGS, KNOWN_DELTA, KNOWN_FILE, KNOWN_HELD, KNOWN_OLD_PROT, KNOWN_RANGE,
    KNOWN_SETTLED, KNOWN_SPACE, KNOWN_VM_FLAGS, PATH_LEN, Payload, UNKNOWN_VMAS,
};

use super::*;
use crate::event::{Cause, Op};

const ALL_KNOWN: u16 = KNOWN_SETTLED
    | KNOWN_DELTA
    | KNOWN_HELD
    | KNOWN_RANGE
    | KNOWN_FILE
    | KNOWN_VM_FLAGS
    | KNOWN_ARGS
    | KNOWN_SPACE
    | KNOWN_OLD_PROT;

const FILE: FileId = FileId {
    inode: 42,
    dev: 8 << 20 | 1,
    generation: 7,
};

const ID: Option<SpaceId> = Some(SpaceId {
    mm: 0xffff_8880_0123_4000,
    born_boot_ns: 950,
});

fn base(kind: Kind, known: u16) -> Base {
    Base {
        kind: kind as u8,
        cause: Cause::Mmap as u8,
        known,
        errno: 0,
        suspects: 0,
        boot_ns: 1_000,
        rlimit_as_bytes: 1 << 30,
        actor: wire::Actor {
            tgid: 10,
            tid: 11,
            start_boot_ns: 900,
            cgroup_id: 5,
            uid: 1000,
            owner_tgid: 10,
            comm: *b"worker\0\0\0\0\0\0\0\0\0\0",
        },
        space: wire::Space {
            mm: 0xffff_8880_0123_4000,
            born_ns: 950,
            section: 3,
            pages: 100,
            pages_delta: -2,
            held_ns: 250,
            vmas: 20,
            vmas_delta: -1,
            vmas_removed: 2,
            pad: 0,
        },
    }
}

fn bytes_of<T: Wire>(value: &T) -> Vec<u8> {
    // SAFETY: Wire types are integers without padding.
    unsafe { slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }.to_vec()
}

fn encode<P: Payload>(known: u16, payload: P) -> Vec<u8>
where
    Record<P>: Wire,
{
    encode_with(base(P::KIND, known), payload)
}

fn encode_with<P: Payload>(base: Base, payload: P) -> Vec<u8>
where
    Record<P>: Wire,
{
    bytes_of(&Record { base, payload })
}

fn encode_path(path: &[u8], truncated: u8) -> FilePath {
    let mut record = FilePath {
        kind: Kind::FilePath as u8,
        truncated,
        path_len: path.len() as u16,
        pad: 0,
        file: FILE,
        path: [0; PATH_LEN],
    };
    record.path[..path.len()].copy_from_slice(path);
    record
}

/// A record for tests elsewhere.
pub(crate) fn grow(known: u16) -> Vec<u8> {
    encode(known, wire::Grow { len_bytes: 4096 })
}

/// Another.
pub(crate) fn exec() -> Vec<u8> {
    encode(KNOWN_FILE, wire::Exec { file: FILE })
}

/// A path record for tests elsewhere.
pub(crate) fn path() -> Vec<u8> {
    bytes_of(&encode_path(b"sh\0bin\0", 0))
}

fn map() -> wire::Map {
    wire::Map {
        addr: 0x7000_0000_0000,
        len_bytes: 8192,
        requested_len_bytes: 5000,
        vm_flags: 0x73,
        offset_bytes: 4096,
        prot: 3,
        flags: 2,
        file: FILE,
    }
}

/// One record of each kind.
fn every_kind() -> Vec<(Kind, Vec<u8>)> {
    Kind::ALL
        .iter()
        .map(|&kind| {
            let bytes = match kind {
                Kind::Map => encode(ALL_KNOWN, map()),
                Kind::Unmap => encode(
                    ALL_KNOWN,
                    wire::Unmap {
                        addr: 0x1000,
                        len_bytes: 4096,
                        requested_len_bytes: 8192,
                        vmas_removed: 2,
                        pad: 0,
                    },
                ),
                Kind::Protect => encode(
                    ALL_KNOWN,
                    wire::Protect {
                        addr: 0x1000,
                        len_bytes: 4096,
                        requested_len_bytes: 4000,
                        prot: 5,
                        old_prot: 3,
                    },
                ),
                Kind::Remap => encode(
                    ALL_KNOWN,
                    wire::Remap {
                        addr: 0x3000,
                        len_bytes: 8192,
                        requested_len_bytes: 8000,
                        old_addr: 0x1000,
                        old_len_bytes: 4096,
                        flags: 1,
                        pad: 0,
                    },
                ),
                Kind::Brk => encode(
                    ALL_KNOWN,
                    wire::Brk {
                        addr: 0x1000,
                        len_bytes: 4096,
                        requested_addr: 0x1ff0,
                    },
                ),
                Kind::Grow => encode(ALL_KNOWN, wire::Grow { len_bytes: 4096 }),
                Kind::Advise => encode(
                    ALL_KNOWN,
                    wire::Advise {
                        addr: 0x1000,
                        requested_len_bytes: 4096,
                        advice: 4,
                    },
                ),
                Kind::Fork => encode(
                    ALL_KNOWN,
                    wire::Fork {
                        child_start_boot_ns: 1_001,
                        child_tgid: 12,
                        shared: 1,
                    },
                ),
                Kind::Exec => encode(ALL_KNOWN, wire::Exec { file: FILE }),
                Kind::Exit => encode(
                    ALL_KNOWN,
                    wire::Exit {
                        len_bytes: 409_600,
                        vmas_removed: 20,
                        pad: 0,
                    },
                ),
                Kind::FilePath => bytes_of(&encode_path(b"sh\0bin\0", 0)),
            };
            (kind, bytes)
        })
        .collect()
}

fn decode(bytes: &[u8]) -> Event {
    Decoder::new(4096).decode(bytes).unwrap().unwrap()
}

#[test]
fn every_kind_makes_the_round_trip() {
    let mut decoder = Decoder::new(4096);
    decoder
        .decode(&bytes_of(&encode_path(b"sh\0bin\0", 0)))
        .unwrap();
    let file = FileRef {
        dev: Dev(8 << 20 | 1),
        inode: 42,
        generation: 7,
        path: Some("/bin/sh".into()),
    };
    let range = |addr, len_bytes, requested| Range {
        addr: Some(addr),
        len_bytes: Some(len_bytes),
        requested_len_bytes: requested,
    };
    for (kind, bytes) in every_kind() {
        let event = decoder.decode(&bytes).unwrap();
        let want = match kind {
            Kind::Map => What::Map(Map {
                range: range(0x7000_0000_0000, 8192, Some(5000)),
                prot: Some(Prot(3)),
                flags: Some(MapFlags(2)),
                vm_flags: Some(0x73),
                file: Some((file.clone(), 4096)),
            }),
            Kind::Unmap => What::Unmap(Unmap {
                range: range(0x1000, 4096, Some(8192)),
                span_bytes: Some(8192),
                vmas_removed: Some(2),
            }),
            Kind::Protect => What::Protect(Protect {
                range: range(0x1000, 4096, Some(4000)),
                prot: Some(Prot(5)),
                old_prot: Some(Prot(3)),
            }),
            Kind::Remap => What::Remap(Remap {
                range: range(0x3000, 8192, Some(8000)),
                old_addr: Some(0x1000),
                old_len_bytes: Some(4096),
                flags: Some(RemapFlags(1)),
            }),
            Kind::Brk => What::Brk(Brk {
                range: range(0x1000, 4096, None),
                requested_addr: Some(0x1ff0),
            }),
            Kind::Grow => What::Grow(Grow { len_bytes: 4096 }),
            Kind::Advise => What::Advise(Advise {
                range: Range {
                    addr: Some(0x1000),
                    len_bytes: None,
                    requested_len_bytes: Some(4096),
                },
                advice: Some(4),
            }),
            Kind::Fork => What::Fork(Fork {
                child_tgid: 12,
                child_start_boot_ns: 1_001,
                shared: true,
            }),
            Kind::Exec => What::Exec(Exec {
                file: Some(file.clone()),
            }),
            Kind::Exit => What::Exit(Exit {
                len_bytes: 409_600,
                vmas_removed: 20,
            }),
            Kind::FilePath => {
                assert_eq!(event, None);
                continue;
            }
        };
        let event = event.unwrap();
        assert_eq!(event.what, want);
        assert_eq!(event.op().name(), kind.name());
        assert_eq!(event.boot_ns, 1_000);
        assert_eq!(event.cause, Cause::Mmap);
        assert_eq!(event.errno, None);
        assert_eq!(
            event.actor,
            Actor {
                tgid: 10,
                tid: 11,
                start_boot_ns: 900,
                cgroup_id: 5,
                uid: 1000,
                owner_tgid: 10,
                comm: Comm::new(*b"worker\0\0\0\0\0\0\0\0\0\0"),
            }
        );
        assert_eq!(
            event.space,
            Space {
                id: ID,
                section: NonZeroU64::new(3),
                settled: true,
                vmas: Some(20),
                total_bytes: Some(409_600),
                vmas_delta: Some(-1),
                total_delta_bytes: Some(-8192),
                vmas_removed: Some(2),
                held_ns: Some(250),
                drifted: false,
            }
        );
    }
}

#[test]
fn what_was_not_seen_is_absent() {
    for (kind, mut bytes) in every_kind() {
        if kind == Kind::FilePath {
            continue;
        }
        // Base::known.
        bytes[2..4].fill(0);
        let event = decode(&bytes);
        let section = NonZeroU64::new(3);
        assert_eq!(
            event.space,
            Space {
                id: ID,
                section,
                ..Space::default()
            }
        );
        assert_eq!(event.file(), None, "{kind:?}");
        match event.what {
            // Their lengths need no hook beyond the one that made the record.
            What::Grow(_) | What::Exit(_) => {}
            _ => assert_eq!(event.range(), Range::default(), "{kind:?}"),
        }
    }
    let unmap = wire::Unmap {
        addr: 0,
        len_bytes: 0,
        requested_len_bytes: 0,
        vmas_removed: UNKNOWN_VMAS,
        pad: 0,
    };
    let What::Unmap(unmap) = decode(&encode(ALL_KNOWN, unmap)).what else {
        panic!("not an unmap");
    };
    assert_eq!(unmap.vmas_removed, None);
}

#[test]
fn an_unmap_tells_within_which_range_all_was_removed() {
    let span = |known, requested_len_bytes, errno| {
        let payload = wire::Unmap {
            addr: 0x1000,
            len_bytes: 4096,
            requested_len_bytes,
            vmas_removed: 1,
            pad: 0,
        };
        let base = Base {
            errno,
            ..base(Kind::Unmap, known)
        };
        match decode(&encode_with(base, payload)).what {
            What::Unmap(unmap) => unmap.span_bytes,
            other => panic!("{other:?}"),
        }
    };
    // munmap: whole pages of what was asked for.
    assert_eq!(span(KNOWN_ARGS | KNOWN_RANGE, 5000, 0), Some(8192));
    assert_eq!(span(KNOWN_ARGS, 0, 0), Some(0));
    assert_eq!(span(KNOWN_ARGS, u64::MAX, 0), None);
    // It failed.
    assert_eq!(span(KNOWN_ARGS, 5000, 22), None);
    // The unmap core: one range, or several.
    assert_eq!(span(KNOWN_RANGE, 8192, 0), Some(8192));
    assert_eq!(span(0, 8192, 0), None);
    // shmdt, which names no length.
    assert_eq!(span(KNOWN_RANGE, 0, 0), None);
}

#[test]
fn a_failed_call_keeps_the_callers_wish_and_covers_nothing() {
    let failed = Base {
        errno: libc::ENOMEM as u16,
        ..base(Kind::Map, KNOWN_ARGS)
    };
    let event = decode(&encode_with(
        failed,
        wire::Map {
            len_bytes: 0,
            ..map()
        },
    ));
    assert_eq!(event.errno.unwrap().to_string(), "ENOMEM");
    assert_eq!(
        event.range(),
        Range {
            addr: Some(0x7000_0000_0000),
            len_bytes: Some(0),
            requested_len_bytes: Some(5000),
        }
    );
}

#[test]
fn prot_comes_from_vm_flags_when_the_call_was_not_seen() {
    let What::Map(map) = decode(&encode(KNOWN_VM_FLAGS | KNOWN_RANGE, map())).what else {
        panic!("not a map");
    };
    assert_eq!(map.prot, Some(Prot(3)));
    assert_eq!(map.flags, None);
    assert_eq!(map.file, None);
}

#[test]
fn no_truncation_and_no_extension_of_any_kind_is_a_record() {
    let mut decoder = Decoder::new(4096);
    for (kind, mut bytes) in every_kind() {
        let expected = bytes.len();
        for len in 1..expected {
            assert_eq!(
                decoder.decode(&bytes[..len]),
                Err(DecodeError::Length {
                    kind,
                    len,
                    expected
                })
            );
        }
        bytes.push(0);
        let len = bytes.len();
        assert_eq!(
            decoder.decode(&bytes),
            Err(DecodeError::Length {
                kind,
                len,
                expected
            })
        );
    }
    assert_eq!(decoder.decode(&[]), Err(DecodeError::Empty));
}

#[test]
fn unknown_kinds_are_refused() {
    let mut bytes = encode(ALL_KNOWN, map());
    for byte in u8::MIN..=u8::MAX {
        bytes[0] = byte;
        let result = Decoder::new(4096).decode(&bytes);
        match Kind::from_wire(byte) {
            None => assert_eq!(result, Err(DecodeError::UnknownKind { kind: byte })),
            // Kinds of this very length decode; that they cannot be told apart is fine.
            Some(_) => assert!(!matches!(result, Err(DecodeError::UnknownKind { .. }))),
        }
    }
    assert_eq!(Op::ALL.len() + 1, Kind::ALL.len());
}

#[test]
fn suspects_are_decoded_and_unknown_ones_refused() {
    let with = |suspects| {
        let base = Base {
            suspects,
            ..base(Kind::Map, ALL_KNOWN)
        };
        Decoder::new(4096).decode(&encode_with(base, map()))
    };
    for (bits, want) in [(0, ""), (0b11, "write-exec,anon-exec"), (0x40, "heap-exec")] {
        assert_eq!(with(bits).unwrap().unwrap().suspects.to_string(), want);
    }
    assert_eq!(
        with(0x80),
        Err(DecodeError::UnknownSuspects {
            kind: Kind::Map,
            bits: 0x80
        })
    );
}

#[test]
fn unknown_causes_are_refused() {
    let mut bytes = encode(ALL_KNOWN, map());
    for byte in u8::MIN..=u8::MAX {
        bytes[1] = byte;
        let result = Decoder::new(4096).decode(&bytes);
        match Cause::from_wire(byte) {
            None => {
                let kind = Kind::Map;
                assert_eq!(result, Err(DecodeError::UnknownCause { kind, cause: byte }));
            }
            Some(cause) => assert_eq!(result.unwrap().unwrap().cause, cause),
        }
    }
}

#[test]
fn a_path_longer_than_its_record_is_refused() {
    let mut record = encode_path(b"x\0", 0);
    for (path_len, fits) in [
        (PATH_LEN as u16, true),
        (PATH_LEN as u16 + 1, false),
        (u16::MAX, false),
    ] {
        record.path_len = path_len;
        let want = if fits {
            Ok(None)
        } else {
            Err(DecodeError::PathLength { path_len })
        };
        assert_eq!(Decoder::new(4096).decode(&bytes_of(&record)), want);
    }
}

#[test]
fn a_truncated_path_says_so() {
    let mut decoder = Decoder::new(4096);
    decoder
        .decode(&bytes_of(&encode_path(b"c\0b\0", 1)))
        .unwrap();
    let event = decoder
        .decode(&encode(ALL_KNOWN, wire::Exec { file: FILE }))
        .unwrap()
        .unwrap();
    assert_eq!(event.file().unwrap().path.as_deref(), Some(".../b/c"));
}

#[test]
fn huge_numbers_do_not_overflow() {
    let mut huge = base(Kind::Grow, ALL_KNOWN);
    huge.space.pages = u64::MAX;
    huge.space.pages_delta = i64::MIN;
    let space = decode(&encode_with(
        huge,
        wire::Grow {
            len_bytes: u64::MAX,
        },
    ))
    .space;
    assert_eq!(space.total_bytes, Some(u64::MAX));
    assert_eq!(space.total_delta_bytes, Some(i64::MIN));
}

#[test]
fn arbitrary_bytes_never_panic() {
    // A small multiplicative generator: the same bytes in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut decoder = Decoder::new(4096);
    for (_, template) in every_kind() {
        for _ in 0..500 {
            let mut bytes = template.clone();
            for byte in &mut bytes[1..] {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            let _ = decoder.decode(&bytes);
        }
    }
    assert_eq!(COMM_LEN, 16);
}

use mmwatch_common::event::{Cause, Op};

use super::*;
use crate::{
    event::{Range, Space},
    flags::{Errno, RemapFlags},
    sample,
};

const MAX: u32 = 1000;
const GIB: u64 = 1 << 30;
const END: u64 = 0x7fff_ffff_f000;
const RW: u32 = 3;
const PRIVATE: u32 = 0x22;
const FIXED: u32 = 0x10;
const NO_REPLACE: u32 = 0x10_0000;

fn limits() -> Limits {
    Limits {
        max_map_count: MAX,
        overcommit: Some(Overcommit::Guess {
            memory_bytes: 16 * GIB,
        }),
        page_bytes: 4096,
        address_space_bytes: Some(END),
        mmap_min_addr: Some(65_536),
    }
}

fn failed(errno: u32, op: Op) -> Event {
    let mut event = sample::event(op);
    event.errno = Errno::new(errno);
    event.rlimit_as_bytes = (errno == ENOMEM).then_some(u64::MAX);
    event.space.total_bytes = Some(GIB);
    event
}

/// A mapping of nothing known but the call, refused.
fn map(errno: u32, addr: u64, len: u64, flags: u32) -> Event {
    let mut event = failed(errno, Op::Map);
    event.what = What::Map(Map {
        range: range(addr, len),
        prot: Some(Prot(RW)),
        flags: Some(MapFlags(flags)),
        vm_flags: None,
        file: None,
    });
    event
}

fn range(addr: u64, len: u64) -> Range {
    Range {
        addr: Some(addr),
        len_bytes: Some(0),
        requested_len_bytes: Some(len),
    }
}

fn protect(errno: u32, addr: u64, len: u64, prot: u32) -> Event {
    let mut event = failed(errno, Op::Protect);
    event.what = What::Protect(Protect {
        range: range(addr, len),
        prot: Some(Prot(prot)),
        old_prot: None,
    });
    event
}

fn remap(errno: u32, old_len: u64, new_len: u64, flags: u32) -> Event {
    let mut event = failed(errno, Op::Remap);
    event.what = What::Remap(Remap {
        range: range(0x1000_0000, new_len),
        old_addr: Some(0x1000_0000),
        old_len_bytes: Some(old_len),
        flags: Some(RemapFlags(flags)),
    });
    event
}

fn name(event: &Event) -> Option<&'static str> {
    explain(event, &limits()).map(|reason| reason.name())
}

fn with_vmas(mut event: Event, vmas: u32) -> Event {
    event.space.vmas = Some(vmas);
    event
}

#[test]
fn success_needs_no_reason() {
    for &op in Op::ALL {
        assert_eq!(explain(&sample::event(op), &limits()), None);
        assert_eq!(explain(&sample::bare(op), &limits()), None);
    }
}

#[test]
fn nothing_known_gives_no_reason() {
    let nothing = Limits {
        overcommit: None,
        address_space_bytes: None,
        mmap_min_addr: None,
        ..limits()
    };
    for &op in Op::ALL {
        for errno in 1..140 {
            let mut event = sample::bare(op);
            event.errno = Errno::new(errno);
            let reason = explain(&event, &nothing);
            // No check but one has this errno.
            let plain = (op, errno) == (Op::Unmap, EPERM);
            assert_eq!(reason.is_some(), plain, "{op:?} {errno}: {reason:?}");
        }
    }
}

#[test]
fn mmap_is_refused_above_the_limit_and_splits_at_it() {
    let anonymous = |vmas| with_vmas(map(ENOMEM, 0, 4096, PRIVATE), vmas);
    assert_eq!(name(&anonymous(MAX - 1)), None);
    assert_eq!(name(&anonymous(MAX)), Some("vma_limit"));
    let reason = explain(&anonymous(MAX + 1), &limits()).unwrap();
    assert_eq!(
        reason.to_string(),
        "the process has 1001 VMAs, and vm.max_map_count is 1000"
    );
    assert_eq!(reason.short().to_string(), "vma_limit 1001 of 1000");

    // Before the address is looked for.
    let huge = with_vmas(map(ENOMEM, 0, 1 << 47, PRIVATE), MAX + 1);
    assert_eq!(name(&huge), Some("vma_limit"));
    // At the limit, other evidence goes first.
    let mut limited = anonymous(MAX);
    limited.rlimit_as_bytes = Some(GIB);
    assert_eq!(name(&limited), Some("rlimit_as"));

    let unmap = |vmas| with_vmas(failed(ENOMEM, Op::Unmap), vmas);
    assert_eq!(name(&unmap(MAX)), Some("vma_limit"));
    assert_eq!(name(&unmap(MAX - 1)), None);

    // shmat: nothing but the count is known.
    let mut shmat = sample::bare(Op::Map);
    shmat.errno = Errno::new(ENOMEM);
    shmat.cause = Cause::Shmat;
    assert_eq!(name(&shmat), None);
    assert_eq!(name(&with_vmas(shmat, MAX + 1)), Some("vma_limit"));

    let mut early = anonymous(MAX + 1);
    early.space = Space::default();
    assert_eq!(name(&early), None);
}

#[test]
fn rlimit_as_counts_whole_pages() {
    let limited = |limit, len, flags| {
        let mut event = map(ENOMEM, 0x1000_0000, len, flags);
        event.rlimit_as_bytes = Some(limit);
        event
    };
    let reason = explain(&limited(GIB, GIB / 5, PRIVATE), &limits()).unwrap();
    assert_eq!(reason.name(), "rlimit_as");
    assert_eq!(
        reason.to_string(),
        "RLIMIT_AS allows 1GiB, and 1.2GiB would be mapped"
    );
    assert_eq!(reason.short().to_string(), "rlimit_as 1.2GiB of 1GiB");
    assert_eq!(name(&limited(GIB + 4096, 1, PRIVATE)), None);
    assert_eq!(name(&limited(GIB + 4095, 1, PRIVATE)), Some("rlimit_as"));
    assert_eq!(name(&limited(GIB + 4096, 4097, PRIVATE)), Some("rlimit_as"));

    // What is replaced makes room.
    assert_eq!(name(&limited(GIB, 4096, PRIVATE | FIXED)), None);
    assert_eq!(
        name(&limited(GIB - 4096, 4096, PRIVATE | FIXED)),
        Some("rlimit_as")
    );
    assert_eq!(
        name(&limited(GIB, 4096, PRIVATE | FIXED | NO_REPLACE)),
        Some("rlimit_as")
    );

    let mut brk = failed(ENOMEM, Op::Brk);
    assert_eq!(name(&brk), None);
    brk.rlimit_as_bytes = Some(GIB);
    assert_eq!(name(&brk), Some("rlimit_as"));
}

#[test]
fn the_address_space_ends() {
    assert_eq!(
        name(&map(ENOMEM, 0, 1 << 47, PRIVATE)),
        Some("no_address_space")
    );
    assert_eq!(
        name(&map(ENOMEM, 0, u64::MAX, PRIVATE)),
        Some("no_address_space")
    );
    // The mappings take 1 GiB of it.
    assert_eq!(
        name(&map(ENOMEM, 0, END - GIB + 4096, PRIVATE)),
        Some("no_address_space")
    );
    let there_is_room = map(ENOMEM, 0, END - GIB, 0x4000 | PRIVATE);
    assert_eq!(name(&there_is_room), None);
    assert_eq!(
        name(&map(ENOMEM, END - 4096, 8192, PRIVATE | FIXED)),
        Some("outside_address_space")
    );

    // Five levels: only a hint makes the kernel look beyond 47 bits.
    let wide = Limits {
        address_space_bytes: Some((1 << 56) - 4096),
        overcommit: Some(Overcommit::Always),
        ..limits()
    };
    let named = |addr, len, flags| {
        explain(&map(ENOMEM, addr, len, flags), &wide).map(|reason| reason.name())
    };
    assert_eq!(named(0, 1 << 47, PRIVATE), Some("no_address_space"));
    assert_eq!(named(END, 1 << 47, PRIVATE | FIXED), None);
    assert_eq!(named(1 << 50, 1 << 47, PRIVATE), None);
    assert_eq!(named(1 << 50, 1 << 56, PRIVATE), Some("no_address_space"));
    // What is mapped may lie beyond the window.
    assert_eq!(named(0, END - 4096, PRIVATE), None);

    let mut unmap = failed(EINVAL, Op::Unmap);
    if let What::Unmap(unmap) = &mut unmap.what {
        unmap.range = range(END, 4096);
    }
    assert_eq!(name(&unmap), Some("outside_address_space"));
    assert_eq!(
        name(&protect(ENOMEM, u64::MAX - 4095, 8192, 1)),
        Some("outside_address_space")
    );
}

#[test]
fn overcommit_is_of_what_counts() {
    let len = 16 * GIB + 4096;
    let reason = explain(&map(ENOMEM, 0, len, PRIVATE), &limits()).unwrap();
    assert_eq!(reason.name(), "overcommit");
    assert_eq!(
        reason.to_string(),
        "16.0GiB at once is more than the 16GiB of RAM and swap, and vm.overcommit_memory is 0"
    );
    assert_eq!(name(&map(ENOMEM, 0, 16 * GIB, PRIVATE)), None);
    // Shared memory counts, what is not reserved does not.
    assert_eq!(name(&map(ENOMEM, 0, len, 0x21)), Some("overcommit"));
    assert_eq!(name(&map(ENOMEM, 0, len, 0x21 | 0x4000)), None);
    assert_eq!(name(&map(ENOMEM, 0, len, PRIVATE | 0x4_0000)), None);
    assert_eq!(name(&map(ENOMEM, 0, len, 0x28)), None);
    let mut read_only = map(ENOMEM, 0, len, PRIVATE);
    if let What::Map(map) = &mut read_only.what {
        map.prot = Some(Prot(1));
    }
    assert_eq!(name(&read_only), None);

    let never = Limits {
        overcommit: Some(Overcommit::Never {
            limit_bytes: 8 * GIB,
            committed_bytes: 7 * GIB,
            admin_reserve_bytes: GIB / 8,
            user_reserve_bytes: GIB / 8,
        }),
        ..limits()
    };
    // 1/32 GiB is kept from this process, 1/8 from users.
    let left = GIB - GIB / 32 - GIB / 8;
    let wanting = |len, flags| map(ENOMEM, 0, len, flags);
    assert_eq!(explain(&wanting(left - 4096, PRIVATE), &never), None);
    let reason = explain(&wanting(left, PRIVATE | 0x4000), &never).unwrap();
    assert_eq!(
        reason.to_string(),
        "7GiB of 7.8GiB are committed without the 864MiB asked for, and vm.overcommit_memory is 2"
    );
    let mut root = wanting(left, PRIVATE);
    root.actor.uid = 0;
    assert_eq!(explain(&root, &never), None);
    let always = Limits {
        overcommit: Some(Overcommit::Always),
        ..limits()
    };
    assert_eq!(explain(&wanting(len, PRIVATE), &always), None);
}

#[test]
fn wrong_arguments_of_mmap_are_told_apart() {
    assert_eq!(name(&map(EINVAL, 0, 0, PRIVATE)), Some("length_zero"));
    assert_eq!(
        name(&map(EINVAL, 1, 4096, PRIVATE | FIXED)),
        Some("unaligned_address")
    );
    assert_eq!(
        name(&map(EINVAL, 1, 4096, PRIVATE | NO_REPLACE)),
        Some("unaligned_address")
    );
    assert_eq!(name(&map(EINVAL, 0, 4096, 0x20)), Some("no_type"));
    // A wrong hint is put right; an anonymous mapping's offset is not known.
    assert_eq!(name(&map(EINVAL, 1, 4096, PRIVATE)), None);
    // Length and offset are wrong: the offset is looked at first.
    let mut offset = map(EINVAL, 0, 0, 2);
    if let What::Map(map) = &mut offset.what {
        map.file = Some((sample::file(None), 1));
    }
    assert_eq!(name(&offset), Some("unaligned_offset"));

    assert_eq!(name(&map(EBADF, 0, 4096, 2)), Some("bad_descriptor"));
    assert_eq!(name(&map(ENODEV, 0, 4096, 2)), Some("not_mappable"));
    assert_eq!(name(&map(EOVERFLOW, 0, 4096, 2)), Some("offset_too_large"));
    assert_eq!(
        name(&map(EAGAIN, 0, 4096, PRIVATE | 0x2000)),
        Some("rlimit_memlock")
    );
    assert_eq!(
        name(&map(EEXIST, 4096, 4096, PRIVATE | NO_REPLACE)),
        Some("already_mapped")
    );
    assert_eq!(name(&map(EEXIST, 4096, 4096, 2)), None);
    assert_eq!(
        name(&map(EPERM, 4096, 4096, PRIVATE | FIXED)),
        Some("address_too_low")
    );
    assert_eq!(name(&map(EPERM, 65_536, 4096, PRIVATE | FIXED)), None);
    assert_eq!(name(&map(EPERM, 4096, 4096, PRIVATE)), None);
}

#[test]
fn how_a_file_was_opened_is_told_from_who_else_may_refuse() {
    let refused = |path: &str, flags| {
        let mut event = map(EACCES, 0, 4096, flags);
        if let What::Map(map) = &mut event.what {
            map.file = Some((sample::file(Some(path)), 0));
        }
        event
    };
    let shared = refused("/tmp/file", 1);
    assert_eq!(
        explain(&shared, &limits()),
        Some(Reason::FileMode { writes: true })
    );
    assert_eq!(
        explain(&refused("/tmp/file", 2), &limits()),
        Some(Reason::FileMode { writes: false })
    );
    // A driver has a say in /dev, and wherever mmap_region was reached.
    assert_eq!(name(&refused("/dev/dri/card0", 1)), None);
    let mut late = shared.clone();
    if let What::Map(map) = &mut late.what {
        map.vm_flags = Some(0xfb);
    }
    assert_eq!(name(&late), None);
    // A security module says no before there is a section.
    let mut early = shared;
    early.space = Space::default();
    assert_eq!(name(&early), None);
}

#[test]
fn munmap_and_mprotect_look_at_the_range() {
    let unmap = |errno, addr, len| {
        let mut event = failed(errno, Op::Unmap);
        if let What::Unmap(unmap) = &mut event.what {
            unmap.range = range(addr, len);
        }
        event
    };
    assert_eq!(name(&unmap(EINVAL, 1, 0)), Some("unaligned_address"));
    assert_eq!(name(&unmap(EINVAL, 4096, 0)), Some("length_zero"));
    assert_eq!(name(&unmap(EINVAL, 4096, 4096)), None);
    assert_eq!(name(&unmap(EPERM, 4096, 4096)), Some("sealed"));

    assert_eq!(
        name(&protect(EINVAL, 1, 4096, 1)),
        Some("unaligned_address")
    );
    assert_eq!(name(&protect(EINVAL, 4096, 4096, 1)), None);
    let hole = |prot| protect(ENOMEM, 4096, 4096, prot);
    assert_eq!(name(&hole(1)), Some("unmapped_range"));
    assert_eq!(name(&with_vmas(hole(1), MAX)), Some("vma_limit"));
    // RLIMIT_DATA may be what keeps it from becoming writable.
    assert_eq!(name(&hole(RW)), None);
    assert_eq!(name(&with_vmas(hole(RW), MAX)), Some("vma_limit"));
    let mut early = hole(1);
    early.space = Space::default();
    assert_eq!(name(&early), None);
}

#[test]
fn mremap_keeps_its_distance_from_the_limit() {
    let grown = |flags, vmas| with_vmas(remap(ENOMEM, 4096, 8192, flags), vmas);
    assert_eq!(name(&grown(1, MAX - 3)), Some("vma_limit"));
    assert_eq!(name(&grown(1, MAX - 4)), None);
    assert_eq!(name(&grown(1 | 2, MAX - 5)), Some("vma_limit"));
    assert_eq!(name(&grown(1 | 2, MAX - 6)), None);
    // In place there is no new VMA.
    assert_eq!(name(&grown(0, MAX)), None);
    let shrunk = |vmas| with_vmas(remap(ENOMEM, 8192, 4096, 0), vmas);
    assert_eq!(name(&shrunk(MAX)), Some("vma_limit"));
    assert_eq!(name(&shrunk(MAX - 1)), None);

    let limited = |old_len, flags| {
        let mut event = remap(ENOMEM, old_len, 8192, flags);
        event.rlimit_as_bytes = Some(GIB + 4096);
        event
    };
    assert_eq!(name(&limited(4096, 1)), None);
    assert_eq!(name(&limited(0, 1)), Some("rlimit_as"));
    assert_eq!(name(&limited(8192, 1 | 4)), Some("rlimit_as"));
    assert_eq!(
        name(&remap(ENOMEM, 4096, 1 << 47, 1)),
        Some("no_address_space")
    );

    assert_eq!(name(&remap(EFAULT, 4096, 8192, 1)), Some("not_one_mapping"));
    assert_eq!(name(&remap(EINVAL, 4096, 0, 1)), Some("length_zero"));
    assert_eq!(name(&remap(EINVAL, 4096, 8192, 2)), None);
    assert_eq!(name(&remap(EAGAIN, 4096, 8192, 1)), Some("rlimit_memlock"));
    assert_eq!(name(&remap(EPERM, 4096, 8192, 1)), Some("sealed"));
    assert_eq!(name(&remap(EPERM, 4096, 8192, 1 | 2)), None);
    let mut odd = remap(EINVAL, 4096, 8192, 1);
    if let What::Remap(remap) = &mut odd.what {
        remap.old_addr = Some(0x1000_0001);
    }
    assert_eq!(name(&odd), Some("unaligned_address"));
}

#[test]
fn brk_has_but_one_errno() {
    let brk = |from: u64, to: u64| {
        let mut event = failed(ENOMEM, Op::Brk);
        event.what = What::Brk(Brk {
            range: Range {
                requested_len_bytes: None,
                ..range(from, 0)
            },
            requested_addr: Some(to),
        });
        event
    };
    let start = 0x5555_0000_0000;
    assert_eq!(name(&brk(start, start + 4096)), None);
    assert_eq!(name(&brk(start, 1 << 46)), None);
    assert_eq!(name(&brk(start, start + 17 * GIB)), Some("overcommit"));
    assert_eq!(name(&brk(start, 1 << 47)), Some("outside_address_space"));
    let full = with_vmas(brk(start, start + 4096), MAX + 1);
    assert_eq!(name(&full), Some("vma_limit"));
}

#[test]
fn sentences_fit_and_names_are_words() {
    let all = [
        Reason::VmaLimit {
            vmas: u32::MAX,
            max_map_count: u32::MAX,
        },
        Reason::RlimitAs {
            limit_bytes: u64::MAX,
            mapped_bytes: u64::MAX,
        },
        Reason::OvercommitAtOnce {
            wanted_bytes: u64::MAX,
            memory_bytes: u64::MAX,
        },
        Reason::OvercommitInAll {
            wanted_bytes: u64::MAX,
            committed_bytes: u64::MAX,
            allowed_bytes: u64::MAX,
        },
        Reason::NoAddressSpace {
            wanted_bytes: u64::MAX,
            address_space_bytes: u64::MAX,
        },
        Reason::OutsideAddressSpace {
            addr: u64::MAX,
            len_bytes: u64::MAX,
        },
        Reason::UnmappedRange,
        Reason::NotOneMapping,
        Reason::LengthZero,
        Reason::UnalignedAddress { addr: u64::MAX },
        Reason::UnalignedOffset {
            offset_bytes: u64::MAX,
        },
        Reason::OffsetTooLarge,
        Reason::NoType,
        Reason::BadDescriptor,
        Reason::AlreadyMapped,
        Reason::AddressTooLow {
            addr: u64::MAX,
            min_addr: u64::MAX,
        },
        Reason::FileMode { writes: true },
        Reason::FileMode { writes: false },
        Reason::NotMappable,
        Reason::RlimitMemlock,
        Reason::Sealed,
    ];
    for reason in all {
        let sentence = reason.to_string();
        assert!(sentence.len() <= 100, "{sentence}");
        assert!(reason.short().to_string().len() <= 40);
        let word = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(reason.name().chars().all(word), "{}", reason.name());
    }
}

use super::*;
use crate::{
    event::{Dev, FileRef, Op},
    flags::{Errno, RemapFlags},
    sample,
};

const AT: u64 = 0x7f12_3456_7000;

fn anonymous(prot: u32) -> Mapping {
    Mapping {
        prot: Prot(prot),
        shared: false,
        backed: Backed::Anonymous,
    }
}

fn unexplained(reason: Reason) -> Change {
    Change::Unexplained(reason)
}

fn map(edit: impl FnOnce(&mut Map)) -> Event {
    let mut event = sample::event(Op::Map);
    let What::Map(map) = &mut event.what else {
        unreachable!()
    };
    edit(map);
    event
}

fn mapping(edit: impl FnOnce(&mut Map)) -> Mapping {
    match Change::of(&map(edit)) {
        Change::Set(range, mapping) => {
            assert_eq!(range, AT..AT + 8192);
            mapping
        }
        other => panic!("{other:?}"),
    }
}

fn unmap(cause: Cause, edit: impl FnOnce(&mut Unmap)) -> Event {
    let mut event = sample::event(Op::Unmap);
    event.cause = cause;
    let What::Unmap(unmap) = &mut event.what else {
        unreachable!()
    };
    edit(unmap);
    event
}

fn remap(edit: impl FnOnce(&mut Remap)) -> Event {
    let mut event = sample::event(Op::Remap);
    let What::Remap(remap) = &mut event.what else {
        unreachable!()
    };
    edit(remap);
    event
}

fn failed(mut event: Event, net: Option<i64>) -> Event {
    event.errno = Errno::new(libc::ENOMEM as u32);
    event.space.total_delta_bytes = net;
    event.space.vmas_removed = None;
    event
}

#[test]
fn a_map_sets_what_the_kernel_mapped() {
    let backed = Backed::File {
        dev: Dev(8 << 20 | 1),
        inode: 42,
        offset: 4096,
    };
    let private_file = Mapping {
        backed,
        ..anonymous(3)
    };
    assert_eq!(mapping(|_| {}), private_file);
    // The kernel's flags go before the call's.
    let read_only_shared = Mapping {
        shared: true,
        backed,
        prot: Prot(1),
    };
    assert_eq!(mapping(|map| map.vm_flags = Some(0xd1)), read_only_shared);
    assert_eq!(
        mapping(|map| {
            map.vm_flags = None;
            map.prot = Some(Prot(1));
            map.flags = Some(MapFlags(3));
        }),
        read_only_shared
    );
}

#[test]
fn what_is_mapped_without_a_file_is_anonymous_or_a_file_that_was_not_seen() {
    let backed = |flags: Option<u32>, vm_flags: Option<u64>| {
        mapping(|map| {
            map.file = None;
            map.flags = flags.map(MapFlags);
            map.vm_flags = vm_flags;
        })
        .backed
    };
    for (flags, vm_flags, want) in [
        (Some(0x22), Some(0x73), Backed::Anonymous),
        (Some(0x22), None, Backed::Anonymous),
        // The loader, a driver: what no file was handed to has none.
        (None, Some(0x73), Backed::Anonymous),
        (None, Some(0xfb), Backed::UnknownFile),
        (Some(0x21), Some(0xfb), Backed::UnknownFile),
        (Some(0x21), None, Backed::UnknownFile),
        // Huge pages.
        (Some(0x4_0022), Some(0x73), Backed::UnknownFile),
        (Some(0x4_0022), None, Backed::UnknownFile),
        // A file was named, and is not known.
        (Some(0x02), None, Backed::UnknownFile),
        (Some(0x02), Some(0x73), Backed::UnknownFile),
    ] {
        assert_eq!(backed(flags, vm_flags), want, "{flags:x?} {vm_flags:x?}");
    }
}

#[test]
fn dev_zero_that_is_shared_has_a_file_that_only_the_map_hook_sees() {
    let backed = |path: &str, flags: u32, vm_flags: Option<u64>| {
        mapping(|map| {
            let (file, _) = map.file.as_mut().unwrap();
            file.path = Some(path.into());
            map.flags = Some(MapFlags(flags));
            map.vm_flags = vm_flags;
        })
        .backed
    };
    let file = |backed| matches!(backed, Backed::File { .. });
    assert_eq!(backed("/dev/zero", 0x01, None), Backed::UnknownFile);
    assert!(file(backed("/dev/zero", 0x01, Some(0xfb))));
    assert!(file(backed("/dev/zero", 0x02, None)));
    assert!(file(backed("/dev/null", 0x01, None)));
}

#[test]
fn a_map_that_is_not_known_well_enough_is_unexplained() {
    let unseen = unexplained(Reason::Unseen);
    for event in [
        sample::bare(Op::Map),
        map(|map| map.range.addr = None),
        map(|map| map.range.len_bytes = None),
        map(|map| map.range.addr = Some(u64::MAX - 4096)),
        map(|map| (map.vm_flags, map.prot) = (None, None)),
        map(|map| (map.vm_flags, map.flags) = (None, None)),
    ] {
        assert_eq!(Change::of(&event), unseen);
    }
}

#[test]
fn a_failed_call_changed_what_the_counts_say() {
    let grown = Errno::new(libc::ENOMEM as u32);
    for op in [Op::Map, Op::Unmap, Op::Remap, Op::Brk] {
        let event = sample::event(op);
        assert_eq!(
            Change::of(&failed(event.clone(), Some(0))),
            Change::Nothing,
            "{op:?}"
        );
        for net in [Some(-4096), None] {
            assert_eq!(
                Change::of(&failed(event.clone(), net)),
                unexplained(Reason::Failed),
                "{op:?}"
            );
        }
    }
    // Some of several mappings moved.
    let mut moved = sample::event(Op::Remap);
    (moved.errno, moved.space.total_delta_bytes) = (grown, Some(0));
    moved.space.vmas_removed = Some(1);
    assert_eq!(Change::of(&moved), unexplained(Reason::Failed));
}

#[test]
fn a_failed_protect_changed_what_came_before_it() {
    let protect = |requested, reason| {
        let mut event = failed(sample::event(Op::Protect), Some(0));
        event.reason = reason;
        if let What::Protect(protect) = &mut event.what {
            protect.range.len_bytes = Some(0);
            protect.range.requested_len_bytes = Some(requested);
        }
        Change::of(&event)
    };
    // What fails for one page did nothing; of several, some may have changed.
    assert_eq!(protect(4000, None), Change::Nothing);
    assert_eq!(protect(8000, None), unexplained(Reason::Failed));
    assert_eq!(
        protect(8000, Some(explain::Reason::UnmappedRange)),
        Change::ProtectUpToHole(AT..AT + 8192, Prot(1))
    );
}

#[test]
fn an_unmap_clears_the_range_within_which_all_was_removed() {
    for cause in [
        Cause::Munmap,
        Cause::MapFixed,
        Cause::Mremap,
        Cause::Shmdt,
        Cause::Other,
    ] {
        assert_eq!(
            Change::of(&unmap(cause, |_| {})),
            Change::Clear(AT..AT + 8192)
        );
    }
    let without_span = |unmap: &mut Unmap| unmap.span_bytes = None;
    assert_eq!(
        Change::of(&unmap(Cause::Shmdt, without_span)),
        Change::Detach(AT..AT + 4096)
    );
    assert_eq!(
        Change::of(&unmap(Cause::Other, without_span)),
        unexplained(Reason::Unseen)
    );
    assert_eq!(
        Change::of(&sample::bare(Op::Unmap)),
        unexplained(Reason::Unseen)
    );
}

#[test]
fn a_protection_is_known_from_the_call_alone() {
    let mut event = sample::event(Op::Protect);
    assert_eq!(Change::of(&event), Change::Protect(AT..AT + 4096, Prot(1)));
    for prot in [None, Some(Prot(0x0100_0003)), Some(Prot(0x0200_0003))] {
        let What::Protect(protect) = &mut event.what else {
            unreachable!()
        };
        protect.prot = prot;
        assert_eq!(Change::of(&event), unexplained(Reason::Unseen));
    }
}

#[test]
fn a_remap_moves_shrinks_or_duplicates() {
    let old = 0x7f12_0000_0000;
    let moved = |keep_old| Change::Move {
        old: old..old + 4096,
        new: AT..AT + 16384,
        keep_old,
    };
    assert_eq!(Change::of(&remap(|_| {})), moved(false));
    let flags = |remap: &mut Remap| remap.flags = Some(RemapFlags(5));
    assert_eq!(Change::of(&remap(flags)), moved(true));
    assert_eq!(
        Change::of(&remap(|remap| {
            remap.old_addr = Some(AT);
            remap.old_len_bytes = Some(32768);
        })),
        Change::Clear(AT + 16384..AT + 32768)
    );
    assert_eq!(
        Change::of(&remap(|remap| remap.old_addr = Some(AT))),
        Change::Move {
            old: AT..AT + 4096,
            new: AT..AT + 16384,
            keep_old: false
        }
    );
    assert_eq!(
        Change::of(&remap(|remap| remap.old_len_bytes = Some(0))),
        Change::Duplicate {
            at: old,
            new: AT..AT + 16384
        }
    );
    for event in [
        remap(|remap| remap.old_addr = None),
        remap(|remap| remap.old_len_bytes = None),
        remap(|remap| remap.flags = None),
        remap(|remap| remap.range.len_bytes = None),
        sample::bare(Op::Remap),
    ] {
        assert_eq!(Change::of(&event), unexplained(Reason::Unseen));
    }
}

#[test]
fn the_net_change_says_which_way_the_heap_went() {
    let heap = 0x5555_0000_0000..0x5555_0002_1000;
    let brk = |net| {
        let mut event = sample::event(Op::Brk);
        event.space.total_delta_bytes = net;
        Change::of(&event)
    };
    assert_eq!(brk(Some(135_168)), Change::Heap(heap.clone()));
    assert_eq!(brk(Some(-135_168)), Change::Clear(heap));
    assert_eq!(brk(Some(0)), Change::Nothing);
    assert_eq!(brk(None), unexplained(Reason::Unseen));
}

#[test]
fn advice_changes_nothing_that_is_shown_unless_it_is_not_known() {
    for &cause in Cause::ALL {
        let mut event = sample::event(Op::Advise);
        event.cause = cause;
        let want = match cause {
            Cause::Madvise | Cause::Mlock | Cause::Mseal | Cause::Mbind | Cause::Prctl => {
                Change::Nothing
            }
            Cause::RemapFilePages => unexplained(Reason::PagesRearranged),
            _ => unexplained(Reason::Unseen),
        };
        assert_eq!(Change::of(&event), want, "{cause:?}");
    }
}

#[test]
fn stacks_and_new_programs_are_to_be_read() {
    assert_eq!(
        Change::of(&sample::event(Op::Grow)),
        unexplained(Reason::StackGrew)
    );
    assert_eq!(
        Change::of(&sample::event(Op::Exec)),
        unexplained(Reason::NewProgram)
    );
}

#[test]
fn reading_that_implies_executing_shows_in_a_map() {
    assert!(!reading_implied_executing(&sample::event(Op::Map)));
    assert!(reading_implied_executing(&map(|map| {
        map.vm_flags = Some(0x77);
    })));
    assert!(!reading_implied_executing(&map(|map| {
        (map.vm_flags, map.prot) = (Some(0x77), Some(Prot(7)));
    })));
    assert!(!reading_implied_executing(&sample::bare(Op::Map)));
}

#[test]
fn a_file_is_known_by_device_and_inode_not_by_its_path() {
    let file = |path| {
        mapping(|map| {
            map.file = Some((
                FileRef {
                    generation: 9,
                    ..sample::file(path)
                },
                0,
            ));
        })
    };
    assert_eq!(file(None), file(Some("/x")));
}

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    maps::parse_maps,
    sample::{self, SHARING},
};

fn process(pid: u32, ipc_namespace: u64) -> Process {
    Process {
        pid,
        comm: sample::comm("p"),
        ipc_namespace,
        hugetlbfs: vec![Dev(0x1f)],
    }
}

fn add(objects: &mut Objects, process: &Process, maps: &str) {
    for line in parse_maps(maps.as_bytes()).unwrap() {
        objects.add(process, &line);
    }
}

/// Kind, process ids and bytes in common of each.
fn told(objects: &[Object]) -> Vec<(&'static str, Vec<u32>, u64)> {
    let told = objects.iter().map(|object| {
        let pids = object.members.iter().map(|member| member.pid);
        (object.kind.name(), pids.collect(), object.common_bytes())
    });
    told.collect()
}

#[test]
fn each_question_gets_its_objects() {
    let told = |wanted| told(&sample::shared(&SHARING, &wanted).objects);
    assert_eq!(
        told(Wanted::All),
        // Of the same bytes in common, the most mapped first.
        [
            ("posix-shm", vec![7, 8, 9], 4096),
            ("sysv-shm", vec![7, 9], 4096),
            ("device", vec![7, 8], 4096),
        ]
    );
    assert_eq!(
        told(Wanted::Process(9)),
        [
            ("posix-shm", vec![7, 8, 9], 4096),
            ("sysv-shm", vec![7, 9], 4096),
        ]
    );
    assert_eq!(told(Wanted::Process(1)), []);
    let ring = ObjectId {
        dev: Dev(0x1a),
        inode: 42,
        ipc_namespace: None,
    };
    assert_eq!(
        told(Wanted::Object(ring)),
        [("posix-shm", vec![7, 8, 9], 4096)]
    );
    // Private mappings where a file was asked for, and nowhere else.
    let mappings = |wanted| {
        let objects = sample::shared(&SHARING, &wanted).objects;
        let ring = objects.iter().find(|object| object.id == ring).unwrap();
        ring.members[2].mappings.len()
    };
    assert_eq!(mappings(Wanted::Object(ring)), 2);
    assert_eq!(mappings(Wanted::Process(9)), 1);
}

#[test]
fn an_object_of_one_process_is_its_own() {
    let own = (
        5,
        "own",
        "1000-2000 rw-s 00000000 00:01 8 /memfd:x (deleted)\n",
    );
    let told = |wanted| told(&sample::shared(&[own], &wanted).objects);
    assert_eq!(told(Wanted::All), []);
    assert_eq!(told(Wanted::Process(5)), [("memfd", vec![5], 0)]);
}

#[test]
fn what_goes_on_is_one_mapping() {
    let mut objects = Objects::default();
    let maps = "1000-2000 rw-s 00000000 fe:00 4 /f\n\
        2000-4000 rw-s 00001000 fe:00 4 /f\n\
        4000-5000 rw-s 00002000 fe:00 4 /f\n\
        5000-6000 r--s 00003000 fe:00 4 /f\n\
        7000-8000 r--s 00004000 fe:00 4 /f\n\
        8000-9000 r--p 00005000 fe:00 4 /f\n";
    add(&mut objects, &process(1, 1), maps);
    let objects = objects.wanted(&Wanted::Process(1));
    let mappings = objects[0].members[0].mappings.iter();
    let ranges: Vec<_> = mappings.map(|m| (m.range.clone(), m.offset)).collect();
    assert_eq!(
        ranges,
        [
            (0x1000..0x4000, 0),
            (0x4000..0x5000, 0x2000),
            (0x5000..0x6000, 0x3000),
            (0x7000..0x8000, 0x4000),
            (0x8000..0x9000, 0x5000),
        ]
    );
}

#[test]
fn numbers_that_others_have_too_are_told_apart() {
    let mut objects = Objects::default();
    let sysv = "1000-2000 rw-s 00000000 00:01 3 /SYSV0000002a (deleted)\n";
    let maps = "3000-4000 rw-s 00000000 00:01 3 /memfd:x (deleted)\n";
    add(&mut objects, &process(1, 100), sysv);
    add(&mut objects, &process(1, 100), maps);
    add(&mut objects, &process(2, 100), sysv);
    // Another container, with a shmid of its own.
    add(&mut objects, &process(3, 200), sysv);
    add(&mut objects, &process(4, 200), maps);
    let mut told = told(&objects.wanted(&Wanted::All));
    told.sort();
    assert_eq!(
        told,
        [("memfd", vec![1, 4], 4096), ("sysv-shm", vec![1, 2], 4096),]
    );
}

#[test]
fn a_file_may_have_several_names_and_one_sort() {
    let mut objects = Objects::default();
    let at = |path| format!("1000-2000 rw-s 00000000 00:1a 3 {path}\n");
    add(&mut objects, &process(9, 1), &at("/mnt/a"));
    add(&mut objects, &process(2, 1), &at("/dev/shm/a"));
    add(&mut objects, &process(3, 1), &at("/mnt/a"));
    let objects = objects.wanted(&Wanted::All);
    assert_eq!(told(&objects), [("posix-shm", vec![2, 3, 9], 4096)]);
    assert_eq!(objects[0].paths, [&b"/mnt/a"[..], b"/dev/shm/a"]);
}

#[test]
fn sorts_are_told_by_device_and_name() {
    for (dev, path, want) in [
        ("fe:00", "/memfd:x", "file"),
        ("00:01", "/dev/zero (deleted)", "shared-anonymous"),
        ("00:01", "[anon_shmem:x]", "shared-anonymous"),
        ("00:1f", "/huge/x", "hugetlb"),
        ("00:0f", "/anon_hugepage (deleted)", "hugetlb"),
        ("00:08", "socket:[7]", "special"),
        ("00:05", "/dev/dri/card0", "device"),
    ] {
        let mut objects = Objects::default();
        let maps = format!("1000-2000 rw-s 00000000 {dev} 3 {path}\n");
        add(&mut objects, &process(1, 1), &maps);
        let objects = objects.wanted(&Wanted::Process(1));
        assert_eq!(objects[0].kind.name(), want, "{path}");
    }
}

#[test]
fn an_inode_of_all_tells_of_no_sharing() {
    let perf = "1000-2000 rw-s 00000000 00:0f 12 anon_inode:[perf_event]\n";
    let shared = sample::shared(&[(1, "a", perf), (2, "b", perf)], &Wanted::All);
    assert_eq!(shared.objects, []);
}

#[test]
fn nobody_is_said_to_talk_through_a_device() {
    let objects = sample::shared(&SHARING, &Wanted::All).objects;
    for object in objects {
        let is_device = object.kind == FileKind::Device;
        assert_eq!(object.talks().is_empty(), is_device, "{object:?}");
    }
}

#[test]
fn offsets_at_the_end_of_all_numbers_do_not_wrap() {
    let maps = "1000-3000 rw-s fffffffffffff000 fe:00 4 /f\n";
    let objects = sample::shared(&[(1, "a", maps), (2, "b", maps)], &Wanted::All).objects;
    assert_eq!(objects[0].common_bytes(), 0xfff);
}

/// A page, as far as the model goes.
const PAGE: u64 = 4096;
const PAGES: u64 = 10;

/// First page of the object, number of pages, permissions, shared.
type Wish = (u64, u64, u32, bool);

fn objects(wishes: &[Vec<Wish>]) -> Vec<Object> {
    let mut objects = Objects::default();
    for (pid, wishes) in (1..).zip(wishes) {
        // A page free between two, so that none is joined to the next.
        let mut addr = PAGE;
        for &(first, pages, prot, shared) in wishes {
            let range = addr..addr + pages * PAGE;
            addr = range.end + PAGE;
            let line = Line {
                range,
                prot: Prot(prot),
                shared,
                offset: first * PAGE,
                dev: Dev(1 << 20),
                inode: 7,
                name: b"/f",
            };
            objects.add(&process(pid, 1), &line);
        }
    }
    let id = ObjectId {
        dev: Dev(1 << 20),
        inode: 7,
        ipc_namespace: None,
    };
    objects.wanted(&Wanted::Object(id))
}

proptest! {
    #[test]
    fn talks_are_those_of_every_pair_and_page(
        wishes in prop::collection::vec(
            prop::collection::vec((0..PAGES - 1, 1..4_u64, 0..8_u32, prop::bool::weighted(0.8)), 0..4),
            0..8,
        )
    ) {
        let may = |wishes: &[Wish], page: u64, bit: u32| {
            wishes.iter().any(|&(first, pages, prot, shared)| {
                shared && prot & bit == bit && (first..first + pages).contains(&page)
            })
        };
        let pages = || 0..PAGES + 4;
        let mut want: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        for (writer, writes) in (1..).zip(&wishes) {
            for (reader, reads) in (1..).zip(&wishes) {
                let talk = |page: &u64| may(writes, *page, 2) && may(reads, *page, 1);
                let bytes = pages().filter(talk).count() as u64 * PAGE;
                if writer != reader && bytes > 0 {
                    want.insert((writer, reader), bytes);
                }
            }
        }
        let common = pages().filter(|&page| wishes.iter().filter(|w| may(w, page, 0)).count() > 1);
        let common_bytes = common.count() as u64 * PAGE;

        let objects = objects(&wishes);
        prop_assert_eq!(objects.is_empty(), wishes.iter().all(Vec::is_empty));
        let mut got = BTreeMap::new();
        for object in &objects {
            prop_assert_eq!(object.common_bytes(), common_bytes);
            for talk in object.talks() {
                for &writer in &talk.writers {
                    for &reader in talk.readers.iter().filter(|&&reader| reader != writer) {
                        let told_before = got.insert((writer, reader), talk.bytes);
                        prop_assert_eq!(told_before, None);
                    }
                }
            }
        }
        prop_assert_eq!(got, want);
    }
}

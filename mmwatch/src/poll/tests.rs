mod budget;
mod filters;

use std::{
    cell::Cell,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::{
    poller::Clocks,
    read::{Found, Reader},
    *,
};
use crate::{
    churn::By,
    identity::{Hierarchy, Runtimes},
    process::Proc,
    sample,
};

thread_local! {
    static BOOT_NS: Cell<u64> = const { Cell::new(0) };
    static CPU_NS: Cell<u64> = const { Cell::new(0) };
    static CPU_STEP_NS: Cell<u64> = const { Cell::new(0) };
}

const S: u64 = 1_000_000_000;

/// Clocks that a test sets: CPU time goes on by a step at each look at it.
const CLOCKS: Clocks = Clocks {
    boot_ns: || Ok(BOOT_NS.get()),
    cpu_ns: || Ok(CPU_NS.replace(CPU_NS.get() + CPU_STEP_NS.get())),
};

fn at(boot_ns: u64) {
    BOOT_NS.set(boot_ns);
}

/// A procfs that a test makes up. It is gone afterwards.
struct Procfs(PathBuf);

/// A process of it.
#[derive(Clone)]
struct Made<'a> {
    pid: u32,
    start_ticks: u64,
    comm: &'a str,
    parent: u32,
    flags: u32,
    uid: u32,
    cgroup: &'a str,
    maps: &'a str,
    /// Where `stat` says something else than `maps`.
    total_bytes: Option<u64>,
}

impl<'a> Made<'a> {
    fn new(pid: u32, maps: &'a str) -> Self {
        Self {
            pid,
            start_ticks: 100,
            comm: "p",
            parent: 1,
            flags: 0x40_0000,
            uid: 1000,
            cgroup: "/",
            maps,
            total_bytes: None,
        }
    }
}

impl Procfs {
    fn new(name: &str) -> Self {
        at(10 * S);
        CPU_STEP_NS.set(0);
        let path = std::env::temp_dir().join(format!("mmwatch-{}-poll-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("1")).unwrap();
        let procfs = Self(path);
        // A process without an address space, as threads of the kernel are.
        procfs.put(&Made::new(1, ""));
        procfs
    }

    fn dir(&self, pid: u32) -> PathBuf {
        self.0.join(pid.to_string())
    }

    fn put(&self, made: &Made<'_>) {
        let Made {
            pid,
            start_ticks,
            comm,
            parent,
            flags,
            uid,
            cgroup,
            maps,
            total_bytes,
        } = made;
        let mut tally = Tally::default();
        for line in maps.lines() {
            tally.add(&Line::parse(line.as_bytes()).unwrap());
        }
        let bytes = total_bytes.unwrap_or(tally.total().bytes);
        let dir = self.dir(*pid);
        fs::create_dir_all(&dir).unwrap();
        let put = |name: &str, text: String| fs::write(dir.join(name), text).unwrap();
        put(
            "stat",
            format!(
                "{pid} ({comm}) S {parent} 1 1 0 -1 {flags} 5 6 7 8 9 10 11 12 20 0 1 0 \
                 {start_ticks} {bytes} 400 18446744073709551615 1 1 0 0 0\n"
            ),
        );
        put(
            "status",
            format!("Name:\tp\nNSpid:\t{pid}\t7\nUid:\t{uid}\t0\t0\t0\n"),
        );
        put("cgroup", format!("9:name=systemd:/x\n4:memory:{cgroup}\n"));
        put("maps", (*maps).to_owned());
        let _ = std::os::unix::fs::symlink(format!("/bin/{comm}"), dir.join("exe"));
    }

    fn remove(&self, pid: u32) {
        fs::remove_dir_all(self.dir(pid)).unwrap();
    }

    fn poller(&self, filter: Filter) -> Poller {
        let hierarchy = Hierarchy {
            controller: Some("memory".to_owned()),
            number: 4,
            mount: PathBuf::new(),
            root: "/".to_owned(),
            above: 0,
        };
        let runtimes = Runtimes::at(self.0.join("root"));
        Poller::new(Proc::at(&self.0), Some(hierarchy), runtimes, filter, CLOCKS).unwrap()
    }
}

impl Drop for Procfs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Text of `maps` with so many VMAs of a page each.
fn pages(count: u64) -> String {
    let page = |n: u64| {
        let start = 0x1000 + n * 0x2000;
        format!(
            "{start:08x}-{:08x} rw-p 00000000 00:00 0 \n",
            start + 0x1000
        )
    };
    (0..count).map(page).collect()
}

fn everything(poller: &mut Poller) -> Poll {
    poller.look(Depth::Everything).unwrap();
    poller.report(usize::MAX, By::Process).unwrap()
}

/// Ids, VMAs and how these changed, in the order of the report.
fn told(poll: &Poll) -> Vec<(u32, Option<u64>, Option<i64>)> {
    let told = |p: &Polled| (p.pid, p.reading.vmas(), p.vmas_delta());
    poll.processes.iter().map(told).collect()
}

const MAPS: &str = "\
00400000-00402000 r-xp 00000000 fe:00 7 /bin/p
00602000-00603000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0000004000 rw-s 00000000 00:01 9 /dev/zero (deleted)
7f0000005000-7f0000006000 rw-s 00000000 00:01 8 /memfd:x (deleted)
7ffff7ffd000-7ffff7fff000 r--p 00000000 00:00 0 [vvar]
7ffff7fff000-7ffff8000000 r-xp 00000000 00:00 0 [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
";

#[test]
fn a_process_is_told_whole() {
    let procfs = Procfs::new("whole");
    let cgroup = "/system.slice/docker-web.scope";
    procfs.put(&Made {
        comm: "a (b) c",
        cgroup,
        ..Made::new(20, MAPS)
    });
    let poll = everything(&mut procfs.poller(Filter::default()));
    let [process] = poll.processes.as_slice() else {
        panic!("{poll:#?}");
    };
    assert_eq!((process.pid, process.start_ticks), (20, 100));
    assert_eq!(process.comm, sample::comm("a (b) c"));
    assert_eq!(process.uid, 1000);
    assert_eq!(process.who.namespace_pid, Some(7));
    assert_eq!(process.who.cgroup.as_ref().unwrap().path, cgroup);
    assert_eq!(process.who.container().unwrap().id, "web");
    assert!(process.alive && !process.reading.changing);
    assert_eq!(process.reading.vmas(), Some(6));
    assert_eq!(process.reading.total_bytes, 0xb000);
    let tally = process.reading.tally.unwrap();
    let of = |backing| (tally.of(backing).vmas, tally.of(backing).bytes);
    assert_eq!(of(Backing::PrivateFile), (1, 0x2000));
    assert_eq!(of(Backing::PrivateAnonymous), (1, 0x1000));
    assert_eq!(of(Backing::SharedAnonymous), (1, 0x4000));
    assert_eq!(of(Backing::SharedFile), (1, 0x1000));
    assert_eq!(of(Backing::Special), (2, 0x3000));
    // What there is nothing to compare with has not changed, nor stayed the same.
    assert_eq!((process.vmas_delta(), process.span_ns()), (None, None));
}

#[test]
fn a_name_may_have_anything_in_it() {
    let procfs = Procfs::new("names");
    let mut reader = Reader::new(Proc::at(&procfs.0), None, Runtimes::default());
    for comm in ["", ")", "a) S 9 (", "x\ny"] {
        procfs.put(&Made {
            comm,
            parent: 8,
            flags: 0x40,
            start_ticks: 77,
            total_bytes: Some(4096),
            ..Made::new(20, "")
        });
        let Found::Here(glance) = reader.glance(20).unwrap() else {
            panic!("{comm}");
        };
        assert_eq!(glance.comm, sample::comm(comm));
        assert_eq!((glance.parent, glance.awaits_exec), (8, true));
        assert_eq!((glance.start_ticks, glance.total_bytes), (77, 4096));
    }
    assert_eq!(reader.glance(21).unwrap(), Found::Gone);
    fs::write(procfs.dir(20).join("stat"), "20 (x) S 1\n").unwrap();
    let error = reader.glance(20).unwrap_err().to_string();
    assert!(error.contains("20/stat"), "{error}");
}

#[test]
fn what_is_no_line_of_maps_is_an_error_that_names_it() {
    let procfs = Procfs::new("malformed");
    procfs.put(&Made::new(20, &pages(1)));
    fs::write(procfs.dir(20).join("maps"), pages(1) + "nonsense\n").unwrap();
    let error = procfs.poller(Filter::default()).look(Depth::Everything);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("20/maps") && error.contains("line 2"),
        "{error}"
    );
}

#[test]
fn changes_are_those_since_the_report_before() {
    let procfs = Procfs::new("changes");
    let (few, many) = (pages(3), pages(10));
    procfs.put(&Made::new(20, &few));
    procfs.put(&Made::new(30, &many));
    let mut poller = procfs.poller(Filter::default());
    let poll = everything(&mut poller);
    assert_eq!(told(&poll), [(30, Some(10), None), (20, Some(3), None)]);
    assert_eq!((poll.counts.read, poll.counts.new), (2, 0));

    at(12 * S);
    procfs.put(&Made::new(20, &many));
    let poll = everything(&mut poller);
    assert_eq!(
        told(&poll),
        [(20, Some(10), Some(7)), (30, Some(10), Some(0))]
    );
    let grown = &poll.processes[0];
    assert_eq!(grown.total_delta_bytes(), Some(7 * 0x1000));
    assert_eq!(grown.span_ns(), Some(2 * S));
    assert_eq!(poll.all.vmas_delta, 7);
    assert_eq!((poll.interval_ns, poll.elapsed_ns), (2 * S, 2 * S));

    // Two looks and one report: what changed between the reports counts.
    at(13 * S);
    procfs.put(&Made::new(20, &few));
    poller.look(Depth::Everything).unwrap();
    at(14 * S);
    procfs.put(&Made::new(20, &pages(4)));
    let poll = everything(&mut poller);
    assert_eq!(told(&poll)[0], (20, Some(4), Some(-6)));
    assert_eq!(poll.processes[0].vmas_peak, Some(10));
}

#[test]
fn a_split_is_found_although_the_size_stays() {
    let procfs = Procfs::new("split");
    procfs.put(&Made::new(20, "00001000-00003000 rw-p 00000000 00:00 0 \n"));
    let mut poller = procfs.poller(Filter::default());
    everything(&mut poller);
    at(11 * S);
    procfs.put(&Made::new(
        20,
        "00001000-00002000 rw-p 00000000 00:00 0 \n00002000-00003000 r--p 00000000 00:00 0 \n",
    ));
    poller.look(Depth::Share).unwrap();
    let poll = poller.report(9, By::Process).unwrap();
    assert_eq!(told(&poll), [(20, Some(2), Some(1))]);
    assert_eq!(poll.processes[0].total_delta_bytes(), Some(0));
}

#[test]
fn an_id_that_comes_again_is_another_process() {
    let procfs = Procfs::new("again");
    let (few, many) = (pages(3), pages(10));
    procfs.put(&Made::new(20, &few));
    let mut poller = procfs.poller(Filter::default());
    let mut named = procfs.poller(Filter {
        pids: vec![20],
        ..Filter::default()
    });
    everything(&mut poller);
    assert_eq!(told(&everything(&mut named)), [(20, Some(3), None)]);

    at(11 * S);
    procfs.put(&Made {
        start_ticks: 101,
        ..Made::new(20, &many)
    });
    let poll = everything(&mut poller);
    assert_eq!(told(&poll), [(20, Some(10), None), (20, Some(3), None)]);
    assert!(poll.processes[0].alive && !poll.processes[1].alive);
    assert_eq!((poll.counts.new, poll.counts.ended), (1, 1));
    assert_eq!(poll.all.vmas(), 10);
    // Nor is it the one that was asked for.
    let poll = everything(&mut named);
    assert_eq!(told(&poll), [(20, Some(3), None)]);
    assert!(!poll.processes[0].alive);
    assert_eq!(told(&everything(&mut named)), []);
}

#[test]
fn who_ended_is_told_once() {
    let procfs = Procfs::new("ended");
    let maps = pages(3);
    procfs.put(&Made::new(20, &maps));
    procfs.put(&Made::new(30, &maps));
    let mut poller = procfs.poller(Filter::default());
    everything(&mut poller);
    at(11 * S);
    procfs.remove(20);
    // A zombie has nothing mapped any more.
    procfs.put(&Made::new(30, ""));
    let poll = everything(&mut poller);
    let ended: Vec<_> = poll.processes.iter().map(|p| (p.pid, p.alive)).collect();
    assert_eq!(ended, [(20, false), (30, false)]);
    assert_eq!(poll.counts.ended, 2);
    assert_eq!(poll.processes[0].age_ns(poll.boot_ns), S);
    assert_eq!(poll.all, Sum::default());
    procfs.remove(30);
    let poll = everything(&mut poller);
    assert_eq!((told(&poll), poll.counts.ended), (vec![], 0));
}

#[test]
fn what_changes_while_it_is_read_is_of_no_one_moment() {
    let procfs = Procfs::new("changing");
    let maps = pages(2);
    let total_bytes = Some(0x9000);
    procfs.put(&Made {
        total_bytes,
        ..Made::new(20, &maps)
    });
    let mut poller = procfs.poller(Filter::default());
    let poll = everything(&mut poller);
    assert!(poll.processes[0].reading.changing);
    // The numbers belong together nevertheless.
    assert_eq!(poll.processes[0].reading.total_bytes, 0x2000);
    procfs.put(&Made::new(20, &maps));
    let poll = everything(&mut poller);
    assert!(!poll.processes[0].reading.changing);
}

/// Takes from this thread what root may do to files.
fn as_nobody(look: impl FnOnce() -> Poll + Send) -> Poll {
    let now = BOOT_NS.get();
    std::thread::scope(|scope| {
        let look = scope.spawn(move || {
            at(now);
            // SAFETY: takes a number; of this thread alone, which ends with the look.
            unsafe { libc::setfsuid(65_534) };
            look()
        });
        look.join().unwrap()
    })
}

#[test]
fn what_may_not_be_read_is_counted() {
    let procfs = Procfs::new("denied");
    let maps = pages(2);
    let close = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o0)).unwrap();
    for pid in [20, 30, 40] {
        procfs.put(&Made::new(pid, &maps));
    }
    close(&procfs.dir(30).join("maps"));
    close(&procfs.dir(40));
    let poll = as_nobody(|| everything(&mut procfs.poller(Filter::default())));
    assert_eq!(told(&poll), [(20, Some(2), None), (30, None, None)]);
    assert_eq!(poll.processes[1].reading.total_bytes, 0x2000);
    assert_eq!((poll.all.processes, poll.all.unread), (2, 1));
    assert_eq!((poll.counts.read, poll.counts.closed), (1, 1));
    assert_eq!(poll.all.vmas(), 2);
    assert_eq!(poll.all.total_bytes, 0x4000);
    fs::set_permissions(procfs.dir(40), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_proc_that_hides_processes_says_so() {
    let procfs = Procfs::new("hides");
    procfs.put(&Made::new(20, &pages(2)));
    let mut poller = procfs.poller(Filter::default());
    assert!(!everything(&mut poller).counts.hides);
    procfs.remove(1);
    assert!(everything(&mut poller).counts.hides);
    // Also where there was no time to list them since.
    assert!(poller.report(9, By::Process).unwrap().counts.hides);
    let named = Filter {
        pids: vec![20],
        ..Filter::default()
    };
    assert!(!everything(&mut procfs.poller(named)).counts.hides);
}

#[test]
fn the_limit_is_that_of_the_procfs() {
    let procfs = Procfs::new("limit");
    fs::create_dir_all(procfs.0.join("sys/vm")).unwrap();
    fs::write(procfs.0.join("sys/vm/max_map_count"), "1000\n").unwrap();
    assert_eq!(
        everything(&mut procfs.poller(Filter::default())).max_map_count,
        1000
    );
}

#[test]
fn groups_are_those_of_top() {
    let procfs = Procfs::new("groups");
    let (few, many) = (pages(2), pages(7));
    for (pid, cgroup, maps) in [
        (20, "/docker/one", &few),
        (21, "/docker/one", &few),
        (22, "/docker/two", &many),
        (23, "/x.service", &few),
    ] {
        procfs.put(&Made {
            cgroup,
            ..Made::new(pid, maps)
        });
    }
    let state = procfs.0.join("root/var/lib/docker/containers/one");
    fs::create_dir_all(&state).unwrap();
    let text = r#"{ "Name": "/shop", "Config": {} }"#;
    fs::write(state.join("config.v2.json"), text).unwrap();
    let mut poller = procfs.poller(Filter::default());
    poller.look(Depth::Everything).unwrap();
    poller.report(9, By::Process).unwrap();
    at(11 * S);
    procfs.put(&Made {
        cgroup: "/docker/one",
        ..Made::new(20, &pages(3))
    });
    poller.look(Depth::Everything).unwrap();
    let poll = poller.report(2, By::Container).unwrap();
    let groups = poll.groups.as_ref().unwrap();
    let told: Vec<_> = groups
        .rows
        .iter()
        .map(|Group { name, sum, .. }| (name.as_deref(), sum.processes, sum.vmas(), sum.vmas_delta))
        .collect();
    assert_eq!(told, [(Some("one"), 2, 5, 1), (Some("two"), 1, 7, 0)]);
    assert_eq!(groups.rows[0].sum.vmas_of_largest, 3);
    let known = |at: usize| groups.rows[at].container.clone().unwrap().names.name;
    assert_eq!((known(0).as_deref(), known(1)), (Some("shop"), None));
    assert_eq!((poll.other.processes, poll.other.vmas()), (1, 2));
    assert_eq!((poll.all.processes, poll.all.vmas()), (4, 14));

    let poll = poller.report(2, By::Exe).unwrap();
    let programs = poll.groups.as_ref().unwrap().rows.iter();
    let programs: Vec<_> = programs.map(|Group { name, .. }| name.as_deref()).collect();
    assert_eq!(programs, [Some("/bin/p")]);
}

proptest! {
    #[test]
    fn whatever_is_not_shown_is_in_the_rest(
        counts in proptest::collection::vec((0_u64..9, 0_u64..9, any::<bool>()), 0..12),
        rows in 0_usize..14,
    ) {
        let processes: Vec<_> = (1..).zip(&counts).map(|(pid, &(before, now, alive))| {
            sample::polled(pid, before, now, alive)
        }).collect();
        let whole = Poll::new(processes);
        let poll = whole.clone().ranked(rows);
        prop_assert_eq!(poll.processes.len(), rows.min(counts.len()));
        let changes: Vec<_> = poll.processes.iter()
            .map(|p| (p.vmas_delta().unwrap().abs(), p.reading.vmas()))
            .collect();
        prop_assert!(changes.is_sorted_by(|a, b| a >= b));
        let mut sum = poll.other;
        sum.add_sum(&Poll::new(poll.processes).all);
        prop_assert_eq!(sum, whole.all);
        let grouped = whole.clone().grouped(By::Comm, rows, |uid| uid.to_string());
        let mut sum = grouped.other;
        grouped.groups.unwrap().rows.iter().for_each(|group| sum.add_sum(&group.sum));
        prop_assert_eq!(sum, whole.all);
    }
}

//! Events and reports for tests.

use std::{num::NonZeroU64, sync::Arc};

use mmwatch_common::{
    counter::{self, Hook},
    event::WIRE_VERSION,
    space::Listed,
};

use crate::{
    churn::{Churn, Faults, ProcessKey, ProcessSums, Report, add_event},
    event::{
        Actor, Advise, Brk, Cause, Comm, Dev, Event, Exec, Exit, FileRef, Fork, Grow, Map, Op,
        Protect, Range, Remap, Space, SpaceId, Suspect, Suspects, Unmap, What,
    },
    explain::Reason,
    flags::{Errno, MapFlags, Prot, RemapFlags},
    identity::{Cgroup, Who},
    ledger::{Ledger, Received, SinkCounters},
    maps::{Lock, parse_maps},
    poll::{Poll, Polled, Reading, Tally, report::Counts},
    process::Proc,
    recording::{
        Cause as LossCause, Ending, Header, Loss, ProgramName, Replay, Summary, Why, sizes,
    },
    shared::{Objects, Process, Shared, Wanted},
    source::{HookCounters, KernelCounters},
};

/// 10:00:00 on a day of 2026 when the boot clock shows 0.
pub(crate) const BOOT_AT_UNIX_NS: i64 = 1_795_255_200_000_000_000;

pub(crate) fn comm(name: &str) -> Comm {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Comm::new(bytes)
}

pub(crate) fn file(path: Option<&str>) -> FileRef {
    FileRef {
        dev: Dev(8 << 20 | 1),
        inode: 42,
        generation: 7,
        path: path.map(Into::into),
    }
}

fn range(addr: u64, len_bytes: u64, requested_len_bytes: u64) -> Range {
    Range {
        addr: Some(addr),
        len_bytes: Some(len_bytes),
        requested_len_bytes: Some(requested_len_bytes),
    }
}

/// A successful event of process 100 with everything known.
pub(crate) fn event(op: Op) -> Event {
    let (cause, what) = match op {
        Op::Map => (
            Cause::Mmap,
            What::Map(Map {
                range: range(0x7f12_3456_7000, 8192, 5000),
                prot: Some(Prot(3)),
                flags: Some(MapFlags(0x2)),
                vm_flags: Some(0x73),
                file: Some((file(Some("/usr/lib/libc.so.6")), 4096)),
            }),
        ),
        Op::Unmap => (
            Cause::Munmap,
            What::Unmap(Unmap {
                range: range(0x7f12_3456_7000, 4096, 8192),
                span_bytes: Some(8192),
                vmas_removed: Some(2),
            }),
        ),
        Op::Protect => (
            Cause::Mprotect,
            What::Protect(Protect {
                range: range(0x7f12_3456_7000, 4096, 4096),
                prot: Some(Prot(1)),
                old_prot: Some(Prot(3)),
            }),
        ),
        Op::Remap => (
            Cause::Mremap,
            What::Remap(Remap {
                range: range(0x7f12_3456_7000, 16384, 16000),
                old_addr: Some(0x7f12_0000_0000),
                old_len_bytes: Some(4096),
                flags: Some(RemapFlags(1)),
            }),
        ),
        Op::Brk => (
            Cause::Brk,
            What::Brk(Brk {
                range: Range {
                    requested_len_bytes: None,
                    ..range(0x5555_0000_0000, 135_168, 0)
                },
                requested_addr: Some(0x5555_0002_1000),
            }),
        ),
        Op::Grow => (Cause::Fault, What::Grow(Grow { len_bytes: 4096 })),
        Op::Advise => (
            Cause::Madvise,
            What::Advise(Advise {
                range: Range {
                    len_bytes: None,
                    ..range(0x7f12_3456_7000, 0, 4096)
                },
                advice: Some(10),
            }),
        ),
        Op::Fork => (
            Cause::Fork,
            What::Fork(Fork {
                child_tgid: 101,
                child_start_boot_ns: 2_000,
                shared: true,
            }),
        ),
        Op::Exec => (
            Cause::Exec,
            What::Exec(Exec {
                file: Some(file(Some("/usr/bin/env"))),
            }),
        ),
        Op::Exit => (
            Cause::Exit,
            What::Exit(Exit {
                len_bytes: 409_600,
                vmas_removed: 20,
            }),
        ),
    };
    Event {
        boot_ns: 1_234_567_890,
        cause,
        errno: None,
        suspects: Suspects::NONE,
        reason: None,
        who: None,
        unreturned: false,
        more: false,
        rlimit_as_bytes: None,
        actor: Actor {
            tgid: 100,
            tid: 100,
            start_boot_ns: 1_000,
            cgroup_id: 5,
            uid: 1000,
            owner_tgid: 100,
            comm: comm("sample"),
        },
        space: Space {
            id: Some(SpaceId {
                mm: 0xffff_8880_0123_4000,
                born_boot_ns: 1_500,
            }),
            section: NonZeroU64::new(3),
            settled: true,
            vmas: Some(20),
            total_bytes: Some(409_600),
            vmas_delta: Some(1),
            total_delta_bytes: Some(8192),
            vmas_removed: Some(1),
            held_ns: Some(2_500),
            drifted: false,
        },
        what,
    }
}

/// An event of which only the cause is known.
pub(crate) fn bare(op: Op) -> Event {
    let full = event(op);
    let what = match full.what {
        What::Map(_) => What::Map(Map {
            range: Range::default(),
            prot: None,
            flags: None,
            vm_flags: None,
            file: None,
        }),
        What::Unmap(_) => What::Unmap(Unmap {
            range: Range::default(),
            span_bytes: None,
            vmas_removed: None,
        }),
        What::Protect(_) => What::Protect(Protect {
            range: Range::default(),
            prot: None,
            old_prot: None,
        }),
        What::Remap(_) => What::Remap(Remap {
            range: Range::default(),
            old_addr: None,
            old_len_bytes: None,
            flags: None,
        }),
        What::Brk(_) => What::Brk(Brk {
            range: Range::default(),
            requested_addr: None,
        }),
        What::Advise(_) => What::Advise(Advise {
            range: Range::default(),
            advice: None,
        }),
        What::Exec(_) => What::Exec(Exec { file: None }),
        What::Grow(_) | What::Fork(_) | What::Exit(_) => full.what,
    };
    Event {
        cause: Cause::Other,
        space: Space::default(),
        what,
        ..full
    }
}

/// A map that failed.
pub(crate) fn failed_map() -> Event {
    let mut failed = event(Op::Map);
    failed.errno = Errno::new(libc::ENOMEM as u32);
    failed.reason = Some(Reason::VmaLimit {
        vmas: 20,
        max_map_count: 19,
    });
    if let What::Map(map) = &mut failed.what {
        map.range.len_bytes = Some(0);
        map.file = None;
        map.flags = Some(MapFlags(0x22));
    }
    failed
}

/// A protect that made code of what was data.
pub(crate) fn suspect() -> Event {
    let mut suspect = event(Op::Protect);
    let [anon, to_exec] = [Suspect::AnonExec, Suspect::WriteToExec].map(Suspects::only);
    suspect.suspects = anon.and(to_exec);
    if let What::Protect(protect) = &mut suspect.what {
        protect.prot = Some(Prot(5));
    }
    suspect
}

/// An event of another process.
pub(crate) fn by(tgid: u32, name: &str, event: Event) -> Event {
    Event {
        actor: Actor {
            tgid,
            tid: tgid,
            owner_tgid: tgid,
            comm: comm(name),
            ..event.actor
        },
        ..event
    }
}

/// What the kernel would keep of some events.
pub(crate) fn kernel_sums(events: &[Event]) -> Vec<(ProcessKey, ProcessSums)> {
    let mut sums: Vec<(ProcessKey, ProcessSums)> = Vec::new();
    for event in events {
        let key = ProcessKey::new(event.actor.tgid, event.actor.start_boot_ns);
        let place = match sums.iter().position(|(known, _)| *known == key) {
            Some(place) => place,
            None => {
                sums.push((key, ProcessSums::default()));
                sums.len() - 1
            }
        };
        let process = &mut sums[place].1;
        add_event(&mut process.sums, event);
        process.comm = event.actor.comm.bytes();
        process.uid = event.actor.uid;
    }
    sums
}

/// A row of the kernel's list.
pub(crate) fn listed(tgid: u32, name: &str, vmas: u32) -> Listed {
    Listed {
        tgid,
        uid: 1000,
        start_boot_ns: 1_000,
        mm: 0xffff_8880_0000_0000 + u64::from(tgid) * 0x1000,
        born_ns: 1_500,
        sections: 3,
        pages: 100,
        vmas,
        vmas_peak: vmas + 5,
        owner_tgid: tgid,
        is_locked: 0,
        comm: comm(name).bytes(),
        identity: Default::default(),
    }
}

/// Two seconds with some of everything.
pub(crate) fn report() -> Report {
    let mut churn = Churn::new(1_000_000_000, 4096);
    let first = [listed(100, "sample", 20), listed(200, "busy\u{7}", 20)];
    churn.update(1_000_000_000, &[], &first);
    let mut events: Vec<_> = Op::ALL.iter().map(|&op| event(op)).collect();
    events.push(failed_map());
    for _ in 0..100 {
        events.push(by(200, "busy\u{7}", event(Op::Map)));
        events.push(by(200, "busy\u{7}", event(Op::Unmap)));
    }
    events.push(by(300, "quiet", bare(Op::Map)));
    let listed = [listed(200, "busy\u{7}", 120), listed(300, "quiet", 12)];
    churn.update(3_000_000_000, &kernel_sums(&events), &listed);
    churn.tick(3_000_000_000, 65_530, 2)
}

/// The same with page faults of two processes.
pub(crate) fn with_faults(touched: bool) -> Report {
    let mut report = report();
    report.faults = Some(Faults { touched });
    for (place, minor, major) in [(0, 120, 3), (1, 0, 0)] {
        let process = Arc::make_mut(&mut report.processes[place].row);
        for row in [process, &mut report.all] {
            for sums in [&mut row.interval, &mut row.total] {
                sums.minor_faults += minor;
                sums.major_faults += major;
                sums.touched_bytes += 400 << 10;
            }
        }
    }
    report
}

/// The ledger to go with it.
pub(crate) fn ledger() -> Ledger {
    Ledger {
        kernel: KernelCounters {
            hooks: vec![HookCounters {
                hook: Hook::LockReleased,
                program: "raw_lock_released".into(),
                ledger: counter::Ledger {
                    fired: 300,
                    filtered: 88,
                    summed: 212,
                    ..counter::Ledger::default()
                },
                missed: Some(1),
            }],
        },
        received: Received::default(),
        sinks: vec![SinkCounters {
            sink: "text",
            delivered: 0,
            dropped: 0,
        }],
        closed: true,
        replay: None,
    }
}

/// What a recording begins with, of one program.
pub(crate) fn header(hook: Hook, program: &str) -> Header {
    Header {
        mmwatch: "0.1.0".into(),
        wire: WIRE_VERSION,
        sizes: sizes(),
        kernel: "6.18.5 x86_64".into(),
        boot_id: "11d4e3d2-9e7c-4f4b-8e0e-6d1f4a3a6c55".into(),
        start_boot_ns: 1_000_000_000,
        boot_at_unix_ns: 0,
        limits: Proc::at("/nowhere").limits(),
        backend: "fentry".into(),
        tells_order: true,
        programs: vec![ProgramName {
            hook: hook.name().to_owned(),
            program: program.to_owned(),
        }],
        hierarchy: None,
        pid_namespace: None,
        command_line: ["mmwatch", "record", "-o", "a\u{7}"]
            .map(String::from)
            .into(),
        part: 0,
    }
}

/// A minute's recording that lacks some events.
pub(crate) fn recording() -> Summary {
    let loss = Loss {
        from_boot_ns: 3_000_000_000,
        until_boot_ns: 4_500_000_000,
        events: 17,
        cause: Some(LossCause::Failed(libc::ENOSPC)),
    };
    let in_kernel = Loss {
        cause: None,
        ..loss
    };
    Summary {
        header: Header {
            boot_at_unix_ns: BOOT_AT_UNIX_NS,
            ..header(Hook::LockReleased, "raw_lock_released")
        },
        bytes: 1 << 20,
        until_boot_ns: 61_000_000_000,
        ending: Ending::On(Why::Finished),
        losses: vec![loss, in_kernel],
        losses_count: 2,
    }
}

/// What its reader has to say of it.
pub(crate) fn replay() -> Replay {
    Replay {
        gaps: 1,
        lost_events: 17,
        lost_records: 20,
        repeated: 3,
        is_whole: true,
        ending: Ending::On(Why::Finished),
        sums_events: false,
    }
}

/// What is mapped by so many private anonymous VMAs of a page.
fn pages(vmas: u64) -> Tally {
    let mut tally = Tally::default();
    for page in 0..vmas {
        let start = page << 13;
        let line = format!("{start:x}-{:x} rw-p 00000000 00:00 0", start + 4096);
        for line in parse_maps(line.as_bytes()).unwrap() {
            tally.add(&line);
        }
    }
    tally
}

/// A process that was polled twice, at 1 s and 3 s, and had so many VMAs. One
/// of five has the name `b`, the others are `a`.
pub(crate) fn polled(pid: u32, before: u64, now: u64, alive: bool) -> Polled {
    let reading = |boot_ns, vmas| Reading {
        boot_ns,
        total_bytes: vmas << 12,
        tally: Some(pages(vmas)),
        changing: false,
    };
    Polled {
        pid,
        start_ticks: 5200,
        comm: comm(if pid.is_multiple_of(5) { "b" } else { "a" }),
        uid: 1000,
        who: Arc::new(Who {
            here_pid: None,
            namespace_pid: None,
            cgroup: None,
        }),
        program: Some("/bin/sh".into()),
        alive,
        vmas_peak: Some(before.max(now)),
        reading: reading(3_000_000_000, now),
        since: Some(reading(1_000_000_000, before)),
    }
}

/// Processes with everything that can be missing, at 4 s.
pub(crate) fn poll() -> Poll {
    let cgroup = Cgroup::new("/system.slice/docker-web.scope".to_owned());
    let grown = Polled {
        comm: comm("busy\u{7}"),
        who: Arc::new(Who {
            here_pid: None,
            namespace_pid: Some(7),
            cgroup: Some(Arc::new(cgroup)),
        }),
        ..polled(200, 20, 120, true)
    };
    let mut new = Polled {
        vmas_peak: Some(40),
        since: None,
        ..polled(300, 0, 30, true)
    };
    new.reading.changing = true;
    new.reading.boot_ns = 4_000_000_000;
    let mut unread = polled(400, 0, 0, true);
    unread.vmas_peak = None;
    unread.reading.tally = None;
    unread.reading.total_bytes = 5 << 30;
    unread.since = None;
    let gone = polled(500, 25, 15, false);
    Poll {
        boot_ns: 4_000_000_000,
        interval_ns: 2_000_000_000,
        elapsed_ns: 3_500_000_000,
        max_map_count: 65_530,
        counts: Counts {
            read: 2,
            new: 1,
            ended: 1,
            closed: 3,
            hides: true,
        },
        ..Poll::new(vec![polled(600, 9, 9, true), gone, unread, new, grown])
    }
}

/// What processes of these ids, names and lines of `/proc/PID/maps` have in
/// common. Each has the IPC namespace 1.
pub(crate) fn shared(processes: &[(u32, &str, &str)], wanted: &Wanted) -> Shared {
    let mut objects = Objects::default();
    for &(pid, name, maps) in processes {
        let process = Process {
            pid,
            comm: comm(name),
            ipc_namespace: 1,
            hugetlbfs: Vec::new(),
        };
        for line in parse_maps(maps.as_bytes()).unwrap() {
            if wanted.wants(&line) {
                objects.add(&process, &line);
            }
        }
    }
    Shared {
        lock: Lock::PerVma,
        unread_processes: 0,
        objects: objects.wanted(wanted),
    }
}

/// A ring between three processes, a segment of System V, and a device.
pub(crate) const SHARING: [(u32, &str, &str); 3] = [
    (
        7,
        "w\"&\n",
        "1000-3000 rw-s 00000000 00:1a 42 /dev/shm/ri\"ng\n\
         5000-6000 rw-s 00000000 00:01 3 /SYSV00000000 (deleted)\n\
         7000-8000 rw-s 00000000 00:05 9 /dev/fb0\n",
    ),
    (
        8,
        "reader",
        "1000-2000 r--s 00001000 00:1a 42 /dev/shm/ri\"ng\n\
         7000-8000 rw-s 00000000 00:05 9 /dev/fb0\n",
    ),
    (
        9,
        "both",
        "1000-2000 r--s 00001000 00:1a 42 /dev/shm/ri\"ng\n\
         2000-3000 r--p 00000000 00:1a 42 /dev/shm/ri\"ng\n\
         5000-6000 rw-s 00000000 00:01 3 /SYSV00000000 (deleted)\n",
    ),
];

//! Whom a poller looks at.

use super::*;

#[test]
fn filters_are_honoured() {
    let procfs = Procfs::new("filters");
    let maps = pages(2);
    for (pid, comm, uid, cgroup) in [
        (20, "web", 33, "/a"),
        (21, "web", 0, "/a/b"),
        (22, "db", 33, "/ab"),
    ] {
        procfs.put(&Made {
            comm,
            uid,
            cgroup,
            ..Made::new(pid, &maps)
        });
    }
    let pids = |filter| {
        let poll = everything(&mut procfs.poller(filter));
        poll.processes.iter().map(|p| p.pid).collect::<Vec<_>>()
    };
    let none = Filter::default;
    assert_eq!(pids(none()), [20, 21, 22]);
    let named = vec![22, 20, 4_194_305];
    assert_eq!(
        pids(Filter {
            pids: named,
            ..none()
        }),
        [20, 22]
    );
    let web = Some(sample::comm("web"));
    assert_eq!(
        pids(Filter {
            comm: web,
            ..none()
        }),
        [20, 21]
    );
    assert_eq!(
        pids(Filter {
            uid: Some(33),
            ..none()
        }),
        [20, 22]
    );
    let below = |path: &str| Filter {
        cgroup: Some(path.to_owned()),
        ..none()
    };
    assert_eq!(pids(below("/a")), [20, 21]);
    assert_eq!(pids(below("/a/b")), [21]);
    assert_eq!(pids(below("/")), [20, 21, 22]);
    assert_eq!(
        pids(Filter {
            comm: web,
            uid: Some(33),
            ..none()
        }),
        [20]
    );

    // Who takes another name is not what was asked for, and did not end.
    let mut poller = procfs.poller(Filter {
        comm: web,
        ..none()
    });
    everything(&mut poller);
    let renamed = Made {
        comm: "db",
        ..Made::new(21, &maps)
    };
    procfs.put(&renamed);
    let poll = everything(&mut poller);
    assert_eq!(told(&poll), [(20, Some(2), None)]);
    assert_eq!(poll.counts.ended, 0);

    // A process that becomes one that is wanted, and one that is no more.
    let mut poller = procfs.poller(Filter {
        uid: Some(33),
        ..none()
    });
    everything(&mut poller);
    procfs.put(&Made {
        uid: 33,
        ..Made::new(21, &maps)
    });
    procfs.put(&Made {
        uid: 0,
        ..Made::new(22, &maps)
    });
    let poll = everything(&mut poller);
    assert_eq!(
        poll.processes.iter().map(|p| p.pid).collect::<Vec<_>>(),
        [20, 21]
    );
}

#[test]
fn a_command_is_followed_from_its_exec_on() {
    let procfs = Procfs::new("follow");
    let maps = pages(2);
    let put = |pid, parent, flags| {
        procfs.put(&Made {
            parent,
            flags,
            ..Made::new(pid, &maps)
        });
    };
    put(50, 9, 0x40);
    put(60, 1, 0);
    let mut poller = procfs.poller(Filter {
        pids: vec![50],
        follow: true,
        ..Filter::default()
    });
    let mut pids = || {
        let poll = everything(&mut poller);
        let alive = poll.processes.iter().filter(|p| p.alive);
        let mut pids: Vec<_> = alive.map(|p| p.pid).collect();
        pids.sort_unstable();
        pids
    };
    assert_eq!(pids(), [0; 0]);
    put(50, 9, 0);
    // Its children and theirs count before their exec, too; here with lower ids.
    put(40, 30, 0x40);
    put(30, 50, 0x40);
    assert_eq!(pids(), [30, 40, 50]);
    // Whose parent ended has another one, and stays.
    procfs.remove(30);
    put(40, 1, 0);
    put(61, 1, 0);
    assert_eq!(pids(), [40, 50]);
}

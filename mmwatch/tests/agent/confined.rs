//! What the agent gave up, on each of its threads, and that it did.

use std::{
    env,
    ffi::CString,
    fs::{self, File},
    io,
    net::{TcpListener, UdpSocket},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    ptr, thread,
};

use mmwatch::agent::confine::{Needs, confine};

use super::{
    daemon::{Daemon, Scratch, ask, until},
    storm::Storm,
};
/// Capability numbers (`include/uapi/linux/capability.h`).
const SYS_PTRACE: u64 = 1 << 19;
const BPF: u64 = 1 << 39;

/// A thread's own account.
struct Thread(String);

impl Thread {
    fn value(&self, name: &str) -> &str {
        let mut lines = self.0.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no {name}")).trim()
    }

    fn capabilities(&self, set: &str) -> u64 {
        u64::from_str_radix(self.value(set), 16).unwrap()
    }
}

/// The threads of an agent and of its canary.
fn threads(pid: u32) -> Vec<Thread> {
    let own = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut paths: Vec<_> = own.map(|entry| entry.unwrap().path()).collect();
    for task in paths.clone() {
        let children = fs::read_to_string(task.join("children")).unwrap_or_default();
        paths.extend(
            children
                .split_whitespace()
                .map(|pid| format!("/proc/{pid}").into()),
        );
    }
    let status = |path: PathBuf| fs::read_to_string(path.join("status")).ok();
    paths.into_iter().filter_map(status).map(Thread).collect()
}

fn check(pid: u32, allowed: u64) {
    let threads = threads(pid);
    // The agent, its canary, and what answers slow questions.
    assert!(threads.len() >= 2, "{}", threads.len());
    for thread in &threads {
        assert_eq!(thread.value("NoNewPrivs"), "1");
        assert_eq!(thread.value("Seccomp"), "2");
        for (set, allowed) in [
            ("CapInh", 0),
            ("CapPrm", allowed),
            ("CapEff", allowed),
            ("CapBnd", 0),
            ("CapAmb", 0),
        ] {
            let has = thread.capabilities(set);
            assert_eq!(has & !allowed, 0, "{set} of {}", thread.value("Name"));
        }
    }
}

/// What some kernels ask for where maps are read.
fn to_read() -> u64 {
    let setting = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled");
    match setting.as_deref().map(str::trim) {
        Ok("0") => 0,
        _ => BPF,
    }
}

pub fn every_thread_has_given_up_what_it_does_not_need() {
    let daemon = Daemon::ready(&["--interval", "100ms"]);
    check(daemon.pid(), to_read());
    let mut storm = Storm::new();
    storm.rage(10);
    assert_eq!(daemon.get("/api/v1/processes").status, 200);
    check(daemon.pid(), to_read());
    let said = daemon.end();
    assert!(said.contains("confined, with"), "{said}");

    // Maps of others take one capability more, and a thread.
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let listen = format!("unix:{}", path.display());
    let daemon = Daemon::spawn(&["--listen", &listen], String::new(), &[]);
    let get = |asked: &str| ask(UnixStream::connect(&path).ok()?, asked, "");
    until("readiness", || {
        get("/readyz").filter(|answer| answer.status == 200)
    });
    let space = get(&format!("/api/v1/maps/{}", storm.pid()))
        .unwrap()
        .json();
    assert_eq!(space["pid"], storm.pid());
    check(daemon.pid(), to_read() | SYS_PTRACE);
    daemon.end();
    assert!(!path.exists());

    let free = Daemon::ready(&["--confine", "false"]);
    let threads = threads(free.pid());
    assert!(threads.iter().all(|thread| thread.value("Seccomp") == "0"));
}

/// Something that is tried by a process that gave up its privileges.
type Try = fn() -> io::Result<()>;

fn result(result: impl Into<i64>) -> io::Result<()> {
    match result.into() {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn map(prot: i32) -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a mapping at no address in particular replaces nothing.
    let addr = unsafe { libc::mmap(ptr::null_mut(), 4096, prot, flags, -1, 0) };
    result(addr as i64)
}

fn call(number: i64, arguments: [u64; 3]) -> io::Result<()> {
    let [a, b, c] = arguments;
    // SAFETY: none of the calls below is given memory.
    result(unsafe { libc::syscall(number, a, b, c, 0_u64, 0_u64) })
}

const FORBIDDEN: &[(&str, Try)] = &[
    ("to run a program", || {
        Command::new("/bin/true").status().map(drop)
    }),
    ("to write to a file", || {
        File::create("/tmp/mmwatch-forbidden").map(drop)
    }),
    ("to append to one", || {
        File::options().append(true).open("/etc/hostname").map(drop)
    }),
    ("to make a directory", || {
        fs::create_dir("/tmp/mmwatch-forbidden")
    }),
    ("to remove a file", || {
        fs::remove_file("/tmp/mmwatch-forbidden")
    }),
    ("to change a mode", || {
        let path = CString::new("/tmp").unwrap();
        // SAFETY: a path that ends.
        result(unsafe { libc::chmod(path.as_ptr(), 0o777) })
    }),
    ("to listen", || TcpListener::bind("127.0.0.1:0").map(drop)),
    ("a raw socket", || {
        call(libc::SYS_socket, [libc::AF_PACKET as u64, 3, 0])
    }),
    ("to trace", || {
        call(libc::SYS_ptrace, [libc::PTRACE_TRACEME.into(), 0, 0])
    }),
    ("to read another's memory", || {
        call(libc::SYS_process_vm_readv, [1, 0, 0])
    }),
    ("to kill", || call(libc::SYS_kill, [1, 0, 0])),
    ("to mount", || call(libc::SYS_mount, [0, 0, 0])),
    ("a namespace", || {
        call(libc::SYS_unshare, [libc::CLONE_NEWUSER as u64, 0, 0])
    }),
    ("a thread in one", || {
        call(libc::SYS_clone, [libc::CLONE_NEWUSER as u64, 0, 0])
    }),
    ("to become another user", || {
        call(libc::SYS_setuid, [1, 0, 0])
    }),
    // BPF_MAP_CREATE and BPF_PROG_LOAD.
    ("a BPF map", || call(libc::SYS_bpf, [0, 0, 0])),
    ("a BPF program", || call(libc::SYS_bpf, [5, 0, 0])),
    ("perf events", || call(libc::SYS_perf_event_open, [0, 0, 0])),
    ("to load a module", || {
        call(libc::SYS_finit_module, [0, 0, 0])
    }),
    ("memory that can be written and run", || {
        map(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC)
    }),
    ("to make memory run", || {
        call(libc::SYS_mprotect, [0, 0, libc::PROT_EXEC as u64])
    }),
    ("a file in memory", || {
        call(libc::SYS_memfd_create, [0, 0, 0])
    }),
    ("dumps", || {
        call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as u64, 1, 0])
    }),
];

const ALLOWED: &[(&str, Try)] = &[
    ("to read a file", || fs::read("/proc/self/status").map(drop)),
    ("to look at files", || {
        fs::read_dir("/proc/self/fd").map(drop)
    }),
    ("a thread", || {
        thread::Builder::new().spawn(|| {})?.join().unwrap();
        Ok(())
    }),
    ("memory", || map(libc::PROT_READ | libc::PROT_WRITE)),
    ("a socket", || UdpSocket::bind("127.0.0.1:0").map(drop)),
    // It gets as far as that its arguments are none.
    ("to look into a BPF map", || {
        match call(libc::SYS_bpf, [1, 0, 0]) {
            Err(error) if error.raw_os_error() != Some(libc::EPERM) => Ok(()),
            other => other,
        }
    }),
];

/// Called as `agent confined`: gives all up, and tries.
pub fn main() {
    let needs = Needs {
        others_maps: false,
        own_socket: false,
    };
    println!("{}", confine(needs, || true).unwrap());
    for (what, act) in FORBIDDEN {
        let error = act().expect_err(what);
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{what}: {error}");
    }
    for (what, act) in ALLOWED {
        act().unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

pub fn what_was_given_up_fails() {
    let output = Command::new(env::current_exe().unwrap())
        .arg("confined")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.stdout, b"no capabilities\n");
}

//! As many processes as a large host has.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    ptr,
    time::Instant,
};

use super::daemon::{Daemon, until};

const PROCESSES: u64 = 50_000;

/// What a scrape may be, whatever runs on the host.
const SERIES: usize = 5_000;

/// Memory of the agent.
const MEMORY_BYTES: u64 = 128 << 20;

/// Called as `agent crowd NUMBER`: makes so many processes that wait. For a line, each of
/// them maps and unmaps, the first time.
pub fn main() {
    let processes: u64 = env::args().nth(2).unwrap().parse().unwrap();
    let (mut go, mut done, mut end) = ([0; 2], [0; 2], [0; 2]);
    for pipe in [&mut go, &mut done, &mut end] {
        // SAFETY: the call writes two descriptors to where there is room for them.
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    }
    for _ in 0..processes {
        // SAFETY: this process has one thread.
        match unsafe { libc::fork() } {
            -1 => panic!("{}", std::io::Error::last_os_error()),
            // SAFETY: of each pipe the other end is the parent's alone.
            0 => unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                for pipe in [go[1], done[0], end[1]] {
                    libc::close(pipe);
                }
                wait(go[0], done[1], end[0])
            },
            _ => {}
        }
    }
    println!("ready");
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).unwrap() > 0 {
        for _ in 0..processes {
            let byte = 0_u8;
            // SAFETY: both calls have room for the byte.
            unsafe {
                assert_eq!(libc::write(go[1], (&raw const byte).cast(), 1), 1);
            }
        }
        for _ in 0..processes {
            let mut byte = 0_u8;
            // SAFETY: there is room for the byte.
            assert_eq!(unsafe { libc::read(done[0], (&raw mut byte).cast(), 1) }, 1);
        }
        println!("ready");
    }
}

/// One of the crowd: waits for a byte, maps, tells, and ends with its parent.
///
/// # Safety
///
/// The descriptors are open.
unsafe fn wait(go: i32, done: i32, end: i32) -> ! {
    let mut byte = 0_u8;
    let buffer = (&raw mut byte).cast();
    // SAFETY: there is room for a byte; the mapping is nobody's but this function's.
    unsafe {
        if libc::read(go, buffer, 1) == 1 {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let addr = libc::mmap(ptr::null_mut(), 4096, libc::PROT_NONE, flags, -1, 0);
            libc::munmap(addr, 4096);
            libc::write(done, buffer, 1);
        }
        libc::read(end, buffer, 1);
        libc::_exit(0)
    }
}

/// The kernel's limit on process ids, raised for as long as this lives.
struct Room(Option<String>);

const PID_MAX: &str = "/proc/sys/kernel/pid_max";

impl Room {
    fn make() -> Self {
        let before = fs::read_to_string(PID_MAX).unwrap();
        if before.trim().parse::<u64>().unwrap() > 2 * PROCESSES {
            return Self(None);
        }
        fs::write(PID_MAX, "4194304").unwrap();
        Self(Some(before))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = fs::write(PID_MAX, before);
        }
    }
}

struct Crowd {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Crowd {
    fn gather() -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["crowd", &PROCESSES.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut crowd = Self {
            commands: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        crowd.wait();
        crowd
    }

    fn rage(&mut self) {
        writeln!(self.commands).unwrap();
        self.wait();
    }

    fn wait(&mut self) {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // Its children hold it open until the last of them has ended.
        let _ = self.answers.read_to_end(&mut Vec::new());
        let _ = self.child.wait();
    }
}

/// A counter that has no labels but these.
fn value(metrics: &str, name: &str) -> u64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

fn peak_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib << 10
}

pub fn a_crowd_is_told_in_a_few_series() {
    let _room = Room::make();
    let mut crowd = Crowd::gather();
    let daemon = Daemon::ready(&["--interval", "500ms", "--request-timeout", "1m"]);
    let maps = "mmwatch_operations_total{op=\"map\"}";
    let before = value(&daemon.get("/metrics").body, maps);
    crowd.rage();
    // Others on this machine map too.
    let text = until("each of them", || {
        let text = daemon.get("/metrics").body;
        (value(&text, maps) >= before + PROCESSES).then_some(text)
    });
    let watched = value(&text, "mmwatch_processes");
    assert!(watched >= PROCESSES, "{watched}");

    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series < SERIES, "{series} series");
    let peak = peak_bytes(daemon.pid());
    assert!(peak < MEMORY_BYTES, "{peak} bytes");
    let mut times: Vec<_> = (0..9)
        .map(|_| {
            let start = Instant::now();
            assert_eq!(daemon.get("/metrics").status, 200);
            start.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "{watched} processes: {series} series, {} KiB of metrics in {:?} (median of 9), {} MiB",
        text.len() >> 10,
        times[4],
        peak >> 20
    );
    let said = daemon.end();
    assert!(!said.contains("does not balance"), "{said}");
}

//! Mapping calls at random, by several threads of several processes, with
//! barriers at which nothing moves. At each barrier the main process prints
//! `barrier R pids P1,P2,…` and waits for a line on its standard input, so
//! that somebody can hold a model of these address spaces against `/proc`.
//!
//! Between two barriers no thread allocates: the program's own heap and
//! mappings stay as they are, and every change is one of the random calls.

mod beyond;
pub mod check;
mod plain;

use std::{
    env, fs,
    io::{PipeReader, PipeWriter, Read as _, Write as _, pipe},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    panic, process,
    str::FromStr,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use self::plain::Worker;
use super::PAGE;

/// Barriers of a run with enough operations for that many.
const ROUNDS: u64 = 10;

/// What the command line asks for.
pub struct Plan {
    pub seed: u64,
    /// Operations of each thread.
    pub operations: u64,
    /// Threads of each process, its first one counted.
    pub threads: u64,
    /// Processes, the first one counted.
    pub processes: u64,
    pub set: Set,
}

/// Which operations are made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// Calls that do what they say, or fail and do nothing.
    Plain,
    /// These, and calls that fail halfway, mappings that change without a
    /// mapping call, and processes that come and go.
    All,
}

impl FromStr for Set {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "plain" => Ok(Self::Plain),
            "all" => Ok(Self::All),
            _ => Err(format!("no set of operations: {name}")),
        }
    }
}

/// What is mapped, open from the beginning and in every process.
struct Files {
    file: fs::File,
    read_only: fs::File,
    memfd: OwnedFd,
    zero: fs::File,
}

impl Files {
    /// Pages of each file; offsets go up to there, so some mappings end beyond.
    const PAGES: u64 = 64;

    fn open() -> Self {
        let path = env::temp_dir().join(format!("mmwatch-random-{}", process::id()));
        let file = fs::File::create_new(&path).unwrap();
        file.set_len(Self::PAGES * PAGE).unwrap();
        drop(file);
        let open = |write, path| fs::File::options().read(true).write(write).open(path);
        let file = open(true, path.as_path()).unwrap();
        let read_only = open(false, path.as_path()).unwrap();
        fs::remove_file(&path).unwrap();
        // SAFETY: a NUL-terminated name.
        let memfd = unsafe { libc::memfd_create(c"mmwatch-random".as_ptr(), 0) };
        assert!(memfd >= 0);
        // SAFETY: a descriptor that nobody else owns.
        let memfd = unsafe { OwnedFd::from_raw_fd(memfd) };
        // SAFETY: a descriptor of our own.
        let cut = unsafe { libc::ftruncate(memfd.as_raw_fd(), (Self::PAGES * PAGE) as i64) };
        assert_eq!(cut, 0);
        Self {
            file,
            read_only,
            memfd,
            zero: open(true, "/dev/zero".as_ref()).unwrap(),
        }
    }
}

/// A number generator (splitmix64), so that a seed repeats a run.
struct Random(u64);

impl Random {
    fn new(parts: [u64; 4]) -> Self {
        let mut random = Self(0);
        for part in parts {
            random.0 = random.next() ^ part;
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number less than `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Another process, as the main one knows it.
struct Child {
    pid: i32,
    /// Says how many calls it has made, when it has stopped.
    stopped: PipeReader,
    /// Is told whether to go on.
    go: PipeWriter,
}

pub fn main(plan: &Plan) {
    assert!(plan.threads > 0 && plan.processes > 0);
    // A thread that panics would leave the others at the barrier for good.
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |what| {
        report(what);
        process::abort();
    }));

    print(format!("seed {}\n", plan.seed).as_bytes());
    let files = Files::open();
    let mut children = Vec::new();
    for number in 1..plan.processes {
        let (stopped, stopped_of_child) = pipe().unwrap();
        let (go_of_child, go) = pipe().unwrap();
        // SAFETY: the process has one thread so far.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            // Held open here, the pipes of the others would outlive the parent.
            drop((stopped, go, children));
            child(plan, &files, number, stopped_of_child, go_of_child);
        }
        children.push(Child { pid, stopped, go });
    }

    let mut line = Vec::with_capacity(64 + 16 * children.len());
    let mut round = 0;
    let mut all_calls = 0;
    work(plan, &files, 0, |calls| {
        all_calls = calls;
        for child in &mut children {
            let mut calls = [0; 8];
            child.stopped.read_exact(&mut calls).unwrap();
            all_calls += u64::from_ne_bytes(calls);
        }
        round += 1;
        // The line has its room already; see above on allocating.
        line.clear();
        write!(line, "barrier {round} pids {}", process::id()).unwrap();
        for child in &children {
            write!(line, ",{}", child.pid).unwrap();
        }
        line.push(b'\n');
        print(&line);
        let on = read_line();
        for child in &mut children {
            child.go.write_all(&[u8::from(on)]).unwrap();
        }
        on
    });
    for child in children {
        assert_eq!(wait_for(child.pid), 0, "status of process {}", child.pid);
    }
    print(format!("done {all_calls}\n").as_bytes());
}

fn child(
    plan: &Plan,
    files: &Files,
    number: u64,
    mut stopped: PipeWriter,
    mut go: PipeReader,
) -> ! {
    // SAFETY: a number, no memory. The main process may be killed at any time.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    work(plan, files, number, |calls| {
        stopped.write_all(&calls.to_ne_bytes()).unwrap();
        let mut on = [0];
        go.read_exact(&mut on).unwrap();
        on[0] != 0
    });
    process::exit(0)
}

/// The rounds of one process. `stop` is called by its first thread when all of
/// its threads have stopped, with the number of calls so far; they go on when
/// it returns, or end when it returns false.
fn work(plan: &Plan, files: &Files, process: u64, mut stop: impl FnMut(u64) -> bool) {
    let barrier = Barrier::new(plan.threads as usize);
    let calls = AtomicU64::new(0);
    let ended = AtomicBool::new(false);
    let each = plan.operations.div_ceil(ROUNDS).max(1);
    let turns = |thread: u64, stop: &mut dyn FnMut(u64) -> bool| {
        let mut worker = Worker::new(plan, files, process, thread);
        // Starting a thread allocates.
        barrier.wait();
        let mut from = 0;
        while from < plan.operations && !ended.load(Ordering::SeqCst) {
            let to = plan.operations.min(from + each);
            for number in from..to {
                worker.operation(number);
            }
            from = to;
            calls.fetch_add(worker.take_calls(), Ordering::SeqCst);
            barrier.wait();
            if thread == 0 && !stop(calls.load(Ordering::SeqCst)) {
                ended.store(true, Ordering::SeqCst);
            }
            barrier.wait();
        }
    };
    thread::scope(|scope| {
        for thread in 1..plan.threads {
            let turns = &turns;
            scope.spawn(move || turns(thread, &mut |_| true));
        }
        turns(0, &mut stop);
    });
}

/// Writes to standard output, past the buffer of the standard library.
fn print(mut text: &[u8]) {
    while !text.is_empty() {
        // SAFETY: the slice is as long as it says.
        let written = unsafe { libc::write(1, text.as_ptr().cast(), text.len()) };
        assert!(written > 0);
        text = &text[written as usize..];
    }
}

/// Reads a line of standard input; false at its end.
fn read_line() -> bool {
    let mut byte = 0_u8;
    loop {
        // SAFETY: one byte for one byte.
        let read = unsafe { libc::read(0, (&raw mut byte).cast(), 1) };
        if read != 1 {
            return false;
        }
        if byte == b'\n' {
            return true;
        }
    }
}

/// Status of a process that has ended, as the kernel puts it.
fn wait_for(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: a number of our own.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    status
}

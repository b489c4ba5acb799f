//! Programs of known mapping calls. They note what they do, and with what
//! result, and write the notes to a file at their end; between the two marks
//! they allocate nothing, so that every event there is one of their calls.
//! One more makes its calls at random, see [`random`].

mod contained;
pub mod exact;
pub mod faults;
mod notes;
mod random;
mod refusals;
mod scenes;
pub mod suspects;
pub mod turns;

use std::{
    fs,
    io::Write as _,
    os::fd::{AsRawFd as _, RawFd},
    thread,
};

use notes::{Fixed, Notes, Path, map_note, pages};
pub use notes::{MARK_BEGIN, MARK_END, Note};

pub const PAGE: u64 = 4096;

pub fn main(args: &[String]) {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["calls", notes, file] => calls(notes, file),
        ["failures", notes, file] => failures(notes, file),
        ["refusals", notes, _file] => refusals::main(notes),
        ["suspects", told, scratch] => suspects::main(told, scratch),
        ["storm", pairs, len] => storm(pairs.parse().unwrap(), len.parse().unwrap()),
        ["threads", threads, pairs] => {
            threads_storm(threads.parse().unwrap(), pairs.parse().unwrap())
        }
        ["random", seed, operations, threads, processes, set] => random::main(&random::Plan {
            seed: seed.parse().unwrap(),
            operations: operations.parse().unwrap(),
            threads: threads.parse().unwrap(),
            processes: processes.parse().unwrap(),
            set: set.parse().unwrap(),
        }),
        ["in-turn", commands, ended] => turns::main(commands, ended),
        ["gross"] => exact::gross(),
        ["lives", count] => exact::lives(count.parse().unwrap()),
        ["pairs", count] => exact::pairs(count.parse().unwrap()),
        ["full"] => exact::full(),
        ["peak", count] => exact::peak(count.parse().unwrap()),
        ["random-check"] => random::check::main(),
        ["writes-through-memory", path, word, fifo] => {
            scenes::writes_through_memory(path, word, fifo);
        }
        ["reads-through-memory", path] => scenes::reads_through_memory(path),
        ["maps-over-itself"] => scenes::maps_over_itself(),
        ["makes-and-changes", fifo] => scenes::makes_and_changes(fifo),
        ["contained", cgroup, count, len] => contained::run(cgroup, count, len),
        ["maps", count, len] => contained::maps(count.parse().unwrap(), len.parse().unwrap()),
        ["moves", one, two, count, len] => {
            contained::moves(one, two, count.parse().unwrap(), len.parse().unwrap());
        }
        ["maps-when-told", count, len] => {
            contained::maps_when_told(count.parse().unwrap(), len.parse().unwrap());
        }
        ["faults", notes, file] => faults::ways(notes, file),
        ["mappings", file] => faults::mappings(file),
        ["forbidden"] => contained::forbidden(),
        ["exit", code] => std::process::exit(code.parse().unwrap()),
        _ => panic!("unknown workload: {args:?}"),
    }
}

/// Result of a raw call: the value, or the errno by name.
type Answer = Result<u64, &'static str>;

fn answer(result: libc::c_long) -> Answer {
    if result != -1 {
        return Ok(result as u64);
    }
    // SAFETY: errno of this thread.
    Err(match unsafe { *libc::__errno_location() } {
        libc::EINVAL => "EINVAL",
        libc::EBADF => "EBADF",
        libc::EEXIST => "EEXIST",
        libc::EACCES => "EACCES",
        libc::ENOMEM => "ENOMEM",
        libc::ENODEV => "ENODEV",
        libc::EFAULT => "EFAULT",
        other => panic!("unexpected errno {other}"),
    })
}

fn mmap(addr: u64, len: u64, prot: i32, flags: i32, fd: RawFd, offset: u64) -> Answer {
    // SAFETY: the program maps over its own scratch ranges only.
    answer(unsafe { libc::syscall(libc::SYS_mmap, addr, len, prot, flags, fd, offset) })
}

fn munmap(addr: u64, len: u64) -> Answer {
    // SAFETY: as for `mmap`.
    answer(unsafe { libc::syscall(libc::SYS_munmap, addr, len) })
}

fn mprotect(addr: u64, len: u64, prot: i32) -> Answer {
    // SAFETY: as for `mmap`.
    answer(unsafe { libc::syscall(libc::SYS_mprotect, addr, len, prot) })
}

fn mremap(addr: u64, old_len: u64, new_len: u64, flags: i32, new_addr: u64) -> Answer {
    // SAFETY: as for `mmap`.
    answer(unsafe { libc::syscall(libc::SYS_mremap, addr, old_len, new_len, flags, new_addr) })
}

fn brk(addr: u64) -> u64 {
    // SAFETY: the program gives back what it takes before anybody allocates.
    unsafe { libc::syscall(libc::SYS_brk, addr) as u64 }
}

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const ANON: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const SHARED_ANON: i32 = libc::MAP_SHARED | libc::MAP_ANONYMOUS;

/// Calls that succeed, of every kind that has an event of its own.
fn calls(notes_path: &str, file_path: &str) {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(file_path)
        .unwrap();
    file.set_len(16 * PAGE).unwrap();
    // SAFETY: a NUL-terminated name.
    let memfd = unsafe { libc::memfd_create(c"mmwatch-test".as_ptr(), 0) };
    assert!(memfd >= 0);
    // SAFETY: a descriptor of our own.
    assert_eq!(unsafe { libc::ftruncate(memfd, 4 * PAGE as i64) }, 0);
    // SAFETY: no memory is handed over.
    let shm = unsafe { libc::shmget(libc::IPC_PRIVATE, 3 * PAGE as usize, 0o600) };
    assert!(shm >= 0);

    let mut notes = Notes::begin();

    // Private and shared, whole pages and not.
    let area = notes.map(64 * PAGE, 0, ANON, "private-anonymous");
    let odd = notes.map(5000, RW, ANON, "private-anonymous");
    notes.unmap(odd, 5000, 2 * PAGE);
    let shared = notes.map(1 << 20, RW, SHARED_ANON, "shared-anonymous");
    notes.unmap(shared, 1 << 20, 1 << 20);

    // MAP_FIXED replaces: an unmap and a map.
    let fixed = area + 8 * PAGE;
    mmap(fixed, 4 * PAGE, RW, ANON | libc::MAP_FIXED, -1, 0).unwrap();
    notes.done(Fixed {
        op: "unmap",
        cause: "map_fixed",
        addr: Some(fixed),
        len_bytes: Some(4 * PAGE),
        requested_len_bytes: Some(4 * PAGE),
        ..Fixed::default()
    });
    notes.done(map_note(fixed, 4 * PAGE, RW, "private-anonymous"));

    // Part of a mapping, a range with holes, a range with nothing.
    notes.unmap(area + PAGE, PAGE, PAGE);
    notes.unmap(area, 3 * PAGE, 2 * PAGE);
    notes.unmap(area, 3 * PAGE, 0);

    // Protection of a part, of a whole, back.
    notes.protect(fixed + PAGE, PAGE, libc::PROT_READ);
    notes.protect(fixed, 4 * PAGE, libc::PROT_READ | libc::PROT_EXEC);
    notes.protect(fixed, 4 * PAGE - 100, RW);

    // mremap: shrink, grow where there is room, move, move over something.
    notes.remap(fixed, 4 * PAGE, 2 * PAGE, 0, 0, 0);
    notes.remap(fixed, 2 * PAGE, 4 * PAGE, 0, 0, 0);
    let target = area + 32 * PAGE;
    notes.remap(
        fixed,
        4 * PAGE,
        4 * PAGE,
        libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
        target,
        4 * PAGE,
    );

    // The heap's end, up and down.
    let end = brk(0);
    let top = pages(end) + 2 * PAGE;
    assert_eq!(brk(top), top);
    notes.done(Fixed {
        op: "brk",
        cause: "brk",
        addr: Some(pages(end)),
        len_bytes: Some(2 * PAGE),
        ..Fixed::default()
    });
    assert_eq!(brk(end), end);
    notes.done(Fixed {
        op: "brk",
        cause: "brk",
        addr: Some(pages(end)),
        len_bytes: Some(2 * PAGE),
        ..Fixed::default()
    });

    // Files: private with an offset, shared, memfd.
    let fd = file.as_raw_fd();
    let private = mmap(
        0,
        3 * PAGE,
        libc::PROT_READ,
        libc::MAP_PRIVATE,
        fd,
        2 * PAGE,
    )
    .unwrap();
    notes.done(Fixed {
        path: Some(Path::File),
        offset_bytes: Some(2 * PAGE),
        ..map_note(private, 3 * PAGE, libc::PROT_READ, "private-file")
    });
    let both = mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0).unwrap();
    notes.done(Fixed {
        path: Some(Path::File),
        offset_bytes: Some(0),
        ..map_note(both, PAGE, RW, "shared-file")
    });
    notes.unmap(private, 3 * PAGE, 3 * PAGE);
    notes.unmap(both, PAGE, PAGE);
    let memory = mmap(0, 4 * PAGE, RW, libc::MAP_SHARED, memfd, 0).unwrap();
    notes.done(Fixed {
        path: Some(Path::Memfd),
        ..map_note(memory, 4 * PAGE, RW, "shared-file")
    });
    notes.unmap(memory, 4 * PAGE, 4 * PAGE);

    // System V shared memory.
    // SAFETY: the kernel chooses the address.
    let attached = answer(unsafe { libc::syscall(libc::SYS_shmat, shm, 0, 0) }).unwrap();
    notes.done(Fixed {
        op: "map",
        cause: "shmat",
        addr: Some(attached),
        len_bytes: Some(3 * PAGE),
        ..Fixed::default()
    });
    // SAFETY: what was attached above.
    answer(unsafe { libc::syscall(libc::SYS_shmdt, attached) }).unwrap();
    notes.done(Fixed {
        op: "unmap",
        cause: "shmdt",
        addr: Some(attached),
        len_bytes: Some(3 * PAGE),
        ..Fixed::default()
    });

    notes.unmap(area, 64 * PAGE, 61 * PAGE - 4 * PAGE);
    // SAFETY: the segment made above.
    unsafe { libc::shmctl(shm, libc::IPC_RMID, std::ptr::null_mut()) };
    notes.end(notes_path, file_path);
}

/// Calls that fail, at every depth of the kernel.
fn failures(notes_path: &str, file_path: &str) {
    fs::write(file_path, [0; PAGE as usize]).unwrap();
    let read_only = fs::File::open(file_path).unwrap();
    let directory = fs::File::open("/proc").unwrap();

    let mut notes = Notes::begin();
    let area = notes.map(4 * PAGE, RW, ANON, "private-anonymous");
    let map = |addr, len| Fixed {
        op: "map",
        cause: "mmap",
        addr: Some(addr),
        requested_len_bytes: Some(len),
        ..Fixed::default()
    };

    // Refused by the system call itself: the offset is no whole number of pages.
    notes.failed(mmap(0, PAGE, RW, ANON, -1, 1), "EINVAL", map(0, PAGE));
    // Refused before the lock.
    notes.failed(
        mmap(0, PAGE, RW, libc::MAP_PRIVATE, -1, 0),
        "EBADF",
        map(0, PAGE),
    );
    // Refused under the lock.
    notes.failed(mmap(0, 0, RW, ANON, -1, 0), "EINVAL", map(0, 0));
    let no_replace = ANON | libc::MAP_FIXED_NOREPLACE;
    notes.failed(
        mmap(area, PAGE, RW, no_replace, -1, 0),
        "EEXIST",
        map(area, PAGE),
    );
    let fd = read_only.as_raw_fd();
    notes.failed(
        mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0),
        "EACCES",
        map(0, PAGE),
    );
    let fd = directory.as_raw_fd();
    notes.failed(
        mmap(0, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0),
        "ENODEV",
        map(0, PAGE),
    );
    notes.failed(mmap(0, 1 << 47, RW, ANON, -1, 0), "ENOMEM", map(0, 1 << 47));

    // Refused by mmap_region: the limit on address space.
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a structure of our own.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) }, 0);
    let low = libc::rlimit {
        rlim_cur: 1 << 20,
        ..limit
    };
    // SAFETY: a structure of our own.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &low) }, 0);
    notes.failed(mmap(0, 1 << 24, RW, ANON, -1, 0), "ENOMEM", map(0, 1 << 24));
    // SAFETY: a structure of our own.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);

    let call = |op, cause, addr, len| Fixed {
        op,
        cause,
        addr: Some(addr),
        requested_len_bytes: Some(len),
        ..Fixed::default()
    };
    notes.failed(
        munmap(area + 1, PAGE),
        "EINVAL",
        call("unmap", "munmap", area + 1, PAGE),
    );
    notes.failed(munmap(area, 0), "EINVAL", call("unmap", "munmap", area, 0));
    notes.failed(
        mprotect(area + 1, PAGE, libc::PROT_READ),
        "EINVAL",
        call("protect", "mprotect", area + 1, PAGE),
    );
    notes.unmap(area, 4 * PAGE, 4 * PAGE);
    notes.failed(
        mprotect(area, PAGE, libc::PROT_READ),
        "ENOMEM",
        call("protect", "mprotect", area, PAGE),
    );
    notes.failed(
        mremap(area, PAGE, 2 * PAGE, libc::MREMAP_MAYMOVE, 0),
        "EFAULT",
        call("remap", "mremap", area, 2 * PAGE),
    );
    // brk(2) of the kernel says no by not moving.
    let end = brk(0);
    assert_eq!(brk(1 << 46), end);
    notes.failed(
        Err("ENOMEM"),
        "ENOMEM",
        Fixed {
            op: "brk",
            cause: "brk",
            ..Fixed::default()
        },
    );
    notes.end(notes_path, file_path);
}

/// Maps and unmaps again, touching nothing.
fn storm(pairs: u64, len: u64) {
    for _ in 0..pairs {
        let addr = mmap(0, len, RW, ANON, -1, 0).unwrap();
        munmap(addr, len).unwrap();
    }
    // The count is the program's own, for who holds it against mmwatch's.
    println!("{}", 2 * pairs);
    std::io::stdout().flush().unwrap();
}

/// The same by several threads on one address space, each with sizes of its own.
fn threads_storm(threads: u64, pairs: u64) {
    let all: Vec<_> = (0..threads)
        .map(|thread| {
            thread::spawn(move || {
                for pair in 0..pairs {
                    let len = (1 + (thread + pair) % 7) * PAGE;
                    let addr = mmap(0, len, RW, ANON, -1, 0).unwrap();
                    mprotect(addr, PAGE, libc::PROT_READ).unwrap();
                    munmap(addr, len).unwrap();
                }
            })
        })
        .collect();
    for thread in all {
        thread.join().unwrap();
    }
}

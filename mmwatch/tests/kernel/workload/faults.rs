//! Programs that touch memory in known ways. Each way is a child of its own, so
//! that the kernel's count of its faults is that of a whole process.

use std::{
    arch::asm,
    fmt::Write as _,
    fs::{self, File},
    io::Write as _,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    ptr,
};

use super::{ANON, PAGE, RW, SHARED_ANON, mmap, mprotect, munmap};

/// A way to touch so many pages. Returns how many the kernel brings in without
/// an access, which it counts for the process but is none that anybody sees.
type Way = fn(&Files, u64) -> u64;

/// Ways by name; see the test for what is expected of each.
const WAYS: &[(&str, Way)] = &[
    ("write", |_, pages| {
        write(anonymous(2 * pages), pages);
        0
    }),
    ("read-then-write", |_, pages| {
        let area = anonymous(2 * pages);
        read(area, pages);
        write(area, pages);
        0
    }),
    ("twelve-bytes", |files, pages| {
        for _ in 0..pages {
            let fd = files.cached.as_raw_fd();
            read(
                mmap(0, 12, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0).unwrap(),
                1,
            );
        }
        0
    }),
    ("shared", |_, pages| {
        write(
            mmap(0, 2 * pages * PAGE, RW, SHARED_ANON, -1, 0).unwrap(),
            pages,
        );
        0
    }),
    ("shared-file", |files, pages| {
        let fd = files.cached.as_raw_fd();
        write(
            mmap(0, pages * PAGE, RW, libc::MAP_SHARED, fd, 0).unwrap(),
            pages,
        );
        0
    }),
    ("kernel", |files, pages| {
        let area = anonymous(2 * pages);
        // SAFETY: the area is larger than what is read into it.
        let got = unsafe {
            libc::read(
                files.zero.as_raw_fd(),
                area as *mut _,
                (pages * PAGE) as usize,
            )
        };
        assert_eq!(got as u64, pages * PAGE);
        0
    }),
    ("populate", |_, pages| {
        let flags = ANON | libc::MAP_POPULATE;
        let area = mmap(0, pages * PAGE, RW, flags, -1, 0).unwrap();
        write(area, pages);
        pages
    }),
    ("discard", |_, pages| {
        let area = anonymous(2 * pages);
        write(area, pages);
        // SAFETY: an area of our own without anything in it.
        let discarded =
            unsafe { libc::madvise(area as *mut _, (pages * PAGE) as usize, libc::MADV_DONTNEED) };
        assert_eq!(discarded, 0);
        write(area, pages);
        0
    }),
    ("refused", |_, pages| {
        let area = anonymous(pages);
        mprotect(area, pages * PAGE, libc::PROT_NONE).unwrap();
        skip_what_faults();
        write(area, pages);
        0
    }),
    ("major", |files, pages| {
        let fd = files.uncached.as_raw_fd();
        let area = mmap(0, pages * PAGE, libc::PROT_READ, libc::MAP_SHARED, fd, 0).unwrap();
        // SAFETY: an area of our own; nothing is to be read ahead.
        unsafe { libc::madvise(area as *mut _, (pages * PAGE) as usize, libc::MADV_RANDOM) };
        read(area, pages);
        0
    }),
];

/// Pages that a way touches, first once, then once more with more.
pub const FEW: u64 = 16;
pub const MANY: u64 = 80;

struct Files {
    cached: File,
    uncached: File,
    zero: File,
}

impl Files {
    fn open(path: &str) -> Self {
        let file = |name: &str| {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(format!("{path}-{name}"))
                .unwrap();
            // Page by page: what is written at once may be one large folio, and be
            // mapped at once.
            for page in 0..MANY {
                file.write_all_at(&[7; PAGE as usize], page * PAGE).unwrap();
            }
            file
        };
        Self {
            cached: file("cached"),
            uncached: file("uncached"),
            zero: File::open("/dev/zero").unwrap(),
        }
    }

    /// Takes the one out of memory, and says whether that could be done.
    fn forget(&self) -> bool {
        self.uncached.sync_all().unwrap();
        let fd = self.uncached.as_raw_fd();
        let len = MANY * PAGE;
        let area = mmap(0, len, libc::PROT_READ, libc::MAP_SHARED, fd, 0).unwrap();
        let mut there = [0_u8; MANY as usize];
        // SAFETY: a descriptor of our own, a mapping of it, and a byte for each page.
        unsafe {
            libc::posix_fadvise(fd, 0, 0, libc::POSIX_FADV_DONTNEED);
            assert_eq!(
                libc::mincore(area as *mut _, len as usize, there.as_mut_ptr()),
                0
            );
        }
        munmap(area, len).unwrap();
        there.iter().all(|page| page & 1 == 0)
    }
}

fn anonymous(pages: u64) -> u64 {
    mmap(0, pages * PAGE, RW, ANON, -1, 0).unwrap()
}

#[inline(never)]
fn read(area: u64, pages: u64) {
    for page in 0..pages {
        // SAFETY: mapped by the caller.
        unsafe { ptr::read_volatile((area + page * PAGE) as *const u8) };
    }
}

/// Writes a byte into each page, by an instruction of [`WRITE_LEN`] bytes.
#[inline(never)]
fn write(area: u64, pages: u64) {
    for page in 0..pages {
        // SAFETY: mapped by the caller, or skipped.
        unsafe { asm!("mov byte ptr [rdi], 1", in("rdi") area + page * PAGE) };
    }
}

const WRITE_LEN: i64 = 3;

/// From now on a write that is not allowed does nothing.
fn skip_what_faults() {
    extern "C" fn skip(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        let context: *mut libc::ucontext_t = context.cast();
        // SAFETY: the kernel hands over the context that it will return to.
        unsafe { (*context).uc_mcontext.gregs[libc::REG_RIP as usize] += WRITE_LEN };
    }
    // SAFETY: the handler touches nothing but the context.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = skip as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(
            libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut()),
            0
        );
    }
}

/// From now on this process and its children get no huge pages.
fn small_pages_only() {
    // SAFETY: a request that takes numbers.
    let result = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    assert_eq!(result, 0);
}

/// Goes all ways, each with few and with many pages, and notes what the kernel
/// counted for each: `way pages pid minor major unseen`.
pub fn ways(notes_path: &str, file_path: &str) {
    small_pages_only();
    let files = Files::open(file_path);
    let mut notes = String::with_capacity(4096);
    for (name, way) in WAYS {
        for pages in [FEW, MANY] {
            if *name == "major" && !files.forget() {
                writeln!(notes, "major-not-possible {pages} 0 0 0 0").unwrap();
                continue;
            }
            let (pid, unseen, usage) = child(&files, *way, pages);
            let (minor, major) = (usage.ru_minflt, usage.ru_majflt);
            writeln!(notes, "{name} {pages} {pid} {minor} {major} {unseen}").unwrap();
        }
    }
    fs::write(notes_path, notes).unwrap();
}

/// Goes a way in a process of its own; returns its id, its result, and what the
/// kernel counted.
fn child(files: &Files, way: Way, pages: u64) -> (i32, i32, libc::rusage) {
    // SAFETY: this process has one thread; the child makes calls that allocate
    // nothing, and ends. The parent's buffers live through its call.
    unsafe {
        match libc::fork() {
            -1 => panic!("no fork"),
            0 => libc::_exit(way(files, pages) as i32),
            pid => {
                let mut status = 0;
                let mut usage: libc::rusage = std::mem::zeroed();
                assert_eq!(libc::wait4(pid, &raw mut status, 0, &raw mut usage), pid);
                assert!(libc::WIFEXITED(status), "{status:#x}");
                (pid, libc::WEXITSTATUS(status), usage)
            }
        }
    }
}

/// Where what [`mappings`] maps lies.
pub const WRITTEN: u64 = 0x1000_0000_0000;
pub const TWELVE_BYTES: u64 = 0x2000_0000_0000;
pub const SHARED: u64 = 0x3000_0000_0000;
pub const UNTOUCHED: u64 = 0x4000_0000_0000;
pub const UNMAPPED: u64 = 0x5000_0000_0000;

/// Maps, waits for a line, touches what it mapped, and waits for the end.
pub fn mappings(file_path: &str) {
    small_pages_only();
    let files = Files::open(file_path);
    let fd = files.cached.as_raw_fd();
    let fixed = |addr, len, prot, flags, fd| {
        assert_eq!(
            mmap(addr, len, prot, flags | libc::MAP_FIXED, fd, 0),
            Ok(addr)
        );
    };
    fixed(WRITTEN, MANY * PAGE, RW, ANON, -1);
    fixed(TWELVE_BYTES, 12, libc::PROT_READ, libc::MAP_PRIVATE, fd);
    fixed(SHARED, MANY * PAGE, RW, libc::MAP_SHARED, fd);
    fixed(UNTOUCHED, MANY * PAGE, RW, ANON, -1);
    fixed(UNMAPPED, MANY * PAGE, RW, ANON, -1);
    wait("ready\n");
    // The last pages of one block of 64, and the first of the next.
    read(WRITTEN + 56 * PAGE, FEW);
    write(WRITTEN + 56 * PAGE, FEW);
    read(TWELVE_BYTES, 1);
    write(SHARED, FEW);
    write(UNMAPPED, FEW);
    munmap(UNMAPPED, MANY * PAGE).unwrap();
    wait("done\n");
}

fn wait(line: &str) {
    let mut out = std::io::stdout();
    out.write_all(line.as_bytes()).unwrap();
    out.flush().unwrap();
    let _ = std::io::stdin().read_line(&mut String::new());
}

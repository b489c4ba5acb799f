//! The operations, as bare system calls.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, RawFd},
    ptr,
};

use libc::{MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE, c_int, c_void};

/// One operation.
pub type Step = dyn FnMut() -> io::Result<()>;

/// A loop.
pub struct Op {
    /// What `workload run` and the tables call it.
    pub name: &'static str,
    /// Threads that run it at once, in one address space.
    pub threads: usize,
    /// Makes the operation to repeat.
    pub step: fn() -> io::Result<Box<Step>>,
}

const fn op(name: &'static str, step: fn() -> io::Result<Box<Step>>) -> Op {
    Op {
        name,
        threads: 1,
        step,
    }
}

impl Op {
    /// mmap and munmap, the pages never touched.
    pub const PAIR: Self = op("pair", pair);

    /// Every loop, in the order of the tables.
    pub const ALL: &[Self] = &[
        Self::PAIR,
        Self {
            name: "pair2",
            threads: 2,
            step: pair,
        },
        op("touched", touched),
        op("file", file),
        op("fixed", fixed),
        op("protect", protect),
        op("remap", remap),
        op("fault", fault),
        op("getppid", getppid),
    ];
}

const PAGE: usize = 4096;
const SIZE: usize = 4 * PAGE;
/// Pages of the fault loop: one madvise call for so many faults.
const FAULT_PAGES: usize = 512;
const READ_WRITE: c_int = PROT_READ | PROT_WRITE;
const NO_FILE: RawFd = -1;

fn pair() -> io::Result<Box<Step>> {
    Ok(Box::new(|| unmap(anonymous(SIZE)?, SIZE)))
}

fn touched() -> io::Result<Box<Step>> {
    Ok(Box::new(|| {
        let start = anonymous(SIZE)?;
        for page in 0..SIZE / PAGE {
            touch(start, page);
        }
        unmap(start, SIZE)
    }))
}

fn file() -> io::Result<Box<Step>> {
    let file = File::open("/proc/self/exe")?;
    Ok(Box::new(move || {
        let start = map(
            ptr::null_mut(),
            SIZE,
            PROT_READ,
            MAP_PRIVATE,
            file.as_raw_fd(),
        )?;
        unmap(start, SIZE)
    }))
}

fn fixed() -> io::Result<Box<Step>> {
    let start = anonymous(SIZE)?;
    Ok(Box::new(move || {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
        map(start, SIZE, READ_WRITE, flags, NO_FILE)?;
        Ok(())
    }))
}

fn protect() -> io::Result<Box<Step>> {
    let start = anonymous(SIZE)?;
    let mut prot = PROT_READ;
    Ok(Box::new(move || {
        // SAFETY: the range is this loop's own mapping, which nothing reads.
        let result = unsafe { libc::mprotect(start, SIZE, prot) };
        prot ^= PROT_WRITE;
        done(result)
    }))
}

/// Grows and shrinks: two calls.
fn remap() -> io::Result<Box<Step>> {
    let mut start = anonymous(SIZE)?;
    Ok(Box::new(move || {
        for (old, new) in [(SIZE, 2 * SIZE), (2 * SIZE, SIZE)] {
            // SAFETY: the range is this loop's own mapping, which nothing reads.
            start = unsafe { libc::mremap(start, old, new, libc::MREMAP_MAYMOVE) };
            if start == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }))
}

fn fault() -> io::Result<Box<Step>> {
    let len = FAULT_PAGES * PAGE;
    let start = anonymous(len)?;
    // SAFETY: the range is this loop's own mapping. A refusal does no harm: the
    // kernel may have no huge pages.
    unsafe { libc::madvise(start, len, libc::MADV_NOHUGEPAGE) };
    let mut page = 0;
    Ok(Box::new(move || {
        touch(start, page);
        page += 1;
        if page == FAULT_PAGES {
            page = 0;
            // SAFETY: the range is this loop's own mapping; its contents are not needed.
            return done(unsafe { libc::madvise(start, len, libc::MADV_DONTNEED) });
        }
        Ok(())
    }))
}

fn getppid() -> io::Result<Box<Step>> {
    Ok(Box::new(|| {
        // SAFETY: it takes nothing and cannot fail.
        unsafe { libc::syscall(libc::SYS_getppid) };
        Ok(())
    }))
}

fn anonymous(len: usize) -> io::Result<*mut c_void> {
    map(
        ptr::null_mut(),
        len,
        READ_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS,
        NO_FILE,
    )
}

fn map(
    at: *mut c_void,
    len: usize,
    prot: c_int,
    flags: c_int,
    file: RawFd,
) -> io::Result<*mut c_void> {
    // SAFETY: a fixed address is only ever that of the caller's own mapping.
    let start = unsafe { libc::mmap(at, len, prot, flags, file, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(start)
}

fn unmap(start: *mut c_void, len: usize) -> io::Result<()> {
    // SAFETY: the caller made this mapping and forgets it.
    done(unsafe { libc::munmap(start, len) })
}

fn touch(start: *mut c_void, page: usize) {
    // SAFETY: the callers' mappings are writable and have that page.
    unsafe { start.cast::<u8>().add(page * PAGE).write_volatile(1) };
}

fn done(result: c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

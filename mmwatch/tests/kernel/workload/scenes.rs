//! What the textbooks of mmap(2) teach with, one program each.

use std::{
    fs,
    io::{Seek as _, SeekFrom, Write as _},
    os::fd::AsRawFd as _,
};

use super::{ANON, PAGE, RW, mmap, munmap};

/// Opens a pipe with a name, which ends when somebody else has opened it too.
fn wait(fifo: &str) {
    fs::File::open(fifo).unwrap();
}

/// Writes a word into a file through memory, and waits.
pub fn writes_through_memory(path: &str, word: &str, fifo: &str) {
    let mut file = fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap();
    // Long enough for what is written.
    file.seek(SeekFrom::Start(0x401)).unwrap();
    file.write_all(b"\0").unwrap();
    let at = mmap(
        0,
        0x400,
        libc::PROT_WRITE,
        libc::MAP_SHARED,
        file.as_raw_fd(),
        0,
    );
    let at = at.unwrap() as *mut u8;
    assert!(word.len() < 0x400);
    // SAFETY: a mapping of a page, of a file of that length.
    unsafe { at.copy_from_nonoverlapping(word.as_ptr(), word.len()) };
    wait(fifo);
}

/// Prints the first bytes of a file out of memory.
pub fn reads_through_memory(path: &str) {
    let file = fs::File::open(path).unwrap();
    let at = mmap(
        0,
        12,
        libc::PROT_READ,
        libc::MAP_PRIVATE,
        file.as_raw_fd(),
        0,
    );
    let at = at.unwrap() as *const u8;
    // SAFETY: a mapping of a page, of a file of that length.
    let bytes = unsafe { std::slice::from_raw_parts(at, 12) };
    // The standard output is the trace's.
    std::io::stderr().write_all(bytes).unwrap();
}

/// Maps 10,240 bytes, a part of them anew, and the same once more without force.
/// What is asked for last is told by its size.
pub fn maps_over_itself() {
    // A place that is free, with room around it that nothing is merged with.
    let at = mmap(0, 16 * PAGE, 0, ANON, -1, 0).unwrap();
    munmap(at, 16 * PAGE).unwrap();
    let at = at + 4 * PAGE;
    let fixed = ANON | libc::MAP_FIXED;
    assert_eq!(mmap(at, 10_240, RW, fixed, -1, 0), Ok(at));
    assert_eq!(mmap(at, 1_024, libc::PROT_READ, fixed, -1, 0), Ok(at));
    assert_ne!(mmap(at, 1_023, libc::PROT_READ, ANON, -1, 0), Ok(at));
}

/// Maps eight pages, changes the protection of the first two and then of the
/// first alone, and waits.
pub fn makes_and_changes(fifo: &str) {
    let at = mmap(0, 8 * PAGE, RW, ANON, -1, 0).unwrap();
    super::mprotect(at, 2 * PAGE, libc::PROT_READ).unwrap();
    super::mprotect(at, PAGE, RW).unwrap();
    wait(fifo);
}

//! Programs whose operations have effects that no list of arguments tells.

use std::{fmt::Write as _, thread, time::Duration};

use super::{ANON, PAGE, RW, mmap, mprotect, munmap, notes::vmas};

const FIXED: i32 = ANON | libc::MAP_FIXED;

/// Ranges much larger than what is mapped there, mappings that replace,
/// merge and split others. Each at an address that the test knows.
pub fn gross() {
    let fixed = |addr, pages, prot| {
        assert_eq!(mmap(addr, pages * PAGE, prot, FIXED, -1, 0), Ok(addr));
    };
    fixed(0x1000_0000_0000, 1024, RW);
    munmap(0x1000_0000_0000, 1 << 40).unwrap();

    for (page, prot) in [libc::PROT_READ, RW, libc::PROT_NONE]
        .into_iter()
        .enumerate()
    {
        fixed(0x2000_0000_0000 + page as u64 * PAGE, 1, prot);
    }
    fixed(0x2000_0000_0000, 3, RW);

    fixed(0x3000_0000_0000, 1, RW);
    fixed(0x3000_0000_1000, 1, RW);

    fixed(0x4000_0000_0000, 1, RW);
    fixed(0x4000_0000_2000, 1, RW);
    fixed(0x4000_0000_1000, 1, RW);

    fixed(0x5000_0000_0000, 3, RW);
    munmap(0x5000_0000_1000, PAGE).unwrap();

    fixed(0x6000_0000_0000, 3, RW);
    mprotect(0x6000_0000_1000, PAGE, libc::PROT_READ).unwrap();
}

/// So many mappings made and removed, between two stops: see `random`.
pub fn pairs(count: u64) {
    // Between the stops nothing may be allocated.
    let pid = std::process::id();
    let stops = [1, 2].map(|number| format!("barrier {number} pids {pid}\n"));
    stop(&stops[0]);
    for _ in 0..count {
        let addr = mmap(0, 4 * PAGE, RW, ANON, -1, 0).unwrap();
        munmap(addr, 4 * PAGE).unwrap();
    }
    stop(&stops[1]);
    println!("done {}", 2 * count);
}

/// Prints a line and waits for one.
fn stop(line: &str) {
    let mut byte = 0_u8;
    // SAFETY: two live buffers of the lengths given.
    unsafe {
        libc::write(1, line.as_ptr().cast(), line.len());
        libc::read(0, (&raw mut byte).cast(), 1);
    }
}

/// Where life number 0 maps its page; each next one a little further on.
pub const LIVES: u64 = 0x1000_0000_0000;
/// Distance between two of them.
pub const LIFE: u64 = 1 << 16;

/// So many short lives, one after the other, each of which maps one page.
pub fn lives(count: u64) {
    for number in 0..count {
        // SAFETY: this process has one thread; the child makes two raw calls.
        unsafe {
            match libc::fork() {
                -1 => panic!("no fork"),
                0 => {
                    let answer = mmap(LIVES + number * LIFE, PAGE, RW, FIXED, -1, 0);
                    libc::_exit(i32::from(answer.is_err()));
                }
                child => {
                    let mut status = 0;
                    assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
                    assert_eq!(status, 0);
                }
            }
        }
    }
}

/// Takes all the VMAs that there are, prints how many, and waits for the end
/// of its input.
pub fn full() {
    let mut text = String::with_capacity(64);
    let prots = [RW, libc::PROT_READ];
    for prot in prots.into_iter().cycle() {
        // Neighbours that differ do not merge.
        if mmap(0, PAGE, prot, ANON, -1, 0).is_err() {
            break;
        }
    }
    writeln!(text, "{}", vmas()).unwrap();
    stop(&text);
}

/// Has more than so many VMAs for a moment, and then is there for a while.
pub fn peak(count: u64) {
    let len = 2 * count * PAGE;
    let area = mmap(0, len, RW, ANON, -1, 0).unwrap();
    for page in (0..2 * count).step_by(2) {
        mprotect(area + page * PAGE, PAGE, libc::PROT_READ).unwrap();
    }
    munmap(area, len).unwrap();
    thread::sleep(Duration::from_millis(1_500));
}

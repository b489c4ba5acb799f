//! A program whose calls fail, each for a reason that it knows. It notes the
//! failures alone: what it does to bring them about succeeds.

use std::fs;

use super::{
    ANON, Answer, MARK_BEGIN, MARK_END, Note, PAGE, RW, mmap, mprotect, mremap, munmap, notes::vmas,
};

/// `(op, cause)` of a call.
const MMAP: (&str, &str) = ("map", "mmap");
const MUNMAP: (&str, &str) = ("unmap", "munmap");
const MPROTECT: (&str, &str) = ("protect", "mprotect");
const MREMAP: (&str, &str) = ("remap", "mremap");

struct Refusals(Vec<Note>);

impl Refusals {
    /// A call at `addr` for `len` bytes that must have failed.
    fn note(
        &mut self,
        (op, cause): (&str, &str),
        (addr, len): (u64, u64),
        answer: Answer,
        (errno, reason): (&str, &str),
    ) -> &mut Note {
        assert_eq!(answer, Err(errno), "{cause}: {reason}");
        self.0.push(Note {
            op: op.to_owned(),
            cause: cause.to_owned(),
            errno: Some(errno.to_owned()),
            errno_reason: Some(reason.to_owned()),
            addr: Some(addr),
            len_bytes: Some(0),
            requested_len_bytes: Some(len),
            ..Note::default()
        });
        self.0.last_mut().unwrap()
    }
}

pub fn main(notes_path: &str) {
    let max_map_count = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    let max_map_count = max_map_count.trim().parse().unwrap();
    let mark = |len| assert_eq!(mmap(0, len, 0, libc::MAP_PRIVATE, -1, 0), Err("EBADF"));
    let mut refusals = Refusals(Vec::new());

    mark(MARK_BEGIN);
    arguments(&mut refusals);
    rlimit_as(&mut refusals);
    vma_limit(&mut refusals, max_map_count);
    mark(MARK_END);
    fs::write(notes_path, serde_json::to_vec(&refusals.0).unwrap()).unwrap();
}

/// Calls that no process could make.
fn arguments(refusals: &mut Refusals) {
    let area = mmap(0, 4 * PAGE, RW, ANON, -1, 0).unwrap();
    let hole = area + PAGE;
    munmap(hole, PAGE).unwrap();

    let no_replace = ANON | libc::MAP_FIXED_NOREPLACE;
    let fixed = ANON | libc::MAP_FIXED;
    let untyped = libc::MAP_ANONYMOUS;
    let private = libc::MAP_PRIVATE;
    for (addr, len, flags, why) in [
        (0, 0, ANON, ("EINVAL", "length_zero")),
        (area + 1, PAGE, fixed, ("EINVAL", "unaligned_address")),
        (0, PAGE, untyped, ("EINVAL", "no_type")),
        (0, PAGE, private, ("EBADF", "bad_descriptor")),
        (area, PAGE, no_replace, ("EEXIST", "already_mapped")),
        (0, 1 << 47, ANON, ("ENOMEM", "no_address_space")),
    ] {
        let answer = mmap(addr, len, RW, flags, -1, 0);
        refusals.note(MMAP, (addr, len), answer, why);
    }

    let answer = munmap(area, 0);
    refusals.note(MUNMAP, (area, 0), answer, ("EINVAL", "length_zero"));
    let answer = mprotect(area, 4 * PAGE, libc::PROT_READ);
    let why = ("ENOMEM", "unmapped_range");
    refusals.note(MPROTECT, (area, 4 * PAGE), answer, why);
    let answer = mremap(hole, PAGE, 2 * PAGE, libc::MREMAP_MAYMOVE, 0);
    let why = ("EFAULT", "not_one_mapping");
    refusals.note(MREMAP, (hole, 2 * PAGE), answer, why);
}

/// A mapping beyond what the process is allowed.
fn rlimit_as(refusals: &mut Refusals) {
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
    let len = 1 << 24;
    let answer = mmap(0, len, RW, ANON, -1, 0);
    // SAFETY: a structure of our own.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
    refusals.note(MMAP, (0, len), answer, ("ENOMEM", "rlimit_as"));
}

/// As many VMAs as there can be, and one call more of several kinds.
fn vma_limit(refusals: &mut Refusals, max_map_count: u64) {
    let mut filled = Vec::with_capacity(max_map_count as usize + 1);
    let wide = mmap(0, 3 * PAGE, RW, ANON, -1, 0).unwrap();
    let middle = wide + PAGE;
    let refused = loop {
        // Neighbours of different protection stay apart.
        let prot = [libc::PROT_READ, RW][filled.len() % 2];
        match mmap(0, PAGE, prot, ANON, -1, 0) {
            Ok(addr) => filled.push(addr),
            refused => break refused,
        }
    };
    let count = vmas();
    // mmap(2) is refused one VMA above the limit.
    assert_eq!(count, max_map_count + 1);
    let split = munmap(middle, PAGE);
    let protect = mprotect(middle, PAGE, libc::PROT_READ);
    let len = 1 << 24;
    let moved = mremap(wide, 3 * PAGE, len, libc::MREMAP_MAYMOVE, 0);
    for addr in filled {
        munmap(addr, PAGE).unwrap();
    }
    // Only now is it sure that there is room for notes.
    for (call, range, answer) in [
        (MMAP, (0, PAGE), refused),
        (MUNMAP, (middle, PAGE), split),
        (MPROTECT, (middle, PAGE), protect),
        (MREMAP, (wide, len), moved),
    ] {
        let why = ("ENOMEM", "vma_limit");
        refusals.note(call, range, answer, why).vmas = Some(count);
    }
}

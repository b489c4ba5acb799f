//! The operations of the set `plain`.
//!
//! The threads of a process share a window of addresses, in which each maps,
//! changes and removes what it likes; what the kernel places elsewhere belongs
//! to the thread that asked for it. Nothing here is read or written, as
//! another thread may have unmapped it.

use std::os::fd::AsRawFd as _;

use super::{
    super::{ANON, PAGE, RW, SHARED_ANON},
    Files, Plan, Random, Set,
    beyond::Own,
};

/// The window. A gigabyte to either side of here is free of anything else: the
/// kernel places programs, heaps, stacks and mappings without an address far
/// above, or, static programs and their heaps, far below.
pub const WINDOW: u64 = 0x1000_0000_0000;
pub const WINDOW_PAGES: u64 = 512;
const FREE_LEN: u64 = 1 << 30;

/// Mappings outside of the window that a thread keeps at most.
const OTHERS: usize = 32;

const PROTS: [i32; 7] = [
    libc::PROT_NONE,
    libc::PROT_READ,
    libc::PROT_WRITE,
    RW,
    RW,
    libc::PROT_READ | libc::PROT_EXEC,
    RW | libc::PROT_EXEC,
];

const ADVICE: [i32; 14] = [
    libc::MADV_NORMAL,
    libc::MADV_RANDOM,
    libc::MADV_SEQUENTIAL,
    libc::MADV_DONTNEED,
    libc::MADV_WILLNEED,
    libc::MADV_HUGEPAGE,
    libc::MADV_NOHUGEPAGE,
    libc::MADV_DONTFORK,
    libc::MADV_DOFORK,
    libc::MADV_DONTDUMP,
    libc::MADV_DODUMP,
    libc::MADV_FREE,
    libc::MADV_MERGEABLE,
    libc::MADV_UNMERGEABLE,
];

/// A mapping outside of the window. It has no holes.
#[derive(Clone, Copy)]
struct Other {
    start: u64,
    end: u64,
    /// Nothing has split it. mremap takes no more than one VMA.
    whole: bool,
    /// A System V segment, as it was attached.
    segment: bool,
}

/// A range that is mapped wholly or not at all.
struct Spot {
    start: u64,
    len: u64,
}

/// One thread, with what is its own.
pub struct Worker<'a> {
    plan: &'a Plan,
    pub files: &'a Files,
    process: u64,
    thread: u64,
    pub random: Random,
    calls: u64,
    /// Never grows beyond the room it begins with.
    others: Vec<Other>,
    /// End of the heap at the first use.
    heap: Option<u64>,
    pub own: Own,
}

impl<'a> Worker<'a> {
    pub fn new(plan: &'a Plan, files: &'a Files, process: u64, thread: u64) -> Self {
        Self {
            plan,
            files,
            process,
            thread,
            random: Random::new([0; 4]),
            calls: 0,
            others: Vec::with_capacity(OTHERS),
            heap: None,
            own: Own::new(thread),
        }
    }

    /// Calls since the last time.
    pub fn take_calls(&mut self) -> u64 {
        std::mem::take(&mut self.calls)
    }

    /// Counts calls that were made past [`Worker::call`].
    pub fn count(&mut self, calls: u64) {
        self.calls += calls;
    }

    /// One operation, of one call and at times two. It draws from numbers of
    /// its own: what others did to the calls before it does not change it.
    pub fn operation(&mut self, number: u64) {
        self.random = Random::new([self.plan.seed, self.process, self.thread, number]);
        if self.plan.set == Set::All && self.random.one_in(5) {
            self.beyond();
            return;
        }
        match self.random.below(100) {
            0..34 => self.map(),
            34..54 => self.unmap(),
            54..67 => self.protect(),
            67..80 => self.remap(),
            80..88 => {
                let spot = self.spot();
                self.advise(spot.start, spot.len);
            }
            88..92 => {
                let spot = self.spot();
                self.lock(spot.start, spot.len);
            }
            92..94 => {
                let spot = self.spot();
                self.name(spot.start, spot.len);
            }
            94..96 if self.thread == 0 => self.heap(),
            _ => self.refused(),
        }
    }

    /// A system call; nothing where it fails.
    pub fn call<const N: usize>(&mut self, number: libc::c_long, args: [u64; N]) -> Option<u64> {
        self.calls += 1;
        let mut all = [0; 6];
        all[..N].copy_from_slice(&args);
        let [a, b, c, d, e, f] = all;
        // SAFETY: addresses are those of the window, of this thread's own
        // regions, and of mappings that the kernel placed for this thread:
        // nobody refers to anything there. The heap's end goes never below
        // where the allocator left it.
        let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
        (result != -1).then_some(result as u64)
    }

    pub fn mmap(
        &mut self,
        addr: u64,
        len: u64,
        prot: i32,
        flags: i32,
        fd: i32,
        page: u64,
    ) -> Option<u64> {
        // A descriptor of -1 has its sign in all 64 bits.
        let fd = i64::from(fd) as u64;
        let args = [addr, len, prot as u64, flags as u64, fd, page * PAGE];
        self.call(libc::SYS_mmap, args)
    }

    pub fn mremap(&mut self, addr: u64, old: u64, new: u64, flags: i32, to: u64) -> Option<u64> {
        self.call(libc::SYS_mremap, [addr, old, new, flags as u64, to])
    }

    /// A place in the window for that many pages.
    pub fn place(&mut self, pages: u64) -> u64 {
        WINDOW + self.random.below(WINDOW_PAGES - pages + 1) * PAGE
    }

    /// Takes note of a new mapping, if it is outside of the window. Another
    /// one has to go, if there are too many.
    pub fn keep(&mut self, start: u64, len: u64, segment: bool) {
        if (WINDOW..WINDOW + FREE_LEN).contains(&start) {
            return;
        }
        if self.others.len() == OTHERS {
            let index = self.random.below(OTHERS as u64) as usize;
            self.remove(index);
        }
        self.others.push(Other {
            start,
            end: start + len.next_multiple_of(PAGE),
            whole: true,
            segment,
        });
    }

    /// Unmaps the whole of a mapping outside of the window.
    fn remove(&mut self, index: usize) {
        let other = self.others.swap_remove(index);
        if other.segment {
            self.call(libc::SYS_shmdt, [other.start]);
        } else {
            self.call(libc::SYS_munmap, [other.start, other.end - other.start]);
        }
    }

    /// One of the mappings outside of the window, half of the time.
    fn other(&mut self) -> Option<usize> {
        let wanted = self.random.one_in(2);
        let index = self.random.next();
        (wanted && !self.others.is_empty()).then(|| (index % self.others.len() as u64) as usize)
    }

    /// A page of the window, or a part of another mapping.
    fn spot(&mut self) -> Spot {
        let Some(index) = self.other() else {
            return Spot {
                start: self.place(1),
                len: PAGE,
            };
        };
        let other = &mut self.others[index];
        let pages = (other.end - other.start) / PAGE;
        let from = self.random.below(pages);
        let count = 1 + self.random.below(pages - from);
        other.whole &= count == pages;
        Spot {
            start: other.start + from * PAGE,
            len: count * PAGE,
        }
    }

    fn map(&mut self) {
        let prot = self.random.pick(&PROTS);
        let (private, shared) = (libc::MAP_PRIVATE, libc::MAP_SHARED);
        let file = self.files.file.as_raw_fd();
        let (mut flags, fd) = match self.random.below(16) {
            0..6 => (ANON, -1),
            6..8 => (SHARED_ANON, -1),
            8..10 => (private, file),
            10..12 => (shared, file),
            12 => (
                self.random.pick(&[private, shared]),
                self.files.read_only.as_raw_fd(),
            ),
            13 => (private, self.files.memfd.as_raw_fd()),
            14 => (shared, self.files.memfd.as_raw_fd()),
            _ => (shared, self.files.zero.as_raw_fd()),
        };
        let page = match fd {
            -1 => 0,
            _ => self.random.below(Files::PAGES),
        };
        if self.random.one_in(8) {
            flags |= libc::MAP_NORESERVE;
        }
        if self.random.one_in(32) {
            flags |= libc::MAP_POPULATE;
        }
        if flags & ANON == ANON && self.random.one_in(16) {
            flags |= libc::MAP_GROWSDOWN;
        }
        // At times over much of what is there.
        let large = self.random.one_in(200);
        let pages = 1 + self.random.below(if large { WINDOW_PAGES } else { 16 });
        let mut len = pages * PAGE;
        if self.random.one_in(8) {
            len -= self.random.below(PAGE);
        }
        let mut addr = self.place(pages);
        match self.random.below(16) {
            0..4 => addr = 0,
            // A hint need not be the start of a page.
            4..7 => addr += self.random.pick(&[0, 0, 0, 123]),
            7..12 => flags |= libc::MAP_FIXED,
            _ => flags |= libc::MAP_FIXED_NOREPLACE,
        }
        if let Some(start) = self.mmap(addr, len, prot, flags, fd, page) {
            self.keep(start, len, false);
        }
    }

    fn unmap(&mut self) {
        if let Some(index) = self.other() {
            self.unmap_other(index);
            return;
        }
        let (start, mut len) = match self.random.below(512) {
            // Far beyond anything mapped, in both directions.
            0 => (WINDOW, FREE_LEN),
            1 => (self.place(1), FREE_LEN / 2),
            2 => (WINDOW - FREE_LEN, FREE_LEN + self.random.below(64) * PAGE),
            // Nothing at all.
            3..20 => (WINDOW - FREE_LEN, 1 << (12 + self.random.below(16))),
            20..30 => (self.place(128), 128 * PAGE),
            _ => {
                let pages = 1 + self.random.below(16);
                (self.place(pages), pages * PAGE)
            }
        };
        if self.random.one_in(8) {
            len -= self.random.below(PAGE);
        }
        self.call(libc::SYS_munmap, [start, len]);
    }

    /// Unmaps a mapping outside of the window, or its beginning or end. What
    /// is left has no holes, so that nobody else is placed within.
    fn unmap_other(&mut self, index: usize) {
        let Other { start, end, .. } = self.others[index];
        let pages = (end - start) / PAGE;
        let part = self.random.below(pages) * PAGE;
        let way = self.random.below(4);
        if part == 0 || way < 2 {
            self.remove(index);
            return;
        }
        let other = &mut self.others[index];
        // What is left has no beginning to detach it by.
        other.segment = false;
        if way == 2 {
            other.start += part;
            self.call(libc::SYS_munmap, [start, part]);
        } else {
            other.end -= part;
            self.call(libc::SYS_munmap, [end - part, part]);
        }
    }

    fn protect(&mut self) {
        let spot = self.spot();
        let prot = self.random.pick(&PROTS);
        // Refused for a file opened for reading: with more pages than one,
        // nobody could tell how many were changed before that.
        let len = if prot & libc::PROT_WRITE == 0 {
            spot.len
        } else {
            PAGE
        };
        self.call(libc::SYS_mprotect, [spot.start, len, prot as u64]);
    }

    pub fn advise(&mut self, start: u64, len: u64) {
        let advice = self.random.pick(&ADVICE) as u64;
        self.call(libc::SYS_madvise, [start, len, advice]);
    }

    pub fn lock(&mut self, start: u64, len: u64) {
        match self.random.below(4) {
            0 => self.call(libc::SYS_mlock, [start, len]),
            1 => self.call(
                libc::SYS_mlock2,
                [start, len, u64::from(libc::MLOCK_ONFAULT)],
            ),
            _ => self.call(libc::SYS_munlock, [start, len]),
        };
    }

    pub fn name(&mut self, start: u64, len: u64) {
        let name = self.random.pick(&[Some(c"one"), Some(c"the other"), None]);
        let name = name.map_or(0, |name| name.as_ptr() as u64);
        let (vma, anon_name) = (libc::PR_SET_VMA as u64, libc::PR_SET_VMA_ANON_NAME as u64);
        self.call(libc::SYS_prctl, [vma, anon_name, start, len, name]);
    }

    fn remap(&mut self) {
        if let Some(index) = self.other() {
            self.remap_other(index);
            return;
        }
        let pages = 1 + self.random.below(4);
        let start = self.place(pages);
        let (old, new) = (pages * PAGE, (1 + self.random.below(16)) * PAGE);
        let may_move = libc::MREMAP_MAYMOVE;
        let (old, new, flags) = match self.random.below(6) {
            0 => (old, new, 0),
            1 | 2 => (old, new, may_move),
            3 => (old, self.random.below(pages) * PAGE, may_move),
            4 => (old, old, may_move | libc::MREMAP_DONTUNMAP),
            // Of a shared mapping, a second one.
            _ => (0, new, may_move),
        };
        if let Some(start) = self.mremap(start, old, new, flags, 0) {
            self.keep(start, new, false);
        }
    }

    fn remap_other(&mut self, index: usize) {
        let other = self.others[index];
        let (start, len) = (other.start, other.end - other.start);
        let pages = len / PAGE;
        let more = (1 + self.random.below(8)) * PAGE;
        let may_move = libc::MREMAP_MAYMOVE;
        match self.random.below(7) {
            0 if pages > 1 => {
                let new = (1 + self.random.below(pages - 1)) * PAGE;
                if self.mremap(start, len, new, 0, 0).is_some() {
                    self.others[index].end = start + new;
                    self.others[index].segment = false;
                }
            }
            // In place, if there is room.
            1 if len < 64 * PAGE => {
                if self.mremap(start, len, len + more, 0, 0).is_some() {
                    self.others[index].end += more;
                    self.others[index].segment = false;
                }
            }
            2 if len < 64 * PAGE => {
                if let Some(new) = self.mremap(start, len, len + more, may_move, 0) {
                    self.others.swap_remove(index);
                    self.keep(new, len + more, false);
                }
            }
            3 => {
                let flags = may_move | libc::MREMAP_DONTUNMAP;
                if let Some(new) = self.mremap(start, len, len, flags, 0) {
                    self.keep(new, len, false);
                }
            }
            4 => {
                if let Some(new) = self.mremap(start, 0, more, may_move, 0) {
                    self.keep(new, more, false);
                }
            }
            // Its end, or all of it, over something in the window.
            _ => {
                let count = if other.whole && !self.random.one_in(3) {
                    pages
                } else {
                    1
                };
                let new = self.random.pick(&[count, 1 + count / 2, count + 4]);
                let new = new.min(WINDOW_PAGES);
                let to = self.place(new);
                let from = other.end - count * PAGE;
                let flags = may_move | libc::MREMAP_FIXED;
                if self
                    .mremap(from, count * PAGE, new * PAGE, flags, to)
                    .is_none()
                {
                    return;
                }
                let left = &mut self.others[index];
                left.end = from;
                left.segment = false;
                if left.start == left.end {
                    self.others.swap_remove(index);
                }
            }
        }
    }

    /// The end of the heap, up and down above what the allocator has.
    fn heap(&mut self) {
        let first = match self.heap {
            Some(first) => first,
            None => match self.call(libc::SYS_brk, [0]) {
                Some(first) => *self.heap.insert(first),
                None => return,
            },
        };
        let to = match self.random.below(16) {
            // Refused: far too much, and less than nothing.
            0 => 1 << 46,
            1 => 1,
            2..5 => first,
            _ => first + self.random.below(64 * PAGE),
        };
        self.call(libc::SYS_brk, [to]);
    }

    /// Calls that no kernel accepts, or only if the window happens to be so.
    fn refused(&mut self) {
        let addr = self.place(1);
        let no_replace = ANON | libc::MAP_FIXED_NOREPLACE;
        let (read, read_only) = (libc::PROT_READ, self.files.read_only.as_raw_fd());
        let kept = self.others.first().map_or(addr, |other| other.start);
        match self.random.below(16) {
            0 => self.mmap(0, 0, read, ANON, -1, 0),
            1 => self.mmap(0, 1 << 47, read, ANON, -1, 0),
            2 => self.mmap(0, PAGE, read, libc::MAP_PRIVATE, -1, 0),
            3 => self.mmap(0, PAGE, read, libc::MAP_ANONYMOUS, -1, 0),
            4 => self.mmap(addr + 1, PAGE, read, ANON | libc::MAP_FIXED, -1, 0),
            5 => self.mmap(addr, PAGE, RW, libc::MAP_SHARED, read_only, 0),
            6 => self.mmap(kept, PAGE, read, no_replace, -1, 0),
            7 => self.call(libc::SYS_munmap, [addr, 0]),
            8 => self.call(libc::SYS_munmap, [addr + 1, PAGE]),
            9 => self.call(libc::SYS_munmap, [1 << 63, PAGE]),
            10 => self.call(libc::SYS_mprotect, [addr + 1, PAGE, 0]),
            11 => self.call(libc::SYS_mprotect, [WINDOW - PAGE, PAGE, 0]),
            12 => self.mremap(addr, PAGE, 0, libc::MREMAP_MAYMOVE, 0),
            13 => self.mremap(WINDOW - PAGE, PAGE, 2 * PAGE, libc::MREMAP_MAYMOVE, 0),
            14 => self.call(libc::SYS_madvise, [addr, PAGE, 12345]),
            _ => self.call(libc::SYS_mlock, [1 << 63, PAGE]),
        };
    }
}

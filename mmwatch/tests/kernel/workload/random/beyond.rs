//! The operations that only the set `all` has: System V segments, mappings
//! that are changed in part before the call fails, stacks that grow by
//! themselves, sealed mappings, and processes that come and go.

use std::{
    ffi::{CStr, c_void},
    os::fd::AsRawFd as _,
};

use super::{
    super::{ANON, PAGE, RW},
    Files,
    plain::{WINDOW, WINDOW_PAGES, Worker},
    wait_for,
};

/// Where each thread has its own regions, so that no other thread unmaps the
/// stack that this one writes to.
const OWN: u64 = 0x1200_0000_0000;
const OWN_LEN: u64 = 1 << 30;

/// Pages to which the growing stack grows.
const STACK_PAGES: u64 = 64;

/// mseal(2), in kernels since 6.10.
const MSEAL: libc::c_long = 462;

/// What one thread has to itself.
pub struct Own {
    region: u64,
    /// Lowest address of the growing stack, while it is mapped.
    stack: Option<u64>,
    /// The last segment attached in the window.
    attached: u64,
    /// The stack of a child in the same address space.
    room: Box<[u128]>,
}

impl Own {
    pub fn new(thread: u64) -> Self {
        Self {
            region: OWN + thread * OWN_LEN,
            stack: None,
            attached: WINDOW,
            room: vec![0; 4096].into_boxed_slice(),
        }
    }

    /// The end of the growing stack; nothing else is near.
    fn stack_end(&self) -> u64 {
        self.region + OWN_LEN / 2
    }
}

impl Worker<'_> {
    pub fn beyond(&mut self) {
        match self.random.below(1000) {
            0..220 => self.segment(),
            220..250 => self.zero(),
            250..400 => self.remap_pages(),
            400..640 => self.over_holes(),
            640..820 => self.remap_much(),
            820..940 => self.stack(),
            940..970 => self.seal(),
            970..984 => self.fork(),
            984..987 => self.exec(),
            _ => self.vfork(),
        }
    }

    /// Attaches a System V segment, or detaches the last one in the window.
    fn segment(&mut self) {
        if self.random.one_in(3) {
            let addr = self.own.attached;
            self.call(libc::SYS_shmdt, [addr]);
            return;
        }
        let pages = 1 + self.random.below(8);
        let place = self.place(pages);
        let (addr, flags) = match self.random.below(4) {
            0 | 1 => (0, 0),
            2 => (place, libc::SHM_RDONLY),
            _ => (place, libc::SHM_REMAP),
        };
        let len = (pages * PAGE) as usize;
        // SAFETY: no memory is handed over.
        let id = unsafe { libc::shmget(libc::IPC_PRIVATE, len, 0o600) };
        if id < 0 {
            return;
        }
        let start = self.call(libc::SYS_shmat, [id as u64, addr, flags as u64]);
        // It lives on while it is attached, and no longer than that.
        // SAFETY: the segment made above.
        unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
        let Some(start) = start else { return };
        if addr != 0 {
            self.own.attached = start;
        }
        self.keep(start, pages * PAGE, true);
    }

    /// `/dev/zero` privately: anonymous to the kernel, which gives it other
    /// offsets when it moves.
    fn zero(&mut self) {
        let (from, to) = (self.place(4), self.place(4));
        let fixed = libc::MAP_PRIVATE | libc::MAP_FIXED;
        let zero = self.files.zero.as_raw_fd();
        self.mmap(from, 4 * PAGE, libc::PROT_READ, fixed, zero, 3);
        let fixed = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        self.mremap(from, 2 * PAGE, 2 * PAGE, fixed, to);
    }

    fn remap_pages(&mut self) {
        let pages = 1 + self.random.below(4);
        let start = self.place(pages);
        let page = self.random.below(Files::PAGES);
        let args = [start, pages * PAGE, 0, page, 0];
        self.call(libc::SYS_remap_file_pages, args);
    }

    /// Calls on a range with holes: most do a part and fail.
    fn over_holes(&mut self) {
        let pages = 2 + self.random.below(63);
        let (start, len) = (self.place(pages), pages * PAGE);
        match self.random.below(8) {
            0..5 => {
                let prot = self.random.below(8);
                self.call(libc::SYS_mprotect, [start, len, prot]);
            }
            5 => self.advise(start, len),
            6 => self.lock(start, len),
            _ => self.name(start, len),
        }
    }

    /// mremap from the window to the window, of as many VMAs as are there,
    /// and calls that fail, some of them after something has been unmapped.
    fn remap_much(&mut self) {
        let pages = 1 + self.random.below(32);
        let (from, to) = (self.place(pages), self.place(pages));
        let len = pages * PAGE;
        let (may_move, dont_unmap) = (libc::MREMAP_MAYMOVE, libc::MREMAP_DONTUNMAP);
        let fixed = may_move | libc::MREMAP_FIXED;
        match self.random.below(16) {
            0..4 => self.mremap(from, len, len, fixed, to),
            4 => self.mremap(from, len, len, fixed | dont_unmap, to),
            5..7 => self.mremap(from, PAGE, len, fixed, to),
            7 => self.mremap(from, len, PAGE, fixed, to),
            // Over itself.
            8 => self.mremap(from, len, len, fixed, from),
            9 => self.mremap(from, PAGE, PAGE, fixed, to + 1),
            10 => self.mremap(from, PAGE, PAGE, libc::MREMAP_FIXED, to),
            11 => self.mremap(from, PAGE, 2 * PAGE, may_move | dont_unmap, 0),
            12 => self.mremap(from, PAGE, PAGE, 1 << 30, 0),
            13 => self.mremap(from, len, 0, 0, 0),
            14 => self.mremap(from, PAGE, 1 << 46, may_move, 0),
            _ => self.mremap(from, WINDOW_PAGES * PAGE, len, 0, 0),
        };
    }

    /// A mapping that grows when it is touched below its start, as stacks do.
    fn stack(&mut self) {
        let end = self.own.stack_end();
        let Some(start) = self.own.stack else {
            let len = (1 + self.random.below(4)) * PAGE;
            let flags = ANON | libc::MAP_GROWSDOWN | libc::MAP_FIXED_NOREPLACE;
            self.own.stack = self.mmap(end - len, len, RW, flags, -1, 0);
            return;
        };
        let down = (1 + self.random.below(8)) * PAGE;
        if end - start + down > STACK_PAGES * PAGE || self.random.one_in(16) {
            self.call(libc::SYS_munmap, [start, end - start]);
            self.own.stack = None;
            return;
        }
        let start = start - down;
        // SAFETY: nobody else maps or unmaps in this region. There is nothing
        // below, so the kernel makes the page by growing what is above.
        unsafe { (start as *mut u8).write_volatile(1) };
        self.own.stack = Some(start);
    }

    /// Two small mappings that are sealed sooner or later, and never go away
    /// from then on; calls on them fail.
    fn seal(&mut self) {
        let start = self.own.region + self.random.below(2) * 16 * PAGE;
        let len = 4 * PAGE;
        let fixed = ANON | libc::MAP_FIXED;
        let no_replace = ANON | libc::MAP_FIXED_NOREPLACE;
        let prot = self.random.pick(&[libc::PROT_READ, RW]);
        match self.random.below(8) {
            0..2 => self.mmap(start, len, prot, no_replace, -1, 0),
            2 => self.mmap(start, len, prot, fixed, -1, 0),
            3 => self.call(libc::SYS_munmap, [start, 2 * PAGE]),
            4 => self.call(libc::SYS_munmap, [start, 8 * PAGE]),
            5 => self.call(libc::SYS_mprotect, [start + PAGE, PAGE, 0]),
            6 => self.mremap(start, len, 2 * PAGE, 0, 0),
            _ => self.call(MSEAL, [start + PAGE, 2 * PAGE, 0]),
        };
    }

    /// A child with a copy of the address space, that ends at once.
    fn fork(&mut self) {
        let Some(pid) = self.call(libc::SYS_clone, [libc::SIGCHLD as u64]) else {
            return;
        };
        if pid == 0 {
            leave(0);
        }
        assert_eq!(wait_for(pid as i32), 0, "status of a child");
    }

    /// A child that becomes another program.
    fn exec(&mut self) {
        const PROGRAM: &CStr = c"/proc/self/exe";
        const ARGS: [&CStr; 4] = [c"kernel", c"workload", c"exit", c"0"];
        let [a, b, c, d] = ARGS.map(CStr::as_ptr);
        let args = [a, b, c, d, std::ptr::null()];
        let Some(pid) = self.call(libc::SYS_clone, [libc::SIGCHLD as u64]) else {
            return;
        };
        if pid == 0 {
            // SAFETY: NUL-terminated strings in a list that ends with NULL.
            // Other threads are not in this process, so nothing but system
            // calls is made before another program is there.
            unsafe { libc::syscall(libc::SYS_execve, PROGRAM.as_ptr(), args.as_ptr(), 0) };
            leave(127);
        }
        assert_eq!(wait_for(pid as i32), 0, "status of a program");
    }

    /// A child in the same address space, for which this thread waits.
    fn vfork(&mut self) {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let mut pages = 1 + self.random.below(4);
        let stack = self.own.room.as_mut_ptr_range().end;
        // SAFETY: the child has a stack of its own, of 64 KiB, and this thread
        // does not go on before the child has ended.
        let pid = unsafe {
            let arg = (&raw mut pages).cast::<c_void>();
            libc::clone(map_and_unmap, stack.cast(), flags, arg)
        };
        if pid > 0 {
            self.count(3);
            assert_eq!(wait_for(pid), 0, "status of a child in the same space");
        }
    }
}

/// What the child of [`Worker::vfork`] does. It shares the errno of the thread
/// that waits for it, and allocates nothing.
extern "C" fn map_and_unmap(pages: *mut c_void) -> i32 {
    // SAFETY: the number is on the stack of the thread that waits; the child
    // unmaps what it has mapped.
    unsafe {
        let len = *pages.cast::<u64>() * PAGE;
        let addr = libc::syscall(libc::SYS_mmap, 0, len, RW, ANON, -1, 0);
        if addr == -1 {
            return 1;
        }
        i32::from(libc::syscall(libc::SYS_munmap, addr, len) != 0)
    }
}

/// Ends the process, with nothing done on the way.
fn leave(code: i32) -> ! {
    loop {
        // SAFETY: does not return.
        unsafe { libc::syscall(libc::SYS_exit_group, code) };
    }
}

//! Processes that do nothing.

use std::io;

use crate::empty::wait_for_end;

/// Has so many of them until stdin ends. They end with this process, however it ends.
pub fn hold(count: u64) -> io::Result<()> {
    for _ in 0..count {
        // SAFETY: there is one thread, and the child makes system calls only.
        match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            0 => sleep(),
            _ => {}
        }
    }
    wait_for_end()
}

fn sleep() -> ! {
    // SAFETY: plain system calls. Had the parent ended before the first one,
    // its pid would be another's now.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() == 1 {
            libc::_exit(0);
        }
        loop {
            libc::pause();
        }
    }
}

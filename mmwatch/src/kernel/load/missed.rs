//! Runs of programs that the kernel skipped, from the kernel's own counters.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use aya::programs::{Program, loaded_links};

/// Commands of bpf(2) (`include/uapi/linux/bpf.h`).
const BPF_OBJ_GET_INFO_BY_FD: u32 = 15;
const BPF_LINK_GET_FD_BY_ID: u32 = 30;

/// Bytes of `struct bpf_link_info` up to `perf_event.kprobe.missed`, and with it.
const MISSED_AT: usize = 48;
const MISSED_END: usize = MISSED_AT + size_of::<u64>();

/// Skipped because the program was running already on that CPU
/// (`recursion_misses`, 5.12 and later).
pub(super) fn recursion(program: &Program) -> Option<u64> {
    let fd = program.fd().ok()?.as_fd().as_raw_fd();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))?;
    line.trim().parse().ok()
}

/// The link of a probe, which keeps it attached.
pub(super) struct Probe(OwnedFd);

impl Probe {
    /// That of a program, found while mmwatch has all its privileges: links can only be
    /// looked for with `CAP_SYS_ADMIN`.
    pub(super) fn of(program: &Program) -> Option<Self> {
        let id = program.info().ok()?.id();
        let link = loaded_links()
            .filter_map(Result::ok)
            .find(|link| link.program_id() == id)?;
        let mut by_id = [link.id(), 0, 0];
        let fd = bpf(BPF_LINK_GET_FD_BY_ID, &mut by_id).ok()?;
        // SAFETY: the call just made it for nobody else.
        Some(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Skipped because the probe found another one running on that CPU, or, at a
    /// function's return, because more tasks were inside than there are slots
    /// (`nmissed` of the probe, told by its link: 6.7 and later).
    pub(super) fn missed(&self) -> Option<u64> {
        link_missed(&self.0).ok().flatten()
    }
}

fn link_missed(link: &OwnedFd) -> io::Result<Option<u64>> {
    #[repr(C)]
    struct InfoByFd {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut info = [0_u64; 8];
    let mut by_fd = InfoByFd {
        bpf_fd: link.as_raw_fd().cast_unsigned(),
        info_len: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut by_fd)?;
    // A kernel that does not have the field says that it wrote less.
    let told = by_fd.info_len as usize >= MISSED_END;
    Ok(told.then_some(info[MISSED_AT / size_of::<u64>()]))
}

fn bpf<T>(command: u32, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attributes are a live struct of the length given, which the
    // command reads and writes, as does the buffer that it points to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

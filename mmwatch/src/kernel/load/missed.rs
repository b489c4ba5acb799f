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

/// Skipped because the probe found another one running on that CPU, or, at a
/// function's return, because more tasks were inside than there are slots
/// (`nmissed` of the probe, told by its link: 6.7 and later).
pub(super) fn probe(program: &Program) -> Option<u64> {
    let id = program.info().ok()?.id();
    let link = loaded_links()
        .filter_map(Result::ok)
        .find(|link| link.program_id() == id)?;
    link_missed(link.id()).ok().flatten()
}

fn link_missed(id: u32) -> io::Result<Option<u64>> {
    // union bpf_attr, its parts for the two commands.
    let mut by_id = [id, 0, 0];
    let fd = bpf(BPF_LINK_GET_FD_BY_ID, &mut by_id)?;
    // SAFETY: the call just made it for nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };

    #[repr(C)]
    struct InfoByFd {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut info = [0_u64; 8];
    let mut by_fd = InfoByFd {
        bpf_fd: fd.as_raw_fd().cast_unsigned(),
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

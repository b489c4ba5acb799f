//! An empty program on raw tracepoints: what any program there costs at least.

use std::{
    ffi::CString,
    io::{self, Read as _, Write as _},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

// Numbers of the kernel's interface, which never change (linux/bpf.h).
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;

/// `r0 = 0; exit`.
const PROGRAM: [u64; 2] = [0xb7, 0x95];

/// The part of `union bpf_attr` that loading takes.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u64; 2],
    kern_version: u32,
    prog_flags: u32,
}

/// The part of `union bpf_attr` that attaching takes.
#[repr(C)]
struct Open {
    name: u64,
    prog_fd: u32,
    pad: u32,
}

/// Attaches, says so, and waits for the end of stdin.
pub fn attach(tracepoints: &[&str]) -> io::Result<()> {
    let program = load()?;
    let links = tracepoints
        .iter()
        .map(|name| open(name, program.as_raw_fd()))
        .collect::<io::Result<Vec<_>>>()?;
    wait_for_end()?;
    drop(links);
    Ok(())
}

/// Says that all is ready, and waits for the end of stdin.
pub fn wait_for_end() -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "ready")?;
    out.flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn load() -> io::Result<OwnedFd> {
    bpf(
        BPF_PROG_LOAD,
        &Load {
            prog_type: BPF_PROG_TYPE_RAW_TRACEPOINT,
            insn_cnt: 2,
            insns: PROGRAM.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log: [0; 2],
            kern_version: 0,
            prog_flags: 0,
        },
    )
}

fn open(name: &str, program: RawFd) -> io::Result<OwnedFd> {
    let name = CString::new(name)?;
    bpf(
        BPF_RAW_TRACEPOINT_OPEN,
        &Open {
            name: name.as_ptr() as u64,
            prog_fd: program.cast_unsigned(),
            pad: 0,
        },
    )
    .map_err(|error| io::Error::other(format!("{}: {error}", name.to_string_lossy())))
}

fn bpf<T>(command: libc::c_int, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are of this command, and what they point to lives
    // until the call returns; the kernel takes a prefix of the union.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

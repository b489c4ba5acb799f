//! The kernel's software events, one on each CPU, with a BPF program that runs
//! for every single one.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use aya::{
    programs::{PerfEvent, ProgramError},
    util::online_cpus,
};

use crate::kernel::plan::SoftwareEvent;

/// `PERF_TYPE_SOFTWARE` (`include/uapi/linux/perf_event.h`).
const TYPE_SOFTWARE: u32 = 1;

/// Bit of `perf_event_attr`: not counting until asked to.
const DISABLED: u64 = 1;

/// `PERF_FLAG_FD_CLOEXEC`.
const CLOSE_ON_EXEC: libc::c_ulong = 1 << 3;

/// Requests of ioctl(2) for a perf event.
const ENABLE: libc::c_ulong = 0x2400;
const DISABLE: libc::c_ulong = 0x2401;
const SET_BPF: libc::c_ulong = 0x4004_2408;

/// `struct perf_event_attr` as it first was (`PERF_ATTR_SIZE_VER0`): nothing
/// newer is needed.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    breakpoint_address: u64,
}

const _: () = assert!(size_of::<Attributes>() == 64);

/// One event on every CPU that is online. Dropping it detaches the program.
pub(super) struct Events(Vec<File>);

impl Events {
    /// Loads the program and has it run for each of these events.
    pub(super) fn attach(
        program: &mut PerfEvent,
        event: SoftwareEvent,
    ) -> Result<Self, ProgramError> {
        program.load()?;
        let program = program.fd()?.as_fd().as_raw_fd();
        Ok(Self(Self::open(event, program)?))
    }

    fn open(event: SoftwareEvent, program: i32) -> io::Result<Vec<File>> {
        let cpus = online_cpus().map_err(|(_, error)| error)?;
        let files = cpus
            .into_iter()
            .map(|cpu| {
                let file = perf_event_open(event, cpu)?;
                ioctl(&file, SET_BPF, libc::c_ulong::from(program.cast_unsigned()))?;
                Ok(file)
            })
            .collect::<io::Result<Vec<_>>>()?;
        for file in &files {
            ioctl(file, ENABLE, 0)?;
        }
        Ok(files)
    }

    /// Has no more of them counted. What was counted can still be read.
    pub(super) fn disable(&self) {
        for file in &self.0 {
            // There is nothing that could make it fail, nor be done about it.
            let _ = ioctl(file, DISABLE, 0);
        }
    }

    /// How many there were, by the kernel's own count.
    pub(super) fn count(&self) -> Option<u64> {
        self.0.iter().try_fold(0, |sum: u64, mut file| {
            let mut count = [0; 8];
            file.read_exact(&mut count).ok()?;
            Some(sum + u64::from_ne_bytes(count))
        })
    }
}

/// All processes' events of a sort on one CPU, each a sample.
fn perf_event_open(event: SoftwareEvent, cpu: u32) -> io::Result<File> {
    let attributes = Attributes {
        kind: TYPE_SOFTWARE,
        size: size_of::<Attributes>() as u32,
        config: event as u64,
        // Each: the kernel does not throttle software events of this period.
        sample_period: 1,
        flags: DISABLED,
        ..Attributes::default()
    };
    // SAFETY: the attributes live through the call and have the size that they
    // tell; the rest are numbers.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            -1,
            cpu,
            -1,
            CLOSE_ON_EXEC,
        )
    };
    match i32::try_from(fd) {
        // SAFETY: the call just made it for nobody else.
        Ok(fd) if fd >= 0 => Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) })),
        _ => Err(named("perf_event_open", io::Error::last_os_error())),
    }
}

fn ioctl(file: &File, request: libc::c_ulong, argument: libc::c_ulong) -> io::Result<()> {
    // SAFETY: an open descriptor; these requests take a number.
    match unsafe { libc::ioctl(file.as_raw_fd(), request, argument) } {
        -1 => Err(named("ioctl of a perf event", io::Error::last_os_error())),
        _ => Ok(()),
    }
}

/// Says which call it was that failed.
fn named(call: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{call}: {error}"))
}

//! Asks the kernel what it allows, by doing it with programs that do nothing.

use std::{fs::File, io::Read as _, path::Path};

use aya::{
    Btf, Ebpf, EbpfLoader, Endianness,
    maps::Array,
    programs::{FEntry, KProbe, PerfEvent, ProgramError, RawTracePoint},
};
use mmwatch_common::probe::{self, Answer as Whereabouts};

use super::{chain, perf::Events};
use crate::kernel::{facts::Answer, plan::SoftwareEvent};

/// The probe programs, as the build script unpacked it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probe"));

/// A function that every kernel has and that mmwatch hooks anyway.
const FUNCTION: &str = "mmap_region";

/// What the kernel answered.
pub struct Asked {
    /// Whether a raw tracepoint program can be loaded and attached.
    pub raw_tracepoint: Answer,
    /// Whether an fentry program can be loaded and attached.
    pub fentry: Answer,
    /// Whether a kprobe program can be loaded and attached.
    pub kprobe: Answer,
    /// Whether a program can be loaded and attached to a software event.
    pub perf_event: Answer,
    /// The agent's process id in the root namespace.
    pub self_tgid: Option<u32>,
    /// Distance from a task's stack to its user registers, bytes.
    pub user_regs_offset: Option<u32>,
    /// Whether a program can read the running task by plain loads.
    pub typed_task: bool,
    /// Whether it can read the registers of user space likewise.
    pub typed_regs: bool,
}

/// Asks. `vmlinux` is where the kernel's types are, `task_stack` the offset of `task_struct.stack`, where known.
pub fn ask(vmlinux: &Path, task_stack: Option<u32>) -> Asked {
    let nonce = nonce();
    let (mut ebpf, btf) = match load(vmlinux, nonce, task_stack) {
        Ok(loaded) => loaded,
        Err(reason) => {
            let refused = || Answer::Refused(reason.clone());
            return Asked {
                raw_tracepoint: refused(),
                fentry: refused(),
                kprobe: refused(),
                perf_event: refused(),
                self_tgid: None,
                user_regs_offset: None,
                typed_task: false,
                typed_regs: false,
            };
        }
    };
    let raw_tracepoint = answer(raw_tracepoint(&mut ebpf));
    let whereabouts = if raw_tracepoint.works() {
        whereabouts(&mut ebpf, nonce)
    } else {
        None
    };
    Asked {
        raw_tracepoint,
        fentry: match &btf {
            Ok(btf) => answer(fentry(&mut ebpf, btf)),
            Err(reason) => Answer::Refused(reason.clone()),
        },
        kprobe: answer(kprobe(&mut ebpf)),
        perf_event: answer(perf_event(&mut ebpf)),
        self_tgid: whereabouts.map(|found| found.tgid),
        user_regs_offset: whereabouts.map(|found| found.user_regs_offset),
        typed_task: loads(&mut ebpf, "raw_typed_task"),
        typed_regs: loads(&mut ebpf, "raw_typed_regs"),
    }
}

fn load(
    vmlinux: &Path,
    nonce: u64,
    task_stack: Option<u32>,
) -> Result<(Ebpf, Result<Btf, String>), String> {
    let btf = Btf::parse_file(vmlinux, Endianness::default()).map_err(|error| chain(&error));
    let task_stack = task_stack.unwrap_or(mmwatch_common::config::NO_OFFSET);
    let ebpf = EbpfLoader::new()
        .btf(btf.as_ref().ok())
        .override_global(probe::NONCE, &nonce, true)
        .override_global(probe::TASK_STACK, &task_stack, true)
        .load(OBJECT)
        .map_err(|error| chain(&error))?;
    Ok((ebpf, btf))
}

fn answer(result: Result<(), ProgramError>) -> Answer {
    match result {
        Ok(()) => Answer::Works,
        Err(error) => Answer::Refused(chain(&error)),
    }
}

/// Attaches the program that answers [`whereabouts`]; it stays until the end.
fn raw_tracepoint(ebpf: &mut Ebpf) -> Result<(), ProgramError> {
    let program: &mut RawTracePoint = ebpf
        .program_mut("raw_sys_enter")
        .ok_or(ProgramError::NotLoaded)?
        .try_into()?;
    program.load()?;
    program.attach("sys_enter")?;
    Ok(())
}

/// Whether the verifier takes a raw tracepoint program; it is not attached.
fn loads(ebpf: &mut Ebpf, name: &str) -> bool {
    let program = ebpf.program_mut(name).map(<&mut RawTracePoint>::try_from);
    program.is_some_and(|program| program.is_ok_and(|program| program.load().is_ok()))
}

/// Enters the kernel with the nonce and reads what the program saw.
fn whereabouts(ebpf: &mut Ebpf, nonce: u64) -> Option<Whereabouts> {
    // SAFETY: getpid ignores its arguments and has no effect.
    unsafe { libc::syscall(libc::SYS_getpid, nonce) };
    let map: Array<_, Whereabouts> = Array::try_from(ebpf.map(probe::ANSWER)?).ok()?;
    map.get(&0, 0).ok().filter(|answer| answer.tgid != 0)
}

fn fentry(ebpf: &mut Ebpf, btf: &Btf) -> Result<(), ProgramError> {
    let program: &mut FEntry = ebpf
        .program_mut("fentry_nothing")
        .ok_or(ProgramError::NotLoaded)?
        .try_into()?;
    program.load(FUNCTION, btf)?;
    program.attach()?;
    Ok(())
}

fn kprobe(ebpf: &mut Ebpf) -> Result<(), ProgramError> {
    let program: &mut KProbe = ebpf
        .program_mut("kprobe_nothing")
        .ok_or(ProgramError::NotLoaded)?
        .try_into()?;
    program.load()?;
    program.attach(FUNCTION, 0)?;
    Ok(())
}

fn perf_event(ebpf: &mut Ebpf) -> Result<(), ProgramError> {
    let program: &mut PerfEvent = ebpf
        .program_mut("perf_nothing")
        .ok_or(ProgramError::NotLoaded)?
        .try_into()?;
    Events::attach(program, SoftwareEvent::MinorFaults).map(drop)
}

/// A number that no other task passes to a system call by chance.
fn nonce() -> u64 {
    let mut bytes = [0; 8];
    match File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes)) {
        // The upper bits set: no pointer, length or descriptor looks like that.
        Ok(()) => u64::from_ne_bytes(bytes) | 0xf000_0000_0000_0000,
        Err(_) => 0xf000_0000_0000_0000 | u64::from(std::process::id()),
    }
}

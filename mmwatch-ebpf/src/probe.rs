//! Small programs with which the agent asks what a kernel allows.
//!
//! They are an object of their own, so that asking costs no ring buffer.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::pt_regs,
    helpers::{
        bpf_get_current_pid_tgid, bpf_probe_read_kernel,
        generated::{bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs},
    },
    macros::{fentry, kprobe, map, perf_event, raw_tracepoint},
    maps::Array,
    programs::{FEntryContext, PerfEventContext, ProbeContext, RawTracePointContext},
};
use mmwatch_common::{config::NO_OFFSET, probe::Answer};

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// First argument of the system call with which the agent asks.
#[unsafe(no_mangle)]
static NONCE: u64 = u64::MAX;

/// Offset of `task_struct.stack`.
#[unsafe(no_mangle)]
static TASK_STACK: u32 = NO_OFFSET;

#[map]
static ANSWER: Array<Answer> = Array::with_max_entries(1, 0);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Answers the task that enters a system call with the nonce as its first
/// argument: who it is in the root namespace, and how far above its kernel
/// stack's lower end the registers of user space lie.
#[raw_tracepoint(tracepoint = "sys_enter")]
fn raw_sys_enter(ctx: RawTracePointContext) -> i32 {
    let regs: *const pt_regs = ctx.arg(0);
    // SAFETY: live statics, volatile because the agent replaces the bytes after
    // compilation; the helpers check the addresses that they read.
    let stack = unsafe {
        let nonce = core::ptr::read_volatile(&raw const NONCE);
        if bpf_probe_read_kernel(&raw const (*regs).rdi) != Ok(nonce) {
            return 0;
        }
        let offset = core::ptr::read_volatile(&raw const TASK_STACK);
        let stack = bpf_get_current_task() + u64::from(offset);
        bpf_probe_read_kernel(stack as *const u64)
    };
    let Ok(stack) = stack else {
        return 0;
    };
    let answer = Answer {
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        user_regs_offset: (regs as u64).wrapping_sub(stack) as u32,
    };
    // Fails only for an index that the array does not have.
    let _ = ANSWER.set(0, answer, 0);
    0
}

/// Loads where the running task comes with its type, so that its members can be
/// read by plain loads.
#[raw_tracepoint(tracepoint = "sys_enter")]
fn raw_typed_task(_: RawTracePointContext) -> i32 {
    // SAFETY: the verifier lets it load only where both are sound.
    unsafe {
        let offset = core::ptr::read_volatile(&raw const TASK_STACK);
        let member = bpf_get_current_task_btf() as u64 + u64::from(offset);
        i32::from(core::ptr::read_volatile(member as *const u64) != 0)
    }
}

/// Loads where the same holds for the registers that it entered with.
#[raw_tracepoint(tracepoint = "sys_enter")]
fn raw_typed_regs(_: RawTracePointContext) -> i32 {
    // SAFETY: as above.
    unsafe {
        let regs = bpf_task_pt_regs(bpf_get_current_task_btf()) as *const pt_regs;
        i32::from(core::ptr::read_volatile(&raw const (*regs).orig_rax) != 0)
    }
}

#[fentry]
fn fentry_nothing(_: FEntryContext) -> i32 {
    0
}

#[kprobe]
fn kprobe_nothing(_: ProbeContext) -> u32 {
    0
}

#[perf_event]
fn perf_nothing(_: PerfEventContext) -> u32 {
    0
}

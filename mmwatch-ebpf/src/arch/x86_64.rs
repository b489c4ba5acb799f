//! x86-64: registers at the entry from user space, and system call numbers.
//!
//! `struct pt_regs` is part of the user ABI (`arch/x86/include/uapi/asm/ptrace.h`),
//! and so are the numbers (`arch/x86/entry/syscalls/syscall_{64,32}.tbl`).

use core::mem::offset_of;

use aya_ebpf::bindings::pt_regs;
use mmwatch_common::{config::Call, event::Cause};

use crate::{
    globals::{config, has},
    memory::{load, read, read_or_zero, task_member},
    task::Task,
};

/// `thread_info.status`: the task is in a 32-bit system call (`TS_COMPAT`).
const TS_COMPAT: u32 = 2;
/// Marks a number of the x32 ABI (`__X32_SYSCALL_BIT`).
const X32: i64 = 1 << 30;

/// What brought a task into the kernel.
#[derive(Clone, Copy)]
pub struct Entry {
    /// System call number; negative for an exception or an interrupt.
    pub number: i64,
    /// The number is one of the 32-bit table.
    pub compat: bool,
}

/// The registers with which the running task entered from user space.
#[derive(Clone, Copy)]
pub struct Regs {
    /// Where they lie; with their type, where that is to be had.
    pub address: u64,
}

/// The call that `task`, the running one, is in, from its saved registers.
/// Where they cannot be read that is read(2), which means nothing here: an
/// `Option` of a struct would be moved around unset, and verifiers refuse that.
#[inline(always)]
pub fn entry(task: &Task, regs: Regs) -> Entry {
    let number: i64 = if config!(typed_regs) != 0 {
        load(regs.address, offset_of!(pt_regs, orig_rax))
    } else {
        read_or_zero(regs.address, offset_of!(pt_regs, orig_rax))
    };
    let compat = has!(task_thread_status)
        && task_member!(task.address, task_thread_status: u32) & TS_COMPAT != 0;
    Entry {
        number: if number < 0 { number } else { number & !X32 },
        compat,
    }
}

/// Arguments of a system call.
#[derive(Clone, Copy)]
pub struct Args(pub [u64; 6]);

/// Arguments of the call that saved `regs`.
#[inline(always)]
pub fn args(regs: Regs) -> Option<Args> {
    if config!(typed_regs) != 0 {
        let read = |offset| load(regs.address, offset);
        return Some(Args([
            read(offset_of!(pt_regs, rdi)),
            read(offset_of!(pt_regs, rsi)),
            read(offset_of!(pt_regs, rdx)),
            read(offset_of!(pt_regs, r10)),
            read(offset_of!(pt_regs, r8)),
            read(offset_of!(pt_regs, r9)),
        ]));
    }
    // The part of the registers from r10 to rdi; the whole would not fit the stack.
    let [r10, r9, r8, _rax, _rcx, rdx, rsi, rdi]: [u64; 8] =
        read(regs.address, offset_of!(pt_regs, r10))?;
    Some(Args([rdi, rsi, rdx, r10, r8, r9]))
}

impl Entry {
    /// The call whose return is worth waiting for, by its 64-bit number.
    #[inline(always)]
    pub fn call(self) -> Option<Call> {
        if self.compat {
            // Their returns are not hooked: the wrappers have other names.
            return None;
        }
        match self.number {
            9 => Some(Call::Mmap),
            10 | 329 => Some(Call::Mprotect),
            11 => Some(Call::Munmap),
            12 => Some(Call::Brk),
            25 => Some(Call::Mremap),
            30 => Some(Call::Shmat),
            67 => Some(Call::Shmdt),
            _ => None,
        }
    }

    /// What the entry means for a change of the address space.
    #[inline(always)]
    pub fn cause(self) -> Cause {
        if self.number < 0 {
            return Cause::Fault;
        }
        if self.compat {
            self.cause_32()
        } else {
            self.cause_64()
        }
    }

    #[inline(always)]
    fn cause_64(self) -> Cause {
        match self.number {
            9 => Cause::Mmap,
            10 | 329 => Cause::Mprotect,
            11 => Cause::Munmap,
            12 => Cause::Brk,
            25 => Cause::Mremap,
            28 | 440 => Cause::Madvise,
            30 => Cause::Shmat,
            56..=58 | 435 => Cause::Fork,
            59 | 322 => Cause::Exec,
            60 | 231 => Cause::Exit,
            67 => Cause::Shmdt,
            149..=152 | 325 => Cause::Mlock,
            157 => Cause::Prctl,
            216 => Cause::RemapFilePages,
            237 | 450 => Cause::Mbind,
            462 => Cause::Mseal,
            _ => Cause::Other,
        }
    }

    #[inline(always)]
    fn cause_32(self) -> Cause {
        match self.number {
            1 | 252 => Cause::Exit,
            2 | 120 | 190 | 435 => Cause::Fork,
            11 | 358 => Cause::Exec,
            45 => Cause::Brk,
            90 | 192 => Cause::Mmap,
            91 => Cause::Munmap,
            125 | 380 => Cause::Mprotect,
            150..=153 | 376 => Cause::Mlock,
            163 => Cause::Mremap,
            172 => Cause::Prctl,
            219 | 440 => Cause::Madvise,
            257 => Cause::RemapFilePages,
            274 | 450 => Cause::Mbind,
            397 => Cause::Shmat,
            398 => Cause::Shmdt,
            462 => Cause::Mseal,
            _ => Cause::Other,
        }
    }
}

//! Who is running.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    generated::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_comm,
        bpf_get_current_task, bpf_get_current_task_btf, bpf_ktime_get_boot_ns, bpf_task_pt_regs,
    },
};
use mmwatch_common::event::COMM_LEN;

use crate::{
    arch::{self, Entry, Regs},
    globals::{config, has, offset},
    identity,
    memory::{load, member, member_or_zero, read, read_or_zero, task_member},
};

/// `task_struct.flags`: the task is on its way out (`PF_EXITING`).
const PF_EXITING: u32 = 0x4;
/// `task_struct.flags`: the task was forked and has not called exec (`PF_FORKNOEXEC`).
const PF_FORKNOEXEC: u32 = 0x40;

/// Place of the limit on mappings among a process's limits (`RLIMIT_AS`), and
/// the size of one (`struct rlimit`, the soft limit first).
const RLIMIT_AS: usize = 9;
const RLIMIT_BYTES: usize = 16;

/// The task that a program runs for.
#[derive(Clone, Copy)]
pub struct Task {
    /// Address of its `task_struct`.
    pub address: u64,
    /// Process id in the root namespace.
    pub tgid: u32,
    /// Thread id in the root namespace.
    pub tid: u32,
    /// Address of its process's first task, where it comes with its type; else 0.
    leader: u64,
    /// Address of its `css_set`, where that comes with its type and is needed; else 0.
    cgroups: u64,
}

impl Task {
    /// The current task.
    #[inline(always)]
    pub fn current() -> Self {
        if config!(typed_task) != 0 {
            // SAFETY: no arguments, no preconditions.
            let address = unsafe { bpf_get_current_task_btf() } as u64;
            return Self {
                address,
                tgid: load(address, offset!(task_tgid)),
                tid: load(address, offset!(task_pid)),
                // Here and not where it is wanted, which the verifier meets hundreds of
                // times: from 6.2 on it searches all of the kernel's types at each
                // step from a trusted pointer to another.
                leader: load(address, offset!(task_group_leader)),
                cgroups: if config!(cgroup_subsystem) != 0 {
                    load(address, offset!(task_cgroups))
                } else {
                    0
                },
            };
        }
        let ids = bpf_get_current_pid_tgid();
        Self {
            // SAFETY: no arguments, no preconditions.
            address: unsafe { bpf_get_current_task() },
            tgid: (ids >> 32) as u32,
            tid: ids as u32,
            leader: 0,
            cgroups: 0,
        }
    }

    /// Address of its `mm_struct`; 0 for a kernel thread and after `exit_mm`.
    /// With the task's, the verifier knows its type too.
    #[inline(always)]
    pub fn mm(&self) -> u64 {
        task_member!(self.address, task_mm: u64)
    }

    /// Start of its process, ns of the boot clock.
    #[inline(always)]
    pub fn start_boot_ns(&self) -> u64 {
        if config!(typed_task) != 0 {
            return load(self.leader, offset!(task_start_boottime));
        }
        start_boot_ns(self.address)
    }

    /// Id of its cgroup in the hierarchy that counts.
    #[inline(always)]
    pub fn cgroup_id(&self) -> u64 {
        if config!(cgroup_subsystem) == 0 {
            // SAFETY: no arguments, no preconditions.
            return unsafe { bpf_get_current_cgroup_id() };
        }
        let node = task_member!(self.cgroup(), cgroup_node: u64);
        task_member!(node, node_id: u64)
    }

    /// Whether it is in the cgroup that was asked for, or below it.
    #[inline(always)]
    pub fn is_in_cgroup(&self) -> bool {
        // Tracing programs of 5.10 lack the helper; kernels with that array have it.
        if config!(cgroup_subsystem) == 0 && has!(cgroup_ancestors) {
            let level = config!(cgroup_level) as i32;
            // SAFETY: no preconditions; 0 where there is no such ancestor.
            let id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
            return id == config!(cgroup_id);
        }
        identity::is_below(self.cgroup())
    }

    /// Its cgroup in the hierarchy that counts: by plain loads where that is one of v1 and
    /// the task comes with its type.
    #[inline(always)]
    pub fn cgroup(&self) -> u64 {
        match config!(cgroup_subsystem) {
            number if number != 0 && config!(typed_task) != 0 => {
                let place = (number as usize - 1) * size_of::<u64>();
                let state: u64 = load(self.cgroups, offset!(css_set_subsystems) + place);
                load(state, offset!(css_cgroup))
            }
            _ => identity::cgroup(self.address),
        }
    }

    /// Whether it is on its way out.
    #[inline(always)]
    pub fn is_exiting(&self) -> bool {
        task_member!(self.address, task_flags: u32) & PF_EXITING != 0
    }

    /// Whether it runs what its parent ran. Over with `begin_new_exec`, after the
    /// new address space took the old one's place.
    #[inline(always)]
    pub fn is_before_exec(&self) -> bool {
        task_member!(self.address, task_flags: u32) & PF_FORKNOEXEC != 0
    }

    /// Bytes of mappings that it may have: the soft limit `RLIMIT_AS`.
    #[inline(always)]
    pub fn rlimit_as_bytes(&self) -> u64 {
        let signal = member_or_zero!(self.address, task_signal: u64);
        read_or_zero(signal, offset!(signal_rlim) + RLIMIT_AS * RLIMIT_BYTES)
    }

    /// The registers with which it entered from user space; where it is not
    /// known how to find them, an address that cannot be read.
    #[inline(always)]
    pub fn user_regs(&self) -> Regs {
        if config!(typed_regs) != 0 {
            return self.user_regs_at(0);
        }
        match config!(user_regs_offset) {
            0 => self.user_regs_at(0),
            distance => {
                let stack = task_member!(self.address, task_stack: u64);
                self.user_regs_at(stack + u64::from(distance))
            }
        }
    }

    /// The same, where a hook was told their `address`.
    #[inline(always)]
    pub fn user_regs_at(&self, address: u64) -> Regs {
        if config!(typed_regs) == 0 {
            return Regs { address };
        }
        // SAFETY: the verifier sees to it that the task comes with its type.
        let regs = unsafe { bpf_task_pt_regs(self.address as *mut _) };
        Regs {
            address: regs as u64,
        }
    }

    /// The call or exception that it is in.
    #[inline(always)]
    pub fn entry(&self) -> Entry {
        arch::entry(self, self.user_regs())
    }

    /// Address of the `struct file` behind a descriptor, or `None`.
    #[inline(always)]
    pub fn file(&self, descriptor: u64) -> Option<u64> {
        let files = member!(self.address, task_files: u64)?;
        let table = member!(files, files_fdt: u64)?;
        let descriptor = descriptor as u32;
        if descriptor >= member!(table, fdtable_max_fds: u32)? {
            return None;
        }
        let array = member!(table, fdtable_fd: u64)?;
        read::<u64>(array, descriptor as usize * size_of::<u64>()).filter(|file| *file != 0)
    }
}

/// Start of any task's process, ns of the boot clock.
#[inline(always)]
pub fn start_boot_ns(task: u64) -> u64 {
    let leader = member_or_zero!(task, task_group_leader: u64);
    member_or_zero!(leader, task_start_boottime: u64)
}

/// Writes the command name of the current task.
///
/// # Safety
///
/// `to` can be written.
#[inline(always)]
pub unsafe fn comm(to: *mut [u8; COMM_LEN]) {
    // SAFETY: the caller's promise, and the length is the buffer's. Where the
    // helper fails, it writes zeroes.
    unsafe { bpf_get_current_comm(to.cast(), COMM_LEN as u32) };
}

/// Real user id of the current task in the root user namespace.
#[inline(always)]
pub fn uid() -> u32 {
    bpf_get_current_uid_gid() as u32
}

/// Now, ns of the boot clock.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no arguments, no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

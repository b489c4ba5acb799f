//! The programs of the object and where they can be attached.

use mmwatch_common::{
    config::{Call, DOWNGRADE_AT_UNMAP, DOWNGRADE_KNOWN},
    counter::Hook,
};

use super::{Attach, Program, SoftwareEvent};

/// System calls whose return can be hooked one by one.
pub(super) const CALLS: &[(Call, Program)] = &[
    (
        Call::Mmap,
        program(
            "fexit_sys_mmap",
            Attach::Fexit("__x64_sys_mmap"),
            Hook::CallMmap,
        ),
    ),
    (
        Call::Munmap,
        program(
            "fexit_sys_munmap",
            Attach::Fexit("__x64_sys_munmap"),
            Hook::CallMunmap,
        ),
    ),
    (
        Call::Mprotect,
        program(
            "fexit_sys_mprotect",
            Attach::Fexit("__x64_sys_mprotect"),
            Hook::CallMprotect,
        ),
    ),
    (
        Call::Mprotect,
        program(
            "fexit_sys_pkey_mprotect",
            Attach::Fexit("__x64_sys_pkey_mprotect"),
            Hook::CallPkeyMprotect,
        ),
    ),
    (
        Call::Mremap,
        program(
            "fexit_sys_mremap",
            Attach::Fexit("__x64_sys_mremap"),
            Hook::CallMremap,
        ),
    ),
    (
        Call::Brk,
        program(
            "fexit_sys_brk",
            Attach::Fexit("__x64_sys_brk"),
            Hook::CallBrk,
        ),
    ),
    (
        Call::Shmat,
        program(
            "fexit_sys_shmat",
            Attach::Fexit("__x64_sys_shmat"),
            Hook::CallShmat,
        ),
    ),
    (
        Call::Shmdt,
        program(
            "fexit_sys_shmdt",
            Attach::Fexit("__x64_sys_shmdt"),
            Hook::CallShmdt,
        ),
    ),
];

/// The return of every call of every task.
pub(super) const CALL_EXIT: Program = program(
    "raw_sys_exit",
    Attach::RawTracepoint("sys_exit"),
    Hook::Call,
);

/// Bits of all calls: one program sees them all.
pub(super) const ALL_CALLS: u32 = (1 << (Call::Shmdt as u32 + 1)) - 1;

const fn program(name: &'static str, attach: Attach, hook: Hook) -> Program {
    Program { name, attach, hook }
}

/// The lock's own tracepoints: 2 arguments on release since 6.14, 3 before.
pub(super) const LOCK_TRACEPOINTS: &[Program] = &[
    program(
        "raw_lock_acquired",
        Attach::RawTracepoint("mmap_lock_acquire_returned"),
        Hook::LockTaken,
    ),
    program(
        "raw_lock_released",
        Attach::RawTracepoint("mmap_lock_released"),
        Hook::LockReleased,
    ),
];
pub(super) const LOCK_TRACEPOINTS_MEMCG: &[Program] = &[
    program(
        "raw_lock_acquired_memcg",
        Attach::RawTracepoint("mmap_lock_acquire_returned"),
        Hook::LockTaken,
    ),
    program(
        "raw_lock_released_memcg",
        Attach::RawTracepoint("mmap_lock_released"),
        Hook::LockReleased,
    ),
];
pub(super) const LOCK_FENTRY: &[Program] = &[
    program(
        "fexit_down_write_killable",
        Attach::Fexit("down_write_killable"),
        Hook::LockTaken,
    ),
    program(
        "fentry_up_write",
        Attach::Fentry("up_write"),
        Hook::LockReleased,
    ),
    program(
        "fentry_downgrade_write",
        Attach::Fentry("downgrade_write"),
        Hook::LockDowngraded,
    ),
];
pub(super) const LOCK_KPROBE: &[Program] = &[
    program(
        "kretprobe_down_write_killable",
        Attach::Kretprobe("down_write_killable"),
        Hook::LockTaken,
    ),
    program(
        "kprobe_up_write",
        Attach::Kprobe("up_write"),
        Hook::LockReleased,
    ),
    program(
        "kprobe_downgrade_write",
        Attach::Kprobe("downgrade_write"),
        Hook::LockDowngraded,
    ),
];

/// In place of the lock where nothing tells of it.
pub(super) const CALL_ENTER: Program = program(
    "raw_sys_enter",
    Attach::RawTracepoint("sys_enter"),
    Hook::LockTaken,
);

pub(super) const MAP_FENTRY: &[Program] = &[program(
    "fexit_mmap_region",
    Attach::Fexit("mmap_region"),
    Hook::Map,
)];
pub(super) const MAP_KPROBE: &[Program] = &[
    program(
        "kprobe_mmap_region",
        Attach::Kprobe("mmap_region"),
        Hook::MapEnter,
    ),
    program(
        "kretprobe_mmap_region",
        Attach::Kretprobe("mmap_region"),
        Hook::Map,
    ),
];

/// The file of a shared mapping of nothing, or of `/dev/zero`.
pub(super) const SHARED_FILE_FENTRY: &[Program] = &[program(
    "fexit_shmem_zero_setup",
    Attach::Fexit("shmem_zero_setup"),
    Hook::SharedFile,
)];
pub(super) const SHARED_FILE_KPROBE: &[Program] = &[
    program(
        "kprobe_shmem_zero_setup",
        Attach::Kprobe("shmem_zero_setup"),
        Hook::SharedFile,
    ),
    program(
        "kretprobe_shmem_zero_setup",
        Attach::Kretprobe("shmem_zero_setup"),
        Hook::SharedFile,
    ),
];

/// The same where `/dev/zero` describes its mapping before the VMA is made.
pub(super) const DESCRIBED_FILE: &str = "shmem_zero_setup_desc";
pub(super) const DESCRIBED_FILE_FENTRY: &[Program] = &[program(
    "fexit_shmem_zero_setup_desc",
    Attach::Fexit(DESCRIBED_FILE),
    Hook::SharedFile,
)];
pub(super) const DESCRIBED_FILE_KPROBE: &[Program] = &[
    program(
        "kprobe_shmem_zero_setup_desc",
        Attach::Kprobe(DESCRIBED_FILE),
        Hook::SharedFile,
    ),
    program(
        "kretprobe_shmem_zero_setup_desc",
        Attach::Kretprobe(DESCRIBED_FILE),
        Hook::SharedFile,
    ),
];

/// What VMAs are before they are protected: CONFIG_SECURITY.
pub(super) const PROTECT_FENTRY: Program = program(
    "fentry_security_file_mprotect",
    Attach::Fentry("security_file_mprotect"),
    Hook::Protect,
);
pub(super) const PROTECT_KPROBE: Program = program(
    "kprobe_security_file_mprotect",
    Attach::Kprobe("security_file_mprotect"),
    Hook::Protect,
);

/// Splits of VMAs: where the unmap core does not say itself how many it removes.
pub(super) const SPLIT_FENTRY: Program =
    program("fexit_split_vma", Attach::Fexit("__split_vma"), Hook::Split);
pub(super) const SPLIT_KPROBE: Program = program(
    "kprobe_split_vma",
    Attach::Kprobe("__split_vma"),
    Hook::Split,
);

/// Ways to see the unmap core, and what they mean for downgraded sections.
pub(super) const UNMAP_FENTRY: &[(&[Program], u32)] = &[
    (
        &[program(
            "fentry_vms_complete_munmap_vmas",
            Attach::Fentry("vms_complete_munmap_vmas"),
            Hook::Unmap,
        )],
        DOWNGRADE_KNOWN,
    ),
    (
        &[
            program(
                "fentry_do_munmap",
                Attach::Fentry("__do_munmap"),
                Hook::UnmapEnter,
            ),
            program("fexit_do_munmap", Attach::Fexit("__do_munmap"), Hook::Unmap),
        ],
        DOWNGRADE_AT_UNMAP,
    ),
    // Has seven parameters, one more than trampolines took then, and is the
    // only one that brk shares: kprobes, where they can be had.
    (UNMAP_ALIGN_MAS, DOWNGRADE_AT_UNMAP),
    (
        &[
            program(
                "fentry_do_mas_munmap",
                Attach::Fentry("do_mas_munmap"),
                Hook::UnmapEnter,
            ),
            program(
                "fexit_do_mas_munmap",
                Attach::Fexit("do_mas_munmap"),
                Hook::Unmap,
            ),
        ],
        DOWNGRADE_AT_UNMAP,
    ),
    (UNMAP_ALIGN_VMI, DOWNGRADE_AT_UNMAP),
    (
        &[
            program(
                "fentry_do_mas_munmap",
                Attach::Fentry("do_vmi_munmap"),
                Hook::UnmapEnter,
            ),
            program(
                "fexit_do_mas_munmap",
                Attach::Fexit("do_vmi_munmap"),
                Hook::Unmap,
            ),
        ],
        DOWNGRADE_AT_UNMAP,
    ),
];
pub(super) const UNMAP_KPROBE: &[(&[Program], u32)] = &[
    (
        &[program(
            "kprobe_vms_complete_munmap_vmas",
            Attach::Kprobe("vms_complete_munmap_vmas"),
            Hook::Unmap,
        )],
        DOWNGRADE_KNOWN,
    ),
    (
        &[
            program(
                "kprobe_do_munmap",
                Attach::Kprobe("__do_munmap"),
                Hook::UnmapEnter,
            ),
            program(
                "kretprobe_munmap",
                Attach::Kretprobe("__do_munmap"),
                Hook::Unmap,
            ),
        ],
        DOWNGRADE_AT_UNMAP,
    ),
    (UNMAP_ALIGN_MAS, DOWNGRADE_AT_UNMAP),
    (UNMAP_ALIGN_VMI, DOWNGRADE_AT_UNMAP),
];
pub(super) const UNMAP_ALIGN_MAS: &[Program] = &[
    program(
        "kprobe_do_align_munmap",
        Attach::Kprobe("do_mas_align_munmap"),
        Hook::UnmapEnter,
    ),
    program(
        "kretprobe_munmap",
        Attach::Kretprobe("do_mas_align_munmap"),
        Hook::Unmap,
    ),
];
pub(super) const UNMAP_ALIGN_VMI: &[Program] = &[
    program(
        "kprobe_do_align_munmap",
        Attach::Kprobe("do_vmi_align_munmap"),
        Hook::UnmapEnter,
    ),
    program(
        "kretprobe_munmap",
        Attach::Kretprobe("do_vmi_align_munmap"),
        Hook::Unmap,
    ),
];

pub(super) const FORK: Program = program(
    "raw_sched_process_fork",
    Attach::RawTracepoint("sched_process_fork"),
    Hook::Fork,
);
pub(super) const EXEC: Program = program(
    "raw_sched_process_exec",
    Attach::RawTracepoint("sched_process_exec"),
    Hook::Exec,
);
pub(super) const THREAD_EXIT: Program = program(
    "raw_sched_process_exit",
    Attach::RawTracepoint("sched_process_exit"),
    Hook::ThreadExit,
);
/// A cgroup is made, and tells its path.
pub(super) const CGROUP: Program = program(
    "raw_cgroup_mkdir",
    Attach::RawTracepoint("cgroup_mkdir"),
    Hook::Cgroup,
);
pub(super) const EXIT: &[Program] = &[
    program(
        "raw_exit_mmap",
        Attach::RawTracepoint("exit_mmap"),
        Hook::Exit,
    ),
    program("fentry_exit_mmap", Attach::Fentry("exit_mmap"), Hook::Exit),
    program("kprobe_exit_mmap", Attach::Kprobe("exit_mmap"), Hook::Exit),
];

/// The beginnings of page faults, which tell whether the page was there.
pub(super) const FAULT_BEGINS: &[Program] = &[
    program(
        "raw_page_fault_user",
        Attach::RawTracepoint("page_fault_user"),
        Hook::FaultUser,
    ),
    program(
        "raw_page_fault_kernel",
        Attach::RawTracepoint("page_fault_kernel"),
        Hook::FaultKernel,
    ),
];
/// The ends of page faults, which the kernel counts itself.
pub(super) const FAULTS: &[Program] = &[
    program(
        "perf_minor_fault",
        Attach::PerfEvent(SoftwareEvent::MinorFaults),
        Hook::MinorFault,
    ),
    program(
        "perf_major_fault",
        Attach::PerfEvent(SoftwareEvent::MajorFaults),
        Hook::MajorFault,
    ),
];

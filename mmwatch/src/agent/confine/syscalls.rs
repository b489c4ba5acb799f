//! System calls: a filter that the kernel applies to each, for good.
//!
//! What is not listed fails with `EPERM`: it is better that a library does without a call
//! that nobody thought of than that the agent dies of it.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword,
    SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Whatever the arguments are.
const FREE: &[i64] = &[
    // Files that are open, and what is known of names.
    libc::SYS_access,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup2,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_stat,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_write,
    libc::SYS_writev,
    // Sockets; neither of every sort, nor to listen on another.
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_futex,
    libc::SYS_pipe2,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    // Memory, as far as nothing in it can be run.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Threads, signals to oneself, and oneself.
    libc::SYS_arch_prctl,
    // Refused in another filter, with the error that has libraries take clone.
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fork,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// Commands of bpf(2) on what is there already (`include/uapi/linux/bpf.h`): a list of
/// processes is a link and a file of it, of a program that was loaded before.
const BPF_COMMANDS: &[u64] = &[
    1,  // MAP_LOOKUP_ELEM
    2,  // MAP_UPDATE_ELEM
    3,  // MAP_DELETE_ELEM
    4,  // MAP_GET_NEXT_KEY
    15, // OBJ_GET_INFO_BY_FD
    28, // LINK_CREATE
    33, // ITER_CREATE
];

/// Any of these makes a namespace.
const CLONE_NEW: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// Any of these changes something.
const OPEN_TO_WRITE: i32 =
    libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND;

const DOMAINS: &[i32] = &[
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    // How the C library asks for the machine's addresses.
    libc::AF_NETLINK,
];

const PRCTLS: &[i32] = &[libc::PR_SET_NAME, libc::PR_SET_PDEATHSIG];

/// `ioctl` to set a socket's mode, to ask whether something is a terminal, and to end the
/// events that programs run at (`PERF_EVENT_IOC_DISABLE`).
const IOCTLS: &[u64] = &[libc::FIONBIO, libc::TCGETS, 0x2401];

/// Gives up all other calls, and with that new privileges by running programs.
pub(super) fn give_up(own_socket: bool) -> Result<(), Error> {
    // The other is to hold for clone3 once this is there.
    seccompiler::apply_filter_all_threads(&compiled(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
    )?)?;
    seccompiler::apply_filter_all_threads(&compiled(
        rules(own_socket)?,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
    )?)
}

fn compiled(
    rules: Rules,
    others: SeccompAction,
    these: SeccompAction,
) -> Result<BpfProgram, Error> {
    let filter = SeccompFilter::new(rules, others, these, TargetArch::x86_64)?;
    Ok(BpfProgram::try_from(filter)?)
}

fn rules(own_socket: bool) -> Result<Rules, Error> {
    let mut rules: Rules = FREE.iter().map(|&call| (call, Vec::new())).collect();
    if own_socket {
        rules.insert(libc::SYS_unlink, Vec::new());
        rules.insert(libc::SYS_unlinkat, Vec::new());
    }
    let none_of = |argument, bits: i32| -> Result<Vec<SeccompRule>, Error> {
        let bits = u64::from(bits.cast_unsigned());
        rule([condition(argument, SeccompCmpOp::MaskedEq(bits), 0)?])
    };
    let one_of = |argument, values: &[u64]| -> Result<Vec<SeccompRule>, Error> {
        let rules = values
            .iter()
            .map(|&value| rule([condition(argument, SeccompCmpOp::Eq, value)?]));
        Ok(rules.collect::<Result<Vec<_>, _>>()?.concat())
    };
    let numbers = |values: &[i32]| -> Vec<u64> {
        let values = values.iter();
        values
            .map(|&value| u64::from(value.cast_unsigned()))
            .collect()
    };
    rules.insert(libc::SYS_bpf, one_of(0, BPF_COMMANDS)?);
    rules.insert(libc::SYS_clone, none_of(0, CLONE_NEW)?);
    rules.insert(libc::SYS_ioctl, one_of(1, IOCTLS)?);
    rules.insert(libc::SYS_open, none_of(1, OPEN_TO_WRITE)?);
    rules.insert(libc::SYS_openat, none_of(2, OPEN_TO_WRITE)?);
    rules.insert(libc::SYS_prctl, one_of(0, &numbers(PRCTLS))?);
    rules.insert(libc::SYS_socket, one_of(0, &numbers(DOMAINS))?);
    // Shared libraries are mapped to be run; what was written is not.
    rules.insert(
        libc::SYS_mmap,
        [none_of(2, libc::PROT_EXEC)?, none_of(2, libc::PROT_WRITE)?].concat(),
    );
    rules.insert(libc::SYS_mprotect, none_of(2, libc::PROT_EXEC)?);
    // To ask for limits, not to set them.
    let asks = SeccompCondition::new(2, Qword, SeccompCmpOp::Eq, 0)?;
    rules.insert(libc::SYS_prlimit64, rule([asks])?);
    Ok(rules)
}

fn rule<const N: usize>(conditions: [SeccompCondition; N]) -> Result<Vec<SeccompRule>, Error> {
    Ok(vec![SeccompRule::new(conditions.into())?])
}

fn condition(argument: u8, is: SeccompCmpOp, value: u64) -> Result<SeccompCondition, Error> {
    Ok(SeccompCondition::new(argument, Dword, is, value)?)
}

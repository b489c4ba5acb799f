//! What the kernel is to let through, checked against itself and the system.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt as _};

use mmwatch_common::event::COMM_LEN;

use super::{NamespaceOf, System, usage};
use crate::{
    cli::FilterArgs,
    error::{Error, Result},
    event::{Backing, Op, Suspect},
    filter::{Within, all_ops},
    identity::{CgroupRoot, Container, Hierarchy},
    kernel::load::KernelFilter,
    process::{PidKind, Proc, user_id},
    text::Escaped,
};

/// By what was typed. With a command, its process is still to be added, and
/// children join it: `follow`.
pub(super) fn of_kernel(args: &FilterArgs, follow: bool, system: &System) -> Result<KernelFilter> {
    let filter = of_events(args, system)?;
    for &pid in &args.pid {
        check_pid(pid, &system.proc)?;
    }
    Ok(KernelFilter {
        // Children join the command that they belong to, not a process that
        // was picked by its id.
        follow,
        cgroup: match (&args.cgroup, &args.container) {
            (Some(path), _) => Some(cgroup(path, system)?),
            (None, Some(id)) => Some(container(id, system)?),
            (None, None) => None,
        },
        ..filter
    })
}

/// Which cgroups of a recording are let through, which may be gone.
pub(super) fn within(args: &FilterArgs) -> Option<Within> {
    match (&args.cgroup, &args.container) {
        (Some(path), _) => Some(Within::Path(path.clone())),
        (None, Some(id)) => Some(Within::Container(id.clone())),
        (None, None) => None,
    }
}

/// No filter at all.
pub(super) fn everything() -> KernelFilter {
    KernelFilter {
        ops: all_ops(),
        ..KernelFilter::NONE
    }
}

/// What events tell by themselves.
pub(super) fn of_events(args: &FilterArgs, system: &System) -> Result<KernelFilter> {
    let ops = if args.op.is_empty() {
        Op::ALL
    } else {
        &args.op
    };
    if args.failed && !ops.iter().any(|&op| can_fail(op)) {
        return Err(usage(format!(
            "--failed with --op {} shows nothing, because no call of that sort fails; \
                 add one of {} to --op or leave --failed out",
            names(ops),
            names_where(can_fail)
        )));
    }
    let min_size_bytes = args.min_size.unwrap_or(0);
    if min_size_bytes > 0 && !ops.iter().any(|&op| has_size(op)) {
        return Err(usage(format!(
            "--min-size with --op {} shows nothing, because these have no size; \
                 add one of {} to --op or leave --min-size out",
            names(ops),
            names_where(has_size)
        )));
    }
    Ok(KernelFilter {
        pids: args.pid.clone(),
        comm: args.comm.as_deref().map(comm).transpose()?,
        uid: args
            .uid
            .as_deref()
            .map(|user| uid(user, system))
            .transpose()?,
        ops: ops.iter().fold(0, |bits, &op| bits | 1 << op as u32),
        min_size_bytes,
        failed_only: args.failed,
        backings: backings(&args.backing, ops)?,
        suspects: suspects(&args.suspect, ops, args.failed)?,
        ..KernelFilter::NONE
    })
}

/// Filters on operations leave out a part of what was mapped, and no faults.
pub(super) fn refuse_with_faults(args: &FilterArgs) -> Result<()> {
    for (option, given) in [
        ("--op", !args.op.is_empty()),
        ("--min-size", args.min_size.is_some()),
        ("--backing", !args.backing.is_empty()),
        ("--suspect", !args.suspect.is_empty()),
        ("--failed", args.failed),
    ] {
        if given {
            return Err(usage(format!(
                "--faults holds what was touched against all that was mapped, and {option} leaves \
                 a part of that out; leave one of the two out"
            )));
        }
    }
    Ok(())
}

/// Whether failures of an operation are seen: those of calls whose return is hooked.
const fn can_fail(op: Op) -> bool {
    match op {
        Op::Map | Op::Unmap | Op::Protect | Op::Remap | Op::Brk => true,
        Op::Grow | Op::Advise | Op::Fork | Op::Exec | Op::Exit => false,
    }
}

/// Whether an operation is on a number of bytes.
const fn has_size(op: Op) -> bool {
    match op {
        Op::Map
        | Op::Unmap
        | Op::Protect
        | Op::Remap
        | Op::Brk
        | Op::Grow
        | Op::Advise
        | Op::Exit => true,
        Op::Fork | Op::Exec => false,
    }
}

/// Which backings events of an operation can have.
const fn backings_of(op: Op) -> &'static [Backing] {
    match op {
        Op::Map => Backing::ALL,
        Op::Brk | Op::Grow => &[Backing::PrivateAnonymous],
        Op::Unmap | Op::Protect | Op::Remap | Op::Advise | Op::Fork | Op::Exec | Op::Exit => &[],
    }
}

/// The bits of `--backing`.
fn backings(wanted: &[Backing], ops: &[Op]) -> Result<u32> {
    let can_have = |op: Op| {
        backings_of(op)
            .iter()
            .any(|backing| wanted.contains(backing))
    };
    if !wanted.is_empty() && !ops.iter().any(|&op| can_have(op)) {
        let backings: Vec<_> = wanted.iter().map(|backing| backing.name()).collect();
        return Err(usage(format!(
            "--backing {} with --op {} shows nothing, because these are not about mappings of \
             that backing; add one of {} to --op or leave --backing out",
            backings.join(","),
            names(ops),
            names_where(can_have)
        )));
    }
    Ok(wanted
        .iter()
        .fold(0, |bits, &backing| bits | 1 << backing as u32))
}

/// Whether an operation can make a dangerous mapping.
const fn can_be_suspect(op: Op) -> bool {
    match op {
        Op::Map | Op::Protect => true,
        Op::Unmap
        | Op::Remap
        | Op::Brk
        | Op::Grow
        | Op::Advise
        | Op::Fork
        | Op::Exec
        | Op::Exit => false,
    }
}

/// The bits of `--suspect`.
fn suspects(wanted: &[Suspect], ops: &[Op], failed: bool) -> Result<u32> {
    if !wanted.is_empty() && !ops.iter().any(|&op| can_be_suspect(op)) {
        return Err(usage(format!(
            "--suspect with --op {} shows nothing, because these make no mapping executable; \
             add one of {} to --op or leave --suspect out",
            names(ops),
            names_where(can_be_suspect)
        )));
    }
    if !wanted.is_empty() && failed {
        return Err(usage(
            "--suspect with --failed shows nothing, because what failed made nothing; leave one \
             of them out",
        ));
    }
    Ok(wanted
        .iter()
        .fold(0, |bits, &suspect| bits | 1 << suspect as u32))
}

fn names(ops: &[Op]) -> String {
    let names: Vec<_> = ops.iter().map(|op| op.name()).collect();
    names.join(",")
}

fn names_where(wanted: impl Fn(Op) -> bool) -> String {
    let ops: Vec<_> = Op::ALL.iter().copied().filter(|&op| wanted(op)).collect();
    names(&ops)
}

/// Whose pid namespace is meant by `--pidns`.
pub(super) fn pid_namespace(of: &str, proc: &Proc) -> Result<NamespaceOf> {
    if of == "self" {
        return Ok(NamespaceOf::Own);
    }
    let pid = of.parse().map_err(|_| {
        usage(format!(
            "--pidns {} is neither self nor a process; give the id of a process in that namespace",
            Escaped(of.as_bytes())
        ))
    })?;
    check_pid(pid, proc)?;
    Ok(NamespaceOf::Process(pid))
}

pub(super) fn check_pid(pid: u32, proc: &Proc) -> Result<()> {
    let kind = match proc.pid_kind(pid) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
            return Err(Error::Kernel(format!(
                "process {pid} may not be looked at ({source}), as /proc is mounted with hidepid; \
                 run mmwatch as root or with CAP_SYS_PTRACE"
            )));
        }
        kind => kind?,
    };
    match kind {
        PidKind::Process => Ok(()),
        PidKind::ThreadOf(tgid) => Err(usage(format!(
            "{pid} is a thread of process {tgid}; use --pid {tgid}, perhaps with --comm for the \
             thread's name"
        ))),
        PidKind::Missing => Err(usage(format!(
            "there is no process {pid}; `ps -e` lists those that there are"
        ))),
    }
}

fn comm(name: &OsStr) -> Result<[u8; COMM_LEN]> {
    let bytes = name.as_bytes();
    let mut comm = [0; COMM_LEN];
    // The last byte stays NUL.
    match comm[..COMM_LEN - 1].get_mut(..bytes.len()) {
        Some(_) if bytes.is_empty() => Err(usage(
            "--comm is empty, and no thread is without a name; give the name to look for",
        )),
        Some(room) => {
            room.copy_from_slice(bytes);
            Ok(comm)
        }
        None => Err(usage(format!(
            "--comm {} is longer than the 15 bytes that the kernel keeps of a name; use --comm {}",
            Escaped(bytes),
            Escaped(&bytes[..COMM_LEN - 1]),
        ))),
    }
}

/// The hierarchy in which cgroups are named.
fn hierarchy(system: &System) -> Result<Hierarchy> {
    (system.hierarchy)(system.proc.sysfs()).ok_or_else(|| {
        Error::Kernel(
            "no hierarchy of cgroups is mounted here; mount one, such as with `mount -t cgroup2 \
             cgroup2 /sys/fs/cgroup`, or leave --cgroup and --container out"
                .to_owned(),
        )
    })
}

fn cgroup(path: &str, system: &System) -> Result<CgroupRoot> {
    let hierarchy = hierarchy(system)?;
    hierarchy.cgroup(path).ok_or_else(|| {
        usage(format!(
            "there is no cgroup {} in {mount}; `find {mount} -type d` lists those that there are",
            Escaped(path.as_bytes()),
            mount = hierarchy.mount.display()
        ))
    })
}

fn container(wanted: &str, system: &System) -> Result<CgroupRoot> {
    let mut containers = hierarchy(system)?.containers();
    for (container, _) in &mut containers {
        system.runtimes.name(container);
    }
    chosen(wanted, &containers)
}

/// As container runtimes have it: an id goes before a name, and a name before how an
/// id begins.
pub(super) fn chosen(wanted: &str, containers: &[(Container, CgroupRoot)]) -> Result<CgroupRoot> {
    let ways: [fn(&Container, &str) -> bool; 3] = [
        |container, wanted| container.id == wanted,
        |container, wanted| container.names.name.as_deref() == Some(wanted),
        |container, wanted| !wanted.is_empty() && container.id.starts_with(wanted),
    ];
    let found = ways.iter().find_map(|is_it| {
        let fits = |(of, _): &&(Container, CgroupRoot)| is_it(of, wanted);
        let found: Vec<_> = containers.iter().filter(fits).collect();
        (!found.is_empty()).then_some(found)
    });
    let shown = Escaped(wanted.as_bytes());
    match found.as_deref() {
        Some([(_, cgroup)]) => Ok(*cgroup),
        None => Err(usage(format!(
            "no container here is called {shown} or has an id that begins so; `mmwatch top --by \
             container` shows those that do something"
        ))),
        Some(several) => {
            let several: Vec<_> = several.iter().map(|(of, _)| told_apart(of)).collect();
            Err(usage(format!(
                "{shown} is the name, or the beginning of the id, of several containers: {}; give \
                 the id of the one, or more of it",
                several.join(", ")
            )))
        }
    }
}

/// A container's id, and its pod where that has a name.
fn told_apart(container: &Container) -> String {
    let Container { id, names, .. } = container;
    match &names.pod {
        Some(pod) => format!("{id} (of pod {})", Escaped(pod.as_bytes())),
        None => id.clone(),
    }
}

fn uid(user: &str, system: &System) -> Result<u32> {
    user_id(user, &system.passwd)?.ok_or_else(|| {
        usage(format!(
            "there is no user {} in {}; correct the name or give the user's number",
            Escaped(user.as_bytes()),
            system.passwd.display()
        ))
    })
}

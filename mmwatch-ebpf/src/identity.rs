//! Whose a process is.

use mmwatch_common::identity::Identity;

use crate::{
    globals::{config, has, offset},
    memory::{member_or_zero, read_or_zero},
};

/// Place of a process's own id among the ids of its signals (`enum pid_type`).
const PIDTYPE_TGID: usize = 1;
/// Size of `struct upid`, and the largest depth of pid namespaces (`MAX_PID_NS_LEVEL`).
const UPID_BYTES: u64 = 16;
const MAX_LEVEL: u32 = 31;

/// Of any task's process. What cannot be read is 0.
#[inline(always)]
pub fn of(task: u64) -> Identity {
    let pid = pid(task);
    let number = number(pid, level(pid));
    Identity {
        cgroup_id: cgroup_id(cgroup(task)),
        pid_namespace: namespace_inode(namespace(number)),
        namespace_tgid: read_or_zero(number, 0),
    }
}

/// Address of the `struct pid` of a task's process.
#[inline(always)]
pub fn pid(task: u64) -> u64 {
    let signal = member_or_zero!(task, task_signal: u64);
    read_or_zero(
        signal,
        offset!(signal_pids) + PIDTYPE_TGID * size_of::<u64>(),
    )
}

/// How many namespaces deep an id is.
#[inline(always)]
pub fn level(pid: u64) -> u32 {
    member_or_zero!(pid, pid_level: u32) & MAX_LEVEL
}

/// Address of an id's `struct upid` at a level; its number comes first.
#[inline(always)]
pub fn number(pid: u64, level: u32) -> u64 {
    pid + offset!(pid_numbers) as u64 + u64::from(level) * UPID_BYTES
}

/// Address of the namespace of such a number.
#[inline(always)]
pub fn namespace(number: u64) -> u64 {
    member_or_zero!(number, upid_namespace: u64)
}

/// What `/proc/PID/ns/pid` calls a namespace.
#[inline(always)]
pub fn namespace_inode(namespace: u64) -> u32 {
    member_or_zero!(namespace, pid_namespace_inode: u32)
}

/// Whether any task is in the pid namespace that was asked for, or below it.
#[inline(always)]
pub fn is_in_namespace(task: u64) -> bool {
    let pid = pid(task);
    let wanted = config!(pid_level);
    if level(pid) < wanted {
        return false;
    }
    namespace_inode(namespace(number(pid, wanted))) == config!(pid_namespace)
}

/// The cgroup of a task in the hierarchy that counts.
#[inline(always)]
pub fn cgroup(task: u64) -> u64 {
    let set = member_or_zero!(task, task_cgroups: u64);
    match config!(cgroup_subsystem) {
        0 => member_or_zero!(set, css_set_default: u64),
        number => {
            let place = (number as usize - 1) * size_of::<u64>();
            let state: u64 = read_or_zero(set, offset!(css_set_subsystems) + place);
            member_or_zero!(state, css_cgroup: u64)
        }
    }
}

/// The id of a cgroup, unique among those of its hierarchy.
#[inline(always)]
pub fn cgroup_id(cgroup: u64) -> u64 {
    let node = member_or_zero!(cgroup, cgroup_node: u64);
    member_or_zero!(node, node_id: u64)
}

/// Whether a cgroup is of the hierarchy that counts.
#[inline(always)]
pub fn is_of_hierarchy(cgroup: u64) -> bool {
    let root = member_or_zero!(cgroup, cgroup_root: u64);
    member_or_zero!(root, cgroup_root_number: u32) == config!(cgroup_hierarchy)
}

/// Whether any task is in the cgroup that was asked for, or below it.
#[inline(always)]
pub fn is_in_cgroup(task: u64) -> bool {
    is_below(cgroup(task))
}

/// Whether a cgroup is the one that was asked for, or below it.
#[inline(always)]
pub fn is_below(cgroup: u64) -> bool {
    let wanted = config!(cgroup_level);
    if member_or_zero!(cgroup, cgroup_level: u32) < wanted {
        return false;
    }
    let place = wanted as usize * size_of::<u64>();
    let id = if has!(cgroup_ancestors) {
        cgroup_id(read_or_zero(cgroup, offset!(cgroup_ancestors) + place))
    } else {
        read_or_zero(cgroup, offset!(cgroup_ancestor_ids) + place)
    };
    id == config!(cgroup_id)
}

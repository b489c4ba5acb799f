//! Whose a process is: its cgroup, and its place in a pid namespace.

use core::mem::size_of;

/// Room for the path of a cgroup and its NUL.
pub const CGROUP_PATH_LEN: usize = 512;

/// What the kernel knew of a process when it was looked at. 0 is not known.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Id of its cgroup (`kernfs_node.id`, the inode number of its directory) in
    /// the hierarchy of [`Config::cgroup_subsystem`](crate::config::Config::cgroup_subsystem).
    pub cgroup_id: u64,
    /// Its pid namespace: the inode number of `/proc/PID/ns/pid`.
    pub pid_namespace: u32,
    /// Its process id in that namespace.
    pub namespace_tgid: u32,
}

/// The path of a cgroup in its hierarchy, NUL terminated, as the kernel had it
/// when the cgroup was made.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupPath {
    /// The bytes; `/` first.
    pub path: [u8; CGROUP_PATH_LEN],
}

const _: () = assert!(size_of::<Identity>() == 16);

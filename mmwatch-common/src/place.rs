//! Where a process is, seen from the agent: its id in the agent's pid
//! namespace, and the cgroups that it is in.

use core::mem::size_of;

/// Cgroups told of a process at most, the innermost first.
pub const DEPTH: usize = 16;
/// Room for the name of a cgroup and its NUL.
pub const NAME_LEN: usize = 96;

/// Name of the program that tells places.
pub const PROGRAM: &str = "iter_places";
/// Name of the `u64` global with the id of a cgroup that the agent is in, whose children
/// are told too; 0 for none.
pub const WITHIN: &str = "WITHIN";

/// Children that are told at most.
pub const CHILDREN: usize = 64;

/// Where one process is; or, without a process id, a cgroup and those above it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Start of the process, ns of the boot clock.
    pub start_boot_ns: u64,
    /// Process id in the root namespace.
    pub tgid: u32,
    /// Process id in the agent's namespace; 0 where it has none.
    pub own_tgid: u32,
    /// 1 for the agent itself.
    pub is_self: u32,
    /// How deep the agent's pid namespace is below the root namespace.
    pub pid_level: u32,
    /// Inode number of the agent's pid namespace.
    pub pid_namespace: u32,
    /// How deep the process's cgroup is below the root of its hierarchy.
    pub cgroup_level: u32,
    /// Ids of its cgroup, of that one's parent, and so on; 0 beyond the root.
    pub cgroup_ids: [u64; DEPTH],
    /// Their names, NUL terminated; that of a root is empty.
    pub cgroup_names: [[u8; NAME_LEN]; DEPTH],
}

const _: () = assert!(size_of::<Place>() == 8 + 6 * 4 + DEPTH * (8 + NAME_LEN));

//! Constants handed to the kernel programs before they load.
//!
//! They lie in frozen read-only data, so the verifier knows their values and
//! drops the branches that they rule out.

use core::mem::size_of;

use crate::event::COMM_LEN;

/// An offset that the running kernel's BTF did not have.
pub const NO_OFFSET: u32 = u32::MAX;

macro_rules! offsets {
    ($($(#[$meta:meta])* $field:ident: $path:literal,)+) => {
        /// Offsets of kernel struct members in bytes, from the running kernel's BTF.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Offsets { $($(#[$meta])* pub $field: u32,)+ }

        impl Offsets {
            /// Where each field comes from, as `struct.member.member`, in field order.
            pub const PATHS: &'static [&'static str] = &[$($path,)+];

            /// Nothing found.
            pub const NONE: Self = Self { $($field: NO_OFFSET,)+ };

            /// Fills the fields from a look-up of their paths.
            pub fn resolve(mut find: impl FnMut(&'static str) -> Option<u32>) -> Self {
                Self { $($field: find($path).unwrap_or(NO_OFFSET),)+ }
            }
        }
    };
}

offsets! {
    /// VMAs of an address space.
    mm_map_count: "mm_struct.map_count",
    /// Pages of all mappings.
    mm_total_vm: "mm_struct.total_vm",
    /// Users of an address space; 0 once it is torn down.
    mm_users: "mm_struct.mm_users",
    /// The lock of the address space.
    mm_mmap_lock: "mm_struct.mmap_lock",
    /// The program.
    mm_exe_file: "mm_struct.exe_file",
    /// Holders and waiters of an rwsem, of whichever kind; 0 where there are none.
    rwsem_count: "rw_semaphore.count",
    /// The task that holds an rwsem, with flags in the low bits.
    rwsem_owner: "rw_semaphore.owner",
    /// A task's address space.
    task_mm: "task_struct.mm",
    /// A task's process.
    task_tgid: "task_struct.tgid",
    /// A task's thread id.
    task_pid: "task_struct.pid",
    /// First thread of a task's process.
    task_group_leader: "task_struct.group_leader",
    /// Start of a task, ns of the boot clock.
    task_start_boottime: "task_struct.start_boottime",
    /// Credentials of a task.
    task_cred: "task_struct.cred",
    /// Real user id of credentials.
    cred_uid: "cred.uid.val",
    /// What the threads of a process share, its limits among it.
    task_signal: "task_struct.signal",
    /// Limits of a process, by `RLIMIT_*`.
    signal_rlim: "signal_struct.rlim",
    /// Name of a task.
    task_comm: "task_struct.comm",
    /// Flags of a task, `PF_EXITING` among them.
    task_flags: "task_struct.flags",
    /// Lower end of a task's kernel stack.
    task_stack: "task_struct.stack",
    /// Flags of a task, `TS_COMPAT` among them (x86-64).
    task_thread_status: "task_struct.thread_info.status",
    /// Open files of a task.
    task_files: "task_struct.files",
    /// Table of open files.
    files_fdt: "files_struct.fdt",
    /// Array of open files.
    fdtable_fd: "fdtable.fd",
    /// Length of that array.
    fdtable_max_fds: "fdtable.max_fds",
    /// Inode of an open file.
    file_inode: "file.f_inode",
    /// Path of an open file.
    file_path: "file.f_path",
    /// Mount of a path.
    path_mnt: "path.mnt",
    /// Directory entry of a path.
    path_dentry: "path.dentry",
    /// Inode number.
    inode_ino: "inode.i_ino",
    /// File system of an inode.
    inode_sb: "inode.i_sb",
    /// Names of an inode.
    inode_nlink: "inode.i_nlink",
    /// Life of an inode number.
    inode_generation: "inode.i_generation",
    /// Device of a file system.
    sb_dev: "super_block.s_dev",
    /// Parent directory.
    dentry_parent: "dentry.d_parent",
    /// Name in the parent directory.
    dentry_name: "dentry.d_name.name",
    /// The part of a mount that paths point to.
    mount_mnt: "mount.mnt",
    /// The mount that a mount sits in.
    mount_parent: "mount.mnt_parent",
    /// Where it sits.
    mount_mountpoint: "mount.mnt_mountpoint",
    /// Where the names of a mount begin.
    vfsmount_root: "vfsmount.mnt_root",
    /// Where an address space's first stack began.
    mm_start_stack: "mm_struct.start_stack",
    /// Where its heap begins.
    mm_start_brk: "mm_struct.start_brk",
    /// Where its heap ends.
    mm_brk: "mm_struct.brk",
    /// Start of a mapping.
    vma_start: "vm_area_struct.vm_start",
    /// End of a mapping.
    vma_end: "vm_area_struct.vm_end",
    /// Flags of a mapping, its protection among them.
    vma_flags: "vm_area_struct.vm_flags",
    /// Operations of a mapping; none for private anonymous memory.
    vma_ops: "vm_area_struct.vm_ops",
    /// File of a mapping.
    vma_file: "vm_area_struct.vm_file",
    /// File of a mapping that is only described yet (6.17 and later).
    desc_file: "vm_area_desc.vm_file",
    /// Range of an unmap (6.12 and later).
    vms_start: "vma_munmap_struct.start",
    /// Cgroups of a task.
    task_cgroups: "task_struct.cgroups",
    /// The cgroup in the v2 hierarchy.
    css_set_default: "css_set.dfl_cgrp",
    /// The states of a set's subsystems, an array of pointers.
    css_set_subsystems: "css_set.subsys",
    /// The cgroup that a subsystem's state is of.
    css_cgroup: "cgroup_subsys_state.cgroup",
    /// The part of a cgroup by which it has a parent.
    cgroup_state: "cgroup.self",
    /// The parent of such a part.
    css_parent: "cgroup_subsys_state.parent",
    /// The list of such a part's children.
    css_children: "cgroup_subsys_state.children",
    /// Its place in its parent's list.
    css_sibling: "cgroup_subsys_state.sibling",
    /// The directory of a cgroup.
    cgroup_node: "cgroup.kn",
    /// The hierarchy of a cgroup.
    cgroup_root: "cgroup.root",
    /// How deep a cgroup is below its root.
    cgroup_level: "cgroup.level",
    /// The cgroups that a cgroup is below, and itself, the root first (6.1 and later).
    cgroup_ancestors: "cgroup.ancestors",
    /// Their ids (before 6.1).
    cgroup_ancestor_ids: "cgroup.ancestor_ids",
    /// Number of a hierarchy, as in `/proc/PID/cgroup`.
    cgroup_root_number: "cgroup_root.hierarchy_id",
    /// Name of a directory.
    node_name: "kernfs_node.name",
    /// Id of a directory.
    node_id: "kernfs_node.id",
    /// Ids of a process, by `enum pid_type`.
    signal_pids: "signal_struct.pids",
    /// How many namespaces deep an id is.
    pid_level: "pid.level",
    /// Its numbers, the root's first.
    pid_numbers: "pid.numbers",
    /// The namespace of a number.
    upid_namespace: "upid.ns",
    /// Inode number of a pid namespace.
    pid_namespace_inode: "pid_namespace.ns.inum",
    /// End of that range.
    vms_end: "vma_munmap_struct.end",
    /// VMAs in that range.
    vms_vma_count: "vma_munmap_struct.vma_count",
    /// Pages in that range.
    vms_nr_pages: "vma_munmap_struct.nr_pages",
}

/// [`Config::filters`]: only the processes in the map `TGIDS`.
pub const FILTER_TGIDS: u32 = 1 << 0;
/// [`Config::filters`]: children of a process in `TGIDS` join it.
pub const FILTER_FOLLOW: u32 = 1 << 1;
/// [`Config::filters`]: only [`Config::uid`].
pub const FILTER_UID: u32 = 1 << 2;
/// [`Config::filters`]: only [`Config::comm`].
pub const FILTER_COMM: u32 = 1 << 3;
/// [`Config::filters`]: only operations of at least [`Config::min_size_bytes`].
pub const FILTER_MIN_SIZE: u32 = 1 << 4;
/// [`Config::filters`]: only calls that failed.
pub const FILTER_FAILED: u32 = 1 << 5;
/// [`Config::filters`]: only operations on mappings of [`Config::backings`].
pub const FILTER_BACKING: u32 = 1 << 6;
/// [`Config::filters`]: only dangerous mappings, of [`Config::suspects`].
pub const FILTER_SUSPECT: u32 = 1 << 7;

/// [`Config::filters`]: only processes in the cgroup [`Config::cgroup_id`], or below it.
pub const FILTER_CGROUP: u32 = 1 << 8;
/// [`Config::filters`]: only processes of [`Config::pid_namespace`], or below it.
pub const FILTER_PID_NAMESPACE: u32 = 1 << 9;

/// [`Config::downgrade`]: the pages of a section that is downgraded to a read lock
/// are known then, from the unmap core (6.12 and later).
pub const DOWNGRADE_KNOWN: u32 = 0;
/// [`Config::downgrade`]: the unmap core returns with the read lock still held and tells the pages then.
pub const DOWNGRADE_AT_UNMAP: u32 = 1;
/// [`Config::downgrade`]: the release of the read lock tells the pages.
pub const DOWNGRADE_AT_READ_RELEASE: u32 = 2;

/// Records are summed only.
pub const STREAM_NEVER: u32 = 0;
/// Records are sent, too.
pub const STREAM_ALWAYS: u32 = 1;
/// They are while [`names::STREAMING`](crate::names::STREAMING) says so.
pub const STREAM_SWITCHED: u32 = 2;

/// What the agent decided.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The agent's own process in the root namespace, never reported.
    pub self_tgid: u32,
    /// `FILTER_*` bits.
    pub filters: u32,
    /// Bit n lets [`Op`](crate::event::Op) n through.
    pub ops: u32,
    /// With [`FILTER_UID`].
    pub uid: u32,
    /// With [`FILTER_COMM`], NUL padded.
    pub comm: [u8; COMM_LEN],
    /// With [`FILTER_MIN_SIZE`].
    pub min_size_bytes: u64,
    /// The reader is woken at once each time that so many more bytes lie unread in
    /// the ring buffer. A power of two.
    pub wake_bytes: u64,
    /// Distance from `task_struct.stack` to the registers that user space entered with.
    pub user_regs_offset: u32,
    /// Bit n: the return of the call with [`Call`] number n is hooked.
    pub calls: u32,
    /// 1 when no hook sees sections and calls settle at their return.
    pub settle_at_call: u32,
    /// A `DOWNGRADE_*` value.
    pub downgrade: u32,
    /// A `STREAM_*` value.
    pub stream: u32,
    /// Of 2^32 records, so many are lost on purpose.
    pub simulate_loss: u32,
    /// 1 when splits of VMAs are hooked, so that what the unmap core removed follows from counts.
    pub counts_splits: u32,
    /// 1 where the running task comes with its type, so that its members are
    /// read by plain loads.
    pub typed_task: u32,
    /// 1 where the registers that it entered with do too.
    pub typed_regs: u32,
    /// With [`FILTER_TGIDS`] and without [`FILTER_FOLLOW`]: the only process in
    /// `TGIDS`, so that all others are told without a look; 0 where there are more.
    pub only_tgid: u32,
    /// With [`FILTER_BACKING`]: bit n lets [`Backing`](crate::event::Backing) n through.
    pub backings: u32,
    /// Which cgroup of a task is meant: that of the subsystem with this number
    /// (`enum cgroup_subsys_id`), plus 1; 0 for that of the v2 hierarchy.
    pub cgroup_subsystem: u32,
    /// Number of its hierarchy.
    pub cgroup_hierarchy: u32,
    /// With [`FILTER_CGROUP`]: how deep it is below its root.
    pub cgroup_level: u32,
    /// The process that is held before its exec, none of whose doings before it
    /// are the command's; 0 for none.
    pub held_tgid: u32,
    /// 1 when the beginnings of page faults are hooked, which tell whether the
    /// page was there.
    pub fault_begins: u32,
    /// 1 when page faults are counted page by page.
    pub fault_pages: u32,
    /// With [`FILTER_SUSPECT`]: bit n lets [`Suspect`](crate::suspect::Suspect) n through.
    pub suspects: u32,
    /// With [`FILTER_CGROUP`]: its id.
    pub cgroup_id: u64,
    /// With [`FILTER_PID_NAMESPACE`]: its inode number.
    pub pid_namespace: u32,
    /// With [`FILTER_PID_NAMESPACE`]: how deep it is below the root namespace.
    pub pid_level: u32,
}

/// System calls whose return the agent can hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Call {
    /// mmap(2).
    Mmap = 0,
    /// munmap(2).
    Munmap = 1,
    /// mprotect(2) and pkey_mprotect(2).
    Mprotect = 2,
    /// mremap(2).
    Mremap = 3,
    /// brk(2).
    Brk = 4,
    /// shmat(2).
    Shmat = 5,
    /// shmdt(2).
    Shmdt = 6,
}

const _: () = assert!(size_of::<Offsets>() == Offsets::PATHS.len() * 4);
const _: () = assert!(size_of::<Config>() == 4 * 4 + COMM_LEN + 3 * 8 + 20 * 4);

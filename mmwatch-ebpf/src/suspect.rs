//! What is behind a mapping, as far as it makes an executable one dangerous. The
//! rules that use it are those of `mmwatch_common::suspect`.

use mmwatch_common::suspect::{Suspect, Suspects};

use crate::{
    globals::{has, offset},
    memory::{member, member_or_zero, read_or_zero},
};

/// Anonymous memory.
pub const ANONYMOUS: Suspects = Suspects::only(Suspect::AnonExec);

/// Names that the kernel gives to files of its own, their first eight bytes.
const MEMFD: u64 = u64::from_ne_bytes(*b"memfd:\0\0");
const MEMFD_MASK: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
const SHARED_ANON: u64 = u64::from_ne_bytes(*b"dev/zero");
const HUGE_ANON: u64 = u64::from_ne_bytes(*b"anon_hug");

/// `VM_GROWSDOWN`, which is also `MAP_GROWSDOWN`.
const GROWS_DOWN: u64 = 0x100;

/// What to say of an executable mapping of a file. Only files without a name in
/// any directory are worth a word: those of memfd_create(2), the kernel's own for
/// shared and for huge anonymous memory (`shmem_zero_setup`, `hugetlb_file_setup`),
/// and those that were removed, or, as System V memory, never had one.
#[inline(always)]
pub fn of_file(file: u64) -> Suspects {
    let inode = member_or_zero!(file, file_inode: u64);
    if !has!(inode_nlink) || member!(inode, inode_nlink: u32) != Some(0) {
        return Suspects::NONE;
    }
    let at = file + offset!(file_path) as u64;
    let dentry = member_or_zero!(at, path_dentry: u64);
    let parent = member_or_zero!(dentry, dentry_parent: u64);
    let name = member_or_zero!(dentry, dentry_name: u64);
    let name: u64 = read_or_zero(name, 0);
    // A file that once had a name may have had any; the kernel's own are their own parent.
    let own = parent == dentry;
    if own && name & MEMFD_MASK == MEMFD {
        Suspects::only(Suspect::MemfdExec)
    } else if own && (name == SHARED_ANON || name == HUGE_ANON) {
        Suspects::only(Suspect::AnonExec)
    } else {
        Suspects::only(Suspect::DeletedExec)
    }
}

/// What to say of an executable mapping that grows as stacks do, by its
/// `vm_flags` or the flags of its mmap(2).
#[inline(always)]
pub const fn of_flags(flags: u64) -> Suspects {
    Suspects::when(flags & GROWS_DOWN != 0, Suspect::StackExec)
}

//! Files: identity and path.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_probe_read_kernel_str};
use mmwatch_common::{
    counter::Hook,
    event::{FileId, FilePath, Kind, NAME_LEN, PATH_START_LEN},
};

use crate::{
    emit,
    globals::offset,
    maps::{EVENTS, FILES},
    memory::{member, member_or_zero},
};

/// Steps of a walk from a leaf to the root: names and mount points.
const MAX_STEPS: u32 = 48;

/// Identity of an open file, as `/proc/PID/maps` shows it.
#[inline(always)]
pub fn identity(file: u64) -> Option<FileId> {
    let inode = member_or_zero!(file, file_inode: u64);
    let superblock = member_or_zero!(inode, inode_sb: u64);
    let id = FileId {
        inode: member_or_zero!(inode, inode_ino: u64),
        dev: member_or_zero!(superblock, sb_dev: u32),
        generation: member_or_zero!(inode, inode_generation: u32),
    };
    (superblock != 0).then_some(id)
}

/// Sends the path of a file unless that was done before.
#[inline(always)]
pub fn announce(hook: Hook, id: &FileId, file: u64) {
    if !emit::is_streaming() {
        return;
    }
    // SAFETY: only presence matters, the value is not read.
    if unsafe { FILES.get(id) }.is_some() {
        return;
    }
    // Whoever inserts sends; another CPU at the same point does not.
    if FILES.insert(id, 1, u64::from(BPF_NOEXIST)).is_err() {
        return;
    }
    let Some(row) = emit::ledger(hook) else {
        return;
    };
    let Some(mut entry) = EVENTS.reserve::<FilePath>(0) else {
        row.paths_ring_full += 1;
        let _ = FILES.remove(id);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: reserved memory of the record's size, not yet visible to the
    // reader; every field is written.
    unsafe {
        (&raw mut (*record).kind).write(Kind::FilePath as u8);
        (&raw mut (*record).pad).write(0);
        (&raw mut (*record).file).write(*id);
        let complete = walk(file, record);
        (&raw mut (*record).truncated).write(u8::from(!complete));
    }
    emit::submit(entry);
    row.paths_submitted += 1;
}

/// Writes the names from the leaf to the root, each with its NUL, and their
/// length; says whether the root was reached.
///
/// # Safety
///
/// `record` points to writable memory for a record.
#[inline(always)]
unsafe fn walk(file: u64, record: *mut FilePath) -> bool {
    // SAFETY: within the record.
    let (len, path) = unsafe {
        (
            &raw mut (*record).path_len,
            (&raw mut (*record).path).cast(),
        )
    };
    // SAFETY: within the record.
    unsafe { len.write_volatile(0) };

    let at = file + offset!(file_path) as u64;
    let leaf = member_or_zero!(at, path_dentry: u64);
    let mut dentry = leaf;
    let mut vfsmount = member_or_zero!(at, path_mnt: u64);
    let mut complete = false;

    for _ in 0..MAX_STEPS {
        let parent = member_or_zero!(dentry, dentry_parent: u64);
        let root = member_or_zero!(vfsmount, vfsmount_root: u64);
        if dentry != root && dentry != parent {
            // SAFETY: both within the record.
            if !unsafe { append_name(dentry, len, path) } {
                break;
            }
            dentry = parent;
            continue;
        }
        // The top of this mount: go on where it is mounted, if it is.
        let mount = vfsmount.wrapping_sub(offset!(mount_mnt) as u64);
        let above = member_or_zero!(mount, mount_parent: u64);
        if dentry != root || above == mount {
            complete = true;
            break;
        }
        dentry = member_or_zero!(mount, mount_mountpoint: u64);
        vfsmount = above + offset!(mount_mnt) as u64;
    }
    // SAFETY: both within the record.
    unsafe {
        if len.read_volatile() == 0 {
            // Files of internal mounts (memfd, SysV shm) are their own root;
            // their name is all there is.
            append_name(leaf, len, path);
        }
    }
    complete
}

/// Appends a directory entry's name with its NUL; `false` when there is no room.
///
/// # Safety
///
/// `len` and `path` point into a record.
#[inline(always)]
unsafe fn append_name(dentry: u64, len: *mut u16, path: *mut u8) -> bool {
    // The length lives in the record and is read anew each time, so that every
    // round of the loop looks the same to the verifier: with it in a register,
    // 5.10 follows each possible value and gives up.
    // SAFETY: within the record.
    if usize::from(unsafe { len.read_volatile() }) >= PATH_START_LEN {
        return false;
    }
    // SAFETY: as above. The mask repeats the check on the very value that is used.
    let at = usize::from(unsafe { len.read_volatile() }) & (PATH_START_LEN - 1);
    // SAFETY: a name fits wherever it starts below PATH_START_LEN.
    let written = unsafe { name(dentry, path.add(at)) };
    // SAFETY: within the record.
    unsafe { len.write_volatile((at + written) as u16) };
    true
}

/// Copies a directory entry's name with its NUL; 0 bytes where that fails.
///
/// # Safety
///
/// `target` has room for [`NAME_LEN`] bytes.
#[inline(always)]
unsafe fn name(dentry: u64, target: *mut u8) -> usize {
    let Some(source) = member!(dentry, dentry_name: u64) else {
        return 0;
    };
    // SAFETY: the helper checks the source and writes no more than NAME_LEN bytes.
    let len =
        unsafe { bpf_probe_read_kernel_str(target.cast(), NAME_LEN as u32, source as *const _) };
    if len < 0 {
        return 0;
    }
    len as usize
}

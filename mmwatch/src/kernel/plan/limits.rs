//! What cannot be told where a role is filled by less than the best.

pub(super) const NO_MAP_DETAIL: &str = "mappings made by the loader at exec, by drivers and by other callers than the hooked calls come with their bytes and count, without address, flags and file; models look them up in /proc";
pub(super) const NO_UNMAP_DETAIL: &str = "how many VMAs one unmap removed is not told apart from how many it split; the net change is exact";
pub(super) const NO_SHARED_FILE: &str = "the file that the kernel makes for a shared anonymous mapping is looked up in /proc afterwards";
pub(super) const NO_OLD_PROT: &str = "what a range was before it was protected is not seen: of suspects, a protect is told as write-exec only";
pub(super) const NO_UNLINKED: &str = "whether an executable file has a name is not seen: no mapping is told as memfd-exec or deleted-exec";
pub(super) const NO_LOCK: &str = "counts are read when a call returns, outside of the lock: exact while one thread at a time changes an address space, attributed to the wrong call otherwise; changes outside of the hooked calls show up with the next one; models look up in /proc whatever changed";
pub(super) const NO_EXIT: &str = "the end of an address space is not seen";
pub(super) const NO_CGROUP: &str =
    "cgroups, and so containers, that are gone before anybody looks have no name";
pub(super) const NO_COMPAT_CALLS: &str = "32-bit calls are seen at their settle point, without their result; those that fail are not seen";
pub(super) const LOOKED_UP: &str = "which stack grew, what remap_file_pages or a call that failed half-way did, and what an address space has after fork and exec is not told by events; models look it up in /proc";
pub(super) const UNMAP_WITHOUT_BRK: &str = "bytes freed by a shrinking brk are read after the lock is gone: exact while one thread at a time changes the address space";

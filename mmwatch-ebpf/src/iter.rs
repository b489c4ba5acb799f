//! What an iterator over tasks is handed.

use core::ffi::c_void;

use aya_ebpf::bindings::seq_file;

/// `struct bpf_iter_meta`, its beginning (`include/linux/bpf.h`).
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

/// `struct bpf_iter__task` (`kernel/bpf/task_iter.c`, 5.8 and later).
#[repr(C)]
pub struct Context {
    meta: *const Meta,
    task: *const c_void,
}

/// The file that rows go to, and the task; 0 after the last one.
///
/// # Safety
///
/// `context` is what the kernel handed to the program.
#[inline(always)]
pub unsafe fn parts(context: *const Context) -> (*mut seq_file, u64) {
    // SAFETY: the verifier knows the type of the context and lets only these
    // two members be read, whose addresses it knows to be valid.
    let (seq, task) = unsafe { ((*(*context).meta).seq, (*context).task) };
    (seq, task as u64)
}

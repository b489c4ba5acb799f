//! Cgroups are made: each tells its path, so that it is known when the cgroup
//! is gone again before anybody asks. No record is made of that.

use aya_ebpf::{
    bindings::BPF_ANY, helpers::generated::bpf_probe_read_kernel_str, macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use mmwatch_common::identity::CGROUP_PATH_LEN;

use crate::{
    identity,
    maps::{CGROUP_SCRATCH, CGROUPS},
};

/// `cgroup` was made, with this path.
#[inline(always)]
fn made(cgroup: u64, path: u64) {
    if !identity::is_of_hierarchy(cgroup) {
        return;
    }
    let Some(scratch) = CGROUP_SCRATCH.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a per-CPU value of that length, which only this program uses.
    let len = unsafe {
        bpf_probe_read_kernel_str(scratch.cast(), CGROUP_PATH_LEN as u32, path as *const _)
    };
    if len > 0 {
        // SAFETY: as above; written by the helper, NUL included.
        let path = unsafe { &*scratch };
        // Least-recently-used: where it fails, the agent looks into sysfs.
        let _ = CGROUPS.insert(identity::cgroup_id(cgroup), path, u64::from(BPF_ANY));
    }
}

// void cgroup_mkdir(struct cgroup *cgrp, const char *path), 5.10 to 7.2
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
fn raw_cgroup_mkdir(ctx: RawTracePointContext) -> i32 {
    made(ctx.arg(0), ctx.arg(1));
    0
}

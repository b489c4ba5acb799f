//! Tells where processes are, seen from the agent that reads the list: what it needs
//! to know in a container, where its own view ends at its namespaces.
//!
//! An object of its own: on a host, nobody asks.
#![no_std]
#![no_main]

mod globals;
#[expect(dead_code, reason = "the programs that watch use the rest")]
mod identity;
mod iter;
#[expect(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "the programs that watch use the rest"
)]
mod memory;

use aya_ebpf::{
    bindings::seq_file,
    helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel_str, bpf_seq_write},
    macros::map,
    maps::PerCpuArray,
};
use mmwatch_common::place::{CHILDREN, DEPTH, NAME_LEN, Place};

use crate::{
    globals::offset,
    iter::Context,
    memory::{member_or_zero, read_or_zero},
};

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Not zero here, or it would lie in .bss, which is not frozen.
#[unsafe(no_mangle)]
static WITHIN: u64 = u64::MAX;

// The list has the processes of the pid namespace of who opens it (`task_seq_get_next`), so
// that of those beside it in its pod, at most the cgroups can be told.

/// Where a row is put together.
#[map]
static ROW: PerCpuArray<Place> = PerCpuArray::with_max_entries(1, 0);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The parent of a cgroup; 0 for a root.
#[inline(always)]
fn parent(cgroup: u64) -> u64 {
    let state = cgroup.wrapping_add(offset!(cgroup_state) as u64);
    let parent = member_or_zero!(state, css_parent: u64);
    member_or_zero!(parent, css_cgroup: u64)
}

/// Fills in the row of a process, given its first thread.
#[inline(always)]
fn fill(row: &mut Place, task: u64) {
    // SAFETY: no arguments, no preconditions. An iterator runs for who reads it.
    let reader = unsafe { bpf_get_current_task() };
    let reader_pid = identity::pid(reader);
    let level = identity::level(reader_pid);
    let namespace = identity::namespace(identity::number(reader_pid, level));
    row.pid_level = level;
    row.pid_namespace = identity::namespace_inode(namespace);

    let pid = identity::pid(task);
    row.is_self = u32::from(pid == reader_pid);
    row.start_boot_ns = member_or_zero!(task, task_start_boottime: u64);
    row.tgid = member_or_zero!(task, task_tgid: u32);
    let number = identity::number(pid, level);
    let in_namespace = identity::level(pid) >= level && identity::namespace(number) == namespace;
    row.own_tgid = if in_namespace {
        read_or_zero(number, 0)
    } else {
        0
    };
    climb(row, identity::cgroup(task));
}

/// Fills in a cgroup and all those above it.
#[inline(always)]
fn climb(row: &mut Place, mut cgroup: u64) {
    row.cgroup_level = member_or_zero!(cgroup, cgroup_level: u32);
    for (id, name) in row.cgroup_ids.iter_mut().zip(&mut row.cgroup_names) {
        *id = identity::cgroup_id(cgroup);
        let node = member_or_zero!(cgroup, cgroup_node: u64);
        let from = member_or_zero!(node, node_name: u64);
        name[0] = 0;
        // SAFETY: the length is the buffer's; the helper checks the source, and where it
        // fails the name stays empty.
        unsafe {
            bpf_probe_read_kernel_str(name.as_mut_ptr().cast(), NAME_LEN as u32, from as *const _);
        }
        cgroup = parent(cgroup);
    }
}

/// The cgroup with this id among `cgroup` and those above it; 0 if it is none of them.
#[inline(always)]
fn above(mut cgroup: u64, id: u64) -> u64 {
    for _ in 0..DEPTH {
        if cgroup == 0 || identity::cgroup_id(cgroup) == id {
            return cgroup;
        }
        cgroup = parent(cgroup);
    }
    0
}

/// Writes a row for each child of a cgroup.
#[inline(always)]
fn children(seq: *mut seq_file, row: &mut Place, cgroup: u64) {
    row.tgid = 0;
    row.own_tgid = 0;
    row.is_self = 0;
    let head = cgroup + (offset!(cgroup_state) + offset!(css_children)) as u64;
    let mut link: u64 = read_or_zero(head, 0);
    for _ in 0..CHILDREN {
        if link == 0 || link == head {
            return;
        }
        let state = link - offset!(css_sibling) as u64;
        climb(row, state - offset!(cgroup_state) as u64);
        write(seq, row);
        link = read_or_zero(link, 0);
    }
}

#[inline(always)]
fn write(seq: *mut seq_file, row: &Place) {
    // SAFETY: the row has the length given. Where the file's buffer is full, the kernel
    // calls again for the same task.
    unsafe { bpf_seq_write(seq, (&raw const *row).cast(), size_of::<Place>() as u32) };
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
fn iter_places(context: *const Context) -> i32 {
    // SAFETY: the kernel's own context.
    let (seq, task) = unsafe { iter::parts(context) };
    if task == 0 || member_or_zero!(task, task_group_leader: u64) != task {
        return 0;
    }
    let Some(row) = ROW.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a per-CPU value; programs of iterators do not migrate, and nobody else reads
    // this object's list.
    let row = unsafe { &mut *row };
    fill(row, task);
    write(seq, row);
    // SAFETY: a live static, volatile because the agent replaces the bytes after compilation.
    let within = unsafe { core::ptr::read_volatile(&raw const WITHIN) };
    if row.is_self != 0 && within != 0 {
        let cgroup = above(identity::cgroup(task), within);
        if cgroup != 0 {
            children(seq, row, cgroup);
        }
    }
    0
}

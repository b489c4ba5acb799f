//! What the agent found or decided before loading, as constants to the verifier.

use mmwatch_common::config::{Config, Offsets, STREAM_ALWAYS};

// Neither may be all zeroes: the compiler would put it in .bss, which is not
// frozen, and the verifier would no longer know the values.

#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::NONE;

#[unsafe(no_mangle)]
pub static CONFIG: Config = Config {
    self_tgid: 0,
    filters: 0,
    ops: u32::MAX,
    uid: 0,
    comm: [0; 16],
    min_size_bytes: 0,
    wake_bytes: 0,
    user_regs_offset: 0,
    calls: 0,
    settle_at_call: 0,
    downgrade: 0,
    stream: STREAM_ALWAYS,
    simulate_loss: 0,
    counts_splits: 0,
    typed_task: 0,
    typed_regs: 0,
    only_tgid: 0,
    backings: 0,
    cgroup_subsystem: 0,
    cgroup_hierarchy: 0,
    cgroup_level: 0,
    held_tgid: 0,
    fault_begins: 0,
    fault_pages: 0,
    suspects: 0,
    cgroup_id: 0,
    pid_namespace: 0,
    pid_level: 0,
};

/// A member's offset in bytes.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: a live static; volatile because the agent replaces the bytes
        // after compilation.
        unsafe { core::ptr::read_volatile(&raw const $crate::globals::OFFSETS.$field) as usize }
    };
}

/// Whether the running kernel has a member.
macro_rules! has {
    ($field:ident) => {
        $crate::globals::offset!($field) != mmwatch_common::config::NO_OFFSET as usize
    };
}

/// A value of the configuration.
macro_rules! config {
    ($field:ident) => {
        // SAFETY: as for `offset!`.
        unsafe { core::ptr::read_volatile(&raw const $crate::globals::CONFIG.$field) }
    };
}

pub(crate) use {config, has, offset};

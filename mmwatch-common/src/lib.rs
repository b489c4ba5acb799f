//! What crosses from mmwatch's kernel programs to its agent.
//!
//! Both sides compile this crate, so a layout is written down once:
//!
//! * [`event`]: the records of the ring buffer;
//! * [`config`]: the constants that the agent finds or decides before loading;
//! * [`counter`]: the loss ledger, a row per program;
//! * [`fault`]: page faults of one process, page by page;
//! * [`names`]: maps and globals, by the name both sides use;
//! * [`space`]: address spaces and the processes that use them;
//! * [`sums`]: sums per process, kept in the kernel;
//! * [`suspect`]: kinds of dangerous mappings, and the rules for them;
//! * [`identity`]: whose a process is;
//! * [`place`]: where a process is, seen from the agent;
//! * [`probe`]: what the probe object answers.
//!
//! Everything on the wire is `repr(C)`, made of fixed-width integers, with its
//! padding spelled out and its size asserted at compile time.
#![no_std]

pub mod config;
pub mod counter;
pub mod event;
pub mod fault;
pub mod identity;
pub mod names;
pub mod place;
pub mod probe;
pub mod space;
pub mod sums;
pub mod suspect;

/// Hands `repr(C)` types without padding or invalid bit patterns to aya.
#[cfg(feature = "user")]
macro_rules! pod {
    ($($ty:ty),+ $(,)?) => {$(
        // SAFETY: repr(C), integers only, no implicit padding (asserted beside
        // the definition), so any bytes are a valid value.
        unsafe impl aya::Pod for $ty {}
    )+};
}

#[cfg(feature = "user")]
pod!(
    config::Config,
    config::Offsets,
    counter::Ledger,
    fault::Block,
    fault::BlockKey,
    identity::CgroupPath,
    place::Place,
    probe::Answer,
    space::Listed,
    space::State,
    sums::Process,
    sums::ProcessKey,
);

//! What is mapped where, without asking: each address space as
//! `/proc/PID/maps` would have it, kept up to date by events.
//!
//! Page by page the model says which permissions, which file and which offset.
//! It knows no VMAs: neighbours that are alike are one range here, and their
//! number comes from the kernel.
//!
//! Nothing here reads a clock or a file: events, times and the texts of
//! `/proc` come in.

pub mod ranges;
pub mod snapshot;

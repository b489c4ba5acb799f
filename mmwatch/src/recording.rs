//! What was watched, in a file, to be looked at later.
//!
//! A recording has the records byte for byte as the ring buffer lent them, so
//! that [`decode`](crate::decode) reads both, and once a second what the kernel
//! kept: its counters, its sums per process, its list of processes. Read again it
//! is a [`Source`](crate::source::Source) as the kernel is, and all that follows
//! is the same code. `docs/recording.md` has the format.
//!
//! [`Recorder`] is the pipeline's end of writing, [`Recording`] that of reading;
//! `writer` has a thread, `destination` the files, `frame` the container, and
//! `entry`, `look`, `gap` and `header` what is in it.

mod cgroup;
mod destination;
mod dictionary;
mod entry;
mod frame;
mod gap;
mod header;
mod layout;
mod look;
mod reader;
mod recorder;
mod summary;
mod writer;

#[cfg(test)]
pub(crate) use self::layout::sizes;
pub use self::{
    destination::{Destination, Size},
    frame::Broken,
    gap::{Cause, Ending, Gap, Replay, Why},
    header::{Header, ProgramName},
    look::Look,
    reader::Recording,
    recorder::Recorder,
    summary::{Loss, Summary},
    writer::Outcome,
};

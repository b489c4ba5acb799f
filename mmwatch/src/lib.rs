//! mmwatch shows what the Linux kernel does to address spaces: every VMA made,
//! changed and removed, by whom, why, and what it cost.
//!
//! The way of an event, one direction, one type a step: the [`kernel`]
//! programs make records, a [`source`] (the ring, or a [`recording`]) lends their
//! bytes, [`decode`] makes an [`event::Event`] of them, [`churn`] sums, [`space`]
//! keeps what is mapped where, a [`sink`] writes. [`pipeline`] is the loop that
//! moves it along.

// From the command line to what is to be done.
pub mod cli;
pub mod manual;
pub mod options;
pub mod run;

// Watching: the loop, and what feeds it.
pub mod identity;
pub mod kernel;
pub mod launch;
pub mod pipeline;
pub mod recording;
pub mod source;

// From bytes to events,
pub mod decode;
pub mod event;
pub mod explain;
pub mod filter;
pub mod flags;

// to sums, what is mapped where, and the account of what was lost,
pub mod churn;
pub mod ledger;
pub mod space;

// held against what the kernel says,
pub mod verify;

// or read from what it says alone,
pub mod maps;
pub mod poll;
pub mod shared;

// to what people and programs read,
pub mod sink;
pub mod ui;

// or over HTTP, on every host.
pub mod agent;

// What all of them use.
pub mod clock;
pub mod error;
pub mod process;
pub mod text;

#[cfg(test)]
mod sample;

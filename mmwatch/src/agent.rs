//! The daemon: what the kernel sums is told to whoever asks over HTTP, and sent by OTLP.
//!
//! One task owns the state, the [`pipeline`](crate::pipeline)'s. To it the agent is one
//! more sink, which makes an immutable [`lifecycle::Snapshot`] of each report; whatever
//! answers requests looks at the last one.

pub mod canary;
pub mod config;
pub mod confine;
pub mod feed;
pub mod http;
pub mod lifecycle;
pub mod metrics;
pub mod otlp;
mod own;
pub mod series;
pub mod trusted;

//! The kernel that mmwatch runs on: what it offers, what follows from that,
//! and the programs that are loaded into it.
//!
//! [`facts`] looks and never decides; [`plan`] decides and never looks, so it
//! is tested with the recorded facts of kernels that are not there; [`load`]
//! does what the plan says and is alone in knowing the BPF library.

pub mod btf;
pub mod facts;
pub mod load;
pub mod plan;

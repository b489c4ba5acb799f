//! What differs from one processor to the next: registers and call numbers.

#[cfg(bpf_target_arch = "x86_64")]
mod x86_64;

#[cfg(bpf_target_arch = "x86_64")]
pub use x86_64::*;

#[cfg(not(bpf_target_arch = "x86_64"))]
compile_error!("mmwatch's kernel programs know the registers of x86_64 only");

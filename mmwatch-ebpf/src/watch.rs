//! mmwatch's kernel programs.
//!
//! `hooks/` has the entry points, thin and one per backend, over bodies that
//! all backends share; the other modules are what those bodies are made of.
//! An event's way: a hook notes what it sees in the thread's [`section`]; the
//! settle point adds the exact count from [`space`]; [`report`] puts the record
//! together; [`emit`] filters it, counts it and hands it to the ring buffer.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod arch;
mod emit;
mod file;
mod filter;
mod globals;
mod hooks;
mod identity;
mod iter;
mod maps;
mod memory;
mod report;
mod section;
mod space;
mod sums;
mod suspect;
mod task;

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics: the compiler removes this, and the verifier would
    // refuse the endless loop if it did not.
    loop {}
}

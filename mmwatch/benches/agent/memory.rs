//! What the agent's state takes, by simulation: a large model, and many processes.

use std::{fmt::Write as _, hint::black_box};

use mmwatch::{
    churn::{Churn, ProcessKey, ProcessSums},
    space::Snapshot,
};
use mmwatch_common::{space::Listed, sums::OpSums};

use crate::{Result, records::PAGE_BYTES};

/// VMAs of the large model.
const MODEL_VMAS: u64 = 1_000_000;

/// Processes that there are.
const PROCESSES: [u32; 3] = [1_000, 10_000, 100_000];

/// One process in so many did something. Most of a machine's processes sleep.
const BUSY: u32 = 10;

/// Room in the kernel's table of sums: no more than so many are told apart.
const KERNEL_SUMS: usize = 8192;

/// Looks at the kernel's tables, so that what only grows does.
const LOOKS: u64 = 10;

/// Processes that a report shows.
const ROWS: usize = 20;

/// Prints bytes of memory.
pub fn print() -> Result<()> {
    println!("vma_bytes {:.1}", bytes_per_vma()?);
    for count in PROCESSES {
        println!("processes_{count}_bytes {}", bytes_of_processes(count));
    }
    Ok(())
}

/// What one VMA in a large model takes, allocator included.
fn bytes_per_vma() -> Result<f64> {
    let text = maps_text(MODEL_VMAS)?;
    let before = allocated();
    let ranges = Snapshot::parse(text.as_bytes())?.ranges;
    let bytes = allocated().saturating_sub(before);
    Ok(bytes as f64 / black_box(ranges).len() as f64)
}

/// What `top` has for so many processes in the middle of a look: its own state
/// and what it just read of the kernel's tables.
fn bytes_of_processes(count: u32) -> usize {
    let before = allocated();
    let mut churn = Churn::new(0, PAGE_BYTES);
    let mut most = 0;
    for look in 1..=LOOKS {
        let listed: Vec<_> = (1..=count).map(listed).collect();
        let sums: Vec<_> = (1..=count)
            .step_by(BUSY as usize)
            .take(KERNEL_SUMS)
            .map(|tgid| sums(tgid, look))
            .collect();
        let now_ns = look * 1_000_000_000;
        black_box(churn.update(now_ns, &sums, &listed));
        let report = churn.tick(now_ns, 65_530, ROWS);
        most = most.max(allocated());
        drop((listed, sums, report));
    }
    most.saturating_sub(before)
}

fn listed(tgid: u32) -> Listed {
    Listed {
        tgid,
        start_boot_ns: u64::from(tgid),
        pages: 100_000,
        vmas: 200,
        vmas_peak: 210,
        owner_tgid: tgid,
        comm: *b"worker\0\0\0\0\0\0\0\0\0\0",
        ..Listed::default()
    }
}

fn sums(tgid: u32, look: u64) -> (ProcessKey, ProcessSums) {
    let mut process = ProcessSums::default();
    process.sums.ops[0] = OpSums {
        count: look,
        ..OpSums::default()
    };
    (ProcessKey::new(tgid, u64::from(tgid)), process)
}

/// Bytes that the allocator has handed out, small and large ones.
fn allocated() -> usize {
    // SAFETY: it takes nothing and only reads the allocator's own sums.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// `/proc/PID/maps` of so many VMAs. Neighbours differ, or the model would have
/// one range for them.
pub fn maps_text(vmas: u64) -> Result<String> {
    let mut text = String::new();
    for vma in 0..vmas {
        let start = 0x1000_0000_0000 + vma * 4 * PAGE_BYTES;
        let end = start + 4 * PAGE_BYTES;
        let prot = if vma % 2 == 0 { "rw-p" } else { "r--p" };
        writeln!(text, "{start:x}-{end:x} {prot} 00000000 00:00 0 ")?;
    }
    Ok(text)
}

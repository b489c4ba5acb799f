//! Page faults: that a mapping became memory.
//!
//! The kernel's own software events tell each fault of a user address once it is
//! complete, minor or major as it counts them itself (`mm_account_fault`,
//! `mm/memory.c`, 5.9 and later; faults that fail, and those that the kernel
//! makes without an access, as for `MAP_POPULATE`, are none). Whether the page
//! was there is told only at the beginning, by the CPU's error code, so that is
//! noted per thread until the fault is complete.

use core::arch::asm;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::{perf_event, raw_tracepoint},
    programs::{PerfEventContext, RawTracePointContext},
};
use mmwatch_common::{
    counter::{Hook, Ledger},
    fault::{BLOCK_PAGES, Block, BlockKey, Page},
};

use crate::{
    emit, filter,
    globals::config,
    maps::{BLOCKS, FAULTS},
    memory::PAGE_SHIFT,
    sums,
    task::Task,
};

/// Bit of the error code of a page fault: the page was there, and what was done
/// is not allowed, or not yet (`X86_PF_PROT`).
const PAGE_WAS_THERE: u64 = 1;

const PAGE_BYTES: u64 = 1 << PAGE_SHIFT;

/// A fault began. What is under way for a thread is its own to write.
#[inline(always)]
fn began(address: u64, error_code: u64) {
    let task = Task::current();
    if !filter::is_wanted(&task) {
        return;
    }
    let note = (address & !(PAGE_BYTES - 1)) | (error_code & PAGE_WAS_THERE);
    match FAULTS.get_ptr_mut(task.tid) {
        // SAFETY: a map value; a 64-bit access is whole.
        Some(fault) => unsafe { fault.write_volatile(note) },
        None => {
            // For want of room it is seen at its end that it is missing.
            let _ = FAULTS.insert(task.tid, note, 0);
        }
    }
}

/// Bytes that the fault of the page at `page` touched: the page's, or nothing if
/// it was there.
#[inline(always)]
fn touched_bytes(row: &mut Ledger, task: &Task, page: u64) -> u64 {
    if config!(fault_begins) == 0 {
        return 0;
    }
    // SAFETY: a map value; a 64-bit access is whole.
    let note = FAULTS
        .get_ptr_mut(task.tid)
        .map_or(u64::MAX, |fault| unsafe { fault.read_volatile() });
    if note == page {
        return PAGE_BYTES;
    }
    if note != page | PAGE_WAS_THERE {
        row.scratch_full += 1;
    }
    0
}

/// A fault of the page at `page` is complete.
#[inline(always)]
fn completed(hook: Hook, is_major: bool, address: u64) {
    let Some(row) = emit::ledger(hook) else {
        return;
    };
    // The agent's own are counted here as well, as filtered: what fired is held
    // against what the kernel says of the events.
    row.fired += 1;
    let task = Task::current();
    if !filter::is_wanted(&task) {
        row.filtered += 1;
        return;
    }
    let page = address & !(PAGE_BYTES - 1);
    let touched_bytes = touched_bytes(row, &task, page);
    sums::add_fault(row, &task, is_major, touched_bytes);
    if config!(fault_pages) != 0 {
        add_page(row, &task, page, is_major, touched_bytes != 0);
    }
    row.summed += 1;
}

/// A new block. Static, because it is too large for the stack.
static NOTHING: Block = Block::NONE;

/// Adds to what is known of one page.
#[inline(always)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a copy would not fit the stack"
)]
fn add_page(row: &mut Ledger, task: &Task, page: u64, is_major: bool, is_touched: bool) {
    let number = page >> PAGE_SHIFT;
    let key = BlockKey {
        mm: task.mm(),
        number: number / BLOCK_PAGES as u64,
    };
    let mut block = BLOCKS.get_ptr_mut(&key);
    if block.is_none() {
        // Another thread may be first, so only the look after it counts.
        let _ = BLOCKS.insert(&key, &NOTHING, u64::from(BPF_NOEXIST));
        block = BLOCKS.get_ptr_mut(&key);
    }
    let Some(block) = block else {
        row.scratch_full += 1;
        return;
    };
    // SAFETY: an element of a live map value: the remainder is below the number
    // of its pages. Numbers are added to atomically, and every writer of
    // `touched` writes the same.
    unsafe {
        let page: *mut Page = (&raw mut (*block).pages).cast();
        let page = page.add((number % BLOCK_PAGES as u64) as usize);
        if is_major {
            grow_by_one(&raw mut (*page).major);
        } else {
            sums::grow(&raw mut (*page).minor, 1);
        }
        if is_touched {
            (&raw mut (*page).touched).write_volatile(1);
        }
    }
}

/// Adds one to a number to which all others add in this way too.
///
/// # Safety
///
/// `number` points to an aligned number in a live map value.
#[inline(always)]
unsafe fn grow_by_one(number: *mut u32) {
    // SAFETY: the caller's promise; see `sums::grow`.
    unsafe {
        asm!(
            "lock *(u32 *)({number} + 0) += {by}",
            number = in(reg) number,
            by = in(reg) 1_u64,
            options(nostack),
        );
    }
}

/// The address of a software event, which for a page fault is what was accessed.
#[inline(always)]
fn address(ctx: &PerfEventContext) -> u64 {
    // SAFETY: the kernel hands out a live context, and the verifier knows its members.
    unsafe { (&raw const (*ctx.ctx).addr).read_volatile() }
}

#[perf_event]
fn perf_minor_fault(ctx: PerfEventContext) -> u32 {
    completed(Hook::MinorFault, false, address(&ctx));
    0
}

#[perf_event]
fn perf_major_fault(ctx: PerfEventContext) -> u32 {
    completed(Hook::MajorFault, true, address(&ctx));
    0
}

// void page_fault_user(unsigned long address, struct pt_regs *regs, unsigned long error_code)
#[raw_tracepoint(tracepoint = "page_fault_user")]
fn raw_page_fault_user(ctx: RawTracePointContext) -> i32 {
    began(ctx.arg(0), ctx.arg(2));
    0
}

// void page_fault_kernel(unsigned long address, struct pt_regs *regs, unsigned long error_code)
#[raw_tracepoint(tracepoint = "page_fault_kernel")]
fn raw_page_fault_kernel(ctx: RawTracePointContext) -> i32 {
    began(ctx.arg(0), ctx.arg(2));
    0
}

//! Address spaces: the exact numbers, kept at settle points.
//!
//! A `State` is written only while the `mmap_lock` is held for writing, or by
//! the one reader that a writer became, so plain writes are exact.

use aya_ebpf::bindings::BPF_ANY;
use mmwatch_common::config::{DOWNGRADE_AT_READ_RELEASE, DOWNGRADE_AT_UNMAP};
pub use mmwatch_common::space::State;

use crate::{
    globals::config,
    maps::SPACES,
    memory::{member, task_member},
    section::{HAS_BASE, HAS_DELTA, HAS_DRIFT, HAS_SETTLED, PAGES_PENDING, SETTLED, Section},
    task::{self, Task},
};

/// Size of an address space, read from its `mm_struct`.
#[derive(Clone, Copy)]
pub struct Size {
    /// `map_count`.
    pub vmas: u32,
    /// `total_vm`.
    pub pages: u64,
}

/// Reads `map_count` and `total_vm`; exact where the lock excludes writers.
#[inline(always)]
pub fn size(mm: u64) -> Option<Size> {
    Some(Size {
        vmas: member!(mm, mm_map_count: u32)?,
        pages: member!(mm, mm_total_vm: u64)?,
    })
}

/// As [`size`], of the running task's own address space.
#[inline(always)]
pub fn own_size(task: &Task) -> Option<Size> {
    // Asked anew, so that the compiler cannot put another number that it found
    // to be the same in its place: only this one comes with its type.
    let mm = task.mm();
    (mm != 0).then(|| Size {
        vmas: task_member!(mm, mm_map_count: u32),
        pages: task_member!(mm, mm_total_vm: u64),
    })
}

/// The entry of an address space.
#[inline(always)]
pub fn get(mm: u64) -> Option<&'static mut State> {
    // SAFETY: map values live as long as the program; see the module on who writes.
    SPACES.get_ptr_mut(mm).map(|state| unsafe { &mut *state })
}

/// The entry of an address space that begins its life now.
#[inline(always)]
pub fn born(size: Size, owner_tgid: u32, owner_start_boot_ns: u64) -> State {
    State {
        pages: size.pages,
        sections: 0,
        born_ns: task::now(),
        owner_start_boot_ns,
        owner_tgid,
        vmas: size.vmas,
        vmas_peak: size.vmas,
        pad: 0,
    }
}

/// Adds or replaces an entry. `false` when the table is full.
#[inline(always)]
pub fn adopt(mm: u64, state: &State) -> bool {
    SPACES.insert(mm, state, u64::from(BPF_ANY)).is_ok()
}

/// Forgets an address space.
#[inline(always)]
pub fn retire(mm: u64) {
    // Absent is fine: it was never adopted.
    let _ = SPACES.remove(mm);
}

/// Result of [`settle`].
pub enum Settled {
    /// The numbers are in the section.
    Done,
    /// No room for a new address space: the section has no sums.
    Full,
    /// Not an address space to follow (being built or torn down), or unreadable.
    Foreign,
}

/// Takes the exact numbers `now`, at a settle point, and writes what changed to
/// `section`, and its number: the place of its records among those of the
/// address space. A section that changed nothing has none, unless it is
/// `numbered` anyway. `downgraded`: the lock goes on as a read lock.
#[inline(always)]
pub fn settle(
    task: &Task,
    mm: u64,
    mut now: Size,
    section: &mut Section,
    downgraded: bool,
    numbered: bool,
) -> Settled {
    section.state = SETTLED;
    if downgraded {
        // map_count is final here, total_vm is not: the unmap core subtracts
        // its pages later, under the read lock.
        match config!(downgrade) {
            DOWNGRADE_AT_UNMAP | DOWNGRADE_AT_READ_RELEASE => section.state = PAGES_PENDING,
            _ => now.pages = now.pages.wrapping_sub(section.unmap.pages),
        }
    }
    section.vmas = now.vmas;
    section.pages = now.pages;
    section.vmas_delta = 0;
    section.pages_delta = 0;
    section.has |= HAS_SETTLED;
    section.settled_ns = task::now();
    section.held_ns = section.settled_ns.wrapping_sub(section.taken_ns);

    let Some(state) = get(mm) else {
        return adopt_at_settle(task, mm, section, now, numbered);
    };
    section.owner_tgid = state.owner_tgid;
    section.born_ns = state.born_ns;
    // The base was read under this very lock. Where it differs from the last
    // settle point, something changed without a section (stack growth under
    // the read lock before 6.5); that is not this section's doing.
    let base = if section.has(HAS_BASE) {
        section.has |= drift(section, state);
        Size {
            vmas: section.vmas_before,
            pages: section.pages_before,
        }
    } else {
        Size {
            vmas: state.vmas,
            pages: state.pages,
        }
    };
    note_delta(section, base, now);
    state.vmas = now.vmas;
    state.pages = now.pages;
    if now.vmas > state.vmas_peak {
        state.vmas_peak = now.vmas;
    }
    if numbered || section.changed() {
        state.sections += 1;
        section.number = state.sections;
    }
    Settled::Done
}

/// [`HAS_DRIFT`] where the counts at the section's begin are not those of the
/// last settle point. Computed without a branch, for the verifier's sake.
#[inline(always)]
fn drift(section: &Section, state: &State) -> u32 {
    let difference =
        u64::from(section.vmas_before ^ state.vmas) | (section.pages_before ^ state.pages);
    let differs = (difference | difference.wrapping_neg()) >> 63;
    differs as u32 * HAS_DRIFT
}

#[inline(always)]
fn adopt_at_settle(
    task: &Task,
    mm: u64,
    section: &mut Section,
    now: Size,
    numbered: bool,
) -> Settled {
    // Others' address spaces under construction (fork, exec) are adopted when
    // they are whole; those being torn down (no users) never again.
    let users = member!(mm, mm_users: u32).unwrap_or(0);
    if task.mm() != mm || users == 0 {
        return Settled::Foreign;
    }
    section.owner_tgid = task.tgid;
    if section.has(HAS_BASE) {
        let base = Size {
            vmas: section.vmas_before,
            pages: section.pages_before,
        };
        note_delta(section, base, now);
    }
    let mut state = born(now, task.tgid, task.start_boot_ns());
    section.born_ns = state.born_ns;
    if numbered || section.changed() {
        state.sections = 1;
    }
    if adopt(mm, &state) {
        section.number = state.sections;
        Settled::Done
    } else {
        Settled::Full
    }
}

#[inline(always)]
fn note_delta(section: &mut Section, base: Size, now: Size) {
    section.vmas_delta = now.vmas.wrapping_sub(base.vmas) as i32;
    section.pages_delta = now.pages.wrapping_sub(base.pages) as i64;
    section.has |= HAS_DELTA;
}

/// Completes a section that was downgraded before its pages were subtracted.
#[inline(always)]
pub fn settle_pages(mm: u64, section: &mut Section) {
    let Some(pages) = member!(mm, mm_total_vm: u64) else {
        return;
    };
    section.state = SETTLED;
    section.pages_delta += pages.wrapping_sub(section.pages) as i64;
    section.pages = pages;
    if let Some(state) = get(mm) {
        state.pages = pages;
    }
}

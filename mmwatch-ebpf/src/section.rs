//! What a thread learns during one section, until its record leaves.
//!
//! Only the thread itself writes its section, so nothing here needs a lock.

use aya_ebpf::bindings::BPF_NOEXIST;
use mmwatch_common::{
    event::{DRIFTED, FileId, KNOWN_DELTA, KNOWN_HELD, KNOWN_OLD_PROT, KNOWN_SETTLED},
    space::SECTION_BYTES,
    suspect::{self, Suspects},
};

use crate::maps::SECTIONS;

/// Nothing under way.
pub const IDLE: u32 = 0;
/// The lock is held for writing; details are being collected.
pub const OPEN: u32 = 1;
/// Settled; waits for the return of its call.
pub const SETTLED: u32 = 2;
/// Settled as to VMAs at a downgrade; pages still to come, then as [`SETTLED`].
pub const PAGES_PENDING: u32 = 3;

// Those below 16 are the bits of a record's `known` that they stand for, so
// that they get there without a branch.

/// [`Section::has`]: `taken_ns`, `vmas_before` and `pages_before` were read when the lock was taken.
pub const HAS_BASE: u32 = KNOWN_HELD as u32;
/// [`Section::has`]: `vmas_delta` and `pages_delta` mean something.
pub const HAS_DELTA: u32 = KNOWN_DELTA as u32;
/// [`Section::has`]: `map` holds a mapping that was made.
pub const HAS_MAP: u32 = 1 << 16;
/// [`Section::has`]: that mapping has a file.
pub const HAS_FILE: u32 = 1 << 17;
/// [`Section::has`]: the unmap core told how many VMAs it removed.
pub const HAS_UNMAP_VMAS: u32 = 1 << 18;
/// [`Section::has`]: settled under the lock.
pub const HAS_SETTLED: u32 = KNOWN_SETTLED as u32;
/// [`Section::has`]: something changed without a section since the one before.
pub const HAS_DRIFT: u32 = DRIFTED as u32;
/// [`Section::has`]: `old_prot` was seen, and `suspects` are those of the protect.
pub const HAS_OLD_PROT: u32 = KNOWN_OLD_PROT as u32;

/// A mapping made by `mmap_region`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MapDetail {
    pub addr: u64,
    pub len_bytes: u64,
    pub vm_flags: u64,
    pub offset_pages: u64,
    /// Address of the `struct file`, between entry and return of `mmap_region`.
    pub file: u64,
    /// Address of what is about to get a file of the kernel's own.
    pub subject: u64,
    /// Address of the `struct file` that the kernel chose itself; 0 for none.
    pub own_file: u64,
    pub file_id: FileId,
}

/// What the unmap core did, summed over its runs in this section.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UnmapDetail {
    /// Lowest start of the ranges.
    pub start: u64,
    /// Highest end of the ranges.
    pub end: u64,
    /// Pages that were mapped there.
    pub pages: u64,
    /// `total_vm` when the core was entered.
    pub pages_at_enter: u64,
    /// VMAs removed, with [`HAS_UNMAP_VMAS`].
    pub vmas: u32,
    /// Runs of the core.
    pub runs: u32,
    /// `map_count` when the core was entered.
    pub vmas_at_enter: u32,
    /// Splits since then, each of which made one VMA.
    pub splits: u32,
}

/// One section of one thread.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Section {
    /// Address of the `mm_struct`.
    pub mm: u64,
    /// When that was first met, ns of the boot clock.
    pub born_ns: u64,
    /// Section number in that address space; 0 when nothing changed.
    pub number: u64,
    /// When the lock was taken, ns of the boot clock.
    pub taken_ns: u64,
    /// When the section settled, ns of the boot clock.
    pub settled_ns: u64,
    /// How long the lock had been held by then.
    pub held_ns: u64,
    pub pages_before: u64,
    pub pages: u64,
    pub pages_delta: i64,
    pub vmas_before: u32,
    pub vmas: u32,
    pub vmas_delta: i32,
    pub owner_tgid: u32,
    /// [`IDLE`], [`OPEN`], [`SETTLED`] or [`PAGES_PENDING`].
    pub state: u32,
    /// `HAS_*` bits.
    pub has: u32,
    /// Why the lock was taken, a `Cause`, once settled.
    pub cause: u32,
    /// What is dangerous about the mapping made, with [`HAS_MAP`], or about what
    /// was protected, with [`HAS_OLD_PROT`]: `Suspects`.
    pub suspects: u16,
    /// `PROT_*` bits of the VMAs in the range before, with [`HAS_OLD_PROT`].
    pub old_prot: u16,
    pub unmap: UnmapDetail,
    pub map: MapDetail,
}

const _: () = assert!(size_of::<Section>() == SECTION_BYTES);

/// Initial value of a thread's first section. Static, because the value is
/// too large for the 512 bytes of stack that a program has.
static IDLE_SECTION: Section = Section {
    mm: 0,
    born_ns: 0,
    number: 0,
    taken_ns: 0,
    settled_ns: 0,
    held_ns: 0,
    pages_before: 0,
    pages: 0,
    pages_delta: 0,
    vmas_before: 0,
    vmas: 0,
    vmas_delta: 0,
    owner_tgid: 0,
    state: IDLE,
    has: 0,
    cause: 0,
    suspects: 0,
    old_prot: 0,
    unmap: UnmapDetail {
        start: 0,
        end: 0,
        pages: 0,
        pages_at_enter: 0,
        vmas: 0,
        runs: 0,
        vmas_at_enter: 0,
        splits: 0,
    },
    map: MapDetail {
        addr: 0,
        len_bytes: 0,
        vm_flags: 0,
        offset_pages: 0,
        file: 0,
        subject: 0,
        own_file: 0,
        file_id: FileId {
            inode: 0,
            dev: 0,
            generation: 0,
        },
    },
};

/// The thread's section, whatever its state.
#[inline(always)]
pub fn get(tid: u32) -> Option<&'static mut Section> {
    // SAFETY: map values live as long as the program; no other thread writes this one.
    SECTIONS
        .get_ptr_mut(tid)
        .map(|section| unsafe { &mut *section })
}

/// The thread's section while the lock of `mm` is held, or just after its
/// downgrade; details go there.
#[inline(always)]
pub fn open(tid: u32, mm: u64) -> Option<&'static mut Section> {
    get(tid).filter(|section| {
        section.mm == mm && (section.state == OPEN || section.state == PAGES_PENDING)
    })
}

/// Forgets a thread.
#[inline(always)]
pub fn remove(tid: u32) {
    // Absent is fine: it never took a lock.
    let _ = SECTIONS.remove(tid);
}

/// The thread's section, made if this is its first.
#[inline(always)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a copy would not fit the stack"
)]
pub fn get_or_make(tid: u32) -> Option<&'static mut Section> {
    if let Some(section) = get(tid) {
        return Some(section);
    }
    SECTIONS
        .insert(tid, &IDLE_SECTION, u64::from(BPF_NOEXIST))
        .ok()?;
    get(tid)
}

impl Section {
    /// Whether it is settled and waits for the return of its call.
    #[inline(always)]
    pub fn waits(&self) -> bool {
        self.state == SETTLED || self.state == PAGES_PENDING
    }

    /// Begins anew for `mm`.
    #[inline(always)]
    pub fn begin(&mut self, mm: u64) {
        self.mm = mm;
        self.number = 0;
        self.state = OPEN;
        self.has = 0;
        self.taken_ns = 0;
        self.unmap.runs = 0;
        self.unmap.pages = 0;
        self.unmap.vmas = 0;
        self.map.own_file = 0;
        self.suspects = 0;
        self.old_prot = 0;
    }

    /// Whether it is known to have changed anything.
    #[inline(always)]
    pub fn changed(&self) -> bool {
        self.has & HAS_MAP != 0
            || self.unmap.pages != 0
            || self.vmas_delta != 0
            || self.pages_delta != 0
    }

    /// Whether a bit of `has` is set.
    #[inline(always)]
    pub fn has(&self, bit: u32) -> bool {
        self.has & bit != 0
    }

    /// What is dangerous about what it made.
    #[inline(always)]
    pub fn suspects(&self) -> Suspects {
        Suspects::from_bits(self.suspects)
    }

    /// Adds a VMA that had the protection `old`.
    #[inline(always)]
    pub fn note_protect(&mut self, old: u64, suspects: Suspects) {
        self.old_prot |= suspect::access(old);
        self.suspects |= suspects.bits();
        self.has |= HAS_OLD_PROT;
    }

    /// Adds a run of the unmap core.
    #[inline(always)]
    pub fn note_unmap(&mut self, start: u64, end: u64, pages: u64) {
        let unmap = &mut self.unmap;
        if unmap.runs == 0 {
            unmap.start = start;
            unmap.end = end;
        } else {
            if start < unmap.start {
                unmap.start = start;
            }
            if end > unmap.end {
                unmap.end = end;
            }
        }
        unmap.pages += pages;
        unmap.runs += 1;
    }
}

//! Page faults of one process, page by page.

use core::mem::size_of;

/// Pages of a [`Block`].
pub const BLOCK_PAGES: usize = 64;

/// Which block: neighbouring pages of one address space share one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockKey {
    /// Address of the `mm_struct`: an exec gives a process another.
    pub mm: u64,
    /// Address of its first page, by the number of bytes that a block covers.
    pub number: u64,
}

/// What happened to one page.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Minor faults.
    pub minor: u64,
    /// Major faults.
    pub major: u32,
    /// 1 once it was touched while it was not there.
    pub touched: u32,
}

/// What happened to each page of a block.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// In the order of addresses.
    pub pages: [Page; BLOCK_PAGES],
}

impl Block {
    /// Nothing yet.
    pub const NONE: Self = Self {
        pages: [Page {
            minor: 0,
            major: 0,
            touched: 0,
        }; BLOCK_PAGES],
    };
}

const _: () = assert!(size_of::<BlockKey>() == 16);
const _: () = assert!(size_of::<Block>() == BLOCK_PAGES * 16);

//! Which mappings became memory: the page faults of some time, put to the VMAs
//! that are there at its end.

use super::Vma;

/// The page faults of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageFaults {
    /// Minor faults of all pages.
    pub minor: u64,
    /// Major faults of all pages.
    pub major: u64,
    /// Page by page, in no order: as far as the kernel had room.
    pub pages: Vec<FaultedPage>,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Whether it is known which pages were there when they were touched.
    pub tells_touched: bool,
}

/// One page that had faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultedPage {
    /// Its address; `None` in an address space that is not the process's any
    /// more, because it called exec.
    pub address: Option<u64>,
    /// Minor faults.
    pub minor: u64,
    /// Major faults.
    pub major: u64,
    /// Whether it was not there when it was touched, once or more often.
    pub touched: bool,
}

/// The faults of a set of pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Minor faults.
    pub minor: u64,
    /// Major faults.
    pub major: u64,
    /// Bytes of the pages that were not there when they were touched, each
    /// counted once; 0 where that is not known.
    pub touched_bytes: u64,
}

impl Sum {
    fn add(&mut self, page: &FaultedPage, page_bytes: u64) {
        self.minor += page.minor;
        self.major += page.major;
        self.touched_bytes += if page.touched { page_bytes } else { 0 };
    }

    /// Whether there were none.
    pub const fn is_empty(&self) -> bool {
        self.minor == 0 && self.major == 0
    }
}

/// Faults by where they were. The faults of all parts are those of the total.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByMapping {
    /// Of each VMA, in their order.
    pub vmas: Vec<Sum>,
    /// Of addresses where nothing is mapped any more.
    pub unmapped: Sum,
    /// Of pages that the kernel had no room to tell apart; which of them were
    /// touched is not known.
    pub roomless: Sum,
    /// Of the process.
    pub total: Sum,
    /// Whether `touched_bytes` is known.
    pub tells_touched: bool,
}

/// Puts faults to VMAs, which are in the order of addresses. A page is told by
/// its address alone: mapped anew meanwhile, it is the new mapping's.
pub fn by_mapping(faults: &PageFaults, vmas: &[Vma<'_>]) -> ByMapping {
    let mut of = ByMapping {
        vmas: vec![Sum::default(); vmas.len()],
        tells_touched: faults.tells_touched,
        ..ByMapping::default()
    };
    for page in &faults.pages {
        let sum = page
            .address
            .and_then(|address| place(vmas, address))
            .and_then(|place| of.vmas.get_mut(place))
            .unwrap_or(&mut of.unmapped);
        sum.add(page, faults.page_bytes);
        of.total.add(page, faults.page_bytes);
    }
    of.roomless = Sum {
        minor: faults.minor.saturating_sub(of.total.minor),
        major: faults.major.saturating_sub(of.total.major),
        touched_bytes: 0,
    };
    of.total.minor += of.roomless.minor;
    of.total.major += of.roomless.major;
    of
}

/// Which VMA an address is in.
fn place(vmas: &[Vma<'_>], address: u64) -> Option<usize> {
    let after = vmas.partition_point(|vma| vma.line.range.start <= address);
    let place = after.checked_sub(1)?;
    (address < vmas.get(place)?.line.range.end).then_some(place)
}

#[cfg(test)]
mod tests;

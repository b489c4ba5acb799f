//! The page faults of one process, page by page: what `maps --faults` shows.

use aya::maps::{HashMap, MapData};
use mmwatch_common::{
    fault::{BLOCK_PAGES, Block, BlockKey},
    names,
};

use super::{
    Failure, KernelFilter, Programs, THREADS, Tables, chain, config, fault_plan, list_pids,
    load_object, other, plan_around, tables, take,
};
use crate::{
    error::Error,
    kernel::{facts::Facts, plan::FaultPlan},
    maps::faults::{FaultedPage, PageFaults},
    process::page_bytes,
    source::KernelCounters,
};

/// Blocks of pages that there is room for: 2 GiB where all is touched, 8 MiB of
/// the kernel's memory.
const BLOCKS: u32 = 1 << 13;

/// Entries of tables that one process needs.
const FEW: u32 = 64;

/// Programs attached to one process's page faults, and nothing else.
pub struct FaultWatch {
    pid: u32,
    programs: Programs,
    tables: Tables,
    blocks: HashMap<MapData, BlockKey, Block>,
    tells_touched: bool,
}

impl FaultWatch {
    /// Plans, loads and attaches, as [`attach`](super::attach) does.
    ///
    /// # Errors
    ///
    /// [`Error::Kernel`] when page faults cannot be counted here.
    pub fn attach(facts: &mut Facts, pid: u32) -> Result<Self, Error> {
        loop {
            let plan = fault_plan(facts)?;
            match Self::try_attach(facts, plan, pid) {
                Ok(watch) => return Ok(watch),
                Err(failure) => plan_around(facts, failure)?,
            }
        }
    }

    fn try_attach(facts: &Facts, plan: FaultPlan, pid: u32) -> Result<Self, Failure> {
        let filter = KernelFilter {
            pids: vec![pid],
            ops: 0,
            ..KernelFilter::NONE
        };
        let mut config = config(facts, &filter);
        config.fault_begins = u32::from(plan.tells_touched);
        config.fault_pages = 1;
        let sizes = [
            (names::FAULTS, THREADS),
            (names::BLOCKS, BLOCKS),
            // There are no records.
            (names::EVENTS, page_bytes() as u32),
            (names::PROCESSES, FEW),
            (names::SPACES, FEW),
            (names::SECTIONS, FEW),
            (names::FILES, FEW),
        ];
        let (mut ebpf, btf) = load_object(facts, &config, &sizes, || {
            "free some, or leave --faults out".to_owned()
        })?;
        list_pids(&mut ebpf, &filter)?;
        let blocks = take(&mut ebpf, names::BLOCKS, HashMap::try_from)?;
        let tables = Tables::new(&mut ebpf)?;
        tables::load_list(&mut ebpf, &btf)
            .map_err(|error| other("loading the list of processes", &error))?;
        Ok(Self {
            pid,
            tables,
            blocks,
            tells_touched: plan.tells_touched,
            programs: Programs::attach(ebpf, &btf, plan.programs)?,
        })
    }

    /// Detaches the programs; what they counted can still be read.
    pub fn stop(&mut self) {
        self.programs.stop();
    }

    /// What each program counted.
    ///
    /// # Errors
    ///
    /// [`Error::Kernel`] when the kernel does not let its maps be read.
    pub fn counters(&self) -> Result<KernelCounters, Error> {
        self.programs.counters()
    }

    /// All that was counted; to be asked after [`Self::stop`].
    ///
    /// # Errors
    ///
    /// As for [`Self::counters`].
    pub fn faults(&mut self) -> Result<PageFaults, Error> {
        let listed = tables::list(self.programs.ebpf_mut())?;
        let mm = listed
            .iter()
            .find(|row| row.tgid == self.pid)
            .map(|row| row.mm);
        let page_bytes = page_bytes();
        let mut faults = PageFaults {
            page_bytes,
            tells_touched: self.tells_touched,
            ..PageFaults::default()
        };
        for (_, process) in self.tables.sums()? {
            faults.minor += process.sums.minor_faults;
            faults.major += process.sums.major_faults;
        }
        for entry in self.blocks.iter() {
            let (key, block) = entry.map_err(|error| {
                Error::Kernel(format!("reading the page faults: {}", chain(&error)))
            })?;
            let first = key.number.wrapping_mul(BLOCK_PAGES as u64);
            for (number, page) in (first..).zip(block.pages) {
                if page.minor == 0 && page.major == 0 {
                    continue;
                }
                faults.pages.push(FaultedPage {
                    address: (mm == Some(key.mm)).then(|| number.wrapping_mul(page_bytes)),
                    minor: page.minor,
                    major: u64::from(page.major),
                    touched: page.touched != 0,
                });
            }
        }
        Ok(faults)
    }
}

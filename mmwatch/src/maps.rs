//! The address space of a process explained: every VMA with the part that it
//! plays and what its pages come from.
//!
//! [`read`] alone does input and output. What follows from what it read, here
//! and in [`clues`], [`elf`], [`faults`], [`mod@file`], [`segment`], [`diff`], [`history`] and
//! [`past`], is pure.

pub mod clues;
pub mod diff;
pub mod elf;
pub mod faults;
pub mod file;
pub mod history;
pub mod past;
pub mod read;
pub mod segment;

use std::collections::BTreeMap;

pub use self::{
    elf::Part,
    file::FileKind,
    history::{Deed, History, Life},
    past::Past,
    segment::{Certainty, Segment},
};
use crate::{
    event::{Backing, Comm, Suspect, Suspects},
    space::{Line, MalformedLine, snapshot::lines},
};

/// The address space of a process.
#[derive(Clone, Debug)]
pub struct AddressSpace<'a> {
    /// Whose.
    pub pid: u32,
    /// The name of the process's first thread.
    pub comm: Comm,
    /// Whether reading it took the process's lock.
    pub lock: Lock,
    /// All of it, in the order of addresses.
    pub vmas: Vec<Vma<'a>>,
    /// The watch that tells what became of it, if there is one.
    pub watch: Option<Watch>,
}

/// The time that an address space was watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Since when, ns of the boot clock.
    pub since_boot_ns: u64,
    /// Until when: the moment of the look.
    pub now_boot_ns: u64,
    /// Events that were lost, and what they would have told with them.
    pub lost_events: u64,
}

/// One VMA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vma<'a> {
    /// Its line of `/proc/PID/maps`.
    pub line: Line<'a>,
    /// The part that it plays.
    pub segment: Segment,
    /// How sure that is.
    pub certainty: Certainty,
    /// The path of the ELF object that it is a part of, as the kernel has it.
    pub object: Option<&'a [u8]>,
    /// What its pages come from.
    pub backing: Backing,
    /// What of it is in memory, where that was asked for.
    pub residency: Option<Residency>,
    /// What became of it while it was watched, by address: of a VMA that the
    /// kernel merged, one for each of its parts. Empty for what nobody touched.
    pub lives: Vec<Life>,
}

impl Vma<'_> {
    /// What is dangerous about it. How it came to be so, a snapshot cannot tell.
    pub fn suspects(&self) -> Suspects {
        let line = &self.line;
        // The kernel's own code: vdso, vsyscall, uprobes.
        if self.backing == Backing::Special && !line.has_file() {
            return Suspects::NONE;
        }
        let stack = self.segment == Segment::Stack
            || self.segment == Segment::ThreadStack && self.certainty == Certainty::Known;
        let memory = segment::behind(line)
            .and(Suspects::when(stack, Suspect::StackExec))
            .and(Suspects::when(
                self.segment == Segment::Heap,
                Suspect::HeapExec,
            ));
        Suspects::of_mapping(line.prot.0.into(), memory)
    }
}

/// What of a mapping is in memory, bytes, by `/proc/PID/smaps`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Residency {
    /// In memory (`Rss`), without huge pages of hugetlbfs.
    pub resident_bytes: u64,
    /// In memory, each page divided by the number of its users (`Pss`).
    pub proportional_bytes: u64,
    /// In memory, and in other mappings too.
    pub shared_bytes: u64,
    /// In memory, for this mapping alone.
    pub private_bytes: u64,
    /// On a swap device (`Swap`).
    pub swapped_bytes: u64,
    /// In huge pages, transparent ones and those of hugetlbfs.
    pub huge_bytes: u64,
}

impl Residency {
    fn add(&mut self, other: &Self) {
        self.resident_bytes += other.resident_bytes;
        self.proportional_bytes += other.proportional_bytes;
        self.shared_bytes += other.shared_bytes;
        self.private_bytes += other.private_bytes;
        self.swapped_bytes += other.swapped_bytes;
        self.huge_bytes += other.huge_bytes;
    }
}

/// What reading an address space takes of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Nothing: the kernel reads VMA by VMA under locks of their own, and takes
    /// `mmap_lock` only where one is being changed at that moment.
    PerVma,
    /// Its `mmap_lock` for reading, for about fifty VMAs at a time.
    Mmap,
    /// Its `mmap_lock` for reading while page tables are walked (`--smaps`).
    MmapAndPageTables,
    /// The kernel does not say.
    Unknown,
    /// Nothing: nothing was read, it is what the events of a recording tell.
    Recording,
}

impl Lock {
    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PerVma => "per-vma",
            Self::Mmap => "mmap",
            Self::MmapAndPageTables => "mmap-page-tables",
            Self::Unknown => "unknown",
            Self::Recording => "recording",
        }
    }
}

/// How much there is of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Number of VMAs.
    pub vmas: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What of them is in memory, where that was asked for.
    pub residency: Option<Residency>,
}

impl Sum {
    fn add(&mut self, vma: &Vma<'_>) {
        self.vmas += 1;
        self.bytes += vma.line.size_bytes();
        if let Some(residency) = &vma.residency {
            self.residency.get_or_insert_default().add(residency);
        }
    }
}

impl AddressSpace<'_> {
    /// All of it.
    pub fn total(&self) -> Sum {
        let mut sum = Sum::default();
        self.vmas.iter().for_each(|vma| sum.add(vma));
        sum
    }

    /// By segment, in their order.
    pub fn by_segment(&self) -> BTreeMap<Segment, Sum> {
        self.sums(|vma| vma.segment)
    }

    /// By backing; those that do not occur are absent.
    pub fn by_backing(&self) -> Vec<(Backing, Sum)> {
        let sums = self.sums(|vma| vma.backing as u8);
        let all = Backing::ALL.iter();
        all.filter_map(|&backing| Some((backing, *sums.get(&(backing as u8))?)))
            .collect()
    }

    /// By kind of danger; a VMA can be of several. Those that do not occur are absent.
    pub fn by_suspect(&self) -> Vec<(Suspect, Sum)> {
        let all = Suspect::ALL.iter();
        all.filter_map(|&suspect| {
            let mut sum = Sum::default();
            let those = self.vmas.iter().filter(|vma| vma.suspects().has(suspect));
            those.for_each(|vma| sum.add(vma));
            (sum.vmas > 0).then_some((suspect, sum))
        })
        .collect()
    }

    fn sums<K: Ord>(&self, key: impl Fn(&Vma<'_>) -> K) -> BTreeMap<K, Sum> {
        let mut sums: BTreeMap<K, Sum> = BTreeMap::new();
        for vma in &self.vmas {
            sums.entry(key(vma)).or_default().add(vma);
        }
        sums
    }
}

/// The lines of `/proc/PID/maps`.
pub fn parse_maps(text: &[u8]) -> Result<Vec<Line<'_>>, MalformedLine> {
    lines(text)
        .enumerate()
        .map(|(index, line)| Line::parse(line).ok_or_else(|| MalformedLine::new(index + 1, line)))
        .collect()
}

/// One VMA's entry in `/proc/PID/smaps`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// What of it is in memory.
    pub residency: Residency,
    /// Whether the kernel maps memory of a device there (`io` or `pf` of `VmFlags`).
    pub is_device: bool,
    /// Whether its pages are of hugetlbfs (`ht` of `VmFlags`).
    pub is_hugetlb: bool,
}

/// The entries of `/proc/PID/smaps`. Fields that mmwatch does not know are skipped.
pub fn parse_smaps(text: &[u8]) -> Result<(Vec<Line<'_>>, Vec<Detail>), MalformedLine> {
    let mut vmas = Vec::new();
    let mut details: Vec<Detail> = Vec::new();
    for (index, text) in lines(text).enumerate() {
        if let Some(line) = Line::parse(text) {
            vmas.push(line);
            details.push(Detail::default());
            continue;
        }
        let field = details.last_mut().and_then(|detail| field(detail, text));
        field.ok_or_else(|| MalformedLine::new(index + 1, text))?;
    }
    Ok((vmas, details))
}

/// Adds a line `Name:  12 kB` to the entry that it is of.
fn field(detail: &mut Detail, line: &[u8]) -> Option<()> {
    let line = str::from_utf8(line).ok()?;
    let (name, value) = line.split_once(':')?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !name.bytes().all(is_name) {
        return None;
    }
    let residency = &mut detail.residency;
    let sum = match name {
        "Rss" => &mut residency.resident_bytes,
        "Pss" => &mut residency.proportional_bytes,
        "Shared_Clean" | "Shared_Dirty" => &mut residency.shared_bytes,
        "Private_Clean" | "Private_Dirty" => &mut residency.private_bytes,
        "Swap" => &mut residency.swapped_bytes,
        "AnonHugePages" | "ShmemPmdMapped" | "FilePmdMapped" | "Shared_Hugetlb"
        | "Private_Hugetlb" => &mut residency.huge_bytes,
        "VmFlags" => {
            for flag in value.split_ascii_whitespace() {
                detail.is_device |= flag == "io" || flag == "pf";
                detail.is_hugetlb |= flag == "ht";
            }
            return Some(());
        }
        _ => return Some(()),
    };
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    *sum = sum.checked_add(kib.checked_mul(1024)?)?;
    Some(())
}

/// Puts what `/proc/PID/smaps` says of each VMA to it.
pub fn add_details(vmas: &mut [Vma<'_>], details: &[Detail]) {
    for (vma, detail) in vmas.iter_mut().zip(details) {
        vma.residency = Some(detail.residency);
        let told = if detail.is_hugetlb && vma.segment != Segment::Memfd {
            Segment::Hugetlb
        } else if detail.is_device && vma.backing != Backing::Special {
            vma.backing = Backing::Special;
            Segment::Special
        } else {
            continue;
        };
        vma.segment = told;
        vma.certainty = Certainty::Known;
    }
}

#[cfg(test)]
mod tests;

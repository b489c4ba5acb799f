//! Which parts an ELF object has, by its program headers: what the kernel and
//! ld.so map it by.

use std::ops::Range;

use object::{
    Endianness, FileKind, ReadRef, elf,
    read::elf::{FileHeader, ProgramHeader as _},
};

/// A part of an ELF object's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Code.
    Text,
    /// Constants, and the headers and tables that the loader reads.
    Rodata,
    /// Data that the loader writes to once, and makes read-only then.
    Relro,
    /// Variables with a value in the file.
    Data,
    /// Variables that begin as zero and take no room in the file.
    Bss,
}

impl Part {
    /// All, in the order of most images.
    pub const ALL: [Self; 5] = [Self::Text, Self::Rodata, Self::Relro, Self::Data, Self::Bss];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Rodata => "rodata",
            Self::Relro => "relro",
            Self::Data => "data",
            Self::Bss => "bss",
        }
    }
}

/// What a mapping is to an object whose image covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is this part.
    Part(Part),
    /// It begins in this part, and something else is in it too, or in its place.
    Begins(Part),
    /// It keeps the addresses between two parts from being used.
    Hole,
}

/// The program headers that say what is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    loads: Vec<Load>,
    /// Addresses that are made read-only once the loader is done.
    relro: Option<Range<u64>>,
    page_bytes: u64,
}

/// A `PT_LOAD`. Its addresses do not overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Load {
    offset: u64,
    addr: u64,
    file_bytes: u64,
    memory_bytes: u64,
    part: Part,
}

/// Program headers that an object has at most; those of real ones have some
/// ten, and a number out of a broken header must not become memory.
const MAX_HEADERS: u16 = 256;

impl Elf {
    /// Reads the headers; `None` for what is not an ELF object that can be mapped.
    pub fn parse<'d, R: ReadRef<'d>>(data: R, page_bytes: u64) -> Option<Self> {
        match FileKind::parse(data).ok()? {
            FileKind::Elf32 => Self::of::<elf::FileHeader32<Endianness>, R>(data, page_bytes),
            FileKind::Elf64 => Self::of::<elf::FileHeader64<Endianness>, R>(data, page_bytes),
            _ => None,
        }
    }

    fn of<'d, H: FileHeader<Endian = Endianness>, R: ReadRef<'d>>(
        data: R,
        page_bytes: u64,
    ) -> Option<Self> {
        let header = H::parse(data).ok()?;
        let endian = header.endian().ok()?;
        if header.e_phnum(endian) > MAX_HEADERS {
            return None;
        }
        let mut loads = Vec::new();
        let mut relro = None;
        for segment in header.program_headers(endian, data).ok()? {
            let addr = segment.p_vaddr(endian).into();
            let memory_bytes = segment.p_memsz(endian).into();
            let end = addr.checked_add(memory_bytes)?;
            match segment.p_type(endian) {
                elf::PT_LOAD => {
                    let flags = segment.p_flags(endian);
                    let file_bytes = segment.p_filesz(endian).into();
                    let offset: u64 = segment.p_offset(endian).into();
                    offset.checked_add(file_bytes)?;
                    loads.push(Load {
                        offset,
                        addr,
                        file_bytes: memory_bytes.min(file_bytes),
                        memory_bytes,
                        part: if flags & elf::PF_X != 0 {
                            Part::Text
                        } else if flags & elf::PF_W != 0 {
                            Part::Data
                        } else {
                            Part::Rodata
                        },
                    });
                }
                elf::PT_GNU_RELRO => relro = Some(addr..end),
                _ => {}
            }
        }
        (!loads.is_empty()).then_some(Self {
            loads,
            relro,
            page_bytes,
        })
    }

    /// What is to be added to the object's addresses, told by a mapping of its
    /// code: it starts at `start` with what the file has at `offset`. Wraps, as
    /// objects may be made for addresses above those that they get.
    pub fn bias(&self, start: u64, offset: u64) -> Option<u64> {
        let texts = self.loads.iter().filter(|load| load.part == Part::Text);
        texts
            .filter(|load| {
                let first = self.down(load.offset);
                (first..load.offset + load.file_bytes).contains(&offset)
            })
            .map(|load| {
                let addr = self
                    .down(load.addr)
                    .wrapping_add(offset - self.down(load.offset));
                start.wrapping_sub(addr)
            })
            .next()
    }

    /// The addresses of the whole image, whole pages, before the bias.
    pub fn span(&self) -> Range<u64> {
        let starts = self.loads.iter().map(|load| self.down(load.addr));
        let ends = self.loads.iter().map(|load| self.up(load.end()));
        starts.min().unwrap_or(0)..ends.max().unwrap_or(0)
    }

    /// What a mapping of the file itself is, by its addresses before the bias;
    /// `None` where no loader would map this `offset`.
    pub fn place_of_file(&self, range: &Range<u64>, offset: u64, writable: bool) -> Option<Place> {
        let load = self.loads.iter().find(|load| {
            let first = self.down(load.addr);
            (first..load.addr + load.file_bytes).contains(&range.start)
                && self.down(load.offset).wrapping_add(range.start - first) == offset
        });
        if let Some(load) = load {
            let part = self.part(load.part, range, writable);
            return Some(self.fit(part, range, load.addr + load.file_bytes));
        }
        let span = self.span();
        (span.start <= range.start && range.end <= span.end && !self.is_loaded(range))
            .then_some(Place::Hole)
    }

    /// What anonymous memory is, by its addresses before the bias; `None` when
    /// it does not begin in the image.
    pub fn place_of_memory(&self, range: &Range<u64>, writable: bool) -> Option<Place> {
        let load = self
            .loads
            .iter()
            .find(|load| (self.down(load.addr)..self.up(load.end())).contains(&range.start))?;
        if range.start < self.up(load.addr + load.file_bytes) {
            // Something else has taken the place of what the file has there.
            return Some(Place::Begins(self.part(load.part, range, writable)));
        }
        let part = self.part(Part::Bss, range, writable);
        Some(self.fit(part, range, load.end()))
    }

    fn is_loaded(&self, range: &Range<u64>) -> bool {
        self.loads
            .iter()
            .any(|load| self.down(load.addr) < range.end && range.start < self.up(load.end()))
    }

    /// Relro, or the part of the image that it would be without.
    fn part(&self, part: Part, range: &Range<u64>, writable: bool) -> Part {
        match &self.relro {
            Some(relro)
                if !writable && (self.down(relro.start)..relro.end).contains(&range.start) =>
            {
                Part::Relro
            }
            _ => part,
        }
    }

    /// A part, if the mapping ends with what it is of.
    fn fit(&self, part: Part, range: &Range<u64>, end: u64) -> Place {
        if range.end <= self.up(end) {
            Place::Part(part)
        } else {
            Place::Begins(part)
        }
    }

    const fn down(&self, addr: u64) -> u64 {
        addr & !(self.page_bytes - 1)
    }

    const fn up(&self, addr: u64) -> u64 {
        self.down(addr.saturating_add(self.page_bytes - 1))
    }
}

impl Load {
    const fn end(&self) -> u64 {
        self.addr + self.memory_bytes
    }
}

#[cfg(test)]
pub(crate) mod tests;

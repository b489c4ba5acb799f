//! What `/proc/PID/maps` says.

use std::{io::BufRead, iter, ops::Range};

use super::ranges::{Backed, Mapping, Ranges};
use crate::{event::Dev, flags::Prot};

/// An address space as `/proc/PID/maps` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What is mapped where.
    pub ranges: Ranges,
    /// Number of VMAs, `[vsyscall]` left out, which the kernel does not count either.
    pub vmas: u32,
    /// Device and inode of `/dev/zero`, where it is mapped.
    pub zero_file: Option<(Dev, u64)>,
}

/// A line that is not one of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {number} is not one of /proc/PID/maps: {line:?}")]
pub struct MalformedLine {
    /// Which line, from 1.
    pub number: usize,
    /// What it says.
    pub line: String,
}

impl MalformedLine {
    /// The line of this number, from 1.
    pub(crate) fn new(number: usize, line: &[u8]) -> Self {
        Self {
            number,
            line: String::from_utf8_lossy(line).into_owned(),
        }
    }
}

impl Snapshot {
    /// From the file's text.
    ///
    /// The kernel hands it out a piece at a time, so where the address space
    /// changes meanwhile, ranges may come twice: what comes later counts.
    pub fn parse(text: &[u8]) -> Result<Self, MalformedLine> {
        let mut vmas = 0;
        let mut zero_file = None;
        let ranges = lines(text)
            .enumerate()
            .filter(|(_, line)| !line.ends_with(b" [vsyscall]"))
            .map(|(index, line)| {
                vmas += 1;
                let line = Line::parse(line).ok_or_else(|| MalformedLine::new(index + 1, line))?;
                let mapping = line.mapping();
                if line.name == b"/dev/zero" {
                    zero_file = mapping.file();
                }
                Ok((line.range, mapping))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            ranges,
            vmas,
            zero_file,
        })
    }
}

/// The lines without their ends.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    iter::from_fn(move || {
        let text = rest;
        // Of what searches for a byte, the fast one. Memory does not fail to be read.
        let len = rest.skip_until(b'\n').unwrap_or(0);
        let line = text.get(..len).filter(|line| !line.is_empty())?;
        Some(line.strip_suffix(b"\n").unwrap_or(line))
    })
}

/// A line of `/proc/PID/maps`, one VMA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its addresses.
    pub range: Range<u64>,
    /// Its permissions.
    pub prot: Prot,
    /// Whether writes reach other mappings of the same pages.
    pub shared: bool,
    /// Where in the file it begins, bytes.
    pub offset: u64,
    /// The file's device, 0 for none.
    pub dev: Dev,
    /// The file's inode, 0 for none.
    pub inode: u64,
    /// The file's path, or a name such as `[heap]`; empty for none.
    pub name: &'a [u8],
}

impl<'a> Line<'a> {
    /// `START-END PERMS OFFSET MAJ:MIN INODE NAME`, all but the inode in hex;
    /// `None` for any other line.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let (start, rest) = hex(line, b'-')?;
        let (end, rest) = hex(rest, b' ')?;
        let (&[read, write, execute, kind, space], rest) = rest.split_first_chunk()?;
        let (offset, rest) = hex(rest, b' ')?;
        let (major, rest) = hex(rest, b':')?;
        let (minor, rest) = hex(rest, b' ')?;
        let (inode, rest) = decimal(rest)?;

        let prot = bit(read, b'r', 1)? | bit(write, b'w', 2)? | bit(execute, b'x', 4)?;
        let shared = match (kind, space) {
            (b's', b' ') => true,
            (b'p', b' ') => false,
            _ => return None,
        };
        let dev = u32::try_from(major).ok()?.checked_mul(1 << 20)? | u32::try_from(minor).ok()?;
        (start < end).then_some(Self {
            range: start..end,
            prot: Prot(prot),
            shared,
            offset,
            dev: Dev(dev),
            inode,
            name: rest.trim_ascii_start(),
        })
    }

    /// Whether something that has a device or an inode is behind it. `[heap]`,
    /// `[stack]`, `[anon:…]` and `[vdso]` are names, not files.
    pub const fn has_file(&self) -> bool {
        self.dev.0 != 0 || self.inode != 0
    }

    /// Its length in bytes.
    pub const fn size_bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn mapping(&self) -> Mapping {
        let backed = if self.has_file() {
            Backed::File {
                dev: self.dev,
                inode: self.inode,
                offset: self.offset,
            }
        } else {
            Backed::Anonymous
        };
        Mapping {
            prot: self.prot,
            shared: self.shared,
            backed,
        }
    }
}

/// A permission's bit, 0 for `-`.
fn bit(byte: u8, letter: u8, bit: u32) -> Option<u32> {
    match byte {
        b'-' => Some(0),
        _ if byte == letter => Some(bit),
        _ => None,
    }
}

/// A number in hex that ends with `end`, and what follows.
fn hex(line: &[u8], end: u8) -> Option<(u64, &[u8])> {
    let mut value: u64 = 0;
    for (index, &byte) in line.iter().enumerate() {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ if byte == end && index != 0 => return Some((value, line.get(index + 1..)?)),
            _ => return None,
        };
        if value >> 60 != 0 {
            return None;
        }
        value = value << 4 | u64::from(digit);
    }
    None
}

/// A number that ends with a space or with the line, and what follows.
fn decimal(line: &[u8]) -> Option<(u64, &[u8])> {
    let mut value: u64 = 0;
    for (index, &byte) in line.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                value = value.checked_mul(10)?.checked_add((byte - b'0').into())?;
            }
            b' ' if index != 0 => return Some((value, line.get(index + 1..)?)),
            _ => return None,
        }
    }
    (!line.is_empty()).then_some((value, &[]))
}

#[cfg(test)]
mod tests;

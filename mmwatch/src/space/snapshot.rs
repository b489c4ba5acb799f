//! What `/proc/PID/maps` says.

use std::ops::Range;

use super::ranges::{Backed, Mapping, Ranges};
use crate::{event::Dev, flags::Prot};

/// An address space as `/proc/PID/maps` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What is mapped where.
    pub ranges: Ranges,
    /// Number of VMAs, `[vsyscall]` left out, which the kernel does not count either.
    pub vmas: u32,
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

impl Snapshot {
    /// From the file's text.
    ///
    /// The kernel hands it out a piece at a time, so where the address space
    /// changes meanwhile, ranges may come twice: what comes later counts.
    pub fn parse(text: &[u8]) -> Result<Self, MalformedLine> {
        let mut snapshot = Self::default();
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        if text.is_empty() {
            return Ok(snapshot);
        }
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            if line.ends_with(b" [vsyscall]") {
                continue;
            }
            let (range, mapping) = area(line).ok_or_else(|| MalformedLine {
                number: index + 1,
                line: String::from_utf8_lossy(line).into_owned(),
            })?;
            snapshot.ranges.set(range, mapping);
            snapshot.vmas += 1;
        }
        Ok(snapshot)
    }
}

/// `START-END PERMS OFFSET MAJ:MIN INODE NAME`, all but the inode in hex.
fn area(line: &[u8]) -> Option<(Range<u64>, Mapping)> {
    let (start, rest) = number(line, 16, b'-')?;
    let (end, rest) = number(rest, 16, b' ')?;
    let (&[read, write, execute, kind, space], rest) = rest.split_first_chunk()?;
    let (offset, rest) = number(rest, 16, b' ')?;
    let (major, rest) = number(rest, 16, b':')?;
    let (minor, rest) = number(rest, 16, b' ')?;
    // The name is padded to a column; a line without one ends with the inode.
    let (inode, _name) = number(rest, 10, b' ')?;

    let prot = bit(read, b'r', 1)? | bit(write, b'w', 2)? | bit(execute, b'x', 4)?;
    let shared = match (kind, space) {
        (b's', b' ') => true,
        (b'p', b' ') => false,
        _ => return None,
    };
    let dev = u32::try_from(major).ok()?.checked_mul(1 << 20)? | u32::try_from(minor).ok()?;
    // [heap], [stack], [anon:...] and [vdso] are names, not files.
    let backed = if dev == 0 && inode == 0 {
        Backed::Anonymous
    } else {
        Backed::File {
            dev: Dev(dev),
            inode,
            offset,
        }
    };
    let mapping = Mapping {
        prot: Prot(prot),
        shared,
        backed,
    };
    (start < end).then_some((start..end, mapping))
}

/// A permission's bit, 0 for `-`.
fn bit(byte: u8, letter: u8, bit: u32) -> Option<u32> {
    match byte {
        b'-' => Some(0),
        _ if byte == letter => Some(bit),
        _ => None,
    }
}

/// A number up to `end` or the line's end, and what follows.
fn number(line: &[u8], radix: u32, end: u8) -> Option<(u64, &[u8])> {
    let mut value: u64 = 0;
    for (index, &byte) in line.iter().enumerate() {
        if byte == end && index != 0 {
            return Some((value, line.get(index + 1..)?));
        }
        let digit = char::from(byte).to_digit(radix)?;
        value = value.checked_mul(radix.into())?.checked_add(digit.into())?;
    }
    (!line.is_empty()).then_some((value, &[]))
}

#[cfg(test)]
mod tests;

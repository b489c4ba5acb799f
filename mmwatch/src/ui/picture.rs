//! `maps --picture`: a whole address space on one screen, to scale in steps of two.

use std::{
    cmp::Reverse,
    fmt::{self, Write as _},
    iter::repeat_n,
};

use rustc_hash::FxHashMap;

use super::maps::title;
use crate::{
    maps::{AddressSpace, Part, Segment, Vma},
    text::{Bytes, Escaped},
};

/// A row for each neighbourhood of mappings and for each gap between two, on
/// `rows` lines at most, of about `columns` characters.
pub fn draw(space: &AddressSpace<'_>, rows: usize, columns: usize) -> String {
    let mut out = String::with_capacity(4096);
    // Writing to a String cannot fail.
    let _ = picture(&mut out, space, rows, columns);
    out
}

/// Lines beside the picture itself: the title, the header and the legend.
const OTHER_LINES: usize = 6;

/// Characters of the longest bar; the whole of 47 bits takes 36.
const BAR: usize = 40;

fn picture(out: &mut String, space: &AddressSpace<'_>, rows: usize, columns: usize) -> fmt::Result {
    title(out, space)?;
    writeln!(out, "\n{:>16} {:>9} {:>6}", "ADDRESS", "SIZE", "VMAS")?;
    let mut end = 0;
    let groups = grouped(space, rows.saturating_sub(OTHER_LINES));
    for group in &groups {
        if let Some(gap @ 1..) = group.start().checked_sub(end) {
            let bar: String = repeat_n('.', cells(gap)).collect();
            writeln!(out, "{end:>16x} {:>9} {:>6} {bar}", Bytes(gap), "-")?;
        }
        let before = out.len();
        write!(
            out,
            "{:>16x} {:>9} {:>6} {} ",
            group.start(),
            Bytes(group.bytes()),
            group.vmas.len(),
            group.bar()
        )?;
        let used = out[before..].chars().count();
        writeln!(out, "{}", group.label(columns.saturating_sub(used)))?;
        end = group.end();
    }
    let mut letters: Vec<_> = space.vmas.iter().map(|vma| letter(vma.segment)).collect();
    letters.sort_unstable();
    letters.dedup();
    let letters: Vec<_> = letters
        .iter()
        .map(|(letter, meaning)| format!("{letter} {meaning}"))
        .collect();
    writeln!(
        out,
        "\nEach character doubles the size: one is 4KiB, 11 are 4MiB, 21 are 4GiB, 31 are 4TiB."
    )?;
    writeln!(out, "{}; . nothing", letters.join(", "))
}

/// What a bar shows a segment as, and in words.
const fn letter(segment: Segment) -> (char, &'static str) {
    match segment {
        Segment::Program(part) | Segment::Interpreter(part) | Segment::Library(part) => {
            match part {
                Part::Text => ('t', "text"),
                Part::Rodata => ('r', "rodata"),
                Part::Relro => ('R', "relro"),
                Part::Data => ('d', "data"),
                Part::Bss => ('b', "bss"),
            }
        }
        Segment::Heap => ('h', "heap"),
        Segment::Stack | Segment::ThreadStack => ('s', "stack"),
        Segment::Guard => ('|', "guard"),
        Segment::Reserved => ('_', "reserved"),
        Segment::Vdso | Segment::Vvar | Segment::Vsyscall => ('v', "vdso"),
        Segment::Shm | Segment::Memfd => ('m', "shm"),
        Segment::Hugetlb => ('H', "hugetlb"),
        Segment::File => ('f', "file"),
        Segment::Anon => ('a', "anon"),
        Segment::Jit => ('J', "jit"),
        Segment::Special => ('*', "special"),
    }
}

/// Characters of a bar: one for a page, one more each time it doubles.
fn cells(bytes: u64) -> usize {
    (((bytes >> 12).max(1)).ilog2() as usize + 1).min(BAR)
}

/// Neighbours that are shown as one row.
struct Group<'s, 'a> {
    vmas: &'s [Vma<'a>],
}

/// Splits the address space into as many groups as there are rows for: at large
/// gaps first, then between large neighbours of different sorts.
fn grouped<'s, 'a>(space: &'s AddressSpace<'a>, rows: usize) -> Vec<Group<'s, 'a>> {
    let runs: Vec<Group<'_, '_>> = space
        .vmas
        .chunk_by(|below, above| gap(below, above) == 0 && sort(below) == sort(above))
        .map(|vmas| Group { vmas })
        .collect();
    let mut end = 0;
    let mut borders: Vec<_> = runs
        .windows(2)
        .map(|pair| {
            end += pair[0].vmas.len();
            Border {
                end,
                gap: pair[1].start().saturating_sub(pair[0].end()),
                bytes: pair[0].bytes().min(pair[1].bytes()),
            }
        })
        .collect();
    borders.sort_by_key(|border| Reverse((cells(border.gap), border.bytes)));

    // The first row, and the gap below it.
    let mut used = 2;
    let mut ends: Vec<_> = borders
        .iter()
        .filter(|border| {
            let more = 1 + usize::from(border.gap > 0);
            let fits = used + more <= rows;
            used += if fits { more } else { 0 };
            fits
        })
        .map(|border| border.end)
        .collect();
    ends.sort_unstable();
    ends.push(space.vmas.len());
    let mut start = 0;
    ends.into_iter()
        .map(|end| {
            let vmas = &space.vmas[start..end];
            start = end;
            Group { vmas }
        })
        .filter(|group| !group.vmas.is_empty())
        .collect()
}

/// Between two runs.
struct Border {
    /// VMAs below it.
    end: usize,
    /// Bytes between them.
    gap: u64,
    /// Bytes of the smaller one.
    bytes: u64,
}

fn gap(below: &Vma<'_>, above: &Vma<'_>) -> u64 {
    above.line.range.start.saturating_sub(below.line.range.end)
}

/// What neighbours have in common that are one thing: the object they are
/// parts of, or their segment and name.
fn sort<'a>(vma: &Vma<'a>) -> (Option<&'a [u8]>, &'static str, &'a [u8]) {
    match vma.object {
        Some(object) => (Some(object), "", b""),
        None => (None, vma.segment.name(), vma.line.name),
    }
}

impl Group<'_, '_> {
    fn start(&self) -> u64 {
        self.vmas.first().map_or(0, |vma| vma.line.range.start)
    }

    fn end(&self) -> u64 {
        self.vmas.last().map_or(0, |vma| vma.line.range.end)
    }

    /// Bytes mapped.
    fn bytes(&self) -> u64 {
        self.vmas.iter().map(|vma| vma.line.size_bytes()).sum()
    }

    /// As long as the group is large, in the letters of what is in it. Each has
    /// its share by its own length on the same scale, as else the largest would
    /// hide all others.
    fn bar(&self) -> String {
        // In the order in which they come.
        let mut bytes: Vec<(char, u64)> = Vec::new();
        for vma in self.vmas {
            let letter = letter(vma.segment).0;
            match bytes.iter_mut().find(|(known, _)| *known == letter) {
                Some((_, sum)) => *sum += vma.line.size_bytes(),
                None => bytes.push((letter, vma.line.size_bytes())),
            }
        }
        let length = cells(self.bytes());
        let all: usize = bytes.iter().map(|&(_, bytes)| cells(bytes)).sum();
        let mut bar = String::new();
        let mut sum = 0;
        for (letter, bytes) in bytes {
            sum += cells(bytes);
            // Rounded to where it ends, so that the sum is the whole bar.
            let end = (sum * length + all / 2) / all.max(1);
            bar.extend(repeat_n(letter, end - bar.len()));
        }
        bar
    }

    /// What is in it, the largest first, in so many characters.
    fn label(&self, columns: usize) -> String {
        let mut names: Vec<(&[u8], u64)> = Vec::new();
        let mut places: FxHashMap<&[u8], usize> = FxHashMap::default();
        for vma in self.vmas {
            let bytes = vma.line.size_bytes();
            let place = *places.entry(name(vma)).or_insert_with(|| {
                names.push((name(vma), 0));
                names.len() - 1
            });
            names[place].1 += bytes;
        }
        names.sort_by_key(|&(_, bytes)| Reverse(bytes));
        let mut label = String::new();
        for (index, (name, _)) in names.iter().enumerate() {
            let left = names.len() - index - 1;
            let name = Escaped(name).to_string();
            let comma = if index == 0 { "" } else { ", " };
            let more = if left == 0 {
                0
            } else {
                format!(" +{left}").len()
            };
            let length = label.chars().count() + comma.len() + name.chars().count() + more;
            if index > 0 && length > columns {
                // Writing to a String cannot fail.
                let _ = write!(label, " +{}", left + 1);
                break;
            }
            label.push_str(comma);
            label.push_str(&name);
        }
        label
    }
}

/// The last part of the object's path, or what else it is.
fn name<'a>(vma: &Vma<'a>) -> &'a [u8] {
    let path = match vma.object {
        Some(object) => object,
        None if vma.line.name.starts_with(b"/") => vma.line.name,
        None => return vma.segment.name().as_bytes(),
    };
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests;

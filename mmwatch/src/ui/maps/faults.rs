//! `maps --faults`: every VMA with its page faults.

use std::fmt::{self, Write as _};

use super::{kind, name, range, segment, title};
use crate::{
    ledger::Ledger,
    maps::{
        AddressSpace,
        faults::{ByMapping, Sum},
    },
    text::{Bytes, Nanos},
};

/// Every VMA with the page faults of the `elapsed_ns` before it was read, their
/// sum, and the ledger as the end.
pub fn draw(
    space: &AddressSpace<'_>,
    faults: &ByMapping,
    elapsed_ns: u64,
    ledger: &Ledger,
) -> String {
    let mut out = String::with_capacity(4096 + space.vmas.len() * 140);
    // Writing to a String cannot fail.
    let _ = table(&mut out, space, faults, elapsed_ns, ledger);
    out
}

fn table(
    out: &mut String,
    space: &AddressSpace<'_>,
    faults: &ByMapping,
    elapsed_ns: u64,
    ledger: &Ledger,
) -> fmt::Result {
    title(out, space)?;
    writeln!(out, "page faults of {}\n", Nanos(elapsed_ns))?;
    writeln!(
        out,
        "{:<25} {:<4} {:<19} {:<9} {:>9} {:>9} {:>7} {:>9} NAME",
        "ADDRESS", "PERM", "SEGMENT", "BACKING", "SIZE", "MINOR", "MAJOR", "TOUCHED"
    )?;
    let told = faults.tells_touched;
    for (vma, sum) in space.vmas.iter().zip(&faults.vmas) {
        write!(
            out,
            "{:<25} {}{} {:<19} {:<9} {:>9}",
            range(vma),
            vma.line.prot.letters(),
            kind(vma),
            segment(vma),
            vma.backing.short_name(),
            Bytes(vma.line.size_bytes()),
        )?;
        counts(out, sum, told)?;
        name(out, vma)?;
    }
    // Where there is nothing mapped, there is nothing to tell of it but this.
    for (what, sum, told) in [
        ("no longer mapped", &faults.unmapped, told),
        ("not told apart, for want of room", &faults.roomless, false),
    ] {
        if !sum.is_empty() {
            write!(out, "{what:<70}")?;
            counts(out, sum, told)?;
            out.write_char('\n')?;
        }
    }
    write!(out, "{:<60} {:>9}", "all", Bytes(space.total().bytes))?;
    counts(out, &faults.total, told)?;
    write!(out, "\n\n{ledger}")
}

fn counts(out: &mut String, sum: &Sum, tells_touched: bool) -> fmt::Result {
    write!(out, " {:>9} {:>7} ", sum.minor, sum.major)?;
    if tells_touched {
        write!(out, "{:>9}", Bytes(sum.touched_bytes))
    } else {
        write!(out, "{:>9}", "-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Comm,
        ledger::Received,
        maps::{Lock, parse_maps, segment::classify},
        source::KernelCounters,
    };

    fn drawn(faults: &ByMapping) -> String {
        let lines = parse_maps(b"10000-20000 rw-p 00000000 00:00 0 [heap]\n").unwrap();
        let space = AddressSpace {
            pid: 7,
            comm: Comm::new(*b"cat\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            lock: Lock::PerVma,
            vmas: classify(lines, &Default::default()),
            watch: None,
        };
        let ledger = Ledger {
            kernel: KernelCounters::default(),
            received: Received::default(),
            sinks: Vec::new(),
            closed: true,
            replay: None,
        };
        draw(&space, faults, 2_000_000_000, &ledger)
    }

    #[test]
    fn what_cannot_be_put_to_a_mapping_has_rows_of_its_own() {
        let sum = |minor, touched_bytes| Sum {
            minor,
            major: 1,
            touched_bytes,
        };
        let mut faults = ByMapping {
            vmas: vec![sum(11, 4096)],
            tells_touched: true,
            total: sum(11, 4096),
            ..ByMapping::default()
        };
        let text = drawn(&faults);
        assert!(text.contains("11       1      4KiB [heap]\n"), "{text}");
        assert!(!text.contains("mapped "), "{text}");
        assert!(!text.contains("room"), "{text}");

        faults.unmapped = sum(22, 8192);
        faults.roomless = sum(33, 0);
        faults.total = sum(66, 12288);
        let text = drawn(&faults);
        let rows: Vec<_> = text.lines().skip(3).collect();
        let widths: Vec<_> = rows[..5].iter().map(|row| row.find("MINOR")).collect();
        assert!(widths[0].is_some(), "{text}");
        for (row, end) in [
            (2, "22       1      8KiB"),
            (3, "33       1         -"),
            (4, "66       1     12KiB"),
        ] {
            assert!(rows[row].ends_with(end), "{row}: {text}");
        }

        faults.tells_touched = false;
        assert!(drawn(&faults).contains("11       1         - [heap]"));
    }
}

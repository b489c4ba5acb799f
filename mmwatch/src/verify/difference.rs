//! What can differ between mmwatch and the kernel.

use std::fmt;

use crate::{
    churn::{OpSums, Sums},
    event::{Backing, Op, Suspect},
    space::ranges::{self, Backed, Mapping},
};

/// One thing of which mmwatch says something else than the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A range: `this` is the model's, `other` the kernel's.
    Range(ranges::Difference),
    /// The number of VMAs.
    Vmas {
        /// `map_count`.
        counted: u32,
        /// Lines of `/proc/PID/maps`.
        listed: u32,
    },
    /// A sum.
    Sum {
        /// Of what.
        of: &'static str,
        /// Which.
        sum: &'static str,
        /// As kept in the kernel. Signed sums as two's complement.
        kernel: u64,
        /// Of the events that came.
        events: u64,
    },
}

impl Difference {
    /// Its name in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Range(_) => "range",
            Self::Vmas { .. } => "vmas",
            Self::Sum { .. } => "sum",
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(difference) => write!(
                f,
                "{:x}-{:x} is {} in the kernel and {} here",
                difference.range.start,
                difference.range.end,
                Shown(difference.other),
                Shown(difference.this)
            ),
            Self::Vmas { counted, listed } => write!(
                f,
                "{counted} VMAs by the kernel's count, {listed} in /proc/PID/maps"
            ),
            Self::Sum {
                of,
                sum,
                kernel,
                events,
            } => write!(
                f,
                "{of}: {sum} is {kernel} in the kernel and {events} over the events that came"
            ),
        }
    }
}

/// A mapping as `/proc/PID/maps` would show it.
struct Shown(Option<Mapping>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(mapping) = self.0 else {
            return f.write_str("not mapped");
        };
        let kind = if mapping.shared { 's' } else { 'p' };
        write!(f, "{}{kind}", mapping.prot.letters())?;
        match mapping.backed {
            Backed::Anonymous => f.write_str(" anonymous"),
            Backed::UnknownFile => f.write_str(" of a file"),
            Backed::File { dev, inode, offset } => write!(f, " {offset:08x} {dev} {inode}"),
        }
    }
}

/// All sums that are not the same.
pub(super) fn of_sums(kernel: &Sums, events: &Sums) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut compare = |of, sum, kernel: u64, events: u64| {
        if kernel != events {
            found.push(Difference::Sum {
                of,
                sum,
                kernel,
                events,
            });
        }
    };
    for &op in Op::ALL {
        let OpSums {
            count,
            errors,
            bytes,
            vmas_delta,
            total_delta_bytes,
            held_count,
            held_ns,
        } = *kernel.op(op);
        let other = events.op(op);
        compare(op.name(), "count", count, other.count);
        compare(op.name(), "errors", errors, other.errors);
        compare(op.name(), "bytes", bytes, other.bytes);
        let (mine, theirs) = (vmas_delta.cast_unsigned(), other.vmas_delta.cast_unsigned());
        compare(op.name(), "vmas_delta", mine, theirs);
        let mine = total_delta_bytes.cast_unsigned();
        let theirs = other.total_delta_bytes.cast_unsigned();
        compare(op.name(), "total_delta_bytes", mine, theirs);
        compare(op.name(), "held_count", held_count, other.held_count);
        compare(op.name(), "held_ns", held_ns, other.held_ns);
    }
    for &backing in Backing::ALL {
        let (mine, theirs) = (kernel.backing(backing), events.backing(backing));
        compare(backing.name(), "maps", mine.maps, theirs.maps);
        compare(backing.name(), "bytes", mine.bytes, theirs.bytes);
    }
    for &suspect in Suspect::ALL {
        let (mine, theirs) = (kernel.suspect(suspect), events.suspect(suspect));
        compare(suspect.name(), "count", mine, theirs);
    }
    let all = "all";
    compare(
        all,
        "mapped_bytes",
        kernel.mapped_bytes,
        events.mapped_bytes,
    );
    let (mine, theirs) = (kernel.unmapped_bytes, events.unmapped_bytes);
    compare(all, "unmapped_bytes", mine, theirs);
    compare(
        all,
        "vmas_removed",
        kernel.vmas_removed,
        events.vmas_removed,
    );
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{churn::add_event, sample};

    #[test]
    fn each_sum_is_compared() {
        let mut sums = Sums::default();
        for &op in Op::ALL {
            add_event(&mut sums, &sample::event(op));
        }
        add_event(&mut sums, &sample::suspect());
        assert_eq!(of_sums(&sums, &sums), []);
        // As many differences as numbers that are not 0: five of each operation,
        // bytes of seven, two of one backing, two suspects, and three of all.
        let all = of_sums(&sums, &Sums::default()).len();
        assert_eq!(all, 10 * 5 + 7 + 2 + 2 + 3);
        let mut other = sums;
        other.ops[Op::Brk as usize].errors += 1;
        let found = of_sums(&sums, &other);
        assert_eq!(
            found[0].to_string(),
            "brk: errors is 0 in the kernel and 1 over the events that came"
        );
    }
}

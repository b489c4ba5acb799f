//! What changed of an address space between two moments.

use rustc_hash::{FxHashMap, FxHashSet};

use super::Vma;

/// What became of a VMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is there now.
    Appeared,
    /// It is there no more.
    Vanished,
    /// It has become larger.
    Grew,
    /// It has become smaller; what was split off has appeared.
    Shrank,
    /// It has other permissions.
    Changed,
}

impl Change {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Appeared,
        Self::Vanished,
        Self::Grew,
        Self::Shrank,
        Self::Changed,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Appeared => "appeared",
            Self::Vanished => "vanished",
            Self::Grew => "grew",
            Self::Shrank => "shrank",
            Self::Changed => "changed",
        }
    }
}

/// One VMA that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference<'a> {
    /// What became of it.
    pub change: Change,
    /// The VMA as it is, or was if it vanished.
    pub vma: &'a Vma<'a>,
    /// What it was, where it is the same one.
    pub was: Option<&'a Vma<'a>>,
    /// How many bytes more there are. The sum of all is the change of the whole.
    pub delta_bytes: i64,
}

/// What is different, by address.
///
/// A VMA is the same one when it has its start or its end and what is behind it
/// is the same. No more is known of two moments: what was unmapped and mapped
/// alike meanwhile is not seen.
pub fn compare<'a>(before: &'a [Vma<'a>], after: &'a [Vma<'a>]) -> Vec<Difference<'a>> {
    let mut gone: FxHashSet<usize> = (0..before.len()).collect();
    let places = |key: fn(&Vma<'_>) -> u64| -> FxHashMap<u64, usize> {
        before
            .iter()
            .enumerate()
            .map(|(at, vma)| (key(vma), at))
            .collect()
    };
    let starts = places(|vma| vma.line.range.start);
    let ends = places(|vma| vma.line.range.end);

    let mut pairs: Vec<Option<&Vma<'_>>> = vec![None; after.len()];
    // Those of the same range first, so that no neighbour takes their place.
    let same_range = |vma: &Vma<'_>, was: &Vma<'_>| vma.line.range == was.line.range;
    for (places, key, fits) in [
        (
            &starts,
            start as fn(&Vma<'_>) -> u64,
            same_range as fn(&Vma<'_>, &Vma<'_>) -> bool,
        ),
        (&starts, start, |_, _| true),
        (&ends, end, |_, _| true),
    ] {
        for (vma, pair) in after.iter().zip(&mut pairs) {
            if pair.is_none()
                && let Some(&at) = places.get(&key(vma))
                && let Some(was) = before.get(at)
                && fits(vma, was)
                && is_same(vma, was)
                && gone.remove(&at)
            {
                *pair = Some(was);
            }
        }
    }

    let met = after.iter().zip(pairs).filter_map(|(vma, was)| {
        let Some(was) = was else {
            return Some(Difference {
                change: Change::Appeared,
                vma,
                was: None,
                delta_bytes: vma.line.size_bytes() as i64,
            });
        };
        let delta_bytes = vma.line.size_bytes().wrapping_sub(was.line.size_bytes()) as i64;
        let change = match delta_bytes {
            1.. => Change::Grew,
            ..0 => Change::Shrank,
            0 if vma.line.prot != was.line.prot => Change::Changed,
            0 => return None,
        };
        Some(Difference {
            change,
            vma,
            was: Some(was),
            delta_bytes,
        })
    });
    let vanished = gone
        .iter()
        .filter_map(|&at| before.get(at))
        .map(|vma| Difference {
            change: Change::Vanished,
            vma,
            was: None,
            delta_bytes: (vma.line.size_bytes() as i64).wrapping_neg(),
        });
    let mut differences: Vec<_> = met.chain(vanished).collect();
    differences.sort_by_key(|difference| difference.vma.line.range.start);
    differences
}

const fn start(vma: &Vma<'_>) -> u64 {
    vma.line.range.start
}

const fn end(vma: &Vma<'_>) -> u64 {
    vma.line.range.end
}

/// Whether the same is behind both.
fn is_same(vma: &Vma<'_>, was: &Vma<'_>) -> bool {
    let behind = |vma: &Vma<'_>| (vma.line.dev, vma.line.inode, vma.line.shared, vma.backing);
    behind(vma) == behind(was) && vma.line.name == was.line.name
}

#[cfg(test)]
mod tests;

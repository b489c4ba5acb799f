//! Which kernels, backends and cases a run has: a cell is one boot.

use std::{fmt, str::FromStr};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum as _;

use super::{Hooks, kernels};

/// How many cells a test of all has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Every backend, the oldest and the newest kernel, and what the kernel programs do.
    Standard,
    /// Every kernel with every backend, and all cases.
    Full,
}

/// Which of the kernel tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cases {
    /// What the kernel programs do, which differs between kernels and backends.
    Hooks,
    /// What user space makes of it too.
    All,
}

impl Cases {
    /// As the kernel tests call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hooks => "hooks",
            Self::All => "all",
        }
    }
}

/// A kernel series and a backend: `6.12-kprobe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellName {
    pub series: String,
    pub hooks: Hooks,
}

impl fmt::Display for CellName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.series, self.hooks.name())
    }
}

impl FromStr for CellName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (series, hooks) = text.split_once('-')?;
            let hooks = Hooks::from_str(hooks, false).ok()?;
            Some(Self {
                series: kernels::parse_series(series).ok()?,
                hooks,
            })
        };
        parse().context("a cell is a kernel series and a backend, such as 6.12-kprobe")
    }
}

/// A cell to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub name: CellName,
    pub cases: Cases,
}

/// Of the standard size. 5.10 has no tracepoints of `mmap_lock`, so that its `tracepoint`
/// backend is another than that of this machine and of later kernels.
const STANDARD: [(Place, Hooks); 4] = [
    (Place::Oldest, Hooks::Tracepoint),
    (Place::Newest, Hooks::Kprobe),
    (Place::Oldest, Hooks::Fentry),
    (Place::Newest, Hooks::Fentry),
];

/// Where a kernel stands among those of [`kernels::STANDARD`].
#[derive(Clone, Copy)]
enum Place {
    Oldest,
    Newest,
}

/// The cells of `size`, without those before `from`.
pub fn of_size(size: Size, from: Option<&CellName>) -> Result<Vec<Wanted>> {
    let mut cells = match size {
        Size::Standard => {
            let [oldest, .., newest] = kernels::STANDARD;
            STANDARD
                .map(|(place, hooks)| match place {
                    Place::Oldest => wanted(oldest, hooks, Cases::Hooks),
                    Place::Newest => wanted(newest, hooks, Cases::Hooks),
                })
                .to_vec()
        }
        Size::Full => product(
            &kernels::STANDARD.map(str::to_owned),
            Hooks::value_variants(),
        ),
    };
    if let Some(from) = from {
        let Some(first) = cells.iter().position(|cell| cell.name == *from) else {
            let names: Vec<_> = cells.iter().map(|cell| cell.name.to_string()).collect();
            bail!("{from} is not one of the cells: {}", names.join(", "));
        };
        cells.drain(..first);
    }
    ensure!(!cells.is_empty(), "there are no cells to run");
    Ok(cells)
}

/// Whether a size has this cell.
///
/// # Errors
///
/// It has not; the message has the names of those that it has.
pub fn is_cell_of(size: Size, cell: &CellName) -> Result<()> {
    of_size(size, Some(cell)).map(|_| ())
}

/// Each kernel with each backend and all cases, in this order.
pub fn product(series: &[String], hooks: &[Hooks]) -> Vec<Wanted> {
    series
        .iter()
        .flat_map(|series| hooks.iter().map(|hooks| wanted(series, *hooks, Cases::All)))
        .collect()
}

fn wanted(series: &str, hooks: Hooks, cases: Cases) -> Wanted {
    Wanted {
        name: CellName {
            series: series.to_owned(),
            hooks,
        },
        cases,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(cells: &[Wanted]) -> Vec<String> {
        cells.iter().map(|cell| cell.name.to_string()).collect()
    }

    #[test]
    fn the_standard_size_has_every_backend_and_both_ends() {
        let cells = of_size(Size::Standard, None).unwrap();
        for hooks in Hooks::value_variants() {
            assert!(cells.iter().any(|cell| cell.name.hooks == *hooks));
        }
        let [oldest, .., newest] = kernels::STANDARD;
        for series in [oldest, newest] {
            assert!(cells.iter().any(|cell| cell.name.series == series));
        }
    }

    #[test]
    fn the_full_size_has_all_and_begins_anew_where_it_was_stopped() {
        let all = of_size(Size::Full, None).unwrap();
        assert_eq!(all.len(), 15);
        assert!(all.iter().all(|cell| cell.cases == Cases::All));
        let from = "7.2-kprobe".parse().unwrap();
        let rest = of_size(Size::Full, Some(&from)).unwrap();
        assert_eq!(names(&rest), ["7.2-kprobe", "7.2-tracepoint"]);
    }

    #[test]
    fn an_unknown_cell_is_refused() {
        let error = of_size(Size::Full, Some(&"6.16-fentry".parse().unwrap())).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("6.16-fentry is not one of the cells: 5.10-fentry,")
        );
        for wrong in ["6.12", "6.12-proc", "x-fentry", ""] {
            assert!(wrong.parse::<CellName>().is_err(), "{wrong}");
        }
    }
}

//! Measuring in turn, unwatched and watched, so that what else the machine
//! does falls on both.

use std::{thread, time::Duration};

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::{
    modes::{How, Mode},
    observer::Observer,
    stats::Values,
};

/// What a watcher still does once it is attached, such as giving back memory, is
/// no part of what watching costs.
const START: Duration = Duration::from_millis(200);

/// What one mode did to one measure.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// Watched over unwatched, a value per repetition.
    ratios: Vec<f64>,
}

/// What came of all repetitions.
pub struct Table {
    /// Names of the measures.
    pub columns: Vec<String>,
    /// What each measure is where nobody watches.
    pub unwatched: Vec<Option<Values>>,
    /// One row per mode.
    pub rows: Vec<Row>,
}

/// One mode's cells, in the order of the columns.
pub struct Row {
    /// Its name in JSON.
    pub id: &'static str,
    /// Its name for people.
    pub label: &'static str,
    cells: Vec<Cell>,
    /// Why it has none, or fewer.
    pub absent: Option<String>,
}

impl Row {
    /// Ratios of a column.
    pub fn ratios(&self, column: usize) -> Option<Values> {
        Values::new(self.cells.get(column)?.ratios.iter().copied())
    }
}

impl Table {
    /// Ratios of a mode in a column.
    pub fn ratios(&self, id: &str, column: &str) -> Option<Values> {
        let column = self.columns.iter().position(|name| name == column)?;
        self.row(id)?.ratios(column)
    }

    /// How much more one mode costs than another, by repetition.
    pub fn ratios_over(&self, id: &str, base: &str, column: &str) -> Option<Values> {
        let column = self.columns.iter().position(|name| name == column)?;
        let cell = |id| Some(&self.row(id)?.cells.get(column)?.ratios);
        let (of, over) = (cell(id)?, cell(base)?);
        Values::new(of.iter().zip(over).map(|(of, over)| of / over))
    }

    /// For machines.
    pub fn to_json(&self) -> Value {
        let cells = |values: &mut dyn Iterator<Item = Option<Values>>| {
            let named = self.columns.iter().cloned().zip(values);
            named
                .filter_map(|(name, values)| Some((name, values?.to_json())))
                .collect::<Map<_, _>>()
        };
        let rows = self.rows.iter().map(|row| {
            let mut ratios = (0..self.columns.len()).map(|column| row.ratios(column));
            json!({
                "id": row.id,
                "watched_by": row.label,
                "ratios": cells(&mut ratios),
                "reason": row.absent,
            })
        });
        json!({
            "unwatched_ns": cells(&mut self.unwatched.iter().cloned()),
            "modes": rows.collect::<Vec<_>>(),
        })
    }

    fn row(&self, id: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.id == id)
    }
}

/// Runs all modes in turn, so many times. Each is between two unwatched runs,
/// whose mean is what it is held against: a drift that is steady cancels out.
///
/// `measure` gets what to put before the workload's own arguments.
pub fn run(
    modes: &[&Mode],
    columns: &[&str],
    repetitions: u32,
    mut measure: impl FnMut(&[String]) -> Result<Vec<f64>>,
) -> Result<Table> {
    let mut rows: Vec<Row> = modes
        .iter()
        .map(|mode| Row {
            id: mode.id,
            label: mode.label,
            cells: vec![Cell::default(); columns.len()],
            absent: match &mode.how {
                How::Not(reason) => Some(reason.clone()),
                How::Beside(_) | How::Around(_) => None,
            },
        })
        .collect();
    let mut unwatched = vec![Vec::new(); columns.len()];
    for repetition in 1..=repetitions {
        eprintln!("bench: repetition {repetition} of {repetitions}");
        let mut before = measure(&[])?;
        for (mode, row) in modes.iter().zip(&mut rows) {
            if row.absent.is_some() {
                continue;
            }
            let watched = match watched(mode, &mut measure) {
                Ok(watched) => watched,
                Err(error) => {
                    eprintln!("bench: {}: {error:#}", mode.label);
                    row.absent = Some(format!("{error:#}"));
                    continue;
                }
            };
            let after = measure(&[])?;
            for (column, cell) in row.cells.iter_mut().enumerate() {
                let mean = f64::midpoint(before[column], after[column]);
                cell.ratios.push(watched[column] / mean);
            }
            for (values, value) in unwatched.iter_mut().zip(&after) {
                values.push(*value);
            }
            before = after;
        }
    }
    Ok(Table {
        columns: columns.iter().map(|&name| name.to_owned()).collect(),
        unwatched: unwatched.into_iter().map(Values::new).collect(),
        rows,
    })
}

fn watched(
    mode: &Mode,
    measure: &mut impl FnMut(&[String]) -> Result<Vec<f64>>,
) -> Result<Vec<f64>> {
    match &mode.how {
        How::Not(reason) => anyhow::bail!("{reason}"),
        How::Around(prefix) => measure(prefix),
        How::Beside(spec) => {
            let observer = Observer::start(spec)?;
            thread::sleep(START);
            let values = measure(&[])?;
            observer.stop()?;
            Ok(values)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(id: &'static str, how: How) -> Mode {
        Mode { id, label: id, how }
    }

    #[test]
    fn each_mode_is_held_against_the_runs_around_it() {
        let around = mode("around", How::Around(vec!["slowly".to_owned()]));
        let absent = mode("absent", How::Not("not here".to_owned()));
        // Unwatched runs become slower all the time, and ratios do not.
        let mut unwatched = 90.0;
        let table = run(&[&around, &absent], &["pair"], 3, |prefix| {
            if prefix.is_empty() {
                unwatched += 10.0;
                return Ok(vec![unwatched]);
            }
            Ok(vec![2.0 * (unwatched + 5.0)])
        })
        .unwrap();
        let ratios = table.ratios("around", "pair").unwrap();
        assert_eq!((ratios.low(), ratios.high()), (2.0, 2.0));
        assert_eq!(
            table.ratios_over("around", "around", "pair"),
            Values::new([1.0; 3])
        );
        assert_eq!(table.ratios("absent", "pair"), None);
        assert_eq!(table.rows[1].absent.as_deref(), Some("not here"));
        assert_eq!(table.ratios("around", "other"), None);
    }

    #[test]
    fn a_mode_that_fails_is_left_out_from_then_on() {
        let around = mode("around", How::Around(vec!["badly".to_owned()]));
        let mut times = 0;
        let table = run(&[&around], &["pair"], 3, |prefix| {
            times += u32::from(!prefix.is_empty());
            anyhow::ensure!(prefix.is_empty() || times < 2, "it broke");
            Ok(vec![1.0])
        })
        .unwrap();
        assert_eq!(times, 2);
        assert_eq!(table.ratios("around", "pair"), Values::new([1.0]));
        assert_eq!(table.rows[0].absent.as_deref(), Some("it broke"));
    }
}

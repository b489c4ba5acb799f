//! How long each kernel program takes for an operation, by the kernel's own
//! statistics.

use std::{collections::HashMap, io, time::Duration};

use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};

use crate::{BATCH, ops::Op, time};

/// What a program did since it was loaded and statistics are on.
#[derive(Clone, Copy, Default)]
struct Ran {
    times: u64,
    time: Duration,
}

/// Prints `program NAME RUNS NS`, both per mmap and munmap, for each that ran.
pub fn print(ms: u64) -> io::Result<()> {
    let stats = enable_stats(Stats::RunTime).map_err(io::Error::other)?;
    let mut step = (Op::PAIR.step)()?;
    let before = ran()?;
    let spent = time(&mut *step, Duration::from_millis(ms), BATCH)?;
    let after = ran()?;
    drop(stats);
    // The first batch is not among those that were timed.
    let operations = (spent.operations() + BATCH) as f64;
    let per_operation = |value: f64| value / operations;
    let mut rows: Vec<_> = after
        .into_iter()
        .map(|((id, name), after)| {
            let before = before.get(&(id, name.clone())).copied().unwrap_or_default();
            let times = after.times.saturating_sub(before.times);
            let time = after.time.saturating_sub(before.time);
            (
                name,
                per_operation(times as f64),
                per_operation(time.as_nanos() as f64),
            )
        })
        // What other operations run, now and then, is not of this one.
        .filter(|(_, times, _)| *times > 0.1)
        .collect();
    rows.sort_by(|(_, _, a), (_, _, b)| b.total_cmp(a));
    for (name, times, ns) in rows {
        println!("program {name} {times:.1} {ns:.0}");
    }
    Ok(())
}

fn ran() -> io::Result<HashMap<(u32, String), Ran>> {
    loaded_programs()
        .map(|program| {
            let program = program.map_err(io::Error::other)?;
            let name = String::from_utf8_lossy(program.name()).into_owned();
            let ran = Ran {
                times: program.run_count(),
                time: program.run_time(),
            };
            Ok(((program.id(), name), ran))
        })
        .collect()
}

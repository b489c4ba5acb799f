//! What `cargo xtask bench` has watched: loops of single operations on an
//! address space, each of which takes its own time, so that the start of the
//! program and of whatever watches it does not count.
//!
//! Without arguments it runs all loops and prints `NAME NS_PER_OPERATION`.

mod empty;
mod ops;
mod programs;
mod sleepers;

use std::{
    env, io,
    process::ExitCode,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use ops::{Op, Step};

/// Operations between two looks at the clock.
const BATCH: u64 = 64;

/// Operations of a batch that is counted: enough that reading the clock does not
/// count, and few enough that most batches see no tick and no other task.
const COUNTED_BATCH: u64 = 128;

/// How often a loop is counted.
const COUNTED_ROUNDS: u32 = 5;

/// Time for each loop when none is named.
const DEFAULT_MS: u64 = 200;

const USAGE: &str = "\
usage: workload run MS [OP]...       nanoseconds per operation of each loop
       workload count MS [OP]...     the same of an ordinary batch, undisturbed
       workload programs MS          what each kernel program takes of a pair
       workload storm MS             mmap and munmap as fast as they go
       workload empty TRACEPOINT...  attach an empty program to each, until stdin ends
       workload sleepers N           have N processes that sleep, until stdin ends";

fn main() -> ExitCode {
    // `cargo bench` adds a flag.
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        [] => run(DEFAULT_MS, &[]),
        ["run", ms, names @ ..] => number(ms).and_then(|ms| run(ms, names)),
        ["count", ms, names @ ..] => number(ms).and_then(|ms| count(ms, names)),
        ["programs", ms] => number(ms).and_then(programs::print),
        ["storm", ms] => number(ms).and_then(storm),
        ["empty", tracepoints @ ..] => empty::attach(tracepoints),
        ["sleepers", count] => number(count).and_then(sleepers::hold),
        _ => Err(io::Error::other(USAGE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("workload: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(text: &str) -> io::Result<u64> {
    text.parse()
        .map_err(|_| io::Error::other(format!("{text:?} is no number")))
}

/// Runs the loops of these names, or all.
fn run(ms: u64, names: &[&str]) -> io::Result<()> {
    let budget = Duration::from_millis(ms);
    for op in named(names) {
        let spent = spend(op, budget)?;
        println!("{} {:.1}", op.name, spent.ns_per_operation());
    }
    Ok(())
}

/// Runs loops of one thread where each instruction takes the clock 1 ns: in a
/// VM that counts them. There the median batch is one without a tick of the
/// kernel and without work of other tasks, and the smallest median of several is
/// one without work of the kernel's own that began before.
fn count(ms: u64, names: &[&str]) -> io::Result<()> {
    let budget = Duration::from_millis(ms);
    for op in named(names).filter(|op| op.threads == 1) {
        let mut step = (op.step)()?;
        let mut smallest = f64::INFINITY;
        for _ in 0..COUNTED_ROUNDS {
            smallest = smallest.min(median_batch(&mut *step, budget)?);
        }
        println!("{} {smallest:.1}", op.name);
    }
    Ok(())
}

/// Time per operation of the median batch.
fn median_batch(step: &mut Step, budget: Duration) -> io::Result<f64> {
    let start = Instant::now();
    let mut batches = Vec::new();
    while batches.is_empty() || start.elapsed() < budget {
        let start = Instant::now();
        for _ in 0..COUNTED_BATCH {
            step()?;
        }
        batches.push(start.elapsed());
    }
    batches.sort_unstable();
    let median = batches[batches.len() / 2];
    Ok(median.as_nanos() as f64 / COUNTED_BATCH as f64)
}

/// The loops of these names, or all.
fn named(names: &[&str]) -> impl Iterator<Item = &'static Op> {
    Op::ALL
        .iter()
        .filter(|op| names.is_empty() || names.contains(&op.name))
}

/// One thread's mmap and munmap, at full speed.
fn storm(ms: u64) -> io::Result<()> {
    let spent = time(&mut *(Op::PAIR.step)()?, Duration::from_millis(ms))?;
    println!("operations {}", spent.operations);
    println!("ns {}", spent.ns);
    Ok(())
}

/// What a loop did.
#[derive(Clone, Copy)]
struct Spent {
    operations: u64,
    ns: u64,
}

impl Spent {
    fn ns_per_operation(self) -> f64 {
        self.ns as f64 / self.operations as f64
    }
}

/// Runs a loop in as many threads as it has, for about this long.
fn spend(op: &Op, budget: Duration) -> io::Result<Spent> {
    let start = Barrier::new(op.threads);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..op.threads)
            .map(|_| {
                scope.spawn(|| {
                    let step = (op.step)();
                    start.wait();
                    time(&mut *step?, budget)
                })
            })
            .collect();
        let mut all = Spent {
            operations: 0,
            ns: 0,
        };
        for thread in threads {
            let spent = thread
                .join()
                .map_err(|_| io::Error::other("a thread panicked"))??;
            all.operations += spent.operations;
            all.ns += spent.ns;
        }
        Ok(all)
    })
}

/// Repeats one step for about this long. `Instant` is the monotonic clock.
fn time(step: &mut Step, budget: Duration) -> io::Result<Spent> {
    for _ in 0..BATCH {
        step()?;
    }
    let start = Instant::now();
    let mut operations = 0;
    loop {
        for _ in 0..BATCH {
            step()?;
        }
        operations += BATCH;
        let elapsed = start.elapsed();
        if elapsed >= budget {
            return Ok(Spent {
                operations,
                ns: u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
            });
        }
    }
}

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

/// The same where instructions are counted: fewer, so that most batches see no
/// tick and no other task on their one CPU.
const COUNTED_BATCH: u64 = 32;

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
        println!("{} {:.1}", op.name, spend(op, budget)?);
    }
    Ok(())
}

/// Runs loops of one thread where each instruction takes the clock 1 ns: in a
/// VM that counts them. There three batches in four may have a tick of the
/// kernel in them, or work of other tasks; and the smallest of several rounds
/// has none of the work that the kernel itself began before.
fn count(ms: u64, names: &[&str]) -> io::Result<()> {
    let budget = Duration::from_millis(ms);
    for op in named(names).filter(|op| op.threads == 1) {
        let mut step = (op.step)()?;
        let mut smallest = f64::INFINITY;
        for _ in 0..COUNTED_ROUNDS {
            let spent = time(&mut *step, budget, COUNTED_BATCH)?;
            smallest = smallest.min(spent.ns_per_operation(0.25));
        }
        println!("{} {smallest:.1}", op.name);
    }
    Ok(())
}

/// The loops of these names, or all.
fn named(names: &[&str]) -> impl Iterator<Item = &'static Op> {
    Op::ALL
        .iter()
        .filter(|op| names.is_empty() || names.contains(&op.name))
}

/// One thread's mmap and munmap, at full speed.
fn storm(ms: u64) -> io::Result<()> {
    let spent = time(&mut *(Op::PAIR.step)()?, Duration::from_millis(ms), BATCH)?;
    println!("operations {}", spent.operations());
    println!("ns {}", spent.batches.iter().sum::<Duration>().as_nanos());
    Ok(())
}

/// What a loop did.
struct Spent {
    /// Operations of a batch.
    batch: u64,
    /// Time of each, from shortest to longest; never none.
    batches: Vec<Duration>,
}

impl Spent {
    fn operations(&self) -> u64 {
        self.batch * self.batches.len() as u64
    }

    /// Of the batch that this share of all is shorter than.
    fn ns_per_operation(&self, share: f64) -> f64 {
        let at = ((self.batches.len() - 1) as f64 * share) as usize;
        self.batches[at].as_nanos() as f64 / self.batch as f64
    }
}

/// Runs a loop in as many threads as it has, for about this long. Returns the
/// time of an operation in the median batch: whatever else runs on a CPU
/// for a while makes some batches long, and says nothing of the loop.
fn spend(op: &Op, budget: Duration) -> io::Result<f64> {
    let start = Barrier::new(op.threads);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..op.threads)
            .map(|_| {
                scope.spawn(|| {
                    let step = (op.step)();
                    start.wait();
                    time(&mut *step?, budget, BATCH)
                })
            })
            .collect();
        let mut sum = 0.0;
        for thread in threads {
            let spent = thread
                .join()
                .map_err(|_| io::Error::other("a thread panicked"))??;
            sum += spent.ns_per_operation(0.5);
        }
        Ok(sum / op.threads as f64)
    })
}

/// Repeats one step for about this long. `Instant` is the monotonic clock.
fn time(step: &mut Step, budget: Duration, batch: u64) -> io::Result<Spent> {
    for _ in 0..batch {
        step()?;
    }
    // With room, so that growing it is rarely a mapping of our own.
    let mut batches = Vec::with_capacity(1 << 14);
    let start = Instant::now();
    let mut before = start;
    while batches.is_empty() || before - start < budget {
        for _ in 0..batch {
            step()?;
        }
        let now = Instant::now();
        batches.push(now - before);
        before = now;
    }
    batches.sort_unstable();
    Ok(Spent { batch, batches })
}

//! How many events a second one core of user space takes, by what is made of
//! them. Prints `NAME VALUE`, a line each: events per second, and bytes.
//!
//! `cargo xtask bench` runs it; `cargo bench --bench agent` does so alone. A
//! number as argument is the time for each case, in milliseconds.

mod records;

use std::{
    env,
    error::Error,
    fmt::Write as _,
    hint::black_box,
    io,
    time::{Duration, Instant},
};

use mmwatch::{
    churn::{ProcessKey, Sums, add_event},
    clock::WallClock,
    decode::Decoder,
    event::{Event, SpaceId},
    sink::{Sink, json::Json, text::Trace},
    space::{Ranges, Snapshot, Spaces},
};
use rustc_hash::FxHashMap;

use records::{PAGE_BYTES, PROCESSES, Records};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Time for each case when none is named.
const DEFAULT_MS: u64 = 1000;

/// VMAs of the large model.
const MODEL_VMAS: u64 = 1_000_000;

/// VMAs of each process that events are applied to.
const PROCESS_VMAS: u64 = 200;

fn main() -> Result<()> {
    let ms = env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(DEFAULT_MS);
    let bench = Bench {
        records: Records::new(),
        budget: Duration::from_millis(ms),
    };
    bench.decoded()?;
    bench.summed()?;
    bench.modelled()?;
    let clock = WallClock::sample()?;
    bench.written("json", || Json::new(io::sink(), clock))?;
    bench.written("text", || Trace::new(io::sink(), io::sink(), clock))?;
    println!("vma_bytes {:.1}", bytes_per_vma()?);
    Ok(())
}

struct Bench {
    records: Records,
    budget: Duration,
}

impl Bench {
    /// Bytes to events, and no more.
    fn decoded(&self) -> Result<()> {
        let mut decoder = Decoder::new(PAGE_BYTES);
        self.repeat("decode", || {
            self.each(&mut decoder, |event| {
                black_box(event);
                Ok(())
            })
        })
    }

    /// And to sums per process, as `verify` keeps them.
    fn summed(&self) -> Result<()> {
        let mut decoder = Decoder::new(PAGE_BYTES);
        let mut processes: FxHashMap<ProcessKey, Sums> = FxHashMap::default();
        self.repeat("sums", || {
            self.each(&mut decoder, |event| {
                let key = ProcessKey::new(event.actor.tgid, event.actor.start_boot_ns);
                add_event(processes.entry(key).or_default(), event);
                Ok(())
            })
        })?;
        let counted = |sums: &Sums| sums.ops.iter().map(|op| op.count).sum::<u64>();
        black_box::<u64>(processes.values().map(counted).sum());
        Ok(())
    }

    /// And to models of address spaces.
    fn modelled(&self) -> Result<()> {
        let maps = Snapshot::parse(maps_text(PROCESS_VMAS)?.as_bytes())?.ranges;
        let mut decoder = Decoder::new(PAGE_BYTES);
        let mut rates = Rates::new(self.budget);
        while rates.more() {
            // Sections are applied once, so each round has fresh models.
            let mut spaces = self.healed(&maps);
            let start = Instant::now();
            self.each(&mut decoder, |event| {
                spaces.note(event);
                Ok(())
            })?;
            rates.add(self.records.events(), start.elapsed());
            if spaces.applied_events() != self.records.events() {
                return Err("the models did not take every event".into());
            }
        }
        rates.print("space");
        Ok(())
    }

    /// Models that know what was mapped before the first event.
    fn healed(&self, maps: &Ranges) -> Spaces {
        let mut spaces = Spaces::default();
        for process in 0..PROCESSES {
            let id = SpaceId {
                mm: records::mm(process),
                born_boot_ns: records::BORN_NS,
            };
            if let Some(space) = spaces.meet(id) {
                space.heal(0, 0, maps.clone(), records::BORN_NS);
            }
        }
        spaces
    }

    /// And to lines.
    fn written<S: Sink>(&self, name: &str, new: impl Fn() -> S) -> Result<()> {
        let mut decoder = Decoder::new(PAGE_BYTES);
        let mut sink = new();
        let mut seq = 0;
        self.repeat(name, || {
            self.each(&mut decoder, |event| {
                seq += 1;
                sink.event(seq, event)
            })?;
            Ok(sink.flush()?)
        })
    }

    /// Prints the rate at which `round` takes all records.
    fn repeat(&self, name: &str, mut round: impl FnMut() -> Result<()>) -> Result<()> {
        round()?;
        let mut rates = Rates::new(self.budget);
        while rates.more() {
            let start = Instant::now();
            round()?;
            rates.add(self.records.events(), start.elapsed());
        }
        rates.print(name);
        Ok(())
    }

    /// Decodes all records.
    fn each(
        &self,
        decoder: &mut Decoder,
        mut take: impl FnMut(&Event) -> io::Result<()>,
    ) -> Result<()> {
        for record in self.records.iter() {
            if let Some(event) = decoder.decode(record)? {
                take(&event)?;
            }
        }
        Ok(())
    }
}

/// Rates of rounds, until their time is over.
struct Rates {
    left: Duration,
    per_s: Vec<f64>,
}

impl Rates {
    fn new(budget: Duration) -> Self {
        Self {
            left: budget,
            per_s: Vec::new(),
        }
    }

    fn more(&self) -> bool {
        self.per_s.is_empty() || !self.left.is_zero()
    }

    fn add(&mut self, events: u64, elapsed: Duration) {
        self.per_s.push(events as f64 / elapsed.as_secs_f64());
        self.left = self.left.saturating_sub(elapsed);
    }

    /// The median: whatever else the machine does makes single rounds slow.
    fn print(mut self, name: &str) {
        self.per_s.sort_by(f64::total_cmp);
        println!("{name} {:.0}", self.per_s[self.per_s.len() / 2]);
    }
}

/// What one VMA in a large model takes, allocator included.
fn bytes_per_vma() -> Result<f64> {
    let text = maps_text(MODEL_VMAS)?;
    let before = allocated();
    let ranges = Snapshot::parse(text.as_bytes())?.ranges;
    let bytes = allocated().saturating_sub(before);
    Ok(bytes as f64 / black_box(ranges).len() as f64)
}

/// Bytes that the allocator has handed out, small and large ones.
fn allocated() -> usize {
    // SAFETY: it takes nothing and only reads the allocator's own sums.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// `/proc/PID/maps` of so many VMAs. Neighbours differ, or the model would have
/// one range for them.
fn maps_text(vmas: u64) -> Result<String> {
    let mut text = String::new();
    for vma in 0..vmas {
        let start = 0x1000_0000_0000 + vma * 4 * PAGE_BYTES;
        let end = start + 4 * PAGE_BYTES;
        let prot = if vma % 2 == 0 { "rw-p" } else { "r--p" };
        writeln!(text, "{start:x}-{end:x} {prot} 00000000 00:00 0 ")?;
    }
    Ok(text)
}

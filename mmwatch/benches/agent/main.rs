//! How many events a second one core of user space takes, by what is made of
//! them. Prints `NAME VALUE`, a line each: events per second, and bytes.
//!
//! `cargo xtask bench` runs it; `cargo bench --bench agent` does so alone. A
//! number as argument is the time for each case, in milliseconds. `rounds N CASE`
//! does one case so often and measures nothing, for whoever counts instructions.

mod memory;
mod records;

use std::{
    env,
    error::Error,
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
    space::{Ranges, Read, Snapshot, Spaces},
};
use rustc_hash::FxHashMap;

use records::{PAGE_BYTES, PROCESSES, Records};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Time for each case when none is named.
const DEFAULT_MS: u64 = 1000;

/// VMAs of each process that events are applied to.
const PROCESS_VMAS: u64 = 200;

const USAGE: &str = "usage: agent [MS] | agent rounds N decode|sums|space|json|text";

/// What is made of events.
const CASES: [&str; 5] = ["decode", "sums", "space", "json", "text"];

fn main() -> Result<()> {
    // `cargo bench` adds a flag.
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => measure(DEFAULT_MS),
        [ms] => measure(ms.parse().map_err(|_| USAGE)?),
        ["rounds", rounds, case] => {
            let bench = Bench {
                records: Records::new(),
                until: Until::Rounds(rounds.parse().map_err(|_| USAGE)?),
            };
            // What was timed says nothing here, and how many events there were does.
            bench.case(case)?;
            println!("events {}", bench.records.events());
            Ok(())
        }
        _ => Err(USAGE.into()),
    }
}

fn measure(ms: u64) -> Result<()> {
    let bench = Bench {
        records: Records::new(),
        until: Until::Time(Duration::from_millis(ms)),
    };
    for case in CASES {
        println!("{case} {:.0}", bench.case(case)?);
    }
    memory::print()
}

/// When a case is over.
#[derive(Clone, Copy)]
enum Until {
    Time(Duration),
    Rounds(u32),
}

struct Bench {
    records: Records,
    until: Until,
}

impl Bench {
    /// Does one case; returns events per second.
    fn case(&self, name: &str) -> Result<f64> {
        match name {
            "decode" => self.decoded(),
            "sums" => self.summed(),
            "space" => self.modelled(),
            "json" => self.written(Json::new(io::sink(), WallClock::sample()?)),
            "text" => self.written(Trace::new(io::sink(), io::sink(), WallClock::sample()?)),
            _ => Err(USAGE.into()),
        }
    }

    /// Bytes to events, and no more.
    fn decoded(&self) -> Result<f64> {
        let mut decoder = Decoder::new(PAGE_BYTES);
        self.repeat(|| {
            self.each(&mut decoder, |event| {
                black_box(event);
                Ok(())
            })
        })
    }

    /// And to sums per process, as `verify` keeps them.
    fn summed(&self) -> Result<f64> {
        let mut decoder = Decoder::new(PAGE_BYTES);
        let mut processes: FxHashMap<ProcessKey, Sums> = FxHashMap::default();
        let rate = self.repeat(|| {
            self.each(&mut decoder, |event| {
                let key = ProcessKey::new(event.actor.tgid, event.actor.start_boot_ns);
                add_event(processes.entry(key).or_default(), event);
                Ok(())
            })
        })?;
        let counted = |sums: &Sums| sums.ops.iter().map(|op| op.count).sum::<u64>();
        black_box::<u64>(processes.values().map(counted).sum());
        Ok(rate)
    }

    /// And to models of address spaces.
    fn modelled(&self) -> Result<f64> {
        let maps = Snapshot::parse(memory::maps_text(PROCESS_VMAS)?.as_bytes())?.ranges;
        let mut decoder = Decoder::new(PAGE_BYTES);
        let mut rates = Rates::new(self.until);
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
        Ok(rates.median())
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
                space.heal(Read::between(0, 0), maps.clone(), records::BORN_NS);
            }
        }
        spaces
    }

    /// And to lines.
    fn written(&self, mut sink: impl Sink) -> Result<f64> {
        let mut decoder = Decoder::new(PAGE_BYTES);
        let mut seq = 0;
        self.repeat(|| {
            self.each(&mut decoder, |event| {
                seq += 1;
                sink.event(seq, event)
            })?;
            Ok(sink.flush()?)
        })
    }

    /// The rate at which `round` takes all records.
    fn repeat(&self, mut round: impl FnMut() -> Result<()>) -> Result<f64> {
        let mut rates = Rates::new(self.until);
        while rates.more() {
            let start = Instant::now();
            round()?;
            rates.add(self.records.events(), start.elapsed());
        }
        Ok(rates.median())
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

/// Rates of rounds.
struct Rates {
    until: Until,
    spent: Duration,
    per_s: Vec<f64>,
}

impl Rates {
    fn new(until: Until) -> Self {
        Self {
            until,
            spent: Duration::ZERO,
            per_s: Vec::new(),
        }
    }

    fn more(&self) -> bool {
        match self.until {
            Until::Time(time) => self.per_s.is_empty() || self.spent < time,
            Until::Rounds(rounds) => self.per_s.len() < rounds as usize,
        }
    }

    fn add(&mut self, events: u64, elapsed: Duration) {
        self.per_s.push(events as f64 / elapsed.as_secs_f64());
        self.spent += elapsed;
    }

    /// Whatever else the machine does makes single rounds slow.
    fn median(mut self) -> f64 {
        self.per_s.sort_by(f64::total_cmp);
        self.per_s.get(self.per_s.len() / 2).copied().unwrap_or(0.0)
    }
}

//! What the figures are to be, and whether they are.

use serde_json::{Value, json};

use super::{Results, agent::Figures, guest, paired::Table, stats::Values};

const MIB: f64 = 1024.0 * 1024.0;

/// Change of a count that is none: memory of the kernel is not laid out alike
/// twice. A hook adds several times as much.
const SAME: f64 = 0.01;

/// One figure against its bar.
#[derive(Debug, PartialEq)]
pub struct Bar {
    /// What was measured.
    pub figure: String,
    /// What it is to be.
    pub bar: String,
    /// What it is; `None` where it was not measured.
    pub measured: Option<Measured>,
}

/// A figure that was measured.
#[derive(Debug, PartialEq)]
pub struct Measured {
    /// As people read it.
    pub text: String,
    /// Whether it is as it is to be.
    pub met: bool,
}

impl Bar {
    /// `met`, `not met` or `not measured`.
    pub fn verdict(&self) -> &'static str {
        match &self.measured {
            None => "not measured",
            Some(Measured { met: true, .. }) => "met",
            Some(Measured { met: false, .. }) => "not met",
        }
    }

    /// For machines.
    pub fn to_json(&self) -> Value {
        json!({
            "figure": self.figure,
            "bar": self.bar,
            "measured": self.measured.as_ref().map(|measured| &measured.text),
            "verdict": self.verdict(),
        })
    }
}

/// All bars, in the order of what is cheap for whom.
pub fn all(results: &Results) -> Vec<Bar> {
    let mut bars = Vec::new();
    if let Some(loops) = &results.loops {
        bars.extend(of_loops(loops));
    }
    if let Some(programs) = &results.programs {
        bars.extend(of_programs(programs));
    }
    if let Some(figures) = &results.agent {
        bars.extend(of_agent(figures));
    }
    if let Some(guests) = &results.guests {
        bars.extend(guests.iter().flat_map(of_guest));
    }
    bars
}

fn at_most(figure: &str, limit: f64, unit: &str, value: Option<(f64, String)>) -> Bar {
    Bar {
        figure: figure.to_owned(),
        bar: format!("≤ {limit}{unit}"),
        measured: value.map(|(value, text)| Measured {
            text,
            met: value <= limit,
        }),
    }
}

fn at_least(figure: &str, limit: f64, unit: &str, value: Option<(f64, String)>) -> Bar {
    Bar {
        figure: figure.to_owned(),
        bar: format!("≥ {limit}{unit}"),
        measured: value.map(|(value, text)| Measured {
            text,
            met: value >= limit,
        }),
    }
}

fn of_loops(loops: &Table) -> Vec<Bar> {
    let ratio = |values: Option<Values>| values.map(|values| (values.median(), values.to_string()));
    let of = |id| ratio(loops.ratios(id, "pair"));
    let mut bars = vec![
        at_most("every event, pair, over unwatched", 1.25, " ×", of("trace")),
        at_most(
            "every event, pair, over an empty program on the same hooks",
            1.15,
            " ×",
            ratio(loops.ratios_over("trace", "empty", "pair")),
        ),
        at_most(
            "sums in the kernel, pair, over unwatched",
            1.12,
            " ×",
            of("stat"),
        ),
        at_most(
            "filtered out by pid, pair, over unwatched",
            1.08,
            " ×",
            of("trace_other"),
        ),
        at_most(
            "filtered out by cgroup, pair, over unwatched",
            1.08,
            " ×",
            of("trace_cgroup"),
        ),
    ];
    for (rival, name, times) in [
        ("bpftrace_print", "bpftrace printing", 4.0),
        ("perf_trace", "perf trace", 12.0),
        ("strace", "strace", 25.0),
    ] {
        bars.push(cheaper(loops, ("trace", rival), name, times));
    }
    bars.push(cheaper(
        loops,
        ("stat", "bpftrace_count"),
        "bpftrace counting",
        1.0,
    ));
    bars
}

/// How many times what a mode adds to a pair another one adds.
fn cheaper(loops: &Table, (mode, rival): (&str, &str), name: &str, times: f64) -> Bar {
    let added = |id| Some(loops.ratios(id, "pair")?.median() - 1.0);
    let factor = || {
        let (of_mode, of_rival) = (added(mode)?, added(rival)?);
        if of_mode <= 0.0 {
            return Some((f64::INFINITY, "nothing that could be measured".to_owned()));
        }
        let factor = of_rival / of_mode;
        Some((factor, format!("{factor:.1} ×")))
    };
    let what = if mode == "stat" {
        "sums"
    } else {
        "every event"
    };
    let figure = format!("what {name} adds to a pair, over what {what} adds");
    at_least(&figure, times, " ×", factor())
}

fn of_programs(programs: &Table) -> Vec<Bar> {
    let of = |name: &String| {
        let values = programs.ratios("trace", name)?;
        Some((values.median(), values.to_string()))
    };
    programs
        .columns
        .iter()
        .map(|name| {
            let figure = format!("every event, `{name}`, over unwatched");
            at_most(&figure, 1.03, " ×", of(name))
        })
        .collect()
}

fn of_agent(figures: &Figures) -> Vec<Bar> {
    let rate = |id: &str| {
        let (_, rate) = figures.rates.iter().find(|(name, _)| *name == id)?;
        Some((rate / 1e6, format!("{:.2} million", rate / 1e6)))
    };
    let mib = |bytes: f64| (bytes / MIB, format!("{:.1} MiB", bytes / MIB));
    let resident = figures.memory_bytes.map(|(resident, _)| resident);
    let most = figures.processes_bytes.last().map(|(_, bytes)| *bytes);
    let mut bars = vec![
        at_least(
            "events/s of one core, decoded and summed",
            3.0,
            " million",
            rate("sums"),
        ),
        at_least(
            "events/s of one core, as JSON",
            1.0,
            " million",
            rate("json"),
        ),
        at_most("memory with 500 processes", 32.0, " MiB", resident.map(mib)),
        at_most(
            "memory with 100,000 processes: the state, and all else with 500",
            128.0,
            " MiB",
            resident
                .zip(most)
                .map(|(resident, most)| mib(resident + most)),
        ),
        at_most(
            "memory of a VMA in a model",
            64.0,
            " bytes",
            figures
                .vma_bytes
                .map(|bytes| (bytes, format!("{bytes:.1} bytes"))),
        ),
        at_most(
            "share of a core while 500 processes sleep",
            0.3,
            " %",
            figures
                .idle
                .map(|share| (share * 100.0, format!("{:.2} %", share * 100.0))),
        ),
        at_most(
            "from start to attached, with 500 processes",
            0.5,
            " s",
            figures
                .attach_s
                .as_ref()
                .map(|values| (values.median(), format!("{values} s"))),
        ),
    ];
    for storm in figures.storms.iter().filter(|storm| storm.writers == 1) {
        let figure = format!("events lost in a {}", storm.name());
        let text = format!("{} of {}", storm.lost, storm.received + storm.lost);
        bars.push(at_most(&figure, 0.0, "", Some((storm.lost as f64, text))));
    }
    bars
}

/// Only the backend and the kernels that have bars.
fn of_guest(guest: &guest::Guest) -> Vec<Bar> {
    if guest.hooks != guest::HOOKS[0] || !guest::KERNELS.contains(&guest.series.as_str()) {
        return Vec::new();
    }
    let name = |what: &str| {
        format!(
            "instructions, Linux {}, {}, {what}",
            guest.series, guest.hooks
        )
    };
    let added = |mode, of| {
        guest
            .added(mode, of)
            .map(|added| (added, format!("+{added:.0}")))
    };
    let mut bars = vec![
        at_most(
            &name("pair, every event"),
            2600.0,
            " more",
            added("trace", "pair"),
        ),
        at_most(&name("pair, sums"), 600.0, " more", added("stat", "pair")),
    ];
    for (of, what) in [("fault", "page fault"), ("getppid", "another system call")] {
        let measured = guest.added("trace", of).zip(guest.unwatched(of));
        bars.push(Bar {
            figure: name(what),
            bar: "none more".to_owned(),
            measured: measured.map(|(added, unwatched)| Measured {
                text: format!("{added:+.0}"),
                met: added <= unwatched * SAME,
            }),
        });
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::agent::Storm;

    #[test]
    fn a_limit_itself_meets_the_bar() {
        let value = |value: f64| Some((value, value.to_string()));
        assert_eq!(at_most("x", 1.0, " s", value(1.0)).verdict(), "met");
        assert_eq!(at_most("x", 1.0, " s", value(1.1)).verdict(), "not met");
        assert_eq!(at_least("x", 1.0, " s", value(1.0)).verdict(), "met");
        assert_eq!(at_least("x", 1.0, " s", value(0.9)).verdict(), "not met");
        assert_eq!(at_least("x", 1.0, " s", None).verdict(), "not measured");
        assert_eq!(at_least("x", 1.5, " s", None).bar, "≥ 1.5 s");
    }

    #[test]
    fn a_single_lost_event_is_too_many() {
        let storm = |writers, lost| Storm {
            writers,
            buffer: None,
            per_s: 1e5,
            received: 10,
            lost,
            cpu_s_per_million: 1.0,
        };
        let figures = Figures {
            storms: vec![storm(1, 0), storm(2, 1), storm(1, 1)],
            ..Figures::default()
        };
        let verdicts: Vec<_> = of_agent(&figures).iter().map(Bar::verdict).collect();
        assert_eq!(verdicts[verdicts.len() - 2..], ["met", "not met"]);
        assert!(
            verdicts[..verdicts.len() - 2]
                .iter()
                .all(|v| *v == "not measured")
        );
    }

    #[test]
    fn nothing_measured_has_no_bars() {
        assert_eq!(all(&Results::default()), []);
    }
}

//! The figures as tables, for people, and as JSON.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    Results, Setting, agent,
    agent::{CASES, Figures, SLEEPERS},
    bars,
    guest::{self, Guest},
    instructions::Counts,
    paired::Table,
    stats::Values,
};

/// Between these, the documentation has what was measured.
const BEGIN: &str = "<!-- what `cargo xtask bench` measured: begin -->";
const END: &str = "<!-- what `cargo xtask bench` measured: end -->";

const MIB: f64 = 1024.0 * 1024.0;

/// What was measured, and how.
pub struct Report<'a> {
    setting: &'a Setting,
    results: &'a Results,
    elapsed: Duration,
    machine: String,
}

impl<'a> Report<'a> {
    /// Of the machine that we are on.
    pub fn new(setting: &'a Setting, results: &'a Results, elapsed: Duration) -> Self {
        Self {
            setting,
            results,
            elapsed,
            machine: machine(),
        }
    }

    /// All tables.
    pub fn markdown(&self) -> String {
        let Results {
            loops,
            programs,
            agent,
            guests,
            instructions,
            notes,
        } = self.results;
        let seconds = self.elapsed.as_secs();
        let mut text = format!(
            "\n{}. `--hooks {}`, {} repetitions, {} min {} s in all.\n",
            self.machine,
            self.setting.hooks,
            self.setting.repetitions,
            seconds / 60,
            seconds % 60
        );
        for note in notes {
            text.push_str(&format!("\nNote: {note}.\n"));
        }
        let mut section = |title: &str, body: String| {
            text.push_str(&format!("\n### {title}\n\n{body}"));
        };
        section("Against the bars", bars_table(self.results));
        if let Some(table) = loops {
            section(
                "System calls, watched over unwatched",
                ratios_table(table, "ns"),
            );
        }
        if let Some(table) = programs {
            section(
                "Programs, watched over unwatched",
                ratios_table(table, "ms"),
            );
        }
        if let Some(figures) = agent {
            section("The agent", agent_table(figures));
        }
        if let Some(guests) = guests {
            section("Instructions in VMs", guests_table(guests));
            section(
                "Instructions of a pair, by kernel program, every event",
                programs_table(guests),
            );
        }
        if let Some(counts) = instructions {
            section(
                "Instructions of user space, per event",
                instructions_table(counts),
            );
        }
        text.push('\n');
        text
    }

    /// All values.
    pub fn json(&self) -> Value {
        let results = self.results;
        json!({
            "machine": self.machine,
            "hooks": self.setting.hooks,
            "repetitions": self.setting.repetitions,
            "elapsed_s": self.elapsed.as_secs(),
            "notes": results.notes,
            "bars": bars::all(results).iter().map(bars::Bar::to_json).collect::<Vec<_>>(),
            "loops": results.loops.as_ref().map(Table::to_json),
            "programs": results.programs.as_ref().map(Table::to_json),
            "agent": results.agent.as_ref().map(Figures::to_json),
            "instructions_per_event": results.instructions,
            "guests": results
                .guests
                .as_ref()
                .map(|guests| guests.iter().map(Guest::to_json).collect::<Vec<_>>()),
        })
    }
}

/// `page` with `tables` in the place of what was between the marks.
pub fn between_marks(page: &str, tables: &str) -> Result<String> {
    let split = || {
        let (before, rest) = page.split_once(BEGIN)?;
        let (_, after) = rest.split_once(END)?;
        Some(format!("{before}{BEGIN}\n{tables}{END}{after}"))
    };
    split().with_context(|| format!("docs/performance.md needs the lines {BEGIN} and {END}"))
}

/// The kernel and the processor.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let models: Vec<_> = cpus
        .lines()
        .filter_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1))
        .collect();
    let release = read("/proc/sys/kernel/osrelease");
    let model = models.first().unwrap_or(&"unknown CPU");
    format!("Linux {}, {} × {model}", release.trim(), models.len())
}

/// Columns are as wide as their widest cell, so that the text reads well too.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .chain([header[column].chars().count(), 3])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<_> = cells
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule: Vec<_> = widths.iter().map(|&width| "-".repeat(width)).collect();
    let mut text = line(&mut header.iter().copied());
    text.push_str(&line(&mut rule.iter().map(String::as_str)));
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

fn bars_table(results: &Results) -> String {
    let rows: Vec<_> = bars::all(results)
        .into_iter()
        .map(|bar| {
            let verdict = bar.verdict().to_owned();
            let measured = bar.measured.map_or_else(absent, |measured| measured.text);
            vec![bar.figure, bar.bar, measured, verdict]
        })
        .collect();
    table(&["figure", "bar", "measured", "bar is"], &rows)
}

fn absent() -> String {
    "–".to_owned()
}

/// The first row is what is unwatched, in `unit`.
fn ratios_table(values: &Table, unit: &str) -> String {
    let header: Vec<_> = ["watched by"]
        .into_iter()
        .chain(values.columns.iter().map(String::as_str))
        .collect();
    let scale = if unit == "ms" { 1e6 } else { 1.0 };
    let unwatched = values.unwatched.iter().map(|values| {
        let time = |values: &Values| time(values.median() / scale, unit);
        values.as_ref().map_or_else(absent, time)
    });
    let mut rows = vec![
        ["nobody".to_owned()]
            .into_iter()
            .chain(unwatched)
            .collect::<Vec<_>>(),
    ];
    let mut reasons = String::new();
    for row in &values.rows {
        let cells = (0..values.columns.len()).map(|column| {
            let ratios = row.ratios(column);
            ratios.map_or_else(absent, |ratios| ratios.to_string())
        });
        rows.push([row.label.to_owned()].into_iter().chain(cells).collect());
        if let Some(reason) = &row.absent {
            reasons.push_str(&format!("\n{}: {reason}.\n", row.label));
        }
    }
    table(&header, &rows) + &reasons
}

fn time(value: f64, unit: &str) -> String {
    let digits = usize::from(value < 100.0);
    format!("{value:.digits$} {unit}")
}

fn agent_table(figures: &Figures) -> String {
    let mut rows = Vec::new();
    let mut row = |name: String, value: String| rows.push(vec![name, value]);
    let mib = |bytes: f64| format!("{:.1} MiB", bytes / MIB);
    for ((_, label), (_, rate)) in CASES.iter().zip(&figures.rates) {
        row(
            format!("events of one core, {label}"),
            format!("{:.2} million/s", rate / 1e6),
        );
    }
    for storm in &figures.storms {
        row(
            storm.name(),
            format!(
                "{:.0} events/s, {} of {} lost, {:.2} s of CPU per million",
                storm.per_s,
                storm.lost,
                storm.received + storm.lost,
                storm.cpu_s_per_million
            ),
        );
    }
    if let Some(bytes) = figures.vma_bytes {
        row(
            "a VMA in a model of 1,000,000".into(),
            format!("{bytes:.1} bytes"),
        );
    }
    if let Some((resident, peak)) = figures.memory_bytes {
        row(
            format!("memory of `top` with {SLEEPERS} processes, and its peak"),
            format!("{}, {}", mib(resident), mib(peak)),
        );
    }
    for (count, bytes) in &figures.processes_bytes {
        row(
            format!("state of `top` with {count} processes, simulated"),
            mib(*bytes),
        );
    }
    if let Some(share) = figures.idle {
        row(
            format!("`top` while {SLEEPERS} processes sleep"),
            format!("{:.2} % of a core", share * 100.0),
        );
    }
    if let Some(values) = &figures.attach_s {
        row(
            format!("from start to attached, with {SLEEPERS} processes"),
            format!("{values} s"),
        );
    }
    if let Some((whole, stripped)) = figures.executable_bytes {
        let stripped = stripped.map_or_else(absent, |bytes| mib(bytes as f64));
        row(
            "size of the static executable, and stripped".into(),
            format!("{}, {stripped}", mib(whole as f64)),
        );
    }
    table(&["figure", "measured"], &rows)
}

fn guests_table(guests: &[Guest]) -> String {
    let mut rows = Vec::new();
    let mut reasons = String::new();
    for guest in guests {
        let mut row = vec![guest.series.clone(), guest.hooks.to_owned()];
        for name in guest::LOOPS {
            let unwatched = guest.unwatched(name);
            row.push(unwatched.map_or_else(absent, |count| format!("{count:.0}")));
            for mode in guest::MODES {
                let added = guest.added(mode, name);
                row.push(added.map_or_else(absent, |count| format!("{count:+.0}")));
            }
        }
        rows.push(row);
        if let Err(reason) = &guest.counts {
            reasons.push_str(&format!("\n{} {}: {reason}.\n", guest.series, guest.hooks));
        }
    }
    let header: Vec<_> = ["Linux", "hooks"]
        .map(str::to_owned)
        .into_iter()
        .chain(guest::LOOPS.iter().flat_map(|name| {
            [(*name).to_owned()]
                .into_iter()
                .chain(guest::MODES.iter().map(|mode| (*mode).to_owned()))
        }))
        .collect();
    let header: Vec<_> = header.iter().map(String::as_str).collect();
    table(&header, &rows) + &reasons
}

/// On the newest kernel: which programs run on others is much the same.
fn programs_table(guests: &[Guest]) -> String {
    let mut rows = Vec::new();
    let newest = guests.last().map(|guest| &guest.series);
    for guest in guests.iter().filter(|guest| Some(&guest.series) == newest) {
        let programs = guest.counts.as_ref().map(|counts| &counts.programs[..]);
        for program in programs.unwrap_or_default() {
            rows.push(vec![
                guest.series.clone(),
                guest.hooks.to_owned(),
                program.name.clone(),
                format!("{:.1}", program.runs),
                format!("{:.0}", program.instructions),
            ]);
        }
    }
    table(
        &["Linux", "hooks", "program", "runs", "instructions"],
        &rows,
    )
}

fn instructions_table(counts: &Counts) -> String {
    let rows: Vec<_> = CASES
        .iter()
        .filter_map(|(id, label)| {
            let count = counts.get(*id)?;
            Some(vec![(*label).to_owned(), format!("{count:.0}")])
        })
        .collect();
    table(&["what is made of an event", "instructions"], &rows)
}

impl Figures {
    /// For machines.
    fn to_json(&self) -> Value {
        let map = |pairs: &[(&'static str, f64)]| {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect::<serde_json::Map<_, _>>()
        };
        json!({
            "events_per_s": map(&self.rates),
            "vma_bytes": self.vma_bytes,
            "processes_bytes": map(&self.processes_bytes),
            "resident_bytes": self.memory_bytes.map(|(resident, _)| resident),
            "peak_bytes": self.memory_bytes.map(|(_, peak)| peak),
            "idle_share": self.idle,
            "attach_s": self.attach_s.as_ref().map(Values::to_json),
            "executable_bytes": self.executable_bytes.map(|(whole, _)| whole),
            "stripped_bytes": self.executable_bytes.and_then(|(_, stripped)| stripped),
            "storms": self.storms.iter().map(agent::Storm::to_json).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["1.2 ×".to_owned(), "b".to_owned()]];
        assert_eq!(
            table(&["a", "long"], &rows),
            "| a     | long |\n| ----- | ---- |\n| 1.2 × | b    |\n"
        );
    }

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = between_marks(&page, "new\n").unwrap();
        assert_eq!(new, format!("before\n{BEGIN}\nnew\n{END}\nafter\n"));
        assert_eq!(between_marks(&new, "new\n").unwrap(), new);
        assert!(between_marks("no marks", "new\n").is_err());
    }

    #[test]
    fn a_guest_that_refuses_says_why() {
        let text = guests_table(&[Guest {
            series: "5.10".to_owned(),
            hooks: "tracepoint",
            counts: Err("no tracepoints".to_owned()),
        }]);
        assert!(text.contains("| 5.10  | tracepoint | –"));
        assert!(text.ends_with("\n5.10 tracepoint: no tracepoints.\n"));
    }
}

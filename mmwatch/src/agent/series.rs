//! Which groups of processes have counters of their own, so that the number of series
//! is bounded, no counter of any series goes down, and all of them add up to the total.
//!
//! What a group does while it has a series is counted there, and what it does else in
//! `other`. A group that ends, or gives way to a busier one, takes its series with it,
//! and what that had counted goes into `other`. If it comes back, its series begins anew.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::{
    churn::{By, Report, Sums},
    process::Users,
};

/// The name of the rest. A group of this name is part of it.
pub const OTHER: &str = "other";

/// The name of what has nothing that it could be grouped by.
pub const NONE: &str = "none";

/// A group must be this much busier than one that has a series to take its place, so that
/// series do not come and go.
const LEAD: f64 = 2.0;

/// Time after which what a group did counts half, s.
const HALF_LIFE_S: f64 = 60.0;

/// A group without a series that is less busy than that is as good as new.
const FORGOTTEN: f64 = 0.01;

/// What tells a group from others.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// What they are grouped by has this value.
    pub group: String,
    /// The name of a process, where groups are processes.
    pub comm: Option<String>,
}

/// Counters by group.
#[derive(Debug)]
pub struct Series {
    by: By,
    users: Users,
    /// How busy the groups are that there are.
    scores: FxHashMap<Name, f64>,
    counters: Counters,
}

/// The counters as they are shown.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Groups with a series.
    pub groups: BTreeMap<Name, Sums>,
    /// When the series of each began at 0, ns of the boot clock.
    pub since_boot_ns: BTreeMap<Name, u64>,
    /// All others.
    pub other: Sums,
    /// The sum of both.
    pub all: Sums,
}

impl Series {
    /// Nothing counted yet.
    pub fn new(by: By, users: Users) -> Self {
        Self {
            by,
            users,
            scores: FxHashMap::default(),
            counters: Counters::default(),
        }
    }

    /// What the groups are by.
    pub fn by(&self) -> By {
        self.by
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts an interval; `report` must name every process, each once. At most `top_k`
    /// groups have series afterwards.
    pub fn count(&mut self, report: &Report, top_k: usize) {
        let mut news: BTreeMap<Name, Sums> = BTreeMap::new();
        for process in &report.processes {
            let users = &self.users;
            let group = self
                .by
                .of(&process.member(), &mut |uid| users.name(uid))
                .unwrap_or_else(|| NONE.to_owned());
            let comm = (self.by == By::Process).then(|| process.comm.to_string());
            let name = Name { group, comm };
            // Most do nothing, most of the time, and there may be very many.
            let is_idle = process.row.interval == Sums::default();
            if is_idle && !self.scores.contains_key(&name) {
                continue;
            }
            *news.entry(name).or_default() += &process.row.interval;
        }
        let unnamed = Name {
            group: OTHER.to_owned(),
            comm: None,
        };
        let other = news.remove(&unnamed).unwrap_or_default();

        self.score(&news, report.interval_ns);
        self.choose(&news, top_k);

        let Counters {
            groups,
            since_boot_ns,
            other: rest,
            all,
        } = &mut self.counters;
        // What is new in there was done in this interval.
        let before_boot_ns = report.boot_ns.saturating_sub(report.interval_ns);
        since_boot_ns.retain(|name, _| groups.contains_key(name));
        for name in groups.keys() {
            if !since_boot_ns.contains_key(name) {
                since_boot_ns.insert(name.clone(), before_boot_ns);
            }
        }
        for sums in [&other, &report.other.interval]
            .into_iter()
            .chain(news.values())
        {
            *all += sums;
        }
        *rest += &other;
        *rest += &report.other.interval;
        for (name, sums) in news {
            *groups.get_mut(&name).unwrap_or(rest) += &sums;
        }
    }

    /// Notes how busy each group is, and forgets those that are gone or were quiet for long.
    fn score(&mut self, news: &BTreeMap<Name, Sums>, interval_ns: u64) {
        let left = 0.5_f64.powf(interval_ns as f64 / 1e9 / HALF_LIFE_S);
        let before = std::mem::take(&mut self.scores);
        self.scores = news
            .iter()
            .filter_map(|(name, sums)| {
                let old = before.get(name).copied().unwrap_or(0.0);
                let score = old * left + sums.all_ops().count as f64;
                let is_kept = score > FORGOTTEN || self.counters.groups.contains_key(name);
                is_kept.then(|| (name.clone(), score))
            })
            .collect();
    }

    /// Gives series to the busiest, and takes them from the rest.
    fn choose(&mut self, news: &BTreeMap<Name, Sums>, top_k: usize) {
        let Counters { groups, other, .. } = &mut self.counters;
        let mut order: Vec<_> = self
            .scores
            .iter()
            .filter_map(|(name, score)| {
                let has_series = groups.contains_key(name);
                let is_new = news.get(name).is_some_and(|sums| *sums != Sums::default());
                let score = if has_series { score * LEAD } else { *score };
                (has_series || is_new).then_some((score, has_series, name))
            })
            .collect();
        // Of two that are alike, the one that has a series keeps it.
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(a.2.cmp(b.2)));
        order.truncate(top_k);
        let mut chosen: BTreeMap<_, _> = order
            .into_iter()
            .map(|(_, _, name)| (name.clone(), Sums::default()))
            .collect();
        for (name, sums) in std::mem::take(groups) {
            *chosen.get_mut(&name).unwrap_or(other) += &sums;
        }
        *groups = chosen;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{churn::Churn, event::Op, sample};

    /// A kernel in which processes do things and end.
    struct Kernel {
        churn: Churn,
        /// By process: what it did, and whether it lives.
        processes: BTreeMap<u32, (usize, bool)>,
        now_boot_ns: u64,
    }

    impl Kernel {
        fn new() -> Self {
            Self {
                churn: Churn::new(0, 4096),
                processes: BTreeMap::new(),
                now_boot_ns: 0,
            }
        }

        fn report(&mut self) -> Report {
            self.now_boot_ns += 1_000_000_000;
            let events: Vec<_> = self
                .processes
                .iter()
                .flat_map(|(&tgid, &(count, _))| {
                    let map = move || sample::by(tgid, "x", sample::event(Op::Map));
                    std::iter::repeat_with(map).take(count)
                })
                .collect();
            let listed: Vec<_> = self
                .processes
                .iter()
                .filter(|(_, (_, alive))| *alive)
                .map(|(&tgid, _)| sample::listed(tgid, "x", 10))
                .collect();
            let sums = sample::kernel_sums(&events);
            for key in self.churn.update(self.now_boot_ns, &sums, &listed) {
                self.processes.remove(&key.tgid);
            }
            self.churn.tick(self.now_boot_ns, 65_530, usize::MAX)
        }

        fn act(&mut self, tgid: u32, count: usize) {
            let process = self.processes.entry(tgid).or_insert((0, true));
            if process.1 {
                process.0 += count;
            }
        }
    }

    fn maps(sums: &Sums) -> u64 {
        sums.op(Op::Map).count
    }

    fn shown(series: &Series) -> Vec<(&str, u64)> {
        let groups = series.counters().groups.iter();
        groups
            .map(|(name, sums)| (name.group.as_str(), maps(sums)))
            .collect()
    }

    fn series(by: By) -> Series {
        Series::new(by, Users::read("/nonexistent".as_ref()))
    }

    #[test]
    fn the_busiest_have_series_and_keep_them() {
        let (mut kernel, mut series) = (Kernel::new(), series(By::Process));
        for (tgid, count) in [(1, 5), (2, 7), (3, 1)] {
            kernel.act(tgid, count);
        }
        series.count(&kernel.report(), 2);
        assert_eq!(shown(&series), [("1", 5), ("2", 7)]);
        assert_eq!(maps(&series.counters().other), 1);

        // Not by so much that it would take a place.
        kernel.act(3, 8);
        series.count(&kernel.report(), 2);
        assert_eq!(shown(&series), [("1", 5), ("2", 7)]);
        assert_eq!(maps(&series.counters().other), 9);

        // What 1 had is in the rest now, and what 3 did there stays there.
        kernel.act(3, 10);
        series.count(&kernel.report(), 2);
        assert_eq!(shown(&series), [("2", 7), ("3", 10)]);
        assert_eq!(maps(&series.counters().other), 14);
        assert_eq!(maps(&series.counters().all), 31);
    }

    #[test]
    fn the_dead_vanish_into_the_rest() {
        let (mut kernel, mut series) = (Kernel::new(), series(By::Process));
        kernel.act(1, 5);
        series.count(&kernel.report(), 9);
        assert_eq!(shown(&series), [("1", 5)]);
        kernel.processes.get_mut(&1).unwrap().1 = false;
        for _ in 0..3 {
            series.count(&kernel.report(), 9);
        }
        assert_eq!(shown(&series), [("", 0); 0]);
        assert_eq!(maps(&series.counters().other), 5);
        assert!(series.scores.is_empty());
    }

    #[test]
    fn a_smaller_number_of_series_loses_nothing() {
        let (mut kernel, mut series) = (Kernel::new(), series(By::Process));
        for tgid in 1..6 {
            kernel.act(tgid, tgid as usize);
        }
        series.count(&kernel.report(), 5);
        series.count(&kernel.report(), 1);
        assert_eq!(shown(&series), [("5", 5)]);
        assert_eq!(maps(&series.counters().other), 10);
    }

    #[test]
    fn processes_of_a_group_are_one_and_what_is_none_has_a_name() {
        let mut kernel = Kernel::new();
        kernel.act(1, 5);
        kernel.act(2, 6);
        let report = kernel.report();
        let mut by_comm = series(By::Comm);
        by_comm.count(&report, 9);
        assert_eq!(shown(&by_comm), [("x", 11)]);
        let mut by_container = series(By::Container);
        by_container.count(&report, 9);
        assert_eq!(shown(&by_container), [("none", 11)]);
    }

    #[test]
    fn a_group_with_the_name_of_the_rest_is_in_the_rest() {
        let mut kernel = Kernel::new();
        kernel.act(1, 5);
        let mut report = kernel.report();
        report.processes[0].comm = sample::comm("other");
        let mut series = series(By::Comm);
        series.count(&report, 9);
        assert_eq!(shown(&series), [("", 0); 0]);
        assert_eq!(maps(&series.counters().other), 5);
        assert_eq!(maps(&series.counters().all), 5);
    }

    proptest! {
        #[test]
        fn no_counter_goes_down_and_all_add_up(
            steps in prop::collection::vec(
                (prop::collection::vec((1_u32..12, 0_usize..9), 0..6), 1_u32..12, 1_usize..5),
                1..30,
            )
        ) {
            let (mut kernel, mut series) = (Kernel::new(), series(By::Process));
            let mut before = Counters::default();
            for (acts, dying, top_k) in steps {
                for (tgid, count) in acts {
                    kernel.act(tgid, count);
                }
                if let Some(process) = kernel.processes.get_mut(&dying) {
                    process.1 = false;
                }
                let report = kernel.report();
                series.count(&report, top_k);
                let now = series.counters().clone();
                let mut sum = now.other;
                for (name, sums) in &now.groups {
                    sum += sums;
                    if let Some(before) = before.groups.get(name) {
                        prop_assert!(maps(sums) >= maps(before));
                    }
                }
                prop_assert!(maps(&now.other) >= maps(&before.other));
                prop_assert!(now.groups.len() <= top_k);
                prop_assert_eq!(sum, now.all);
                prop_assert_eq!(now.all, report.all.total);
                before = now;
            }
        }
    }
}

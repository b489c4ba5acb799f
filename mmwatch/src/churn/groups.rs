//! Processes that belong together, as one.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{ProcessReport, Report, Row};
use crate::{
    event::Comm,
    identity::{Container, Who},
};

/// What processes have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Nothing: each is shown.
    Process,
    /// Their names.
    Comm,
    /// The programs that they run.
    Exe,
    /// Their real users.
    User,
    /// Their cgroups.
    Cgroup,
    /// Their containers.
    Container,
    /// Their pods of Kubernetes.
    Pod,
}

impl By {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Process,
        Self::Comm,
        Self::Exe,
        Self::User,
        Self::Cgroup,
        Self::Container,
        Self::Pod,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Comm => "comm",
            Self::Exe => "exe",
            Self::User => "user",
            Self::Cgroup => "cgroup",
            Self::Container => "container",
            Self::Pod => "pod",
        }
    }

    /// The container of a process, where groups have one.
    pub(crate) fn container(self, who: Option<&Who>) -> Option<&Container> {
        match self {
            Self::Container | Self::Pod => who?.container(),
            Self::Process | Self::Comm | Self::Exe | Self::User | Self::Cgroup => None,
        }
    }

    /// What a process has of it, if anything; `user` names a user.
    pub(crate) fn of(
        self,
        member: &Member<'_>,
        user: &mut impl FnMut(u32) -> String,
    ) -> Option<String> {
        let who = member.who;
        let container = || who?.container();
        match self {
            Self::Process => Some(member.pid.to_string()),
            Self::Comm => Some(member.comm.to_string()),
            Self::Exe => Some(member.program?.to_owned()),
            Self::User => Some(user(member.uid)),
            Self::Cgroup => Some(who?.cgroup.as_ref()?.path.clone()),
            Self::Container => Some(container()?.id.clone()),
            Self::Pod => container()?.pod_uid.clone(),
        }
    }
}

/// What of a process tells its group.
pub(crate) struct Member<'a> {
    pub pid: u32,
    pub comm: Comm,
    pub uid: u32,
    pub program: Option<&'a str>,
    pub who: Option<&'a Who>,
}

impl ProcessReport {
    /// What tells its group.
    pub(crate) fn member(&self) -> Member<'_> {
        Member {
            pid: self.key.tgid,
            comm: self.comm,
            uid: self.uid,
            program: self.program.as_deref(),
            who: self.who.as_deref(),
        }
    }
}

/// The groups of a [`Report`].
#[derive(Clone, Debug)]
pub struct Groups {
    /// By what.
    pub by: By,
    /// Those that did most in the interval first, then by VMAs.
    pub rows: Vec<Group>,
}

/// Processes that belong together.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// What they have in common; `None` for those that have nothing of the sort.
    pub name: Option<String>,
    /// Of a group by container or pod: the container, or one of the pod's.
    pub container: Option<Container>,
    /// How many they are, those among them that ended in the interval.
    pub processes: u64,
    /// VMAs of all of them now.
    pub vmas: u64,
    /// VMAs of the one that has most: it is the one near its limit.
    pub vmas_of_largest: u32,
    /// Bytes of all their mappings now.
    pub total_bytes: u64,
    /// Their sums.
    pub row: Row,
}

impl Report {
    /// Puts the processes into groups, of which `rows` are shown; all others
    /// go into [`Report::other`], so that sums stay what they are.
    #[must_use]
    pub fn grouped(mut self, by: By, rows: usize, mut user: impl FnMut(u32) -> String) -> Self {
        let mut groups: BTreeMap<Option<String>, Group> = BTreeMap::new();
        for process in self.processes.drain(..) {
            let name = by.of(&process.member(), &mut user);
            let group = groups.entry(name).or_default();
            if let Some(container) = by.container(process.who.as_deref()) {
                Container::stand_for(&mut group.container, container);
            }
            group.processes += 1;
            group.vmas += u64::from(process.vmas.unwrap_or(0));
            group.vmas_of_largest = group.vmas_of_largest.max(process.vmas.unwrap_or(0));
            group.total_bytes += process.total_bytes.unwrap_or(0);
            group.row.add(&process.row);
        }
        let mut shown: Vec<_> = groups
            .into_iter()
            .map(|(name, group)| Group { name, ..group })
            .collect();
        shown.sort_by_key(|group| Reverse((group.row.interval.all_ops().count, group.vmas)));
        for group in shown.iter().skip(rows) {
            self.other.add(&group.row);
        }
        shown.truncate(rows);
        self.groups = Some(Groups { by, rows: shown });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{churn::Churn, identity::Cgroup, sample};

    /// Three processes of two containers, and one of none.
    fn report() -> Report {
        let mut churn = Churn::new(0, 4096);
        let listed = [
            sample::listed(1, "a", 10),
            sample::listed(2, "a", 30),
            sample::listed(3, "b", 100),
            sample::listed(4, "b", 7),
        ];
        let mut events = Vec::new();
        for (tgid, count) in [(1, 1), (2, 2), (3, 5), (4, 100)] {
            let map = || sample::by(tgid, "x", sample::event(crate::event::Op::Map));
            events.extend(std::iter::repeat_with(map).take(count));
        }
        churn.update(1, &sample::kernel_sums(&events), &listed);
        let mut report = churn.tick(2, 65_530, usize::MAX);
        for process in &mut report.processes {
            if process.key.tgid < 4 {
                process.program = Some("/bin/sh".into());
            }
            let path = match process.key.tgid {
                1 | 2 => "/docker/one",
                3 => "/docker/two",
                _ => "/system.slice/x.service",
            };
            process.who = Some(std::sync::Arc::new(Who {
                here_pid: None,
                namespace_pid: None,
                cgroup: Some(std::sync::Arc::new(Cgroup::new(path.to_owned()))),
            }));
        }
        report
    }

    fn names(report: &Report) -> Vec<Option<&str>> {
        let groups = report.groups.as_ref().unwrap();
        groups
            .rows
            .iter()
            .map(|group| group.name.as_deref())
            .collect()
    }

    #[test]
    fn groups_add_up_and_the_busiest_is_first() {
        let before = report();
        let report = before
            .clone()
            .grouped(By::Container, 9, |uid| uid.to_string());
        assert_eq!(names(&report), [None, Some("two"), Some("one")]);
        let one = &report.groups.as_ref().unwrap().rows[2];
        assert_eq!((one.processes, one.vmas, one.vmas_of_largest), (2, 40, 30));
        assert_eq!(one.row.interval.all_ops().count, 3);
        assert_eq!(report.all, before.all);
        assert_eq!(report.other, before.other);
    }

    #[test]
    fn what_is_not_shown_is_in_the_rest() {
        let before = report();
        let report = before
            .clone()
            .grouped(By::Container, 1, |uid| uid.to_string());
        assert_eq!(names(&report), [None]);
        let mut sum = report.other.clone();
        sum.add(&report.groups.as_ref().unwrap().rows[0].row);
        assert_eq!(sum, before.all);
    }

    #[test]
    fn each_way_to_group_has_its_names() {
        for (by, want) in [
            (By::Comm, vec![Some("b"), Some("a")]),
            (By::Exe, vec![None, Some("/bin/sh")]),
            (By::User, vec![Some("user 1000")]),
            (
                By::Cgroup,
                vec![
                    Some("/system.slice/x.service"),
                    Some("/docker/two"),
                    Some("/docker/one"),
                ],
            ),
            (By::Pod, vec![None]),
            (
                By::Process,
                vec![Some("4"), Some("3"), Some("2"), Some("1")],
            ),
        ] {
            let report = report().grouped(by, 9, |uid| format!("user {uid}"));
            assert_eq!(names(&report), want, "{by:?}");
        }
    }
}

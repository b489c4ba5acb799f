//! Whose a process is: its cgroup, and by that its container, pod or unit.
//!
//! No daemon is asked. The kernel tells the cgroup's id, and its path when it
//! is made; of those that were there before, sysfs has the path.

pub mod cgroup;
mod hierarchy;

use std::{path::Path, sync::Arc};

use mmwatch_common::identity::Identity;
use rustc_hash::FxHashMap;

pub use self::{
    cgroup::{Container, Owner, Runtime},
    hierarchy::{CgroupRoot, Hierarchy},
};
use crate::{
    event::{Event, What},
    source::{ProcessKey, Source},
};

/// Cgroups that are remembered at most: then all are looked up anew.
const MAX_CGROUPS: usize = 1 << 16;

/// A cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its path in its hierarchy, `/` first.
    pub path: String,
    /// What it is of.
    pub owner: Owner,
}

impl Cgroup {
    /// By its path.
    pub fn new(path: String) -> Self {
        Self {
            owner: Owner::of(&path),
            path,
        }
    }
}

/// Whose a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Its process id in its own pid namespace, where that is another one than
    /// in the root namespace.
    pub namespace_pid: Option<u32>,
    /// Its cgroup.
    pub cgroup: Option<Arc<Cgroup>>,
}

impl Who {
    /// Its container.
    pub fn container(&self) -> Option<&Container> {
        self.cgroup.as_ref()?.owner.container.as_ref()
    }
}

/// Processes that are remembered at most: then all are looked up anew.
const MAX_PROCESSES: usize = 1 << 16;

/// All processes and cgroups that were met.
#[derive(Debug, Default)]
pub struct Directory {
    cgroups: Cgroups,
    processes: FxHashMap<ProcessKey, Arc<Who>>,
}

impl Directory {
    /// With the cgroups of a hierarchy.
    pub fn new(hierarchy: Option<Hierarchy>) -> Self {
        Self {
            cgroups: Cgroups::new(hierarchy),
            processes: FxHashMap::default(),
        }
    }

    /// Whose the process of an event is. Looked up at its first event and when
    /// it became another program, which is when container runtimes have put it
    /// where it belongs.
    pub fn of_event(&mut self, event: &Event, source: &mut impl Source) -> Option<Arc<Who>> {
        let key = ProcessKey::new(event.actor.tgid, event.actor.start_boot_ns);
        if let What::Exec(_) = event.what {
            self.processes.remove(&key);
        }
        if let Some(who) = self.processes.get(&key) {
            return Some(who.clone());
        }
        let identity = source.identity(key)?;
        let who = self.of(key.tgid, identity, source);
        if self.processes.len() >= MAX_PROCESSES {
            self.processes.clear();
        }
        self.processes.insert(key, who.clone());
        Some(who)
    }

    /// Forgets a process that ended.
    pub fn forget(&mut self, key: ProcessKey) {
        self.processes.remove(&key);
    }

    /// The cgroup with this id.
    pub fn cgroup(&mut self, id: u64, source: &mut impl Source) -> Option<Arc<Cgroup>> {
        self.cgroups.get(id, || source.cgroup_path(id))
    }

    /// What the kernel knew of a process, in words.
    pub fn of(&mut self, tgid: u32, identity: Identity, source: &mut impl Source) -> Arc<Who> {
        let Identity {
            cgroup_id,
            pid_namespace: _,
            namespace_tgid,
        } = identity;
        let cgroup = self
            .cgroups
            .get(cgroup_id, || source.cgroup_path(cgroup_id));
        Arc::new(Who {
            namespace_pid: (namespace_tgid != 0 && namespace_tgid != tgid)
                .then_some(namespace_tgid),
            cgroup,
        })
    }
}

/// All cgroups that were met.
#[derive(Debug, Default)]
pub struct Cgroups {
    hierarchy: Option<Hierarchy>,
    /// By their ids; `None` of those whose path nobody knows.
    met: FxHashMap<u64, Option<Arc<Cgroup>>>,
}

impl Cgroups {
    /// Those of a hierarchy; without one, only what the kernel tells. All that
    /// there are now are met: later they may be gone.
    pub fn new(hierarchy: Option<Hierarchy>) -> Self {
        let mut cgroups = Self {
            hierarchy,
            met: FxHashMap::default(),
        };
        cgroups.walk();
        cgroups
    }

    /// Meets all that are there. What was met before, keeps its path.
    fn walk(&mut self) {
        let Some(hierarchy) = &self.hierarchy else {
            return;
        };
        for (id, path) in hierarchy.walk() {
            let known = self.met.get(&id).is_some_and(Option::is_some);
            if !known && self.met.len() < MAX_CGROUPS {
                self.met.insert(id, Some(Arc::new(Cgroup::new(path))));
            }
        }
    }

    /// The cgroup with this id. `told` is what the kernel said of it when it
    /// was made; asked only for those not met before, and sysfs only after it.
    pub fn get(&mut self, id: u64, told: impl FnOnce() -> Option<String>) -> Option<Arc<Cgroup>> {
        if id == 0 {
            return None;
        }
        if let Some(met) = self.met.get(&id) {
            return met.clone();
        }
        if self.met.len() >= MAX_CGROUPS {
            self.met.clear();
        }
        if let Some(path) = told() {
            let cgroup = Some(Arc::new(Cgroup::new(path)));
            self.met.insert(id, cgroup.clone());
            return cgroup;
        }
        // All at once: where one was not met, others were not either.
        self.walk();
        self.met.entry(id).or_default().clone()
    }
}

/// Where the hierarchy that counts is found.
pub const MOUNTINFO: &str = "/proc/self/mountinfo";
/// Which number it has.
pub const OWN_CGROUPS: &str = "/proc/self/cgroup";

impl Hierarchy {
    /// The hierarchy whose cgroups tell processes apart on this machine.
    pub fn find() -> Option<Self> {
        let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
        Self::of(&read(MOUNTINFO)?, &read(OWN_CGROUPS)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_told_is_kept() {
        let mut cgroups = Cgroups::default();
        let path = "/system.slice/docker-web.scope".to_owned();
        let first = cgroups.get(7, || Some(path.clone())).unwrap();
        assert_eq!(first.path, path);
        let container = first.owner.container.as_ref().unwrap();
        assert_eq!(container.runtime, Some(Runtime::Docker));
        let again = cgroups.get(7, || panic!("it was met before")).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
    }

    #[test]
    fn what_nobody_knows_is_asked_once() {
        let mut cgroups = Cgroups::default();
        assert_eq!(cgroups.get(7, || None), None);
        assert_eq!(cgroups.get(7, || panic!("it was asked before")), None);
        assert_eq!(cgroups.get(0, || panic!("0 is no cgroup")), None);
    }
}

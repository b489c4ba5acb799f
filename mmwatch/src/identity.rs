//! Whose a process is: its cgroup, and by that its container, pod or unit.
//!
//! No daemon is asked. The kernel tells the cgroup's id, and its path when it
//! is made; of those that were there before, sysfs has the path. What people
//! call a container is in what its runtime keeps on disk.

pub mod cgroup;
pub mod here;
mod hierarchy;
mod runtimes;

use std::{path::Path, sync::Arc};

use mmwatch_common::identity::Identity;
use rustc_hash::FxHashMap;

pub use self::{
    cgroup::{Container, Names, Owner, Runtime},
    here::{Here, PidNamespace},
    hierarchy::{CgroupRoot, Hierarchy},
    runtimes::Runtimes,
};
use crate::{
    event::{Event, What},
    process::read_text,
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
    /// By its path, which does not tell the names of a container.
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
    /// Its process id in mmwatch's pid namespace, where that is not the root
    /// namespace and the process's own.
    pub here_pid: Option<u32>,
    /// Its cgroup.
    pub cgroup: Option<Arc<Cgroup>>,
}

impl Who {
    /// The process id that people see of it, `tgid` in the root namespace: where mmwatch
    /// runs in a container, the one that it has there.
    pub fn shown_pid(who: Option<&Self>, tgid: u32) -> u32 {
        who.and_then(|who| who.here_pid).unwrap_or(tgid)
    }

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
    /// Inode number of mmwatch's own pid namespace, if that is not the root's.
    pid_namespace: Option<u32>,
    cgroups: Cgroups,
    processes: FxHashMap<ProcessKey, Met>,
}

/// A process that was met.
#[derive(Clone, Debug)]
struct Met {
    identity: Identity,
    who: Arc<Who>,
}

impl Directory {
    /// With the cgroups of a hierarchy, the names of their containers, and what the kernel
    /// told of those that cannot be seen from here.
    pub fn new(hierarchy: Option<Hierarchy>, runtimes: Runtimes, here: &Here) -> Self {
        let mut cgroups = Cgroups::new(hierarchy, runtimes);
        for (id, path) in here.paths() {
            cgroups.meet(*id, path.clone());
        }
        Self {
            pid_namespace: here.pid_namespace.map(|namespace| namespace.inode),
            cgroups,
            processes: FxHashMap::default(),
        }
    }

    /// Whose the process of an event is. The event has its cgroup; the rest is looked up at
    /// its first event and when it became another program.
    pub fn of_event(&mut self, event: &Event, source: &mut impl Source) -> Arc<Who> {
        let key = ProcessKey::new(event.actor.tgid, event.actor.start_boot_ns);
        if let What::Exec(_) = event.what {
            self.processes.remove(&key);
        }
        let seen = event.actor.cgroup_id;
        let met = self.processes.get(&key);
        if let Some(met) = met
            && [0, met.identity.cgroup_id].contains(&seen)
        {
            return met.who.clone();
        }
        // Unknown where the kernel's table was full: asked once all the same.
        let mut identity = match met {
            Some(met) => met.identity,
            None => source.identity(key).unwrap_or_default(),
        };
        if seen != 0 {
            identity.cgroup_id = seen;
        }
        let who = self.of(key.tgid, identity, source);
        if self.processes.len() >= MAX_PROCESSES {
            self.processes.clear();
        }
        let met = Met {
            identity,
            who: who.clone(),
        };
        self.processes.insert(key, met);
        who
    }

    /// Forgets a process that ended.
    pub fn forget(&mut self, key: ProcessKey) {
        self.processes.remove(&key);
    }

    /// Meets the cgroup of a process: a container's names may be gone with it, and
    /// it with them, before anybody asks.
    pub fn meet(&mut self, identity: Identity, source: &mut impl Source) {
        self.cgroup(identity.cgroup_id, source);
    }

    /// The cgroup with this id: of a recording as it was recorded.
    pub fn cgroup(&mut self, id: u64, source: &mut impl Source) -> Option<Arc<Cgroup>> {
        if source.replay().is_some() {
            return source.recorded_cgroup(id);
        }
        self.cgroups.get(id, || source.cgroup_path(id))
    }

    /// What the kernel knew of a process, in words.
    pub fn of(&mut self, tgid: u32, identity: Identity, source: &mut impl Source) -> Arc<Who> {
        let Identity {
            cgroup_id,
            pid_namespace,
            namespace_tgid,
        } = identity;
        let cgroup = self.cgroup(cgroup_id, source);
        Arc::new(Who {
            namespace_pid: (namespace_tgid != 0 && namespace_tgid != tgid)
                .then_some(namespace_tgid),
            here_pid: (self.pid_namespace == Some(pid_namespace)).then_some(namespace_tgid),
            cgroup,
        })
    }
}

/// All cgroups that were met.
#[derive(Debug, Default)]
pub struct Cgroups {
    hierarchy: Option<Hierarchy>,
    runtimes: Runtimes,
    /// By their ids; `None` of those whose path nobody knows.
    met: FxHashMap<u64, Option<Arc<Cgroup>>>,
}

impl Cgroups {
    /// Those of a hierarchy; without one, only what the kernel tells. All that
    /// there are now are met: later they may be gone. A container's names are
    /// looked up when its cgroup is met, and no more.
    pub fn new(hierarchy: Option<Hierarchy>, runtimes: Runtimes) -> Self {
        let mut cgroups = Self {
            hierarchy,
            runtimes,
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
            self.meet(id, path);
        }
    }

    /// Meets one. If it was met before, it keeps its path.
    fn meet(&mut self, id: u64, path: String) {
        let known = self.met.get(&id).is_some_and(Option::is_some);
        if !known && self.met.len() < MAX_CGROUPS {
            let cgroup = Arc::new(self.runtimes.cgroup(path));
            self.met.insert(id, Some(cgroup));
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
            let cgroup = Some(Arc::new(self.runtimes.cgroup(path)));
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
    /// The hierarchy whose cgroups tell processes apart on this machine; where it is
    /// mounted several times, that below `sysfs`.
    pub fn find(sysfs: &Path) -> Option<Self> {
        let read = |path: &str| read_text(Path::new(path)).ok();
        Self::of(&read(MOUNTINFO)?, &read(OWN_CGROUPS)?, sysfs)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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

    /// Names are looked up when a container is met, and kept when its state is gone.
    #[test]
    fn containers_are_named_once() {
        let root = std::env::temp_dir().join(format!("mmwatch-named-{}", std::process::id()));
        let dir = root.join("var/lib/docker/containers/web");
        fs::create_dir_all(&dir).unwrap();
        let state = r#"{ "Name": "/shop", "Config": { "Image": "shop:1" } }"#;
        fs::write(dir.join("config.v2.json"), state).unwrap();
        let mut cgroups = Cgroups::new(None, Runtimes::at(&root));
        let path = "/system.slice/docker-web.scope".to_owned();
        let met = cgroups.get(7, || Some(path.clone())).unwrap();
        let name = |of: &Cgroup| of.owner.container.clone().unwrap().names.name;
        assert_eq!(name(&met).as_deref(), Some("shop"));
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(cgroups.get(7, || None), Some(met));
        let late = cgroups.get(8, || Some(path)).unwrap();
        assert_eq!(name(&late), None);
    }

    #[test]
    fn what_nobody_knows_is_asked_once() {
        let mut cgroups = Cgroups::default();
        assert_eq!(cgroups.get(7, || None), None);
        assert_eq!(cgroups.get(7, || panic!("it was asked before")), None);
        assert_eq!(cgroups.get(0, || panic!("0 is no cgroup")), None);
    }
}

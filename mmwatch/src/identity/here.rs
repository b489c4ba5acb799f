//! Where mmwatch itself runs: on a host, or in a container, where its own view ends
//! at its namespaces while the kernel programs see the whole machine.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use mmwatch_common::{
    identity::Identity,
    place::{DEPTH, Place},
};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::{CgroupRoot, Hierarchy, Owner};
use crate::process::read_text;

/// A pid namespace below the root namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidNamespace {
    /// Its inode number in `/proc/PID/ns/pid`.
    pub inode: u32,
    /// How deep it is; 0 is the root namespace.
    pub level: u32,
}

/// Inode numbers of the namespaces that the kernel begins with (`PROC_CGROUP_INIT_INO` and
/// `PROC_PID_INIT_INO`, `include/linux/proc_ns.h`, since 4.6 and 3.8).
const ROOT_CGROUP_NAMESPACE: u64 = 0xefff_fffb;
const ROOT_PID_NAMESPACE: u64 = 0xefff_fffc;

/// Whether the caller's namespaces are the root's, so that its own view is the
/// kernel's. `false` where `/proc` does not tell.
pub fn is_at_root() -> bool {
    is_namespace("/proc/self/ns/cgroup", ROOT_CGROUP_NAMESPACE) && is_in_root_pid_namespace()
}

/// Whether the caller's pid namespace is the root's. `false` where `/proc` does not tell.
pub fn is_in_root_pid_namespace() -> bool {
    is_namespace("/proc/self/ns/pid", ROOT_PID_NAMESPACE)
}

fn is_namespace(path: &str, inode: u64) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.ino() == inode)
}

/// Whether the caller's pid namespace is shared with other containers: then its first
/// process is in another cgroup. `false` where `/proc` does not tell.
pub fn shares_pid_namespace() -> bool {
    let cgroups = |pid: &str| read_text(&Path::new("/proc").join(pid).join("cgroup"));
    match (cgroups("self"), cgroups("1")) {
        (Ok(own), Ok(first)) => own != first,
        _ => false,
    }
}

/// The id by which `/proc` here knows the process that has `tgid` in the root namespace;
/// `None` for those of other namespaces. `own` is the inode number of mmwatch's own pid
/// namespace, if that is not the root's.
pub fn pid_here(own: Option<u32>, tgid: u32, identity: &Identity) -> Option<u32> {
    match own {
        None => Some(tgid),
        Some(own) => (identity.pid_namespace == own).then_some(identity.namespace_tgid),
    }
}

/// Where mmwatch runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// Its pid namespace, if that is not the root's.
    pub pid_namespace: Option<PidNamespace>,
    /// Its cgroups, the root of the hierarchy first, as the kernel has them.
    cgroups: Vec<(u64, String)>,
    /// Ids of processes in the root namespace, by those that they have here.
    tgids: FxHashMap<u32, u32>,
    /// The cgroups of all processes that were told.
    paths: Vec<(u64, String)>,
}

impl Here {
    /// By what the kernel says.
    pub fn new(places: &[Place]) -> Self {
        let mut here = Self::default();
        for place in places {
            if place.own_tgid != 0 {
                here.tgids.insert(place.own_tgid, place.tgid);
            }
            let cgroups = cgroups(place);
            here.paths.extend(paths(&cgroups));
            if place.is_self != 0 {
                here.cgroups = cgroups;
                here.pid_namespace = (place.pid_level > 0).then_some(PidNamespace {
                    inode: place.pid_namespace,
                    level: place.pid_level,
                });
            }
        }
        here.paths.sort_unstable();
        here.paths.dedup();
        here
    }

    /// Where a recording was made: nothing but the pid namespace is left of it.
    pub fn then(pid_namespace: Option<PidNamespace>) -> Self {
        Self {
            pid_namespace,
            ..Self::default()
        }
    }

    /// The id in the root namespace of the process that has this id here.
    pub fn tgid(&self, pid: u32) -> Option<u32> {
        match self.pid_namespace {
            None => Some(pid),
            Some(_) => self.tgids.get(&pid).copied(),
        }
    }

    /// Ids and paths of all cgroups that the kernel told of.
    pub fn paths(&self) -> &[(u64, String)] {
        &self.paths
    }

    /// The cgroup of the pod that mmwatch is in or, without one, that of its container or,
    /// without one, its own.
    pub fn pod(&self) -> Option<CgroupRoot> {
        let paths = paths(&self.cgroups);
        let of_pod = |path: &str| Owner::is_pod(path);
        let of_container = |path: &str| Owner::of(path).container.is_some();
        let level = paths
            .iter()
            .position(|(_, path)| of_pod(path))
            .or_else(|| paths.iter().position(|(_, path)| of_container(path)))
            .or_else(|| paths.len().checked_sub(1))?;
        Some(CgroupRoot {
            id: paths.get(level)?.0,
            level: u32::try_from(level).ok()?,
        })
    }

    /// The path of the cgroup that mmwatch sees as the root of its hierarchy, if it sees
    /// another one than the kernel; `own` is its own path as it sees it.
    pub fn root(&self, own: &str) -> Option<String> {
        let (_, path) = paths(&self.cgroups).pop()?;
        let root = path.strip_suffix(own.trim_end_matches('/'))?;
        (!root.is_empty() && root != "/").then(|| root.to_owned())
    }

    /// Corrects what was read of a hierarchy here, where paths begin at another cgroup.
    pub fn correct(&self, hierarchy: &mut Hierarchy) {
        if let Some(root) = own_path(hierarchy).and_then(|own| self.root(&own)) {
            hierarchy.root = below(&root, hierarchy);
        }
    }
}

/// The root of a hierarchy's mount, of a caller who sees `seen` as the root.
fn below(seen: &str, hierarchy: &Hierarchy) -> String {
    let mut base = seen;
    for _ in 0..hierarchy.above {
        base = base.rsplit_once('/').map_or("", |(above, _)| above);
    }
    let root = format!("{base}{}", hierarchy.root.trim_end_matches('/'));
    if root.is_empty() {
        "/".to_owned()
    } else {
        root
    }
}

/// The caller's path in a hierarchy, as it sees it.
fn own_path(hierarchy: &Hierarchy) -> Option<String> {
    let own = read_text(Path::new(super::OWN_CGROUPS)).ok()?;
    let number = hierarchy.number.to_string();
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        (fields.next()? == number).then(|| fields.nth(1).map(str::to_owned))?
    })
}

/// The cgroups of a process, the root first. Empty where there are more than are told.
fn cgroups(place: &Place) -> Vec<(u64, String)> {
    let count = place.cgroup_level as usize + 1;
    if count > DEPTH {
        return Vec::new();
    }
    let told = place.cgroup_ids.iter().zip(&place.cgroup_names).take(count);
    let mut cgroups: Vec<_> = told
        .map(|(id, name)| {
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            (*id, String::from_utf8_lossy(name).into_owned())
        })
        .collect();
    cgroups.reverse();
    cgroups
}

/// Ids and paths of cgroups, each of which is below the one before.
fn paths(cgroups: &[(u64, String)]) -> Vec<(u64, String)> {
    let mut path = String::new();
    cgroups
        .iter()
        .enumerate()
        .map(|(level, (id, name))| {
            if level == 0 {
                return (*id, "/".to_owned());
            }
            path.push('/');
            path.push_str(name);
            (*id, path.clone())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use mmwatch_common::place::NAME_LEN;

    use super::*;

    const POD: &str = "pod11111111-2222-3333-4444-555555555555";
    const CONTAINER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// Of a process in these cgroups, the root first, with ids from 1 on.
    fn place(own_tgid: u32, tgid: u32, names: &[&str]) -> Place {
        let mut place = Place {
            start_boot_ns: 1,
            tgid,
            own_tgid,
            is_self: 0,
            pid_level: 1,
            pid_namespace: 77,
            cgroup_level: names.len() as u32 - 1,
            cgroup_ids: [0; DEPTH],
            cgroup_names: [[0; NAME_LEN]; DEPTH],
        };
        for (at, name) in names.iter().rev().enumerate() {
            place.cgroup_ids[at] = (names.len() - at) as u64;
            place.cgroup_names[at][..name.len()].copy_from_slice(name.as_bytes());
        }
        place
    }

    fn here(names: &[&str]) -> Here {
        let own = Place {
            is_self: 1,
            ..place(3, 4711, names)
        };
        Here::new(&[place(1, 4000, names), own])
    }

    #[test]
    fn ids_are_those_of_the_root_namespace() {
        let here = here(&["", "a"]);
        let namespace = PidNamespace {
            inode: 77,
            level: 1,
        };
        assert_eq!(here.pid_namespace, Some(namespace));
        assert_eq!((here.tgid(1), here.tgid(3)), (Some(4000), Some(4711)));
        assert_eq!(here.tgid(4711), None);
        assert_eq!(Here::default().tgid(4711), Some(4711));
    }

    #[test]
    fn the_pod_goes_before_the_container() {
        let pod = here(&["", "kubepods", POD, CONTAINER, "below"]).pod();
        assert_eq!(pod, Some(CgroupRoot { id: 3, level: 2 }));
        let container = here(&["", "docker", CONTAINER, "init"]).pod();
        assert_eq!(container, Some(CgroupRoot { id: 3, level: 2 }));
        let own = here(&["", "made", "by-hand"]).pod();
        assert_eq!(own, Some(CgroupRoot { id: 3, level: 2 }));
        assert_eq!(Here::default().pod(), None);
    }

    #[test]
    fn paths_begin_at_the_root_of_the_hierarchy() {
        let here = here(&["", "docker", CONTAINER, "init"]);
        let of_container = format!("/docker/{CONTAINER}");
        assert_eq!(here.root("/init"), Some(of_container.clone()));
        assert_eq!(here.root("/"), Some(format!("{of_container}/init")));
        assert_eq!(here.root(&format!("{of_container}/init")), None);
        assert_eq!(here.paths().len(), 4);
        assert!(here.paths().contains(&(3, of_container)));
    }

    #[test]
    fn a_mount_may_begin_above_what_is_seen() {
        let root_of = |above, root: &str| {
            let hierarchy = Hierarchy {
                controller: None,
                number: 0,
                mount: "/sys/fs/cgroup".into(),
                root: root.to_owned(),
                above,
            };
            below("/kubepods/pod/web", &hierarchy)
        };
        assert_eq!(root_of(0, "/"), "/kubepods/pod/web");
        assert_eq!(root_of(0, "/init"), "/kubepods/pod/web/init");
        assert_eq!(root_of(2, "/"), "/kubepods");
        assert_eq!(root_of(1, "/db"), "/kubepods/pod/db");
        assert_eq!(root_of(3, "/"), "/");
        assert_eq!(root_of(4, "/"), "/");
    }

    #[test]
    fn deeper_than_is_told_is_nowhere() {
        let mut own = place(1, 2, &["", "a"]);
        own.is_self = 1;
        own.cgroup_level = DEPTH as u32;
        assert_eq!(Here::new(&[own]).pod(), None);
    }
}

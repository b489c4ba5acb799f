//! Hierarchies of cgroups: which of them tells processes apart, and its tree.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};

use super::{Container, Owner};

/// Controllers whose v1 hierarchy is taken where there is one, best first: container
/// runtimes give each container a cgroup of its own in all of them.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// Depth of a tree, at most.
const MAX_DEPTH: usize = 64;

/// A hierarchy that is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Its controller; `None` for the v2 hierarchy.
    pub controller: Option<String>,
    /// Its number in `/proc/PID/cgroup`; 0 for the v2 hierarchy.
    pub number: u32,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The cgroup that the mount begins at.
    pub root: String,
    /// How far above the caller's cgroup namespace the mount begins, if it does: then `root`
    /// is as if that were the root of the hierarchy, which it mostly is.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub above: u32,
}

fn is_zero(above: &u32) -> bool {
    *above == 0
}

/// A cgroup, with all that are below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupRoot {
    /// Its id.
    pub id: u64,
    /// How deep it is below the root of its hierarchy.
    pub level: u32,
}

impl CgroupRoot {
    fn new(id: u64, path: &str) -> Self {
        let parts = path.split('/').filter(|part| !part.is_empty());
        Self {
            id,
            level: parts.count() as u32,
        }
    }
}

impl Hierarchy {
    /// The cgroup with this path, in the hierarchy as seen from here or below where it is
    /// mounted. It is as deep as is seen from here.
    pub fn cgroup(&self, path: &str) -> Option<CgroupRoot> {
        let mount = self.mount.to_string_lossy();
        let path = path.strip_prefix(&*mount).unwrap_or(path);
        let path = format!("/{}", path.trim_matches('/'));
        let below = path.strip_prefix(self.root.trim_end_matches('/'))?;
        let metadata = fs::metadata(self.mount.join(below.trim_start_matches('/'))).ok()?;
        metadata
            .is_dir()
            .then(|| CgroupRoot::new(metadata.ino(), &path))
    }

    /// All containers, without their names, each with its cgroup.
    pub fn containers(&self) -> Vec<(Container, CgroupRoot)> {
        let mut found: Vec<(Container, CgroupRoot)> = Vec::new();
        let mut ids = FxHashSet::default();
        for (inode, path) in self.walk() {
            let Some(container) = Owner::of(&path).container else {
                continue;
            };
            // The first is the outermost: a container has cgroups of its own.
            if ids.insert(container.id.clone()) {
                found.push((container, CgroupRoot::new(inode, &path)));
            }
        }
        found
    }

    /// How many cgroups a path is below the root.
    pub fn depth(path: &str) -> u32 {
        CgroupRoot::new(0, path).level
    }

    /// The path of the cgroup with this id.
    pub fn path(&self, id: u64) -> Option<String> {
        let found = self.walk().into_iter().find(|(of, _)| *of == id);
        found.map(|(_, path)| path)
    }

    /// The path of a process's cgroup, by its `/proc/PID/cgroup`.
    pub fn path_of<'a>(&self, cgroups: &'a str) -> Option<&'a str> {
        cgroups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let number: u32 = fields.next()?.parse().ok()?;
            let path = fields.nth(1)?;
            // A cgroup may be removed before all that is left of a process is.
            (number == self.number).then(|| path.strip_suffix(" (deleted)").unwrap_or(path))
        })
    }

    /// By `/proc/self/mountinfo` and `/proc/self/cgroup`.
    /// Mounts below `sysfs` go before others.
    pub fn of(mountinfo: &str, own: &str, sysfs: &Path) -> Option<Self> {
        let mut mounts: Vec<_> = mountinfo.lines().filter_map(Mount::parse).collect();
        mounts.sort_by_key(|mount| !Path::new(mount.point).starts_with(sysfs));
        let v1 = CONTROLLERS.iter().find_map(|controller| {
            let mount = visible(&mounts, |mount| {
                mount.kind == "cgroup" && mount.has(controller)
            })?;
            Some((
                Some((*controller).to_owned()),
                number(own, controller)?,
                mount,
            ))
        });
        let (controller, number, mount) = match v1 {
            Some(found) => found,
            None => (None, 0, visible(&mounts, |mount| mount.kind == "cgroup2")?),
        };
        // `/../../below`
        let mut root = mount.root;
        let mut above = 0;
        while let Some(rest) = root.strip_prefix("/..")
            && (rest.is_empty() || rest.starts_with('/'))
        {
            root = rest;
            above += 1;
        }
        Some(Self {
            controller,
            number,
            mount: mount.point.into(),
            root: if root.is_empty() { "/" } else { root }.to_owned(),
            above,
        })
    }

    /// The ids and paths of all cgroups below the mount. What goes meanwhile is
    /// left out.
    pub fn walk(&self) -> Vec<(u64, String)> {
        let mut found = Vec::new();
        let root = self.root.trim_end_matches('/');
        walk(&self.mount, root, 0, &mut found);
        found
    }
}

fn walk(dir: &Path, path: &str, depth: usize, found: &mut Vec<(u64, String)>) {
    let Ok(metadata) = fs::metadata(dir) else {
        return;
    };
    let shown = if path.is_empty() { "/" } else { path };
    // The inode number of its directory is a cgroup's id.
    found.push((metadata.ino(), shown.to_owned()));
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if depth < MAX_DEPTH && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let below = format!("{path}/{}", entry.file_name().to_string_lossy());
            walk(&entry.path(), &below, depth + 1, found);
        }
    }
}

/// The first of the mounts that are wanted, or what was mounted over it later.
fn visible<'a>(
    mounts: &'a [Mount<'a>],
    is_wanted: impl Fn(&Mount<'_>) -> bool,
) -> Option<&'a Mount<'a>> {
    let wanted = || mounts.iter().filter(|mount| is_wanted(mount));
    let first = wanted().next()?;
    wanted().rfind(|mount| mount.point == first.point)
}

/// The number of a controller's hierarchy: `4:memory:/path`.
fn number(own: &str, controller: &str) -> Option<u32> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers) = (fields.next()?, fields.next()?);
        controllers
            .split(',')
            .any(|of| of == controller)
            .then(|| number.parse().ok())?
    })
}

/// A line of mountinfo.
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// `31 23 0:28 / /sys/fs/cgroup rw … - cgroup2 cgroup2 rw,nsdelegate`
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let mut after = after.split(' ');
        Some(Self {
            root: before.next()?,
            point: before.next()?,
            kind: after.next()?,
            options: after.nth(1)?,
        })
    }

    fn has(&self, controller: &str) -> bool {
        self.options.split(',').any(|option| option == controller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSFS: &str = "/sys";

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
36 31 0:33 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
37 31 0:34 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn the_memory_controller_goes_first_where_it_is_v1() {
        let own = "7:pids:/\n4:memory:/a\n0::/\n";
        let found = Hierarchy::of(HYBRID, own, SYSFS.as_ref()).unwrap();
        assert_eq!(found.controller.as_deref(), Some("memory"));
        assert_eq!((found.number, found.root.as_str()), (4, "/"));
        assert_eq!(found.mount, Path::new("/sys/fs/cgroup/memory"));
        // Mounted, and of no number: as if it were not there.
        let found = Hierarchy::of(HYBRID, "7:pids:/\n0::/\n", SYSFS.as_ref()).unwrap();
        assert_eq!(found.controller.as_deref(), Some("pids"));
        assert_eq!(found.number, 7);
    }

    #[test]
    fn what_is_mounted_over_another_counts() {
        let mounts = "24 20 0:21 /../.. /sys/fs/cgroup ro - cgroup2 cgroup rw\n\
                      25 20 0:21 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n\
                      26 20 0:21 / /mnt ro - cgroup2 cgroup rw\n";
        let found = Hierarchy::of(mounts, "0::/\n", SYSFS.as_ref()).unwrap();
        assert_eq!((found.root.as_str(), found.above), ("/docker/1", 0));
    }

    #[test]
    fn v2_is_what_is_left() {
        let mounts = "24 20 0:21 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup rw,nsdelegate\n";
        let found = Hierarchy::of(mounts, "0::/\n", SYSFS.as_ref()).unwrap();
        assert_eq!((found.controller, found.number), (None, 0));
        assert_eq!((found.root.as_str(), found.above), ("/docker/1", 0));
        assert_eq!(Hierarchy::of("", "0::/\n", SYSFS.as_ref()), None);
        // The host's, in a container with a cgroup namespace of its own.
        let of = |root: &str| {
            let mounts = format!("24 20 0:21 {root} /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
            let found = Hierarchy::of(&mounts, "0::/\n", SYSFS.as_ref()).unwrap();
            (found.root, found.above)
        };
        assert_eq!(of("/../.."), ("/".to_owned(), 2));
        assert_eq!(of("/../below"), ("/below".to_owned(), 1));
    }

    #[test]
    fn the_mount_below_sysfs_goes_first() {
        let mounts = "24 20 0:21 /pod /sys/fs/cgroup ro - cgroup2 cgroup rw\n\
                      25 20 0:21 / /host/sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        let root = |sysfs: &str| {
            let found = Hierarchy::of(mounts, "0::/\n", sysfs.as_ref());
            found.unwrap().root
        };
        assert_eq!(root("/host/sys"), "/");
        assert_eq!(root("/sys"), "/pod");
    }

    #[test]
    fn a_process_has_a_path_in_each_hierarchy() {
        let own = "7:pids:/p:q\n4:memory:/m (deleted)\n0::/v2\n";
        let numbered = |number| Hierarchy {
            controller: None,
            number,
            mount: PathBuf::new(),
            root: "/".to_owned(),
            above: 0,
        };
        for (number, want) in [
            (7, Some("/p:q")),
            (4, Some("/m")),
            (0, Some("/v2")),
            (9, None),
        ] {
            assert_eq!(numbered(number).path_of(own), want);
        }
    }

    #[test]
    fn the_tree_has_the_inode_numbers_of_its_directories() {
        let dir = std::env::temp_dir().join(format!("mmwatch-tree-{}", std::process::id()));
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("file"), "").unwrap();
        let hierarchy = |root: &str| Hierarchy {
            controller: None,
            number: 0,
            mount: dir.clone(),
            root: root.to_owned(),
            above: 0,
        };
        let inode = |path: &str| fs::metadata(dir.join(path)).unwrap().ino();
        let mut found = hierarchy("/").walk();
        found.sort_by(|(_, a), (_, b)| a.cmp(b));
        let want = [("", "/"), ("a", "/a"), ("a/b", "/a/b")];
        let want: Vec<_> = want.map(|(at, path)| (inode(at), path.to_owned())).into();
        assert_eq!(found, want);
        let root = hierarchy("/").cgroup("/a/b").unwrap();
        assert_eq!(
            root,
            CgroupRoot {
                id: inode("a/b"),
                level: 2
            }
        );
        assert_eq!(hierarchy("/").path(inode("a/b")).as_deref(), Some("/a/b"));
        assert_eq!(hierarchy("/").path(0), None);
        let by_dir = hierarchy("/").cgroup(&format!("{}/a/b/", dir.display()));
        assert_eq!(by_dir, Some(root));
        assert_eq!(hierarchy("/").cgroup("/a/c"), None);
        assert_eq!(hierarchy("/").cgroup("/file"), None);
        let below = hierarchy("/docker/1").cgroup("/docker/1/a");
        assert_eq!(
            below,
            Some(CgroupRoot {
                id: inode("a"),
                level: 3
            })
        );
        assert_eq!(hierarchy("/docker/1").cgroup("/a"), None);
        // A mount of a part, as in a container.
        let found = hierarchy("/docker/1").walk();
        assert!(found.contains(&(inode("a/b"), "/docker/1/a/b".to_owned())));
        fs::remove_dir_all(&dir).unwrap();
    }
}

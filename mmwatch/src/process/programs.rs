//! Which program each process runs.

use std::sync::Arc;

use mmwatch_common::{space::Listed, sums::ProcessKey};
use rustc_hash::{FxHashMap, FxHashSet};

use super::Proc;
use crate::identity::here::pid_here;

/// The programs of processes that were met alive.
///
/// A program is read when the address space is met that it runs in: an exec gives
/// a process another one, and nothing else, but for tools that restore processes,
/// gives it another program.
#[derive(Debug)]
pub struct Programs {
    proc: Proc,
    /// Inode number of mmwatch's own pid namespace, if that is not the root's.
    pid_namespace: Option<u32>,
    met: FxHashMap<ProcessKey, Met>,
}

#[derive(Debug)]
struct Met {
    mm: u64,
    /// The address of one that is gone may be another's.
    born_ns: u64,
    path: Option<Arc<str>>,
}

impl Programs {
    /// Nobody was met yet. `pid_namespace` is the inode number of mmwatch's own pid
    /// namespace, if that is not the root's.
    pub fn new(proc: Proc, pid_namespace: Option<u32>) -> Self {
        Self {
            proc,
            pid_namespace,
            met: FxHashMap::default(),
        }
    }

    /// Reads what processes run that are there now, where it is not known.
    pub fn look(&mut self, listed: &[Listed]) {
        for row in listed {
            let key = ProcessKey::new(row.tgid, row.start_boot_ns);
            let known = self.met.get(&key);
            if known.is_some_and(|met| (met.mm, met.born_ns) == (row.mm, row.born_ns)) {
                continue;
            }
            let pid = pid_here(self.pid_namespace, row.tgid, &row.identity);
            let path = pid.and_then(|pid| self.proc.program(pid));
            let met = Met {
                mm: row.mm,
                born_ns: row.born_ns,
                path: path.map(|path| path.to_string_lossy().into()),
            };
            self.met.insert(key, met);
        }
    }

    /// What a process runs, or ran when it was last seen alive.
    pub fn of(&self, key: ProcessKey) -> Option<Arc<str>> {
        self.met.get(&key)?.path.clone()
    }

    /// Forgets all processes but these.
    pub fn keep(&mut self, keys: impl Iterator<Item = ProcessKey>) {
        let keys: FxHashSet<_> = keys.collect();
        self.met.retain(|key, _| keys.contains(key));
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::PathBuf};

    use super::*;
    use crate::sample;

    /// A procfs with one process, gone with the value.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("mmwatch-{}-{name}", std::process::id()));
            fs::create_dir_all(root.join("200")).unwrap();
            Self(root)
        }

        fn runs(&self, program: &str) {
            let link = self.0.join("200/exe");
            let _ = fs::remove_file(&link);
            symlink(program, link).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_program_is_read_again_only_after_an_exec() {
        let scratch = Scratch::new("exe-exec");
        let mut programs = Programs::new(Proc::at(&scratch.0), None);
        let mut row = sample::listed(200, "sh", 20);
        let key = ProcessKey::new(200, row.start_boot_ns);
        assert_eq!(programs.of(key), None);

        scratch.runs("/bin/sh");
        programs.look(&[row]);
        assert_eq!(programs.of(key).as_deref(), Some("/bin/sh"));
        scratch.runs("/bin/env");
        programs.look(&[row]);
        assert_eq!(programs.of(key).as_deref(), Some("/bin/sh"));
        row.mm += 0x1000;
        programs.look(&[row]);
        assert_eq!(programs.of(key).as_deref(), Some("/bin/env"));
        // Another exec, that came upon the first address again.
        scratch.runs("/bin/true (deleted)");
        row.born_ns += 1;
        programs.look(&[row]);
        assert_eq!(programs.of(key).as_deref(), Some("/bin/true (deleted)"));

        // Gone, and another with the same id.
        programs.look(&[]);
        assert!(programs.of(key).is_some());
        let other = ProcessKey::new(200, row.start_boot_ns + 1);
        assert_eq!(programs.of(other), None);
        programs.keep([other].into_iter());
        assert_eq!(programs.of(key), None);
    }

    #[test]
    fn ids_are_those_of_the_namespace_that_is_seen() {
        let scratch = Scratch::new("exe-namespace");
        scratch.runs("/bin/sh");
        let mut row = sample::listed(4711, "sh", 20);
        row.identity.pid_namespace = 77;
        row.identity.namespace_tgid = 200;
        let key = ProcessKey::new(4711, row.start_boot_ns);
        let program = |own| {
            let mut programs = Programs::new(Proc::at(&scratch.0), Some(own));
            programs.look(&[row]);
            programs.of(key)
        };
        assert_eq!(program(77).as_deref(), Some("/bin/sh"));
        assert_eq!(program(78), None);
    }

    #[test]
    fn what_cannot_be_read_is_not_known() {
        let scratch = Scratch::new("exe-nobody");
        let mut programs = Programs::new(Proc::at(&scratch.0), None);
        let row = sample::listed(200, "sh", 20);
        programs.look(&[row]);
        assert_eq!(programs.of(ProcessKey::new(200, row.start_boot_ns)), None);
    }
}

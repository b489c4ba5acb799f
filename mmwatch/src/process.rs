//! What `/proc` and the user database say, without keeping anything.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// `vm.max_map_count` where it cannot be read: the kernel's own default.
const DEFAULT_MAX_MAP_COUNT: u32 = 65_530;

/// A procfs, `/proc` but in tests.
#[derive(Clone, Debug)]
pub struct Proc {
    root: PathBuf,
}

impl Default for Proc {
    fn default() -> Self {
        Self::at("/proc")
    }
}

/// What a number given as a process id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PidKind {
    /// A process.
    Process,
    /// A thread, not the first, of this process.
    ThreadOf(u32),
    /// Nothing.
    Missing,
}

impl Proc {
    /// The procfs mounted at `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether a number is a process.
    pub fn pid_kind(&self, pid: u32) -> Result<PidKind> {
        // Threads have a directory too, though listing /proc does not show it.
        let path = self.root.join(pid.to_string()).join("status");
        let status = match fs::read_to_string(&path) {
            Ok(status) => status,
            // ESRCH: it ended between open and read.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(libc::ESRCH) =>
            {
                return Ok(PidKind::Missing);
            }
            Err(error) => return Err(Error::io(format!("reading {}", path.display()))(error)),
        };
        let tgid = status
            .lines()
            .find_map(|line| line.strip_prefix("Tgid:"))
            .and_then(|tgid| tgid.trim().parse().ok());
        Ok(match tgid {
            Some(tgid) if tgid != pid => PidKind::ThreadOf(tgid),
            Some(_) | None => PidKind::Process,
        })
    }

    /// Most VMAs that the kernel lets an address space have (`vm.max_map_count`).
    pub fn max_map_count(&self) -> u32 {
        fs::read_to_string(self.root.join("sys/vm/max_map_count"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(DEFAULT_MAX_MAP_COUNT)
    }
}

/// The id of a user given by name or number; `None` when the name is nobody's.
///
/// `passwd` is read instead of asking the C library: a static binary cannot
/// load the name services that would answer for it.
pub fn user_id(user: &str, passwd: &Path) -> Result<Option<u32>> {
    if let Ok(uid) = user.parse() {
        return Ok(Some(uid));
    }
    let text =
        fs::read_to_string(passwd).map_err(Error::io(format!("reading {}", passwd.display())))?;
    Ok(text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, uid) = (fields.next()?, fields.next()?, fields.next()?);
        (name == user).then(|| uid.parse().ok()).flatten()
    }))
}

/// Bytes of a page.
pub fn page_bytes() -> u64 {
    // SAFETY: sysconf takes a number and returns one.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that is gone afterwards.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mmwatch-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, path: &str, content: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn processes_threads_and_nothing_are_told_apart() {
        let scratch = Scratch::new("pids");
        scratch.file("10/status", "Name:\tx\nTgid:\t10\nPid:\t10\n");
        scratch.file("11/status", "Name:\tx\nTgid:\t10\nPid:\t11\n");
        let proc = Proc::at(&scratch.0);
        assert_eq!(proc.pid_kind(10).unwrap(), PidKind::Process);
        assert_eq!(proc.pid_kind(11).unwrap(), PidKind::ThreadOf(10));
        assert_eq!(proc.pid_kind(12).unwrap(), PidKind::Missing);
    }

    #[test]
    fn the_limit_is_read_or_the_kernels_default() {
        let scratch = Scratch::new("limit");
        let proc = Proc::at(&scratch.0);
        assert_eq!(proc.max_map_count(), 65_530);
        scratch.file("sys/vm/max_map_count", "262144\n");
        assert_eq!(proc.max_map_count(), 262_144);
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let scratch = Scratch::new("users");
        scratch.file(
            "passwd",
            "root:x:0:0::/root:/bin/sh\nbroken\nme:x:1000:1000:::\n",
        );
        let passwd = scratch.0.join("passwd");
        assert_eq!(user_id("me", &passwd).unwrap(), Some(1000));
        assert_eq!(user_id("65534", &passwd).unwrap(), Some(65534));
        assert_eq!(user_id("nobody-such", &passwd).unwrap(), None);
        assert!(user_id("me", &scratch.0.join("missing")).is_err());
    }
}

//! What `/proc` and the user database say, without keeping anything.

mod programs;

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
    str::FromStr,
};

use mmwatch_common::event::COMM_LEN;

pub use self::programs::Programs;
use crate::{
    error::{Error, Result},
    event::Comm,
    explain::{Limits, Overcommit},
};

/// `vm.max_map_count` where it cannot be read: the kernel's own default.
const DEFAULT_MAX_MAP_COUNT: u32 = 65_530;

/// A procfs, and the sysfs beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proc {
    root: PathBuf,
    sysfs: PathBuf,
}

/// Where procfs is, mostly.
pub const PROCFS: &str = "/proc";
/// Where sysfs is, mostly.
pub const SYSFS: &str = "/sys";

impl Default for Proc {
    fn default() -> Self {
        Self::at(PROCFS)
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
        Self {
            root: root.into(),
            sysfs: SYSFS.into(),
        }
    }

    /// With sysfs mounted elsewhere than is usual.
    #[must_use]
    pub fn with_sysfs(self, sysfs: impl Into<PathBuf>) -> Self {
        Self {
            sysfs: sysfs.into(),
            ..self
        }
    }

    /// Where sysfs is mounted.
    pub fn sysfs(&self) -> &Path {
        &self.sysfs
    }

    /// The directory of a process or thread.
    pub fn dir(&self, pid: u32) -> PathBuf {
        self.root.join(pid.to_string())
    }

    /// The directory of a thread that has the process's address space: that of the first
    /// thread, or, where that one has ended and others live on, of one of these. What is read
    /// of the first is empty then.
    pub fn space_dir(&self, pid: u32) -> PathBuf {
        let first = self.dir(pid);
        if !has_ended(&first) {
            return first;
        }
        let threads = fs::read_dir(first.join("task")).into_iter().flatten();
        let living = threads
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|dir| !has_ended(dir));
        living.unwrap_or(first)
    }

    /// Whether a number is a process.
    pub fn pid_kind(&self, pid: u32) -> Result<PidKind> {
        // Threads have a directory too, though listing /proc does not show it.
        let Some(status) = self.status(pid)? else {
            return Ok(PidKind::Missing);
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

    /// How many pid namespaces a process has an id in, from this procfs's on; `None` when
    /// it is no more.
    pub fn namespaces(&self, pid: u32) -> Result<Option<u32>> {
        let Some(status) = self.status(pid)? else {
            return Ok(None);
        };
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let count = ids.map_or(0, |ids| ids.split_whitespace().count());
        Ok(u32::try_from(count).ok().filter(|count| *count > 0))
    }

    /// The text of `/proc/PID/maps`; `None` when the process is no more, empty when it has no
    /// address space.
    pub fn maps(&self, pid: u32) -> Result<Option<Vec<u8>>> {
        let path = self.dir(pid).join("maps");
        let text = unless_gone(&path, fs::read(&path))?;
        if text.as_ref().is_some_and(|text| !text.is_empty()) {
            return Ok(text);
        }
        let path = self.space_dir(pid).join("maps");
        unless_gone(&path, fs::read(&path))
    }

    /// The text of `/proc/PID/status`; `None` when the process is no more.
    fn status(&self, pid: u32) -> Result<Option<String>> {
        let path = self.dir(pid).join("status");
        unless_gone(&path, read_text(&path))
    }

    /// The text of the caller's own `maps`.
    pub fn own_maps(&self) -> Result<Vec<u8>> {
        let path = self.root.join("self/maps");
        fs::read(&path).map_err(Error::io(format!("reading {}", path.display())))
    }

    /// The caller's own id, as this procfs has it.
    pub fn own_pid(&self) -> Option<u32> {
        fs::read_link(self.root.join("self"))
            .ok()?
            .to_str()?
            .parse()
            .ok()
    }

    /// All processes, lowest id first.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let failed = || Error::io(format!("listing {}", self.root.display()));
        let mut pids = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        pids.sort_unstable();
        Ok(pids)
    }

    /// The name of a process's first thread; `None` when the process is no more.
    pub fn comm(&self, pid: u32) -> Option<Comm> {
        let name = fs::read(self.dir(pid).join("comm")).ok()?;
        let name = name.strip_suffix(b"\n").unwrap_or(&name);
        let mut bytes = [0; COMM_LEN];
        for (byte, &of) in bytes.iter_mut().zip(name.iter().take(COMM_LEN - 1)) {
            *byte = of;
        }
        Some(Comm::new(bytes))
    }

    /// The path of the program that a process runs, as it sees it, with ` (deleted)`
    /// behind it where there is no such file any more; `None` when the process is no
    /// more, or is not ours to look at.
    pub fn program(&self, pid: u32) -> Option<PathBuf> {
        let of = |dir: PathBuf| fs::read_link(dir.join("exe")).ok();
        of(self.dir(pid)).or_else(|| of(self.space_dir(pid)))
    }

    /// Inode number of a process's IPC namespace, which tells it from others;
    /// `None` when the process is no more, or the kernel has none.
    pub fn ipc_namespace(&self, pid: u32) -> Option<u64> {
        // `ipc:[4026531839]`
        let link = fs::read_link(self.dir(pid).join("ns/ipc")).ok()?;
        let number = link.to_str()?.strip_prefix("ipc:[")?.strip_suffix(']')?;
        number.parse().ok()
    }

    /// Most VMAs that the kernel lets an address space have (`vm.max_map_count`).
    pub fn max_map_count(&self) -> u32 {
        self.setting("max_map_count")
            .unwrap_or(DEFAULT_MAX_MAP_COUNT)
    }

    /// Whether the kernel measures how long BPF programs run; `None` where it does not say.
    pub fn bpf_stats(&self) -> Option<bool> {
        let path = self.root.join("sys/kernel/bpf_stats_enabled");
        Some(fs::read_to_string(path).ok()?.trim() != "0")
    }

    /// What the kernel measures mapping calls by.
    pub fn limits(&self) -> Limits {
        Limits {
            max_map_count: self.max_map_count(),
            overcommit: self.overcommit(),
            page_bytes: page_bytes(),
            address_space_bytes: self.address_space_bytes(),
            mmap_min_addr: self.setting("mmap_min_addr"),
        }
    }

    fn overcommit(&self) -> Option<Overcommit> {
        let mode: u8 = self.setting("overcommit_memory")?;
        let meminfo = fs::read_to_string(self.root.join("meminfo")).ok()?;
        Some(match mode {
            0 => Overcommit::Guess {
                memory_bytes: meminfo_bytes(&meminfo, "MemTotal:")?
                    .checked_add(meminfo_bytes(&meminfo, "SwapTotal:")?)?,
            },
            1 => Overcommit::Always,
            2 => Overcommit::Never {
                limit_bytes: meminfo_bytes(&meminfo, "CommitLimit:")?,
                committed_bytes: meminfo_bytes(&meminfo, "Committed_AS:")?,
                admin_reserve_bytes: kib(self.setting("admin_reserve_kbytes")?)?,
                user_reserve_bytes: kib(self.setting("user_reserve_kbytes")?)?,
            },
            _ => return None,
        })
    }

    /// `TASK_SIZE` of a 64-bit process: 47 bits of addresses less a page, or 56
    /// where the kernel uses five levels of page tables (x86-64; a kernel told
    /// not to hides the CPU's flag).
    fn address_space_bytes(&self) -> Option<u64> {
        if !cfg!(target_arch = "x86_64") {
            return None;
        }
        let cpuinfo = fs::File::open(self.root.join("cpuinfo")).ok()?;
        // The first CPU is enough: with hundreds of them the file is long.
        let flags = BufReader::new(cpuinfo)
            .lines()
            .map_while(io::Result::ok)
            .find(|line| line.starts_with("flags"))?;
        let five_levels = flags.split_whitespace().any(|flag| flag == "la57");
        let bits = if five_levels { 56 } else { 47 };
        Some((1 << bits) - page_bytes())
    }

    /// A number in `/proc/sys/vm`.
    fn setting<T: FromStr>(&self, name: &str) -> Option<T> {
        let text = fs::read_to_string(self.root.join("sys/vm").join(name)).ok()?;
        text.trim().parse().ok()
    }
}

/// Whether the thread with this directory in `/proc` has ended, by its state in proc_pid_stat(5).
fn has_ended(dir: &Path) -> bool {
    fs::read(dir.join("stat")).is_ok_and(|stat| {
        // The name may have parentheses in it, what follows has none.
        let close = stat.iter().rposition(|&byte| byte == b')');
        close.is_some_and(|close| matches!(stat.get(close + 2), Some(b'Z' | b'X')))
    })
}

/// Reads a file of the kernel's or a user database. Names in it are bytes: those that are not
/// UTF-8 have U+FFFD in them, and nothing else of the file is lost.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let bytes = fs::read(path)?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// What was read of a file of a process; `None` when the process is no more.
fn unless_gone<T>(path: &Path, read: io::Result<T>) -> Result<Option<T>> {
    match read {
        Ok(found) => Ok(Some(found)),
        // ESRCH: it ended between open and read.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            Ok(None)
        }
        Err(error) => Err(Error::io(format!("reading {}", path.display()))(error)),
    }
}

/// A line of `/proc/meminfo`.
fn meminfo_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    kib(value.trim().strip_suffix("kB")?.trim().parse().ok()?)
}

fn kib(kib: u64) -> Option<u64> {
    kib.checked_mul(1024)
}

/// The kernel's limits, read when they are needed and no more than once a second.
#[derive(Debug)]
pub struct RecentLimits {
    proc: Proc,
    /// With the time of the event that they were read for.
    read: Option<(u64, Limits)>,
}

impl RecentLimits {
    const MAX_AGE_NS: u64 = 1_000_000_000;

    /// Nothing is read yet.
    pub fn new(proc: Proc) -> Self {
        Self { proc, read: None }
    }

    /// The limits for an event of this time.
    pub fn at(&mut self, boot_ns: u64) -> Limits {
        if let Some((read_boot_ns, limits)) = self.read
            && boot_ns.abs_diff(read_boot_ns) < Self::MAX_AGE_NS
        {
            return limits;
        }
        let limits = self.proc.limits();
        self.read = Some((boot_ns, limits));
        limits
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
    let text = read_text(passwd).map_err(Error::io(format!("reading {}", passwd.display())))?;
    let found = users(&text).find(|(_, name)| *name == user);
    Ok(found.map(|(uid, _)| uid))
}

/// The ids and names of a user database.
fn users(passwd: &str) -> impl Iterator<Item = (u32, &str)> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, uid) = (fields.next()?, fields.next()?, fields.next()?);
        Some((uid.parse().ok()?, name))
    })
}

/// Names of users, read once.
#[derive(Debug, Default)]
pub struct Users {
    names: Vec<(u32, String)>,
}

impl Users {
    /// Those of this machine.
    pub fn new() -> Self {
        Self::read(Path::new(PASSWD))
    }

    /// Those of a user database; none where it cannot be read.
    pub fn read(passwd: &Path) -> Self {
        let text = fs::read(passwd).unwrap_or_default();
        let names = users(&String::from_utf8_lossy(&text))
            .map(|(uid, name)| (uid, name.to_owned()))
            .collect();
        Self { names }
    }

    /// A user's name, or number where nobody named it.
    pub fn name(&self, uid: u32) -> String {
        let named = self.names.iter().find(|(of, _)| *of == uid);
        named.map_or_else(|| uid.to_string(), |(_, name)| name.clone())
    }
}

/// The user database.
pub const PASSWD: &str = "/etc/passwd";

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

        fn file(&self, path: &str, content: impl AsRef<[u8]>) {
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
    fn a_process_is_read_by_a_living_thread() {
        let scratch = Scratch::new("living");
        // The first thread of 10 has ended, and so has 11; 12 lives.
        scratch.file("10/stat", "10 (a) Z) Z 1 10\n");
        scratch.file("10/maps", "");
        scratch.file("10/task/10/stat", "10 (a) Z) Z 1 10\n");
        scratch.file("10/task/11/stat", "11 (b) X 1 10\n");
        scratch.file("10/task/12/stat", "12 (c) S 1 10\n");
        scratch.file("10/task/12/maps", "the maps");
        // All of 20 has ended.
        scratch.file("20/stat", "20 (Z) Z 1 20\n");
        scratch.file("20/maps", "");
        scratch.file("20/task/20/stat", "20 (Z) Z 1 20\n");
        // A thread of the kernel.
        scratch.file("2/stat", "2 (kthreadd Z) S 0 0\n");
        scratch.file("2/maps", "");
        let proc = Proc::at(&scratch.0);
        assert_eq!(proc.space_dir(10), scratch.0.join("10/task/12"));
        assert_eq!(proc.maps(10).unwrap().as_deref(), Some(&b"the maps"[..]));
        assert_eq!(proc.space_dir(20), scratch.0.join("20"));
        assert_eq!(proc.maps(20).unwrap().as_deref(), Some(&b""[..]));
        assert_eq!(proc.maps(2).unwrap().as_deref(), Some(&b""[..]));
        assert_eq!(proc.maps(30).unwrap(), None);
    }

    #[test]
    fn names_that_are_not_utf8_hide_nothing_else() {
        let scratch = Scratch::new("bytes");
        scratch.file("10/status", b"Name:\tbad\xff\nTgid:\t9\nNSpid:\t10\t1\n");
        scratch.file("passwd", b"gr\xf6\xdfe:x:7:7\nnobody:x:65534:65534\n");
        let proc = Proc::at(&scratch.0);
        assert_eq!(proc.pid_kind(10).unwrap(), PidKind::ThreadOf(9));
        assert_eq!(proc.namespaces(10).unwrap(), Some(2));
        let passwd = scratch.0.join("passwd");
        assert_eq!(user_id("nobody", &passwd).unwrap(), Some(65_534));
    }

    #[test]
    fn processes_are_listed_with_names_and_namespaces() {
        let scratch = Scratch::new("list");
        scratch.file("20/comm", "a name of fifteen and more\n");
        scratch.file("3/comm", "x\ny\n");
        scratch.file("self3/comm", "");
        let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, scratch.0.join(at)).unwrap();
        fs::create_dir(scratch.0.join("3/ns")).unwrap();
        link("ipc:[4026531839]", "3/ns/ipc");
        link("20", "self");
        let proc = Proc::at(&scratch.0);
        assert_eq!(proc.pids().unwrap(), [3, 20]);
        assert_eq!(proc.own_pid(), Some(20));
        assert_eq!(proc.comm(3).unwrap().as_bytes(), b"x\ny");
        assert_eq!(proc.comm(20).unwrap().as_bytes(), b"a name of fifte");
        assert_eq!(proc.comm(4), None);
        assert_eq!(proc.ipc_namespace(3), Some(4_026_531_839));
        assert_eq!(proc.ipc_namespace(20), None);
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
    fn limits_are_read_as_far_as_they_can_be() {
        let scratch = Scratch::new("limits");
        let proc = Proc::at(&scratch.0);
        let unknown = Limits {
            max_map_count: 65_530,
            overcommit: None,
            page_bytes: page_bytes(),
            address_space_bytes: None,
            mmap_min_addr: None,
        };
        assert_eq!(proc.limits(), unknown);

        scratch.file("sys/vm/max_map_count", "1000\n");
        scratch.file("sys/vm/mmap_min_addr", "65536\n");
        scratch.file("sys/vm/overcommit_memory", "0\n");
        scratch.file(
            "meminfo",
            "MemTotal:       1000 kB\nSwapTotal:  24 kB\nCommitLimit: 512 kB\nCommitted_AS: 99 kB\n",
        );
        scratch.file("cpuinfo", "processor\t: 0\nflags\t\t: fpu vme la57x\n");
        let guess = Limits {
            max_map_count: 1000,
            overcommit: Some(Overcommit::Guess {
                memory_bytes: 1 << 20,
            }),
            page_bytes: page_bytes(),
            address_space_bytes: Some((1 << 47) - page_bytes()),
            mmap_min_addr: Some(65_536),
        };
        assert_eq!(proc.limits(), guess);

        scratch.file("sys/vm/overcommit_memory", "2\n");
        assert_eq!(proc.limits().overcommit, None);
        scratch.file("sys/vm/admin_reserve_kbytes", "8\n");
        scratch.file("sys/vm/user_reserve_kbytes", "16\n");
        assert_eq!(
            proc.limits().overcommit,
            Some(Overcommit::Never {
                limit_bytes: 512 << 10,
                committed_bytes: 99 << 10,
                admin_reserve_bytes: 8 << 10,
                user_reserve_bytes: 16 << 10,
            })
        );
        scratch.file("cpuinfo", "flags\t\t: fpu la57 vme\n");
        assert_eq!(
            proc.limits().address_space_bytes,
            Some((1 << 56) - page_bytes())
        );
    }

    #[test]
    fn limits_are_kept_for_a_second() {
        let scratch = Scratch::new("recent");
        let mut recent = RecentLimits::new(Proc::at(&scratch.0));
        scratch.file("sys/vm/max_map_count", "1000\n");
        assert_eq!(recent.at(5_000_000_000).max_map_count, 1000);
        scratch.file("sys/vm/max_map_count", "2000\n");
        assert_eq!(recent.at(5_999_999_999).max_map_count, 1000);
        // Events of two CPUs may come in the wrong order.
        assert_eq!(recent.at(4_999_999_999).max_map_count, 1000);
        assert_eq!(recent.at(6_000_000_000).max_map_count, 2000);
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

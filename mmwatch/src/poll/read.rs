//! Reads one process at a time.
//!
//! `stat` is cheap, takes no lock of the address space and is open to everybody;
//! `maps` takes what [`crate::maps::read`] says, and may be refused.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    path::Path,
    sync::Arc,
};

use mmwatch_common::event::COMM_LEN;
use rustc_hash::FxHashMap;

use super::Tally;
use crate::{
    error::{Error, Result},
    event::Comm,
    identity::{Cgroup, Hierarchy, Runtimes, Who},
    maps::read::malformed,
    process::Proc,
    space::{Line, MalformedLine},
};

/// Cgroups that are remembered at most: then all are looked up anew.
const MAX_CGROUPS: usize = 1 << 16;

/// Bytes of `maps` that are held at a time.
const PIECE_BYTES: usize = 1 << 16;

/// What came of reading a file of a process.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// This.
    Here(T),
    /// The process is no more.
    Gone,
    /// It may not be read.
    Denied,
}

impl<T> Found<T> {
    fn of(result: io::Result<T>, path: &Path) -> Result<Self> {
        match result {
            Ok(found) => Ok(Self::Here(found)),
            // ESRCH: it ended between open and read.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(libc::ESRCH) =>
            {
                Ok(Self::Gone)
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Self::Denied),
            Err(error) => Err(Error::io(format!("reading {}", path.display()))(error)),
        }
    }
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// When the process started, clock ticks since boot: with its id, what it
    /// is told by.
    pub start_ticks: u64,
    /// The name of its first thread.
    pub comm: Comm,
    /// Its parent.
    pub parent: u32,
    /// Whether it was made by fork and is no program of its own yet.
    pub awaits_exec: bool,
    /// Whether its first thread has ended; others may live on.
    pub has_ended: bool,
    /// Bytes of all mappings; 0 for what has no address space (kernel threads, zombies).
    pub total_bytes: u64,
}

impl Glance {
    /// `PID (COMM) STATE PPID … FLAGS … STARTTIME VSIZE …`, see proc_pid_stat(5).
    fn parse(stat: &[u8]) -> Option<Self> {
        /// `PF_FORKNOEXEC` of `include/linux/sched.h`.
        const FORKED: u64 = 0x40;

        // The name may have anything in it, the rest has no parentheses.
        let open = stat.iter().position(|&byte| byte == b'(')?;
        let close = stat.iter().rposition(|&byte| byte == b')')?;
        let name = stat.get(open + 1..close)?;
        let rest = str::from_utf8(stat.get(close + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let has_ended = matches!(fields.next()?, "Z" | "X");
        // `nth` goes on from where it was: fields 4, 9, 22 and 23.
        let parent = fields.next()?.parse().ok()?;
        let flags: u64 = fields.nth(4)?.parse().ok()?;
        let start_ticks = fields.nth(12)?.parse().ok()?;
        let total_bytes = fields.next()?.parse().ok()?;

        let mut comm = [0; COMM_LEN];
        for (byte, &of) in comm.iter_mut().zip(name.iter().take(COMM_LEN - 1)) {
            *byte = of;
        }
        Some(Self {
            start_ticks,
            comm: Comm::new(comm),
            parent,
            awaits_exec: flags & FORKED != 0,
            has_ended,
            total_bytes,
        })
    }
}

/// Whose a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// Its real user.
    pub uid: u32,
    /// Its cgroup, and its id in its own pid namespace.
    pub who: Arc<Who>,
    /// The path of its program, where that may be known.
    pub program: Option<Arc<str>>,
}

/// Reads processes.
#[derive(Debug)]
pub struct Reader {
    proc: Proc,
    hierarchy: Option<Hierarchy>,
    runtimes: Runtimes,
    cgroups: FxHashMap<String, Arc<Cgroup>>,
    /// What is read into: a file, or a line of one.
    buffer: Vec<u8>,
}

impl Reader {
    /// Of a procfs, with the hierarchy of cgroups that tells processes apart, and where their
    /// containers have their names from.
    pub fn new(proc: Proc, hierarchy: Option<Hierarchy>, runtimes: Runtimes) -> Self {
        Self {
            proc,
            hierarchy,
            runtimes,
            cgroups: FxHashMap::default(),
            buffer: Vec::new(),
        }
    }

    /// The procfs.
    pub const fn proc(&self) -> &Proc {
        &self.proc
    }

    /// Looks at a process without any effect on it.
    pub fn glance(&mut self, pid: u32) -> Result<Found<Glance>> {
        let first = self.glance_at(&self.proc.dir(pid).join("stat"))?;
        let Found::Here(glance) = first else {
            return Ok(first);
        };
        if !glance.has_ended {
            return Ok(first);
        }
        let living = self.glance_at(&self.proc.space_dir(pid).join("stat"))?;
        let total_bytes = match living {
            Found::Here(living) => living.total_bytes,
            Found::Gone | Found::Denied => 0,
        };
        Ok(Found::Here(Glance {
            total_bytes,
            ..glance
        }))
    }

    fn glance_at(&mut self, path: &Path) -> Result<Found<Glance>> {
        let read = self.fill(path);
        Ok(match Found::of(read, path)? {
            Found::Here(()) => Found::Here(
                Glance::parse(&self.buffer)
                    .ok_or_else(|| strange(path, "it has other fields than expected"))?,
            ),
            Found::Gone => Found::Gone,
            Found::Denied => Found::Denied,
        })
    }

    /// Whose a process is.
    pub fn whose(&mut self, pid: u32) -> Result<Found<Whose>> {
        let dir = self.proc.dir(pid);
        let path = dir.join("status");
        let read = self.fill(&path);
        let (uid, namespace_pid) = match Found::of(read, &path)? {
            Found::Here(()) => {
                status(&self.buffer, pid).ok_or_else(|| strange(&path, "there is no Uid in it"))?
            }
            Found::Gone => return Ok(Found::Gone),
            Found::Denied => return Ok(Found::Denied),
        };
        let path = dir.join("cgroup");
        // There is none where the kernel was built without cgroups.
        let cgroup = self.fill(&path).ok().and_then(|()| self.cgroup());
        let program = self.proc.program(pid);
        Ok(Found::Here(Whose {
            uid,
            program: program.map(|path| path.to_string_lossy().into()),
            who: Arc::new(Who {
                here_pid: None,
                namespace_pid,
                cgroup,
            }),
        }))
    }

    /// The cgroup that the buffer tells of.
    fn cgroup(&mut self) -> Option<Arc<Cgroup>> {
        let text = String::from_utf8_lossy(&self.buffer);
        let path = self.hierarchy.as_ref()?.path_of(&text)?;
        if let Some(met) = self.cgroups.get(path) {
            return Some(met.clone());
        }
        if self.cgroups.len() >= MAX_CGROUPS {
            self.cgroups.clear();
        }
        let cgroup = Arc::new(self.runtimes.cgroup(path.to_owned()));
        self.cgroups.insert(path.to_owned(), cgroup.clone());
        Some(cgroup)
    }

    /// Counts what a process has mapped, a piece of its `maps` at a time.
    pub fn tally(&mut self, pid: u32) -> Result<Found<Tally>> {
        let path = self.proc.space_dir(pid).join("maps");
        let file = match Found::of(File::open(&path), &path)? {
            Found::Here(file) => file,
            Found::Gone => return Ok(Found::Gone),
            Found::Denied => return Ok(Found::Denied),
        };
        let mut reader = BufReader::with_capacity(PIECE_BYTES, file);
        let mut tally = Tally::default();
        for number in 1.. {
            self.buffer.clear();
            let read = reader.read_until(b'\n', &mut self.buffer);
            match Found::of(read, &path)? {
                Found::Here(0) => break,
                Found::Here(_) => {}
                Found::Gone => return Ok(Found::Gone),
                Found::Denied => return Ok(Found::Denied),
            }
            let line = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
            let line = Line::parse(line)
                .ok_or_else(|| malformed(&path, MalformedLine::new(number, line)))?;
            tally.add(&line);
        }
        Ok(Found::Here(tally))
    }

    /// Reads a file into the buffer.
    fn fill(&mut self, path: &Path) -> io::Result<()> {
        self.buffer.clear();
        File::open(path)?.read_to_end(&mut self.buffer).map(|_| ())
    }
}

/// The real user, and the process id in the innermost namespace where that is
/// another one.
fn status(text: &[u8], pid: u32) -> Option<(u32, Option<u32>)> {
    let text = String::from_utf8_lossy(text);
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let uid = field("Uid:")?.split_ascii_whitespace().next()?;
    let innermost = field("NSpid:").and_then(|ids| ids.split_ascii_whitespace().next_back());
    let innermost = innermost.and_then(|id| id.parse().ok());
    Some((uid.parse().ok()?, innermost.filter(|of| *of != pid)))
}

fn strange(path: &Path, why: &'static str) -> Error {
    Error::io(format!("reading {}", path.display()))(io::Error::other(why))
}

//! What is read when.
//!
//! Every look begins with `stat` of all processes, which tells who is there and
//! whose size changed, and goes on with `maps` of as many as there is time for:
//! those whose size changed first, then whoever was read longest ago. A change
//! that keeps the size, such as mprotect in the middle of a mapping, is found
//! when it is a process's turn. How long ago that was, each reading says.

use std::mem;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    Reading,
    allowance::Allowance,
    read::{Found, Glance, Reader, Whose},
    report::{Counts, Poll, Polled},
};
use crate::{
    churn::By,
    clock,
    error::Result,
    event::Comm,
    identity::{Hierarchy, Runtimes},
    process::{Proc, Users},
};

/// Processes that ended and were not reported yet, at most.
const MAX_ENDED: usize = 8192;

/// Of the time for a look, `stat` of processes that are known may take this part.
const GLANCES: Part = Part { of: 2, take: 1 };
/// And all before it reads those whose size is what it was, this part.
const CHANGED: Part = Part { of: 8, take: 7 };
const ALL: Part = Part { of: 1, take: 1 };

/// Which processes are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these; empty for all.
    pub pids: Vec<u32>,
    /// These are a command: it counts from its exec on, and so do its children.
    pub follow: bool,
    /// Only those of this name.
    pub comm: Option<Comm>,
    /// Only this real user's.
    pub uid: Option<u32>,
    /// Only those of this cgroup and of those below it, by its path.
    pub cgroup: Option<String>,
}

impl Filter {
    /// Whether a process is wanted, as far as it tells without a closer look.
    fn may_want(&self, process: &Process) -> bool {
        let glance = &process.glance;
        let is_command = self.follow && glance.awaits_exec;
        process.is_member
            && glance.total_bytes > 0
            && self.comm.is_none_or(|comm| comm == glance.comm)
            // What mmwatch made of itself is not the command yet.
            && !(is_command && self.pids.contains(&process.pid))
    }

    fn wants(&self, whose: &Whose) -> bool {
        self.uid.is_none_or(|uid| uid == whose.uid)
            && self.cgroup.as_deref().is_none_or(|wanted| {
                let cgroup = whose.who.cgroup.as_ref();
                cgroup.is_some_and(|cgroup| is_below(&cgroup.path, wanted))
            })
    }
}

/// Whether a path is this one or below it.
fn is_below(path: &str, root: &str) -> bool {
    let below = path.strip_prefix(root.trim_end_matches('/'));
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// How much of what is there a look is to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Everything, whatever it takes.
    Everything,
    /// As much as there is time for.
    Share,
}

/// The clocks that looks go by; others in tests only.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// Of readings, ns of the boot clock.
    pub boot_ns: fn() -> Result<u64>,
    /// Of what looks take, ns.
    pub cpu_ns: fn() -> Result<u64>,
}

impl Default for Clocks {
    fn default() -> Self {
        Self {
            boot_ns: clock::boot_ns,
            cpu_ns: clock::cpu_ns,
        }
    }
}

/// Looks at processes, and remembers what it saw.
#[derive(Debug)]
pub struct Poller {
    reader: Reader,
    filter: Filter,
    clocks: Clocks,
    own_pid: Option<u32>,
    /// Read once somebody asks for a name.
    users: Option<Users>,
    processes: FxHashMap<u32, Process>,
    /// Processes that show nothing but their id.
    closed: FxHashSet<u32>,
    /// When the processes named by the filter started: who has such an id
    /// afterwards is another one.
    named: FxHashMap<u32, u64>,
    /// Where the next look goes on with `stat`.
    next_pid: u32,
    allowance: Allowance,
    /// Whether a look was had before.
    has_looked: bool,
    started_boot_ns: u64,
    reported_boot_ns: Option<u64>,
    /// Since the last report.
    ended: Vec<Polled>,
    counts: Counts,
}

#[derive(Debug)]
struct Process {
    pid: u32,
    glance: Glance,
    /// Whether it is one that the filter names, or a child of the command.
    is_member: bool,
    closer: Option<Closer>,
    /// Its last reading when the last report was made, or its first.
    base: Option<Reading>,
    vmas_peak: Option<u64>,
}

/// What the last closer look at a process found.
#[derive(Debug)]
struct Closer {
    boot_ns: u64,
    comm: Comm,
    whose: Whose,
    /// `None` where nobody wants it.
    reading: Option<Reading>,
}

impl Process {
    /// Whether it is not what it was when it was read.
    fn has_changed(&self) -> bool {
        self.closer.as_ref().is_none_or(|closer| {
            closer.comm != self.glance.comm
                || closer.reading.is_some_and(|reading| {
                    reading.changing || reading.total_bytes != self.glance.total_bytes
                })
        })
    }

    fn read_boot_ns(&self) -> u64 {
        self.closer.as_ref().map_or(0, |closer| closer.boot_ns)
    }

    /// As a report has it; `None` where there is nothing to report.
    fn polled(&self, alive: bool) -> Option<Polled> {
        let closer = self.closer.as_ref()?;
        let reading = closer.reading?;
        Some(Polled {
            pid: self.pid,
            start_ticks: self.glance.start_ticks,
            comm: closer.comm,
            uid: closer.whose.uid,
            who: closer.whose.who.clone(),
            program: closer.whose.program.clone(),
            alive,
            vmas_peak: self.vmas_peak,
            reading,
            since: self.base.filter(|base| base.boot_ns < reading.boot_ns),
        })
    }
}

/// A part of the time for a look.
#[derive(Clone, Copy)]
struct Part {
    take: u64,
    of: u64,
}

/// What a look may take.
#[derive(Clone, Copy)]
struct Budget {
    started_cpu_ns: u64,
    /// `None`: whatever it takes.
    cpu_ns: Option<u64>,
}

impl Budget {
    fn has(&self, part: Part, clocks: Clocks) -> Result<bool> {
        let Some(cpu_ns) = self.cpu_ns else {
            return Ok(true);
        };
        let taken_ns = (clocks.cpu_ns)()?.saturating_sub(self.started_cpu_ns);
        Ok(taken_ns < cpu_ns / part.of * part.take)
    }
}

impl Poller {
    /// Has seen nothing yet.
    pub fn new(
        proc: Proc,
        hierarchy: Option<Hierarchy>,
        runtimes: Runtimes,
        mut filter: Filter,
        clocks: Clocks,
    ) -> Result<Self> {
        let now_boot_ns = (clocks.boot_ns)()?;
        filter.pids.sort_unstable();
        Ok(Self {
            own_pid: proc.own_pid(),
            reader: Reader::new(proc, hierarchy, runtimes),
            filter,
            clocks,
            users: None,
            processes: FxHashMap::default(),
            closed: FxHashSet::default(),
            named: FxHashMap::default(),
            next_pid: 0,
            allowance: Allowance::new(now_boot_ns),
            has_looked: false,
            started_boot_ns: now_boot_ns,
            reported_boot_ns: None,
            ended: Vec::new(),
            counts: Counts::default(),
        })
    }

    /// Looks at processes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::error::Error::Io) when procfs is not as it should
    /// be. That a process ends or may not be read is none.
    pub fn look(&mut self, depth: Depth) -> Result<()> {
        let earned_ns = self.allowance.earn((self.clocks.boot_ns)()?);
        let budget = Budget {
            started_cpu_ns: (self.clocks.cpu_ns)()?,
            cpu_ns: match (depth, earned_ns) {
                (Depth::Everything, _) => None,
                (Depth::Share, Some(left_ns)) => Some(left_ns),
                (Depth::Share, None) => return Ok(()),
            },
        };
        self.glance_at_all(budget)?;
        self.follow();
        self.read_due(budget)?;
        self.has_looked = true;
        if depth == Depth::Share {
            let taken_ns = (self.clocks.cpu_ns)()?.saturating_sub(budget.started_cpu_ns);
            self.allowance.spend(taken_ns);
        }
        Ok(())
    }

    /// Sees who is there. Those never seen before come first; where the time
    /// is not enough for the others, the next look goes on with them.
    fn glance_at_all(&mut self, budget: Budget) -> Result<()> {
        let listed = if self.filter.pids.is_empty() || self.filter.follow {
            let listed = self.reader.proc().pids()?;
            // It is always there, if not for everybody to see.
            self.counts.hides = listed.first() != Some(&1);
            listed
        } else {
            self.filter.pids.clone()
        };
        let is_listed = |pid: &u32| listed.binary_search(pid).is_ok();
        self.closed.retain(|pid| is_listed(pid));
        let gone: Vec<u32> = self.processes.keys().copied().collect();
        for pid in gone.into_iter().filter(|pid| !is_listed(pid)) {
            self.end(pid);
        }

        let is_known = |pid: &u32| self.processes.contains_key(pid) || self.closed.contains(pid);
        let (known, new): (Vec<u32>, Vec<u32>) = listed.iter().copied().partition(is_known);
        for pid in new {
            self.glance(pid)?;
        }
        let (before, after) = known.split_at(known.partition_point(|pid| *pid < self.next_pid));
        for &pid in after.iter().chain(before) {
            if !budget.has(GLANCES, self.clocks)? {
                self.next_pid = pid;
                break;
            }
            self.glance(pid)?;
        }
        Ok(())
    }

    fn glance(&mut self, pid: u32) -> Result<()> {
        if Some(pid) == self.own_pid {
            return Ok(());
        }
        match self.reader.glance(pid)? {
            Found::Here(glance) => {
                self.closed.remove(&pid);
                self.meet(pid, glance);
            }
            Found::Gone => self.end(pid),
            Found::Denied => {
                self.end(pid);
                self.closed.insert(pid);
            }
        }
        Ok(())
    }

    /// Takes note of a process. Returns whether it is one that is known.
    fn meet(&mut self, pid: u32, glance: Glance) -> bool {
        let is_known = |process: &&mut Process| process.glance.start_ticks == glance.start_ticks;
        if let Some(process) = self.processes.get_mut(&pid).filter(is_known) {
            process.glance = glance;
            if !self.filter.may_want(process) {
                // Of a zombie all went but its id. What has another name now is
                // there, and not what is asked for.
                let is_over = glance.total_bytes == 0;
                let polled = process.polled(false).filter(|_| is_over);
                process.closer = None;
                process.base = None;
                self.retire(polled);
            }
            return true;
        }
        self.end(pid);
        let is_named = self.filter.pids.contains(&pid)
            && *self.named.entry(pid).or_insert(glance.start_ticks) == glance.start_ticks;
        let process = Process {
            pid,
            glance,
            is_member: is_named || self.filter.pids.is_empty(),
            closer: None,
            base: None,
            vmas_peak: None,
        };
        self.processes.insert(pid, process);
        false
    }

    /// A process is no more.
    fn end(&mut self, pid: u32) {
        let process = self.processes.remove(&pid);
        self.retire(process.and_then(|process| process.polled(false)));
    }

    /// Keeps the last that is known of a process for the next report.
    fn retire(&mut self, polled: Option<Polled>) {
        if let Some(polled) = polled {
            self.counts.ended += 1;
            if self.ended.len() < MAX_ENDED {
                self.ended.push(polled);
            }
        }
    }

    /// Whose parent is the command's or one of its children's is one of them,
    /// and stays it when its parent is gone.
    fn follow(&mut self) {
        if !self.filter.follow {
            return;
        }
        loop {
            let is_member = |pid| self.processes.get(&pid).is_some_and(|of| of.is_member);
            let children: Vec<u32> = self
                .processes
                .values()
                .filter(|process| !process.is_member && is_member(process.glance.parent))
                .map(|process| process.pid)
                .collect();
            if children.is_empty() {
                return;
            }
            for pid in children {
                if let Some(process) = self.processes.get_mut(&pid) {
                    process.is_member = true;
                }
            }
        }
    }

    /// Reads what is mapped, as far as there is time.
    fn read_due(&mut self, budget: Budget) -> Result<()> {
        let wanted = self.processes.values().filter(|p| self.filter.may_want(p));
        let mut due: Vec<_> = wanted
            .map(|process| (process.read_boot_ns(), process.pid, process.has_changed()))
            .collect();
        due.sort_unstable();
        let (changed, others): (Vec<_>, Vec<_>) = due.into_iter().partition(|due| due.2);
        let mut changed = changed.into_iter().peekable();
        while changed.peek().is_some() && budget.has(CHANGED, self.clocks)? {
            if let Some((_, pid, _)) = changed.next() {
                self.read(pid)?;
            }
        }
        // Whoever changes all the time must not keep the others waiting.
        let mut rest: Vec<_> = changed.chain(others).collect();
        rest.sort_unstable();
        for (_, pid, _) in rest {
            if !budget.has(ALL, self.clocks)? {
                break;
            }
            self.read(pid)?;
        }
        Ok(())
    }

    /// Takes a closer look at a process.
    fn read(&mut self, pid: u32) -> Result<()> {
        let Some(process) = self.processes.get(&pid) else {
            return Ok(());
        };
        let comm = process.glance.comm;
        let boot_ns = (self.clocks.boot_ns)()?;
        let whose = match self.reader.whose(pid)? {
            Found::Here(whose) => whose,
            Found::Gone | Found::Denied => return self.glance(pid),
        };
        if !self.filter.wants(&whose) {
            self.note(pid, comm, boot_ns, whose, None);
            return Ok(());
        }
        let tally = match self.reader.tally(pid)? {
            Found::Here(tally) => Some(tally),
            Found::Gone => return self.glance(pid),
            Found::Denied => None,
        };
        // Afterwards, as it tells whether all this was read of one process,
        // and of one that stood still.
        let glance = match self.reader.glance(pid)? {
            Found::Here(glance) => glance,
            Found::Gone | Found::Denied => return self.glance(pid),
        };
        if !self.meet(pid, glance) || glance.total_bytes == 0 {
            return Ok(());
        }
        let total_bytes = tally.map_or(glance.total_bytes, |tally| tally.total().bytes);
        let reading = Reading {
            boot_ns,
            total_bytes,
            tally,
            changing: total_bytes != glance.total_bytes,
        };
        self.note(pid, glance.comm, boot_ns, whose, Some(reading));
        Ok(())
    }

    fn note(&mut self, pid: u32, comm: Comm, boot_ns: u64, whose: Whose, reading: Option<Reading>) {
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        if let Some(reading) = reading {
            if process.base.is_none() {
                process.base = Some(reading);
                self.counts.new += u64::from(self.has_looked);
            }
            process.vmas_peak = process.vmas_peak.max(reading.vmas());
        }
        process.closer = Some(Closer {
            boot_ns,
            comm,
            whose,
            reading,
        });
    }

    /// What is known now, of `rows` processes or groups of them one by one.
    /// Changes are those since the report before; of a process that has not
    /// been read since, there are none.
    pub fn report(&mut self, rows: usize, by: By) -> Result<Poll> {
        let now_boot_ns = (self.clocks.boot_ns)()?;
        let mut counts = mem::take(&mut self.counts);
        self.counts.hides = counts.hides;
        counts.closed = self.closed.len() as u64;
        let mut processes = mem::take(&mut self.ended);
        for process in self.processes.values_mut() {
            let Some(polled) = process.polled(true) else {
                continue;
            };
            let Reading { boot_ns, tally, .. } = polled.reading;
            let is_new = self.reported_boot_ns.is_none_or(|before| before < boot_ns);
            counts.read += u64::from(is_new && tally.is_some());
            process.base = Some(polled.reading);
            processes.push(polled);
        }
        let before_boot_ns = self.reported_boot_ns.replace(now_boot_ns);
        let poll = Poll {
            boot_ns: now_boot_ns,
            interval_ns: now_boot_ns.saturating_sub(before_boot_ns.unwrap_or(self.started_boot_ns)),
            elapsed_ns: now_boot_ns.saturating_sub(self.started_boot_ns),
            max_map_count: self.reader.proc().max_map_count(),
            counts,
            ..Poll::new(processes)
        };
        Ok(match by {
            By::Process => poll.ranked(rows),
            _ => {
                let users = &mut self.users;
                poll.grouped(by, rows, |uid| {
                    users.get_or_insert_with(Users::new).name(uid)
                })
            }
        })
    }
}

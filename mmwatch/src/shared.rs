//! Who shares memory with whom: files and the kernel's own objects, each with
//! the processes that map it.
//!
//! [`read`] alone does input and output. What follows from the lines of
//! `/proc/PID/maps` that it hands on, here and in [`talk`], is pure.

pub mod read;
pub mod talk;

use std::{cmp::Reverse, ops::Range};

use rustc_hash::FxHashMap;

use crate::{
    event::{Comm, Dev},
    flags::Prot,
    maps::{Certainty, FileKind, Lock},
    space::Line,
};

/// What was found.
#[derive(Clone, Debug)]
pub struct Shared {
    /// What reading took of each process.
    pub lock: Lock,
    /// Processes that may not be looked at, and are left out.
    pub unread_processes: u32,
    /// Those wanted, the most bytes in common first.
    pub objects: Vec<Object>,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Objects that two processes or more have shared mappings of.
    All,
    /// Objects that this process has shared mappings of, others or not.
    Process(u32),
    /// This object, with private mappings.
    Object(ObjectId),
}

impl Wanted {
    /// Whether a mapping matters. That of an inode which all files of its sort
    /// have in common (`anon_inode:[perf_event]`) tells of no sharing.
    pub fn wants(&self, line: &Line<'_>) -> bool {
        let tells = line.has_file() && !line.name.starts_with(b"anon_inode:");
        tells
            && match self {
                Self::All | Self::Process(_) => line.shared,
                Self::Object(id) => (line.dev, line.inode) == (id.dev, id.inode),
            }
    }
}

/// What an object is told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectId {
    /// Device of its file system, as `/proc/PID/maps` has it.
    pub dev: Dev,
    /// Its inode number there; of a segment of System V its `shmid`, which
    /// other files of the same device may have too.
    pub inode: u64,
    /// Only of a segment of System V: inode number of the IPC namespace that
    /// the `shmid` belongs to.
    pub ipc_namespace: Option<u64>,
}

impl ObjectId {
    /// Of a line's file, which is of this sort, mapped by a process in this IPC
    /// namespace.
    pub fn new(line: &Line<'_>, kind: FileKind, ipc_namespace: u64) -> Self {
        Self {
            dev: line.dev,
            inode: line.inode,
            ipc_namespace: (kind == FileKind::SysvShm).then_some(ipc_namespace),
        }
    }
}

/// A process that maps something.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// The name of its first thread.
    pub comm: Comm,
    /// Inode number of its IPC namespace; 0 where the kernel has none.
    pub ipc_namespace: u64,
    /// Devices of hugetlbfs that it sees.
    pub hugetlbfs: Vec<Dev>,
}

/// What processes have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What it is told by.
    pub id: ObjectId,
    /// What it is.
    pub kind: FileKind,
    /// How sure that is.
    pub certainty: Certainty,
    /// Its paths as the kernel has them: one for each name, link or mount that
    /// it was mapped by.
    pub paths: Vec<Vec<u8>>,
    /// Who maps it, by process id.
    pub members: Vec<Member>,
}

/// A process with its mappings of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub pid: u32,
    /// The name of its first thread.
    pub comm: Comm,
    /// In the order of their addresses.
    pub mappings: Vec<Mapping>,
}

/// VMAs of the same permissions that go on both in memory and in the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its addresses.
    pub range: Range<u64>,
    /// Its permissions.
    pub prot: Prot,
    /// Whether writes reach the object. Where not, the process has its own copy
    /// of each page that it wrote to.
    pub shared: bool,
    /// Where in the object it begins, bytes.
    pub offset: u64,
}

impl Mapping {
    fn new(line: &Line<'_>) -> Self {
        Self {
            range: line.range.clone(),
            prot: line.prot,
            shared: line.shared,
            offset: line.offset,
        }
    }

    /// Its length in bytes.
    pub const fn size_bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// What of the object it maps, bytes.
    pub const fn extent(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.size_bytes())
    }

    /// Takes in the one that follows, if both are one.
    fn join(&mut self, next: &Self) -> bool {
        let joins = self.range.end == next.range.start
            && self.extent().end == next.offset
            && (self.prot, self.shared) == (next.prot, next.shared);
        if joins {
            self.range.end = next.range.end;
        }
        joins
    }
}

/// Objects while processes are read.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    by_id: FxHashMap<ObjectId, Object>,
}

impl Objects {
    /// Takes a mapping of a process. All of a process come one after the other,
    /// lowest address first.
    pub fn add(&mut self, process: &Process, line: &Line<'_>) {
        let Some((kind, certainty)) = FileKind::of(line, &process.hugetlbfs) else {
            return;
        };
        let id = ObjectId::new(line, kind, process.ipc_namespace);
        let object = self.by_id.entry(id).or_insert_with(|| Object {
            id,
            kind,
            certainty,
            paths: Vec::new(),
            members: Vec::new(),
        });
        if object.kind == FileKind::File {
            // Elsewhere it may be mounted where its sort can be told.
            (object.kind, object.certainty) = (kind, certainty);
        }
        if !object.paths.iter().any(|path| path == line.name) {
            object.paths.push(line.name.to_owned());
        }
        let next = Mapping::new(line);
        match object.members.last_mut() {
            Some(member) if member.pid == process.pid => {
                let joined = member.mappings.last_mut().is_some_and(|m| m.join(&next));
                if !joined {
                    member.mappings.push(next);
                }
            }
            _ => object.members.push(Member {
                pid: process.pid,
                comm: process.comm,
                mappings: vec![next],
            }),
        }
    }

    /// Those wanted, the most bytes in common first.
    pub fn wanted(self, wanted: &Wanted) -> Vec<Object> {
        let mut objects: Vec<_> = self
            .by_id
            .into_values()
            .filter(|object| match wanted {
                Wanted::All => object.members.len() > 1,
                Wanted::Process(pid) => object.members.iter().any(|m| m.pid == *pid),
                Wanted::Object(id) => object.id == *id,
            })
            .collect();
        for object in &mut objects {
            object.members.sort_by_key(|member| member.pid);
        }
        objects.sort_by_cached_key(|object| {
            let ObjectId {
                dev,
                inode,
                ipc_namespace,
            } = object.id;
            let size = (object.common_bytes(), object.mapped_bytes());
            (Reverse(size), dev.0, inode, ipc_namespace)
        });
        objects
    }
}

impl Object {
    /// Bytes of all its mappings.
    pub fn mapped_bytes(&self) -> u64 {
        let mappings = self.members.iter().flat_map(|member| &member.mappings);
        mappings.map(Mapping::size_bytes).sum()
    }
}

#[cfg(test)]
mod tests;

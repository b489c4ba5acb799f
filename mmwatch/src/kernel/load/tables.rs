//! What the kernel programs keep for the agent to look at: sums per process,
//! and the list of processes with their address spaces.

use std::{io::Read as _, mem::size_of};

use aya::{
    Btf, Ebpf, Pod,
    maps::{Array, HashMap, MapData, MapError},
    programs::{Iter, ProgramError},
};
use mmwatch_common::{
    identity::{CgroupPath, Identity},
    names,
    space::{Listed, State},
    sums::{Process, ProcessKey},
};

use rustc_hash::FxHashSet;

use super::{Failure, chain, map_failure, take};
use crate::error::Error;

/// The tables of a loaded object.
pub(super) struct Tables {
    processes: HashMap<MapData, ProcessKey, Process>,
    cgroups: HashMap<MapData, u64, CgroupPath>,
    spaces: HashMap<MapData, u64, State>,
    streaming: Array<MapData, u32>,
}

impl Tables {
    /// Takes the tables, and makes the entry of processes that find no room.
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, Failure> {
        let mut processes: HashMap<_, ProcessKey, Process> =
            take(ebpf, names::PROCESSES, HashMap::try_from)?;
        processes
            .insert(ProcessKey::OTHER, Process::default(), 0)
            .map_err(|error| map_failure(&error))?;
        Ok(Self {
            processes,
            cgroups: take(ebpf, names::CGROUPS, HashMap::try_from)?,
            spaces: take(ebpf, names::SPACES, HashMap::try_from)?,
            streaming: take(ebpf, names::STREAMING, Array::try_from)?,
        })
    }

    /// All sums. Other processes come and go meanwhile; what is there all the
    /// time is returned once.
    pub(super) fn sums(&self) -> Result<Vec<(ProcessKey, Process)>, Error> {
        let mut all = Vec::new();
        for key in self.processes.keys() {
            let key = key.map_err(|error| unreadable(&error))?;
            match self.processes.get(&key, 0) {
                Ok(process) => all.push((key, process)),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(unreadable(&error)),
            }
        }
        Ok(all)
    }

    /// Adds processes that did something and are not in the list: the kernel lists those of
    /// the caller's pid namespace. What is known of them is what they had at their last
    /// settle point; nobody reads it in between.
    pub(super) fn add_unlisted(&self, listed: &mut Vec<Listed>) -> Result<(), Error> {
        let known: FxHashSet<_> = listed
            .iter()
            .map(|row| ProcessKey::new(row.tgid, row.start_boot_ns))
            .collect();
        for entry in self.spaces.iter() {
            let (mm, state) = match entry {
                Ok(entry) => entry,
                // It ended while it was looked at.
                Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(unreadable(&error)),
            };
            let key = ProcessKey::new(state.owner_tgid, state.owner_start_boot_ns);
            let Ok(process) = self.processes.get(&key, 0) else {
                continue;
            };
            if known.contains(&key) || process.ended != 0 {
                continue;
            }
            listed.push(Listed {
                tgid: key.tgid,
                uid: process.uid,
                start_boot_ns: key.start_boot_ns,
                mm,
                born_ns: state.born_ns,
                sections: state.sections,
                pages: state.pages,
                vmas: state.vmas,
                vmas_peak: state.vmas_peak,
                owner_tgid: state.owner_tgid,
                is_locked: 0,
                comm: process.comm,
                identity: process.identity,
            });
        }
        Ok(())
    }

    /// Whose a process is, if anything of it was seen.
    pub(super) fn identity(&self, key: ProcessKey) -> Option<Identity> {
        let process = self.processes.get(&key, 0).ok()?;
        // Zero until the program that made the entry has looked.
        (process.identity != Identity::default()).then_some(process.identity)
    }

    /// The path of a cgroup, if it was seen being made.
    pub(super) fn cgroup_path(&self, id: u64) -> Option<String> {
        let CgroupPath { path } = self.cgroups.get(&id, 0).ok()?;
        let path = path.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(path).into_owned())
    }

    /// Has records sent, or only summed, where that can be switched.
    pub(super) fn stream(&mut self, wanted: bool) -> Result<(), Error> {
        self.streaming
            .set(0, u32::from(wanted), 0)
            .map_err(|error| {
                Error::Kernel(format!("records cannot be asked for: {}", chain(&error)))
            })
    }

    pub(super) fn forget(&mut self, key: ProcessKey) {
        // Gone already is as good.
        let _ = self.processes.remove(&key);
    }
}

fn unreadable(error: &MapError) -> Error {
    Error::Kernel(format!("reading the kernel's sums: {}", chain(error)))
}

/// Loads the program that lists processes.
pub(super) fn load_list(ebpf: &mut Ebpf, btf: &Btf) -> Result<(), ProgramError> {
    list_program(ebpf)?.load("task", btf)
}

fn list_program(ebpf: &mut Ebpf) -> Result<&mut Iter, ProgramError> {
    ebpf.program_mut(names::LIST)
        .ok_or(ProgramError::NotLoaded)?
        .try_into()
}

/// Runs the program that lists processes.
pub(super) fn list(ebpf: &mut Ebpf) -> Result<Vec<Listed>, Error> {
    let program = list_program(ebpf).map_err(|error| chain(&error));
    let rows = program.and_then(rows);
    rows.map_err(|reason| Error::Kernel(format!("listing processes: {reason}")))
}

/// Runs a program over all tasks, and returns the rows that it wrote, or why not.
pub(super) fn rows<T: Pod>(program: &mut Iter) -> Result<Vec<T>, String> {
    let link = program.attach().map_err(|error| chain(&error))?;
    let link = program.take_link(link).map_err(|error| chain(&error))?;
    let mut file = link.into_file().map_err(|error| chain(&error))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    let rows = bytes.chunks_exact(size_of::<T>());
    let rest = rows.remainder().len();
    if rest != 0 {
        return Err(format!(
            "the kernel's list of processes ends in {rest} bytes that are no row"
        ));
    }
    // SAFETY: the length is the type's, of which any bytes are a value.
    let row = |row: &[u8]| unsafe { row.as_ptr().cast::<T>().read_unaligned() };
    Ok(rows.map(row).collect())
}

//! Asks the kernel where processes are, seen from here.

use aya::{
    Btf, EbpfLoader, Endianness,
    programs::{Iter, ProgramError},
};
use mmwatch_common::{
    names,
    place::{self, Place},
};

use super::{KernelFilter, chain, config, tables};
use crate::kernel::facts::Facts;

/// The program, as the build script unpacked it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/places"));

/// The places of all processes of the agent's own pid namespace and those below it, and the
/// children of the cgroup `within`, which the agent is in, if that is not 0.
///
/// # Errors
///
/// Why the kernel does not tell.
pub fn ask(facts: &Facts, within: u64) -> Result<Vec<Place>, String> {
    let btf =
        Btf::parse_file(facts.vmlinux(), Endianness::default()).map_err(|error| chain(&error))?;
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .override_global(names::OFFSETS, &facts.offsets(), true)
        .override_global(names::CONFIG, &config(facts, &KernelFilter::NONE), true)
        .override_global(place::WITHIN, &within, true)
        .load(OBJECT)
        .map_err(|error| chain(&error))?;
    let program: &mut Iter = ebpf
        .program_mut(place::PROGRAM)
        .ok_or(ProgramError::NotLoaded)
        .and_then(TryInto::try_into)
        .map_err(|error| chain(&error))?;
    program.load("task", &btf).map_err(|error| chain(&error))?;
    tables::rows(program)
}

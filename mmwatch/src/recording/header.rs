//! What holds for a whole file.

use std::{collections::BTreeMap, ffi::OsString, fs, io};

use mmwatch_common::{counter::Hook, event::WIRE_VERSION};
use serde::{Deserialize, Serialize};

use super::layout;
use crate::{
    clock::{WallClock, boot_ns},
    error::Result,
    explain::Limits,
    identity::{Hierarchy, PidNamespace},
    kernel::{facts::Facts, plan::Plan},
    source::{HookCounters, KernelCounters},
};

/// What holds for a whole file; JSON in its first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the mmwatch that wrote it.
    pub mmwatch: String,
    /// Version of the records.
    pub wire: u32,
    /// Bytes of each sort of record and value.
    pub sizes: BTreeMap<String, usize>,
    /// Release of the kernel that was watched, and its machine (`uname -rm`).
    pub kernel: String,
    /// Which boot of it.
    pub boot_id: String,
    /// When it was recorded from, ns of the boot clock.
    pub start_boot_ns: u64,
    /// When the boot clock was 0, ns since 1970, by the clocks at the start.
    pub boot_at_unix_ns: i64,
    /// What the kernel measured calls by at the start; the size of its pages, too.
    pub limits: Limits,
    /// How the kernel was hooked.
    pub backend: String,
    /// Whether records tell every change, and their order.
    pub tells_order: bool,
    /// The kernel programs, in the order of the counters of a look.
    pub programs: Vec<ProgramName>,
    /// The hierarchy of cgroups that processes are told apart by.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hierarchy: Option<Hierarchy>,
    /// mmwatch's own pid namespace, if that was not the root's: processes had other
    /// ids there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid_namespace: Option<PidNamespace>,
    /// What was asked for: the command line.
    pub command_line: Vec<String>,
    /// Of a recording that was rotated, which of its files this is, from 0.
    pub part: u64,
}

/// A kernel program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramName {
    /// Its place, by the name of its row in the ledger.
    pub hook: String,
    /// Its name in the kernel.
    pub program: String,
}

impl Header {
    /// Of what is about to be recorded, of this machine.
    pub(crate) fn new(
        facts: &Facts,
        plan: &Plan,
        tells_order: bool,
        counters: &KernelCounters,
        limits: Limits,
        command_line: impl Iterator<Item = OsString>,
    ) -> Result<Self> {
        Ok(Self {
            mmwatch: env!("CARGO_PKG_VERSION").to_owned(),
            wire: WIRE_VERSION,
            sizes: layout::sizes(),
            kernel: format!("{} {}", facts.kernel_release, facts.machine),
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .map(|id| id.trim().to_owned())
                .unwrap_or_default(),
            start_boot_ns: boot_ns()?,
            boot_at_unix_ns: WallClock::sample()?.offset_ns(),
            limits,
            backend: plan.backend.name().to_owned(),
            tells_order,
            programs: counters.hooks.iter().map(ProgramName::of).collect(),
            hierarchy: facts.hierarchy.clone(),
            pid_namespace: None,
            command_line: command_line
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            part: 0,
        })
    }

    /// As the payload of a frame.
    pub(super) fn payload(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec_pretty(self)?)
    }

    /// From the payload of a frame; else what is wrong with it.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, String> {
        /// What any version has.
        #[derive(Deserialize)]
        struct Versions {
            mmwatch: String,
            wire: u32,
            sizes: BTreeMap<String, usize>,
        }
        let malformed = |error: serde_json::Error| format!("its header is malformed ({error})");
        let versions: Versions = serde_json::from_slice(payload).map_err(malformed)?;
        if versions.wire != WIRE_VERSION || versions.sizes != layout::sizes() {
            return Err(format!(
                "its records are of version {}, and this mmwatch ({}) reads version {WIRE_VERSION}; \
                 read it with the mmwatch that recorded it ({})",
                versions.wire,
                env!("CARGO_PKG_VERSION"),
                versions.mmwatch
            ));
        }
        let header: Self = serde_json::from_slice(payload).map_err(malformed)?;
        if !header.limits.are_plausible() {
            return Err(format!(
                "its header has pages of {} bytes",
                header.limits.page_bytes
            ));
        }
        Ok(header)
    }

    /// The rows of the ledger, all zero.
    pub(super) fn counters(&self) -> Result<KernelCounters, String> {
        let hooks = self.programs.iter().map(|name| {
            let hook = Hook::ALL.iter().find(|hook| hook.name() == name.hook);
            let hook = hook.ok_or_else(|| format!("its header has no hook {}", name.hook))?;
            Ok(HookCounters {
                hook: *hook,
                program: name.program.clone(),
                ledger: Default::default(),
                missed: None,
            })
        });
        Ok(KernelCounters {
            hooks: hooks.collect::<Result<_, String>>()?,
        })
    }
}

impl ProgramName {
    fn of(counters: &HookCounters) -> Self {
        Self {
            hook: counters.hook.name().to_owned(),
            program: counters.program.clone(),
        }
    }
}

//! What this kernel and these privileges offer. Nothing is decided here.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use mmwatch_common::config::Offsets;
use serde::{Deserialize, Serialize};

use super::{
    btf::{self, Btf},
    load::probe,
};
use crate::{
    identity::Hierarchy,
    process::{SYSFS, read_text},
};

/// Kernel functions that a plan may hook, on one kernel or another.
pub const FUNCTIONS: &[&str] = &[
    "__do_munmap",
    "__split_vma",
    "__x64_sys_brk",
    "__x64_sys_mmap",
    "__x64_sys_mprotect",
    "__x64_sys_mremap",
    "__x64_sys_munmap",
    "__x64_sys_pkey_mprotect",
    "__x64_sys_shmat",
    "__x64_sys_shmdt",
    "bpf_iter_task",
    "do_mas_align_munmap",
    "do_mas_munmap",
    "do_vmi_align_munmap",
    "do_vmi_munmap",
    "down_write_killable",
    "downgrade_write",
    "exit_mmap",
    "mmap_region",
    "security_file_mprotect",
    "shmem_zero_setup",
    "shmem_zero_setup_desc",
    "up_write",
    "vms_complete_munmap_vmas",
];

/// Tracepoints that a plan may hook.
pub const TRACEPOINTS: &[&str] = &[
    "cgroup_mkdir",
    "exit_mmap",
    "mmap_lock_acquire_returned",
    "mmap_lock_released",
    "page_fault_kernel",
    "page_fault_user",
    "sched_process_exec",
    "sched_process_exit",
    "sched_process_fork",
    "sys_enter",
    "sys_exit",
];

/// Everything a plan is made from. Recorded on each supported kernel, these
/// are the tests' kernels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Where sysfs is mounted.
    #[serde(default = "sysfs")]
    pub sysfs: PathBuf,
    /// `uname -r`, for people; no decision looks at it.
    pub kernel_release: String,
    /// `uname -m`.
    pub machine: String,
    /// Effective user id.
    pub euid: u32,
    /// Why the kernel's BTF cannot be read, if so.
    pub btf_error: Option<String>,
    /// Offsets of struct members in bytes, by `struct.member`.
    pub offsets: BTreeMap<String, u32>,
    /// Those of [`FUNCTIONS`] that the kernel has, with their parameter counts.
    pub functions: BTreeMap<String, u32>,
    /// Those of [`TRACEPOINTS`] that the kernel has, with their argument counts.
    pub tracepoints: BTreeMap<String, u32>,
    /// Whether a raw tracepoint program can be loaded and attached.
    pub raw_tracepoint: Answer,
    /// Whether an fentry program can be loaded and attached.
    pub fentry: Answer,
    /// Whether a kprobe program can be loaded and attached.
    pub kprobe: Answer,
    /// Whether a program can be attached to the kernel's software events.
    pub perf_event: Answer,
    /// The agent's process id in the root namespace, told by the kernel.
    pub self_tgid: Option<u32>,
    /// Distance from a task's stack to its user registers, told by the kernel, bytes.
    pub user_regs_offset: Option<u32>,
    /// Whether programs are handed the running task with its type, so that they
    /// can read its members by plain loads (`bpf_get_current_task_btf`, 5.11).
    pub typed_task: bool,
    /// Whether they are handed its registers likewise (`bpf_task_pt_regs`, 5.15).
    pub typed_regs: bool,
    /// The hierarchy of cgroups that tells processes apart, if there is one.
    #[serde(default)]
    pub hierarchy: Option<Hierarchy>,
    /// Number of its controller (`enum cgroup_subsys_id`), if it has one.
    #[serde(default)]
    pub subsystem: Option<u32>,
    /// Where tracefs is mounted, if it is.
    pub tracefs: Option<String>,
    /// `/sys/kernel/security/lockdown`, the part in brackets.
    pub lockdown: Option<String>,
    /// `vm.max_map_count`.
    pub max_map_count: Option<u32>,
    /// `kernel.perf_event_paranoid`.
    #[serde(default)]
    pub perf_event_paranoid: Option<i32>,
    /// Programs that the kernel refused although the plan had them, with its
    /// reason: found while attaching, and planned around.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, String>,
}

fn sysfs() -> PathBuf {
    SYSFS.into()
}

/// Whether something works, asked by doing it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It was done.
    Works,
    /// It was refused, with this reason.
    Refused(String),
}

impl Answer {
    /// Whether it works.
    pub fn works(&self) -> bool {
        matches!(self, Self::Works)
    }

    /// Why it does not work.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Works => None,
            Self::Refused(reason) => Some(reason),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Works => f.write_str("works"),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
        }
    }
}

impl Facts {
    /// Looks at the running kernel. What cannot be had is a fact as well, so
    /// this does not fail.
    pub fn gather(sysfs: &Path) -> Self {
        let vmlinux = sysfs.join(btf::VMLINUX);
        let (btf, btf_error) = match Btf::read(&vmlinux) {
            Ok(btf) => (Some(btf), None),
            Err(error) => (None, Some(format!("{}: {error}", vmlinux.display()))),
        };
        let named = |names: &[&str], find: fn(&Btf, &str) -> Option<u32>| {
            let found = names
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), find(btf.as_ref()?, name)?)));
            found.collect::<BTreeMap<_, _>>()
        };
        let offsets = named(Offsets::PATHS, Btf::offset);
        let hierarchy = Hierarchy::find(sysfs);
        let subsystem = hierarchy.as_ref().and_then(|hierarchy| {
            let controller = hierarchy.controller.as_ref()?;
            btf.as_ref()?
                .enumerator(&format!("cgroup_subsys_id.{controller}_cgrp_id"))
        });
        let asked = probe::ask(&vmlinux, offsets.get("task_struct.stack").copied());
        let sysctl = |path| fs::read_to_string(path).ok();
        Self {
            sysfs: sysfs.to_owned(),
            kernel_release: sysctl("/proc/sys/kernel/osrelease")
                .map_or_else(String::new, |release| release.trim().to_owned()),
            machine: std::env::consts::ARCH.to_owned(),
            // SAFETY: no arguments, cannot fail.
            euid: unsafe { libc::geteuid() },
            btf_error,
            offsets,
            functions: named(FUNCTIONS, Btf::function_params),
            tracepoints: named(TRACEPOINTS, Btf::tracepoint_args),
            raw_tracepoint: asked.raw_tracepoint,
            fentry: asked.fentry,
            kprobe: asked.kprobe,
            perf_event: asked.perf_event,
            self_tgid: asked.self_tgid,
            user_regs_offset: asked.user_regs_offset,
            typed_task: asked.typed_task,
            typed_regs: asked.typed_regs,
            hierarchy,
            subsystem,
            tracefs: tracefs(),
            lockdown: fs::read_to_string(sysfs.join("kernel/security/lockdown"))
                .ok()
                .and_then(|modes| chosen(&modes)),
            max_map_count: sysctl("/proc/sys/vm/max_map_count")
                .and_then(|count| count.trim().parse().ok()),
            perf_event_paranoid: sysctl("/proc/sys/kernel/perf_event_paranoid")
                .and_then(|value| value.trim().parse().ok()),
            refused: BTreeMap::new(),
        }
    }

    /// Where the kernel's types are.
    pub fn vmlinux(&self) -> PathBuf {
        self.sysfs.join(btf::VMLINUX)
    }

    /// The offsets, as the kernel programs take them.
    pub fn offsets(&self) -> Offsets {
        Offsets::resolve(|path| self.offsets.get(path).copied())
    }

    /// Members that were looked for and not found.
    pub fn missing_offsets(&self) -> impl Iterator<Item = &'static str> {
        Offsets::PATHS
            .iter()
            .copied()
            .filter(|path| !self.offsets.contains_key(*path))
    }
}

/// Where tracefs is mounted.
fn tracefs() -> Option<String> {
    let mounts = read_text(Path::new("/proc/self/mounts")).ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (target, kind) = (fields.next()?, fields.next()?);
        (kind == "tracefs").then(|| target.to_owned())
    })
}

/// The word in brackets.
fn chosen(modes: &str) -> Option<String> {
    let (_, tail) = modes.split_once('[')?;
    Some(tail.split_once(']')?.0.to_owned())
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = "none";
        writeln!(
            f,
            "kernel               {} ({})",
            self.kernel_release, self.machine
        )?;
        writeln!(f, "effective user       {}", self.euid)?;
        match &self.btf_error {
            None => writeln!(f, "BTF                  {}", self.vmlinux().display())?,
            Some(error) => writeln!(f, "BTF                  {error}")?,
        }
        writeln!(f, "raw tracepoints      {}", self.raw_tracepoint)?;
        writeln!(f, "fentry, fexit        {}", self.fentry)?;
        writeln!(f, "kprobe, kretprobe    {}", self.kprobe)?;
        writeln!(f, "software events      {}", self.perf_event)?;
        let lock = self.tracepoints.get("mmap_lock_released");
        match lock {
            Some(args) => writeln!(f, "mmap_lock events     {args} arguments")?,
            None => writeln!(f, "mmap_lock events     {none}")?,
        }
        writeln!(
            f,
            "tracefs              {}",
            self.tracefs.as_deref().unwrap_or("not mounted")
        )?;
        match &self.hierarchy {
            Some(hierarchy) => writeln!(
                f,
                "cgroups              {} at {}",
                hierarchy.controller.as_deref().unwrap_or("v2"),
                hierarchy.mount.display()
            )?,
            None => writeln!(f, "cgroups              not mounted")?,
        }
        writeln!(
            f,
            "lockdown             {}",
            self.lockdown.as_deref().unwrap_or(none)
        )?;
        if let Some(limit) = self.max_map_count {
            writeln!(f, "vm.max_map_count     {limit}")?;
        }
        if let Some(tgid) = self.self_tgid {
            writeln!(f, "own pid at the root  {tgid}")?;
        }
        let missing: Vec<_> = self.missing_offsets().collect();
        if !missing.is_empty() {
            writeln!(f, "members not found    {}", missing.join(", "))?;
        }
        for (program, reason) in &self.refused {
            writeln!(f, "refused by kernel    {program}: {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_lockdown_mode_is_the_one_in_brackets() {
        assert_eq!(
            chosen("none [integrity] confidentiality\n").as_deref(),
            Some("integrity")
        );
        assert_eq!(chosen("none\n"), None);
    }
}

//! Whose doings are seen: options that name processes and namespaces, as the kernel
//! programs know them.

use std::{fs, os::unix::fs::MetadataExt as _};

use crate::{
    error::{Error, Result},
    identity::{Here, Hierarchy, PidNamespace, here},
    kernel::{
        facts::Facts,
        load::{KernelFilter, places},
    },
    options::{NamespaceOf, Options, Scope},
    process::Proc,
};

/// What there is beside the kernel's filter.
pub struct Scoped {
    /// What the kernel is to let through.
    pub filter: KernelFilter,
    /// Where mmwatch runs.
    pub here: Here,
}

/// Completes the filter. `held` is the command that waits to be started.
pub fn resolve(
    options: &Options,
    facts: &mut Facts,
    proc: &Proc,
    held: Option<u32>,
) -> Result<Scoped> {
    let mut filter = options.filter.clone();
    filter.pids.extend(held);
    filter.held = held;
    let mut here = find(options, facts, &filter)?;
    let root = facts
        .hierarchy
        .as_ref()
        .map(|hierarchy| hierarchy.root.clone());
    if let Some(hierarchy) = &mut facts.hierarchy {
        here.correct(hierarchy);
        // What was typed is as deep as it is seen from here.
        if let Some(cgroup) = &mut filter.cgroup {
            cgroup.level += Hierarchy::depth(&hierarchy.root)
                .saturating_sub(root.as_deref().map_or(0, Hierarchy::depth));
        }
    }

    let is_own = match options.scope {
        Some(scope) => scope == Scope::Own,
        None => here.pid_namespace.is_some(),
    };
    if is_own {
        own(&mut filter, &mut here, facts)?;
    }
    match options.pid_namespace {
        Some(NamespaceOf::Own) => filter.pid_namespace = here.pid_namespace,
        Some(NamespaceOf::Process(pid)) => {
            filter.pid_namespace = Some(namespace(pid, &here, proc)?);
        }
        None => {}
    }

    filter.pids = filter
        .pids
        .iter()
        .map(|&pid| here.tgid(pid).ok_or_else(|| gone(pid)))
        .collect::<Result<_>>()?;
    filter.held = held.and_then(|pid| here.tgid(pid));
    Ok(Scoped { filter, here })
}

/// Where mmwatch runs; where that is not needed, not knowing it is no obstacle.
fn find(options: &Options, facts: &Facts, filter: &KernelFilter) -> Result<Here> {
    match look(facts) {
        Ok(here) => Ok(here),
        Err(reason) if options.scope == Some(Scope::Host) && filter.pids.is_empty() => {
            log::warn!("the kernel does not tell in which container mmwatch runs: {reason}");
            Ok(Here::default())
        }
        Err(reason) => Err(nowhere(&reason)),
    }
}

/// The id in the root namespace of the process that has this id here.
pub fn tgid(facts: &Facts, pid: u32) -> Result<u32> {
    let here = look(facts).map_err(|reason| nowhere(&reason))?;
    here.tgid(pid).ok_or_else(|| gone(pid))
}

/// Where mmwatch runs, or why the kernel does not tell. It is asked only where its view is
/// another one.
fn look(facts: &Facts) -> std::result::Result<Here, String> {
    if here::is_at_root() {
        return Ok(Here::default());
    }
    places::ask(facts, 0).map(|places| Here::new(&places))
}

fn nowhere(reason: &str) -> Error {
    Error::Kernel(format!(
        "mmwatch runs in a container, and the kernel does not tell in which one ({reason}); \
         grant CAP_BPF and CAP_PERFMON, or add --scope host and leave --pid out"
    ))
}

/// Narrows the filter to mmwatch's own pod or container.
fn own(filter: &mut KernelFilter, here: &mut Here, facts: &Facts) -> Result<()> {
    if here.pid_namespace.is_some() && here::shares_pid_namespace() {
        filter.pid_namespace = here.pid_namespace;
        return Ok(());
    }
    let Some(pod) = here.pod() else {
        return Err(Error::Usage(
            "mmwatch runs in no container here, so that there is no --scope self; leave it out, \
             or name what to watch with --cgroup or --container"
                .to_owned(),
        ));
    };
    if filter.cgroup.is_some() {
        return Err(Error::Usage(
            "--cgroup and --container cannot be held against --scope self, which is by cgroup \
             here; leave them out, or add --scope host"
                .to_owned(),
        ));
    }
    filter.cgroup = Some(pod);
    // Again, for the names of all that are in it. Without them, they are watched all the same.
    match places::ask(facts, pod.id) {
        Ok(places) => *here = Here::new(&places),
        Err(reason) => log::warn!("the containers beside mmwatch's have no names: {reason}"),
    }
    Ok(())
}

/// The pid namespace of a process.
fn namespace(pid: u32, here: &Here, proc: &Proc) -> Result<PidNamespace> {
    let path = proc.dir(pid).join("ns/pid");
    let inode = fs::metadata(&path)
        .map_err(Error::io(format!("reading {}", path.display())))?
        .ino();
    // `NSpid` has its id in this namespace and in each one further down.
    let depth = proc.namespaces(pid)?.ok_or_else(|| gone(pid))?;
    let own = here.pid_namespace.map_or(0, |namespace| namespace.level);
    Ok(PidNamespace {
        inode: u32::try_from(inode)
            .map_err(|_| Error::Kernel(format!("{} has no inode number", path.display())))?,
        level: own + depth - 1,
    })
}

fn gone(pid: u32) -> Error {
    Error::Usage(format!(
        "there is no process {pid}; `ps -e` lists those that there are"
    ))
}

//! What the path of a cgroup says: which container, pod or unit it is of.
//!
//! Paths are those of the host's hierarchy, `/` first. Runtimes put the id of
//! a container into the last part of theirs, each in its own way.

use serde::{Deserialize, Serialize};

/// What a cgroup is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The container, if it is of one.
    pub container: Option<Container>,
    /// The unit of systemd: the innermost service or scope, if there is one.
    pub unit: Option<String>,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Container {
    /// Its id, or its name where the runtime has no other.
    pub id: String,
    /// What runs it, where that is told.
    pub runtime: Option<Runtime>,
    /// The pod of Kubernetes that it belongs to.
    pub pod_uid: Option<String>,
    /// What people call it and its pod. A path does not tell: see
    /// [`Runtimes`](super::Runtimes).
    pub names: Names,
}

impl Container {
    /// Takes `met` for the container of a group, unless there is one whose names are known.
    pub(crate) fn stand_for(group: &mut Option<Self>, met: &Self) {
        if group.as_ref().is_none_or(|of| of.names == Names::default()) {
            *group = Some(met.clone());
        }
    }
}

/// What people call a container, where they do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Names {
    /// Its name: of a container of a pod, that in the pod.
    pub name: Option<String>,
    /// The image that it was made of, by name.
    pub image: Option<String>,
    /// The name of its pod.
    pub pod: Option<String>,
    /// The namespace of its pod.
    pub pod_namespace: Option<String>,
}

/// What runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Runtime {
    /// Docker.
    Docker,
    /// containerd, by itself or for Kubernetes.
    Containerd,
    /// CRI-O.
    Crio,
    /// Podman.
    Podman,
    /// LXC, Incus, LXD.
    Lxc,
    /// systemd-nspawn.
    Nspawn,
    /// runc, by itself.
    Runc,
    /// crun, by itself.
    Crun,
}

impl Runtime {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Crio => "cri-o",
            Self::Podman => "podman",
            Self::Lxc => "lxc",
            Self::Nspawn => "nspawn",
            Self::Runc => "runc",
            Self::Crun => "crun",
        }
    }
}

/// Scopes of systemd that are containers: what their names begin with.
const SCOPES: [(&str, Runtime); 7] = [
    ("docker-", Runtime::Docker),
    ("cri-containerd-", Runtime::Containerd),
    ("nerdctl-", Runtime::Containerd),
    ("crio-", Runtime::Crio),
    ("libpod-", Runtime::Podman),
    ("runc-", Runtime::Runc),
    ("crun-", Runtime::Crun),
];

/// Directories whose children are containers.
const PARENTS: [(&str, Runtime); 3] = [
    ("docker", Runtime::Docker),
    ("lxc", Runtime::Lxc),
    ("lxc.payload", Runtime::Lxc),
];

impl Owner {
    /// By a cgroup's path. Of containers within containers, the innermost.
    pub fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let container = (0..parts.len())
            .rev()
            .find_map(|at| container(&parts[..at], parts[at]))
            .map(|(id, runtime)| Container {
                id: id.to_owned(),
                runtime,
                pod_uid: parts.iter().find_map(|part| pod_uid(part)),
                names: Names::default(),
            });
        let unit = parts.iter().rev().find(|part| is_unit(part));
        Self {
            container,
            unit: unit.map(|part| (*part).to_owned()),
        }
    }

    /// Whether a path is that of a pod, whose containers are below it: of Kubernetes or of
    /// Podman.
    pub fn is_pod(path: &str) -> bool {
        let last = path.rsplit('/').next().unwrap_or(path);
        pod_uid(last).is_some() || last.contains("libpod_pod_")
    }
}

/// The container that a part of a path is of, after the parts `before`.
fn container<'a>(before: &[&str], part: &'a str) -> Option<(&'a str, Option<Runtime>)> {
    if let Some(scope) = part.strip_suffix(".scope") {
        if let Some(name) = scope.strip_prefix("machine-") {
            return Some((name, Some(Runtime::Nspawn)));
        }
        return SCOPES.iter().find_map(|(prefix, runtime)| {
            let id = scope.strip_prefix(prefix)?;
            // Beside each container its monitor may have a scope.
            (!id.starts_with("conmon-") && !id.is_empty()).then_some((id, Some(*runtime)))
        });
    }
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return Some((name, Some(Runtime::Lxc)));
    }
    // Podman that does not know systemd, beside `conmon`.
    if let Some(id) = part.strip_prefix("libpod-").filter(|id| is_id(id)) {
        return Some((id, Some(Runtime::Podman)));
    }
    if let Some(name) = nspawn_service(part) {
        return Some((name, Some(Runtime::Nspawn)));
    }
    let parent = before.last()?;
    if let Some((_, runtime)) = PARENTS.iter().find(|(name, _)| name == parent) {
        return Some((part, Some(*runtime)));
    }
    // Kubernetes with drivers that do not know systemd, and whoever else names a
    // cgroup by an id as long as this.
    let in_pod = pod_uid(parent).is_some();
    (is_id(part) || (in_pod && !is_unit(part))).then_some((part, None))
}

/// `systemd-nspawn@NAME.service`
fn nspawn_service(part: &str) -> Option<&str> {
    part.strip_prefix("systemd-nspawn@")?
        .strip_suffix(".service")
}

/// The 64 hexadecimal digits that runtimes make up.
fn is_id(part: &str) -> bool {
    part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `podUID`, or `kubepods-burstable-podUID.slice` with `_` for `-`.
fn pod_uid(part: &str) -> Option<String> {
    let uid = match part.strip_suffix(".slice") {
        Some(slice) if slice.starts_with("kubepods") => slice.rsplit_once("-pod")?.1,
        Some(_) => return None,
        None => part.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let is_uid = uid.len() >= 32 && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    is_uid.then_some(uid)
}

fn is_unit(part: &str) -> bool {
    part.ends_with(".service") || part.ends_with(".scope")
}

#[cfg(test)]
mod tests;

//! What people call containers, by what their runtimes keep on disk.
//!
//! No daemon is asked. What is missing, cannot be read or is not what it
//! should be, is no name and no error. `docs/identity.md` lists the files.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Cgroup,
    cgroup::{Container, Names, Runtime},
};

/// Longest file that is read: Podman keeps all its containers in one.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Longest name; of images, those with a registry, a tag and a digest too.
const MAX_NAME_BYTES: usize = 1024;

/// Where containerd keeps what runs: its own, and those that are parts of Kubernetes.
const CONTAINERD_STATES: [&str; 4] = [
    "run/containerd",
    "run/k3s/containerd",
    "run/k0s/containerd",
    "var/snap/microk8s/common/run/containerd",
];
/// Its namespaces whose containers have names: that of Kubernetes, and that of nerdctl.
const CONTAINERD_NAMESPACES: [&str; 2] = ["k8s.io", "default"];
/// What Docker keeps, as Debian's package and as a snap.
const DOCKER_CONTAINERS: [&str; 2] = [
    "var/lib/docker/containers",
    "var/snap/docker/common/var-lib-docker/containers",
];
/// What CRI-O and Podman share, by the driver of their images.
const STORED_CONTAINERS: [&str; 2] = ["overlay-containers", "vfs-containers"];
/// The lists of Podman's containers: those that stay, and those that go when they end.
const PODMAN_LISTS: [&str; 2] = ["containers.json", "volatile-containers.json"];

/// The state of the container runtimes of a machine.
#[derive(Clone, Debug)]
pub struct Runtimes {
    root: PathBuf,
}

impl Default for Runtimes {
    fn default() -> Self {
        Self::at("/")
    }
}

impl Runtimes {
    /// The state of the machine whose file system is at `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The cgroup with this path, and the names of its container.
    pub fn cgroup(&self, path: String) -> Cgroup {
        let mut cgroup = Cgroup::new(path);
        if let Some(container) = &mut cgroup.owner.container {
            self.name(container);
        }
        cgroup
    }

    /// Adds the names of a container, and its runtime where the path did not tell it.
    pub fn name(&self, container: &mut Container) {
        let id = container.id.as_str();
        if id.contains('/') || matches!(id, "" | "." | "..") {
            return;
        }
        let of = |runtime| Some((runtime, self.names(runtime, id)?));
        let found = match container.runtime {
            Some(runtime) => of(runtime),
            None => [
                Runtime::Containerd,
                Runtime::Docker,
                Runtime::Crio,
                Runtime::Podman,
            ]
            .into_iter()
            .find_map(of),
        };
        if let Some((runtime, names)) = found {
            container.runtime = Some(runtime);
            container.names = names;
        }
    }

    /// What a runtime keeps of a container with this id.
    fn names(&self, runtime: Runtime, id: &str) -> Option<Names> {
        match runtime {
            Runtime::Docker => DOCKER_CONTAINERS.iter().find_map(|dir| {
                let path = format!("{dir}/{id}/config.v2.json");
                Some(self.read::<DockerContainer>(&path)?.names())
            }),
            Runtime::Containerd => CONTAINERD_STATES.iter().find_map(|state| {
                let tasks = format!("{state}/io.containerd.runtime.v2.task");
                CONTAINERD_NAMESPACES
                    .iter()
                    .find_map(|namespace| self.spec(&format!("{tasks}/{namespace}/{id}")))
            }),
            Runtime::Crio => STORED_CONTAINERS.iter().find_map(|stored| {
                self.spec(&format!("run/containers/storage/{stored}/{id}/userdata"))
                    // Podman keeps its containers in the same place.
                    .filter(|names| names.pod.is_some())
            }),
            Runtime::Podman => STORED_CONTAINERS.iter().find_map(|stored| {
                PODMAN_LISTS.iter().find_map(|list| {
                    let path = format!("var/lib/containers/storage/{stored}/{list}");
                    let list: Vec<StoredContainer> = self.read(&path)?;
                    Some(list.into_iter().find(|of| of.id == id)?.names())
                })
            }),
            // Whoever starts these gives the id.
            Runtime::Lxc | Runtime::Runc | Runtime::Crun => Some(Names {
                name: name(id),
                ..Names::default()
            }),
            Runtime::Nspawn => Some(Names {
                name: name(&unescaped(id)),
                ..Names::default()
            }),
        }
    }

    /// What the specification says that a container was started by.
    fn spec(&self, bundle: &str) -> Option<Names> {
        let spec: Spec = self.read(&format!("{bundle}/config.json"))?;
        Some(labelled(&spec.annotations))
    }

    /// A file of JSON, by its path below the root.
    fn read<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        let file = OpenOptions::new()
            .read(true)
            // Should it be a pipe, nobody is waited for.
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(self.root.join(Path::new(path)))
            .ok()?;
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut text = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).ok()?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return None;
        }
        serde_json::from_slice(&text).ok()
    }
}

/// `config.json` of the OCI runtime specification, as far as it matters here.
#[derive(Deserialize)]
struct Spec {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// `config.v2.json` of Docker.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerContainer {
    name: String,
    config: DockerConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerConfig {
    image: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

impl DockerContainer {
    fn names(self) -> Names {
        let labelled = labelled(&self.config.labels.unwrap_or_default());
        Names {
            // Under Kubernetes, Docker's name is put together of what the labels say.
            name: labelled
                .name
                .or_else(|| name(self.name.trim_start_matches('/'))),
            image: self.config.image.as_deref().and_then(name),
            ..labelled
        }
    }
}

/// An entry of Podman's lists.
#[derive(Deserialize)]
struct StoredContainer {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    /// JSON in itself.
    #[serde(default)]
    metadata: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct StoredMetadata {
    image_name: Option<String>,
}

impl StoredContainer {
    fn names(self) -> Names {
        let metadata: Option<StoredMetadata> = serde_json::from_str(&self.metadata).ok();
        Names {
            name: self.names.first().and_then(|first| name(first)),
            image: metadata.and_then(|metadata| name(&metadata.image_name?)),
            ..Names::default()
        }
    }
}

/// What annotations of an OCI specification or labels of Docker say: each thing by
/// the first of its keys that is there.
fn labelled(labels: &BTreeMap<String, String>) -> Names {
    let first = |keys: &[&str]| keys.iter().find_map(|key| name(labels.get(*key)?));
    Names {
        name: first(&[
            "io.kubernetes.cri.container-name",
            "io.kubernetes.container.name",
            "nerdctl/name",
        ]),
        image: first(&[
            "io.kubernetes.cri.image-name",
            "io.kubernetes.cri-o.ImageName",
        ]),
        pod: first(&["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]),
        pod_namespace: first(&[
            "io.kubernetes.cri.sandbox-namespace",
            "io.kubernetes.pod.namespace",
        ]),
    }
}

/// A name, if it can be one.
fn name(text: &str) -> Option<String> {
    let can_be = !text.is_empty() && text.len() <= MAX_NAME_BYTES;
    can_be.then(|| text.to_owned())
}

/// A name of systemd's without its escapes: `\x2d` for a dash.
fn unescaped(text: &str) -> String {
    let mut parts = text.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2);
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&part.as_bytes()[2..]);
            }
            None => {
                bytes.extend_from_slice(b"\\x");
                bytes.extend_from_slice(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;

use std::{fs, process};

use serde_json::{Value, json};

use super::*;

const ID: &str = "02bcfa802478413dcda5a1206107d3a68db3b9eb7375bdc6e4f43c028d497c06";

/// A machine's file system, gone with the value.
struct Machine(PathBuf);

impl Machine {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("mmwatch-{}-{name}", process::id()));
        fs::create_dir_all(&root).unwrap();
        Self(root)
    }

    fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn json(&self, path: &str, content: &Value) -> &Self {
        self.file(path, content.to_string())
    }

    /// What becomes of a container with [`ID`].
    fn named(&self, runtime: Option<Runtime>) -> Container {
        let mut container = Container {
            id: ID.to_owned(),
            runtime,
            ..Container::default()
        };
        Runtimes::at(&self.0).name(&mut container);
        container
    }

    #[track_caller]
    fn assert_named(&self, runtime: Option<Runtime>, want: Runtime, names: &Names) {
        let container = self.named(runtime);
        assert_eq!(container.runtime, Some(want));
        assert_eq!(container.names, *names);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn names(name: &str, image: &str, pod: Option<(&str, &str)>) -> Names {
    let known = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Names {
        name: known(name),
        image: known(image),
        pod: pod.and_then(|(_, pod)| known(pod)),
        pod_namespace: pod.and_then(|(namespace, _)| known(namespace)),
    }
}

/// As dockerd 20.10 writes it.
fn docker(name: &str, labels: &Value) -> Value {
    json!({
        "StreamConfig": {},
        "State": { "Running": true, "Pid": 2437, "Health": null },
        "ID": ID, "Path": "/busybox", "Args": ["sleep", "900"],
        "Config": {
            "Hostname": "02bcfa802478", "Env": ["PATH=/bin"], "Cmd": ["sleep", "900"],
            "Image": "sleepy:1", "Volumes": null, "Entrypoint": ["/busybox"], "Labels": labels
        },
        "Image": "sha256:31c2c695fc222237ee27f5e3b95a061ba1646c88c768d1a528023b8141483002",
        "Name": name, "Driver": "overlay2", "RestartCount": 0
    })
}

/// A specification as runtimes hand it to runc.
fn spec(annotations: &Value) -> Value {
    json!({
        "ociVersion": "1.0.2-dev",
        "process": { "user": { "uid": 0, "gid": 0 }, "args": ["/busybox"], "cwd": "/" },
        "root": { "path": "rootfs" }, "hostname": "web-0",
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "annotations": annotations,
        "linux": { "cgroupsPath": format!("/kubepods/pod1/{ID}") }
    })
}

#[test]
fn docker_s_names_are_known() {
    let machine = Machine::new("docker");
    let path = format!("var/lib/docker/containers/{ID}/config.v2.json");
    machine.json(&path, &docker("/shop", &json!({})));
    let want = names("shop", "sleepy:1", None);
    machine.assert_named(Some(Runtime::Docker), Runtime::Docker, &want);
    machine.assert_named(None, Runtime::Docker, &want);
    machine.json(&path, &docker("/shop", &Value::Null));
    machine.assert_named(None, Runtime::Docker, &want);
}

#[test]
fn docker_under_kubernetes_has_names_in_labels() {
    let machine = Machine::new("dockershim");
    machine.json(
        &format!("var/lib/docker/containers/{ID}/config.v2.json"),
        &docker(
            "/k8s_web_web-0_shop_6b7f2c6e-9d0a-4c57-8f3f-3f1f3a1c2d4e_0",
            &json!({
                "io.kubernetes.container.name": "web",
                "io.kubernetes.pod.name": "web-0",
                "io.kubernetes.pod.namespace": "shop"
            }),
        ),
    );
    let want = names("web", "sleepy:1", Some(("shop", "web-0")));
    machine.assert_named(None, Runtime::Docker, &want);
}

#[test]
fn containerd_s_names_are_known_of_pods() {
    for (at, place) in CONTAINERD_STATES.iter().enumerate() {
        let machine = Machine::new(&format!("containerd-{at}"));
        let path = format!("{place}/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json");
        machine.json(
            &path,
            &spec(&json!({
                "io.kubernetes.cri.container-name": "web",
                "io.kubernetes.cri.container-type": "container",
                "io.kubernetes.cri.image-name": "registry.k8s.io/e2e/agnhost:2.47",
                "io.kubernetes.cri.sandbox-id": ID.replace('0', "f"),
                "io.kubernetes.cri.sandbox-name": "web-0",
                "io.kubernetes.cri.sandbox-namespace": "shop",
                "io.kubernetes.cri.sandbox-uid": "6b7f2c6e-9d0a-4c57-8f3f-3f1f3a1c2d4e"
            })),
        );
        let image = "registry.k8s.io/e2e/agnhost:2.47";
        let want = names("web", image, Some(("shop", "web-0")));
        machine.assert_named(Some(Runtime::Containerd), Runtime::Containerd, &want);
        machine.assert_named(None, Runtime::Containerd, &want);
        // The sandbox of a pod has no name of its own.
        machine.json(
            &path,
            &spec(&json!({
                "io.kubernetes.cri.container-type": "sandbox",
                "io.kubernetes.cri.sandbox-name": "web-0",
                "io.kubernetes.cri.sandbox-namespace": "shop"
            })),
        );
        let want = names("", "", Some(("shop", "web-0")));
        machine.assert_named(None, Runtime::Containerd, &want);
    }
}

#[test]
fn nerdctl_s_names_are_known() {
    let machine = Machine::new("nerdctl");
    machine.json(
        &format!("run/containerd/io.containerd.runtime.v2.task/default/{ID}/config.json"),
        &spec(&json!({
            "nerdctl/hostname": "02bcfa802478", "nerdctl/name": "shop", "nerdctl/namespace": "default"
        })),
    );
    machine.assert_named(None, Runtime::Containerd, &names("shop", "", None));
}

#[test]
fn cri_o_s_names_are_known() {
    let machine = Machine::new("crio");
    machine.json(
        &format!("run/containers/storage/overlay-containers/{ID}/userdata/config.json"),
        &spec(&json!({
            "io.container.manager": "cri-o",
            "io.kubernetes.container.name": "coredns",
            "io.kubernetes.cri-o.ContainerType": "container",
            "io.kubernetes.cri-o.ImageName": "registry.k8s.io/coredns/coredns:v1.11.1",
            "io.kubernetes.pod.name": "coredns-6d4b75cb6d-4mtdm",
            "io.kubernetes.pod.namespace": "kube-system"
        })),
    );
    let want = names(
        "coredns",
        "registry.k8s.io/coredns/coredns:v1.11.1",
        Some(("kube-system", "coredns-6d4b75cb6d-4mtdm")),
    );
    machine.assert_named(Some(Runtime::Crio), Runtime::Crio, &want);
    machine.assert_named(None, Runtime::Crio, &want);
}

#[test]
fn podman_s_names_are_in_one_of_two_lists() {
    for list in PODMAN_LISTS {
        let machine = Machine::new(list);
        // As Podman 4.3 writes both.
        machine.json(
            &format!("run/containers/storage/overlay-containers/{ID}/userdata/config.json"),
            &spec(&json!({
                "io.container.manager": "libpod",
                "io.kubernetes.cri-o.TTY": "false",
                "io.podman.annotations.autoremove": "FALSE"
            })),
        );
        let entry = |id: &str, name: &str| {
            json!({
                "id": id, "names": [name], "layer": "34b689d41a3c", "created": "2026-11-21T21:56:05Z",
                "metadata": json!({ "image-name": "localhost/sleepy:1", "name": name }).to_string(),
                "flags": { "MountLabel": "", "ProcessLabel": "" }
            })
        };
        let other = entry(&ID.replace('0', "f"), "other");
        machine.json(
            &format!("var/lib/containers/storage/overlay-containers/{list}"),
            &json!([other, entry(ID, "shop")]),
        );
        let want = names("shop", "localhost/sleepy:1", None);
        machine.assert_named(Some(Runtime::Podman), Runtime::Podman, &want);
        machine.assert_named(None, Runtime::Podman, &want);
    }
}

#[test]
fn some_ids_are_names() {
    let machine = Machine::new("ids");
    let named = |id: &str, runtime| {
        let mut container = Container {
            id: id.to_owned(),
            runtime: Some(runtime),
            ..Container::default()
        };
        Runtimes::at(&machine.0).name(&mut container);
        container.names.name.unwrap()
    };
    for runtime in [Runtime::Lxc, Runtime::Runc, Runtime::Crun, Runtime::Nspawn] {
        assert_eq!(named("web", runtime), "web");
    }
    assert_eq!(named(r"my\x2dweb\x2", Runtime::Nspawn), r"my-web\x2");
    assert_eq!(named(r"my\x2dweb", Runtime::Lxc), r"my\x2dweb");
}

#[test]
fn what_is_not_what_it_should_be_is_no_name() {
    let machine = Machine::new("broken");
    let nothing = Container {
        id: ID.to_owned(),
        runtime: Some(Runtime::Docker),
        ..Container::default()
    };
    let dir = format!("var/lib/docker/containers/{ID}");
    let path = format!("{dir}/config.v2.json");
    assert_eq!(machine.named(Some(Runtime::Docker)), nothing);
    for text in ["", "{", "[]", r#"{"Name": 1}"#, r#"{"Name": "/shop"}"#] {
        machine.file(&path, text);
        assert_eq!(machine.named(Some(Runtime::Docker)), nothing, "{text}");
    }
    let long = "x".repeat(MAX_NAME_BYTES + 1);
    machine.json(&path, &docker(&long, &Value::Null));
    assert_eq!(machine.named(Some(Runtime::Docker)).names.name, None);
    // One byte too many.
    let mut text = docker("/shop", &Value::Null).to_string();
    text.extend(std::iter::repeat_n(' ', MAX_FILE_BYTES as usize));
    machine.file(&path, &text[..MAX_FILE_BYTES as usize]);
    let known = machine.named(Some(Runtime::Docker)).names.name;
    assert_eq!(known.as_deref(), Some("shop"));
    machine.file(&path, &text[..=MAX_FILE_BYTES as usize]);
    assert_eq!(machine.named(Some(Runtime::Docker)), nothing);

    // A pipe, which nobody writes, and a directory.
    let at = machine.0.join(&path);
    fs::remove_file(&at).unwrap();
    let c_path = std::ffi::CString::new(at.to_str().unwrap()).unwrap();
    // SAFETY: the path is a string that ends with NUL.
    assert_eq!(unsafe { libc::mkfifo(c_path.as_ptr(), 0o600) }, 0);
    assert_eq!(machine.named(Some(Runtime::Docker)), nothing);
    fs::remove_file(&at).unwrap();
    fs::create_dir(&at).unwrap();
    assert_eq!(machine.named(Some(Runtime::Docker)), nothing);
}

#[test]
fn an_id_is_no_path() {
    let machine = Machine::new("path");
    machine.json(
        "var/lib/docker/containers/config.v2.json",
        &docker("/shop", &Value::Null),
    );
    for id in [".", "..", "", "../containers"] {
        let mut container = Container {
            id: id.to_owned(),
            runtime: Some(Runtime::Docker),
            ..Container::default()
        };
        Runtimes::at(&machine.0).name(&mut container);
        assert_eq!(container.names, Names::default(), "{id}");
    }
}

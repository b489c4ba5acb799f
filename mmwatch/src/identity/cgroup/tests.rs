use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const UID: &str = "6b7f2c6e-9d0a-4c57-8f3f-3f1f3a1c2d4e";

#[track_caller]
fn assert_container(path: &str, id: &str, runtime: Option<Runtime>, pod_uid: Option<&str>) {
    let want = Container {
        id: id.to_owned(),
        runtime,
        pod_uid: pod_uid.map(str::to_owned),
        names: Names::default(),
    };
    assert_eq!(Owner::of(path).container, Some(want), "{path}");
}

#[test]
fn every_runtime_s_paths_are_known() {
    use Runtime::*;
    for (path, runtime) in [
        (format!("/docker/{ID}"), Some(Docker)),
        (format!("/system.slice/docker-{ID}.scope"), Some(Docker)),
        // Docker in a container, cgroups of its own beneath.
        (
            format!("/system.slice/docker-{ID}.scope/init"),
            Some(Docker),
        ),
        (format!("/machine.slice/libpod-{ID}.scope"), Some(Podman)),
        (
            format!(
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container"
            ),
            Some(Podman),
        ),
        (format!("/libpod_parent/libpod-{ID}"), Some(Podman)),
        (
            format!("/system.slice/nerdctl-{ID}.scope"),
            Some(Containerd),
        ),
        (format!("/default/{ID}"), None),
        (format!("/ecs/0123456789abcdef0123456789abcdef/{ID}"), None),
    ] {
        assert_container(&path, ID, runtime, None);
    }
    assert_container("/lxc.payload.web", "web", Some(Lxc), None);
    assert_container("/lxc/web/ns", "web", Some(Lxc), None);
    assert_container(
        "/machine.slice/machine-web.scope",
        "web",
        Some(Nspawn),
        None,
    );
    assert_container(
        "/machine.slice/systemd-nspawn@web.service/payload",
        "web",
        Some(Nspawn),
        None,
    );
    assert_container("/system.slice/runc-web.scope", "web", Some(Runc), None);
    assert_container("/user.slice/crun-web.scope", "web", Some(Crun), None);
}

#[test]
fn pods_have_their_uid() {
    let underscored = UID.replace('-', "_");
    for (path, runtime) in [
        (
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{underscored}.slice/cri-containerd-{ID}.scope"
            ),
            Some(Runtime::Containerd),
        ),
        (
            format!("/kubepods.slice/kubepods-pod{underscored}.slice/crio-{ID}.scope"),
            Some(Runtime::Crio),
        ),
        (format!("/kubepods/besteffort/pod{UID}/{ID}"), None),
        // Under kind, and other Kubernetes in Docker.
        (
            format!(
                "/docker/{}/kubelet/kubepods/pod{UID}/{ID}",
                ID.replace('0', "f")
            ),
            None,
        ),
    ] {
        assert_container(&path, ID, runtime, Some(UID));
    }
    // The uid of a static pod is a hash.
    let hash = UID.replace('-', "");
    assert_container(&format!("/kubepods/pod{hash}/{ID}"), ID, None, Some(&hash));
}

#[test]
fn the_innermost_container_counts() {
    let inner = ID.replace('0', "f");
    let path = format!("/docker/{ID}/docker/{inner}");
    assert_container(&path, &inner, Some(Runtime::Docker), None);
}

#[test]
fn what_is_no_container_is_a_unit_or_nothing() {
    for (path, unit) in [
        ("/", None),
        ("/init.scope", Some("init.scope")),
        ("/system.slice/nginx.service", Some("nginx.service")),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-term.scope",
            Some("app-term.scope"),
        ),
        ("/user.slice/user-1000.slice", None),
        // A monitor is not its container, and a pod's own cgroup none either.
        (
            "/machine.slice/libpod-conmon-0123.scope",
            Some("libpod-conmon-0123.scope"),
        ),
        ("/libpod_parent/conmon", None),
        ("/lxc.monitor.web", None),
        ("/docker", None),
        ("/kubepods/burstable", None),
    ] {
        let want = Owner {
            container: None,
            unit: unit.map(str::to_owned),
        };
        assert_eq!(Owner::of(path), want, "{path}");
    }
}

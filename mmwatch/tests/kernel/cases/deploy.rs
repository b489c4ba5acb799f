//! What `deploy/` has: under its profile of system calls, and with the privileges of its
//! manifests, mmwatch does what it does elsewhere.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::sidecar::{self, APP, POD, app};
use crate::{
    confined::{self, Otherwise, confine},
    container::{Container, Files, Pids, Spec},
    run::{
        count_start, count_start_with, interrupt, interrupt_pid, mmwatch, wait_until_watching,
        watcher, workload,
    },
};

const DAEMONSET: &str = include_str!("../../../../deploy/kubernetes/daemonset.yaml");
const SIDECAR: &str = include_str!("../../../../deploy/kubernetes/sidecar.yaml");

/// The id of mmwatch's container.
const ID: &str = "mmwatch-test-deployed";
/// A pod of its own.
const OTHER_POD: &str = "77777777-8888-9999-0000-111111111111";

/// Starts mmwatch so that it ends with the first call that its profile does not have.
fn confined(args: &[&str]) -> Child {
    count_start_with(args);
    let mut command = mmwatch();
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    confine(&mut command, Otherwise::Kills);
    command.spawn().unwrap()
}

#[track_caller]
fn assert_good_end(args: &[&str], output: &Output) {
    let error = String::from_utf8_lossy(&output.stderr);
    // What it finds is nothing to these tests.
    let has_differences = args[0] == "verify" && output.status.code() == Some(1);
    assert_ne!(
        output.status.signal(),
        Some(libc::SIGSYS),
        "{args:?} made a call that deploy/seccomp.json does not have"
    );
    assert!(
        output.status.success() || has_differences,
        "{args:?}: {:?} {error}",
        output.status
    );
}

/// Watching takes no other calls than the profile has.
pub fn the_profile_has_all_calls_of_a_trace(backend: &str) {
    let args = ["trace", "-o", "json", "--hooks", backend];
    let mut child = confined(&args);
    wait_until_watching(&child);
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    while line.is_empty() {
        Command::new("/bin/true").status().unwrap();
        stdout.read_line(&mut line).unwrap();
    }
    interrupt(&child);
    std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    assert_good_end(&args, &child.wait_with_output().unwrap());
}

/// Nor does anything else that mmwatch does.
pub fn the_profile_has_all_calls(backend: &str) {
    let pid = std::process::id().to_string();
    for args in [
        &["check"][..],
        &[
            "top", "--by", "exe", "-i", "500ms", "-d", "1", "--hooks", backend,
        ],
        &[
            "stat",
            "--by",
            "container",
            "--faults",
            "-d",
            "1",
            "--hooks",
            backend,
        ],
        &["verify", "-d", "1", "-p", &pid, "--hooks", backend],
        &["maps", "--smaps", &pid],
        &[
            "maps", "--watch", "500ms", "-d", "1", &pid, "--hooks", backend,
        ],
        &["shared", &pid],
        &["flags"],
        &["stat", "--hooks", "proc", "--by", "exe", "-d", "1"],
    ] {
        assert_good_end(args, &confined(args).wait_with_output().unwrap());
    }
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let listen = format!("127.0.0.1:{port}");
    let args = ["agent", "--listen", &listen, "--hooks", backend];
    let agent = confined(&args);
    until("readiness", || get(port, "/readyz"));
    get(port, "/metrics").unwrap();
    interrupt(&agent);
    assert_good_end(&args, &agent.wait_with_output().unwrap());
}

/// The profile as it is lets mmwatch sum, and refuses what it does not have.
pub fn other_calls_are_refused(backend: &str) {
    let mut stat = watcher();
    stat.args(["stat", "-d", "1", "-o", "json", "--hooks", backend]);
    confine(&mut stat, Otherwise::Fails);
    let output = stat.output().unwrap();
    assert_good_end(&["stat"], &output);
    let text = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(report["ledger"]["balanced"], true, "{report:#}");

    let forbidden = workload(&["forbidden"]);
    for (is_confined, code) in [(false, 0), (true, libc::EPERM)] {
        let mut command = Command::new(&forbidden[0]);
        command.args(&forbidden[1..]);
        if is_confined {
            confine(&mut command, Otherwise::Fails);
        }
        let status = command.status().unwrap();
        assert_eq!(status.code(), Some(code), "confined: {is_confined}");
    }
}

/// What a manifest says of mmwatch's container.
struct Manifest {
    args: Vec<String>,
    capabilities: Vec<String>,
    host_pid: bool,
    mounts: Vec<String>,
}

fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.map(|item| item.as_str().unwrap().to_owned()).collect()
}

impl Manifest {
    /// The one pod of a file. What the containers of these tests have anyhow must be there.
    fn read(text: &str) -> Self {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
        let last = documents.last().unwrap();
        let pod = match last["kind"].as_str() {
            Some("DaemonSet") => &last["spec"]["template"]["spec"],
            _ => &last["spec"],
        };
        let containers = pod["containers"].as_array().unwrap();
        let container = containers
            .iter()
            .find(|of| of["name"] == "mmwatch")
            .unwrap();
        let security = &container["securityContext"];
        assert_eq!(security["runAsUser"], 0);
        assert_eq!(security["privileged"], false);
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(strings(&security["capabilities"]["drop"]), ["ALL"]);
        let host_pid = pod["hostPID"] == true;
        // One of the two, or mmwatch would see nobody but itself.
        assert_ne!(host_pid, pod["shareProcessNamespace"] == true);
        let added = strings(&security["capabilities"]["add"]);
        Self {
            args: strings(&container["args"]),
            capabilities: added.iter().map(|name| format!("CAP_{name}")).collect(),
            host_pid,
            mounts: mounts(pod, container),
        }
    }

    fn capabilities(&self) -> Vec<&str> {
        self.capabilities.iter().map(String::as_str).collect()
    }

    /// Starts mmwatch as its image has it. `app` is a process of the pod.
    fn start(&self, args: &[String], capabilities: &[&str], app: Option<u32>) -> Container {
        let mut command = vec!["/mmwatch".to_owned()];
        command.extend_from_slice(args);
        let mounts: Vec<_> = self.mounts.iter().map(String::as_str).collect();
        Container::start(&Spec {
            id: ID,
            pod: if app.is_some() { POD } else { OTHER_POD },
            command: &command,
            capabilities,
            pids: match app {
                Some(pid) => Pids::Of(pid),
                None if self.host_pid => Pids::Host,
                None => Pids::Own,
            },
            files: Files::Image(&mounts),
            seccomp: Some(confined::profile()),
        })
    }

    /// Has mmwatch do what the manifest says, while an app of the pod, or of another one, maps.
    /// Returns the last report, and the app's process id.
    fn run(&self, backend: &str) -> (Value, u32) {
        let mut app = app();
        let test = std::env::current_exe().unwrap();
        let app_pid = app.pid(&test);
        app.wait_for("ready");
        // These containers have the host's network, where the port may be in use.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut args: Vec<_> = self
            .args
            .iter()
            .map(|arg| arg.replace(PORT, &format!(":{port}")))
            .collect();
        assert_ne!(args, self.args);
        args.extend(["--hooks", backend].map(str::to_owned));
        let beside = (!self.host_pid).then_some(app_pid);
        count_start();
        let mut container = self.start(&args, &self.capabilities(), beside);
        let pid = sidecar::wait_until_watching(&mut container, Path::new("/mmwatch"));
        until("readiness", || get(port, "/readyz"));
        app.tell();
        app.wait_for("done");
        let report = until("the app's sums", || {
            let text = get(port, "/api/v1/processes")?;
            let report: Value = serde_json::from_str(&text).unwrap();
            let processes = report["processes"].as_array().unwrap();
            let app = processes.iter().find(|process| process["pid"] == app_pid)?;
            (app["total"]["ops"]["map"]["count"].as_u64() >= Some(sidecar::APP_MAPS))
                .then_some(report)
        });
        assert!(get(port, "/metrics").unwrap().ends_with("# EOF\n"));
        interrupt_pid(pid);
        let output = container.end();
        assert_good_end(&["agent"], &output);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("confined, with"), "{said}");
        assert!(!said.contains("does not balance"), "{said}");
        assert!(app.end().status.success());
        (report, app_pid)
    }
}

/// Where the manifests have mmwatch listen.
const PORT: &str = ":9464";

/// What is answered, if that is fine.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let text = std::io::read_to_string(stream).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}

/// Asks again until there is something.
#[track_caller]
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// The directories of the host that a container sees where they are on the host.
fn mounts(pod: &Value, container: &Value) -> Vec<String> {
    let volumes = pod["volumes"].as_array();
    let mounts = container["volumeMounts"].as_array();
    let mounts = mounts.into_iter().flatten();
    mounts
        .map(|mount| {
            let volume = volumes
                .unwrap()
                .iter()
                .find(|volume| volume["name"] == mount["name"]);
            assert_eq!(volume.unwrap()["hostPath"]["path"], mount["mountPath"]);
            assert_eq!(mount["readOnly"], true);
            mount["mountPath"].as_str().unwrap().to_owned()
        })
        .collect()
}

/// With the privileges of the DaemonSet mmwatch tells of other pods.
pub fn the_daemon_set_s_privileges_are_enough(backend: &str) {
    let (report, pid) = Manifest::read(DAEMONSET).run(backend);
    let processes = report["processes"].as_array().unwrap();
    let app = processes.iter().find(|process| process["pid"] == pid);
    let app = app.unwrap_or_else(|| panic!("no {pid}: {processes:#?}"));
    assert_eq!(app["container"], APP, "{app:#}");
    assert_eq!(app["pod_uid"], POD, "{app:#}");
    let path = format!("/kubepods/pod{POD}/{APP}");
    assert_eq!(app["cgroup"], path.as_str(), "{app:#}");
    // The list of processes has it.
    assert!(app["vmas"].as_u64() > Some(0), "{app:#}");
}

/// With those of the sidecar it tells of its own pod, and of nothing else.
pub fn the_sidecar_s_privileges_are_enough(backend: &str) {
    let (report, pid) = Manifest::read(SIDECAR).run(backend);
    let processes = report["processes"].as_array().unwrap();
    let app = processes.iter().find(|process| process["pid"] == pid);
    let app = app.unwrap_or_else(|| panic!("no {pid}: {processes:#?}"));
    assert_eq!(
        (&app["container"], &app["ns_pid"]),
        (&APP.into(), &1.into())
    );
    assert!(app["vmas"].as_u64() > Some(0), "{app:#}");
    for process in processes {
        assert_eq!(process["pod_uid"], POD, "{process:#}");
    }
}

/// Without any one of its capabilities it says what it lacks.
pub fn each_capability_is_needed(backend: &str) {
    let manifest = Manifest::read(DAEMONSET);
    let check = ["check", "--hooks", backend].map(str::to_owned);
    let output = manifest.start(&check, &manifest.capabilities(), None).end();
    assert_good_end(&["check"], &output);
    for without in &manifest.capabilities {
        let mut left = manifest.capabilities();
        left.retain(|name| name != without);
        let output = manifest.start(&check, &left, None).end();
        assert_eq!(output.status.code(), Some(3), "{without}: {output:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(without), "{without}: {error}");
    }
}

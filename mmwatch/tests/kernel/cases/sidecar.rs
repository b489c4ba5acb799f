//! mmwatch in a container beside others.

use std::{path::Path, process::Command, thread, time::Duration};

use crate::{
    container::{Container, Files, Pids, Spec},
    run::{Trace, count_start, interrupt_pid, program, take_apart, watches, workload},
};

pub const POD: &str = "11111111-2222-3333-4444-555555555555";
const OTHER_POD: &str = "66666666-7777-8888-9999-000000000000";

/// Ids of the containers.
pub const APP: &str = "mmwatch-test-app";
const SIDECAR: &str = "mmwatch-test-sidecar";
const FOREIGN: &str = "mmwatch-test-foreign";

/// What the containers map: lengths that nothing else has.
const APP_LEN: u64 = 0x77_3000;
pub const APP_MAPS: u64 = 500;
const FOREIGN_LEN: u64 = 0x77_4000;
/// Each is two events.
const FOREIGN_PAIRS: u64 = 50_000;

/// Those with which mmwatch watches, at least.
const CAPABILITIES: [&str; 2] = ["CAP_BPF", "CAP_PERFMON"];

/// mmwatch in a container of the pod.
struct Sidecar {
    container: Container,
    pid: u32,
}

impl Sidecar {
    fn start(backend: &str, args: &[&str], joins: Option<u32>) -> Self {
        count_start();
        let program = program();
        let mut command = vec![program.to_str().unwrap().to_owned()];
        command.extend(["trace", "-o", "json", "--hooks", backend].map(str::to_owned));
        command.extend(args.iter().map(|&arg| arg.to_owned()));
        let mut container = Container::start(&Spec {
            id: SIDECAR,
            pod: POD,
            command: &command,
            capabilities: &CAPABILITIES,
            pids: joins.map_or(Pids::Own, Pids::Of),
            files: Files::Host,
            seccomp: None,
        });
        let pid = wait_until_watching(&mut container, &program);
        Self { container, pid }
    }

    fn end(self) -> Trace {
        interrupt_pid(self.pid);
        take_apart(&self.container.end())
    }
}

/// The id of mmwatch in a container, once it watches.
pub fn wait_until_watching(container: &mut Container, program: &Path) -> u32 {
    let pid = container.pid(program);
    while watches(pid) != Some(true) {
        container.assert_runs();
        thread::sleep(Duration::from_millis(10));
    }
    pid
}

/// The test itself as a container's program.
fn start(id: &str, pod: &str, args: &[&str]) -> Container {
    Container::start(&Spec {
        id,
        pod,
        command: &workload(args),
        capabilities: &[],
        pids: Pids::Own,
        files: Files::Host,
        seccomp: None,
    })
}

/// A container that maps when it is told.
pub fn app() -> Container {
    let (count, len) = (APP_MAPS.to_string(), APP_LEN.to_string());
    start(APP, POD, &["maps-when-told", &count, &len])
}

/// Does much that is none of a sidecar's business, in another pod and on the host.
fn others() {
    let (pairs, len) = (FOREIGN_PAIRS.to_string(), FOREIGN_LEN.to_string());
    let foreign = start(FOREIGN, OTHER_POD, &["storm", &pairs, &len]).end();
    assert!(foreign.status.success(), "{foreign:?}");
    let on_host = workload(&["maps", "50", &len]);
    let status = Command::new(&on_host[0]).args(&on_host[1..]).status();
    assert!(status.unwrap().success());
}

/// All of the app's mappings are there, and nothing of anybody else's but the sidecar's
/// own container.
fn assert_pod_alone(trace: &Trace, app_pid: u32) {
    trace.assert_whole();
    for event in &trace.events {
        assert_eq!(event["container"], APP, "{event} {}", trace.stderr);
        assert_eq!(event["ns_pid"], 1, "{event}");
        assert_eq!(event["pid"], app_pid, "{event}");
    }
    let maps = trace
        .of("map")
        .filter(|event| event["requested_len_bytes"] == APP_LEN);
    assert_eq!(maps.count() as u64, APP_MAPS);
}

/// With a pid namespace of its own it goes by the pod's cgroup.
pub fn a_sidecar_sees_its_pod_and_nothing_else(backend: &str) {
    let mut app = app();
    let test = std::env::current_exe().unwrap();
    let pid = app.pid(&test);
    app.wait_for("ready");
    let sidecar = Sidecar::start(backend, &[], None);
    others();
    app.tell();
    app.wait_for("done");
    let trace = sidecar.end();
    assert!(app.end().status.success());
    assert_pod_alone(&trace, pid);
    // Those of the other pod alone are 100,000, and none crossed.
    assert!(
        trace.counter("filtered") >= 2 * FOREIGN_PAIRS,
        "{}",
        trace.ledger
    );
}

/// With the app's pid namespace it goes by that, and process 1 is the app.
pub fn a_sidecar_sees_the_pid_namespace_that_it_shares(backend: &str) {
    for args in [&[][..], &["-p", "1"], &["--scope", "host", "--pidns", "1"]] {
        let mut app = app();
        let test = std::env::current_exe().unwrap();
        let pid = app.pid(Path::new(&test));
        app.wait_for("ready");
        let sidecar = Sidecar::start(backend, args, Some(pid));
        if args.is_empty() {
            others();
        }
        app.tell();
        app.wait_for("done");
        let trace = sidecar.end();
        assert!(app.end().status.success());
        assert_pod_alone(&trace, pid);
    }
}

//! `mmwatch agent` on each kernel: that it sees once it has given up what it may.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::run::{temporary, watcher};

/// After so long nothing comes any more, on an emulated machine too.
const PATIENCE: Duration = Duration::from_secs(120);

/// Capability numbers (`include/uapi/linux/capability.h`).
const SYS_PTRACE: u64 = 1 << 19;
const BPF: u64 = 1 << 39;

struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    fn start(backend: &str) -> Self {
        let socket = temporary("socket");
        let listen = format!("unix:{}", socket.display());
        let child = watcher()
            .args(["agent", "--interval", "200ms", "--hooks", backend])
            .args(["--listen", &listen])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let daemon = Self { child, socket };
        let end = Instant::now() + PATIENCE;
        while daemon
            .get("/readyz")
            .is_none_or(|answer| !answer.contains(" 200 "))
        {
            assert!(
                Instant::now() < end,
                "not ready: {:?}",
                daemon.get("/readyz")
            );
            thread::sleep(Duration::from_millis(100));
        }
        daemon
    }

    fn ask(&self, path: &str) -> Option<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        Some(stream)
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut text = String::new();
        self.ask(path)?.read_to_string(&mut text).ok()?;
        Some(text)
    }

    fn end(mut self) -> String {
        // SAFETY: a plain system call, of a child that is not reaped yet.
        let result = unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        assert_eq!(result, 0);
        let output = self.child.stderr.take().unwrap();
        let said = std::io::read_to_string(output).unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }
}

/// The accounts of a process's threads.
fn threads(process: &Path) -> Vec<String> {
    let tasks = fs::read_dir(process.join("task")).unwrap();
    tasks
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok())
        .collect()
}

fn value<'a>(status: &'a str, name: &str) -> &'a str {
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap().trim()
}

pub fn a_confined_agent_sees(backend: &str) {
    let daemon = Daemon::start(backend);
    for status in threads(Path::new(&format!("/proc/{}", daemon.child.id()))) {
        assert_eq!(value(&status, "NoNewPrivs"), "1");
        assert_eq!(value(&status, "Seccomp"), "2");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let has = u64::from_str_radix(value(&status, set), 16).unwrap();
            assert_eq!(has & !(SYS_PTRACE | BPF), 0, "{set}");
        }
    }

    // From the kernel's events on.
    let mut events = BufReader::new(daemon.ask("/api/v1/events?op=exec&comm=true").unwrap());
    let mut line = String::new();
    while line.trim_end() != "event: begin" {
        line.clear();
        assert_ne!(events.read_line(&mut line).unwrap(), 0);
    }
    Command::new("/bin/true").status().unwrap();
    let event: Value = loop {
        line.clear();
        assert_ne!(events.read_line(&mut line).unwrap(), 0);
        if let Some(data) = line.strip_prefix("data: ") {
            let data: Value = serde_json::from_str(data).unwrap();
            if data["type"] == "event" {
                break data;
            }
        }
    };
    assert_eq!(
        (&event["op"], &event["comm"]),
        (&"exec".into(), &"true".into())
    );

    let own = format!("/api/v1/maps/{}", std::process::id());
    assert!(daemon.get(&own).unwrap().contains("\"type\":\"maps\""));
    let metrics = daemon.get("/metrics").unwrap();
    assert!(metrics.contains("mmwatch_ready 1"), "{metrics}");
    let said = daemon.end();
    assert!(said.contains("confined, with"), "{said}");
    assert!(!said.contains("does not balance"), "{said}");
}

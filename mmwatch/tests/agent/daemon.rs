//! An agent under test, and how to ask it.

use std::{
    env, fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// After so long nothing comes any more.
const PATIENCE: Duration = Duration::from_secs(90);

pub fn mmwatch() -> Command {
    let path = env::var_os("MMWATCH_BIN");
    Command::new(path.unwrap_or_else(|| env!("CARGO_BIN_EXE_mmwatch").into()))
}

/// Asks again until there is something.
#[track_caller]
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// A directory that is gone afterwards.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mmwatch-agent-{}-{number}", std::process::id());
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An address that nobody listens on.
pub fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    /// What must be JSON, and fine.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Asks with these headers; `None` where nobody answers.
pub fn ask(stream: impl Read + Write, path: &str, headers: &str) -> Option<Answer> {
    let mut stream = stream;
    // 1.0, so that the answer is in one piece and ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\n{headers}\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some(Answer {
        status: head.split(' ').nth(1)?.parse().ok()?,
        body: body.to_owned(),
    })
}

/// The same of an address.
pub fn get(address: &str, path: &str) -> Option<Answer> {
    let stream = TcpStream::connect(address).ok()?;
    ask(stream, path, &format!("Host: {address}\r\n"))
}

pub struct Daemon {
    pub address: String,
    child: Option<Child>,
}

impl Daemon {
    /// Starts an agent on an address of its own, with these options.
    pub fn start(args: &[&str]) -> Self {
        let address = free_address();
        let args = [args, &["--listen", &address]].concat();
        Self::spawn(&args, address.clone(), &[])
    }

    pub fn spawn(args: &[&str], address: String, env: &[(&str, &Path)]) -> Self {
        let child = mmwatch()
            .arg("agent")
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            address,
            child: Some(child),
        }
    }

    /// An agent that sees.
    pub fn ready(args: &[&str]) -> Self {
        let daemon = Self::start(args);
        daemon.wait_until_ready();
        daemon
    }

    pub fn wait_until_ready(&self) {
        until("readiness", || {
            get(&self.address, "/readyz").filter(|answer| answer.status == 200)
        });
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        get(&self.address, path).expect("an answer")
    }

    pub fn signal(&self, signal: i32) {
        let pid = self.child.as_ref().unwrap().id();
        // SAFETY: a plain system call; the child is not reaped yet, so the id is its own.
        assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
    }

    /// Asks it to end, and returns what it said.
    pub fn end(mut self) -> Output {
        self.signal(libc::SIGTERM);
        self.child.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

//! An agent under test, and how to ask it.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
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
    child: Child,
    /// What it said, as far as it was read.
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts an agent on an address of its own, with these options.
    pub fn start(args: &[&str]) -> Self {
        let address = free_address();
        let args = [args, &["--listen", &address]].concat();
        Self::spawn(&args, address.clone(), &[])
    }

    pub fn spawn(args: &[&str], address: String, env: &[(&str, &Path)]) -> Self {
        let mut command = mmwatch();
        command.arg("agent").args(args).envs(env.iter().copied());
        Self::of(&mut command, address)
    }

    /// One that is started by this command.
    pub fn of(command: &mut Command, address: String) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, to) = (BufReader::new(child.stderr.take().unwrap()), log.clone());
        let reader = thread::spawn(move || {
            for line in lines.lines() {
                let line = line.unwrap();
                eprintln!("{line}");
                *to.lock().unwrap() += &(line + "\n");
            }
        });
        Self {
            address,
            child,
            log,
            reader: Some(reader),
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
        // SAFETY: a plain system call; the child is not reaped yet, so the id is its own.
        let result = unsafe { libc::kill(self.child.id() as i32, signal) };
        assert_eq!(result, 0);
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it says something.
    #[track_caller]
    pub fn wait_until_said(&self, what: &str) {
        until(what, || {
            self.log.lock().unwrap().contains(what).then_some(())
        });
    }

    /// Asks it to end well, and returns all that it said.
    #[track_caller]
    pub fn end(mut self) -> String {
        self.signal(libc::SIGTERM);
        let status = self.child.wait().unwrap();
        // Its canary had the same output, and ends with it.
        self.reader.take().unwrap().join().unwrap();
        let said = self.log.lock().unwrap().clone();
        assert!(status.success(), "{status}: {said}");
        said
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! Containers by runc, as Kubernetes has it make them: a cgroup below the pod's,
//! namespaces of their own, few capabilities, a root that cannot be written.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use object::{
    Endianness,
    elf::{FileHeader64, PT_INTERP},
    read::elf::{FileHeader as _, ProgramHeader as _},
};
use serde_json::{Value, json};

use crate::run::{program, temporary};

/// What of the host's files containers see.
const HOST: [&str; 5] = ["/bin", "/lib", "/lib64", "/usr", "/etc"];

/// What is asked of a container.
pub struct Spec<'a> {
    /// Its id.
    pub id: &'a str,
    /// The uid of its pod.
    pub pod: &'a str,
    /// What it runs.
    pub command: &'a [String],
    /// Its capabilities.
    pub capabilities: &'a [&'a str],
    /// Its pid namespace.
    pub pids: Pids,
    /// Its files.
    pub files: Files<'a>,
    /// The system calls that it may make, as the specification has it; `None` for all.
    pub seccomp: Option<Value>,
}

/// A container's pid namespace.
#[derive(Clone, Copy)]
pub enum Pids {
    /// Its own.
    Own,
    /// That of this process.
    Of(u32),
    /// The host's.
    Host,
}

/// A container's files.
#[derive(Clone, Copy)]
pub enum Files<'a> {
    /// The host's programs.
    Host,
    /// What mmwatch's image has, and these directories of the host.
    Image(&'a [&'a str]),
}

/// A container that runs.
pub struct Container {
    id: String,
    runc: Child,
    bundle: Bundle,
}

/// The directory of a container. It goes with the value, and with it the cgroups.
struct Bundle {
    path: PathBuf,
    /// The pod's cgroup, in all hierarchies.
    cgroup: String,
}

fn runc(command: &str) -> Command {
    let mut runc = Command::new("runc");
    runc.arg(command);
    runc
}

impl Container {
    /// Starts one; its first process may not run yet.
    pub fn start(spec: &Spec<'_>) -> Self {
        let bundle = Bundle::make(spec);
        let child = runc("run")
            // A VM's root cannot be exchanged.
            .args(["--no-pivot", "--bundle"])
            .arg(&bundle.path)
            .arg(spec.id)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runc is there: `cargo xtask setup` installs it");
        Self {
            id: spec.id.to_owned(),
            runc: child,
            bundle,
        }
    }

    /// The id in this test's namespace of its first process, once that runs `program`.
    pub fn pid(&mut self, program: &Path) -> u32 {
        loop {
            self.assert_runs();
            let state = runc("state").arg(&self.id).output().unwrap();
            let state: Value = serde_json::from_slice(&state.stdout).unwrap_or_default();
            let pid = state["pid"].as_u64().unwrap_or(0) as u32;
            let exe = fs::read_link(format!("/proc/{pid}/exe"));
            if pid != 0 && exe.is_ok_and(|exe| exe.file_name() == program.file_name()) {
                assert_eq!(state["id"], self.id.as_str(), "the runtime's own id");
                return pid;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Fails with its last words if it has ended.
    pub fn assert_runs(&mut self) {
        if let Some(status) = self.runc.try_wait().unwrap() {
            let mut text = String::new();
            let mut stderr = self.runc.stderr.take().unwrap();
            stderr.read_to_string(&mut text).unwrap();
            panic!("{} ended ({status}): {text}", self.id);
        }
    }

    /// Waits for a line of its output.
    pub fn wait_for(&mut self, word: &str) {
        // Byte by byte: what comes after the line is for whoever reads next.
        let out = self.runc.stdout.as_mut().unwrap();
        let mut line = Vec::new();
        let mut byte = [0];
        while out.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        assert_eq!(String::from_utf8_lossy(&line), word);
    }

    /// Sends it a byte.
    pub fn tell(&mut self) {
        self.runc.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    }

    /// Waits for its end; it has no more input.
    pub fn end(mut self) -> Output {
        drop(self.runc.stdin.take());
        let output = self.runc.wait_with_output().unwrap();
        drop(self.bundle);
        output
    }
}

impl Bundle {
    fn make(spec: &Spec<'_>) -> Self {
        let path = temporary(spec.id);
        let cgroup = format!("/kubepods/pod{}", spec.pod);
        fs::create_dir_all(path.join("rootfs")).unwrap();
        let config = config(spec, &format!("{cgroup}/{}", spec.id));
        fs::write(path.join("config.json"), config.to_string()).unwrap();
        Self { path, cgroup }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        // runc removes the container's and leaves the pod's, which goes with the last one.
        let Ok(own) = fs::read_dir("/sys/fs/cgroup") else {
            return;
        };
        let mounts = own.flatten().map(|entry| entry.path());
        for mount in mounts.chain([PathBuf::from("/sys/fs/cgroup")]) {
            let _ = fs::remove_dir(format!("{}{}", mount.display(), self.cgroup));
            let _ = fs::remove_dir(mount.join("kubepods"));
        }
    }
}

/// The container's `config.json`, by the OCI runtime specification 1.0.
fn config(spec: &Spec<'_>, cgroup: &str) -> Value {
    let mut namespaces = vec![
        json!({"type": "mount"}),
        json!({"type": "ipc"}),
        json!({"type": "uts"}),
    ];
    // Where cgroups are v1, as Docker and Kubernetes have it: none of their own.
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        namespaces.push(json!({"type": "cgroup"}));
    }
    match spec.pids {
        Pids::Own => namespaces.push(json!({"type": "pid"})),
        Pids::Of(pid) => {
            namespaces.push(json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")}));
        }
        Pids::Host => {}
    }
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
               "options": ["nosuid", "mode=755"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
               "options": ["ro", "nosuid", "nodev", "noexec"]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
               "options": ["ro", "nosuid", "nodev", "noexec"]}),
    ];
    let files = match spec.files {
        Files::Host => programs(),
        Files::Image(dirs) => image(dirs),
    };
    // As Kubernetes has it: what is asked for is in the place of what is always there.
    mounts.retain(|mount| {
        let is_same = |file: &Value| file["destination"] == mount["destination"];
        !files.iter().any(is_same)
    });
    mounts.extend(files);
    let capabilities = spec.capabilities;
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": spec.command,
            "cwd": "/",
            "env": ["PATH=/bin:/usr/bin"],
            "noNewPrivileges": true,
            "rlimits": rlimits(),
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": spec.id,
        "mounts": mounts,
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": namespaces,
            "seccomp": spec.seccomp,
        },
    })
}

/// As with `docker run --ulimit memlock=-1`, which before 5.11 maps need: unless not even the
/// host may lock more.
fn rlimits() -> Value {
    const SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(effective.unwrap().trim(), 16).unwrap();
    if effective & 1 << SYS_RESOURCE == 0 {
        return json!([]);
    }
    json!([{"type": "RLIMIT_MEMLOCK", "soft": u64::MAX, "hard": u64::MAX}])
}

/// A file or directory of the host's, which cannot be written.
fn bound(source: &Path, destination: &Path) -> Value {
    json!({"destination": destination, "type": "bind", "source": source,
           "options": ["rbind", "ro"]})
}

/// The host's programs, and those under test, which may be anywhere.
fn programs() -> Vec<Value> {
    let own = env::current_exe().unwrap();
    let mmwatch = program();
    let dirs = [own.parent(), mmwatch.parent()];
    let dirs = dirs.into_iter().flatten().map(Path::to_path_buf);
    let mut seen = Vec::new();
    for dir in HOST.iter().map(PathBuf::from).chain(dirs) {
        if dir.is_dir() && dir.is_absolute() && !seen.contains(&dir) {
            seen.push(dir);
        }
    }
    seen.iter().map(|dir| bound(dir, dir)).collect()
}

/// mmwatch, as its image has it, and directories of the host, those that there are. An
/// executable that is not static, as the image's is, has its libraries beside it.
fn image(dirs: &[&str]) -> Vec<Value> {
    let mmwatch = program();
    let libraries: &[&str] = if is_static(&mmwatch) {
        &[]
    } else {
        &["/lib", "/lib64"]
    };
    let mut mounts = vec![bound(&mmwatch, Path::new("/mmwatch"))];
    let dirs = libraries.iter().chain(dirs).map(Path::new);
    mounts.extend(dirs.filter(|dir| dir.is_dir()).map(|dir| bound(dir, dir)));
    mounts
}

/// Whether a program needs no other file to run: it names no interpreter.
fn is_static(program: &Path) -> bool {
    let bytes = fs::read(program).unwrap();
    let header = FileHeader64::<Endianness>::parse(&*bytes).unwrap();
    let endian = header.endian().unwrap();
    let segments = header.program_headers(endian, &*bytes).unwrap();
    segments
        .iter()
        .all(|segment| segment.p_type(endian) != PT_INTERP)
}

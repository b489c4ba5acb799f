//! Starts a command that waits before exec until mmwatch watches it.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{self, PipeReader, PipeWriter, Read as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::{
            fs::PermissionsExt as _,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    path::Path,
    process::{Command, ExitStatus},
    thread::{self, JoinHandle},
};

use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// A command that exists as a process, and does not run yet.
///
/// Dropping it ends the process: it never becomes the command.
#[derive(Debug)]
pub struct Held {
    pid: u32,
    pidfd: OwnedFd,
    /// A byte lets the process go on, the end of the pipe ends it.
    release: Option<PipeWriter>,
    ended: Option<oneshot::Receiver<io::Result<ExitStatus>>>,
    /// Waits for the process: `spawn` itself returns no sooner than exec.
    waiter: Option<JoinHandle<()>>,
    name: OsString,
}

/// Starts `command` up to, not including, its exec.
pub fn hold(command: &[OsString]) -> Result<Held> {
    let (name, arguments) = command
        .split_first()
        .ok_or_else(|| Error::Usage("there is no command after --".into()))?;
    let broken = || format!("starting {}", name.display());
    let (mut pid_in, pid_out) = io::pipe().map_err(Error::io(broken()))?;
    let (release_in, release_out) = io::pipe().map_err(Error::io(broken()))?;

    let mut command = Command::new(name);
    command.args(arguments);
    let release_out_fd = release_out.as_raw_fd();
    // SAFETY: between fork and exec the closure makes nothing but calls that
    // are async-signal-safe (getpid, write, close, read) and does not allocate.
    unsafe {
        command.pre_exec(move || wait_for_release(&pid_out, release_out_fd, &release_in));
    }

    let (tell, ended) = oneshot::channel();
    let waiter = thread::Builder::new()
        .name("command".into())
        .spawn(move || {
            let spawned = command.spawn();
            // Closes this side's ends of the pipes.
            drop(command);
            // Nobody to tell: mmwatch failed and is about to exit.
            let _ = tell.send(spawned.and_then(|mut child| child.wait()));
        })
        .map_err(Error::io(broken()))?;

    let mut pid = [0; 4];
    if pid_in.read_exact(&mut pid).is_err() {
        // Fork itself failed, and the waiter knows why.
        let source = match ended.blocking_recv() {
            Ok(Err(source)) => source,
            Ok(Ok(_)) | Err(_) => io::ErrorKind::Other.into(),
        };
        return Err(Error::io(broken())(source));
    }
    let pid = u32::from_ne_bytes(pid);
    let pidfd = pidfd_open(pid).map_err(Error::io(broken()))?;
    Ok(Held {
        pid,
        pidfd,
        release: Some(release_out),
        ended: Some(ended),
        waiter: Some(waiter),
        name: name.clone(),
    })
}

/// Runs in the child.
fn wait_for_release(
    pid_out: &PipeWriter,
    release_out: RawFd,
    release_in: &PipeReader,
) -> io::Result<()> {
    // SAFETY: the descriptors are this process's copies, open until exec; the
    // buffers are locals of the given lengths. The child's own copy of the
    // release pipe's writing end has to go, or its end would never be seen.
    unsafe {
        let pid = libc::getpid().to_ne_bytes();
        if libc::write(pid_out.as_raw_fd(), pid.as_ptr().cast(), pid.len()) != 4 {
            return Err(io::Error::last_os_error());
        }
        libc::close(release_out);
        let mut byte = 0_u8;
        loop {
            match libc::read(release_in.as_raw_fd(), (&raw mut byte).cast(), 1) {
                1 => return Ok(()),
                -1 if *libc::__errno_location() == libc::EINTR => {}
                _ => return Err(io::Error::from_raw_os_error(libc::ECANCELED)),
            }
        }
    }
}

impl Held {
    /// Its process id.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it become the command.
    pub fn release(mut self) -> Result<Running> {
        use io::Write as _;
        let released = self.release.take().map(|mut pipe| pipe.write_all(&[1]));
        let (Some(Ok(())), Some(ended)) = (released, self.ended.take()) else {
            return Err(Error::Command {
                message: format!("{} ended before it was started", self.name.display()),
                code: 126,
            });
        };
        // From here on it ends when it wants to, not with mmwatch.
        self.waiter = None;
        Ok(Running {
            pidfd: self
                .pidfd
                .try_clone()
                .map_err(Error::io("starting the command"))?,
            ended: Some(ended),
            name: self.name.clone(),
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The child sees the end of the pipe and exits; the waiter reaps it.
        self.release = None;
        if let Some(waiter) = self.waiter.take() {
            let _ = waiter.join();
        }
    }
}

/// A command that runs.
#[derive(Debug)]
pub struct Running {
    pidfd: OwnedFd,
    /// `None` once it was waited for.
    ended: Option<oneshot::Receiver<io::Result<ExitStatus>>>,
    name: OsString,
}

impl Running {
    /// Waits for its end and returns the exit code that a shell would show.
    /// Cancelling it loses nothing; after it returned, it has no more to say.
    pub async fn ended(&mut self) -> Result<u8> {
        let result = match &mut self.ended {
            Some(ended) => ended.await,
            None => return Err(lost_command()),
        };
        self.ended = None;
        match result {
            Ok(Ok(status)) => Ok(exit_code(status)),
            Ok(Err(error)) => Err(cannot_run(&self.name, &error)),
            Err(_) => Err(lost_command()),
        }
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        // SAFETY: the descriptor is open, the other arguments are numbers and
        // a null pointer, which the call allows. That the process may have
        // ended already is no error.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                libc::SIGTERM,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            );
        }
    }
}

/// A descriptor that names the process even when its id is another's.
fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match RawFd::try_from(fd) {
        // SAFETY: the call just made it for nobody else.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn lost_command() -> Error {
    Error::io("waiting for the command")(io::ErrorKind::Other.into())
}

fn cannot_run(name: &OsStr, error: &io::Error) -> Error {
    let code = if error.kind() == io::ErrorKind::NotFound {
        127
    } else {
        126
    };
    Error::Command {
        message: format!("cannot run {}: {error}", name.display()),
        code,
    }
}

/// Says early, before anything is attached, that a command cannot be started.
pub fn check(name: &OsStr) -> Result<()> {
    if name.as_encoded_bytes().contains(&b'/') {
        return executable(Path::new(name)).map_err(|error| cannot_run(name, &error));
    }
    // What execvp searches when there is no PATH.
    let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let mut denied = None;
    for directory in env::split_paths(&path) {
        match executable(&directory.join(name)) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied = Some(error),
            Err(_) => {}
        }
    }
    Err(match denied {
        Some(error) => cannot_run(name, &error),
        None => Error::Command {
            message: format!(
                "cannot run {}: there is no such command; give its path, or correct PATH",
                name.display()
            ),
            code: 127,
        },
    })
}

fn executable(path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
        Ok(())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Vec<OsString> {
        ["sh", "-c", script].map(OsString::from).to_vec()
    }

    fn end(held: Held) -> Result<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async { held.release().unwrap().ended().await })
    }

    #[test]
    fn a_held_command_is_not_the_command_yet() {
        let held = hold(&sh("exit 7")).unwrap();
        let program = |pid| fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert_eq!(program(held.pid()), program(std::process::id()));
        assert_eq!(end(held).unwrap(), 7);
    }

    #[test]
    fn a_signal_is_128_and_its_number() {
        assert_eq!(end(hold(&sh("kill -9 $$")).unwrap()).unwrap(), 137);
    }

    #[test]
    fn a_dropped_command_never_runs_and_is_reaped() {
        let held = hold(&sh("exit 0")).unwrap();
        let path = format!("/proc/{}", held.pid());
        assert!(Path::new(&path).exists());
        drop(held);
        assert!(!Path::new(&path).exists());
    }

    #[test]
    fn a_failing_exec_is_reported() {
        let held = hold(&["/nonexistent/command".into()]).unwrap();
        let error = end(held).unwrap_err();
        assert_eq!(error.exit_code(), 127);
        let held = hold(&["/dev/null".into()]).unwrap();
        assert_eq!(end(held).unwrap_err().exit_code(), 126);
    }

    #[test]
    fn a_running_command_can_be_ended() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut running = hold(&sh("exec sleep 1000")).unwrap().release().unwrap();
            running.terminate();
            assert_eq!(running.ended().await.unwrap(), 128 + 15);
        });
    }

    #[test]
    fn commands_are_checked_before_anything_starts() {
        check(OsStr::new("sh")).unwrap();
        check(OsStr::new("/bin/sh")).unwrap();
        let code = |name: &str| check(OsStr::new(name)).unwrap_err().exit_code();
        assert_eq!(code("no-such-command-here"), 127);
        assert_eq!(code("/no/such/command"), 127);
        assert_eq!(code("/etc/passwd"), 126);
        assert_eq!(code("/"), 126);
    }
}

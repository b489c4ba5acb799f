//! One boot of one VM.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{console::Console, tools::Tools};

/// From the verdict to the end of QEMU; the verdict stands whatever happens here.
const POWER_OFF: Duration = Duration::from_secs(20);

/// The console is a serial line. `loglevel=5` lets warnings through, which
/// [`Console`] looks for. An oops ends the VM, and a panic is a reboot, which
/// `-no-reboot` makes an exit. No watchdogs: emulated CPUs stand still whenever
/// the host is busy, and the deadline catches real lockups.
const KERNEL_ARGS: &str = "console=ttyS0 loglevel=5 oops=panic panic=-1 nowatchdog";

/// What the time in a VM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The host's.
    Time,
    /// A nanosecond for every instruction, on one CPU; sleep takes no time at
    /// all. What is measured there depends on nothing but the VM.
    Instructions,
}

/// Boots `kernel` and reads its console to the end, into `log` and, where the
/// command wrote it, to `show`. Without a verdict within `deadline` it ends too.
pub fn boot(
    tools: &Tools,
    kernel: &Path,
    initramfs: &Path,
    log: &Path,
    clock: Clock,
    deadline: Duration,
    show: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Console> {
    let mut log_file =
        File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut qemu = command(tools, kernel, initramfs, clock)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start setpriv, which starts QEMU; install util-linux")?;
    let output = qemu.stdout.take().context("QEMU has no stdout")?;

    // A thread of its own reads, for a pipe's read cannot be given a deadline.
    let (send, lines) = mpsc::sync_channel(64);
    let reader = thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { break };
            if send.send(line).is_err() {
                break;
            }
        }
    });

    let mut console = Console::default();
    let start = Instant::now();
    let mut end = start + deadline;
    let mut follow = || -> Result<()> {
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let line = String::from_utf8_lossy(&line);
                    let line = line.trim_end_matches('\r');
                    let now = start.elapsed();
                    writeln!(log_file, "{:7.1} {line}", now.as_secs_f64())?;
                    let was_over = console.is_over();
                    if let Some(text) = console.line(line, now) {
                        show(text)?;
                    }
                    if console.is_over() && !was_over {
                        end = Instant::now() + POWER_OFF;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {
                    if !console.is_over() {
                        writeln!(
                            log_file,
                            "xtask: no verdict within {} s",
                            deadline.as_secs()
                        )?;
                    }
                    return Ok(());
                }
            }
        }
    };
    let followed = follow();
    // Both fail only where QEMU has ended by itself.
    let _ = qemu.kill();
    let _ = qemu.wait();
    drop(lines);
    let _ = reader.join();
    followed?;
    Ok(console)
}

fn command(tools: &Tools, kernel: &Path, initramfs: &Path, clock: Clock) -> Command {
    // setpriv: no VM outlives us, however we end.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    tools.qemu(&mut command);
    command
        // Emulation, since KVM is not to be had on every machine that tests. One
        // thread for both CPUs: with a thread each, a CPU may run code that the
        // other has just replaced, and attaching programs replaces code all the
        // time, which ends in `Oops: int3` or a CPU that stands still. Without
        // cmpxchg16b: QEMU 7.2 corrupts flags when it emulates that.
        .args(["-accel", "tcg,thread=single", "-cpu", "max,-cx16"])
        .args(["-m", "1G", "-no-reboot"])
        .args([
            "-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none",
        ])
        .args(["-append", KERNEL_ARGS])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(match clock {
            Clock::Time => ["-smp", "2"].as_slice(),
            Clock::Instructions => &["-smp", "1", "-icount", "shift=0,sleep=off"],
        });
    command
}

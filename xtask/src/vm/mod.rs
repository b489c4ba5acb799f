//! `cargo xtask vm`: the kernel tests, or any command, in VMs with other kernels.

pub mod apt;
mod cells;
mod console;
mod counted;
mod initramfs;
mod kernels;
mod matrix;
mod packages;
mod qemu;
mod tools;

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::{build, process, workspace::Workspace};
pub use apt::debian_mirror;
use cells::Wanted;
pub use cells::{CellName, Size, is_cell_of};
use console::{Console, Outcome};
pub use counted::{all_series, counted};
use initramfs::Rootfs;
use kernels::Kernel;
use matrix::Cell;
use qemu::Clock;
use tools::Tools;

/// A VM keeps one of our CPUs busy, since QEMU emulates in a single thread.
const AT_ONCE: usize = 2;

/// Whoever needs longer than this hangs. A boot takes some seconds, the tests five
/// minutes or more: every start of mmwatch waits for the kernel's verifier, which is
/// slow where no instruction runs as it is.
const DEADLINE_S: u64 = 1_800;

/// What is asked of the VMs.
#[derive(Default, clap::Args)]
pub struct Options {
    /// Kernel series, such as 6.12 (may be repeated); any that Debian has
    #[arg(long, value_name = "K", value_parser = kernels::parse_series)]
    kernel: Vec<String>,
    /// Backend to test (may be repeated) [default: each]
    #[arg(long, value_name = "B", conflicts_with = "command")]
    hooks: Vec<Hooks>,
    /// All kernels, not the standard ones alone
    #[arg(long, conflicts_with = "kernel")]
    all: bool,
    /// Build nothing: a VM with busybox alone, to look at a kernel
    #[arg(long, requires = "command", conflicts_with = "hooks")]
    bare: bool,
    /// Also put FILE, a static executable, into the VM's /bin (may be repeated)
    #[arg(long, value_name = "FILE", requires = "command")]
    add: Vec<PathBuf>,
    /// Seconds after which a VM has failed [default: 1800]
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<u64>,
    /// Command to run instead of the tests; a single word is a line for the shell
    #[arg(last = true)]
    command: Vec<String>,
}

/// A way to hook into the kernel that is tested by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Hooks {
    Fentry,
    Kprobe,
    Tracepoint,
}

impl Hooks {
    /// As `--hooks` and the kernel tests call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// Runs the tests, or the command if there is one.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let series = if !options.kernel.is_empty() {
        options.kernel.clone()
    } else if options.all {
        kernels::all()
    } else if options.command.is_empty() {
        kernels::STANDARD.map(str::to_owned).to_vec()
    } else {
        kernels::STANDARD
            .last()
            .map(|newest| (*newest).to_owned())
            .into_iter()
            .collect()
    };
    let mut programs = Vec::new();
    if !options.bare {
        programs = test_programs(workspace)?;
    }
    for file in &options.add {
        let name = file
            .file_name()
            .with_context(|| format!("{} is not a file", file.display()))?;
        programs.push((name.to_string_lossy().into_owned(), file.clone()));
    }
    let deadline = Duration::from_secs(options.deadline.unwrap_or(DEADLINE_S));
    let lab = Lab::new(workspace, programs, deadline)?;

    if !options.command.is_empty() {
        return lab.command(&series, &shell_line(&options.command));
    }
    let every = Hooks::value_variants();
    let hooks = if options.hooks.is_empty() {
        every
    } else {
        &options.hooks
    };
    let has_passed = lab.test(&cells::product(&series, hooks))?;
    Ok(if has_passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the kernel tests of a size in VMs, from one cell on if that is given.
///
/// # Errors
///
/// A cell failed, which is printed.
pub fn test(workspace: &Workspace, size: &Size, from: Option<&CellName>) -> Result<()> {
    let cells = cells::of_size(*size, from)?;
    let programs = test_programs(workspace)?;
    let lab = Lab::new(workspace, programs, Duration::from_secs(DEADLINE_S))?;
    ensure!(lab.test(&cells)?, "failures are listed above");
    Ok(())
}

/// What tests run in a VM, by the names there.
fn test_programs(workspace: &Workspace) -> Result<Vec<(String, PathBuf)>> {
    let built = build::tests(workspace)?;
    Ok(vec![
        ("mmwatch".to_owned(), built.mmwatch),
        ("kernel-tests".to_owned(), built.kernel),
        ("shared-tests".to_owned(), built.shared),
    ])
}

/// One word is a line for the shell, as in `sh -c`; several are one command.
fn shell_line(command: &[String]) -> String {
    match command {
        [line] => line.clone(),
        words => words
            .iter()
            .map(|word| process::quote(word))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

/// Where VMs are made, and what they are made of.
struct Lab {
    dir: PathBuf,
    rootfs: Rootfs,
    clock: Clock,
    deadline: Duration,
}

impl Lab {
    fn new(
        workspace: &Workspace,
        programs: Vec<(String, PathBuf)>,
        deadline: Duration,
    ) -> Result<Self> {
        let dir = workspace.target().join("vm");
        Ok(Self {
            rootfs: Rootfs::new(Tools::get(&dir)?, programs)?,
            dir,
            clock: Clock::Time,
            deadline,
        })
    }

    /// A VM for each cell, so that a panic takes no others along; whether all have passed.
    fn test(&self, wanted: &[Wanted]) -> Result<bool> {
        let series: Vec<String> = wanted.iter().map(|cell| cell.name.series.clone()).collect();
        let kernels = kernels::get(&self.dir, &series)?;
        let pairs: Vec<(&Wanted, &Kernel)> = wanted.iter().zip(&kernels).collect();
        let mut cells = in_parallel(&pairs, |(wanted, kernel)| self.test_one(wanted, kernel))?;
        cells.sort_by_key(|cell| (kernels::numbers(&cell.kernel), cell.hooks));

        let failures = matrix::failures(&cells);
        print!(
            "\n{}\n{}{failures}",
            matrix::table(&cells),
            matrix::times(&cells)
        );
        Ok(failures.is_empty())
    }

    fn test_one(&self, wanted: &Wanted, kernel: &Kernel) -> Result<Cell> {
        let hooks = wanted.name.hooks;
        let name = wanted.name.to_string();
        // Once a kernel is enough for what knows no backends. With fentry, the agent's
        // own cases take their time already.
        let before = match hooks {
            Hooks::Tracepoint => "shared-tests || exit $?\n",
            Hooks::Fentry | Hooks::Kprobe => "",
        };
        let script = format!(
            "{before}export MMWATCH_TEST_HOOKS={} MMWATCH_TEST_CASES={}\nexec kernel-tests\n",
            hooks.name(),
            wanted.cases.name()
        );
        let console = self.boot(kernel, &name, &script, &mut |_| Ok(()))?;
        let times = console.times().clone();
        let cell = Cell::new(kernel, hooks, console.outcome(), times, self.log(&name));
        let verdict = match &cell.outcome {
            Outcome::Passed(count) => format!("ok, {count} passed"),
            Outcome::NotAvailable(reason) => format!("n/a, {reason}"),
            Outcome::Failed(reason) => format!("FAILED, {reason}"),
        };
        let seconds = (cell.times.boot + cell.times.run).as_secs_f64();
        println!(
            "vm: {} {}: {verdict} ({seconds:.1} s)",
            kernel.version,
            hooks.name()
        );
        Ok(cell)
    }

    /// One VM after the other; the first exit code other than 0 is ours.
    fn command(&self, series: &[String], line: &str) -> Result<ExitCode> {
        let mut exit = 0;
        let kernels = kernels::get(&self.dir, series)?;
        for kernel in &kernels {
            if kernels.len() > 1 {
                eprintln!("vm: Linux {}", kernel.version);
            }
            let name = format!("{}-command", kernel.series);
            let mut show = |line: &str| Ok(writeln!(io::stdout(), "{line}")?);
            let console = self.boot(kernel, &name, &format!("{line}\n"), &mut show)?;
            let code = match console.exit_code() {
                Ok(code) => code,
                Err(reason) => {
                    eprintln!("vm: {reason}; see {}", self.log(&name).display());
                    1
                }
            };
            if exit == 0 {
                exit = code;
            }
        }
        Ok(ExitCode::from(u8::try_from(exit).unwrap_or(1)))
    }

    fn boot(
        &self,
        kernel: &Kernel,
        name: &str,
        script: &str,
        show: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Console> {
        let log = self.log(name);
        let initramfs = self.dir.join(format!("{name}.cpio"));
        if let Some(dir) = log.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        self.rootfs.write(
            &initramfs,
            &format!("export MMWATCH_BIN=/bin/mmwatch\n{script}"),
        )?;
        let (clock, deadline) = (self.clock, self.deadline);
        let console = qemu::boot(
            self.rootfs.tools(),
            &kernel.image,
            &initramfs,
            &log,
            clock,
            deadline,
            show,
        );
        remove(&initramfs)?;
        console
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
}

/// Applies `work` to all items, [`AT_ONCE`] at a time; the results come in the
/// order in which they were ready.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let todo = Mutex::new(items.iter());
    let next = || todo.lock().ok()?.next();
    let worker = || -> Result<Vec<R>> {
        let mut results = Vec::new();
        while let Some(item) = next() {
            results.push(work(item)?);
        }
        Ok(results)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        let mut results = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(some) => results.extend(some?),
                Err(_) => bail!("a thread that runs VMs panicked"),
            }
        }
        Ok(results)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_is_a_line_and_several_are_a_command() {
        let line = |words: &[&str]| {
            shell_line(
                &words
                    .iter()
                    .map(|word| (*word).to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(line(&["uname -a; ls $HOME"]), "uname -a; ls $HOME");
        assert_eq!(line(&["echo", "a b", "$HOME"]), "echo 'a b' '$HOME'");
    }

    #[test]
    fn parallel_work_is_done_once_each_and_errors_come_out() {
        let items: Vec<u32> = (0..20).collect();
        let mut doubled = in_parallel(&items, |n| Ok(n * 2)).unwrap();
        doubled.sort_unstable();
        assert_eq!(doubled, items.iter().map(|n| n * 2).collect::<Vec<_>>());
        let failing = in_parallel(&items, |n| if *n == 7 { bail!("seven") } else { Ok(()) });
        assert_eq!(failing.unwrap_err().to_string(), "seven");
    }
}

//! Sets up, builds, runs and tests mmwatch: `cargo xtask --help`.

mod bench;
mod bpf;
mod build;
mod dist;
mod mutate;
mod process;
mod receivers;
mod run;
mod setup;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Sets up, builds, runs and tests mmwatch
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what tests need
    ///
    /// Finds what is there and installs what is missing: rustup's components, Debian's packages
    /// (which takes root), bpf-linker. It never removes a package. Every other task begins with
    /// the part of it that it needs; building and running need none of it.
    Setup(setup::Options),
    /// Build mmwatch with its kernel programs
    ///
    /// Prints the path of the executable.
    Build(build::Options),
    /// Compile the kernel programs and refresh mmwatch/bpf with them
    ///
    /// The tree holds the compiled programs and a manifest of what they were compiled from, so
    /// that building mmwatch takes no BPF toolchain. After a change of mmwatch-ebpf or
    /// mmwatch-common, a build fails and names this command.
    Bpf(bpf::Options),
    /// Build mmwatch and run it
    ///
    /// Runs through sudo unless run by root, and ends with mmwatch's own exit code:
    ///
    ///   cargo xtask run -- trace -p 1234
    #[command(verbatim_doc_comment)]
    Run(run::Options),
    /// Run the checks and tests, in one of three sizes
    ///
    ///   cargo xtask test --quick   before each commit: 4 minutes
    ///   cargo xtask test           before a change goes in, and what CI runs: 25 minutes
    ///   cargo xtask test --full    before kernel programs are done with: 70 minutes
    ///
    /// The kernel tests are run on this machine's kernel, which takes root, and in VMs on others.
    /// docs/reliability.md lists what is run where. It goes on after a failure, lists all
    /// failures at the end, and prints where the time went. The times are those of two CPUs.
    #[command(visible_alias = "ci", verbatim_doc_comment)]
    Test(test::Options),
    /// Measure what watching costs, against others and against the bars
    ///
    /// Loops of system calls and whole programs, watched and unwatched in turn, by mmwatch, by an
    /// empty program on the same hooks, by bpftrace, perf and strace; the agent's own speed,
    /// memory and losses; instructions in VMs. A quarter of an hour, as root, best with nothing
    /// else running. It installs what it compares with, prints the tables, puts them into
    /// docs/performance.md, and all values into target/bench/bench.json:
    ///
    ///   cargo xtask bench
    ///   cargo xtask bench --only guests --all-kernels
    ///   cargo xtask bench --instructions
    #[command(verbatim_doc_comment)]
    Bench(bench::Options),
    /// Make what users install: a tarball and Debian's package
    ///
    /// The static release build, man pages, completions for bash, zsh and fish, the service, the
    /// configuration and the documentation, in target/dist with SHA256SUMS. The same commit gives
    /// the same bytes. Prints the paths.
    Dist(dist::Options),
    /// Break mmwatch on purpose, one thing at a time, and see that a test notices
    ///
    /// Works on a copy under target/mutants. Each test is run once on what is unbroken and must
    /// pass; then each mutation must make its test fail. Some take a kernel, and so root. What no
    /// test noticed is listed at the end, and the exit code is 1. docs/reliability.md has all of
    /// them.
    Mutate(mutate::Options),
    /// Run the kernel tests, or a command, in VMs with other kernels
    ///
    /// Without a command, each kernel is booted once for each backend, and the kernel tests run in
    /// it, with tracepoint those of `mmwatch shared` before. With one, it is run on each kernel
    /// named (the newest by default), its output is ours and so is its exit code. In the VM are
    /// busybox, `mmwatch`, `kernel-tests` and `shared-tests`:
    ///
    ///   cargo xtask vm --kernel 6.12 --hooks fentry
    ///   cargo xtask vm --kernel 5.10 -- mmwatch check
    ///   cargo xtask vm -- 'MMWATCH_TEST_HOOKS=kprobe kernel-tests fork'
    ///
    /// Kernels are Debian's cloud images, fetched once into target/vm/kernels. Consoles are kept
    /// in target/vm/logs.
    #[command(verbatim_doc_comment)]
    Vm(vm::Options),
}

fn main() -> ExitCode {
    match execute(&Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(task: &Task) -> Result<ExitCode> {
    let workspace = Workspace::new()?;
    match task {
        Task::Setup(options) => {
            setup::run(options)?;
            eprintln!("setup: nothing is missing");
            Ok(ExitCode::SUCCESS)
        }
        Task::Build(options) => build::run(&workspace, options),
        Task::Bpf(options) => bpf::run(&workspace, options),
        Task::Run(options) => run::run(&workspace, options),
        Task::Test(options) => test::run(&workspace, options),
        Task::Bench(options) => bench::run(&workspace, options),
        Task::Dist(options) => dist::run(&workspace, options),
        Task::Mutate(options) => mutate::run(&workspace, options),
        Task::Vm(options) => vm::run(&workspace, options),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_cell_is_of_the_full_size_alone() {
        let parses = |words: &[&str]| {
            let words = ["cargo xtask", "test"].iter().chain(words);
            Cli::try_parse_from(words).is_ok()
        };
        assert!(parses(&["--full", "--from-cell", "6.12-kprobe"]));
        for words in [
            &["--from-cell", "6.12-kprobe"][..],
            &["--quick", "--from-cell", "6.12-kprobe"],
            &["--quick", "--full"],
            &["--full", "--from-cell", "6.12"],
        ] {
            assert!(!parses(words), "{words:?}");
        }
    }
}

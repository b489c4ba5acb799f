//! Tests on a real kernel: mmwatch is started with a program of known mapping
//! calls (this very binary, called as `kernel workload …`), and what it
//! reports is held against what the program did.
//!
//! `MMWATCH_TEST_HOOKS` names one backend; without it, every backend that
//! `mmwatch check` finds is tested. `MMWATCH_TEST_CASES=hooks` leaves out what does not
//! depend on the backend. `MMWATCH_BIN` names the binary to test, where that is
//! not the one cargo built. Needs root. Exit code 77: the named backend cannot
//! be had on this kernel.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod cases;
mod confined;
mod container;
mod run;
mod together;
mod workload;

use std::{env, process::ExitCode};

use libtest_mimic::{Arguments, Trial};

/// Backends, by their names on the command line.
const BACKENDS: [&str; 3] = ["fentry", "kprobe", "tracepoint"];

/// Exit code for a backend that this kernel does not have.
const NOT_AVAILABLE: u8 = 77;

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    if args.next().as_deref() == Some("workload") {
        workload::main(&args.collect::<Vec<_>>());
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();

    let wanted = env::var("MMWATCH_TEST_HOOKS").ok();
    let mut trials = Vec::new();
    // In a VM each backend has a boot of its own; what needs but one backend goes with one.
    let of_boot = |place: usize| {
        wanted
            .as_deref()
            .is_none_or(|wanted| wanted == BACKENDS[place])
    };
    let hooks_only = env::var("MMWATCH_TEST_CASES").is_ok_and(|cases| cases == "hooks");
    let mut agent = of_boot(0) && !hooks_only;
    let mut processes = of_boot(BACKENDS.len() - 1) && !hooks_only;
    if hooks_only {
        println!(
            "left to this machine and to `cargo xtask test --full`: all that is not about hooks"
        );
    }
    // The matrix of VMs names backends.
    let mut local = wanted.is_none();
    if !local {
        for (name, _) in cases::LOCAL {
            println!("not in VMs: {name}, which is the same on every kernel");
        }
    }
    for backend in BACKENDS {
        if wanted.as_deref().is_some_and(|wanted| wanted != backend) {
            continue;
        }
        match run::availability(backend) {
            Ok(()) => {
                let cases = cases::WATCHING
                    .iter()
                    .chain(if agent { cases::AGENT } else { &[] })
                    .chain(if processes { cases::PROCESSES } else { &[] })
                    .chain(if local { cases::LOCAL } else { &[] });
                trials.extend(cases.map(|(name, case)| {
                    Trial::test(format!("{backend}::{name}"), move || {
                        case(backend);
                        Ok(())
                    })
                }));
                (agent, processes, local) = (false, false, false);
            }
            Err(reason) => {
                println!("not available: {backend}: {reason}");
                if wanted.is_some() {
                    return ExitCode::from(NOT_AVAILABLE);
                }
            }
        }
    }
    if trials.is_empty() {
        println!("no backend can be tested here; run as root");
        return ExitCode::FAILURE;
    }
    // One at a time: the cases compare the machine before and after.
    let arguments = Arguments {
        test_threads: Some(1),
        ..arguments
    };
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Some(backend) = wanted
        && !arguments.list
    {
        let starts = run::starts();
        if let Some(time) = run::time_of_start(&backend) {
            println!("starts of mmwatch: {starts} of {:.2} s", time.as_secs_f64());
        }
    }
    conclusion.exit_code()
}

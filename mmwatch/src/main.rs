//! `mmwatch`: parse, run, exit code. The library does the rest.

use std::{
    env,
    io::{self, Write as _},
    process::ExitCode,
};

use log::LevelFilter;
use mmwatch::{
    cli::{Cli, CliCommand},
    options::{System, Task},
    run,
};

fn main() -> ExitCode {
    let cli = Cli::read(env::args_os()).unwrap_or_else(|error| error.exit());
    // Who reads a daemon's log wants to know that it started, and how it ended.
    let level = match (cli.verbose, &cli.command) {
        (0, CliCommand::Agent(_)) => LevelFilter::Info,
        (0, _) => LevelFilter::Warn,
        (1, _) => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    env_logger::builder().filter_level(level).init();
    let system = System::new(cli.procfs.clone(), cli.sysfs.clone());
    let code = Task::new(cli, &system).and_then(|task| run::run(task, &system));
    ExitCode::from(code.unwrap_or_else(|error| {
        // Nobody may be left to read it; the exit code says enough.
        let _ = writeln!(io::stderr(), "mmwatch: {error}");
        error.exit_code()
    }))
}

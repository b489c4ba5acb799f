//! VMs whose clock counts instructions, for `cargo xtask bench`.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;

use super::{
    Lab, in_parallel,
    initramfs::Rootfs,
    kernels::{self, Kernel},
    qemu::Clock,
    tools::Tools,
};
use crate::workspace::Workspace;

/// Counting makes QEMU slow, but none of this is long.
const DEADLINE: Duration = Duration::from_secs(300);

/// What a script wrote.
pub struct Counted {
    /// The series of its kernel.
    pub series: String,
    /// The name of the script.
    pub name: &'static str,
    /// Its lines, or why there are none that could be trusted.
    pub lines: Result<Vec<String>, String>,
}

/// Runs each script, by its name, on each kernel: in a VM of its own, in which
/// an instruction takes 1 ns. `programs` are static executables with the names
/// that they have there.
pub fn counted(
    workspace: &Workspace,
    programs: Vec<(String, PathBuf)>,
    series: &[String],
    scripts: &[(&'static str, String)],
) -> Result<Vec<Counted>> {
    let dir = workspace.target().join("vm");
    let tools = Tools::get(&dir)?;
    let kernels = kernels::get(&dir, series)?;
    let lab = Lab {
        dir,
        rootfs: Rootfs::new(tools, programs)?,
        clock: Clock::Instructions,
        deadline: DEADLINE,
    };
    let pairs: Vec<(&Kernel, &(&'static str, String))> = kernels
        .iter()
        .flat_map(|kernel| scripts.iter().map(move |script| (kernel, script)))
        .collect();
    let mut all = in_parallel(&pairs, |(kernel, (name, script))| {
        let mut lines = Vec::new();
        let log = format!("{}-count-{name}", kernel.series);
        let console = lab.boot(kernel, &log, script, &mut |line| {
            lines.push(line.to_owned());
            Ok(())
        })?;
        let lines = match console.exit_code() {
            Ok(0) => Ok(lines),
            Ok(code) => Err(format!(
                "exit code {code}: {}",
                lines.last().map_or("it wrote nothing", String::as_str)
            )),
            Err(reason) => Err(reason),
        };
        Ok(Counted {
            series: kernel.series.clone(),
            name,
            lines,
        })
    })?;
    all.sort_by_key(|counted| (kernels::numbers(&counted.series), counted.name));
    Ok(all)
}

/// The series of the matrix, oldest first.
pub fn all_series() -> Vec<String> {
    kernels::all()
}

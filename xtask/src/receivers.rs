//! To whom the agent sends in its tests: a receiver in Python and VictoriaMetrics, fetched
//! once into `target/receivers`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{process, vm::apt::Apt, workspace::Workspace};

/// OpenTelemetry's own definitions, and what Python does gRPC with.
const PYTHON_PACKAGES: [&str; 2] = ["opentelemetry-proto==1.45.2", "grpcio==1.85.1"];

/// Debian 12 has none.
const VICTORIA_METRICS: &str = "victoria-metrics/trixie";

/// The variables that tell the tests where they are.
pub fn get(workspace: &Workspace) -> Result<Vec<(&'static str, PathBuf)>> {
    let dir = workspace.target().join("receivers");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut found = vec![("MMWATCH_OTLP_PYTHON", python(&dir)?)];
    // Elsewhere than on Debian, what is in PATH has to do.
    if process::exists("dpkg") {
        let program = victoria_metrics(&dir, &workspace.target().join("vm/apt"))?;
        found.push(("MMWATCH_VICTORIA_METRICS", program));
    }
    Ok(found)
}

/// An environment of Python's own with the packages in it. It cannot be moved once it is
/// made, so a file says that it is whole.
fn python(dir: &Path) -> Result<PathBuf> {
    let (venv, done) = (dir.join("python"), dir.join("python.done"));
    let (python, wanted) = (venv.join("bin/python"), PYTHON_PACKAGES.join("\n"));
    if fs::read_to_string(&done).is_ok_and(|done| done == wanted) {
        return Ok(python);
    }
    eprintln!(
        "setup: for tests of the agent, fetching from PyPI: {}",
        PYTHON_PACKAGES.join(" ")
    );
    let mut make = Command::new("python3");
    process::run(make.args(["-m", "venv", "--clear"]).arg(&venv))?;
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet"]);
    install.args(["--disable-pip-version-check", "--only-binary", ":all:"]);
    process::run(install.args(PYTHON_PACKAGES))?;
    fs::write(&done, wanted).with_context(|| format!("cannot write {}", done.display()))?;
    Ok(python)
}

/// The program of Debian's package, which is unpacked and not installed.
fn victoria_metrics(dir: &Path, apt_dir: &Path) -> Result<PathBuf> {
    let program = dir.join("victoria-metrics");
    if program.is_file() {
        return Ok(program);
    }
    eprintln!("setup: for tests of the agent, fetching VictoriaMetrics from Debian");
    let staging = dir.join(".victoria-metrics");
    let _ = fs::remove_dir_all(&staging);
    let tree = staging.join("tree");
    fs::create_dir_all(&tree).with_context(|| format!("cannot make {}", tree.display()))?;
    let apt = Apt::new(apt_dir)?;
    apt.update()?;
    let archive = apt.download(VICTORIA_METRICS, &staging)?;
    process::run(Command::new("dpkg").arg("-x").arg(&archive).arg(&tree))?;
    let unpacked = tree.join("usr/bin/victoria-metrics");
    fs::rename(&unpacked, &program)
        .with_context(|| format!("{VICTORIA_METRICS} holds no {}", unpacked.display()))?;
    fs::remove_dir_all(&staging)?;
    Ok(program)
}

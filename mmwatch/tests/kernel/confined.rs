//! Programs that may make no other system calls than those of the profile in `deploy/`.

use std::{collections::HashMap, io, os::unix::process::CommandExt as _, process::Command};

use seccompiler::{BpfProgram, TargetArch};
use serde::Deserialize;
use serde_json::{Value, json};

const PROFILE: &str = include_str!("../../../deploy/seccomp.json");

/// A profile as the OCI runtime specification has it, as far as ours uses that.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: String,
    architectures: Vec<String>,
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    names: Vec<String>,
    action: String,
}

/// What becomes of a call that the profile does not allow.
#[derive(Clone, Copy)]
pub enum Otherwise {
    /// It fails, with EPERM, as the profile has it.
    Fails,
    /// It ends the process with SIGSYS, so that none goes unnoticed.
    Kills,
}

/// The profile, for a specification.
pub fn profile() -> Value {
    serde_json::from_str(PROFILE).unwrap()
}

/// Has a command run under the profile, from its exec on.
pub fn confine(command: &mut Command, otherwise: Otherwise) {
    let filter = filter(otherwise);
    let apply = move || seccompiler::apply_filter(&filter).map_err(io::Error::other);
    // SAFETY: two system calls, of a filter that is made already; nothing is allocated where
    // they succeed.
    unsafe { command.pre_exec(apply) };
}

fn filter(otherwise: Otherwise) -> BpfProgram {
    let profile: Profile = serde_json::from_str(PROFILE).unwrap();
    assert_eq!(profile.default_action, "SCMP_ACT_ERRNO");
    assert_eq!(profile.architectures, ["SCMP_ARCH_X86_64"]);
    let mut calls = Vec::new();
    for rule in profile.syscalls {
        assert_eq!(rule.action, "SCMP_ACT_ALLOW");
        calls.extend(rule.names.iter().map(|name| json!({ "syscall": name })));
    }
    let mismatch = match otherwise {
        Otherwise::Fails => json!({ "errno": libc::EPERM }),
        Otherwise::Kills => json!("kill_process"),
    };
    let filter = json!({
        "mmwatch": { "mismatch_action": mismatch, "match_action": "allow", "filter": calls }
    });
    let mut filters: HashMap<String, BpfProgram> =
        seccompiler::compile_from_json(filter.to_string().as_bytes(), TargetArch::x86_64).unwrap();
    filters.remove("mmwatch").unwrap()
}

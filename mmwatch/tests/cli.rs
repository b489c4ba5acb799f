//! The real binary, as a user without privileges meets it.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::{
    fs::File,
    process::{Command, Output, Stdio},
};

fn mmwatch(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mmwatch"));
    command.args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    mmwatch(args).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

/// Wrong use exits with 2, prints nothing on stdout, and names the thing.
#[track_caller]
fn assert_wrong_use(args: &[&str], names: &str) {
    let output = run(args);
    assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
    assert_eq!(stdout(&output), "", "{args:?}");
    assert!(
        stderr(&output).contains(names),
        "{args:?}: {}",
        stderr(&output)
    );
}

#[test]
fn dashes_without_a_command_are_wrong_use() {
    for command in ["stat", "trace", "record", "verify"] {
        assert_wrong_use(&[command, "--"], "the command after `--` is missing");
    }
    assert_wrong_use(&["--"], "the command after `--` is missing");
}

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let output = run(&["--help"]);
    assert_eq!(code(&output), 0);
    for word in [
        "top",
        "trace",
        "stat",
        "record",
        "report",
        "maps",
        "shared",
        "agent",
        "check",
        "completions",
        "flags",
        "Examples:",
        "Exit codes:",
    ] {
        assert!(stdout(&output).contains(word), "{word}");
    }
    assert!(!stdout(&output).contains("canary"));
    for command in ["top", "trace", "stat", "record", "agent", "check"] {
        let output = run(&[command, "--help"]);
        assert_eq!(code(&output), 0, "{command}");
        assert!(stdout(&output).contains("Usage: mmwatch"), "{command}");
        assert!(stdout(&output).contains("--hooks"), "{command}");
        for line in stdout(&output).lines() {
            assert!(line.chars().count() <= 100, "{command}: {line}");
        }
    }
}

#[test]
fn version_is_the_packages() {
    let output = run(&["--version"]);
    assert_eq!(code(&output), 0);
    assert_eq!(
        stdout(&output),
        concat!("mmwatch ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn wrong_options_are_wrong_use() {
    assert_wrong_use(&["--no-such-option"], "--no-such-option");
    assert_wrong_use(&["no-such-command"], "no-such-command");
    assert_wrong_use(&["trace", "stray"], "stray");
    assert_wrong_use(&["trace", "--op", "fly"], "fly");
    assert_wrong_use(&["trace", "--op", "fly"], "unmap");
    assert_wrong_use(&["trace", "-o", "xml"], "xml");
    assert_wrong_use(&["trace", "--hooks", "magic"], "magic");
    assert_wrong_use(&["trace", "-p", "me"], "me");
    assert_wrong_use(&["trace", "-p", "0"], "0");
    assert_wrong_use(&["trace", "-d", "0"], "longer than zero");
    assert_wrong_use(&["trace", "-d", "soon"], "soon");
    assert_wrong_use(&["top", "-i", "1ms"], "--interval");
    assert_wrong_use(&["trace", "--min-size", "big"], "big");
    assert_wrong_use(&["trace", "--buffer", "0"], "--buffer");
    assert_wrong_use(&["trace", "--buffer", "2G"], "--buffer");
    assert_wrong_use(&["check", "-p", "1"], "-p");
    assert_wrong_use(&["trace", "--suspect", "disk"], "write-to-exec");
    assert_wrong_use(&["stat", "--suspect", "--op", "exit"], "--suspect");
    assert_wrong_use(&["trace", "--backing", "disk"], "disk");
    assert_wrong_use(&["trace", "--backing", "disk"], "shared-file");
    assert_wrong_use(&["flags", "MAP_ANONYMUS"], "MAP_ANONYMOUS");
    assert_wrong_use(&["flags", "mmap", "1"], "perhaps map is meant");
    assert_wrong_use(&["flags", "map", "0xy"], "0xy is no number");
    assert_wrong_use(&["record"], "--output");
    assert_wrong_use(&["record", "-o", "x", "--max-size", "1k"], "--max-size");
    assert_wrong_use(&["record", "-o", "x", "--keep", "2"], "--rotate");
    let sizes = ["--rotate", "4M", "--max-size", "4M"];
    assert_wrong_use(
        &[&["record", "-o", "x"], &sizes[..]].concat(),
        "twice --rotate",
    );
    assert_wrong_use(&["report"], "FILE");
    assert_wrong_use(&["completions", "tcsh"], "fish");
    assert_wrong_use(&["trace", "--from", "x", "--", "true"], "--from");
    assert_wrong_use(&["top", "--from", "x", "-d", "1"], "--from");
    assert_wrong_use(&["stat", "--from", "x", "--hooks", "fentry"], "--from");
    assert_wrong_use(&["stat", "--from", "x", "--faults"], "--faults");
    assert_wrong_use(&["maps", "--from", "x", "1", "2"], "one process");
}

#[test]
fn completions_are_printed_and_pages_written() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_eq!(code(&output), 0, "{shell}");
        assert!(stdout(&output).contains("mmwatch"), "{shell}");
    }
    let dir = std::env::temp_dir().join(format!("mmwatch-man-{}", std::process::id()));
    let name = dir.to_str().unwrap();
    let missing = run(&["man", name]);
    assert_eq!(code(&missing), 1);
    assert!(
        stderr(&missing).contains("mmwatch.1"),
        "{}",
        stderr(&missing)
    );
    std::fs::create_dir(&dir).unwrap();
    assert_eq!(code(&run(&["man", name])), 0);
    let page = std::fs::read_to_string(dir.join("mmwatch-top.1")).unwrap();
    assert!(page.contains(".TH mmwatch-top 1"), "{page}");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn what_is_no_recording_is_not_read_as_one() {
    assert_wrong_use(&["report", "/etc/passwd"], "/etc/passwd is no recording");
    for command in ["trace", "top", "stat"] {
        assert_wrong_use(&[command, "--from", "/etc/passwd"], "is no recording");
    }
    assert_wrong_use(&["maps", "--from", "/etc/passwd", "1"], "is no recording");
    let missing = run(&["report", "/no/such/recording"]);
    assert_eq!(code(&missing), 1);
    assert!(stderr(&missing).contains("/no/such/recording"));
}

#[test]
fn nothing_is_recorded_over_what_is_no_recording() {
    let path = std::env::temp_dir().join(format!("mmwatch-cli-{}", std::process::id()));
    let name = path.to_str().unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert_wrong_use(&["record", "-o", name], "is no recording");
    assert_wrong_use(&["record", "-o", name, "--force"], "is no recording");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();
    assert_wrong_use(&["record", "-o", "/dev/null"], "no regular file");
}

#[test]
fn filters_that_nobody_can_satisfy_are_wrong_use() {
    // Above any limit of /proc/sys/kernel/pid_max.
    assert_wrong_use(&["trace", "-p", "4194305"], "no process 4194305");
    assert_wrong_use(&["-p", "4194305"], "no process 4194305");
    assert_wrong_use(&["trace", "-x", "--op", "fork,exec"], "--failed");
    assert_wrong_use(&["trace", "--min-size", "1", "--op", "fork"], "--min-size");
    assert_wrong_use(
        &["stat", "--backing", "special", "--op", "unmap"],
        "--backing",
    );
    assert_wrong_use(&["trace", "-u", "no-such-user-here"], "no-such-user-here");
    assert_wrong_use(&["trace", "-n", "much-too-long-a-name"], "15 bytes");
    assert_wrong_use(&["stat", "-p", "1", "--", "true"], "--pid");
}

#[test]
fn control_characters_in_arguments_do_not_reach_the_terminal() {
    let output = run(&["trace", "-u", "\u{1b}[2Juser"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains(r"\x1b[2Juser"));
}

#[test]
fn a_missing_command_is_127_and_one_that_cannot_run_126() {
    let output = run(&["stat", "--", "no-such-command-here"]);
    assert_eq!(code(&output), 127);
    assert!(stderr(&output).contains("no-such-command-here"));
    assert_eq!(code(&run(&["stat", "--", "/etc/passwd"])), 126);
    assert_eq!(code(&run(&["trace", "--", "/no/such/path"])), 127);
}

#[test]
fn check_prints_what_it_finds_and_says_whether_it_is_enough() {
    let output = run(&["check"]);
    assert!([0, 3].contains(&code(&output)), "{output:?}");
    assert!(!stdout(&output).is_empty());

    let output = run(&["check", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["type"], "check");
    assert!(json["facts"].is_object());
    match code(&output) {
        0 => assert!(json["plan"].is_object()),
        3 => {
            let refusal = json["refusal"].as_str().unwrap();
            assert!(stderr(&output).contains(refusal));
        }
        other => panic!("exit code {other}"),
    }
}

#[test]
fn flags_are_told_and_numbers_decoded() {
    let output = run(&["flags"]);
    assert_eq!(code(&output), 0);
    for name in ["x86-64", "PROT_SEM", "MAP_SYNC", "MADV_COLD", "VM_SEALED"] {
        assert!(stdout(&output).contains(name), "{name}");
    }
    let output = run(&["flags", "map", "0x22"]);
    assert_eq!(code(&output), 0);
    assert!(stdout(&output).starts_with("0x22 = MAP_PRIVATE|MAP_ANONYMOUS\n"));

    let output = run(&["flags", "madvise", "4", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["flags"], serde_json::json!(["MADV_DONTNEED"]));
}

#[test]
fn a_closed_pipe_is_success() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = mmwatch(&["--help"]).stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut check = mmwatch(&["check"]);
    let output = check
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    // 3 says that watching is not possible here, not that writing failed.
    assert!([0, 3].contains(&code(&output)), "{output:?}");
    assert!(!stderr(&output).contains("writing"), "{output:?}");
}

#[test]
fn a_full_disk_is_a_failure() {
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        // Not every container has it.
        return;
    };
    let output = mmwatch(&["check"]).stdout(full).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("writing the output"));
}

//! Running other programs, with errors that name the command.

use std::{
    io::ErrorKind,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// Runs `command` with our own standard streams; anything but success is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

/// Runs `command` and returns what it wrote to stdout; its stderr is ours.
pub fn stdout(command: &mut Command) -> Result<String> {
    let output = captured(command.stderr(Stdio::inherit()))?;
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed something other than UTF-8", line(command)))
}

/// Like [`stdout`], but silent: stderr is part of the error.
pub fn quiet_stdout(command: &mut Command) -> Result<String> {
    let output = captured(command.stderr(Stdio::piped()))?;
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed something other than UTF-8", line(command)))
}

/// Whether `command` can be started and succeeds; it prints nothing.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether there is a program of this name to run.
pub fn exists(program: &str) -> bool {
    let probe = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    !matches!(probe, Err(error) if error.kind() == ErrorKind::NotFound)
}

/// The command as a person would type it.
pub fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| quote(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// `word` as one word of a POSIX shell.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./,:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn captured(command: &mut Command) -> Result<Output> {
    let output = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .output()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stderr = stderr.trim();
        let colon = if stderr.is_empty() { "" } else { ": " };
        bail!(
            "`{}` failed ({}){colon}{stderr}",
            line(command),
            output.status
        );
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        for word in [
            "",
            "plain-1.0",
            "two words",
            "it's",
            "$HOME",
            "a;b",
            "\"",
            "`id`",
            "*",
        ] {
            let printed = quiet_stdout(
                Command::new("sh").args(["-c", &format!("printf %s {}", quote(word))]),
            )
            .unwrap();
            assert_eq!(printed, word);
        }
    }

    #[test]
    fn errors_name_the_command_and_what_it_said() {
        let error = quiet_stdout(Command::new("sh").args(["-c", "echo no luck >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "`sh -c 'echo no luck >&2; exit 3'` failed (exit status: 3): no luck"
        );
    }
}

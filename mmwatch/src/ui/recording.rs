//! `report`: what a recording is, above its sums.

use std::{
    fmt::{self, Write as _},
    path::Path,
};

use crate::{
    clock::WallClock,
    recording::Summary,
    text::{Bytes, Escaped, Nanos},
};

/// Losses shown one by one.
const SHOWN: usize = 10;

/// A few lines: what it is of, from when to when, how it ended, what is missing.
pub fn draw(summary: &Summary, path: &Path) -> String {
    let mut out = String::with_capacity(1024);
    // Writing to a String cannot fail.
    let _ = lines(&mut out, summary, path);
    out
}

fn lines(out: &mut String, summary: &Summary, path: &Path) -> fmt::Result {
    let header = &summary.header;
    let clock = WallClock::with_offset(header.boot_at_unix_ns);
    writeln!(
        out,
        "{}: {}, Linux {} by {}, mmwatch {}",
        Escaped(path.as_os_str().as_encoded_bytes()),
        Bytes(summary.bytes),
        Escaped(header.kernel.as_bytes()),
        Escaped(header.backend.as_bytes()),
        Escaped(header.mmwatch.as_bytes()),
    )?;
    writeln!(
        out,
        "  from   {} for {}",
        clock.at(header.start_boot_ns),
        Nanos(summary.elapsed_ns())
    )?;
    let words: Vec<_> = header
        .command_line
        .iter()
        .map(|word| Escaped(word.as_bytes()).to_string())
        .collect();
    writeln!(out, "  by     {}", words.join(" "))?;
    if header.part > 0 {
        writeln!(out, "  part   {} of a rotated recording", header.part + 1)?;
    }
    writeln!(out, "  it     {}", summary.ending)?;
    for loss in summary.losses.iter().take(SHOWN) {
        write!(
            out,
            "  lacks  {} events of {} to {}: ",
            loss.events,
            clock.at(loss.from_boot_ns).local_time_of_day(),
            clock.at(loss.until_boot_ns).local_time_of_day()
        )?;
        match loss.cause {
            Some(cause) => writeln!(out, "{cause}")?,
            None => writeln!(out, "lost in the kernel")?,
        }
    }
    let more = summary.losses_count.saturating_sub(SHOWN as u64);
    if more > 0 {
        writeln!(out, "  lacks  events {more} times more")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{recording::Ending, sample};

    #[test]
    fn a_recording_is_told_in_a_few_lines() {
        let mut summary = sample::recording();
        let text = draw(&summary, Path::new("rec"));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "rec: 1MiB, Linux 6.18.5 x86_64 by fentry, mmwatch 0.1.0",
                "  from   2026-11-21T10:00:01.000000000Z for 60.00s",
                r"  by     mmwatch record -o a\x07",
                "  it     ended with the watch",
            ]
        );
        // The times of day depend on where the test runs.
        assert!(lines[4].starts_with("  lacks  17 events of "));
        assert!(lines[4].contains(": writing failed: No space left"));
        assert!(lines[5].ends_with(": lost in the kernel"));
        assert_eq!(lines.len(), 6);

        summary.header.part = 2;
        summary.ending = Ending::Open;
        let loss = summary.losses[0];
        summary.losses.extend([loss; 10]);
        summary.losses_count = 1_012;
        let text = draw(&summary, Path::new("rec"));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[3], "  part   3 of a rotated recording");
        assert!(lines[4].starts_with("  it     has no end"));
        assert_eq!(lines.len(), 5 + SHOWN + 1);
        assert_eq!(lines[5 + SHOWN], "  lacks  events 1002 times more");
    }
}

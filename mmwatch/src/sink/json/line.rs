//! One line of JSON, in which no foreign name can do harm.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::text::is_harmful;

/// The one control character that JSON lets through.
const DEL: u8 = 0x7f;

/// Appends a value as one line.
///
/// # Errors
///
/// What serializing says.
pub fn write_line(buffer: &mut Vec<u8>, line: &impl Serialize) -> io::Result<()> {
    let start = buffer.len();
    serde_json::to_writer(&mut *buffer, line)?;
    // Nearly every line is ASCII, of which JSON itself escapes all that is harmful but DEL.
    let written = buffer.get(start..).unwrap_or_default();
    if !written.is_ascii() || written.contains(&DEL) {
        buffer.truncate(start);
        line.serialize(&mut Serializer::with_formatter(&mut *buffer, Harmless))?;
    }
    buffer.push(b'\n');
    Ok(())
}

/// Compact, with harmful characters as `\u` escapes, which readers of JSON turn back.
struct Harmless;

impl Formatter for Harmless {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((start, c)) = rest.char_indices().find(|(_, c)| is_harmful(*c)) {
            writer.write_all(&rest.as_bytes()[..start])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[start + c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_do_no_harm() {
        for name in [
            "plain",
            "größe",
            "a\u{9b}31m",
            "\u{202e}gpj.exe",
            "\u{200b}\u{feff}",
            "\u{e0041}",
            "\u{7f}",
            "\u{1b}[2J\n\"\\",
            "語\u{2028}語",
            "",
        ] {
            let mut line = Vec::new();
            write_line(&mut line, &name).unwrap();
            let text = String::from_utf8(line).unwrap();
            let text = text.strip_suffix('\n').unwrap();
            assert!(!text.contains(is_harmful), "{text:?}");
            assert_eq!(serde_json::from_str::<String>(text).unwrap(), name);
        }
    }
}

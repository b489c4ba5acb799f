//! One line of JSON, in which no foreign name can do harm.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::text::is_harmful;

/// Appends a value as one line.
///
/// # Errors
///
/// What serializing says.
pub fn write_line(buffer: &mut Vec<u8>, line: &impl Serialize) -> io::Result<()> {
    let start = buffer.len();
    serde_json::to_writer(&mut *buffer, line)?;
    if !is_plain(buffer.get(start..).unwrap_or_default()) {
        buffer.truncate(start);
        line.serialize(&mut Serializer::with_formatter(&mut *buffer, Harmless))?;
    }
    buffer.push(b'\n');
    Ok(())
}

/// Whether a line is ASCII without DEL, the one control character that JSON lets through: then
/// nothing in it is harmful, as in nearly every line. One pass without branches, of which
/// compilers make vector instructions.
fn is_plain(line: &[u8]) -> bool {
    let all = line
        .iter()
        .fold(0, |all, &byte| all | byte | byte.wrapping_add(1));
    all < 0x80
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
    fn a_line_is_plain_without_a_byte_from_del_on() {
        for byte in 0..=u8::MAX {
            let line = [b'a', byte, b'b'];
            assert_eq!(is_plain(&line), byte < 0x7f, "{byte:#x}");
        }
        assert!(is_plain(b""));
    }

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

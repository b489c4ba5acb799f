//! Which characters of foreign names reach an output as they are. One table for text, JSON,
//! metrics, graphs and HTTP.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    str,
};

/// Characters that do something other than print: they move a terminal's cursor, reverse the
/// order of what follows, or cannot be seen, so that two names look alike.
///
/// Besides control characters these are the code points that Unicode 16 calls
/// `Default_Ignorable_Code_Point`, the line and paragraph separators, and interlinear
/// annotations.
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// A text whose harmful characters appear as escapes (`\u{1b}`). A backslash stays, as names
/// are compared by programs and those of systemd's units have one; only where it would begin
/// such an escape it is `\u{5c}`, so that two texts never look alike.
pub fn harmless(text: &str) -> Cow<'_, str> {
    const ESCAPE: &str = "\\u{";
    if !text.contains(is_harmful) && !text.contains(ESCAPE) {
        return Cow::Borrowed(text);
    }
    let mut harmless = String::with_capacity(text.len() + 16);
    for (at, c) in text.char_indices() {
        if is_harmful(c) || text[at..].starts_with(ESCAPE) {
            harmless.extend(c.escape_unicode());
        } else {
            harmless.push(c);
        }
    }
    Cow::Owned(harmless)
}

/// Bytes that came from a process or a file system, shown so that a terminal
/// does nothing but print them.
///
/// Harmful characters ([`is_harmful`]), backslashes and bytes that are not UTF-8 appear as
/// escapes (`\n`, `\x1b`, `\u{202e}`, `\\`).
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nearly every name is plain; `pad` then honours the column's width.
        if let Ok(text) = str::from_utf8(self.0)
            && !text.chars().any(needs_escape)
        {
            return f.pad(text);
        }
        let mut columns = Columns { f, used: 0 };
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\0'..='\x7f' if needs_escape(c) && !c.is_ascii_whitespace() && c != '\\' => {
                        write!(columns, "\\x{:02x}", u32::from(c))?;
                    }
                    c if needs_escape(c) => write!(columns, "{}", c.escape_default())?,
                    c => columns.write_char(c)?,
                }
            }
            for byte in chunk.invalid() {
                write!(columns, "\\x{byte:02x}")?;
            }
        }
        let Columns { f, used } = columns;
        for _ in used..f.width().unwrap_or(0) {
            f.write_char(' ')?;
        }
        Ok(())
    }
}

fn needs_escape(c: char) -> bool {
    is_harmful(c) || c == '\\'
}

/// Counts the columns that it writes.
struct Columns<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    used: usize,
}

impl fmt::Write for Columns<'_, '_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.used += s.chars().count();
        self.f.write_str(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_hides_or_moves_is_harmless() {
        for c in [
            '\0',
            '\n',
            '\u{1b}',
            '\u{7f}',
            '\u{9b}',
            '\u{ad}',
            '\u{200b}',
            '\u{200e}',
            '\u{2028}',
            '\u{2029}',
            '\u{202e}',
            '\u{2069}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            assert!(is_harmful(c), "{}", c.escape_unicode());
            let text = format!("a{c}b");
            assert_eq!(harmless(&text), format!("a{}b", c.escape_unicode()));
            assert!(!Escaped(text.as_bytes()).to_string().contains(c));
        }
        for c in ['a', ' ', '\u{a0}', 'ß', '語', '\u{301}', '🦀', '\\', '<'] {
            assert!(!is_harmful(c), "{c}");
        }
        assert_eq!(harmless(r"\u{1b}"), r"\u{5c}u{1b}");
        assert_eq!(harmless(r"dev-x\x2dy.mount"), r"dev-x\x2dy.mount");
    }

    #[test]
    fn names_are_escaped_and_padded() {
        let show = |bytes: &[u8]| Escaped(bytes).to_string();
        assert_eq!(show(b"bash"), "bash");
        assert_eq!(show("größe".as_bytes()), "größe");
        assert_eq!(show(b"a\nb\x1b[0m\x7f\\"), r"a\nb\x1b[0m\x7f\\");
        assert_eq!(show(b"\xff\xc3"), r"\xff\xc3");
        assert_eq!(show("\u{202e}gpj\u{9b}".as_bytes()), r"\u{202e}gpj\u{9b}");
        assert_eq!(format!("{:<6}|", Escaped(b"ab")), "ab    |");
        assert_eq!(format!("{:<6}|", Escaped(b"a\n")), "a\\n   |");
        assert_eq!(format!("{:<2}|", Escaped(b"a\n")), "a\\n|");
    }
}

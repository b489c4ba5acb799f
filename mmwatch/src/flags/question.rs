//! What `mmwatch flags` is asked.

use super::table::{ARGUMENTS, Argument, Flag};
use crate::text::Escaped;

/// What to tell of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// All of it.
    Everything,
    /// All that one argument can have.
    Argument(&'static Argument),
    /// One flag, and the argument that it belongs to.
    Flag(&'static Argument, &'static Flag),
    /// What a number means as one argument.
    Value(&'static Argument, u64),
    /// What a number means as each argument.
    AnyValue(u64),
}

impl Question {
    /// From the words after `mmwatch flags`; the error is a sentence.
    pub fn new(what: Option<&str>, value: Option<&str>) -> Result<Self, String> {
        let Some(what) = what else {
            return Ok(Self::Everything);
        };
        if let Some(value) = value {
            let argument = argument(what).ok_or_else(|| {
                let names = ARGUMENTS.map(|argument| argument.name);
                format!(
                    "there is no argument {}, only {}; perhaps {} is meant",
                    Escaped(what.as_bytes()),
                    names.join(", "),
                    nearest(what, names.into_iter())
                )
            })?;
            return number(value)
                .map(|value| Self::Value(argument, value))
                .ok_or_else(|| {
                    format!(
                        "{} is no number of 64 bits; write it as 34 or 0x22",
                        Escaped(value.as_bytes())
                    )
                });
        }
        if let Some(value) = number(what) {
            return Ok(Self::AnyValue(value));
        }
        if let Some(argument) = argument(what) {
            return Ok(Self::Argument(argument));
        }
        all()
            .find(|(_, flag)| flag.name.eq_ignore_ascii_case(what))
            .map(|(argument, flag)| Self::Flag(argument, flag))
            .ok_or_else(|| {
                let names = ARGUMENTS.iter().map(|argument| argument.name);
                format!(
                    "there is no flag {}; perhaps {} is meant (`mmwatch flags` lists all)",
                    Escaped(what.as_bytes()),
                    nearest(what, names.chain(all().map(|(_, flag)| flag.name)))
                )
            })
    }
}

/// Every flag of every argument.
fn all() -> impl Iterator<Item = (&'static Argument, &'static Flag)> {
    ARGUMENTS
        .into_iter()
        .flat_map(|argument| argument.flags.iter().map(move |flag| (argument, flag)))
}

fn argument(name: &str) -> Option<&'static Argument> {
    ARGUMENTS
        .into_iter()
        .find(|argument| argument.name.eq_ignore_ascii_case(name))
}

/// `34`, `0x22`.
fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // `from_str_radix` takes a sign.
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// The name that is the fewest changes away from what was typed.
fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> &'a str {
    let typed = typed.to_ascii_lowercase();
    names
        .min_by_key(|name| distance(typed.as_bytes(), name.to_ascii_lowercase().as_bytes()))
        .unwrap_or_default()
}

/// Bytes to insert, leave out or replace to make `b` of `a`.
fn distance(a: &[u8], b: &[u8]) -> usize {
    // Of what was taken of `a` so far, to each beginning of `b`.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (taken, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = taken + 1;
        for (at, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(row[at + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::flags::table::{MAP, VM};

    fn ask(words: &[&str]) -> Result<Question, String> {
        Question::new(words.first().copied(), words.get(1).copied())
    }

    #[test]
    fn names_and_numbers_are_told_apart() {
        assert_eq!(ask(&[]), Ok(Question::Everything));
        assert_eq!(ask(&["map"]), Ok(Question::Argument(&MAP)));
        assert_eq!(ask(&["map", "0x22"]), Ok(Question::Value(&MAP, 0x22)));
        assert_eq!(ask(&["VM", "34"]), Ok(Question::Value(&VM, 34)));
        assert_eq!(ask(&["0Xff"]), Ok(Question::AnyValue(255)));
        let Ok(Question::Flag(argument, flag)) = ask(&["map_stack"]) else {
            panic!("not a flag");
        };
        assert_eq!((argument.name, flag.name), ("map", "MAP_STACK"));
    }

    #[test]
    fn what_is_unknown_is_named_with_the_nearest() {
        let refusal = |words: &[&str]| ask(words).unwrap_err();
        assert!(refusal(&["MAP_ANONYMUS"]).contains("perhaps MAP_ANONYMOUS is"));
        assert!(refusal(&["madv_dontned"]).contains("perhaps MADV_DONTNEED is"));
        assert!(refusal(&["mmap", "1"]).contains("perhaps map is"));
        assert!(refusal(&["map", "MAP_STACK"]).contains("MAP_STACK is no number"));
        assert!(refusal(&["map", "0x10000000000000000"]).contains("64 bits"));
        assert!(refusal(&["map", "+1"]).contains("+1"));
        assert!(refusal(&["\u{1b}[2J"]).contains(r"\x1b[2J"));
        assert!(ask(&[""]).is_err());
    }

    #[test]
    fn distances_are_the_fewest_changes() {
        for (a, b, want) in [
            ("", "", 0),
            ("", "abc", 3),
            ("map", "mmap", 1),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
        ] {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), want, "{a} {b}");
            assert_eq!(distance(b.as_bytes(), a.as_bytes()), want, "{b} {a}");
        }
    }

    #[test]
    fn no_name_is_there_twice() {
        let mut seen = BTreeSet::new();
        let arguments = ARGUMENTS.iter().map(|argument| argument.name);
        for name in arguments.chain(all().map(|(_, flag)| flag.name)) {
            assert!(seen.insert(name.to_ascii_lowercase()), "{name}");
        }
    }
}

//! What `mmwatch flags` prints: parts of the table, and numbers decoded.

use std::fmt::{self, Write};

use crate::flags::{
    Name, Question,
    table::{ARCH, ARGUMENTS, Argument, Flag},
};

/// The answer as text.
pub fn draw(question: Question) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = match question {
        Question::Everything => everything(&mut out),
        Question::Argument(argument) => table(&mut out, argument, argument.flags),
        Question::Flag(argument, flag) => table(&mut out, argument, [flag]),
        Question::Value(argument, value) => decoded(&mut out, argument, value),
        Question::AnyValue(value) => decoded_as_each(&mut out, value),
    };
    out
}

fn everything(out: &mut String) -> fmt::Result {
    writeln!(
        out,
        "Values are those of {ARCH}, the only architecture that mmwatch runs on.\n\
         `mmwatch flags map 0x22` decodes a number.\n"
    )?;
    for (number, argument) in ARGUMENTS.into_iter().enumerate() {
        if number > 0 {
            out.push('\n');
        }
        table(out, argument, argument.flags)?;
    }
    Ok(())
}

/// Columns of a name and of a value.
const WIDTHS: (usize, usize) = (21, 13);

fn table<'a>(
    out: &mut String,
    argument: &Argument,
    flags: impl IntoIterator<Item = &'a Flag>,
) -> fmt::Result {
    heading(out, argument)?;
    for flag in flags {
        row(out, flag)?;
    }
    Ok(())
}

fn heading(out: &mut String, argument: &Argument) -> fmt::Result {
    let (name, value) = WIDTHS;
    writeln!(out, "{}   {}", argument.name, argument.of)?;
    writeln!(out, "{:<name$} {:>value$}  MEANING", "NAME", "VALUE")
}

fn row(out: &mut String, flag: &Flag) -> fmt::Result {
    let (name, value) = WIDTHS;
    write!(
        out,
        "{:<name$} {:>value$}  ",
        flag.name,
        format!("{:#x}", flag.value)
    )?;
    if let Some(arch) = flag.only_on {
        write!(out, "{arch} only: ")?;
    }
    writeln!(out, "{}", flag.meaning)?;
    if !flag.elsewhere.is_empty() {
        out.push_str("    elsewhere:");
        for (number, (archs, value)) in flag.elsewhere.iter().enumerate() {
            let end = if number == 0 { "" } else { ";" };
            write!(out, "{end} {archs} {value:#x}")?;
        }
        out.push('\n');
    }
    Ok(())
}

/// The names of a value's bits, as strace joins them.
fn joined(out: &mut String, argument: &Argument, value: u64) -> fmt::Result {
    if value == 0 {
        return out.write_str(argument.zero().map_or("0", |flag| flag.name));
    }
    for (number, name) in argument.names(value).enumerate() {
        let before = if number == 0 { "" } else { "|" };
        write!(out, "{before}{name}")?;
    }
    Ok(())
}

fn decoded(out: &mut String, argument: &Argument, value: u64) -> fmt::Result {
    write!(out, "{value:#x} = ")?;
    joined(out, argument, value)?;
    out.push_str("\n\n");
    heading(out, argument)?;
    if value == 0 {
        return argument.zero().map_or(Ok(()), |flag| row(out, flag));
    }
    for name in argument.names(value) {
        match name {
            Name::Known(flag) => row(out, flag)?,
            Name::Bits(bits) => {
                let (name, value) = WIDTHS;
                let bits = format!("{bits:#x}");
                writeln!(
                    out,
                    "{:<name$} {bits:>value$}  no flag that mmwatch knows",
                    "-"
                )?;
            }
        }
    }
    Ok(())
}

fn decoded_as_each(out: &mut String, value: u64) -> fmt::Result {
    for argument in ARGUMENTS {
        write!(out, "{:<8} {value:#x} = ", argument.name)?;
        joined(out, argument, value)?;
        out.push('\n');
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(what: &str, value: Option<&str>) -> String {
        draw(Question::new(Some(what), value).unwrap())
    }

    #[test]
    fn everything_is_there_and_fits_a_terminal() {
        let text = draw(Question::Everything);
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        for argument in ARGUMENTS {
            for flag in argument.flags {
                let row = format!("\n{} ", flag.name);
                assert_eq!(text.matches(&row).count(), 1, "{}", flag.name);
            }
        }
    }

    #[test]
    fn a_flag_has_its_values_elsewhere() {
        assert_eq!(
            ask("map_anonymous", None),
            "map   mmap(2): flags\n\
             NAME                          VALUE  MEANING\n\
             MAP_ANONYMOUS                  0x20  of no file: zeroed memory\n\
             \u{20}   elsewhere: alpha, parisc 0x10; mips, xtensa 0x800\n"
        );
    }

    #[test]
    fn numbers_are_decoded_with_what_each_bit_means() {
        assert_eq!(
            ask("map", Some("0x200022")),
            "0x200022 = MAP_PRIVATE|MAP_ANONYMOUS|0x200000\n\n\
             map   mmap(2): flags\n\
             NAME                          VALUE  MEANING\n\
             MAP_PRIVATE                     0x2  writes go to a copy of the process's own\n\
             MAP_ANONYMOUS                  0x20  of no file: zeroed memory\n\
             \u{20}   elsewhere: alpha, parisc 0x10; mips, xtensa 0x800\n\
             -                          0x200000  no flag that mmwatch knows\n"
        );
        assert!(ask("prot", Some("0")).starts_with("0x0 = PROT_NONE\n"));
        assert!(ask("madvise", Some("4")).contains("pages are dropped"));
        assert!(ask("mremap", Some("0")).starts_with("0x0 = 0\n"));
    }

    #[test]
    fn a_number_alone_is_decoded_as_each_argument() {
        let text = ask("3", None);
        assert_eq!(text.lines().count(), ARGUMENTS.len());
        for line in [
            "prot     0x3 = PROT_READ|PROT_WRITE",
            "map      0x3 = MAP_SHARED_VALIDATE",
            "madvise  0x3 = MADV_WILLNEED",
            "mlock2   0x3 = MLOCK_ONFAULT|0x2",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}

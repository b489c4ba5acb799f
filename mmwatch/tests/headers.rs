//! The table of flags against the kernel's own headers (Debian's linux-libc-dev):
//! each of their macros is in the table with its value, and the other way round.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Write as _},
    path::Path,
};

use mmwatch::flags::table::{ARGUMENTS, Flag, VM};

/// Every place of the headers; where the compiler looks first comes first.
const DIRECTORIES: [&str; 2] = ["/usr/include/x86_64-linux-gnu", "/usr/include"];
const HEADERS: [&str; 5] = [
    "asm/mman.h",
    "asm-generic/mman.h",
    "asm-generic/mman-common.h",
    "asm-generic/hugetlb_encode.h",
    "linux/mman.h",
];

const PREFIXES: [&str; 6] = ["PROT_", "MAP_", "MREMAP_", "MADV_", "MLOCK_", "MCL_"];

/// What headers older than the table do not have yet: those of Linux 6.1, which
/// Debian 12 has, lack all of them.
const NEWER: [&str; 4] = [
    "MAP_ABOVE4G",        // 6.6
    "MAP_DROPPABLE",      // 6.11
    "MADV_GUARD_INSTALL", // 6.13
    "MADV_GUARD_REMOVE",  // 6.13
];

/// Macros that are no flags, but say where flags are: the flag whose mask they are.
const MASKS: [(&str, &str); 2] = [
    ("MAP_TYPE", "MAP_PRIVATE"),
    ("MAP_HUGE_MASK", "MAP_HUGE_2MB"),
];
const SHIFT: &str = "MAP_HUGE_SHIFT";

/// Macros by their names, as they are written.
type Macros = BTreeMap<String, String>;

fn read(macros: &mut Macros, header: &str) {
    for line in header.lines() {
        let Some(definition) = line.strip_prefix("#define") else {
            continue;
        };
        let definition = definition.split("/*").next().unwrap().trim();
        if let Some((name, value)) = definition.split_once(char::is_whitespace) {
            macros.insert(name.to_owned(), value.trim().to_owned());
        }
    }
}

/// A number, another macro's name, or `(a << b)`.
fn value(macros: &Macros, text: &str) -> Option<u64> {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix('(') {
        let (number, shift) = inner.strip_suffix(')')?.split_once("<<")?;
        return value(macros, number)?.checked_shl(value(macros, shift)?.try_into().ok()?);
    }
    if let Some(other) = macros.get(text) {
        return value(macros, other);
    }
    let digits = text.trim_end_matches(['u', 'U', 'l', 'L']);
    match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => digits.parse().ok(),
    }
}

/// Every flag that headers of this architecture may have.
fn flags() -> impl Iterator<Item = &'static Flag> {
    ARGUMENTS
        .into_iter()
        // The kernel keeps these to itself.
        .filter(|argument| **argument != VM)
        .flat_map(|argument| argument.flags)
        .filter(|flag| flag.is_here())
}

/// What is not the same, a line each.
fn differences(macros: &Macros) -> Vec<String> {
    let mut differences = Vec::new();
    let in_table = |name: &str| flags().find(|flag| flag.name == name);
    let shift = value(macros, SHIFT).unwrap_or(0);
    for name in macros.keys() {
        if name == SHIFT || !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let header = value(macros, name);
        let mask = MASKS.iter().find(|(mask, _)| mask == name);
        let table = match mask {
            Some((_, flag)) => {
                let mask = in_table(flag).map(|flag| flag.mask);
                mask.map(|mask| if mask > 0xf { mask >> shift } else { mask })
            }
            None => in_table(name).map(|flag| flag.value),
        };
        if header.is_none() || header != table {
            let text = &macros[name];
            differences.push(format!(
                "{name}: {text} in the headers, {table:x?} in the table"
            ));
        }
    }
    for flag in flags() {
        if !macros.contains_key(flag.name) && !NEWER.contains(&flag.name) {
            differences.push(format!("{}: in the table, not in the headers", flag.name));
        }
    }
    differences
}

/// The headers that are installed; `None` when one of them is not.
fn installed() -> Option<Macros> {
    let mut macros = Macros::new();
    for header in HEADERS {
        let mut places = DIRECTORIES
            .iter()
            .map(|directory| Path::new(directory).join(header));
        let text = places.find_map(|path| fs::read_to_string(path).ok())?;
        read(&mut macros, &text);
    }
    Some(macros)
}

#[test]
fn the_table_is_what_the_headers_say() {
    let Some(macros) = installed() else {
        let missing = "the kernel's headers are not installed, so the table of flags was not held \
                       against them: install linux-libc-dev (`cargo xtask setup` does)";
        if env::var_os("CI").is_some() {
            panic!("{missing}");
        }
        // Not by a macro, whose output the test harness would swallow.
        writeln!(io::stderr(), "{missing}").unwrap();
        return;
    };
    let differences = differences(&macros);
    assert!(differences.is_empty(), "{differences:#?}");
    // The comparison is worth something only if there was something to compare.
    let compared = flags()
        .filter(|flag| macros.contains_key(flag.name))
        .count();
    assert!(compared >= 60, "{compared} flags in the headers");
}

/// All that the table has, as a header would say it.
fn complete() -> Macros {
    let mut header = String::from(
        "#define MAP_TYPE 0x0f /* a mask */\n#define MAP_HUGE_SHIFT SHIFT\n\
         #define SHIFT 26\n#define MAP_HUGE_MASK 0x3fU\n#define OTHER_FLAG 7\n",
    );
    for flag in flags() {
        header += &format!("#define {}\t{:#x}\t/* meaning */\n", flag.name, flag.value);
    }
    let mut macros = Macros::new();
    read(&mut macros, &header);
    macros
}

#[test]
fn each_difference_is_noticed() {
    assert_eq!(differences(&complete()), [""; 0]);
    for (line, named) in [
        ("#define MAP_STACK 0x1", "MAP_STACK"),
        ("#define MAP_NEW 0x800000", "MAP_NEW"),
        ("#define PROT_BTI 0x10", "PROT_BTI"),
        ("#define MADV_NOVEL 104 /* new */", "MADV_NOVEL"),
        ("#define MAP_TYPE 0x1f", "MAP_TYPE"),
        ("#define MAP_HUGE_SHIFT 25", "MAP_HUGE_MASK"),
        ("#define MLOCK_ODD (1 +", "MLOCK_ODD"),
    ] {
        let mut macros = complete();
        read(&mut macros, line);
        let differences = differences(&macros);
        assert_eq!(differences.len(), 1, "{line}: {differences:?}");
        assert!(differences[0].starts_with(named), "{line}: {differences:?}");
    }
    let mut macros = complete();
    macros.remove("MAP_STACK");
    macros.remove(NEWER[0]);
    assert_eq!(
        differences(&macros),
        ["MAP_STACK: in the table, not in the headers"]
    );
}

#[test]
fn values_are_read_as_c_writes_them() {
    let mut macros = Macros::new();
    read(
        &mut macros,
        "#define A B\n#define B\t(14U << S)\n#define S 26\n#define D (A |\\\n",
    );
    assert_eq!(value(&macros, "A"), Some(14 << 26));
    assert_eq!(value(&macros, "D"), None);
    assert_eq!(value(&macros, "0x80000000"), Some(0x8000_0000));
    assert_eq!(value(&macros, "C"), None);
}

//! `mmwatch flags`.

use serde::{Serialize, Serializer};

use super::print;
use crate::{
    error::{Error, Result},
    flags::{
        Name, Question,
        table::{ARCH, ARGUMENTS, Argument, Flag},
    },
    options::Form,
    sink::json::SCHEMA,
    ui,
};

/// Answers, and returns the exit code.
pub fn answer(form: Form, question: Question) -> Result<u8> {
    let text = match form {
        Form::Text => ui::flags::draw(question),
        Form::Json => {
            lines(question).map_err(|error| Error::io("writing the output")(error.into()))?
        }
    };
    print(&text)?;
    Ok(0)
}

/// One object a line.
fn lines(question: Question) -> serde_json::Result<String> {
    let mut text = String::new();
    let mut push = |line: &Line| {
        text.push_str(&serde_json::to_string(line)?);
        text.push('\n');
        Ok::<_, serde_json::Error>(())
    };
    match question {
        Question::Everything => {
            for argument in ARGUMENTS {
                for flag in argument.flags {
                    push(&Line::flag(argument, flag))?;
                }
            }
        }
        Question::Argument(argument) => {
            for flag in argument.flags {
                push(&Line::flag(argument, flag))?;
            }
        }
        Question::Flag(argument, flag) => push(&Line::flag(argument, flag))?,
        Question::Value(argument, value) => push(&Line::value(argument, value))?,
        Question::AnyValue(value) => {
            for argument in ARGUMENTS {
                push(&Line::value(argument, value))?;
            }
        }
    }
    Ok(text)
}

#[derive(Serialize)]
struct Line {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    argument: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
    #[serde(serialize_with = "hex")]
    value: u64,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "known_hex")]
    mask: Option<u64>,
    arch: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    elsewhere: Vec<Elsewhere>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meaning: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<Vec<Name>>,
}

#[derive(Serialize)]
struct Elsewhere {
    arch: &'static str,
    #[serde(serialize_with = "hex")]
    value: u64,
}

impl Line {
    fn flag(argument: &Argument, flag: &'static Flag) -> Self {
        let elsewhere = flag.elsewhere.iter().flat_map(|&(archs, value)| {
            archs.split(", ").map(move |arch| Elsewhere { arch, value })
        });
        Self {
            schema: SCHEMA,
            kind: "flag",
            argument: argument.name,
            name: Some(flag.name),
            value: flag.value,
            mask: (flag.mask != flag.value).then_some(flag.mask),
            arch: flag.only_on.unwrap_or(ARCH),
            elsewhere: elsewhere.collect(),
            meaning: Some(flag.meaning),
            flags: None,
        }
    }

    fn value(argument: &Argument, value: u64) -> Self {
        let zero = argument.zero().filter(|_| value == 0).map(Name::Known);
        Self {
            schema: SCHEMA,
            kind: "flags",
            argument: argument.name,
            name: None,
            value,
            mask: None,
            arch: ARCH,
            elsewhere: Vec::new(),
            meaning: None,
            flags: Some(zero.into_iter().chain(argument.names(value)).collect()),
        }
    }
}

fn hex<S: Serializer>(value: &u64, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:#x}"))
}

fn known_hex<S: Serializer>(
    value: &Option<u64>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    match value {
        Some(value) => hex(value, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ask(what: Option<&str>, value: Option<&str>) -> Vec<Value> {
        let schema = include_str!("../../../docs/event.schema.json");
        let schema = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
        let text = lines(Question::new(what, value).unwrap()).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        for line in &lines {
            assert!(schema.is_valid(line), "{line}");
        }
        lines
    }

    #[test]
    fn flags_are_lines() {
        let count: usize = ARGUMENTS.iter().map(|argument| argument.flags.len()).sum();
        assert_eq!(ask(None, None).len(), count);
        assert_eq!(
            ask(Some("MAP_SHARED_VALIDATE"), None),
            [json!({
                "schema": 1, "type": "flag", "argument": "map", "name": "MAP_SHARED_VALIDATE",
                "value": "0x3", "mask": "0xf", "arch": "x86-64",
                "meaning": "MAP_SHARED, and unknown flags are refused",
            })]
        );
        let stack = &ask(Some("MCL_CURRENT"), None)[0];
        assert_eq!(
            stack["elsewhere"][1],
            json!({"arch": "powerpc", "value": "0x2000"})
        );
        assert_eq!(ask(Some("PROT_BTI"), None)[0]["arch"], "arm64");
    }

    #[test]
    fn numbers_are_lines() {
        assert_eq!(
            ask(Some("map"), Some("0x200021")),
            [json!({
                "schema": 1, "type": "flags", "argument": "map", "value": "0x200021",
                "arch": "x86-64", "flags": ["MAP_SHARED", "MAP_ANONYMOUS", "0x200000"],
            })]
        );
        let zeroes = ask(Some("0"), None);
        assert_eq!(zeroes[0]["flags"], json!(["PROT_NONE"]));
        assert_eq!(zeroes[2]["flags"], json!([]));
        assert_eq!(zeroes.len(), ARGUMENTS.len());
    }
}

use serde_json::{Value, json};

use super::*;
use crate::{
    event::Comm,
    maps::{Lock, add_details, diff::compare, parse_maps, parse_smaps, segment::classify},
};

fn written(vmas: Vec<Vma<'_>>) -> Value {
    let mut comm = [0; 16];
    comm[..2].copy_from_slice(b"p\xff");
    let space = AddressSpace {
        pid: 7,
        comm: Comm::new(comm),
        lock: Lock::PerVma,
        vmas,
        watch: None,
    };
    let mut out = Vec::new();
    write_space(&mut out, &space).unwrap();
    assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1);
    let value = serde_json::from_slice(&out).unwrap();
    assert_valid(&value);
    value
}

fn validator() -> jsonschema::Validator {
    let schema = include_str!("../../../../../docs/maps.schema.json");
    jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap()
}

fn assert_valid(value: &Value) {
    let errors: Vec<_> = validator()
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{value:#}\n{errors:#?}");
}

#[test]
fn a_space_has_all_its_fields() {
    let text = "1000-3000 rw-p 00000000 00:00 0 [heap]\n\
                3000-4000 r--s 00002000 103:0123 42 /f\u{fffd}\n4000-5000 ---p 00000000 00:00 0\n";
    let lines = parse_maps(text.as_bytes()).unwrap();
    let value = written(classify(lines, &Default::default()));
    let sum = |mut of: Value, vmas, size_bytes| {
        of["vmas"] = Value::from(vmas);
        of["size_bytes"] = Value::from(size_bytes);
        of
    };
    assert_eq!(
        value,
        json!({
            "schema": 1, "type": "maps", "pid": 7, "comm": "p\u{fffd}", "lock": "per-vma",
            "vmas": [
                {
                    "start": "0x1000", "end": "0x3000", "size_bytes": 8192, "prot": "rw-",
                    "shared": false, "segment": "heap", "certainty": "known",
                    "backing": "private-anonymous", "name": "[heap]",
                },
                {
                    "start": "0x3000", "end": "0x4000", "size_bytes": 4096, "prot": "r--",
                    "shared": true, "segment": "file", "certainty": "known",
                    "backing": "shared-file", "file": {
                        "path": "/f\u{fffd}", "dev": "103:123", "inode": 42, "offset_bytes": 8192,
                    },
                },
                {
                    "start": "0x4000", "end": "0x5000", "size_bytes": 4096, "prot": "---",
                    "shared": false, "segment": "guard", "certainty": "guessed",
                    "backing": "private-anonymous",
                },
            ],
            "segments": [
                sum(json!({ "segment": "heap" }), 1, 8192),
                sum(json!({ "segment": "guard" }), 1, 4096),
                sum(json!({ "segment": "file" }), 1, 4096),
            ],
            "backings": [
                sum(json!({ "backing": "private-anonymous" }), 2, 12288),
                sum(json!({ "backing": "shared-file" }), 1, 4096),
            ],
            "suspects": [],
            "total": sum(json!({}), 3, 16384),
        })
    );
}

#[test]
fn dangerous_vmas_say_so() {
    let lines = parse_maps(b"1000-3000 rwxp 00000000 00:00 0 [heap]\n").unwrap();
    let value = written(classify(lines, &Default::default()));
    let kinds = ["write-exec", "anon-exec", "heap-exec"];
    assert_eq!(value["vmas"][0]["suspects"], json!(kinds));
    let sums = kinds.map(|kind| json!({ "suspect": kind, "vmas": 1, "size_bytes": 8192 }));
    assert_eq!(value["suspects"], json!(sums));
    // Only events tell what a VMA was before.
    let mut bad = value.clone();
    bad["vmas"][0]["suspects"] = json!(["write-to-exec"]);
    assert!(!validator().is_valid(&bad));
}

#[test]
fn what_is_in_memory_is_there_where_it_was_asked_for() {
    let text = "1000-3000 rw-p 00000000 00:00 0 [heap]\nRss: 4 kB\nSwap: 8 kB\nVmFlags: rd\n";
    let (lines, details) = parse_smaps(text.as_bytes()).unwrap();
    let mut vmas = classify(lines, &Default::default());
    add_details(&mut vmas, &details);
    let value = written(vmas);
    for of in [&value["vmas"][0], &value["segments"][0], &value["total"]] {
        assert_eq!(of["resident_bytes"], 4096);
        assert_eq!(of["swapped_bytes"], 8192);
        assert_eq!(of["huge_bytes"], 0);
    }
}

#[test]
fn changes_have_all_their_fields() {
    let vmas =
        |text: &'static str| classify(parse_maps(text.as_bytes()).unwrap(), &Default::default());
    let before = vmas("1000-3000 rw-p 00000000 00:00 0 [heap]\n5000-6000 r--p 00000000 00:00 0\n");
    let after = vmas("1000-4000 rw-p 00000000 00:00 0 [heap]\n");
    let changes = compare(&before, &after);
    let space = AddressSpace {
        pid: 7,
        comm: Comm::new([0; 16]),
        lock: Lock::Mmap,
        vmas: after.clone(),
        watch: None,
    };
    let mut out = Vec::new();
    write_changes(&mut out, &space, &changes).unwrap();
    let value: Value = serde_json::from_slice(&out).unwrap();
    assert_valid(&value);
    assert_eq!(
        value,
        json!({
            "schema": 1, "type": "maps-diff", "pid": 7, "comm": "", "lock": "mmap",
            "changes": [
                {
                    "change": "grew", "delta_bytes": 4096,
                    "was": { "start": "0x1000", "end": "0x3000", "prot": "rw-" },
                    "start": "0x1000", "end": "0x4000", "size_bytes": 12288, "prot": "rw-",
                    "shared": false, "segment": "heap", "certainty": "known",
                    "backing": "private-anonymous", "name": "[heap]",
                },
                {
                    "change": "vanished", "delta_bytes": -4096,
                    "start": "0x5000", "end": "0x6000", "size_bytes": 4096, "prot": "r--",
                    "shared": false, "segment": "anon", "certainty": "known",
                    "backing": "private-anonymous",
                },
            ],
            "total": { "vmas": 1, "size_bytes": 12288 },
        })
    );
    for (at, key, wrong) in [
        (0, "more", json!(1)),
        (0, "change", json!("appeared")),
        (0, "was", json!({})),
        (1, "change", json!("grew")),
        (1, "segment", json!("brk")),
    ] {
        let mut bad = value.clone();
        bad["changes"][at][key] = wrong;
        assert!(!validator().is_valid(&bad), "{at} {key}");
    }
}

#[test]
fn the_schema_takes_nothing_else() {
    let lines = parse_maps(b"1000-3000 rw-p 00000000 00:00 0 [heap]\n").unwrap();
    let good = written(classify(lines, &Default::default()));
    for (pointer, key, wrong) in [
        ("", "more", json!(1)),
        ("", "lock", json!("none")),
        ("/vmas/0", "more", json!(1)),
        ("/vmas/0", "segment", json!("brk")),
        ("/vmas/0", "segment", json!("library")),
        ("/vmas/0", "part", json!("text")),
        ("/vmas/0", "resident_bytes", json!(1)),
        ("/segments/0", "more", json!(1)),
        ("/backings/0", "backing", json!("file")),
        ("/total", "segment", json!("heap")),
    ] {
        let mut bad = good.clone();
        bad.pointer_mut(pointer).unwrap()[key] = wrong;
        assert!(!validator().is_valid(&bad), "{pointer} {key}");
    }
}

#[test]
fn faults_have_all_their_fields() {
    use crate::{
        maps::faults::{ByMapping, Sum},
        sample,
    };
    let lines = parse_maps(b"1000-3000 rw-p 00000000 00:00 0 [heap]\n").unwrap();
    let space = AddressSpace {
        pid: 7,
        comm: Comm::new([0; 16]),
        lock: Lock::PerVma,
        vmas: classify(lines, &Default::default()),
        watch: None,
    };
    let sum = |minor| Sum {
        minor,
        major: 1,
        touched_bytes: 4096,
    };
    let mut by_mapping = ByMapping {
        vmas: vec![sum(1)],
        unmapped: sum(2),
        roomless: sum(3),
        total: sum(6),
        tells_touched: true,
    };
    let written = |by_mapping: &ByMapping| -> Value {
        let mut out = Vec::new();
        faults::write(&mut out, &space, by_mapping, 5, &sample::ledger()).unwrap();
        let value = serde_json::from_slice(&out).unwrap();
        assert_valid(&value);
        value
    };
    let mut value = written(&by_mapping);
    assert!(value["ledger"].take().is_object());
    let told = |minor| json!({ "minor": minor, "major": 1, "touched_bytes": 4096 });
    assert_eq!(
        value,
        json!({
            "schema": 1, "type": "maps-faults", "pid": 7, "comm": "", "lock": "per-vma",
            "elapsed_ns": 5,
            "vmas": [{
                "start": "0x1000", "end": "0x3000", "size_bytes": 8192, "prot": "rw-",
                "shared": false, "segment": "heap", "certainty": "known",
                "backing": "private-anonymous", "name": "[heap]", "faults": told(1),
            }],
            "unmapped": told(2),
            "roomless": { "minor": 3, "major": 1 },
            "total": { "vmas": 1, "size_bytes": 8192, "faults": told(6) },
            "ledger": null,
        })
    );
    by_mapping.tells_touched = false;
    let value = written(&by_mapping);
    assert_eq!(
        value["vmas"][0]["faults"],
        json!({ "minor": 1, "major": 1 })
    );
}

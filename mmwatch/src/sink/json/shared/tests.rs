use serde_json::{Value, json};

use super::*;
use crate::{
    sample::{self, SHARING},
    shared::Wanted,
};

fn written(shared: &Shared) -> Vec<Value> {
    let mut out = Vec::new();
    write_objects(&mut out, shared).unwrap();
    let lines = out.split_inclusive(|&byte| byte == b'\n');
    let values: Vec<Value> = lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    for value in &values {
        let errors: Vec<_> = validator()
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{value:#}\n{errors:#?}");
    }
    values
}

fn validator() -> jsonschema::Validator {
    let schema = include_str!("../../../../../docs/shared.schema.json");
    jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap()
}

#[test]
fn an_object_has_all_its_fields() {
    let mut shared = sample::shared(&SHARING, &Wanted::All);
    shared.unread_processes = 2;
    let mapping = |start: &str, end: &str, size_bytes: u64, prot, offset_bytes: u64| {
        json!({
            "start": start, "end": end, "size_bytes": size_bytes, "prot": prot, "shared": true,
            "offset_bytes": offset_bytes,
        })
    };
    let all = written(&shared);
    assert_eq!(all.len(), 3);
    assert_eq!(
        all[0],
        json!({
            "schema": 1, "type": "shared", "lock": "per-vma", "unread_processes": 2,
            "kind": "posix-shm", "certainty": "known", "dev": "00:1a", "inode": 42,
            "paths": ["/dev/shm/ri\"ng"], "common_bytes": 4096,
            "processes": [
                {
                    "pid": 7, "comm": "w\"&\n",
                    "mappings": [mapping("0x1000", "0x3000", 8192, "rw-", 0)],
                },
                {
                    "pid": 8, "comm": "reader",
                    "mappings": [mapping("0x1000", "0x2000", 4096, "r--", 4096)],
                },
                {
                    "pid": 9, "comm": "both",
                    "mappings": [mapping("0x1000", "0x2000", 4096, "r--", 4096)],
                },
            ],
            "talks": [{ "writers": [7], "readers": [8, 9], "bytes": 4096 }],
        })
    );
}

#[test]
fn a_segment_has_its_number_and_a_device_no_talks() {
    let all = written(&sample::shared(&SHARING, &Wanted::All));
    let of = |kind: &str| all.iter().find(|object| object["kind"] == kind).unwrap();
    let segment = of("sysv-shm");
    assert_eq!(segment["shmid"], 3);
    assert_eq!(segment["ipc_namespace"], 1);
    assert_eq!(
        segment["talks"],
        json!([{ "writers": [7, 9], "readers": [7, 9], "bytes": 4096 }])
    );
    let device = of("device");
    assert_eq!(device["certainty"], "guessed");
    assert!(device["talks"].is_null() && device["shmid"].is_null());
}

#[test]
fn the_schema_knows_every_kind_and_takes_nothing_else() {
    let shared = sample::shared(&SHARING, &Wanted::All);
    for &kind in FileKind::ALL {
        let mut shared = shared.clone();
        for object in &mut shared.objects {
            object.kind = kind;
            object.id.ipc_namespace = (kind == FileKind::SysvShm).then_some(1);
        }
        written(&shared);
    }
    let good = written(&shared).swap_remove(0);
    for (pointer, key, wrong) in [
        ("", "more", json!(1)),
        ("", "kind", json!("pipe")),
        ("", "kind", json!("device")),
        ("", "kind", json!("sysv-shm")),
        ("", "shmid", json!(1)),
        ("", "processes", json!([])),
        ("/processes/0", "more", json!(1)),
        ("/processes/0", "mappings", json!([])),
        ("/processes/0/mappings/0", "prot", json!("rw-s")),
        ("/processes/0/mappings/0", "more", json!(1)),
        ("/talks/0", "bytes", json!(0)),
        ("/talks/0", "more", json!(1)),
    ] {
        let mut bad = good.clone();
        bad.pointer_mut(pointer).unwrap()[key] = wrong;
        assert!(!validator().is_valid(&bad), "{pointer} {key}");
    }
}

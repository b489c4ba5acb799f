use std::sync::Arc;

use jsonschema::Validator;
use serde_json::{Value, json};

use super::*;
use crate::{
    churn::{By, ProcessKey},
    event::{Comm, Op, Suspect},
    flags::{MapFlags, Prot},
    identity::{Cgroup, Names, Who},
    recording::{Broken, Ending},
    sample,
    verify::{Checked, Difference, Verdict},
};

fn validator() -> Validator {
    let schema = include_str!("../../../../docs/event.schema.json");
    jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap()
}

fn assert_valid(line: &Value) {
    let errors: Vec<_> = validator()
        .iter_errors(line)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{line:#}\n{errors:#?}");
}

/// The lines that a sink writes.
fn lines(write: impl FnOnce(&mut Json<&mut Vec<u8>>) -> io::Result<()>) -> Vec<Value> {
    let mut out = Vec::new();
    let mut sink = Json::new(&mut out, WallClock::with_offset(sample::BOOT_AT_UNIX_NS));
    write(&mut sink).unwrap();
    sink.flush().unwrap();
    drop(sink);
    let text = String::from_utf8(out).unwrap();
    assert!(text.ends_with('\n'));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn line(event: &Event) -> Value {
    let mut lines = lines(|sink| sink.event(7, event));
    assert_eq!(lines.len(), 1);
    lines.remove(0)
}

#[test]
fn every_operation_is_valid() {
    for &op in Op::ALL {
        for event in [sample::event(op), sample::bare(op)] {
            let line = line(&event);
            assert_valid(&line);
            assert_eq!(line["op"], op.name());
        }
    }
    assert_valid(&line(&sample::failed_map()));
}

#[test]
fn suspects_are_named_where_there_are_any() {
    let line = line(&sample::suspect());
    assert_valid(&line);
    assert_eq!(line["suspects"], json!(["anon-exec", "write-to-exec"]));
    assert_eq!(line["old_prot"], "rw-");
    let mut none = self::line(&sample::event(Op::Map));
    assert!(none["suspects"].is_null());
    none["suspects"] = json!(["wrong"]);
    assert!(!validator().is_valid(&none));
}

#[test]
fn suspects_are_counted() {
    let mut report = sample::report();
    report.all.total.suspects[Suspect::HeapExec as usize] = 2;
    let lines = lines(|sink| sink.report(&report, &sample::ledger()));
    assert_valid(&lines[0]);
    assert_eq!(
        lines[0]["all"]["total"]["suspects"],
        json!({ "heap-exec": 2 })
    );
    assert_eq!(lines[0]["all"]["interval"]["suspects"], json!({}));
}

#[test]
fn a_map_has_all_its_fields() {
    assert_eq!(
        line(&sample::event(Op::Map)),
        json!({
            "schema": 1, "type": "event", "seq": 7, "section": 3,
            "time": "2026-11-21T10:00:01.234567890Z", "boot_ns": 1_234_567_890,
            "op": "map", "cause": "mmap",
            "pid": 100, "tid": 100, "comm": "sample", "uid": 1000,
            "start_boot_ns": 1000, "cgroup_id": 5,
            "addr": "0x7f1234567000", "len_bytes": 8192, "requested_len_bytes": 5000,
            "prot": "rw-", "flags": ["MAP_PRIVATE"], "backing": "private-file",
            "file": {
                "path": "/usr/lib/libc.so.6", "dev": "08:01", "inode": 42, "offset_bytes": 4096
            },
            "vmas": 20, "total_bytes": 409_600, "settled": true,
            "vmas_delta": 1, "vmas_made": 2, "total_delta_bytes": 8192, "duration_ns": 2500
        })
    );
}

/// Of a container with all its names.
fn contained() -> Arc<Who> {
    let path = format!("/kubepods/pod{}/crio-web.scope", "6b7f2c6e-9d0a".repeat(3));
    let mut cgroup = Cgroup::new(path);
    cgroup.owner.container.as_mut().unwrap().names = Names {
        name: Some("web".into()),
        image: Some("shop/web:1".into()),
        pod: Some("web-0".into()),
        pod_namespace: Some("shop".into()),
    };
    Arc::new(Who {
        namespace_pid: Some(1),
        here_pid: None,
        cgroup: Some(Arc::new(cgroup)),
    })
}

#[test]
fn containers_have_their_names() {
    let mut event = sample::event(Op::Map);
    event.who = Some(contained());
    let line = line(&event);
    assert_valid(&line);
    assert_eq!(line["container"], "web");
    assert_eq!(line["container_name"], "web");
    assert_eq!(line["pod_name"], "web-0");
    assert_eq!(line["pod_namespace"], "shop");

    let mut report = sample::report();
    report.processes[0].who = Some(contained());
    let told = |report: Report| {
        let lines = lines(|sink| sink.report(&report, &sample::ledger()));
        assert_valid(&lines[0]);
        lines[0].clone()
    };
    let process = &told(report.clone())["processes"][0];
    assert_eq!(process["container"], "web");
    assert_eq!(process["container_image"], "shop/web:1");
    assert_eq!(process["runtime"], "cri-o");
    assert_eq!(process["pod_namespace"], "shop");

    let grouped = |by| report.clone().grouped(by, 9, |uid| uid.to_string());
    let group = &told(grouped(By::Container))["groups"][0];
    assert_eq!(
        (&group["name"], &group["runtime"]),
        (&"web".into(), &"cri-o".into())
    );
    assert_eq!(group["container_name"], "web");
    assert_eq!(group["pod_name"], "web-0");
    let group = &told(grouped(By::Pod))["groups"][0];
    assert_eq!(group["name"], group["pod_uid"]);
    assert_eq!(group["pod_name"], "web-0");
    assert_eq!(group["container_name"], Value::Null);
    let group = &told(grouped(By::Comm))["groups"][0];
    assert_eq!(group["pod_name"], Value::Null);
}

#[test]
fn what_is_not_known_is_absent() {
    let line = line(&sample::bare(Op::Map));
    let mut keys: Vec<_> = line
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "boot_ns",
            "cause",
            "cgroup_id",
            "comm",
            "op",
            "pid",
            "schema",
            "seq",
            "start_boot_ns",
            "tid",
            "time",
            "type",
            "uid"
        ]
    );
}

#[test]
fn failures_and_others_address_spaces_show() {
    let mut failed = sample::failed_map();
    failed.actor.owner_tgid = 99;
    let line = line(&failed);
    assert_eq!(line["errno"], "ENOMEM");
    assert_eq!(line["errno_reason"], "vma_limit");
    assert_eq!(
        line["errno_text"],
        "the process has 20 VMAs, and vm.max_map_count is 19"
    );
    assert_eq!(line["owner_pid"], 99);
    assert_eq!(line["len_bytes"], 0);
    assert_eq!(line["backing"], "private-anonymous");
    assert_valid(&line);
}

#[test]
fn a_failure_without_a_known_reason_has_none() {
    let mut failed = sample::failed_map();
    failed.reason = None;
    let line = line(&failed);
    assert_eq!(line["errno"], "ENOMEM");
    assert_eq!(line.get("errno_reason"), None);
    assert_eq!(line.get("errno_text"), None);
    assert_valid(&line);
}

#[test]
fn vmas_made_and_merged_show_where_known() {
    let fields = |delta, removed| {
        let mut event = sample::event(Op::Protect);
        event.space.vmas_delta = Some(delta);
        event.space.vmas_removed = removed;
        let line = line(&event);
        assert_valid(&line);
        let number = |name: &str| line.get(name).and_then(Value::as_u64);
        (number("vmas_made"), number("vmas_merged"))
    };
    assert_eq!(fields(2, Some(0)), (Some(2), None));
    assert_eq!(fields(-2, Some(0)), (Some(0), Some(2)));
    assert_eq!(fields(-2, Some(3)), (Some(1), None));
    assert_eq!(fields(1, None), (None, None));
}

#[test]
fn odd_values_stay_valid() {
    let mut event = sample::event(Op::Map);
    let mut name = [b'\n'; 16];
    name[1] = 0xff;
    event.actor.comm = Comm::new(name);
    if let What::Map(map) = &mut event.what {
        map.prot = Some(Prot(u32::MAX));
        map.flags = Some(MapFlags(u32::MAX));
        map.file = Some((sample::file(None), u64::MAX));
        map.range.addr = Some(u64::MAX);
    }
    let odd = line(&event);
    assert_valid(&odd);
    assert_eq!(odd["comm"], format!("\n\u{fffd}{}", "\n".repeat(14)));
    assert_eq!(odd["prot"], "rwx");
    assert_eq!(odd["prot_flags"][0], "PROT_SEM");
    assert_eq!(
        odd["file"],
        json!({"dev": "08:01", "inode": 42, "offset_bytes": u64::MAX})
    );

    let mut event = sample::event(Op::Advise);
    assert_eq!(line(&event)["advice"], "MADV_DONTFORK");
    if let What::Advise(advise) = &mut event.what {
        advise.advice = Some(0x1234);
    }
    assert_eq!(line(&event)["advice"], "0x1234");
    assert_valid(&line(&event));
    // The third argument of mlock2 is no advice.
    event.cause = Cause::Mlock;
    assert_eq!(line(&event).get("advice"), None);
}

#[test]
fn a_recording_is_valid() {
    let mut out = Vec::new();
    let mut summary = sample::recording();
    recording::write_summary(&mut out, &summary).unwrap();
    let line: Value = serde_json::from_slice(&out).unwrap();
    assert_valid(&line);
    assert_eq!(line["elapsed_ns"], 60_000_000_000_u64);
    assert_eq!(line["losses"][0]["errno"], libc::ENOSPC);
    assert_eq!(line["losses"][1]["cause"], "kernel");
    assert!(line["broken_at_byte"].is_null());

    summary.ending = Ending::Broken(Broken {
        at_byte: 4711,
        why: "nothing",
    });
    out.clear();
    recording::write_summary(&mut out, &summary).unwrap();
    let line: Value = serde_json::from_slice(&out).unwrap();
    assert_valid(&line);
    assert_eq!(line["ending"], "broken");
    assert_eq!(line["broken_at_byte"], 4711);
}

#[test]
fn what_is_read_from_a_recording_says_so() {
    let mut ledger = sample::ledger();
    ledger.replay = Some(sample::replay());
    ledger.sinks[0].sink = "sums";
    ledger.closed = false;
    let lines = lines(|sink| {
        sink.report(&sample::report(), &ledger)?;
        sink.finish(&ledger)
    });
    for (line, account) in [(&lines[0], &lines[0]["ledger"]), (&lines[1], &lines[1])] {
        assert_valid(line);
        assert_eq!(account["recording"]["lost"], 17);
        assert_eq!(account["recording"]["sums"], "kernel");
        assert_eq!(account["lost"], 17);
    }
}

#[test]
fn the_ledger_is_the_last_line() {
    let lines = lines(|sink| {
        sink.event(1, &sample::event(Op::Map))?;
        sink.finish(&sample::ledger())
    });
    let types: Vec<_> = lines
        .iter()
        .map(|line| line["type"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["event", "ledger"]);
    assert_valid(&lines[1]);
    assert_eq!(lines[1]["fired"], 300);
    assert_eq!(lines[1]["summed"], 212);
    assert_eq!(lines[1]["lost"], 0);
    assert_eq!(lines[1]["balanced"], true);
    assert_eq!(lines[1]["hooks"][0]["hook"], "lock_released");
}

#[test]
fn a_report_is_one_line() {
    let lines = lines(|sink| sink.report(&sample::report(), &sample::ledger()));
    assert_eq!(lines.len(), 1);
    let report = &lines[0];
    assert_valid(report);
    assert_eq!(report["type"], "report");
    assert_eq!(report["interval_ns"], 2_000_000_000_u64);
    assert_eq!(report["processes"][0]["pid"], 200);
    assert_eq!(
        report["processes"][0]["interval"]["ops"]["map"]["count"],
        100
    );
    assert_eq!(
        report["all"]["total"]["backings"]["private-file"],
        json!({"maps": 101, "bytes": 101 * 8192})
    );
    assert_eq!(report["ledger"]["balanced"], true);
}

#[test]
fn the_schema_refuses_what_is_wrong() {
    let validator = validator();
    let valid = line(&sample::event(Op::Map));
    for (key, value) in [
        ("schema", json!(2)),
        ("type", json!("other")),
        ("op", json!("fly")),
        ("addr", json!(4096)),
        ("prot", json!("rwz")),
        ("errno", json!(12)),
        ("errno_reason", json!("Why")),
        ("errno_text", json!("")),
        ("vmas_merged", json!(0)),
        ("unheard_of", json!(1)),
    ] {
        let mut wrong = valid.clone();
        wrong[key] = value;
        assert!(!validator.is_valid(&wrong), "{key}");
    }
    for key in ["seq", "time", "pid", "comm"] {
        let mut wrong = valid.clone();
        wrong.as_object_mut().unwrap().remove(key);
        assert!(!validator.is_valid(&wrong), "{key}");
    }
}

#[test]
fn a_round_is_one_line() {
    let range = crate::space::Difference {
        range: 0x1000..0x3000,
        this: None,
        other: Some(crate::space::Mapping {
            prot: Prot(5),
            shared: false,
            backed: crate::space::Backed::File {
                dev: crate::event::Dev(8 << 20 | 1),
                inode: 42,
                offset: 4096,
            },
        }),
    };
    let checked = |tgid, verdict| Checked {
        key: ProcessKey::new(tgid, 1),
        comm: sample::comm("p"),
        vmas: 20,
        section: 3,
        operations: 5,
        events_applied: 4,
        verdict,
    };
    let round = Round {
        number: 1,
        processes: vec![
            checked(1, Verdict::Same),
            checked(2, Verdict::Healing(crate::space::Reason::Gap)),
            checked(3, Verdict::Different(vec![Difference::Range(range)])),
        ],
        ..Round::default()
    };
    let lines = lines(|sink| sink.round(&round, &sample::ledger()));
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    assert_valid(line);
    assert_eq!((&line["same"], &line["healing"]), (&1.into(), &1.into()));
    assert_eq!(line["processes"][1]["reason"], "section_missing");
    let difference = &line["processes"][2]["differences"][0];
    assert_eq!(difference["start"], "0x1000");
    assert_eq!(difference["kernel"]["dev"], "08:01");
    assert_eq!(difference["model"], Value::Null);
}

#[test]
fn addresses_are_in_hex() {
    for (address, want) in [
        (0, "\"0x0\""),
        (0x7f00_1000, "\"0x7f001000\""),
        (u64::MAX, "\"0xffffffffffffffff\""),
    ] {
        assert_eq!(serde_json::to_string(&Hex(address)).unwrap(), want);
    }
}

#[test]
fn faults_are_told_where_they_are_counted() {
    let report = |report: &_| lines(|json| json.report(report, &sample::ledger()))[0].clone();
    let told = report(&sample::with_faults(true));
    assert_valid(&told);
    let row = &told["processes"][0];
    assert_eq!(
        row["interval"]["faults"],
        json!({"minor": 120, "major": 3, "touched_bytes": 400 << 10})
    );
    assert_eq!(
        row["total"]["faults"],
        json!({
            "minor": 120, "major": 3, "touched_bytes": 400 << 10, "untouched_bytes": 400 << 10,
        })
    );
    // More touched than mapped: some of it was mapped before.
    assert_eq!(
        told["processes"][1]["total"]["faults"]["untouched_bytes"],
        0
    );

    let told = report(&sample::with_faults(false));
    assert_valid(&told);
    for part in ["interval", "total"] {
        let faults = &told["all"][part]["faults"];
        assert_eq!(faults, &json!({"minor": 120, "major": 3}));
    }
    let told = report(&sample::report());
    assert!(told["all"]["total"].get("faults").is_none());
}

use std::sync::Arc;

use jsonschema::Validator;
use serde_json::{Value, json};

use super::*;
use crate::{
    churn::By,
    identity::{Cgroup, Who},
    sample,
};

fn validator() -> Validator {
    let schema = include_str!("../../../../../docs/event.schema.json");
    jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap()
}

/// A report's line, valid by the schema.
#[track_caller]
fn line(poll: &Poll) -> Value {
    let mut out = Vec::new();
    write(
        &mut out,
        WallClock::with_offset(sample::BOOT_AT_UNIX_NS),
        poll,
    )
    .unwrap();
    assert_eq!(out.pop(), Some(b'\n'));
    let line = serde_json::from_slice(&out).unwrap();
    let errors: Vec<_> = validator()
        .iter_errors(&line)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{line:#}\n{errors:#?}");
    line
}

#[test]
fn groups_have_the_names_of_their_containers() {
    let mut poll = sample::poll();
    let mut cgroup = Cgroup::new("/docker/web".to_owned());
    cgroup.owner.container.as_mut().unwrap().names.name = Some("shop".into());
    let busy = poll.processes.iter_mut().find(|process| process.pid == 200);
    busy.unwrap().who = Arc::new(Who {
        here_pid: None,
        namespace_pid: None,
        cgroup: Some(Arc::new(cgroup)),
    });
    assert_eq!(
        line(&poll.clone().ranked(9))["processes"][0]["container_name"],
        "shop"
    );
    let group = &line(&poll.grouped(By::Container, 9, |uid| uid.to_string()))["groups"][0];
    assert_eq!(group["name"], "web");
    assert_eq!(group["container_name"], "shop");
    assert_eq!(group["runtime"], "docker");
}

#[test]
fn what_is_known_is_there_and_nothing_else() {
    let line = line(&sample::poll().ranked(4));
    assert_eq!(line["type"], "poll");
    assert_eq!(line["time"], "2026-11-21T10:00:04.000000000Z");
    assert_eq!(
        line["processes"][0],
        json!({
            "pid": 200, "start_ticks": 5200, "comm": "busy\u{7}", "uid": 1000, "ns_pid": 7,
            "cgroup": "/system.slice/docker-web.scope", "unit": "docker-web.scope",
            "container": "web", "runtime": "docker", "alive": true, "age_ns": 1_000_000_000,
            "vmas": 120, "vmas_peak": 120, "vmas_delta": 100, "total_bytes": 491_520,
            "total_delta_bytes": 409_600, "delta_span_ns": 2_000_000_000_u64,
            "backings": { "private-anonymous": { "vmas": 120, "bytes": 491_520 } }
        })
    );
    assert_eq!(line["processes"][1]["alive"], false);
    assert_eq!(
        line["processes"][2],
        json!({
            "pid": 300, "start_ticks": 5200, "comm": "b", "uid": 1000, "alive": true, "age_ns": 0,
            "changing": true, "vmas": 30, "vmas_peak": 40, "total_bytes": 122_880,
            "backings": { "private-anonymous": { "vmas": 30, "bytes": 122_880 } }
        })
    );
    assert_eq!(line["other"]["processes"], 1);
    assert_eq!(line["all"]["vmas"], 159);
    assert_eq!(line["unread_processes"], 4);
    assert_eq!(line["oldest_age_ns"], 1_000_000_000);
    assert!(line["groups"].is_null());
}

#[test]
fn who_may_not_be_read_has_a_size_alone() {
    let line = line(&sample::poll().ranked(9));
    assert_eq!(
        line["processes"][4],
        json!({
            "pid": 400, "start_ticks": 5200, "comm": "b", "uid": 1000, "alive": true,
            "age_ns": 1_000_000_000, "total_bytes": 5_368_709_120_u64
        })
    );
}

#[test]
fn groups_are_valid_and_add_up() {
    for by in By::ALL.into_iter().filter(|by| *by != By::Process) {
        let line = line(&sample::poll().grouped(by, 1, |uid| uid.to_string()));
        assert_eq!(line["by"], by.name());
        let vmas = |of: &Value| of["vmas"].as_u64().unwrap();
        let groups = line["groups"].as_array().unwrap();
        let sum = groups.iter().map(vmas).sum::<u64>() + vmas(&line["other"]);
        assert_eq!(sum, vmas(&line["all"]), "{by:?}");
    }
}

#[test]
fn the_schema_refuses_what_is_not_so() {
    let good = line(&sample::poll().ranked(9));
    for (pointer, wrong) in [
        ("/type", json!("poll2")),
        ("/processes/0/vmas_delta", json!("+1")),
        (
            "/processes/0/backings",
            json!({ "disk": { "vmas": 1, "bytes": 1 } }),
        ),
        ("/all/processes", json!(-1)),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = wrong;
        assert!(!validator().is_valid(&bad), "{pointer}");
    }
}

//! What is in `deploy/`, held against the schemas of Kubernetes and against what is built.
//!
//! The schemas are those that Kubernetes 1.33 publishes, by way of the crate `k8s-openapi`. They
//! know fields, their types and which must be there; they do not know what a string may say.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::PathBuf};

use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{Namespace, Pod},
    },
    schemars::{JsonSchema, SchemaGenerator},
};
use serde_json::{Value, json};

/// A file of the repository.
fn text(path: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).unwrap()
}

fn documents(path: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&text(path)).unwrap()
}

/// The schema of a kind, by which no field may be there that it does not know.
fn schema<T: JsonSchema>() -> Value {
    let schema = SchemaGenerator::default().into_root_schema_for::<T>();
    let mut schema = schema.to_value();
    close(&mut schema);
    schema
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.values_mut().for_each(close);
            // Of an object whose keys are its own, such as labels, it says what values are.
            if object.get("properties").is_some_and(Value::is_object) {
                object.entry("additionalProperties").or_insert(json!(false));
            }
        }
        Value::Array(list) => list.iter_mut().for_each(close),
        _ => {}
    }
}

/// What is wrong with a document.
fn faults(document: &Value) -> Vec<String> {
    let (api, schema) = match document["kind"].as_str() {
        Some("Namespace") => ("v1", schema::<Namespace>()),
        Some("Pod") => ("v1", schema::<Pod>()),
        Some("DaemonSet") => ("apps/v1", schema::<DaemonSet>()),
        other => panic!("no schema for {other:?}"),
    };
    assert_eq!(document["apiVersion"], api);
    jsonschema::validator_for(&schema)
        .unwrap()
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
fn manifests_are_what_kubernetes_knows() {
    for (path, kinds) in [
        (
            "deploy/kubernetes/daemonset.yaml",
            &["Namespace", "DaemonSet"][..],
        ),
        ("deploy/kubernetes/sidecar.yaml", &["Pod"]),
    ] {
        let documents = documents(path);
        let found: Vec<_> = documents.iter().map(|document| &document["kind"]).collect();
        assert_eq!(found, kinds, "{path}");
        for document in &documents {
            assert_eq!(faults(document), [""; 0], "{path}");
        }
    }
}

/// Spoils a manifest, and tells what is wrong with it then.
fn spoiled(pointer: &str, value: &Value) -> Vec<String> {
    let mut pod = documents("deploy/kubernetes/sidecar.yaml").remove(0);
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = pod.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Value::Null => parent.remove(name),
        value => parent.insert(name.to_owned(), value.clone()),
    };
    faults(&pod)
}

#[test]
fn what_kubernetes_does_not_know_is_noticed() {
    for (pointer, value) in [
        ("/spec/hostPid", json!(true)),
        ("/spec/shareProcessNamespace", json!("true")),
        ("/spec/containers", Value::Null),
        ("/spec/containers/1/name", Value::Null),
        (
            "/spec/containers/1/securityContext/readOnlyRootFileSystem",
            json!(true),
        ),
        (
            "/spec/containers/1/securityContext/capabilities/add",
            json!("BPF"),
        ),
        (
            "/spec/containers/1/securityContext/seccompProfile/type",
            Value::Null,
        ),
        ("/spec/containers/1/args", json!([1])),
        ("/metadata/labels/number", json!(1)),
    ] {
        assert_ne!(spoiled(pointer, &value), [""; 0], "{pointer} {value}");
    }
}

/// What the schemas cannot see: that names fit each other.
#[test]
fn names_fit_each_other() {
    let documents = documents("deploy/kubernetes/daemonset.yaml");
    let (namespace, set) = (&documents[0], &documents[1]);
    assert_eq!(set["metadata"]["namespace"], namespace["metadata"]["name"]);
    let (wanted, has) = (
        &set["spec"]["selector"]["matchLabels"],
        &set["spec"]["template"]["metadata"]["labels"],
    );
    assert_eq!(wanted, has);
    let pod = &set["spec"]["template"]["spec"];
    let names = |list: &Value| -> Vec<String> {
        let list = list.as_array().unwrap();
        let name = |item: &Value| item["name"].as_str().unwrap().to_owned();
        list.iter().map(name).collect()
    };
    assert_eq!(
        names(&pod["containers"][0]["volumeMounts"]),
        names(&pod["volumes"])
    );
    for path in [
        "deploy/kubernetes/daemonset.yaml",
        "deploy/kubernetes/sidecar.yaml",
    ] {
        let image = format!("registry.example/mmwatch:{}", env!("CARGO_PKG_VERSION"));
        assert!(text(path).contains(&image), "{path}");
    }
}

/// The image is mmwatch as `cargo xtask build --release --static` makes it, and nothing else.
#[test]
fn the_image_is_one_program() {
    let built = "target/x86_64-unknown-linux-gnu/release/mmwatch";
    let text_of_image = text("deploy/Containerfile");
    let lines: Vec<_> = text_of_image
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .collect();
    let copy = format!("COPY {built} /mmwatch");
    let entry = r#"ENTRYPOINT ["/mmwatch"]"#;
    assert_eq!(lines[0], "FROM scratch");
    assert!(lines[1].starts_with("LABEL "));
    assert_eq!(lines[2..], [copy.as_str(), entry]);
    let sent = text("deploy/Containerfile.dockerignore");
    assert_eq!(sent, format!("*\n!{built}\n"));
}

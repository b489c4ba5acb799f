//! What the executable is made of besides mmwatch, and under which licences: those that
//! it is linked with ask for their notices to go along.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{name_of, sorted};
use crate::{build::TARGET, process, workspace::Workspace};

/// The crates whose code is in the executable, kernel programs included.
const ROOTS: [&str; 2] = ["mmwatch", "mmwatch-ebpf"];

/// A list of all crates, and then the text of each licence, once, with the crates that
/// come with just this text.
pub fn third_party(workspace: &Workspace) -> Result<String> {
    let mut cargo = workspace.cargo("metadata");
    cargo.args([
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        TARGET,
    ]);
    let metadata: Value =
        serde_json::from_str(&process::quiet_stdout(&mut cargo)?).context("cargo metadata")?;
    let linked = linked(&metadata);

    let mut list = String::from(
        "mmwatch is made of these crates, besides its own, of Rust's standard library (MIT OR\n\
         Apache-2.0) and of the GNU C library (LGPL-2.1-or-later):\n\n",
    );
    let mut texts = BTreeMap::<String, Vec<String>>::new();
    for package in array(&metadata["packages"]) {
        // What has no source is in this repository.
        if !linked.contains(text(&package["id"])) || package["source"].is_null() {
            continue;
        }
        let crate_ = format!("{} {}", text(&package["name"]), text(&package["version"]));
        list += &format!("{crate_}: {}\n", text(&package["license"]));
        let manifest = Path::new(text(&package["manifest_path"]));
        for notice in notices(
            manifest
                .parent()
                .context("a manifest without a directory")?,
        )? {
            texts.entry(notice).or_default().push(crate_.clone());
        }
    }
    for (notice, crates) in texts {
        list += &format!(
            "\n{}\n{}:\n\n{}\n",
            "-".repeat(80),
            crates.join(", "),
            notice
        );
    }
    Ok(list)
}

/// The ids of what is linked: not what only builds or tests it.
fn linked(metadata: &Value) -> BTreeSet<&str> {
    let nodes: BTreeMap<_, _> = array(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| (text(&node["id"]), node))
        .collect();
    let mut wanted: Vec<_> = array(&metadata["packages"])
        .iter()
        .filter(|package| ROOTS.contains(&text(&package["name"])))
        .map(|package| text(&package["id"]))
        .collect();
    let mut linked = BTreeSet::new();
    while let Some(id) = wanted.pop() {
        if !linked.insert(id) {
            continue;
        }
        let dependencies = nodes.get(id).map_or(&[][..], |node| array(&node["deps"]));
        wanted.extend(
            dependencies
                .iter()
                .filter(|dependency| {
                    let kinds = array(&dependency["dep_kinds"]);
                    kinds.iter().any(|kind| kind["kind"].is_null())
                })
                .map(|dependency| text(&dependency["pkg"])),
        );
    }
    linked
}

/// The licences that lie in a crate's directory.
fn notices(dir: &Path) -> Result<Vec<String>> {
    let mut notices = Vec::new();
    for path in sorted(dir)? {
        let name = name_of(&path)?.to_ascii_uppercase();
        if ["LICEN", "COPYING", "NOTICE", "COPYRIGHT"]
            .iter()
            .any(|word| name.starts_with(word))
            && path.is_file()
        {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            notices.push(text.replace('\r', "").trim().to_owned());
        }
    }
    Ok(notices)
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_only_builds_or_tests_is_not_linked() {
        let normal = json!([{"kind": null}]);
        let metadata = json!({
            "packages": [{"id": "m", "name": "mmwatch"}, {"id": "x", "name": "xtask"}],
            "resolve": {"nodes": [
                {"id": "m", "deps": [
                    {"pkg": "linked", "dep_kinds": normal},
                    {"pkg": "builds", "dep_kinds": [{"kind": "build"}]},
                    {"pkg": "tests", "dep_kinds": [{"kind": "dev"}]},
                    {"pkg": "both", "dep_kinds": [{"kind": "dev"}, {"kind": null}]},
                ]},
                {"id": "linked", "deps": [{"pkg": "below", "dep_kinds": normal}]},
                {"id": "builds", "deps": [{"pkg": "not", "dep_kinds": normal}]},
                {"id": "x", "deps": [{"pkg": "not", "dep_kinds": normal}]},
            ]},
        });
        let linked: Vec<_> = linked(&metadata).into_iter().collect();
        assert_eq!(linked, ["below", "both", "linked", "m"]);
    }
}

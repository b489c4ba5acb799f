//! Cgroups, and what their containers were called then, as text.

use serde::{Deserialize, Serialize};

use crate::identity::{Cgroup, Names, Runtime};

/// What the path does not tell is told, too.
#[derive(Serialize, Deserialize)]
struct Said {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    runtime: Option<Runtime>,
    #[serde(skip_serializing_if = "is_nameless", default)]
    names: Names,
}

fn is_nameless(names: &Names) -> bool {
    *names == Names::default()
}

pub(super) fn to_text(cgroup: &Cgroup) -> String {
    let container = cgroup.owner.container.as_ref();
    let said = Said {
        path: cgroup.path.clone(),
        runtime: container.and_then(|container| container.runtime),
        names: container
            .map(|container| container.names.clone())
            .unwrap_or_default(),
    };
    // Text alone, so that it cannot fail.
    serde_json::to_string(&said).unwrap_or_default()
}

/// `None` for text that is none of a cgroup's.
pub(super) fn of_text(text: &str) -> Option<Cgroup> {
    let Said {
        path,
        runtime,
        names,
    } = serde_json::from_str(text).ok()?;
    let mut cgroup = Cgroup::new(path);
    if let Some(container) = &mut cgroup.owner.container {
        container.runtime = runtime;
        container.names = names;
    }
    Some(cgroup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let id = "4f0c".repeat(16);
        let mut cgroup = Cgroup::new(format!("/kubepods/pod77/{id}"));
        assert_eq!(of_text(&to_text(&cgroup)), Some(cgroup.clone()));
        let container = cgroup.owner.container.as_mut().unwrap();
        container.runtime = Some(Runtime::Crio);
        container.names.name = Some("web".into());
        container.names.pod = Some("shop".into());
        assert_eq!(of_text(&to_text(&cgroup)), Some(cgroup));
        let plain = Cgroup::new("/system.slice/größe.service".into());
        let text = to_text(&plain);
        assert!(!text.contains("names"), "{text}");
        assert_eq!(of_text(&text), Some(plain));
        assert_eq!(of_text("/system.slice"), None);
    }
}

//! What is in the tarball and in Debian's package, and where.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{Release, debian, name_of};

/// What it is put together from.
pub struct Parts {
    /// The repository.
    pub root: PathBuf,
    /// The executable as it is installed.
    pub executable: PathBuf,
    /// Man pages: name and file.
    pub pages: Vec<(String, PathBuf)>,
    /// Completions: shell and script.
    pub completions: Vec<(&'static str, String)>,
    /// The documentation.
    pub docs: Vec<PathBuf>,
    /// Licences of what the executable is made of.
    pub third_party: String,
}

/// A file that is distributed.
#[derive(Debug)]
pub struct File {
    /// Where, without a slash at the beginning. What ends in `.gz` is compressed.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// What is in it.
    pub content: Content,
}

/// What is in a file.
#[derive(Debug)]
pub enum Content {
    /// What is in another one.
    Of(PathBuf),
    /// This.
    Text(String),
}

impl Content {
    /// The bytes.
    pub fn read(&self) -> Result<Vec<u8>> {
        match self {
            Self::Of(path) => {
                fs::read(path).with_context(|| format!("cannot read {}", path.display()))
            }
            Self::Text(text) => Ok(text.clone().into_bytes()),
        }
    }
}

/// What of `deploy` is distributed beside the unit and the configuration. The
/// Containerfile is not: it wants the repository.
const EXAMPLES: [&str; 5] = [
    "grafana/mmwatch.json",
    "kubernetes/daemonset.yaml",
    "kubernetes/sidecar.yaml",
    "prometheus/alerts.yaml",
    "seccomp.json",
];

const UNIT: &str = "deploy/systemd/mmwatch.service";
const CONFIGURATION: &str = "deploy/mmwatch.toml";

impl Parts {
    fn of(&self, path: &str) -> Content {
        Content::Of(self.root.join(path))
    }
}

fn file(path: impl Into<String>, content: Content) -> File {
    File {
        path: path.into(),
        mode: 0o644,
        content,
    }
}

fn program(path: &str, parts: &Parts) -> File {
    File {
        mode: 0o755,
        ..file(path, Content::Of(parts.executable.clone()))
    }
}

/// The documentation under `dir`, so that links from one file to another hold.
fn documents(dir: &str, parts: &Parts) -> Vec<File> {
    let docs = parts.docs.iter().filter_map(|path| {
        let name = name_of(path).ok()?;
        Some(file(format!("{dir}docs/{name}"), Content::Of(path.clone())))
    });
    [file(format!("{dir}README.md"), parts.of("README.md"))]
        .into_iter()
        .chain(docs)
        .collect()
}

/// The tarball: what is in the repository is where it is there.
pub fn tarball(parts: &Parts) -> Vec<File> {
    let mut files = vec![program("mmwatch", parts)];
    for name in [
        "CHANGELOG.md",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        UNIT,
        CONFIGURATION,
    ] {
        files.push(file(name, parts.of(name)));
    }
    files.push(file(
        "THIRD-PARTY.txt",
        Content::Text(parts.third_party.clone()),
    ));
    files.extend(documents("", parts));
    for name in EXAMPLES {
        let path = format!("deploy/{name}");
        let content = parts.of(&path);
        files.push(file(path, content));
    }
    for (name, page) in &parts.pages {
        let path = format!("man/man{}/{name}", section(name));
        files.push(file(path, Content::Of(page.clone())));
    }
    for (shell, script) in &parts.completions {
        let path = format!("completions/{}", completion_name(shell));
        files.push(file(path, Content::Text(script.clone())));
    }
    files
}

/// Debian's package: everything where its policy and the shells look for it.
pub fn debian(parts: &Parts, release: &Release) -> Result<Vec<File>> {
    const DOC: &str = "usr/share/doc/mmwatch/";
    let mut files = vec![
        program("usr/bin/mmwatch", parts),
        file("usr/lib/systemd/system/mmwatch.service", parts.of(UNIT)),
        file(debian::CONFIGURATION, parts.of(CONFIGURATION)),
        file(
            format!("{DOC}copyright"),
            parts.of("deploy/debian/copyright"),
        ),
        file(format!("{DOC}changelog.gz"), parts.of("CHANGELOG.md")),
        file(
            format!("{DOC}changelog.Debian.gz"),
            Content::Text(debian::changelog(release)?),
        ),
        file(
            format!("{DOC}THIRD-PARTY.txt.gz"),
            Content::Text(parts.third_party.clone()),
        ),
        file(
            "usr/share/lintian/overrides/mmwatch",
            parts.of("deploy/debian/lintian-overrides"),
        ),
    ];
    files.extend(documents(DOC, parts));
    for name in EXAMPLES {
        let content = parts.of(&format!("deploy/{name}"));
        files.push(file(format!("{DOC}examples/{name}"), content));
    }
    for (name, page) in &parts.pages {
        let path = format!("usr/share/man/man{}/{name}.gz", section(name));
        files.push(file(path, Content::Of(page.clone())));
    }
    for (shell, script) in &parts.completions {
        let path = match *shell {
            "bash" => "usr/share/bash-completion/completions/mmwatch",
            "zsh" => "usr/share/zsh/vendor-completions/_mmwatch",
            _ => "usr/share/fish/vendor_completions.d/mmwatch.fish",
        };
        files.push(file(path, Content::Text(script.clone())));
    }
    Ok(files)
}

/// What a shell wants its file to be called.
fn completion_name(shell: &str) -> String {
    match shell {
        "zsh" => "_mmwatch".to_owned(),
        shell => format!("mmwatch.{shell}"),
    }
}

/// The section of the manual that a page is in.
fn section(page: &str) -> &str {
    Path::new(page)
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or("1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let pages = ["mmwatch.1", "mmwatch-top.1", "mmwatch.toml.5"];
        Parts {
            executable: "/made/mmwatch".into(),
            pages: pages
                .map(|name| (name.to_owned(), Path::new("/made").join(name)))
                .into(),
            completions: ["bash", "zsh", "fish"]
                .map(|shell| (shell, String::new()))
                .into(),
            docs: vec![root.join("docs/agent.md")],
            third_party: String::new(),
            root,
        }
    }

    fn release() -> Release {
        Release {
            version: "1.2.3",
            revision: 1,
            epoch: 1_700_000_000,
        }
    }

    /// Modes and paths, as `ls` would list them.
    fn listed(files: &[File]) -> Vec<String> {
        let mut lines: Vec<_> = files
            .iter()
            .map(|file| format!("{:o} {}", file.mode, file.path))
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn the_package_s_files_are_where_debian_wants_them() {
        assert_eq!(
            listed(&debian(&parts(), &release()).unwrap()),
            [
                "644 etc/mmwatch/mmwatch.toml",
                "644 usr/lib/systemd/system/mmwatch.service",
                "644 usr/share/bash-completion/completions/mmwatch",
                "644 usr/share/doc/mmwatch/README.md",
                "644 usr/share/doc/mmwatch/THIRD-PARTY.txt.gz",
                "644 usr/share/doc/mmwatch/changelog.Debian.gz",
                "644 usr/share/doc/mmwatch/changelog.gz",
                "644 usr/share/doc/mmwatch/copyright",
                "644 usr/share/doc/mmwatch/docs/agent.md",
                "644 usr/share/doc/mmwatch/examples/grafana/mmwatch.json",
                "644 usr/share/doc/mmwatch/examples/kubernetes/daemonset.yaml",
                "644 usr/share/doc/mmwatch/examples/kubernetes/sidecar.yaml",
                "644 usr/share/doc/mmwatch/examples/prometheus/alerts.yaml",
                "644 usr/share/doc/mmwatch/examples/seccomp.json",
                "644 usr/share/fish/vendor_completions.d/mmwatch.fish",
                "644 usr/share/lintian/overrides/mmwatch",
                "644 usr/share/man/man1/mmwatch-top.1.gz",
                "644 usr/share/man/man1/mmwatch.1.gz",
                "644 usr/share/man/man5/mmwatch.toml.5.gz",
                "644 usr/share/zsh/vendor-completions/_mmwatch",
                "755 usr/bin/mmwatch",
            ]
        );
    }

    #[test]
    fn the_tarball_is_laid_out_like_the_repository() {
        assert_eq!(
            listed(&tarball(&parts())),
            [
                "644 CHANGELOG.md",
                "644 LICENSE-APACHE",
                "644 LICENSE-MIT",
                "644 README.md",
                "644 THIRD-PARTY.txt",
                "644 completions/_mmwatch",
                "644 completions/mmwatch.bash",
                "644 completions/mmwatch.fish",
                "644 deploy/grafana/mmwatch.json",
                "644 deploy/kubernetes/daemonset.yaml",
                "644 deploy/kubernetes/sidecar.yaml",
                "644 deploy/mmwatch.toml",
                "644 deploy/prometheus/alerts.yaml",
                "644 deploy/seccomp.json",
                "644 deploy/systemd/mmwatch.service",
                "644 docs/agent.md",
                "644 man/man1/mmwatch-top.1",
                "644 man/man1/mmwatch.1",
                "644 man/man5/mmwatch.toml.5",
                "755 mmwatch",
            ]
        );
    }

    #[test]
    fn what_comes_from_the_repository_is_there() {
        let parts = parts();
        for file in tarball(&parts)
            .iter()
            .chain(&debian(&parts, &release()).unwrap())
        {
            if let Content::Of(path) = &file.content
                && path.starts_with(&parts.root)
            {
                assert!(path.is_file(), "{}", path.display());
            }
        }
    }
}

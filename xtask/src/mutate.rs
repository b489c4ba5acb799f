//! `cargo xtask mutate`: breaks mmwatch on purpose, one thing at a time, and
//! demands that a test notices.
//!
//! It works on a copy of the sources, with a target directory of its own.

mod table;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use self::table::mutations;
use crate::{bpf, build, process, run::as_root, workspace::Workspace};

/// Seconds after which a test counts as hanging.
const PATIENCE: &str = "300";
/// Exit code of `timeout` for a command that it had to end.
const TIMED_OUT: i32 = 124;

/// What is asked of the mutations.
#[derive(clap::Args)]
pub struct Options {
    /// Only those with this in their name, file or test
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Only those of files that differ from the commit REV, or are not committed yet
    #[arg(long, value_name = "REV", num_args = 0..=1, default_missing_value = "HEAD")]
    changed: Option<String>,
    /// List them and try none
    #[arg(long)]
    list: bool,
    /// Print them as the tables of docs/reliability.md and try none
    #[arg(long)]
    markdown: bool,
}

/// One thing to break.
struct Mutation {
    /// What is broken.
    name: &'static str,
    /// Where, from the top directory.
    file: &'static str,
    /// What is there: exactly once.
    find: &'static str,
    /// What is put in its place.
    replace: &'static str,
    /// What has to fail then.
    test: Test,
}

/// Tests by a part of their names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Test {
    /// Unit tests of `mmwatch`.
    Unit(&'static str),
    /// Unit tests of `mmwatch-common`.
    Common(&'static str),
    /// Cases of the kernel tests, under every backend that there is.
    Kernel(&'static str),
    /// The same, under a backend that sees what was broken.
    Under(&'static str, &'static str),
}

/// A test binary.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binary {
    Unit,
    Common,
    Kernel,
}

impl Test {
    const fn binary(self) -> Binary {
        match self {
            Self::Unit(_) => Binary::Unit,
            Self::Common(_) => Binary::Common,
            Self::Kernel(_) | Self::Under(..) => Binary::Kernel,
        }
    }

    /// What test binaries take to run only these.
    fn filter(self) -> String {
        match self {
            Self::Unit(filter) | Self::Common(filter) | Self::Kernel(filter) => filter.to_owned(),
            Self::Under(backend, case) => format!("{backend}::{case}"),
        }
    }

    /// As the tables have it.
    fn shown(self) -> String {
        match self {
            Self::Unit(filter) => format!("unit: `{filter}`"),
            Self::Common(filter) => format!("unit (common): `{filter}`"),
            Self::Kernel(case) => format!("kernel: `{case}`"),
            Self::Under(backend, case) => format!("kernel: `{backend}::{case}`"),
        }
    }
}

/// How a test binary ended.
enum Ran {
    /// So many tests passed.
    Passed(u64),
    /// These did not.
    Failed(Vec<String>),
}

/// What came of one mutation.
enum Verdict {
    Caught(String),
    Survived,
    NotTried(String),
    Error(String),
}

/// Tries all that are asked for, and says which test caught which.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if options.markdown {
        print!("{}", markdown());
        return Ok(ExitCode::SUCCESS);
    }
    let changed = match &options.changed {
        Some(revision) => Some(changed(workspace, revision)?),
        None => None,
    };
    let wanted: Vec<_> = mutations()
        .filter(|mutation| mutation.is_wanted(options))
        .filter(|mutation| {
            let is_changed = |files: &BTreeSet<String>| files.contains(mutation.file);
            changed.as_ref().is_none_or(is_changed)
        })
        .collect();
    if options.list {
        for mutation in wanted {
            let test = mutation.test.shown();
            println!("{}: {} [{test}]", mutation.file, mutation.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    for mutation in &wanted {
        mutation.text(workspace.root())?;
    }

    let bench = Bench::new(workspace)?;
    let there = bench.baseline(&wanted)?;
    let mut rows = Vec::new();
    for (number, mutation) in wanted.iter().enumerate() {
        let verdict = if there[&mutation.test] == 0 {
            Verdict::NotTried(match mutation.test {
                Test::Under(backend, _) => format!("no {backend}"),
                Test::Unit(_) | Test::Common(_) | Test::Kernel(_) => "no such test".to_owned(),
            })
        } else {
            bench.attempt(mutation)
        };
        println!("[{}/{}] {}", number + 1, wanted.len(), mutation.name);
        println!("        {verdict}");
        rows.push((mutation, verdict));
    }

    let count = |of: fn(&Verdict) -> bool| rows.iter().filter(|(_, v)| of(v)).count();
    let caught = count(|verdict| matches!(verdict, Verdict::Caught(_)));
    let not_tried = count(|verdict| matches!(verdict, Verdict::NotTried(_)));
    println!(
        "\n==> {caught} of {} caught, {not_tried} not tried here",
        rows.len()
    );
    for (mutation, verdict) in &rows {
        match verdict {
            Verdict::Caught(_) => {}
            other => println!("  {}: {}: {other}", mutation.file, mutation.name),
        }
    }
    Ok(if caught + not_tried == rows.len() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Files that differ from a commit, from the top directory.
fn changed(workspace: &Workspace, revision: &str) -> Result<BTreeSet<String>> {
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        process::quiet_stdout(git.current_dir(workspace.root()).args(args))
    };
    let tracked = git(&["diff", "--name-only", "-z", revision, "--"])?;
    let new = git(&["ls-files", "-z", "--others", "--exclude-standard"])?;
    let names = tracked
        .split_terminator('\0')
        .chain(new.split_terminator('\0'));
    Ok(names.map(str::to_owned).collect())
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Caught(by) => write!(f, "caught by {by}"),
            Self::Survived => write!(f, "SURVIVED"),
            Self::NotTried(why) => write!(f, "not tried here: {why}"),
            Self::Error(why) => write!(f, "ERROR: {why}"),
        }
    }
}

impl Mutation {
    fn is_wanted(&self, options: &Options) -> bool {
        let Some(text) = options.only.as_deref() else {
            return true;
        };
        [self.name, self.file, &self.test.shown()]
            .iter()
            .any(|field| field.contains(text))
    }

    /// The file's text with this broken.
    fn text(&self, root: &Path) -> Result<String> {
        let path = root.join(self.file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let count = text.matches(self.find).count();
        ensure!(
            count == 1,
            "{}: {}: its text is there {count} times",
            self.file,
            self.name
        );
        Ok(text.replacen(self.find, self.replace, 1))
    }
}

/// The copy on which mutations are tried.
struct Bench {
    workspace: Workspace,
    target: PathBuf,
}

impl Bench {
    fn new(original: &Workspace) -> Result<Self> {
        let directory = original.target().join("mutants");
        let bench = Self {
            workspace: Workspace::at(directory.join("tree")),
            target: directory.join("target"),
        };
        let mut git = Command::new("git");
        git.current_dir(original.root());
        git.args(["ls-files", "-z", "--cached", "--others"]);
        git.arg("--exclude-standard");
        for name in process::quiet_stdout(&mut git)?.split_terminator('\0') {
            let (from, to) = (
                original.root().join(name),
                bench.workspace.root().join(name),
            );
            if from.is_file() {
                let bytes = fs::read(&from).with_context(|| format!("reading {name}"))?;
                // What did not change is not written: cargo goes by time.
                if fs::read(&to).ok().as_ref() != Some(&bytes) {
                    let parent = to.parent().context("a file without a directory")?;
                    fs::create_dir_all(parent)?;
                    fs::write(&to, bytes).with_context(|| format!("writing {name}"))?;
                }
            } else if to.exists() {
                fs::remove_file(&to)?;
            }
        }
        Ok(bench)
    }

    /// Runs every test as it is: all must pass. Returns how many there are of each.
    fn baseline(&self, mutations: &[&Mutation]) -> Result<BTreeMap<Test, u64>> {
        let mut there = BTreeMap::new();
        let mut built: BTreeMap<Binary, Command> = BTreeMap::new();
        for mutation in mutations {
            let test = mutation.test;
            if there.contains_key(&test) {
                continue;
            }
            let command = match built.entry(test.binary()) {
                Entry::Occupied(built) => built.into_mut(),
                Entry::Vacant(place) => place.insert(self.build(test.binary(), None, true)?),
            };
            match ran(command_of(test, command))? {
                Ran::Passed(0) if !matches!(test, Test::Under(..)) => {
                    bail!("there is no test {}", test.shown())
                }
                Ran::Passed(count) => {
                    println!("as it is: {}: {count} passed", test.shown());
                    there.insert(test, count);
                }
                Ran::Failed(names) => bail!(
                    "{} fails without any mutation: {}",
                    test.shown(),
                    names.join(", ")
                ),
            }
        }
        Ok(there)
    }

    /// Breaks, builds, tests, and puts back.
    fn attempt(&self, mutation: &Mutation) -> Verdict {
        self.try_attempt(mutation)
            .unwrap_or_else(|error| Verdict::Error(format!("{error:#}")))
    }

    fn try_attempt(&self, mutation: &Mutation) -> Result<Verdict> {
        let root = self.workspace.root();
        let path = root.join(mutation.file);
        let broken = mutation.text(root)?;
        let original = fs::read(&path)?;
        fs::write(&path, broken)?;
        let built = self.build_broken(mutation);
        fs::write(&path, original)?;
        Ok(match ran(command_of(mutation.test, &built?))? {
            Ran::Passed(_) => Verdict::Survived,
            Ran::Failed(names) => Verdict::Caught(names.join(", ")),
        })
    }

    /// Builds a test binary of what is broken. What the kernel programs are compiled from has
    /// them compiled anew; the tree's own stay as they are.
    fn build_broken(&self, mutation: &Mutation) -> Result<Command> {
        if !bpf::compiles(mutation.file) || mutation.test.binary() == Binary::Common {
            return self.build(mutation.test.binary(), None, false);
        }
        let objects = bpf::build(&self.workspace).context("the kernel programs do not build")?;
        self.build(mutation.test.binary(), Some(&objects.dir), false)
    }

    /// Builds a test binary, with kernel programs from a directory if one is given; returns how
    /// to run it.
    fn build(&self, binary: Binary, objects: Option<&Path>, loud: bool) -> Result<Command> {
        let mut cargo = self.workspace.cargo("test");
        if let Some(objects) = objects {
            cargo.env(bpf::OTHER_OBJECTS, objects);
        }
        cargo.env("CARGO_TARGET_DIR", &self.target);
        cargo.args(["--no-run", "--message-format=json-render-diagnostics"]);
        cargo.args(match binary {
            Binary::Unit => ["--package", "mmwatch", "--lib"].as_slice(),
            Binary::Common => &["--package", "mmwatch-common", "--lib"],
            Binary::Kernel => &["--package", "mmwatch", "--test", "kernel"],
        });
        let messages = if loud {
            process::stdout(&mut cargo)?
        } else {
            process::quiet_stdout(&mut cargo).context("it does not build")?
        };
        let timeout = Path::new("timeout");
        let (mut command, tests, directory) = match binary {
            Binary::Unit => (
                Command::new(timeout),
                build::executable(&messages, "lib", "mmwatch")?,
                "mmwatch",
            ),
            Binary::Common => (
                Command::new(timeout),
                build::executable(&messages, "lib", "mmwatch_common")?,
                "mmwatch-common",
            ),
            Binary::Kernel => (
                as_root(timeout)?,
                build::executable(&messages, "test", "kernel")?,
                "mmwatch",
            ),
        };
        if binary == Binary::Kernel {
            let mmwatch = build::executable(&messages, "bin", "mmwatch")?;
            command.env("MMWATCH_BIN", mmwatch);
        }
        command.current_dir(self.workspace.root().join(directory));
        command.arg(PATIENCE).arg(tests);
        Ok(command)
    }
}

/// How to run one test of a binary.
fn command_of(test: Test, built: &Command) -> Command {
    let mut command = Command::new(built.get_program());
    command.args(built.get_args()).arg(test.filter());
    for (name, value) in built.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    if let Some(directory) = built.get_current_dir() {
        command.current_dir(directory);
    }
    command
}

/// Runs tests; says nothing of what they print.
fn ran(mut command: Command) -> Result<Ran> {
    let line = process::line(&command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return passed(&text)
            .map(Ran::Passed)
            .with_context(|| format!("`{line}` does not say how many tests passed"));
    }
    if output.status.code() == Some(TIMED_OUT) {
        return Ok(Ran::Failed(vec![format!("hanging for {PATIENCE} s")]));
    }
    let names = failed(&text);
    ensure!(
        !names.is_empty(),
        "`{line}` failed ({}) without a failing test",
        output.status
    );
    Ok(Ran::Failed(names))
}

/// `test result: ok. 3 passed; …`
fn passed(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .rfind(|line| line.starts_with("test result:"))?;
    let words: Vec<_> = line.split_whitespace().collect();
    let place = words.iter().position(|word| word.starts_with("passed"))?;
    words.get(place.checked_sub(1)?)?.parse().ok()
}

/// The list of names after the last `failures:`.
fn failed(text: &str) -> Vec<String> {
    let mut names: Vec<_> = text
        .lines()
        .skip_while(|line| *line != "failures:")
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|name| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|c| c.is_alphanumeric() || "_:".contains(c))
        })
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The tables of the document.
fn markdown() -> String {
    let mut text = String::new();
    let mut file = "";
    for mutation in mutations() {
        if mutation.file != file {
            file = mutation.file;
            text += &format!("\n`{file}`\n\n| broken on purpose | caught by |\n| --- | --- |\n");
        }
        text += &format!("| {} | {} |\n", mutation.name, mutation.test.shown());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document that lists what is tried.
    const DOCUMENT: &str = "docs/reliability.md";
    /// The lines between which the tables are.
    const BEGIN: &str = "<!-- begin: cargo xtask mutate --markdown -->";
    const END: &str = "<!-- end -->";

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
    }

    #[test]
    fn each_mutation_finds_its_text_and_changes_it() {
        let stale: Vec<_> = mutations()
            .filter_map(|mutation| mutation.text(root()).err())
            .map(|error| error.to_string())
            .collect();
        assert!(stale.is_empty(), "{stale:#?}");
        for mutation in mutations() {
            assert_ne!(mutation.find, mutation.replace, "{}", mutation.name);
        }
    }

    #[test]
    fn no_two_have_one_name() {
        let mut names: Vec<_> = mutations().map(|m| (m.file, m.name)).collect();
        names.sort_unstable();
        for pair in names.windows(2) {
            assert_ne!(pair[0], pair[1]);
        }
    }

    #[test]
    fn the_document_lists_them_all() {
        let text = fs::read_to_string(root().join(DOCUMENT)).unwrap();
        let (_, rest) = text.split_once(BEGIN).unwrap();
        let (tables, _) = rest.split_once(END).unwrap();
        assert!(
            tables.trim() == markdown().trim(),
            "{DOCUMENT} is out of date: put what `cargo xtask mutate --markdown` prints between \
             its marks"
        );
    }

    #[test]
    fn outcomes_are_read_from_what_tests_print() {
        let ok = "running 2 tests\n\ntest result: ok. 2 passed; 0 failed; 0 ignored\n";
        assert_eq!(passed(ok), Some(2));
        assert_eq!(passed("nothing"), None);
        let bad = "test a::b ... FAILED\n\nfailures:\n\n---- a::b ----\n    at some line\n\n\
                   failures:\n    a::b\n    c\n\ntest result: FAILED. 0 passed; 2 failed\n";
        assert_eq!(failed(bad), ["a::b", "c"]);
    }
}

//! Man pages and completions for shells, made of the command line's definition and of
//! the commented configuration, so that nothing of them is written twice.

use std::{fs, io, path::Path};

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use roff::{Roff, bold, roman};

use crate::{
    agent::config::DEFAULT_FILE,
    cli::Cli,
    error::{Error, Result},
};

/// The configuration with every key: its comments are what mmwatch.toml(5) says.
const CONFIGURATION: &str = include_str!("../mmwatch.toml");

/// What stands below each page.
const SOURCE: &str = concat!("mmwatch ", env!("CARGO_PKG_VERSION"));

/// A man page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its file, as `mmwatch-top.1`.
    pub name: String,
    /// Its text in roff's language.
    pub text: String,
}

/// Writes all pages into a directory, which has to be there.
///
/// # Errors
///
/// [`Error::Io`] names the file that cannot be written.
pub fn write(dir: &Path) -> Result<()> {
    for page in pages().map_err(Error::io("making the man pages"))? {
        let path = dir.join(&page.name);
        fs::write(&path, page.text).map_err(Error::io(format!("writing {}", path.display())))?;
    }
    Ok(())
}

/// A page for mmwatch, for each command, and for the configuration.
fn pages() -> io::Result<Vec<Page>> {
    let mut root = visible(Cli::command())
        .disable_help_subcommand(true)
        .subcommand_help_heading("COMMANDS")
        .subcommand_value_name("COMMAND");
    root.build();
    let commands: Vec<_> = root.get_subcommands().cloned().collect();
    let mut pages = vec![page(root)?];
    for command in commands {
        pages.push(page(command)?);
    }
    pages.push(configuration());
    Ok(pages)
}

/// The script by which a shell completes mmwatch's arguments.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut visible(Cli::command()), "mmwatch", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// What users see of a command: what is hidden is for mmwatch itself.
fn visible(command: Command) -> Command {
    // clap can hide a command from its help, not from what makes completions.
    let mut seen = Command::new("mmwatch")
        .version(env!("CARGO_PKG_VERSION"))
        // Options that the short help leaves out have nowhere else to be told.
        .args(
            command
                .get_arguments()
                .cloned()
                .map(|arg| arg.hide_short_help(false)),
        );
    if let Some(about) = command.get_about() {
        seen = seen.about(about.clone());
    }
    if let Some(about) = command.get_long_about() {
        seen = seen.long_about(about.clone());
    }
    if let Some(text) = command.get_after_help() {
        seen = seen.after_help(text.clone());
    }
    let commands = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    seen.subcommands(
        commands
            .cloned()
            .map(|command| command.mut_args(|arg| arg.hide_short_help(false))),
    )
}

fn page(command: Command) -> io::Result<Page> {
    let is_root = command.has_subcommands();
    let after = command.get_after_help().map(ToString::to_string);
    let man = Man::new(command).source(SOURCE);
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if is_root {
        man.render_subcommands_section(&mut text)?;
    }
    let mut end = Roff::new();
    listings(&mut end, after.as_deref().unwrap_or_default());
    let others: &[_] = if is_root {
        &["mmwatch.toml(5)", "proc(5)", "mmap(2)"]
    } else {
        &["mmwatch(1)", "mmwatch.toml(5)"]
    };
    see_also(&mut end, others);
    end.to_writer(&mut text)?;
    Ok(Page {
        name: man.get_filename(),
        text: String::from_utf8_lossy(&text).into_owned(),
    })
}

/// The ends of help texts: sections of lines that stay as they are.
fn listings(roff: &mut Roff, text: &str) {
    for section in text.split("\n\n") {
        let Some((title, lines)) = section.split_once(":\n") else {
            continue;
        };
        roff.control("SH", [title.to_uppercase().as_str()]);
        roff.control("EX", []);
        for line in lines.lines() {
            roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
        }
        roff.control("EE", []);
    }
}

fn see_also(roff: &mut Roff, pages: &[&str]) {
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(pages.join(", "))]);
    roff.control("PP", []);
    roff.text([roman(env!("CARGO_PKG_REPOSITORY"))]);
}

/// mmwatch.toml(5): what the commented file says, in its order.
fn configuration() -> Page {
    let mut roff = Roff::new();
    roff.control("TH", ["mmwatch.toml", "5", SOURCE]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("mmwatch.toml - what mmwatch agent is told")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([bold(DEFAULT_FILE)]);
    roff.control("SH", ["DESCRIPTION"]);

    for paragraph in CONFIGURATION.split("\n\n") {
        describe(&mut roff, paragraph);
    }
    see_also(&mut roff, &["mmwatch-agent(1)"]);
    Page {
        name: "mmwatch.toml.5".into(),
        text: roff.render(),
    }
}

/// One paragraph of the commented file: the title of a section, or keys and what they
/// mean, or, as the file begins, what it is itself.
fn describe(roff: &mut Roff, paragraph: &str) {
    if let Some(title) = paragraph.strip_prefix("# --- ") {
        let title = title.trim_end_matches([' ', '-', '\n']);
        roff.control("SH", [title.to_uppercase().as_str()]);
        return;
    }
    let keys = paragraph
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| (line.contains(" = ") || line.starts_with('[')) && !line.starts_with(' '));
    for (nth, key) in keys.enumerate() {
        roff.control(if nth == 0 { "TP" } else { "TQ" }, []);
        roff.text([bold(key)]);
    }
    // The file's own name is above already, in the synopsis.
    let prose = paragraph
        .lines()
        .filter(|line| !line.ends_with(DEFAULT_FILE))
        .filter_map(|line| line.strip_prefix("# "));
    for line in prose {
        roff.text([roman(line)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::config::keys;

    fn named(name: &str) -> String {
        pages()
            .unwrap()
            .into_iter()
            .find(|page| page.name == name)
            .unwrap()
            .text
    }

    #[test]
    fn each_command_that_is_not_hidden_has_a_page() {
        let names: Vec<_> = pages().unwrap().into_iter().map(|page| page.name).collect();
        let command = Cli::command();
        let (hidden, shown): (Vec<_>, Vec<_>) = command
            .get_subcommands()
            .partition(|command| command.is_hide_set());
        for command in &shown {
            let name = format!("mmwatch-{}.1", command.get_name());
            assert!(names.contains(&name), "{name}");
        }
        assert!(names.contains(&"mmwatch.1".to_owned()));
        assert!(names.contains(&"mmwatch.toml.5".to_owned()));
        assert_eq!(names.len(), shown.len() + 2);
        assert!(named("mmwatch.1").contains(r"mmwatch\-top(1)"));
        assert!(!hidden.is_empty());
        for command in hidden {
            let name = format!("mmwatch-{}(1)", command.get_name()).replace('-', r"\-");
            assert!(!named("mmwatch.1").contains(&name), "{name}");
        }
    }

    #[test]
    fn pages_have_every_option_with_its_text() {
        let page = named("mmwatch-trace.1");
        for text in [r"\-\-min\-size", "Where sysfs is mounted", ".SH EXAMPLES\n"] {
            assert!(page.contains(text), "{text}: {page}");
        }
    }

    #[test]
    fn listings_keep_their_lines() {
        let mut roff = Roff::new();
        listings(
            &mut roff,
            "Examples:\n  one -a\n  two\n\nExit codes:\n  0  done\n",
        );
        let text = roff.to_roff();
        assert_eq!(
            text,
            ".SH EXAMPLES\n.EX\none \\-a\ntwo\n.EE\n.SH \"EXIT CODES\"\n.EX\n0  done\n.EE\n"
        );
    }

    #[test]
    fn the_configuration_s_page_has_every_key() {
        let page = named("mmwatch.toml.5");
        for key in keys() {
            // Those of a table stand below its name.
            let name = key.rsplit('.').next().unwrap();
            let header = format!(r"\fB{name} = ");
            assert!(page.contains(&header), "{header}: {page}");
        }
        assert!(page.contains(r"\fB[otlp]"), "{page}");
        assert!(!page.contains("\n#"), "{page}");
        for title in [".SH \"WHAT IS WATCHED\"", ".SH HTTP"] {
            assert!(page.contains(title), "{title}: {page}");
        }
    }

    #[test]
    fn completions_are_of_what_is_not_hidden() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completions(shell);
            for word in ["trace", "min-size", "private-anonymous", "fentry", "sysfs"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
            assert!(!script.contains("canary\""), "{shell}");
        }
    }
}

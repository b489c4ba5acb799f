//! Filters in a query, as a web address has them.

use clap::{Args as _, Command, FromArgMatches as _, error::ErrorKind};

use super::{System, filter, usage};
use crate::{cli::FilterArgs, error::Result, filter::Filter, process::page_bytes};

/// The filter that names and values of a query ask for: the options of `trace` without
/// their dashes, `op=map,unmap&min-size=1M&failed`. Whoever has processes already need
/// not live: a process that is not there is no error.
///
/// # Errors
///
/// [`Error::Usage`](crate::error::Error::Usage) for what is no filter, or none of its values.
pub fn of_query(asked: &[(String, String)], system: &System) -> Result<Filter> {
    let words = asked.iter().map(|(name, value)| {
        let name = name.replace('_', "-");
        if value.is_empty() {
            format!("--{name}")
        } else {
            format!("--{name}={value}")
        }
    });
    let args = FilterArgs::augment_args(Command::new("filter"))
        .no_binary_name(true)
        .disable_help_flag(true)
        .try_get_matches_from(words)
        .and_then(|matches| FilterArgs::from_arg_matches(&matches))
        .map_err(|error| usage(reason(&error)))?;
    Ok(Filter {
        kernel: filter::of_events(&args, system)?,
        cgroups: filter::within(&args),
        page_bytes: page_bytes(),
    })
}

/// What is wrong, without advice for a command line.
fn reason(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::UnknownArgument {
        let known: Vec<_> = FilterArgs::augment_args(Command::new("filter"))
            .get_arguments()
            .filter_map(|arg| arg.get_long())
            .map(str::to_owned)
            .collect();
        return format!(
            "there is no such filter; those that there are: {}",
            known.join(", ")
        );
    }
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    first.trim_start_matches("error: ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Op, filter::Within};

    fn filter(asked: &[(&str, &str)]) -> Result<Filter> {
        let asked: Vec<_> = asked
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        of_query(&asked, &System::default())
    }

    #[test]
    fn a_query_is_what_the_options_are() {
        assert!(filter(&[]).unwrap().is_all());
        let some = filter(&[
            ("op", "map,unmap"),
            ("min_size", "1M"),
            ("failed", ""),
            ("pid", "7"),
            ("pid", "8"),
            ("container", "web"),
        ]);
        let Filter {
            kernel, cgroups, ..
        } = some.unwrap();
        assert_eq!(kernel.ops, 1 << Op::Map as u32 | 1 << Op::Unmap as u32);
        assert_eq!((kernel.min_size_bytes, kernel.failed_only), (1 << 20, true));
        assert_eq!(kernel.pids, [7, 8]);
        assert_eq!(cgroups, Some(Within::Container("web".into())));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = |asked: &[(&str, &str)]| filter(asked).unwrap_err().to_string();
        assert!(wrong(&[("colour", "red")]).starts_with("there is no such filter; those"));
        assert!(wrong(&[("help", "")]).contains("min-size"));
        assert!(wrong(&[("op", "mop")]).starts_with("invalid value 'mop' for '--op <OP>'"));
        assert!(wrong(&[("op", "fork"), ("failed", "")]).contains("shows nothing"));
        assert!(wrong(&[("cgroup", "/a"), ("container", "b")]).contains("cannot be used with"));
        assert!(!wrong(&[("", "x")]).is_empty());
    }
}

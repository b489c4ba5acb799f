//! What the agent is told: a TOML file, and a flag for each of its keys.

mod otlp;

use std::{
    fmt,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use clap::{Args, CommandFactory as _, Parser, ValueEnum};
use serde::{Deserialize, Deserializer, de::Error as _};

pub use self::otlp::{Endpoint, Otlp, OtlpSettings, Protocol};
use crate::{
    agent::trusted::{self, Readers},
    churn::By,
    cli::{HooksArg, ScopeArg, by_parser},
    error::{Error, Result},
    text::{Escaped, parse_bytes, parse_duration},
};

/// The file that is read where none is named.
pub const DEFAULT_FILE: &str = "/etc/mmwatch/mmwatch.toml";

/// Where the agent listens by default.
const DEFAULT_PORT: u16 = 9464;

/// Groups with series of their own, at most: their number is the monitoring's load.
const MAX_TOP_K: usize = 1000;

/// Connections at the same time, at most.
const MAX_CONNECTIONS: usize = 1024;

/// Time between two looks at the kernel's sums.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));

/// What was set, in the file or by flags; what was not has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// All of the host, or only the agent's own pod or container [default: self in a
    /// container's pid namespace, else host]
    #[arg(long, value_enum, value_name = "SCOPE", help_heading = "Filters")]
    #[serde(deserialize_with = "word")]
    pub scope: Option<ScopeArg>,
    /// Only processes of this cgroup and of those below it, by its path
    #[arg(
        long,
        value_name = "PATH",
        conflicts_with = "container",
        help_heading = "Filters"
    )]
    pub cgroup: Option<String>,
    /// Only processes of this container, by its id or how that begins
    #[arg(long, value_name = "ID", help_heading = "Filters")]
    pub container: Option<String>,
    /// How to hook the kernel [default: auto]
    #[arg(long, value_enum, value_name = "HOOKS", help_heading = "Kernel")]
    #[serde(deserialize_with = "word")]
    pub hooks: Option<HooksArg>,
    /// Size of the ring buffer, for events; sums need none [default: 1M]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Kernel")]
    #[serde(deserialize_with = "bytes")]
    pub buffer: Option<u64>,
    /// Give up privileges and most system calls once the programs are attached [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "Kernel")]
    pub confine: Option<bool>,
    /// Time between two looks at the kernel's sums [default: 1s]
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub interval: Option<Duration>,
    /// What series are of [default: process]
    #[arg(long, value_name = "WHAT", value_parser = by_parser())]
    #[serde(deserialize_with = "by")]
    pub group_by: Option<By>,
    /// Groups, and processes, that have series of their own; all others are in `other` [default: 20]
    #[arg(long, value_name = "N")]
    pub top_k: Option<usize>,
    /// Time between two proofs that what a process maps is counted [default: 15s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub canary_interval: Option<Duration>,
    /// ADDRESS:PORT, or unix:PATH for a socket [default: 127.0.0.1:9464]
    #[arg(long, value_name = "WHERE", value_parser = Listen::from_str, help_heading = "HTTP")]
    #[serde(deserialize_with = "listen")]
    pub listen: Option<Listen>,
    /// Ask for the token in this file: `Authorization: Bearer TOKEN`
    #[arg(long, value_name = "FILE", help_heading = "HTTP")]
    pub token_file: Option<PathBuf>,
    /// Listen without a token to others than this machine; whoever reaches the port reads all but addresses
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "HTTP")]
    pub listen_insecurely: Option<bool>,
    /// Connections at the same time; others wait [default: 32]
    #[arg(long, value_name = "N", help_heading = "HTTP")]
    pub max_connections: Option<usize>,
    /// Time for a request's head to arrive, and for the answer to be made [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "HTTP")]
    #[serde(deserialize_with = "duration")]
    pub request_timeout: Option<Duration>,
    /// To whom metrics and events are sent.
    #[command(flatten)]
    pub otlp: OtlpSettings,
}

/// The settings alone, to list their keys.
#[derive(Parser)]
struct Alone {
    #[command(flatten)]
    _settings: Settings,
}

/// Every key of the file, in the order of `--help`; those of a table with its name and a dot.
pub fn keys() -> Vec<String> {
    Alone::command()
        .get_arguments()
        .map(|arg| arg.get_id().as_str().to_owned())
        .collect()
}

impl Settings {
    /// Reads a file's text; `path` is for the message.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] with line and column.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let (line, column) = place(text, start);
            let message = match unknown(error.message()) {
                Some(message) => message,
                None => error.message().to_owned(),
            };
            usage(format!("{}:{line}:{column}: {message}", path.display()))
        })
    }

    /// These, and of `others` what these leave open.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        // What is to be watched is one choice.
        let of_cgroups = if self.cgroup.is_some() || self.container.is_some() {
            (self.cgroup, self.container)
        } else {
            (others.cgroup, others.container)
        };
        Self {
            scope: self.scope.or(others.scope),
            cgroup: of_cgroups.0,
            container: of_cgroups.1,
            hooks: self.hooks.or(others.hooks),
            buffer: self.buffer.or(others.buffer),
            confine: self.confine.or(others.confine),
            interval: self.interval.or(others.interval),
            group_by: self.group_by.or(others.group_by),
            top_k: self.top_k.or(others.top_k),
            canary_interval: self.canary_interval.or(others.canary_interval),
            listen: self.listen.or(others.listen),
            token_file: self.token_file.or(others.token_file),
            listen_insecurely: self.listen_insecurely.or(others.listen_insecurely),
            max_connections: self.max_connections.or(others.max_connections),
            request_timeout: self.request_timeout.or(others.request_timeout),
            otlp: self.otlp.or(others.otlp),
        }
    }
}

/// What serde says of a key that does not exist, with the nearest of those that it names:
/// the keys of that table.
fn unknown(message: &str) -> Option<String> {
    let mut named = message
        .strip_prefix("unknown field `")?
        .split('`')
        .step_by(2);
    let (key, keys) = (named.next()?, named.collect::<Vec<_>>());
    let shown = Escaped(key.as_bytes());
    let likeness = |near: &str| strsim::jaro_winkler(key, near);
    let nearest = keys
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    Some(match nearest.filter(|near| likeness(near) > 0.7) {
        Some(near) => format!("there is no key `{shown}`; did you mean `{near}`?"),
        None => format!(
            "there is no key `{shown}`; those that there are: {}",
            keys.join(", ")
        ),
    })
}

/// Line and column of a byte, both from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

/// Where the agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On an address.
    Tcp(SocketAddr),
    /// On a socket of this name.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err("expected an absolute path after unix:".into())
            };
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            "expected an address and a port such as 127.0.0.1:9464 or [::1]:9464, or unix:/PATH"
                .into()
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What the agent does: every setting has its value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the setting of its name")]
pub struct Config {
    pub scope: Option<ScopeArg>,
    pub cgroup: Option<String>,
    pub container: Option<String>,
    pub hooks: HooksArg,
    pub buffer: u64,
    pub confine: bool,
    pub interval: Duration,
    pub group_by: By,
    pub top_k: usize,
    pub canary_interval: Duration,
    pub listen: Listen,
    pub token_file: Option<PathBuf>,
    pub listen_insecurely: bool,
    pub max_connections: usize,
    pub request_timeout: Duration,
    pub otlp: Option<Otlp>,
}

impl Config {
    /// Fills in the defaults, and checks.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for values that cannot be, alone or together.
    pub fn new(settings: Settings) -> Result<Self> {
        if settings.cgroup.is_some() && settings.container.is_some() {
            return Err(usage(
                "cgroup and container exclude each other; leave one of them out",
            ));
        }
        let config = Self {
            scope: settings.scope,
            cgroup: settings.cgroup,
            container: settings.container,
            hooks: settings.hooks.unwrap_or(HooksArg::Auto),
            buffer: settings.buffer.unwrap_or(1 << 20),
            confine: settings.confine.unwrap_or(true),
            interval: settings.interval.unwrap_or(Duration::from_secs(1)),
            group_by: settings.group_by.unwrap_or(By::Process),
            top_k: settings.top_k.unwrap_or(20),
            canary_interval: settings.canary_interval.unwrap_or(Duration::from_secs(15)),
            listen: settings.listen.unwrap_or(Listen::Tcp(SocketAddr::new(
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                DEFAULT_PORT,
            ))),
            token_file: settings.token_file,
            listen_insecurely: settings.listen_insecurely.unwrap_or(false),
            max_connections: settings.max_connections.unwrap_or(32),
            request_timeout: settings.request_timeout.unwrap_or(Duration::from_secs(10)),
            otlp: Otlp::new(settings.otlp)?,
        };
        if !(INTERVALS.0..=INTERVALS.1).contains(&config.interval) {
            return Err(usage("interval must be from 10ms to 1m"));
        }
        if !(1..=MAX_TOP_K).contains(&config.top_k) {
            return Err(usage(format!("top_k must be from 1 to {MAX_TOP_K}")));
        }
        if !(1..=MAX_CONNECTIONS).contains(&config.max_connections) {
            return Err(usage(format!(
                "max_connections must be from 1 to {MAX_CONNECTIONS}"
            )));
        }
        if let Listen::Tcp(address) = config.listen
            && !address.ip().is_loopback()
            && config.token_file.is_none()
            && !config.listen_insecurely
        {
            return Err(usage(format!(
                "listen {address} is open to others than this machine: name a token_file, or say \
                 listen_insecurely"
            )));
        }
        Ok(config)
    }

    /// Whether addresses in processes are told: to whoever has a token, or gets to a
    /// socket. All who run on this machine get to an address of it.
    pub fn tells_addresses(&self) -> bool {
        matches!(self.listen, Listen::Unix(_)) || self.token_file.is_some()
    }

    /// Keys whose new values need a restart.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let Self {
            scope,
            cgroup,
            container,
            hooks,
            buffer,
            confine,
            // These do not.
            interval: _,
            top_k: _,
            canary_interval: _,
            group_by,
            listen,
            token_file,
            listen_insecurely,
            max_connections,
            request_timeout,
            otlp,
        } = self;
        [
            ("scope", *scope == new.scope),
            ("cgroup", *cgroup == new.cgroup),
            ("container", *container == new.container),
            ("hooks", *hooks == new.hooks),
            ("buffer", *buffer == new.buffer),
            ("confine", *confine == new.confine),
            ("group_by", *group_by == new.group_by),
            ("listen", *listen == new.listen),
            ("token_file", *token_file == new.token_file),
            (
                "listen_insecurely",
                *listen_insecurely == new.listen_insecurely,
            ),
            ("max_connections", *max_connections == new.max_connections),
            ("request_timeout", *request_timeout == new.request_timeout),
            ("otlp", *otlp == new.otlp),
        ]
        .into_iter()
        .filter_map(|(key, same)| (!same).then_some(key))
        .collect()
    }
}

/// From where the configuration is read, again whenever it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file, if one was named.
    pub file: Option<PathBuf>,
    /// What flags say, which counts more.
    pub flags: Settings,
}

impl Origin {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for what is wrong with it.
    pub fn load(&self) -> Result<Config> {
        let path = self.path();
        let file = match trusted::read_text(path, Readers::Everybody) {
            Ok(text) => Settings::parse(&text, path)?,
            Err(error) if error.kind() == ErrorKind::NotFound && self.file.is_none() => {
                Settings::default()
            }
            Err(error) => {
                return Err(usage(format!("cannot read {}: {error}", path.display())));
            }
        };
        Config::new(self.flags.clone().or(file)).map_err(|error| match error {
            Error::Usage(message) => usage(format!("{}: {message}", path.display())),
            error => error,
        })
    }

    /// The file that is read, if it is there.
    pub fn path(&self) -> &Path {
        self.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE))
    }
}

fn usage(message: impl Into<String>) -> Error {
    Error::Usage(message.into())
}

fn word<'de, D: Deserializer<'de>, T: ValueEnum>(from: D) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(from)?;
    match T::from_str(&text, false) {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(none_of::<D>(
            &text,
            T::value_variants()
                .iter()
                .filter_map(T::to_possible_value)
                .map(|value| value.get_name().to_owned()),
        )),
    }
}

fn by<'de, D: Deserializer<'de>>(from: D) -> Result<Option<By>, D::Error> {
    let text = String::deserialize(from)?;
    match By::ALL.iter().find(|by| by.name() == text) {
        Some(by) => Ok(Some(*by)),
        None => Err(none_of::<D>(
            &text,
            By::ALL.iter().map(|by| by.name().to_owned()),
        )),
    }
}

fn none_of<'de, D: Deserializer<'de>>(text: &str, names: impl Iterator<Item = String>) -> D::Error {
    let names: Vec<_> = names.collect();
    D::Error::custom(format!(
        "{} is none of {}",
        Escaped(text.as_bytes()),
        names.join(", ")
    ))
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    parsed(from, parse_bytes)
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    parsed(from, parse_duration)
}

fn listen<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Listen>, D::Error> {
    parsed(from, Listen::from_str)
}

fn parsed<'de, D: Deserializer<'de>, T>(
    from: D,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(from)?;
    parse(&text)
        .map(Some)
        .map_err(|error| D::Error::custom(format!("{}: {error}", Escaped(text.as_bytes()))))
}

#[cfg(test)]
mod tests;

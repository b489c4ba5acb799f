use super::*;

const EXAMPLE: &str = include_str!("../../../mmwatch.toml");

fn refusal(text: &str) -> String {
    let path = Path::new("x.toml");
    Settings::parse(text, path)
        .and_then(Config::new)
        .unwrap_err()
        .to_string()
}

/// The keys that are commented out with their defaults.
fn uncommented() -> String {
    EXAMPLE
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.starts_with(' ') && (line.contains(" = ") || line.starts_with('[')))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn the_example_changes_nothing_as_it_is() {
    let settings = Settings::parse(EXAMPLE, Path::new("mmwatch.toml")).unwrap();
    assert_eq!(settings, Settings::default());
}

#[test]
fn the_example_has_every_key_and_its_default() {
    let text = uncommented();
    let mut table = String::new();
    let mut named = Vec::new();
    for line in text.lines() {
        match line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            Some(name) => table = format!("{name}."),
            None => named.push(table.clone() + line.split(' ').next().unwrap()),
        }
    }
    for key in keys() {
        assert_eq!(
            named.iter().filter(|named| named == &&key).count(),
            1,
            "{key}"
        );
    }
    // What has no default has an example there.
    let with_default: String = text
        .lines()
        .filter(|line| {
            let exampled = "scope cgroup container token_file endpoint headers_file ca_file";
            let key = line.split(' ').next().unwrap();
            !exampled.split(' ').any(|exampled| exampled == key)
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let set = Settings::parse(&with_default, Path::new("mmwatch.toml")).unwrap();
    assert!(set.interval.is_some() && set.listen.is_some() && set.buffer.is_some());
    assert!(set.otlp.interval.is_some() && set.otlp.queue.is_some());
    assert_eq!(
        Config::new(set).unwrap(),
        Config::new(Settings::default()).unwrap()
    );
    // They are values all the same.
    Settings::parse(&text, Path::new("mmwatch.toml")).unwrap();
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (text, want) in [
        (
            "top_k = 5\n\nintervall = \"1s\"",
            "x.toml:3:1: there is no key `intervall`; did you mean `interval`?",
        ),
        (
            "  interval = \"soon\"",
            "x.toml:1:14: soon: expected a time such as 5, 5s, 500ms, 2m or 1h",
        ),
        (
            "[otlp]\nendpiont = \"http://a\"",
            "x.toml:2:1: there is no key `endpiont`; did you mean `endpoint`?",
        ),
        (
            "[otlp]\nendpoint = \"a:4318\"",
            "x.toml:2:12: a:4318: expected a URL such as http://localhost:4318 or https://host/path",
        ),
        (
            "[otlp]\nevents = true",
            "otlp.events is of no use without otlp.endpoint; name the receiver's URL",
        ),
        (
            "hooks = \"uprobe\"",
            "x.toml:1:9: uprobe is none of auto, fentry, kprobe, tracepoint, proc",
        ),
        (
            "group_by = \"host\"",
            "x.toml:1:12: host is none of process, comm, exe, user, cgroup, container, pod",
        ),
        ("top_k = 0", "top_k must be from 1 to 1000"),
        ("interval = \"1h\"", "interval must be from 10ms to 1m"),
        (
            "cgroup = \"/\"\ncontainer = \"4\"",
            "cgroup and container exclude each other; leave one of them out",
        ),
        (
            "listen = \"0.0.0.0:9464\"",
            "listen 0.0.0.0:9464 is open to others than this machine: name a token_file, or \
             say listen_insecurely",
        ),
    ] {
        assert_eq!(refusal(text), want);
    }
    assert!(refusal("zzz = 1").contains("those that there are: scope, "));
    assert!(refusal("top_k = \"five\"").starts_with("x.toml:1:9: invalid type"));
    assert!(refusal("top_k").starts_with("x.toml:1:"));
}

#[test]
fn flags_count_more_than_the_file() {
    let file = Settings::parse(
        "top_k = 5\ninterval = \"2s\"\ncgroup = \"/a\"",
        "x".as_ref(),
    );
    let flags = Settings {
        top_k: Some(7),
        container: Some("4f".into()),
        ..Settings::default()
    };
    let config = Config::new(flags.or(file.unwrap())).unwrap();
    assert_eq!(config.top_k, 7);
    assert_eq!(config.interval, Duration::from_secs(2));
    assert_eq!((config.cgroup, config.container), (None, Some("4f".into())));
}

#[test]
fn what_needs_a_restart_is_named() {
    let before = Config::new(Settings::default()).unwrap();
    let after = Config {
        interval: Duration::from_secs(9),
        top_k: 3,
        canary_interval: Duration::from_secs(9),
        ..before.clone()
    };
    assert_eq!(before.needs_restart(&after), [""; 0]);
    let otlp = Settings::parse("[otlp]\nendpoint = \"http://a\"", "x".as_ref());
    let after = Config {
        group_by: By::Pod,
        listen: Listen::Unix("/x".into()),
        otlp: Config::new(otlp.unwrap()).unwrap().otlp,
        ..before.clone()
    };
    assert_eq!(before.needs_restart(&after), ["group_by", "listen", "otlp"]);
}

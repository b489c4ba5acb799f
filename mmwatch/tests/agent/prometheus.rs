//! What arrives at Prometheus.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use super::{
    daemon::{Daemon, Scratch, free_address, get, until},
    storm::{LEN_BYTES, Storm},
};

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");

struct Prometheus {
    address: String,
    child: Child,
    _scratch: Scratch,
}

impl Prometheus {
    fn scraping(agent: &str) -> Self {
        let (scratch, address) = (Scratch::new(), free_address());
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{DEPLOY}/prometheus/alerts.yaml]\n\
             scrape_configs:\n\
             - {{job_name: mmwatch, static_configs: [{{targets: ['{agent}']}}]}}\n"
        );
        let config = scratch.file("prometheus.yml", &config);
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                scratch.path("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the package prometheus; `cargo xtask setup` installs it");
        let prometheus = Self {
            address,
            child,
            _scratch: scratch,
        };
        until("the first scrape", || {
            (prometheus.value("mmwatch_ready")? == 1.0).then_some(())
        });
        prometheus
    }

    /// What a query finds now.
    fn query(&self, query: &str) -> Vec<Value> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let Some(answer) = get(&self.address, &format!("/api/v1/query?query={escaped}")) else {
            return Vec::new();
        };
        // Not yet ready, it says so in words.
        let Ok(answer) = serde_json::from_str::<Value>(&answer.body) else {
            return Vec::new();
        };
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }

    /// The value of the only series.
    fn value(&self, query: &str) -> Option<f64> {
        let found = self.query(query);
        assert!(found.len() < 2, "{query}: {found:?}");
        found.first()?["value"][1].as_str()?.parse().ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn a_storm_is_counted_to_the_last_call() {
    const COUNT: u64 = 20_000;
    let agent = Daemon::ready(&["--interval", "200ms", "--top-k", "1000"]);
    let prometheus = Prometheus::scraping(&agent.address);
    let mut storm = Storm::new();
    let of_storm = |metric: &str, label: &str| {
        let pid = storm.pid();
        format!("mmwatch_group_{metric}{{group=\"{pid}\"{label}}}")
    };
    let maps = of_storm("operations_total", ",op=\"map\"");
    let unmaps = of_storm("operations_total", ",op=\"unmap\"");
    let errors = of_storm("operation_errors_total", ",op=\"map\"");
    let anonymous = of_storm("mappings_bytes_total", ",backing=\"private-anonymous\"");
    let suspect = of_storm("suspect_mappings_total", ",kind=\"write-exec\"");

    // The loader maps until the child is ready: what was counted then is where it begins.
    let scraped = "timestamp(mmwatch_ready)";
    let settled = |prometheus: &Prometheus| {
        until("the child", || prometheus.value(&maps));
        // The storm is over before this is asked, so a report and a scrape later
        // nothing may be missing.
        for _ in 0..3 {
            let before = prometheus.value(scraped);
            until("another scrape", || {
                (prometheus.value(scraped) != before).then_some(())
            });
        }
    };
    settled(&prometheus);
    let all = [&maps, &unmaps, &errors, &anonymous, &suspect];
    let before = all.map(|query| prometheus.value(query).unwrap_or(0.0));
    storm.rage(COUNT);
    settled(&prometheus);
    let after = all.map(|query| prometheus.value(query).unwrap_or(0.0));
    let (count, len) = (COUNT as f64, LEN_BYTES as f64);
    let want = [2.0 * count + 1.0, count, count, (count + 1.0) * len, 1.0];
    for ((query, want), (before, after)) in all.iter().zip(want).zip(before.iter().zip(after)) {
        assert_eq!(after - before, want, "{query}");
    }

    // Series of one scrape add up, whatever else goes on.
    for metric in [
        "operations_total",
        "operation_errors_total",
        "mapped_bytes_total",
    ] {
        let by = if metric == "mapped_bytes_total" {
            ""
        } else {
            "by (op)"
        };
        let different = format!("sum {by} (mmwatch_group_{metric}) != sum {by} (mmwatch_{metric})");
        assert_eq!(prometheus.query(&different), [Value::Null; 0]);
    }
    // Whose end is seen has no series any more, and all that it did is in the rest.
    drop(storm);
    until("the end of the series", || {
        prometheus.query(&maps).is_empty().then_some(())
    });
    let rest = "mmwatch_group_operations_total{group=\"other\",op=\"map\"}";
    assert!(until("the rest", || prometheus.value(rest)) >= after[0]);
}

/// Sides of comparisons, which are all that an alert that does not fire has.
fn sides(query: &str) -> impl Iterator<Item = &str> {
    query.split(" and ").map(|part| {
        [" > ", " < ", " == "]
            .iter()
            .find_map(|operator| part.split_once(operator))
            .map_or(part, |(side, _)| side)
    })
}

pub fn rules_and_dashboard_have_series() {
    let agent = Daemon::ready(&["--interval", "200ms"]);
    let prometheus = Prometheus::scraping(&agent.address);
    let mut storm = Storm::new();
    let mut expressions = Vec::new();
    let rules = get(&prometheus.address, "/api/v1/rules").unwrap().json();
    for rule in rules["data"]["groups"][0]["rules"].as_array().unwrap() {
        expressions.extend(sides(rule["query"].as_str().unwrap()).map(str::to_owned));
    }
    assert!(expressions.len() > 6, "{expressions:?}");
    let dashboard = fs::read_to_string(format!("{DEPLOY}/grafana/mmwatch.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let expression = expression
                .replace("$__rate_interval", "1m")
                .replace("$instance", ".*")
                .replace("$job", ".*");
            assert!(!expression.contains('$'), "{expression}");
            expressions.push(expression);
        }
    }
    for expression in &expressions {
        // Each time one more mapping that stays, so that there is a pace.
        until(expression, || {
            storm.rage(10);
            (!prometheus.query(expression).is_empty()).then_some(())
        });
    }
    let firing = "ALERTS{alertname=\"MmwatchWriteExec\",alertstate=\"firing\"}";
    until(firing, || {
        (!prometheus.query(firing).is_empty()).then_some(())
    });
}

pub fn the_rules_are_well_formed() {
    let rules = Path::new(DEPLOY).join("prometheus/alerts.yaml");
    let output = Command::new("promtool")
        .args(["check", "rules"])
        .arg(rules)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

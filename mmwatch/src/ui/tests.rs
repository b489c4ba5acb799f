use std::sync::Arc;

use super::*;
use crate::{
    churn::By,
    clock::WallClock,
    event::Suspect,
    identity::{Cgroup, Names, Who},
    sample,
};

/// The lines of a drawing; each must keep to 100 columns and to plain characters.
fn lines(text: &str) -> Vec<&str> {
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    text.lines().collect()
}

#[test]
fn top_is_a_table() {
    let clock = WallClock::with_offset(sample::BOOT_AT_UNIX_NS);
    let text = top::draw(&sample::report(), &sample::ledger(), clock);
    let lines = lines(&text);
    // The time of day depends on where the test runs.
    assert!(lines[0].ends_with("  last 2.00s  limit 65530 VMAs per process"));
    assert_eq!(
        lines[1..],
        [
            "",
            "    PID COMM              VMAS   PEAK %LIMIT  VMAS/s  FULL  MAPS/s UNMAP/s  MAPPED/s  UNMAPPED  ERRS",
            r"    200 busy\x07           120    125    0.1   +50.0   21m      50      50    400KiB    200KiB     0",
            "    100 sample          exited     25      -       -     -       1       1     78KiB    202KiB     1",
            "        other                                                    1       0        0B        0B     0",
            "        all                                                     52      51    478KiB    402KiB     1",
            "",
            "BACKING             MAPS/s   MAPPED/s",
            "private-file            51     404KiB",
            "",
            "in all 2.00s: 212 operations, 1 failed; map 103 unmap 101 protect 1 remap 1 brk 1 grow 1 advise 1",
            "       fork 1 exec 1 exit 1",
            "ledger: 300 fired = 88 filtered + 212 summed + 0 submitted + 0 ring full; 1 missed",
            "        0 received, 0 undecodable, 0 unread; text: 0 delivered, 0 dropped",
            "",
        ]
    );
}

#[test]
fn stat_is_a_table() {
    let text = stat::draw(&sample::report(), &sample::ledger(), "'make -j2'");
    assert_eq!(
        lines(&text),
        [
            "",
            "Address-space operations of 'make -j2', 2.00s, limit 65530 VMAs per process:",
            "",
            "OP           COUNT   ERRORS      BYTES VMAS +/-   BYTES +/-       HELD  HELD MEAN",
            "map            103        1     808KiB     +102     +816KiB   255.00µs     2.50µs",
            "unmap          101        0     404KiB     +101     +808KiB   252.50µs     2.50µs",
            "protect          1        0       4KiB       +1       +8KiB     2.50µs     2.50µs",
            "remap            1        0      16KiB       +1       +8KiB     2.50µs     2.50µs",
            "brk              1        0     132KiB       +1       +8KiB     2.50µs     2.50µs",
            "grow             1        0       4KiB       +1       +8KiB     2.50µs     2.50µs",
            "advise           1        0          -       +1       +8KiB     2.50µs     2.50µs",
            "fork             1        0          -       +1       +8KiB     2.50µs     2.50µs",
            "exec             1        0          -       +1       +8KiB     2.50µs     2.50µs",
            "exit             1        0     400KiB       +1       +8KiB     2.50µs     2.50µs",
            "all            212        1          -     +211     +1.6MiB   527.50µs     2.50µs",
            "",
            "BACKING                MAPS     MAPPED",
            "private-file            101     808KiB",
            "",
            "    PID COMM              VMAS   PEAK %LIMIT  VMAS/s  FULL       OPS    MAPPED  UNMAPPED  ERRORS",
            r"    200 busy\x07           120    125    0.1   +50.0   21m       200    800KiB    400KiB       0",
            "    100 sample          exited     25      -       -     -        11    156KiB    404KiB       1",
            "        other                                                      1        0B        0B       0",
            "        all                                                      212    956KiB    804KiB       1",
            "",
            "ledger: 300 fired = 88 filtered + 212 summed + 0 submitted + 0 ring full; 1 missed",
            "        0 received, 0 undecodable, 0 unread; text: 0 delivered, 0 dropped",
        ]
    );
}

#[test]
fn faults_have_a_table_of_their_own() {
    let mut report = sample::with_faults(true);
    let ledger = sample::ledger();
    let text = stat::draw(&report, &ledger, "'make -j2'");
    let table = |text: &str, title: &str| -> Vec<String> {
        let lines = lines(text).into_iter();
        let table = lines.skip_while(|line| !line.contains(title));
        let table = table.take_while(|line| !line.is_empty());
        table.map(str::to_owned).collect()
    };
    assert_eq!(
        table(&text, "UNTOUCHED"),
        [
            "    PID COMM               MAPPED   TOUCHED UNTOUCHED     MINOR     MAJOR",
            r"    200 busy\x07           800KiB    400KiB    400KiB       120         3",
            "    100 sample             156KiB    400KiB        0B         0         0",
            "        other                  0B        0B        0B         0         0",
            "        all                956KiB    800KiB    156KiB       120         3",
        ]
    );
    let clock = WallClock::with_offset(sample::BOOT_AT_UNIX_NS);
    let text = top::draw(&report, &ledger, clock);
    assert_eq!(
        table(&text, "TOUCHED/s"),
        [
            "    PID COMM             MAPPED/s TOUCHED/s   MINOR/s   MAJOR/s",
            r"    200 busy\x07           400KiB    200KiB        60         2",
            "    100 sample              78KiB    200KiB         0         0",
            "        other                  0B        0B         0         0",
            "        all                478KiB    400KiB        60         2",
        ]
    );
    // Where it is not told which pages were there, nothing is claimed.
    report.faults = Some(crate::churn::Faults { touched: false });
    let text = stat::draw(&report, &ledger, "'make -j2'");
    assert_eq!(
        table(&text, "UNTOUCHED")[1],
        r"    200 busy\x07           800KiB         -         -       120         3"
    );
}

#[test]
fn stat_counts_suspects_where_there_are_any() {
    let mut report = sample::report();
    report.all.total.suspects[Suspect::WriteExec as usize] = 12;
    report.all.total.suspects[Suspect::StackExec as usize] = 1;
    let text = stat::draw(&report, &sample::ledger(), "'make -j2'");
    let lines = lines(&text);
    let at = lines.iter().position(|line| line.starts_with("SUSPECT"));
    assert_eq!(
        lines[at.unwrap() - 1..at.unwrap() + 4],
        [
            "",
            "SUSPECT               COUNT  MEANING",
            "write-exec               12  writable and executable at once",
            "stack-exec                1  a stack that is executable, or was made so",
            "",
        ]
    );
}

#[test]
fn long_times_are_in_large_units() {
    let left = |s: u64| Left(s * 1_000_000_000).to_string();
    assert_eq!(
        [0, 119, 120, 7_200, 172_800, 86_400_000].map(left),
        ["0s", "119s", "2m", "2h", "2d", ">999d"]
    );
}

#[test]
fn percent_is_never_rounded_up_to_the_limit() {
    let percent = |part, limit| Percent { part, limit }.to_string();
    assert_eq!(percent(65_529, 65_530), "99.9");
    assert_eq!(percent(65_530, 65_530), "100.0");
    assert_eq!(percent(0, 0), "0.0");
    assert_eq!(format!("{:>6}", Percent { part: 1, limit: 8 }), "  12.5");
}

#[test]
fn groups_have_a_row_each() {
    let mut report = sample::report();
    let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    for (process, path) in report.processes.iter_mut().zip([
        format!("/system.slice/docker-{id}.scope"),
        format!("/kubepods/{}/x.service", "very-long-".repeat(9)),
    ]) {
        process.who = Some(Arc::new(Who {
            here_pid: None,
            namespace_pid: None,
            cgroup: Some(Arc::new(Cgroup::new(path))),
        }));
    }
    let grouped = |by| report.clone().grouped(by, 9, |uid| uid.to_string());
    let clock = WallClock::with_offset(sample::BOOT_AT_UNIX_NS);
    let text = top::draw(&grouped(By::Container), &sample::ledger(), clock);
    assert_eq!(
        lines(&text)[2..7],
        [
            "CONTAINER                     PROCS    VMAS   MOST %LIMIT  MAPS/s UNMAP/s  MAPPED/s  UNMAPPED  ERRS",
            "0123456789ab                      1     120    120    0.1      50      50    400KiB    200KiB     0",
            "-                                 1       0      0    0.0       1       1     78KiB    202KiB     1",
            "other                                                           1       0        0B        0B     0",
            "all                                                            52      51    478KiB    402KiB     1",
        ]
    );
    let text = stat::draw(&grouped(By::Cgroup), &sample::ledger(), "x");
    assert!(text.contains("…y-long-very-long-/x.service "), "{text}");
}

/// Names are short for people; ids tell apart what has the same name.
#[test]
fn groups_go_by_the_names_of_their_containers() {
    let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let shown = |by, path: String, names: Names| {
        let mut cgroup = Cgroup::new(path);
        cgroup.owner.container.as_mut().unwrap().names = names;
        let mut report = sample::report();
        report.processes.truncate(1);
        report.processes[0].who = Some(Arc::new(Who {
            namespace_pid: None,
            here_pid: None,
            cgroup: Some(Arc::new(cgroup)),
        }));
        let report = report.grouped(by, 9, |uid| uid.to_string());
        let clock = WallClock::with_offset(sample::BOOT_AT_UNIX_NS);
        let text = top::draw(&report, &sample::ledger(), clock);
        let line: String = lines(&text)[3].chars().take(28).collect();
        line.trim_end().to_owned()
    };
    let docker = || format!("/system.slice/docker-{id}.scope");
    let of_pod = || format!("/kubepods/pod6b7f2c6e-9d0a-4c57-8f3f-3f1f3a1c2d4e/{id}");
    let named = |name: &str| Names {
        name: Some(name.into()),
        ..Names::default()
    };
    let pod = |pod: &str| Names {
        pod: Some(pod.into()),
        pod_namespace: Some("shop".into()),
        ..named("web")
    };
    let container = |name| shown(By::Container, docker(), named(name));
    assert_eq!(container("web"), "web (0123456789ab)");
    assert_eq!(container("thirteen-long"), "thirteen-long (0123456789ab)");
    assert_eq!(container("fourteen--long"), "fourteen--lo… (0123456789ab)");
    assert_eq!(container("a\n"), r"a\n (0123456789ab)");
    let nobody = shown(By::Container, docker(), Names::default());
    assert_eq!(nobody, "0123456789ab");
    // One whose id is its name has no other.
    let lxc = shown(By::Container, "/lxc.payload.web".into(), named("web"));
    assert_eq!(lxc, "web");
    assert_eq!(shown(By::Pod, of_pod(), pod("web-0")), "shop/web-0");
    let long = shown(By::Pod, of_pod(), pod("web-7d4b9c6f5-x2x1f-and-more"));
    assert_eq!(long, "…eb-7d4b9c6f5-x2x1f-and-more");
    let nobody = shown(By::Pod, of_pod(), named("web"));
    assert_eq!(nobody, "…9d0a-4c57-8f3f-3f1f3a1c2d4e");
}

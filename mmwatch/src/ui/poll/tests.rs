use super::*;
use crate::{churn::By, sample};

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
    let text = top(&sample::poll().ranked(4), clock);
    let lines = lines(&text);
    // The time of day depends on where the test runs.
    assert!(lines[0].ends_with("  last 2.00s  limit 65530 VMAs per process"));
    assert_eq!(
        lines[1..],
        [
            "",
            "    PID COMM              VMAS   PEAK %LIMIT VMAS+/-    SIZE  SIZE+/-    ANON    FILE  SHARED  AGE",
            r"    200 busy\x07           120    120    0.1    +100  480KiB  +400KiB  480KiB      0B      0B   1s",
            "    500 b                   15     25    0.0     -10   60KiB   -40KiB   60KiB      0B      0B gone",
            "    300 b                  ~30     40    0.0       -  120KiB        -  120KiB      0B      0B   0s",
            "    600 b                    9      9    0.0      +0   36KiB      +0B   36KiB      0B      0B   1s",
            "        other                0                    +0    5GiB      +0B      0B      0B      0B",
            "        all                159                  +100  5.0GiB  +400KiB  636KiB      0B      0B",
            "",
            "read:   2 of 4 processes, 1 of them new, 1 ended; the oldest reading is 1s old",
            "unread: 4, which may not be looked at; run mmwatch as root or with CAP_SYS_PTRACE",
            "hidden: there are processes that /proc does not list (hidepid); how many is not known",
            "polled: what happened between two looks is not known, nor causes, callers and failures",
        ]
    );
}

#[test]
fn who_may_not_be_read_has_a_size_alone() {
    let text = stat(&sample::poll().ranked(9), "all processes");
    let lines = lines(&text);
    assert_eq!(
        lines[1],
        "Address spaces of all processes, 3.50s, limit 65530 VMAs per process:"
    );
    assert_eq!(
        lines[8],
        "    400 b                    -      -      -       -    5GiB        -       -       -       -   1s",
    );
    assert!(!text.contains("other"));
}

#[test]
fn groups_have_a_row_each() {
    let poll = sample::poll().grouped(By::Container, 1, |uid| uid.to_string());
    let text = stat(&poll, "all processes");
    assert_eq!(
        lines(&text)[3..7],
        [
            "CONTAINER              PROCS    VMAS   MOST %LIMIT VMAS+/-    SIZE  SIZE+/-    ANON    FILE  SHARED",
            "web                        1     120    120    0.1    +100  480KiB  +400KiB  480KiB      0B      0B",
            "other                      3      39     30    0.0      +0  5.0GiB      +0B  156KiB      0B      0B",
            "all                        4     159    120    0.1    +100  5.0GiB  +400KiB  636KiB      0B      0B",
        ]
    );
}

#[test]
fn nothing_seen_is_said_too() {
    let text = stat(&Poll::default(), "'true'");
    assert!(
        text.contains("read:   0 of 0 processes, 0 of them new, 0 ended\npolled: "),
        "{text}"
    );
}

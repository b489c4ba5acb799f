//! What is broken in polling `/proc`.

use super::{Mutation, Test, mutation};

/// What is tried, file by file.
pub(super) const MUTATIONS: &[Mutation] = &[
    mutation(
        "the kernel's own page counts as a VMA",
        "mmwatch/src/poll.rs",
        r#"if line.name != b"[vsyscall]" {"#,
        "if line.range.start > 0 {",
        Test::Unit("poll::tests::a_process_is_told_whole"),
    ),
    mutation(
        "a look that took too much is forgiven",
        "mmwatch/src/poll/allowance.rs",
        "self.left_ns = self.left_ns.saturating_sub(cpu_ns);",
        "self.left_ns = self.left_ns.saturating_sub(cpu_ns).max(1);",
        Test::Unit("poll::tests::budget::one_that_is_too_large_costs_the_next_looks"),
    ),
    mutation(
        "an id that comes again is the same process",
        "mmwatch/src/poll/poller.rs",
        "|process: &&mut Process| process.glance.start_ticks == glance.start_ticks;",
        "|process: &&mut Process| process.glance.parent == glance.parent;",
        Test::Unit("poll::tests::an_id_that_comes_again_is_another_process"),
    ),
    mutation(
        "whoever gets the id of a named process is it",
        "mmwatch/src/poll/poller.rs",
        "&& *self.named.entry(pid).or_insert(glance.start_ticks) == glance.start_ticks;",
        "&& *self.named.entry(pid).or_insert(glance.start_ticks) > 0;",
        Test::Unit("poll::tests::an_id_that_comes_again_is_another_process"),
    ),
    mutation(
        "the end of a zombie is not told",
        "mmwatch/src/poll/poller.rs",
        "let is_over = glance.total_bytes == 0;",
        "let is_over = glance.start_ticks == 0;",
        Test::Unit("poll::tests::who_ended_is_told_once"),
    ),
    mutation(
        "whose size stays is not read again",
        "mmwatch/src/poll/poller.rs",
        "changed.chain(others).collect();",
        "(changed.collect(), others).0;",
        Test::Unit("poll::tests::a_split_is_found_although_the_size_stays"),
    ),
    mutation(
        "whose size changed does not go first",
        "mmwatch/src/poll/poller.rs",
        "partition(|due| due.2);",
        "partition(|due| due.1 == 0);",
        Test::Unit("poll::tests::budget::there_is_time_for_some"),
    ),
    mutation(
        "whoever changes all the time gets all the time",
        "mmwatch/src/poll/poller.rs",
        "const CHANGED: Part = Part { of: 8, take: 7 };",
        "const CHANGED: Part = Part { of: 1, take: 1 };",
        Test::Unit("poll::tests::budget::who_changes_all_the_time"),
    ),
    mutation(
        "a look that had no time for all begins anew",
        "mmwatch/src/poll/poller.rs",
        "self.next_pid = pid;",
        "self.next_pid = 0;",
        Test::Unit("poll::tests::budget::there_is_time_for_some"),
    ),
    mutation(
        "what may not be read is left out",
        "mmwatch/src/poll/poller.rs",
        "Found::Denied => None,",
        "Found::Denied => return Ok(()),",
        Test::Unit("poll::tests::what_may_not_be_read_is_counted"),
    ),
    mutation(
        "what changed meanwhile is not told",
        "mmwatch/src/poll/poller.rs",
        "changing: total_bytes != glance.total_bytes,",
        "changing: false,",
        Test::Unit("poll::tests::what_changes_while_it_is_read"),
    ),
    mutation(
        "a change is told in every report",
        "mmwatch/src/poll/poller.rs",
        "process.base = Some(polled.reading);",
        "process.base.get_or_insert(polled.reading);",
        Test::Unit("poll::tests::changes_are_those_since_the_report_before"),
    ),
    mutation(
        "children of a command are not followed",
        "mmwatch/src/poll/poller.rs",
        "is_member(process.glance.parent))",
        "is_member(process.pid))",
        Test::Unit("poll::tests::filters::a_command_is_followed_from_its_exec_on"),
    ),
    mutation(
        "a command counts before its exec",
        "mmwatch/src/poll/poller.rs",
        "let is_command = self.follow && glance.awaits_exec;",
        "let is_command = self.follow && glance.parent == 0;",
        Test::Unit("poll::tests::filters::a_command_is_followed_from_its_exec_on"),
    ),
    mutation(
        "a cgroup is any whose name begins alike",
        "mmwatch/src/poll/poller.rs",
        "rest.is_empty() || rest.starts_with('/')",
        "rest.len() < 1000",
        Test::Unit("poll::tests::filters::filters_are_honoured"),
    ),
    mutation(
        "groups beyond those shown are in no sum",
        "mmwatch/src/poll/report.rs",
        "self.other.add_sum(&group.sum);",
        "self.other.processes += group.sum.processes;",
        Test::Unit("poll::tests::whatever_is_not_shown_is_in_the_rest"),
    ),
];

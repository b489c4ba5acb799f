//! What is broken in what the agent tells, and to whom.

use super::{Mutation, Test, mutation};

/// What is tried, file by file.
pub(super) const MUTATIONS: &[Mutation] = &[
    mutation(
        "what a group counted is gone with its series",
        "mmwatch/src/agent/series.rs",
        "*chosen.get_mut(&name).unwrap_or(other) += &sums;",
        "if let Some(to) = chosen.get_mut(&name) { *to += &sums; }",
        Test::Unit("agent::series::tests::no_counter_goes_down_and_all_add_up"),
    ),
    mutation(
        "series come and go with every interval",
        "mmwatch/src/agent/series.rs",
        "{ score * LEAD } else { *score }",
        "{ *score } else { *score }",
        Test::Unit("agent::series::tests::the_busiest_have_series_and_keep_them"),
    ),
    mutation(
        "the rest has no series",
        "mmwatch/src/agent/metrics/sums.rs",
        "        all.push(group(&other, &counters.other));\n",
        "",
        Test::Unit("agent::metrics::tests::groups_add_up_to_the_totals"),
    ),
    mutation(
        "other mappings pass for the canary's",
        "mmwatch/src/agent/canary.rs",
        "(op.count, op.bytes) == (1, LEN_BYTES as u64)",
        "op.bytes >= LEN_BYTES as u64",
        Test::Unit("agent::canary::tests::a_flight_is_one_mapping_and_one_unmapping_of_its_length"),
    ),
    mutation(
        "any address is this machine",
        "mmwatch/src/agent/http.rs",
        "is_ok_and(|address| address.is_loopback())",
        "is_ok()",
        Test::Unit("agent::http::tests::only_names_of_this_machine_pass"),
    ),
    mutation(
        "the beginning of a token will do",
        "mmwatch/src/agent/http/token.rs",
        "&& given.ct_eq(&self.0).into()",
        "&& self.0.starts_with(given)",
        Test::Unit("agent::http::token::tests::a_token_is_read_and_compared_whole"),
    ),
    mutation(
        "everybody may ask without a token",
        "mmwatch/src/agent/config.rs",
        "            && config.token_file.is_none()\n",
        "            && false\n",
        Test::Unit("agent::config::tests::what_is_wrong_is_named_with_its_place"),
    ),
    mutation(
        "what a slow subscriber lost is not counted",
        "mmwatch/src/agent/feed.rs",
        "subscriber.dropped.fetch_add(1, Ordering::Relaxed);",
        "subscriber.dropped.fetch_add(0, Ordering::Relaxed);",
        Test::Unit("agent::feed::tests::who_is_too_slow_learns_how_many_are_lost"),
    ),
    mutation(
        "subscribers get all events",
        "mmwatch/src/agent/feed.rs",
        "if !subscriber.filter.wants(event, event.who.as_deref()) {",
        "if subscribers.is_none() {",
        Test::Unit("agent::feed::tests::each_gets_what_its_filter_lets_through"),
    ),
    mutation(
        "the kernel sends events to nobody",
        "mmwatch/src/agent/feed.rs",
        "std::mem::replace(wanted, !list.is_empty())",
        "std::mem::replace(wanted, true)",
        Test::Unit("agent::feed::tests::events_are_wanted_while_somebody_subscribes"),
    ),
    mutation(
        "the kernel sends no events to those who ask",
        "mmwatch/src/pipeline/switch.rs",
        "self.source.stream(wanted)?;",
        "self.source.stream(false)?;",
        Test::Kernel("a_confined_agent_sees"),
    ),
    mutation(
        "capabilities can be taken up again",
        "mmwatch/src/agent/confine/capabilities.rs",
        "    caps::set(None, CapSet::Permitted, &kept)?;\n",
        "",
        Test::Kernel("a_confined_agent_sees"),
    ),
    mutation(
        "system calls are not given up",
        "mmwatch/src/agent/confine.rs",
        "    syscalls::give_up(needs.own_socket).map_err(|error| refused(&error))?;\n",
        "    let _ = (syscalls::give_up, needs.own_socket);\n",
        Test::Kernel("a_confined_agent_sees"),
    ),
    mutation(
        "what gave way in the export's queue is not counted",
        "mmwatch/src/agent/otlp/queue.rs",
        "            account.queue_full += oldest.items;\n",
        "",
        Test::Unit("agent::otlp::queue::tests::the_oldest_gives_way_but_not_while_it_is_sent"),
    ),
    mutation(
        "a receiver rejects more than it got",
        "mmwatch/src/agent/otlp/queue.rs",
        "        let rejected = rejected.min(items);\n",
        "",
        Test::Unit("agent::otlp::queue::tests::a_receiver_cannot_reject_more_than_it_got"),
    ),
    mutation(
        "quiet times are made up for by more events than allowed",
        "mmwatch/src/agent/otlp/events.rs",
        ".min(self.per_second);",
        ";",
        Test::Unit("agent::otlp::events::tests::so_many_are_allowed_in_a_second"),
    ),
];

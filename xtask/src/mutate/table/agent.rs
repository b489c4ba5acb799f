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
];

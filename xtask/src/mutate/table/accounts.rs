//! What is broken in counters and sums of user space.

use super::{Mutation, Test, mutation};

/// What is tried, file by file.
pub(super) const MUTATIONS: &[Mutation] = &[
    mutation(
        "`filtered` is no part of `fired`",
        "mmwatch/src/ledger.rs",
        r"parts: ledger.filtered
",
        r"parts: 0
",
        Test::Unit("ledger::tests::a_full_account_balances"),
    ),
    mutation(
        "`summed` is no part of `fired`",
        "mmwatch/src/ledger.rs",
        r"+ ledger.summed
",
        r"
",
        Test::Unit("ledger::tests::a_full_account_balances"),
    ),
    mutation(
        "`submitted` is no part of `fired`",
        "mmwatch/src/ledger.rs",
        r"+ ledger.submitted
",
        r"
",
        Test::Unit("ledger::tests::a_full_account_balances"),
    ),
    mutation(
        "`ring_full` is no part of `fired`",
        "mmwatch/src/ledger.rs",
        r"+ ledger.ring_full
",
        r"
",
        Test::Unit("ledger::tests::a_full_account_balances"),
    ),
    mutation(
        "`simulated` is no part of `fired`",
        "mmwatch/src/ledger.rs",
        "+ ledger.simulated,",
        ",",
        Test::Unit("ledger::tests::a_full_account_balances"),
    ),
    mutation(
        "paths are no part of what was submitted",
        "mmwatch/src/ledger.rs",
        "sum.submitted + sum.paths_submitted + self.replay",
        "sum.submitted + self.replay",
        Test::Unit("ledger::tests::a_full_account_balances"),
    ),
    mutation(
        "paths are no part of what was received",
        "mmwatch/src/ledger.rs",
        "self.events + self.paths + self.undecodable",
        "self.events + self.undecodable",
        Test::Unit("ledger::tests::a_full_account_balances"),
    ),
    mutation(
        "what is undecodable is no part of what was received",
        "mmwatch/src/ledger.rs",
        "self.events + self.paths + self.undecodable",
        "self.events + self.paths",
        Test::Unit("ledger::tests::a_full_account_balances"),
    ),
    mutation(
        "what sinks dropped is no part of what they got",
        "mmwatch/src/ledger.rs",
        "parts: sink.delivered + sink.dropped",
        "parts: sink.delivered",
        Test::Unit("ledger::tests::a_full_account_balances"),
    ),
    mutation(
        "a full ring is no loss",
        "mmwatch/src/ledger.rs",
        "sum.ring_full + sum.simulated + self.received.undecodable + dropped",
        "sum.simulated + self.received.undecodable + dropped",
        Test::Unit("ledger::tests::a_full_account_balances"),
    ),
    mutation(
        "what is lost on purpose is no loss",
        "mmwatch/src/ledger.rs",
        "sum.ring_full + sum.simulated + self.received.undecodable + dropped",
        "sum.ring_full + self.received.undecodable + dropped",
        Test::Unit("ledger::tests::a_full_account_balances"),
    ),
    mutation(
        "what is undecodable is no loss",
        "mmwatch/src/ledger.rs",
        "sum.ring_full + sum.simulated + self.received.undecodable + dropped",
        "sum.ring_full + sum.simulated + dropped",
        Test::Unit("ledger::tests::a_full_account_balances"),
    ),
    mutation(
        "what sinks dropped is no loss",
        "mmwatch/src/ledger.rs",
        "sum.ring_full + sum.simulated + self.received.undecodable + dropped",
        "sum.ring_full + sum.simulated + self.received.undecodable",
        Test::Unit("ledger::tests::a_full_account_balances"),
    ),
    mutation(
        "a closed ledger explains a difference with the ring",
        "mmwatch/src/ledger.rs",
        r"        if self.closed {
            return 0;
        }
",
        "",
        Test::Unit("ledger::tests::what_is_in_the_ring_is_no_loss"),
    ),
    mutation(
        "events are not counted",
        "mmwatch/src/pipeline.rs",
        "self.received.events += 1;",
        "",
        Test::Unit("pipeline::tests::every_record_is_accounted_for"),
    ),
    mutation(
        "paths are not counted",
        "mmwatch/src/pipeline.rs",
        "self.received.paths += 1;",
        "",
        Test::Unit("pipeline::tests::every_record_is_accounted_for"),
    ),
    mutation(
        "what is undecodable is not counted",
        "mmwatch/src/pipeline.rs",
        "self.received.undecodable += 1;",
        "",
        Test::Unit("pipeline::tests::every_record_is_accounted_for"),
    ),
    mutation(
        "what is left in the ring at the end is not read",
        "mmwatch/src/pipeline.rs",
        r"        while self.read()? {}
",
        "",
        Test::Unit("pipeline::tests::every_record_is_accounted_for"),
    ),
    mutation(
        "events that `verify` took are not counted",
        "mmwatch/src/pipeline.rs",
        "verifier.note(&event);\n                    self.noted += 1;",
        "verifier.note(&event);",
        Test::Kernel("random_operations_leave_no_difference"),
    ),
    mutation(
        "what was delivered is not counted",
        "mmwatch/src/sink.rs",
        "self.delivered += delivered;",
        "let _ = delivered;",
        Test::Unit("sink::tests::what_was_written_is_delivered"),
    ),
    mutation(
        "what was not written is not counted as dropped",
        "mmwatch/src/sink.rs",
        "self.dropped += self.pending - delivered;",
        "",
        Test::Unit("sink::tests::a_closed_pipe_drops_what_did_not_get_through"),
    ),
    mutation(
        "what comes after the end of the reader is not counted",
        "mmwatch/src/sink.rs",
        r"        if self.failed {
            self.dropped += 1;",
        "        if self.failed {",
        Test::Unit("sink::tests::a_closed_pipe_drops_what_did_not_get_through"),
    ),
    mutation(
        "sums of the dead do not stay in the totals",
        "mmwatch/src/churn.rs",
        r"process.counted.as_ref().filter(|_| over) {
                *retired += &counted.total;",
        r"process.counted.as_ref().filter(|_| over) {
                let _ = (&mut *retired, counted);",
        Test::Unit("churn::tests::the_dead_are_shown_until_their_sums_are_final"),
    ),
    mutation(
        "totals of the dead are not reported",
        "mmwatch/src/churn.rs",
        r"        other.total += &self.retired;
",
        "",
        Test::Unit("churn::tests::the_dead_are_shown_until_their_sums_are_final"),
    ),
    mutation(
        "a process is final as soon as it is gone",
        "mmwatch/src/churn.rs",
        "if gone && !process.alive && !process.settled && !grown.contains(key)",
        "if gone && !process.settled && !grown.contains(key)",
        Test::Unit("churn::tests::the_dead_are_shown_until_their_sums_are_final"),
    ),
    mutation(
        "a process is final while its sums still grow",
        "mmwatch/src/churn.rs",
        "&& !process.settled && !grown.contains(key)",
        "&& !process.settled && (true || !grown.contains(key))",
        Test::Unit("churn::tests::the_dead_are_shown_until_their_sums_are_final"),
    ),
    mutation(
        "totals of the ended that make room are dropped",
        "mmwatch/src/churn.rs",
        r"                roomless.interval += &counted.interval;
                *retired += &counted.total;",
        r"                roomless.interval += &counted.interval;
                let _ = &mut *retired;",
        Test::Unit("churn::tests::the_ended_that_nobody_asks_for_are_bounded"),
    ),
    mutation(
        "intervals of the ended that make room are dropped",
        "mmwatch/src/churn.rs",
        r"                roomless.interval += &counted.interval;
",
        r"                let _ = &mut *roomless;
",
        Test::Unit("churn::tests::the_ended_that_nobody_asks_for_are_bounded"),
    ),
    mutation(
        "processes without room are left out",
        "mmwatch/src/churn.rs",
        r"                self.roomless.update(&now.sums);
",
        "",
        Test::Unit("churn::tests::those_without_room_are_summed_together"),
    ),
    mutation(
        "processes that are not shown are left out",
        "mmwatch/src/churn.rs",
        r"                    other.add(&row);
",
        "",
        Test::Unit("churn::tests::the_busiest_come_first_and_the_rest_is_folded"),
    ),
    mutation(
        "an interval takes the whole sum",
        "mmwatch/src/churn.rs",
        "let new = now.since(&self.total);",
        "let new = *now;",
        Test::Unit("churn::tests::intervals_start_anew_and_totals_go_on"),
    ),
    mutation(
        "failures: not summed",
        "mmwatch/src/churn/sums.rs",
        "errors: u64::from(event.errno.is_some()),",
        "errors: 0,",
        Test::Unit("churn::tests::operations_are_summed_by_kind"),
    ),
    mutation(
        "bytes: not summed",
        "mmwatch/src/churn/sums.rs",
        r"        bytes,
        vmas_delta",
        r"        bytes: 0,
        vmas_delta",
        Test::Unit("churn::tests::operations_are_summed_by_kind"),
    ),
    mutation(
        "differences of VMAs: not summed",
        "mmwatch/src/churn/sums.rs",
        "vmas_delta: space.vmas_delta.map_or(0, i64::from),",
        "vmas_delta: 0,",
        Test::Unit("churn::tests::operations_are_summed_by_kind"),
    ),
    mutation(
        "how long the lock was held: not summed",
        "mmwatch/src/churn/sums.rs",
        "held_ns: space.held_ns.unwrap_or(0),",
        "held_ns: 0,",
        Test::Unit("churn::tests::operations_are_summed_by_kind"),
    ),
    mutation(
        "VMAs removed: not summed",
        "mmwatch/src/churn/sums.rs",
        "sums.vmas_removed.wrapping_add(removed)",
        "sums.vmas_removed.wrapping_add(0 * removed)",
        Test::Unit("churn::tests::operations_are_summed_by_kind"),
    ),
    mutation(
        "mappings of a backing: not summed",
        "mmwatch/src/churn/sums.rs",
        "sums.maps += 1;",
        "",
        Test::Unit("churn::tests::operations_are_summed_by_kind"),
    ),
    mutation(
        "bytes mapped: not summed",
        "mmwatch/src/churn/sums.rs",
        "sums.mapped_bytes.wrapping_add(mapped)",
        "sums.mapped_bytes.wrapping_add(0 * mapped)",
        Test::Unit("churn::tests::bytes_mapped_and_unmapped_follow_the_operation"),
    ),
    mutation(
        "bytes unmapped: not summed",
        "mmwatch/src/churn/sums.rs",
        "sums.unmapped_bytes.wrapping_add(unmapped)",
        "sums.unmapped_bytes.wrapping_add(0 * unmapped)",
        Test::Unit("churn::tests::bytes_mapped_and_unmapped_follow_the_operation"),
    ),
    mutation(
        "`fired` of several CPUs is not added up",
        "mmwatch-common/src/counter.rs",
        r"        self.fired += row.fired;
",
        "",
        Test::Common("each_counter_is_added_up"),
    ),
    mutation(
        "`filtered` of several CPUs is not added up",
        "mmwatch-common/src/counter.rs",
        r"        self.filtered += row.filtered;
",
        "",
        Test::Common("each_counter_is_added_up"),
    ),
    mutation(
        "`summed` of several CPUs is not added up",
        "mmwatch-common/src/counter.rs",
        r"        self.summed += row.summed;
",
        "",
        Test::Common("each_counter_is_added_up"),
    ),
    mutation(
        "`submitted` of several CPUs is not added up",
        "mmwatch-common/src/counter.rs",
        r"        self.submitted += row.submitted;
",
        "",
        Test::Common("each_counter_is_added_up"),
    ),
    mutation(
        "`ring_full` of several CPUs is not added up",
        "mmwatch-common/src/counter.rs",
        r"        self.ring_full += row.ring_full;
",
        "",
        Test::Common("each_counter_is_added_up"),
    ),
    mutation(
        "`simulated` of several CPUs is not added up",
        "mmwatch-common/src/counter.rs",
        r"        self.simulated += row.simulated;
",
        "",
        Test::Common("each_counter_is_added_up"),
    ),
    mutation(
        "`paths_submitted` of several CPUs is not added up",
        "mmwatch-common/src/counter.rs",
        r"        self.paths_submitted += row.paths_submitted;
",
        "",
        Test::Common("each_counter_is_added_up"),
    ),
    mutation(
        "`unfinished` of several CPUs is not added up",
        "mmwatch-common/src/counter.rs",
        r"        self.unfinished += row.unfinished;
",
        "",
        Test::Common("each_counter_is_added_up"),
    ),
    mutation(
        "VMAs that were merged away are not counted",
        "mmwatch-common/src/sums.rs",
        "(vmas_removed as i64 - merged_away) as u64",
        "vmas_removed as u64",
        Test::Common("gross_follows_from_net_and_removed"),
    ),
    mutation(
        "mapped bytes of several sums are not added up",
        "mmwatch-common/src/sums.rs",
        "self.mapped_bytes = self.mapped_bytes.wrapping_add(other.mapped_bytes);",
        "",
        Test::Common("each_sum_is_added_up_and_taken_away"),
    ),
    mutation(
        "mapped bytes before are not taken away",
        "mmwatch-common/src/sums.rs",
        "self.mapped_bytes.wrapping_sub(earlier.mapped_bytes)",
        "self.mapped_bytes",
        Test::Common("each_sum_is_added_up_and_taken_away"),
    ),
    mutation(
        "faults are not put to a mapping",
        "mmwatch/src/maps/faults.rs",
        "            .and_then(|place| of.vmas.get_mut(place))",
        "            .and_then(|_| of.vmas.get_mut(usize::MAX))",
        Test::Unit("a_page_is_its_mapping_s"),
    ),
    mutation(
        "faults without room are not in the total",
        "mmwatch/src/maps/faults.rs",
        "    of.total.minor += of.roomless.minor;",
        "",
        Test::Unit("what_found_no_room_is_in_the_total"),
    ),
    mutation(
        "`minor_faults` are not added up",
        "mmwatch-common/src/sums.rs",
        "        self.minor_faults = self.minor_faults.wrapping_add(other.minor_faults);",
        "",
        Test::Common("each_sum_is_added_up_and_taken_away"),
    ),
];

//! What is broken in models of address spaces and in `verify`.

use super::{Mutation, Test, mutation};

/// What is tried, file by file.
pub(super) const MUTATIONS: &[Mutation] = &[
    mutation(
        "a map changes nothing",
        "mmwatch/src/space/change.rs",
        "Some(Self::Set(covered(map.range)?, mapping))",
        "covered(map.range).map(|_| (mapping, Self::Nothing).1)",
        Test::Unit("space::change::tests::a_map_sets_what_the_kernel_mapped"),
    ),
    mutation(
        "an unmap changes nothing",
        "mmwatch/src/space/change.rs",
        "return Some(Self::Clear(range(unmap.range.addr?, span_bytes)?));",
        "return range(unmap.range.addr?, span_bytes).map(|_| Self::Nothing);",
        Test::Unit("space::change::tests::an_unmap_clears_the_range_within_which_all_was_removed"),
    ),
    mutation(
        "shmdt changes nothing",
        "mmwatch/src/space/change.rs",
        "Some(Self::Detach(covered(unmap.range)?))",
        "Some(Self::Nothing)",
        Test::Unit("space::change::tests::an_unmap_clears_the_range_within_which_all_was_removed"),
    ),
    mutation(
        "a protection changes nothing",
        "mmwatch/src/space/change.rs",
        "Some(Self::Protect(covered(protect.range)?, prot))",
        "covered(protect.range).map(|_| (prot, Self::Nothing).1)",
        Test::Unit("space::change::tests::a_protection_is_known_from_the_call_alone"),
    ),
    mutation(
        "a protection that failed half-way changes nothing",
        "mmwatch/src/space/change.rs",
        r"Self::ProtectUpToHole(range, prot)
            }
            _",
        r"(range, prot, Self::Nothing).2
            }
            _",
        Test::Unit("space::change::tests::a_failed_protect_changed_what_came_before_it"),
    ),
    mutation(
        "a move changes nothing",
        "mmwatch/src/space/change.rs",
        r"            Self::Move { old, new, keep_old }
        })",
        r"            (old, new, keep_old, Self::Nothing).3
        })",
        Test::Unit("space::change::tests::a_remap_moves_shrinks_or_duplicates"),
    ),
    mutation(
        "a duplicate changes nothing",
        "mmwatch/src/space/change.rs",
        r"Self::Duplicate { at: old.start, new }
        } else",
        r"Self::Nothing
        } else",
        Test::Unit("space::change::tests::a_remap_moves_shrinks_or_duplicates"),
    ),
    mutation(
        "shrinking in place changes nothing",
        "mmwatch/src/space/change.rs",
        "Self::Clear(new.end..old.end)",
        "Self::Nothing",
        Test::Unit("space::change::tests::a_remap_moves_shrinks_or_duplicates"),
    ),
    mutation(
        "a heap that grew changes nothing",
        "mmwatch/src/space/change.rs",
        "1.. => Self::Heap(range),",
        "1.. => Self::Nothing,",
        Test::Unit("space::change::tests::the_net_change_says_which_way_the_heap_went"),
    ),
    mutation(
        "a heap that shrank changes nothing",
        "mmwatch/src/space/change.rs",
        "..0 => Self::Clear(range),",
        "..0 => Self::Nothing,",
        Test::Unit("space::change::tests::the_net_change_says_which_way_the_heap_went"),
    ),
    mutation(
        "a stack that grew changes nothing",
        "mmwatch/src/space/change.rs",
        "What::Grow(_) => Some(Self::Unexplained(Reason::StackGrew)),",
        "What::Grow(_) => Some(Self::Nothing),",
        Test::Unit("space::change::tests::stacks_and_new_programs_are_to_be_read"),
    ),
    mutation(
        "a new program changes nothing",
        "mmwatch/src/space/change.rs",
        "What::Exec(_) => Some(Self::Unexplained(Reason::NewProgram)),",
        "What::Exec(_) => Some(Self::Nothing),",
        Test::Unit("space::change::tests::stacks_and_new_programs_are_to_be_read"),
    ),
    mutation(
        "a failed call that did something changes nothing",
        "mmwatch/src/space/change.rs",
        r"            Self::Unexplained(Reason::Failed)
        }
    }

    /// Whether",
        r"            Self::Nothing
        }
    }

    /// Whether",
        Test::Unit("space::change::tests::a_failed_call_changed_what_the_counts_say"),
    ),
    mutation(
        "remap_file_pages changes nothing",
        "mmwatch/src/space/change.rs",
        "Cause::RemapFilePages => Self::Unexplained(Reason::PagesRearranged),",
        "Cause::RemapFilePages => Self::Nothing,",
        Test::Unit(
            "space::change::tests::advice_changes_nothing_that_is_shown_unless_it_is_not_known",
        ),
    ),
    mutation(
        "sections are applied as they come, gaps or not",
        "mmwatch/src/space/model.rs",
        r"            && section == self.applied + 1
",
        "",
        Test::Unit("space::model::tests::sections_are_applied_in_their_order"),
    ),
    mutation(
        "pending sections are applied over gaps",
        "mmwatch/src/space/model.rs",
        r"            && *first.key() == self.applied + 1
",
        "",
        Test::Unit("space::model::tests::a_missing_section_is_waited_for_but_not_for_ever"),
    ),
    mutation(
        "half a section is applied",
        "mmwatch/src/space/model.rs",
        r"            && outcome.complete
            && !self",
        "            && !self",
        Test::Unit("space::model::tests::a_section_is_applied_when_all_of_it_is_in"),
    ),
    mutation(
        "a missing section is waited for for ever",
        "mmwatch/src/space/model.rs",
        ".or(late.then_some(Reason::Gap))",
        ".or((late && false).then_some(Reason::Gap))",
        Test::Unit("space::model::tests::a_missing_section_is_waited_for_but_not_for_ever"),
    ),
    mutation(
        "a section that drifted is applied",
        "mmwatch/src/space/model.rs",
        "        if outcome.drifted {",
        "        if false && outcome.drifted {",
        Test::Unit("space::model::tests::what_is_not_told_is_to_be_read"),
    ),
    mutation(
        "a move is applied to what was read half-way",
        "mmwatch/src/space/model.rs",
        "if torn && change.is_relative()",
        "if false && torn && change.is_relative()",
        Test::Unit("space::model::tests::a_move_while_it_was_read_cannot_be_redone"),
    ),
    mutation(
        "what was read half-way is held to the totals",
        "mmwatch/src/space/model.rs",
        r"        if !torn
            && let Some(delta)",
        "        if let Some(delta)",
        Test::Unit("space::model::tests::what_changed_while_it_was_read_is_redone"),
    ),
    mutation(
        "totals of sections are not compared",
        "mmwatch/src/space/model.rs",
        "&& before.checked_add_signed(delta) != Some(self.ranges.total_bytes())",
        r"&& false
            && before.checked_add_signed(delta) != Some(self.ranges.total_bytes())",
        Test::Unit("space::model::tests::a_total_that_is_not_the_kernels_is_noticed"),
    ),
    mutation(
        "the total is not audited",
        "mmwatch/src/space/model.rs",
        "&& self.ranges.total_bytes() != total_bytes",
        r"&& false
            && self.ranges.total_bytes() != total_bytes",
        Test::Unit("space::model::tests::an_audit_finds_what_no_event_told"),
    ),
    mutation(
        "sections that the kernel knows of are not awaited",
        "mmwatch/src/space/model.rs",
        r"        self.awaited = self.awaited.max(last_section);
",
        "",
        Test::Unit("space::model::tests::an_audit_finds_what_no_event_told"),
    ),
    mutation(
        "what was read too early is taken",
        "mmwatch/src/space/model.rs",
        "            return Healed::TooOld;",
        "",
        Test::Unit("space::model::tests::what_was_read_too_early_is_refused"),
    ),
    mutation(
        "what waits is not bounded",
        "mmwatch/src/space/model.rs",
        "        if self.pending.len() > MAX_PENDING {",
        "        if false && self.pending.len() > MAX_PENDING {",
        Test::Unit("space::model::tests::what_waits_is_bounded"),
    ),
    mutation(
        "files that were not seen count as known",
        "mmwatch/src/space/model.rs",
        "self.approximate.is_none() && !self.is_behind() && !self.ranges.has_unknown_files()",
        "self.approximate.is_none() && !self.is_behind()",
        Test::Unit("space::model::tests::"),
    ),
    mutation(
        "differences are not counted",
        "mmwatch/src/verify.rs",
        "self.differences += differences.len() as u64;",
        "let _ = differences;",
        Test::Unit("verify::tests::a_range_that_differs_is_told_and_counted"),
    ),
    mutation(
        "who is busy is the same",
        "mmwatch/src/verify.rs",
        r"            } else {
                Verdict::Busy
            };",
        r"            } else {
                Verdict::Same
            };",
        Test::Unit("verify::tests::who_does_not_stand_still_is_busy"),
    ),
    mutation(
        "who is known not to be whole is the same",
        "mmwatch/src/verify.rs",
        r"            return Verdict::Busy;
        }
        let mut differences",
        r"            return Verdict::Same;
        }
        let mut differences",
        Test::Unit("verify::tests::a_model_that_went_on_is_not_compared_with_what_was_before"),
    ),
    mutation(
        "a change of sections is no movement",
        "mmwatch/src/verify.rs",
        "(before.sections, before.pages, before.vmas) == (after.sections, after.pages, after.vmas)",
        "(before.pages, before.vmas) == (after.pages, after.vmas)",
        Test::Unit("verify::tests::who_does_not_stand_still_is_busy"),
    ),
    mutation(
        "a section that may be under way after is no movement",
        "mmwatch/src/verify.rs",
        "        && !is_locked(after)",
        "",
        Test::Unit("verify::tests::who_does_not_stand_still_is_busy"),
    ),
    mutation(
        "a section that may be under way before is no movement",
        "mmwatch/src/verify.rs",
        "    !is_locked(before)",
        "    before.tgid == after.tgid",
        Test::Unit("verify::tests::who_does_not_stand_still_is_busy"),
    ),
    mutation(
        "totals are looked at while a section may be under way",
        "mmwatch/src/verify.rs",
        "    if is_locked(row) {",
        "    if is_locked(row) && row.tgid == 0 {",
        Test::Unit("verify::tests::who_does_not_stand_still_is_busy"),
    ),
    mutation(
        "VMAs are not compared",
        "mmwatch/src/verify.rs",
        "        if snapshot.vmas != row.vmas {",
        "        if false && snapshot.vmas != row.vmas {",
        Test::Unit("verify::tests::lines_and_count_must_agree"),
    ),
    mutation(
        "ranges are not compared",
        "mmwatch/src/verify.rs",
        ".differences(&snapshot.ranges)",
        ".differences(&space.ranges().clone())",
        Test::Unit("verify::tests::a_range_that_differs_is_told_and_counted"),
    ),
    mutation(
        "a model that wants healing is compared",
        "mmwatch/src/verify.rs",
        "            return Verdict::Healing(reason);",
        r#"            log::debug!("{reason}");"#,
        Test::Unit("verify::tests::what_is_not_known_heals"),
    ),
    mutation(
        "sums are not compared",
        "mmwatch/src/verify.rs",
        r"            if !found.is_empty() {
                self.differing",
        r"            if false && !found.is_empty() {
                self.differing",
        Test::Unit("verify::tests::sums_are_held_against_the_kernels"),
    ),
    mutation(
        "sums that move are compared",
        "mmwatch/src/verify.rs",
        "            if !still || *key == ProcessKey::OTHER {",
        "            if *key == ProcessKey::OTHER || still && false {",
        Test::Unit("verify::tests::sums_are_held_against_the_kernels"),
    ),
    mutation(
        "a difference of sums of who differs anyway is dropped",
        "mmwatch/src/verify.rs",
        "differences.append(&mut found);",
        "let _ = (&differences, found.pop());",
        Test::Unit("verify::tests::sums_are_held_against_the_kernels"),
    ),
    mutation(
        "skipped programs leave models whole",
        "mmwatch/src/verify.rs",
        "                space.mark_approximate(Reason::Skipped);",
        "                let _ = space;",
        Test::Unit("verify::tests::what_is_not_known_heals"),
    ),
    mutation(
        "`count` is not compared",
        "mmwatch/src/verify/difference.rs",
        r#"compare(op.name(), "count", count, other.count);"#,
        r#"compare(op.name(), "count", count, count);"#,
        Test::Unit("verify::difference::tests::each_sum_is_compared"),
    ),
    mutation(
        "`errors` is not compared",
        "mmwatch/src/verify/difference.rs",
        r#"compare(op.name(), "errors", errors, other.errors);"#,
        r#"compare(op.name(), "errors", errors, errors);"#,
        Test::Unit("verify::difference::tests::each_sum_is_compared"),
    ),
    mutation(
        "`bytes` is not compared",
        "mmwatch/src/verify/difference.rs",
        r#"compare(op.name(), "bytes", bytes, other.bytes);"#,
        r#"compare(op.name(), "bytes", bytes, bytes);"#,
        Test::Unit("verify::difference::tests::each_sum_is_compared"),
    ),
    mutation(
        "`held_count` is not compared",
        "mmwatch/src/verify/difference.rs",
        r#"compare(op.name(), "held_count", held_count, other.held_count);"#,
        r#"compare(op.name(), "held_count", held_count, held_count);"#,
        Test::Unit("verify::difference::tests::each_sum_is_compared"),
    ),
    mutation(
        "`held_ns` is not compared",
        "mmwatch/src/verify/difference.rs",
        r#"compare(op.name(), "held_ns", held_ns, other.held_ns);"#,
        r#"compare(op.name(), "held_ns", held_ns, held_ns);"#,
        Test::Unit("verify::difference::tests::each_sum_is_compared"),
    ),
    mutation(
        "mappings of a backing are not compared",
        "mmwatch/src/verify/difference.rs",
        "mine.maps, theirs.maps",
        "mine.maps, mine.maps",
        Test::Unit("verify::difference::tests::each_sum_is_compared"),
    ),
];

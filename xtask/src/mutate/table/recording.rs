//! What is broken in recordings.

use super::{Mutation, Test, mutation};

/// What is tried, file by file.
pub(super) const MUTATIONS: &[Mutation] = &[
    mutation(
        "a frame's checksum is not looked at",
        "mmwatch/src/recording/frame.rs",
        "if hasher.finalize() != crc {",
        "if hasher.finalize() != crc && crc == 0 {",
        Test::Unit("recording::frame::tests::no_changed_byte_goes_unnoticed"),
    ),
    mutation(
        "a recording is overwritten without being asked to",
        "mmwatch/src/recording/destination.rs",
        "Content::Recording if force => Ok(()),",
        "Content::Recording if force || path.exists() => Ok(()),",
        Test::Unit("recording::destination::tests::nothing_but_recordings_is_overwritten"),
    ),
    mutation(
        "a second writer is let in",
        "mmwatch/src/recording/destination.rs",
        "Err(TryLockError::WouldBlock) => return Err(taken()),",
        "Err(TryLockError::WouldBlock) => {}",
        Test::Unit("recording::destination::tests::there_is_one_writer"),
    ),
    mutation(
        "more files are kept than asked for",
        "mmwatch/src/recording/destination.rs",
        "self.files() >= keep.max(2)",
        "self.files() > keep.max(2)",
        Test::Unit("recording::destination::tests::the_oldest_go"),
    ),
    mutation(
        "a recording does not keep to its size",
        "mmwatch/src/recording/writer.rs",
        "self.destination.make_room(frames.len() as u64 + reserve)",
        "self.destination.make_room(0)",
        Test::Unit("recording::recorder::tests::a_recording_keeps_to_its_size"),
    ),
    mutation(
        "a gap is not told in the file",
        "mmwatch/src/recording/writer.rs",
        "self.packer.pack(Kind::Gap, &gap.payload(), &mut frames)?;",
        "let _ = gap;",
        Test::Unit("recording::recorder::tests::what_finds_no_room_is_a_gap"),
    ),
    mutation(
        "a rotated file does not say what the one before it did",
        "mmwatch/src/recording/writer.rs",
        "self.pack_dictionary(&mut out)?;",
        "",
        Test::Unit("recording::recorder::tests::files_of_a_rotated_recording_can_be_read_alone"),
    ),
    mutation(
        "what is dropped is not counted",
        "mmwatch/src/recording/writer.rs",
        "self.dropped += lost.events;",
        "",
        Test::Unit("recording::recorder::tests::a_recording_keeps_to_its_size"),
    ),
    mutation(
        "what later records refer to is dropped with a block",
        "mmwatch/src/recording/recorder.rs",
        "self.block.entries.append(&mut self.carried);",
        "",
        Test::Unit("recording::recorder::tests::what_finds_no_room_is_a_gap"),
    ),
    mutation(
        "a process that became another program keeps its identity",
        "mmwatch/src/recording/recorder.rs",
        "            self.processes.remove(&key);\n        }\n        if !self.processes",
        "        }\n        if !self.processes",
        Test::Unit(
            "recording::recorder::tests::an_identity_is_known_with_the_first_record_and_not_before",
        ),
    ),
    mutation(
        "what the kernel forgot stays",
        "mmwatch/src/recording/look.rs",
        "        to.remove(&bytes.value()?);",
        "        let _: ProcessKey = bytes.value()?;\n        to.len();",
        Test::Unit("recording::look::tests::looks_come_back_from_their_differences"),
    ),
    mutation(
        "sums of a rotated file are those of all",
        "mmwatch/src/recording/reader.rs",
        "process.sums = process.sums.since(before);",
        "let _ = before;",
        Test::Unit("recording::recorder::tests::files_of_a_rotated_recording_can_be_read_alone"),
    ),
    mutation(
        "what was not recorded is no part of what came",
        "mmwatch/src/ledger.rs",
        "self.received.records() + self.replay.map_or(0, |replay| replay.lost_records)",
        "self.received.records()",
        Test::Unit("ledger::tests::what_is_not_in_a_recording_is_accounted_for"),
    ),
    mutation(
        "what a filter turns away when it is read is not counted",
        "mmwatch/src/pipeline.rs",
        "self.received.unwanted += 1;",
        "",
        Test::Unit("pipeline::tests::a_filter_on_a_recording_counts_what_it_turns_away"),
    ),
    mutation(
        "a failed call has the size that it covered",
        "mmwatch/src/filter.rs",
        "What::Map(_) | What::Unmap(_) if failed => asked.or(range.len_bytes),",
        "",
        Test::Unit("filter::tests::sizes_are_those_that_the_kernel_compares"),
    ),
    mutation(
        "a cgroup that begins alike is below another",
        "mmwatch/src/filter.rs",
        "root.is_empty() || rest.is_empty() || rest.starts_with('/')",
        "root.is_empty() || rest.len() < path.len()",
        Test::Unit("filter::tests::cgroups_hold_what_is_below_them"),
    ),
];

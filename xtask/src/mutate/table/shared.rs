//! What is broken in who shares memory with whom.

use super::{Mutation, Test, mutation};

/// What is tried, file by file.
pub(super) const MUTATIONS: &[Mutation] = &[
    mutation(
        "what one process maps alone is shared",
        "mmwatch/src/shared.rs",
        "Wanted::All => object.members.len() > 1,",
        "Wanted::All => !object.members.is_empty(),",
        Test::Unit("shared::tests::an_object_of_one_process_is_its_own"),
    ),
    mutation(
        "an inode that all have in common tells of sharing",
        "mmwatch/src/shared.rs",
        r#"line.has_file() && !line.name.starts_with(b"anon_inode:")"#,
        "line.has_file()",
        Test::Unit("shared::tests::an_inode_of_all_tells_of_no_sharing"),
    ),
    mutation(
        "a shmid is a number like others",
        "mmwatch/src/shared.rs",
        "(kind == FileKind::SysvShm).then_some(ipc_namespace)",
        "(kind, ipc_namespace, None).2",
        Test::Unit("shared::tests::numbers_that_others_have_too_are_told_apart"),
    ),
    mutation(
        "mappings that do not touch are joined",
        "mmwatch/src/shared.rs",
        "self.range.end == next.range.start",
        "self.range.end <= next.range.start",
        Test::Unit("shared::tests::what_goes_on_is_one_mapping"),
    ),
    mutation(
        "mappings of other parts of the object are joined",
        "mmwatch/src/shared.rs",
        "&& self.extent().end == next.offset",
        "",
        Test::Unit("shared::tests::what_goes_on_is_one_mapping"),
    ),
    mutation(
        "private mappings talk",
        "mmwatch/src/shared/talk.rs",
        "mapping.shared && wanted(mapping)",
        "wanted(mapping)",
        Test::Unit("shared::tests::talks_are_those_of_every_pair_and_page"),
    ),
    mutation(
        "who can read only can write",
        "mmwatch/src/shared/talk.rs",
        "mapping.prot.is_writable()",
        "mapping.prot.is_readable()",
        Test::Unit("shared::tests::talks_are_those_of_every_pair_and_page"),
    ),
    mutation(
        "parts that do not overlap are talked through",
        "mmwatch/src/shared/talk.rs",
        "bytes > 0 && (from",
        "(from",
        Test::Unit("shared::tests::talks_are_those_of_every_pair_and_page"),
    ),
    mutation(
        "one process talks to itself",
        "mmwatch/src/shared/talk.rs",
        "from != to || writers.len() > 1",
        "from != to || !writers.is_empty()",
        Test::Unit("ui::shared::tests::arrows_go_where_data_can_go"),
    ),
    mutation(
        "what one process maps is in common",
        "mmwatch/src/shared/talk.rs",
        "if users > 1 {",
        "if users > 0 {",
        Test::Unit("shared::tests::talks_are_those_of_every_pair_and_page"),
    ),
    mutation(
        "a backslash in a label begins an escape",
        "mmwatch/src/ui/dot.rs",
        r#"'"' | '\\' =>"#,
        r#"'"' =>"#,
        Test::Unit("ui::dot::tests::processes_and_objects_are_a_graph"),
    ),
];

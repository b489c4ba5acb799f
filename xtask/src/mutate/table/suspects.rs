//! What is broken around dangerous mappings, on both sides.

use super::{Mutation, Test, mutation};

/// What is tried, file by file.
pub(super) const MUTATIONS: &[Mutation] = &[
    mutation(
        "`suspects` are not summed",
        "mmwatch-ebpf/src/sums.rs",
        "unsafe { grow(numbers.add(place), bits >> place & 1) };",
        "unsafe { grow(numbers.add(place), bits >> place & 0) };",
        Test::Kernel("suspects_are_told"),
    ),
    mutation(
        "`--suspect` lets everything through",
        "mmwatch-ebpf/src/filter.rs",
        "u32::from(head.suspects.bits()) & config!(suspects) == 0",
        "u32::from(head.suspects.bits()) & config!(suspects) == 1 << 31",
        Test::Kernel("a_filter_lets_suspects_through"),
    ),
    mutation(
        "anonymous memory that is asked for is no suspect",
        "mmwatch-ebpf/src/report/call.rs",
        "let memory = suspect::ANONYMOUS.and(suspect::of_flags(flags));",
        "let memory = suspect::of_flags(flags);",
        Test::Under("tracepoint", "suspects_are_told"),
    ),
    mutation(
        "a mapping that failed is a suspect",
        "mmwatch-ebpf/src/report/call.rs",
        "        None if errno == 0 => {",
        "        None => {",
        Test::Under("tracepoint", "suspects_are_told"),
    ),
    mutation(
        "a protect of nothing is a suspect",
        "mmwatch-ebpf/src/report/call.rs",
        "_ if len != 0 => head.suspects",
        "_ if len != 1 => head.suspects",
        Test::Kernel("suspects_are_told"),
    ),
    mutation(
        "a file that was removed counts as one that is there",
        "mmwatch-ebpf/src/suspect.rs",
        "member!(inode, inode_nlink: u32) != Some(0)",
        "member!(inode, inode_nlink: u32) != Some(77)",
        Test::Kernel("suspects_are_told"),
    ),
    mutation(
        "any file by a memfd's name is one",
        "mmwatch-ebpf/src/suspect.rs",
        "let own = parent == dentry;",
        "let own = parent != 1;",
        Test::Kernel("suspects_are_told"),
    ),
    mutation(
        "the protection before is not noted",
        "mmwatch-ebpf/src/section.rs",
        "self.old_prot |= suspect::access(old);",
        "self.old_prot |= suspect::access(old & 0);",
        Test::Under("fentry", "suspects_are_told"),
    ),
    mutation(
        "suspects of the VMA before are forgotten",
        "mmwatch-ebpf/src/section.rs",
        "self.suspects |= suspects.bits();",
        "self.suspects = suspects.bits();",
        Test::Under("fentry", "suspects_are_told"),
    ),
    mutation(
        "a stack is any memory",
        "mmwatch-ebpf/src/hooks/protect.rs",
        "behind.and(stack).and(suspect::of_flags(flags)).and(heap)",
        "behind.and(heap)",
        Test::Under("fentry", "suspects_are_told"),
    ),
    mutation(
        "the heap is any memory",
        "mmwatch-ebpf/src/hooks/protect.rs",
        "behind.and(stack).and(suspect::of_flags(flags)).and(heap)",
        "behind.and(stack).and(suspect::of_flags(flags))",
        Test::Under("fentry", "suspects_are_told"),
    ),
    mutation(
        "what was executable before was made so",
        "mmwatch-common/src/suspect.rs",
        "let made = flag(new & !old, EXECUTE);",
        "let made = flag(new, EXECUTE);",
        Test::Common("a_change_is_judged_by_what_it_makes"),
    ),
    mutation(
        "suspects of events are not summed",
        "mmwatch/src/churn/sums.rs",
        "sums.suspects[suspect as usize] += 1;",
        "let _ = suspect;",
        Test::Unit("churn::tests::suspects_are_summed_by_kind"),
    ),
    mutation(
        "`maps` takes the kernel's own code for a suspect",
        "mmwatch/src/maps.rs",
        "self.backing == Backing::Special && !line.has_file()",
        "self.backing == Backing::Special && line.has_file()",
        Test::Unit("maps::tests::dangerous_mappings_are_told_by_permissions_and_by_what_is_behind"),
    ),
];

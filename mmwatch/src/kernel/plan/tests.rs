//! Plans for kernels that are not there, from facts recorded on them with
//! `mmwatch check -o json`.

use mmwatch_common::config::{Call, DOWNGRADE_KNOWN};

use super::{obstacle::LIST_FUNCTION, *};
use crate::kernel::facts::Answer;

fn recorded(kernel: &str) -> Facts {
    let json = match kernel {
        "5.10" => include_str!("../../../tests/facts/5.10.json"),
        "6.1" => include_str!("../../../tests/facts/6.1.json"),
        "6.12" => include_str!("../../../tests/facts/6.12.json"),
        "6.18" => include_str!("../../../tests/facts/6.18.json"),
        "7.2" => include_str!("../../../tests/facts/7.2.json"),
        _ => panic!("no facts of {kernel}"),
    };
    serde_json::from_str(json).unwrap()
}

const KERNELS: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "7.2"];

fn programs(plan: &Plan) -> Vec<String> {
    plan.programs.iter().map(ToString::to_string).collect()
}

fn with(kernel: &str, backend: Backend) -> Plan {
    plan(&recorded(kernel), Hooks::Only(backend)).unwrap()
}

fn targets(plan: &Plan) -> Vec<&'static str> {
    plan.programs
        .iter()
        .map(|program| program.attach.target())
        .collect()
}

#[test]
fn fentry_is_best_wherever_it_works() {
    for kernel in KERNELS {
        let plan = plan(&recorded(kernel), Hooks::Auto).unwrap();
        assert_eq!(plan.backend, Backend::Fentry, "{kernel}");
        assert!(
            programs(&plan).contains(&"fexit mmap_region".to_owned()),
            "{kernel}"
        );
        assert!(!plan.settle_at_call, "{kernel}");
        assert_eq!(plan.calls, ALL_CALLS, "{kernel}");
    }
}

#[test]
fn the_unmap_core_goes_by_each_kernel_s_name() {
    for (kernel, fentry, kprobe, downgrade) in [
        (
            "5.10",
            "fexit __do_munmap",
            "kretprobe __do_munmap",
            DOWNGRADE_AT_UNMAP,
        ),
        (
            "6.1",
            "kretprobe do_mas_align_munmap",
            "kretprobe do_mas_align_munmap",
            DOWNGRADE_AT_UNMAP,
        ),
        (
            "6.12",
            "fentry vms_complete_munmap_vmas",
            "kprobe vms_complete_munmap_vmas",
            DOWNGRADE_KNOWN,
        ),
        (
            "7.2",
            "fentry vms_complete_munmap_vmas",
            "kprobe vms_complete_munmap_vmas",
            DOWNGRADE_KNOWN,
        ),
    ] {
        for (backend, program) in [(Backend::Fentry, fentry), (Backend::Kprobe, kprobe)] {
            let plan = with(kernel, backend);
            assert!(
                programs(&plan).contains(&program.to_owned()),
                "{kernel} {program}"
            );
            assert_eq!(plan.downgrade, downgrade, "{kernel} {program}");
            // What the newer core tells itself, the older ones need splits for.
            assert_eq!(plan.counts_splits, downgrade == DOWNGRADE_AT_UNMAP);
            assert_eq!(targets(&plan).contains(&"__split_vma"), plan.counts_splits);
            assert!(!plan.limits.contains(&NO_UNMAP_DETAIL), "{kernel}");
            assert!(targets(&plan).contains(&"shmem_zero_setup"), "{kernel}");
            assert_eq!(
                targets(&plan).contains(&"shmem_zero_setup_desc"),
                kernel == "7.2"
            );
            assert!(!plan.limits.contains(&NO_SHARED_FILE), "{kernel}");
        }
    }
}

#[test]
fn a_kernel_that_cannot_list_processes_is_refused() {
    let mut facts = recorded("6.18");
    facts.functions.remove(LIST_FUNCTION);
    let refusal = plan(&facts, Hooks::Auto).unwrap_err();
    assert!(refusal.0.contains("5.8"), "{refusal}");
}

#[test]
fn without_kprobes_fentry_takes_the_core_that_trampolines_can_take() {
    let mut facts = recorded("6.1");
    facts.kprobe = Answer::Refused("no kprobes".into());
    let plan = plan(&facts, Hooks::Auto).unwrap();
    assert!(programs(&plan).contains(&"fexit do_mas_munmap".to_owned()));
    // It does not see brk, and the plan says what that means.
    assert!(plan.limits.contains(&UNMAP_WITHOUT_BRK));
}

#[test]
fn lock_tracepoints_are_used_where_they_are_cheap() {
    for backend in [Backend::Fentry, Backend::Kprobe] {
        for (kernel, cheap) in [
            ("5.10", false),
            ("6.1", false),
            ("6.12", false),
            ("6.18", true),
            ("7.2", true),
        ] {
            let plan = with(kernel, backend);
            let raw = targets(&plan).contains(&"mmap_lock_released");
            assert_eq!(raw, cheap, "{kernel} {}", backend.name());
            assert_eq!(targets(&plan).contains(&"up_write"), !cheap, "{kernel}");
        }
    }
}

#[test]
fn tracepoints_alone_still_settle_under_the_lock_from_5_11_on() {
    for kernel in ["6.1", "6.12", "6.18", "7.2"] {
        let plan = with(kernel, Backend::Tracepoint);
        assert!(!plan.settle_at_call, "{kernel}");
        assert_eq!(plan.downgrade, DOWNGRADE_AT_READ_RELEASE, "{kernel}");
    }
    let memcg = |kernel| {
        let plan = with(kernel, Backend::Tracepoint);
        plan.programs
            .iter()
            .any(|program| program.name == "raw_lock_released_memcg")
    };
    assert!(memcg("6.1") && memcg("6.12"));
    assert!(!memcg("6.18") && !memcg("7.2"));
}

#[test]
fn tracepoints_alone_on_5_10_settle_at_calls_and_say_so() {
    let plan = with("5.10", Backend::Tracepoint);
    assert!(plan.settle_at_call);
    assert_eq!(
        targets(&plan),
        [
            "sched_process_fork",
            "sched_process_exec",
            "sched_process_exit",
            "cgroup_mkdir",
            "sys_exit",
            "sys_enter"
        ]
    );
    assert!(plan.limits.contains(&NO_LOCK));
    assert!(plan.limits.contains(&NO_EXIT));
}

#[test]
fn the_lock_comes_last() {
    for kernel in KERNELS {
        for backend in Backend::ALL {
            let plan = with(kernel, backend);
            let position = |wanted: fn(Hook) -> bool| {
                plan.programs
                    .iter()
                    .position(|program| wanted(program.hook))
            };
            let lock = position(|hook| matches!(hook, Hook::LockTaken)).unwrap();
            let calls = plan
                .programs
                .iter()
                .rposition(|program| program.attach.target().contains("sys_"))
                .filter(|_| !plan.settle_at_call);
            assert!(
                calls.is_none_or(|call| call < lock),
                "{kernel} {}",
                backend.name()
            );
        }
    }
}

#[test]
fn what_does_not_work_is_passed_over_with_its_reason() {
    let mut facts = recorded("6.18");
    facts.fentry = Answer::Refused("trampolines are off".into());
    let auto = plan(&facts, Hooks::Auto).unwrap();
    assert_eq!(auto.backend, Backend::Kprobe);
    assert_eq!(
        auto.skipped[0],
        Skipped {
            what: "fentry".into(),
            why: "trampolines are off".into()
        }
    );

    facts.kprobe = Answer::Refused("kprobes are off".into());
    let auto = plan(&facts, Hooks::Auto).unwrap();
    assert_eq!(auto.backend, Backend::Tracepoint);

    let refusal = plan(&facts, Hooks::Only(Backend::Fentry))
        .unwrap_err()
        .to_string();
    assert!(refusal.contains("trampolines are off") && refusal.contains("--hooks auto"));
}

#[test]
fn a_refused_program_is_planned_around() {
    let mut facts = recorded("6.12");
    facts
        .refused
        .insert("fexit_mmap_region".into(), "EBUSY".into());
    let without = plan(&facts, Hooks::Auto).unwrap();
    assert_eq!(without.backend, Backend::Fentry);
    assert!(!targets(&without).contains(&"mmap_region"));
    assert!(without.limits.contains(&NO_MAP_DETAIL));
    assert!(
        without
            .skipped
            .iter()
            .any(|skipped| skipped.why.contains("EBUSY"))
    );

    // Without its lock a backend cannot work at all.
    facts
        .refused
        .insert("fentry_up_write".into(), "EBUSY".into());
    assert_eq!(plan(&facts, Hooks::Auto).unwrap().backend, Backend::Kprobe);
}

#[test]
fn a_call_that_a_kernel_lacks_is_left_out() {
    let mut facts = recorded("6.18");
    facts.functions.remove("__x64_sys_shmat");
    let plan = plan(&facts, Hooks::Auto).unwrap();
    assert_eq!(plan.calls, ALL_CALLS & !(1 << Call::Shmat as u32));
}

#[test]
fn what_nothing_works_without_is_named_with_a_remedy() {
    let refused = |change: fn(&mut Facts)| {
        let mut facts = recorded("6.18");
        change(&mut facts);
        plan(&facts, Hooks::Auto).unwrap_err().to_string()
    };
    let message = refused(|facts| {
        facts.raw_tracepoint = Answer::Refused("EPERM".into());
        facts.euid = 1000;
    });
    assert!(
        message.contains("EPERM") && message.contains("root"),
        "{message}"
    );
    let message = refused(|facts| {
        facts.raw_tracepoint = Answer::Refused("EPERM".into());
        facts.euid = 0;
    });
    assert!(message.contains("CAP_BPF"), "{message}");
    let message = refused(|facts| facts.btf_error = Some("no such file".into()));
    assert!(message.contains("CONFIG_DEBUG_INFO_BTF"), "{message}");
    let message = refused(|facts| {
        facts
            .offsets
            .retain(|path, _| path != "mm_struct.map_count")
    });
    assert!(message.contains("mm_struct.map_count"), "{message}");
    let message = refused(|facts| facts.machine = "riscv64".into());
    assert!(message.contains("riscv64"), "{message}");
}

#[test]
fn no_program_is_planned_twice() {
    for kernel in KERNELS {
        for backend in Backend::ALL {
            let plan = with(kernel, backend);
            let mut names: Vec<_> = plan.programs.iter().map(|program| program.name).collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "{kernel} {}", backend.name());
        }
    }
}

#[test]
fn faults_are_counted_on_every_kernel() {
    for kernel in KERNELS {
        let plan = faults(&recorded(kernel)).unwrap();
        let programs: Vec<_> = plan.programs.iter().map(ToString::to_string).collect();
        assert_eq!(
            programs,
            [
                "raw_tracepoint page_fault_user",
                "raw_tracepoint page_fault_kernel",
                "perf_event minor-faults",
                "perf_event major-faults",
            ],
            "{kernel}"
        );
        assert!(plan.tells_touched && plan.limits.is_empty(), "{kernel}");
    }
}

#[test]
fn what_was_touched_is_not_told_without_the_beginnings_of_faults() {
    let mut facts = recorded("6.18");
    facts.tracepoints.remove("page_fault_kernel");
    let plan = faults(&facts).unwrap();
    assert!(!plan.tells_touched);
    assert_eq!(plan.programs.len(), 2);
    let text = plan.to_string();
    assert!(text.contains("no tracepoint page_fault_kernel"), "{text}");
    assert!(text.contains("not told: which of the faults"), "{text}");
}

#[test]
fn without_software_events_no_faults_are_counted() {
    let mut facts = recorded("6.18");
    facts.perf_event = Answer::Refused("perf_event_open: Permission denied".into());
    for (euid, next) in [(0, "seccomp"), (1000, "as root")] {
        facts.euid = euid;
        let Refusal(message) = faults(&facts).unwrap_err();
        assert!(message.contains("Permission denied"), "{message}");
        assert!(message.contains(next), "{message}");
    }
    // All else can be watched.
    assert!(plan(&facts, Hooks::Auto).is_ok());
}

#[test]
fn what_a_range_was_before_is_seen_but_by_tracepoints() {
    for kernel in KERNELS {
        for backend in Backend::ALL {
            let plan = with(kernel, backend);
            let seen = targets(&plan).contains(&"security_file_mprotect");
            assert_eq!(seen, backend != Backend::Tracepoint, "{kernel}");
            assert_eq!(plan.limits.contains(&NO_OLD_PROT), !seen, "{kernel}");
            assert!(!plan.limits.contains(&NO_UNLINKED), "{kernel}");
        }
    }
    let without = |change: fn(&mut Facts)| {
        let mut facts = recorded("6.18");
        change(&mut facts);
        plan(&facts, Hooks::Auto).unwrap()
    };
    for plan in [
        without(|facts| {
            facts
                .functions
                .retain(|name, _| name != "security_file_mprotect")
        }),
        without(|facts| {
            facts
                .offsets
                .retain(|name, _| name != "vm_area_struct.vm_ops")
        }),
    ] {
        assert_eq!(plan.backend, Backend::Fentry);
        assert!(plan.limits.contains(&NO_OLD_PROT));
        let skipped = |skipped: &Skipped| skipped.what == "fentry security_file_mprotect";
        assert!(plan.skipped.iter().any(skipped));
    }
    let plan = without(|facts| facts.offsets.retain(|name, _| name != "inode.i_nlink"));
    assert!(plan.limits.contains(&NO_UNLINKED));
    assert!(!plan.limits.contains(&NO_OLD_PROT));
}

#[test]
fn without_the_making_of_cgroups_their_names_are_missed() {
    let mut facts = recorded("6.18");
    assert!(
        !plan(&facts, Hooks::Auto)
            .unwrap()
            .limits
            .contains(&NO_CGROUP)
    );
    facts.tracepoints.remove("cgroup_mkdir");
    let without = plan(&facts, Hooks::Auto).unwrap();
    assert!(without.limits.contains(&NO_CGROUP));
    assert!(!targets(&without).contains(&"cgroup_mkdir"));
}

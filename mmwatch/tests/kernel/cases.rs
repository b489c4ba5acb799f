//! What must hold under every backend.

mod agent;
mod daemon;
mod deploy;
mod exact;
mod faults;
mod identity;
mod privileges;
mod recording;
mod scenes;
mod sidecar;
mod suspects;
mod watching;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command},
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

use crate::run::{Trace, mmwatch, temporary, trace, wait_until_watching, watcher, workload};

/// A test, given the backend's name.
pub type Case = fn(&str);

/// What the kernel programs do: differs from backend to backend.
pub const WATCHING: &[(&str, Case)] = &[
    (
        "calls_give_exactly_their_events",
        watching::calls_give_exactly_their_events,
    ),
    (
        "failing_calls_give_their_errno",
        watching::failing_calls_give_their_errno,
    ),
    ("failures_are_explained", watching::failures_are_explained),
    (
        "a_process_is_followed_from_fork_to_exit",
        watching::a_process_is_followed_from_fork_to_exit,
    ),
    (
        "sections_of_threads_are_in_order",
        watching::sections_of_threads_are_in_order,
    ),
    (
        "random_operations_leave_no_difference",
        exact::random_operations_leave_no_difference,
    ),
    (
        "what_was_lost_on_purpose_is_in_the_sums",
        exact::what_was_lost_on_purpose_is_in_the_sums,
    ),
    ("gross_and_net_are_told", exact::gross_and_net_are_told),
    (
        "a_peak_between_two_looks_is_told",
        exact::a_peak_between_two_looks_is_told,
    ),
    (
        "a_storm_is_counted_whole",
        watching::a_storm_is_counted_whole,
    ),
    (
        "a_tiny_ring_loses_and_says_so",
        watching::a_tiny_ring_loses_and_says_so,
    ),
    (
        "the_agent_never_sees_itself",
        watching::the_agent_never_sees_itself,
    ),
    (
        "a_backing_is_let_through_whole",
        watching::a_backing_is_let_through_whole,
    ),
    ("suspects_are_told", suspects::suspects_are_told),
    (
        "a_filter_lets_suspects_through",
        suspects::a_filter_lets_suspects_through,
    ),
    (
        "a_mapping_takes_another_s_place_only_by_force",
        scenes::a_mapping_takes_another_s_place_only_by_force,
    ),
    (
        "a_program_is_linked_before_it_runs",
        scenes::a_program_is_linked_before_it_runs,
    ),
    (
        "two_capabilities_are_enough_and_both_are_needed",
        privileges::two_capabilities_are_enough_and_both_are_needed,
    ),
    (
        "check_predicts_what_trace_does",
        watching::check_predicts_what_trace_does,
    ),
    (
        "the_profile_has_all_calls_of_a_trace",
        deploy::the_profile_has_all_calls_of_a_trace,
    ),
    ("a_confined_agent_sees", daemon::a_confined_agent_sees),
    (
        "nothing_is_left_in_the_kernel",
        watching::nothing_is_left_in_the_kernel,
    ),
];

/// What the agent does around them: the same whatever the backend, so one is enough.
pub const AGENT: &[(&str, Case)] = &[
    (
        "a_running_process_is_watched_by_pid",
        agent::a_running_process_is_watched_by_pid,
    ),
    (
        "the_command_s_exit_code_is_passed_on",
        agent::the_command_s_exit_code_is_passed_on,
    ),
    (
        "an_interrupt_ends_with_the_ledger",
        agent::an_interrupt_ends_with_the_ledger,
    ),
    (
        "a_closed_pipe_is_a_good_end",
        agent::a_closed_pipe_is_a_good_end,
    ),
    ("stat_sums_a_command", agent::stat_sums_a_command),
    (
        "nobody_else_s_operations_come_with_a_user",
        agent::nobody_else_s_operations_come_with_a_user,
    ),
    (
        "filters_let_through_what_they_say",
        watching::filters_let_through_what_they_say,
    ),
    (
        "what_is_recorded_is_what_happened",
        recording::what_is_recorded_is_what_happened,
    ),
    (
        "ids_that_come_again_are_other_processes",
        exact::ids_that_come_again_are_other_processes,
    ),
    (
        "the_ended_leave_nothing_behind",
        exact::the_ended_leave_nothing_behind,
    ),
    (
        "the_limit_is_shown_as_reached",
        exact::the_limit_is_shown_as_reached,
    ),
    (
        "locked_memory_is_asked_for_where_it_counts",
        privileges::locked_memory_is_asked_for_where_it_counts,
    ),
    (
        "the_maps_of_others_take_sys_ptrace",
        privileges::the_maps_of_others_take_sys_ptrace,
    ),
    (
        "a_sidecar_sees_its_pod_and_nothing_else",
        sidecar::a_sidecar_sees_its_pod_and_nothing_else,
    ),
    (
        "a_sidecar_sees_the_pid_namespace_that_it_shares",
        sidecar::a_sidecar_sees_the_pid_namespace_that_it_shares,
    ),
    (
        "faults_are_those_that_the_kernel_counts",
        faults::faults_are_those_that_the_kernel_counts,
    ),
    (
        "without_being_asked_no_fault_is_told",
        faults::without_being_asked_no_fault_is_told,
    ),
    (
        "faults_are_put_to_mappings",
        faults::faults_are_put_to_mappings,
    ),
];

/// What user space makes of events, the same on every kernel, and slow under emulation: on
/// this machine's own kernel only.
pub const LOCAL: &[(&str, Case)] = &[
    (
        "a_report_is_the_stat_of_the_same_time",
        recording::a_report_is_the_stat_of_the_same_time,
    ),
    (
        "filters_on_a_recording_are_the_kernel_s",
        recording::filters_on_a_recording_are_the_kernel_s,
    ),
    (
        "a_killed_recorder_leaves_what_it_wrote",
        recording::a_killed_recorder_leaves_what_it_wrote,
    ),
    ("a_full_disk_is_a_gap", recording::a_full_disk_is_a_gap),
];

/// The same whatever the backend too; apart, so that no boot takes much longer than others.
pub const PROCESSES: &[(&str, Case)] = &[
    (
        "a_full_table_of_sums_is_counted",
        exact::a_full_table_of_sums_is_counted,
    ),
    (
        "a_file_is_written_through_memory",
        scenes::a_file_is_written_through_memory,
    ),
    (
        "a_mapping_s_age_and_changes_are_told",
        scenes::a_mapping_s_age_and_changes_are_told,
    ),
    (
        "a_process_that_moves_is_told_where_it_is",
        identity::a_process_that_moves_is_told_where_it_is,
    ),
    (
        "containers_are_told_apart",
        identity::containers_are_told_apart,
    ),
    (
        "a_container_is_let_through_alone",
        identity::a_container_is_let_through_alone,
    ),
    (
        "containers_have_their_sums",
        identity::containers_have_their_sums,
    ),
    (
        "programs_have_their_sums",
        identity::programs_have_their_sums,
    ),
    (
        "the_profile_has_all_calls",
        deploy::the_profile_has_all_calls,
    ),
    ("other_calls_are_refused", deploy::other_calls_are_refused),
    (
        "the_daemon_set_s_privileges_are_enough",
        deploy::the_daemon_set_s_privileges_are_enough,
    ),
    (
        "the_sidecar_s_privileges_are_enough",
        deploy::the_sidecar_s_privileges_are_enough,
    ),
    (
        "each_capability_is_needed",
        deploy::each_capability_is_needed,
    ),
    (
        "what_a_process_mapped_is_told_after_its_end",
        recording::what_a_process_mapped_is_told_after_its_end,
    ),
    (
        "containers_are_told_apart_in_a_recording",
        identity::containers_are_told_apart_in_a_recording,
    ),
    (
        "every_row_of_a_program_has_a_name",
        scenes::every_row_of_a_program_has_a_name,
    ),
    (
        "a_file_is_read_through_memory",
        scenes::a_file_is_read_through_memory,
    ),
    (
        "ordinary_programs_are_no_suspects",
        suspects::ordinary_programs_are_no_suspects,
    ),
];

/// Whether the backend sees locks and the ends of address spaces here; `check` says
/// what it does not.
fn limit(backend: &str, words: &str) -> bool {
    let check = check(backend);
    let limits = check["plan"]["limits"].as_array().unwrap();
    limits
        .iter()
        .any(|limit| limit.as_str().unwrap().contains(words))
}

/// An address.
fn hex(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}

/// Whether this is a virtual machine of ours, where no instruction runs as it is
/// and nobody else is there to mind what is done to it.
fn is_emulated() -> bool {
    fs::read_to_string("/proc/cpuinfo").is_ok_and(|info| info.contains("QEMU"))
}

/// A setting of the kernel that is another while the value lives.
struct Sysctl {
    path: &'static str,
    before: String,
}

impl Sysctl {
    fn set(path: &'static str, value: u32) -> Self {
        let before = fs::read_to_string(path).unwrap();
        fs::write(path, value.to_string()).unwrap();
        Self { path, before }
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        let _ = fs::write(self.path, self.before.trim());
    }
}

const MAX_MAP_COUNT: &str = "/proc/sys/vm/max_map_count";

/// A low `vm.max_map_count`, where each VMA takes its time.
fn low_limit() -> Option<Sysctl> {
    is_emulated().then(|| Sysctl::set(MAX_MAP_COUNT, 2_000))
}

/// A size that nothing else has, so that a filter leaves the storm alone.
const STORM_LEN: u64 = 512 << 20;
const STORM_ONLY: [&str; 4] = ["--op", "map,unmap", "--min-size", "512M"];

/// A storm whose own count goes to stderr: mmwatch's stdout is not to be mixed with it.
fn storm(pairs: u64) -> Vec<String> {
    let command = workload(&["storm", &pairs.to_string(), &STORM_LEN.to_string()]);
    let script = format!("{} >&2", command.join(" "));
    vec!["/bin/sh".into(), "-c".into(), script]
}

/// Pairs of calls in the storm of [`stat_of_storm`].
const STAT_PAIRS: u64 = 500;

/// What `mmwatch stat -o json` says of a storm; asked once.
fn stat_of_storm(backend: &str) -> String {
    static STATS: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    // One that fails is asked again by the next case, which then fails as it did.
    let mut stats = STATS.lock().unwrap_or_else(PoisonError::into_inner);
    let stat = stats.entry(backend.to_owned()).or_insert_with(|| {
        let output = watcher()
            .args(["stat", "-o", "json", "--hooks", backend, "--"])
            .args(storm(STAT_PAIRS))
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    });
    stat.clone()
}

/// Runs the calls under a filter and returns what came, and all that there was.
fn filtered(backend: &str, args: &[&str]) -> Trace {
    let (notes, file) = (temporary("notes"), temporary("file"));
    let command = workload(&["failures", notes.to_str().unwrap(), file.to_str().unwrap()]);
    let trace = trace(backend, args, &command);
    let _ = fs::remove_file(&notes);
    let _ = fs::remove_file(&file);
    trace.assert_whole();
    assert!(trace.counter("filtered") > 0, "{args:?}: {}", trace.ledger);
    trace
}

/// The first line of a trace of the whole machine, on which something is kept
/// happening once it is watched, which takes longer beside something else; and the
/// reader, for the lines after it.
fn first_line(child: &mut Child) -> (String, BufReader<ChildStdout>) {
    wait_until_watching(child);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut noise = Command::new("/bin/sh")
        .args(["-c", "while /bin/true; do :; done"])
        .spawn()
        .unwrap();
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    noise.kill().unwrap();
    noise.wait().unwrap();
    (line, stdout)
}

/// What `mmwatch check` says of a backend; asked once.
fn check(backend: &str) -> Value {
    static CHECKS: Mutex<BTreeMap<String, Value>> = Mutex::new(BTreeMap::new());
    let mut checks = CHECKS.lock().unwrap();
    let check = checks.entry(backend.to_owned()).or_insert_with(|| {
        let output = mmwatch()
            .args(["check", "-o", "json", "--hooks", backend])
            .output()
            .unwrap();
        assert!(output.status.success());
        serde_json::from_slice(&output.stdout).unwrap()
    });
    check.clone()
}

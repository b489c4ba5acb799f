//! The real agent: with a real Prometheus, with clients that are not welcome, and with
//! what systemd tells and hears. Some of what it maps is done by this very binary, called
//! with another name as its first argument. Needs root, the package `prometheus`, and for
//! OpenTelemetry what `MMWATCH_OTLP_PYTHON` and `MMWATCH_VICTORIA_METRICS` name:
//! `cargo xtask test` has all.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod access;
mod confined;
mod crowd;
mod daemon;
mod events;
mod life;
mod otlp;
mod prometheus;
mod receiver;
mod storm;

use std::{
    env,
    process::ExitCode,
    sync::{PoisonError, RwLock},
};

use libtest_mimic::{Arguments, Trial};

macro_rules! tests {
    ($($module:ident::$name:ident,)*) => {
        &[$((stringify!($name), $module::$name as fn())),*]
    };
}

/// Tests that run alone: in the kernel's table nobody has room beside so many processes,
/// and events of a whole machine are to be those of a quiet one.
const ALONE: [&str; 3] = [
    "a_crowd_is_told_in_a_few_series",
    "events_arrive_by_http",
    "events_arrive_by_grpc",
];

static ROOM: RwLock<()> = RwLock::new(());

const TESTS: &[(&str, fn())] = tests![
    prometheus::a_storm_is_counted_to_the_last_call,
    prometheus::rules_and_dashboard_have_series,
    prometheus::the_rules_are_well_formed,
    access::what_is_asked_for_is_told,
    access::foreign_names_are_refused_on_loopback,
    access::a_token_opens_what_it_should,
    access::a_socket_does_as_well_as_a_port,
    access::who_says_nothing_is_hung_up_on,
    confined::every_thread_has_given_up_what_it_does_not_need,
    confined::what_was_given_up_fails,
    crowd::a_crowd_is_told_in_a_few_series,
    events::subscribers_are_told_what_they_asked_for,
    events::the_kernel_sends_events_while_somebody_listens,
    events::who_reads_slowly_learns_what_is_lost,
    events::addresses_are_not_for_everybody,
    life::the_configuration_is_checked,
    life::a_signal_reads_the_configuration_again,
    life::systemd_is_told_and_the_end_is_quick,
    life::two_capabilities_are_enough,
    life::the_unit_is_sound,
    life::the_unit_s_calls_are_enough,
    otlp::totals_are_the_agents_by_http,
    otlp::totals_are_the_agents_by_grpc,
    otlp::nothing_is_lost_while_the_receiver_is_away,
    otlp::nothing_is_lost_while_grpc_is_away,
    otlp::what_does_not_fit_is_counted,
    otlp::answers_by_http_are_understood,
    otlp::answers_by_grpc_are_understood,
    otlp::tls_and_headers_by_http,
    otlp::tls_and_headers_by_grpc,
    otlp::victoria_metrics_has_what_the_agent_says,
    otlp::events_arrive_by_http,
    otlp::events_arrive_by_grpc,
    otlp::too_many_events_are_counted,
    otlp::a_wrong_export_is_refused_at_the_start,
];

fn main() -> ExitCode {
    match env::args().nth(1).as_deref() {
        Some("storm") => {
            storm::main();
            return ExitCode::SUCCESS;
        }
        Some("crowd") => {
            crowd::main();
            return ExitCode::SUCCESS;
        }
        Some("confined") => {
            confined::main();
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let trials = TESTS.iter().map(|&(name, test)| {
        Trial::test(name, move || {
            if ALONE.contains(&name) {
                let _alone = ROOM.write().unwrap_or_else(PoisonError::into_inner);
                test();
            } else {
                let _shared = ROOM.read().unwrap_or_else(PoisonError::into_inner);
                test();
            }
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

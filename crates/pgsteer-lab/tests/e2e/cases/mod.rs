//! All tests, in the order in which they run.

mod agent;
mod cancel;
mod capacity;
mod crash;
mod drain;
mod drivers;
mod etcd;
mod failsafe;
mod faults;
mod haproxy;
mod newcomer;
mod orders;
mod outage;
mod page;
mod pages;
mod patroni;
mod pooler;
mod postgres;
mod profiles;
mod rendered;
mod replicas;
mod several;
mod silence;
mod sql_only;
mod strings;
mod switchover;
mod tls;
mod upgrade;
mod vip;

use std::thread::JoinHandle;

use anyhow::{Result, anyhow};

use crate::stage::{Cluster, Play};

/// One test.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub cluster: Cluster,
    pub name: &'static str,
    pub play: Play,
    /// The test pulls cables, which needs network namespaces and therefore root.
    pub needs_cables: bool,
    /// It takes the HAProxy 3.0 that is unpacked beside the system's.
    pub needs_haproxy_3_0: bool,
    /// It shows the live page in Chromium.
    pub needs_browser: bool,
}

/// `cluster: module::test, ...`, with the names as in the code.
macro_rules! cases {
    ($($cluster:ident: $($name:path),+ $(,)?;)+) => {
        [$($(Case {
            cluster: Cluster::$cluster,
            name: stringify!($name),
            play: $name,
            needs_cables: false,
            needs_haproxy_3_0: false,
            needs_browser: false,
        }),+),+]
    };
}

/// Tests that depend most on Patroni run with both versions. The rest is spread over the two
/// clusters.
#[allow(clippy::too_many_lines, reason = "it is one list")]
pub fn all() -> Vec<Case> {
    let cases = cases! {
        Old:
            newcomer::one_address_of_patroni_is_enough,
            pages::status_and_metrics_agree_with_the_cluster,
            upgrade::no_session_and_no_new_client_notices,
            page::a_switchover_is_shown_as_it_happens,
            page::a_page_without_its_pgsteer_is_not_green,
            page::a_change_of_a_gate_is_painted_at_once,
            page::a_hundred_open_pages_cost_little,
            page::a_page_answers_while_thousands_of_clients_storm_the_door,
            switchover::no_client_is_refused,
            drivers::psql_logs_in_by_scram_and_gets_the_servers_own_errors,
            drivers::psycopg_pipelines_copies_and_fails_as_without_a_proxy,
            drivers::pgbench_runs_without_an_error,
            strings::rendered_client_strings_connect_unchanged,
            cancel::libpq_cancels_the_intended_query,
            cancel::ctrl_c_in_psql_cancels_the_query,
            cancel::a_second_pgsteer_cancels_a_query_of_the_first,
            agent::happacs_scenarios_work_with_pgsteer_as_the_agent,
            agent::no_server_is_shown_down_in_normal_operation,
            agent::one_agent_answers_for_all_members,
            agent::the_weight_falls_as_sessions_open,
            agent::an_agent_that_was_stopped_reports_no_member_down,
            faults::haproxy_shows_the_right_primary_in_every_row,
            tls::clients_that_request_tls_get_it_from_the_server,
            tls::a_switchover_breaks_only_logins_in_progress,
            several::libpq_tries_the_second_pgsteer,
            orders::sigterm_without_sessions_is_quick,
            orders::after_sigterm_sessions_may_finish_and_are_then_ended,
            orders::sighup_keeps_sessions_that_the_new_file_still_allows,
            orders::sighup_with_a_broken_file_changes_nothing,
            drain::an_order_reaches_haproxy,
            haproxy::a_switchover_is_pushed_within_milliseconds,
            haproxy::what_a_person_has_set_stays,
            haproxy::a_member_without_a_server_gets_one,
            haproxy::a_switchover_amid_reloads_sends_no_session_to_a_wrong_member,
            haproxy::without_pgsteer_the_health_checks_go_on,
            haproxy::faulty_haproxys_are_reported_and_the_others_are_still_controlled,
            rendered::httpchk_follows_a_switchover,
            rendered::redirect_routes_to_the_right_primary,
            rendered::pgsteer_behind_haproxy_holds_clients_through_a_switchover,
            rendered::agent_bypass_routes_past_a_stopped_pooler,
            rendered::a_second_primary_gets_no_writer_in_any_profile,
            replicas::a_replica_tagged_noloadbalance_is_drained_and_returns,
            outage::clients_get_the_reason_and_are_served_after_the_outage,
            postgres::a_restart_only_makes_clients_wait,
            pooler::a_stopped_pooler_only_makes_clients_wait,
            pooler::a_stopped_pooler_is_bypassed_until_it_returns,
            pooler::a_pooler_that_leads_to_another_member_gets_no_client,
            pooler::a_paused_pooler_keeps_its_clients_and_is_not_bypassed,
            pooler::a_full_pooler_keeps_its_clients_and_is_not_bypassed,
            pooler::a_pooler_that_delays_logins_does_not_block_the_primary,
            pooler::a_pooler_that_leads_to_a_server_of_the_same_role_gets_no_client,
            patroni::writes_continue_beside_a_frozen_patroni_until_another_has_the_lock,
            crash::clients_wait_for_the_new_primary,
            crash::clients_wait_for_the_new_primary_without_a_check_login;
        New:
            newcomer::one_address_of_patroni_is_enough,
            switchover::no_client_is_refused,
            upgrade::in_a_switchover_no_client_is_refused,
            upgrade::with_few_open_files_every_session_goes_on,
            drain::a_drained_replica_keeps_its_sessions_and_opens_at_once,
            drain::an_order_survives_a_restart_and_expires,
            drain::an_order_survives_an_upgrade_without_a_state_directory,
            drain::an_order_that_leaves_no_member_is_refused,
            etcd::logins_are_held_back_before_the_old_primary_stops,
            etcd::an_unreachable_etcd_changes_nothing,
            failsafe::a_restart_while_etcd_is_down_refuses_no_client,
            replicas::a_lagging_replica_is_drained_and_returns,
            replicas::a_replica_that_left_the_member_list_is_drained_and_returns,
            replicas::a_crash_of_a_replica_refuses_no_reader,
            replicas::a_replica_in_smart_shutdown_gets_no_reader_and_keeps_its_sessions,
            replicas::without_replicas_the_primary_serves_reads_if_configured,
            replicas::pg_dump_with_jobs_works_with_sticky_addresses,
            replicas::read_sessions_at_a_promoted_replica_end_if_configured,
            tls::a_cancel_request_inside_tls_reaches_the_member_that_runs_the_query,
            capacity::clients_beyond_max_connections_wait_and_all_are_served,
            pooler::a_switchover_behind_poolers_refuses_no_client,
            postgres::a_hang_only_makes_clients_wait,
            postgres::a_sudden_stop_only_makes_clients_wait,
            silence::a_frozen_primary_loses_its_sessions_and_gets_none_after_the_thaw,
            silence::a_primary_behind_a_pulled_cable_loses_its_sessions,
            patroni::writes_continue_without_patroni_until_another_has_the_lock,
            crash::clients_wait_for_the_new_primary,
            rendered::httpchk_follows_a_switchover,
            profiles::no_client_hangs_with_haproxy_3_0,
            haproxy::a_switchover_is_pushed_to_haproxy_3_0,
            rendered::agent_follows_a_switchover_and_no_server_is_down,
            rendered::sql_recognises_a_standby_within_one_check,
            rendered::sql_follows_a_switchover_and_blocks_two_primaries,
            sql_only::two_primaries_are_both_shut_until_one_is_left,
            vip::the_address_is_where_writes_are_possible_right_after_a_switchover,
            vip::the_address_follows_a_crash_and_a_restart_of_pgsteer,
            vip::an_upgrade_keeps_the_address,
            vip::one_replica_has_the_address_of_readers,
            vip::the_address_stays_while_etcd_is_lost_in_failsafe_mode,
            vip::an_address_that_is_not_right_is_corrected_and_reported;
    };
    cases.into_iter().map(note_needs).collect()
}

fn note_needs(case: Case) -> Case {
    let (needs_cables, needs_haproxy_3_0) =
        (case.name.contains("pulled_cable"), case.name.contains("haproxy_3_0"));
    // Each member needs interfaces of its own.
    let needs_cables = needs_cables || case.name.starts_with("vip::");
    let needs_browser = case.name.starts_with("page::");
    Case { needs_cables, needs_haproxy_3_0, needs_browser, ..case }
}

/// Whether the HAProxy 3.0 is there.
pub fn has_haproxy_3_0() -> bool {
    crate::installed::installed(profiles::HAPROXY_3_0).is_ok()
}

/// Joins a thread and returns its result.
fn join<T>(thread: JoinHandle<T>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread of the test died"))
}

//! All tests, in the order in which they are played.

mod agent;
mod cancel;
mod capacity;
mod crash;
mod darkness;
mod drivers;
mod etcd;
mod faults;
mod newcomer;
mod orders;
mod pages;
mod patroni;
mod pooler;
mod postgres;
mod rendered;
mod replicas;
mod several;
mod silence;
mod sql_only;
mod strings;
mod switchover;
mod tls;

use std::thread::JoinHandle;

use anyhow::{Result, anyhow};

use crate::stage::{Cluster, Play};

/// One test.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub cluster: Cluster,
    pub name: &'static str,
    pub play: Play,
    /// It pulls cables, which takes network namespaces and therefore root.
    pub needs_cables: bool,
}

/// `cluster: module::test, ...`, with the names as they are written.
macro_rules! cases {
    ($($cluster:ident: $($name:path),+ $(,)?;)+) => {
        [$($(Case {
            cluster: Cluster::$cluster,
            name: stringify!($name),
            play: $name,
            needs_cables: false,
        }),+),+]
    };
}

/// Both Patronis are tried with what depends on them most; the rest is spread over the two clusters.
pub fn all() -> Vec<Case> {
    let cases = cases! {
        Old:
            newcomer::one_address_of_patroni_is_enough,
            pages::status_and_metrics_tell_what_is,
            switchover::no_client_is_turned_away,
            drivers::psql_logs_in_by_scram_and_hears_the_servers_own_refusals,
            drivers::psycopg_pipelines_copies_and_fails_as_without_a_proxy,
            drivers::pgbench_runs_without_an_error,
            strings::of_clients_connect_word_for_word,
            cancel::libpq_cancels_the_query_it_means,
            cancel::psql_cancels_at_ctrl_c,
            cancel::a_second_pgsteer_cancels_what_runs_through_the_first,
            agent::happacs_scenarios_work_with_pgsteer_in_its_place,
            agent::nobody_is_shown_down_in_normal_running,
            agent::the_weight_falls_as_sessions_come,
            agent::one_that_was_stopped_says_no_to_nobody,
            faults::haproxy_is_right_about_the_primary_in_every_row,
            tls::clients_that_want_it_get_it_from_the_server,
            tls::a_switchover_costs_at_most_the_logins_under_way,
            several::libpq_goes_on_to_the_second_door,
            orders::sigterm_without_sessions_is_quick,
            orders::sigterm_lets_sessions_finish_and_then_ends_them,
            orders::sighup_touches_no_session_that_the_new_file_still_allows,
            orders::sighup_with_a_broken_file_changes_nothing,
            rendered::httpchk_follows_a_switchover,
            rendered::redirect_leads_to_the_right_primary,
            rendered::pgsteer_behind_holds_clients_through_a_switchover,
            rendered::agent_bypass_leads_past_a_pooler_that_is_down,
            rendered::a_second_primary_gets_no_writer_in_any_profile,
            replicas::one_with_the_tag_noloadbalance_is_drained_and_comes_back,
            postgres::a_restart_only_makes_clients_wait,
            pooler::one_that_is_down_only_makes_clients_wait,
            pooler::one_that_is_down_is_bypassed_until_it_is_back,
            pooler::one_that_leads_elsewhere_gets_no_client,
            pooler::one_that_is_paused_keeps_its_clients_and_is_not_bypassed,
            pooler::one_that_is_full_keeps_its_clients_and_is_not_bypassed,
            pooler::one_that_puts_logins_off_keeps_nobody_from_a_primary,
            pooler::one_that_leads_to_another_of_the_same_role_gets_no_client,
            patroni::writes_go_on_beside_a_frozen_patroni_until_another_has_the_lock,
            crash::clients_wait_for_the_successor,
            crash::clients_wait_for_the_successor_without_a_login_too;
        New:
            newcomer::one_address_of_patroni_is_enough,
            switchover::no_client_is_turned_away,
            etcd::logins_are_held_back_before_the_old_primary_stops,
            etcd::one_that_is_away_costs_nothing,
            replicas::one_that_lags_is_drained_and_comes_back,
            replicas::one_that_patroni_does_not_list_any_more_is_drained_and_comes_back,
            replicas::one_that_crashes_turns_no_reader_away,
            replicas::one_in_a_smart_shutdown_gets_no_reader_and_its_sessions_go_on,
            replicas::without_any_the_primary_stands_in_if_it_may,
            replicas::pg_dump_with_jobs_works_where_addresses_stick_to_a_member,
            replicas::sessions_at_a_promoted_one_end_where_that_is_wanted,
            tls::a_cancel_request_inside_it_reaches_the_member_that_runs_the_query,
            capacity::clients_beyond_max_connections_wait_and_all_are_served,
            pooler::a_switchover_behind_poolers_turns_no_client_away,
            postgres::a_hang_only_makes_clients_wait,
            postgres::a_sudden_stop_only_makes_clients_wait,
            silence::a_frozen_primary_loses_its_sessions_and_gets_none_after_the_thaw,
            silence::a_primary_behind_a_pulled_cable_loses_its_sessions,
            patroni::writes_go_on_without_patroni_until_another_has_the_lock,
            crash::clients_wait_for_the_successor,
            rendered::httpchk_follows_a_switchover,
            rendered::agent_follows_a_switchover_and_nobody_is_down,
            rendered::sql_recognises_a_standby_within_one_check,
            rendered::sql_follows_a_switchover_and_blocks_two_primaries,
            agent::one_answers_for_all_members,
            darkness::clients_hear_the_reason_and_are_served_when_it_is_over,
            sql_only::two_primaries_are_both_shut_until_one_is_left;
    };
    cases.into_iter().map(note_cables).collect()
}

fn note_cables(case: Case) -> Case {
    Case { needs_cables: case.name.contains("pulled_cable"), ..case }
}

/// What a thread has come to.
fn join<T>(thread: JoinHandle<T>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread of the test died"))
}

//! Configurations of the kind that manuals, tutorials and blogs show: each with the faults that it
//! is known to have, and nothing that it has not.

use std::collections::BTreeSet;

use pgsteer_files::lint::{Kind, Options, Report};

use crate::{ids, judged};

fn report(text: &str) -> Report {
    let options = Options { max_connections: Some(100), ..Options::default() };
    let kind = Kind::of("-", text).unwrap_or_else(|| panic!("{text}"));
    judged(kind, text, &options)
}

fn finds(text: &str, wanted: &[&'static str]) {
    let report = report(text);
    let wanted: BTreeSet<&str> = wanted.iter().copied().collect();
    assert_eq!(ids(&report), wanted, "{:#?}", report.findings);
}

/// How soon the server of this line is DOWN when it refuses, in milliseconds.
fn down_refused(text: &str) -> Vec<(u64, u64)> {
    let rows = report(text).detection;
    let times = rows.iter().filter_map(|row| row.check.known());
    times.map(|times| (times.refused.least_ms, times.refused.most_ms)).collect()
}

#[test]
fn a_pooler_beside_patroni() {
    let text = include_str!("pooler_checked_through_patroni.cfg");
    finds(text, &["no-guard-against-two-primaries", "pooler-unchecked", "slow-detection"]);
    assert_eq!(down_refused(text), [(2_000, 5_000); 3]);
}

#[test]
fn a_pooler_and_an_agent() {
    finds(
        include_str!("pooler_with_agent.cfg"),
        &[
            "agent-undo-words",
            "check-on-pooler-only",
            "no-guard-against-two-primaries",
            "slow-detection",
        ],
    );
}

/// One agent that is down leads everybody past the pooler.
#[test]
fn a_pooler_that_is_led_past() {
    finds(
        include_str!("pooler_led_past.cfg"),
        &[
            "agent-undo-words",
            "check-on-pooler-only",
            "nbsrv-counts-all",
            "no-guard-against-two-primaries",
            "slow-detection",
        ],
    );
}

/// A second farewell, known credentials, a start at which everybody is a primary, 5 s of timeout.
#[test]
fn a_check_by_sql() {
    finds(
        include_str!("sql_check.cfg"),
        &[
            "first-check-late",
            "no-keepalive",
            "slow-detection",
            "stats-credentials",
            "tcp-check-sends-after-end",
            "timeout-cuts-idle-sessions",
        ],
    );
}

#[test]
fn the_same_check_without_its_farewell() {
    finds(
        include_str!("sql_check_without_farewell.cfg"),
        &[
            "first-check-late",
            "no-keepalive",
            "slow-detection",
            "stats-credentials",
            "tcp-check-waits",
            "timeout-cuts-idle-sessions",
        ],
    );
}

/// HAProxy does not load it: `if ... use ...` is no line of its language.
#[test]
fn a_redirect_of_rogue_clients() {
    finds(
        include_str!("redirect.cfg"),
        &[
            "no-keepalive",
            "slow-detection",
            "stats-credentials",
            "tcp-check-sends-after-end",
            "timeout-cuts-idle-sessions",
            "unknown-word",
        ],
    );
}

#[test]
fn a_tutorial() {
    let text = include_str!("tutorial.cfg");
    finds(
        text,
        &[
            "first-check-late",
            "httpchk-method-glued",
            "maxconn-below-servers",
            "maxconn-beyond-max-connections",
            "name-resolved-once",
            "no-guard-against-two-primaries",
            "slow-detection",
            "stats-open",
            "timeout-cuts-idle-sessions",
        ],
    );
    assert_eq!(down_refused(text), [(6_000, 9_000); 6]);
}

#[test]
fn a_blog_with_a_daemon() {
    finds(include_str!("agent_daemon.cfg"), &[]);
}

/// "HAProxy detects the change within 3 seconds."
#[test]
fn a_role_that_claims_three_seconds() {
    let text = include_str!("three_seconds.cfg");
    finds(
        text,
        &[
            "first-check-late",
            "no-guard-against-two-primaries",
            "no-shutdown-sessions",
            "slow-detection",
            "stats-open",
            "timeout-cuts-idle-sessions",
        ],
    );
    assert_eq!(down_refused(text), [(6_000, 9_000); 6]);
}

/// repmgr may do everything; the login of the checks may not, and comes from exact addresses.
#[test]
fn lines_of_trust_for_repmgr() {
    let text = include_str!("repmgr_pg_hba.conf");
    finds(text, &["hba-trust-powerful"]);
    let lines: Vec<usize> = report(text).findings.iter().map(|it| it.place.line).collect();
    assert_eq!(lines, [9, 10, 13, 14]);
}

#[test]
fn what_we_recommend_is_clean() {
    finds(include_str!("../../../../../docs/haproxy/recommended.cfg"), &[]);
}

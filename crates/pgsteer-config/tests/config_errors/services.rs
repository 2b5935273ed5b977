//! The services: their listeners, limits and choices.

use insta::assert_snapshot;

use crate::{read_beside_patroni, wrong, wrong_beside_patroni};

#[test]
fn two_listeners_cannot_share_an_address_and_port() {
    let text = "
[services.a]
listen = '127.0.0.1:6000'
role = 'primary'
[services.b]
listen = ':6000'
role = 'replica'
[services.c]
listen = 7000
role = 'replica'
";
    assert_snapshot!(wrong_beside_patroni(text), @"
    pgsteer.toml:8:10: services.b.listen: the same address and port as pgsteer.toml:5:10: services.a.listen
        help: give one of them another port
    pgsteer.toml:11:10: services.c.listen: the same address and port as http.listen (by default)
        help: give one of them another port
    ");
}

#[test]
fn a_service_for_writes_has_neither_lag_nor_fallback() {
    let text = "
[services.write]
lag_bytes_max = '16MB'
lag_seconds_max = 10
fallback = 'primary'
on_promotion = 'end'
";
    assert_snapshot!(wrong_beside_patroni(text), @r#"
    pgsteer.toml:5:17: services.write.lag_bytes_max: a lag limit has no meaning on a service with role primary
        help: remove it, or set role = "replica"
    pgsteer.toml:6:19: services.write.lag_seconds_max: a lag limit has no meaning on a service with role primary
        help: remove it, or set role = "replica"
    pgsteer.toml:7:12: services.write.fallback: falling back to the primary has no meaning on a service with role primary
        help: remove it, or set role = "replica"
    pgsteer.toml:8:16: services.write.on_promotion: what happens to sessions on a promotion has no meaning on a service with role primary
        help: remove it, or set role = "replica"
    "#);
}

#[test]
fn limits_and_choices_of_a_service_are_checked() {
    let text = "
[services.write]
member_sessions_max = 0
sessions_max = 'many'
stick = 'cookie'
[services.read]
stick = 'source'
on_promotion = 'kill'
[proxy]
sessions_per_address_max = 0
";
    assert_snapshot!(wrong_beside_patroni(text), @"
    pgsteer.toml:5:23: services.write.member_sessions_max: `0` is out of range
        help: from 1 to 1000000
    pgsteer.toml:6:16: services.write.sessions_max: expects a whole number, found a string
        help: a bare number from 1 to 1000000
    pgsteer.toml:7:9: services.write.stick: `cookie` is not one of the possible words
        help: one of none, address
    pgsteer.toml:9:9: services.read.stick: `source` is not one of the possible words
        help: did you mean `address`?
    pgsteer.toml:10:16: services.read.on_promotion: `kill` is not one of the possible words
        help: one of keep, end
    pgsteer.toml:12:28: proxy.sessions_per_address_max: `0` is out of range
        help: from 1 to 1000000
    ");
}

#[test]
fn pooler_down_needs_a_pooler_port() {
    let text = "
[services.write]
pooler_down = 'bypass'
[services.read]
pooler_port = 6432
pooler_down = 'bypass'
";
    assert_snapshot!(wrong_beside_patroni(text), @"
    pgsteer.toml:5:15: services.write.pooler_down: without `pooler_port` the service uses no pooler
        help: add pooler_port = 6432, or remove pooler_down
    ");
}

#[test]
fn a_lag_limit_in_time_needs_a_login() {
    let read = "[services.read]\nlag_seconds_max = 10\nfallback = 'primary'\n";
    assert_snapshot!(wrong_beside_patroni(read), @r#"
    pgsteer.toml:4:19: services.read.lag_seconds_max: a lag limit in time needs a check login: Patroni reports the lag in bytes only
        help: add [check] with user = "pgcheck", or --check-user pgcheck; or limit the bytes, as in lag_bytes_max = "16MB" or --max-lag 16MB
    "#);
    assert!(read_beside_patroni(&format!("{read}[check]\nuser = 'pgcheck'\n")).is_ok());
    assert!(read_beside_patroni("[services.read]\nlag_bytes_max = '16MB'\n").is_ok());
    // A missing login is reported once.
    let listed = format!("members.a.postgres = 'pg1'\nmembers.b.postgres = 'pg2'\n{read}");
    assert_snapshot!(wrong(&listed), @r#"
    pgsteer.toml:1:1: members: listed members are checked by SQL, and no check login is configured
        help: add [check] with user = "pgcheck", or --check-user pgcheck
    "#);
}

//! Invalid configuration files, each with all errors that pgsteer reports.

#![allow(clippy::unwrap_used, clippy::panic)]

use insta::assert_snapshot;
use pgsteer_config::error::ConfigErrors;
use pgsteer_config::file;
use pgsteer_config::summary::Summary;
use pgsteer_core::settings::{Config, Weight};
use proptest::prelude::*;

fn read(text: &str) -> Result<Config, ConfigErrors> {
    let (draft, errors) = file::read(text, "pgsteer.toml");
    draft.finish(errors)
}

/// All errors of the file.
fn wrong(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

/// The result for a file with Patroni and this text.
fn read_beside_patroni(text: &str) -> Result<Config, ConfigErrors> {
    read(&format!("[patroni]\nurls = ['http://pg1']\n{text}"))
}

/// All errors of a file with Patroni and this text.
fn wrong_beside_patroni(text: &str) -> String {
    read_beside_patroni(text).unwrap_err().to_string()
}

/// All errors of a file with members, a check login and this text.
fn wrong_beside_members(text: &str) -> String {
    wrong(&format!("check.user = 'pgcheck'\nmembers.a.postgres = 'pg1'\n{text}"))
}

#[test]
fn an_empty_file_has_no_member() {
    assert_snapshot!(wrong(""), @"
    configuration: neither Patroni nor a list of members is configured
        help: the shortest that works is: pgsteer run --patroni http://10.0.0.11:8008, or pgsteer agent -h 10.0.0.11 (or [patroni] with urls in pgsteer.toml)
    ");
}

#[test]
fn a_misspelled_key_is_found_in_every_section() {
    let text = "
[clusters]
[cluster]
nam = 'x'
[patroni]
url = ['http://pg1']
[members.n1]
address = 'pg1'
[check]
usr = 'pgcheck'
[services.write]
hold = 3
[services.read]
max_lag = '16MB'
balance = 'leastconn'
[http]
port = 7000
[proxy]
max_sessions = 3
";
    assert_snapshot!(wrong(text), @r#"
    pgsteer.toml:2:2: clusters: there is no key `clusters` at the top of the file
        help: did you mean `cluster`?
    pgsteer.toml:4:1: cluster.nam: there is no key `nam` in [cluster]
        help: did you mean `name`?
    pgsteer.toml:5:2: patroni: `urls` is missing
        help: as in urls = ["http://10.0.0.11:8008"]
    pgsteer.toml:6:1: patroni.url: there is no key `url` in [patroni]
        help: did you mean `urls`?
    pgsteer.toml:7:2: members: members are listed, and Patroni is configured too (pgsteer.toml:5:2: patroni)
        help: remove the list, because Patroni returns the members; list members only for a cluster without Patroni
    pgsteer.toml:7:10: members.n1: `postgres` is missing
        help: as in postgres = "10.0.0.11:5432"
    pgsteer.toml:8:1: members.n1.address: there is no key `address` in [members.n1]
        help: the keys are postgres
    pgsteer.toml:9:2: check: `user` is missing
        help: as in user = "pgcheck", or --check-user pgcheck
    pgsteer.toml:10:1: check.usr: there is no key `usr` in [check]
        help: did you mean `user`?
    pgsteer.toml:12:1: services.write.hold: there is no key `hold` in [services.write]
        help: did you mean `hold_seconds`?
    pgsteer.toml:14:1: services.read.max_lag: there is no key `max_lag` in [services.read]
        help: did you mean `lag_bytes_max`?
    pgsteer.toml:15:1: services.read.balance: there is no key `balance` in [services.read]
        help: the keys are listen, role, hold_seconds, connect_timeout_seconds, member_sessions_max, sessions_max, pooler_port, pooler_down, lag_bytes_max, lag_seconds_max, fallback, stick, on_promotion, tags
    pgsteer.toml:17:1: http.port: there is no key `port` in [http]
        help: the keys are listen, allow, hosts, login_file, token_file, protect, cert_file, key_file, peers
    pgsteer.toml:19:1: proxy.max_sessions: there is no key `max_sessions` in [proxy]
        help: did you mean `sessions_max`?
    "#);
}

#[test]
fn an_error_for_a_wrong_type_names_the_expected_one() {
    let text = r#"
cluster = "main"
[patroni]
urls = "http://pg1"
timeout_seconds = "1s"
cert_file = true
[services]
other = 5000
[services.write]
listen = 5000.5
hold_seconds = [30]
pooler_port = "6432"
[services.read]
tags = "west"
lag_bytes_max = 1.5
fallback = true
[http]
listen = true
[proxy]
workers = 2.0
sessions_max = 2026-01-01
"#;
    assert_snapshot!(wrong(text), @r#"
    pgsteer.toml:2:11: cluster: expects a table, found a string
        help: as in [cluster]
    pgsteer.toml:4:8: patroni.urls: expects a list, found a string
        help: as in urls = ["http://10.0.0.11:8008"]
    pgsteer.toml:5:19: patroni.timeout_seconds: expects a number of seconds, found a string
        help: did you mean 1? A bare number from 0.1 to 60 seconds; the default is 1
    pgsteer.toml:6:13: patroni.cert_file: expects a string, found a boolean
        help: as in cert_file = "/etc/pgsteer/client.pem"
    pgsteer.toml:8:9: services.other: expects a table, found a whole number
        help: as in [services.other]
    pgsteer.toml:10:10: services.write.listen: expects an address to listen on, found a number with a fraction
        help: as in listen = "0.0.0.0:5000"
    pgsteer.toml:11:16: services.write.hold_seconds: expects a number of seconds, found a list
        help: a bare number from 0 to 3600 seconds
    pgsteer.toml:12:15: services.write.pooler_port: expects a whole number, found a string
        help: a bare number from 1 to 65535
    pgsteer.toml:14:8: services.read.tags: expects a table, found a string
        help: as in tags = { region = "west" }
    pgsteer.toml:15:17: services.read.lag_bytes_max: expects a size, found a number with a fraction
        help: as in lag_bytes_max = "16MB"
    pgsteer.toml:16:12: services.read.fallback: expects a string, found a boolean
        help: as in fallback = "primary"
    pgsteer.toml:18:10: http.listen: expects an address to listen on, or false, found true
        help: as in listen = "0.0.0.0:7000"
    pgsteer.toml:20:11: proxy.workers: expects a whole number, found a number with a fraction
        help: a bare number from 1 to 256
    pgsteer.toml:21:16: proxy.sessions_max: expects a whole number, found a date or time
        help: a bare number from 1 to 1000000; the default is 10000
    "#);
}

#[test]
fn an_error_for_a_number_out_of_range_names_the_range() {
    let text = "
cluster.patroni_loss_grace_seconds = -1
cluster.silence_seconds = 0.1
patroni.urls = ['http://pg1']
patroni.timeout_seconds = inf
check.user = 'x'
check.timeout_seconds = nan
services.write.hold_seconds = 1e999
services.write.pooler_port = 65536
services.read.connect_timeout_seconds = 0
services.read.lag_seconds_max = 100000
services.read.lag_bytes_max = 0
proxy.workers = 0
proxy.sessions_max = 99999999999999999999999
proxy.login_timeout_seconds = 0xffff
proxy.shutdown_grace_seconds = -0.5
proxy.keepalive_seconds = 7201
proxy.user_timeout_seconds = -1
";
    assert_snapshot!(wrong(text), @"
    pgsteer.toml:2:38: cluster.patroni_loss_grace_seconds: `-1` is out of range
        help: from 0 to 86400 seconds; the default is 60
    pgsteer.toml:3:27: cluster.silence_seconds: `0.1` is out of range
        help: from 1 to 3600 seconds; the default is 30
    pgsteer.toml:5:27: patroni.timeout_seconds: `inf` is out of range
        help: from 0.1 to 60 seconds; the default is 1
    pgsteer.toml:7:25: check.timeout_seconds: `nan` is out of range
        help: from 0.1 to 60 seconds; the default is 1
    pgsteer.toml:8:31: services.write.hold_seconds: `1e999` is out of range
        help: from 0 to 3600 seconds
    pgsteer.toml:9:30: services.write.pooler_port: `65536` is not a port
        help: a number from 1 to 65535
    pgsteer.toml:10:41: services.read.connect_timeout_seconds: `0` is out of range
        help: from 0.1 to 60 seconds; the default is 2
    pgsteer.toml:11:33: services.read.lag_seconds_max: `100000` is out of range
        help: from 0.1 to 86400 seconds
    pgsteer.toml:12:31: services.read.lag_bytes_max: `0` is out of range
        help: from 1B to 1024TB; without the key there is no limit
    pgsteer.toml:13:17: proxy.workers: `0` is out of range
        help: from 1 to 256
    pgsteer.toml:14:22: proxy.sessions_max: `99999999999999999999999` is out of range
        help: from 1 to 1000000; the default is 10000
    pgsteer.toml:15:31: proxy.login_timeout_seconds: `65535` is out of range
        help: from 1 to 600 seconds; the default is 60
    pgsteer.toml:16:32: proxy.shutdown_grace_seconds: `-0.5` is out of range
        help: from 0 to 86400 seconds; the default is 30
    pgsteer.toml:17:27: proxy.keepalive_seconds: `7201` is out of range
        help: from 1 to 7200 seconds; the default is 30
    pgsteer.toml:18:30: proxy.user_timeout_seconds: `-1` is out of range
        help: from 0 to 3600 seconds; the default is 0
    ");
}

#[test]
fn an_error_for_an_unknown_word_lists_the_valid_ones() {
    let text = "
[cluster]
split_brain = 'ignore'
[check]
user = 'x'
sslmode = 'allow'
require_auth = 'scram'
[services.write]
role = 'master'
pooler_port = 6432
pooler_down = 'bypassed'
[services.read]
role = 'replicas'
fallback = 'yes'
";
    assert_snapshot!(wrong_beside_patroni(text), @"
    pgsteer.toml:5:15: cluster.split_brain: `ignore` is not one of the possible words
        help: one of block, highest_timeline
    pgsteer.toml:8:11: check.sslmode: `allow` is not one of the possible words
        help: did you mean `prefer`?
    pgsteer.toml:9:16: check.require_auth: `scram` is not one of the possible words
        help: one of password, md5, scram-sha-256, none
    pgsteer.toml:11:8: services.write.role: `master` is not one of the possible words
        help: did you mean `primary`?
    pgsteer.toml:13:15: services.write.pooler_down: `bypassed` is not one of the possible words
        help: did you mean `bypass`?
    pgsteer.toml:15:8: services.read.role: `replicas` is not one of the possible words
        help: did you mean `replica`?
    pgsteer.toml:16:12: services.read.fallback: `yes` is not one of the possible words
        help: one of primary, none
    ");
}

#[test]
fn words_of_other_programs_are_refused_with_the_right_one() {
    for (section, written, meant) in [
        ("services.write", "role = 'slave'", "replica"),
        ("services.read", "stick = 'source'", "address"),
        ("services.read", "fallback = 'master'", "primary"),
        ("cluster", "split_brain = 'higest_timeline'", "highest_timeline"),
        ("etcd", "verify = 'verify-full'", "full"),
        ("agent", "vocabulary = 'maint'", "admin"),
    ] {
        let errors = wrong_beside_patroni(&format!("[{section}]\n{written}"));
        assert!(errors.contains(&format!("did you mean `{meant}`?")), "{errors}");
    }
}

#[test]
fn an_error_for_an_invalid_address_shows_a_valid_one() {
    let text = "
members.a.postgres = '10.0.0.1:99999'
members.b.postgres = '/run/postgresql'
members.c.postgres = '0.0.0.0'
members.d.postgres = ''
check.user = 'x'
services.write.listen = 'localhost:5000'
services.read.listen = '0.0.0.0:0'
http.listen = 0
";
    assert_snapshot!(wrong(text), @"
    pgsteer.toml:2:22: members.a.postgres: `99999` is not a port
        help: a number from 1 to 65535
    pgsteer.toml:3:22: members.b.postgres: `/run/postgresql` is not HOST:PORT
        help: as 10.0.0.11:5432, pg1.example:5432 or [fd00::11]:5432
    pgsteer.toml:4:22: members.c.postgres: `0.0.0.0` stands for all addresses of a machine, so no connection to it is possible
        help: write the address that the member listens on
    pgsteer.toml:5:22: members.d.postgres: an empty text is not HOST:PORT
        help: as 10.0.0.11:5432, pg1.example:5432 or [fd00::11]:5432
    pgsteer.toml:7:25: services.write.listen: `localhost:5000` is not an address to listen on
        help: write ADDRESS:PORT with an address of this machine, as 0.0.0.0:5000, 127.0.0.1:5000 or [::]:5000; a port alone means all IPv4 addresses
    pgsteer.toml:8:24: services.read.listen: `0` is not a port
        help: a number from 1 to 65535
    pgsteer.toml:9:15: http.listen: `0` is not a port
        help: a number from 1 to 65535
    ");
}

#[test]
fn an_error_for_an_invalid_url_shows_a_valid_one() {
    let text = "
[patroni]
urls = [
    'pg1:8008',
    'ftp://pg1',
    'http://pg1:8008/cluster',
    'http://',
    'https://pg1:0',
    5,
]
";
    assert_snapshot!(wrong(text), @r#"
    pgsteer.toml:4:5: patroni.urls: `pg1:8008` does not start with http:// or https://
        help: did you mean http://pg1:8008?
    pgsteer.toml:5:5: patroni.urls: `ftp://pg1` does not start with http:// or https://
        help: did you mean http://pg1:8008?
    pgsteer.toml:6:5: patroni.urls: the URL has more than scheme, host and port (it is not shown)
        help: write http://pg1:8008; pgsteer adds Patroni's paths itself
    pgsteer.toml:7:5: patroni.urls: an empty text is not HOST:PORT
        help: as http://10.0.0.11:8008
    pgsteer.toml:8:5: patroni.urls: `0` is not a port
        help: a number from 1 to 65535
    pgsteer.toml:9:5: patroni.urls: expects a string, found a whole number
        help: as in urls = ["http://10.0.0.11:8008"]
    "#);
}

#[test]
fn members_need_a_login_and_exclude_patroni() {
    let text = "
[members.a]
postgres = 'pg1'
[members.b]
postgres = 'pg2'
";
    assert_snapshot!(wrong(text), @r#"
    pgsteer.toml:2:2: members: listed members are checked by SQL, and no check login is configured
        help: add [check] with user = "pgcheck", or --check-user pgcheck
    "#);
    assert_snapshot!(wrong_beside_patroni(text), @"
    pgsteer.toml:4:2: members: members are listed, and Patroni is configured too (pgsteer.toml:1:2: patroni)
        help: remove the list, because Patroni returns the members; list members only for a cluster without Patroni
    ");
}

#[test]
fn members_differ_in_their_addresses() {
    assert_snapshot!(wrong_beside_members("members.b.postgres = 'pg1:5432'"), @"
    pgsteer.toml:3:22: members.b.postgres: pg1:5432 is already given: pgsteer.toml:2:22: members.a.postgres
        help: remove one of them
    ");
}

#[test]
fn a_lone_member_has_no_replica() {
    assert_snapshot!(wrong_beside_members(""), @r#"
    services.read (by default): a is the only member, so there is no replica to read from
        help: list the other members, set fallback = "primary", or keep only [services.write]
    "#);
    assert!(read("check.user = 'x'\nmembers.a.postgres = 'pg1'\n[services.write]").is_ok());
}

#[test]
fn without_patroni_there_are_neither_tags_nor_standby_leaders() {
    let text = "
members.b.postgres = 'pg2'
services.dr = { listen = 5002, role = 'standby_leader' }
services.read.tags = { region = 'west' }
";
    assert_snapshot!(wrong_beside_members(text), @r#"
    pgsteer.toml:5:39: services.dr.role: role standby_leader needs Patroni: SQL cannot distinguish it from a replica
        help: use role = "replica"
    pgsteer.toml:6:15: services.read.tags: listed members have no tags, so the service would have no member
        help: remove tags
    "#);
}

#[test]
fn keys_without_a_default_are_required() {
    let text = "
[patroni]
[members.a]
[check]
[services.reports]
";
    assert_snapshot!(wrong(text), @r#"
    pgsteer.toml:2:2: patroni: `urls` is missing
        help: as in urls = ["http://10.0.0.11:8008"]
    pgsteer.toml:3:2: members: members are listed, and Patroni is configured too (pgsteer.toml:2:2: patroni)
        help: remove the list, because Patroni returns the members; list members only for a cluster without Patroni
    pgsteer.toml:3:10: members.a: `postgres` is missing
        help: as in postgres = "10.0.0.11:5432"
    pgsteer.toml:4:2: check: `user` is missing
        help: as in user = "pgcheck", or --check-user pgcheck
    pgsteer.toml:5:11: services.reports: `listen` is missing
        help: as in listen = "0.0.0.0:5002"
    pgsteer.toml:5:11: services.reports: `role` is missing
        help: as in role = "replica"
    "#);
}

#[test]
fn empty_sections_are_refused() {
    assert_snapshot!(wrong("[patroni]\nurls = []\n[services]"), @r#"
    pgsteer.toml:2:1: patroni.urls: it is empty
        help: as in urls = ["http://10.0.0.11:8008"]
    pgsteer.toml:3:2: services: it is empty
        help: as in [services.write]; without [services] there are write and read
    "#);
    assert_snapshot!(wrong("[members]\n[check]\nuser = ''\n"), @r#"
    pgsteer.toml:1:2: members: it is empty
        help: as in [members.n1] with postgres = "10.0.0.11:5432"
    pgsteer.toml:3:8: check.user: not a user or database name of PostgreSQL: it is empty, too long or has a NUL
        help: 1 to 63 bytes
    "#);
}

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
fn a_ca_file_without_verification_is_refused() {
    let text = "verify = 'none'\nca_file = 'ca.pem'\n[check]\nuser = 'x'\nrequire_auth = 'gss'";
    assert_snapshot!(wrong_beside_patroni(text), @r#"
    pgsteer.toml:4:11: patroni.ca_file: it has no effect with verify = "none"
        help: set verify = "full" or "ca", or remove ca_file
    pgsteer.toml:7:16: check.require_auth: `gss` allows no authentication method that pgsteer supports
        help: pgsteer supports password, md5, scram-sha-256 and none
    "#);
    let text = "verify = 'verify-ca'\n[check]\nuser = 'x'\nrequire_auth = 'md5,!none'";
    assert_snapshot!(wrong_beside_patroni(text), @"
    pgsteer.toml:3:10: patroni.verify: `verify-ca` is not one of the possible words
        help: did you mean `ca`?
    pgsteer.toml:6:16: check.require_auth: `md5,!none` mixes accepted and excluded methods
        help: list either the accepted methods, or the excluded methods, each with `!` in front
    ");
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
fn a_certificate_needs_its_key() {
    let text = "
cert_file = 'client.pem'
[check]
user = 'pgcheck'
ca_file = 'ca.pem'
";
    assert_snapshot!(wrong_beside_patroni(text), @r#"
    pgsteer.toml:4:13: patroni.cert_file: it needs key_file
        help: give both cert_file and key_file, or none
    pgsteer.toml:7:11: check.ca_file: it has no effect with sslmode prefer
        help: set sslmode = "verify-full", or remove ca_file
    "#);
    assert_snapshot!(wrong_beside_patroni("key_file = 'client.key'"), @"
    pgsteer.toml:3:12: patroni.key_file: it needs cert_file
        help: give both cert_file and key_file, or none
    ");
}

#[test]
fn etcd_settings_must_be_complete() {
    let text = "
[etcd]
urls = ['http://pg1', 'pg2', 'http://a:geheim@pg3', 'http://pg4/v3']
namespace = ''
scope = ''
user = 'pgsteer'
password = 'geheim'
timeout_seconds = 0
";
    assert_snapshot!(wrong_beside_patroni(text), @r#"
    pgsteer.toml:5:23: etcd.urls: `pg2` does not start with http:// or https://
        help: did you mean http://pg2:2379?
    pgsteer.toml:5:30: etcd.urls: the URL has a user name or password in it (it is not shown)
        help: leave it out and set username and password_file
    pgsteer.toml:5:53: etcd.urls: the URL has more than scheme, host and port (it is not shown)
        help: write http://pg4:2379; pgsteer adds etcd's paths itself
    pgsteer.toml:6:13: etcd.namespace: a name must not be empty
    pgsteer.toml:7:9: etcd.scope: a name must not be empty
    pgsteer.toml:8:1: etcd.user: there is no key `user` in [etcd]
        help: the keys are urls, namespace, scope, group, username, password_file, verify, ca_file, cert_file, key_file, timeout_seconds
    pgsteer.toml:9:1: etcd.password: a password does not belong in this file (its value is not shown)
        help: put it into a file of its own and name that in [check] or [etcd]: password_file = "/etc/pgsteer/password"
    pgsteer.toml:10:19: etcd.timeout_seconds: `0` is out of range
        help: from 0.1 to 60 seconds; the default is 2
    "#);
    assert_snapshot!(wrong_beside_patroni("[etcd]\nscope = 'a'\nusername = 'b'"), @r#"
    pgsteer.toml:3:2: etcd: `urls` is missing
        help: as in urls = ["http://10.0.0.11:2379"]
    pgsteer.toml:5:12: etcd.username: it needs password_file
        help: give both username and password_file, or none
    "#);
    let text = "
[etcd]
urls = ['http://pg1:2379', 'http://pg1']
password_file = 'pw'
cert_file = 'client.pem'
";
    assert_snapshot!(wrong_beside_patroni(text), @"
    pgsteer.toml:5:28: etcd.urls: http://pg1:2379 is already given: pgsteer.toml:5:9: etcd.urls
        help: remove one of them
    pgsteer.toml:6:17: etcd.password_file: it needs username
        help: give both username and password_file, or none
    pgsteer.toml:7:13: etcd.cert_file: it needs key_file
        help: give both cert_file and key_file, or none
    ");
    assert_snapshot!(wrong_beside_patroni("[etcd]\nurls = []"), @r#"
    pgsteer.toml:4:1: etcd.urls: it is empty
        help: as in urls = ["http://10.0.0.11:2379"]
    "#);
    assert_snapshot!(wrong_beside_members("[etcd]\nurls = ['http://pg1']"), @r#"
    pgsteer.toml:3:2: etcd: etcd needs Patroni, which writes the watched keys
        help: remove it
    services.read (by default): a is the only member, so there is no replica to read from
        help: list the other members, set fallback = "primary", or keep only [services.write]
    "#);
}

#[test]
fn the_identity_and_its_directory_are_checked() {
    let text =
        "scope = \"a\\nb\"\ngroup = -1\nsystem_identifier = 'pg1'\n[cluster]\nstate_directory = ''";
    assert_snapshot!(wrong_beside_patroni(text), @r#"
    pgsteer.toml:3:9: patroni.scope: a name must not contain control characters or invisible characters
    pgsteer.toml:4:9: patroni.group: `-1` is out of range
        help: from 0 to 2147483647
    pgsteer.toml:5:21: patroni.system_identifier: `pg1` is not a system identifier
        help: a number as pg_controldata shows it, in quotes: system_identifier = "7710713066760545906"
    pgsteer.toml:7:19: cluster.state_directory: not a path of a file: it is empty, too long or has a NUL
        help: 1 to 4096 bytes
    "#);
    let text = "scope = 1\ngroup = '0'\nsystem_identifier = 7710713066760545906\n[cluster]\nstate_directory = false";
    assert_snapshot!(wrong_beside_patroni(text), @r#"
    pgsteer.toml:3:9: patroni.scope: expects a string, found a whole number
        help: as in scope = "batman"
    pgsteer.toml:4:9: patroni.group: expects a whole number, found a string
        help: a bare number from 0 to 2147483647
    pgsteer.toml:5:21: patroni.system_identifier: expects a string, found a whole number
        help: as in system_identifier = "7710713066760545906"
    pgsteer.toml:7:19: cluster.state_directory: expects a string, found a boolean
        help: as in state_directory = "/var/lib/pgsteer"
    "#);
    let text =
        "system_identifier = '99999999999999999999'\nsystem_id = '1'\n[cluster]\nstate_dir = '/x'";
    assert_snapshot!(wrong_beside_patroni(text), @r#"
    pgsteer.toml:3:21: patroni.system_identifier: `99999999999999999999` is not a system identifier
        help: a number as pg_controldata shows it, in quotes: system_identifier = "7710713066760545906"
    pgsteer.toml:4:1: patroni.system_id: there is no key `system_id` in [patroni]
        help: the keys are urls, verify, ca_file, cert_file, key_file, timeout_seconds, scope, group, system_identifier
    pgsteer.toml:6:1: cluster.state_dir: there is no key `state_dir` in [cluster]
        help: the keys are name, patroni_loss_grace_seconds, silence_seconds, local, state_directory, split_brain
    "#);
}

#[test]
fn the_scope_of_etcd_and_that_of_patroni_are_one() {
    let both = |patroni: &str, etcd: &str| {
        read_beside_patroni(&format!("{patroni}\n[etcd]\nurls = ['http://pg1']\n{etcd}"))
    };
    let meant = |patroni, etcd| {
        let cluster = both(patroni, etcd).unwrap().cluster;
        (cluster.pins().to_string(), cluster.etcd.unwrap().scope)
    };
    let own = |text: &str| Some(text.to_owned());
    assert_eq!(meant("", ""), ("unknown".to_owned(), None));
    assert_eq!(meant("scope = 'a'", ""), ("scope a".to_owned(), own("a")));
    assert_eq!(meant("", "scope = 'a'"), ("scope a".to_owned(), own("a")));
    let grouped = ("scope a, group 0".to_owned(), own("a/0"));
    assert_eq!(meant("scope = 'a'\ngroup = 0", "scope = 'a'"), grouped);
    assert_eq!(meant("", "scope = 'a/0'"), grouped);
    assert_eq!(meant("group = 0", "scope = 'a'"), grouped);
    assert_eq!(meant("scope = 'a'", "group = 0"), grouped);
    assert_eq!(meant("", "scope = 'a'\ngroup = 0"), grouped);
    assert_eq!(meant("", "scope = 'a/0'\ngroup = 0"), grouped);
    assert_eq!(meant("", "group = 0"), ("group 0".to_owned(), None));
    let wrong = |patroni, etcd| both(patroni, etcd).unwrap_err().to_string();
    assert_snapshot!(wrong("scope = 'a'", "scope = 'b'"), @"
    pgsteer.toml:6:9: etcd.scope: it contradicts [patroni]: scope b, expected a
        help: remove it: scope and group of [patroni] are used for etcd too
    ");
    assert_snapshot!(wrong("scope = 'a'\ngroup = 1", "scope = 'a/0'"), @"
    pgsteer.toml:7:9: etcd.scope: it contradicts [patroni]: group 0, expected 1
        help: remove it: scope and group of [patroni] are used for etcd too
    ");
    assert_snapshot!(wrong("scope = 'a'\ngroup = 1", "group = 0"), @"
    pgsteer.toml:7:9: etcd.group: it contradicts [patroni]: group 0, expected 1
        help: remove it: scope and group of [patroni] are used for etcd too
    ");
    assert_snapshot!(wrong("", "scope = 'a/0'\ngroup = 1"), @"
    pgsteer.toml:7:9: etcd.group: it contradicts `scope` of [etcd]: group 1, expected 0
        help: remove it, or the group in that scope
    ");
}

#[test]
fn etcd_has_patronis_own_defaults() {
    let text = "[patroni]\nurls = ['http://pg1']\n[etcd]\nurls = ['https://pg1', 'http://pg2:1']";
    let etcd = read(text).unwrap().cluster.etcd.unwrap();
    assert_eq!(etcd.urls, ["https://pg1:2379", "http://pg2:1"]);
    assert_eq!((&*etcd.namespace, etcd.scope), ("/service", None));
}

#[test]
fn the_split_brain_policy_is_refused_with_patroni() {
    assert_snapshot!(wrong_beside_patroni("[cluster]\nsplit_brain = 'highest_timeline'"), @"
    pgsteer.toml:4:15: cluster.split_brain: with Patroni the leader lock decides, not the timeline
        help: remove it
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

#[test]
fn the_local_member_is_one_of_those_that_are_listed() {
    let members = "members.b.postgres = 'pg2'\ncluster.local = 'c'\n";
    assert_snapshot!(wrong_beside_members(members), @"
    pgsteer.toml:4:17: cluster.local: no member is called c
        help: one of a, b
    ");
    // Patroni lists the members only at run time.
    assert!(read("cluster.local = 'c'\npatroni.urls = ['http://pg1']\n").is_ok());
}

#[test]
fn a_health_check_with_a_mistake_differs_from_an_unknown_word() {
    let default = |text: &str| wrong_beside_patroni(&format!("[agent]\ndefault = '{text}'\n"));
    assert_snapshot!(default("replica?lag=x"), @"pgsteer.toml:4:11: agent.default: `x` is not a valid lag: a size, as in lag=16MB");
    assert_snapshot!(default("replcia"), @"
    pgsteer.toml:4:11: agent.default: `replcia` is neither a service nor one of Patroni's health checks
        help: write the name of a service, or a check such as primary, replica?lag=16MB, read-only or sync; then the member, if it is not the local one
    ");
    // A text that may be a secret is not shown.
    assert_snapshot!(default("replica?lag=a@b"), @"
    pgsteer.toml:4:11: agent.default: what is written (not shown, it may hold a secret) is neither a service nor one of Patroni's health checks
        help: write the name of a service, or a check such as primary, replica?lag=16MB, read-only or sync; then the member, if it is not the local one
    ");
}

#[test]
fn a_weight_by_sessions_needs_a_login() {
    let agent = "[agent]\nweight = 'sessions'\n";
    assert_snapshot!(wrong_beside_patroni(agent), @r#"
    pgsteer.toml:4:10: agent.weight: a weight by sessions needs a check login, which counts the sessions of a member
        help: add [check] with user = "pgcheck", or --check-user pgcheck
    "#);
    let with_login = format!("[patroni]\nurls = ['http://pg1']\n{agent}[check]\nuser = 'a'\n");
    assert_eq!(read(&with_login).unwrap().agent.map(|agent| agent.weight), Some(Weight::Sessions));
}

#[test]
fn silence_is_longer_than_an_answer_may_take() {
    let text = "timeout_seconds = 60\n[cluster]\nsilence_seconds = 5";
    assert_snapshot!(wrong_beside_patroni(text), @"
    pgsteer.toml:5:19: cluster.silence_seconds: shorter than the timeout of Patroni's answer, 60 seconds
        help: raise silence_seconds, or lower that timeout_seconds
    ");
}

#[test]
fn a_repeated_patroni_url_is_refused() {
    assert_snapshot!(wrong("patroni.urls = ['http://pg1', 'http://pg1:8008/']"), @"
    pgsteer.toml:1:31: patroni.urls: http://pg1:8008 is already given: pgsteer.toml:1:17: patroni.urls
        help: remove one of them
    ");
}

#[test]
fn several_syntax_errors_are_shown_with_all_that_could_be_read() {
    let text = r#"
[cluster]
name = main
silence_seconds = 1__0
[patroni
urls = ["http://pg1"]
[services.write]
listen = "0.0.0.0:5000
hold_second = 30
role = "master"
[services.write]
"#;
    assert_snapshot!(wrong(text), @r#"
    pgsteer.toml:3:8: not valid TOML: string values must be quoted, expected literal string
    pgsteer.toml:4:20: not valid TOML: `_` may only go between digits, expected nothing
    pgsteer.toml:5:9: not valid TOML: unclosed table, expected `]`
    pgsteer.toml:8:23: not valid TOML: a string has no closing "
    pgsteer.toml:9:1: services.write.hold_second: there is no key `hold_second` in [services.write]
        help: did you mean `hold_seconds`?
    pgsteer.toml:10:8: services.write.role: `master` is not one of the possible words
        help: did you mean `primary`?
    pgsteer.toml:11:11: not valid TOML: duplicate key
    "#);
}

#[test]
fn too_many_of_anything_are_refused() {
    let tags: String = (0..65).map(|n| format!("t{n} = true\n")).collect();
    let services: String = (0..65)
        .map(|n| format!("[services.s{n}]\nlisten = {}\nrole = 'primary'\n", 5000 + n))
        .collect();
    let text = format!("{services}[services.s0.tags]\n{tags}");
    assert_snapshot!(wrong_beside_patroni(&text), @"
    pgsteer.toml:3:2: services: 65 entries are too many
        help: at most 64
    pgsteer.toml:198:14: services.s0.tags: 65 entries are too many
        help: at most 64
    ");
    let urls: String = (0..65).map(|n| format!("'http://pg{n}',")).collect();
    assert_snapshot!(wrong(&format!("patroni.urls = [{urls}]")), @"
    pgsteer.toml:1:9: patroni.urls: 65 entries are too many
        help: at most 64
    ");
    let members: String = (0..65).map(|n| format!("m{n}.postgres = 'pg{n}'\n")).collect();
    assert_snapshot!(wrong(&format!("[check]\nuser = 'x'\n[members]\n{members}")), @"
    pgsteer.toml:3:2: members: 65 entries are too many
        help: at most 64
    ");
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    assert_snapshot!(wrong(&"#".repeat(1024 * 1024 + 1)), @"
    pgsteer.toml: the file is larger than 1MB
        help: is it really a configuration of pgsteer?
    ");
}

#[test]
fn a_flood_of_errors_is_cut_off_and_counted() {
    let text: String = (0..1000).map(|n| format!("k{n} = 1\n")).collect();
    let errors = read(&text).unwrap_err();
    assert_eq!(errors.len(), 1001);
    assert_eq!(errors.iter().count(), 100);
    assert!(errors.to_string().ends_with("\nand 901 more"));
}

#[test]
fn control_characters_in_names_are_escaped() {
    let long = "n".repeat(300);
    let text =
        format!("[services.\"a\\nb\"]\n[members.{long}]\n[members.\"\"]\n\"\\u001b[31m\" = 1");
    assert_snapshot!(wrong(&text), @r#"
    pgsteer.toml:1:11: services."a\nb": a name must not contain control characters or invisible characters
    pgsteer.toml:2:10: members.nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn…: a name has at most 255 bytes, this one has 300
    pgsteer.toml:3:10: members."": a name must not be empty
    pgsteer.toml:4:1: members.""."\u{1b}[31m": there is no key `"\u{1b}[31m"` in [members.""]
        help: the keys are postgres
    configuration: listed members are checked by SQL, and no check login is configured
        help: add [check] with user = "pgcheck", or --check-user pgcheck
    "#);
}

/// A secret may be in any wrong place of the file. No error repeats it.
#[test]
fn secrets_are_never_repeated() {
    for text in [
        "password = 'geheim'",
        "[check]\npassword = 'geheim'",
        "[check]\nPGPASSWORD = 'geheim'\nuser = 'x'",
        "[patroni]\nurls = ['http://u:geheim@pg1']",
        "[patroni]\nurls = ['u:geheim@pg1']",
        "[patroni]\nurls = ['http://pg1/?token=geheim']",
        "[patroni]\npassphrase = 'geheim'",
        "[members.a]\npostgres = 'postgres://u:geheim@pg1:5432/db'",
        "[members.a]\npostgres = 'host=pg1 password=geheim'",
        "[check]\npassword = geheim",
        "[check]\npassword = 'geheim",
        "[check]\nsslmode = 'password=geheim'",
    ] {
        let errors = read(text).unwrap_err();
        let all = format!("{errors}\n{errors:?}");
        assert!(!all.contains("geheim"), "{text}: {all}");
    }
    assert_snapshot!(wrong_beside_patroni("[check]\nuser = 'x'\npassword = 'geheim'"), @r#"
    pgsteer.toml:5:1: check.password: a password does not belong in this file (its value is not shown)
        help: put it into a file of its own and name that in [check] or [etcd]: password_file = "/etc/pgsteer/password"
    "#);
}

/// Lines that are valid or almost valid TOML, with keys that exist or almost exist.
fn line() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "urls",
        "listen",
        "role",
        "hold_seconds",
        "tags",
        "user",
        "postgres",
        "workers",
        "lag_bytes_max",
        "a.b",
        "\"\"",
        "é",
        "x y",
    ]);
    let value = prop::sample::select(vec![
        "1",
        "-1",
        "1e400",
        "nan",
        "0xff",
        "''",
        "'http://é'",
        "['http://[']",
        "{ a = 1 }",
        "'[::1'",
        "\"\\u0000\"",
        "[[",
        "'''",
        "",
        "'0.0.0.0:5000'",
        "1979-05-27",
        "{",
        "'99999999999999TB'",
        "'é:é'",
    ]);
    let header = prop::sample::select(vec![
        "[patroni]",
        "[members.a]",
        "[services.write]",
        "[services.\"é\"]",
        "[[check]]",
        "[http",
        "[proxy]",
        "[cluster]",
        "[]",
        "members.b = 1",
    ]);
    prop_oneof![
        (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
        header.prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = read(&text).map_err(|errors| errors.to_string());
    }

    #[test]
    fn nearly_right_text_never_panics(lines in prop::collection::vec(line(), 0..12)) {
        let _ = read(&lines.join("\n")).map_err(|errors| errors.to_string());
    }
}

#[test]
fn a_missing_quote_is_named_once_by_the_line_that_lacks_it() {
    assert_snapshot!(wrong("[patroni]\nurls = [\"http://pg1:8008]\n[check]\nuser = \"c\"\n"), @r#"
    pgsteer.toml:2:26: not valid TOML: a string has no closing "
    "#);
    assert_snapshot!(wrong("[patroni]\nurls = ['http://pg1']\n[check]\nuser = \"\"\"c\n\n"), @r#"
    pgsteer.toml:4:8: not valid TOML: a string has no closing """
    "#);
    assert_snapshot!(wrong("[cluster]\nname = 'x\n[patroni]\nurls = ['http://pg1']\n"), @r"
    pgsteer.toml:2:10: not valid TOML: a string has no closing '
    ");
}

#[test]
fn errors_for_units_and_addresses_suggest_the_right_form() {
    let text = "
[patroni]
urls = ['http://fd00::1:8008']
timeout_seconds = '500ms'
[services.read]
listen = '::1:15000'
lag_bytes_max = '16mb'
lag_seconds_max = '10 sec'
hold_seconds = '30s'
";
    assert_snapshot!(wrong(text), @r"
    pgsteer.toml:3:9: patroni.urls: `http://fd00::1:8008`: an IPv6 address needs brackets: http://[fd00::1]:8008
    pgsteer.toml:4:19: patroni.timeout_seconds: expects a number of seconds, found a string
        help: did you mean 0.5? A bare number from 0.1 to 60 seconds; the default is 1
    pgsteer.toml:6:10: services.read.listen: `::1:15000`: an IPv6 address needs brackets: [::1]:15000
    pgsteer.toml:7:17: services.read.lag_bytes_max: `16mb` is not a size
        help: did you mean 16MB?
    pgsteer.toml:8:19: services.read.lag_seconds_max: expects a number of seconds, found a string
        help: did you mean 10? A bare number from 0.1 to 86400 seconds
    pgsteer.toml:9:16: services.read.hold_seconds: expects a number of seconds, found a string
        help: did you mean 30? A bare number from 0 to 3600 seconds
    ");
}

#[test]
fn each_mistake_in_haproxy_is_named() {
    for (text, expected) in [
        ("[haproxy]", "`sockets` is missing"),
        ("[haproxy]\nsockets = []", "it is empty"),
        ("[haproxy]\nsockets = ['x']", "neither the path of a socket nor HOST:PORT"),
        ("[haproxy]\nsockets = ['/a', '/a']", "/a is already given"),
        ("[haproxy]\nsockets = ['/a']\nbackends = { wrte = 'b' }", "there is no service `wrte`"),
        (
            "[haproxy]\nsockets = ['/a']\nbackends = { write = 'b c' }",
            "not a valid name of a HAProxy backend",
        ),
        (
            "[haproxy]\nsockets = ['/a']\nbackends = { write = 'b', read = 'b' }",
            "backend `b` is that of service",
        ),
        ("[haproxy]\nsockets = ['/a', 'h:1']\nstate_file = '/f'", "several HAProxys"),
        ("[haproxy]\nsockets = ['/a']\ntimeout_seconds = 0", "out of range"),
    ] {
        let errors = wrong_beside_patroni(text);
        assert!(errors.contains(expected), "{text}\n{errors}");
    }
    let sockets: String = (0..17).map(|n| format!("'/{n}', ")).collect();
    let errors = wrong_beside_patroni(&format!("[haproxy]\nsockets = [{sockets}]"));
    assert!(errors.contains("at most 16"), "{errors}");
    let good = "[haproxy]\nsockets = ['unix@/a', '[::1]:9999']\nbackends = { write = 'pg:w' }";
    let haproxy = read_beside_patroni(good).unwrap().haproxy.unwrap();
    let sockets: Vec<String> = haproxy.sockets.iter().map(ToString::to_string).collect();
    assert_eq!(sockets, ["/a", "[::1]:9999"]);
}

#[test]
fn an_address_that_cannot_follow_a_service_is_refused_with_what_is_right() {
    let text = "
[patroni]
urls = ['http://10.0.0.11:8008']
[vip.a]
address = '10.0.0.50'
interface = 'eth0'
[vip.b]
address = '10.0.0.255/24'
interface = 'eth0:1'
[vip.c]
service = 'wirte'
[vip.d]
address = '10.0.0.11/24'
interface = 'eth0'
[vip.e]
address = 'fe80::5/64'
interface = 'an_interface_of_16'
[vip.f]
address = 'db.example/24'
interface = 'eth0'
service = 'writes'
";
    assert_snapshot!(wrong(text), @r#"
    pgsteer.toml:5:11: vip.a.address: 10.0.0.50 has no prefix length
        help: add that of the interface's network, as in 10.0.0.50/24
    pgsteer.toml:8:11: vip.b.address: `10.0.0.255/24`: it is the broadcast address of its network
        help: choose an address of the interface's network that no machine has, with the prefix length of that network, as 10.0.0.50/24
    pgsteer.toml:9:13: vip.b.interface: `eth0:1` is not the name of an interface
        help: 1 to 15 bytes without blanks, slashes and colons, as eth0; `ip link` lists them
    pgsteer.toml:10:6: vip.c: `address` is missing
        help: as in address = "10.0.0.50/24"
    pgsteer.toml:10:6: vip.c: `interface` is missing
        help: as in interface = "eth0"
    pgsteer.toml:11:11: vip.c.service: there is no service wirte for the address to follow
        help: set service to one of read, write
    pgsteer.toml:13:11: vip.d.address: 10.0.0.11 is the own address of http://10.0.0.11:8008, so it cannot move to another machine
        help: choose an address of the same network that no machine has
    pgsteer.toml:16:11: vip.e.address: `fe80::5/64`: it is a link-local address, which clients reach only with the name of their interface
        help: choose an address of the interface's network that no machine has, with the prefix length of that network, as 10.0.0.50/24
    pgsteer.toml:17:13: vip.e.interface: `an_interface_of_16` is not the name of an interface
        help: 1 to 15 bytes without blanks, slashes and colons, as eth0; `ip link` lists them
    pgsteer.toml:19:11: vip.f.address: `db.example/24` is not ADDRESS/PREFIX
        help: as 10.0.0.50/24 or fd00::50/64
    pgsteer.toml:21:11: vip.f.service: there is no service writes for the address to follow
        help: set service to one of read, write
    "#);
    let twice = "[patroni]\nurls = ['http://pg1']\n[vip.a]\naddress = '10.0.0.50/24'\ninterface = 'eth0'\n\
                 [vip.b]\naddress = '10.0.0.50/24'\ninterface = 'eth1'\n\
                 [vip.c]\naddress = '10.0.0.52/24'\ninterface = 'eth1'\nservice = 'read'\n";
    assert_snapshot!(wrong(twice), @"
    pgsteer.toml:7:11: vip.b.address: 10.0.0.50 is already given: pgsteer.toml:4:11: vip.a.address
        help: remove one of them
    ");
}

#[test]
fn an_address_follows_the_service_write_unless_another_one_is_named() {
    let text = "[vip.db]\naddress = 'fd00::50/64'\ninterface = 'eth0'\n\
                [vip.readers]\naddress = '10.0.0.51/24'\ninterface = 'bond0.12'\nservice = 'write'\n";
    let config = read_beside_patroni(text).unwrap();
    let followed: Vec<_> = config.vips.values().map(|vip| vip.service.as_str()).collect();
    assert_eq!(followed, ["write", "write"]);
    let shown = Summary(&config).to_string();
    assert!(shown.contains("address db: fd00::50/64 on eth0 follows write\n"), "{shown}");
}

#[test]
fn other_pgsteers_are_urls_without_a_login_and_not_too_many() {
    let many: Vec<String> = (0..17).map(|number| format!("'http://door{number}'")).collect();
    let text = format!("[patroni]\nurls = ['http://pg1']\n[http]\npeers = [{}]\n", many.join(", "));
    assert_snapshot!(wrong(&text), @"
    pgsteer.toml:4:1: http.peers: 17 entries are too many
        help: at most 16
    ");
    let text = "[patroni]\nurls = ['http://pg1']\n[http]\npeers = ['door2', 'http://a:b@door3', 'http://door4/x']\n";
    assert_snapshot!(wrong(text), @"
    pgsteer.toml:4:10: http.peers: `door2` does not start with http:// or https://
        help: did you mean http://door2:7000?
    pgsteer.toml:4:19: http.peers: the URL has a user name or password in it (it is not shown)
        help: leave it out: other pgsteers are asked with the token of token_file
    pgsteer.toml:4:39: http.peers: the URL has more than scheme, host and port (it is not shown)
        help: write http://door4:7000; pgsteer adds pgsteer's paths itself
    ");
}

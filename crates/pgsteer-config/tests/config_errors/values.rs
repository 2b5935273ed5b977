//! Values of a wrong type, out of range, or in a wrong form.

use insta::assert_snapshot;

use crate::{wrong, wrong_beside_patroni};

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

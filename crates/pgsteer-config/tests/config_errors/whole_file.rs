//! The file as a whole: its syntax, its size, and what its errors show.

use insta::assert_snapshot;
use proptest::prelude::*;

use crate::{read, wrong, wrong_beside_patroni};

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
        help: the keys are listen, allow, hosts, login_file, token_file, protect, cert_file, key_file, peers, peers_token_file, peers_ca_file
    pgsteer.toml:19:1: proxy.max_sessions: there is no key `max_sessions` in [proxy]
        help: did you mean `sessions_max`?
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

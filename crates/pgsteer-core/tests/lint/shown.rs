//! How reports look: for people, for programs, for code review.

use pgsteer_core::lint::show::{Looked, json, list, sarif, text};
use pgsteer_core::lint::{Kind, Options, Unreadable, lint};

const CONFIG: &str = "\
defaults
    mode tcp
    timeout connect 2s
    timeout client 24d
    timeout server 24d
    option tcpka

listen primary
    bind *:5000
    option httpchk OPTIONS /primary
    http-check expect status 200
    default-server inter 3s fall 3 rise 2
    # pgsteer-lint: allow(no-shutdown-sessions) clients are known to reconnect
    server n1 10.0.0.11:5432 check port 8008
    server n2 10.0.0.12:5432 check port 8008 inter \"$INTER\"

listen stats
    mode http
    bind 127.0.0.1:7000
    stats enable
    stats auth admin:snowball1
";

fn looked() -> Vec<Looked> {
    let look = |kind: Kind, name: &str, source: &str| {
        let outcome = lint(kind, source, &Options::default());
        Looked::new(name.to_owned(), source.to_owned(), outcome)
    };
    vec![
        look(Kind::Haproxy, "haproxy.cfg", CONFIG),
        look(Kind::PgHba, "pg_hba.conf", "host all all 10.0.0.0/8 trust\n"),
        Looked::new("x".to_owned(), String::new(), Err(Unreadable::NoKind)),
    ]
}

#[test]
fn a_report_reads_well() {
    insta::assert_snapshot!(text(&looked()));
}

#[test]
fn a_report_is_json() {
    insta::assert_snapshot!(json(&looked()));
}

#[test]
fn a_report_is_sarif() {
    let text = sarif(&looked(), "0.0.0");
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rules = document["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
    for result in document["runs"][0]["results"].as_array().unwrap() {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
    }
    // The rules are those of the index of docs/lint; one of them is enough here.
    document["runs"][0]["tool"]["driver"]["rules"] = serde_json::json!([rules[0]]);
    document["runs"][0]["tool"]["driver"]["rules"][0]["help"]["markdown"] = "(the page)".into();
    insta::assert_snapshot!(format!("{document:#}"));
}

#[test]
fn the_rules_are_listed() {
    insta::assert_snapshot!(list());
}

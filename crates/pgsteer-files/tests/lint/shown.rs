//! How reports look: for people, for programs, for code review.

use pgsteer_files::lint::rules::rules;
use pgsteer_files::lint::show::{Looked, json, list, sarif, text};
use pgsteer_files::lint::{Kind, Options, Unreadable, lint};

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
fn a_part_of_a_configuration_is_reported_as_a_part() {
    let shown = |source: &str| {
        let outcome = lint(Kind::Haproxy, source, &Options::default());
        text(&[Looked::new("pg.cfg".to_owned(), source.to_owned(), outcome)])
    };
    let piece = "listen x\n    mode http\n";
    assert!(shown(piece).starts_with("pg.cfg is judged as a part"), "{}", shown(piece));
    let all = shown(&format!("defaults\n{piece}"));
    assert!(!all.contains("is judged"), "{all}");
}

#[test]
fn a_report_is_json() {
    insta::assert_snapshot!(json(&looked()));
}

#[test]
fn a_report_is_sarif() {
    let text = sarif(&looked(), "0.0.0");
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rules = document["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap().clone();
    for result in document["runs"][0]["results"].as_array().unwrap() {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
    }
    // Its number changes with every rule that is added.
    for result in document["runs"][0]["results"].as_array_mut().unwrap() {
        result.as_object_mut().unwrap().remove("ruleIndex");
    }
    let rules = document["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
    // The rules are those of the index of docs/lint; one of them is enough here.
    document["runs"][0]["tool"]["driver"]["rules"] = serde_json::json!([rules[0]]);
    document["runs"][0]["tool"]["driver"]["rules"][0]["help"]["markdown"] = "(the page)".into();
    insta::assert_snapshot!(format!("{document:#}"));
}

#[test]
fn the_rules_are_listed() {
    let list = list();
    for rule in rules() {
        let wanted = format!("  {:<32}{:<9}{}", rule.id, rule.severity.as_str(), rule.title);
        assert!(list.lines().any(|line| line == wanted), "{}", rule.id);
    }
    let titles: Vec<&str> = list.lines().filter(|line| line.ends_with(':')).collect();
    assert_eq!(titles, ["haproxy:", "pg-hba:", "pgsteer:", "any of them:"]);
}

#[test]
fn no_secret_is_repeated_and_no_terminal_is_moved() {
    let config = "global\nlisten s1\n stats admin:hunter2\n stat auth admin:hunter2\n stats auth:admin:hunter2\n\
        \x20auth admin:hunter2\n tcp-check send AUTH\\ hunter2\n listen pg\\x1b[2J\n bind :1\n\
        \x20option httpchk OPTIONS /primary\n server n1\\x1b[2J 10.0.0.1:5432 check port 8008\n\
        \x20server n2 10.0.0.2:5432 check port 8008\n";
    let hba = "host all all 10.0.0.0/8 radiussecrets=hunter2\nhost a a 10.0.0.0/8 ldap\n\
        ldapbindpasswd=\"hunter2\"\n";
    for (kind, source) in [(Kind::Haproxy, config), (Kind::PgHba, hba)] {
        let outcome = lint(kind, source, &Options::default());
        let looked = [Looked::new("x\x1b[2J".to_owned(), source.to_owned(), outcome)];
        for shown in [text(&looked), json(&looked), sarif(&looked, "0")] {
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(!shown.contains('\x1b'), "{shown}");
        }
    }
}

#[test]
fn allowed_findings_do_not_count_towards_the_limit() {
    let one = " server a 10.0.0.1:5432\n";
    let allowed: String = (0..120)
        .map(|n| format!("listen a{n}\n mode http\n # pgsteer-lint: allow(mode-http) meant\n{one}"))
        .collect();
    let found = |count: usize| -> String {
        (0..count).map(|n| format!("listen b{n}\n mode http\n{one}")).collect()
    };
    let report = |text: &str| lint(Kind::Haproxy, text, &Options::default()).unwrap();
    let few = report(&format!("{allowed}{}", found(1)));
    assert_eq!((few.findings.len(), few.allowed, few.left_out), (1, 120, 0));
    let many = report(&found(130));
    assert_eq!((many.findings.len(), many.left_out), (100, 30));
}

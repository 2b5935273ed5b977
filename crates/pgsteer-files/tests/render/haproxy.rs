//! HAProxy's configuration, by profile.

use std::time::Duration;

use pgsteer_core::claim::Found;
use pgsteer_core::names::{Endpoint, MemberName};
use pgsteer_files::lint;
use pgsteer_files::render::refusal::Refusal;
use pgsteer_files::render::{HaproxyVersion, Kind, Profile, RenderOptions, StatsLogin};

use crate::clusters::{
    PATRONI, config, files, lint_finds_nothing, members, options, three, without_patroni,
};

fn text(toml: &str, members: &[Found], options: &RenderOptions) -> String {
    rendered(toml, members, options).unwrap_or_else(|refusal| panic!("{refusal}"))
}

fn rendered(toml: &str, members: &[Found], options: &RenderOptions) -> Result<String, Refusal> {
    let text = files(Kind::Haproxy, &config(toml), members, options)?.remove(0).text;
    lint_finds_nothing(lint::Kind::Haproxy, &text, options);
    Ok(text)
}

fn refused(toml: &str, members: &[Found], options: &RenderOptions) -> String {
    match rendered(toml, members, options) {
        Ok(text) => panic!("{text}"),
        Err(refusal) => format!("{refusal}: {}", refusal.remedy().unwrap_or_default()),
    }
}

#[test]
fn httpchk_asks_patroni() {
    insta::assert_snapshot!(text(PATRONI, &three(), &options(Profile::Httpchk)));
}

#[test]
fn push_has_the_checks_of_patroni_and_a_socket() {
    insta::assert_snapshot!(text(PATRONI, &three(), &options(Profile::Push)));
    let refused = refused(PATRONI, &without_patroni(three()), &options(Profile::Push));
    assert!(refused.contains("Patroni"), "{refused}");
}

/// Patroni answers for PostgreSQL, not for the pooler that the clients are led to.
#[test]
fn httpchk_asks_the_pooler_too() {
    let toml = format!("{PATRONI}[services.write]\npooler_port = 6432\n[services.read]\n");
    let text = text(&toml, &three(), &options(Profile::Httpchk));
    let [write, read] = ["write", "read"].map(|name| section(&text, name));
    assert!(write.contains("http-check connect port 6432"), "{write}");
    assert!(!read.contains("http-check connect port 6432"), "{read}");
}

/// The lines of the proxy of this name.
fn section<'a>(text: &'a str, name: &str) -> &'a str {
    text.split("\nlisten ").find(|it| it.starts_with(name)).unwrap()
}

/// PostgreSQL's answer does not cover the pooler that the clients are routed to.
#[test]
fn sql_asks_the_pooler_too() {
    let services = "[services.write]\npooler_port = 6432\n[services.read]\npooler_port = 6433\n";
    let toml = format!("{PATRONI}{services}[check]\nuser = 'pgcheck'\n");
    let text = text(&toml, &three(), &options(Profile::Sql));
    let [write, read] = ["write", "read"].map(|name| section(&text, name));
    assert!(write.contains("http-check connect addr abns@pgsteer-guard\n"), "{write}");
    assert!(write.contains("http-check connect port 6432\n"), "{write}");
    assert!(!write.contains("check addr"), "the pooler would be asked at HAProxy: {write}");
    assert!(read.contains("tcp-check connect port 6433\n"), "{read}");
    let primary = text.split("\nbackend pgsteer:primary").nth(1).unwrap();
    let primary = primary.split("\nfrontend ").next().unwrap();
    assert!(!primary.contains("connect port"), "it counts primaries, not poolers: {primary}");
}

#[test]
fn one_file_serves_clients_of_pgsteer_and_profile_agent_bypass() {
    let of = |down: &str| {
        let services = format!("[services.write]\npooler_port = 6432\npooler_down = '{down}'\n");
        let toml = format!("{PATRONI}[agent]\nvocabulary = 'admin'\n{services}[services.read]\n");
        text(&toml, &three(), &options(Profile::AgentBypass))
    };
    assert_eq!(of("shut"), of("bypass"));
}

#[test]
fn one_agent_answers_for_all_members() {
    let doors = vec!["10.0.0.21".to_owned()];
    let options = RenderOptions { doors, ..options(Profile::Agent) };
    let text = text(&format!("{PATRONI}[agent]\nlisten = 5556\n"), &three(), &options);
    assert_eq!(text.matches("agent-check agent-addr 10.0.0.21 agent-port 5556 ").count(), 6);
}

#[test]
fn a_target_without_a_listener_is_refused() {
    let door =
        |profile, door: &str| RenderOptions { doors: vec![door.to_owned()], ..options(profile) };
    let agent = "[agent]\nlisten = '127.0.0.1:5555'\n";
    let (services, http) =
        ("[services.write]\nlisten = '127.0.0.1:5000'\n", "[http]\nlisten = '127.0.0.1:7000'\n");
    let toml = |more: &str| format!("{PATRONI}{more}");
    let without = without_patroni(three());
    let v6 = members(&["fd00::11", "fd00::12"]);
    let all = [
        refused(&toml(agent), &three(), &options(Profile::Agent)),
        refused(&toml(agent), &three(), &door(Profile::Agent, "10.0.0.21")),
        refused(&toml("[agent]\n"), &v6, &options(Profile::Agent)),
        refused(&toml(http), &without, &options(Profile::Agent)),
        refused(&toml(services), &three(), &door(Profile::Pgsteer, "10.0.0.21")),
        refused(&toml(http), &three(), &door(Profile::Pgsteer, "10.0.0.21")),
    ];
    insta::assert_snapshot!(all.join("\n"));
    // On this machine it answers, and another agent than that of the file may be named.
    let here = text(&toml(agent), &three(), &door(Profile::Agent, "127.0.0.1"));
    assert!(here.contains("agent-addr 127.0.0.1 "), "{here}");
    text(&toml(services), &three(), &door(Profile::Pgsteer, "localhost"));
    let agent_elsewhere = Endpoint::new("10.0.0.9", 5555).ok();
    text(
        &toml(agent),
        &three(),
        &RenderOptions { agent: agent_elsewhere, ..options(Profile::Agent) },
    );
    // If the agent has no file yet, the note contains the required listen address.
    let guessed = text(PATRONI, &v6, &options(Profile::Agent));
    assert!(guessed.contains("`pgsteer agent --vocabulary admin --port [::]:5555`"), "{guessed}");
}

#[test]
fn the_key_of_a_client_certificate_is_where_haproxy_looks_for_it() {
    let toml = |key: &str| {
        format!(
            "[patroni]\nurls = ['https://10.0.0.11:8008']\ncert_file = '/etc/c.pem'\n\
             key_file = '{key}'\n"
        )
    };
    let mut members = three();
    for member in &mut members {
        let url = format!("https://{}:8008", member.postgres.host());
        member.patroni_url = Some(url.into());
    }
    for key in ["/etc/c.pem", "/etc/c.pem.key"] {
        text(&toml(key), &members, &options(Profile::Httpchk));
    }
    assert_eq!(
        refused(&toml("/etc/c.key"), &members, &options(Profile::Httpchk)),
        "HAProxy reads the key of /etc/c.pem from that file or from /etc/c.pem.key, but key_file is \
         /etc/c.key: link the key to /etc/c.pem.key and set key_file to that"
    );
}

/// HAProxy 3.0 loses clients in retries.
#[test]
fn for_haproxy_3_0_there_are_no_retries() {
    let of = |version: &str| {
        let haproxy = HaproxyVersion::read(version).unwrap();
        let options = RenderOptions { haproxy, ..options(Profile::Httpchk) };
        text(PATRONI, &three(), &options).contains("\n    retries 0\n")
    };
    assert_eq!(["2.6", "3.0", "3.1", "3.2"].map(of), [false, true, false, false]);
}

/// HAProxy applies `init-state` again when a server leaves maintenance.
#[test]
fn servers_that_an_agent_puts_in_maintenance_have_no_init_state() {
    let has_it = |toml: &str, profile| {
        let haproxy = HaproxyVersion::read("3.2").unwrap();
        let options = RenderOptions { haproxy, ..options(profile) };
        text(&format!("{PATRONI}{toml}"), &three(), &options).contains("init-state down")
    };
    assert!(has_it("", Profile::Httpchk));
    assert!(!has_it("", Profile::Agent), "the usual words are those for administration");
    assert!(!has_it("[agent]\nvocabulary = 'admin'\n", Profile::Agent));
    assert!(has_it("[agent]\nvocabulary = 'health'\n", Profile::Agent));
}

#[test]
fn agent_asks_pgsteer() {
    let toml = format!("{PATRONI}[agent]\nvocabulary = 'admin'\n");
    let hosts: Vec<String> = (1..=7).map(|n| format!("pg-{n}.example")).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    insta::assert_snapshot!(text(&toml, &members(&hosts), &options(Profile::Agent)));
}

#[test]
fn agent_bypass_leads_past_the_pooler() {
    let toml = format!(
        "{PATRONI}[agent]\nvocabulary = 'admin'\n[services.write]\npooler_port = 6432\n\
         [services.read]\npooler_port = 6432\nlag_bytes_max = '16MB'\nfallback = 'primary'\n"
    );
    insta::assert_snapshot!(text(&toml, &three(), &options(Profile::AgentBypass)));
}

#[test]
fn sql_asks_postgresql() {
    let odd = format!("größe \"$\\ {}", "€".repeat(17));
    assert_eq!(odd.len(), 63);
    let toml = format!(
        "[members]\nn1.postgres = 'fd00::11'\nn2.postgres = 'fd00::12'\n\
         [check]\nuser = '{odd}'\ndbname = 'template1'\n"
    );
    let members = without_patroni(members(&["fd00::11", "fd00::12"]));
    insta::assert_snapshot!(text(&toml, &members, &options(Profile::Sql)));
}

fn redirect() -> RenderOptions {
    let pass = vec!["10.0.0.5".to_owned(), "fd00:1::/32".to_owned()];
    RenderOptions { pass, ..options(Profile::Redirect) }
}

#[test]
fn redirect_routes_all_clients_except_the_listed_sources() {
    let toml = format!("[cluster]\nlocal = 'n1'\n{PATRONI}");
    insta::assert_snapshot!(text(&toml, &three(), &redirect()));
}

#[test]
fn pgsteer_stands_behind() {
    let doors = vec!["10.0.0.21".to_owned(), "fd00::22".to_owned(), "door-3.example".to_owned()];
    let options = RenderOptions { doors, resolve: true, ..options(Profile::Pgsteer) };
    let toml = format!(
        "{PATRONI}[http]\nlisten = '[::]:7000'\n[services.write]\nlisten = '[::]:5000'\n\
         [services.read]\nlisten = '[::]:5001'\n"
    );
    insta::assert_snapshot!(text(&toml, &three(), &options));
}

/// The lines of a file that differ from another's.
fn difference(one: &str, other: &str) -> String {
    let lines: Vec<&str> = other.lines().filter(|line| !one.lines().any(|l| l == *line)).collect();
    lines.join("\n")
}

#[test]
fn an_option_changes_the_expected_lines() {
    let plain = text(PATRONI, &three(), &options(Profile::Httpchk));
    let rest = RenderOptions {
        haproxy: HaproxyVersion::read("3.1").unwrap(),
        detect: Duration::from_millis(700),
        stats_login: Some(StatsLogin { user: "dba".to_owned(), password: "a \"$b\\".to_owned() }),
        ..options(Profile::Httpchk)
    };
    insta::assert_snapshot!(difference(&plain, &text(PATRONI, &three(), &rest)));
}

#[test]
fn statistics_on_the_port_of_pgsteers_pages_have_a_note() {
    let has_note = |toml: &str, options: &RenderOptions| {
        text(&format!("{PATRONI}{toml}"), &three(), options).contains("pgsteer's own pages")
    };
    let elsewhere = Some("127.0.0.1:7001".parse().unwrap());
    let apart = RenderOptions { stats_listen: elsewhere, ..options(Profile::Agent) };
    assert!(has_note("", &options(Profile::Agent)));
    assert!(!has_note("", &apart));
    assert!(has_note("[http]\nlisten = 7001", &apart));
    assert!(!has_note("[http]\nlisten = false", &options(Profile::Agent)));
    assert!(!has_note("", &options(Profile::Httpchk)), "no pgsteer is needed");
}

#[test]
fn members_are_written_as_haproxy_reads_them() {
    let mut odd = members(&["fd00::11", "pg-2.example", "10.0.0.13"]);
    odd[0].name = MemberName::new("größe \"1\"").unwrap();
    odd[1].patroni_url = Some("https://patroni-2.example:8009".into());
    odd[2].postgres = Endpoint::new("10.0.0.13", 6000).unwrap();
    let toml = "[patroni]\nurls = ['https://10.0.0.11:8008']\nca_file = '/etc/my ca.pem'\n\
                cert_file = '/etc/c.pem'\nkey_file = '/etc/c.pem.key'\n[services.write]\n\
                [services.\"lese dienst\"]\nlisten = '[::]:5009'\nrole = 'replica'\n\
                tags = { region = 'a&b' }\nlag_bytes_max = '16MB'\n[proxy]\nuser_timeout_seconds = 9";
    let text = text(toml, &odd, &options(Profile::Httpchk));
    let wanted = ["server", "bind", "listen", "# lese", "uri"];
    let lines = text.lines().filter(|line| wanted.iter().any(|word| line.contains(word)));
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
}

#[test]
fn input_that_cannot_be_rendered_is_refused() {
    let check = "[check]\nuser = 'pgcheck'\n";
    let sql = |check: &str| format!("{PATRONI}{check}");
    let bypass = "[services.write]\npooler_port = 6432\npooler_down = 'bypass'\n";
    let lag = "[services.read]\nlag_seconds_max = 10\n";
    let lag_bytes = format!("{PATRONI}{check}[services.read]\nlag_bytes_max = '16MB'\n");
    let one = members(&["10.0.0.11"]);
    let none = without_patroni(three());
    let mut twice = three();
    twice[2].name = twice[0].name.clone();
    let mut odd = three();
    odd[1].postgres = Endpoint::new("10.0.0.12 check", 5432).unwrap();
    let door =
        |door: &str| RenderOptions { doors: vec![door.to_owned()], ..options(Profile::Pgsteer) };
    let all = [
        refused(PATRONI, &twice, &options(Profile::Httpchk)),
        refused(PATRONI, &odd, &options(Profile::Httpchk)),
        refused(PATRONI, &three(), &door("a b")),
        refused(PATRONI, &[], &options(Profile::Httpchk)),
        refused(PATRONI, &one, &options(Profile::Httpchk)),
        refused(PATRONI, &none, &options(Profile::Httpchk)),
        refused(&sql(&format!("{check}{lag}")), &three(), &options(Profile::Httpchk)),
        refused(&sql(""), &three(), &options(Profile::Sql)),
        refused(&sql(&format!("{check}password_file = 'x'")), &three(), &options(Profile::Sql)),
        refused(&sql(&format!("{check}sslmode = 'require'")), &three(), &options(Profile::Sql)),
        refused(&lag_bytes, &three(), &options(Profile::Sql)),
        refused(PATRONI, &three(), &options(Profile::AgentBypass)),
        refused(&sql(bypass), &three(), &options(Profile::Agent)),
        refused(PATRONI, &three(), &options(Profile::Pgsteer)),
        refused(PATRONI, &three(), &redirect()),
        refused(&format!("[cluster]\nlocal = 'n9'\n{PATRONI}"), &three(), &redirect()),
        refused(
            PATRONI,
            &three(),
            &RenderOptions { detect: Duration::from_millis(100), ..options(Profile::Httpchk) },
        ),
        refused(
            PATRONI,
            &three(),
            &RenderOptions {
                stats_listen: "0.0.0.0:7000".parse().ok(),
                ..RenderOptions::default()
            },
        ),
        refused(
            PATRONI,
            &three(),
            &RenderOptions {
                stats_listen: "127.0.0.1:5001".parse().ok(),
                ..RenderOptions::default()
            },
        ),
        HaproxyVersion::read("2.4").unwrap_err().to_string(),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

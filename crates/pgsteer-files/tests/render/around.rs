//! The other files around the cluster.

use pgsteer_core::claim::Found;
use pgsteer_files::lint;
use pgsteer_files::render::{Kind, RenderOptions, Rendered};

use crate::clusters::{PATRONI, config, files, lint_finds_nothing, members, three};

/// A cluster with everything, and pgsteer on two machines of its own.
fn toml() -> String {
    format!(
        "{PATRONI}[check]\nuser = 'pgcheck'\n[services.write]\nlisten = '[::]:5000'\n\
         pooler_port = 6432\n[services.read]\nlisten = '[::]:5001'\npooler_port = 6432\n\
         lag_bytes_max = '16MB'\n"
    )
}

pub fn doors() -> RenderOptions {
    let doors = vec!["10.0.0.21".to_owned(), "10.0.0.22".to_owned()];
    RenderOptions { doors, vip: Some("10.0.0.20/24".to_owned()), ..RenderOptions::default() }
}

pub fn made(kind: Kind, members: &[Found], options: &RenderOptions) -> Vec<Rendered> {
    let files = files(kind, &config(&toml()), members, options);
    let files = files.unwrap_or_else(|refusal| panic!("{refusal}"));
    for file in &files {
        match file.path.rsplit('/').next() {
            Some("pg_hba.pgsteer.conf") => {
                lint_finds_nothing(lint::Kind::PgHba, &file.text, options)
            }
            Some("haproxy.cfg") => lint_finds_nothing(lint::Kind::Haproxy, &file.text, options),
            _ => {}
        }
    }
    files
}

fn shown(files: &[Rendered]) -> String {
    files.iter().map(|file| format!("==> {} <==\n{}", file.path, file.text)).collect()
}

#[test]
fn pg_hba_admits_the_requested_logins_only() {
    let members = members(&["10.0.0.11", "fd00::12", "pg-3.example"]);
    insta::assert_snapshot!(shown(&made(Kind::PgHba, &members, &RenderOptions::default())));
}

#[test]
fn pg_hba_with_repmgr_and_trust() {
    let members = members(&["10.0.0.11", "fd00::12"]);
    let options = RenderOptions { repmgr: true, trust: true, ..doors() };
    insta::assert_snapshot!(shown(&made(Kind::PgHba, &members, &options)));
}

#[test]
fn keepalived_has_a_file_for_each_door() {
    insta::assert_snapshot!(shown(&made(Kind::Keepalived, &three(), &doors())));
}

#[test]
fn pgbouncer_stands_beside_each_member() {
    insta::assert_snapshot!(shown(&made(Kind::Pgbouncer, &three(), &RenderOptions::default())));
}

#[test]
fn prometheus_has_rules_and_targets() {
    insta::assert_snapshot!(shown(&made(Kind::Prometheus, &three(), &doors())));
}

#[test]
fn clients_know_several_hosts() {
    let options = RenderOptions { vip: None, ..doors() };
    insta::assert_snapshot!(shown(&made(Kind::Clients, &three(), &options)));
}

#[test]
fn clients_connect_to_the_members_if_no_host_of_pgsteer_is_given() {
    let text = |options: &RenderOptions| shown(&made(Kind::Clients, &three(), options));
    let note = "assumes that pgsteer runs on the members";
    let members = text(&RenderOptions::default());
    assert!(members.contains(note) && members.contains("10.0.0.11:5000"), "{members}");
    assert!(
        !text(&doors()).contains(note)
            && !text(&RenderOptions { vip: None, ..doors() }).contains(note)
    );
}

#[test]
fn clients_try_a_single_host_twice() {
    let one = RenderOptions { vip: None, doors: vec!["fd00::21".to_owned()], ..doors() };
    let rendered = [one, doors()].map(|options| {
        let text = shown(&made(Kind::Clients, &three(), &options));
        let (note, services) = text.split_once("\n## write").unwrap();
        let note = note.lines().skip_while(|line| !line.starts_with("One"));
        let note = note.take_while(|line| !line.starts_with("In the place"));
        let lists =
            services.lines().filter(|line| line.contains(":5000") || line.contains("host="));
        note.chain(lists).collect::<Vec<_>>().join("\n")
    });
    insta::assert_snapshot!(rendered.join("\n\n"));
}

#[test]
fn a_target_without_a_listener_is_refused() {
    let refused = |kind, more: &str, options: &RenderOptions| {
        let refusal = files(kind, &config(&format!("{PATRONI}{more}")), &three(), options);
        let refusal = refusal.unwrap_err();
        format!("{refusal}: {}", refusal.remedy().unwrap_or_default())
    };
    let (http, services) =
        ("[http]\nlisten = '127.0.0.1:7000'\n", "[services.read]\nlisten = '[::1]:5001'\n");
    let specific = "[services.write]\nlisten = '10.0.0.21:5000'\n";
    let members = RenderOptions::default();
    let v6 = RenderOptions { vip: None, doors: vec!["fd00::21".to_owned()], ..doors() };
    let off = "[http]\nlisten = false\n";
    let all = [
        refused(Kind::Prometheus, http, &doors()),
        refused(Kind::Prometheus, http, &members),
        refused(Kind::Prometheus, off, &doors()),
        refused(Kind::Consul, off, &doors()),
        refused(Kind::Keepalived, off, &doors()),
        refused(Kind::Clients, services, &members),
        refused(Kind::Clients, "", &v6),
        refused(Kind::Clients, specific, &members),
        // The address that moves is not the host's own.
        refused(Kind::Clients, specific, &doors()),
    ];
    insta::assert_snapshot!(all.join("\n"));
    let made = |kind, more: &str, options: &RenderOptions| {
        let made = files(kind, &config(&format!("{PATRONI}{more}")), &three(), options);
        shown(&made.unwrap_or_else(|refusal| panic!("{refusal}")))
    };
    let here = RenderOptions { doors: vec!["127.0.0.1".to_owned()], ..RenderOptions::default() };
    assert!(made(Kind::Prometheus, http, &here).contains("127.0.0.1:7000"));
    let apart = RenderOptions { vip: None, ..doors() };
    assert!(made(Kind::Clients, specific, &apart).contains("10.0.0.22:5000"));
    // A program on the same machine asks where the pages are.
    let http = "[http]\nlisten = '10.0.0.21:7000'\n";
    assert!(made(Kind::Consul, http, &apart).contains("http://10.0.0.21:7000/healthz"));
    let keepalived = made(Kind::Keepalived, http, &doors());
    assert!(keepalived.contains("http://10.0.0.21:7000 "), "{keepalived}");
    assert!(keepalived.contains("http://10.0.0.22:7000 "), "{keepalived}");
}

#[test]
fn consul_and_grafana_are_json() {
    let members = three();
    for kind in [Kind::Consul, Kind::Grafana] {
        for file in made(kind, &members, &doors()) {
            serde_json::from_str::<serde_json::Value>(&file.text).unwrap();
        }
    }
    insta::assert_snapshot!(shown(&made(Kind::Consul, &members, &doors())));
}

/// Consul does not start with a check by a script unless scripts are enabled.
#[test]
fn the_shipped_services_of_consul_are_checked_by_http() {
    let shipped = include_str!("../../../../dist/consul-pgsteer.json");
    let shipped: serde_json::Value = serde_json::from_str(shipped).unwrap();
    let services = shipped["services"].as_array().unwrap();
    let checks: Vec<_> = services.iter().map(|service| &service["check"]).collect();
    assert_eq!(checks.len(), 3);
    for check in checks {
        let keys: Vec<&String> = check.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["http", "interval", "name", "timeout"]);
    }
}

#[test]
fn ansible_is_a_role_with_haproxys_file() {
    let files = made(Kind::Ansible, &three(), &RenderOptions::default());
    let (haproxy, rest) = files.split_first().unwrap();
    assert_eq!(haproxy.path, "roles/pgsteer_haproxy/files/haproxy.cfg");
    insta::assert_snapshot!(shown(rest));
}

#[test]
fn what_is_missing_is_asked_for() {
    let refused = |kind, toml: &str, options: &RenderOptions| {
        let refusal = files(kind, &config(toml), &three(), options).unwrap_err();
        format!("{refusal}: {}", refusal.remedy().unwrap_or_default())
    };
    let vip = |vip: &str| RenderOptions { vip: Some(vip.to_owned()), ..doors() };
    let door = |door: &str| RenderOptions {
        doors: vec!["10.0.0.21".to_owned(), door.to_owned()],
        ..doors()
    };
    let interface = |name: &str| RenderOptions { interface: Some(name.to_owned()), ..doors() };
    let one_port = format!("{PATRONI}[services.write]\npooler_port = 5432\n");
    let two_ports = toml().replacen("6432", "6433", 1);
    let toml = toml();
    let v6 = RenderOptions { vip: Some("fd00::20/64".to_owned()), ..doors() };
    let all = [
        refused(Kind::PgHba, PATRONI, &doors()),
        refused(Kind::Pgbouncer, PATRONI, &doors()),
        refused(Kind::Keepalived, &toml, &RenderOptions::default()),
        refused(Kind::Keepalived, &toml, &RenderOptions { doors: Vec::new(), ..doors() }),
        refused(Kind::Keepalived, &toml, &v6),
        refused(Kind::Keepalived, &toml, &vip("10.0.0.300/24")),
        refused(Kind::Keepalived, &toml, &vip("10.0.0.20/33")),
        refused(Kind::Keepalived, &toml, &vip("10.0.0.20/0")),
        refused(Kind::Keepalived, &toml, &vip("0.0.0.0")),
        refused(Kind::Keepalived, &toml, &vip("::1/128")),
        refused(Kind::Keepalived, &toml, &vip("10.0.0.22/24")),
        refused(Kind::Clients, &toml, &vip("nonsense")),
        refused(Kind::Keepalived, &toml, &door("10.0.0.21")),
        refused(Kind::Keepalived, &toml, &door("door-2.example")),
        refused(Kind::Keepalived, &toml, &interface("eth0 {")),
        refused(Kind::Keepalived, &toml, &interface("longer-than-any-")),
        refused(Kind::Clients, &toml, &door("a b")),
        refused(Kind::Pgbouncer, &one_port, &doors()),
        refused(Kind::Pgbouncer, &two_ports, &doors()),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn a_template_of_ones_own_takes_the_place_of_the_first_file() {
    let template = Some("primary of {{ cluster }}: {{ services[0].port }}\n");
    let (config, options) = (config(PATRONI), RenderOptions::default());
    let made_from = "";
    let members = three();
    let request = pgsteer_files::render::Request {
        config: &config,
        members: &members,
        options: &options,
        made_from,
        template,
    };
    let files = pgsteer_files::render::render(Kind::Clients, &request).unwrap();
    assert_eq!(files[0].text, "primary of main: 5000\n");
}

//! Clusters to render for: of 2, 3 and 7 members, by IPv4, IPv6 and name.

use std::sync::Arc;

use pgsteer_config::file;
use pgsteer_core::claim::Found;
use pgsteer_core::names::{Endpoint, MemberName};
use pgsteer_core::settings::Config;
use pgsteer_files::lint::{self, Options, lint};
use pgsteer_files::render::refusal::Refusal;
use pgsteer_files::render::{Kind, Profile, RenderOptions, Rendered, Request, render};

/// Their members are found through Patroni.
pub const PATRONI: &str = "[patroni]\nurls = ['http://10.0.0.11:8008']\n";

/// The configuration that is written so.
pub fn config(text: &str) -> Config {
    let (draft, errors) = file::read(text, "pgsteer.toml");
    draft.finish(errors).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Members n1, n2, ... at these hosts, each with its Patroni.
pub fn members(hosts: &[&str]) -> Vec<Found> {
    let member = |(number, host): (usize, &&str)| Found {
        name: MemberName::new(&format!("n{}", number + 1)).unwrap(),
        postgres: Endpoint::new(host, 5432).unwrap(),
        patroni_url: Some(Arc::from(format!("http://{}", Endpoint::new(host, 8008).unwrap()))),
    };
    hosts.iter().enumerate().map(member).collect()
}

/// The same without Patroni.
pub fn without_patroni(mut members: Vec<Found>) -> Vec<Found> {
    members.iter_mut().for_each(|member| member.patroni_url = None);
    members
}

pub fn three() -> Vec<Found> {
    members(&["10.0.0.11", "10.0.0.12", "10.0.0.13"])
}

/// The files of `kind`, made of these.
pub fn files(
    kind: Kind,
    config: &Config,
    members: &[Found],
    options: &RenderOptions,
) -> Result<Vec<Rendered>, Refusal> {
    let made_from = "Made by pgsteer from pgsteer.toml. Changes are lost when it is made again.";
    render(kind, &Request { config, members, options, made_from, template: None })
}

pub fn options(profile: Profile) -> RenderOptions {
    RenderOptions { profile, ..RenderOptions::default() }
}

/// What we write ourselves is as lint wants it. Whether the names of members are to be resolved once,
/// as in /etc/hosts, or by `--resolve`, is the choice of the one who renders.
pub fn lint_finds_nothing(kind: lint::Kind, text: &str, options: &RenderOptions) {
    let of_lint =
        Options { haproxy: options.haproxy, max_connections: Some(100), ..Options::default() };
    let report = lint(kind, text, &of_lint).unwrap_or_else(|why| panic!("{why}: {text}"));
    let findings = report.findings.into_iter().filter(|it| it.rule.id != "name-resolved-once");
    let found: Vec<_> = findings.map(|it| (it.rule.id, it.place.line, it.message)).collect();
    assert!(found.is_empty(), "{found:#?}\n{text}");
}

//! The statistics page: who can see it, and who can disable servers on it.

use std::collections::BTreeSet;

use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::lines::Line;
use crate::lint::haproxy::proxy::Proxy;
use crate::lint::haproxy::sections::{Kind, Section};
use crate::lint::rule::{Findings, Look, rule};
use crate::lint::word_shown;

rule! {
    /// A password in the file.
    STATS_CREDENTIALS = "stats-credentials", Error, Look::Haproxy(credentials),
    title: "the file contains the password of the statistics page",
    costs: "Everyone who can read the file, its backup or its repository has the password. Passwords of examples are the same everywhere.",
    remedy: "Use `stats auth \"admin:$STATS_PASSWORD\"`, in double quotes and from the environment of the unit. In a userlist, use a hash with `password`. Or use no password and bind the page to 127.0.0.1.",
}

rule! {
    /// Every client can see it.
    STATS_OPEN = "stats-open", Warning, Look::Haproxy(open),
    title: "the statistics page is open to every host that reaches it",
    costs: "The page shows names, addresses, versions and the state of every member.",
    remedy: "Bind it to 127.0.0.1, or require a password with `stats auth`.",
}

rule! {
    /// Every client can change servers on it.
    STATS_ADMIN_OPEN = "stats-admin-open", Error, Look::Haproxy(admin_open),
    title: "every host that reaches the statistics page can disable servers",
    costs: "One click takes the primary out of service.",
    remedy: "Write `stats admin if LOCALHOST` and `stats auth`, or remove the line.",
}

fn credentials(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for section in &haproxy.model.file.sections {
        if !section.kind.is_proxy() && section.kind != Kind::Defaults {
            continue;
        }
        for line in section.body.iter().filter(|line| line.begins(&["stats", "auth"])) {
            let Some((user, _)) = line.word(2).split_once(':') else { continue };
            findings.add(
                line.place_of(2),
                format!("the password of the user `{user}` (not shown here)"),
            );
        }
    }
    for list in haproxy.model.proxies.iter().flat_map(userlists).collect::<BTreeSet<_>>() {
        let is_it = |section: &&Section| section.head.begins(&["userlist", list]);
        let lines = haproxy.model.file.sections.iter().filter(is_it);
        for line in lines.flat_map(|section| section.lines_of("user")) {
            let at = line.words.iter().position(|word| word.is("insecure-password"));
            let Some(password) = at.and_then(|at| line.words.get(at + 1)) else { continue };
            if password.known().is_some() {
                let user = word_shown(line.word(1));
                findings.add(
                    line.place_of(1),
                    format!("the password of the user `{user}` (not shown here)"),
                );
            }
        }
    }
}

/// Returns the user lists that the statistics page of `proxy` checks, by `http_auth(LIST)`.
fn userlists<'a>(proxy: &Proxy<'a>) -> impl Iterator<Item = &'a str> {
    let has_page = ["enable", "uri"].iter().any(|word| proxy.last(&["stats", word]).is_some());
    let lines = ["stats", "http-request", "acl"].into_iter().flat_map(|word| proxy.nearest(word));
    let words = lines.filter(move |_| has_page).flat_map(|line| &line.words);
    words.filter_map(|word| {
        let fetch = word.known()?.strip_prefix("http_auth")?;
        let fetch = fetch.strip_prefix("_group").unwrap_or(fetch);
        fetch.strip_prefix('(')?.strip_suffix(')')
    })
}

/// Returns true if the page has no authentication and listens on an address that other machines
/// reach.
fn is_open(proxy: &Proxy<'_>) -> bool {
    let has = |second| proxy.last(&["stats", second]).is_some();
    let asks_who = |line: &Line| line.words.iter().any(|word| word.is("auth"));
    let is_guarded = has("auth")
        || has("http-request")
        || proxy.nearest("http-request").into_iter().any(asks_who)
        || proxy.refusals().next().is_some();
    let is_reached = proxy.binds().any(|(line, address)| {
        let has_certificate = line.words.iter().any(|word| word.is("verify"));
        address.is_some_and(|address| !address.is_loopback()) && !has_certificate
    });
    (has("enable") || has("uri")) && is_reached && !is_guarded && proxy.mode() == Some("http")
}

fn open(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in haproxy.model.proxies.iter().filter(|proxy| is_open(proxy)) {
        let reached = proxy
            .binds()
            .find(|(_, address)| address.as_ref().is_some_and(|address| !address.is_loopback()));
        let Some((line, address)) = reached else { continue };
        let whom = match address.is_some_and(|address| address.is_any()) {
            true => "on all addresses of the machine",
            false => "on an address that others reach",
        };
        findings.add(line, format!("{} listens {whom}, without a password", proxy.title()));
    }
}

fn admin_open(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in haproxy.model.proxies.iter().filter(|proxy| is_open(proxy)) {
        for line in proxy.lines_of("stats").filter(|line| line.word(1) == "admin") {
            let is_always = line.begins(&["stats", "admin", "if", "TRUE"])
                || line.begins(&["stats", "admin", "unless", "FALSE"]);
            if is_always && line.words.len() == 4 {
                findings.add(line, format!("on {}, without a password", proxy.title()));
            }
        }
    }
}

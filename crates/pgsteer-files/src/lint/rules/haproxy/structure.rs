//! Names, addresses and positions of lines.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::lines::Line;
use crate::lint::haproxy::proxy::Proxy;
use crate::lint::haproxy::sections::Kind;
use crate::lint::haproxy::server::Server;
use crate::lint::listed;
use crate::lint::location::Severity;
use crate::lint::rule::{Findings, Look, rule};

rule! {
    /// Two proxies share a port.
    BIND_TWICE = "bind-twice", Error, Look::Haproxy(bind_twice),
    title: "two proxies listen on the same address and port",
    costs: "HAProxy starts, and the kernel distributes clients over both: half of the writers reach the readers' proxy.",
    remedy: "Give each proxy its own port.",
}

rule! {
    /// HAProxy refuses it.
    NAME_TWICE = "name-twice", Error, Look::Haproxy(name_twice),
    title: "two proxies or servers have the same name",
    costs: "HAProxy refuses the file.",
    remedy: "Use another name.",
}

rule! {
    /// One member counts as two.
    SERVER_ADDRESS_TWICE = "server-address-twice", Warning, Look::Haproxy(address_twice),
    title: "two servers of one proxy have the same address",
    costs: "One member counts as two: it gets twice its share of clients, and a guard that counts primaries refuses all writers.",
    remedy: "Write the address of the other member.",
}

rule! {
    /// HAProxy refuses it.
    UNKNOWN_BACKEND = "unknown-backend", Error, Look::Haproxy(unknown_backend),
    title: "a proxy routes clients to a backend that does not exist",
    costs: "HAProxy refuses the file.",
    remedy: "Correct the name, or add the backend.",
}

rule! {
    /// PostgreSQL is not HTTP.
    MODE_HTTP = "mode-http", Error, Look::Haproxy(mode_http),
    title: "PostgreSQL behind `mode http`",
    costs: "HAProxy waits for an HTTP request, and answers PostgreSQL's clients with `400 Bad request`.",
    remedy: "Use `mode tcp` in this proxy, and in every frontend that leads to it.",
}

rule! {
    /// The word is in a section of another kind.
    MISPLACED_WORD = "misplaced-word", Error, Look::Haproxy(misplaced),
    title: "a line in a section where it has no effect",
    costs: "HAProxy ignores the line with a warning, or refuses the file: the proxy does not listen, or does not route its clients.",
    remedy: "Move it: `bind`, `use_backend` and `default_backend` into a frontend, `server` and `balance` into a backend, or make a `listen` of the section. What `defaults` cannot have belongs into each proxy; a proxy may have lost its first line.",
}

/// Settings of a bind line that make the same port a different one.
const APART: [&str; 4] = ["interface", "namespace", "process", "thread"];

fn bind_twice(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let mut seen: BTreeMap<(String, u16), (usize, String)> = BTreeMap::new();
    let serving = haproxy.model.proxies.iter().enumerate();
    for (at, proxy) in serving.filter(|(_, proxy)| !proxy.is_disabled()) {
        for (line, address) in proxy.binds().filter(|(line, _)| !line.is_conditional) {
            let is_apart = line.words.iter().any(|word| APART.iter().any(|it| word.is(it)));
            let Some(address) = address.filter(|_| !is_apart) else { continue };
            let Some(port) = address.port else { continue };
            // A host name may have an address of either family.
            let host = match (address.host.as_str(), address.family) {
                ("" | "*" | "::", "ipv6@") | ("::", _) => "::".to_owned(),
                ("" | "*" | "0.0.0.0", _) => "*".to_owned(),
                (host, _) if host.parse::<IpAddr>().is_ok() => host.to_owned(),
                (host, family) => format!("{family}{host}"),
            };
            let key = (host, port);
            match seen.get(&key) {
                Some((other, name)) if *other != at => {
                    findings.add(line, format!("{name} already listens on port {port}"));
                }
                Some(_) => {}
                None => drop(seen.insert(key, (at, proxy.title()))),
            }
        }
    }
}

fn name_twice(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let mut proxies: BTreeMap<(&str, bool), &Proxy<'_>> = BTreeMap::new();
    let named = |proxy: &&Proxy<'_>| !proxy.name.is_empty() && !proxy.head.is_conditional;
    for proxy in haproxy.model.proxies.iter().filter(named) {
        // A frontend and a backend may share a name; a listen is both.
        let sides = match proxy.kind {
            Kind::Frontend => [Some(true), None],
            Kind::Backend => [Some(false), None],
            _ => [Some(true), Some(false)],
        };
        let other = sides.iter().flatten().find_map(|side| proxies.get(&(proxy.name, *side)));
        if let Some(other) = other {
            let since = haproxy.model.file.line_shown(other.head.number);
            let message = format!("{} has the same name, in {since}", other.title());
            findings.add(proxy.head.place_of(1), message);
        }
        for side in sides.into_iter().flatten() {
            proxies.entry((proxy.name, side)).or_insert(proxy);
        }
        server_name_twice(haproxy, proxy, findings);
    }
}

fn server_name_twice(haproxy: &Haproxy<'_>, proxy: &Proxy<'_>, findings: &mut Findings) {
    let mut seen: BTreeMap<&str, &Line> = BTreeMap::new();
    let plain = proxy.servers.iter().filter(|server| server.line.word(0) == "server");
    let plain = plain.filter(|server| !server.line.is_conditional);
    for server in plain.filter(|server| !server.name.is_empty()) {
        match seen.get(server.name) {
            Some(line) => {
                let shown = haproxy.model.file.line_shown(line.number);
                let message = format!("`{}` is already in {shown}", server.name);
                findings.add(server.line.place_of(1), message);
            }
            None => drop(seen.insert(server.name, server.line)),
        }
    }
}

fn address_twice(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in haproxy.model.postgres() {
        let mut seen: BTreeMap<(&str, u16), &str> = BTreeMap::new();
        for server in proxy.members().filter(|server| !server.line.is_conditional) {
            let Some(address) = &server.address else { continue };
            let Some(port) = address.port else { continue };
            match seen.get(&(address.host.as_str(), port)) {
                Some(other) => {
                    let message =
                        format!("`{other}` and `{}` are both {}:{port}", server.name, address.host);
                    findings.add(server.line.place_of(2), message);
                }
                None => drop(seen.insert((&address.host, port), server.name)),
            }
        }
    }
}

fn unknown_backend(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let model = &haproxy.model;
    // If this file has only frontends, another file may have the backends.
    let has_backends = model.proxies.iter().any(|proxy| proxy.kind == Kind::Backend);
    if !model.file.has_all_sections() || !has_backends {
        return;
    }
    for proxy in model.proxies.iter().filter(|proxy| proxy.kind != Kind::Backend) {
        let ways = proxy.lines_of("use_backend").chain(proxy.lines_of("default_backend"));
        for line in ways {
            let name = line.word(1);
            // `%[...]` is computed for each client.
            if !name.is_empty() && !name.contains('%') && model.backend(name).is_none() {
                findings
                    .add(line.place_of(1), format!("there is no backend `{name}` in this file"));
            }
        }
    }
}

fn mode_http(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    // Proxies that inherit the mode from one line are one finding.
    let mut by_mode: BTreeMap<usize, Vec<(&Proxy<'_>, &Server<'_>)>> = BTreeMap::new();
    for proxy in haproxy.model.proxies.iter().filter(|proxy| proxy.mode() == Some("http")) {
        let server = proxy.servers.iter().find(|server| proxy.is_surely_postgres(server));
        let line = proxy.last(&["mode"]).map_or(0, |line| line.number);
        by_mode.entry(line).or_default().extend(server.map(|server| (proxy, server)));
    }
    for wrong in by_mode.into_values() {
        let Some((_, server)) = wrong.first() else { continue };
        let titles: Vec<String> = wrong.iter().map(|(proxy, _)| proxy.title()).collect();
        let titles = listed(titles.iter().map(String::as_str));
        let port = server.port().unwrap_or_default();
        findings.add(server.line, format!("{titles}: mode http, with a server at port {port}"));
    }
    modes_differ(haproxy, findings);
}

/// Lines that `defaults` cannot have (HAProxy 2.6).
#[rustfmt::skip]
const NOT_IN_DEFAULTS: [&str; 19] = [
    "bind", "capture", "declare", "description", "disabled", "dispatch", "filter", "force-persist", "id",
    "ignore-persist", "monitor", "redirect", "server", "server-template", "stick", "stick-table",
    "stats admin", "use-server", "use_backend",
];

/// Lines that only `defaults` with a name can have.
const ONLY_IN_NAMED_DEFAULTS: [&str; 6] =
    ["acl", "http-request", "http-response", "tcp-request", "tcp-response", "http-after-response"];

fn misplaced_in_defaults(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let sections = haproxy.model.file.sections.iter();
    for section in sections.filter(|section| section.kind == Kind::Defaults) {
        let is_named = section.head.words.len() > 1;
        for line in &section.body {
            let is_among = |words: &[&str]| {
                words.iter().any(|it| line.begins(&it.split(' ').collect::<Vec<_>>()))
            };
            if is_among(&NOT_IN_DEFAULTS) {
                findings.add(line, format!("`{}` in `defaults`", line.word(0)));
            } else if !is_named && is_among(&ONLY_IN_NAMED_DEFAULTS) {
                let word = line.word(0);
                findings.add(line, format!("`{word}` in `defaults` without a name"));
            }
        }
    }
}

fn misplaced(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    misplaced_in_defaults(haproxy, findings);
    for proxy in &haproxy.model.proxies {
        for line in proxy.lines() {
            let severity = match (proxy.kind, line.word(0), line.word(1)) {
                (Kind::Backend, "bind" | "use_backend" | "default_backend", _)
                | (Kind::Backend, "tcp-request", "connection" | "session")
                | (Kind::Frontend, "server" | "server-template" | "default-server", _)
                | (Kind::Frontend, "use-server", _)
                | (Kind::Frontend, "option", "pgsql-check" | "external-check") => Severity::Error,
                // HAProxy ignores it, and uses its default in the backend.
                (Kind::Frontend, "balance", _) => Severity::Warning,
                _ => continue,
            };
            let word = match line.word(0) {
                "option" | "tcp-request" => format!("{} {}", line.word(0), line.word(1)),
                word => word.to_owned(),
            };
            findings.add_as(severity, line, format!("`{word}` in {}", proxy.title()));
        }
    }
}

/// Reports frontends in mode http that lead to a backend in mode tcp, which HAProxy refuses.
fn modes_differ(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let model = &haproxy.model;
    for proxy in model.proxies.iter().filter(|proxy| proxy.mode() == Some("http")) {
        for line in proxy.ways() {
            let backend = model.backend(line.word(1)).filter(|it| it.mode() == Some("tcp"));
            if let Some(backend) = backend {
                let message = format!(
                    "{} is in mode http and {} in mode tcp",
                    proxy.title(),
                    backend.title()
                );
                findings.add(line, message);
            }
        }
    }
}

//! Names of missing parts of the configuration, and features that have to be enabled elsewhere.

use std::collections::BTreeSet;

use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::checks::Check;
use crate::lint::haproxy::condition::{Condition, Count, expressions};
use crate::lint::haproxy::lines::Line;
use crate::lint::haproxy::proxy::Proxy;
use crate::lint::haproxy::server::Server;
use crate::lint::listed;
use crate::lint::location::Severity;
use crate::lint::rule::{Findings, Look, rule};
use crate::lint::word_shown;

rule! {
    /// The name is not defined.
    REFERENCE_UNKNOWN = "reference-unknown", Error, Look::Haproxy(unknown),
    title: "a name that the configuration does not define",
    costs: "HAProxy refuses the file.",
    remedy: "Correct the name, or add the section or server.",
}

rule! {
    /// No CA verifies the certificate.
    TLS_WITHOUT_CA = "tls-without-ca", Error, Look::Haproxy(without_ca),
    title: "TLS to a server without a CA that verifies its certificate",
    costs: "HAProxy refuses the file.",
    remedy: "Add `ca-file FILE` beside `verify required`, with the CA of Patroni's certificate; or `verify none`, which encrypts and does not verify.",
}

rule! {
    /// HAProxy is not allowed to start programs.
    EXTERNAL_CHECK_OFF = "external-check-off", Error, Look::Haproxy(external),
    title: "checks by a program that `global` does not allow",
    costs: "Without `external-check` HAProxy refuses the file. Without `insecure-fork-wanted` it cannot start the program unless it runs as root, and all servers are DOWN.",
    remedy: "Add `external-check` and `insecure-fork-wanted` to `global`; or better, check Patroni's REST API, which needs neither.",
}

fn unknown(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let model = &haproxy.model;
    // Another file may have what is not in this one.
    if !model.file.has_all_sections() {
        return;
    }
    let sections = |kind: &str| -> BTreeSet<&str> {
        let named = model.file.sections.iter().filter(|section| section.head.word(0) == kind);
        // A `defaults` without a name cannot be named.
        let named = named.filter(|section| section.head.words.len() > 1);
        named.map(|section| section.head.word(1)).collect()
    };
    let (resolvers, mailers, peers, lists) =
        (sections("resolvers"), sections("mailers"), sections("peers"), sections("userlist"));
    for proxy in &model.proxies {
        for server in &proxy.servers {
            of_server(haproxy, proxy, server, &resolvers, findings);
        }
        for line in proxy.lines() {
            let named = match (line.word(0), line.word(1)) {
                ("email-alert", "mailers") => Some((2, "mailers", &mailers)),
                ("stick-table", _) => {
                    let at = line.words.iter().position(|word| word.is("peers"));
                    at.map(|at| (at + 1, "peers", &peers))
                }
                _ => None,
            };
            of_names(haproxy, proxy, line, findings);
            if let Some((at, kind, there)) = named {
                look_up(line, at, kind, there, findings);
            }
            of_condition(haproxy, proxy, line, &lists, findings);
        }
    }
    for section in &model.file.sections {
        let at = section.head.words.iter().position(|word| word.is("from"));
        if let Some(at) = at.filter(|at| *at > 0) {
            look_up(&section.head, at + 1, "defaults", &sections("defaults"), findings);
        }
    }
}

/// Checks the servers and tables that a line names.
fn of_names(haproxy: &Haproxy<'_>, proxy: &Proxy<'_>, line: &Line, findings: &mut Findings) {
    let table = || line.words.iter().position(|word| word.is("table"));
    match (line.word(0), line.word(1)) {
        ("use-server", name) if !name.contains('%') && !has_server(proxy, name) => {
            let message = format!("there is no server `{}` in {}", word_shown(name), proxy.title());
            findings.add(line.place_of(1), message);
        }
        ("stick", "on" | "match" | "store-request" | "store-response")
            if table().is_none() && proxy.lines_of("stick-table").next().is_none() =>
        {
            findings.add(line, format!("there is no `stick-table` in {}", proxy.title()));
        }
        ("acl", _) => {
            let fetch = line.word(2);
            let argument = ["srv_is_up(", "srv_conn("]
                .iter()
                .find_map(|it| fetch.strip_prefix(it)?.strip_suffix(')'));
            let Some(argument) = argument else { return };
            let (of, name) = argument.split_once('/').unwrap_or((proxy.name, argument));
            if !haproxy.model.backend(of).is_some_and(|backend| has_server(backend, name)) {
                let message = format!("there is no server `{}`", word_shown(argument));
                findings.add(line.place_of(2), message);
            }
        }
        _ => {}
    }
}

/// Returns true if the proxy has this server, or may get it by a template; also for an unknown name.
fn has_server(proxy: &Proxy<'_>, name: &str) -> bool {
    let is_it = |server: &Server<'_>| {
        server.name == name || server.name.is_empty() || server.line.word(0) == "server-template"
    };
    name.is_empty() || proxy.servers.iter().any(is_it)
}

fn look_up(line: &Line, at: usize, kind: &str, there: &BTreeSet<&str>, findings: &mut Findings) {
    let name = line.word(at);
    // A section whose name depends on the environment may be this one.
    if !name.is_empty() && !there.contains(name) && !there.contains("") {
        let message = format!("there is no section `{kind} {}`", word_shown(name));
        findings.add(line.place_of(at), message);
    }
}

fn of_server(
    haproxy: &Haproxy<'_>,
    proxy: &Proxy<'_>,
    server: &Server<'_>,
    resolvers: &BTreeSet<&str>,
    findings: &mut Findings,
) {
    if let Some(setting) = server.settings.get("resolvers") {
        // A setting of `default-server` is reported once.
        let is_own = setting.line.number == server.line.number;
        let is_first = proxy.servers.first().is_some_and(|it| it.line.number == server.line.number);
        if is_own || is_first {
            look_up(setting.line, setting.at + 1, "resolvers", resolvers, findings);
        }
    }
    let Some(track) = server.settings.get("track") else { return };
    let place = track.line.place_of(track.at + 1);
    let text = server.settings.text("track");
    let (of, name) = text.split_once('/').unwrap_or((proxy.name, text));
    let target = haproxy.model.backend(of);
    let is_there = target.is_some_and(|target| has_server(target, name));
    if !text.is_empty() && !is_there {
        findings.add(place, format!("there is no server `{}`", word_shown(text)));
    }
    if server.is_checked() {
        let message =
            format!("`{}` has `check` and `track`, which exclude each other", server.name);
        findings.add(place, message);
    }
}

/// Checks `nbsrv(BACKEND)` and `http_auth(LIST)` in conditions and ACLs.
fn of_condition(
    haproxy: &Haproxy<'_>,
    proxy: &Proxy<'_>,
    line: &Line,
    lists: &BTreeSet<&str>,
    findings: &mut Findings,
) {
    let condition = Condition::of(line).filter(|_| line.word(0) != "acl");
    let terms = condition.iter().flat_map(Condition::terms);
    let inline = terms.flat_map(|term| expressions(term, proxy));
    let own = (line.word(0) == "acl").then(|| line.from(2));
    let is_inline = |words: &&[_]| {
        words
            .first()
            .is_some_and(|word: &crate::lint::haproxy::lines::Word| word.place.line == line.number)
    };
    for words in inline.filter(is_inline).chain(own) {
        let Some(first) = words.first() else { continue };
        if let Some(count) = Count::read(words)
            && !count.backend.is_empty()
            && haproxy.model.backend(count.backend).is_none()
        {
            findings
                .add(first.place, format!("there is no backend `{}`", word_shown(count.backend)));
        }
        let list =
            first.known().and_then(|fetch| fetch.strip_prefix("http_auth(")?.strip_suffix(')'));
        if let Some(list) = list.filter(|list| !lists.contains(list) && !lists.contains("")) {
            let message = format!("there is no section `userlist {}`", word_shown(list));
            findings.add(first.place, message);
        }
    }
}

fn without_ca(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let file = &haproxy.model.file;
    let is_off = file.global("ssl-server-verify").is_some();
    if is_off || !file.has_all_sections() {
        return;
    }
    for proxy in &haproxy.model.proxies {
        let is_wrong = |server: &&Server<'_>| {
            let settings = &server.settings;
            let has_tls = settings.has("ssl") || settings.has("check-ssl");
            let verifies = settings
                .get("verify")
                .is_none_or(|it| it.value().is_some_and(|it| it.is("required")));
            has_tls && verifies && !settings.has("ca-file")
        };
        let wrong: Vec<_> = proxy.members().filter(is_wrong).collect();
        if let Some(first) = wrong.first() {
            let names = listed(wrong.iter().map(|server| server.name));
            let why = match first.settings.has("check-ssl") {
                true => "`check-ssl`",
                false => "`ssl`",
            };
            let message = format!(
                "{names} of {}: {why} and neither `ca-file` nor `verify none`",
                proxy.title()
            );
            findings.add(first.line, message);
        }
    }
}

fn external(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let model = &haproxy.model;
    let has = |word: &str| model.file.global(word).is_some();
    let (is_allowed, may_fork) = (has("external-check"), has("insecure-fork-wanted"));
    if is_allowed && may_fork || !model.file.has_all_sections() {
        return;
    }
    let asks = |proxy: &&Proxy<'_>| matches!(Check::of(proxy), Check::Script { .. });
    let asking: Vec<_> = model.proxies.iter().filter(asks).collect();
    if let Some(Check::Script { line, .. }) = asking.first().map(|proxy| Check::of(proxy)) {
        let titles: Vec<String> = asking.iter().map(|proxy| proxy.title()).collect();
        let titles = listed(titles.iter().map(String::as_str));
        let missing = if is_allowed { "insecure-fork-wanted" } else { "external-check" };
        let message = format!("{titles}: `option external-check`, and `global` has no `{missing}`");
        match is_allowed {
            // As root HAProxy can start programs without it.
            true => findings.add_as(Severity::Warning, line, message),
            false => findings.add(line, message),
        }
    }
}

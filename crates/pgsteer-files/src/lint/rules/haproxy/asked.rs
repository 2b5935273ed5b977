//! Checks that Patroni never answers with 200, and services whose role is not tested.

use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::checks::{Check, Expectation, Request, expectations, requests};
use crate::lint::haproxy::patroni::{self, Answer, STATUSES};
use crate::lint::haproxy::postgres::is_postgres_port;
use crate::lint::haproxy::proxy::Proxy;
use crate::lint::haproxy::roles::{Wanted, asks_patroni_no_role, is_at_patroni};
use crate::lint::haproxy::server::Server;
use crate::lint::listed;
use crate::lint::location::Severity;
use crate::lint::rule::{Findings, Look, rule};
use crate::lint::word_shown;

rule! {
    /// No server is ever UP.
    PATRONI_NEVER_ANSWERS = "patroni-never-answers", Error, Look::Haproxy(never),
    title: "the check expects an answer that Patroni never gives",
    costs: "Patroni answers its health checks with 200 or 503, and an unknown path always with 503: all servers are always DOWN, or the line never has an effect.",
    remedy: "Use one of Patroni's paths, as `/primary`, `/replica` or `/read-only`, and `http-check expect status 200`.",
}

rule! {
    /// After a failover the old primary is preferred.
    BACKUP_WITHOUT_ROLE = "backup-without-role", Error, Look::Haproxy(backup),
    title: "`backup` decides which member serves clients, and no check tests its role",
    costs: "The first server gets all clients as soon as it listens. After a failover the old primary returns as a replica, or as a second primary, and clients reach it again.",
    remedy: "Use a check that tests the role, and no `backup`: `option httpchk OPTIONS /primary` and `check port 8008`; without Patroni a check by SQL.",
}

rule! {
    /// Clients reach any member.
    ROLE_NOT_ASKED = "role-not-asked", Warning, Look::Haproxy(not_asked),
    title: "clients reach several members of PostgreSQL, and no check tests their role",
    costs: "If one of them is the primary and the others are replicas, writes fail on every connection that reaches a replica.",
    remedy: "Use a check that tests the role, as `option httpchk OPTIONS /replica` with `check port 8008`. If all members accept writes, allow the finding by a comment.",
}

fn never(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in haproxy.model.postgres().filter(|proxy| is_at_patroni(proxy)) {
        let requests = requests(proxy);
        let is_unknown = |it: &&Request<'_>| {
            let is_of_pgsteer =
                it.path.starts_with("/members/") || it.path.starts_with("/services/");
            !it.path.is_empty()
                && !is_of_pgsteer
                && patroni::answer(&it.method, &it.path) == Answer::Unknown
        };
        // A path that matches by accident has its own finding.
        if let Some(request) = requests.iter().find(is_unknown) {
            let what = format!("{} {}", word_shown(&request.method), word_shown(&request.path));
            let message = format!("{}: Patroni never answers `{what}` with 200", proxy.title());
            findings.add(request.line, message);
            continue;
        }
        for expected in expectations(proxy) {
            if let Some(why) = impossible(&expected, &requests) {
                findings.add(expected.line, format!("{}: {why}", proxy.title()));
            } else if expects_master(&expected) {
                let message = format!(
                    "{}: Patroni 4.0 and later report the role `primary`, not `master`",
                    proxy.title()
                );
                findings.add_as(Severity::Warning, expected.line, message);
            }
        }
        let on_404 =
            proxy.nearest("http-check").into_iter().find(|it| it.word(1) == "disable-on-404");
        if let Some(line) = on_404.filter(|_| matches!(Check::of(proxy), Check::Http { .. })) {
            let message = format!("{}: Patroni never answers with 404", proxy.title());
            findings.add_as(Severity::Note, line, message);
        }
    }
}

/// Returns the reason why Patroni never fulfils the expectation.
fn impossible(expected: &Expectation<'_>, requests: &[Request<'_>]) -> Option<String> {
    if let Some(statuses) = expected.statuses() {
        let is_possible = STATUSES.iter().any(|status| statuses.contains(status));
        return (!is_possible)
            .then(|| format!("Patroni never answers with `{}`", word_shown(expected.pattern)));
    }
    let is_text = ["string", "rstring", "string-lf"].contains(&expected.kind);
    let is_http = expected.line.word(0) == "http-check";
    let without_body = |it: &Request<'_>| ["OPTIONS", "HEAD"].contains(&it.method.as_str());
    let has_no_body = !requests.is_empty() && requests.iter().all(without_body);
    let is_status_line = || {
        let pattern = expected.pattern.trim_start_matches('^');
        pattern.starts_with("HTTP/") || ["OK", "200 OK"].contains(&pattern)
    };
    if !is_text || !is_http || expected.is_negated {
        None
    } else if has_no_body {
        Some("Patroni sends a body in its answer to GET only".to_owned())
    } else if is_status_line() {
        let pattern = word_shown(expected.pattern);
        Some(format!("`{pattern}` is not in the body, and `{}` reads nothing else", expected.kind))
    } else {
        None
    }
}

/// Returns true if it looks for the name that the role had before Patroni 4.0.
fn expects_master(expected: &Expectation<'_>) -> bool {
    let is_text = ["string", "rstring", "string-lf"].contains(&expected.kind);
    let has = |word: &str| expected.pattern.contains(word);
    is_text && !expected.is_negated && has("role") && has("master") && !has("primary")
}

/// Returns the servers of PostgreSQL itself whose check tests no role, if nothing else in the proxy
/// does.
fn unasked<'m, 'a>(proxy: &'m Proxy<'a>) -> Vec<&'m Server<'a>> {
    let is_bare =
        matches!(Check::of(proxy), Check::Connect | Check::Pgsql) || asks_patroni_no_role(proxy);
    let is_any = |server: &Server<'_>| server.is_chosen_by_name() || server.has_agent();
    if !is_bare || Wanted::of(proxy).is_some() || proxy.servers.iter().any(is_any) {
        return Vec::new();
    }
    let is_pgsql = matches!(Check::of(proxy), Check::Pgsql);
    let at_postgres = |server: &&Server<'_>| {
        let is_itself = server.port().is_some_and(is_postgres_port) || is_pgsql;
        let is_plain = server.is_checked_where_it_serves() || asks_patroni_no_role(proxy);
        server.is_checked() && is_itself && is_plain && !server.settings.has("healthcheck")
    };
    let servers: Vec<_> = proxy.members().filter(at_postgres).collect();
    if servers.len() >= 2 { servers } else { Vec::new() }
}

fn backup(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in haproxy.model.postgres() {
        let servers = unasked(proxy);
        let Some(backup) = servers.iter().find(|server| server.is_backup()) else { continue };
        let Some(first) = servers.iter().find(|server| !server.is_backup()) else { continue };
        let message = format!(
            "{} uses {} and not {} whenever it listens",
            proxy.title(),
            first.name,
            backup.name
        );
        findings.add(backup.line, message);
    }
}

fn not_asked(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in haproxy.model.postgres() {
        let servers = unasked(proxy);
        let Some(first) = servers.first() else { continue };
        if !servers.iter().any(|server| server.is_backup()) {
            let names = listed(servers.iter().map(|server| server.name));
            let message =
                format!("{} routes clients to {names}, regardless of their roles", proxy.title());
            findings.add(first.line, message);
        }
    }
}

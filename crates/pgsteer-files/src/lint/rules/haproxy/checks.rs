//! Health checks that test the wrong condition, or none.

use std::collections::BTreeSet;

use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::checks::{Check, METHODS, checked_ports, expectations, requests};
use crate::lint::haproxy::lines::Line;
use crate::lint::haproxy::patroni::is_patroni_port;
use crate::lint::haproxy::postgres::{is_pooler_port, is_postgres_port};
use crate::lint::haproxy::proxy::Proxy;
use crate::lint::haproxy::role::{Role, role_of_name};
use crate::lint::haproxy::roles::{Source, Wanted, asks_patroni_no_role, is_at_patroni};
use crate::lint::haproxy::server::Server;
use crate::lint::listed;
use crate::lint::location::Severity;
use crate::lint::rule::{Findings, Look, rule};

rule! {
    /// `OPTIONS/replica`.
    HTTPCHK_METHOD_GLUED = "httpchk-method-glued", Warning, Look::Haproxy(glued),
    title: "`option httpchk` lacks the space between the method and the path",
    costs: "HAProxy sends the word as a path without a slash. Patroni matches parts of the path and may answer correctly by accident; other programs refuse it, and all servers are DOWN.",
    remedy: "Insert a space, as in `option httpchk OPTIONS /replica`.",
}

rule! {
    /// The check sends HTTP to PostgreSQL.
    HTTPCHK_ASKS_POSTGRES = "httpchk-asks-postgres", Error, Look::Haproxy(asks_postgres),
    title: "an HTTP check goes to PostgreSQL's own port",
    costs: "PostgreSQL does not support HTTP: no server is ever UP, and PostgreSQL's log fills with invalid packets.",
    remedy: "Write `check port 8008`, Patroni's port, on the server lines.",
}

rule! {
    /// Patroni's port is open on every member.
    PATRONI_PORT_WITHOUT_HTTPCHK = "patroni-port-without-httpchk", Error, Look::Haproxy(bare_patroni),
    title: "the check connects to Patroni and sends no request",
    costs: "Patroni listens on every member, regardless of its role: all of them are UP, and writers reach replicas.",
    remedy: "Add `option httpchk OPTIONS /primary` (or `/replica`) and `http-check expect status 200`.",
}

rule! {
    /// The check tests only the pooler.
    CHECK_ON_POOLER_ONLY = "check-on-pooler-only", Error, Look::Haproxy(pooler_only),
    title: "the only check connects to the pooler",
    costs: "PgBouncer listens on every member, also while its PostgreSQL is down or a replica.",
    remedy: "Check Patroni, and the pooler with `http-check connect port 6432` after the request; or let pgsteer answer the check, which connects through the pooler.",
}

rule! {
    /// Patroni's answer does not include the pooler.
    POOLER_UNCHECKED = "pooler-unchecked", Warning, Look::Haproxy(pooler_unchecked),
    title: "the check asks Patroni only, and clients connect to the pooler",
    costs: "While PgBouncer is down, the server stays UP as long as Patroni answers, and clients connect to a closed port.",
    remedy: "Add `http-check connect port 6432` after the request to Patroni, so that the check tests both; or use an agent that connects through the pooler.",
}

rule! {
    /// An open port shows no role.
    CHECK_TELLS_NO_ROLE = "check-tells-no-role", Error, Look::Haproxy(no_role),
    title: "the check does not distinguish a primary from a replica",
    costs: "Members of every role are UP, and clients reach the wrong ones.",
    remedy: "Use `option httpchk` with Patroni; without Patroni `pgsteer render haproxy --profile sql` writes a check by SQL.",
}

rule! {
    /// The name and the check have different roles.
    CHECK_OF_THE_OTHER_ROLE = "check-of-the-other-role", Warning, Look::Haproxy(other_role),
    title: "the check tests another role than the one in the name of the proxy",
    costs: "Readers load the primary, or writers get read-only errors.",
    remedy: "Test the intended role, or rename the proxy.",
}

rule! {
    /// A server is never DOWN.
    CHECK_MISSING = "check-missing", Error, Look::Haproxy(missing),
    title: "a server among others is not checked",
    costs: "It is always UP: clients reach it even if it is down or has the wrong role.",
    remedy: "Add `check` to its server line.",
}

rule! {
    /// The rules of a check that is not enabled.
    CHECK_RULES_UNUSED = "check-rules-unused", Warning, Look::Haproxy(unused_rules),
    title: "rules for a kind of check that is not enabled",
    costs: "HAProxy ignores them, and the check tests less than intended.",
    remedy: "Add `option httpchk` for `http-check`, `option tcp-check` for `tcp-check`.",
}

rule! {
    /// `default-server` applies from its line on.
    DEFAULT_SERVER_TOO_LATE = "default-server-too-late", Warning, Look::Haproxy(too_late),
    title: "`default-server` is below the servers",
    costs: "It applies to the servers below it, and there are none: no setting of it has an effect.",
    remedy: "Move it above the first `server`.",
}

fn glued(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in &haproxy.model.proxies {
        let Check::Http { line } = Check::of(proxy) else { continue };
        let word = line.word(2);
        if let Some((method, path)) = word.split_once('/')
            && METHODS.contains(&method)
        {
            // A query string may contain a token.
            let path = path.split('?').next().unwrap_or_default();
            findings
                .add(line.place_of(2), format!("write `{method} /{path}`, not `{method}/{path}`"));
        }
    }
}

fn asks_postgres(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in haproxy.model.postgres() {
        let is_led_away = |line: &&Line| {
            line.word(1) == "connect" && (line.words.iter().any(|w| w.is("port") || w.is("addr")))
        };
        let is_http = matches!(Check::of(proxy), Check::Http { .. });
        if !is_http || proxy.is_piece || proxy.nearest("http-check").iter().any(is_led_away) {
            continue;
        }
        let asks = |server: &&Server<'_>| {
            let is_database = |port| is_postgres_port(port) || is_pooler_port(port);
            server.is_checked()
                && server.is_checked_where_it_serves()
                && server.check_port().is_some_and(is_database)
        };
        let asked: Vec<_> = proxy.members().filter(asks).collect();
        if let Some(first) = asked.first() {
            let names = listed(asked.iter().map(|server| server.name));
            let port = first.check_port().unwrap_or_default();
            let message = format!("the HTTP check of {names} goes to port {port}");
            findings.add(first.line, message);
        }
    }
}

/// Returns true for a check that opens a connection and tests no role.
fn is_bare(proxy: &Proxy<'_>) -> bool {
    matches!(Check::of(proxy), Check::Connect | Check::Pgsql)
}

/// Returns the servers with their own check and no agent.
fn checked_alone<'m, 'a>(proxy: &'m Proxy<'a>) -> impl Iterator<Item = &'m Server<'a>> {
    let has_own = |server: &&Server<'_>| {
        server.is_checked() && !server.has_agent() && !server.settings.has("healthcheck")
    };
    proxy.members().filter(has_own)
}

fn bare_patroni(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in haproxy.model.postgres().filter(|proxy| is_bare(proxy)) {
        if let Some(server) = checked_alone(proxy).find(|server| server.is_checked_at_patroni()) {
            let port = server.check_port().unwrap_or_default();
            let message = format!("the check of {} only connects to port {port}", proxy.title());
            findings.add(server.line, message);
        }
    }
}

fn pooler_only(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in haproxy.model.postgres().filter(|proxy| is_bare(proxy)) {
        let at_pooler = |server: &&Server<'_>| {
            server.is_checked()
                && server.is_checked_where_it_serves()
                && server.check_port().is_some_and(is_pooler_port)
        };
        // Two poolers in front of one database have no role to test.
        if let (Some(server), Some(_)) = (proxy.members().find(at_pooler), Wanted::of(proxy)) {
            let port = server.check_port().unwrap_or_default();
            let message =
                format!("the check of {} connects to the pooler's port {port}", proxy.title());
            findings.add(server.line, message);
        }
    }
}

fn pooler_unchecked(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    // One finding for all services, because their checks are usually the same.
    let mut first: Option<&Line> = None;
    let (mut names, mut titles) = (BTreeSet::new(), Vec::new());
    for proxy in haproxy.model.postgres().filter(|proxy| !proxy.is_piece) {
        if requests(proxy).is_empty() {
            continue;
        }
        let sees_more = ["addr", "observe", "agent-check", "healthcheck", "track"];
        let is_unseen = |server: &&Server<'_>| {
            let ports = checked_ports(proxy, server);
            server.is_checked()
                && ports.iter().any(|port| is_patroni_port(*port))
                && server.port().is_some_and(|port| is_pooler_port(port) && !ports.contains(&port))
                && !sees_more.iter().any(|word| server.settings.has(word))
        };
        let unseen: Vec<_> = proxy.members().filter(is_unseen).collect();
        let Some(server) = unseen.first() else { continue };
        first = first.or(Some(server.line));
        names.extend(unseen.iter().map(|server| server.name));
        titles.push(proxy.title());
    }
    if let Some(line) = first {
        let (names, titles) = (listed(names), listed(titles.iter().map(String::as_str)));
        let message = format!("no check tests the pooler of {names}, in {titles}");
        findings.add(line, message);
    }
}

fn no_role(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let several = |proxy: &&Proxy<'_>| {
        (is_bare(proxy) || asks_patroni_no_role(proxy))
            && proxy.count(true) >= 2
            && !proxy.servers.iter().any(Server::is_chosen_by_name)
    };
    for proxy in haproxy.model.postgres().filter(several) {
        let at_postgres = |server: &&Server<'_>| {
            let is_itself = server.is_checked_where_it_serves()
                && server.check_port().is_some_and(is_postgres_port);
            is_itself || asks_patroni_no_role(proxy)
        };
        let Some(server) = checked_alone(proxy).find(at_postgres) else { continue };
        let Some(wanted) = Wanted::of(proxy) else { continue };
        let role = wanted.role.plural();
        let message = format!("{} is for {role}, and every running member is UP", proxy.title());
        findings.add(server.line, message);
    }
    for proxy in haproxy.model.postgres().filter(|proxy| is_at_patroni(proxy)) {
        up_with_503(proxy, findings);
    }
}

/// Reports checks that accept 503, which Patroni answers in every state but the right one.
fn up_with_503(proxy: &Proxy<'_>, findings: &mut Findings) {
    for expected in expectations(proxy) {
        let statuses = expected.statuses().unwrap_or_default();
        let title = proxy.title();
        match (statuses.contains(&200), statuses.contains(&503)) {
            (_, false) => {}
            (true, true) => {
                let message =
                    format!("{title} accepts 200 and 503, which are all of Patroni's answers");
                findings.add(expected.line, message);
            }
            (false, true) => {
                let message = format!(
                    "{title} accepts 503, which Patroni also answers while PostgreSQL is down or starts"
                );
                findings.add_as(Severity::Warning, expected.line, message);
            }
        }
    }
}

fn other_role(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in haproxy.model.postgres() {
        let Some(named) = role_of_name(proxy.name) else { continue };
        let wanted = Wanted::of(proxy).filter(|wanted| wanted.source != Source::Name);
        // The leader of a standby cluster is both: a primary for its replicas, and a standby.
        let wanted = wanted.map(|wanted| wanted.role).filter(|role| *role != Role::StandbyLeader);
        if let Some(role) = wanted.filter(|role| *role != named) {
            let message = format!("the check of {} tests for {}", proxy.title(), role.plural());
            findings.add(proxy.head, message);
        }
    }
}

fn missing(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let is_whole = |proxy: &&Proxy<'_>| !proxy.is_piece && proxy.count(true) >= 2;
    for proxy in haproxy.model.postgres().filter(is_whole) {
        let is_seen = |server: &Server<'_>| {
            server.is_checked() || server.has_agent() || server.settings.has("track")
        };
        let unseen: Vec<_> = proxy.members().filter(|server| !is_seen(server)).collect();
        if let Some(first) = unseen.first() {
            let names = listed(unseen.iter().map(|server| server.name));
            findings.add(first.line, format!("{names} of {} have no check", proxy.title()));
        }
    }
}

fn unused_rules(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in haproxy.model.proxies.iter().filter(|proxy| !proxy.is_piece) {
        for (rules, option) in [("http-check", "httpchk"), ("tcp-check", "tcp-check")] {
            let line = proxy.lines_of(rules).next();
            if let Some(line) = line.filter(|_| proxy.option(option).is_none()) {
                let message = format!("{} has `{rules}` and no `option {option}`", proxy.title());
                findings.add(line, message);
            }
        }
    }
}

fn too_late(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in &haproxy.model.proxies {
        let last = proxy.servers.last().map_or(0, |server| server.line.number);
        let late = proxy.late_defaults.iter().filter(|line| !line.is_conditional);
        for line in late.filter(|line| line.number > last) {
            findings.add(*line, format!("no server of {} stands below it", proxy.title()));
        }
    }
}

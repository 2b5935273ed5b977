//! Health checks that test the wrong condition, or none.

use std::collections::BTreeSet;

use crate::lint::finding::Findings;
use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::checks::{Check, METHODS, checked_ports, requests};
use crate::lint::haproxy::lines::Line;
use crate::lint::haproxy::patroni::is_patroni_port;
use crate::lint::haproxy::proxy::{Proxy, is_pooler_port, is_postgres_port};
use crate::lint::haproxy::roles::{Role, Source, Wanted, asks_patroni_no_role, role_of_name};
use crate::lint::haproxy::server::Server;
use crate::lint::listed;
use crate::lint::rule::{Look, rule};

rule! {
    /// `OPTIONS/replica`.
    HTTPCHK_METHOD_GLUED = "httpchk-method-glued", Warning, Look::Haproxy(glued),
    title: "`option httpchk` lacks the space between the method and the path",
    costs: "HAProxy sends the word as a path that begins with no slash. Patroni finds what it knows in it and answers by luck; anything else refuses it, and all servers are DOWN.",
    remedy: "A space, as in `option httpchk OPTIONS /replica`.",
}

rule! {
    /// The check sends HTTP to PostgreSQL.
    HTTPCHK_ASKS_POSTGRES = "httpchk-asks-postgres", Error, Look::Haproxy(asks_postgres),
    title: "an HTTP check goes to PostgreSQL's own port",
    costs: "PostgreSQL does not speak HTTP: no server is ever UP, and the log of PostgreSQL fills with invalid packets.",
    remedy: "`check port 8008`, Patroni's port, on the server lines.",
}

rule! {
    /// Patroni's port is open on every member.
    PATRONI_PORT_WITHOUT_HTTPCHK = "patroni-port-without-httpchk", Error, Look::Haproxy(bare_patroni),
    title: "the check connects to Patroni and asks it nothing",
    costs: "Patroni listens on every member, whatever its role: all of them are UP, and writers reach replicas.",
    remedy: "`option httpchk OPTIONS /primary` (or `/replica`) and `http-check expect status 200`.",
}

rule! {
    /// The check tests only the pooler.
    CHECK_ON_POOLER_ONLY = "check-on-pooler-only", Error, Look::Haproxy(pooler_only),
    title: "the only check connects to the pooler",
    costs: "PgBouncer listens on every member, also while the PostgreSQL behind it is down or a replica.",
    remedy: "Let the check ask Patroni and look at the pooler, with `http-check connect port 6432` behind the question, or let pgsteer answer, which looks through the pooler.",
}

rule! {
    /// Patroni's answer does not include the pooler.
    POOLER_UNCHECKED = "pooler-unchecked", Warning, Look::Haproxy(pooler_unchecked),
    title: "the check asks Patroni alone, and clients are led to the pooler",
    costs: "Where PgBouncer is down, the server stays UP as long as Patroni answers, and clients are led to a closed port.",
    remedy: "`http-check connect port 6432` behind the question to Patroni, so that the check looks at both; or an agent that looks through the pooler.",
}

rule! {
    /// An open port shows no role.
    CHECK_TELLS_NO_ROLE = "check-tells-no-role", Error, Look::Haproxy(no_role),
    title: "the check cannot tell a primary from a replica",
    costs: "Every member that listens is UP, whatever its role, and clients get to the wrong ones.",
    remedy: "`option httpchk` to Patroni; without Patroni `pgsteer render haproxy --profile sql` has a check by SQL.",
}

rule! {
    /// The name and the check have different roles.
    CHECK_OF_THE_OTHER_ROLE = "check-of-the-other-role", Warning, Look::Haproxy(other_role),
    title: "the check asks for another role than the name of the proxy says",
    costs: "Readers load the primary, or writers get read-only errors.",
    remedy: "The check of the role that is meant, or a name that says what it is.",
}

rule! {
    /// A server is never DOWN.
    CHECK_MISSING = "check-missing", Error, Look::Haproxy(missing),
    title: "a server among others is not checked",
    costs: "It is UP for ever: clients are led to it when it is dead, and whatever its role is.",
    remedy: "`check` on its server line.",
}

rule! {
    /// The rules of a check that is not enabled.
    CHECK_RULES_UNUSED = "check-rules-unused", Warning, Look::Haproxy(unused_rules),
    title: "rules for a kind of check that is not switched on",
    costs: "HAProxy ignores them, and the check asks less than it seems to.",
    remedy: "`option httpchk` for `http-check`, `option tcp-check` for `tcp-check`.",
}

rule! {
    /// `default-server` applies from its line on.
    DEFAULT_SERVER_TOO_LATE = "default-server-too-late", Warning, Look::Haproxy(too_late),
    title: "`default-server` stands below the servers",
    costs: "It is for the servers below it, and there is none: none of its settings is in force.",
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
            findings.add(
                line.place_of(2),
                format!("`{method}/{path}` is meant to be `{method} /{path}`"),
            );
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
            let message =
                format!("the check of {} connects to port {port}, and no more", proxy.title());
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
        let message = format!("nothing asks whether the pooler of {names} is there, in {titles}");
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
        let message = format!("{} is for {role}, and every member that runs is UP", proxy.title());
        findings.add(server.line, message);
    }
}

fn other_role(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in haproxy.model.postgres() {
        let Some(named) = role_of_name(proxy.name) else { continue };
        let wanted = Wanted::of(proxy).filter(|wanted| wanted.source != Source::Name);
        // The leader of a standby cluster is both: a primary for its replicas, and a standby.
        let wanted = wanted.map(|wanted| wanted.role).filter(|role| *role != Role::StandbyLeader);
        if let Some(role) = wanted.filter(|role| *role != named) {
            let message = format!("the check of {} asks for {}", proxy.title(), role.plural());
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
            findings.add(first.line, format!("{names} of {}: no check", proxy.title()));
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

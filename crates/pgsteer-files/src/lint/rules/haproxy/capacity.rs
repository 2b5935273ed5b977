//! The number of connections that HAProxy forwards, and how fast it accepts them.

use std::collections::BTreeMap;

use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::lines::Line;
use crate::lint::haproxy::postgres::is_pooler_port;
use crate::lint::haproxy::proxy::Proxy;
use crate::lint::haproxy::roles::Wanted;
use crate::lint::haproxy::sections::Kind;
use crate::lint::haproxy::server::Server;
use crate::lint::haproxy::values::{Given, number, time_text};
use crate::lint::listed;
use crate::lint::location::Severity;
use crate::lint::rule::{Findings, Look, rule};

rule! {
    /// More than `max_connections`.
    MAXCONN_BEYOND_MAX_CONNECTIONS = "maxconn-beyond-max-connections", Warning, Look::Haproxy(beyond),
    title: "HAProxy opens more connections to a member than its PostgreSQL allows",
    costs: "Clients get `FATAL: sorry, too many clients already`, where HAProxy could have queued them. A check by SQL is refused too, and the member is DOWN.",
    remedy: "Set `maxconn` so that the sum over all server lines of a member is less than its `max_connections`, or raise `max_connections`.",
}

rule! {
    /// The new primary gets its clients late.
    SLOWSTART_THROTTLES_MAXCONN = "slowstart-throttles-maxconn", Warning, Look::Haproxy(slowstart),
    title: "`slowstart` limits the connections of a new primary at first",
    costs: "`slowstart` raises `maxconn` from almost 0: after a failover the new primary accepts a few clients only, and the others wait or exceed `timeout queue`.",
    remedy: "Remove `slowstart` for the primary. It is made for web servers with cold caches.",
}

rule! {
    /// The process reaches its limit before its servers do.
    MAXCONN_BELOW_SERVERS = "maxconn-below-servers", Warning, Look::Haproxy(below),
    title: "HAProxy accepts fewer clients than its servers may have",
    costs: "The limit of the process or of the proxy is reached first. Further clients wait in the kernel without an answer, and so do health checks and statistics at the same HAProxy.",
    remedy: "Set `maxconn` in `global`, and in `defaults` or the proxy, above the sum over the server lines.",
}

fn slowstart(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in haproxy.model.postgres().filter(|proxy| Wanted::is_primary(proxy)) {
        let is_slow = |server: &&Server<'_>| {
            let settings = &server.settings;
            let is_set = |given: Given<u64>| given.known().is_some_and(|it| it > 0);
            is_set(settings.time("slowstart")) && is_set(settings.number("maxconn"))
        };
        let slow: Vec<_> = proxy.members().filter(is_slow).collect();
        if let Some(first) = slow.first() {
            let names = listed(slow.iter().map(|server| server.name));
            let ms = first.settings.time("slowstart").known().unwrap_or_default();
            let message = format!(
                "{names} of {} have all of their connections {} after they are UP",
                proxy.title(),
                time_text(ms)
            );
            findings.add(first.line, message);
        }
    }
}

/// Returns the `maxconn` of the servers of a proxy, without servers that have none.
fn maxconns(proxy: &Proxy<'_>) -> Vec<u64> {
    let maxconns = proxy.members().filter_map(|server| server.settings.number("maxconn").known());
    maxconns.filter(|maxconn| *maxconn > 0).collect()
}

fn below(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let model = &haproxy.model;
    let limit = |line: Option<&'_ Line>| {
        line.and_then(|line| Given::read(line.words.get(1), number).known())
    };
    let global = model.file.global("maxconn");
    let mut sum = 0_u64;
    let mut largest: Option<(u64, &Proxy<'_>)> = None;
    for proxy in model.postgres() {
        let maxconns = maxconns(proxy);
        let Some(most) = maxconns.iter().copied().max() else { continue };
        // Only one member at a time is the primary; replicas share their clients.
        let all = if Wanted::is_primary(proxy) { most } else { maxconns.iter().sum() };
        sum = sum.saturating_add(all);
        largest = largest.filter(|(other, _)| *other >= most).or(Some((most, proxy)));
        // The limit of a backend is that of its frontends.
        let line = (proxy.kind == Kind::Listen).then(|| proxy.last(&["maxconn"])).flatten();
        if let (Some(line), Some(limit)) = (line, limit(line).filter(|it| (1..most).contains(it))) {
            let title = proxy.title();
            let message = format!("{title} takes {limit} clients, and one of its servers {most}");
            findings.add(line, message);
        }
    }
    let (Some(line), Some(limit), Some((most, proxy))) = (global, limit(global), largest) else {
        return;
    };
    if limit < most {
        let title = proxy.title();
        findings.add(line, format!("{limit} in all, and one server of {title} takes {most}"));
    } else if limit < sum {
        let message = format!("{limit} in all, and all servers together take {sum}");
        findings.add_as(Severity::Note, line, message);
    }
}

/// The sum of the limits for one member.
#[derive(Default)]
struct Sum<'a> {
    total: u64,
    parts: Vec<String>,
    last: Option<&'a Line>,
}

/// Ignores server lines without a `maxconn`, and poolers, which queue clients themselves.
fn beyond(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let Some(max_connections) = haproxy.options.max_connections else { return };
    let mut sums: BTreeMap<(String, u16), Sum<'_>> = BTreeMap::new();
    for proxy in haproxy.model.postgres() {
        for server in proxy.members() {
            let Some(address) = &server.address else { continue };
            let Some(port) = address.port.filter(|port| !is_pooler_port(*port)) else { continue };
            let Given::Is(maxconn) = server.settings.number("maxconn") else { continue };
            if maxconn > 0 {
                let sum = sums.entry((address.host.clone(), port)).or_default();
                sum.total = sum.total.saturating_add(maxconn);
                sum.parts.push(format!("{maxconn} of {}", proxy.title()));
                sum.last = Some(server.line);
            }
        }
    }
    for ((host, port), sum) in sums.into_iter().filter(|(_, sum)| sum.total > max_connections) {
        let Some(line) = sum.last else { continue };
        let parts = listed(sum.parts.iter().map(String::as_str));
        findings.add(
            line,
            format!(
                "{} for {host}:{port} ({parts}), and it has {max_connections}, some of them for superusers",
                sum.total
            ),
        );
    }
}

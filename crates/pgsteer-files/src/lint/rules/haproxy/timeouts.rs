//! Timeouts of sessions, and the detection of dead peers.

use std::collections::BTreeMap;

use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::lines::Line;
use crate::lint::haproxy::model::Model;
use crate::lint::haproxy::proxy::Proxy;
use crate::lint::haproxy::sections::Kind;
use crate::lint::haproxy::values::{Given, time_text};
use crate::lint::listed;
use crate::lint::rule::{Findings, Look, rule};

/// Connection pools keep idle connections for half an hour and longer.
const IDLE_MS_MIN: u64 = 7_200_000;
/// Sessions with timeouts of this length need a keepalive.
const LONG_MS: u64 = 3_600_000;

rule! {
    /// Idle sessions are closed.
    TIMEOUT_CUTS_IDLE_SESSIONS = "timeout-cuts-idle-sessions", Warning, Look::Haproxy(cuts_idle),
    title: "a timeout closes sessions that are only idle",
    costs: "HAProxy closes idle connections of a pool, and the next query on one of them fails. A query that runs longer than the timeout without a row fails too.",
    remedy: "Set `timeout client` and `timeout server` to HAProxy's maximum (`24d`), and let TCP keepalives detect lost peers.",
}

rule! {
    /// A silent member delays clients.
    CONNECT_TIMEOUT_MISSING = "connect-timeout-missing", Warning, Look::Haproxy(no_connect_timeout),
    title: "no `timeout connect`",
    costs: "A client that is routed to a silent member waits as long as the kernel retries, two minutes by default.",
    remedy: "Add `timeout connect 2s` to `defaults`.",
}

rule! {
    /// A dead peer is never detected.
    NO_KEEPALIVE = "no-keepalive", Warning, Look::Haproxy(no_keepalive),
    title: "long sessions without a keepalive",
    costs: "A client that disappears without a FIN keeps its session, and its connection to PostgreSQL, until the timeout.",
    remedy: "Add `option clitcpka` and `option srvtcpka` (or `option tcpka`) to `defaults`.",
}

/// Returns true if `timeout tunnel` replaces the other timeouts once a session is established.
fn has_tunnel<'a>(model: &Model<'a>, proxy: &Proxy<'a>) -> bool {
    let is_set = |proxy: &Proxy<'_>| proxy.timeout("tunnel").0 != Given::Absent;
    is_set(proxy) || model.led_to(proxy).into_iter().any(is_set)
}

fn cuts_idle(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let model = &haproxy.model;
    // One line of `defaults` is one finding, however many proxies inherit it.
    let mut short: BTreeMap<usize, (&Line, u64, Vec<String>)> = BTreeMap::new();
    for proxy in model.proxies.iter().filter(|proxy| model.is_way_to_postgres(proxy)) {
        let names: &[&str] = match (proxy.kind, has_tunnel(model, proxy)) {
            (_, true) => &["tunnel"],
            (Kind::Frontend, false) => &["client"],
            (Kind::Backend, false) => &["server"],
            _ => &["client", "server"],
        };
        for name in names {
            if let (Given::Is(ms), Some(line)) = proxy.timeout(name)
                && (1..IDLE_MS_MIN).contains(&ms)
            {
                let entry = short.entry(line.number).or_insert_with(|| (line, ms, Vec::new()));
                entry.2.push(proxy.title());
            }
        }
    }
    // `timeout client` and `timeout server` of the same proxies are one finding.
    let mut by_proxies: BTreeMap<Vec<String>, Vec<(&Line, u64)>> = BTreeMap::new();
    for (line, ms, proxies) in short.into_values() {
        by_proxies.entry(proxies).or_default().push((line, ms));
    }
    for (proxies, lines) in by_proxies {
        let Some((first, rest)) = lines.split_first() else { continue };
        let proxies = listed(proxies.iter().map(String::as_str));
        let mut message =
            format!("HAProxy closes sessions of {proxies} after {} of silence", time_text(first.1));
        for (line, ms) in rest {
            let shown = model.file.line_shown(line.number);
            message.push_str(&format!(", and by {shown} after {}", time_text(*ms)));
        }
        findings.add(first.0, message);
    }
}

/// Adds one finding for all proxies that inherit from the same `defaults`, at the first of them.
fn add_for_each_parent(
    wrong: Vec<(&Proxy<'_>, String)>,
    message: impl Fn(&str, &str) -> String,
    findings: &mut Findings,
) {
    let mut groups: BTreeMap<(usize, String), Vec<&Proxy<'_>>> = BTreeMap::new();
    for (proxy, what) in wrong {
        groups.entry((proxy.parent().unwrap_or(0), what)).or_default().push(proxy);
    }
    for ((_, what), proxies) in groups {
        let titles: Vec<String> = proxies.iter().map(|proxy| proxy.title()).collect();
        let titles = listed(titles.iter().map(String::as_str));
        if let Some(first) = proxies.first() {
            findings.add(first.head, message(&titles, &what));
        }
    }
}

fn no_connect_timeout(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let is_without =
        |proxy: &&Proxy<'_>| !proxy.is_piece && proxy.timeout("connect").0 == Given::Absent;
    let without = haproxy.model.postgres().filter(is_without);
    let without = without.map(|proxy| (proxy, String::new())).collect();
    add_for_each_parent(without, |titles, _| format!("{titles}: none"), findings);
}

fn no_keepalive(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let model = &haproxy.model;
    let mut wrong = Vec::new();
    for proxy in model.proxies.iter().filter(|proxy| model.is_way_to_postgres(proxy)) {
        if proxy.is_piece {
            continue;
        }
        let sides: &[(&str, &str)] = match proxy.kind {
            Kind::Frontend => &[("client", "clitcpka")],
            Kind::Backend => &[("server", "srvtcpka")],
            _ => &[("client", "clitcpka"), ("server", "srvtcpka")],
        };
        let missing = sides.iter().filter(|(side, option)| {
            let is_long = match proxy.timeout(side).0 {
                Given::Absent => true,
                Given::Unknown => false,
                Given::Is(ms) => ms == 0 || ms >= LONG_MS,
            };
            is_long && proxy.option(option).is_none() && proxy.option("tcpka").is_none()
        });
        let missing: Vec<String> =
            missing.map(|(_, option)| format!("`option {option}`")).collect();
        if !missing.is_empty() {
            let missing = listed(missing.iter().map(String::as_str));
            wrong.push((proxy, missing));
        }
    }
    add_for_each_parent(wrong, |titles, missing| format!("{titles}: no {missing}"), findings);
}

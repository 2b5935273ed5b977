//! Two members that accept writes at the same time.

use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::condition::{Condition, Count, expressions};
use crate::lint::haproxy::detection::{slowest, tracked};
use crate::lint::haproxy::lines::{Line, Word};
use crate::lint::haproxy::model::Model;
use crate::lint::haproxy::proxy::Proxy;
use crate::lint::haproxy::role::Role;
use crate::lint::haproxy::roles::{Source, Wanted, has_several_primaries};
use crate::lint::haproxy::server::Server;
use crate::lint::haproxy::values::time_text;
use crate::lint::listed;
use crate::lint::location::Severity;
use crate::lint::rule::{Findings, Look, rule};

rule! {
    /// Writers alternate between two primaries.
    NO_GUARD = "no-guard-against-two-primaries", Error, Look::Haproxy(no_guard),
    title: "nothing refuses writers while two members report that they are the primary",
    costs: "In a split brain HAProxy uses both as the primary, and the writes to one of them are lost.",
    remedy: "Add `tcp-request content reject unless { nbsrv(BACKEND) eq 1 }` to the proxy that accepts the writers.",
}

rule! {
    /// A guard by a count does not include a backup.
    GUARD_BLIND_TO_BACKUP = "guard-blind-to-backup", Error, Look::Haproxy(blind),
    title: "a guard counts servers with nbsrv, which ignores `backup` servers",
    costs: "nbsrv counts the active servers only, as long as one of them is UP. Two primaries, one of them a backup, count as one, and the guard admits writers.",
    remedy: "Remove `backup`: a health check that tests for the primary decides already.",
}

fn no_guard(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let model = &haproxy.model;
    for proxy in model.postgres().filter(|proxy| proxy.count(false) >= 2) {
        // A server that tracks another one has the check of that one.
        let tracked = proxy.members().next().and_then(|server| tracked(model, proxy, server));
        let checked = tracked.map_or(proxy, |(proxy, _)| proxy);
        let Some(wanted) = Wanted::of(checked) else { continue };
        let has_agent = proxy.servers.iter().any(|server| server.has_agent());
        // A name alone shows the intended role, but no check for it.
        let is_asked = wanted.source != Source::Name || has_agent;
        let is_other = wanted.is_judged || asks_itself(proxy) || has_several_primaries(proxy);
        let is_dns = proxy.servers.iter().any(Server::is_named_after_role);
        let is_needed = wanted.role == Role::Primary && is_asked && !is_other && !is_dns;
        if is_needed && guard(model, proxy, &counted(proxy)) == Some(Guard::Missing) {
            report(model, proxy, checked, wanted.source, findings);
        }
    }
}

fn report(
    model: &Model<'_>,
    proxy: &Proxy<'_>,
    checked: &Proxy<'_>,
    source: Source,
    findings: &mut Findings,
) {
    let active = || proxy.members().filter(|server| !server.is_backup());
    let has_template = active().any(|server| server.count != Some(1));
    let names = match has_template {
        true => format!("the {} servers", proxy.count(false)),
        false => listed(active().map(|server| server.name)),
    };
    let mut message =
        format!("{} admits writers while more than one of {names} is UP", proxy.title());
    // Patroni answers 200 only on the member that holds the lock, until the lock expires.
    let has_lock = matches!(source, Source::Http | Source::Script);
    if has_lock {
        message.push_str("; Patroni's lock makes that rare");
    }
    let slowest = slowest(model, checked);
    if let Some(slowest) = slowest {
        message.push_str(&format!(
            "; a guard would admit no writer after a failover for up to {}, or {} if the old primary is silent",
            time_text(slowest.refused.most_ms),
            time_text(slowest.silent.most_ms)
        ));
    }
    let severity = match has_lock {
        // With slow checks the guard costs more than it prevents: the checks come first.
        true if slowest.is_some_and(|it| it.is_late()) => Severity::Note,
        true => Severity::Warning,
        false => Severity::Error,
    };
    findings.add_as(severity, proxy.head, message);
    findings.name_in_remedy("BACKEND", proxy.name);
}

/// Returns true if a count of its servers excludes clients from `proxy` while two of them are UP.
pub fn is_guarded(model: &Model<'_>, proxy: &Proxy<'_>) -> bool {
    matches!(guard(model, proxy, &counted(proxy)), Some(Guard::Counts | Guard::Unclear))
}

fn blind(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let model = &haproxy.model;
    for proxy in model.postgres().filter(|proxy| proxy.count(false) >= 1) {
        let Some(backup) = proxy.members().find(|server| server.is_backup()) else { continue };
        if Wanted::is_primary(proxy) && guard(model, proxy, &[proxy.name]) == Some(Guard::Counts) {
            let place = backup.settings.get("backup");
            let place = place.map_or(backup.line.place(), |it| it.line.place_of(it.at));
            findings.add(
                place,
                format!(
                    "the guard of {} does not count `{}`, which is a backup",
                    proxy.title(),
                    backup.name
                ),
            );
        }
    }
}

/// Returns true if its checks go to HAProxy itself, which then decides about all of them together.
fn asks_itself(proxy: &Proxy<'_>) -> bool {
    proxy.members().any(|server| server.settings.text("addr").starts_with("abns@"))
}

/// The guard that excludes clients from a backend while more than one of its servers is UP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Guard {
    /// There is none.
    Missing,
    /// A condition that may count too; the file does not show how well.
    Unclear,
    /// A count by `nbsrv`.
    Counts,
}

/// Returns the backends with as many servers as `proxy`: itself, and those that it tracks.
fn counted<'a>(proxy: &Proxy<'a>) -> Vec<&'a str> {
    let tracked = |server: &Server<'a>| Some(server.settings.text("track").split_once('/')?.0);
    std::iter::once(proxy.name).chain(proxy.servers.iter().filter_map(tracked)).collect()
}

/// Returns the guard of `proxy`, by a count of one of `names`; none if this file has no route to
/// it.
fn guard(model: &Model<'_>, proxy: &Proxy<'_>, names: &[&str]) -> Option<Guard> {
    let own = turns_away(proxy, proxy.name, names);
    if own != Guard::Missing || proxy.is_door() {
        return Some(own);
    }
    // The weakest guard of a chain of routes counts.
    let of_way = |(from, line): (&Proxy<'_>, &Line)| {
        turns_away(from, proxy.name, names).max(keeps_out(line, from, names, false))
    };
    model.routes_to(proxy.name).map(of_way).min()
}

/// Returns the guard by which `proxy` refuses clients, or routes them to other backends than
/// `backend`, depending on the number of servers that are UP.
fn turns_away(proxy: &Proxy<'_>, backend: &str, names: &[&str]) -> Guard {
    let elsewhere = proxy.nearest("use_backend").into_iter().filter(|line| line.word(1) != backend);
    let guards = proxy.refusals().chain(elsewhere).map(|line| keeps_out(line, proxy, names, true));
    guards.max().unwrap_or(Guard::Missing)
}

/// Returns the guard of one line: whether it excludes clients while two servers are UP, and admits
/// them while one is. The line either excludes clients while its condition is true, or admits them.
fn keeps_out(line: &Line, proxy: &Proxy<'_>, names: &[&str], is_refusal: bool) -> Guard {
    let Some(condition) = Condition::of(line) else { return Guard::Missing };
    let mut expressions = condition.terms().flat_map(|term| expressions(term, proxy));
    if !expressions.any(|words| is_count(words, proxy, names)) {
        return Guard::Missing;
    }
    let is_out = |up: u64| {
        let value = |words| count_of(words, proxy, names).map(|count| count.holds(up));
        condition.comes_to(proxy, value).map(|holds| holds == is_refusal)
    };
    match (is_out(1), is_out(2)) {
        (_, Some(false)) => Guard::Missing,
        (Some(false) | None, Some(true)) => Guard::Counts,
        // No client is admitted, or the file does not decide it alone.
        _ => Guard::Unclear,
    }
}

/// Returns a count of the servers of one of `names`.
fn count_of<'a>(words: &'a [Word], proxy: &Proxy<'a>, names: &[&str]) -> Option<Count<'a>> {
    let is_its = |count: &Count<'_>| match count.backend {
        "" => names.contains(&proxy.name),
        backend => names.contains(&backend),
    };
    Count::read(words).filter(is_its)
}

/// Returns true if the expression counts, or may count.
fn is_count(words: &[Word], proxy: &Proxy<'_>, names: &[&str]) -> bool {
    if Count::read(words).is_some() {
        return count_of(words, proxy, names).is_some();
    }
    let fetch = words.first().map(|word| word.known().unwrap_or("nbsrv"));
    let may_count = ["srv_is_up(", "nbsrv", "lua.", "connslots(", "var("];
    fetch.is_some_and(|fetch| may_count.iter().any(|it| fetch.starts_with(it)))
}

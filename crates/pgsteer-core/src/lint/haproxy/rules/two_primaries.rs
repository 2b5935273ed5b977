//! Two members that take writes at once.

use crate::lint::finding::Findings;
use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::checks::{Role, Source, Wanted};
use crate::lint::haproxy::condition::{Condition, Count, expressions};
use crate::lint::haproxy::lines::{Line, Word};
use crate::lint::haproxy::proxy::{Model, Proxy};
use crate::lint::haproxy::sections::Kind;
use crate::lint::listed;
use crate::lint::rule::{Look, rule};

rule! {
    /// Writers go to two primaries in turn.
    NO_GUARD = "no-guard-against-two-primaries", Error, Look::Haproxy(no_guard),
    title: "nothing keeps writers out while two members say that they are the primary",
    costs: "In a split brain HAProxy writes to both in turn, and what was written to one of them is lost.",
    remedy: "`tcp-request content reject unless { nbsrv(BACKEND) eq 1 }` in the proxy that writers come through.",
}

rule! {
    /// A guard that counts does not see a backup.
    GUARD_BLIND_TO_BACKUP = "guard-blind-to-backup", Error, Look::Haproxy(blind),
    title: "a guard counts servers with nbsrv, and does not see those that are `backup`",
    costs: "nbsrv counts the active servers alone while one of them is UP. Two primaries, one of them a backup, count as one, and writers are let in.",
    remedy: "Leave `backup` out: a health check that asks for the primary decides already.",
}

fn no_guard(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let model = &haproxy.model;
    for proxy in model.postgres().filter(|proxy| proxy.count(false) >= 2) {
        let Some(wanted) = Wanted::of(proxy) else { continue };
        let has_agent = proxy.servers.iter().any(|server| server.has_agent());
        // A name alone says what is wanted, but not that anything asks for it.
        let is_asked = wanted.source != Source::Name || has_agent;
        if wanted.role != Role::Primary || wanted.is_judged || !is_asked || asks_itself(proxy) {
            continue;
        }
        if is_guarded(model, proxy) == Some(false) {
            let names = proxy.members().filter(|server| !server.is_backup());
            let names = listed(names.map(|server| server.name));
            findings.add(
                proxy.head,
                format!("{} lets writers in while more than one of {names} is UP", proxy.title()),
            );
        }
    }
}

fn blind(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let model = &haproxy.model;
    for proxy in model.postgres().filter(|proxy| proxy.count(false) >= 1) {
        let Some(backup) = proxy.members().find(|server| server.is_backup()) else { continue };
        if Wanted::is_primary(proxy) && is_guarded(model, proxy) == Some(true) {
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

/// Its checks go to HAProxy itself, which then decides about all of them together.
fn asks_itself(proxy: &Proxy<'_>) -> bool {
    proxy.members().any(|server| server.settings.text("addr").starts_with("abns@"))
}

/// Whether clients get to `proxy` only while one server of it is UP; none if nobody in this file
/// leads them there.
fn is_guarded(model: &Model<'_>, proxy: &Proxy<'_>) -> Option<bool> {
    if rejects(proxy, proxy.name) {
        return Some(true);
    }
    let is_door = proxy.kind == Kind::Listen && proxy.binds().next().is_some();
    let mut routes = model.routes_to(proxy.name).peekable();
    if routes.peek().is_none() && !is_door {
        return None;
    }
    let leads_one = |(from, line): (&Proxy<'_>, &Line)| {
        let condition = Condition::of(line);
        rejects(from, proxy.name)
            || condition.is_some_and(|condition| asks_for_one(&condition, from, proxy.name))
    };
    Some(!is_door && routes.all(leads_one))
}

/// `proxy` sends clients away, depending on how many servers of `backend` are UP.
fn rejects(proxy: &Proxy<'_>, backend: &str) -> bool {
    let of = |word| proxy.nearest(word).into_iter();
    let rules = of("tcp-request").chain(of("http-request")).filter(|line| {
        line.words.iter().any(|word| ["reject", "silent-drop", "deny"].iter().any(|it| word.is(it)))
    });
    rules.filter_map(Condition::of).any(|condition| asks_for_one(&condition, proxy, backend))
}

/// The condition makes a difference between one server of `backend` that is UP, and two.
fn asks_for_one(condition: &Condition<'_>, proxy: &Proxy<'_>, backend: &str) -> bool {
    let decides = |words: &[Word]| match Count::read(words) {
        Some(count) => {
            let is_its =
                count.backend == backend || count.backend.is_empty() && proxy.name == backend;
            is_its && count.holds(1) != count.holds(2)
        }
        None => words.first().is_some_and(is_beyond_us),
    };
    condition.terms().any(|term| expressions(term, proxy).into_iter().any(decides))
}

/// A fetch that may count, too. Somebody has thought of it; how well cannot be told.
fn is_beyond_us(fetch: &Word) -> bool {
    let Some(text) = fetch.known() else { return true };
    ["srv_is_up(", "nbsrv", "lua.", "connslots(", "var("].iter().any(|it| text.starts_with(it))
}

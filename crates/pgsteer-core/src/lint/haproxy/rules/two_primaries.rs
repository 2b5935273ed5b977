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
        if guard(model, proxy) == Some(Guard::Missing) {
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
        if Wanted::is_primary(proxy) && guard(model, proxy) == Some(Guard::Counts) {
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

/// What keeps clients out of a backend while more than one server of it is UP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Guard {
    /// Nothing.
    Missing,
    /// Something that may count, too. Somebody has thought of it; how well cannot be told.
    Unclear,
    /// A count by `nbsrv`.
    Counts,
}

/// The guard of `proxy`; none if nobody in this file leads clients there.
fn guard(model: &Model<'_>, proxy: &Proxy<'_>) -> Option<Guard> {
    let own = turns_away(proxy, proxy.name);
    let is_door = proxy.kind == Kind::Listen && proxy.binds().next().is_some();
    if own != Guard::Missing || is_door {
        return Some(own);
    }
    // A chain of ways is as good as its weakest.
    model
        .routes_to(proxy.name)
        .map(|(from, line)| turns_away(from, proxy.name).max(on_the_way(line, from, proxy.name)))
        .min()
}

/// `proxy` refuses clients, or leads them elsewhere, depending on how many of `backend` are UP.
fn turns_away(proxy: &Proxy<'_>, backend: &str) -> Guard {
    let of = |word| proxy.nearest(word).into_iter();
    let refuses = |line: &&Line| {
        line.words.iter().any(|word| ["reject", "silent-drop", "deny"].iter().any(|it| word.is(it)))
    };
    let refusals = of("tcp-request").chain(of("http-request")).filter(refuses);
    let elsewhere = of("use_backend").filter(|line| line.word(1) != backend);
    let guards = refusals.chain(elsewhere).map(|line| on_the_way(line, proxy, backend));
    guards.max().unwrap_or(Guard::Missing)
}

/// What the condition of one line asks.
fn on_the_way(line: &Line, proxy: &Proxy<'_>, backend: &str) -> Guard {
    let Some(condition) = Condition::of(line) else { return Guard::Missing };
    let expressions = condition.terms().flat_map(|term| expressions(term, proxy));
    expressions.map(|words| asks(words, proxy, backend)).max().unwrap_or(Guard::Missing)
}

/// It makes a difference between one server of `backend` that is UP, and two.
fn asks(words: &[Word], proxy: &Proxy<'_>, backend: &str) -> Guard {
    if let Some(count) = Count::read(words) {
        let is_own = count.backend.is_empty() && proxy.name == backend;
        let is_its = is_own || count.backend == backend;
        return match is_its && count.holds(1) != count.holds(2) {
            true => Guard::Counts,
            false => Guard::Missing,
        };
    }
    let fetch = words.first().map(|word| word.known().unwrap_or("nbsrv"));
    let may_count = ["srv_is_up(", "nbsrv", "lua.", "connslots(", "var("];
    match fetch.is_some_and(|fetch| may_count.iter().any(|it| fetch.starts_with(it))) {
        true => Guard::Unclear,
        false => Guard::Missing,
    }
}

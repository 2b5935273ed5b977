//! How soon a lost member is noticed, and what becomes of the sessions to it.

use crate::lint::finding::Findings;
use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::checks::{Source, Wanted};
use crate::lint::haproxy::detection::check_times;
use crate::lint::haproxy::proxy::Proxy;
use crate::lint::haproxy::values::{Given, time_ms, time_text};
use crate::lint::listed;
use crate::lint::rule::{Look, rule};
use crate::render::HaproxyVersion;

/// Longer than this nobody waits for a member that refuses to be DOWN.
const REFUSED_MS_MAX: u64 = 5_000;
/// The same for one that says nothing any more.
const SILENT_MS_MAX: u64 = 10_000;
/// Checks that come more often than this all start at once (HAProxy's `SRV_CHK_INTER_THRES`).
const AT_ONCE_MS: u64 = 1_000;

rule! {
    /// A lost member is noticed late.
    SLOW_DETECTION = "slow-detection", Warning, Look::Haproxy(slow),
    title: "a lost member is DOWN late",
    costs: "Until it is DOWN, clients are led to a member that is gone, or that is no primary any more.",
    remedy: "Shorter `inter`, a `fastinter` of half of it, `fall 2`, and no `timeout check` beyond `inter`; `pgsteer render haproxy --detect 3s` computes them.",
}

rule! {
    /// Sessions to a member that is DOWN go on.
    NO_SHUTDOWN_SESSIONS = "no-shutdown-sessions", Error, Look::Haproxy(no_shutdown),
    title: "sessions to a primary that is DOWN are kept",
    costs: "Whoever was connected stays with the old primary: a read-only error for every write, or silence in a partition.",
    remedy: "`on-marked-down shutdown-sessions` on the server lines, or once in `default-server`.",
}

rule! {
    /// NOLB ends no session.
    NOLB_STRANDS_SESSIONS = "nolb-strands-sessions", Error, Look::Haproxy(nolb),
    title: "a primary that says no becomes NOLB, which ends no session",
    costs: "NOLB takes no new sessions and keeps those there are, so writers stay with a member that is a replica now; `on-marked-down` does not act.",
    remedy: "For the primary `http-check expect status 200`, which makes it DOWN. NOLB is for replicas.",
}

rule! {
    /// Servers are UP until somebody looks.
    FIRST_CHECK_LATE = "first-check-late", Warning, Look::Haproxy(first_check),
    title: "after a start all members count as primary until their first check",
    costs: "A server is UP until its first check, and the first checks are spread over `inter`: writers reach replicas, or with a guard nobody.",
    remedy: "`max-spread-checks 10` in `global`, so that all first checks come at once; from HAProxy 3.1 on `init-state down`.",
}

rule! {
    /// The same for versions that can do better.
    SERVERS_START_UP = "servers-start-up", Warning, Look::Haproxy(start_up),
    title: "after a start all members count as primary until their first check",
    costs: "A server is UP until its first check: writers reach replicas, or with a guard nobody.",
    remedy: "`init-state down` in `default-server`: this HAProxy knows it.",
}

fn slow(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in haproxy.model.postgres().filter(|proxy| !proxy.is_piece) {
        let checked = proxy.members().filter(|server| server.is_checked());
        let late = checked.filter_map(|server| {
            let times = check_times(&haproxy.model, proxy, server)?;
            let (refused, silent) = (times.refused(), times.silent());
            let is_late = refused.most_ms > REFUSED_MS_MAX || silent.most_ms > SILENT_MS_MAX;
            is_late.then_some((server, refused, silent))
        });
        // The first of the slowest speaks for the others, which are mostly the same.
        let Some((server, refused, silent)) =
            late.reduce(
                |slowest, other| {
                    if other.2.most_ms > slowest.2.most_ms { other } else { slowest }
                },
            )
        else {
            continue;
        };
        findings.add(
            server.line,
            format!(
                "`{}` of {} is DOWN after {} to {} if it refuses, {} to {} if it is silent",
                server.name,
                proxy.title(),
                time_text(refused.least_ms),
                time_text(refused.most_ms),
                time_text(silent.least_ms),
                time_text(silent.most_ms)
            ),
        );
    }
}

fn no_shutdown(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let model = &haproxy.model;
    let primaries = model.postgres().filter(|proxy| Wanted::is_primary(proxy));
    for proxy in primaries.filter(|proxy| !proxy.is_piece && model.has_clients(proxy)) {
        let without: Vec<_> = proxy
            .members()
            .filter(|server| server.is_checked() || server.has_agent())
            .filter(|server| !server.settings.has("on-marked-down"))
            .collect();
        if let Some(first) = without.first() {
            let names = listed(without.iter().map(|server| server.name));
            findings.add(
                first.line,
                format!("sessions to {names} of {} outlive its being DOWN", proxy.title()),
            );
        }
    }
}

fn nolb(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in haproxy.model.postgres().filter(|proxy| Wanted::is_primary(proxy)) {
        if proxy.option("httpchk").is_none() {
            continue;
        }
        for line in proxy.nearest("http-check") {
            let nolb = line.words.iter().find(|word| word.is("L7OKC"));
            if let Some(word) = nolb.filter(|_| line.word(1) == "expect") {
                findings.add(word.place, format!("{} leads to a primary", proxy.title()));
            }
        }
    }
}

fn first_check(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let model = &haproxy.model;
    let spread = model.file.global("max-spread-checks");
    let spread = spread.map_or(Given::Absent, |line| Given::read(line.words.get(1), time_ms));
    let is_early = match spread {
        Given::Absent => false,
        Given::Unknown => true,
        Given::Is(ms) => ms <= AT_ONCE_MS,
    };
    let is_told = model.file.has_all_sections();
    if !is_told || is_early || haproxy.options.haproxy >= HaproxyVersion::INIT_STATE {
        return;
    }
    for proxy in model.postgres().filter(|proxy| is_asked_for_primary(proxy)) {
        let inter = |server| check_times(model, proxy, server).map(|times| times.inter_ms);
        let checked = proxy.members().filter(|server| server.is_checked());
        let inter_ms = checked.filter_map(inter).max().unwrap_or(0);
        let is_late = inter_ms >= AT_ONCE_MS && proxy.count(true) >= 2;
        if is_late {
            findings.add(
                proxy.head,
                format!(
                    "for up to {} after a start all {} servers of {} count as UP",
                    time_text(inter_ms),
                    proxy.count(true),
                    proxy.title()
                ),
            );
        }
    }
}

fn start_up(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    if haproxy.options.haproxy < HaproxyVersion::INIT_STATE {
        return;
    }
    let wanted = |proxy: &&Proxy<'_>| !proxy.is_piece && is_asked_for_primary(proxy);
    for proxy in haproxy.model.postgres().filter(wanted) {
        let checked = proxy.members().filter(|server| server.is_checked());
        let without: Vec<_> = checked.filter(|server| !server.settings.has("init-state")).collect();
        if let Some(first) = without.first().filter(|_| proxy.count(true) >= 2) {
            let names = listed(without.iter().map(|server| server.name));
            findings.add(
                first.line,
                format!("{names} of {} are UP until their first check", proxy.title()),
            );
        }
    }
}

/// A check of `proxy` asks for the primary; that it is called so is not enough.
fn is_asked_for_primary(proxy: &Proxy<'_>) -> bool {
    Wanted::is_primary(proxy) && Wanted::of(proxy).is_some_and(|it| it.source == Source::Check)
}

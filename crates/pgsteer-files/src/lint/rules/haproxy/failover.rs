//! The detection time of a lost member, and the sessions to it.

use std::collections::BTreeMap;

use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::detection::{INTER_MS, Slowest, slowest};
use crate::lint::haproxy::model::Model;
use crate::lint::haproxy::proxy::Proxy;
use crate::lint::haproxy::roles::Wanted;
use crate::lint::haproxy::server::Server;
use crate::lint::haproxy::values::{Given, time_ms, time_text};
use crate::lint::listed;
use crate::lint::rule::{Findings, Look, rule};
use crate::lint::rules::haproxy::two_primaries::is_guarded;
use crate::render::HaproxyVersion;

/// Checks with a shorter interval than this do not spread the others (HAProxy's
/// `SRV_CHK_INTER_THRES`).
const AT_ONCE_MS: u64 = 1_000;
/// A first check after this time is too late.
const LATE_MS: u64 = 500;

rule! {
    /// A lost member is detected late.
    SLOW_DETECTION = "slow-detection", Warning, Look::Haproxy(slow),
    title: "a lost member is DOWN late",
    costs: "Until it is DOWN, HAProxy routes clients to a member that is gone or no longer the primary.",
    remedy: "Use a shorter `inter`, a `fastinter` of half of it, `fall 2`, and no `timeout check` above `inter`; `pgsteer render haproxy --detect 3s` computes them.",
}

rule! {
    /// Sessions to a member that is DOWN continue.
    NO_SHUTDOWN_SESSIONS = "no-shutdown-sessions", Error, Look::Haproxy(no_shutdown),
    title: "sessions to a primary that is DOWN continue",
    costs: "Existing clients stay with the old primary: every write fails with a read-only error, or hangs in a partition.",
    remedy: "Add `on-marked-down shutdown-sessions` to the server lines, or once to `default-server`.",
}

rule! {
    /// NOLB closes no session.
    NOLB_STRANDS_SESSIONS = "nolb-strands-sessions", Error, Look::Haproxy(nolb),
    title: "a primary that fails its check becomes NOLB, which ends no session",
    costs: "NOLB accepts no new sessions and keeps existing ones, so writers stay with a member that has become a replica; `on-marked-down` has no effect.",
    remedy: "For the primary write `http-check expect status 200`, which makes it DOWN. NOLB is for replicas.",
}

rule! {
    /// Servers are UP until their first check.
    FIRST_CHECK_LATE = "first-check-late", Warning, Look::Haproxy(first_check),
    title: "after a start all members count as primary until their first check",
    costs: "A server is UP until its first check, and HAProxy spreads the first checks over `inter`: writers reach replicas, or a guard refuses all of them.",
    remedy: "Set `max-spread-checks 10` in `global`, so that all first checks run at once; from HAProxy 3.1 on use `init-state down` where no agent puts servers in maintenance.",
}

rule! {
    /// The same for versions with a better setting.
    SERVERS_START_UP = "servers-start-up", Warning, Look::Haproxy(start_up),
    title: "after a start all members count as primary until their first check",
    costs: "A server is UP until its first check: writers reach replicas, or a guard refuses all of them.",
    remedy: "Add `init-state down` to `default-server`, which this HAProxy supports.",
}

fn slow(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    // Proxies with equal detection times are one finding.
    let mut by_times: BTreeMap<[u64; 4], Vec<(&Proxy<'_>, Slowest<'_, '_>)>> = BTreeMap::new();
    for proxy in haproxy.model.postgres().filter(|proxy| !proxy.is_piece) {
        let late = slowest(&haproxy.model, proxy).filter(Slowest::is_late);
        if let Some(late) = late {
            let Slowest { refused, silent, .. } = late;
            let times = [refused.least_ms, refused.most_ms, silent.least_ms, silent.most_ms];
            by_times.entry(times).or_default().push((proxy, late));
        }
    }
    for late in by_times.into_values() {
        report_late(haproxy, &late, findings);
    }
}

fn report_late(
    haproxy: &Haproxy<'_>,
    late: &[(&Proxy<'_>, Slowest<'_, '_>)],
    findings: &mut Findings,
) {
    let Some((_, Slowest { server, refused, silent })) = late.first() else { return };
    let titles: Vec<String> = late.iter().map(|(proxy, _)| proxy.title()).collect();
    let mut message = format!(
        "`{}` of {} is DOWN after {} to {} if it refuses, {} to {} if it is silent",
        server.name,
        listed(titles.iter().map(String::as_str)),
        time_text(refused.least_ms),
        time_text(refused.most_ms),
        time_text(silent.least_ms),
        time_text(silent.most_ms)
    );
    if late.iter().any(|(proxy, _)| is_guarded(&haproxy.model, proxy)) {
        message.push_str("; the guard admits no writer as long as it and the new primary are UP");
    }
    findings.add(server.line, message);
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
    let is_told = model.file.has_all_sections() && spread != Given::Unknown;
    if !is_told {
        return;
    }
    // An agent may put servers in maintenance, after which HAProxy applies `init-state` again.
    let has_no_better = |proxy: &&Proxy<'_>| {
        haproxy.options.haproxy < HaproxyVersion::INIT_STATE
            || proxy.members().any(starts_up_for_agent)
    };
    let first_checks = first_checks(model, spread);
    let wanted = model.postgres().filter(|proxy| is_asked_for_primary(proxy));
    for proxy in wanted.filter(has_no_better) {
        let of_proxy = |server: &Server<'_>| first_checks.get(&server.line.number).copied();
        let last_ms = proxy.members().filter_map(of_proxy).max().unwrap_or(0);
        if last_ms >= LATE_MS && proxy.count(true) >= 2 {
            findings.add(
                proxy.head,
                format!(
                    "for up to {} after a start some of the {} servers of {} count as UP without a check",
                    time_text(last_ms),
                    proxy.count(true),
                    proxy.title()
                ),
            );
        }
    }
}

/// Returns the start of each server's first check, in milliseconds after the process start, by its
/// line. HAProxy spreads them over the servers of all proxies, each over the larger of its own
/// `inter` and the smallest `inter` of at least a second (`start_checks` in check.c).
fn first_checks(model: &Model<'_>, spread: Given<u64>) -> BTreeMap<usize, u64> {
    let mut checked: Vec<(usize, u64)> = Vec::new();
    for proxy in &model.proxies {
        for server in proxy.servers.iter().filter(|server| server.is_checked()) {
            let inter = server.settings.time("inter").or(INTER_MS);
            checked.extend(inter.map(|inter_ms| (server.line.number, inter_ms)));
        }
    }
    let slow = checked.iter().map(|(_, inter_ms)| *inter_ms).filter(|ms| *ms >= AT_ONCE_MS);
    let least_ms = slow.min().unwrap_or(0);
    let count = u64::try_from(checked.len()).unwrap_or(u64::MAX).max(1);
    let begins = |(place, (line, inter_ms)): (u64, (usize, u64))| {
        let over_ms = least_ms.max(inter_ms).min(spread.known().unwrap_or(u64::MAX));
        (line, over_ms.saturating_mul(place) / count)
    };
    (0..).zip(checked).map(begins).collect()
}

fn start_up(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    if haproxy.options.haproxy < HaproxyVersion::INIT_STATE {
        return;
    }
    let wanted = |proxy: &&Proxy<'_>| !proxy.is_piece && is_asked_for_primary(proxy);
    for proxy in haproxy.model.postgres().filter(wanted) {
        let checked = proxy.members().filter(|server| server.is_checked());
        let without: Vec<_> = checked
            .filter(|server| !server.settings.has("init-state") && !starts_up_for_agent(server))
            .collect();
        if let Some(first) = without.first().filter(|_| proxy.count(true) >= 2) {
            let names = listed(without.iter().map(|server| server.name));
            findings.add(
                first.line,
                format!("{names} of {} are UP until their first check", proxy.title()),
            );
        }
    }
}

/// Returns true if the server is UP until its first check so that its agent can end its maintenance.
fn starts_up_for_agent(server: &Server<'_>) -> bool {
    server.has_agent() && !server.settings.has("init-state")
}

/// Returns true if a check of `proxy` tests for the primary; the name alone is not enough.
fn is_asked_for_primary(proxy: &Proxy<'_>) -> bool {
    Wanted::is_primary(proxy) && Wanted::of(proxy).is_some_and(|it| it.source.is_check())
}

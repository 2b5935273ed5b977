//! The metrics of clients and probes: holds, sessions, bytes, times, and the number of events.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::page::Page;
use super::{Facts, count};
use crate::stats::{MemberStats, ProbeStats, ServiceStats, Times};

impl Facts {
    pub(super) fn services(&self, page: &mut Page<'_>) -> fmt::Result {
        let each = |read: fn(&ServiceStats) -> u64| {
            self.each_service()
                .map(move |(name, _)| (self.service(name), read(&self.stats.service(name))))
        };
        page.gauge(
            "pgsteer_held_clients",
            "Clients on hold now.",
            each(|stats| count(stats.holds.clients())),
        )?;
        page.gauge(
            "pgsteer_oldest_hold_seconds",
            "How long the oldest client on hold has waited; no sample without one.",
            self.each_service().filter_map(|(name, _)| {
                let oldest = self.stats.service(name).holds.oldest()?;
                Some((self.service(name), oldest.as_secs_f64()))
            }),
        )?;
        page.gauge(
            "pgsteer_queued_clients",
            "Clients on hold that wait for a place because of a limit on sessions.",
            each(|stats| count(stats.queued.load(Relaxed))),
        )?;
        page.gauge(
            "pgsteer_service_sessions_max",
            "The limit of sessions of the service; no sample without a limit.",
            each(|stats| count(stats.sessions_max.load(Relaxed))).filter(|(_, max)| *max > 0),
        )?;
        page.gauge(
            "pgsteer_member_sessions_max",
            "The limit of sessions of the service at one member; no sample without a limit.",
            each(|stats| count(stats.member_sessions_max.load(Relaxed)))
                .filter(|(_, max)| *max > 0),
        )?;
        page.counter(
            "pgsteer_holds",
            "Clients that were ever on hold.",
            each(|stats| stats.holds.clients_total.load(Relaxed)),
        )?;
        page.counter(
            "pgsteer_hold_seconds",
            "The time that clients spent on hold, over all of them.",
            each(|stats| stats.holds.ended_ms_total.load(Relaxed))
                .map(|(labels, millis)| (labels, Duration::from_millis(millis).as_secs_f64())),
        )?;
        page.counter(
            "pgsteer_refused_clients",
            "Clients that were refused because no member was available.",
            each(|stats| stats.refused_total.load(Relaxed)),
        )
    }

    pub(super) fn sessions(&self, page: &mut Page<'_>) -> fmt::Result {
        let each = |read: fn(&MemberStats) -> u64| {
            self.each_gate().map(move |(service, member, _)| {
                let stats = self.stats.service(service).member(member);
                (self.gate(service, member), read(&stats))
            })
        };
        page.gauge(
            "pgsteer_sessions",
            "Sessions now, those in their login included.",
            each(|stats| count(stats.sessions.load(Relaxed))),
        )?;
        page.counter(
            "pgsteer_sessions_started",
            "Sessions that ever began.",
            each(|stats| stats.sessions_total.load(Relaxed)),
        )?;
        page.counter(
            "pgsteer_sessions_ended",
            "Sessions that a gate ended.",
            each(|stats| stats.ended_total.load(Relaxed)),
        )?;
        page.counter(
            "pgsteer_logins_failed",
            "Connections and logins that failed and were tried elsewhere.",
            each(|stats| stats.failed_total.load(Relaxed)),
        )?;
        page.counter(
            "pgsteer_bytes_in",
            "Bytes from clients to the member, logins excluded.",
            each(|stats| stats.bytes_in.load(Relaxed)),
        )?;
        page.counter(
            "pgsteer_bytes_out",
            "Bytes from the member to clients, logins excluded.",
            each(|stats| stats.bytes_out.load(Relaxed)),
        )
    }

    /// The histograms of the services.
    pub(super) fn times(&self, page: &mut Page<'_>) -> fmt::Result {
        let each = |read: fn(&ServiceStats) -> &Times| {
            self.each_service().map(move |(name, _)| {
                (self.service(name), read(&self.stats.service(name)).histogram())
            })
        };
        page.histogram(
            "pgsteer_hold_time_seconds",
            "How long clients were on hold.",
            each(|stats| &stats.holds.times),
        )?;
        page.histogram(
            "pgsteer_login_time_seconds",
            "The time from the connection of a client to the end of its login; not inside TLS.",
            each(|stats| &stats.logins),
        )?;
        page.histogram(
            "pgsteer_dial_time_seconds",
            "The time until a member accepted a connection.",
            each(|stats| &stats.dials),
        )?;
        page.histogram(
            "pgsteer_session_time_seconds",
            "The length of the sessions that have ended.",
            each(|stats| &stats.sessions),
        )
    }

    /// The histograms of the members.
    pub(super) fn probes(&self, page: &mut Page<'_>) -> fmt::Result {
        let members = || self.snapshot.members.keys();
        let times = |source: &'static str, read: fn(&ProbeStats) -> &Times| {
            members().map(move |name| {
                let labels = (self.member(name), [("source", source)]);
                (labels, read(&self.stats.probes(name)).histogram())
            })
        };
        page.histogram(
            "pgsteer_probe_time_seconds",
            "The time until the answer to a probe of the member.",
            times("patroni", |stats| &stats.patroni).chain(times("sql", |stats| &stats.sql)),
        )?;
        page.histogram(
            "pgsteer_member_lag_time_seconds",
            "The lag of the member's replay, read once a second.",
            members().map(|name| (self.member(name), self.stats.probes(name).lag.histogram())),
        )
    }

    pub(super) fn events(&self, page: &mut Page<'_>) -> fmt::Result {
        page.counter(
            "pgsteer_events",
            "Events by kind, and by the reason of a gate.",
            self.stats.events.all().iter().map(|((kind, reason), count)| {
                ([("cluster", self.cluster()), ("kind", *kind), ("reason", *reason)], *count)
            }),
        )
    }
}

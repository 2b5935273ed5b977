//! The metrics: the Snapshot and the counters in the format of Prometheus.
//!
//! Each scrape reads the Snapshot and the counters of the proxy; no other state exists. The table in
//! docs/status.md lists all metrics.

mod classic;
mod haproxy;
mod page;
mod traffic;
mod vips;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pgsteer_core::claim::Role;
use pgsteer_core::gate::{Gate, GateState};
use pgsteer_core::names::{MemberName, ServiceName};
use pgsteer_core::snapshot::MembersFrom;
use pgsteer_core::snapshot::{MemberState, PoolerState, ServiceState, Snapshot};
use pgsteer_core::time::Moment;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use self::page::{Label, Page};
use crate::stats::Stats;

pub use self::classic::accepts_open_metrics;

/// A text format of Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics.
    Open,
    /// The older text format, which every reader understands.
    Classic,
}

impl Format {
    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Open => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Classic => classic::MEDIA_TYPE,
        }
    }
}

const ROLES: [Role; 4] = [Role::Primary, Role::Replica, Role::StandbyLeader, Role::Unknown];

/// The inputs of one scrape.
#[derive(Debug)]
pub struct Facts {
    /// The state of the cluster.
    pub snapshot: Arc<Snapshot>,
    /// The counters of the proxy.
    pub stats: Arc<Stats>,
    /// Now.
    pub now: Moment,
    /// How long this process has run.
    pub uptime: Duration,
    /// The age of the engine's last beat.
    pub heartbeat_age: Duration,
}

/// `facts` as text.
///
/// # Errors
/// Those of the library.
pub fn exposition(facts: Facts, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    registry.register("pgsteer_build", "The version of pgsteer", Info::new(version));
    registry.register_collector(Box::new(facts));
    let mut text = String::with_capacity(8 * 1024);
    encode(&mut text, &registry)?;
    Ok(match format {
        Format::Open => text,
        Format::Classic => classic::classic(&text),
    })
}

impl Collector for Facts {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page::new(encoder);
        self.process(&mut page)?;
        self.etcd(&mut page)?;
        self.members(&mut page)?;
        self.lag(&mut page)?;
        self.poolers(&mut page)?;
        self.gates(&mut page)?;
        self.orders(&mut page)?;
        self.services(&mut page)?;
        self.sessions(&mut page)?;
        self.times(&mut page)?;
        self.probes(&mut page)?;
        self.events(&mut page)?;
        self.haproxys(&mut page)?;
        vips::encode(&self.stats.vips, self.now, &mut page)
    }
}

impl Facts {
    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let stats = &self.stats;
        page.gauge_alone(
            "pgsteer_uptime_seconds",
            "The time since the start of pgsteer.",
            self.uptime.as_secs_f64(),
        )?;
        page.gauge_alone(
            "pgsteer_heartbeat_age_seconds",
            "The time since the engine's last turn. /healthz fails from 5 on.",
            self.heartbeat_age.as_secs_f64(),
        )?;
        page.counter_alone(
            "pgsteer_snapshots",
            "Changes of the Snapshot.",
            self.snapshot.generation,
        )?;
        page.gauge_alone(
            "pgsteer_clients",
            "Client connections now, over all services and in any state.",
            count(stats.clients.load(Relaxed)),
        )?;
        page.counter_alone(
            "pgsteer_clients_turned_away",
            "Client connections refused because a limit of connections was reached.",
            stats.turned_away.load(Relaxed),
        )?;
        page.counter_alone(
            "pgsteer_clients_silent_closed",
            "Client connections without a first packet that were closed for new ones.",
            stats.silent_closed.load(Relaxed),
        )?;
        page.counter_alone(
            "pgsteer_cancels",
            "Cancel requests received.",
            stats.cancels.load(Relaxed),
        )?;
        page.counter_alone(
            "pgsteer_cancels_dropped",
            "Cancel requests that were dropped because too many were under way.",
            stats.cancels_dropped.load(Relaxed),
        )?;
        page.counter_alone(
            "pgsteer_garbage",
            "Client connections whose first packet was not of the PostgreSQL protocol.",
            stats.garbage.load(Relaxed),
        )
    }

    fn etcd(&self, page: &mut Page<'_>) -> fmt::Result {
        let etcd = || self.snapshot.etcd.iter();
        let cluster = || [("cluster", self.cluster())];
        page.gauge(
            "pgsteer_etcd_watched",
            "1 while Patroni's keys in etcd are watched.",
            etcd().map(|etcd| (cluster(), u64::from(etcd.watch.is_ok()))),
        )?;
        page.gauge(
            "pgsteer_etcd_behind",
            "1 if the last read of the keys found a change that the watch had not reported.",
            etcd().map(|etcd| (cluster(), u64::from(etcd.is_behind))),
        )?;
        page.counter(
            "pgsteer_etcd_events",
            "Writes of keys that the watch has reported.",
            etcd().map(|etcd| (cluster(), etcd.events)),
        )?;
        page.gauge(
            "pgsteer_etcd_read_age_seconds",
            "The time since the keys were last read beside the watch; they are read every 5.",
            etcd()
                .filter_map(|etcd| Some((cluster(), self.now.since(etcd.read_at?).as_secs_f64()))),
        )
    }

    fn members(&self, page: &mut Page<'_>) -> fmt::Result {
        let members = || self.snapshot.members.iter();
        page.gauge(
            "pgsteer_cluster_paused",
            "1 if the cluster is in maintenance mode.",
            [([("cluster", self.cluster())], u64::from(self.snapshot.paused))],
        )?;
        let identity = &self.snapshot.identity;
        let is_stored = matches!(identity.members_from, MembersFrom::Stored { .. });
        let has_list = !is_stored && self.snapshot.why_unlisted().is_none();
        page.gauge(
            "pgsteer_member_list_read",
            "1 if the member list is read from Patroni or the configuration, 0 while none can be read.",
            [([("cluster", self.cluster())], u64::from(has_list))],
        )?;
        let wrong_urls = self.snapshot.url_troubles.len() + identity.strangers.len();
        page.gauge(
            "pgsteer_patroni_urls_wrong",
            "URLs of Patroni that return no member list of this cluster although another one does.",
            [([("cluster", self.cluster())], u64::try_from(wrong_urls).unwrap_or(u64::MAX))],
        )?;
        page.gauge(
            "pgsteer_member_role",
            "1 for the role that the member has, 0 for the others.",
            members().flat_map(|(name, state)| {
                ROLES.into_iter().map(move |role| {
                    let labels = (self.member(name), [("role", role.as_str())]);
                    (labels, u64::from(state.role == role))
                })
            }),
        )?;
        page.gauge(
            "pgsteer_member_trouble",
            "1 with the reason of the member's trouble; no sample without trouble.",
            members().filter_map(|(name, state)| {
                let trouble = state.trouble.as_ref()?;
                Some(((self.member(name), [("reason", trouble.code())]), 1_u64))
            }),
        )?;
        page.gauge(
            "pgsteer_member_rogue",
            "1 if the member takes writes while another holds the leader lock or takes writes too.",
            members().map(|(name, state)| (self.member(name), u64::from(state.rogue))),
        )?;
        page.gauge(
            "pgsteer_member_timeline",
            "The member's timeline; no sample if it is unknown.",
            members()
                .filter_map(|(name, state)| Some((self.member(name), u64::from(state.timeline?)))),
        )
    }

    fn lag(&self, page: &mut Page<'_>) -> fmt::Result {
        let members = || self.snapshot.members.iter();
        page.gauge(
            "pgsteer_member_lag_bytes",
            "How far the member's replay is behind; no sample on a primary or if it is unknown.",
            members().filter_map(|(name, state): (_, &MemberState)| {
                Some((self.member(name), state.lag_bytes?))
            }),
        )?;
        page.gauge(
            "pgsteer_member_lag_seconds",
            "How far the member's replay is behind; no sample on a primary or if it is unknown.",
            members().filter_map(|(name, state): (_, &MemberState)| {
                Some((self.member(name), state.lag?.as_secs_f64()))
            }),
        )?;
        page.gauge(
            "pgsteer_member_load_percent",
            "The used part of the member's session limit, in steps of 10.",
            members().filter_map(|(name, state): (_, &MemberState)| {
                Some((self.member(name), u64::from(state.load_percent?)))
            }),
        )?;
        page.gauge(
            "pgsteer_member_clock_offset_seconds",
            "How far the member's clock is ahead of pgsteer's, in steps of 0.1; no sample if unknown.",
            members().filter_map(|(name, state): (_, &MemberState)| {
                Some((self.member(name), state.clock_offset?.as_secs_f64()))
            }),
        )
    }

    fn poolers(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge(
            "pgsteer_pooler_well",
            "1 unless the pooler beside the member is known to fail or to lead elsewhere.",
            self.each_pooler().map(|(member, port, state)| {
                let labels = (self.member(member), [("port", port)]);
                (labels, u64::from(state.trouble.is_none()))
            }),
        )?;
        page.gauge(
            "pgsteer_pooler_trouble",
            "1 with the reason of the pooler's trouble; no sample without trouble.",
            self.each_pooler().filter_map(|(member, port, state)| {
                let reason = [("reason", state.trouble.as_ref()?.code())];
                Some(((self.member(member), ([("port", port)], reason)), 1_u64))
            }),
        )
    }

    fn orders(&self, page: &mut Page<'_>) -> fmt::Result {
        let orders = || {
            self.snapshot.orders.iter().map(|order| {
                let service = order.target.service.as_ref().map_or("all", ServiceName::as_str);
                ((self.member(&order.target.member), [("service", service)]), order)
            })
        };
        page.gauge(
            "pgsteer_order_in_force",
            "1 for each order of an operator that drains the member; service is all without one.",
            orders().map(|(labels, _)| (labels, 1_u64)),
        )?;
        page.gauge(
            "pgsteer_order_seconds_left",
            "The time until the order expires; no sample if it lasts until it is withdrawn.",
            orders().filter_map(|(labels, order)| {
                Some((labels, order.until.as_ref()?.at.since(self.now).as_secs()))
            }),
        )
    }

    fn gates(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge(
            "pgsteer_gate_state",
            "1 for the state of the member's gate to the service, 0 for the other states.",
            self.each_gate().flat_map(|(service, member, gate)| {
                GateState::ALL.into_iter().map(move |state| {
                    let labels = (self.gate(service, member), [("state", state.as_str())]);
                    (labels, u64::from(gate.state() == state))
                })
            }),
        )?;
        page.gauge(
            "pgsteer_gate_reason",
            "1 with the reason of a gate that is not open, or of the note on an open gate.",
            self.each_gate().filter_map(|(service, member, gate)| {
                let reason = ("reason", gate.reason()?.code());
                Some(((self.gate(service, member), [reason]), 1_u64))
            }),
        )?;
        page.gauge(
            "pgsteer_service_open_gates",
            "Members with an open gate. While it is 0, the clients of the service wait.",
            self.each_service()
                .map(|(name, service)| (self.service(name), count(service.open().count()))),
        )
    }

    fn each_service(&self) -> impl Iterator<Item = (&ServiceName, &ServiceState)> {
        self.snapshot.services.iter()
    }

    fn each_gate(&self) -> impl Iterator<Item = (&ServiceName, &MemberName, &Gate)> {
        self.each_service().flat_map(|(service, state)| {
            state.gates.iter().map(move |(member, gate)| (service, member, gate))
        })
    }

    fn each_pooler(&self) -> impl Iterator<Item = (&MemberName, u32, &PoolerState)> {
        self.snapshot.members.iter().flat_map(|(name, member)| {
            member.poolers.iter().map(move |(port, state)| (name, u32::from(*port), state))
        })
    }

    fn cluster(&self) -> &str {
        self.snapshot.cluster.as_str()
    }

    fn member<'a>(&'a self, member: &'a MemberName) -> [Label<'a>; 2] {
        [("cluster", self.cluster()), ("member", member.as_str())]
    }

    fn service<'a>(&'a self, service: &'a ServiceName) -> [Label<'a>; 2] {
        [("cluster", self.cluster()), ("service", service.as_str())]
    }

    fn gate<'a>(&'a self, service: &'a ServiceName, member: &'a MemberName) -> [Label<'a>; 3] {
        [("cluster", self.cluster()), ("service", service.as_str()), ("member", member.as_str())]
    }
}

fn count(gauge: usize) -> u64 {
    u64::try_from(gauge).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::http::sample;

    fn page() -> String {
        let facts = Facts {
            snapshot: Arc::new(sample::snapshot()),
            stats: Arc::new(sample::stats()),
            now: sample::now().at,
            uptime: sample::now().uptime,
            heartbeat_age: Duration::from_millis(120),
        };
        let text = exposition(facts, Format::Open).unwrap();
        // The clock of the test runs on.
        let oldest = |line: &str| line.starts_with("pgsteer_oldest_hold_seconds{");
        let fixed = text.lines().map(|line| match line.rsplit_once(' ') {
            Some((sample, _)) if oldest(line) => format!("{sample} 2.5\n"),
            _ => format!("{line}\n"),
        });
        fixed.collect()
    }

    #[test]
    fn the_metrics_of_a_cluster_in_the_middle_of_a_switchover() {
        let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
        insta::assert_snapshot!(page().replace(&version, "version=\"1.2.3\""));
    }

    #[test]
    fn every_sample_is_complete_and_unique_and_belongs_to_the_family_above_it() {
        let page = page();
        let mut samples = BTreeSet::new();
        let mut family = "";
        for line in page.lines().take_while(|line| *line != "# EOF") {
            if let Some(described) = line.strip_prefix("# ") {
                family = described.split(' ').nth(1).unwrap();
                continue;
            }
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
            assert!(name.starts_with(family) && name.starts_with("pgsteer_"), "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(labels.ends_with('}'), "{line}");
            assert!(samples.insert(sample), "repeated: {line}");
        }
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn a_hostile_name_does_not_end_its_label() {
        assert!(page().contains("member=\"n3\\\\\\\"} 1\""));
    }

    #[test]
    fn the_documentation_lists_every_metric() {
        let documentation = include_str!("../../../../../docs/status.md");
        for line in page().lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let is_listed = |name: &str| documentation.contains(&format!("`{name}`"));
            assert!(is_listed(name) || base.is_some_and(is_listed), "{name}");
        }
    }
}

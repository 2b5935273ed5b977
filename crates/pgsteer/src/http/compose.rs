//! The status document as a pure function of the Snapshot, the counters and the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use pgsteer_core::advice::advice;
use pgsteer_core::claim::Failure;
use pgsteer_core::event;
use pgsteer_core::gate;
use pgsteer_core::identity::Identity;
use pgsteer_core::names::{MemberName, ServiceName};
use pgsteer_core::orders::DrainOrder;
use pgsteer_core::reason::Reason;
use pgsteer_core::skew::ClockOffset;
use pgsteer_core::snapshot::MembersFrom;
use pgsteer_core::snapshot::{EtcdState, MemberState, PoolerState, ServiceState, Snapshot};
use pgsteer_core::text::clean;
use pgsteer_core::time::Moment;

use super::haproxy::haproxys;
use crate::history::{Change, Past, Rate};
use crate::stats::{MemberStats, ServiceStats, Stats, Vip};
use crate::status::document::{
    self, Cause, Cluster, Document, Event, Gate, Member, Order, OtherCluster, Pooler, Service,
    Traffic, UrlTrouble,
};
use crate::status::stamp::Now;

/// The document of `snapshot`, `stats` and `past` at `now`.
pub fn compose(snapshot: &Snapshot, stats: &Stats, past: &Past, now: &Now) -> Document {
    Document {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now: now.stamp(now.at),
        uptime_seconds: now.uptime.as_secs(),
        stopping: stats.stopping.load(Relaxed),
        failed_upgrade: stats.failed_upgrade.last().map(|(at, why)| {
            let (at, why) = (now.stamp(at), clean(&why).into_owned());
            document::FailedUpgrade { at, why }
        }),
        generation: snapshot.generation,
        clusters: vec![cluster(snapshot, stats, past, now)],
        clients: count(&stats.clients),
        clients_turned_away_total: total(&stats.turned_away),
        clients_silent_closed_total: total(&stats.silent_closed),
        cancels_total: total(&stats.cancels),
        cancels_dropped_total: total(&stats.cancels_dropped),
        garbage_total: total(&stats.garbage),
        haproxys: haproxys(stats),
        vips: stats.vips.all().iter().map(|it| vip(it, now)).collect(),
        peers: peers(stats, now),
    }
}

fn peers(stats: &Stats, now: &Now) -> Vec<document::Peer> {
    let peers = stats.peers.all().into_iter();
    let shown = |(at, peer): (Option<Moment>, document::Peer)| document::Peer {
        asked_at: at.map(|at| now.stamp(at)),
        ..peer
    };
    peers.map(shown).collect()
}

fn vip(vip: &Vip, now: &Now) -> document::Vip {
    document::Vip {
        name: vip.name.to_string(),
        address: vip.address.clone(),
        interface: vip.interface.clone(),
        service: vip.service.to_string(),
        state: vip.holding.as_str().to_owned(),
        since: now.stamp(vip.since),
        why: vip.why.clone(),
        trouble: vip.trouble.clone(),
        duplicate: vip.duplicate.clone(),
        announced_at: vip.announced_at.map(|at| now.stamp(at)),
        added_total: vip.added_total,
        removed_total: vip.removed_total,
    }
}

fn cluster(snapshot: &Snapshot, stats: &Stats, past: &Past, now: &Now) -> Cluster {
    let members = &snapshot.members;
    let services = &snapshot.services;
    let etcd = snapshot.etcd.as_ref();
    Cluster {
        name: snapshot.cluster.to_string(),
        scope: snapshot.scope.clone(),
        system_identifier: snapshot.identity.known.system_identifier.clone(),
        members_from: members_from(snapshot).to_owned(),
        members_age_seconds: match snapshot.identity.members_from {
            MembersFrom::Stored { age } => Some((age + now.uptime).as_secs()),
            _ => None,
        },
        other_clusters: other_clusters(snapshot),
        paused: snapshot.paused,
        no_failover: services.values().any(|service| snapshot.awaits_resume(service)),
        etcd: etcd.map(|etcd| etcd_state(etcd).to_owned()),
        etcd_trouble: etcd.and_then(|etcd| Some(etcd.watch.as_ref().err()?.to_string())),
        etcd_behind: etcd.map(|etcd| etcd.is_behind),
        etcd_events_total: etcd.map(|etcd| etcd.events),
        etcd_read_at: etcd.and_then(|etcd| Some(now.stamp(etcd.read_at?))),
        members_trouble: snapshot.why_unlisted(),
        url_troubles: url_troubles(snapshot),
        members: members
            .iter()
            .map(|(name, state)| member(name, state, gates(name, services, (stats, past), now)))
            .collect(),
        services: services
            .iter()
            .map(|(name, state)| service(name, state, &stats.service(name), past))
            .collect(),
        changes: past.changes.all().map(|it| change(it, now)).collect(),
        events: snapshot.events.iter().map(|occurred| event(occurred, now)).collect(),
        orders: snapshot.orders.iter().map(|it| order(it, now)).collect(),
    }
}

fn order(order: &DrainOrder, now: &Now) -> Order {
    Order {
        member: order.target.member.to_string(),
        service: order.target.service.as_ref().map(ToString::to_string),
        by: order.by.to_string(),
        since: order.since.to_string(),
        until: order.until.as_ref().map(|until| until.shown.to_string()),
        seconds_left: order.until.as_ref().map(|until| until.at.since(now.at).as_secs()),
        why: order.why.as_ref().map(ToString::to_string),
        forced: order.is_forced,
        text: format!("{} is {order}", order.target),
    }
}

fn members_from(snapshot: &Snapshot) -> &'static str {
    match snapshot.identity.members_from {
        MembersFrom::Configuration => "configuration",
        MembersFrom::Cluster => "cluster",
        MembersFrom::Stored { .. } => "stored",
        MembersFrom::Urls => "urls",
    }
}

fn other_clusters(snapshot: &Snapshot) -> Vec<OtherCluster> {
    let strangers = snapshot.identity.strangers.iter();
    let other = |(url, found): (&Arc<str>, &Identity)| OtherCluster {
        url: url.to_string(),
        scope: found.scope.clone(),
        system_identifier: found.system_identifier.clone(),
    };
    strangers.map(other).collect()
}

fn url_troubles(snapshot: &Snapshot) -> Vec<UrlTrouble> {
    let trouble = |(url, failure): (&Arc<str>, &Failure)| UrlTrouble {
        url: url.to_string(),
        text: failure.to_string(),
    };
    snapshot.url_troubles.iter().map(trouble).collect()
}

fn etcd_state(etcd: &EtcdState) -> &'static str {
    match etcd.watch {
        Ok(()) => "watched",
        Err(_) => "lost",
    }
}

fn member(name: &MemberName, state: &MemberState, services: BTreeMap<String, Gate>) -> Member {
    Member {
        name: name.to_string(),
        host: state.postgres.host().to_owned(),
        port: state.postgres.port(),
        same_as: state.same_as.as_ref().map(ToString::to_string),
        role: state.role.to_string(),
        timeline: state.timeline,
        lag_bytes: state.lag_bytes,
        lag_seconds: state.lag.as_ref().map(Duration::as_secs_f64),
        load_percent: state.load_percent,
        clock_offset_seconds: state.clock_offset.map(ClockOffset::as_secs_f64),
        trouble: state.trouble.as_ref().map(cause),
        advice: advice_on(state.trouble.as_ref()),
        listed: state.listed,
        rogue: state.rogue,
        poolers: state.poolers.iter().map(|(port, state)| pooler(*port, state)).collect(),
        tags: state.tags.clone(),
        addresses: state.addresses.iter().map(ToString::to_string).collect(),
        address_trouble: state.address_failure.as_ref().map(ToString::to_string),
        services,
    }
}

fn pooler(port: u16, state: &PoolerState) -> Pooler {
    Pooler {
        port,
        leads_to: state.leads_to.map(|role| role.to_string()),
        trouble: state.trouble.as_ref().map(cause),
        advice: advice_on(state.trouble.as_ref()),
    }
}

fn advice_on(reason: Option<&Reason>) -> Option<String> {
    Some(advice(reason?)?.to_owned())
}

fn change(change: &Change, now: &Now) -> document::Change {
    document::Change {
        kind: change.kind.code().to_owned(),
        services: change.services.iter().map(ToString::to_string).collect(),
        from: change.from.as_ref().map(ToString::to_string),
        to: change.to.as_ref().map(ToString::to_string),
        at: now.stamp(change.at),
        until: change.until.map(|until| now.stamp(until)),
        unserved_seconds: change.unserved(now.at).as_secs_f64(),
        held: change.seen.held,
        longest_hold_seconds: change.seen.longest_hold.as_secs_f64(),
        sessions_ended: change.seen.ended,
        refused: change.seen.refused,
        why: change.why.clone(),
        text: change.text(now.at),
    }
}

fn gates(
    member: &MemberName,
    services: &BTreeMap<ServiceName, ServiceState>,
    (stats, past): (&Stats, &Past),
    now: &Now,
) -> BTreeMap<String, Gate> {
    services
        .iter()
        .filter_map(|(name, service)| {
            let state = service.gates.get(member)?;
            let rate = past.rates.gate(name, member);
            Some((name.to_string(), gate(state, &stats.service(name).member(member), rate, now)))
        })
        .collect()
}

fn gate(state: &gate::Gate, stats: &MemberStats, rate: Rate, now: &Now) -> Gate {
    Gate {
        gate: state.state().to_string(),
        reason: state.reason().map(cause),
        advice: advice_on(state.reason()),
        since: now.stamp(state.since()),
        sessions: count(&stats.sessions),
        sessions_total: total(&stats.sessions_total),
        sessions_ended_total: total(&stats.ended_total),
        failed_total: total(&stats.failed_total),
        traffic: traffic([total(&stats.bytes_in), total(&stats.bytes_out)], rate),
    }
}

fn traffic([bytes_in_total, bytes_out_total]: [u64; 2], rate: Rate) -> Traffic {
    Traffic {
        bytes_in_total,
        bytes_out_total,
        bytes_in_per_second: rate.bytes_in,
        bytes_out_per_second: rate.bytes_out,
        new_sessions_per_second: rate.sessions,
    }
}

fn service(name: &ServiceName, state: &ServiceState, stats: &ServiceStats, past: &Past) -> Service {
    let members: Vec<_> = state.gates.keys().map(|member| stats.member(member)).collect();
    let sum = |read: fn(&MemberStats) -> u64| members.iter().map(|it| read(it)).sum::<u64>();
    let bytes = [sum(|it| total(&it.bytes_in)), sum(|it| total(&it.bytes_out))];
    let rate = past.rates.service(name);
    Service {
        name: name.to_string(),
        role: state.role.to_string(),
        held: u64::try_from(stats.holds.clients()).unwrap_or(u64::MAX),
        oldest_hold_seconds: stats.holds.oldest().map(|oldest| oldest.as_secs_f64()),
        queued: count(&stats.queued),
        sessions: sum(|it| count(&it.sessions)),
        sessions_total: sum(|it| total(&it.sessions_total)),
        sessions_max: Some(count(&stats.sessions_max)).filter(|max| *max > 0),
        member_sessions_max: Some(count(&stats.member_sessions_max)).filter(|max| *max > 0),
        held_total: total(&stats.holds.clients_total),
        held_seconds_total: Duration::from_millis(total(&stats.holds.ended_ms_total)).as_secs_f64(),
        refused_total: total(&stats.refused_total),
        refused_per_second: rate.refused,
        traffic: traffic(bytes, rate),
        open: state.open().map(ToString::to_string).collect(),
    }
}

fn event(occurred: &event::Event, now: &Now) -> Event {
    let kind = &occurred.kind;
    Event {
        at: now.stamp(occurred.at),
        kind: kind.code().to_owned(),
        text: kind.to_string(),
        member: kind.member().map(ToString::to_string),
        service: kind.service().map(ToString::to_string),
        reason: kind.reason().map(cause),
    }
}

fn cause(reason: &Reason) -> Cause {
    Cause { code: reason.code().to_owned(), text: reason.to_string() }
}

fn total(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

fn count(gauge: &AtomicUsize) -> u64 {
    u64::try_from(gauge.load(Relaxed)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use pgsteer_core::claim::Role;
    use pgsteer_core::event::EventKind;
    use pgsteer_core::gate_key::GateKey;
    use serde_json::Value;

    use super::*;
    use crate::http::sample;

    #[test]
    fn the_document_of_a_cluster_in_the_middle_of_a_switchover() {
        let document = sample::document_of(&sample::snapshot());
        let json = serde_json::to_string_pretty(&document).unwrap();
        insta::assert_snapshot!(json);
        assert_eq!(serde_json::from_str::<Document>(&json).unwrap(), document);
    }

    #[test]
    fn a_path_of_the_agent_is_of_a_member_and_of_no_service() {
        let kind = EventKind::Gate {
            key: GateKey::Pooled(Role::Primary),
            member: MemberName::new("n1").unwrap(),
            now: gate::GateState::Shut,
            reason: Some(Reason::PoolerUnheard { port: 6432, for_more_than: None }),
        };
        let shown = event(&event::Event { at: Moment::START, kind }, &sample::now());
        assert_eq!((shown.member.as_deref(), shown.service), (Some("n1"), None));
        assert_eq!(shown.reason.map(|reason| reason.code).as_deref(), Some("pooler_unheard"));
        assert!(shown.text.contains("the pooler on n1 to a primary is shut"), "{}", shown.text);
    }

    #[test]
    fn a_reader_ignores_unknown_fields() {
        let document = sample::document_of(&sample::snapshot());
        let mut json = serde_json::to_value(&document).unwrap();
        json["clusters"][0]["members"][0]["mood"] = "good".into();
        assert_eq!(serde_json::from_value::<Document>(json).unwrap(), document);
    }

    #[test]
    fn the_documentation_lists_every_field() {
        let documentation = include_str!("../../../../docs/status.md");
        let document = sample::document_of(&sample::snapshot());
        for field in fields(&serde_json::to_value(&document).unwrap()) {
            let is_listed =
                ["`", "\""].iter().any(|q| documentation.contains(&format!("{q}{field}{q}")));
            assert!(is_listed, "{field}");
        }
    }

    #[test]
    fn the_documentation_lists_every_reason() {
        let documentation = include_str!("../../../../docs/status.md");
        for code in Reason::CODES {
            assert!(documentation.contains(&format!("`{code}`")), "{code}");
        }
    }

    /// The names of all fields, but not the names that members, services and tags have.
    fn fields(value: &Value) -> Vec<String> {
        match value {
            Value::Array(items) => items.iter().flat_map(fields).collect(),
            Value::Object(items) => items
                .iter()
                .flat_map(|(name, item)| match (name.as_str(), item) {
                    ("tags", _) => vec![name.clone()],
                    ("services", Value::Object(gates)) => {
                        [vec![name.clone()], gates.values().flat_map(fields).collect()].concat()
                    }
                    _ => [vec![name.clone()], fields(item)].concat(),
                })
                .collect(),
            _ => Vec::new(),
        }
    }
}

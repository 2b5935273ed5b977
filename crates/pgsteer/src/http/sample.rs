//! A hand-made cluster for tests, in the middle of a switchover.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, UNIX_EPOCH};

use pgsteer_core::claim::{Failure, Role, Speaker, Tags};
use pgsteer_core::event::{Event, EventKind};
use pgsteer_core::gate::{Gate, GateState, Note, OpenGate, Sessions};
use pgsteer_core::gate_key::GateKey;
use pgsteer_core::identity::Identity;
use pgsteer_core::names::{ClusterName, Endpoint, MemberName, ServiceName};
use pgsteer_core::orders::{DrainOrder, DrainTarget, OrderText, Orders, Until};
use pgsteer_core::reason::Reason;
use pgsteer_core::skew::ClockOffset;
use pgsteer_core::snapshot::MembersFrom;
use pgsteer_core::snapshot::{
    EtcdState, Health, IdentityState, MemberState, PoolerState, ServiceState, Snapshot,
};
use pgsteer_core::time::Moment;
use pgsteer_core::verdict::Cause;

use super::compose::compose;
use crate::history::{Counters, Past};
use crate::stats::Stats;
use crate::status::document::Document;
use crate::status::stamp::Now;

/// A name that would end its label if it were not escaped.
pub const HOSTILE: &str = "n3\\\"} 1";

pub fn now() -> Now {
    Now {
        at: Moment::from_millis(3_725_250),
        wall: UNIX_EPOCH + Duration::from_millis(1_783_166_400_250),
        uptime: Duration::from_millis(3_725_250),
    }
}

pub fn snapshot() -> Snapshot {
    Snapshot {
        generation: 42,
        at: at(3_725_000),
        cluster: ClusterName::new("demo").unwrap(),
        scope: Some("batman".to_owned()),
        identity: identity(),
        paused: true,
        etcd: Some(EtcdState { events: 3, read_at: Some(at(3_722_750)), ..EtcdState::default() }),
        unlisted: BTreeMap::new(),
        url_troubles: BTreeMap::from([(
            Arc::from("http://10.0.0.11:5432"),
            Failure::Closed(Arc::from("http://10.0.0.11:5432/patroni")),
        )]),
        local: None,
        members: members(),
        services: [(service("write"), write()), (service("read"), read())].into(),
        events: events(),
        orders: orders(),
    }
}

pub fn stats() -> Stats {
    let stats = Stats::default();
    stats.clients.store(11, Relaxed);
    stats.turned_away.store(2, Relaxed);
    stats.silent_closed.store(6, Relaxed);
    stats.cancels.store(3, Relaxed);
    stats.cancels_dropped.store(1, Relaxed);
    stats.garbage.store(1, Relaxed);
    let write = stats.service(&service("write"));
    for _ in 0..4 {
        write.holds.begin();
    }
    write.queued.store(3, Relaxed);
    write.set_limits(None, Some(100));
    write.holds.clients_total.store(9, Relaxed);
    write.holds.ended_ms_total.store(1_250, Relaxed);
    write.refused_total.store(1, Relaxed);
    let old = write.member(&member("n1"));
    old.sessions_total.store(120, Relaxed);
    old.ended_total.store(5, Relaxed);
    old.failed_total.store(2, Relaxed);
    let reader = stats.service(&service("read")).member(&member("n2"));
    reader.sessions.store(7, Relaxed);
    reader.sessions_total.store(70, Relaxed);
    reader.count_bytes(1_000, 1_000_000);
    stats
}

/// A switchover an hour ago, and the rates of the last second.
pub fn past() -> Past {
    let mut past = Past::default();
    let (mut before, after) = (snapshot(), calm());
    let gate = Gate::Open(OpenGate::new(at(0), 1));
    before.services.get_mut("write").unwrap().gates.insert(member("n1"), gate);
    let counters = |held: u64| Counters {
        held,
        ended: held / 4,
        longest_hold: Duration::from_millis(200 * held),
        refused: 0,
    };
    past.changes.observe(&before, at(120_000), |_| counters(0));
    past.changes.observe(&snapshot(), at(125_000), |_| counters(0));
    past.changes.observe(&after, at(127_400), |_| counters(12));
    let stats = stats();
    let reader = stats.service(&service("read")).member(&member("n2"));
    past.rates.observe(&before, &stats, at(3_724_000));
    reader.count_bytes(2_000, 150_000);
    past.rates.observe(&before, &stats, at(3_725_000));
    past
}

/// The document of `snapshot`, with a fixed version.
pub fn document_of(snapshot: &Snapshot) -> Document {
    let mut document = compose(snapshot, &stats(), &past(), &now());
    document.version = "1.2.3".to_owned();
    // The clock of the test runs on.
    for service in document.clusters.iter_mut().flat_map(|cluster| &mut cluster.services) {
        service.oldest_hold_seconds = service.oldest_hold_seconds.map(|_| 2.5);
    }
    document
}

/// The same cluster after the switchover.
pub fn calm() -> Snapshot {
    let mut snapshot = snapshot();
    snapshot.paused = false;
    snapshot.orders = Orders::default();
    if let Some(write) = snapshot.services.get_mut("write") {
        write.gates.insert(member("n2"), Gate::Open(OpenGate::new(at(3_725_100), 43)));
    }
    snapshot
}

fn at(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

fn member(name: &str) -> MemberName {
    MemberName::new(name).unwrap()
}

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

fn refused() -> Failure {
    Failure::Unavailable {
        by: Speaker::postgres("10.0.0.11:5432"),
        sqlstate: Arc::from("57P01"),
        message: Arc::from("terminating\nconnection \"now\"\u{1b}[31m"),
    }
}

fn pooler_down() -> Reason {
    Reason::PoolerDown { port: 6433, failure: Failure::Refused(Arc::from("fd00::12:6433")) }
}

fn identity() -> IdentityState {
    let other =
        Identity { system_identifier: Some("7002".to_owned()), ..Identity::of_scope("robin") };
    IdentityState {
        known: Identity {
            system_identifier: Some("7001".to_owned()),
            ..Identity::of_scope("batman")
        },
        members_from: MembersFrom::Stored { age: Duration::from_secs(60) },
        strangers: BTreeMap::from([(Arc::from("http://10.0.0.99:8008"), other)]),
        dispute: None,
    }
}

fn state(host: &str, role: Role) -> MemberState {
    MemberState {
        postgres: Endpoint::new(host, 5432).unwrap(),
        patroni_url: Some(Arc::from(format!("http://{host}:8008"))),
        same_as: None,
        also_at: Vec::new(),
        addresses: host.parse().into_iter().collect(),
        address_failure: None,
        role,
        trouble: None,
        promoting: false,
        awaits_first_report: false,
        listed: true,
        rogue: false,
        timeline: None,
        lag_bytes: None,
        lag: None,
        load_percent: None,
        clock_offset: None,
        poolers: BTreeMap::new(),
        tags: Tags::new(),
        health: Health::default(),
    }
}

fn members() -> BTreeMap<MemberName, MemberState> {
    let old =
        MemberState { trouble: Some(Reason::Down(refused())), ..state("10.0.0.11", Role::Unknown) };
    let new = MemberState {
        trouble: Some(Reason::Promoting),
        promoting: true,
        timeline: Some(4),
        lag_bytes: Some(1_258_291),
        lag: Some(Duration::from_millis(340)),
        load_percent: Some(30),
        clock_offset: Some(ClockOffset::from_micros(-3_600_000_000)),
        poolers: [
            (6432, PoolerState { leads_to: Some(Role::Replica), trouble: None }),
            (6433, PoolerState { leads_to: None, trouble: Some(pooler_down()) }),
        ]
        .into(),
        tags: [("zone".to_owned(), "a \"b\"".to_owned())].into(),
        ..state("fd00::12", Role::Replica)
    };
    let third = MemberState {
        timeline: Some(3),
        address_failure: Some(Failure::Unresolved(Arc::from("pg3.example"))),
        ..state("pg3.example", Role::Replica)
    };
    [(member("n1"), old), (member("n2"), new), (member(HOSTILE), third)].into()
}

fn write() -> ServiceState {
    let cause = Cause::Member;
    let shut = |reason, since, sessions| Gate::Shut { cause, reason, since: at(since), sessions };
    let gates = [
        (member("n1"), shut(Reason::Down(refused()), 3_725_000, Sessions::End)),
        (member("n2"), shut(Reason::Promoting, 3_724_900, Sessions::Keep)),
        (
            member(HOSTILE),
            shut(
                Reason::WrongRole { is: Role::Replica, wants: Role::Primary },
                125_250,
                Sessions::Keep,
            ),
        ),
    ];
    ServiceState { role: Role::Primary, lag_bytes_max: None, gates: gates.into() }
}

fn read() -> ServiceState {
    let lost = Reason::PatroniLost(
        Failure::Refused(Arc::from("http://fd00::12:8008")),
        Duration::from_secs(60),
    );
    let gates = [
        (member("n1"), Gate::Probation { since: at(3_725_200) }),
        (
            member("n2"),
            Gate::Open(OpenGate {
                note: Some(Note { reason: lost, since: at(3_700_000), expires: None }),
                ..OpenGate::new(at(65_250), 2)
            }),
        ),
        (
            member(HOSTILE),
            Gate::Draining { cause: Cause::Lag, reason: Reason::LagUnknown, since: at(3_662_250) },
        ),
    ];
    ServiceState { role: Role::Replica, lag_bytes_max: None, gates: gates.into() }
}

fn orders() -> Orders {
    let order = |name: &str, for_service: Option<&str>, until: Option<Until>| DrainOrder {
        target: DrainTarget { member: member(name), service: for_service.map(service) },
        until,
        why: Some(OrderText::new("new disk")),
        by: OrderText::new("ann"),
        since: OrderText::new("2026-07-04T09:00:00Z"),
        is_forced: false,
    };
    let until = Until { at: at(4_000_000), shown: OrderText::new("2026-07-04T10:04:35Z") };
    Orders::of([order("n2", None, Some(until)), order("n2", Some("read"), None)])
}

fn events() -> VecDeque<Event> {
    let gate = |service_name, now, reason| EventKind::Gate {
        key: GateKey::Service(service(service_name)),
        member: member("n1"),
        now,
        reason,
    };
    let kinds = [
        (
            10,
            EventKind::Joined {
                member: member("n1"),
                postgres: Endpoint::new("10.0.0.11", 5432).unwrap(),
            },
        ),
        (3_600_000, EventKind::Paused(true)),
        (
            3_600_500,
            EventKind::AddressLost {
                member: member(HOSTILE),
                failure: Failure::Unresolved(Arc::from("pg3.example")),
            },
        ),
        (
            3_725_000,
            EventKind::Role {
                member: member("n1"),
                was: Role::Primary,
                is: Role::Unknown,
                timeline: Some(3),
            },
        ),
        (3_725_000, gate("write", GateState::Shut, Some(Reason::Down(refused())))),
        (3_725_200, gate("read", GateState::Probation, Some(Reason::Confirming))),
    ];
    kinds.into_iter().map(|(millis, kind)| Event { at: at(millis), kind }).collect()
}

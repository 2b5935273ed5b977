//! Hand-made clusters for tests: one for each state that the page has to show well.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fill::Input;
use super::past::Curves;
use super::timeline::{MemberPast, Span};
use super::view::ConfigShown;
use crate::http::past::Range;
use crate::status::document::{
    Cause, Cluster, Document, Event, Gate, Member, Peer, Pooler, Service, Traffic,
};
use crate::status::stamp::Stamp;

/// A cluster with its past.
pub struct Scene {
    pub name: &'static str,
    pub document: Document,
    pub pasts: Vec<MemberPast>,
    pub curves: Curves,
}

impl Scene {
    pub fn input<'a>(&'a self, config: &'a ConfigShown) -> Input<'a> {
        let (document, pasts, curves) = (&self.document, self.pasts.as_slice(), &self.curves);
        Input {
            document,
            config,
            pasts,
            curves,
            range: Range::TenMinutes,
            engine_age: Duration::ZERO,
        }
    }
}

pub fn config() -> ConfigShown {
    let listen = [("write", "0.0.0.0:5000"), ("read", "0.0.0.0:5001")];
    ConfigShown {
        lines: vec![
            "cluster demo: members from Patroni at http://10.0.0.11:8008".to_owned(),
            "write on 0.0.0.0:5000 → primary, hold 30 s".to_owned(),
            "read on 0.0.0.0:5001 → replica, hold 30 s, lag at most 16 MB".to_owned(),
        ],
        listen: listen.map(|(name, at)| (name.to_owned(), at.to_owned())).into(),
    }
}

/// All scenes.
pub fn all() -> Vec<Scene> {
    vec![well(), switchover(), no_primary(), lagging(), split_brain(), many(64)]
}

pub fn well() -> Scene {
    scene("well", three(), Vec::new())
}

pub fn switchover() -> Scene {
    let mut members = three();
    let [old, new, _] = members.as_mut_slice() else { return scene("switchover", members, vec![]) };
    old.role = "unknown".to_owned();
    old.trouble = cause(
        "down",
        "PostgreSQL at 10.0.0.11:5432: 57P01 terminating connection due to administrator command",
    );
    set(old, "write", "shut", old.trouble.clone(), 0);
    set(old, "read", "shut", old.trouble.clone(), 0);
    new.trouble = cause(
        "promoting",
        "promotion under way: it holds the leader lock and is still in recovery",
    );
    new.timeline = Some(4);
    set(new, "write", "shut", new.trouble.clone(), 0);
    let mut scene = scene(
        "switchover",
        members,
        vec![
            event(
                6,
                "gate",
                "write gate of pg1 is shut: PostgreSQL at 10.0.0.11:5432: 57P01 terminating connection",
            ),
            event(3, "role", "pg1 is unknown, was primary (timeline 3)"),
            event(1, "gate", "write gate of pg2 is shut: promotion under way"),
        ],
    );
    hold(&mut scene, 12);
    scene.pasts[0].roles = spans(&[(600, 6, "primary"), (6, 0, "unknown")]);
    scene.pasts[0].gates[0].1 = spans(&[(600, 6, "open"), (6, 0, "shut")]);
    scene
}

pub fn no_primary() -> Scene {
    let mut members = three();
    let down = cause("down", "PostgreSQL at 10.0.0.11:5432: connection refused");
    members[0].role = "unknown".to_owned();
    members[0].trouble = down.clone();
    set(&mut members[0], "write", "shut", down.clone(), 0);
    set(&mut members[0], "read", "shut", down, 0);
    let mut scene = scene(
        "no-primary",
        members,
        vec![event(40, "gate", "write gate of pg1 is shut: connection refused")],
    );
    hold(&mut scene, 140);
    scene.document.clusters[0].paused = true;
    scene.document.clusters[0].no_failover = true;
    scene.pasts[0].roles = spans(&[(600, 40, "primary"), (40, 0, "unknown")]);
    scene.pasts[0].gates[0].1 = spans(&[(600, 40, "open"), (40, 0, "shut")]);
    scene
}

pub fn lagging() -> Scene {
    let mut members = three();
    let lag = cause("lag_bytes", "lag 48 MB exceeds lag_bytes_max 16 MB");
    members[2].lag_bytes = Some(48 << 20);
    members[2].lag_seconds = Some(9.2);
    set(&mut members[2], "read", "draining", lag, 31);
    let mut scene = scene(
        "lagging",
        members,
        vec![event(
            90,
            "gate",
            "read gate of pg3 is draining: lag 48 MB exceeds lag_bytes_max 16 MB",
        )],
    );
    scene.pasts[2].gates[1].1 = spans(&[(600, 90, "open"), (90, 0, "draining")]);
    scene
}

pub fn split_brain() -> Scene {
    let mut members = three();
    let split = cause(
        "split_brain",
        "pg1 and pg2 both take writes; writes are blocked until one of them is stopped",
    );
    for member in &mut members[..2] {
        member.role = "primary".to_owned();
        member.rogue = true;
        member.trouble = split.clone();
        set(member, "write", "shut", split.clone(), 0);
    }
    set(&mut members[1], "read", "shut", split, 0);
    let mut scene = scene(
        "split-brain",
        members,
        vec![event(2, "gate", "write gate of pg1 is shut: pg1 and pg2 both take writes")],
    );
    hold(&mut scene, 31);
    scene
}

pub fn many(count: usize) -> Scene {
    let mut members: Vec<Member> =
        (1..=count).map(|n| member(&format!("pg{n:02}"), n == 1)).collect();
    let last = count - 1;
    set(
        &mut members[last],
        "read",
        "draining",
        cause("lag_bytes", "lag 48 MB exceeds lag_bytes_max 16 MB"),
        3,
    );
    scene("many", members, Vec::new())
}

/// The cluster of `members`, which three services serve.
fn scene(name: &'static str, members: Vec<Member>, mut events: Vec<Event>) -> Scene {
    events.insert(0, event(3_000, "joined", "pg1 at 10.0.0.11:5432 is a member"));
    let pasts: Vec<MemberPast> = members.iter().map(past).collect();
    let services =
        vec![service("read", "replica", &members), service("write", "primary", &members)];
    let json = serde_json::json!({
        "version": "0.9.0", "now": now(), "uptime_seconds": 183_000, "generation": 42,
        "clients": 131, "clients_turned_away_total": 0, "cancels_total": 3, "garbage_total": 0,
        "clusters": [{
            "name": "demo", "scope": "batman", "system_identifier": "7321", "members_from": "cluster",
            "paused": false, "members": members, "services": services, "events": events,
            "etcd": "watched", "etcd_events_total": 12,
        }],
    });
    let wave = |top: f32| (0_u16..600).map(|n| (f32::from(n % 97) / 97.0 + 1.0) * top).collect();
    let curves = Curves {
        services: [("write", 40.0), ("read", 20.0)]
            .map(|(name, top)| (name.to_owned(), wave(top)))
            .into(),
        members: pasts.iter().map(|past| (past.member.clone(), wave(9.0))).collect(),
    };
    Scene { name, document: serde_json::from_value(json).unwrap(), pasts, curves }
}

fn three() -> Vec<Member> {
    vec![member("pg1", true), member("pg2", false), member("pg3", false)]
}

pub fn now() -> Stamp {
    Stamp::of_unix_millis(1_783_166_530_250)
}

fn ago(seconds: u64) -> Stamp {
    Stamp::of_unix_millis(now().unix_millis() - seconds * 1_000)
}

fn cause(code: &str, text: &str) -> Option<Cause> {
    Some(Cause { code: code.to_owned(), text: text.to_owned() })
}

fn member(name: &str, is_primary: bool) -> Member {
    let number = name.trim_start_matches("pg");
    let mut member: Member = serde_json::from_value(serde_json::json!({
        "name": name, "host": format!("10.0.0.1{number}"), "port": 5432,
        "role": if is_primary { "primary" } else { "replica" }, "timeline": 3,
        "lag_bytes": if is_primary { None } else { Some(81_920) },
        "lag_seconds": if is_primary { None } else { Some(0.012) },
        "load_percent": 20, "trouble": null, "tags": {}, "addresses": [], "address_trouble": null,
        "services": {},
    }))
    .unwrap();
    let wrong = |is: &str, wants: &str| {
        cause("wrong_role", &format!("member is a {is}; service requires a {wants}"))
    };
    let (write, read) = match is_primary {
        true => (("open", None, 84), ("shut", wrong("primary", "replica"), 0)),
        false => (("shut", wrong("replica", "primary"), 0), ("open", None, 23)),
    };
    for (service, (state, reason, sessions)) in [("write", write), ("read", read)] {
        set(&mut member, service, state, reason, sessions);
    }
    member
}

fn set(member: &mut Member, service: &str, state: &str, reason: Option<Cause>, sessions: u64) {
    let traffic = Traffic {
        bytes_in_per_second: 3_100.0 * as_f64(sessions),
        bytes_out_per_second: 41_000.0 * as_f64(sessions),
        new_sessions_per_second: 0.13 * as_f64(sessions),
        ..Traffic::default()
    };
    let gate = Gate {
        gate: state.to_owned(),
        advice: reason
            .as_ref()
            .filter(|cause| cause.code != "wrong_role")
            .map(|_| "find out what delays its replay".to_owned()),
        traffic,
        reason,
        since: ago(130),
        sessions,
        sessions_total: 10_000 + sessions,
        sessions_ended_total: 0,
        failed_total: 0,
    };
    member.services.insert(service.to_owned(), gate);
}

fn as_f64(count: u64) -> f64 {
    u32::try_from(count).map_or(0.0, f64::from)
}

fn service(name: &str, role: &str, members: &[Member]) -> Service {
    let is_open = |member: &&Member| member.services[name].gate == "open";
    let open: Vec<&str> =
        members.iter().filter(is_open).map(|member| member.name.as_str()).collect();
    let sessions: u64 = members.iter().map(|member| member.services[name].sessions).sum();
    serde_json::from_value(serde_json::json!({
        "name": name, "role": role, "held": 0, "held_total": 9, "held_seconds_total": 1.25,
        "refused_total": 0, "open": open, "sessions": sessions,
        "new_sessions_per_second": 6.0, "bytes_in_per_second": 260_000.0, "bytes_out_per_second": 3.4e6,
    }))
    .unwrap()
}

fn hold(scene: &mut Scene, clients: u64) {
    let service = &mut scene.document.clusters[0].services[1];
    service.held = clients;
    service.oldest_hold_seconds = Some(2.14);
}

fn event(seconds_ago: u64, kind: &str, text: &str) -> Event {
    Event {
        at: ago(seconds_ago),
        kind: kind.to_owned(),
        text: text.to_owned(),
        member: None,
        service: None,
        reason: None,
    }
}

fn past(member: &Member) -> MemberPast {
    let is_primary = member.role == "primary";
    let (write, read) = if is_primary { ("open", "idle") } else { ("idle", "open") };
    MemberPast {
        member: member.name.clone(),
        roles: spans(&[(600, 0, if is_primary { "primary" } else { "replica" })]),
        gates: vec![
            ("write".to_owned(), spans(&[(600, 0, write)])),
            ("read".to_owned(), spans(&[(600, 0, read)])),
        ],
    }
}

fn spans(of: &[(u64, u64, &'static str)]) -> Vec<Span> {
    let span = |(from, until, class): &(u64, u64, &'static str)| Span {
        from: ago(*from),
        until: (*until > 0).then(|| ago(*until)),
        class,
        word: (*class).to_owned(),
    };
    of.iter().map(span).collect()
}

/// A cluster whose names and messages try to break out of the page.
pub fn hostile(text: &str) -> Scene {
    let mut members = three();
    members[1].name = text.to_owned();
    members[1].role = text.to_owned();
    members[1].host = text.to_owned();
    members[1].trouble = cause(text, text);
    members[1].poolers = vec![Pooler {
        port: 1,
        advice: Some(text.to_owned()),
        leads_to: Some(text.to_owned()),
        trouble: cause(text, text),
    }];
    members[1].tags = BTreeMap::from([(text.to_owned(), text.to_owned())]);
    set(&mut members[1], "write", text, cause(text, text), 1);
    let mut scene = scene("hostile", members, vec![event(1, text, text)]);
    let peer = Peer { url: text.to_owned(), error: Some(text.to_owned()), ..Peer::default() };
    scene.document.peers = vec![peer];
    let cluster: &mut Cluster = &mut scene.document.clusters[0];
    cluster.name = text.to_owned();
    cluster.scope = Some(text.to_owned());
    cluster.etcd = Some("lost".to_owned());
    cluster.etcd_trouble = Some(text.to_owned());
    cluster.members_trouble = Some(text.to_owned());
    scene.pasts[1].member = text.to_owned();
    scene
}

//! The state of the cluster in words: one sentence, and what needs attention.

use std::time::Duration;

use pgsteer_core::snapshot::NO_FAILOVER;

use super::look::{GateLook, Level};
use super::texts::{cut, plural, seconds};
use super::view::{State, StateLine};
use crate::heartbeat::Heartbeat;
use crate::status::document::{Cluster, Document, Gate, Member, Service};

/// The most details that are shown.
const LINES_MAX: usize = 6;

/// The longest detail, in characters.
const TEXT_CHARS_MAX: usize = 220;

/// The reasons that explain best why a service has no member, best first.
const EXPLAINING: [&str; 6] =
    ["split_brain", "not_leader", "switchover_planned", "promoting", "confirming", "down"];

/// The state of `document`, whose engine ran `engine_age` ago.
pub fn state(document: &Document, engine_age: Duration) -> State {
    let mut lines: Vec<StateLine> = Vec::new();
    if engine_age >= Heartbeat::STUCK_AFTER {
        let text =
            format!("the engine last ran {} s ago, so this page is old", engine_age.as_secs());
        lines.push(StateLine { level: Level::Bad, ..note("pgsteer", &text) });
    }
    for cluster in &document.clusters {
        lines.extend(cluster.services.iter().filter_map(|service| unserved(cluster, service)));
        lines.extend(dangers(cluster));
        lines.extend(cluster_notes(cluster));
        lines.extend(member_notes(cluster));
    }
    if document.stopping {
        lines.push(note("pgsteer", "it is stopping: sessions continue, new clients are refused"));
    }
    lines.sort_by_key(|line| std::cmp::Reverse(line.level));
    let level = lines.iter().map(|line| line.level).max().unwrap_or(Level::Well);
    let shut: Vec<&str> = document.clusters.iter().flat_map(shut_services).collect();
    let (sentence, spoken) = sentences(level, &shut, &lines);
    if lines.is_empty() {
        lines.extend(document.clusters.iter().flat_map(served));
    }
    let cluster = document.clusters.first().map_or("", |cluster| cluster.name.as_str());
    let more = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    let mark = match level {
        Level::Well => "\u{25cf}",
        Level::Note => "\u{25b2}",
        Level::Bad => "\u{25a0}",
    };
    let tab = format!("{mark} {}: {spoken}", cut(cluster, 40));
    State { level, sentence, spoken, tab, lines, more }
}

fn shut_services(cluster: &Cluster) -> impl Iterator<Item = &str> {
    cluster
        .services
        .iter()
        .filter(|service| service.open.is_empty())
        .map(|service| service.name.as_str())
}

/// Who serves each service, writers first.
fn served(cluster: &Cluster) -> Vec<StateLine> {
    let mut services: Vec<&Service> = cluster.services.iter().collect();
    services.sort_by_key(|service| service.role != "primary");
    let line = |service: &&Service| StateLine {
        level: Level::Well,
        subject: cut(&service.name, 40),
        text: match service.open.as_slice() {
            few @ ([] | [_] | [_, _] | [_, _, _]) => cut(&few.join(", "), TEXT_CHARS_MAX),
            many => format!("{} members", many.len()),
        },
        advice: None,
    };
    services.iter().map(line).collect()
}

/// The sentence, and the same without figures.
fn sentences(level: Level, shut: &[&str], lines: &[StateLine]) -> (String, String) {
    let things = plural(lines.len(), "thing needs", "things need");
    match (level, shut) {
        (Level::Well, _) => {
            ("All services are served".to_owned(), "all services are served".to_owned())
        }
        (_, []) if level == Level::Note => (
            format!("All services are served; {things} attention"),
            "all services are served, something needs attention".to_owned(),
        ),
        (_, []) => {
            let text = lines.first().map_or(String::new(), |line| line.text.clone());
            (format!("Danger: {text}"), format!("danger: {}", cut(&text, 80)))
        }
        (_, [one]) => {
            let text = format!("{} is not served: no member is open", cut(one, 40));
            (text.clone(), text)
        }
        (_, many) => {
            let text = format!("{} are not served: no member is open", cut(&many.join(", "), 80));
            (text.clone(), text)
        }
    }
}

/// A service without an open gate.
fn unserved(cluster: &Cluster, service: &Service) -> Option<StateLine> {
    if !service.open.is_empty() {
        return None;
    }
    let waiting = waiting(service).map(|waiting| format!("{waiting}. ")).unwrap_or_default();
    let found = explaining_gate(cluster, service);
    let why = match &found {
        Some((member, gate)) => {
            let reason = gate.reason.as_ref().map_or("", |cause| cause.text.as_str());
            format!("{member}: {reason}")
        }
        None => "no member is known yet".to_owned(),
    };
    Some(StateLine {
        level: Level::Bad,
        subject: cut(&service.name, 40),
        text: cut(&format!("{waiting}{why}"), TEXT_CHARS_MAX),
        advice: found.and_then(|(_, gate)| advice(gate.advice.as_ref())),
    })
}

/// The clients on hold in words; none without clients on hold.
pub fn waiting(service: &Service) -> Option<String> {
    let clients = usize::try_from(service.held).unwrap_or(usize::MAX);
    let longest = service.oldest_hold_seconds.map(|held| format!(", longest {}", seconds(held)));
    (clients > 0).then(|| {
        format!(
            "{}{}",
            plural(clients, "client waits", "clients wait"),
            longest.unwrap_or_default()
        )
    })
}

/// The same for a narrow place.
pub fn waiting_short(service: &Service) -> Option<String> {
    let longest = service.oldest_hold_seconds.map(|held| format!(", {}", seconds(held)));
    (service.held > 0).then(|| format!("{} wait{}", service.held, longest.unwrap_or_default()))
}

/// The gate whose reason explains best why no member is open.
fn explaining_gate<'a>(cluster: &'a Cluster, service: &Service) -> Option<(&'a str, &'a Gate)> {
    let gates = cluster
        .members
        .iter()
        .filter_map(|member| Some((member.name.as_str(), member.services.get(&service.name)?)));
    let rank = |gate: &Gate| {
        let code = gate.reason.as_ref().map_or("", |cause| cause.code.as_str());
        let known = EXPLAINING.iter().position(|explaining| *explaining == code);
        (known.unwrap_or(EXPLAINING.len()), GateLook::of(gate) == GateLook::Idle)
    };
    gates.min_by_key(|(_, gate)| rank(gate))
}

fn dangers(cluster: &Cluster) -> Vec<StateLine> {
    let rogue = cluster.members.iter().filter(|member| member.rogue).map(|member| StateLine {
        level: Level::Bad,
        subject: cut(&member.name, 40),
        text: match &member.trouble {
            Some(cause) => cut(&cause.text, TEXT_CHARS_MAX),
            None => "it takes writes although another member is the leader".to_owned(),
        },
        advice: advice(member.advice.as_ref()),
    });
    let blocked = cluster.no_failover.then(|| StateLine {
        level: Level::Bad,
        subject: cut(&cluster.name, 40),
        text: NO_FAILOVER.to_owned(),
        advice: None,
    });
    rogue.chain(blocked).collect()
}

fn cluster_notes(cluster: &Cluster) -> Vec<StateLine> {
    let mut notes = Vec::new();
    let name = cluster.name.as_str();
    if cluster.paused && !cluster.no_failover {
        notes.push(note(name, "it is in maintenance mode: Patroni does not fail over"));
    }
    if let Some(trouble) = &cluster.members_trouble {
        notes.push(note(name, &format!("no member list can be read: {trouble}")));
    }
    if cluster.etcd.as_deref() == Some("lost") {
        let why = cluster.etcd_trouble.as_deref().unwrap_or("unknown");
        notes.push(note("etcd", &format!("it is not watched: {why}")));
    }
    for wrong in &cluster.url_troubles {
        notes.push(note(&wrong.url, &format!("it returns no member list: {}", wrong.text)));
    }
    for other in &cluster.other_clusters {
        notes.push(note(&other.url, "it belongs to another cluster and is ignored"));
    }
    for service in cluster.services.iter().filter(|service| !service.open.is_empty()) {
        if let Some(waiting) = waiting(service) {
            notes.push(note(&service.name, &format!("{waiting} for a free place")));
        }
    }
    notes
}

fn member_notes(cluster: &Cluster) -> Vec<StateLine> {
    let mut notes = Vec::new();
    let shut = cluster.services.iter().filter(|service| service.open.is_empty());
    let explained: Vec<&str> = shut
        .filter_map(|service| explaining_gate(cluster, service))
        .map(|(member, _)| member)
        .collect();
    let is_new = |member: &&Member| !member.rogue && !explained.contains(&member.name.as_str());
    for member in cluster.members.iter().filter(is_new) {
        let looks = member.services.values().map(|gate| (GateLook::of(gate), gate));
        let gate = looks.filter(|(look, _)| look.matters()).map(|(_, gate)| gate).next();
        let own =
            member.trouble.as_ref().map(|cause| (&cause.text, advice(member.advice.as_ref())));
        let of_gate =
            gate.and_then(|gate| Some((&gate.reason.as_ref()?.text, advice(gate.advice.as_ref()))));
        if let Some((text, advice)) = own.or(of_gate) {
            notes.push(StateLine { advice, ..note(&member.name, text) });
        }
        for pooler in &member.poolers {
            if let Some(trouble) = &pooler.trouble {
                let subject = format!("{}:{}", member.name, pooler.port);
                let advice = advice(pooler.advice.as_ref());
                notes.push(StateLine { advice, ..note(&subject, &trouble.text) });
            }
        }
    }
    notes
}

fn note(subject: &str, text: &str) -> StateLine {
    StateLine {
        level: Level::Note,
        subject: cut(subject, 40),
        text: cut(text, TEXT_CHARS_MAX),
        advice: None,
    }
}

/// What to do, cut to a length.
pub fn advice(text: Option<&String>) -> Option<String> {
    text.map(|text| cut(text, TEXT_CHARS_MAX))
}

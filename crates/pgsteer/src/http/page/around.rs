//! What is around the cluster: poolers, orders, HAProxys, addresses, other pgsteers.

use super::look::GateLook;
use super::texts::cut;
use super::view::{AroundRow, Group, Rows};
use crate::status::document::{
    Cluster, Document, Haproxy, HaproxyServer, Member, Peer, Pooler, Vip,
};

const GROUP_MAX: usize = 64;
const NAME_CHARS_MAX: usize = 64;
const TEXT_CHARS_MAX: usize = 240;

/// The groups that are not empty.
pub fn groups(document: &Document, cluster: &Cluster) -> Vec<Group> {
    let poolers = cluster
        .members
        .iter()
        .flat_map(|member| member.poolers.iter().map(move |pooler| of_pooler(member, pooler)));
    let orders =
        cluster.orders.iter().map(|order| row(GateLook::Draining, &order.member, &order.text));
    let all = [
        ("Poolers", poolers.collect()),
        ("Orders", orders.collect()),
        ("HAProxy", document.haproxys.iter().flat_map(of_haproxy).collect()),
        ("Addresses", document.vips.iter().map(of_vip).collect()),
        ("Other pgsteers", document.peers.iter().map(of_peer).collect()),
    ];
    let all = all.into_iter().filter(|(_, rows): &(_, Vec<AroundRow>)| !rows.is_empty());
    all.map(|(title, rows)| Group { title, rows: Rows::first(rows, GROUP_MAX) }).collect()
}

fn row(look: GateLook, name: &str, text: &str) -> AroundRow {
    AroundRow {
        look,
        name: cut(name, NAME_CHARS_MAX),
        text: cut(text, TEXT_CHARS_MAX),
        advice: None,
    }
}

fn of_pooler(member: &Member, pooler: &Pooler) -> AroundRow {
    let name = format!("{}:{}", member.name, pooler.port);
    let leads_to = pooler.leads_to.as_deref().unwrap_or("an unknown server");
    let advice = pooler.advice.as_ref().map(|advice| cut(advice, TEXT_CHARS_MAX));
    let found = match &pooler.trouble {
        Some(trouble) => {
            row(GateLook::Shut, &name, &format!("leads to {leads_to}: {}", trouble.text))
        }
        None => row(GateLook::Open, &name, &format!("leads to {leads_to}")),
    };
    AroundRow { advice, ..found }
}

fn of_haproxy(haproxy: &Haproxy) -> Vec<AroundRow> {
    let version = haproxy.haproxy_version.as_deref().unwrap_or("of unknown version");
    let mut rows = vec![match &haproxy.trouble {
        Some(trouble) => row(GateLook::Shut, &haproxy.socket, trouble),
        None => row(GateLook::Open, &haproxy.socket, &format!("HAProxy {version}, steered")),
    }];
    rows.extend(haproxy.lacks.iter().map(|lack| row(GateLook::Marked, &haproxy.socket, lack)));
    rows.extend(haproxy.servers.iter().map(of_server));
    rows
}

fn of_server(server: &HaproxyServer) -> AroundRow {
    let HaproxyServer { backend, server: name, status, sessions, queue, order, .. } = server;
    let mut text = format!("{status}, {sessions} sessions, order {order}");
    if *queue > 0 {
        text.push_str(&format!(", {queue} in its queue"));
    }
    if server.admin != "ready" {
        text.push_str(&format!(", set to {} by hand", server.admin));
    }
    let look = match (&server.difference, order.as_str()) {
        (Some(_), _) => GateLook::Marked,
        (None, "serve") => GateLook::Open,
        (None, _) => GateLook::Idle,
    };
    let advice = server.difference.as_ref().map(|text| cut(text, TEXT_CHARS_MAX));
    AroundRow { advice, ..row(look, &format!("{backend}/{name}"), &text) }
}

fn of_vip(vip: &Vip) -> AroundRow {
    let is_here = vip.state != "released";
    let twice = vip.duplicate.as_ref().filter(|_| is_here);
    let twice = twice.map(|mac| format!("the machine with {mac} has it too"));
    let look = match (vip.trouble.is_some() || twice.is_some(), vip.state.as_str()) {
        (true, _) => GateLook::Shut,
        (false, "held") => GateLook::Open,
        (false, "unconfirmed") => GateLook::Marked,
        (false, _) => GateLook::Idle,
    };
    let text = format!("{} on {}: {}", vip.state, vip.interface, vip.why);
    let advice = vip.trouble.clone().or(twice).map(|text| cut(&text, TEXT_CHARS_MAX));
    AroundRow { advice, ..row(look, &format!("{} {}", vip.name, vip.address), &text) }
}

fn of_peer(peer: &Peer) -> AroundRow {
    if let Some(error) = &peer.error {
        return row(GateLook::Shut, &peer.url, error);
    }
    let look = match peer.state.as_deref() {
        Some("well") => GateLook::Open,
        Some("bad") => GateLook::Shut,
        Some(_) => GateLook::Marked,
        None => GateLook::Idle,
    };
    let parts = [&peer.cluster, &peer.write, &peer.sentence].map(|part| part.as_deref());
    let text = match parts {
        [Some(cluster), Some(write), Some(sentence)] => {
            format!("cluster {cluster}, writes to {write}: {sentence}")
        }
        [Some(cluster), None, Some(sentence)] => format!("cluster {cluster}: {sentence}"),
        _ => "not asked yet".to_owned(),
    };
    row(look, &peer.url, &text)
}

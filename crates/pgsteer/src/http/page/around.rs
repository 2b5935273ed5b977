//! What is around the cluster: poolers, orders, HAProxys, addresses, other pgsteers.

use super::look::GateLook;
use super::texts::cut;
use super::view::{Group, Rows, Thing};
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
        cluster.orders.iter().map(|order| thing(GateLook::Draining, &order.member, &order.text));
    let all = [
        ("Poolers", poolers.collect()),
        ("Orders", orders.collect()),
        ("HAProxy", document.haproxys.iter().flat_map(of_haproxy).collect()),
        ("Addresses", document.vips.iter().map(of_vip).collect()),
        ("Other pgsteers", document.peers.iter().map(of_peer).collect()),
    ];
    let all = all.into_iter().filter(|(_, things): &(_, Vec<Thing>)| !things.is_empty());
    all.map(|(title, things)| Group { title, things: Rows::first(things, GROUP_MAX) }).collect()
}

fn thing(look: GateLook, name: &str, text: &str) -> Thing {
    Thing { look, name: cut(name, NAME_CHARS_MAX), text: cut(text, TEXT_CHARS_MAX), advice: None }
}

fn of_pooler(member: &Member, pooler: &Pooler) -> Thing {
    let name = format!("{}:{}", member.name, pooler.port);
    let leads_to = pooler.leads_to.as_deref().unwrap_or("an unknown server");
    let advice = pooler.advice.as_ref().map(|advice| cut(advice, TEXT_CHARS_MAX));
    let found = match &pooler.trouble {
        Some(trouble) => {
            thing(GateLook::Shut, &name, &format!("leads to {leads_to}: {}", trouble.text))
        }
        None => thing(GateLook::Open, &name, &format!("leads to {leads_to}")),
    };
    Thing { advice, ..found }
}

fn of_haproxy(haproxy: &Haproxy) -> Vec<Thing> {
    let version = haproxy.haproxy_version.as_deref().unwrap_or("of unknown version");
    let mut things = vec![match &haproxy.trouble {
        Some(trouble) => thing(GateLook::Shut, &haproxy.socket, trouble),
        None => thing(GateLook::Open, &haproxy.socket, &format!("HAProxy {version}, steered")),
    }];
    things.extend(haproxy.lacks.iter().map(|lack| thing(GateLook::Marked, &haproxy.socket, lack)));
    things.extend(haproxy.servers.iter().map(of_server));
    things
}

fn of_server(server: &HaproxyServer) -> Thing {
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
    Thing { advice, ..thing(look, &format!("{backend}/{name}"), &text) }
}

fn of_vip(vip: &Vip) -> Thing {
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
    Thing { advice, ..thing(look, &format!("{} {}", vip.name, vip.address), &text) }
}

fn of_peer(peer: &Peer) -> Thing {
    if let Some(error) = &peer.error {
        return thing(GateLook::Shut, &peer.url, error);
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
    thing(look, &peer.url, &text)
}

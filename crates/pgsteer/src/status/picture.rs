//! The status document as tables.

use std::time::Duration;

use pgsteer_core::snapshot::NO_FAILOVER;

use super::document::{Cause, Cluster, Document, Event, Gate, Haproxy, Member, Service};
use super::human::{age, printable, size};
use super::sentence;
use super::table::{Cell, Ink, Paint, Table, paint};

/// How many events are shown. The document contains more.
const EVENTS_SHOWN: usize = 10;

/// How many switchovers, failovers and outages are shown.
const CHANGES_SHOWN: usize = 5;

/// The clock offset from which on it is shown: a second distorts a lag limit noticeably.
const CLOCK_SHOWN_FROM: Duration = Duration::from_secs(1);

/// `document` as tables.
pub fn draw(document: &Document, ink: Ink) -> String {
    let mut page = headline(document, ink);
    let state = sentence::state(document);
    page.push_str(&format!("{}\n", paint(&printable(&state.sentence), state.level.paint(), ink)));
    for cluster in &document.clusters {
        page.push('\n');
        page.push_str(&cluster_line(cluster, ink));
        let parts = [
            Some(members(cluster)),
            poolers(cluster),
            Some(gates(document, cluster)),
            Some(services(cluster)),
            to_do(cluster),
            changes(cluster),
            Some(events(cluster)),
        ];
        for part in parts.into_iter().flatten() {
            page.push('\n');
            page.push_str(&part.draw(ink));
        }
    }
    for haproxy in &document.haproxys {
        page.push_str(&format!("\n{}\n", haproxy_line(haproxy, ink)));
        if !haproxy.servers.is_empty() {
            page.push_str(&haproxy_servers(haproxy).draw(ink));
        }
    }
    if let Some(vips) = vips(document) {
        page.push('\n');
        page.push_str(&vips.draw(ink));
    }
    if let Some(peers) = peers(document) {
        page.push('\n');
        page.push_str(&peers.draw(ink));
    }
    page
}

/// The other pgsteers.
fn peers(document: &Document) -> Option<Table> {
    let mut table = Table::new(["PGSTEER", "CLUSTER", "WRITE", "STATE"]);
    for peer in &document.peers {
        let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let (state, paint) = match (&peer.error, peer.state.as_deref()) {
            (Some(error), _) => (error.clone(), Paint::Bad),
            (None, Some("well")) => (shown(&peer.sentence), Paint::Good),
            (None, Some("bad")) => (shown(&peer.sentence), Paint::Bad),
            (None, _) => (shown(&peer.sentence), Paint::Warning),
        };
        let (cluster, write) = (shown(&peer.cluster), shown(&peer.write));
        table.row([
            Cell::from(&peer.url),
            Cell::from(&cluster),
            Cell::from(&write),
            Cell::painted(&state, paint),
        ]);
    }
    (!document.peers.is_empty()).then_some(table)
}

fn haproxy_line(haproxy: &Haproxy, ink: Ink) -> String {
    let socket = printable(&haproxy.socket);
    let version = haproxy.haproxy_version.as_deref().map(printable).unwrap_or_default();
    let mut line = format!("HAProxy {version} at {socket}");
    for text in haproxy.trouble.iter().chain(&haproxy.lacks) {
        line.push_str(&format!("\n{}", paint(&printable(text), Paint::Warning, ink)));
    }
    line
}

/// The servers as HAProxy shows them, beside the orders for them.
fn haproxy_servers(haproxy: &Haproxy) -> Table {
    let columns = ["SERVER", "ORDER", "STATUS", "BY HAND", "CHECK", "SESSIONS", "QUEUE"];
    let mut table = Table::new(columns);
    for server in &haproxy.servers {
        let by_hand = match server.admin.as_str() {
            "ready" => Cell::from("-"),
            admin => Cell::painted(admin, Paint::Warning),
        };
        let status = match server.difference {
            Some(_) => Cell::painted(&server.status, Paint::Warning),
            None => Cell::from(&server.status),
        };
        table.row([
            format!("{}/{}", server.backend, server.server).into(),
            Cell::from(&server.order),
            status,
            by_hand,
            Cell::from(server.health_check.as_deref().unwrap_or("-")),
            server.sessions.to_string().into(),
            server.queue.to_string().into(),
        ]);
    }
    table
}

fn headline(document: &Document, ink: Ink) -> String {
    let stopping = match document.stopping {
        true => format!(", {}", paint("stopping: no new clients", Paint::Warning, ink)),
        false => String::new(),
    };
    format!(
        "pgsteer {}, up {}, {} at {}{stopping}\n",
        printable(&document.version),
        age(Duration::from_secs(document.uptime_seconds)),
        plural(document.clients, "client"),
        document.now
    )
}

fn cluster_line(cluster: &Cluster, ink: Ink) -> String {
    let scope = match &cluster.scope {
        Some(scope) => format!(" (scope {})", printable(scope)),
        None => String::new(),
    };
    let members = u64::try_from(cluster.members.len()).unwrap_or(u64::MAX);
    let members = plural(members, "member");
    let mode = match cluster.paused {
        true => format!(", {}", paint("in maintenance mode", Paint::Warning, ink)),
        false => String::new(),
    };
    let etcd = match cluster.etcd.as_deref() {
        Some("lost") => format!(", {}", paint("etcd is not watched", Paint::Warning, ink)),
        _ => String::new(),
    };
    let mut line = format!("cluster {}{scope}, {members}{mode}{etcd}\n", printable(&cluster.name));
    if cluster.no_failover {
        line.push_str(&format!("{}\n", paint(NO_FAILOVER, Paint::Bad, ink)));
    }
    if let Some(trouble) = &cluster.members_trouble {
        let stored = cluster
            .members_age_seconds
            .map(|age| format!("the member list is the stored one, {age} s old, because "));
        let why = format!(
            "{}no member list can be read: {}",
            stored.unwrap_or_default(),
            printable(trouble)
        );
        line.push_str(&format!("{}\n", paint(&why, Paint::Bad, ink)));
    }
    for order in &cluster.orders {
        let what = format!("order: {}", printable(&order.text));
        line.push_str(&format!("{}\n", paint(&what, Paint::Warning, ink)));
    }
    for wrong in &cluster.url_troubles {
        let (url, text) = (printable(&wrong.url), printable(&wrong.text));
        let what = format!("{url} of [patroni] urls returns no member list: {text}");
        line.push_str(&format!("{}\n", paint(&what, Paint::Warning, ink)));
    }
    for other in &cluster.other_clusters {
        let of = [("scope", &other.scope), ("system identifier", &other.system_identifier)];
        let of = of.into_iter().filter_map(|(part, value)| Some((part, value.as_deref()?)));
        let of: Vec<String> =
            of.map(|(part, value)| format!("{part} {}", printable(value))).collect();
        let (url, of) = (printable(&other.url), of.join(", "));
        let what = format!("{url} belongs to another cluster and is ignored: {of}");
        line.push_str(&format!("{}\n", paint(&what, Paint::Warning, ink)));
    }
    line
}

fn vips(document: &Document) -> Option<Table> {
    let mut table = Table::new(["VIP", "ADDRESS", "INTERFACE", "SERVICE", "STATE", "WHY"]);
    for vip in &document.vips {
        let twice = vip.duplicate.as_ref().filter(|_| vip.state != "released");
        let why = match (&vip.trouble, twice) {
            (Some(trouble), _) => trouble.clone(),
            (None, Some(mac)) => format!("duplicate: the machine with {mac} has it too"),
            (None, None) => vip.why.clone(),
        };
        table.row([
            Cell::from(&vip.name),
            Cell::from(&vip.address),
            Cell::from(&vip.interface),
            Cell::from(&vip.service),
            Cell::from(&vip.state),
            Cell::from(&why),
        ]);
    }
    (!document.vips.is_empty()).then_some(table)
}

fn members(cluster: &Cluster) -> Table {
    let mut table = Table::new(["NAME", "HOST:PORT", "ROLE", "TIMELINE", "LAG", "TROUBLE"]);
    for member in &cluster.members {
        table.row([
            Cell::from(&member.name),
            endpoint(member).into(),
            Cell::from(&member.role),
            member.timeline.map_or("-".to_owned(), |timeline| timeline.to_string()).into(),
            lag(member).into(),
            trouble(member),
        ]);
    }
    table
}

/// Host and port of a member, an IPv6 address in brackets.
pub fn endpoint(member: &Member) -> String {
    match member.host.contains(':') {
        true => format!("[{}]:{}", member.host, member.port),
        false => format!("{}:{}", member.host, member.port),
    }
}

fn lag(member: &Member) -> String {
    let bytes = member.lag_bytes.map(size);
    // The number may be negative in a document from another program.
    let time = member.lag_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let known: Vec<String> = bytes.into_iter().chain(time.map(age)).collect();
    match (known.is_empty(), member.role.as_str()) {
        (false, _) => known.join(", "),
        (true, "replica" | "standby_leader") => "unknown".to_owned(),
        (true, _) => "-".to_owned(),
    }
}

fn trouble(member: &Member) -> Cell {
    let clock = member.clock_offset_seconds.and_then(clock);
    // The text of the reason `no_address` contains the failed lookup already.
    let is_contained =
        |why: &String| member.trouble.as_ref().is_some_and(|own| own.text.contains(why));
    let address = member.address_trouble.iter().filter(|why| !is_contained(why)).cloned();
    let notes: Vec<String> = address.chain(clock).collect();
    match &member.trouble {
        None => Cell::painted(&notes.join("; "), Paint::Warning),
        Some(own) => {
            let all: Vec<String> = std::iter::once(own.text.clone()).chain(notes).collect();
            Cell::painted(&all.join("; "), Paint::Bad)
        }
    }
}

/// The note on a clock that is wrong by a second or more.
fn clock(offset_seconds: f64) -> Option<String> {
    let offset = Duration::try_from_secs_f64(offset_seconds.abs()).ok()?;
    let direction = if offset_seconds > 0.0 { "ahead of" } else { "behind" };
    (offset >= CLOCK_SHOWN_FROM)
        .then(|| format!("its clock is {} {direction} pgsteer's", age(offset)))
}

/// The poolers beside the members; none without poolers.
fn poolers(cluster: &Cluster) -> Option<Table> {
    let mut table = Table::new(["POOLER OF", "PORT", "LEADS TO", "TROUBLE"]);
    let of_each = cluster.members.iter();
    for (member, pooler) in
        of_each.flat_map(|member| member.poolers.iter().map(move |pooler| (member, pooler)))
    {
        table.row([
            Cell::from(&member.name),
            pooler.port.to_string().into(),
            pooler.leads_to.as_deref().unwrap_or("-").into(),
            Cell::painted(reason(pooler.trouble.as_ref()), Paint::Bad),
        ]);
    }
    cluster.members.iter().any(|member| !member.poolers.is_empty()).then_some(table)
}

fn gates(document: &Document, cluster: &Cluster) -> Table {
    let mut table = Table::new(["SERVICE", "MEMBER", "GATE", "SINCE", "SESSIONS", "REASON"]);
    for service in &cluster.services {
        for member in &cluster.members {
            let Some(gate) = member.services.get(&service.name) else { continue };
            table.row([
                Cell::from(&service.name),
                Cell::from(&member.name),
                Cell::painted(&gate.gate, gate_paint(gate)),
                age(document.now.since(gate.since)).into(),
                gate.sessions.to_string().into(),
                Cell::from(reason(gate.reason.as_ref())),
            ]);
        }
    }
    table
}

fn gate_paint(gate: &Gate) -> Paint {
    match (gate.gate.as_str(), &gate.reason) {
        ("open", None) => Paint::Good,
        // The gate of a replica to the write service is shut in a healthy cluster.
        (_, Some(cause)) if cause.code == "wrong_role" => Paint::None,
        ("shut", _) => Paint::Bad,
        _ => Paint::Warning,
    }
}

fn reason(cause: Option<&Cause>) -> &str {
    cause.map_or("", |cause| cause.text.as_str())
}

fn services(cluster: &Cluster) -> Table {
    let mut table = Table::new(["SERVICE", "ROLE", "ON HOLD", "QUEUED", "REFUSED", "OPEN TO"]);
    for service in &cluster.services {
        let held = match service.held {
            0 => Paint::None,
            _ => Paint::Warning,
        };
        table.row([
            Cell::from(&service.name),
            Cell::from(&service.role),
            Cell::painted(&service.held.to_string(), held),
            service.queued.to_string().into(),
            service.refused_total.to_string().into(),
            open_to(service),
        ]);
    }
    table
}

fn open_to(service: &Service) -> Cell {
    match service.open.is_empty() {
        true => Cell::painted("no member", Paint::Bad),
        false => service.open.join(", ").into(),
    }
}

/// What to do about each state that is not well; none if all is well.
fn to_do(cluster: &Cluster) -> Option<Table> {
    let mut lines: Vec<(&str, &str)> = Vec::new();
    for member in &cluster.members {
        let gates = member.services.values().filter_map(|gate| gate.advice.as_deref());
        let poolers = member.poolers.iter().filter_map(|pooler| pooler.advice.as_deref());
        for advice in member.advice.as_deref().into_iter().chain(gates).chain(poolers) {
            if !lines.contains(&(&member.name, advice)) {
                lines.push((&member.name, advice));
            }
        }
    }
    let mut table = Table::new(["MEMBER", "WHAT TO DO"]);
    for (member, advice) in &lines {
        table.row([Cell::from(*member), Cell::from(*advice)]);
    }
    (!lines.is_empty()).then_some(table)
}

/// The newest switchovers, failovers and outages; none if there were none.
fn changes(cluster: &Cluster) -> Option<Table> {
    let mut table = Table::new(["TIME", "SWITCHOVER, FAILOVER, OUTAGE"]);
    let skipped = cluster.changes.len().saturating_sub(CHANGES_SHOWN);
    for change in cluster.changes.iter().skip(skipped) {
        let ink = if change.until.is_none() { Paint::Bad } else { Paint::None };
        table.row([change.at.to_string().into(), Cell::painted(&change.text, ink)]);
    }
    (!cluster.changes.is_empty()).then_some(table)
}

/// The newest events, without the steps of the changes above.
fn events(cluster: &Cluster) -> Table {
    let mut table = Table::new(["TIME", "EVENT"]);
    let is_step = |event: &&Event| cluster.changes.iter().any(|change| change.contains(event));
    let events: Vec<&Event> = cluster.events.iter().filter(|event| !is_step(event)).collect();
    let skipped = events.len().saturating_sub(EVENTS_SHOWN);
    for event in events.into_iter().skip(skipped) {
        table.row([event.at.to_string().into(), Cell::from(&event.text)]);
    }
    table
}

fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::sample;

    #[test]
    fn the_tables_of_a_cluster_in_the_middle_of_a_switchover() {
        insta::assert_snapshot!(draw(&sample::document_of(&sample::snapshot()), Ink::Plain));
    }

    #[test]
    fn the_first_line_shows_that_pgsteer_is_stopping() {
        let mut document = sample::document_of(&sample::calm());
        let first = |document: &Document| {
            draw(document, Ink::Plain).lines().next().map(str::to_owned).unwrap()
        };
        assert!(!first(&document).contains("stopping"));
        document.stopping = true;
        assert!(first(&document).ends_with(", stopping: no new clients"));
    }

    #[test]
    fn the_reason_is_shown_if_no_member_list_can_be_read() {
        let mut snapshot = sample::calm();
        snapshot.members.clear();
        let url = std::sync::Arc::<str>::from("http://10.0.0.11:8008");
        snapshot.unlisted.insert(url.clone(), pgsteer_core::claim::Failure::Refused(url));
        let page = draw(&sample::document_of(&snapshot), Ink::Plain);
        let why = "no member list can be read: connection refused by http://10.0.0.11:8008\n";
        assert!(page.contains(why), "{page}");
    }

    #[test]
    fn only_the_newest_events_are_shown_and_the_newest_is_last() {
        let mut document = sample::document_of(&sample::calm());
        let cluster = &mut document.clusters[0];
        let first = cluster.events[0].clone();
        for number in 0..20 {
            cluster.events.push(Event { text: format!("event {number}"), ..first.clone() });
        }
        let page = draw(&document, Ink::Plain);
        assert!(!page.contains("event 9\n") && page.contains("event 10\n"), "{page}");
        assert!(page.ends_with("event 19\n"), "{page}");
    }
}

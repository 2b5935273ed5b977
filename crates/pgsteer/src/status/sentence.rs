//! The state of a cluster in words: what needs attention, worst first, and one sentence.

use std::time::Duration;

use pgsteer_core::snapshot::NO_FAILOVER;
use pgsteer_core::text::{SENTENCE_CHARS_MAX, TEXT_CHARS_MAX, clean, clean_to};

use serde::Serialize;

use super::document::{Cluster, Document, FailedUpgrade, Gate, Haproxy, Member, Service, Vip};
use super::stamp::Stamp;
use super::table::Paint;

/// How urgent something is, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing needs attention.
    Well,
    /// All services are served, and something needs attention.
    Note,
    /// Clients wait, or data is in danger.
    Bad,
}

impl Level {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Well => "well",
            Level::Note => "note",
            Level::Bad => "bad",
        }
    }

    /// Its colour.
    pub fn paint(self) -> Paint {
        match self {
            Level::Well => Paint::Good,
            Level::Note => Paint::Warning,
            Level::Bad => Paint::Bad,
        }
    }
}

/// One thing that needs attention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How urgent it is.
    pub level: Level,
    /// The service, the member, the URL or the cluster.
    pub subject: String,
    /// What is wrong.
    pub text: String,
    /// Why, if `text` does not contain the reason.
    pub reason: Option<String>,
    /// What to do.
    pub advice: Option<String>,
}

/// The state of a pgsteer and its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The worst level of the findings.
    pub level: Level,
    /// The state in one sentence of at most [`SENTENCE_CHARS_MAX`] characters.
    pub sentence: String,
    /// What needs attention, worst first.
    pub findings: Vec<Finding>,
}

/// The reasons that explain best why a service has no member, best first.
const EXPLAINING: [&str; 8] = [
    "split_brain",
    "not_leader",
    "drained_by_operator",
    "switchover_planned",
    "promoting",
    "confirming",
    "down",
    "not_running",
];

/// How long a failed upgrade needs attention.
const UPGRADE_SHOWN: Duration = Duration::from_secs(3_600);

/// The state that `document` shows.
pub fn state(document: &Document) -> State {
    let mut findings: Vec<Finding> = document.clusters.iter().flat_map(of_cluster).collect();
    findings.extend(document.haproxys.iter().flat_map(of_haproxy));
    findings.extend(document.vips.iter().flat_map(of_vip));
    if document.stopping {
        let text = "it is stopping: sessions continue, new clients are refused";
        findings.push(note("pgsteer", text));
    }
    findings.extend(
        document.failed_upgrade.as_ref().and_then(|failed| of_upgrade(failed, document.now)),
    );
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let level = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Well);
    State { level, sentence: sentence(level, &findings), findings }
}

/// A failed upgrade, for an hour.
fn of_upgrade(failed: &FailedUpgrade, now: Stamp) -> Option<Finding> {
    let age = now.since(failed.at);
    let text = format!("the upgrade failed, this process goes on: {}", failed.why);
    (age <= UPGRADE_SHOWN).then(|| note("pgsteer", &text))
}

/// What needs attention at a steered HAProxy. A difference is shown with the member.
fn of_haproxy(haproxy: &Haproxy) -> Vec<Finding> {
    let subject = clean(&format!("HAProxy at {}", haproxy.socket)).into_owned();
    let texts = haproxy.trouble.iter().chain(&haproxy.lacks);
    let of_servers = haproxy
        .servers
        .iter()
        .filter_map(|server| Some(note(&clean(&server.member), server.difference.as_deref()?)));
    texts.map(|text| note(&subject, text)).chain(of_servers).collect()
}

/// What needs attention in `cluster`.
fn of_cluster(cluster: &Cluster) -> Vec<Finding> {
    let is_write = |service: &&Service| service.role != "replica";
    let (writes, reads): (Vec<_>, Vec<_>) = cluster.services.iter().partition(is_write);
    let mut findings: Vec<Finding> =
        writes.into_iter().chain(reads).filter_map(|service| unserved(cluster, service)).collect();
    findings.extend(cluster.members.iter().filter_map(rogue));
    findings.extend(of_whole_cluster(cluster));
    findings.extend(cluster.services.iter().filter_map(waiting_for_place));
    let shut = cluster.services.iter().filter(|service| service.open.is_empty());
    let explaining = shut.filter_map(|service| explaining_gate(cluster, service));
    let explained: Vec<&str> = explaining.map(|(member, _)| member.name.as_str()).collect();
    // The finding of the service has the reason of that member already.
    let others = cluster.members.iter().filter(|it| !explained.contains(&it.name.as_str()));
    findings.extend(others.flat_map(of_member));
    findings
}

fn sentence(level: Level, findings: &[Finding]) -> String {
    let Some(first) = findings.first() else { return "all services are served".to_owned() };
    let whole = in_words(first);
    let text = match (level, findings.len()) {
        (Level::Bad, _) => {
            let others = findings.iter().skip(1).filter(|finding| finding.level == Level::Bad);
            let others = others.map(|finding| format!("; {}: {}", finding.subject, finding.text));
            std::iter::once(whole).chain(others).collect()
        }
        (_, 1) => format!("all services are served, 1 thing needs attention: {whole}"),
        (_, number) => {
            format!("all services are served, {number} things need attention: {whole}")
        }
    };
    clean_to(&text, SENTENCE_CHARS_MAX).into_owned()
}

/// A finding as one sentence.
fn in_words(finding: &Finding) -> String {
    let Finding { subject, text, .. } = finding;
    let reason = finding.reason.iter().map(|reason| format!(": {reason}"));
    let advice = finding.advice.iter().map(|advice| format!("; {advice}"));
    std::iter::once(format!("{subject}: {text}")).chain(reason).chain(advice).collect()
}

/// A service without an open gate.
fn unserved(cluster: &Cluster, service: &Service) -> Option<Finding> {
    if !service.open.is_empty() {
        return None;
    }
    let waiting = waiting(service).map(|waiting| format!(", {waiting}")).unwrap_or_default();
    let explaining = explaining_gate(cluster, service);
    let reason = explaining.and_then(|(member, gate)| {
        let cause = gate.reason.as_ref()?;
        Some(clean(&format!("{}: {}", member.name, cause.text)).into_owned())
    });
    Some(Finding {
        level: Level::Bad,
        subject: clean(&service.name).into_owned(),
        text: format!("no member is open{waiting}"),
        reason: reason.or_else(|| Some("no member is known".to_owned())),
        advice: explaining.and_then(|(_, gate)| gate.advice.clone()),
    })
}

/// The clients on hold in words; none without clients on hold.
fn waiting(service: &Service) -> Option<String> {
    let clients = match service.held {
        0 => return None,
        1 => "1 client waits".to_owned(),
        held => format!("{held} clients wait"),
    };
    let oldest = service.oldest_hold_seconds.map(|held| format!(", the oldest for {held:.1} s"));
    Some(format!("{clients}{}", oldest.unwrap_or_default()))
}

/// The gate whose reason explains best why no member is open.
fn explaining_gate<'a>(cluster: &'a Cluster, service: &Service) -> Option<(&'a Member, &'a Gate)> {
    let gates = cluster
        .members
        .iter()
        .filter_map(|member| Some((member, member.services.get(&service.name)?)));
    let rank = |gate: &Gate| {
        let code = gate.reason.as_ref().map(|cause| cause.code.as_str());
        let known = EXPLAINING.iter().position(|explaining| Some(*explaining) == code);
        (known.unwrap_or(EXPLAINING.len()), !needs_attention(gate))
    };
    gates.min_by_key(|(_, gate)| rank(gate))
}

/// Returns true if the gate has a reason, or a reservation while it is open, other than the member's
/// role, which is different for some members in every healthy cluster.
fn needs_attention(gate: &Gate) -> bool {
    gate.reason.as_ref().is_some_and(|cause| cause.code != "wrong_role")
}

fn rogue(member: &Member) -> Option<Finding> {
    let text = match &member.trouble {
        Some(cause) => cause.text.as_str(),
        None => "it accepts writes although another member is the leader",
    };
    let advice = member.advice.clone();
    member.rogue.then(|| Finding { level: Level::Bad, advice, ..note(&member.name, text) })
}

fn of_whole_cluster(cluster: &Cluster) -> Vec<Finding> {
    let name = cluster.name.as_str();
    let mut findings = Vec::new();
    if cluster.no_failover {
        findings.push(Finding { level: Level::Bad, ..note(name, NO_FAILOVER) });
    } else if cluster.paused {
        findings.push(note(name, "it is in maintenance mode: Patroni does not fail over"));
    }
    if let Some(trouble) = &cluster.members_trouble {
        findings.push(note(name, &format!("no member list can be read: {trouble}")));
    }
    if cluster.etcd.as_deref() == Some("lost") {
        let why = cluster.etcd_trouble.as_deref().unwrap_or("unknown");
        findings.push(note("etcd", &format!("it is not watched: {why}")));
    }
    for wrong in &cluster.url_troubles {
        findings.push(note(&wrong.url, &format!("it returns no member list: {}", wrong.text)));
    }
    // The gates of a known member show its order.
    let is_known = |name: &String| cluster.members.iter().any(|member| member.name == *name);
    for order in cluster.orders.iter().filter(|order| !is_known(&order.member)) {
        findings.push(note(&order.member, &format!("it is not known, and {}", order.text)));
    }
    for other in &cluster.other_clusters {
        findings.push(note(&other.url, "it belongs to another cluster and is ignored"));
    }
    findings
}

/// Clients that wait although a member is open: the service or the member has no free place.
fn waiting_for_place(service: &Service) -> Option<Finding> {
    let waiting = waiting(service).filter(|_| !service.open.is_empty())?;
    Some(note(&service.name, &format!("{waiting} for a free place")))
}

/// What is wrong with a member and with the poolers beside it.
fn of_member(member: &Member) -> Vec<Finding> {
    let own = member.trouble.as_ref().map(|cause| (cause, member.advice.as_ref()));
    let mut gates = member.services.values().filter(|gate| needs_attention(gate));
    let of_gate = gates.find_map(|gate| Some((gate.reason.as_ref()?, gate.advice.as_ref())));
    // A rogue primary has a finding of its own.
    let found = own.or(of_gate).filter(|_| !member.rogue);
    let of_member = found.map(|(cause, advice)| Finding {
        advice: advice.cloned(),
        ..note(&member.name, &cause.text)
    });
    let of_poolers = member.poolers.iter().filter_map(|pooler| {
        let subject = format!("{}:{}", member.name, pooler.port);
        let text = &pooler.trouble.as_ref()?.text;
        Some(Finding { advice: pooler.advice.clone(), ..note(&subject, text) })
    });
    of_member.into_iter().chain(of_poolers).collect()
}

/// An address that could not be added or removed, or that two machines have.
fn of_vip(vip: &Vip) -> Vec<Finding> {
    let subject = format!("vip {}", vip.name);
    let twice = vip.duplicate.as_ref().filter(|_| vip.state != "released").map(|mac| {
        let text = format!("{} is a duplicate: the machine with {mac} has it too", vip.address);
        Finding { level: Level::Bad, ..note(&subject, &text) }
    });
    let trouble = vip.trouble.as_ref().map(|trouble| note(&subject, trouble));
    twice.into_iter().chain(trouble).collect()
}

/// Returns true if nothing about the member needs attention.
pub fn is_well(member: &Member) -> bool {
    !member.rogue && of_member(member).is_empty()
}

fn note(subject: &str, text: &str) -> Finding {
    Finding {
        level: Level::Note,
        subject: clean(subject).into_owned(),
        text: clean_to(text, TEXT_CHARS_MAX).into_owned(),
        reason: None,
        advice: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::sample;

    fn healthy() -> Document {
        let mut document = sample::document_of(&sample::calm());
        let cluster = &mut document.clusters[0];
        cluster.url_troubles.clear();
        cluster.other_clusters.clear();
        for service in &mut cluster.services {
            service.held = 0;
        }
        for member in &mut cluster.members {
            member.trouble = None;
            member.poolers.clear();
            for gate in member.services.values_mut() {
                gate.gate = "open".to_owned();
                gate.reason = None;
            }
        }
        document
    }

    fn sentence_of(document: &Document) -> String {
        state(document).sentence
    }

    #[test]
    fn all_services_of_a_healthy_cluster_are_served() {
        let state = state(&healthy());
        assert_eq!(
            (state.level, state.sentence.as_str()),
            (Level::Well, "all services are served")
        );
    }

    #[test]
    fn the_role_of_a_replica_needs_no_attention_at_the_write_service() {
        let mut document = healthy();
        let shut =
            sample::document_of(&sample::snapshot()).clusters[0].members[2].services["write"]
                .clone();
        assert_eq!(shut.reason.as_ref().map(|cause| cause.code.as_str()), Some("wrong_role"));
        document.clusters[0].members[2].services.insert("write".to_owned(), shut);
        assert_eq!(state(&document).level, Level::Well);
        assert!(is_well(&document.clusters[0].members[2]));
    }

    #[test]
    fn a_reservation_of_an_open_gate_needs_attention() {
        let mut document = healthy();
        let open = sample::document_of(&sample::snapshot()).clusters[0].members[1].services["read"]
            .clone();
        assert_eq!(open.gate, "open");
        document.clusters[0].members[1].services.insert("read".to_owned(), open);
        assert_eq!(state(&document).level, Level::Note);
    }

    #[test]
    fn the_member_that_explains_why_a_service_is_not_served_has_no_second_finding() {
        let state = state(&sample::document_of(&sample::snapshot()));
        let [first, others @ ..] = state.findings.as_slice() else { panic!("{state:?}") };
        assert!(first.reason.as_ref().unwrap().starts_with("n2: "), "{first:?}");
        assert!(others.iter().all(|finding| finding.subject != "n2"), "{others:?}");
    }

    #[test]
    fn a_service_without_a_member_has_its_clients_the_reason_and_what_to_do() {
        let state = state(&sample::document_of(&sample::snapshot()));
        assert_eq!(state.level, Level::Bad);
        insta::assert_snapshot!(state.sentence);
    }

    #[test]
    fn the_service_of_the_primary_comes_first_and_the_others_are_named() {
        let mut document = sample::document_of(&sample::snapshot());
        document.clusters[0].services[0].open.clear();
        let sentence = sentence_of(&document);
        assert!(sentence.starts_with("write: no member is open, 4 clients wait"), "{sentence}");
        assert!(sentence.contains("; read: no member is open"), "{sentence}");
    }

    #[test]
    fn a_cluster_that_is_served_has_the_number_of_things_that_need_attention() {
        let mut document = healthy();
        document.clusters[0].paused = true;
        assert_eq!(
            sentence_of(&document),
            "all services are served, 1 thing needs attention: \
             demo: it is in maintenance mode: Patroni does not fail over"
        );
        document.stopping = true;
        assert!(sentence_of(&document).contains("2 things need attention: demo: "));
    }

    #[test]
    fn a_rogue_primary_is_bad_even_while_all_services_are_served() {
        let mut document = healthy();
        let member = &mut document.clusters[0].members[0];
        member.rogue = true;
        member.advice = Some("stop PostgreSQL there".to_owned());
        let state = state(&document);
        assert_eq!(state.level, Level::Bad);
        assert_eq!(
            state.sentence,
            "n1: it accepts writes although another member is the leader; stop PostgreSQL there"
        );
        assert!(!is_well(&document.clusters[0].members[0]));
    }

    #[test]
    fn a_sentence_is_of_one_line_and_bounded_whatever_a_member_reports() {
        let mut document = sample::document_of(&sample::snapshot());
        for member in &mut document.clusters[0].members {
            member.name = "\u{1b}[2J\n\u{202e}".repeat(1_000);
            for cause in member.services.values_mut().filter_map(|gate| gate.reason.as_mut()) {
                cause.text = "\u{1b}]0;\n".repeat(1_000);
            }
        }
        let state = state(&document);
        let texts = state.findings.iter().map(in_words).chain([state.sentence.clone()]);
        for text in texts {
            assert!(!text.contains(pgsteer_core::text::is_hidden), "{text:?}");
        }
        assert!(state.sentence.chars().count() <= SENTENCE_CHARS_MAX);
    }
}

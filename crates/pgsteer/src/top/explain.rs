//! All that is known about a service, a member or an event, as lines of text.

use std::time::Duration;

use super::panels::{lag, of_limit};
use super::state::{Happening, State, Subject};
use crate::status::document::{Cause, Document, Event, Gate, Member, Service};
use crate::status::human::{age, bytes, rate, size};
use crate::status::picture::endpoint;
use crate::status::table::Paint;

/// A line before it is wrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// The blanks before it.
    pub indent: usize,
    /// The text.
    pub text: String,
    /// The colour.
    pub paint: Paint,
}

fn passage(indent: usize, text: impl Into<String>, paint: Paint) -> Passage {
    Passage { indent, text: text.into(), paint }
}

fn blank() -> Passage {
    passage(0, "", Paint::None)
}

/// The explanation of `subject`.
pub fn explain(state: &State, subject: &Subject) -> Vec<Passage> {
    let (Some(document), Some(cluster)) = (state.document(), state.cluster()) else {
        return vec![passage(0, "pgsteer has not answered yet", Paint::None)];
    };
    let found = match subject {
        Subject::Service(name) => {
            let service = cluster.services.iter().find(|service| service.name == *name);
            service.map(|service| of_service(document, &cluster.members, service))
        }
        Subject::Member(name) => {
            let member = cluster.members.iter().find(|member| member.name == *name);
            member.map(|member| of_member(document, member))
        }
        Subject::Happening(at, text) => {
            let happenings = state.happenings();
            let is_same = |it: &&Happening<'_>| it.at() == *at && it.text() == text;
            // The text of a change that lasts is another one each time.
            let is_change =
                |it: &&Happening<'_>| it.at() == *at && matches!(it, Happening::Change(_));
            let happening =
                happenings.iter().find(is_same).or_else(|| happenings.iter().find(is_change));
            happening.map(|happening| of_happening(&cluster.events, happening))
        }
    };
    found.unwrap_or_else(|| {
        vec![passage(0, "it is not in the last answer any more", Paint::Warning)]
    })
}

fn of_member(document: &Document, member: &Member) -> Vec<Passage> {
    let timeline = member.timeline.map(|timeline| format!(", timeline {timeline}"));
    let head = format!(
        "member {}, {}{}, {}",
        member.name,
        member.role,
        timeline.unwrap_or_default(),
        endpoint(member)
    );
    let mut lines = vec![passage(0, head, Paint::Head)];
    let facts = facts(member);
    if !facts.is_empty() {
        lines.push(passage(2, facts.join(", "), Paint::None));
    }
    lines.extend(cause_and_advice(
        2,
        member.trouble.as_ref(),
        member.advice.as_deref(),
        Paint::Bad,
    ));
    if let Some(why) = &member.address_trouble {
        lines.push(passage(2, format!("its addresses are old: {why}"), Paint::Warning));
    }
    for (service, gate) in &member.services {
        lines.push(blank());
        lines.extend(of_gate(document, service, gate));
    }
    for pooler in &member.poolers {
        let leads_to = pooler.leads_to.as_deref().unwrap_or("an unknown server");
        lines.push(blank());
        let head = format!("PgBouncer on port {} leads to {leads_to}", pooler.port);
        lines.push(passage(0, head, Paint::Head));
        let (trouble, advice) = (pooler.trouble.as_ref(), pooler.advice.as_deref());
        lines.extend(cause_and_advice(2, trouble, advice, Paint::Bad));
    }
    lines
}

/// The figures and tags of a member.
fn facts(member: &Member) -> Vec<String> {
    let lags: Vec<String> = member
        .lag_bytes
        .map(size)
        .into_iter()
        .chain(member.lag_seconds.map(|_| lag(member)))
        .collect();
    let lag = (!lags.is_empty()).then(|| format!("lag {}", lags.join(" and ")));
    let load = member.load_percent.map(|load| format!("load {load}%"));
    let clock = member.clock_offset_seconds.filter(|offset| offset.abs() >= 1.0).map(|offset| {
        let direction = if offset > 0.0 { "ahead of" } else { "behind" };
        format!("its clock is {:.1} s {direction} pgsteer's", offset.abs())
    });
    let same = member.same_as.as_ref().map(|other| format!("the same server as {other}"));
    let tags = member.tags.iter().map(|(tag, value)| format!("tag {tag}: {value}"));
    [lag, load, clock, same].into_iter().flatten().chain(tags).collect()
}

fn of_gate(document: &Document, name: &str, gate: &Gate) -> Vec<Passage> {
    let since = age(document.now.since(gate.since));
    let head = format!(
        "{name}: {} for {since}, {} sessions, {} in/s, {} out/s",
        gate.gate,
        gate.sessions,
        bytes(gate.traffic.bytes_in_per_second),
        bytes(gate.traffic.bytes_out_per_second)
    );
    let paint = match (gate.gate.as_str(), &gate.reason) {
        (_, Some(cause)) if cause.code == "wrong_role" => Paint::None,
        ("open", None) => Paint::Good,
        ("shut", _) => Paint::Bad,
        _ => Paint::Warning,
    };
    let mut lines = vec![passage(0, head, Paint::Head)];
    lines.extend(cause_and_advice(2, gate.reason.as_ref(), gate.advice.as_deref(), paint));
    lines
}

fn cause_and_advice(
    indent: usize,
    cause: Option<&Cause>,
    advice: Option<&str>,
    paint: Paint,
) -> Vec<Passage> {
    let cause =
        cause.map(|cause| passage(indent, format!("{} ({})", cause.text, cause.code), paint));
    let advice = advice.map(|advice| passage(indent, format!("what to do: {advice}"), Paint::None));
    cause.into_iter().chain(advice).collect()
}

fn of_service(document: &Document, members: &[Member], service: &Service) -> Vec<Passage> {
    let head = format!("service {}, requires role {}", service.name, service.role);
    let traffic = &service.traffic;
    let sessions = format!(
        "{} sessions, {} new/s, {} in/s, {} out/s",
        of_limit(service.sessions, service.sessions_max),
        rate(traffic.new_sessions_per_second),
        bytes(traffic.bytes_in_per_second),
        bytes(traffic.bytes_out_per_second)
    );
    let oldest = service.oldest_hold_seconds.map(|held| format!(", the oldest for {held:.1} s"));
    let held = format!(
        "{} clients on hold{}, {} of them for a free place; {} refused since the start",
        service.held,
        oldest.unwrap_or_default(),
        service.queued,
        service.refused_total
    );
    let mut lines = vec![
        passage(0, head, Paint::Head),
        passage(2, sessions, Paint::None),
        passage(2, held, Paint::None),
    ];
    for member in members {
        let Some(gate) = member.services.get(&service.name) else { continue };
        lines.push(blank());
        lines.extend(of_gate(document, &member.name, gate));
    }
    lines
}

fn of_happening(events: &[Event], happening: &Happening<'_>) -> Vec<Passage> {
    let mut lines = vec![
        passage(0, happening.at().to_string(), Paint::Head),
        passage(2, happening.text(), Paint::None),
    ];
    if let Happening::Change(change) = happening {
        if let Some(why) = &change.why {
            lines.push(passage(2, format!("why: {why}"), Paint::None));
        }
        let steps = events.iter().filter(|event| change.contains(event));
        let steps =
            steps.map(|step| passage(2, format!("{}  {}", step.at, step.text), Paint::None));
        lines.extend(std::iter::once(blank()).chain(steps));
    }
    lines
}

/// The keys.
pub fn help() -> Vec<Passage> {
    let keys = [
        ("q, Ctrl-C", "quit"),
        ("up, down, k, j", "select a row, or scroll"),
        ("tab", "next panel: services, members, events"),
        ("enter", "explain the selected row, and back"),
        ("S", "the sessions at the selected member, if pgsteer runs on this machine"),
        ("s", "sort the members by name, role, lag, sessions, traffic, load"),
        ("/", "show only members with this text in name, role, gate or reason; esc clears it"),
        ("e", "all events, and back"),
        ("p", "pause the updates, and go on"),
        ("?", "this page, and back"),
    ];
    let keys = keys.map(|(key, meaning)| passage(0, format!("{key}: {meaning}"), Paint::None));
    let notes = [
        "A gate is open, probation (a second answer has to confirm the member), draining (sessions go on, \
         no new ones begin) or shut. `open*` has a reservation; `-` means that the member has another role.",
        "Rates are those of the last second, from clients (IN) and to clients (OUT). Curves show the last \
         two minutes since this program was started. Sizes: 1 kB is 1024 bytes. Times are UTC.",
    ];
    let notes = notes.map(|note| passage(0, note, Paint::None));
    let [first, second] = notes;
    let title = passage(0, "KEYS", Paint::Head);
    std::iter::once(title).chain(keys).chain([blank(), first, blank(), second]).collect()
}

/// The age of an answer in whole seconds.
pub fn seconds(age: Duration) -> String {
    format!("{} s", age.as_secs())
}

//! The state of the cluster as the banner of the page: a heading, and what needs attention.

use std::time::Duration;

use super::texts::{cut, plural, seconds};
use super::view::{State, StateLine};
use crate::heartbeat::Heartbeat;
use crate::status::document::{Cluster, Document, Service};
use crate::status::sentence::{self, Finding, Level};

/// The most details that are shown.
const LINES_MAX: usize = 6;

/// The longest detail, in characters.
const TEXT_CHARS_MAX: usize = 220;

/// The state of `document`, whose engine ran `engine_age` ago.
pub fn state(document: &Document, engine_age: Duration) -> State {
    let mut lines: Vec<StateLine> = sentence::state(document).findings.iter().map(line).collect();
    if engine_age >= Heartbeat::STUCK_AFTER {
        let text =
            format!("the engine last ran {} s ago, so this page is old", engine_age.as_secs());
        let subject = "pgsteer".to_owned();
        lines.insert(0, StateLine { level: Level::Bad, subject, text, advice: None });
    }
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

/// The clients on hold in a few words; none without clients on hold.
pub fn waiting_short(service: &Service) -> Option<String> {
    let longest = service.oldest_hold_seconds.map(|held| format!(", {}", seconds(held)));
    (service.held > 0).then(|| format!("{} wait{}", service.held, longest.unwrap_or_default()))
}

/// A finding as a line.
fn line(finding: &Finding) -> StateLine {
    let reason = finding.reason.iter().map(|reason| format!(": {reason}"));
    let text: String = std::iter::once(finding.text.clone()).chain(reason).collect();
    StateLine {
        level: finding.level,
        subject: cut(&finding.subject, 40),
        text: cut(&text, TEXT_CHARS_MAX),
        advice: advice(finding.advice.as_ref()),
    }
}

/// What to do, cut to a length.
pub fn advice(text: Option<&String>) -> Option<String> {
    text.map(|text| cut(text, TEXT_CHARS_MAX))
}

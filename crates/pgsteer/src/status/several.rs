//! Several pgsteers side by side: one line each.

use std::fmt::Write as _;

use anyhow::{Error, Result};

use super::document::{Cluster, Document, Service};
use super::receive::Received;
use super::sentence;
use super::table::{Cell, Ink, Paint, Table};

/// No member takes writes.
const NO_MEMBER: &str = "no member";

/// What became of the request to one URL.
#[derive(Debug)]
pub struct Answer {
    /// The URL as written.
    pub url: String,
    /// The document, or why there is none.
    pub received: Result<Received>,
}

/// The answers as a table.
pub fn draw(answers: &[Answer], ink: Ink) -> String {
    let headings =
        ["URL", "CLUSTER", "VERSION", "WRITE", "HELD", "OLDEST", "MEMBERS WELL", "STATE"];
    let mut table = Table::new(headings);
    for answer in answers {
        match &answer.received {
            Ok(received) => rows(&mut table, &answer.url, &received.document),
            Err(error) => table.row(no_answer(&answer.url, error)),
        }
    }
    table.draw(ink)
}

fn rows(table: &mut Table, url: &str, document: &Document) {
    let state = sentence::state(document);
    for cluster in &document.clusters {
        let held: u64 = cluster.services.iter().map(|service| service.held).sum();
        table.row([
            url.into(),
            Cell::from(&cluster.name),
            Cell::from(&document.version),
            writer_cell(cluster),
            Cell::painted(&held.to_string(), if held > 0 { Paint::Warning } else { Paint::None }),
            oldest(cluster).into(),
            well(cluster).into(),
            Cell::painted(&state.sentence, state.level.paint()),
        ]);
    }
}

fn no_answer(url: &str, error: &Error) -> [Cell; 8] {
    let why = Cell::painted(&format!("{error:#}"), Paint::Bad);
    [url.into(), "-".into(), "-".into(), "-".into(), "-".into(), "-".into(), "-".into(), why]
}

/// The open members of the service that requires the primary; none without such a service.
pub fn writer(cluster: &Cluster) -> Option<String> {
    let is_write = |service: &&Service| service.name == "write";
    let requires_primary = |service: &&Service| service.role == "primary";
    let services = &cluster.services;
    let service = services.iter().find(is_write).or(services.iter().find(requires_primary))?;
    Some(match service.open.is_empty() {
        true => NO_MEMBER.to_owned(),
        false => service.open.join(", "),
    })
}

fn writer_cell(cluster: &Cluster) -> Cell {
    match writer(cluster).as_deref() {
        None => "-".into(),
        Some(NO_MEMBER) => Cell::painted(NO_MEMBER, Paint::Bad),
        Some(open) => open.into(),
    }
}

fn oldest(cluster: &Cluster) -> String {
    let oldest = cluster.services.iter().filter_map(|service| service.oldest_hold_seconds);
    oldest.reduce(f64::max).map_or("-".to_owned(), |oldest| format!("{oldest:.1}s"))
}

fn well(cluster: &Cluster) -> String {
    let well = cluster.members.iter().filter(|member| sentence::is_well(member)).count();
    format!("{well} of {}", cluster.members.len())
}

/// The answers as a JSON list. The documents are unchanged.
pub fn json(answers: &[Answer]) -> String {
    let mut list = "[".to_owned();
    for (number, Answer { url, received }) in answers.iter().enumerate() {
        let comma = if number > 0 { "," } else { "" };
        let (status, error) = match received {
            Ok(received) => (received.text.trim().to_owned(), "null".to_owned()),
            Err(error) => ("null".to_owned(), quoted(&format!("{error:#}"))),
        };
        // Writing to a String does not fail.
        let _ = write!(
            list,
            "{comma}\n{{\"url\": {}, \"error\": {error}, \"status\": {status}}}",
            quoted(url)
        );
    }
    list.push_str("\n]\n");
    list
}

fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    pgsteer_core::text::json_escaped(&json).into_owned()
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use serde_json::Value;

    use super::*;
    use crate::diagnostic::Diagnostic;
    use crate::http::sample;

    fn answer(url: &str, document: Document) -> Answer {
        let text = serde_json::to_string(&document).unwrap();
        Answer { url: url.to_owned(), received: Ok(Received { text, document }) }
    }

    fn answers() -> Vec<Answer> {
        let refused =
            Diagnostic::new("cannot ask http://c:7000: refused", Some("is it up?".into()));
        vec![
            answer("http://a:7000", sample::document_of(&sample::snapshot())),
            answer("b:7000", sample::document_of(&sample::calm())),
            Answer { url: "http://c:7000".to_owned(), received: Err(anyhow!(refused)) },
        ]
    }

    #[test]
    fn several_pgsteers_are_one_table() {
        insta::assert_snapshot!(draw(&answers(), Ink::Plain));
    }

    #[test]
    fn the_json_of_several_pgsteers_is_a_list_with_their_documents() {
        let list: Value = serde_json::from_str(&json(&answers())).unwrap();
        assert_eq!(list.as_array().unwrap().len(), 3);
        assert_eq!((&list[1]["url"], &list[1]["error"]), (&Value::from("b:7000"), &Value::Null));
        let document: Document = serde_json::from_value(list[1]["status"].clone()).unwrap();
        assert_eq!(document, sample::document_of(&sample::calm()));
        assert_eq!(list[2]["status"], Value::Null);
        assert!(list[2]["error"].as_str().unwrap().contains("refused"));
    }

    #[test]
    fn a_hostile_url_or_message_controls_no_terminal() {
        let forged = "\u{1b}[2J\u{202e}\n";
        let answers = [Answer { url: forged.to_owned(), received: Err(anyhow!("{forged}")) }];
        for page in [draw(&answers, Ink::Plain), json(&answers)] {
            assert!(!page.contains(|c| c != '\n' && pgsteer_core::text::is_hidden(c)), "{page:?}");
        }
        assert_eq!(draw(&answers, Ink::Plain).lines().count(), 2);
    }
}

//! Environment variables that HAProxy does not replace.

use std::collections::BTreeMap;

use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::lines::Word;
use crate::lint::listed;
use crate::lint::rule::{Findings, Look, rule};

rule! {
    /// The variable is not replaced.
    VARIABLE_UNQUOTED = "variable-unquoted", Error, Look::Haproxy(unquoted),
    title: "an environment variable outside double quotes",
    costs: "HAProxy replaces variables in double quotes, and outside of them only in addresses. Elsewhere the text itself is the value: a number becomes 0, so `check port ${PORT}` checks the port of the service, and a password is the name of the variable.",
    remedy: "Put the word in double quotes: `check port \"${PORT}\"`. In single quotes HAProxy replaces nothing.",
}

fn unquoted(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    // One finding for each variable, at its first line.
    let mut found: BTreeMap<String, (&Word, Vec<usize>)> = BTreeMap::new();
    for section in &haproxy.model.file.sections {
        // A password hash contains `$`.
        if section.head.word(0) == "userlist" {
            continue;
        }
        for line in std::iter::once(&section.head).chain(&section.body) {
            // The word may be a password that contains `$`: `pa$SWORD`.
            let is_secret = line.words.iter().any(|word| word.is("auth"));
            for word in line.words.iter().filter(|word| word.has_literal_variable()) {
                let what = match is_secret {
                    true => "the login".to_owned(),
                    false => format!("`{}`", shown(word.shown())),
                };
                let lines = &mut found.entry(what).or_insert((word, Vec::new())).1;
                if lines.last() != Some(&line.number) {
                    lines.push(line.number);
                }
            }
        }
    }
    for (what, (word, lines)) in found {
        let more: Vec<String> =
            lines.iter().skip(1).map(|number| haproxy.model.file.line_shown(*number)).collect();
        let more = match more.as_slice() {
            [] => String::new(),
            more => format!(", also in {}", listed(more.iter().map(String::as_str))),
        };
        findings.add(word.place, format!("HAProxy does not replace {what}{more}"));
    }
}

/// Returns the variable in a word, without the text around it.
fn shown(text: &str) -> String {
    let Some((_, behind)) = text.split_once('$') else { return String::new() };
    let (open, behind) = match behind.strip_prefix('{') {
        Some(behind) => ("{", behind),
        None => ("", behind),
    };
    let name: String =
        behind.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').take(40).collect();
    let close = if open.is_empty() { "" } else { "}" };
    format!("${open}{name}{close}")
}

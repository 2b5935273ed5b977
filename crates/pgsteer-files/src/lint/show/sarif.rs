//! SARIF 2.1.0 for code review (OASIS, "Static Analysis Results Interchange Format").

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Value, json};

use super::Looked;
use crate::lint::rule::Finding;
use crate::lint::rule::Rule;
use crate::lint::rules::rules;

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// Characters with a special meaning in a relative reference.
const NOT_IN_PATHS: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b':');

/// Returns all results for these files.
pub fn sarif(files: &[Looked], version: &str) -> String {
    let rules: Vec<&Rule> = rules().collect();
    let results = files.iter().flat_map(|file| {
        let findings = file.outcome.iter().flat_map(|report| &report.findings);
        findings.map(|finding| of_finding(&file.name, finding, &rules))
    });
    let unread = files.iter().filter_map(|file| {
        let why = file.outcome.as_ref().err()?;
        Some(json!({
            "level": "error",
            "message": { "text": format!("{}: {why}", file.name) },
            "locations": [{ "physicalLocation": { "artifactLocation": { "uri": uri(&file.name) } } }],
        }))
    });
    let unread: Vec<Value> = unread.collect();
    let is_successful = unread.is_empty();
    let left_out = files.iter().filter_map(|file| {
        let left_out = file.outcome.as_ref().ok()?.left_out;
        let text = format!("{}: {left_out} more findings are left out", file.name);
        (left_out > 0).then(|| json!({ "level": "note", "message": { "text": text } }))
    });
    let notifications: Vec<Value> = unread.into_iter().chain(left_out).collect();
    let document = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "pgsteer lint",
                "version": version,
                "rules": rules.iter().map(|rule| of_rule(rule)).collect::<Vec<_>>(),
            } },
            "invocations": [{
                "executionSuccessful": is_successful,
                "toolExecutionNotifications": notifications,
            }],
            "columnKind": "unicodeCodePoints",
            "results": results.collect::<Vec<_>>(),
        }],
    });
    format!("{document:#}\n")
}

fn of_rule(rule: &Rule) -> Value {
    json!({
        "id": rule.id,
        "shortDescription": { "text": rule.title },
        "fullDescription": { "text": rule.costs },
        "help": { "text": rule.remedy, "markdown": rule.page },
        // Not as helpUri, which has to be absolute.
        "properties": { "page": format!("docs/lint/{}.md", rule.id) },
        "defaultConfiguration": { "level": rule.severity.as_str() },
    })
}

fn of_finding(name: &str, finding: &Finding, rules: &[&Rule]) -> Value {
    let index = rules.iter().position(|rule| rule.id == finding.rule.id);
    let place = finding.place;
    let mut region = json!({ "startLine": place.line, "startColumn": place.column });
    if place.column_end > place.column {
        region["endColumn"] = json!(place.column_end);
    }
    json!({
        "ruleId": finding.rule.id,
        "ruleIndex": index,
        "level": finding.severity.as_str(),
        "message": {
            "text": format!("{}: {}. {}", finding.rule.title, finding.message, finding.remedy),
        },
        "locations": [{ "physicalLocation": {
            "artifactLocation": { "uri": uri(name) },
            "region": region,
        } }],
    })
}

/// Returns the name of a file as a relative reference.
fn uri(name: &str) -> String {
    utf8_percent_encode(name, NOT_IN_PATHS).to_string()
}

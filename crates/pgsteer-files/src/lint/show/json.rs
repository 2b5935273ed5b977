//! JSON for programs. Keys may be added; none is renamed or removed while `version` is 1.

use serde_json::{Value, json};

use super::Looked;
use crate::lint::Report;
use crate::lint::haproxy::detection::Row;
use crate::lint::haproxy::values::Given;
use crate::lint::location::Severity;
use crate::lint::rule::Finding;

/// Returns all results for these files.
pub fn json(files: &[Looked]) -> String {
    let count = |severity| -> usize {
        let reports = files.iter().filter_map(|file| file.outcome.as_ref().ok());
        reports.map(|report| report.count(severity)).sum()
    };
    let document = json!({
        "version": 1,
        "files": files.iter().map(of_file).collect::<Vec<_>>(),
        "summary": {
            "errors": count(Severity::Error),
            "warnings": count(Severity::Warning),
            "notes": count(Severity::Note),
        },
    });
    format!("{document:#}\n")
}

fn of_file(file: &Looked) -> Value {
    match &file.outcome {
        Err(why) => json!({ "name": file.name, "unreadable": why }),
        Ok(Report { kind, findings, allowed, left_out, detection, is_piece }) => json!({
            "name": file.name,
            "kind": kind.as_str(),
            "piece": is_piece,
            "findings": findings.iter().map(of_finding).collect::<Vec<_>>(),
            "allowed": allowed,
            "left_out": left_out,
            "detection": detection.iter().map(of_row).collect::<Vec<_>>(),
        }),
    }
}

fn of_finding(finding: &Finding) -> Value {
    json!({
        "rule": finding.rule.id,
        "severity": finding.severity.as_str(),
        "line": finding.place.line,
        "column": finding.place.column,
        "column_end": finding.place.column_end,
        "title": finding.rule.title,
        "message": finding.message,
        "costs": finding.rule.costs,
        "remedy": finding.remedy,
    })
}

/// `check` is null without a health check, and `{}` if the environment decides.
fn of_row(row: &Row) -> Value {
    let check = match row.check {
        Given::Absent => Value::Null,
        Given::Unknown => json!({}),
        Given::Is(times) => json!({
            "down_refused": times.refused,
            "down_silent": times.silent,
            "up": times.up,
        }),
    };
    json!({
        "line": row.line,
        "proxy": row.proxy,
        "server": row.server,
        "check": check,
        "agent_inter_ms": row.agent_ms.known(),
    })
}

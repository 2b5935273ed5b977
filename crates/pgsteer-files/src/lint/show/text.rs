//! Text for people, in the style of a compiler.

use std::fmt::Write as _;

use super::Looked;
use crate::detection::Wait;
use crate::lint::Report;
use crate::lint::haproxy::detection::{Row, Times};
use crate::lint::haproxy::values::{Given, time_text};
use crate::lint::kind::Kind;
use crate::lint::location::{Severity, harmless};
use crate::lint::rule::Finding;
use crate::lint::rule::Look;
use crate::lint::rules::rules;
use crate::lint::word_shown;

/// The maximum number of characters of a line that are shown.
const LINE_CHARS_MAX: usize = 100;

/// The note for a piece of a configuration.
const PIECE: &str = "is judged as a part of a configuration (it has neither `global` nor `defaults`, or a \
                     section whose first line cannot be read): nothing is reported as missing that another \
                     file may contain";

/// Returns all results for these files.
pub fn text(files: &[Looked]) -> String {
    let mut out = String::new();
    for file in files {
        // Writing to a string cannot fail.
        let _ = of_file(&mut out, file);
    }
    let _ = summary(&mut out, files);
    out
}

fn of_file(out: &mut String, file: &Looked) -> std::fmt::Result {
    let name = harmless(&file.name);
    let report = match &file.outcome {
        Ok(report) => report,
        Err(why) => return writeln!(out, "{name}: {}\n", harmless(why)),
    };
    let lines: Vec<&str> = file.source.lines().collect();
    for finding in &report.findings {
        let line = lines.get(finding.place.line.saturating_sub(1)).copied().unwrap_or_default();
        of_finding(out, &name, finding, line)?;
    }
    if !report.detection.is_empty() {
        detection(out, &name, &report.detection)?;
    }
    if report.is_piece {
        writeln!(out, "{name} {PIECE}\n")?;
    }
    Ok(())
}

fn of_finding(out: &mut String, name: &str, finding: &Finding, line: &str) -> std::fmt::Result {
    let rule = finding.rule;
    let place = finding.place;
    let (severity, id) = (finding.severity, rule.id);
    writeln!(out, "{name}:{}:{}: {severity}[{id}]: {}", place.line, place.column, rule.title)?;
    if let Some(quoted) = quoted(finding, line) {
        writeln!(out, "    | {quoted}")?;
    }
    writeln!(out, "    here:   {}", finding.message)?;
    writeln!(out, "    costs:  {}", rule.costs)?;
    writeln!(out, "    remedy: {}\n", finding.remedy)
}

/// Words that occur near a secret, in lower case.
const NEAR_SECRETS: [&str; 7] = ["auth", "secret", "token", "pass", "send", "hdr", "setenv"];

fn is_near_secret(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    NEAR_SECRETS.iter().any(|word| text.contains(word))
}

/// Returns the part of a finding's line that is safe to show. If the line may contain a secret,
/// that is only the word of the finding. Of a file that pgsteer refuses, nothing is shown.
fn quoted(finding: &Finding, line: &str) -> Option<String> {
    if matches!(finding.rule.look, Look::Pgsteer(_)) || line.trim().is_empty() {
        return None;
    }
    // A login of the statistics, even if `auth` is misspelt.
    let is_login = line.trim_start().starts_with("stats") && line.contains(':');
    if !is_login && !is_near_secret(line) {
        return Some(shortened(line.trim()));
    }
    let at = finding.place.column.saturating_sub(1);
    let before: String = line.chars().take(at).collect();
    if before.split_whitespace().next_back().is_some_and(is_near_secret) {
        return None;
    }
    let length = finding.place.column_end.saturating_sub(finding.place.column);
    let own: String = line.chars().skip(at).take(length).collect();
    let own = own.split_whitespace().next()?;
    Some(format!("… {} …", harmless(&word_shown(own))))
}

fn shortened(line: &str) -> String {
    let text: String =
        line.chars().take(LINE_CHARS_MAX).map(|c| if c == '\t' { ' ' } else { c }).collect();
    let more = if line.chars().nth(LINE_CHARS_MAX).is_some() { "…" } else { "" };
    format!("{}{more}", harmless(&text))
}

/// Groups lines with equal detection times.
fn detection(out: &mut String, name: &str, rows: &[Row]) -> std::fmt::Result {
    writeln!(out, "Detection times of HAProxy, by the server lines of {name}:")?;
    let mut groups: Vec<(&Row, Vec<String>)> = Vec::new();
    for row in rows {
        let server = harmless(&format!("{}/{} ({})", row.proxy, row.server, row.line));
        match groups.last_mut() {
            Some((like, servers))
                if like.check == row.check
                    && like.agent_ms == row.agent_ms
                    && like.proxy == row.proxy =>
            {
                servers.push(server);
            }
            _ => groups.push((row, vec![server])),
        }
    }
    for (row, servers) in groups {
        writeln!(out, "    {}", servers.join(", "))?;
        match row.check {
            Given::Absent => {}
            Given::Unknown => writeln!(out, "        unknown: the environment decides")?,
            Given::Is(times) => of_check(out, times)?,
        }
        match row.agent_ms {
            Given::Absent => {}
            Given::Unknown => {
                writeln!(out, "        the environment decides the interval of the agent check")?
            }
            Given::Is(ms) => writeln!(
                out,
                "        the agent's answer takes effect after 0 s to {}",
                time_text(ms)
            )?,
        }
    }
    writeln!(out)
}

fn of_check(out: &mut String, times: Times) -> std::fmt::Result {
    let span = |wait: Wait| format!("{} to {}", time_text(wait.least_ms), time_text(wait.most_ms));
    writeln!(
        out,
        "        refuses, or fails its check: DOWN after {}; silent: DOWN after {}; passes its checks again: UP after {}",
        span(times.refused),
        span(times.silent),
        span(times.up)
    )
}

fn summary(out: &mut String, files: &[Looked]) -> std::fmt::Result {
    let reports = || files.iter().filter_map(|file| file.outcome.as_ref().ok());
    let count = |severity, one: &str| {
        let count: usize = reports().map(|report| report.count(severity)).sum();
        format!("{count} {one}{}", if count == 1 { "" } else { "s" })
    };
    let allowed: usize = reports().map(|report: &Report| report.allowed).sum();
    let allowed = if allowed > 0 { format!(", {allowed} allowed") } else { String::new() };
    let left_out: usize = reports().map(|report| report.left_out).sum();
    let left_out = if left_out > 0 { format!(", {left_out} left out") } else { String::new() };
    let (errors, warnings) = (count(Severity::Error, "error"), count(Severity::Warning, "warning"));
    let notes = count(Severity::Note, "note");
    let of = match files {
        [only] => harmless(&only.name),
        several => format!("{} files", several.len()),
    };
    let unread = files.iter().filter(|file| file.outcome.is_err()).count();
    let unread = if unread > 0 { format!(", {unread} unreadable") } else { String::new() };
    writeln!(out, "{of}: {errors}, {warnings}, {notes}{left_out}{allowed}{unread}")
}

/// Returns every rule in one line, by its input.
pub fn list() -> String {
    let mut out = String::new();
    for kind in Kind::ALL.into_iter().map(Some).chain([None]) {
        let title = kind.map_or("any of them", Kind::as_str);
        let _ = writeln!(out, "{title}:");
        let is_its = |look: &Look| match look {
            Look::Haproxy(_) => kind == Some(Kind::Haproxy),
            Look::PgHba(_) => kind == Some(Kind::PgHba),
            Look::Pgsteer(_) => kind == Some(Kind::Pgsteer),
            Look::Text => kind.is_none(),
        };
        for rule in rules().filter(|rule| is_its(&rule.look)) {
            let _ = writeln!(out, "  {:<32}{:<9}{}", rule.id, rule.severity.as_str(), rule.title);
        }
    }
    out
}

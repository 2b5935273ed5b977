//! The rules of health checks: the words after `http-check` and `tcp-check`.

use super::conditions::is_balanced;
use super::value::{Tell, surplus};
use crate::lint::haproxy::lines::{Line, Word};
use crate::lint::word_shown;

/// The tests of `http-check expect` and `tcp-check expect`.
const EXPECTED: [&str; 11] = [
    "binary",
    "binary-lf",
    "fhdr",
    "hdr",
    "rbinary",
    "rstatus",
    "rstring",
    "status",
    "string",
    "string-lf",
    "custom",
];
/// Words before or after the test, with a value each.
const EXPECT_LEADS: [&str; 9] = [
    "comment",
    "min-recv",
    "ok-status",
    "error-status",
    "tout-status",
    "on-success",
    "on-error",
    "status-code",
    "!",
];

/// Checks the order of the rules in one section: if one of them connects, the first one has to.
pub fn order<'a>(lines: impl Iterator<Item = &'a Line>, report: Tell<'_>) {
    let rules: Vec<&Line> = lines
        .filter(|line| {
            let is_plain = ["comment", "disable-on-404", "send-state"].contains(&line.word(1));
            !is_plain && !line.word(1).starts_with("set-var") && !line.word(1).starts_with("unset-")
        })
        .collect();
    let connect = rules.iter().position(|rule| rule.word(1) == "connect");
    if let Some(rule) = connect.filter(|at| *at > 0).and_then(|at| rules.get(at)) {
        let message = format!("`{} connect` has to be the first rule", rule.word(0));
        report(rule.place(), message);
    }
}

/// Checks a line that begins with `http-check` or `tcp-check`.
pub fn check_rule(line: &Line, report: Tell<'_>) {
    let is_http = line.word(0) == "http-check";
    match line.word(1) {
        "" if line.words.len() == 1 => {
            report(line.place(), format!("`{}` has no value", line.word(0)));
        }
        "expect" => expect(line, is_http, report),
        "disable-on-404" | "send-state" => surplus(line, 2, report),
        "send" if is_http => http_send(line, report),
        "send-binary" if !is_http => {
            if let Some(text) = line.words.get(2).and_then(Word::known) {
                hexadecimal(line, 2, "send-binary", text, report);
            }
        }
        _ => {}
    }
}

fn expect(line: &Line, is_http: bool, report: Tell<'_>) {
    let mut at = 2;
    while EXPECT_LEADS.contains(&line.word(at)) {
        at += if line.word(at) == "!" { 1 } else { 2 };
    }
    let Some(word) = line.words.get(at) else {
        return report(line.place(), format!("`{} expect` has no value", line.word(0)));
    };
    let Some(kind) = word.known().map(|text| text.trim_start_matches('!')) else { return };
    let is_of_other = match is_http {
        true => kind.contains("binary"),
        false => kind.contains("status") || kind.contains("hdr"),
    };
    if !EXPECTED.contains(&kind) || is_of_other {
        let kind = word_shown(kind);
        report(word.place, format!("there is no `{} expect {kind}`", line.word(0)));
    } else if line.words.len() == at + 1 && kind != "custom" {
        report(line.place(), format!("`expect {kind}` has no value"));
    } else if ["hdr", "fhdr"].contains(&kind) {
        if line.word(at + 1) != "name" && line.word(at + 1) != "name-lf" {
            report(line.place_of(at + 1), format!("`expect {kind}` needs `name` and a header"));
        }
    } else {
        pattern(line, at + 1, kind, report);
    }
}

/// Checks the expected value at `at`, and that nothing follows it.
fn pattern(line: &Line, at: usize, kind: &str, report: Tell<'_>) {
    let Some(text) = line.words.get(at).and_then(Word::known) else { return };
    match kind {
        "status" if !text.bytes().all(|byte| byte.is_ascii_digit() || b",-".contains(&byte)) => {
            let message = format!("`{}` is not a list of status codes", word_shown(text));
            return report(line.place_of(at), message);
        }
        "rstatus" | "rstring" | "rbinary" if !is_balanced(text) => {
            let message = "the regular expression has a bracket without its counterpart";
            return report(line.place_of(at), message.to_owned());
        }
        "binary" => hexadecimal(line, at, "expect binary", text, report),
        _ => {}
    }
    // Further settings may follow the pattern too.
    let mut at = at + 1;
    while EXPECT_LEADS.contains(&line.word(at)) {
        at += 2;
    }
    if kind != "custom" {
        surplus(line, at, report);
    }
}

fn hexadecimal(line: &Line, at: usize, name: &str, text: &str, report: Tell<'_>) {
    let is_hex = text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex {
        report(line.place_of(at), format!("`{name}` takes pairs of hexadecimal digits"));
    }
}

/// `http-check send meth METHOD uri URI ...`.
fn http_send(line: &Line, report: Tell<'_>) {
    let mut at = 2;
    while let Some(name) = line.words.get(at).and_then(Word::known) {
        let values = match name {
            "meth" | "uri" | "uri-lf" | "ver" | "body" | "body-lf" | "comment" => 1,
            "hdr" => 2,
            _ => {
                let name = word_shown(name);
                return report(line.place_of(at), format!("there is no `http-check send {name}`"));
            }
        };
        if line.words.len() <= at + values {
            return report(line.place_of(at), format!("`{name}` has no value"));
        }
        at += 1 + values;
    }
}

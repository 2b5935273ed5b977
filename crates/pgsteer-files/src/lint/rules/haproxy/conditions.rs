//! Conditions and ACLs that HAProxy refuses: numbers, addresses, names and brackets.

use super::value::Tell;
use crate::lint::haproxy::condition::{Condition, Of};
use crate::lint::haproxy::lines::{Line, Word};
use crate::lint::haproxy::values::number;
use crate::lint::word_shown;

/// Fetches whose value is a number, with or without an argument in brackets.
#[rustfmt::skip]
const NUMBERS: [&str; 14] = [
    "avg_queue", "be_conn", "be_conn_free", "be_sess_rate", "connslots", "dst_port", "fe_conn",
    "fe_sess_rate", "nbsrv", "queue", "sc0_conn_cur", "src_conn_cur", "src_port", "srv_conn",
];
const COMPARISONS: [&str; 5] = ["eq", "ge", "gt", "le", "lt"];

/// Checks the ACL or the condition of a line.
pub fn of_line(line: &Line, report: Tell<'_>) {
    match line.word(0) {
        "acl" => {
            name(line, report);
            expression(line.from(2), report);
        }
        "use_backend" | "use-server" | "tcp-request" | "tcp-response" | "http-request" => {
            let Some(condition) = Condition::of(line) else { return };
            for term in condition.terms() {
                let Of::Written(words) = term.of else { continue };
                expression(words, report);
                let is_last =
                    words.last().zip(line.words.last()).is_some_and(|(a, b)| a.place == b.place);
                if is_last {
                    report(line.place(), "the condition has a `{` and no `}`".to_owned());
                }
            }
        }
        _ => {}
    }
}

fn name(line: &Line, report: Tell<'_>) {
    let name = line.word(1);
    let is_named = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if !name.chars().all(is_named) {
        let name = word_shown(name);
        let message = format!("`{name}` is not a name: letters, digits, `-`, `_`, `.` and `:`");
        report(line.place_of(1), message);
    } else if ["or", "if", "unless"].contains(&name) {
        report(line.place_of(1), format!("an ACL cannot have the name `{name}`"));
    }
}

/// Checks a fetch and the words after it.
fn expression(words: &[Word], report: Tell<'_>) {
    let Some((fetch, values)) = words.split_first() else { return };
    let Some(fetch) = fetch.known() else { return };
    let bare = fetch.split('(').next().unwrap_or(fetch);
    // A converter behind the fetch makes another kind of value; a flag may change the match.
    let is_plain = fetch.len() == bare.len() || fetch.ends_with(')') && !fetch.contains(',');
    let has_flag = values.iter().any(|word| word.shown().starts_with('-'));
    if !is_plain || has_flag {
        return;
    }
    for word in values.iter().filter(|word| !word.has_literal_variable()) {
        let Some(text) = word.known() else { continue };
        let shown = word_shown(text);
        if NUMBERS.contains(&bare) && !is_number(text) {
            let message = format!("`{shown}` is neither a number nor eq, ge, gt, le or lt");
            return report(word.place, message);
        }
        if ["src", "dst"].contains(&bare) && is_wrong_network(text) {
            report(word.place, format!("`{shown}` is not an address or a network"));
        }
    }
}

/// `1`, `1:`, `:5`, `1:5`, or a comparison.
fn is_number(text: &str) -> bool {
    let mut ends = text.splitn(2, ':');
    let is_end = |end: &str| end.is_empty() || number(end).is_some();
    COMPARISONS.contains(&text) || !text.is_empty() && ends.all(is_end)
}

/// Returns true for digits and dots that are no IPv4 network. Anything else may be a name.
fn is_wrong_network(text: &str) -> bool {
    let (address, mask) = text.split_once('/').unwrap_or((text, "32"));
    let is_digits = address.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let is_mask =
        number(mask).is_some_and(|bits| bits <= 32) || mask.parse::<std::net::Ipv4Addr>().is_ok();
    // `10` and `10.1` are addresses for inet_aton.
    is_digits
        && address.matches('.').count() == 3
        && (address.parse::<std::net::Ipv4Addr>().is_err() || !is_mask)
}

/// Returns true if the brackets of a regular expression have their counterparts.
pub fn is_balanced(regex: &str) -> bool {
    let (mut open, mut is_set, mut chars) = (0_usize, false, regex.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            ']' => is_set = false,
            '[' => is_set = true,
            '(' if !is_set => open += 1,
            ')' if !is_set => match open.checked_sub(1) {
                Some(less) => open = less,
                None => return false,
            },
            _ => {}
        }
    }
    open == 0 && !is_set
}

//! Values that HAProxy refuses: times, numbers, keywords, missing and surplus words.

use crate::lint::finding::{Findings, Location};
use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::lines::{Line, Word};
use crate::lint::haproxy::rules::server_values::server_values;
use crate::lint::haproxy::sections::{Kind, Section};
use crate::lint::haproxy::values::{Address, number};
use crate::lint::rule::{Look, rule};
use crate::lint::word_shown;
use crate::render::HaproxyVersion;

rule! {
    /// HAProxy refuses the value.
    VALUE_REFUSED = "value-refused", Error, Look::Haproxy(refused),
    title: "a value that HAProxy refuses",
    costs: "HAProxy refuses the file.",
    remedy: "Correct it as the message says; `haproxy -c -f FILE` checks the result.",
}

/// HAProxy's maximum time: 2^31 - 1 ms, about 24.8 days.
const TIME_MS_MAX: u64 = i32::MAX as u64;

fn refused(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for section in &haproxy.model.file.sections {
        let is_of_ours = section.kind != Kind::Other;
        if is_of_ours && head(section, findings) {
            continue;
        }
        for line in section.body.iter().filter(|_| is_of_ours) {
            let mut told = |place: Location, message: String| findings.add(place, message);
            of_line(section, line, haproxy.options.haproxy, &mut told);
        }
    }
}

/// Receives the place and the fault.
pub type Tell<'a> = &'a mut dyn FnMut(Location, String);

/// Checks the first line of a section. Returns true if HAProxy ignores the section because of it.
fn head(section: &Section, findings: &mut Findings) -> bool {
    let head = &section.head;
    if !section.kind.is_proxy() || head.words.is_empty() {
        return false;
    }
    let kind = head.word(0);
    let is_named = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    match (head.words.get(1), head.words.get(2)) {
        (None, _) => findings.add(head, format!("`{kind}` has no name")),
        (Some(word), _) if word.known().is_some_and(|name| !name.chars().all(is_named)) => {
            let name = word_shown(word.shown());
            let message = format!("`{name}` is no name: letters, digits, `-`, `_`, `.` and `:`");
            findings.add(word.place, message);
        }
        (_, Some(word)) if !word.is("from") && section.kind != Kind::Backend => {
            let address: String = word.shown().chars().take(60).collect();
            let message = format!(
                "`{kind}` takes no address since HAProxy 1.7: write `bind {address}` in a line of its own"
            );
            findings.add(word.place, message);
            return true;
        }
        _ => {}
    }
    false
}

fn of_line(section: &Section, line: &Line, version: HaproxyVersion, tell: Tell<'_>) {
    let is_global = section.kind == Kind::Global;
    let at = usize::from(["no", "default"].contains(&line.word(0)));
    match line.word(at) {
        "timeout" if !is_global => timeout(line, tell),
        "clitcpka-idle" | "clitcpka-intvl" | "srvtcpka-idle" | "srvtcpka-intvl" => {
            time(line, 1, tell);
        }
        "max-spread-checks" | "hard-stop-after" if is_global => time(line, 1, tell),
        "stats" if is_global => stats(line, tell),
        "spread-checks" if is_global => {
            range(line, 1, 0..=50, tell);
        }
        "mode" if !is_global => one_of(line, "mode", &modes(version), tell),
        "balance" if !is_global => balance(line, version, tell),
        "maxconn" => single(line, tell),
        "option" if at == 0 => option(line, version, tell),
        "bind" => bind(line, tell),
        "server" | "default-server" | "server-template" => server_values(line, version, tell),
        "http-check" | "tcp-check" => check_rule(line, tell),
        "log" => log(line, tell),
        _ => {}
    }
}

fn timeout(line: &Line, tell: Tell<'_>) {
    // Another rule reports a keyword with another place.
    if line.words.len() == 2 {
        tell(line.place(), format!("`timeout {}` has no value", line.word(1)));
    } else {
        time(line, 2, tell);
        surplus(line, 3, tell);
    }
}

/// Reports words after the last one that HAProxy reads.
fn surplus(line: &Line, at: usize, tell: Tell<'_>) {
    if let Some(word) = line.words.get(at) {
        let shown = word_shown(word.shown());
        tell(word.place, format!("nothing may stand behind the value, and `{shown}` does"));
    }
}

fn single(line: &Line, tell: Tell<'_>) {
    match line.words.len() {
        1 => tell(line.place(), format!("`{}` has no value", line.word(0))),
        _ => surplus(line, 2, tell),
    }
}

/// Checks the time at `at`: HAProxy reads digits, followed by one of its units.
pub fn time(line: &Line, at: usize, tell: Tell<'_>) {
    let Some(word) = line.words.get(at).filter(|word| !word.has_literal_variable()) else { return };
    let Some(text) = word.known() else { return };
    if let Some(why) = why_no_time(text) {
        tell(word.place, format!("`{}` {why}", word_shown(text)));
    }
}

/// Returns the reason why HAProxy refuses a time (`parse_time_err`).
fn why_no_time(text: &str) -> Option<&'static str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at_checked(digits)?;
    if digits.is_empty() {
        return Some("is no time: digits and one of the units us, ms, s, m, h, d");
    }
    let factor_us = match unit.bytes().next() {
        None => 1_000,
        Some(b'm') if unit.starts_with("ms") => 1_000,
        Some(b'u') if unit.starts_with("us") => 1,
        Some(b's') => 1_000_000,
        Some(b'm') => 60_000_000,
        Some(b'h') => 3_600_000_000,
        Some(b'd') => 86_400_000_000,
        Some(_) => return Some("is no time: the units are us, ms, s, m, h and d"),
    };
    let us = number(digits).and_then(|number| number.checked_mul(factor_us));
    let is_long = us.is_none_or(|us| us / 1_000 > TIME_MS_MAX);
    is_long.then_some("is more than HAProxy can count: 2147483647 ms, about 24.8 days")
}

/// Checks that the number at `at` is in a range.
pub fn range(line: &Line, at: usize, allowed: std::ops::RangeInclusive<u64>, tell: Tell<'_>) {
    let Some(word) = line.words.get(at) else { return };
    let Some(value) = word.known().and_then(number).filter(|value| !allowed.contains(value)) else {
        return;
    };
    let (from, to) = (allowed.start(), allowed.end());
    let message = match *to {
        u64::MAX => format!("{value} is less than the least value, {from}"),
        to => format!("{value} is out of range: {from} to {to}"),
    };
    tell(word.place, message);
}

/// Checks that the keyword after `name` is one of `known`.
fn one_of(line: &Line, name: &str, known: &[&str], tell: Tell<'_>) {
    match line.words.get(1) {
        None => tell(line.place(), format!("`{name}` has no value")),
        Some(word) => {
            is_one_of(word, name, known, tell);
            surplus(line, 2, tell);
        }
    }
}

/// Checks that a keyword is one of `known`.
pub fn is_one_of(word: &Word, name: &str, known: &[&str], tell: Tell<'_>) {
    if let Some(text) = word.known().filter(|text| !known.contains(text)) {
        let message =
            format!("`{name}` is one of {}, not `{}`", known.join(", "), word_shown(text));
        tell(word.place, message);
    }
}

fn modes(version: HaproxyVersion) -> Vec<&'static str> {
    let mut modes = vec!["tcp", "http"];
    if version >= HaproxyVersion::new(2, 9) {
        modes.push("log");
    }
    if version >= HaproxyVersion::new(3, 1) {
        modes.push("spop");
    }
    if version >= HaproxyVersion::new(3, 4) {
        modes.extend(["haterm"]);
    }
    modes
}

const BALANCES: [&str; 13] = [
    "first",
    "hash",
    "hdr",
    "leastconn",
    "log-hash",
    "log-sticky",
    "random",
    "rdp-cookie",
    "roundrobin",
    "source",
    "static-rr",
    "sticky",
    "uri",
];

fn balance(line: &Line, version: HaproxyVersion, tell: Tell<'_>) {
    let Some(word) = line.words.get(1) else {
        return tell(line.place(), "`balance` has no value".to_owned());
    };
    let Some(text) = word.known() else { return };
    let name = text.split('(').next().unwrap_or(text);
    // Later versions may have more.
    let is_later = version > HaproxyVersion::new(3, 4);
    if !is_later && !BALANCES.contains(&name) && name != "url_param" {
        tell(word.place, format!("there is no `balance {}`", word_shown(text)));
    }
}

/// Options without arguments.
const BARE_OPTIONS: [&str; 26] = [
    "abortonclose",
    "allbackups",
    "checkcache",
    "clitcpka",
    "contstats",
    "dontlog-normal",
    "dontlognull",
    "http-buffer-request",
    "http-ignore-probes",
    "http-no-delay",
    "idle-close-on-response",
    "independent-streams",
    "log-health-checks",
    "log-separate-errors",
    "logasap",
    "nolinger",
    "persist",
    "prefer-last-server",
    "socket-stats",
    "splice-auto",
    "srvtcpka",
    "tcp-check",
    "tcp-smart-accept",
    "tcp-smart-connect",
    "tcpka",
    "transparent",
];

fn option(line: &Line, version: HaproxyVersion, tell: Tell<'_>) {
    let name = line.word(1);
    let is_bare =
        BARE_OPTIONS.contains(&name) || name == "tcplog" && version < HaproxyVersion::new(3, 1);
    match line.words.len() {
        1 => tell(line.place(), "`option` has no name".to_owned()),
        2 => {}
        _ if is_bare => surplus(line, 2, tell),
        _ => {}
    }
}

fn bind(line: &Line, tell: Tell<'_>) {
    let Some(word) = line.words.get(1) else {
        return tell(line.place(), "`bind` has no address".to_owned());
    };
    for text in word.known().unwrap_or_default().split(',').filter(|text| !text.is_empty()) {
        let Some(address) = Address::read(text) else { continue };
        let port = text.rsplit_once(':').map_or("", |(_, port)| port);
        let ends = port.split('-').filter_map(number);
        if !text.contains(':') {
            let message = format!("`{}` has no port: `{}:5000`", word_shown(text), address.host);
            tell(word.place, message);
        } else if ends.into_iter().any(|port| port > 65_535) {
            tell(word.place, format!("there is no port {}", word_shown(port)));
        }
    }
}

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
/// Words before the test, with a value each.
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

fn check_rule(line: &Line, tell: Tell<'_>) {
    let is_http = line.word(0) == "http-check";
    match line.word(1) {
        "expect" => {
            let mut at = 2;
            while EXPECT_LEADS.contains(&line.word(at)) {
                at += if line.word(at) == "!" { 1 } else { 2 };
            }
            let Some(word) = line.words.get(at) else {
                return tell(line.place(), format!("`{} expect` has no value", line.word(0)));
            };
            let Some(kind) = word.known().map(|text| text.trim_start_matches('!')) else { return };
            let is_of_other = match is_http {
                true => kind.contains("binary"),
                false => kind.contains("status") || kind.contains("hdr"),
            };
            if !EXPECTED.contains(&kind) || is_of_other {
                let kind = word_shown(kind);
                tell(word.place, format!("`{} expect` knows no `{kind}`", line.word(0)));
            } else if line.words.len() == at + 1 && kind != "custom" {
                tell(line.place(), format!("`expect {kind}` has no value"));
            }
        }
        "send-binary" if !is_http => {
            let Some(text) = line.words.get(2).and_then(Word::known) else { return };
            let is_hex = text.len() % 2 == 0 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_hex {
                let message = "`send-binary` takes pairs of hexadecimal digits".to_owned();
                tell(line.place_of(2), message);
            }
        }
        _ => {}
    }
}

fn stats(line: &Line, tell: Tell<'_>) {
    match line.word(1) {
        "timeout" => time(line, 2, tell),
        "socket" => {
            if line.words.len() == 2 {
                tell(line.place(), "`stats socket` has no address".to_owned());
            }
            let at = line.words.iter().position(|word| word.is("level"));
            if let Some(word) = at.and_then(|at| line.words.get(at + 1)) {
                is_one_of(word, "level", &["user", "operator", "admin"], tell);
            }
        }
        _ => {}
    }
}

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "auth2",
    "ftp", "ntp", "audit", "alert", "cron2", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

fn log(line: &Line, tell: Tell<'_>) {
    // `log global`, and settings between the address and the facility.
    if line.words.len() == 2 && !line.begins(&["log", "global"]) && !line.word(1).is_empty() {
        tell(line.place(), "`log` has an address and no facility".to_owned());
    }
    let mut at = 2;
    while ["len", "format", "sample", "profile"].contains(&line.word(at)) {
        at += 2;
    }
    if let Some(word) = line.words.get(at) {
        let known = word.known().is_none_or(|text| FACILITIES.contains(&text));
        if !known {
            let message = format!("there is no facility `{}`", word_shown(word.shown()));
            tell(word.place, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_refused_as_haproxy_refuses_them() {
        for text in ["5s", "500", "0", "24d", "596h", "3sec", "1500us", "2147483647", "7ms"] {
            assert_eq!(why_no_time(text), None, "{text}");
        }
        for text in ["25d", "2147483648", "99999999999999999999", "1.5s", "5x", "-5", "s", ""] {
            assert!(why_no_time(text).is_some(), "{text}");
        }
    }
}

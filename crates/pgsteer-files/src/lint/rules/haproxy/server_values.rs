//! Values on server lines that HAProxy refuses.

use crate::lint::haproxy::lines::Line;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::value::{Tell, is_one_of, range, time};
use crate::lint::haproxy::values::{Address, number};
use crate::lint::haproxy::words;
use crate::lint::word_shown;
use crate::render::HaproxyVersion;

/// Checks a `server`, a `server-template` or a `default-server`.
pub fn server_values(line: &Line, version: HaproxyVersion, report: Tell<'_>) {
    let Some(at) = first_setting(line, report) else { return };
    let mut at = at;
    while let Some(name) = line.words.get(at).and_then(|word| word.known()) {
        let values = words::values_of_server_word(name);
        if !words::is_server_word(name) {
            return;
        }
        if values > 0 && line.words.len() <= at + values {
            return report(line.place_of(at), format!("`{name}` has no value"));
        }
        setting(line, at, name, version, report);
        at += 1 + values;
    }
}

/// Checks the words before the settings. Returns the position of the first setting.
fn first_setting(line: &Line, report: Tell<'_>) -> Option<usize> {
    let (address_at, form) = match line.word(0) {
        "default-server" => return Some(1),
        "server-template" => (3, "server-template PREFIX NUMBER ADDRESS:PORT"),
        _ => (2, "server NAME ADDRESS:PORT"),
    };
    if line.words.len() <= address_at {
        report(line.place(), format!("the address is missing: `{form}`"));
        return None;
    }
    if address_at == 3 {
        let text = line.word(2);
        let mut numbers = text.split('-').map(number);
        if !text.is_empty() && numbers.any(|number| number.is_none_or(|number| number == 0)) {
            report(line.place_of(2), format!("`{}` is not a number of servers", word_shown(text)));
        }
    }
    let is_named = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    let name = line.word(1);
    if !name.chars().all(is_named) && !line.words.get(1).is_some_and(|it| it.has_literal_variable())
    {
        let name = word_shown(name);
        report(
            line.place_of(1),
            format!("`{name}` is not a name: letters, digits, `-`, `_`, `.`, `:`"),
        );
    }
    let word = line.word(address_at);
    if !word.is_empty() && words::is_server_word(word) {
        report(
            line.place_of(address_at),
            format!("the address is missing before `{word}`: `{form}`"),
        );
        return None;
    }
    address(line, address_at, report);
    Some(address_at + 1)
}

/// Checks the address of a server, as `str2sa_range` does.
fn address(line: &Line, at: usize, report: Tell<'_>) {
    let text = line.word(at);
    let Some(address) = Address::read(text).filter(|_| !text.is_empty()) else {
        if text.contains("://") {
            report(line.place_of(at), format!("`{}` is a URL: HOST:PORT", word_shown(text)));
        }
        return;
    };
    let has = |name: &str| line.words.iter().any(|word| word.is(name));
    let has_other = ["port", "addr", "resolvers"].into_iter().any(has);
    let host = &address.host;
    let port = text.strip_suffix(']').map_or(text.rsplit_once(':'), |_| None);
    let port = port.map_or("", |(_, port)| port);
    // A port with a sign is added to the client's.
    let is_sum = port.starts_with(['+', '-']);
    let message = match address.port {
        _ if is_dotted(&address.host) && address.host.parse::<Ipv4Addr>().is_err() => {
            format!("`{host}` is not an IPv4 address")
        }
        _ if host.contains(':') && address.host.parse::<Ipv6Addr>().is_err() => {
            format!("`{text}` is not an address: write `[{text}]:PORT`")
        }
        None if port.contains('-') && !is_sum => {
            format!("`{}` is a range of ports, and a server has one", word_shown(port))
        }
        None if !port.is_empty() && !is_sum && !is_port(port) => {
            format!("`{}` is not a port: 1 to 65535", word_shown(port))
        }
        None if has("check") && !has_other && (is_sum || port.is_empty()) => {
            format!("`{host}` has no port to check")
        }
        _ => return,
    };
    report(line.place_of(at), message);
}

/// Returns true if HAProxy reads a port: it ignores what follows the digits.
fn is_port(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.get(..digits).and_then(number).is_some_and(|port| port <= 65_535)
}

/// Returns true for four groups of digits.
fn is_dotted(host: &str) -> bool {
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    host.split('.').count() == 4 && host.split('.').all(is_digits)
}

fn setting(line: &Line, at: usize, name: &str, version: HaproxyVersion, report: Tell<'_>) {
    let Some(word) = line.words.get(at + 1) else { return };
    let known: &[&str] = match name {
        "inter" | "fastinter" | "downinter" | "agent-inter" => {
            time(line, at + 1, report);
            return range(line, at + 1, 1..=u64::MAX, report);
        }
        "slowstart" | "pool-purge-delay" | "tcp-ut" => return time(line, at + 1, report),
        "rise" | "fall" | "error-limit" => return range(line, at + 1, 1..=u64::MAX, report),
        "weight" => return range(line, at + 1, 0..=256, report),
        "agent-port" => return range(line, at + 1, 1..=65_535, report),
        "on-marked-down" => &["shutdown-sessions"],
        "on-marked-up" => &["shutdown-backup-sessions"],
        "observe" => &["none", "layer4", "layer7"],
        "on-error" => &["fastinter", "fail-check", "sudden-death", "mark-down"],
        "verify" => &["none", "required"],
        "resolve-prefer" => &["ipv4", "ipv6"],
        "init-state" if version >= HaproxyVersion::INIT_STATE => {
            &["up", "down", "fully-up", "fully-down"]
        }
        _ => return,
    };
    is_one_of(word, name, known, report);
}

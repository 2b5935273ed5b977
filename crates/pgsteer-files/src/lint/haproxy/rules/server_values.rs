//! Values on server lines that HAProxy refuses.

use crate::lint::haproxy::lines::Line;
use crate::lint::haproxy::rules::values::{Tell, is_one_of, range, time};
use crate::lint::haproxy::values::{Address, number};
use crate::lint::haproxy::words;
use crate::lint::word_shown;
use crate::render::HaproxyVersion;

/// Checks a `server`, a `server-template` or a `default-server`.
pub fn server_values(line: &Line, version: HaproxyVersion, tell: Tell<'_>) {
    let Some(at) = first_setting(line, tell) else { return };
    let mut at = at;
    while let Some(name) = line.words.get(at).and_then(|word| word.known()) {
        let values = words::values_of_server_word(name);
        if !words::is_server_word(name) {
            return;
        }
        if values > 0 && line.words.len() <= at + values {
            return tell(line.place_of(at), format!("`{name}` has no value"));
        }
        setting(line, at, name, version, tell);
        at += 1 + values;
    }
}

/// Checks the words before the settings. Returns the position of the first setting.
fn first_setting(line: &Line, tell: Tell<'_>) -> Option<usize> {
    let (address_at, form) = match line.word(0) {
        "default-server" => return Some(1),
        "server-template" => (3, "server-template PREFIX NUMBER ADDRESS:PORT"),
        _ => (2, "server NAME ADDRESS:PORT"),
    };
    if line.words.len() <= address_at {
        tell(line.place(), format!("the address is missing: `{form}`"));
        return None;
    }
    if address_at == 3 {
        let text = line.word(2);
        let mut numbers = text.split('-').map(number);
        if !text.is_empty() && numbers.any(|number| number.is_none_or(|number| number == 0)) {
            tell(line.place_of(2), format!("`{}` is no number of servers", word_shown(text)));
        }
    }
    let is_named = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    let name = line.word(1);
    if !name.chars().all(is_named) && !line.words.get(1).is_some_and(|it| it.has_literal_variable())
    {
        let name = word_shown(name);
        tell(line.place_of(1), format!("`{name}` is no name: letters, digits, `-`, `_`, `.`, `:`"));
    }
    let text = line.word(address_at);
    let has_port = Address::read(text).is_none_or(|_| text.contains(':'));
    let has = |name: &str| line.words.iter().any(|word| word.is(name));
    let has_other = ["port", "addr", "resolvers"].into_iter().any(has);
    if !text.is_empty() && has("check") && !has_port && !has_other {
        tell(line.place_of(address_at), format!("`{}` has no port to check", word_shown(text)));
    }
    Some(address_at + 1)
}

fn setting(line: &Line, at: usize, name: &str, version: HaproxyVersion, tell: Tell<'_>) {
    let Some(word) = line.words.get(at + 1) else { return };
    let known: &[&str] = match name {
        "inter" | "fastinter" | "downinter" | "agent-inter" => {
            time(line, at + 1, tell);
            return range(line, at + 1, 1..=u64::MAX, tell);
        }
        "slowstart" | "pool-purge-delay" | "tcp-ut" => return time(line, at + 1, tell),
        "rise" | "fall" | "error-limit" => return range(line, at + 1, 1..=u64::MAX, tell),
        "weight" => return range(line, at + 1, 0..=256, tell),
        "agent-port" => return range(line, at + 1, 1..=65_535, tell),
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
    is_one_of(word, name, known, tell);
}

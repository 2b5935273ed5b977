//! The form of lines: how many values follow a keyword, and of which kind.
//!
//! From HAProxy's own messages, by 2.6; each row was held against `haproxy -c`.

use super::value::{Tell, is_one_of, range, surplus, time};
use crate::lint::haproxy::lines::{Line, Word};
use crate::lint::haproxy::values::number;
use crate::lint::word_shown;

/// The form of a line: its first words, and what has to follow them, word by word.
///
/// - `TEXT`: a word
/// - `TIME`: a time
/// - `NUMBER`: digits; `1..` and `1..64`: within a range
/// - `a|b|c`: one of these
/// - `IF`: `if` or `unless`, and a condition; `IF?`: only these may follow, or nothing
/// - `.`: nothing may follow
type Shape = (&'static str, &'static str);

/// In `global`.
#[rustfmt::skip]
const GLOBAL: &[Shape] = &[
    ("ca-base", "TEXT"), ("chroot", "TEXT ."), ("close-spread-time", "TIME"),
    ("cpu-map", "TEXT TEXT"), ("crt-base", "TEXT"), ("daemon", "."),
    ("default-path", "current|config|parent|origin"), ("group", "TEXT ."),
    ("h1-case-adjust", "TEXT TEXT"), ("hard-stop-after", "TIME"), ("localpeer", "TEXT"),
    ("log", "TEXT"), ("log-tag", "TEXT"), ("lua-load", "TEXT"), ("max-spread-checks", "TIME"),
    ("maxconn", "TEXT ."), ("nbthread", "NUMBER"), ("nbthread", "1.."), ("node", "TEXT ."),
    ("pidfile", "TEXT"), ("presetenv", "TEXT TEXT"), ("profiling.tasks", "on|auto|off"),
    ("server-state-base", "TEXT"), ("server-state-file", "TEXT"), ("setenv", "TEXT TEXT"),
    ("spread-checks", "0..50"), ("ssl-default-bind-ciphers", "TEXT"),
    ("ssl-default-bind-options", "TEXT"), ("ssl-server-verify", "none|required"),
    ("stats", "socket|maxconn|bind-process|timeout|calculate-max-counters"),
    ("stats maxconn", "NUMBER"), ("stats timeout", "TIME"), ("tune.bufsize", "NUMBER"),
    ("tune.idle-pool.shared", "on|auto|off"), ("tune.ssl.default-dh-param", "1024.."),
    ("ulimit-n", "TEXT"), ("unsetenv", "TEXT"), ("user", "TEXT ."),
];

/// In proxies and `defaults`.
#[rustfmt::skip]
const PROXY: &[Shape] = &[
    ("acl", "TEXT TEXT"), ("clitcpka-cnt", "NUMBER"), ("clitcpka-idle", "TIME"),
    ("clitcpka-intvl", "TIME"), ("default_backend", "TEXT ."), ("description", "TEXT"),
    ("disabled", "."), ("dispatch", "TEXT"), ("email-alert", "from|level|mailers|myhostname|to TEXT"),
    ("enabled", "."), ("errorfile", "TEXT TEXT"),
    ("external-check", "command|path TEXT"), ("fullconn", "TEXT ."),
    ("hash-type", "consistent|map-based"), ("http-check comment", "TEXT"),
    ("http-reuse", "never|safe|aggressive|always"), ("id", "NUMBER"), ("id", "1.."),
    ("load-server-state-from-file", "global|local|none"), ("log-format", "TEXT"),
    ("log-tag", "TEXT"), ("max-keep-alive-queue", "NUMBER"), ("maxconn", "TEXT ."),
    ("monitor-uri", "TEXT ."),
    ("option mysql-check user", "TEXT"), ("option redis-check", "."),
    ("rate-limit", "sessions"), ("rate-limit sessions", "NUMBER"), ("retries", "TEXT ."), ("retry-on", "TEXT"),
    ("source", "TEXT"), ("srvtcpka-cnt", "NUMBER"), ("srvtcpka-idle", "TIME"),
    ("srvtcpka-intvl", "TIME"), ("stats", "TEXT"), ("stats admin", "IF"),
    ("stats auth", "TEXT"), ("stats realm", "TEXT"), ("stats refresh", "TIME"),
    ("stats uri", "TEXT"), ("stick", "on|match|store-request|store-response"), ("stick match", "TEXT"), ("stick on", "TEXT"),
    ("stick-table", "TEXT"), ("tcp-check comment", "TEXT"), ("tcp-check send", "TEXT"),
    ("tcp-request", "connection|content|inspect-delay|session"),
    ("tcp-request connection", "TEXT"), ("tcp-request content", "TEXT"),
    ("tcp-request inspect-delay", "TIME"), ("timeout", "TEXT"), ("use-server", "TEXT IF"),
    ("use_backend", "TEXT IF?"),
];

/// Actions of `tcp-request`, or how they begin, up to HAProxy 3.4.
#[rustfmt::skip]
const ACTIONS: [&str; 19] = [
    "accept", "attach-srv", "capture", "close", "do-", "expect-", "lua.", "ot-", "pause",
    "reject", "sc-", "send-", "set-", "silent-drop", "switch-mode", "track-", "unset-",
    "use-service", "when",
];

/// In `resolvers`. The only section besides where names of members depend on every line.
#[rustfmt::skip]
const RESOLVERS: &[Shape] = &[
    ("accepted_payload_size", "12..65535"), ("hold", "nx|obsolete|other|refused|timeout|valid TIME"),
    ("nameserver", "TEXT TEXT"), ("parse-resolv-conf", ""), ("resolve_retries", "TEXT"),
    ("timeout", "resolve|retry TIME"),
];

/// Sections that need a name.
const NAMED: [&str; 5] = ["cache", "mailers", "peers", "resolvers", "userlist"];

/// Checks a line of `global`.
pub fn of_global(line: &Line, report: Tell<'_>) {
    of_shapes(line, GLOBAL, report);
}

/// Checks a line of a proxy or of `defaults`.
pub fn of_proxy(line: &Line, report: Tell<'_>) {
    of_shapes(line, PROXY, report);
    match (line.word(0), line.word(1)) {
        ("stick-table", _) => stick_table(line, report),
        ("tcp-request", ruleset @ ("connection" | "content" | "session")) => {
            let action = line.word(2);
            if !action.is_empty() && !ACTIONS.iter().any(|it| action.starts_with(it)) {
                let message = format!("there is no `tcp-request {ruleset} {}`", word_shown(action));
                report(line.place_of(2), message);
            }
        }
        _ => {}
    }
}

/// Checks the first line of another section, and the lines of `resolvers`.
pub fn of_other(head: &Line, body: &[Line], report: Tell<'_>) {
    let kind = head.word(0);
    if NAMED.contains(&kind) && head.words.len() == 1 {
        report(head.place(), format!("`{kind}` has no name"));
    }
    for line in body.iter().filter(|_| kind == "resolvers") {
        let word = line.word(0);
        if !word.is_empty() && !RESOLVERS.iter().any(|(name, _)| *name == word) {
            report(line.place_of(0), format!("there is no `{}` in `resolvers`", word_shown(word)));
        }
        of_shapes(line, RESOLVERS, report);
        if word == "nameserver" && !line.word(2).is_empty() && !line.word(2).contains([':', '/']) {
            let address = word_shown(line.word(2));
            report(line.place_of(2), format!("`{address}` has no port: `{address}:53`"));
        }
    }
}

fn of_shapes(line: &Line, shapes: &[Shape], report: Tell<'_>) {
    for (keywords, values) in shapes {
        let keywords: Vec<&str> = keywords.split(' ').collect();
        // One fault of a line is enough.
        if line.begins(&keywords) && !is_of_shape(line, &keywords, values, report) {
            return;
        }
    }
}

/// Checks the words after the keywords. Returns false if one is wrong.
fn is_of_shape(line: &Line, keywords: &[&str], values: &str, report: Tell<'_>) -> bool {
    let name = keywords.join(" ");
    let mut is_right = true;
    let mut wrong = |place, message| {
        is_right = false;
        report(place, message);
    };
    for (at, value) in (keywords.len()..).zip(values.split(' ').filter(|it| !it.is_empty())) {
        let word = line.words.get(at);
        match (value, word) {
            (".", _) => surplus(line, at, &mut wrong),
            ("IF?", None) => {}
            ("IF" | "IF?", Some(word)) if ["if", "unless"].iter().any(|it| word.is(it)) => {}
            ("IF" | "IF?", _) => {
                let place = word.map_or(line.place(), |word| word.place);
                wrong(place, format!("`{name}` needs `if` or `unless`, and a condition"));
            }
            (_, None) => wrong(line.place(), format!("`{name}` has no value")),
            (_, Some(word)) if word.known().is_none() || word.has_literal_variable() => {}
            (value, Some(word)) => of_value(line, at, (&name, value, word), &mut wrong),
        }
    }
    is_right
}

fn of_value(line: &Line, at: usize, (name, value, word): (&str, &str, &Word), report: Tell<'_>) {
    match value {
        "TEXT" => {}
        "TIME" => time(line, at, report),
        "NUMBER" if number(word.shown()).is_none() => {
            report(word.place, format!("`{}` is not a number", word_shown(word.shown())));
        }
        "NUMBER" => {}
        value => match value.split_once("..") {
            Some((from, to)) => {
                let to = number(to).unwrap_or(u64::MAX);
                range(line, at, number(from).unwrap_or(0)..=to, report);
            }
            None => is_one_of(word, name, &value.split('|').collect::<Vec<_>>(), report),
        },
    }
}

/// `stick-table type TYPE size SIZE ...`.
fn stick_table(line: &Line, report: Tell<'_>) {
    let types = ["ip", "ipv6", "integer", "string", "binary"];
    let behind = |name: &str| {
        let at = line.words.iter().position(|word| word.is(name))?;
        Some(line.words.get(at + 1))
    };
    match (behind("type"), behind("size")) {
        (Some(Some(kind)), _) if kind.known().is_some_and(|kind| !types.contains(&kind)) => {
            is_one_of(kind, "stick-table type", &types, report);
        }
        (_, None | Some(None)) if line.words.len() > 1 => {
            report(line.place(), "`stick-table` has no `size`".to_owned());
        }
        _ => {}
    }
}

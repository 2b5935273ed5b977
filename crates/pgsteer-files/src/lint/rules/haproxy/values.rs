//! Values that HAProxy refuses: times, numbers, keywords, missing and surplus words.

use super::check_rules::{self, check_rule};
use super::conditions;
use super::server_values::server_values;
use super::shapes;
use super::value::{Tell, is_one_of, surplus, time};
use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::lines::{Line, Word};
use crate::lint::haproxy::sections::{Kind, Section};
use crate::lint::haproxy::values::{Address, number};
use crate::lint::haproxy::words;
use crate::lint::location::Location;
use crate::lint::rule::{Findings, Look, rule};
use crate::lint::word_shown;
use crate::render::HaproxyVersion;

rule! {
    /// HAProxy refuses the value.
    VALUE_REFUSED = "value-refused", Error, Look::Haproxy(refused),
    title: "a value that HAProxy refuses",
    costs: "HAProxy refuses the file.",
    remedy: "Correct it as the message explains; `haproxy -c -f FILE` checks the result.",
}

fn refused(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for section in &haproxy.model.file.sections {
        let is_of_ours = section.kind != Kind::Other;
        if is_of_ours && head(section, findings) {
            continue;
        }
        let mut report = |place: Location, message: String| findings.add(place, message);
        if !is_of_ours && !section.head.words.is_empty() {
            shapes::of_other(&section.head, &section.body, &mut report);
        }
        for line in section.body.iter().filter(|_| is_of_ours) {
            of_line(section, line, haproxy.options.haproxy, &mut report);
        }
        for rules in ["http-check", "tcp-check"] {
            check_rules::order(section.lines_of(rules), &mut report);
        }
    }
}

/// Checks the first line of a section. Returns true if HAProxy ignores the section because of it.
fn head(section: &Section, findings: &mut Findings) -> bool {
    let head = &section.head;
    if section.kind == Kind::Global {
        surplus(head, 1, &mut |place: Location, message: String| findings.add(place, message));
    }
    if !section.kind.is_proxy() || head.words.is_empty() {
        return false;
    }
    let kind = head.word(0);
    let is_named = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    match (head.words.get(1), head.words.get(2)) {
        (None, _) => findings.add(head, format!("`{kind}` has no name")),
        // Another rule reports a variable.
        (Some(word), _) if word.has_literal_variable() => {}
        (Some(word), _) if word.known().is_some_and(|name| !name.chars().all(is_named)) => {
            let name = word_shown(word.shown());
            let message = format!("`{name}` is not a name: letters, digits, `-`, `_`, `.` and `:`");
            findings.add(word.place, message);
        }
        (_, Some(word)) if !word.is("from") && section.kind != Kind::Backend => {
            let second: String = word.shown().chars().take(60).collect();
            let message = match second.contains(':') {
                true => format!(
                    "`{kind}` takes no address since HAProxy 1.7: write `bind {second}` on a line of its own"
                ),
                false => format!(
                    "`{kind}` takes one name, without spaces, and HAProxy reads `{second}` as an address"
                ),
            };
            findings.add(word.place, message);
            return true;
        }
        _ => {}
    }
    false
}

fn of_line(section: &Section, line: &Line, version: HaproxyVersion, report: Tell<'_>) {
    let is_global = section.kind == Kind::Global;
    let at = usize::from(["no", "default"].contains(&line.word(0)));
    match is_global {
        true => shapes::of_global(line, report),
        false => shapes::of_proxy(line, report),
    }
    conditions::of_line(line, report);
    match line.word(at) {
        "timeout" if !is_global => timeout(line, report),
        "stats" if is_global && line.word(1) == "socket" => stats_socket(line, report),
        "mode" if !is_global => one_of(line, "mode", &modes(version), report),
        "balance" if !is_global => balance(line, version, report),
        "option" => option(line, at, version, report),
        "bind" => bind(line, report),
        "dispatch" => dispatch(line, report),
        "server" | "default-server" | "server-template" => server_values(line, version, report),
        "http-check" | "tcp-check" => check_rule(line, report),
        "log" if !is_global || at > 0 || !line.begins(&["log", "global"]) => log(line, report),
        "log" => report(line.place_of(1), "`log global` refers to this section itself".to_owned()),
        _ => {}
    }
}

fn timeout(line: &Line, report: Tell<'_>) {
    // Another rule reports a keyword with another place.
    if line.words.len() == 2 {
        report(line.place(), format!("`timeout {}` has no value", line.word(1)));
    } else {
        time(line, 2, report);
        surplus(line, 3, report);
    }
}

/// Checks that the keyword after `name` is one of `known`.
fn one_of(line: &Line, name: &str, known: &[&str], report: Tell<'_>) {
    match line.words.get(1) {
        None => report(line.place(), format!("`{name}` has no value")),
        Some(word) => {
            is_one_of(word, name, known, report);
            surplus(line, 2, report);
        }
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

fn balance(line: &Line, version: HaproxyVersion, report: Tell<'_>) {
    let Some(word) = line.words.get(1) else {
        return report(line.place(), "`balance` has no value".to_owned());
    };
    let Some(text) = word.known() else { return };
    let name = text.split('(').next().unwrap_or(text);
    // Later versions may have more.
    let is_later = version > HaproxyVersion::new(3, 4);
    if !is_later && !BALANCES.contains(&name) && name != "url_param" {
        report(word.place, format!("there is no `balance {}`", word_shown(text)));
    }
    let argument = text.split_once('(').map_or("", |(_, argument)| argument.trim_end_matches(')'));
    let why = match name {
        "random" if !argument.is_empty() && number(argument).is_none() => {
            "takes a number in `(...)`"
        }
        "hdr" if argument.is_empty() => "needs the name of a header in `(...)`",
        "hash" | "url_param" if line.words.len() == 2 => "has no value",
        _ => return,
    };
    report(word.place, format!("`balance {name}` {why}"));
}

/// Options without arguments, which `no` and `default` may precede.
#[rustfmt::skip]
const BARE_OPTIONS: [&str; 30] = [
    "abortonclose", "allbackups", "checkcache", "clitcpka", "contstats", "dontlog-normal",
    "dontlognull", "http-buffer-request", "http-ignore-probes", "http-keep-alive",
    "http-no-delay", "http-pretend-keepalive", "http-server-close", "httpclose",
    "idle-close-on-response", "independent-streams", "log-health-checks",
    "log-separate-errors", "logasap", "nolinger", "persist", "prefer-last-server",
    "socket-stats", "splice-auto", "splice-request", "splice-response", "srvtcpka",
    "tcp-smart-accept", "tcp-smart-connect", "transparent",
];
/// Options that `no` and `default` may not precede.
#[rustfmt::skip]
const FIRM_OPTIONS: [&str; 15] = [
    "external-check", "forwardfor", "httpchk", "httplog", "httpslog", "ldap-check",
    "mysql-check", "originalto", "pgsql-check", "redis-check", "smtpchk", "ssl-hello-chk",
    "tcp-check", "tcpka", "tcplog",
];

fn option(line: &Line, at: usize, version: HaproxyVersion, report: Tell<'_>) {
    let name = line.word(at + 1);
    let is_bare = BARE_OPTIONS.contains(&name)
        || ["tcp-check", "tcpka"].contains(&name)
        || name == "tcplog" && version < HaproxyVersion::new(3, 1);
    if line.words.len() == at + 1 {
        report(line.place(), "`option` has no name".to_owned());
    } else if at > 0 && FIRM_OPTIONS.contains(&name) {
        let message = format!("`{}` cannot precede `option {name}`", line.word(0));
        report(line.place_of(0), message);
    } else if is_bare {
        surplus(line, at + 2, report);
    } else if at == 0 && name == "httpchk" && version >= HaproxyVersion::new(3, 0) {
        httpchk(line, report);
    }
}

/// Headers behind the version of `option httpchk`, by a line break, which HAProxy 3.0 refuses.
fn httpchk(line: &Line, report: Tell<'_>) {
    let end = |word: &&Word| word.shown().contains(['\r', '\n']);
    if let Some(word) = line.from(4).iter().find(end) {
        let message = "headers go into `http-check send meth ... uri ... hdr NAME VALUE`";
        report(word.place, message.to_owned());
    }
}

fn bind(line: &Line, report: Tell<'_>) {
    let Some(word) = line.words.get(1) else {
        return report(line.place(), "`bind` has no address".to_owned());
    };
    for text in word.known().unwrap_or_default().split(',').filter(|text| !text.is_empty()) {
        let Some(address) = Address::read(text) else { continue };
        let port = text.rsplit_once(':').map_or("", |(_, port)| port);
        let mut ends = port.split('-').filter_map(number);
        if !text.contains(':') {
            let message = format!("`{}` has no port: `{}:5000`", word_shown(text), address.host);
            report(word.place, message);
        } else if ends.any(|port| !(1..=65_535).contains(&port)) {
            report(word.place, format!("{} is out of range: 1 to 65535", word_shown(port)));
        }
    }
    bind_settings(line, 2, report);
}

/// Checks the settings of a `bind` or a `stats socket` from `at` on.
fn bind_settings(line: &Line, mut at: usize, report: Tell<'_>) {
    while let Some(name) = line.words.get(at).and_then(Word::known) {
        let has_value = words::BIND_WITH_VALUE.contains(&name);
        if !has_value && !words::BIND_ALONE.contains(&name) {
            return;
        }
        at += 1 + usize::from(has_value);
        let Some(word) = line.words.get(at - 1) else {
            return report(line.place(), format!("`{name}` has no value"));
        };
        let is_octal = |text: &str| text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        match name {
            "level" => is_one_of(word, "level", &["user", "operator", "admin"], report),
            "tcp-ut" => time(line, at - 1, report),
            "mode" if word.known().is_some_and(|text| !is_octal(text)) => {
                report(word.place, format!("`{}` is not an octal mode", word_shown(word.shown())));
            }
            _ => {}
        }
    }
}

fn dispatch(line: &Line, report: Tell<'_>) {
    let text = line.word(1);
    if Address::read(text).is_some_and(|_| !text.is_empty() && !text.contains(':')) {
        report(line.place_of(1), format!("`{}` has no port", word_shown(text)));
    }
}

fn stats_socket(line: &Line, report: Tell<'_>) {
    match line.words.len() {
        2 => report(line.place(), "`stats socket` has no address".to_owned()),
        _ => bind_settings(line, 3, report),
    }
}

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "auth2",
    "ftp", "ntp", "audit", "alert", "cron2", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

const LOG_LEVELS: [&str; 8] =
    ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

fn log(line: &Line, report: Tell<'_>) {
    // `log global`, and settings between the address and the facility.
    if line.words.len() == 1 {
        return report(
            line.place(),
            "`log` needs an address and a facility, or `global`".to_owned(),
        );
    }
    if line.words.len() == 2 && !line.begins(&["log", "global"]) && !line.word(1).is_empty() {
        report(line.place(), "`log` has an address and no facility".to_owned());
    }
    let mut at = 2;
    while ["len", "format", "sample", "profile"].contains(&line.word(at)) {
        at += 2;
    }
    if at > 2 && line.words.len() <= at {
        report(line.place(), "`log` has no facility".to_owned());
    }
    let mut of = |at: usize, what: &str, known: &[&str]| {
        let word = line.words.get(at).filter(|word| word.known().is_some());
        if let Some(word) = word.filter(|word| !known.iter().any(|it| word.is(it))) {
            report(word.place, format!("there is no {what} `{}`", word_shown(word.shown())));
        }
    };
    of(at, "facility", &FACILITIES);
    of(at + 1, "log level", &LOG_LEVELS);
    of(at + 2, "log level", &LOG_LEVELS);
}

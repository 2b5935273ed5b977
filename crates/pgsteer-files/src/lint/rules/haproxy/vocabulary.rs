//! Words that HAProxy does not support: in no version, or not in this one.

use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::lines::{Line, Word};
use crate::lint::haproxy::lives::{Where, life};
use crate::lint::haproxy::sections::{Kind, Section};
use crate::lint::haproxy::words;
use crate::lint::rule::{Findings, Look, rule};
use crate::lint::word_shown;
use crate::render::HaproxyVersion;
use pgsteer_config::suggest::nearest;

rule! {
    /// No version of HAProxy supports it.
    UNKNOWN_WORD = "unknown-word", Error, Look::Haproxy(unknown),
    title: "a keyword that HAProxy does not have",
    costs: "HAProxy refuses the file.",
    remedy: "Correct it; `haproxy -c -f FILE` lists the keywords that are possible there.",
}

rule! {
    /// Another version of HAProxy supports it.
    WORD_NOT_IN_VERSION = "word-not-in-version", Error, Look::Haproxy(not_in_version),
    title: "a keyword that this version of HAProxy does not have",
    costs: "HAProxy refuses the file.",
    remedy: "Remove it, or use a version that has it; `--haproxy-version` sets the version for lint.",
}

rule! {
    /// The line itself is malformed.
    LINE_NOT_UNDERSTOOD = "line-not-understood", Error, Look::Haproxy(not_understood),
    title: "a line that HAProxy cannot read",
    costs: "HAProxy refuses the file.",
    remedy: "Close the quote, or escape the character with a backslash; end the last line with a line break.",
}

/// Words of the file at positions where HAProxy requires a keyword.
struct Asked<'a> {
    place: Where,
    /// The keyword before it, such as `option`.
    lead: &'static str,
    word: &'a Word,
}

/// Which lines are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lines {
    All,
    /// Those outside `.if` and `.endif`: which lines count there, the version itself may decide.
    Unconditional,
}

fn asked(haproxy: &Haproxy<'_>, lines: Lines, mut ask: impl FnMut(&Asked<'_>)) {
    let is_looked_at = |line: &&Line| lines == Lines::All || !line.is_conditional;
    for section in &haproxy.model.file.sections {
        let head = Some(&section.head).filter(is_looked_at);
        if let Some(word) = head.and_then(|head| head.words.first()) {
            ask(&Asked { place: Where::Section, lead: "", word });
        }
        for line in section.body.iter().filter(is_looked_at) {
            of_line(section, line, &mut ask);
        }
    }
}

fn of_line<'a>(section: &Section, line: &'a Line, ask: &mut impl FnMut(&Asked<'a>)) {
    let place = match section.kind {
        Kind::Global => Where::Global,
        Kind::Other => return,
        _ => Where::Proxy,
    };
    let at = usize::from(["no", "default"].contains(&line.word(0)));
    let Some(word) = line.words.get(at) else { return };
    ask(&Asked { place, lead: "", word });
    if place == Where::Global {
        if line.begins(&["stats", "socket"]) {
            bind_words(line, 3, ask);
        }
        return;
    }
    let second = line.words.get(at + 1);
    match (line.word(at), second) {
        ("option", Some(word)) => ask(&Asked { place: Where::Option, lead: "option ", word }),
        ("timeout", Some(word)) => ask(&Asked { place: Where::Timeout, lead: "timeout ", word }),
        ("bind", _) => bind_words(line, 2, ask),
        ("default-server", _) => server_words(line, 1, ask),
        ("server", _) => server_words(line, 3, ask),
        ("server-template", _) => server_words(line, 4, ask),
        _ => {}
    }
}

fn server_words<'a>(line: &'a Line, mut at: usize, ask: &mut impl FnMut(&Asked<'a>)) {
    while let Some(word) = line.words.get(at) {
        // After a variable it is unknown which keyword is a value.
        let Some(text) = word.known() else { return };
        ask(&Asked { place: Where::Server, lead: "", word });
        if !words::is_server_word(text) {
            return;
        }
        at += 1 + words::values_of_server_word(text);
    }
}

fn bind_words<'a>(line: &'a Line, mut at: usize, ask: &mut impl FnMut(&Asked<'a>)) {
    while let Some(word) = line.words.get(at) {
        let Some(text) = word.known() else { return };
        ask(&Asked { place: Where::Bind, lead: "", word });
        let has_value = words::BIND_WITH_VALUE.contains(&text);
        if !has_value && !words::BIND_ALONE.contains(&text) {
            return;
        }
        at += 1 + usize::from(has_value);
    }
}

impl Asked<'_> {
    fn is_known(&self, text: &str) -> bool {
        match self.place {
            Where::Section => true,
            Where::Global => words::GLOBAL.contains(&text) || text.contains('.'),
            Where::Proxy => words::PROXY.contains(&text),
            Where::Option => words::OPTIONS.contains(&text),
            Where::Timeout => words::TIMEOUTS.contains(&text),
            Where::Server => words::is_server_word(text),
            Where::Bind => {
                words::BIND_WITH_VALUE.contains(&text) || words::BIND_ALONE.contains(&text)
            }
        }
    }

    fn near(&self, text: &str) -> Option<&'static str> {
        let sections = ["global", "defaults", "frontend", "backend", "listen"];
        match self.place {
            Where::Section => None,
            Where::Global => nearest(text, &words::GLOBAL),
            Where::Proxy => nearest(text, &words::PROXY).or_else(|| nearest(text, &sections)),
            Where::Option => nearest(text, &words::OPTIONS),
            Where::Timeout => nearest(text, &words::TIMEOUTS),
            Where::Bind => {
                nearest(text, &words::BIND_WITH_VALUE).or_else(|| nearest(text, &words::BIND_ALONE))
            }
            Where::Server => nearest(text, &words::SERVER_WITH_VALUE)
                .or_else(|| nearest(text, &words::SERVER_ALONE)),
        }
    }
}

fn unknown(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for line in &haproxy.model.file.strays {
        let message = format!("`{}` is before the first section", word_shown(line.word(0)));
        findings.add(line.place_of(0), message);
    }
    asked(haproxy, Lines::All, |asked| {
        let Some(text) = asked.word.known() else { return };
        if !asked.is_known(text) {
            let meant = asked.near(text).filter(|near| *near != text);
            let meant = meant
                .map_or(String::new(), |near| format!("; did you mean `{}{near}`?", asked.lead));
            let message = format!("there is no `{}{}`{meant}", asked.lead, word_shown(text));
            findings.add(asked.word.place, message);
        }
    });
    for (rules, known) in [
        ("http-check", &words::HTTP_CHECK[..]),
        ("tcp-check", &words::TCP_CHECK[..]),
        ("stats", &words::STATS[..]),
    ] {
        second_words(haproxy, rules, known, findings);
    }
    for rules in ["http-check", "tcp-check"] {
        connect_words(haproxy, rules, findings);
    }
}

/// Words behind `http-check connect` and `tcp-check connect`.
fn connect_words(haproxy: &Haproxy<'_>, rules: &str, findings: &mut Findings) {
    let sections = haproxy.model.file.sections.iter();
    let sections = sections.filter(|it| it.kind.is_proxy() || it.kind == Kind::Defaults);
    let lines = sections.flat_map(|section| &section.body);
    for line in lines.filter(|line| line.begins(&[rules, "connect"])) {
        let mut at = 2;
        while let Some(text) = line.words.get(at).and_then(Word::known) {
            let has_value = words::CONNECT_WITH_VALUE.contains(&text);
            if !has_value && !words::CONNECT_ALONE.contains(&text) {
                let hint = match words::is_server_word(text) {
                    true => "; it belongs on the server line",
                    false => "",
                };
                let word = word_shown(text);
                let message = format!("there is no `{rules} connect ... {word}`{hint}");
                findings.add(line.place_of(at), message);
                break;
            }
            at += 1 + usize::from(has_value);
        }
    }
}

/// Words after `http-check` and similar words.
fn second_words(
    haproxy: &Haproxy<'_>,
    first: &str,
    known: &[&'static str],
    findings: &mut Findings,
) {
    let sections = haproxy.model.file.sections.iter();
    let sections = sections.filter(|it| it.kind.is_proxy() || it.kind == Kind::Defaults);
    for line in sections.flat_map(|section| &section.body).filter(|line| line.word(0) == first) {
        let Some(text) = line.words.get(1).and_then(Word::known) else { continue };
        // `set-var(...)`, whose argument is part of the keyword.
        let bare = text.split('(').next().unwrap_or(text);
        if !known.contains(&bare) {
            // `admin:...` is not a misspelt `admin`.
            let near = nearest(bare, known).filter(|near| !bare.starts_with(near));
            let meant =
                near.map_or(String::new(), |near| format!("; did you mean `{first} {near}`?"));
            findings.add(
                line.place_of(1),
                format!("there is no `{first} {}`{meant}", word_shown(text)),
            );
        }
    }
}

fn not_in_version(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let version = haproxy.options.haproxy;
    asked(haproxy, Lines::Unconditional, |asked| {
        let Some(text) = asked.word.known() else { return };
        if let Some(message) = out_of_time(asked, text, version) {
            findings.add(asked.word.place, message);
        }
    });
}

fn out_of_time(asked: &Asked<'_>, text: &str, version: HaproxyVersion) -> Option<String> {
    let bare = text.split('(').next().unwrap_or(text);
    let positive = bare.strip_prefix("no-").unwrap_or(bare);
    let life = life(asked.place, bare).or_else(|| life(asked.place, positive))?;
    let lead = asked.lead;
    if let Some(since) = life.since.filter(|since| version < *since) {
        return Some(format!(
            "`{lead}{text}` needs HAProxy {since} or later, and this is {version}"
        ));
    }
    life.until.filter(|until| version >= *until)?;
    let instead = match life.instead {
        "" => String::new(),
        instead => format!("; instead: {instead}"),
    };
    Some(format!("HAProxy {version} no longer supports `{lead}{text}`{instead}"))
}

fn not_understood(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for fault in &haproxy.model.file.faults {
        findings.add(fault.place, fault.why);
    }
}

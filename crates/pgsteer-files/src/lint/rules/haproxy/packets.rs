//! PostgreSQL's messages in a `tcp-check`: lengths, and the order of messages. (PostgreSQL manual,
//! "Message Formats".)

use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::checks::{Check, hex};
use crate::lint::haproxy::lines::Line;
use crate::lint::haproxy::proxy::Proxy;
use crate::lint::location::Location;
use crate::lint::rule::{Findings, Look, rule};

rule! {
    /// The server waits for bytes that never arrive, or takes the next message for a part of this
    /// one.
    TCP_CHECK_LENGTH = "tcp-check-length", Error, Look::Haproxy(length),
    title: "the length in a message of PostgreSQL is wrong",
    costs: "The server waits for bytes that never come, or reads the next message in the wrong place: the check fails, and the server is DOWN for ever.",
    remedy: "Correct the length, which counts itself; `pgsteer render haproxy --profile sql` computes it for any user name.",
}

rule! {
    /// The server has closed the connection by then.
    TCP_CHECK_SENDS_AFTER_END = "tcp-check-sends-after-end", Error, Look::Haproxy(after_end),
    title: "a check sends data after it has ended the session",
    costs: "The server has closed the connection, and HAProxy shows a healthy primary as SOCKERR, DOWN.",
    remedy: "Remove the second Terminate: the first one ended the session.",
}

rule! {
    /// A wrong answer is detected only by a timeout.
    TCP_CHECK_WAITS = "tcp-check-waits", Warning, Look::Haproxy(waits),
    title: "a check detects a wrong answer only by its timeout",
    costs: "The server returns `t` where the check expects `f`, and keeps the connection open: each failed check takes the whole timeout, `fall` times. With 5 s and three checks a failover took 16 s.",
    remedy: "Send Terminate (`5800000004`) directly after the query: the server closes the connection after its answer, and the check fails at once.",
}

/// HAProxy's buffer: no peer sends more at once.
const RUN_BYTES_MAX: usize = 16 << 10;
const PROTOCOL_3: [u8; 2] = [0, 3];
/// The first bytes of a client's messages after the login.
const OF_CLIENTS: &[u8] = b"BCDEFHPQSXcdfp";
/// The first bytes of a server's messages.
const OF_SERVERS: &[u8] = b"123ACDEGHIKNRSTVWZcdnst";

/// One step of a check: bytes with their places.
enum Step {
    Connect,
    Send(Vec<(u8, Location)>),
    Expect(Vec<(u8, Location)>),
    /// A step with unknown bytes.
    Unclear,
}

fn step(line: &Line) -> Option<Step> {
    let bytes = |text: Option<Vec<u8>>| {
        let at = |byte| (byte, line.place_of(2));
        text.map(|bytes| bytes.into_iter().map(at).collect::<Vec<_>>())
    };
    Some(match (line.word(1), line.word(2)) {
        ("connect", _) => Step::Connect,
        ("comment", _) => return None,
        ("send-binary", _) => bytes(hex(line.words.get(2))).map_or(Step::Unclear, Step::Send),
        ("send", _) => {
            let text = line.words.get(2).and_then(|word| word.known());
            bytes(text.map(|text| text.as_bytes().to_vec())).map_or(Step::Unclear, Step::Send)
        }
        ("expect", "binary") => bytes(hex(line.words.get(3))).map_or(Step::Unclear, Step::Expect),
        _ => Step::Unclear,
    })
}

/// A run of the same kind of steps, as one stream of bytes.
enum Run {
    Send(Vec<(u8, Location)>),
    /// Each expectation on its own: HAProxy searches for each of them anywhere in the answer.
    Expect(Vec<Vec<(u8, Location)>>),
}

/// Returns the dialogue of a check with PostgreSQL, one for each connection; none if it is with
/// another server, or if its bytes are unknown.
fn talks(proxy: &Proxy<'_>) -> Vec<Vec<Run>> {
    let Check::Tcp(rules) = Check::of(proxy) else { return Vec::new() };
    let mut talks: Vec<Vec<Run>> = vec![Vec::new()];
    for step in rules.into_iter().filter_map(step) {
        let Some(talk) = talks.last_mut() else { break };
        match (step, talk.last_mut()) {
            (Step::Unclear, _) => return Vec::new(),
            (Step::Connect, _) => talks.push(Vec::new()),
            (Step::Send(bytes), Some(Run::Send(all))) => all.extend(bytes),
            (Step::Send(bytes), _) => talk.push(Run::Send(bytes)),
            (Step::Expect(bytes), Some(Run::Expect(all))) => all.push(bytes),
            (Step::Expect(bytes), _) => talk.push(Run::Expect(vec![bytes])),
        }
    }
    let is_long = |run: &Run| matches!(run, Run::Send(bytes) if bytes.len() > RUN_BYTES_MAX);
    talks.retain(|talk| match talk.first() {
        _ if talk.iter().any(is_long) => false,
        Some(Run::Send(bytes)) => {
            bytes.get(4..6).is_some_and(|code| code.iter().map(|it| it.0).eq(PROTOCOL_3))
        }
        _ => false,
    });
    talks
}

/// A message of a client.
struct Message {
    /// 0 for the startup packet, which has no tag.
    tag: u8,
    place: Location,
    said: usize,
    /// The actual length, if its bytes show it.
    has: usize,
}

impl Message {
    fn name(&self) -> String {
        match self.tag {
            0 => "the startup packet".to_owned(),
            b'Q' => "the query".to_owned(),
            b'X' => "Terminate".to_owned(),
            tag => format!("the message `{}`", char::from(tag)),
        }
    }
}

/// Parses one message; none if tag and length are incomplete.
fn message(bytes: &[(u8, Location)], has_tag: bool) -> Option<Message> {
    let (tag, rest) = match has_tag {
        true => bytes.split_first().map(|(first, rest)| (first.0, rest))?,
        false => (0, bytes),
    };
    let raw: Vec<u8> = rest.iter().map(|byte| byte.0).collect();
    let length: [u8; 4] = raw.get(..4)?.try_into().ok()?;
    let said = usize::try_from(u32::from_be_bytes(length)).ok()?;
    let has = match tag {
        // Pairs of texts, and a final zero after that of the last text.
        0 => raw.windows(2).skip(8).position(|pair| pair == [0, 0]).map(|at| at + 10),
        b'Q' => raw.iter().skip(4).position(|byte| *byte == 0).map(|at| at + 5),
        b'X' => Some(4),
        _ => None,
    };
    let fits = said.min(raw.len());
    let place = rest.first()?.1;
    Some(Message { tag, place, said, has: has.unwrap_or(fits) })
}

fn length(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in &haproxy.model.proxies {
        for talk in talks(proxy) {
            let mut is_first = true;
            for run in &talk {
                match run {
                    Run::Send(bytes) => {
                        if let Some(wrong) = wrong_message(bytes, !is_first) {
                            let message = format!(
                                "the length of {} is {} bytes, and it has {}",
                                wrong.name(),
                                wrong.said,
                                wrong.has
                            );
                            findings.add(wrong.place, message);
                        }
                        is_first = false;
                    }
                    Run::Expect(all) => {
                        for (place, message) in all.iter().filter_map(|bytes| wrong_answer(bytes)) {
                            findings.add(place, message);
                        }
                    }
                }
            }
        }
    }
}

/// Returns the first message whose length differs from its length word.
fn wrong_message(mut bytes: &[(u8, Location)], mut has_tag: bool) -> Option<Message> {
    while !bytes.is_empty() {
        let message = message(bytes, has_tag)?;
        let whole = message.said + usize::from(has_tag);
        let behind = bytes.get(whole..);
        let is_wrong = message.said != message.has
            || behind.is_none_or(|behind| {
                behind.first().is_some_and(|next| !OF_CLIENTS.contains(&next.0))
            });
        if is_wrong {
            return Some(message);
        }
        bytes = behind?;
        has_tag = true;
    }
    None
}

/// Returns an expected message that is longer than its length word.
fn wrong_answer(bytes: &[(u8, Location)]) -> Option<(Location, String)> {
    let (first, rest) = bytes.split_first()?;
    let raw: Vec<u8> = rest.iter().map(|byte| byte.0).collect();
    let length: [u8; 4] = raw.get(..4)?.try_into().ok()?;
    let said = usize::try_from(u32::from_be_bytes(length)).ok()?;
    // Only bytes that look like a whole message count: HAProxy may search for any part of an
    // answer.
    if !OF_SERVERS.contains(&first.0) || !(4..=1_000).contains(&said) || raw.len() <= said {
        return None;
    }
    let is_next = raw.get(said).is_some_and(|next| OF_SERVERS.contains(next));
    let name = char::from(first.0);
    let has = raw.len();
    (!is_next).then(|| {
        (first.1, format!("the length of the answer `{name}` is {said} bytes, and it has {has}"))
    })
}

fn has_terminate(bytes: &[(u8, Location)], mut has_tag: bool) -> bool {
    let mut rest = bytes;
    while let Some(message) = message(rest, has_tag) {
        if message.tag == b'X' {
            return true;
        }
        rest = rest.get(message.said + usize::from(has_tag)..).unwrap_or_default();
        has_tag = true;
    }
    false
}

fn after_end(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in &haproxy.model.proxies {
        for talk in talks(proxy) {
            let mut has_ended = false;
            for (at, run) in talk.iter().enumerate() {
                let Run::Send(bytes) = run else { continue };
                if let Some((_, place)) = bytes.first().filter(|_| has_ended) {
                    findings.add(
                        *place,
                        format!("the check of {} has sent Terminate before", proxy.title()),
                    );
                    break;
                }
                has_ended |= has_terminate(bytes, at > 0);
            }
        }
    }
}

fn waits(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in &haproxy.model.proxies {
        for talk in talks(proxy) {
            let (mut has_asked, mut has_ended) = (false, false);
            for (at, run) in talk.iter().enumerate() {
                match run {
                    Run::Send(bytes) => {
                        has_ended |= has_terminate(bytes, at > 0);
                        has_asked |= at > 0 && bytes.first().is_some_and(|first| first.0 == b'Q');
                    }
                    Run::Expect(all) if has_asked && !has_ended => {
                        let Some(place) = all.iter().flatten().next().map(|byte| byte.1) else {
                            continue;
                        };
                        findings.add(
                            place,
                            format!(
                                "the check of {} waits for an answer with the session open",
                                proxy.title()
                            ),
                        );
                        break;
                    }
                    Run::Expect(_) => {}
                }
            }
        }
    }
}

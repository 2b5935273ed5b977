//! The agent: the line that answers HAProxy's agent-checks.
//!
//! The format is that of HAProxy's configuration manual, `agent-check`: words separated by spaces,
//! each of which sets one property; properties that are not mentioned keep their value. So every
//! answer contains the words that reset those of every other answer. HAProxy shows the text after
//! `#` on its page if it follows `up` or `down` (tested with 2.6: after `maint` alone it is
//! dropped).
//!
//! Scripts search the answer for `up` (`grep up` in happac's check for Consul). A refusal therefore never
//! contains these two letters: a reason with `backup` is written with `backu-p`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::answer::Answer;
use crate::names::ServiceName;
use crate::question::{Asked, Question, Unclear};
use crate::reason::Reason;
use crate::route::{Bypass, PoolerFault, Route};
use crate::settings::{AgentConfig, Vocabulary, Weight};
use crate::snapshot::{MemberState, Snapshot};
use crate::time::Moment;

/// The most bytes of a reason in an answer. HAProxy truncates its column at 128.
const REASON_BYTES_MAX: usize = 120;

/// When each line with `drain_ms=` was last answered with `up`.
#[derive(Debug, Default)]
pub struct Served(BTreeMap<String, Moment>);

/// Lines that are remembered. At the limit the one with the oldest answer is forgotten.
const SERVED_MAX: usize = 1_024;

impl Served {
    fn note(&mut self, line: Option<&str>, question: &Question, now: Moment) {
        let Some(line) = line.filter(|_| !question.drain.is_zero()) else { return };
        if self.0.len() >= SERVED_MAX && !self.0.contains_key(line) {
            let oldest = self.0.iter().min_by_key(|(_, at)| **at).map(|(line, _)| line.clone());
            oldest.and_then(|oldest| self.0.remove(&oldest));
        }
        self.0.insert(line.to_owned(), now);
    }

    /// Returns true within [`Question::drain`] after the last `up`.
    fn is_recent(&self, line: Option<&str>, question: &Question, now: Moment) -> bool {
        let last = line.and_then(|line| self.0.get(line));
        last.is_some_and(|last| now.since(*last) < question.drain)
    }
}

/// Returns the line that answers a client's line. `line` is none if the client sent nothing; an
/// empty line means the same.
///
/// The answer is empty while no member is known and no Patroni is known to be down: the connection is
/// then closed without an answer, which changes nothing for HAProxy.
pub fn answer(
    config: &AgentConfig,
    snapshot: &Snapshot,
    line: Option<&str>,
    served: &mut Served,
    now: Moment,
) -> String {
    let is_service = |name: &ServiceName| snapshot.services.contains_key(name);
    let question = match line.map_or(Ok(None), |line| Question::read(line, is_service)) {
        Ok(Some(question)) => question,
        Ok(None) => match &config.default {
            Some(default) => default.clone(),
            None => return refusal(config, &Unclear::Nothing),
        },
        Err(unclear) => return refusal(config, &unclear),
    };
    if snapshot.is_blind() || question.awaits_first_report(snapshot) {
        return String::new();
    }
    match answer_through_pooler(&question, snapshot) {
        Answer::Yes { note, .. } => {
            served.note(line, &question, now);
            let mut words = "ready up".to_owned();
            if let Some(percent) = percent(config.weight, &question, snapshot) {
                let _ = write!(words, " {percent}%");
            }
            if let Some(maxconn) = config.maxconn {
                let _ = write!(words, " maxconn:{maxconn}");
            }
            line_of(config.vocabulary, &words, note.as_ref().map(|note| note as &dyn fmt::Display))
        }
        Answer::Drain(objection) => drain(config, &objection),
        Answer::No(objection) if served.is_recent(line, &question, now) => {
            drain(config, &objection)
        }
        Answer::No(objection) => refusal(config, &objection),
    }
}

/// Returns the line for a server that gets no new sessions and keeps the existing ones.
fn drain(config: &AgentConfig, why: &dyn fmt::Display) -> String {
    let words = match config.vocabulary {
        Vocabulary::Health | Vocabulary::Admin => "drain up",
        Vocabulary::Bare => "drain",
    };
    line_of(config.vocabulary, words, Some(why))
}

/// Judges whether the member may serve, through its pooler if it has one.
fn answer_through_pooler(question: &Question, snapshot: &Snapshot) -> Answer {
    let answer = match (&question.of, question.member(snapshot)) {
        (Asked::Probe(probe), Ok(member)) => probe.answer_through_pooler(snapshot, member),
        _ => question.answer(snapshot),
    };
    match answer {
        // HAProxy's server line has one port, which is the pooler's, so HAProxy cannot bypass the
        // pooler.
        Answer::Yes { route: Route::PastPooler(Bypass { fault, reason }), .. } => match fault {
            PoolerFault::RetriesSoon => {
                Answer::Yes { note: Some(reason), route: Route::Configured }
            }
            PoolerFault::Unusable => Answer::No(Reason::PoolerBypassed(Box::new(reason)).into()),
        },
        other => other,
    }
}

/// Returns the line for a client that can get no other answer. It makes the server unusable.
pub fn refusal(config: &AgentConfig, why: &dyn fmt::Display) -> String {
    let words = match config.vocabulary {
        Vocabulary::Health | Vocabulary::Bare => "ready down",
        // HAProxy shows the reason only after `up` or `down`; `maint` decides.
        Vocabulary::Admin => "maint down",
    };
    line_of(config.vocabulary, words, Some(&without_up(&why.to_string())))
}

/// Returns the text with `u-p` for each `up` in it, in any case.
fn without_up(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.eq_ignore_ascii_case(&'p') && safe.ends_with(['u', 'U']) {
            safe.push('-');
        }
        safe.push(c);
    }
    safe
}

/// Returns the weight in percent, at least 1, because 0 means drain to HAProxy. None if the weight
/// is unknown or not sent: HAProxy then keeps the last one.
fn percent(weight: Weight, question: &Question, snapshot: &Snapshot) -> Option<u64> {
    let member = question.member(snapshot).ok().and_then(|name| snapshot.members.get(name));
    let left = match weight {
        Weight::Unsaid => return None,
        Weight::Lag => lag_left(question, snapshot, member),
        Weight::Sessions => 100 - u64::from(member?.load_percent?.min(100)),
    };
    Some(left.max(1))
}

/// Returns how much of the lag limit is unused, in percent: 100 for a leader, or without a limit.
fn lag_left(question: &Question, snapshot: &Snapshot, member: Option<&MemberState>) -> u64 {
    let lag_bytes_max = match &question.of {
        Asked::Probe(probe) => probe.lag_bytes_max(),
        Asked::Service(service) => {
            snapshot.services.get(service).and_then(|service| service.lag_bytes_max)
        }
    };
    let lag_bytes = member.and_then(|member| member.lag_bytes);
    let (Some(lag), Some(max)) = (lag_bytes, lag_bytes_max.filter(|max| *max > 0)) else {
        return 100;
    };
    let used = u128::from(lag.min(max)) * 100 / u128::from(max);
    u64::try_from(100 - used).unwrap_or(0)
}

fn line_of(vocabulary: Vocabulary, words: &str, reason: Option<&dyn fmt::Display>) -> String {
    let mut line = words.to_owned();
    if let Some(reason) = reason.filter(|_| vocabulary != Vocabulary::Bare) {
        line.push_str(" #");
        line.extend(reason.to_string().chars().map(plain).take(REASON_BYTES_MAX));
    }
    line.push('\n');
    line
}

/// Replaces characters that are unsafe in an answer. HAProxy reads one line of ASCII, and a comma
/// would end a column of its CSV for a reader that does not parse quotes.
fn plain(c: char) -> char {
    match c {
        ' '..='~' if c != ',' => c,
        ',' => ';',
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::MemberName;

    fn config(vocabulary: Vocabulary) -> AgentConfig {
        AgentConfig {
            listen: "127.0.0.1:5555".parse().unwrap(),
            vocabulary,
            default: None,
            pooler_port: None,
            line_wait: std::time::Duration::ZERO,
            awaits_first_line: true,
            weight: Weight::Unsaid,
            maxconn: None,
        }
    }

    #[test]
    fn no_refusal_contains_up() {
        let state = "starting up, UPgrade of the backup uPup".to_owned();
        let reasons = [
            Reason::NotRunning(state.clone()),
            Reason::NotStreaming(Some(state.clone())),
            Reason::SameServer(MemberName::new("backup-up").unwrap()),
            Reason::OtherMember("up".into()),
            Reason::TagMismatch { name: "group".to_owned(), wanted: "up".to_owned() },
        ];
        for vocabulary in [Vocabulary::Health, Vocabulary::Admin, Vocabulary::Bare] {
            for reason in &reasons {
                let line = refusal(&config(vocabulary), reason);
                assert!(!line.to_ascii_lowercase().contains("up"), "{line}");
            }
        }
        let line = refusal(&config(Vocabulary::Health), &reasons[0]);
        assert!(line.contains("starting u-p; U-Pgrade of the backu-p u-Pu-p"), "{line}");
        assert_eq!(refusal(&config(Vocabulary::Bare), &reasons[0]), "ready down\n");
    }

    #[test]
    fn a_line_is_plain_ascii_and_short() {
        let reason = "größer,\n\u{1b}[31m".repeat(40);
        let line = line_of(Vocabulary::Health, "ready down", Some(&reason));
        assert!(line.is_ascii() && line.len() < 150, "{line}");
        assert_eq!(line.matches(['\n', '\u{1b}', ',']).count(), 1, "{line}");
    }
}

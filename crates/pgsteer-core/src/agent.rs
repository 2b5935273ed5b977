//! The agent: the one line that HAProxy's agent-checks are answered.
//!
//! The line is what HAProxy's configuration manual says under `agent-check`: words apart by
//! spaces, of which each sets one thing and what is not mentioned stays as it was. So every answer
//! has the words that undo those of any other. What follows `#` is shown on HAProxy's page, if it
//! comes behind `up` or `down` (tried with 2.6: behind `maint` alone it is dropped).

use std::fmt::{self, Write as _};

use crate::answer::Answer;
use crate::names::ServiceName;
use crate::question::{Asked, Question, Unclear};
use crate::reason::Reason;
use crate::route::{Bypass, PoolerFault, Route};
use crate::settings::{AgentConfig, Vocabulary, Weight};
use crate::snapshot::{MemberState, Snapshot};

/// The most bytes of a reason in an answer. HAProxy cuts its column off at 128.
const REASON_BYTES_MAX: usize = 120;

/// The line that answers a client's line. `line` is none if nothing was sent; an empty one asks the
/// same.
pub fn answer(config: &AgentConfig, snapshot: &Snapshot, line: Option<&str>) -> String {
    let is_service = |name: &ServiceName| snapshot.services.contains_key(name);
    let question = match line.map_or(Ok(None), |line| Question::read(line, is_service)) {
        Ok(Some(question)) => question,
        Ok(None) => match &config.default {
            Some(default) => default.clone(),
            None => return refusal(config, &Unclear::Nothing),
        },
        Err(unclear) => return refusal(config, &unclear),
    };
    match answer_through_pooler(&question, snapshot) {
        Answer::Yes { note, .. } => {
            let mut words = "ready up".to_owned();
            if let Some(percent) = percent(config.weight, &question, snapshot) {
                let _ = write!(words, " {percent}%");
            }
            if let Some(maxconn) = config.maxconn {
                let _ = write!(words, " maxconn:{maxconn}");
            }
            line_of(&words, note.map(|note| note.to_string()).as_deref())
        }
        Answer::Drain(objection) => line_of("drain up", Some(&objection.to_string())),
        Answer::No(objection) => line_of(no(config.vocabulary), Some(&objection.to_string())),
    }
}

/// Whether the member may serve, through its pooler if it has to.
fn answer_through_pooler(question: &Question, snapshot: &Snapshot) -> Answer {
    let answer = match (&question.of, question.member(snapshot)) {
        (Asked::Probe(probe), Ok(member)) => probe.answer_through_pooler(snapshot, member),
        _ => question.answer(snapshot),
    };
    match answer {
        // HAProxy's server line names one port, and it is the pooler's: it cannot go past it.
        Answer::Yes { route: Route::PastPooler(Bypass { fault, reason }), .. } => match fault {
            PoolerFault::RetriesSoon => {
                Answer::Yes { note: Some(reason), route: Route::Configured }
            }
            PoolerFault::Unusable => Answer::No(Reason::PoolerBypassed(Box::new(reason)).into()),
        },
        other => other,
    }
}

/// The line for whoever cannot be given any other answer. It lets nobody in.
pub fn refusal(config: &AgentConfig, why: &dyn fmt::Display) -> String {
    line_of(no(config.vocabulary), Some(&why.to_string()))
}

fn no(vocabulary: Vocabulary) -> &'static str {
    match vocabulary {
        Vocabulary::Health => "ready down",
        // Only behind a word of health is the reason shown; MAINT is what counts.
        Vocabulary::Admin => "maint down",
    }
}

/// The weight, in percent; at least 1, because 0 is HAProxy's word for drain. None if there is
/// nothing to be said of it: then HAProxy keeps what it heard last.
fn percent(weight: Weight, question: &Question, snapshot: &Snapshot) -> Option<u64> {
    let member = question.member(snapshot).ok().and_then(|name| snapshot.members.get(name));
    let left = match weight {
        Weight::Unsaid => return None,
        Weight::Lag => lag_left(question, snapshot, member),
        Weight::Sessions => 100 - u64::from(member?.load_percent?.min(100)),
    };
    Some(left.max(1))
}

/// How much of the room below the lag limit is left, in percent. All of it for a leader, or where
/// there is no limit.
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

fn line_of(words: &str, reason: Option<&str>) -> String {
    let mut line = words.to_owned();
    if let Some(reason) = reason {
        line.push_str(" #");
        line.extend(reason.chars().map(plain).take(REASON_BYTES_MAX));
    }
    line.push('\n');
    line
}

/// One line of ASCII is what HAProxy reads, and a comma would end a column of its CSV for
/// whoever splits it without looking.
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

    #[test]
    fn a_line_is_plain_ascii_and_short() {
        let line = line_of("ready down", Some(&"größer,\n\u{1b}[31m".repeat(40)));
        assert!(line.is_ascii() && line.len() < 150, "{line}");
        assert_eq!(line.matches(['\n', '\u{1b}', ',']).count(), 1, "{line}");
    }
}

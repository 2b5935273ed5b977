//! The agent: what HAProxy's agent-checks ask, and the one line that they are answered.
//!
//! The line is what HAProxy's configuration manual says under `agent-check`: words apart by
//! spaces, of which each sets one thing and what is not mentioned stays as it was. So every answer
//! has the words that undo those of any other. What follows `#` is shown on HAProxy's page, if it
//! comes behind `up` or `down` (tried with 2.6: behind `maint` alone it is dropped).

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use thiserror::Error;

use crate::config::{AgentConfig, Vocabulary, Weight};
use crate::names::{MemberName, ServiceName};
use crate::probe::{Objection, Probe, ProbeError, Verdict};
use crate::reason::Reason;
use crate::snapshot::{MemberState, Snapshot};

/// The longest line that a client may send, in bytes.
pub const LINE_BYTES_MAX: usize = 1_024;

/// The most bytes of a reason in an answer. HAProxy cuts its column off at 128.
const REASON_BYTES_MAX: usize = 120;

/// What a client asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// What the member should be fit for.
    pub of: Asked,
    /// The member by name or address; the local one if none is named.
    pub member: Option<String>,
}

/// What a member may be asked to be fit for.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// A service of the configuration.
    Service(ServiceName),
    /// One of Patroni's health checks.
    Probe(Probe),
}

/// Why a line is no question.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unclear {
    /// Neither a service nor a health check.
    #[error("{0}, and no service has that name")]
    Neither(ProbeError),
    /// It is a health check, with a mistake.
    #[error(transparent)]
    Probe(ProbeError),
    /// More than two words.
    #[error("expects SERVICE or SERVICE MEMBER, as in `write n2`")]
    Words,
    /// Nothing was sent, and there is no default.
    #[error("expects agent-send \"SERVICE MEMBER\\n\", as in `write n2`")]
    Nothing,
    /// It began and did not end in time.
    #[error("the line has no end")]
    Unfinished,
    /// No end of line within [`LINE_BYTES_MAX`].
    #[error("a line has at most {LINE_BYTES_MAX} bytes")]
    TooLong,
}

impl Question {
    /// Reads a line: a service or a health check, then the member if it is not the local one.
    /// None for an empty line. A service goes before a health check of the same name.
    ///
    /// # Errors
    /// Anything else.
    pub fn read(
        line: &str,
        is_service: impl Fn(&ServiceName) -> bool,
    ) -> Result<Option<Question>, Unclear> {
        let mut words = line.split_ascii_whitespace();
        let Some(of) = words.next() else { return Ok(None) };
        let member = words.next().map(str::to_owned);
        if words.next().is_some() {
            return Err(Unclear::Words);
        }
        let service = ServiceName::new(of).ok().filter(is_service);
        let of = match service {
            Some(service) => Asked::Service(service),
            None => Asked::Probe(Probe::read(of).map_err(|error| match error {
                ProbeError::Path(_) => Unclear::Neither(error),
                _ => Unclear::Probe(error),
            })?),
        };
        Ok(Some(Question { of, member }))
    }

    /// Whether the member that is meant may serve, as the Snapshot has it.
    pub fn verdict(&self, snapshot: &Snapshot) -> Verdict {
        let member = match self.member(snapshot) {
            Ok(member) => member,
            Err(objection) => return Verdict::No(objection),
        };
        match &self.of {
            Asked::Probe(probe) => probe.verdict(snapshot, member),
            Asked::Service(service) => snapshot
                .services
                .get(service)
                .and_then(|state| state.gates.get(member))
                .map_or_else(
                    || Verdict::No(Objection::NoSuchMember(member.to_string())),
                    Verdict::of_gate,
                ),
        }
    }

    /// The member that is meant.
    ///
    /// # Errors
    /// There is none.
    pub fn member<'a>(&self, snapshot: &'a Snapshot) -> Result<&'a MemberName, Objection> {
        match &self.member {
            None => snapshot.local.as_ref().ok_or(Objection::NoLocalMember),
            Some(named) => {
                find(snapshot, named).ok_or_else(|| Objection::NoSuchMember(named.clone()))
            }
        }
    }
}

impl fmt::Display for Question {
    /// In words: what is asked, and of whom.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.of {
            Asked::Service(service) => write!(f, "{service}")?,
            Asked::Probe(probe) => write!(f, "{probe}")?,
        }
        match &self.member {
            Some(member) => write!(f, " of {member}"),
            None => f.write_str(" of the local member"),
        }
    }
}

/// The member of that name, or else the only one whose PostgreSQL is at that host or address.
pub fn find<'a>(snapshot: &'a Snapshot, named: &str) -> Option<&'a MemberName> {
    if let Some((name, _)) = snapshot.members.get_key_value(named) {
        return Some(name);
    }
    let address: Option<IpAddr> = named.parse().ok();
    let is_there = |state: &MemberState| {
        state.postgres.host() == named
            || address.is_some_and(|address| state.addresses.contains(&address))
    };
    // One that was made anew under another name has the address of the one that left.
    let is_member = |state: &MemberState| state.trouble != Some(Reason::Left);
    let mut found = snapshot.members.iter().filter(|(_, it)| is_there(it) && is_member(it));
    let (name, _) = found.next()?;
    found.next().is_none().then_some(name)
}

/// The line that answers a client's line. `line` is none if nothing was sent.
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
    match verdict(&question, snapshot) {
        Verdict::Yes(note) => {
            let mut words = "ready up".to_owned();
            if let Some(percent) = percent(config.weight, &question, snapshot) {
                let _ = write!(words, " {percent}%");
            }
            if let Some(maxconn) = config.maxconn {
                let _ = write!(words, " maxconn:{maxconn}");
            }
            line_of(&words, note.map(|note| note.to_string()).as_deref())
        }
        Verdict::Drain(objection) => line_of("drain up", Some(&objection.to_string())),
        Verdict::No(objection) => line_of(no(config.vocabulary), Some(&objection.to_string())),
    }
}

/// Whether the member may serve, through its pooler if it has to.
fn verdict(question: &Question, snapshot: &Snapshot) -> Verdict {
    let verdict = match (&question.of, question.member(snapshot)) {
        (Asked::Probe(probe), Ok(member)) => probe.verdict_through_pooler(snapshot, member),
        _ => question.verdict(snapshot),
    };
    match verdict {
        // HAProxy's server line names one port, and it is the pooler's: it cannot go past it.
        Verdict::Yes(Some(reason @ Reason::PoolerBypassed(_))) => Verdict::No(reason.into()),
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

    #[test]
    fn a_service_goes_before_a_health_check() {
        let is_service = |name: &ServiceName| matches!(name.as_str(), "write" | "replica");
        let read = |line| Question::read(line, is_service);
        let service = |name| Asked::Service(ServiceName::new(name).unwrap());
        assert_eq!(read("replica n2\r").unwrap().unwrap().of, service("replica"));
        let asked = read("  replica?lag=16MB   n2 ").unwrap().unwrap();
        assert_eq!(asked.of, Asked::Probe(Probe::read("/replica?lag=16MB").unwrap()));
        assert_eq!(asked.member.as_deref(), Some("n2"));
        assert_eq!(read(" \r").unwrap(), None);
        assert_eq!(read("write n1 n2"), Err(Unclear::Words));
        assert!(matches!(read("wirte"), Err(Unclear::Neither(_))));
        assert!(matches!(read("async?lag=x"), Err(Unclear::Probe(_))));
    }
}

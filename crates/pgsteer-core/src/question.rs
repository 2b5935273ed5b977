//! Questions: what a client asks about a member, in a line to the agent or in the path of a page.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::names::ServiceName;
use crate::probe::{Probe, ProbeError};

/// The longest line that a client may send, in bytes.
pub const LINE_BYTES_MAX: usize = 1_024;

/// The longest `drain_ms`.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);

/// The word that gives [`Question::drain`].
const DRAIN: &str = "drain_ms=";

/// A client's question.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The service or health check.
    pub of: Asked,
    /// The member by name or address; the local one if none is given.
    pub member: Option<String>,
    /// The agent answers a HAProxy for this long with `drain` after the last `up`, and only then with a refusal,
    /// which ends the sessions. Zero unless the line has `drain_ms=`, which is for a HAProxy that loses the clients
    /// for which it is connecting to the server at that moment.
    pub drain: Duration,
}

/// What a client can ask about a member.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// A service of the configuration.
    Service(ServiceName),
    /// One of Patroni's health checks.
    Probe(Probe),
}

/// Why a line is not a question.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unclear {
    /// It is neither a service nor a health check.
    #[error("{0}, and no service has that name")]
    Neither(ProbeError),
    /// It is a health check with an error.
    #[error(transparent)]
    Probe(ProbeError),
    /// More than two words, besides `drain_ms=`.
    #[error("expects SERVICE or SERVICE MEMBER, as in `write n2`")]
    Words,
    /// `drain_ms=` without a number, or with one beyond [`DRAIN_MAX`].
    #[error("expects drain_ms from 0 to {}, as in `write n2 drain_ms=600`", DRAIN_MAX.as_millis())]
    Drain,
    /// The client sent nothing, and there is no default.
    #[error("expects agent-send \"SERVICE MEMBER\\n\", as in `write n2`")]
    Nothing,
    /// The line was not complete in time.
    #[error("the line has no end")]
    Unfinished,
    /// No end of line within [`LINE_BYTES_MAX`].
    #[error("a line has at most {LINE_BYTES_MAX} bytes")]
    TooLong,
}

impl Question {
    /// Parses a line: a service or a health check, then the member if it is not the local one. A line may end with
    /// `drain_ms=`.
    /// Returns none for an empty line. A service has precedence over a health check of the same
    /// name.
    ///
    /// # Errors
    /// The line is anything else.
    pub fn read(
        line: &str,
        is_service: impl Fn(&ServiceName) -> bool,
    ) -> Result<Option<Question>, Unclear> {
        let mut words = line.split_ascii_whitespace();
        let Some(of) = words.next() else { return Ok(None) };
        let (mut member, mut drain) = (None, Duration::ZERO);
        for word in words {
            match word.strip_prefix(DRAIN) {
                Some(millis) => drain = read_drain(millis)?,
                None if member.is_none() => member = Some(word.to_owned()),
                None => return Err(Unclear::Words),
            }
        }
        let service = ServiceName::new(of).ok().filter(is_service);
        let of = match service {
            Some(service) => Asked::Service(service),
            None => Asked::Probe(Probe::read(of).map_err(|error| match error {
                ProbeError::Path(_) => Unclear::Neither(error),
                _ => Unclear::Probe(error),
            })?),
        };
        Ok(Some(Question { of, member, drain }))
    }
}

fn read_drain(millis: &str) -> Result<Duration, Unclear> {
    let drain = millis.parse().map(Duration::from_millis).map_err(|_| Unclear::Drain)?;
    if drain > DRAIN_MAX { Err(Unclear::Drain) } else { Ok(drain) }
}

impl fmt::Display for Question {
    /// Writes the question in words: the service or health check, and the member.
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let drained = read("write n1 drain_ms=600").unwrap().unwrap();
        assert_eq!((drained.member.as_deref(), drained.drain.as_millis()), (Some("n1"), 600));
        for wrong in ["write n1 drain_ms=", "write drain_ms=10001", "write n1 drain_ms=-1"] {
            assert_eq!(read(wrong), Err(Unclear::Drain), "{wrong}");
        }
        assert!(matches!(read("wirte"), Err(Unclear::Neither(_))));
        assert!(matches!(read("async?lag=x"), Err(Unclear::Probe(_))));
    }
}

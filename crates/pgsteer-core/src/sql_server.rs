//! The server that the check login reaches, and whether Patroni's answers are about that server.
//!
//! SQL reports the role of a server, and its system identifier if the check login may read it, but not
//! the scope. Another server may be at the address when a connection ends: one that was started again,
//! or one of another cluster. Patroni reports role and scope, so an answer of Patroni counts for the
//! server that was there when Patroni was asked.

use std::time::Duration;

use crate::claim::{Failure, ServerStart, TetherFacts};
use crate::time::Moment;

/// How long the start of a server is awaited. The check login asks for it right after it has connected.
const START_WAIT: Duration = Duration::from_secs(2);

/// What is known of the server behind the check login.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SqlServer {
    reached: Option<Reached>,
    /// A connection ended, or a server was another one than before.
    was_lost: bool,
    /// The start of the server about which Patroni answered last.
    identified: Option<ServerStart>,
}

/// A server that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reached {
    /// When the first question was sent that it answered.
    since: Moment,
    started_at: Option<ServerStart>,
    system_identifier: Option<u64>,
}

impl SqlServer {
    /// Notes an answer, or its failure, to the question of `asked_at`.
    pub fn note(&mut self, answer: &Result<TetherFacts, Failure>, asked_at: Moment) {
        let Ok(TetherFacts { started_at, system_identifier, .. }) = *answer else {
            self.was_lost = true;
            self.reached = None;
            return;
        };
        let is_same = |old: &Reached| {
            !differs(old.started_at, started_at)
                && !differs(old.system_identifier, system_identifier)
        };
        self.reached = Some(match self.reached.filter(is_same) {
            Some(old) => Reached {
                started_at: old.started_at.or(started_at),
                system_identifier: old.system_identifier.or(system_identifier),
                ..old
            },
            None => {
                self.was_lost |= self.reached.is_some();
                Reached { since: asked_at, started_at, system_identifier }
            }
        });
    }

    /// The system identifier of the server that answers now; none if it is unknown.
    pub fn system_identifier(&self) -> Option<u64> {
        self.reached?.system_identifier
    }

    /// Notes when Patroni was asked for its newest answer.
    pub fn note_patroni(&mut self, asked_at: Option<Moment>) {
        if let Some(Reached { since, started_at: Some(started_at), .. }) = self.reached
            && asked_at.is_some_and(|asked_at| asked_at >= since)
        {
            self.identified = Some(started_at);
        }
    }

    /// Returns true if it is not known yet whether Patroni answers about the server: its newest answer,
    /// or failure, is that to the question of `asked_at`.
    pub fn awaits_patroni(&self, asked_at: Option<Moment>) -> bool {
        let since = self.reached.filter(|_| self.was_lost).map(|reached| reached.since);
        since.is_some_and(|since| asked_at.is_none_or(|asked_at| asked_at < since))
    }

    /// Returns true if a server was reached anew less than [`START_WAIT`] ago and SQL has not reported yet
    /// when it was started.
    pub fn awaits_start(&self, now: Moment) -> bool {
        let reached = self.reached.filter(|reached| self.was_lost && reached.started_at.is_none());
        reached.is_some_and(|reached| now.since(reached.since) < START_WAIT)
    }

    /// Returns true if the answer of Patroni to the question of `asked_at` is about the server that
    /// answers now.
    pub fn is_identified(&self, asked_at: Option<Moment>) -> bool {
        let reached = self.reached.filter(|_| self.was_lost);
        let Some(Reached { since, started_at, .. }) = reached else {
            return true;
        };
        asked_at.is_some_and(|asked_at| asked_at >= since)
            || (started_at.is_some() && started_at == self.identified)
    }
}

fn differs<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    fn answer(start: Option<u64>) -> Result<TetherFacts, Failure> {
        Ok(TetherFacts { started_at: start.map(ServerStart), ..TetherFacts::of_role(false) })
    }

    fn closed() -> Result<TetherFacts, Failure> {
        Err(Failure::Closed(Arc::from("n1:5432")))
    }

    #[test]
    fn after_a_lost_connection_patroni_has_to_be_asked_again() {
        let mut server = SqlServer::default();
        server.note(&answer(None), at(10));
        assert!(server.is_identified(Some(at(9))), "nothing was lost yet");
        server.note(&closed(), at(20));
        server.note(&answer(None), at(21));
        assert!(!server.is_identified(Some(at(20))));
        assert!(server.awaits_patroni(Some(at(20))) && !server.awaits_patroni(Some(at(22))));
        assert!(!server.is_identified(None));
        assert!(server.is_identified(Some(at(21))));
        assert!(server.awaits_start(at(22)) && !server.awaits_start(at(2_021)));
        server.note(&answer(Some(1)), at(22));
        assert!(!server.awaits_start(at(22)));
    }

    #[test]
    fn the_same_start_is_the_same_server() {
        let mut server = SqlServer::default();
        server.note(&answer(Some(1)), at(10));
        server.note_patroni(Some(at(11)));
        server.note(&closed(), at(20));
        server.note(&answer(None), at(21));
        assert!(!server.is_identified(Some(at(11))), "its start is not known yet");
        server.note(&answer(Some(1)), at(22));
        assert!(server.is_identified(Some(at(11))));
        server.note(&answer(Some(2)), at(23));
        assert!(!server.is_identified(Some(at(22))), "another server without a failure between");
        assert!(server.is_identified(Some(at(23))));
    }

    #[test]
    fn the_system_identifier_is_that_of_the_server_that_answers_now() {
        let identified = |start, system_identifier| {
            answer(Some(start)).map(|facts| TetherFacts { system_identifier, ..facts })
        };
        let mut server = SqlServer::default();
        server.note(&answer(None), at(10));
        assert_eq!(server.system_identifier(), None);
        server.note(&identified(1, Some(7001)), at(11));
        server.note(&answer(None), at(12));
        assert_eq!(server.system_identifier(), Some(7001), "an answer without it changes nothing");
        server.note(&identified(1, Some(9)), at(13));
        assert_eq!(server.system_identifier(), Some(9));
        assert!(!server.is_identified(Some(at(12))), "that is another server");
        server.note(&identified(2, None), at(14));
        assert_eq!(server.system_identifier(), None, "another server that does not report it");
        server.note(&closed(), at(15));
        assert_eq!(server.system_identifier(), None);
    }
}

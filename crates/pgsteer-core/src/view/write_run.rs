//! Since when a server takes writes: this distinguishes an old primary from one that was just promoted.

use crate::claim::{Failure, ServerStart, TetherFacts};
use crate::time::Moment;

/// The answers of one run of a server that takes writes. A server does not return to recovery within one
/// run, so failures and silence between two answers do not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WriteRun {
    started_at: ServerStart,
    /// When the first answer came in: the server took writes by then.
    first_heard: Moment,
}

/// What is known of the writes of one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Writes {
    run: Option<WriteRun>,
    /// The newest answer is known to be from that run.
    is_confirmed: bool,
}

impl Writes {
    /// Notes an answer of the check login, or its failure, that came in at `now`.
    pub fn note(&mut self, answer: &Result<TetherFacts, Failure>, now: Moment) {
        let (run, is_confirmed) = match answer {
            Ok(TetherFacts { in_recovery: true, .. }) => (None, false),
            Ok(TetherFacts { started_at: Some(started_at), .. }) => {
                let new = WriteRun { started_at: *started_at, first_heard: now };
                let same = self.run.filter(|run| run.started_at == *started_at);
                (Some(same.unwrap_or(new)), true)
            }
            // A new session does not know yet when its server was started.
            Ok(TetherFacts { started_at: None, .. }) => (self.run, self.is_confirmed),
            Err(_) => (self.run, false),
        };
        *self = Writes { run, is_confirmed };
    }

    /// When the first answer of the present run came in; none if the server takes no writes, or if its
    /// run is not known.
    pub fn since(&self) -> Option<Moment> {
        self.run.filter(|_| self.is_confirmed).map(|run| run.first_heard)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    fn answer(in_recovery: bool, start: Option<u64>) -> Result<TetherFacts, Failure> {
        let started_at = start.map(ServerStart);
        Ok(TetherFacts { in_recovery, started_at, system_identifier: None })
    }

    #[test]
    fn one_run_of_a_server_goes_on_after_a_failure() {
        let mut writes = Writes::default();
        writes.note(&answer(false, None), at(1));
        assert_eq!(writes.since(), None, "the start is not known yet");
        writes.note(&answer(false, Some(1)), at(2));
        writes.note(&answer(false, None), at(3));
        assert_eq!(writes.since(), Some(at(2)));
        writes.note(&Err(Failure::Closed(Arc::from("n1:5432"))), at(4));
        writes.note(&answer(false, None), at(5));
        assert_eq!(writes.since(), None, "it may be another run");
        writes.note(&answer(false, Some(1)), at(6));
        assert_eq!(writes.since(), Some(at(2)));
    }

    #[test]
    fn another_start_and_a_promotion_reset_the_run() {
        let mut writes = Writes::default();
        writes.note(&answer(false, Some(1)), at(1));
        writes.note(&answer(false, Some(2)), at(2));
        assert_eq!(writes.since(), Some(at(2)));
        writes.note(&answer(true, Some(2)), at(3));
        assert_eq!(writes.since(), None);
        writes.note(&answer(false, Some(2)), at(4));
        assert_eq!(writes.since(), Some(at(4)));
    }
}

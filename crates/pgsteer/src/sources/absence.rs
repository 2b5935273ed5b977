//! Absence: for how long a server has not answered attempts to connect.
//!
//! A loaded host may take seconds for an answer, and a packet may be lost, so a single missing answer
//! must not close the gate of a healthy member. A refusal counts at once.

use std::time::Duration;

use pgsteer_core::claim::Failure;
use pgsteer_core::pace::RUN_ON;
use tokio::time::Instant;

/// How long a server must have been silent before that counts. A single attempt may take as long.
const ABSENCE_MIN: Duration = RUN_ON;

/// The attempts without an answer, one after the other, since the last answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Absence {
    since: Option<Instant>,
}

impl Absence {
    /// Notes the outcome of the attempt that began at `asked`. Returns true if it counts: it is an
    /// answer or a refusal, or the server has been silent for long enough.
    pub fn counts(&mut self, asked: Instant, failure: Option<&Failure>) -> bool {
        if failure.is_none_or(|failure| !failure.is_silence()) {
            self.since = None;
            return true;
        }
        self.since.get_or_insert(asked).elapsed() >= ABSENCE_MIN
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn lost() -> Failure {
        Failure::Unreachable { peer: Arc::from("n1:5432"), limit: Duration::from_secs(1) }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_after_five_seconds_and_an_answer_ends_it() {
        let mut absence = Absence::default();
        let start = Instant::now();
        let refused = Failure::Refused(Arc::from("n1:5432"));
        assert!(absence.counts(start, Some(&refused)), "a refusal is an answer");
        tokio::time::advance(ABSENCE_MIN - Duration::from_millis(1)).await;
        assert!(!absence.counts(start, Some(&lost())));
        assert!(absence.counts(start, None));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!absence.counts(Instant::now(), Some(&lost())), "the answer has ended the silence");
        tokio::time::advance(ABSENCE_MIN).await;
        assert!(absence.counts(Instant::now(), Some(&lost())));
        assert!(absence.counts(Instant::now(), Some(&lost())), "it counts until the next answer");
    }
}

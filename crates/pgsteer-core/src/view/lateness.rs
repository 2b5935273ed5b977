//! Lateness: how long a member's Patroni takes to answer, and how long its answers stay usable.
//!
//! A request that is not answered within `[patroni] timeout_seconds` is marked as late and
//! continues. Its answer counts when it comes, dated by its question. If a Patroni that was fast is
//! late, its newest answer is unusable at once. If a Patroni is known to be slow, its answer is
//! unusable only when the next one takes much longer than before. Otherwise every slow answer would
//! become unusable before the next one.

use std::time::Duration;

use super::{Dated, Freshness, Reading};
use crate::claim::{Failure, PatroniFacts};
use crate::pace::{self, RUN_ON, SLACK};
use crate::time::Moment;

/// Patroni's newest answer or failure.
type Answer = Dated<Result<PatroniFacts, Failure>>;

/// The response times of one Patroni.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Lateness {
    /// How long the newest answer took, from its question until it was applied.
    took: Duration,
    /// The newest question that was not answered in time.
    late: Option<Dated<Failure>>,
}

impl Lateness {
    /// Notes how long the newest answer took.
    pub fn note_answer(&mut self, took: Duration) {
        self.took = took;
    }

    /// Notes that the question of `asked_at` was not answered in time and continues.
    pub fn note_late(&mut self, asked_at: Moment, failure: Failure) {
        if self.late.as_ref().is_none_or(|old| old.asked_at <= asked_at) {
            self.late = Some(Dated { asked_at, answer: failure });
        }
    }

    /// How long the newest answer took, if that is longer than `timeout_seconds`.
    pub fn slow(&self, freshness: &Freshness) -> Option<Duration> {
        // An answer that took longer than a request can take was delayed by a stop of this process.
        let may_take = RUN_ON + SLACK;
        (self.took > freshness.patroni_limit && self.took <= may_take).then_some(self.took)
    }

    /// The state of Patroni's newest answer.
    pub fn reading<'a>(
        &'a self,
        newest: Option<&'a Answer>,
        now: Moment,
        freshness: &Freshness,
    ) -> Reading<'a, PatroniFacts> {
        let late =
            self.late_after(newest).filter(|late| now >= self.in_doubt_from(late, freshness));
        match (late, newest) {
            (Some(late), _) => Reading::Failed(&late.answer),
            (None, None) => Reading::Never,
            // A failure does not go stale: it counts until the source answers again.
            (None, Some(Dated { answer: Err(failure), .. })) => Reading::Failed(failure),
            (None, Some(answer)) if now >= self.expires(answer, freshness) => Reading::Stale,
            (None, Some(Dated { answer: Ok(answer), .. })) => Reading::Fresh(answer),
        }
    }

    /// Patroni's last answer, while a later question is late and continues.
    pub fn before_late<'a>(
        &'a self,
        newest: Option<&'a Answer>,
        now: Moment,
    ) -> Option<&'a PatroniFacts> {
        let late = self.late_after(newest)?;
        newest.filter(|_| now < runs_until(late))?.answer.as_ref().ok()
    }

    /// The moments at which one of the above results changes without a report.
    pub fn expiries(
        &self,
        newest: Option<&Answer>,
        freshness: &Freshness,
    ) -> impl Iterator<Item = Moment> {
        let late = self.late_after(newest);
        let of_late = late.map(|late| [self.in_doubt_from(late, freshness), runs_until(late)]);
        let of_answer = newest.map(|answer| self.expires(answer, freshness));
        of_late.into_iter().flatten().chain(of_answer)
    }

    /// The question that is late; none if a question that was sent after it was answered.
    fn late_after(&self, newest: Option<&Answer>) -> Option<&Dated<Failure>> {
        let is_open =
            |late: &&Dated<Failure>| newest.is_none_or(|newest| newest.asked_at < late.asked_at);
        self.late.as_ref().filter(is_open)
    }

    /// From when on a late question makes the newest answer unusable.
    fn in_doubt_from(&self, late: &Dated<Failure>, freshness: &Freshness) -> Moment {
        late.asked_at + self.slow(freshness).map_or(Duration::ZERO, patience)
    }

    fn expires(&self, answer: &Answer, freshness: &Freshness) -> Moment {
        let lifetime = match self.slow(freshness) {
            Some(took) => pace::CALM.patroni.max(pace::patroni_gap(took)) + patience(took) + SLACK,
            None => freshness.patroni,
        };
        answer.asked_at + lifetime
    }
}

/// How long an answer may take after one that took `took`.
fn patience(took: Duration) -> Duration {
    (took * 2).min(RUN_ON)
}

fn runs_until(late: &Dated<Failure>) -> Moment {
    late.asked_at + RUN_ON + SLACK
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::claim::{PatroniFacts, Role};

    const FRESHNESS: Freshness = Freshness {
        patroni: Duration::from_millis(2_500),
        patroni_limit: Duration::from_secs(1),
        tether: Duration::from_secs(1),
        progress: Duration::from_secs(1),
        pooler: Duration::from_secs(1),
    };

    fn answer(asked_ms: u64) -> Answer {
        let facts = PatroniFacts::new("running", Role::Unknown);
        Dated { asked_at: Moment::from_millis(asked_ms), answer: Ok(facts) }
    }

    fn took(millis: u64) -> Lateness {
        Lateness { took: Duration::from_millis(millis), late: None }
    }

    fn is_fresh(lateness: &Lateness, answer: &Answer, now_ms: u64) -> bool {
        let reading = lateness.reading(Some(answer), Moment::from_millis(now_ms), &FRESHNESS);
        matches!(reading, Reading::Fresh(_))
    }

    fn late() -> Failure {
        let (limit, waited) = (Duration::from_secs(1), Duration::from_secs(1));
        Failure::Late { peer: Arc::from("n1:8008"), limit, waited }
    }

    #[test]
    fn a_slow_answer_is_good_until_the_next_one_can_be_here() {
        for took_ms in [1_001, 1_200, 1_500, 3_000, 4_900] {
            let (lateness, first) = (took(took_ms), answer(0));
            // It is asked again after the gap, and takes as long as before.
            let next_ms = 1_000.max(took_ms * 3 / 2) + took_ms;
            assert!(is_fresh(&lateness, &first, took_ms), "on arrival: {took_ms}");
            assert!(is_fresh(&lateness, &first, next_ms), "until the next: {took_ms}");
            assert!(!is_fresh(&lateness, &first, 16_000), "not for ever: {took_ms}");
        }
    }

    #[test]
    fn a_quick_patroni_that_is_late_is_marked_at_once_and_its_late_answer_counts() {
        let mut lateness = took(5);
        assert!(is_fresh(&lateness, &answer(0), 2_000));
        lateness.note_late(Moment::from_millis(1_000), late());
        assert!(!is_fresh(&lateness, &answer(0), 2_000));
        let now = Moment::from_millis(2_000);
        assert!(lateness.before_late(Some(&answer(0)), now).is_some());
        assert!(lateness.before_late(Some(&answer(0)), Moment::from_millis(6_500)).is_none());
        lateness.note_answer(Duration::from_millis(1_500));
        assert!(is_fresh(&lateness, &answer(1_001), 2_500));
        assert!(lateness.before_late(Some(&answer(1_001)), now).is_none());
    }

    #[test]
    fn a_patroni_that_is_as_slow_as_before_is_not_marked() {
        let mut lateness = took(1_500);
        lateness.note_late(Moment::from_millis(2_250), late());
        assert!(is_fresh(&lateness, &answer(0), 2_250 + 1_500));
        assert!(!is_fresh(&lateness, &answer(0), 2_250 + 3_000));
    }

    #[test]
    fn an_answer_that_took_longer_than_a_request_may_is_as_old_as_it_is() {
        assert!(!is_fresh(&took(8_000), &answer(0), 8_000));
    }
}

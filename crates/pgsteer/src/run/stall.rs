//! A stall: the process was stopped for a while, and its knowledge may be out of date.
//!
//! After a stall the heartbeat does not beat until every member was asked again. So no client is
//! sent to a write member because of knowledge from before the stall.

use std::collections::BTreeSet;
use std::time::Duration;

use pgsteer_core::claim::{Claim, Fact, Report};
use pgsteer_core::names::MemberName;
use pgsteer_core::snapshot::Snapshot;
use pgsteer_core::time::Moment;

use crate::heartbeat::Heartbeat;

/// How long the heartbeat waits for the answers of all members. A member that does not answer must
/// not block writers forever.
const ANSWERS_WAIT: Duration = Duration::from_millis(1_500);

/// A source may send a request before the stall is detected. A request this shortly before counts.
const NOTICE_DELAY: Duration = Duration::from_millis(100);

/// Detects stalls, and tracks which members were asked since.
#[derive(Debug)]
pub struct Stalls {
    /// None before the first.
    last_look: Option<Moment>,
    /// True if the members are asked by SQL.
    has_check: bool,
    stall: Option<Stall>,
}

#[derive(Debug)]
struct Stall {
    noticed_at: Moment,
    /// Sources that have not yet reported the answer to a request after the stall.
    missing: BTreeSet<(MemberName, Source)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Patroni,
    Tether,
}

impl Stalls {
    /// A tracker without a stall.
    pub fn new(has_check: bool) -> Stalls {
        Stalls { last_look: None, has_check, stall: None }
    }

    /// Sets whether the members are asked by SQL after a reload.
    pub fn reconfigure(&mut self, has_check: bool) {
        self.has_check = has_check;
        self.stall = None;
    }

    /// Detects a stall since the last call. Returns true if there is none or if every member of
    /// `snapshot` was asked since. Call it once every [`Heartbeat::INTERVAL`] at least.
    pub fn are_over(&mut self, now: Moment, snapshot: &Snapshot) -> bool {
        let gap = now.since(self.last_look.replace(now).unwrap_or(now));
        if gap > Heartbeat::OLD_AFTER {
            tracing::warn!(
                "pgsteer was stopped for {:.1} s: writers wait until all members are asked anew",
                gap.as_secs_f64()
            );
            self.stall = Some(Stall { noticed_at: now, missing: self.sources(snapshot) });
        }
        let is_over =
            |stall: &Stall| stall.missing.is_empty() || now.since(stall.noticed_at) >= ANSWERS_WAIT;
        if self.stall.as_ref().is_some_and(is_over) {
            self.stall = None;
        }
        self.stall.is_none()
    }

    /// Records that a source has reported.
    pub fn note(&mut self, report: &Report) {
        let (Some(stall), Report::Claim(Claim { member, asked_at, fact })) =
            (&mut self.stall, report)
        else {
            return;
        };
        let source = match fact {
            Fact::Patroni(_) => Source::Patroni,
            Fact::Tether(_) => Source::Tether,
            _ => return,
        };
        if *asked_at + NOTICE_DELAY >= stall.noticed_at {
            stall.missing.remove(&(member.clone(), source));
        }
    }

    fn sources(&self, snapshot: &Snapshot) -> BTreeSet<(MemberName, Source)> {
        let members = snapshot.members.iter();
        members
            .flat_map(|(name, member)| {
                let patroni = member.patroni_url.is_some().then_some(Source::Patroni);
                let tether = self.has_check.then_some(Source::Tether);
                patroni.into_iter().chain(tether).map(|source| (name.clone(), source))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pgsteer_core::claim::Failure;

    use super::*;
    use crate::http::sample;

    fn at(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    fn report(member: &MemberName, asked_ms: u64, fact: Fact) -> Report {
        Report::Claim(Claim { member: member.clone(), asked_at: at(asked_ms), fact })
    }

    fn looked_at_once(has_check: bool) -> Stalls {
        let mut stalls = Stalls::new(has_check);
        assert!(stalls.are_over(at(900), &sample::calm()), "a slow start is no stall");
        stalls
    }

    #[test]
    fn a_stall_is_over_when_every_source_of_every_member_was_asked_after_it() {
        let snapshot = sample::calm();
        let mut stalls = looked_at_once(true);
        assert!(stalls.are_over(at(1_000), &snapshot));
        assert!(!stalls.are_over(at(5_000), &snapshot));
        let down = || Failure::Refused(Arc::from("n1"));
        for member in snapshot.members.keys() {
            // Answers to requests before the stall do not count.
            stalls.note(&report(member, 4_800, Fact::Patroni(Err(down()))));
            stalls.note(&report(member, 4_999, Fact::Tether(Err(down()))));
        }
        assert!(!stalls.are_over(at(5_010), &snapshot));
        for member in snapshot.members.keys() {
            assert!(!stalls.are_over(at(5_020), &snapshot));
            stalls.note(&report(member, 5_000, Fact::Patroni(Err(down()))));
        }
        assert!(stalls.are_over(at(5_030), &snapshot));
    }

    #[test]
    fn a_stall_is_over_after_a_while_even_if_a_member_does_not_answer() {
        let snapshot = sample::calm();
        let mut stalls = looked_at_once(false);
        assert!(!stalls.are_over(at(5_000), &snapshot));
        assert!(!stalls.are_over(at(6_000), &snapshot));
        assert!(stalls.are_over(at(6_500), &snapshot));
        assert!(stalls.are_over(at(7_000), &snapshot), "it is noticed once");
    }

    #[test]
    fn a_reload_ends_it_because_other_members_are_asked() {
        let snapshot = sample::calm();
        let mut stalls = looked_at_once(true);
        assert!(!stalls.are_over(at(5_000), &snapshot));
        stalls.reconfigure(false);
        assert!(stalls.are_over(at(5_010), &snapshot));
    }
}

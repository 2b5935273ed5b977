//! Gates: the memory per service and member.
//!
//! The judge forms an opinion from nothing but the view; the gate remembers. Bad news acts
//! at once, good news waits for a confirmation, and "as it was" needs somebody who knows
//! how it was.

use std::fmt;
use std::time::Duration;

use crate::judge::verdict::Verdict;
use crate::reason::Reason;
use crate::time::Moment;

/// The memory of one member's fitness for one service.
#[derive(Clone, Debug, PartialEq)]
pub enum Gate {
    /// No new sessions; what becomes of the old ones is said by `sessions`.
    Shut {
        /// Why.
        reason: Reason,
        /// Since when.
        since: Moment,
        /// What becomes of the sessions that still go there.
        sessions: Sessions,
    },
    /// No new sessions, and nothing wrong with the old ones: they go on.
    Draining {
        /// Why.
        reason: Reason,
        /// Since when.
        since: Moment,
    },
    /// No new sessions for a moment, although it would be open: a switchover has been ordered, and
    /// whoever logs in now is cut off by it.
    HeldBack {
        /// Since when.
        since: Moment,
        /// What it is but for the order, an open gate.
        instead: Box<Gate>,
    },
    /// It looks good; one more answer has to say so.
    Probation {
        /// Since when.
        since: Moment,
    },
    /// New sessions are let in.
    Open {
        /// Since when.
        since: Moment,
        /// The Snapshot in which it opened. A proxy worker takes no session to this member
        /// before every worker has acted on that Snapshot (invariant 7).
        generation: u64,
        /// Which way new sessions take.
        way: Way,
        /// A reservation: it is open, but not all is well.
        note: Option<Note>,
    },
}

/// The state of a gate, as the log, the pages and the metrics tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GateState {
    /// New sessions are let in.
    Open,
    /// It looks good; one more answer has to say so.
    Probation,
    /// No new sessions; the old ones go on.
    Draining,
    /// No new sessions.
    Shut,
}

impl GateState {
    /// Every state, best first.
    pub const ALL: [GateState; 4] =
        [GateState::Open, GateState::Probation, GateState::Draining, GateState::Shut];

    /// The word in the log, on the pages and in the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            GateState::Open => "open",
            GateState::Probation => "probation",
            GateState::Draining => "draining",
            GateState::Shut => "shut",
        }
    }
}

impl fmt::Display for GateState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which way sessions take from the service to the member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As the service is configured: through the pooler if it uses one.
    Usual,
    /// To PostgreSQL itself, past the pooler.
    PastPooler,
}

/// A reservation of an open gate.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// What is not well.
    pub reason: Reason,
    /// Since when.
    pub since: Moment,
    /// When the gate shuts if the doubt is not gone by then; none if it is no doubt.
    pub expires: Option<Moment>,
}

/// What becomes of the sessions behind a gate that is shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// They go on: there is no proof that they are lost.
    Keep,
    /// They are ended now (invariant 6 says on what proof).
    End,
}

impl Gate {
    /// New sessions may go there.
    pub fn is_open(&self) -> bool {
        matches!(self, Gate::Open { .. })
    }

    /// New sessions are led to PostgreSQL itself, past the pooler that the service uses.
    pub fn bypasses_pooler(&self) -> bool {
        matches!(self, Gate::Open { way: Way::PastPooler, .. })
    }

    /// Sessions that go there have to be ended.
    pub fn ends_sessions(&self) -> bool {
        matches!(self, Gate::Shut { sessions: Sessions::End, .. })
    }

    /// Its state, without reason and time. One that is held back is draining to whoever looks on.
    pub fn state(&self) -> GateState {
        match self {
            Gate::Shut { .. } => GateState::Shut,
            Gate::Draining { .. } | Gate::HeldBack { .. } => GateState::Draining,
            Gate::Probation { .. } => GateState::Probation,
            Gate::Open { .. } => GateState::Open,
        }
    }

    /// Why it is not open, or what the reservation is if it is.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Gate::Shut { reason, .. } | Gate::Draining { reason, .. } => Some(reason),
            Gate::HeldBack { .. } => Some(&Reason::SwitchoverPlanned),
            Gate::Probation { .. } => Some(&Reason::Confirming),
            Gate::Open { note, .. } => note.as_ref().map(|note| &note.reason),
        }
    }

    /// Since when it has been in this state.
    pub fn since(&self) -> Moment {
        match self {
            Gate::Shut { since, .. }
            | Gate::Draining { since, .. }
            | Gate::HeldBack { since, .. }
            | Gate::Probation { since }
            | Gate::Open { since, .. } => *since,
        }
    }
}

/// What a gate is told when it has to decide on its next state.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    /// The judge's word.
    pub verdict: Verdict,
    /// When the newest answer on which the verdict rests was asked for.
    pub evidence_asked_at: Moment,
    /// What becomes of the sessions if the gate is shut.
    pub sessions: Sessions,
    /// Which way new sessions take if it is open.
    pub way: Way,
    /// A switchover away from the member has been ordered, and clients can wait for it.
    pub held_back: bool,
    /// The number of the Snapshot that is being made.
    pub generation: u64,
    /// Now.
    pub now: Moment,
}

impl Gate {
    /// A gate that nobody has judged yet.
    pub(crate) fn new(now: Moment) -> Gate {
        Gate::Shut { reason: Reason::Unheard, since: now, sessions: Sessions::Keep }
    }

    /// What it is, or would be but for an order.
    pub(crate) fn without_order(&self) -> &Gate {
        match self {
            Gate::HeldBack { instead, .. } => instead,
            other => other,
        }
    }

    /// The state after `turn`. An order holds back what would be open, and changes nothing else: when
    /// it is over, carried out or not, the gate is what it would be without it.
    pub(crate) fn next(&self, turn: Turn) -> Gate {
        let would_be = self.without_order().judged(&turn);
        match (self, would_be) {
            // Held back are the new; there is proof that the old are lost.
            (_, Gate::Open { .. }) if turn.held_back && turn.sessions == Sessions::End => {
                self.to_shut(&turn, &Reason::SwitchoverPlanned)
            }
            (_, instead @ Gate::Open { .. }) if turn.held_back => {
                let since = match self {
                    Gate::HeldBack { since, .. } => *since,
                    _ => turn.now,
                };
                Gate::HeldBack { since, instead: Box::new(instead) }
            }
            (Gate::HeldBack { .. }, Gate::Open { way, note, .. }) => {
                Gate::Open { since: turn.now, generation: turn.generation, way, note }
            }
            (_, would_be) => would_be,
        }
    }

    fn judged(&self, turn: &Turn) -> Gate {
        match &turn.verdict {
            Verdict::Fit { note, confirmed } => self.on_good_news(turn, note, *confirmed),
            Verdict::Keep { reason, grace } => self.on_doubt(turn, reason, *grace),
            Verdict::Drain(reason) => self.to_draining(turn, reason),
            Verdict::Shut(reason) => self.to_shut(turn, reason),
        }
    }

    /// The same gate, shut because another is open: by its own reason, or by `rivalry`. `old` is
    /// what it was before this turn.
    pub(crate) fn outdone(
        &self,
        old: Option<&Gate>,
        rivalry: Option<&Reason>,
        now: Moment,
    ) -> Gate {
        let reason = rivalry.or(self.reason()).cloned().unwrap_or(Reason::Unheard);
        let since = match old {
            Some(Gate::Shut { since, .. }) => *since,
            _ => now,
        };
        Gate::Shut { reason, since, sessions: Sessions::End }
    }

    /// The moment at which the grace of a doubtful open gate ends.
    pub(crate) fn grace_ends(&self) -> Option<Moment> {
        match self {
            Gate::Open { note: Some(note), .. } => note.expires,
            Gate::HeldBack { instead, .. } => instead.grace_ends(),
            _ => None,
        }
    }

    fn on_good_news(&self, turn: &Turn, note: &Option<Reason>, confirmed: bool) -> Gate {
        match self {
            Gate::Open { since, generation, .. } => Gate::Open {
                since: *since,
                generation: *generation,
                way: turn.way,
                note: note.as_ref().map(|reason| self.note(turn, reason, None)),
            },
            Gate::Probation { since } if turn.evidence_asked_at <= *since && !confirmed => {
                self.clone()
            }
            Gate::Probation { .. } => Gate::open(turn, note),
            _ if confirmed => Gate::open(turn, note),
            _ => Gate::Probation { since: turn.now },
        }
    }

    fn on_doubt(&self, turn: &Turn, reason: &Reason, grace: Duration) -> Gate {
        match self {
            Gate::Open { since, generation, .. } => {
                let note = self.note(turn, reason, Some(turn.now + grace));
                match note.expires.is_some_and(|expires| turn.now < expires) {
                    true => Gate::Open {
                        since: *since,
                        generation: *generation,
                        way: turn.way,
                        note: Some(note),
                    },
                    false => self.to_shut(turn, reason),
                }
            }
            Gate::Draining { .. } => self.to_draining(turn, reason),
            _ => self.to_shut(turn, reason),
        }
    }

    fn open(turn: &Turn, note: &Option<Reason>) -> Gate {
        Gate::Open {
            since: turn.now,
            generation: turn.generation,
            way: turn.way,
            note: note.clone().map(|reason| Note { reason, since: turn.now, expires: None }),
        }
    }

    fn to_shut(&self, turn: &Turn, reason: &Reason) -> Gate {
        let (since, sessions) = match self {
            // Sessions that were ended do not come back, and whoever missed the Snapshot that
            // said so shall find it in the next.
            Gate::Shut { since, sessions: Sessions::End, .. } => (*since, Sessions::End),
            Gate::Shut { since, .. } => (*since, turn.sessions),
            _ => (turn.now, turn.sessions),
        };
        Gate::Shut { reason: reason.clone(), since, sessions }
    }

    fn to_draining(&self, turn: &Turn, reason: &Reason) -> Gate {
        // Draining spares the old sessions, unless there is proof that they are lost.
        if turn.sessions == Sessions::End {
            return self.to_shut(turn, reason);
        }
        let since = match self {
            Gate::Draining { since, .. } => *since,
            _ => turn.now,
        };
        Gate::Draining { reason: reason.clone(), since }
    }

    /// The reservation, dated from when a reservation of its kind was first made. One doubt after
    /// another gets no more time than the first that runs out.
    fn note(&self, turn: &Turn, reason: &Reason, expires: Option<Moment>) -> Note {
        let old = match self {
            Gate::Open { note: Some(old), .. } if old.expires.is_some() == expires.is_some() => {
                Some(old)
            }
            _ => None,
        };
        Note {
            reason: reason.clone(),
            since: old.map_or(turn.now, |old| old.since),
            expires: old.and_then(|old| old.expires).into_iter().chain(expires).min(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Failure;
    use std::sync::Arc;

    const GRACE: Duration = Duration::from_secs(60);

    fn turn(verdict: Verdict, asked_ms: u64, now_ms: u64) -> Turn {
        Turn {
            verdict,
            evidence_asked_at: Moment::from_millis(asked_ms),
            sessions: Sessions::Keep,
            way: Way::Usual,
            held_back: false,
            generation: 7,
            now: Moment::from_millis(now_ms),
        }
    }

    fn fit(confirmed: bool) -> Verdict {
        Verdict::Fit { note: None, confirmed }
    }

    #[test]
    fn unconfirmed_good_news_waits_for_an_answer_asked_after_it() {
        let gate = Gate::new(Moment::START).next(turn(fit(false), 10, 11));
        assert_eq!(gate.state(), GateState::Probation);
        assert_eq!(gate.next(turn(fit(false), 11, 12)).state(), GateState::Probation);
        assert_eq!(gate.next(turn(fit(false), 12, 13)).state(), GateState::Open);
    }

    #[test]
    fn confirmed_good_news_opens_at_once_and_remembers_the_snapshot() {
        let gate = Gate::new(Moment::START).next(turn(fit(true), 10, 11));
        assert!(matches!(gate, Gate::Open { generation: 7, .. }));
    }

    #[test]
    fn doubt_keeps_what_was_open_until_the_grace_is_over() {
        let doubt =
            || Verdict::Keep { reason: Reason::Silent(Duration::from_secs(1)), grace: GRACE };
        let open = Gate::new(Moment::START).next(turn(fit(true), 0, 0));
        let kept = open.next(turn(doubt(), 1, 1_000)).next(turn(doubt(), 1, 60_999));
        assert!(kept.is_open());
        assert_eq!(kept.grace_ends(), Some(Moment::from_millis(61_000)));
        assert_eq!(kept.next(turn(doubt(), 1, 61_000)).state(), GateState::Shut);
        assert_eq!(Gate::new(Moment::START).next(turn(doubt(), 1, 1)).state(), GateState::Shut);
    }

    #[test]
    fn draining_gives_way_to_proof_that_the_sessions_are_lost() {
        let open = Gate::new(Moment::START).next(turn(fit(true), 0, 0));
        let drained = open.next(turn(Verdict::Drain(Reason::Left(None)), 1, 1));
        assert_eq!(drained.state(), GateState::Draining);
        let proof =
            Turn { sessions: Sessions::End, ..turn(Verdict::Drain(Reason::Left(None)), 1, 1) };
        assert!(open.next(proof).ends_sessions());
    }

    #[test]
    fn sessions_that_were_ended_stay_ended_until_the_gate_opens_again() {
        let open = Gate::new(Moment::START).next(turn(fit(true), 0, 0));
        let proof =
            Turn { sessions: Sessions::End, ..turn(Verdict::Shut(Reason::Left(None)), 1, 1) };
        let ended = open.next(proof);
        assert!(ended.next(turn(Verdict::Shut(Reason::Promoting), 2, 2)).ends_sessions());
        assert!(!ended.next(turn(fit(true), 3, 3)).ends_sessions());
    }

    #[test]
    fn another_doubt_does_not_start_the_grace_anew_but_good_news_do() {
        let silent =
            || Verdict::Keep { reason: Reason::Silent(Duration::from_secs(1)), grace: GRACE };
        let closed = Failure::Closed(Arc::from("n1:8008"));
        let lost =
            || Verdict::Keep { reason: Reason::PatroniLost(closed.clone(), GRACE), grace: GRACE };
        let open = Gate::new(Moment::START).next(turn(fit(true), 0, 0));
        let mut gate = open.next(turn(silent(), 1, 1_000));
        for at_ms in (2_000..61_000).step_by(1_000) {
            gate = gate.next(turn(if at_ms % 2_000 == 0 { lost() } else { silent() }, 1, at_ms));
        }
        assert!(gate.is_open());
        assert_eq!(gate.next(turn(lost(), 1, 61_000)).state(), GateState::Shut);
        let reassured = gate.next(turn(fit(true), 60_500, 60_500));
        assert!(reassured.next(turn(lost(), 1, 61_000)).is_open());
    }
}

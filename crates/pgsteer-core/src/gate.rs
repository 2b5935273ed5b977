//! Gates: the state per service and member.
//!
//! The judge concludes from the view alone; the gate keeps the state. A bad verdict acts at once, a
//! good one needs a confirmation. [`Verdict::Keep`] depends on the previous state.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::reason::Reason;
use crate::route::Route;
use crate::time::Moment;
use crate::verdict::{Cause, Refusal, Verdict};

/// The state of one member for one service.
#[derive(Clone, Debug, PartialEq)]
pub enum Gate {
    /// No new sessions. `sessions` shows whether the existing ones end.
    Shut {
        /// What the refusal is about.
        cause: Cause,
        /// Why.
        reason: Reason,
        /// Since when.
        since: Moment,
        /// What happens to the sessions at the member.
        sessions: Sessions,
    },
    /// No new sessions. The existing ones are healthy and continue.
    Draining {
        /// What the refusal is about.
        cause: Cause,
        /// Why.
        reason: Reason,
        /// Since when.
        since: Moment,
    },
    /// No new sessions although the gate would be open.
    HeldBack {
        /// What holds it back.
        by: HeldBy,
        /// The explanation for people.
        reason: Reason,
        /// Since when.
        since: Moment,
        /// The open gate without that.
        instead: OpenGate,
    },
    /// The member looks fit; one more answer has to confirm it.
    Probation {
        /// Since when.
        since: Moment,
    },
    /// New sessions may begin.
    Open(OpenGate),
}

/// What holds back a gate that would be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldBy {
    /// A switchover was requested, which would end a session that begins now.
    Switchover,
    /// An operator drains the member.
    Operator,
}

/// A gate at which new sessions may begin.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenGate {
    /// Since when.
    pub since: Moment,
    /// The generation of the Snapshot in which it opened. A proxy worker routes no session to this
    /// member before every worker has applied that Snapshot (invariant 7).
    pub generation: u64,
    /// The route of new sessions to the member.
    pub route: Route,
    /// A reservation: the gate is open, but something is wrong.
    pub note: Option<Note>,
}

/// The state of a gate as log, pages and metrics show it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum GateState {
    /// New sessions may begin.
    Open,
    /// The member looks fit; one more answer has to confirm it.
    Probation,
    /// No new sessions; the existing ones continue.
    Draining,
    /// No new sessions.
    Shut,
}

impl GateState {
    /// Every state, best first.
    pub const ALL: [GateState; 4] =
        [GateState::Open, GateState::Probation, GateState::Draining, GateState::Shut];

    /// The name in log, pages and metrics.
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

/// A reservation of an open gate.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// What is wrong.
    pub reason: Reason,
    /// Since when.
    pub since: Moment,
    /// When the gate shuts unless the cause is gone by then; none if the cause does not shut it.
    pub expires: Option<Moment>,
}

/// What happens to the sessions at a member whose gate is shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// They continue: nothing proves that they are lost.
    Keep,
    /// They are ended now (invariant 6 lists the proofs).
    End,
}

impl Gate {
    /// Returns true if new sessions may begin.
    pub fn is_open(&self) -> bool {
        matches!(self, Gate::Open(_))
    }

    /// Returns true if new sessions bypass the service's pooler and go to PostgreSQL itself.
    pub fn bypasses_pooler(&self) -> bool {
        matches!(self, Gate::Open(open) if open.bypasses_pooler())
    }

    /// Returns true if the sessions at the member have to end.
    pub fn ends_sessions(&self) -> bool {
        matches!(self, Gate::Shut { sessions: Sessions::End, .. })
    }

    /// Returns the state without reason and time. A gate that is held back counts as draining.
    pub fn state(&self) -> GateState {
        match self {
            Gate::Shut { .. } => GateState::Shut,
            Gate::Draining { .. } | Gate::HeldBack { .. } => GateState::Draining,
            Gate::Probation { .. } => GateState::Probation,
            Gate::Open(_) => GateState::Open,
        }
    }

    /// Why the gate is not open; if it is open, its reservation.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Gate::Shut { reason, .. }
            | Gate::Draining { reason, .. }
            | Gate::HeldBack { reason, .. } => Some(reason),
            Gate::Probation { .. } => Some(&Reason::Confirming),
            Gate::Open(open) => open.reason(),
        }
    }

    /// Since when the gate has been in this state.
    pub fn since(&self) -> Moment {
        match self {
            Gate::Shut { since, .. }
            | Gate::Draining { since, .. }
            | Gate::HeldBack { since, .. }
            | Gate::Probation { since }
            | Gate::Open(OpenGate { since, .. }) => *since,
        }
    }

    /// Returns true if the gate would be open, but an operator drains the member.
    pub fn is_drained_by_operator(&self) -> bool {
        matches!(self, Gate::HeldBack { by: HeldBy::Operator, .. })
    }

    /// The open gate, also if it is held back.
    pub(crate) fn open_or_held_back(&self) -> Option<&OpenGate> {
        match self {
            Gate::Open(open) | Gate::HeldBack { instead: open, .. } => Some(open),
            Gate::Shut { .. } | Gate::Draining { .. } | Gate::Probation { .. } => None,
        }
    }
}

/// The facts from which a gate decides its next state.
#[derive(Clone, Debug)]
pub(crate) struct GateInput {
    /// The judge's conclusion.
    pub verdict: Verdict,
    /// When the newest answer on which the verdict rests was requested.
    pub evidence_asked_at: Moment,
    /// What happens to the sessions if the gate is shut.
    pub sessions: Sessions,
    /// The route of new sessions to the member if the gate is open.
    pub route: Route,
    /// What holds the gate back if it would be open.
    pub held_back: Option<(HeldBy, Reason)>,
    /// The generation of the Snapshot that is being made.
    pub generation: u64,
    /// Now.
    pub now: Moment,
}

impl Gate {
    /// Returns the gate of a member that was not judged yet.
    pub(crate) fn new(now: Moment) -> Gate {
        Gate::Shut {
            cause: Cause::Member,
            reason: Reason::Unheard,
            since: now,
            sessions: Sessions::Keep,
        }
    }

    /// Returns the state after `input`. A switchover request and an operator's order hold back a gate that
    /// would be open and have no other effect. When they end, carried out or not, the gate has the state
    /// that it would have without them.
    pub(crate) fn next(&self, input: GateInput) -> Gate {
        let would_be = self.judged(&input);
        match (self, would_be, &input.held_back) {
            // New sessions are held back; the existing ones are proven to be lost.
            (_, Gate::Open(_), Some((_, reason))) if input.sessions == Sessions::End => {
                self.to_shut(&input, &reason.clone().into())
            }
            (_, Gate::Open(instead), Some((by, reason))) => {
                let since = match self {
                    Gate::HeldBack { since, by: was, .. } if was == by => *since,
                    _ => input.now,
                };
                Gate::HeldBack { by: *by, reason: reason.clone(), since, instead }
            }
            (Gate::HeldBack { .. }, Gate::Open(OpenGate { route, note, .. }), None) => {
                Gate::Open(OpenGate { since: input.now, generation: input.generation, route, note })
            }
            (_, would_be, _) => would_be,
        }
    }

    fn judged(&self, input: &GateInput) -> Gate {
        match &input.verdict {
            Verdict::Fit { note, confirmed } => self.on_fit(input, note, *confirmed),
            Verdict::Keep { reason, grace } => self.on_keep(input, reason, *grace),
            Verdict::Drain(refusal) => self.to_draining(input, refusal),
            Verdict::Shut(refusal) => self.to_shut(input, refusal),
        }
    }

    /// Returns the same gate, shut because another one is open: with its own reason, or with
    /// `rivalry`. `old` is the gate before this turn.
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
        let cause = match (rivalry, self) {
            (None, Gate::Shut { cause, .. } | Gate::Draining { cause, .. }) => *cause,
            _ => Cause::Member,
        };
        Gate::Shut { cause, reason, since, sessions: Sessions::End }
    }

    /// The moment at which an open gate shuts because of its reservation.
    pub(crate) fn grace_ends(&self) -> Option<Moment> {
        self.open_or_held_back()?.note.as_ref()?.expires
    }

    fn on_fit(&self, input: &GateInput, note: &Option<Reason>, confirmed: bool) -> Gate {
        if let Some(open) = self.open_or_held_back() {
            let note = note.as_ref().map(|reason| open.note(input, reason, None));
            return Gate::Open(OpenGate { route: input.route.clone(), note, ..*open });
        }
        match self {
            Gate::Probation { since } if input.evidence_asked_at <= *since && !confirmed => {
                self.clone()
            }
            Gate::Probation { .. } => Gate::open(input, note),
            _ if confirmed => Gate::open(input, note),
            _ => Gate::Probation { since: input.now },
        }
    }

    fn on_keep(&self, input: &GateInput, reason: &Reason, grace: Duration) -> Gate {
        let refusal = Refusal::from(reason.clone());
        match (self.open_or_held_back(), self) {
            (Some(open), _) => {
                let note = open.note(input, reason, Some(input.now + grace));
                match note.expires.is_some_and(|expires| input.now < expires) {
                    true => {
                        let route = input.route.clone();
                        Gate::Open(OpenGate { route, note: Some(note), ..*open })
                    }
                    false => self.to_shut(input, &refusal),
                }
            }
            (None, Gate::Draining { .. }) => self.to_draining(input, &refusal),
            (None, _) => self.to_shut(input, &refusal),
        }
    }

    fn open(input: &GateInput, note: &Option<Reason>) -> Gate {
        let note = note.clone().map(|reason| Note { reason, since: input.now, expires: None });
        Gate::Open(OpenGate {
            since: input.now,
            generation: input.generation,
            route: input.route.clone(),
            note,
        })
    }

    fn to_shut(&self, input: &GateInput, refusal: &Refusal) -> Gate {
        let (since, sessions) = match self {
            // Sessions that were ended do not return. An output that missed the Snapshot which
            // ended them still finds `End` in the next one.
            Gate::Shut { since, sessions: Sessions::End, .. } => (*since, Sessions::End),
            Gate::Shut { since, .. } => (*since, input.sessions),
            _ => (input.now, input.sessions),
        };
        let Refusal { cause, reason } = refusal.clone();
        Gate::Shut { cause, reason, since, sessions }
    }

    fn to_draining(&self, input: &GateInput, refusal: &Refusal) -> Gate {
        // Draining keeps the existing sessions, unless they are proven to be lost.
        if input.sessions == Sessions::End {
            return self.to_shut(input, refusal);
        }
        let since = match self {
            Gate::Draining { since, .. } => *since,
            _ => input.now,
        };
        let Refusal { cause, reason } = refusal.clone();
        Gate::Draining { cause, reason, since }
    }
}

impl OpenGate {
    /// Returns a gate that opens at `since`, without a reservation.
    pub const fn new(since: Moment, generation: u64) -> OpenGate {
        OpenGate { since, generation, route: Route::Configured, note: None }
    }

    /// Returns true if new sessions bypass the service's pooler.
    pub fn bypasses_pooler(&self) -> bool {
        matches!(self.route, Route::PastPooler(_))
    }

    /// The reservation; none if there is none.
    pub fn reason(&self) -> Option<&Reason> {
        self.note.as_ref().map(|note| &note.reason)
    }

    /// Returns the reservation for `reason`. Its start is that of the first reservation of the same
    /// kind, with or without an end. A second reservation with an end does not extend the first.
    fn note(&self, input: &GateInput, reason: &Reason, expires: Option<Moment>) -> Note {
        let same_kind = |old: &&Note| old.expires.is_some() == expires.is_some();
        let old = self.note.as_ref().filter(same_kind);
        Note {
            reason: reason.clone(),
            since: old.map_or(input.now, |old| old.since),
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

    fn input(verdict: Verdict, asked_ms: u64, now_ms: u64) -> GateInput {
        GateInput {
            verdict,
            evidence_asked_at: Moment::from_millis(asked_ms),
            sessions: Sessions::Keep,
            route: Route::Configured,
            held_back: None,
            generation: 7,
            now: Moment::from_millis(now_ms),
        }
    }

    fn fit(confirmed: bool) -> Verdict {
        Verdict::Fit { note: None, confirmed }
    }

    #[test]
    fn unconfirmed_good_news_waits_for_an_answer_asked_after_it() {
        let gate = Gate::new(Moment::START).next(input(fit(false), 10, 11));
        assert_eq!(gate.state(), GateState::Probation);
        assert_eq!(gate.next(input(fit(false), 11, 12)).state(), GateState::Probation);
        assert_eq!(gate.next(input(fit(false), 12, 13)).state(), GateState::Open);
    }

    #[test]
    fn confirmed_good_news_opens_at_once_and_remembers_the_snapshot() {
        let gate = Gate::new(Moment::START).next(input(fit(true), 10, 11));
        assert!(matches!(gate, Gate::Open(OpenGate { generation: 7, .. })));
    }

    #[test]
    fn an_open_gate_without_confirmation_stays_open_until_the_grace_ends() {
        let doubt =
            || Verdict::Keep { reason: Reason::Silent(Duration::from_secs(1)), grace: GRACE };
        let open = Gate::new(Moment::START).next(input(fit(true), 0, 0));
        let kept = open.next(input(doubt(), 1, 1_000)).next(input(doubt(), 1, 60_999));
        assert!(kept.is_open());
        assert_eq!(kept.grace_ends(), Some(Moment::from_millis(61_000)));
        assert_eq!(kept.next(input(doubt(), 1, 61_000)).state(), GateState::Shut);
        assert_eq!(Gate::new(Moment::START).next(input(doubt(), 1, 1)).state(), GateState::Shut);
    }

    #[test]
    fn draining_gives_way_to_proof_that_the_sessions_are_lost() {
        let open = Gate::new(Moment::START).next(input(fit(true), 0, 0));
        let drained = open.next(input(Verdict::drain(Reason::Left(None)), 1, 1));
        assert_eq!(drained.state(), GateState::Draining);
        let proof = GateInput {
            sessions: Sessions::End,
            ..input(Verdict::drain(Reason::Left(None)), 1, 1)
        };
        assert!(open.next(proof).ends_sessions());
    }

    #[test]
    fn sessions_that_were_ended_stay_ended_until_the_gate_opens_again() {
        let open = Gate::new(Moment::START).next(input(fit(true), 0, 0));
        let proof =
            GateInput { sessions: Sessions::End, ..input(Verdict::shut(Reason::Left(None)), 1, 1) };
        let ended = open.next(proof);
        assert!(ended.next(input(Verdict::shut(Reason::Promoting), 2, 2)).ends_sessions());
        assert!(!ended.next(input(fit(true), 3, 3)).ends_sessions());
    }

    /// An operator drains the member from 1 s on.
    fn drained(verdict: Verdict, asked_ms: u64, now_ms: u64) -> GateInput {
        let reason = Reason::Left(None);
        GateInput {
            held_back: Some((HeldBy::Operator, reason)),
            ..input(verdict, asked_ms, now_ms)
        }
    }

    #[test]
    fn a_drained_gate_opens_at_once_when_the_order_ends() {
        let open = Gate::new(Moment::START).next(input(fit(true), 0, 0));
        let held = open.next(drained(fit(false), 1, 1)).next(drained(fit(false), 2, 2));
        assert!(held.is_drained_by_operator());
        assert_eq!((held.state(), held.since()), (GateState::Draining, Moment::from_millis(1)));
        let undrained = held.next(GateInput { generation: 9, ..input(fit(false), 2, 3) });
        assert!(matches!(undrained, Gate::Open(OpenGate { generation: 9, .. })));
    }

    #[test]
    fn good_news_is_confirmed_while_the_member_is_drained() {
        let probation = Gate::new(Moment::START).next(drained(fit(false), 1, 1));
        assert_eq!(probation.state(), GateState::Probation);
        assert!(probation.next(drained(fit(false), 2, 2)).is_drained_by_operator());
    }

    #[test]
    fn bad_news_acts_on_a_drained_member() {
        let open = Gate::new(Moment::START).next(input(fit(true), 0, 0));
        let held = open.next(drained(fit(true), 1, 1));
        let lost = GateInput {
            sessions: Sessions::End,
            ..drained(Verdict::shut(Reason::Promoting), 2, 2)
        };
        assert!(held.next(lost).ends_sessions());
        let doubt = Verdict::Keep { reason: Reason::Silent(Duration::from_secs(1)), grace: GRACE };
        let kept = held.next(drained(doubt.clone(), 2, 2));
        assert!(kept.is_drained_by_operator());
        assert_eq!(kept.next(drained(doubt, 2, 60_002)).state(), GateState::Shut);
    }

    #[test]
    fn another_failure_does_not_restart_the_grace_but_a_success_does() {
        let silent =
            || Verdict::Keep { reason: Reason::Silent(Duration::from_secs(1)), grace: GRACE };
        let closed = Failure::Closed(Arc::from("n1:8008"));
        let lost =
            || Verdict::Keep { reason: Reason::PatroniLost(closed.clone(), GRACE), grace: GRACE };
        let open = Gate::new(Moment::START).next(input(fit(true), 0, 0));
        let mut gate = open.next(input(silent(), 1, 1_000));
        for at_ms in (2_000..61_000).step_by(1_000) {
            gate = gate.next(input(if at_ms % 2_000 == 0 { lost() } else { silent() }, 1, at_ms));
        }
        assert!(gate.is_open());
        assert_eq!(gate.next(input(lost(), 1, 61_000)).state(), GateState::Shut);
        let reassured = gate.next(input(fit(true), 60_500, 60_500));
        assert!(reassured.next(input(lost(), 1, 61_000)).is_open());
    }
}

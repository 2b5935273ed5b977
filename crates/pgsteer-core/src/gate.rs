//! Gates: the memory per service and member.
//!
//! The judge forms an opinion from nothing but the view; the gate remembers. Bad news acts
//! at once, good news waits for a confirmation, and "as it was" needs somebody who knows
//! how it was.

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
        /// A reservation: it is open, but not all is well.
        note: Option<Note>,
    },
}

/// A reservation of an open gate.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// What is not well.
    pub reason: Reason,
    /// Since when.
    pub since: Moment,
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

    /// Sessions that go there have to be ended.
    pub fn ends_sessions(&self) -> bool {
        matches!(
            self,
            Gate::Shut {
                sessions: Sessions::End,
                ..
            }
        )
    }

    /// The state in one word: `open`, `probation`, `draining`, `shut`.
    pub fn word(&self) -> &'static str {
        match self {
            Gate::Shut { .. } => "shut",
            Gate::Draining { .. } => "draining",
            Gate::Probation { .. } => "probation",
            Gate::Open { .. } => "open",
        }
    }

    /// Why it is not open, or what the reservation is if it is.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Gate::Shut { reason, .. } | Gate::Draining { reason, .. } => Some(reason),
            Gate::Probation { .. } => Some(&Reason::Confirming),
            Gate::Open { note, .. } => note.as_ref().map(|note| &note.reason),
        }
    }

    /// Since when it has been in this state.
    pub fn since(&self) -> Moment {
        match self {
            Gate::Shut { since, .. }
            | Gate::Draining { since, .. }
            | Gate::Probation { since }
            | Gate::Open { since, .. } => *since,
        }
    }
}

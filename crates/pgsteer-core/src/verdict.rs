//! Verdict: the judge's conclusion for one member and one service.

use std::time::Duration;

use crate::rank::stronger;
use crate::reason::Reason;

/// The judge's conclusion for one member and one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The member may serve.
    Fit {
        /// A reservation that does not keep the member from serving.
        note: Option<Reason>,
        /// Facts of two kinds agree, so no second answer is needed before the gate opens.
        confirmed: bool,
    },
    /// An open gate stays open for a limited time; a gate that is not open stays as it is.
    Keep {
        /// The fact that is missing or contradicted.
        reason: Reason,
        /// How long the gate stays open, counted from the first such verdict.
        grace: Duration,
    },
    /// No new sessions; existing sessions continue.
    Drain(Refusal),
    /// No new sessions.
    Shut(Refusal),
}

/// Why a member gets no new sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the refusal is about. The engine acts on this.
    pub cause: Cause,
    /// The explanation for people.
    pub reason: Reason,
}

/// What a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The member: its role, state, tags, address, or what is known of it.
    Member,
    /// The lag of a replica, which returns only below a part of the limit.
    Lag,
    /// The pooler in front of the member.
    Pooler,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Refusal {
        Refusal { cause: Cause::Member, reason }
    }
}

impl Refusal {
    /// Returns the refusal whose reason has the higher rank; this one if both have the same.
    fn or_stronger(self, other: Refusal) -> Refusal {
        if other.reason.rank() < self.reason.rank() { other } else { self }
    }
}

impl Verdict {
    /// Returns a verdict that shuts the gate because of the member.
    pub fn shut(reason: Reason) -> Verdict {
        Verdict::Shut(reason.into())
    }

    /// Returns a verdict that drains the gate because of the member.
    pub fn drain(reason: Reason) -> Verdict {
        Verdict::Drain(reason.into())
    }

    /// Returns the verdict that excludes more clients. If both have the same effect, the reason of
    /// the higher rank is used.
    pub fn or_stronger(self, other: Verdict) -> Verdict {
        match (self, other) {
            (Verdict::Shut(one), Verdict::Shut(other)) => Verdict::Shut(one.or_stronger(other)),
            (shut @ Verdict::Shut(_), _) | (_, shut @ Verdict::Shut(_)) => shut,
            (Verdict::Drain(one), Verdict::Drain(other)) => Verdict::Drain(one.or_stronger(other)),
            (drain @ Verdict::Drain(_), _) | (_, drain @ Verdict::Drain(_)) => drain,
            (
                Verdict::Keep { reason: one, grace },
                Verdict::Keep { reason: other, grace: other_grace },
            ) => Verdict::Keep { reason: one.or_stronger(other), grace: grace.min(other_grace) },
            (keep @ Verdict::Keep { .. }, _) | (_, keep @ Verdict::Keep { .. }) => keep,
            (
                Verdict::Fit { note: one, confirmed },
                Verdict::Fit { note: other, confirmed: other_confirmed },
            ) => {
                Verdict::Fit { note: stronger(one, other), confirmed: confirmed && other_confirmed }
            }
        }
    }
}

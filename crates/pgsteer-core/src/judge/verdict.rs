//! What the judge says of one member for one service: the word that turns a gate.

use std::time::Duration;

use crate::rank::stronger;
use crate::reason::Reason;

/// The judge's word on one member for one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may serve.
    Fit {
        /// A reservation that does not keep it from serving.
        note: Option<Reason>,
        /// Facts of two kinds agree, so no second answer is needed before it serves.
        confirmed: bool,
    },
    /// It may go on serving for a while if it was, and must not start if it was not.
    Keep {
        /// What is in doubt.
        reason: Reason,
        /// How long the while is, from the first doubt on.
        grace: Duration,
    },
    /// No new sessions; the old ones are fine.
    Drain(Reason),
    /// No new sessions.
    Shut(Reason),
}

impl Verdict {
    /// The verdict that does more to keep clients away; of two that do the same, the one whose
    /// reason has the higher rank.
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

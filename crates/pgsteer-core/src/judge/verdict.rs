//! What the judge says of one member for one service: the word that turns a gate.

use std::time::Duration;

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

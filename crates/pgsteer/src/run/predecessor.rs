//! What the process from which this one takes over has sent before the engine starts.

use std::time::SystemTime;

use pgsteer_core::time::Moment;

/// The process from which this one takes over.
pub struct Predecessor {
    /// Its time now.
    pub now: Moment,
    /// The orders of operators that it has in force, as they are stored; none from an older version.
    pub orders: Option<String>,
    /// The time of day from which on it accepts orders that are not in `orders`.
    pub sent_at: SystemTime,
}

//! How often the sources ask: seldom at rest, quickly while it matters.
//!
//! The tether is cheap (a Sync costs the server some 20 microseconds), so it beats often.
//! Patroni answers in Python and asks PostgreSQL for every answer, so it is asked quickly only
//! while a write service has nobody to go to, and less so once that has lasted.

use std::time::Duration;

use crate::plan::Pace;

const REST: Pace = pace(250, 1_000);
const CONFIRM: Pace = pace(10, 100);
/// A member holds the lock and its promotion may end any moment.
const PROMOTING: Pace = pace(5, 50);
const SEARCH: Pace = pace(10, 50);
/// Patroni is all there is, so it has to tell of the promotion itself.
const SEARCH_BY_PATRONI: Pace = pace(10, 25);
const LONG_SEARCH: Pace = pace(100, 250);

/// How long a service may be without a primary before the search calms down.
pub const SEARCH_LASTS: Duration = Duration::from_secs(60);

const fn pace(tether_ms: u64, patroni_ms: u64) -> Pace {
    Pace { tether: Duration::from_millis(tether_ms), patroni: Duration::from_millis(patroni_ms) }
}

/// What the pace of one member depends on.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// For how long some service has been without a primary; none if all have one.
    pub primary_missing: Option<Duration>,
    /// The member holds the lock and is on its way to become writable.
    pub promoting: bool,
    /// One of its gates waits for a confirmation.
    pub in_probation: bool,
    /// There is a tether.
    pub has_tether: bool,
}

impl Need {
    /// The pace that fits.
    pub fn pace(self) -> Pace {
        match self.primary_missing {
            Some(_) if self.promoting && self.has_tether => PROMOTING,
            Some(missing) if missing < SEARCH_LASTS && self.has_tether => SEARCH,
            Some(missing) if missing < SEARCH_LASTS || self.promoting => SEARCH_BY_PATRONI,
            _ if self.in_probation => CONFIRM,
            Some(_) => LONG_SEARCH,
            None => REST,
        }
    }
}

/// The longest time between two questions to one source, by which claims are known to expire.
pub const REST_PACE: Pace = REST;

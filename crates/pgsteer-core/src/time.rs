//! Time in the core: an argument, never a clock.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time, measured from the start of the engine's driver.
///
/// The driver is the shell, which uses a monotonic clock, or a test, which uses numbers. Two
/// moments of different drivers cannot be compared unless one continues the clock of the other, and neither is
/// a time of day.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize,
)]
pub struct Moment(Duration);

impl Moment {
    /// The driver's own start.
    pub const START: Moment = Moment(Duration::ZERO);

    /// Returns the moment that is `elapsed` after the driver's start.
    pub const fn after_start(elapsed: Duration) -> Moment {
        Moment(elapsed)
    }

    /// Returns the moment that is `millis` milliseconds after the driver's start.
    pub const fn from_millis(millis: u64) -> Moment {
        Moment(Duration::from_millis(millis))
    }

    /// Returns how long after the driver's start this moment is.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// Returns how long after `earlier` this moment is; zero if it is before it.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, wait: Duration) -> Moment {
        Moment(self.0.saturating_add(wait))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}s", self.0.as_secs_f64())
    }
}

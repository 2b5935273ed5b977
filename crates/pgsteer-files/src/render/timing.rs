//! Computes the timings of HAProxy's checks from one option: the maximum time to detect a lost
//! member.

use std::time::Duration;

use serde::Serialize;

use super::refusal::{DETECT_MS, Refusal};
use crate::detection::CheckTimes;

/// The default detection time.
pub const DETECT_DEFAULT: Duration = Duration::from_secs(3);

/// HAProxy's timings of one server in milliseconds, with the resulting detection times.
///
/// [`CheckTimes`] computes the detection times. A check may take all of `inter`, because `timeout
/// check` is not set. `fall` is 2, so that one lost answer closes no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Timing {
    /// The interval between checks, and the time limit of each.
    pub inter_ms: u64,
    /// The interval between the first failed check and the second, and between checks of a server
    /// that is down.
    pub fastinter_ms: u64,
    /// The interval of a second check, which tests in HAProxy itself whether there is exactly one
    /// primary; 0 if there is no such check.
    pub guard_ms: u64,
    /// The maximum time until a silent member is DOWN.
    pub silent_ms: u64,
    /// The maximum time until a member that refuses, or fails the check, is DOWN.
    pub told_ms: u64,
    /// The shortest time until one that refuses is DOWN: one that is back within it is not noticed.
    pub told_least_ms: u64,
    /// The maximum time until a member that passes its checks is UP.
    pub up_ms: u64,
    /// The interval between agent checks.
    pub agent_ms: u64,
}

impl Timing {
    /// Returns timings by which a lost member is DOWN within `detect`.
    ///
    /// # Errors
    /// A detection time outside of [`DETECT_MS`].
    pub fn within(detect: Duration) -> Result<Timing, Refusal> {
        Timing::new(detect, 0)
    }

    /// The same, with a second check of HAProxy itself after the first.
    ///
    /// # Errors
    /// A detection time outside of [`DETECT_MS`].
    pub fn guarded_within(detect: Duration) -> Result<Timing, Refusal> {
        Timing::new(detect, 20)
    }

    /// `guard_part` of the time is for the second check; 0 for no second check.
    fn new(detect: Duration, guard_part: u64) -> Result<Timing, Refusal> {
        let detect_ms = u64::try_from(detect.as_millis()).unwrap_or(u64::MAX);
        if !DETECT_MS.contains(&detect_ms) {
            return Err(Refusal::Detect);
        }
        let guard_ms = detect_ms.checked_div(guard_part).map_or(0, |ms| ms.clamp(50, 200));
        // inter, then twice a check that takes inter, with fastinter = inter / 2 between them.
        let inter_ms = (detect_ms - guard_ms) * 2 / 7;
        let fastinter_ms = inter_ms / 2;
        let times = CheckTimes {
            inter_ms,
            fastinter_ms,
            downinter_ms: fastinter_ms,
            rise: 1,
            fall: 2,
            connect_ms: inter_ms,
            answer_ms: inter_ms,
            spread_percent: 0,
        };
        Ok(Timing {
            inter_ms,
            fastinter_ms,
            guard_ms,
            silent_ms: times.silent().most_ms + guard_ms,
            told_ms: times.refused().most_ms + guard_ms,
            told_least_ms: times.refused().least_ms,
            up_ms: times.up().most_ms + guard_ms,
            agent_ms: (detect_ms / 10).clamp(100, 1_000),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_detection_time_in_the_range_is_met_closely() {
        for millis in DETECT_MS {
            let detect = Duration::from_millis(millis);
            for timing in [Timing::within(detect).unwrap(), Timing::guarded_within(detect).unwrap()]
            {
                assert!((millis - 4..=millis).contains(&timing.silent_ms), "{millis}: {timing:?}");
                assert!(timing.told_ms < timing.silent_ms && timing.fastinter_ms >= 50);
            }
        }
    }

    #[test]
    fn a_detection_time_that_cannot_be_met_is_refused() {
        for millis in [0, 499, 60_001] {
            assert_eq!(Timing::within(Duration::from_millis(millis)), Err(Refusal::Detect));
        }
    }
}

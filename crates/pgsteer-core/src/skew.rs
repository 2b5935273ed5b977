//! Clock offsets: how far a server's clock is ahead of pgsteer's own.
//!
//! The age of a replica's last commit is the difference of two clocks: the replica's, and that of
//! the primary that stamped the commit. Their offsets are measured over the tether, and the
//! difference of the two corrects the age.

use std::time::Duration;

/// How far the offset must move before another one is shown. A Snapshot must not change only
/// because an answer took a little longer.
const SHOWN_STEP_MICROS: i64 = 100_000;

/// How far a server's clock is ahead of pgsteer's, in microseconds; negative if it is behind. It is
/// measured at the middle between question and answer, so its error is at most half of that time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClockOffset {
    micros: i64,
}

impl ClockOffset {
    /// Returns the offset of this many microseconds.
    pub const fn from_micros(micros: i64) -> ClockOffset {
        ClockOffset { micros }
    }

    /// Returns the offset in seconds.
    pub fn as_secs_f64(self) -> f64 {
        // A double is exact up to an offset of 285 years.
        self.micros as f64 / 1e6
    }

    /// Returns `age` without the difference of two clocks. A server with this offset computed `age`
    /// from a time that a server with the offset `stamped_by` wrote.
    pub fn correct(self, age: i64, stamped_by: ClockOffset) -> Duration {
        let ahead = self.micros.saturating_sub(stamped_by.micros);
        Duration::from_micros(u64::try_from(age.saturating_sub(ahead)).unwrap_or(0))
    }

    /// Returns the offset to show after `shown`, in steps of 0.1 s.
    pub fn step(self, shown: Option<ClockOffset>) -> ClockOffset {
        match shown.filter(|shown| shown.micros.abs_diff(self.micros) <= SHOWN_STEP_MICROS as u64) {
            Some(shown) => shown,
            None => {
                let half = SHOWN_STEP_MICROS / 2;
                let steps = self.micros.saturating_add(half).div_euclid(SHOWN_STEP_MICROS);
                ClockOffset { micros: steps.saturating_mul(SHOWN_STEP_MICROS) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn micros(micros: i64) -> ClockOffset {
        ClockOffset::from_micros(micros)
    }

    #[test]
    fn the_difference_of_the_clocks_is_taken_away() {
        let lag = Duration::from_secs(2);
        assert_eq!(micros(HOUR).correct(HOUR + 2_000_000, micros(0)), lag);
        assert_eq!(micros(-HOUR).correct(-HOUR + 2_000_000, micros(0)), lag);
        assert_eq!(micros(0).correct(2_000_000 - HOUR, micros(HOUR)), lag);
        assert_eq!(micros(HOUR).correct(2_000_000, micros(HOUR)), lag);
        assert_eq!(micros(0).correct(-20, micros(0)), Duration::ZERO);
        assert_eq!(micros(i64::MIN).correct(i64::MIN, micros(i64::MAX)), Duration::from_micros(0));
    }

    #[test]
    fn a_small_change_is_not_shown() {
        let mut shown = None;
        let mut seen = Vec::new();
        for offset in [20_000, 90_000, -60_000, 140_000, 100_000, -HOUR, -HOUR + 30_000] {
            let step = micros(offset).step(shown);
            if shown.replace(step) != Some(step) {
                seen.push(step.micros);
            }
        }
        assert_eq!(seen, [0, 100_000, -HOUR]);
        assert_eq!(micros(i64::MAX).step(None).step(None), micros(i64::MAX).step(None));
    }
}

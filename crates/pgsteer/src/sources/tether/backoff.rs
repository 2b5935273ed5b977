//! The wait before the next login: none at first, then doubling up to a bound.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(5);

/// The bound is the pace, but within these: a quick pace must not flood a server with
/// logins, and a slow one must not make a server wait that is back.
const BOUND_MIN: Duration = Duration::from_millis(25);
const BOUND_MAX: Duration = Duration::from_secs(1);

/// Longer than the plan needs to follow the tether.
pub const HOLD_OFF: Duration = Duration::from_millis(250);

/// How long to wait before the next login.
#[derive(Clone, Debug, Default)]
pub struct Backoff(Duration);

impl Backoff {
    /// The wait, from the last login to the next.
    pub fn wait(&self) -> Duration {
        self.0
    }

    /// The next login may come at once.
    pub fn reset(&mut self) {
        self.0 = Duration::ZERO;
    }

    /// A login failed while questions came at `pace`.
    pub fn grow(&mut self, pace: Duration) {
        let bound = pace.clamp(BOUND_MIN, BOUND_MAX);
        self.0 = (self.0 * 2).clamp(FIRST, bound);
    }

    /// There is no server behind a pooler, or it has just gone away. Whoever asks for it at once is
    /// put off for longer than it may take to come back, and by then the plan says whether it is to
    /// be asked at all.
    pub fn hold_off(&mut self) {
        self.0 = HOLD_OFF;
    }

    /// A login was refused by a server that is well. Each one leaves a line in its log, so
    /// urgency does not count.
    pub fn grow_at_rest(&mut self) {
        self.grow(BOUND_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits_ms(pace_ms: u64, failures: usize) -> Vec<u128> {
        let mut backoff = Backoff::default();
        let mut waits = vec![backoff.wait().as_millis()];
        for _ in 0..failures {
            backoff.grow(Duration::from_millis(pace_ms));
            waits.push(backoff.wait().as_millis());
        }
        waits
    }

    #[test]
    fn it_doubles_up_to_the_pace() {
        assert_eq!(waits_ms(250, 8), [0, 5, 10, 20, 40, 80, 160, 250, 250]);
    }

    #[test]
    fn it_is_bounded_at_both_ends() {
        assert_eq!(waits_ms(5, 5), [0, 5, 10, 20, 25, 25]);
        assert_eq!(waits_ms(60_000, 10).last(), Some(&1000));
    }
}

//! The wait before the next login: none at first, then doubling up to a maximum.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(5);

/// The maximum is the pace, but within these limits: a fast pace must not flood a server with
/// logins, and a slow pace must not delay the login to a server that has recovered.
const BOUND_MIN: Duration = Duration::from_millis(25);
const BOUND_MAX: Duration = Duration::from_secs(1);

/// Longer than the plan needs to react to the tether's report.
pub const HOLD_OFF: Duration = Duration::from_millis(250);

/// The wait before the next login.
#[derive(Clone, Debug, Default)]
pub struct Backoff(Duration);

impl Backoff {
    /// Returns the time from the last login to the next.
    pub fn wait(&self) -> Duration {
        self.0
    }

    /// Allows the next login at once.
    pub fn reset(&mut self) {
        self.0 = Duration::ZERO;
    }

    /// Increases the wait after a failed login at `pace`.
    pub fn grow(&mut self, pace: Duration) {
        let bound = pace.clamp(BOUND_MIN, BOUND_MAX);
        self.0 = (self.0 * 2).clamp(FIRST, bound);
    }

    /// Sets the wait for a pooler without a server, or whose server has just closed. The
    /// pooler would delay an immediate login for longer than the server may need to recover. After
    /// this wait the plan shows whether to ask the pooler at all.
    pub fn hold_off(&mut self) {
        self.0 = HOLD_OFF;
    }

    /// Increases the wait after a healthy server refused a login. Each refusal leaves a line in the
    /// server's log, so the pace does not shorten the wait.
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

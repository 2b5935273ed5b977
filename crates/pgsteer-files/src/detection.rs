//! HAProxy's health checks: the time until a server is DOWN, and until it is UP again.
//!
//! This is the one place for the arithmetic, for the files that render writes and for those that
//! lint reads. After a check has ended the next one starts `inter` later while the server is
//! healthy, `downinter` later while it is DOWN without a success, and `fastinter` later in between
//! (configuration manual, 5.2 "inter"). A whole check may take `inter`. With `timeout check` set it
//! has min(`timeout connect`, `inter`) to connect and `timeout check` for the answer (4.2 "timeout
//! check").

use serde::Serialize;

/// The timings of one server, complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckTimes {
    /// The interval between checks of a healthy server.
    pub inter_ms: u64,
    /// The interval between checks of a server in transition to DOWN or UP.
    pub fastinter_ms: u64,
    /// The interval between checks of a server that is DOWN.
    pub downinter_ms: u64,
    /// The number of successes until it is UP.
    pub rise: u64,
    /// The number of failures until it is DOWN.
    pub fall: u64,
    /// The time limit of a check for the connection.
    pub connect_ms: u64,
    /// The time limit of a check for the answer.
    pub answer_ms: u64,
    /// The jitter of every interval, in percent (`spread-checks`).
    pub spread_percent: u64,
}

/// The range from the best case to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Wait {
    /// The minimum in milliseconds: the failure occurred just before a check.
    pub least_ms: u64,
    /// The maximum in milliseconds: the failure occurred just after a check.
    pub most_ms: u64,
}

impl CheckTimes {
    /// The time until a member that refuses connections, or fails the check, is DOWN.
    pub fn refused(&self) -> Wait {
        self.steps(self.inter_ms, self.fall)
    }

    /// The time until a silent member is DOWN: a partitioned host, which does not accept a
    /// connection, or a hanging one, which does not answer.
    pub fn silent(&self) -> Wait {
        let Wait { least_ms, most_ms } = self.refused();
        let each = |ms: u64| self.fall.saturating_mul(ms);
        Wait {
            least_ms: least_ms.saturating_add(each(self.connect_ms.min(self.answer_ms))),
            most_ms: most_ms.saturating_add(each(self.connect_ms.max(self.answer_ms))),
        }
    }

    /// The time until a server that is DOWN and passes its checks is UP.
    pub fn up(&self) -> Wait {
        self.steps(self.downinter_ms, self.rise)
    }

    /// Up to `first_ms` until the next check, and then `fastinter` between the `count` checks.
    fn steps(&self, first_ms: u64, count: u64) -> Wait {
        let between = self.fastinter_ms.saturating_mul(count.saturating_sub(1));
        let spread = |ms: u64, percent: u64| ms.saturating_mul(percent) / 100;
        let percent_less = 100_u64.saturating_sub(self.spread_percent);
        let percent_more = self.spread_percent.saturating_add(100);
        Wait {
            least_ms: spread(between, percent_less),
            most_ms: spread(first_ms.saturating_add(between), percent_more),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: CheckTimes = CheckTimes {
        inter_ms: 3_000,
        fastinter_ms: 3_000,
        downinter_ms: 3_000,
        rise: 2,
        fall: 3,
        connect_ms: 3_000,
        answer_ms: 3_000,
        spread_percent: 0,
    };

    fn wait(least_ms: u64, most_ms: u64) -> Wait {
        Wait { least_ms, most_ms }
    }

    #[test]
    fn three_seconds_three_times_is_six_to_nine() {
        assert_eq!(TEMPLATE.refused(), wait(6_000, 9_000));
        assert_eq!(TEMPLATE.up(), wait(3_000, 6_000));
        assert_eq!(TEMPLATE.silent(), wait(15_000, 18_000));
    }

    #[test]
    fn a_timeout_of_the_check_counts_once_for_each_failure() {
        let times = CheckTimes { connect_ms: 1_000, answer_ms: 5_000, ..TEMPLATE };
        assert_eq!(times.silent(), wait(6_000 + 3_000, 9_000 + 15_000));
        assert_eq!(times.refused(), TEMPLATE.refused());
    }

    #[test]
    fn fastinter_is_between_the_failures_and_downinter_before_the_first_success() {
        let times = CheckTimes { fastinter_ms: 1_000, downinter_ms: 5_000, ..TEMPLATE };
        assert_eq!(times.refused(), wait(2_000, 5_000));
        assert_eq!(times.up(), wait(1_000, 6_000));
    }

    #[test]
    fn spread_checks_makes_the_best_better_and_the_worst_worse() {
        let times = CheckTimes { spread_percent: 5, ..TEMPLATE };
        assert_eq!(times.refused(), wait(5_700, 9_450));
    }

    #[test]
    fn no_number_is_too_large() {
        let max = u64::MAX;
        let times = CheckTimes {
            inter_ms: max,
            fastinter_ms: max,
            downinter_ms: max,
            rise: max,
            fall: max,
            connect_ms: max,
            answer_ms: max,
            spread_percent: max,
        };
        assert!(times.silent().most_ms > 0 && times.up().most_ms > 0);
    }
}

//! How often the sources send queries: seldom while all is well, often during a failover.
//!
//! A tether query is cheap (a Sync costs the server some 20 microseconds), so it is sent often.
//! Patroni is written in Python and queries PostgreSQL for every answer, so it is asked often only
//! while a write service has no open member, and less often after a minute of that.

use std::time::Duration;

use crate::plan::Pace;

/// How long a request to Patroni may take in total, unless `timeout_seconds` is longer.
pub const RUN_ON: Duration = Duration::from_secs(5);

/// How late an answer may be before it counts as missing.
pub const SLACK: Duration = Duration::from_millis(500);

/// The pace while all is well. The next query to a source is sent at most this long after the
/// previous one, or after its answer if that takes longer. The lifetime of claims therefore depends
/// on it.
pub const CALM: Pace = pace(250, 1_000);
/// The pace while the primary's Patroni does not answer. The primary's own server is the last to
/// show that another member was promoted, so pgsteer queries the other members for a new primary.
/// An agent-check every half second leaves 100 ms for that.
const DOUBT: Pace = pace(50, 1_000);
const CONFIRM: Pace = pace(10, 100);
/// The pace of a member that holds the lock: its promotion may end at any moment.
const PROMOTING: Pace = pace(2, 50);
/// The pace of a promotion that has lasted a minute: Patroni has already reported the lock, and
/// only PostgreSQL can report the end of the promotion.
const LONG_PROMOTION: Pace = pace(5, 1_000);
const SEARCH: Pace = pace(10, 50);
/// The pace while another member is promoting. Frequent queries to all other members would take CPU
/// time from the promotion. They are still sent more often than at rest, and at the pace of a
/// search once that member has lost the lock.
const BESIDE_A_PROMOTION: Pace = pace(10, 250);
const LONG_SEARCH: Pace = pace(100, 250);

/// The interval of a search without a tether: Patroni is the only source, so it has to report the
/// promotion. Each entry counts from that time of the search on. A race for the leader lock may last for a
/// minute, and ten pgsteers may watch one cluster: together they send each Patroni 60 requests a second at
/// most, on average over that minute.
const SEARCH_BY_PATRONI: [(Duration, Duration); 3] = [
    (Duration::ZERO, Duration::from_millis(25)),
    (Duration::from_secs(1), Duration::from_millis(100)),
    (Duration::from_secs(3), LONG_SEARCH.patroni),
];
/// The same for a member that holds the lock, from when it got the lock.
const PROMOTION_BY_PATRONI: [(Duration, Duration); 2] =
    [(Duration::ZERO, Duration::from_millis(50)), (Duration::from_secs(2), LONG_SEARCH.patroni)];

/// How long a service may be without a primary before the search calms down.
pub const SEARCH_LASTS: Duration = Duration::from_secs(60);

/// Without a login pgsteer can only open a connection to a pooler, and each one leaves a line in
/// the pooler's log.
pub const KNOCK: Duration = Duration::from_secs(1);

/// The interval while a decision waits for the pooler's next answer.
const POOLER_BEHIND: Duration = Duration::from_millis(2);

/// The least time from one question to Patroni to the next, after an answer that took `took`. A
/// Patroni that answers slowly is idle for at least a third of the time.
pub fn patroni_gap(took: Duration) -> Duration {
    took + took / 2
}

/// Returns a pace in which a pooler is asked as often as the tether.
const fn pace(tether_ms: u64, patroni_ms: u64) -> Pace {
    let tether = Duration::from_millis(tether_ms);
    Pace { tether, patroni: Duration::from_millis(patroni_ms), pooler: tether }
}

/// What the pace of one member depends on.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// How long some service has been without a primary; none if all have one.
    pub primary_missing: Option<Duration>,
    /// How long the member has held the lock, if it is being promoted.
    pub promoting: Option<Duration>,
    /// Another member is being promoted.
    pub other_promoting: bool,
    /// The open write gate is that of a member whose Patroni does not answer.
    pub in_doubt: bool,
    /// One of its gates waits for a confirmation.
    pub in_probation: bool,
    /// There is a tether.
    pub has_tether: bool,
    /// A decision waits for the next answer of one of the member's poolers: it has not answered
    /// yet, or its answer is older than the member's role.
    pub pooler_behind: bool,
}

impl Need {
    /// Returns the pace for this need.
    pub fn pace(self) -> Pace {
        let pace = self.pace_of_the_server();
        let pooler = match (self.has_tether, self.pooler_behind) {
            (false, _) => KNOCK,
            (true, true) => pace.pooler.min(POOLER_BEHIND),
            (true, false) => pace.pooler,
        };
        Pace { pooler, ..pace }
    }

    fn pace_of_the_server(self) -> Pace {
        let Some(missing) = self.primary_missing else {
            return match (self.in_probation, self.in_doubt) {
                (true, _) => CONFIRM,
                (false, true) => DOUBT,
                (false, false) => CALM,
            };
        };
        if !self.has_tether {
            return self.search_by_patroni(missing);
        }
        let is_long = missing >= SEARCH_LASTS;
        match self.promoting {
            Some(_) if is_long => LONG_PROMOTION,
            Some(_) => PROMOTING,
            None if is_long && self.in_probation => CONFIRM,
            None if is_long => LONG_SEARCH,
            None if self.other_promoting => BESIDE_A_PROMOTION,
            None => SEARCH,
        }
    }

    fn search_by_patroni(self, missing: Duration) -> Pace {
        let (steps, lasted) = match self.promoting {
            Some(held) => (&PROMOTION_BY_PATRONI[..], held),
            None => (&SEARCH_BY_PATRONI[..], missing),
        };
        let step = steps.iter().rfind(|(from, _)| *from <= lasted);
        let patroni = step.map_or(LONG_SEARCH.patroni, |(_, interval)| *interval);
        match self.in_probation {
            true => Pace { patroni: patroni.min(CONFIRM.patroni), ..SEARCH },
            false => Pace { patroni, ..SEARCH },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_NEED: Need = Need {
        primary_missing: None,
        promoting: None,
        other_promoting: false,
        in_doubt: false,
        in_probation: false,
        has_tether: true,
        pooler_behind: false,
    };
    const MINUTES: Option<Duration> = Some(Duration::from_secs(600));

    #[test]
    fn patroni_is_not_probed_fast_without_end() {
        for promoting in [None, MINUTES] {
            let need = Need { primary_missing: MINUTES, promoting, ..NO_NEED };
            assert!(need.pace().patroni >= LONG_SEARCH.patroni, "{need:?}");
        }
    }

    #[test]
    fn a_promotion_is_detected_within_milliseconds_regardless_of_its_duration() {
        for primary_missing in [Some(Duration::ZERO), MINUTES] {
            let need = Need { primary_missing, promoting: Some(Duration::ZERO), ..NO_NEED };
            assert!(need.pace().tether <= Duration::from_millis(5), "{need:?}");
        }
    }

    #[test]
    fn a_pooler_is_queried_like_its_server_and_without_a_login_only_connected_to() {
        let promoting = Need { primary_missing: MINUTES, promoting: MINUTES, ..NO_NEED };
        assert_eq!(promoting.pace().pooler, promoting.pace().tether);
        assert_eq!(Need { pooler_behind: true, ..NO_NEED }.pace().pooler, POOLER_BEHIND);
        assert_eq!(Need { has_tether: false, ..promoting }.pace().pooler, KNOCK);
    }

    /// The number of requests to one Patroni in the first minute without a primary, with the shortest
    /// intervals that jitter makes. The member gets the lock after `searched` and is not promoted.
    fn requests_of_a_minute(searched: Option<Duration>) -> u32 {
        let (mut at, mut count) = (Duration::ZERO, 0);
        while at < SEARCH_LASTS {
            let promoting = searched.and_then(|searched| at.checked_sub(searched));
            let need = Need { primary_missing: Some(at), promoting, has_tether: false, ..NO_NEED };
            at += need.pace().patroni * 9 / 10;
            count += 1;
        }
        count
    }

    #[test]
    fn ten_pgsteers_without_a_login_send_a_patroni_sixty_requests_a_second() {
        for searched in [None, Some(0), Some(3), Some(30)] {
            let count = requests_of_a_minute(searched.map(Duration::from_secs));
            assert!(count <= 6 * 60, "{searched:?}: {count}");
        }
        let late =
            Need { primary_missing: Some(Duration::from_secs(4)), has_tether: false, ..NO_NEED };
        assert_eq!(late.pace().patroni, Duration::from_millis(250));
        assert_eq!(Need { promoting: MINUTES, ..late }.pace().patroni, Duration::from_millis(250));
    }

    #[test]
    fn a_promotion_without_a_login_is_noticed_soon() {
        for missing in [Duration::ZERO, Duration::from_secs(30)] {
            let need = Need { primary_missing: Some(missing), has_tether: false, ..NO_NEED };
            let promoting = Need { promoting: Some(Duration::from_secs(1)), ..need };
            assert!(promoting.pace().patroni <= Duration::from_millis(50));
        }
    }

    #[test]
    fn during_a_promotion_other_members_are_probed_less_only_if_a_tether_detects_its_end() {
        let need = Need { primary_missing: Some(Duration::ZERO), other_promoting: true, ..NO_NEED };
        assert_eq!(need.pace(), BESIDE_A_PROMOTION);
        assert_eq!(Need { promoting: Some(Duration::ZERO), ..need }.pace(), PROMOTING);
        let by_patroni = Need { has_tether: false, ..need }.pace();
        assert_eq!(by_patroni.patroni, Duration::from_millis(25));
        assert_eq!(Need { other_promoting: false, ..need }.pace(), SEARCH);
        assert!(BESIDE_A_PROMOTION.patroni < CALM.patroni);
    }

    #[test]
    fn with_a_primary_probes_are_rare_unless_a_member_needs_a_second_answer() {
        assert_eq!(NO_NEED.pace(), CALM);
        assert_eq!(Need { in_probation: true, ..NO_NEED }.pace(), CONFIRM);
    }

    #[test]
    fn a_successor_of_a_primary_without_patroni_is_detected_before_the_next_agent_check() {
        let doubt = Need { in_doubt: true, ..NO_NEED }.pace();
        assert!(doubt.tether <= Duration::from_millis(50) && doubt.patroni == CALM.patroni);
    }
}

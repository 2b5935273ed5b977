//! The write head: the primary's WAL write positions over time.
//!
//! A replica's position is compared with what the primary had written *before* the replica was
//! asked. Compared with a later position, a replica without lag would seem to lag by all that was
//! written between the two questions.
//!
//! The positions are dated by pgsteer's own clock, so a lag in time that is measured against them
//! does not depend on any server's clock.

use std::collections::VecDeque;
use std::time::Duration;

use crate::names::MemberName;
use crate::time::Moment;

/// How many positions are kept. The newest half is complete. The older half is thinned out: the
/// older two positions are, the further apart they may be. So the memory is bounded and reaches
/// back for a day, and a lag is too high by 20 % at most.
const SAMPLES_MAX: usize = 192;

/// The minimum time between two kept positions. The newest half reaches further back than any claim
/// lives.
const SAMPLES_APART: Duration = Duration::from_millis(250);

/// How long the last position stays valid when a primary may exist that no source sees. It is
/// longer than Patroni needs to detect a failure and to elect another primary, including `ttl`.
const MEMORY: Duration = Duration::from_secs(60);

/// How old the newest position of a running primary may be, so that a replica which has replayed it
/// counts as up to date. The position is asked for once a second.
const RECENT: Duration = Duration::from_secs(5);

/// The primary's write positions, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteHead {
    samples: VecDeque<Sample>,
    /// The primary whose positions are noted.
    primary: Option<MemberName>,
    /// The last moment at which the newest position was certainly the last one written.
    sure_until: Moment,
    /// While no primary is seen: the last moment of that kind.
    held_until: Option<Moment>,
}

/// The primary had written exactly up to `location` from `first_seen` to `last_seen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    location: u64,
    first_seen: Moment,
    last_seen: Moment,
}

impl Sample {
    fn at(asked_at: Moment, location: u64) -> Sample {
        Sample { location, first_seen: asked_at, last_seen: asked_at }
    }
}

impl WriteHead {
    /// Notes that `primary` is the primary now. If another member was the primary before, only the
    /// positions up to `replayed` are kept. That is the position that the new primary had replayed
    /// when it was last asked as a replica. What the old primary wrote beyond it may be lost, and
    /// the new timeline begins there.
    pub fn follow(&mut self, primary: &MemberName, replayed: Option<(Moment, u64)>) {
        if self.primary.as_ref() == Some(primary) {
            return;
        }
        self.primary = Some(primary.clone());
        self.held_until = None;
        let Some((asked_at, location)) = replayed else {
            self.samples.clear();
            return;
        };
        self.samples.retain(|sample| sample.location <= location);
        if self.samples.back().is_none_or(|newest| newest.last_seen < asked_at) {
            self.push(Sample::at(asked_at, location));
        }
        self.sure_until = self.sure_until.max(asked_at);
    }

    /// Notes that the primary, asked at `asked_at`, had written up to `location`.
    pub fn note(&mut self, asked_at: Moment, location: u64) {
        self.sure_until = self.sure_until.max(asked_at);
        let held_until = self.held_until.take();
        if let Some(newest) = self.samples.back_mut() {
            // The primary wrote nothing between its last position and its return.
            newest.last_seen = newest.last_seen.max(held_until.unwrap_or_default());
            if newest.location == location {
                newest.last_seen = newest.last_seen.max(asked_at);
                return;
            }
            if asked_at.since(newest.first_seen) < SAMPLES_APART {
                return;
            }
            if newest.location > location {
                // A restored server begins below its old end.
                self.samples.clear();
            }
        }
        self.push(Sample::at(asked_at, location));
    }

    /// Notes that no primary is seen. Without a primary nothing is written, so the last position
    /// stays valid while no unseen primary can exist (`is_sure`), and for [`MEMORY`] after that.
    /// Then it is dropped for good, because it is unknown whether anything was written meanwhile.
    pub fn hold(&mut self, now: Moment, is_sure: bool) {
        if now.since(self.sure_until) >= MEMORY {
            self.samples.clear();
        } else if is_sure {
            self.sure_until = now;
        }
        self.held_until = Some(now);
    }

    /// Returns how many bytes `location` is behind; none if the primary's position is unknown. A
    /// replica reported `location` when it was asked at `asked_at`.
    pub fn lag_bytes(&self, asked_at: Moment, location: u64, now: Moment) -> Option<u64> {
        let before = self.samples.iter().rev().find(|sample| sample.first_seen < asked_at);
        let sample = before.or_else(|| self.samples.front()).filter(|_| self.is_valid(now))?;
        Some(sample.location.saturating_sub(location))
    }

    /// Returns how long ago, when the replica was asked, the primary had passed `location`; zero if
    /// it had not. While no primary is seen, time stands still at the last position.
    pub fn lag_time(&self, asked_at: Moment, location: u64, now: Moment) -> LagTime {
        let Some(newest) = self.samples.back().filter(|_| self.is_valid(now)) else {
            return LagTime::NoHead;
        };
        let until = match self.held_until {
            Some(_) => newest.last_seen.min(asked_at),
            None => asked_at,
        };
        let mut before = self.samples.iter().rev().skip_while(|it| it.first_seen >= asked_at);
        let head = before.clone().next().or_else(|| self.samples.front());
        let is_at_head = head.is_some_and(|head| head.location <= location);
        match before.find(|sample| sample.location <= location) {
            Some(replayed) => match until.since(replayed.last_seen) {
                age if is_at_head && age <= RECENT => LagTime::Known(Duration::ZERO),
                age => LagTime::Known(age),
            },
            None if is_at_head => LagTime::Known(Duration::ZERO),
            None => LagTime::BeforeMemory,
        }
    }

    fn is_valid(&self, now: Moment) -> bool {
        now.since(self.sure_until) < MEMORY
    }

    fn push(&mut self, sample: Sample) {
        self.samples.push_back(sample);
        if self.samples.len() > SAMPLES_MAX {
            self.thin_out(sample.first_seen);
        }
    }

    /// Drops one of the older positions: the one whose neighbours are nearest to each other in
    /// relation to their age.
    fn thin_out(&mut self, now: Moment) {
        let older = self.samples.len() - SAMPLES_MAX / 2;
        let gap_to_age = |index: &usize| {
            let before = index.checked_sub(1).and_then(|before| self.samples.get(before));
            let after = self.samples.get(index + 1);
            let gap = match (before, after) {
                (Some(before), Some(after)) => after.first_seen.since(before.last_seen),
                // The oldest one is dropped only when all others are far apart.
                _ => now.since(Moment::START) / 2,
            };
            let age = self.samples.get(*index).map_or(Duration::ZERO, |it| now.since(it.last_seen));
            gap.as_micros() * 1_000 / age.as_micros().max(1)
        };
        if let Some(index) = (0..older).min_by_key(gap_to_age) {
            self.samples.remove(index);
        }
    }
}

/// A lag in time, as far as the kept positions show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LagTime {
    /// The lag.
    Known(Duration),
    /// The replica is behind all kept positions.
    BeforeMemory,
    /// The primary's position is unknown.
    NoHead,
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    fn known(millis: u64) -> LagTime {
        LagTime::Known(Duration::from_millis(millis))
    }

    fn name(name: &str) -> MemberName {
        MemberName::new(name).unwrap()
    }

    /// A primary that writes a byte a millisecond, asked every half second.
    fn writing(from_ms: u64, to_ms: u64) -> WriteHead {
        let mut head = WriteHead::default();
        for ms in (from_ms..=to_ms).step_by(500) {
            head.note(at(ms), ms);
        }
        head
    }

    #[test]
    fn a_replica_is_measured_against_what_was_written_before_it_was_asked() {
        let mut head = WriteHead::default();
        head.note(at(1_000), 100);
        head.note(at(2_000), 900);
        assert_eq!(head.lag_bytes(at(1_500), 100, at(2_000)), Some(0));
        assert_eq!(head.lag_bytes(at(2_500), 100, at(2_500)), Some(800));
        assert_eq!(head.lag_bytes(at(500), 40, at(2_000)), Some(60));
        assert_eq!(head.lag_bytes(at(2_500), 100, at(62_000)), None);
        assert_eq!(head.lag_time(at(1_500), 100, at(2_000)), known(0));
        assert_eq!(head.lag_time(at(2_500), 100, at(2_500)), known(1_500));
        assert_eq!(head.lag_time(at(2_500), 40, at(2_500)), LagTime::BeforeMemory);
        assert_eq!(head.lag_time(at(2_500), 100, at(62_000)), LagTime::NoHead);
    }

    #[test]
    fn a_primary_that_starts_lower_replaces_the_old_positions() {
        let mut head = WriteHead::default();
        head.note(at(1_000), 1_000);
        head.note(at(2_000), 500);
        assert_eq!(head.lag_bytes(at(1_000), 500, at(2_000)), Some(0));
    }

    #[test]
    fn a_quiet_primary_has_no_lag_however_long_it_is_quiet() {
        let mut head = WriteHead::default();
        for second in 0..10_000 {
            head.note(at(second * 1_000), 700);
        }
        let now = at(9_999_500);
        assert_eq!(head.lag_time(now, 700, now), known(0));
        assert_eq!(head.samples.len(), 1);
        head.note(at(10_000_000), 800);
        let now = at(10_000_500);
        assert_eq!(head.lag_time(now, 700, now), known(1_500), "it was quiet until then");
    }

    #[test]
    fn the_lag_of_a_stuck_replica_grows_although_it_replayed_all_it_received() {
        let head = writing(0, 60_000);
        assert_eq!(head.lag_time(at(60_000), 60_000, at(60_000)), known(0));
        assert_eq!(head.lag_time(at(60_000), 25_100, at(60_000)), known(35_000));
    }

    #[test]
    fn a_living_primary_that_gives_no_position_makes_what_was_replayed_old() {
        let head = writing(0, 10_000);
        assert_eq!(head.lag_time(at(14_000), 10_000, at(14_000)), known(0));
        assert_eq!(head.lag_time(at(40_000), 10_000, at(40_000)), known(30_000));
    }

    #[test]
    fn the_memory_is_bounded_and_reaches_back_for_a_day() {
        let day_ms = 86_400_000;
        let mut head = WriteHead::default();
        for ms in (0..=day_ms).step_by(1_000) {
            head.note(at(ms), ms);
        }
        assert_eq!(head.samples.len(), SAMPLES_MAX);
        for lag_ms in [0, 1_000, 10_000, 60_000, 600_000, 3_600_000, 36_000_000, 86_000_000] {
            // Only positions from before the question count.
            let now = at(day_ms + 1);
            let LagTime::Known(lag) = head.lag_time(now, day_ms - lag_ms, now) else {
                panic!("{lag_ms} ms are not remembered")
            };
            let found_ms = u64::try_from(lag.as_millis()).unwrap();
            assert!(found_ms >= lag_ms, "{lag_ms}: {found_ms}");
            assert!(found_ms <= lag_ms + lag_ms / 5 + 1_000, "{lag_ms}: {found_ms}");
        }
    }

    #[test]
    fn without_a_primary_the_last_position_is_valid_as_long_as_none_can_be_out_of_sight() {
        let mut head = writing(0, 10_000);
        for second in 11..1_000 {
            head.hold(at(second * 1_000), true);
        }
        let now = at(999_000);
        assert_eq!(head.lag_bytes(now, 9_000, now), Some(1_000));
        assert_eq!(head.lag_time(now, 10_000, now), known(0));
        assert_eq!(head.lag_time(now, 9_000, now), known(1_000), "time stands still");

        head.hold(at(1_058_999), false);
        assert_eq!(head.lag_bytes(now, 9_000, at(1_058_999)), Some(1_000));
        head.hold(at(1_059_000), false);
        assert_eq!(head.lag_bytes(now, 9_000, at(1_059_000)), None);
        head.hold(at(1_060_000), true);
        let now = at(1_060_000);
        assert_eq!(head.lag_bytes(now, 9_000, now), None, "what was written since is not known");
    }

    #[test]
    fn a_primary_that_comes_back_has_written_nothing_meanwhile() {
        let mut head = writing(0, 10_000);
        head.hold(at(39_000), false);
        head.note(at(40_000), 10_500);
        assert_eq!(head.lag_time(at(40_100), 10_000, at(40_100)), known(1_100));
    }

    #[test]
    fn another_primary_goes_on_from_what_it_had_replayed() {
        let mut head = WriteHead::default();
        head.follow(&name("n1"), None);
        head.note(at(1_000), 900);
        head.note(at(2_000), 1_000);
        head.hold(at(30_000), false);
        head.follow(&name("n2"), Some((at(29_500), 950)));
        head.note(at(30_000), 960);
        assert_eq!(head.lag_time(at(30_100), 960, at(30_100)), known(0));
        assert_eq!(head.lag_time(at(30_100), 950, at(30_100)), known(600));
        assert_eq!(head.lag_time(at(30_100), 900, at(30_100)), known(29_100));
        assert_eq!(head.lag_bytes(at(30_100), 900, at(30_100)), Some(60));
    }
}

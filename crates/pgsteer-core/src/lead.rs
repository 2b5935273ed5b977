//! How far ahead the primary is: its recent write positions, to measure replicas against.
//!
//! A replica's position is compared with what the primary had written *before* the replica
//! was asked. Compared with a later one, a replica that keeps up perfectly would seem to lag
//! by all that was written between the two questions.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Moment;

/// How many positions are remembered, and how far apart they are at least: together they reach
/// further back than any claim lives, at whatever pace the primary is asked.
const SAMPLES_MAX: usize = 32;
const SAMPLES_APART: Duration = Duration::from_millis(250);

/// How long the last position of a primary stays good to measure against when there is none:
/// longer than Patroni needs to notice and to elect another one, ttl and all.
const MEMORY: Duration = Duration::from_secs(60);

/// The primary's recent write positions, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lead {
    samples: VecDeque<(Moment, u64)>,
}

impl Lead {
    /// Remembers that the primary, asked at `asked_at`, had written up to `location`.
    pub fn note(&mut self, asked_at: Moment, location: u64) {
        match self.samples.back() {
            Some((newest, _)) if asked_at.since(*newest) < SAMPLES_APART => return,
            // A new timeline may begin below the end of the old one.
            Some((_, highest)) if *highest > location => self.samples.clear(),
            _ => {}
        }
        self.samples.push_back((asked_at, location));
        if self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
    }

    /// How many bytes `location`, told by a replica asked at `asked_at`, is behind. None if the
    /// primary has not been heard of for a minute.
    ///
    /// While there is no primary nobody writes, so its last position stays good for a while.
    pub fn lag_bytes(&self, asked_at: Moment, location: u64, now: Moment) -> Option<u64> {
        let (newest, _) = self.samples.back()?;
        if now.since(*newest) >= MEMORY {
            return None;
        }
        let before = self.samples.iter().rev().find(|(at, _)| *at <= asked_at);
        let (_, lead) = before.or_else(|| self.samples.front())?;
        Some(lead.saturating_sub(location))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_measured_against_what_was_written_before_it_was_asked() {
        let at = Moment::from_millis;
        let mut lead = Lead::default();
        lead.note(at(1_000), 100);
        lead.note(at(2_000), 900);
        assert_eq!(lead.lag_bytes(at(1_500), 100, at(2_000)), Some(0));
        assert_eq!(lead.lag_bytes(at(2_500), 100, at(2_500)), Some(800));
        assert_eq!(lead.lag_bytes(at(500), 40, at(2_000)), Some(60));
        assert_eq!(lead.lag_bytes(at(2_500), 100, at(62_000)), None);
    }

    #[test]
    fn a_primary_that_starts_lower_replaces_the_old_positions() {
        let at = Moment::from_millis;
        let mut lead = Lead::default();
        lead.note(at(1_000), 1_000);
        lead.note(at(2_000), 500);
        assert_eq!(lead.lag_bytes(at(1_000), 500, at(2_000)), Some(0));
    }
}

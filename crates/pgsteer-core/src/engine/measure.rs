//! Measures: how far each member is behind, how full it is, and on which timeline.

use super::Engine;
use crate::claim::Role;
use crate::judge::fitness::Lag;
use crate::judge::{Member, Trust};
use crate::names::MemberName;
use crate::time::Moment;
use crate::view::Word;

impl Engine {
    /// Remembers how far the primary has written; in a standby cluster how far its leader is.
    pub(super) fn note_lead(&mut self, now: Moment) {
        for (name, standing) in &self.standings {
            let in_recovery = match standing.role {
                Role::Primary => false,
                Role::StandbyLeader => true,
                Role::Replica | Role::Unknown => continue,
            };
            // A reservation against serving writes is none against the position.
            if !matches!(standing.trust, Trust::None(_))
                && let Some((asked_at, location)) =
                    self.position(&self.roster.members()[name], in_recovery, now)
            {
                self.lead.note(asked_at, location);
            }
        }
    }

    /// Remembers how full each member is, as far as anybody has counted lately.
    pub(super) fn note_loads(&mut self, now: Moment) {
        let step = |(name, member): (&MemberName, &Member)| {
            let load = member.view.progress(now, &self.rules.freshness)?.said.load?;
            Some((name.clone(), load.step(self.loads.get(name).copied())))
        };
        self.loads = self.roster.members().iter().filter_map(step).collect();
    }

    /// The newest WAL position of a member in the given state, and when it was asked for.
    fn position(&self, member: &Member, in_recovery: bool, now: Moment) -> Option<(Moment, u64)> {
        let freshness = &self.rules.freshness;
        let by_sql = member
            .view
            .progress(now, freshness)
            .filter(|heard| heard.said.in_recovery == in_recovery)
            .and_then(|heard| Some((heard.asked_at, heard.said.location?)));
        let by_patroni = match member.view.patroni(now, freshness) {
            Word::Said(facts) => {
                let location = if in_recovery { facts.replayed_location } else { facts.location };
                let asked_at = member.view.patroni_facts().map(|heard| heard.asked_at);
                asked_at.zip(location)
            }
            _ => None,
        };
        by_sql.max(by_patroni)
    }

    /// How far a member in recovery is behind.
    pub(super) fn lag(&self, member: &Member, now: Moment) -> Lag {
        let bytes = self
            .position(member, true, now)
            .and_then(|(asked_at, location)| self.lead.lag_bytes(asked_at, location, now));
        let progress = member.view.progress(now, &self.rules.freshness);
        let time =
            progress.filter(|heard| heard.said.in_recovery).and_then(|heard| heard.said.replay_lag);
        Lag { bytes, time }
    }

    /// The timeline of a member, by the best source there is for it.
    pub(super) fn timeline(&self, member: &Member, now: Moment) -> Option<u32> {
        let by_patroni = match member.view.patroni(now, &self.rules.freshness) {
            Word::Said(facts) => facts.timeline,
            _ => None,
        };
        let by_sql = || {
            let progress = member.view.progress(now, &self.rules.freshness)?;
            progress.said.timeline
        };
        by_patroni.or_else(by_sql)
    }
}

//! Measures: each member's lag, load, timeline and clock offset.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Engine;
use crate::claim::Role;
use crate::judge::Member;
use crate::judge::fitness::Lag;
use crate::judge::sight::takes_no_writes;
use crate::names::MemberName;
use crate::time::Moment;
use crate::view::Reading;
use crate::write_head::LagTime;

impl Engine {
    /// Notes the write position of the primary; in a standby cluster the position of its leader.
    pub(super) fn note_write_head(&mut self, now: Moment) {
        let Some((name, in_recovery)) = self.leader() else {
            let is_sure = self.no_primary_is_hidden(now);
            return self.write_head.hold(now, is_sure);
        };
        let member = &self.roster.members()[&name];
        let replayed = self.position(member, true, now);
        let position = self.position(member, in_recovery, now);
        self.head_timeline = self.head_timeline.max(self.timeline(member, now));
        self.write_head.follow(&name, replayed);
        if let Some((asked_at, location)) = position {
            self.write_head.note(asked_at, location);
        }
    }

    /// The member that leads, and whether it is in recovery as a standby leader. A member that
    /// leads with a reservation still counts here.
    fn leader(&self) -> Option<(MemberName, bool)> {
        let (name, standing) = self.standings.iter().find(|(_, standing)| standing.is_source())?;
        Some((name.clone(), standing.role == Role::StandbyLeader))
    }

    /// Returns true if no primary can exist out of sight: every known member certainly takes no
    /// writes, and none is on a timeline that begins after the last position of a primary.
    fn no_primary_is_hidden(&self, now: Moment) -> bool {
        self.roster.members().values().all(|member| {
            takes_no_writes(member, &self.rules, now)
                && self.timeline(member, now).is_none_or(|timeline| {
                    self.head_timeline.is_none_or(|of_head| timeline <= of_head)
                })
        })
    }

    /// Notes how full each member is and its clock offset, as far as recent measurements exist.
    pub(super) fn note_measures(&mut self, now: Moment) {
        let members = self.roster.members().iter();
        let freshness = &self.rules.freshness;
        let measured = members.filter_map(|(name, member)| {
            Some((name, &member.view.progress(now, freshness)?.answer))
        });
        let (mut loads, mut clock_offsets) = (BTreeMap::new(), BTreeMap::new());
        for (name, progress) in measured {
            if let Some(load) = progress.load {
                loads.insert(name.clone(), load.step(self.loads.get(name).copied()));
            }
            if let Some(offset) = progress.clock_offset {
                let shown = self.clock_offsets.get(name).copied();
                clock_offsets.insert(name.clone(), offset.step(shown));
            }
        }
        (self.loads, self.clock_offsets) = (loads, clock_offsets);
    }

    /// The newest WAL position of a member in the given state, and when it was asked for.
    fn position(&self, member: &Member, in_recovery: bool, now: Moment) -> Option<(Moment, u64)> {
        let freshness = &self.rules.freshness;
        let by_sql = member
            .view
            .progress(now, freshness)
            .filter(|newest| newest.answer.in_recovery == in_recovery)
            .and_then(|newest| Some((newest.asked_at, newest.answer.location?)));
        let by_patroni = match member.view.patroni(now, freshness) {
            Reading::Fresh(facts) => {
                let location = if in_recovery { facts.replayed_location } else { facts.location };
                let asked_at = member.view.patroni_facts().map(|newest| newest.asked_at);
                asked_at.zip(location)
            }
            _ => None,
        };
        by_sql.max(by_patroni)
    }

    /// How far each member in recovery is behind.
    pub(super) fn lags(&self, now: Moment) -> BTreeMap<MemberName, Lag> {
        let members = self.roster.members().iter();
        members.map(|(name, member)| (name.clone(), self.lag(member, now))).collect()
    }

    /// How far a member in recovery is behind.
    pub(super) fn lag(&self, member: &Member, now: Moment) -> Lag {
        let Some((asked_at, location)) = self.position(member, true, now) else {
            return Lag::default();
        };
        let bytes = self.write_head.lag_bytes(asked_at, location, now);
        let time = match self.write_head.lag_time(asked_at, location, now) {
            LagTime::Known(lag) => Some(lag),
            LagTime::BeforeMemory => self.replay_age(member, now),
            LagTime::NoHead => None,
        };
        // Positions are dated to the millisecond at best.
        let whole_millis = |lag: Duration| {
            Duration::from_millis(u64::try_from(lag.as_millis()).unwrap_or(u64::MAX))
        };
        Lag { bytes, time: time.map(whole_millis) }
    }

    /// How long ago the primary committed the transaction that the member replayed last, by SQL.
    /// The lag is at most that: the primary may have written nothing since.
    fn replay_age(&self, member: &Member, now: Moment) -> Option<Duration> {
        let of = |member: &Member| {
            let progress = &member.view.progress(now, &self.rules.freshness)?.answer;
            Some((
                progress.replay_age_micros.filter(|_| progress.in_recovery),
                progress.clock_offset,
            ))
        };
        let (age_micros, offset) = of(member)?;
        let leader = self.leader().and_then(|(name, _)| self.roster.members().get(&name));
        let stamped_by = leader.and_then(|leader| of(leader)?.1);
        let (offset, stamped_by) = offset.zip(stamped_by).unwrap_or_default();
        Some(offset.correct(age_micros?, stamped_by))
    }

    /// The timeline of a member, by the best available source.
    pub(super) fn timeline(&self, member: &Member, now: Moment) -> Option<u32> {
        let by_patroni = match member.view.patroni(now, &self.rules.freshness) {
            Reading::Fresh(facts) => facts.timeline,
            _ => None,
        };
        let by_sql = || {
            let progress = member.view.progress(now, &self.rules.freshness)?;
            progress.answer.timeline
        };
        by_patroni.or_else(by_sql)
    }
}

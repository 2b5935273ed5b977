//! The oracle: what the decision table allows, computed from the bare list of reports.
//!
//! It shares no code with the judge. It keeps no view and no memory, but reads all reports again
//! for every question, with the rules of the table.

use std::time::Duration;

use pgsteer_core::claim::{
    Claim, Fact, Failure, News, Notice, PatroniFacts, PoolerFacts, Report, Role, ServerStart,
    TetherFacts, Topology,
};
use pgsteer_core::names::{Endpoint, MemberName};
use pgsteer_core::settings::{Config, Membership, SplitBrain};
use pgsteer_core::time::Moment;

/// The probe interval at rest, the time limit of an answer (of two, for a pooler), and half a
/// second.
pub const PATRONI_LIVES: Duration = Duration::from_millis(1_000 + 2_000 + 500);
/// The longest lifetime of an answer that took longer than its limit of 2 s. After the 5.5 s of the
/// longest request Patroni is probed again 8.25 s later, and that probe may take 5.5 s.
pub const SLOW_LIVES_MAX: Duration = Duration::from_millis(8_250 + 5_000 + 500);
/// How long a healthy replica serves without being listed: ttl and `loop_wait`.
const MISSING_LASTS: Duration = Duration::from_secs(40);
pub const TETHER_LIVES: Duration = Duration::from_millis(250 + 2_000 + 500);
const POOLER_LIVES: Duration = Duration::from_millis(1_000 + 2 * 2_000 + 500);
const PROGRESS_LIVES: Duration = Duration::from_secs(5);
/// PgBouncer's `server_login_retry`, and two more probes.
const PUT_OFF_LASTS: Duration = Duration::from_secs(17);

/// All reports up to a moment.
#[derive(Clone, Copy)]
pub struct Oracle<'a> {
    pub config: &'a Config,
    pub reports: &'a [(Moment, Report)],
    pub now: Moment,
}

impl<'a> Oracle<'a> {
    pub fn has_patroni(&self) -> bool {
        matches!(self.config.cluster.members, Membership::Patroni(_))
    }

    fn has_tether(&self) -> bool {
        self.config.cluster.check.is_some()
    }

    /// The topologies that were not older than one before, each with its index in the reports.
    fn topologies(&self) -> impl Iterator<Item = (usize, &'a Topology)> {
        let mut newest = Moment::START;
        self.reports.iter().enumerate().filter_map(move |(index, (_, report))| match report {
            Report::Topology(topology) if !topology.members.is_empty() => {
                let counts = topology.asked_at >= newest;
                newest = newest.max(topology.asked_at);
                counts.then_some((index, topology))
            }
            _ => None,
        })
    }

    pub fn is_listed(&self, name: &MemberName) -> bool {
        match &self.config.cluster.members {
            Membership::Listed(found) => found.iter().any(|found| found.name == *name),
            // In maintenance mode a member that was listed stays listed.
            Membership::Patroni(_) => self.topologies().fold(false, |was_listed, (_, topology)| {
                let is_listed = topology.members.iter().any(|found| found.name == *name);
                is_listed || (topology.paused && was_listed)
            }),
        }
    }

    /// Returns whether the member was listed recently, and its own Patroni reports a running
    /// replica.
    pub fn may_miss_its_key(&self, name: &MemberName) -> bool {
        let mut last_listed = self.reports.iter().enumerate().filter(|(index, _)| {
            Oracle { reports: &self.reports[..*index], ..*self }.is_listed(name)
        });
        let is_recent =
            last_listed.next_back().is_some_and(|(_, (at, _))| self.now.since(*at) < MISSING_LASTS);
        let says = self.patroni_says(name);
        is_recent
            && says.is_some_and(|facts| facts.state == "running" && facts.role == Role::Replica)
    }

    /// The index and time of the report since which the member has been known at its current
    /// endpoint.
    fn known_from(&self, name: &MemberName) -> Option<(usize, Moment)> {
        if !self.has_patroni() {
            return self.is_listed(name).then_some((0, Moment::START));
        }
        let mut place: Option<(usize, &Endpoint)> = None;
        for (index, topology) in self.topologies() {
            let found = topology.members.iter().find(|found| found.name == *name);
            if let Some(found) = found
                && place.is_none_or(|(_, postgres)| *postgres != found.postgres)
            {
                place = Some((index, &found.postgres));
            }
        }
        place.map(|(index, _)| (index, self.reports[index].0))
    }

    /// The claims on the member at its current endpoint, from sources for which `wanted` is true.
    fn answer(
        &self,
        name: &MemberName,
        wanted: impl Fn(&Fact) -> bool,
    ) -> impl Iterator<Item = &'a Claim> {
        let known_from = self.known_from(name);
        let name = name.clone();
        self.reports.iter().enumerate().filter_map(move |(index, (_, report))| match report {
            Report::Claim(claim)
                if claim.member == name
                    && known_from.is_some_and(|(i, at)| index >= i && claim.asked_at >= at)
                    && wanted(&claim.fact) =>
            {
                Some(claim)
            }
            _ => None,
        })
    }

    /// The answer to the newest probe.
    fn newest(&self, name: &MemberName, wanted: impl Fn(&Fact) -> bool) -> Option<&'a Claim> {
        self.answer(name, wanted).max_by_key(|claim| claim.asked_at)
    }

    pub fn was_ever_heard(&self, name: &MemberName) -> bool {
        self.answer(name, |_| true).next().is_some()
    }

    /// Returns whether a probe that was sent after `since` succeeded.
    pub fn was_asked_with_success_after(&self, name: &MemberName, since: Moment) -> bool {
        let answers = |fact: &Fact| matches!(fact, Fact::Patroni(Ok(_)) | Fact::Tether(Ok(_)));
        self.answer(name, answers).any(|claim| claim.asked_at > since)
    }

    fn is_fresh(&self, claim: &Claim, lives: Duration) -> bool {
        self.now.since(claim.asked_at) < lives
    }

    /// The duration of Patroni's newest answer, and the answer.
    fn newest_of_patroni(&self, name: &MemberName) -> Option<(Duration, &'a Claim)> {
        let claim = self.newest(name, |fact| matches!(fact, Fact::Patroni(_)))?;
        let is_it =
            |report: &Report| matches!(report, Report::Claim(other) if std::ptr::eq(other, claim));
        let (received, _) = self.reports.iter().find(|(_, report)| is_it(report))?;
        Some((received.since(claim.asked_at), claim))
    }

    /// A request to Patroni that is late, and was sent after the newest answer.
    fn late_question(&self, name: &MemberName) -> Option<Moment> {
        let late = self.newest(name, |fact| matches!(fact, Fact::PatroniLate(_)))?.asked_at;
        let answered = self.newest_of_patroni(name).map(|(_, claim)| claim.asked_at);
        answered.is_none_or(|answered| answered < late).then_some(late)
    }

    fn patroni(&self, name: &MemberName) -> Option<&'a Result<PatroniFacts, Failure>> {
        let (took, claim) = self.newest_of_patroni(name)?;
        let is_slow = took > Duration::from_secs(2) && took <= Duration::from_millis(5_500);
        let patience =
            if is_slow { (took * 2).min(Duration::from_secs(5)) } else { Duration::ZERO };
        if self.late_question(name).is_some_and(|late| self.now.since(late) >= patience) {
            return None;
        }
        let lives = match is_slow {
            true => took + took / 2 + patience + Duration::from_millis(500),
            false => PATRONI_LIVES,
        };
        match &claim.fact {
            Fact::Patroni(answer) if answer.is_err() || self.is_fresh(claim, lives) => Some(answer),
            _ => None,
        }
    }

    /// Patroni's last answer, while the next one is late and may still arrive.
    fn patroni_before_late(&self, name: &MemberName) -> Option<&'a PatroniFacts> {
        let late = self.late_question(name)?;
        let may_come = self.now.since(late) < Duration::from_millis(5_500);
        match &self.newest_of_patroni(name).filter(|_| may_come)?.1.fact {
            Fact::Patroni(answer) => answer.as_ref().ok(),
            _ => None,
        }
    }

    /// Patroni's last successful answer, while it is fresh.
    pub fn patroni_says(&self, name: &MemberName) -> Option<&'a PatroniFacts> {
        self.patroni(name)?.as_ref().ok()
    }

    /// The time at which the last request was sent that Patroni answered successfully.
    pub fn patroni_answered(&self, name: &MemberName) -> Option<Moment> {
        let answers = self.answer(name, |fact| matches!(fact, Fact::Patroni(Ok(_))));
        answers.map(|claim| claim.asked_at).max()
    }

    /// Returns whether PostgreSQL takes writes (`Some(true)`) or is in recovery (`Some(false)`).
    pub fn takes_writes(&self, name: &MemberName) -> Option<bool> {
        let tether = self.newest(name, |fact| matches!(fact, Fact::Tether(_)));
        match tether.map(|claim| (&claim.fact, self.is_fresh(claim, TETHER_LIVES))) {
            Some((Fact::Tether(Ok(facts)), true)) => Some(!facts.in_recovery),
            Some((Fact::Tether(Err(failure)), _)) if failure.is_login_refused() => {
                self.patroni_tells_state(name)
            }
            _ if !self.has_tether() => self.patroni_tells_state(name),
            _ => None,
        }
    }

    /// Returns whether the newest attempt to open a session there, if any, did not fail.
    pub fn accepts_new_sessions(&self, name: &MemberName) -> bool {
        let newest = self.newest(name, |fact| matches!(fact, Fact::NewSessions(_)));
        !newest.is_some_and(|claim| matches!(claim.fact, Fact::NewSessions(Err(_))))
    }

    fn patroni_tells_state(&self, name: &MemberName) -> Option<bool> {
        let says = match self.patroni(name) {
            Some(answer) => answer.as_ref().ok(),
            None => self.patroni_before_late(name),
        };
        let facts = says.filter(|facts| facts.state == "running")?;
        match facts.role {
            Role::Primary => Some(true),
            Role::Replica | Role::StandbyLeader => Some(false),
            Role::Unknown => None,
        }
    }

    /// The times of the requests to which this member's Patroni answered that it has the lock, at
    /// any of its endpoints.
    fn lead_claims(&self, name: &MemberName) -> impl Iterator<Item = Moment> {
        self.reports.iter().enumerate().filter_map(move |(index, (_, report))| match report {
            Report::Claim(claim) if claim.member == *name && leads(&claim.fact) => {
                let then = Oracle { reports: &self.reports[..index], ..*self };
                let is_of_its_place = then.known_from(name)?.1 <= claim.asked_at;
                is_of_its_place.then_some(claim.asked_at)
            }
            _ => None,
        })
    }

    pub fn names(&self) -> Vec<MemberName> {
        let mut names: Vec<MemberName> = match &self.config.cluster.members {
            Membership::Listed(found) => found.iter().map(|found| found.name.clone()).collect(),
            Membership::Patroni(_) => {
                let found = self.topologies().flat_map(|(_, topology)| topology.members.iter());
                found.map(|found| found.name.clone()).collect()
            }
        };
        names.sort();
        names.dedup();
        names
    }

    fn others(&self, name: &MemberName) -> Vec<MemberName> {
        self.names().into_iter().filter(|other| other != name).collect()
    }

    /// "The leader lock is the member's and the tether reports that it is not in recovery", or the
    /// corresponding row without Patroni or without a tether.
    pub fn may_open_for_writes(&self, name: &MemberName) -> bool {
        let takes_writes = self.takes_writes(name) == Some(true);
        if !self.is_listed(name) || !takes_writes || !self.accepts_new_sessions(name) {
            return false;
        }
        if !self.has_patroni() {
            return self.is_lone_primary(name);
        }
        let has_lock = self.patroni_says(name).is_some_and(|facts| facts.holds_lock);
        let own = self.lead_claims(name).max();
        let later = |other: &MemberName| self.lead_claims(other).max() > own;
        has_lock && !self.others(name).iter().any(later)
    }

    /// As [`Oracle::may_open_for_writes`], and no other member ever claimed the lock: then the gate
    /// must be open.
    pub fn must_be_open_for_writes(&self, name: &MemberName) -> bool {
        let rivals = |other: &MemberName| self.lead_claims(other).next().is_some();
        self.has_patroni()
            && self.may_open_for_writes(name)
            && self.is_certainly_identified(name)
            && !self.others(name).iter().any(rivals)
    }

    /// Patroni was asked since the check login reached the server. Where it never lost one, and never
    /// reached another, that is not needed.
    fn is_certainly_identified(&self, name: &MemberName) -> bool {
        let tether = |fact: &Fact| matches!(fact, Fact::Tether(_));
        let start = |claim: &Claim| match &claim.fact {
            Fact::Tether(Ok(facts)) => facts.started_at,
            _ => None,
        };
        let was_lost =
            self.answer(name, tether).any(|claim| matches!(claim.fact, Fact::Tether(Err(_))));
        let mut starts: Vec<ServerStart> = self.answer(name, tether).filter_map(start).collect();
        starts.sort();
        starts.dedup();
        let newest = self.newest(name, tether).map(|claim| claim.asked_at);
        (!was_lost && starts.len() < 2) || self.patroni_answered(name) >= newest
    }

    fn is_lone_primary(&self, name: &MemberName) -> bool {
        let others = self.others(name);
        let outdone = |other: &MemberName| self.timeline(other) < self.timeline(name);
        let by_timeline = self.config.cluster.split_brain == SplitBrain::HighestTimeline;
        let harmless = |other: &MemberName| {
            self.takes_writes(other) != Some(true)
                || (by_timeline && self.timeline(other).is_some() && outdone(other))
        };
        others.iter().all(harmless)
    }

    /// Returns whether all listed members were probed, without Patroni.
    pub fn all_were_asked(&self) -> bool {
        let tethered =
            |name: &MemberName| self.newest(name, |fact| matches!(fact, Fact::Tether(_))).is_some();
        self.names().iter().all(tethered)
    }

    fn timeline(&self, name: &MemberName) -> Option<u32> {
        let claim = self.newest(name, |fact| matches!(fact, Fact::Progress(_)))?;
        match &claim.fact {
            Fact::Progress(progress)
                if self.is_fresh(claim, PROGRESS_LIVES) && !progress.in_recovery =>
            {
                progress.timeline
            }
            _ => None,
        }
    }

    /// Returns whether the last answer of its pooler allows clients that need a primary, or a
    /// replica.
    pub fn pooler_may_lead_to(&self, name: &MemberName, primary: bool) -> bool {
        let newest = self.newest(name, |fact| matches!(fact, Fact::Pooler { .. }));
        let Some(claim) = newest.filter(|claim| self.is_fresh(claim, POOLER_LIVES)) else {
            return false;
        };
        match &claim.fact {
            Fact::Pooler { answer: Ok(PoolerFacts::Leads { in_recovery, .. }), .. } => {
                *in_recovery != primary
            }
            Fact::Pooler { answer: Ok(PoolerFacts::LeadsNowhere(_)), .. } => {
                primary && self.pooler_may_be_put_off(name)
            }
            Fact::Pooler { answer: Ok(_), .. } => true,
            _ => false,
        }
    }

    /// Returns whether its pooler led to a server of known start and has not been down since, while
    /// the member's own server was unreachable or restarted since, and has been back for less time
    /// than PgBouncer waits before a retry.
    fn pooler_may_be_put_off(&self, name: &MemberName) -> bool {
        let of_pooler = |fact: &Fact| match fact {
            Fact::Pooler { answer: Ok(PoolerFacts::Leads { .. }), .. } => true,
            Fact::Pooler { answer: Err(failure), .. } => {
                !matches!(failure, Failure::Timeout { .. } | Failure::Unreachable { .. })
            }
            _ => false,
        };
        let Some(last) = self.newest(name, of_pooler) else { return false };
        let Fact::Pooler { answer: Ok(PoolerFacts::Leads { started_at: Some(_), .. }), .. } =
            &last.fact
        else {
            return false;
        };
        let back_since = self.tether_run(name);
        back_since
            .is_some_and(|since| since > last.asked_at && self.now.since(since) < PUT_OFF_LASTS)
    }

    /// Since when the tether has had answers of the same server, identified by its start time.
    fn tether_run(&self, name: &MemberName) -> Option<Moment> {
        let mut newest = Moment::START;
        let mut run = None;
        for claim in self.answer(name, |fact| matches!(fact, Fact::Tether(_))) {
            if claim.asked_at < newest {
                continue;
            }
            newest = claim.asked_at;
            run = match (&claim.fact, run) {
                (
                    Fact::Tether(Ok(TetherFacts { started_at: Some(start), .. })),
                    Some((of, since)),
                ) if of == *start => Some((of, since)),
                (Fact::Tether(Ok(TetherFacts { started_at: Some(start), .. })), _) => {
                    Some((*start, claim.asked_at))
                }
                (Fact::Tether(Ok(_)), run) => run,
                _ => None,
            };
        }
        run.map(|(_, since)| since)
    }

    /// "The member reports that it is not primary", by the best source for it.
    pub fn denies_being_primary(&self, name: &MemberName) -> bool {
        self.takes_writes(name) == Some(false)
    }

    /// The time of the last switchover order, unless it was withdrawn.
    pub fn last_ordered(&self) -> Option<Moment> {
        let orders = self.reports.iter().rev().filter_map(|(_, report)| match report {
            Report::Notice(Notice { heard_at, news: News::Ordered(_) }) => Some(Some(*heard_at)),
            Report::Notice(Notice { news: News::NoOrder, .. }) => Some(None),
            _ => None,
        });
        orders.into_iter().next().flatten()
    }

    /// Returns whether two members accept writes at the same time, or two claim the lock.
    pub fn is_split(&self) -> bool {
        let names = self.names();
        let writers = names.iter().filter(|name| self.takes_writes(name) == Some(true)).count();
        let holders = names.iter().filter(|name| {
            let leads =
                |facts: &PatroniFacts| facts.holds_lock || facts.role == Role::StandbyLeader;
            self.patroni_says(name).is_some_and(leads)
        });
        writers >= 2 || holders.count() >= 2
    }

    /// The time since the last sign of life of its host.
    pub fn silent_for(&self, name: &MemberName) -> Duration {
        let is_sign = |fact: &Fact| match fact {
            Fact::Patroni(Err(failure))
            | Fact::Tether(Err(failure))
            | Fact::NewSessions(Err(failure))
            | Fact::Pooler { answer: Err(failure), .. } => {
                !matches!(failure, Failure::Timeout { .. } | Failure::Unreachable { .. })
            }
            Fact::PatroniLate(_) => false,
            _ => true,
        };
        let last = self.answer(name, is_sign).map(|claim| claim.asked_at).max();
        let since = last.max(self.known_from(name).map(|(_, at)| at)).unwrap_or(Moment::START);
        self.now.since(since)
    }

    /// Returns whether no recent WAL position is known from which a lag could be computed.
    pub fn position_is_unknown(&self, name: &MemberName) -> bool {
        let progress = self.newest(name, |fact| matches!(fact, Fact::Progress(_)));
        let by_sql = progress.is_some_and(|claim| self.is_fresh(claim, PROGRESS_LIVES));
        let by_patroni =
            self.patroni_says(name).is_some_and(|facts| facts.replayed_location.is_some());
        !by_sql && !by_patroni
    }
}

fn leads(fact: &Fact) -> bool {
    match fact {
        Fact::Patroni(Ok(facts)) => facts.holds_lock || facts.role == Role::StandbyLeader,
        _ => false,
    }
}

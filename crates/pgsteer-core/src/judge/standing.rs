//! Standings: the decision table of primaries and replicas.
//!
//! It uses two kinds of facts. The lock: which member's Patroni claims to be the leader. The state:
//! whether PostgreSQL itself is in recovery, reported by the tether, or by Patroni if there is no
//! login for a tether. A primary needs both.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Member, Members, Rules, Standing, Trust};
use crate::claim::{Failure, PatroniFacts, Progress, Role};
use crate::identity::{Identity, Part};
use crate::names::MemberName;
use crate::reason::{Reason, Writer};
use crate::time::Moment;
use crate::view::{LockRun, Reading};

/// Concludes a standing for every member.
pub fn standings(
    members: &Members,
    identity: &Identity,
    rules: &Rules,
    now: Moment,
) -> BTreeMap<MemberName, Standing> {
    let states: BTreeMap<&MemberName, State> =
        members.iter().map(|(name, member)| (name, state(member, identity, rules, now))).collect();
    let evidence = Evidence { members, identity, states: &states, rules, now };
    let holder = evidence.lock_holder();
    let judged = |name: &MemberName, member: &Member| match rules.has_patroni {
        true => with_patroni(&evidence, holder, name, member),
        false => by_sql_alone(&evidence, name, member),
    };
    members.iter().map(|(name, member)| (name.clone(), judged(name, member))).collect()
}

/// The state of PostgreSQL itself, by the best available source.
#[derive(Clone, Debug, PartialEq)]
enum State {
    /// It takes writes.
    Writable { note: Option<Reason> },
    /// It is in recovery.
    InRecovery { note: Option<Reason> },
    /// No source was asked yet, or its host name has no address.
    NeverAsked(Reason),
    /// It is down, or its state is not known.
    Unusable(Reason),
}

/// Why a member that claims to be the leader is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Objection {
    /// These members, itself among them, hold the lock at the same time.
    Split(Vec<MemberName>),
    /// Its claim is not the newest one.
    LockElsewhere,
}

/// The facts from which the judge concludes.
struct Evidence<'a> {
    members: &'a Members,
    identity: &'a Identity,
    states: &'a BTreeMap<&'a MemberName, State>,
    rules: &'a Rules,
    now: Moment,
}

fn state(member: &Member, identity: &Identity, rules: &Rules, now: Moment) -> State {
    if let Some(same_as) = &member.same_as {
        return State::Unusable(Reason::SameServer(same_as.clone()));
    }
    if rules.has_patroni
        && let Some(contradiction) = member.contradicts(identity)
    {
        let may_be_remade =
            contradiction.part == Part::SystemIdentifier && leads_by_name(member, rules, now);
        return State::Unusable(Reason::OtherCluster { contradiction, may_be_remade });
    }
    if let Some(contradiction) = member.sql_contradicts(identity) {
        return State::Unusable(Reason::OtherCluster { contradiction, may_be_remade: false });
    }
    if let Reading::Failed(Failure::OtherMember { name, is_of_cluster: false }) =
        member.view.patroni(now, &rules.freshness)
    {
        return State::Unusable(Reason::OtherMember(name.clone()));
    }
    if !rules.has_tether || member.is_url_only {
        return state_by_patroni(member, rules, now, None);
    }
    match member.view.tether(now, &rules.freshness) {
        Reading::Fresh(facts) if facts.in_recovery => State::InRecovery { note: None },
        Reading::Fresh(_) => State::Writable { note: None },
        Reading::Failed(failure) if failure.is_login_refused() && rules.has_patroni => {
            let note = Reason::TetherRefused(failure.clone());
            state_by_patroni(member, rules, now, Some(note))
        }
        Reading::Failed(failure) => State::Unusable(Reason::Down(failure.clone())),
        Reading::Stale => State::Unusable(Reason::Silent(rules.freshness.tether)),
        // The first answer by SQL follows in a moment; until then Patroni's answers count as
        // before.
        Reading::Never if member.was_url_only => state_by_patroni(member, rules, now, None),
        Reading::Never => State::NeverAsked(never_asked(member)),
    }
}

/// The Patroni at its address reports this member's name, or none, and holds the lock.
fn leads_by_name(member: &Member, rules: &Rules, now: Moment) -> bool {
    match member.view.patroni(now, &rules.freshness) {
        Reading::Fresh(facts) => {
            facts.holds_lock && !facts.about().is_other_than(&member.found.name)
        }
        _ => false,
    }
}

/// Why a member was never asked: its host name has no address, or no source has asked it yet.
fn never_asked(member: &Member) -> Reason {
    match (member.view.address_failure(), member.view.addresses()) {
        (Some(failure), []) => Reason::NoAddress(failure.clone()),
        _ => Reason::Unheard,
    }
}

fn state_by_patroni(member: &Member, rules: &Rules, now: Moment, note: Option<Reason>) -> State {
    match member.view.patroni(now, &rules.freshness) {
        Reading::Fresh(facts) => state_of(facts, note),
        Reading::Failed(Failure::Unresolved(_)) if never_asked(member) != Reason::Unheard => {
            State::NeverAsked(never_asked(member))
        }
        Reading::Failed(failure) => match member.view.patroni_before_late(now) {
            Some(facts) => state_of(facts, note),
            None => State::Unusable(match failure {
                Failure::OtherMember { name, .. } => Reason::OtherMember(name.clone()),
                failure => Reason::PatroniDown(failure.clone()),
            }),
        },
        Reading::Stale => State::Unusable(Reason::Silent(rules.freshness.patroni)),
        Reading::Never => State::NeverAsked(never_asked(member)),
    }
}

/// The state of PostgreSQL as Patroni reports it.
fn state_of(facts: &PatroniFacts, note: Option<Reason>) -> State {
    if !facts.is_running() {
        return State::Unusable(Reason::NotRunning(facts.state.clone()));
    }
    match facts.role {
        Role::Primary => State::Writable { note },
        Role::Replica | Role::StandbyLeader => State::InRecovery { note },
        Role::Unknown => State::Unusable(Reason::NotRunning("running, without a role".to_owned())),
    }
}

fn with_patroni(
    evidence: &Evidence<'_>,
    holder: Option<&MemberName>,
    name: &MemberName,
    member: &Member,
) -> Standing {
    let patroni = member.view.patroni(evidence.now, &evidence.rules.freshness);
    let standing = match (&evidence.states[name], patroni) {
        (State::NeverAsked(reason) | State::Unusable(reason), _) => {
            Standing::out(Role::Unknown, reason.clone())
        }
        (State::Writable { note }, Reading::Fresh(facts)) => {
            let note = note.clone().or_else(|| evidence.slowness(member));
            evidence.writable(name, facts.holds_lock, holder, &note)
        }
        (State::Writable { .. }, lost) => evidence.writable_without_patroni(name, holder, lost),
        (State::InRecovery { note }, Reading::Fresh(facts)) => {
            let note = note.clone().or_else(|| evidence.slowness(member));
            evidence.in_recovery(name, facts, holder, &note)
        }
        (State::InRecovery { .. }, lost) => {
            evidence.in_recovery_without_patroni(name, member, holder, lost)
        }
    };
    match member.view.is_sql_server_identified() {
        true => standing,
        false => of_unidentified_server(standing),
    }
}

/// What is concluded of a server that the check login reached after Patroni had answered: it may be
/// another cluster's. It serves when Patroni answers again.
fn of_unidentified_server(standing: Standing) -> Standing {
    match standing.trust {
        Trust::Full => Standing::out(standing.role, Reason::Confirming),
        Trust::Noted(Reason::SqlSuffices(failure)) => {
            Standing::out(standing.role, Reason::PatroniDown(failure))
        }
        Trust::Noted(_) => Standing::out(standing.role, Reason::Confirming),
        Trust::AsItWas(reason) | Trust::PatroniLost(reason) => Standing::out(standing.role, reason),
        Trust::Promoting | Trust::Refused(_) | Trust::LockElsewhere(_) | Trust::Split(_) => {
            standing
        }
    }
}

fn by_sql_alone(evidence: &Evidence<'_>, name: &MemberName, member: &Member) -> Standing {
    match &evidence.states[name] {
        State::NeverAsked(reason) | State::Unusable(reason) => {
            Standing::out(Role::Unknown, reason.clone())
        }
        State::InRecovery { .. } => Standing::sure(Role::Replica),
        State::Writable { .. } => evidence.lone_primary(name, member),
    }
}

impl<'a> Evidence<'a> {
    /// The member whose Patroni was the last to claim the lock, if it still does.
    ///
    /// An older claim of another member does not become valid again when the newer one ends: the
    /// lock has moved since.
    fn lock_holder(&self) -> Option<&'a MemberName> {
        let (_, name, member) = self.last_lock_claim()?;
        member.view.lock_run(self.now, &self.rules.freshness).map(|_| name)
    }

    /// The newest claim of the lock: when that Patroni was asked, and its member.
    fn last_lock_claim(&self) -> Option<(Moment, &'a MemberName, &'a Member)> {
        let claims = self.own_members().filter_map(|(name, member)| {
            let claimed_at = member.view.lock_claimed_at(self.identity)?;
            Some((claimed_at, name, member))
        });
        claims.max_by_key(|(claimed_at, ..)| *claimed_at)
    }

    /// The member that was the last to claim the lock, if `name` became a primary before that claim.
    /// Such a primary was not promoted after the claim, so it does not contradict it.
    ///
    /// The evidence is one of these:
    /// - The Patroni of `name` answers that it is a primary without the lock.
    /// - The same run of its server took writes already when the lock was claimed.
    /// - Its timeline is older than that of the lock holder. Patroni gives the lock to such a primary in
    ///   maintenance mode only.
    ///
    /// A timeline that is not older contradicts the last two.
    fn last_holder_before(&self, name: &MemberName) -> Option<&'a MemberName> {
        let (claimed_at, holder, of_holder) = self.last_lock_claim()?;
        let member = self.members.get(name).filter(|_| holder != name)?;
        if let Reading::Fresh(facts) = member.view.patroni(self.now, &self.rules.freshness) {
            return (facts.role == Role::Primary && !facts.holds_lock).then_some(holder);
        }
        let wrote_before = member.view.writes_since().is_some_and(|since| since < claimed_at);
        let by_patroni = of_holder.view.patroni_facts().map(|newest| &newest.answer);
        let of_holder = by_patroni.and_then(|facts| facts.timeline);
        let of_holder = of_holder.max(self.timeline_of_writes(holder));
        let is_past = match (self.timeline_of_writes(name), of_holder) {
            (Some(own), Some(of_holder)) if own >= of_holder => false,
            (Some(_), Some(_)) => wrote_before || by_patroni.is_some_and(|facts| !facts.paused),
            _ => wrote_before,
        };
        is_past.then_some(holder)
    }

    /// The members of this cluster: the lock of another cluster does not count here.
    fn own_members(&self) -> impl Iterator<Item = (&'a MemberName, &'a Member)> {
        let identity = self.identity;
        let is_own = move |member: &Member| {
            member.same_as.is_none() && member.contradicts(identity).is_none()
        };
        self.members.iter().filter(move |(_, member)| is_own(member))
    }

    fn lock_runs(&self) -> impl Iterator<Item = (&'a MemberName, LockRun)> {
        let (freshness, now) = (self.rules.freshness, self.now);
        self.own_members()
            .filter_map(move |(name, member)| Some((name, member.view.lock_run(now, &freshness)?)))
    }

    /// The members that hold the lock at the same time as `name`, including `name`.
    fn co_holders(&self, name: &MemberName) -> Vec<MemberName> {
        let own = self.members[name].view.lock_run(self.now, &self.rules.freshness);
        let shares = |run: &LockRun| own.is_some_and(|own| own.overlaps(run));
        self.lock_runs()
            .filter(|(other, run)| *other == name || shares(run))
            .map(|(other, _)| other.clone())
            .collect()
    }

    /// PostgreSQL takes writes and Patroni answers: the lock decides.
    fn writable(
        &self,
        name: &MemberName,
        holds_lock: bool,
        holder: Option<&MemberName>,
        note: &Option<Reason>,
    ) -> Standing {
        let trust = match self.objection_to_leader(name, holder) {
            _ if !holds_lock => {
                let holder = holder.or_else(|| self.last_holder_before(name));
                self.lock_elsewhere(name, holder, Some(true))
            }
            Some(Objection::Split(members)) => Trust::Split(Reason::SplitBrain(members)),
            Some(Objection::LockElsewhere) => self.lock_elsewhere(name, holder, Some(true)),
            None => full_or(note),
        };
        Standing { role: Role::Primary, trust }
    }

    /// Why a member that claims the lock is not accepted; none if it is.
    fn objection_to_leader(
        &self,
        name: &MemberName,
        holder: Option<&MemberName>,
    ) -> Option<Objection> {
        let co_holders = self.co_holders(name);
        if co_holders.len() > 1 {
            return Some(Objection::Split(co_holders));
        }
        (holder != Some(name)).then_some(Objection::LockElsewhere)
    }

    /// The trust in a member that does not hold the lock. `writes` is set if its PostgreSQL takes
    /// writes; its value is true if the member's Patroni answers.
    fn lock_elsewhere(
        &self,
        name: &MemberName,
        holder: Option<&MemberName>,
        writes: Option<bool>,
    ) -> Trust {
        let leader = holder.filter(|holder| *holder != name).cloned();
        let is_elsewhere = leader.is_some();
        let writer = writes.map(|has_patroni| Writer { member: name.clone(), has_patroni });
        let reason = Reason::NotLeader { leader, writer };
        if is_elsewhere { Trust::LockElsewhere(reason) } else { Trust::Refused(reason) }
    }

    /// PostgreSQL takes writes and its Patroni does not answer: trusted as before while no other
    /// member holds the lock or takes writes.
    fn writable_without_patroni(
        &self,
        name: &MemberName,
        holder: Option<&MemberName>,
        lost: Reading<'_, PatroniFacts>,
    ) -> Standing {
        // A server that was just reached may be another cluster's, which its Patroni reports soon, or that of
        // another member, which SQL reports soon.
        let awaits = |of: &MemberName| {
            let view = &self.members[of].view;
            view.awaits_identification() || view.awaits_server_start(self.now)
        };
        let is_no_rival = |of: &MemberName| {
            self.is_one_server(name, of) || awaits(of) || self.last_holder_before(of).is_some()
        };
        let mut writable = self.writable_members();
        writable.retain(|rival| rival == name || !is_no_rival(rival));
        let trust = match holder.or_else(|| self.last_holder_before(name)) {
            Some(holder) => self.lock_elsewhere(name, Some(holder), Some(false)),
            None if writable.len() > 1 && !awaits(name) => {
                Trust::Split(Reason::SplitBrain(writable))
            }
            None => self.trust_without_patroni(lost),
        };
        Standing { role: Role::Primary, trust }
    }

    fn in_recovery(
        &self,
        name: &MemberName,
        facts: &PatroniFacts,
        holder: Option<&MemberName>,
        note: &Option<Reason>,
    ) -> Standing {
        let promoting = facts.holds_lock && holder == Some(name);
        if facts.role == Role::StandbyLeader {
            let trust = match self.objection_to_leader(name, holder) {
                Some(Objection::Split(members)) => Trust::Split(Reason::SplitBrain(members)),
                Some(Objection::LockElsewhere) => self.lock_elsewhere(name, holder, None),
                None => full_or(note),
            };
            return Standing { role: Role::StandbyLeader, trust };
        }
        match promoting {
            true => Standing { role: Role::Replica, trust: Trust::Promoting },
            false => Standing { role: Role::Replica, trust: full_or(note) },
        }
    }

    /// PostgreSQL is in recovery and its Patroni does not answer: its role stays as before. A
    /// standby leader keeps that role only while no other member holds the lock.
    fn in_recovery_without_patroni(
        &self,
        name: &MemberName,
        member: &Member,
        holder: Option<&MemberName>,
        lost: Reading<'_, PatroniFacts>,
    ) -> Standing {
        let led = member.view.patroni_facts().is_some_and(|newest| newest.answer.leads_standby());
        match holder {
            Some(_) if led => Standing {
                role: Role::StandbyLeader,
                trust: self.lock_elsewhere(name, holder, None),
            },
            _ if led => {
                Standing { role: Role::StandbyLeader, trust: self.trust_without_patroni(lost) }
            }
            _ => {
                let trust = match lost {
                    Reading::Failed(failure) if self.is_vouched_for_by_sql(member) => {
                        Trust::Noted(Reason::SqlSuffices(failure.clone()))
                    }
                    lost => self.trust_without_patroni(lost),
                };
                Standing { role: Role::Replica, trust }
            }
        }
    }

    /// Returns true if SQL reports that the replica streams, or its tags show that it need not; the
    /// tags must be known. Its lag is compared with the limits in any case.
    fn is_vouched_for_by_sql(&self, member: &Member) -> bool {
        let Some(facts) = member.view.patroni_facts() else { return false };
        let progress = member.view.progress(self.now, &self.rules.freshness);
        progress.is_some_and(|progress| {
            let Progress { in_recovery, streaming, .. } = progress.answer;
            in_recovery && (streaming || facts.answer.flags.no_stream)
        })
    }

    /// The reason that its Patroni answers slowly; none if it does not.
    fn slowness(&self, member: &Member) -> Option<Reason> {
        let took = member.view.patroni_slow(&self.rules.freshness)?;
        let tenths = took.as_millis().div_ceil(100);
        let took = Duration::from_millis(u64::try_from(tenths * 100).unwrap_or(u64::MAX));
        Some(Reason::PatroniSlow { took, limit: self.rules.freshness.patroni_limit })
    }

    fn lone_primary(&self, name: &MemberName, member: &Member) -> Standing {
        let mut writable = self.writable_members();
        // A member that the operator removed from the list is not a rival of listed ones, and its
        // answer is not awaited.
        let is_listed = |name: &MemberName| self.members[name].left_at.is_none();
        writable.retain(|rival| rival == name || is_listed(rival));
        if writable.len() > 1 {
            return match self.rules.highest_timeline_wins && self.has_highest_timeline(member) {
                true => Standing {
                    role: Role::Primary,
                    trust: Trust::Noted(Reason::SplitBrain(writable)),
                },
                false => Standing {
                    role: Role::Primary,
                    trust: Trust::Split(Reason::SplitBrain(writable)),
                },
            };
        }
        let was_never_asked = |state: &State| matches!(state, State::NeverAsked(_));
        let missing: Vec<MemberName> = self
            .states
            .iter()
            .filter(|(name, state)| is_listed(name) && was_never_asked(state))
            .map(|(name, _)| (*name).clone())
            .collect();
        match missing.is_empty() {
            true => Standing::sure(Role::Primary),
            // A member that serves continues to: the addition of another member does not contradict
            // it.
            false => {
                let trust = Trust::AsItWas(Reason::AwaitingOthers(missing));
                Standing { role: Role::Primary, trust }
            }
        }
    }

    /// Two members are one server, which no list shows yet: its address moved. Both have the name that
    /// Patroni reports there, or the check login reached the same run of a server under both names.
    fn is_one_server(&self, one: &MemberName, other: &MemberName) -> bool {
        fn name<'b>(evidence: &'b Evidence<'_>, member: &'b MemberName) -> &'b str {
            let view = &evidence.members[member].view;
            match view.patroni(evidence.now, &evidence.rules.freshness) {
                Reading::Failed(Failure::OtherMember { name, .. }) => name,
                _ => member.as_str(),
            }
        }
        let started =
            |member: &MemberName| Some(self.members[member].view.server_run()?.started_at);
        let is_one_run = started(one).is_some() && started(one) == started(other);
        is_one_run || name(self, one) == name(self, other)
    }

    fn writable_members(&self) -> Vec<MemberName> {
        let is_writable = |state: &State| matches!(state, State::Writable { .. });
        let writable = self.states.iter().filter(|(_, state)| is_writable(state));
        writable.map(|(name, _)| (*name).clone()).collect()
    }

    /// Returns true if its timeline is above that of every other primary. A member with an unknown
    /// timeline does not win, and no member wins against it.
    fn has_highest_timeline(&self, member: &Member) -> bool {
        let Some(own) = self.timeline_of_writes(&member.found.name) else {
            return false;
        };
        self.writable_members().iter().all(|rival| {
            *rival == member.found.name
                || self.members[rival].left_at.is_some()
                || self.timeline_of_writes(rival).is_some_and(|timeline| timeline < own)
        })
    }

    /// The timeline on which a member takes writes, by SQL.
    fn timeline_of_writes(&self, name: &MemberName) -> Option<u32> {
        let progress = self.members[name].view.progress(self.now, &self.rules.freshness)?;
        progress.answer.timeline.filter(|_| !progress.answer.in_recovery)
    }

    fn trust_without_patroni(&self, lost: Reading<'_, PatroniFacts>) -> Trust {
        match lost {
            Reading::Failed(Failure::OtherMember { name, .. }) => {
                Trust::AsItWas(Reason::OtherMember(name.clone()))
            }
            Reading::Failed(failure) => {
                let grace = self.rules.patroni_loss_grace;
                Trust::PatroniLost(Reason::PatroniLost(failure.clone(), grace))
            }
            Reading::Stale => Trust::AsItWas(Reason::Silent(self.rules.freshness.patroni)),
            Reading::Never | Reading::Fresh(_) => Trust::Refused(Reason::Unheard),
        }
    }
}

fn full_or(note: &Option<Reason>) -> Trust {
    note.clone().map_or(Trust::Full, Trust::Noted)
}

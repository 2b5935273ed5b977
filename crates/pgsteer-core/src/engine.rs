//! The engine: takes reports in, lets the judge conclude, turns the gates, publishes.
//!
//! A state machine without IO. The shell calls [`Engine::handle_report`] and
//! [`Engine::handle_timeout`], and after each of them looks at [`Engine::snapshot`],
//! [`Engine::plan`], [`Engine::poll_event`] and [`Engine::poll_timeout`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::claim::{Claim, Found, Report, Role, Topology};
use crate::config::{ClusterConfig, Config, Membership, ServiceConfig, SplitBrain};
use crate::gate::{Gate, Sessions, Turn};
use crate::judge::fitness::{Case, Lag, Verdict};
use crate::judge::standing::standings;
use crate::judge::{Member, Members, Rules, Standing};
use crate::lead::Lead;
use crate::names::{MemberName, ServiceName};
use crate::pace::{Need, REST_PACE, SEARCH_LASTS};
use crate::plan::{Ask, Plan};
use crate::reason::Reason;
use crate::snapshot::{Event, EventKind, MemberState, ServiceState, Snapshot};
use crate::time::Moment;
use crate::view::{Freshness, View, Word};

/// How many events a Snapshot remembers.
pub const EVENTS_MAX: usize = 100;

/// How many members one cluster may have; those beyond, in the order of `/cluster`, are ignored.
pub const MEMBERS_MAX: usize = 64;

/// How long a member that Patroni does not list any more is remembered.
pub const LEFT_MEMORY: Duration = Duration::from_secs(600);

/// How much later than promised an answer may be before it counts as missing.
const SLACK: Duration = Duration::from_millis(500);

/// How long the positions of one progress query may be used. It comes once a second.
const PROGRESS_LIFETIME: Duration = Duration::from_secs(5);

type Gates = BTreeMap<MemberName, Gate>;

/// Everything that pgsteer knows and remembers of one cluster.
#[derive(Debug)]
pub struct Engine {
    cluster: ClusterConfig,
    services: BTreeMap<ServiceName, ServiceConfig>,
    rules: Rules,
    members: Members,
    standings: BTreeMap<MemberName, Standing>,
    gates: BTreeMap<ServiceName, Gates>,
    lead: Lead,
    scope: Option<String>,
    /// The scope of the last topology that was ignored, so that it is told once only.
    strange_scope: Option<String>,
    /// Since when some service has been without a primary.
    primary_missing_since: Option<Moment>,
    events: VecDeque<Event>,
    /// How many of the newest events have not been polled yet.
    events_unpolled: usize,
    snapshot: Arc<Snapshot>,
    plan: Arc<Plan>,
}

impl Engine {
    /// An engine that has heard nothing yet: all gates are shut.
    pub fn new(config: &Config, now: Moment) -> Engine {
        let mut engine = Engine {
            cluster: config.cluster.clone(),
            services: config.services.clone(),
            rules: rules(&config.cluster),
            members: Members::new(),
            standings: BTreeMap::new(),
            gates: BTreeMap::new(),
            lead: Lead::default(),
            scope: None,
            strange_scope: None,
            primary_missing_since: None,
            events: VecDeque::new(),
            events_unpolled: 0,
            snapshot: Arc::new(empty_snapshot(config, now)),
            plan: Arc::new(Plan::new()),
        };
        engine.enlist_configured(now);
        engine.turn(now);
        engine
    }

    /// Takes in what a source reports.
    pub fn handle_report(&mut self, report: Report, now: Moment) {
        match report {
            Report::Claim(claim) => self.take_claim(claim, now),
            Report::Topology(topology) => self.take_topology(topology, now),
        }
        self.turn(now);
    }

    /// Lets time have its say: claims expire, a grace ends.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.members.retain(|_, member| {
            member.left_at.is_none_or(|left_at| now.since(left_at) < LEFT_MEMORY)
        });
        self.turn(now);
    }

    /// Goes on with another configuration. What has been heard is kept.
    pub fn handle_config(&mut self, config: &Config, now: Moment) {
        self.cluster = config.cluster.clone();
        self.services = config.services.clone();
        self.rules = rules(&config.cluster);
        self.gates.retain(|service, _| config.services.contains_key(service));
        self.enlist_configured(now);
        self.record(EventKind::Reloaded, now);
        self.turn(now);
    }

    /// When [`Engine::handle_timeout`] has to be called, if nothing else happens before.
    pub fn poll_timeout(&self, now: Moment) -> Option<Moment> {
        let of_members = self.members.values().flat_map(|member| {
            [
                member.view.next_expiry(now, &self.rules.freshness),
                Some(member.view.last_sign_of_life() + self.cluster.silence),
                member.left_at.map(|left_at| left_at + LEFT_MEMORY),
            ]
        });
        let gates = self.gates.values().flat_map(BTreeMap::values);
        let of_gates = gates.map(|gate| gate.grace_ends(self.cluster.patroni_loss_grace));
        let of_search = self.primary_missing_since.map(|since| since + SEARCH_LASTS);
        of_members.chain(of_gates).flatten().chain(of_search).filter(|at| *at > now).min()
    }

    /// The next event that has not been polled yet, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        let index = self.events.len().checked_sub(self.events_unpolled)?;
        let event = self.events.get(index)?.clone();
        self.events_unpolled -= 1;
        Some(event)
    }

    /// The newest Snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// Whom the sources ask, and how often.
    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan)
    }

    fn take_claim(&mut self, claim: Claim, now: Moment) {
        let Some(member) = self.members.get_mut(&claim.member) else {
            return;
        };
        let had_failure = member.view.address_failure().is_some();
        let name = claim.member.clone();
        member.view.apply(claim, now);
        if let (false, Some(failure)) = (had_failure, member.view.address_failure().cloned()) {
            self.record(EventKind::AddressLost { member: name, failure }, now);
        }
    }

    fn take_topology(&mut self, topology: Topology, now: Moment) {
        // A running Patroni lists itself at least: an empty list is a fault of the asked one.
        if !self.rules.has_patroni || topology.members.is_empty() {
            return;
        }
        if self.is_strange(topology.scope.as_deref(), now) {
            return;
        }
        self.scope = topology.scope.or(self.scope.take());
        self.enlist(topology.members, now);
    }

    fn is_strange(&mut self, scope: Option<&str>, now: Moment) -> bool {
        let (Some(found), Some(expected)) = (scope, self.scope.as_deref()) else {
            return false;
        };
        if found == expected {
            self.strange_scope = None;
            return false;
        }
        if self.strange_scope.as_deref() != Some(found) {
            let (found, expected) = (found.to_owned(), expected.to_owned());
            self.strange_scope = Some(found.clone());
            self.record(EventKind::StrangeCluster { found, expected }, now);
        }
        true
    }

    fn enlist_configured(&mut self, now: Moment) {
        if let Membership::Listed(found) = self.cluster.members.clone() {
            self.enlist(found, now);
        }
    }

    /// Makes the roster what `found` says: the others have left.
    fn enlist(&mut self, found: Vec<Found>, now: Moment) {
        let found: BTreeMap<MemberName, Found> =
            found.into_iter().take(MEMBERS_MAX).map(|found| (found.name.clone(), found)).collect();
        let gone = |(name, member): (&MemberName, &Member)| {
            (member.left_at.is_none() && !found.contains_key(name)).then(|| name.clone())
        };
        let gone: Vec<MemberName> = self.members.iter().filter_map(gone).collect();
        for name in gone {
            if let Some(member) = self.members.get_mut(&name) {
                member.left_at = Some(now);
            }
            self.record(EventKind::Left { member: name }, now);
        }
        for (name, found) in found {
            self.enlist_one(name, found, now);
        }
    }

    fn enlist_one(&mut self, name: MemberName, found: Found, now: Moment) {
        let postgres = found.postgres.clone();
        let event = match self.members.get_mut(&name) {
            None => {
                let member = Member { found, left_at: None, view: View::new(now) };
                self.members.insert(name.clone(), member);
                Some(EventKind::Joined { member: name, postgres })
            }
            Some(member) => {
                let moved = member.found.postgres != found.postgres;
                let returned = member.left_at.take().is_some();
                if moved {
                    // What was said was said of another place.
                    member.view = View::new(now);
                }
                member.found = found;
                match (moved, returned) {
                    (true, _) => Some(EventKind::Moved { member: name, postgres }),
                    (false, true) => Some(EventKind::Joined { member: name, postgres }),
                    (false, false) => None,
                }
            }
        };
        if let Some(event) = event {
            self.record(event, now);
        }
    }

    /// One turn of the engine: conclude, turn the gates, publish what changed.
    fn turn(&mut self, now: Moment) {
        self.conclude(now);
        self.note_lead(now);
        let generation = self.snapshot.generation + 1;
        let services: Vec<(ServiceName, ServiceConfig)> =
            self.services.iter().map(|(name, service)| (name.clone(), service.clone())).collect();
        for (name, service) in services {
            let old = self.gates.remove(&name).unwrap_or_default();
            let new = self.turn_gates(&service, &old, generation, now);
            self.record_gates(&name, &old, &new, now);
            self.gates.insert(name, new);
        }
        self.note_missing_primary(now);
        self.publish(generation, now);
    }

    fn conclude(&mut self, now: Moment) {
        let concluded = standings(&self.members, &self.rules, now);
        for (name, standing) in &concluded {
            let was = self.standings.get(name).map_or(Role::Unknown, |standing| standing.role);
            if was != standing.role {
                let timeline = self.timeline(&self.members[name], now);
                let event =
                    EventKind::Role { member: name.clone(), was, is: standing.role, timeline };
                self.record(event, now);
            }
        }
        self.standings = concluded;
    }

    fn note_lead(&mut self, now: Moment) {
        for (name, standing) in &self.standings {
            if standing.role == Role::Primary
                && standing.trouble().is_none()
                && let Some((asked_at, location)) = self.position(&self.members[name], false, now)
            {
                self.lead.note(asked_at, location);
            }
        }
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

    fn lag(&self, member: &Member, now: Moment) -> Lag {
        let bytes = self.position(member, true, now).and_then(|(asked_at, location)| {
            self.lead.lag_bytes(asked_at, location, now, self.cluster.silence)
        });
        let progress = member.view.progress(now, &self.rules.freshness);
        let time =
            progress.filter(|heard| heard.said.in_recovery).and_then(|heard| heard.said.replay_lag);
        Lag { bytes, time }
    }

    fn timeline(&self, member: &Member, now: Moment) -> Option<u32> {
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

    fn turn_gates(
        &self,
        service: &ServiceConfig,
        old: &Gates,
        generation: u64,
        now: Moment,
    ) -> Gates {
        let mut gates = Gates::new();
        for name in self.members.keys() {
            let gate = old.get(name).cloned().unwrap_or_else(|| Gate::new(now));
            let verdict = self.case(service, name, &gate, now).verdict();
            gates.insert(
                name.clone(),
                gate.next(self.a_turn(service, name, verdict, generation, now)),
            );
        }
        if service.fallback_primary {
            self.stand_in(service, old, &mut gates, generation, now);
        }
        if service.role != Role::Replica {
            exclude_rivals(&mut gates, now);
        }
        gates
    }

    fn case<'a>(
        &'a self,
        service: &'a ServiceConfig,
        name: &MemberName,
        gate: &Gate,
        now: Moment,
    ) -> Case<'a> {
        let member = &self.members[name];
        let drained_for_lag = matches!(gate, Gate::Draining { reason, .. } if reason.is_lag());
        let standing = &self.standings[name];
        Case {
            service,
            member,
            standing,
            lag: self.lag(member, now),
            drained_for_lag,
            rules: &self.rules,
            now,
        }
    }

    fn a_turn(
        &self,
        service: &ServiceConfig,
        name: &MemberName,
        verdict: Verdict,
        generation: u64,
        now: Moment,
    ) -> Turn {
        let view = &self.members[name].view;
        let silent = now.since(view.last_sign_of_life()) >= self.cluster.silence;
        let lost = service.role == Role::Primary && self.standings[name].is_proof_against_writes();
        Turn {
            verdict,
            evidence_asked_at: view.evidence_asked_at(),
            sessions: if silent || lost { Sessions::End } else { Sessions::Keep },
            grace: self.cluster.patroni_loss_grace,
            generation,
            now,
        }
    }

    /// Lets the primary serve a read service while no replica is open or about to be.
    fn stand_in(
        &self,
        service: &ServiceConfig,
        old: &Gates,
        gates: &mut Gates,
        generation: u64,
        now: Moment,
    ) {
        let is_primary = |name: &MemberName| self.standings[name].role == Role::Primary;
        let replica_serves = gates.iter().any(|(name, gate)| {
            !is_primary(name) && matches!(gate, Gate::Open { .. } | Gate::Probation { .. })
        });
        for name in self.members.keys().filter(|name| is_primary(name)) {
            let gate = old.get(name).cloned().unwrap_or_else(|| Gate::new(now));
            let verdict = match replica_serves {
                false => self.case(service, name, &gate, now).verdict_as_stand_in(),
                true if gate.is_open() => Verdict::Drain(Reason::FallbackOver),
                true => continue,
            };
            gates.insert(
                name.clone(),
                gate.next(self.a_turn(service, name, verdict, generation, now)),
            );
        }
    }

    fn note_missing_primary(&mut self, now: Moment) {
        let lacks = |(name, service): (&ServiceName, &ServiceConfig)| {
            service.role == Role::Primary && !self.gates[name].values().any(Gate::is_open)
        };
        let missing = self.services.iter().any(lacks);
        self.primary_missing_since = missing.then(|| self.primary_missing_since.unwrap_or(now));
    }

    fn publish(&mut self, generation: u64, now: Moment) {
        let candidate = self.make_snapshot(generation, now);
        if candidate.differs_from(&self.snapshot) {
            self.snapshot = Arc::new(candidate);
        }
        let plan = self.make_plan(now);
        if plan != *self.plan {
            self.plan = Arc::new(plan);
        }
    }

    fn make_snapshot(&self, generation: u64, now: Moment) -> Snapshot {
        let members = self.members.iter().map(|(name, member)| {
            (name.clone(), self.member_state(member, &self.standings[name], now))
        });
        let services = self.services.iter().map(|(name, service)| {
            let gates = self.gates[name].clone();
            (name.clone(), ServiceState { role: service.role, gates })
        });
        let paused = self.members.values().any(|member| {
            matches!(member.view.patroni(now, &self.rules.freshness), Word::Said(facts) if facts.paused)
        });
        Snapshot {
            generation,
            at: now,
            cluster: self.cluster.name.clone(),
            scope: self.scope.clone(),
            paused,
            members: members.collect(),
            services: services.collect(),
            events: self.events.clone(),
        }
    }

    fn member_state(&self, member: &Member, standing: &Standing, now: Moment) -> MemberState {
        let lag = match standing.role {
            Role::Replica | Role::StandbyLeader => self.lag(member, now),
            Role::Primary | Role::Unknown => Lag::default(),
        };
        let left = member.left_at.map(|_| Reason::Left);
        MemberState {
            postgres: member.found.postgres.clone(),
            patroni_url: member.found.patroni_url.clone(),
            addresses: member.view.addresses().to_vec(),
            address_failure: member.view.address_failure().cloned(),
            role: standing.role,
            trouble: left.or_else(|| standing.trouble().cloned()),
            timeline: self.timeline(member, now),
            lag_bytes: lag.bytes,
            lag: lag.time,
            tags: member
                .view
                .patroni_facts()
                .map(|heard| heard.said.tags.clone())
                .unwrap_or_default(),
        }
    }

    fn make_plan(&self, now: Moment) -> Plan {
        let ask = |(name, member): (&MemberName, &Member)| {
            let gates = || self.gates.values().filter_map(|gates| gates.get(name));
            let need = Need {
                primary_missing: self.primary_missing_since.map(|since| now.since(since)),
                promoting: self.standings[name].trouble() == Some(&Reason::Promoting),
                in_probation: gates().any(|gate| matches!(gate, Gate::Probation { .. })),
                has_tether: self.rules.has_tether,
            };
            let ask = Ask {
                postgres: member.found.postgres.clone(),
                addresses: member.view.addresses().to_vec(),
                patroni_url: member.found.patroni_url.clone(),
                pace: need.pace(),
            };
            (name.clone(), ask)
        };
        self.members.iter().map(ask).collect()
    }

    fn record_gates(&mut self, service: &ServiceName, old: &Gates, new: &Gates, now: Moment) {
        for (member, gate) in new {
            if is_news(old.get(member), gate) {
                let event = EventKind::Gate {
                    service: service.clone(),
                    member: member.clone(),
                    now: gate.word(),
                    reason: gate.reason().cloned(),
                };
                self.record(event, now);
            }
        }
    }

    fn record(&mut self, kind: EventKind, now: Moment) {
        self.events.push_back(Event { at: now, kind });
        self.events_unpolled += 1;
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
            self.events_unpolled = self.events_unpolled.min(EVENTS_MAX);
        }
    }
}

/// Invariant 2: of several open gates none is right; beside one that is open, the sessions of
/// all others are ended.
fn exclude_rivals(gates: &mut Gates, now: Moment) {
    let open: Vec<MemberName> =
        gates.iter().filter(|(_, gate)| gate.is_open()).map(|(name, _)| name.clone()).collect();
    let rivals = match open.len() {
        0 => return,
        1 => None,
        _ => Some(Reason::SplitBrain(open.clone())),
    };
    for (name, gate) in gates.iter_mut() {
        if rivals.is_some() || open.first() != Some(name) {
            let reason = rivals.clone().or_else(|| gate.reason().cloned());
            let since = if gate.is_open() { now } else { gate.since() };
            let reason = reason.unwrap_or(Reason::Unheard);
            *gate = Gate::Shut { reason, since, sessions: Sessions::End };
        }
    }
}

/// A change of a gate that an operator wants to read about. That a member is what it always
/// was and therefore not for this service is none.
fn is_news(old: Option<&Gate>, new: &Gate) -> bool {
    let code = |gate: &Gate| gate.reason().map(Reason::code);
    let expected = matches!(new.reason(), Some(Reason::WrongRole { .. } | Reason::Unheard));
    match old {
        Some(old) if old.word() == new.word() => code(old) != code(new) && !expected,
        Some(_) => true,
        None => new.is_open() || !expected,
    }
}

fn rules(cluster: &ClusterConfig) -> Rules {
    let (has_patroni, patroni_timeout) = match &cluster.members {
        Membership::Patroni(patroni) => (true, patroni.timeout),
        Membership::Listed(_) => (false, Duration::ZERO),
    };
    let tether_timeout = cluster.check.as_ref().map_or(Duration::ZERO, |check| check.timeout);
    Rules {
        has_patroni,
        has_tether: cluster.check.is_some(),
        highest_timeline_wins: cluster.split_brain == SplitBrain::HighestTimeline,
        freshness: Freshness {
            patroni: REST_PACE.patroni + patroni_timeout + SLACK,
            tether: REST_PACE.tether + tether_timeout + SLACK,
            progress: PROGRESS_LIFETIME,
        },
    }
}

fn empty_snapshot(config: &Config, now: Moment) -> Snapshot {
    Snapshot {
        generation: 0,
        at: now,
        cluster: config.cluster.name.clone(),
        scope: None,
        paused: false,
        members: BTreeMap::new(),
        services: BTreeMap::new(),
        events: VecDeque::new(),
    }
}

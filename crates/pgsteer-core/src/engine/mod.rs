//! The engine: applies reports, runs the judge, updates the gates and publishes the Snapshot.
//!
//! A state machine without IO. The shell calls [`Engine::handle_report`] and
//! [`Engine::handle_timeout`]. After each call it reads [`Engine::snapshot`], [`Engine::plan`],
//! [`Engine::poll_event`] and [`Engine::poll_timeout`].
//!
//! The modules: `roster` keeps the members, `notices` what is written in etcd, `orders` applies those
//! of an operator, `turning` updates the gates, `publish` builds the Snapshot, and `planning` decides what the sources ask.

mod explain;
mod history;
mod identity;
mod measure;
mod members;
mod notices;
mod orders;
mod places;
mod planning;
mod publish;
mod roster;
mod turning;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::claim::{Failure, Report, Role};
use crate::event::{Event, EventKind};
use crate::gate::Gate;
use crate::gate_key::{GateKey, gate_keys};
use crate::judge::listing::MISSING_GRACE;
use crate::judge::pooler_path::{PoolerPath, PutOff, Wait, pooler_path};
use crate::judge::standing::standings;
use crate::judge::{Member, Rules, Standing, is_rogue};
use crate::memory::{Memory, Remembered};
use crate::names::MemberName;
use crate::orders::Orders;
use crate::pace::{self, SEARCH_LASTS, SLACK};
use crate::plan::Plan;
use crate::settings::defaults::CHECK_TIMEOUT;
use crate::settings::{ClusterConfig, Config, Membership, ServiceConfig, SplitBrain};
use crate::skew::ClockOffset;
use crate::snapshot::{MembersFrom, Snapshot};
use crate::time::Moment;
use crate::view::{Freshness, Reading};
use crate::write_head::WriteHead;
use history::History;
use identity::Knowledge;
use notices::Notices;
use publish::empty_snapshot;
use roster::{NEW_HOST_WAIT, Roster};
use turning::is_news;

/// How long a member is remembered after it left the list.
pub const LEFT_MEMORY: Duration = Duration::from_secs(600);

/// How late the shell may call after the time that [`Engine::poll_timeout`] returned. A later call
/// means that this process was stopped and received nothing, so the members' silence until then
/// does not count.
const CALL_SLACK: Duration = Duration::from_secs(1);

/// How long the positions of one progress query may be used. The query is sent once a second.
const PROGRESS_LIFETIME: Duration = Duration::from_secs(5);

type Gates = BTreeMap<MemberName, Gate>;

/// The state of one cluster.
#[derive(Debug)]
pub struct Engine {
    cluster: ClusterConfig,
    gate_configs: BTreeMap<GateKey, ServiceConfig>,
    /// The ports of the poolers that are checked on every member's host.
    pooler_ports: BTreeSet<u16>,
    rules: Rules,
    roster: Roster,
    knowledge: Knowledge,
    /// Where the member list comes from.
    members_from: MembersFrom,
    /// The stored list, until a list can be read or this one is used.
    remembered: Option<Remembered>,
    /// The content to store, and when it was read.
    memory: Option<(Arc<Memory>, Moment)>,
    started_at: Moment,
    /// Why no member list can be read, by the URL that was asked; empty once a member is known.
    unlisted: BTreeMap<Arc<str>, Failure>,
    /// Why a configured URL of Patroni returned no member list when it was last asked.
    failing_seeds: BTreeMap<Arc<str>, Failure>,
    notices: Notices,
    standings: BTreeMap<MemberName, Standing>,
    /// There is a member from which replicas can stream.
    has_source: bool,
    /// The path through each configured pooler, by member and port.
    paths: BTreeMap<MemberName, BTreeMap<u16, PoolerPath>>,
    /// Since when each member has been in its present role.
    roles_since: BTreeMap<MemberName, Moment>,
    gates: BTreeMap<GateKey, Gates>,
    /// The orders of operators.
    orders: Orders,
    write_head: WriteHead,
    /// The highest timeline of any primary so far.
    head_timeline: Option<u32>,
    /// How full each member is, in percent and in steps, as last shown.
    loads: BTreeMap<MemberName, u8>,
    /// How far each member's clock is ahead of ours, in steps, as last shown.
    clock_offsets: BTreeMap<MemberName, ClockOffset>,
    /// The local member that is configured but not found, and the members that were present.
    local_missing: Option<(MemberName, Vec<MemberName>)>,
    /// The cluster is in maintenance mode, by the last report.
    paused: bool,
    /// Since when some service has been without a primary.
    primary_missing_since: Option<Moment>,
    /// The latest time at which the shell has to call [`Engine::handle_timeout`].
    due: Option<Moment>,
    /// Since when this process has run without a stop. A member's silence before that does not
    /// count.
    listening_since: Moment,
    history: History,
    snapshot: Arc<Snapshot>,
    plan: Arc<Plan>,
}

impl Engine {
    /// Returns an engine without any claim: all gates are shut.
    pub fn new(config: &Config, now: Moment) -> Engine {
        Engine::with_memory(config, None, now)
    }

    /// Returns an engine with the identity and the member list of an earlier run.
    pub fn with_memory(config: &Config, stored: Option<Remembered>, now: Moment) -> Engine {
        let pins = config.cluster.pins();
        let of_pins = |it: &Remembered| pins.contradiction(&it.memory.identity).is_none();
        let remembered = stored.filter(of_pins);
        let identity = remembered.as_ref().map(|it| &it.memory.identity);
        let mut engine = Engine {
            cluster: config.cluster.clone(),
            gate_configs: gate_keys(config),
            pooler_ports: config.pooler_ports(),
            rules: rules(&config.cluster),
            roster: Roster::default(),
            knowledge: Knowledge::new(pins.clone(), identity),
            members_from: MembersFrom::default(),
            remembered: remembered.clone(),
            memory: None,
            started_at: now,
            unlisted: BTreeMap::new(),
            failing_seeds: BTreeMap::new(),
            notices: Notices::default(),
            standings: BTreeMap::new(),
            has_source: false,
            paths: BTreeMap::new(),
            roles_since: BTreeMap::new(),
            gates: BTreeMap::new(),
            orders: Orders::default(),
            write_head: WriteHead::default(),
            head_timeline: None,
            loads: BTreeMap::new(),
            clock_offsets: BTreeMap::new(),
            local_missing: None,
            paused: false,
            primary_missing_since: None,
            due: None,
            listening_since: now,
            history: History::default(),
            snapshot: Arc::new(empty_snapshot(config, now)),
            plan: Arc::new(Plan::default()),
        };
        engine.enlist_configured(now);
        engine.turn(now);
        engine
    }

    /// Applies the report of a source.
    pub fn handle_report(&mut self, report: Report, now: Moment) {
        let events = match report {
            Report::Claim(claim) => self.roster.take_claim(claim, self.knowledge.identity(), now),
            Report::Topology(topology) if self.rules.has_patroni => {
                self.take_topology(topology, now)
            }
            Report::Unlisted(unlisted) if self.rules.has_patroni => {
                self.take_unlisted(unlisted, now)
            }
            Report::Topology(_) | Report::Unlisted(_) => Vec::new(),
            Report::Notice(notice) => self.take_notice(notice, now).into_iter().collect(),
        };
        self.record(events, now);
        self.turn(now);
    }

    /// Applies the passage of time: claims expire, a grace ends.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.turn(now);
    }

    /// Notes that this process was stopped until `now`: it received nothing in that time, so no
    /// member was silent. The sessions at a member continue until it has been silent for
    /// `silence_seconds` from now.
    pub fn note_stall(&mut self, now: Moment) {
        self.listening_since = now;
        // The late call of that time is not a second stop.
        self.due = None;
    }

    /// Replaces the configuration. The claims are kept.
    pub fn handle_config(&mut self, config: &Config, now: Moment) {
        if self.cluster.members != config.cluster.members {
            self.change_membership(&config.cluster, now);
        }
        if self.cluster != config.cluster {
            // The sources restart.
            self.notices = Notices::default();
            self.unlisted.clear();
            self.failing_seeds.clear();
        }
        self.cluster = config.cluster.clone();
        self.gate_configs = gate_keys(config);
        self.pooler_ports = config.pooler_ports();
        self.roster.keep_poolers(&self.pooler_ports);
        self.rules = rules(&config.cluster);
        self.enlist_configured(now);
        self.history.record(EventKind::Reloaded, now);
        self.turn(now);
        // The configured URLs are stored beside the list.
        self.note_memory(now);
    }

    /// When [`Engine::handle_timeout`] has to be called, if no report comes before.
    pub fn poll_timeout(&self, now: Moment) -> Option<Moment> {
        let of_members = self.roster.members().values().flat_map(|member| {
            [
                member.view.next_expiry(now, &self.rules.freshness),
                Some(self.quiet_since(member) + self.cluster.silence),
                member.left_at.map(|left_at| left_at + MISSING_GRACE),
                member.new_host.as_ref().map(|new| new.since + NEW_HOST_WAIT),
                member.left_at.map(|left_at| left_at + LEFT_MEMORY),
            ]
        });
        let of_poolers = self.waits_end();
        let gates = self.gates.values().flat_map(BTreeMap::values);
        let of_gates = gates.map(|gate| gate.grace_ends());
        let of_search = self.primary_missing_since.map(|since| since + SEARCH_LASTS);
        let of_notices = self.notices_run_out();
        let of_identity = self.knowledge.next_change().chain(self.remembered_due());
        of_members
            .chain(of_gates)
            .flatten()
            .chain(of_search)
            .chain(of_notices)
            .chain(of_poolers)
            .chain(of_identity)
            .chain(self.orders.next_expiry())
            .filter(|at| *at > now)
            .min()
    }

    /// Returns the oldest event that has not been polled yet.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.history.poll()
    }

    /// Returns the newest Snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// Returns which members the sources ask, and how often.
    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan)
    }

    fn enlist_configured(&mut self, now: Moment) {
        if let Membership::Listed(found) = self.cluster.members.clone() {
            let events = self.roster.enlist(found, now);
            self.record(events, now);
        }
    }

    /// One turn of the engine: conclude, update the gates, publish the changes.
    fn turn(&mut self, now: Moment) {
        if self.due.is_some_and(|due| now.since(due) > CALL_SLACK) {
            self.listening_since = now;
        }
        self.expire_orders(now);
        self.roster.forget_the_gone(now);
        let moved = self.roster.settle_new_hosts(now);
        self.record(moved, now);
        self.note_identity(now);
        self.conclude(now);
        self.note_write_head(now);
        self.note_measures(now);
        self.note_pause(now);
        self.note_local(now);
        let generation = self.snapshot.generation + 1;
        let turned = self.turn_all_gates(&self.orders, generation, now);
        for (key, gates) in &turned {
            for event in gate_news(key, self.gates.get(key), gates) {
                self.history.record(event, now);
            }
        }
        self.gates = turned;
        self.note_missing_primary(now);
        self.publish(generation, now);
        self.due = self.poll_timeout(now);
    }

    /// Since when a member has given no sign of life that this process could have received.
    fn quiet_since(&self, member: &Member) -> Moment {
        member.view.last_sign_of_life().max(self.listening_since)
    }

    fn conclude(&mut self, now: Moment) {
        let concluded =
            standings(self.roster.members(), self.knowledge.identity(), &self.rules, now);
        let mut events = Vec::new();
        for (name, standing) in &concluded {
            let was = self.standings.get(name).map_or(Role::Unknown, |standing| standing.role);
            if was != standing.role {
                self.roles_since.insert(name.clone(), now);
                let timeline = self.timeline(&self.roster.members()[name], now);
                events.push(EventKind::Role {
                    member: name.clone(),
                    was,
                    is: standing.role,
                    timeline,
                });
            }
        }
        self.roles_since.retain(|name, _| concluded.contains_key(name));
        self.remember_rogues(&concluded, now);
        self.has_source = concluded.values().any(Standing::is_source);
        self.standings = concluded;
        self.paths = self.pooler_paths(now);
        self.record(events, now);
    }

    /// Returns the path through every pooler, for the present standings.
    fn pooler_paths(&self, now: Moment) -> BTreeMap<MemberName, BTreeMap<u16, PoolerPath>> {
        let of_member = |(name, member): (&MemberName, &Member)| {
            let role = (self.standings[name].role, self.role_since(name));
            let path = |port: &u16| (*port, pooler_path(member, *port, role, &self.rules, now));
            (name.clone(), self.pooler_ports.iter().map(path).collect())
        };
        self.roster.members().iter().map(of_member).collect()
    }

    fn path(&self, name: &MemberName, port: u16) -> Option<&PoolerPath> {
        self.paths.get(name)?.get(&port)
    }

    /// When clients that wait in poolers have to be routed elsewhere.
    fn waits_end(&self) -> impl Iterator<Item = Moment> {
        self.paths.values().flat_map(BTreeMap::values).filter_map(|path| match path {
            PoolerPath::Busy(Wait { until, .. }) | PoolerPath::PutsOff(PutOff { until, .. }) => {
                Some(*until)
            }
            _ => None,
        })
    }

    /// A member that left is forgotten after [`LEFT_MEMORY`]. A rogue primary is kept for as long
    /// as it takes writes, and for that time after it, because the operator has to see it.
    fn remember_rogues(&mut self, concluded: &BTreeMap<MemberName, Standing>, now: Moment) {
        for (name, standing) in concluded {
            let member = self.roster.members().get(name);
            if member.is_some_and(|member| is_rogue(member, standing, &self.rules)) {
                self.roster.remember(name, now);
            }
        }
    }

    /// Since when a member has been in its role; the start if it never had one.
    fn role_since(&self, name: &MemberName) -> Moment {
        self.roles_since.get(name).copied().unwrap_or(Moment::START)
    }

    /// Notes maintenance mode if any member reports it. Without any report the state stays as it
    /// was.
    fn note_pause(&mut self, now: Moment) {
        let present = self.roster.members().values().filter(|member| member.left_at.is_none());
        let answer =
            present.filter_map(|member| match member.view.patroni(now, &self.rules.freshness) {
                Reading::Fresh(facts) => Some(facts.paused),
                _ => None,
            });
        let paused = answer.reduce(|one, other| one || other).unwrap_or(self.paused);
        if paused != self.paused {
            self.paused = paused;
            self.history.record(EventKind::Paused(paused), now);
        }
    }

    /// Reports once that the configured local member does not exist, and again when the member list
    /// changes. Nothing is reported while no member is known, because the local one may still come.
    fn note_local(&mut self, now: Moment) {
        let members = self.roster.members();
        let local = self.cluster.here.name.as_ref().filter(|name| !members.contains_key(*name));
        let missing = local.filter(|_| !members.is_empty()).map(|name| {
            let present = members.iter().filter(|(_, member)| member.left_at.is_none());
            (name.clone(), present.map(|(name, _)| name.clone()).collect())
        });
        if missing != self.local_missing {
            self.local_missing.clone_from(&missing);
            let event = missing.map(|(local, members)| EventKind::LocalUnknown { local, members });
            self.record(event, now);
        }
    }

    /// Notes since when a service has had no primary. Without any service the plain roles count,
    /// because the agent or the health pages need them.
    fn note_missing_primary(&mut self, now: Moment) {
        let has_services = self.gate_configs.keys().any(|key| matches!(key, GateKey::Service(_)));
        let counts = |key: &GateKey| match key {
            GateKey::Service(_) => has_services,
            GateKey::Role(_) => !has_services,
            GateKey::Pooled(_) => false,
        };
        // A primary that an operator drains is known: a search would find no other.
        let is_usable = |gate: &Gate| gate.is_open() || gate.is_drained_by_operator();
        let lacks = |(key, required): (&GateKey, &ServiceConfig)| {
            required.role == Role::Primary
                && counts(key)
                && !self.gates[key].values().any(is_usable)
        };
        let missing = self.gate_configs.iter().any(lacks);
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

    fn record(&mut self, events: impl IntoIterator<Item = EventKind>, now: Moment) {
        for event in events {
            self.history.record(event, now);
        }
    }
}

/// The events that the gates of one key produce after a turn.
fn gate_news<'a>(
    key: &'a GateKey,
    old: Option<&'a Gates>,
    new: &'a Gates,
) -> impl Iterator<Item = EventKind> + 'a {
    let was = move |member: &MemberName| old.and_then(|gates| gates.get(member));
    let news = new.iter().filter(move |(member, gate)| is_news(key, was(member), gate));
    news.map(|(member, gate)| EventKind::Gate {
        key: key.clone(),
        member: member.clone(),
        now: gate.state(),
        reason: gate.reason().cloned(),
    })
}

fn rules(cluster: &ClusterConfig) -> Rules {
    let (has_patroni, patroni_timeout) = match &cluster.members {
        Membership::Patroni(patroni) => (true, patroni.timeout),
        Membership::Listed(_) => (false, Duration::ZERO),
    };
    let check_timeout = cluster.check.as_ref().map(|check| check.timeout);
    let tether_timeout = check_timeout.unwrap_or_default();
    let pooler_timeout = check_timeout.unwrap_or(CHECK_TIMEOUT);
    Rules {
        has_patroni,
        has_tether: cluster.check.is_some(),
        highest_timeline_wins: cluster.split_brain == SplitBrain::HighestTimeline,
        freshness: Freshness {
            patroni: pace::CALM.patroni + patroni_timeout + SLACK,
            patroni_limit: patroni_timeout,
            tether: pace::CALM.tether + tether_timeout + SLACK,
            progress: PROGRESS_LIFETIME,
            // A failed login is reported when it is given up, and so is the next one.
            pooler: pace::KNOCK + 2 * pooler_timeout + SLACK,
        },
        patroni_loss_grace: cluster.patroni_loss_grace,
    }
}

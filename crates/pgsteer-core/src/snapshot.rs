//! The Snapshot: the whole decision, which is all that the outputs read.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::claim::{Failure, Role, Standby, Tags};
use crate::event::Event;
use crate::gate::Gate;
use crate::identity::Identity;
use crate::names::{ClusterName, Endpoint, MemberName, ServiceName};
use crate::orders::Orders;
use crate::reason::Reason;
use crate::skew::ClockOffset;
use crate::time::Moment;

/// The number of events that a Snapshot keeps.
pub const EVENTS_MAX: usize = 100;

/// The message to clients and operators about maintenance mode while there is no primary.
pub const NO_FAILOVER: &str = "Patroni is in maintenance mode: no failover happens until it ends \
                               (patronictl resume)";

/// One consistent state of the cluster and of every gate. Immutable once published.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Grows by one with every Snapshot that differs from the one before.
    pub generation: u64,
    /// When it was made.
    pub at: Moment,
    /// The operator's name for the cluster, else Patroni's scope.
    pub cluster: ClusterName,
    /// Patroni's scope; none if Patroni does not report it.
    pub scope: Option<String>,
    /// What is known of the cluster's identity, and where the member list comes from.
    pub identity: IdentityState,
    /// The cluster is in maintenance mode.
    pub paused: bool,
    /// The watch of Patroni's keys in etcd; none if it is not configured or has not started yet.
    pub etcd: Option<EtcdState>,
    /// Why no member list can be read, by the URL that was asked; empty once a member is known.
    pub unlisted: BTreeMap<Arc<str>, Failure>,
    /// Why a configured URL of Patroni returns no member list although another one does.
    pub url_troubles: BTreeMap<Arc<str>, Failure>,
    /// The member on whose machine this pgsteer runs; none if there is none or it is unknown.
    pub local: Option<MemberName>,
    /// All members known, in the order of their names.
    pub members: BTreeMap<MemberName, MemberState>,
    /// All services, each with one gate per member.
    pub services: BTreeMap<ServiceName, ServiceState>,
    /// The newest events, oldest first, at most [`EVENTS_MAX`].
    pub events: VecDeque<Event>,
    /// The orders of operators.
    pub orders: Orders,
}

/// The watch of Patroni's keys in etcd as the Snapshot shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdState {
    /// Whether the watch is active; if not, the reason.
    pub watch: Result<(), Failure>,
    /// The last read found a change that the watch has not reported.
    pub is_behind: bool,
    /// How many key writes the watch has reported since the start.
    pub events: u64,
    /// When the keys were last read by a separate query.
    pub read_at: Option<Moment>,
}

impl Default for EtcdState {
    fn default() -> EtcdState {
        EtcdState { watch: Ok(()), is_behind: false, events: 0, read_at: None }
    }
}

/// Where the member list comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MembersFrom {
    /// There is none yet, or the configuration lists the members.
    #[default]
    Configuration,
    /// A Patroni returned it.
    Cluster,
    /// An earlier run stored it.
    Stored {
        /// The time from the writing of the list to the start of the engine.
        age: Duration,
    },
    /// Only the URLs of Patroni are known.
    Urls,
}

/// The identity of the cluster as the Snapshot shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityState {
    /// The identity as far as it is known.
    pub known: Identity,
    /// Where the member list comes from.
    pub members_from: MembersFrom,
    /// The URLs whose Patroni belongs to another cluster, with that cluster.
    pub strangers: BTreeMap<Arc<str>, Identity>,
    /// Why no member list is accepted, while the configured URLs belong to different clusters.
    pub dispute: Option<String>,
}

/// A member as the Snapshot shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberState {
    /// Where its PostgreSQL listens.
    pub postgres: Endpoint,
    /// The base of its Patroni's REST API.
    pub patroni_url: Option<Arc<str>>,
    /// The member of another name that is the same server and is used in place of this one.
    pub same_as: Option<MemberName>,
    /// Other spellings of its PostgreSQL endpoint, under which its server was another member's.
    pub also_at: Vec<Endpoint>,
    /// The addresses of its host, best first. They are kept when the name no longer resolves.
    pub addresses: Vec<IpAddr>,
    /// Why the addresses could not be refreshed; none if they are fresh.
    pub address_failure: Option<Failure>,
    /// The role that the judge concluded.
    pub role: Role,
    /// What keeps it from serving in its role, or its role from being known: `promoting`, `down`,
    /// ...
    pub trouble: Option<Reason>,
    /// It holds the leader lock and is still in recovery.
    pub promoting: bool,
    /// No source has reported on it yet, well or not. This lasts milliseconds, or until a probe
    /// times out.
    pub awaits_first_report: bool,
    /// Patroni, or the configuration, lists the member.
    pub listed: bool,
    /// It takes writes although another member holds the leader lock or takes writes as well.
    pub rogue: bool,
    /// Its timeline.
    pub timeline: Option<u32>,
    /// How far its replay is behind the primary, in bytes; none on a leader or if unknown.
    pub lag_bytes: Option<u64>,
    /// How far its replay is behind in time; none on a leader or if unknown.
    pub lag: Option<Duration>,
    /// How many of its allowed sessions are in use, in percent and in steps; none if they are not
    /// counted.
    pub load_percent: Option<u8>,
    /// How far its clock is ahead of ours, in steps of 0.1 s; none if it is not known.
    pub clock_offset: Option<ClockOffset>,
    /// The poolers on its host, by port: those that the configuration names.
    pub poolers: BTreeMap<u16, PoolerState>,
    /// Patroni's tags.
    pub tags: Tags,
    /// The results for Patroni's health checks.
    pub health: Health,
}

/// The results for Patroni's health checks on a member. [`crate::probe`] reads them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// Its gate for each of [`crate::gate_key::ROLES`], with no condition except the role.
    pub roles: BTreeMap<Role, Gate>,
    /// The same through the pooler that the agent's clients use; empty if they use none.
    pub pooled: BTreeMap<Role, Gate>,
    /// Whether commits on the primary wait for it.
    pub standby: Standby,
    /// Why its PostgreSQL is not known to run; none if it runs.
    pub postgres_trouble: Option<Reason>,
    /// Why its Patroni is not known to run; none if it runs.
    pub patroni_trouble: Option<Reason>,
}

/// A pooler on a member's host as the Snapshot shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolerState {
    /// What is behind it: a primary or a replica; none if unknown.
    pub leads_to: Option<Role>,
    /// Why the path through it does not lead to its member, or is not known to.
    pub trouble: Option<Reason>,
}

/// A service as the Snapshot shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceState {
    /// The role it requires.
    pub role: Role,
    /// The lag in bytes above which it drains a replica.
    pub lag_bytes_max: Option<u64>,
    /// The gate of every member.
    pub gates: BTreeMap<MemberName, Gate>,
}

impl Snapshot {
    /// Returns true if anything except the generation and the time differs from `other`.
    pub fn differs_from(&self, other: &Snapshot) -> bool {
        let Snapshot {
            generation: _,
            at: _,
            cluster,
            scope,
            identity,
            paused,
            etcd,
            unlisted,
            url_troubles,
            local,
            members,
            services,
            events,
            orders,
        } = self;
        *members != other.members
            || *services != other.services
            || *paused != other.paused
            || *etcd != other.etcd
            || *unlisted != other.unlisted
            || *url_troubles != other.url_troubles
            || *events != other.events
            || *orders != other.orders
            || *scope != other.scope
            || *identity != other.identity
            || *cluster != other.cluster
            || *local != other.local
    }

    /// Returns true if every member and its poolers answered or failed to, and no gate waits for a
    /// second answer. From then on a shut gate means a fact and not a missing answer.
    pub fn is_settled(&self) -> bool {
        let is_unheard = |reason: &Reason| {
            matches!(reason, Reason::Unheard | Reason::PoolerUnheard { .. } | Reason::Confirming)
        };
        let is_known = |member: &MemberState| {
            let Health { roles, pooled, postgres_trouble, .. } = &member.health;
            let gates = roles.values().chain(pooled.values());
            !gates.filter_map(Gate::reason).chain(postgres_trouble).any(is_unheard)
        };
        let mut of_services = self.services.values().flat_map(|service| service.gates.values());
        !self.members.is_empty()
            && self.members.values().all(is_known)
            && !of_services.any(|gate| gate.reason().is_some_and(is_unheard))
    }

    /// Why no member is open to `service`, in one line: each member with its reason. Empty if there
    /// is no such service.
    pub fn why_shut(&self, service: &ServiceName) -> String {
        let Some(state) = self.services.get(service) else {
            return String::new();
        };
        match (state.reasons(), self.why_unlisted()) {
            (Some(reasons), _) if self.awaits_resume(state) => {
                format!("{reasons}; {NO_FAILOVER}")
            }
            (Some(reasons), _) => reasons,
            (None, _) if !state.gates.is_empty() => {
                let open: Vec<&str> = state.open().map(MemberName::as_str).collect();
                format!("{} is open", open.join(", "))
            }
            (None, Some(why)) => format!("no member is known yet: {why}"),
            (None, None) => "no member is known yet".to_owned(),
        }
    }

    /// Returns true if the service has no primary and maintenance mode prevents a promotion.
    pub fn awaits_resume(&self, service: &ServiceState) -> bool {
        let leads = matches!(service.role, Role::Primary | Role::StandbyLeader);
        self.paused && leads && service.open().next().is_none()
    }

    /// Returns true if nothing is known of the members: no list can be read, and not all of the
    /// URLs refuse connections. A failed health check would then describe pgsteer and not the
    /// member.
    pub fn is_blind(&self) -> bool {
        let is_refused = |failure: &Failure| matches!(failure, Failure::Refused(_));
        let all_refused = !self.unlisted.is_empty() && self.unlisted.values().all(is_refused);
        self.members.is_empty() && self.identity.dispute.is_none() && !all_refused
    }

    /// Why no member list can be read, in one line.
    pub fn why_unlisted(&self) -> Option<String> {
        let failures = self.unlisted.values().map(Failure::to_string);
        let failures: Vec<String> = self.identity.dispute.iter().cloned().chain(failures).collect();
        (!failures.is_empty()).then(|| failures.join("; "))
    }

    /// Returns true if a session of `service` to `member`, dialled at `dialled`, has to end now.
    ///
    /// The gate decides this in most cases. There are two exceptions. A member that left long ago
    /// has no gate any more, so pgsteer would not detect its death. A member that moved has an open
    /// gate for its new endpoint, while the old sessions write at the old one.
    pub fn ends_session(
        &self,
        service: &ServiceName,
        member: &MemberName,
        dialled: &Endpoint,
    ) -> bool {
        let Some(state) = self.services.get(service) else {
            return true;
        };
        let Some((member, gate)) = self.gate_of(state, member, dialled) else {
            return true;
        };
        let moved = || self.is_elsewhere(member, dialled);
        let serves = gate.open_or_held_back().is_some();
        gate.ends_sessions() || (state.role != Role::Replica && serves && moved())
    }

    /// Returns true if the role of at least one member is known. Otherwise pgsteer may be cut off itself, and
    /// an output that has other facts should follow those.
    pub fn knows_a_role(&self) -> bool {
        self.members.values().any(|member| member.role != Role::Unknown)
    }

    /// The member whose promotion `service` waits for: it holds the leader lock and is still in
    /// recovery, no order drains it, and no other member is open.
    pub fn promoting(&self, service: &ServiceName) -> Option<&MemberName> {
        let state = self.services.get(service)?;
        if state.role != Role::Primary || state.open().next().is_some() {
            return None;
        }
        state.gates.keys().find(|name| {
            let member = self.members.get(*name);
            member.is_some_and(|member| member.promoting)
                && self.orders.draining(name, service, state.role).is_none()
        })
    }

    /// Returns true if an early login of `service` at `member`, dialled at `dialled`, has to end
    /// now.
    ///
    /// An early login begins while the member is promoting, when all older sessions there had to
    /// end already. It harms no client, so uncertainty about the promotion does not end it. It ends
    /// when another member serves in place of this one, or this one serves in another role.
    pub fn ends_early_login(
        &self,
        service: &ServiceName,
        member: &MemberName,
        dialled: &Endpoint,
    ) -> bool {
        let Some(state) = self.services.get(service) else {
            return true;
        };
        let Some((member, gate)) = self.gate_of(state, member, dialled) else {
            return true;
        };
        if gate.is_open() {
            return self.ends_session(service, member, dialled);
        }
        let serves = |state: &ServiceState| state.gates.get(member).is_some_and(Gate::is_open);
        self.is_elsewhere(member, dialled)
            || state.open().next().is_some()
            || self.services.values().any(serves)
    }

    /// The gate of the server that was dialled as `member` at `dialled`. If the server has another
    /// name since then, it is found by its endpoint, also where its old name moved elsewhere.
    fn gate_of<'a>(
        &'a self,
        state: &'a ServiceState,
        member: &'a MemberName,
        dialled: &Endpoint,
    ) -> Option<(&'a MemberName, &'a Gate)> {
        let is_there = |it: &MemberState| it.is_at(dialled);
        let known = self.members.get_key_value(member);
        let others = || self.members.iter().find(|(_, it)| is_there(it) && it.same_as.is_none());
        let found = known.filter(|(_, it)| is_there(it)).or_else(others).or(known)?;
        let name = match found {
            (name, MemberState { same_as: None, .. }) => name,
            (_, MemberState { same_as: Some(name), .. }) => name,
        };
        Some((name, state.gates.get(name)?))
    }

    fn is_elsewhere(&self, member: &MemberName, dialled: &Endpoint) -> bool {
        self.members.get(member).is_none_or(|member| !member.is_at(dialled))
    }
}

impl MemberState {
    /// Returns true if the member is known to have another role than `required`, and to keep it: a member
    /// that is promoting, that takes writes beside another one, or that has a trouble is not.
    pub fn is_known_to_lack(&self, required: Role) -> bool {
        self.role != Role::Unknown
            && self.role != required
            && !self.promoting
            && !self.rogue
            && self.trouble.is_none()
    }

    /// Returns true if `endpoint` is the endpoint of its PostgreSQL.
    fn is_at(&self, endpoint: &Endpoint) -> bool {
        self.postgres == *endpoint || self.also_at.contains(endpoint)
    }
}

impl ServiceState {
    /// The members whose gate is open.
    pub fn open(&self) -> impl Iterator<Item = &MemberName> {
        self.gates.iter().filter(|(_, gate)| gate.is_open()).map(|(name, _)| name)
    }

    /// Returns each member with the reason of its gate, in one line.
    fn reasons(&self) -> Option<String> {
        let each: Vec<String> = self
            .gates
            .iter()
            .filter_map(|(name, gate)| gate.reason().map(|reason| format!("{name}: {reason}")))
            .collect();
        (!each.is_empty()).then(|| each.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{OpenGate, Sessions};
    use crate::verdict::Cause;

    #[test]
    fn a_member_lacks_a_role_only_if_its_own_is_certain() {
        let gate = Gate::Probation { since: Moment::START };
        let mut snapshot = snapshot(Role::Primary, gate);
        assert!(!snapshot.knows_a_role());
        let mut lacks = |change: fn(&mut MemberState)| {
            let member = snapshot.members.values_mut().next().unwrap();
            *member = MemberState { role: Role::Replica, ..member.clone() };
            change(member);
            let (lacks, is_known) =
                (member.is_known_to_lack(Role::Primary), snapshot.knows_a_role());
            let member = snapshot.members.values_mut().next().unwrap();
            (member.promoting, member.rogue, member.trouble) = (false, false, None);
            (lacks, is_known)
        };
        assert_eq!(lacks(|_| {}), (true, true));
        assert_eq!(lacks(|member| member.role = Role::Primary), (false, true));
        assert_eq!(lacks(|member| member.role = Role::Unknown), (false, false));
        assert_eq!(lacks(|member| member.promoting = true), (false, true));
        assert_eq!(lacks(|member| member.rogue = true), (false, true));
        assert_eq!(lacks(|member| member.trouble = Some(Reason::Unheard)), (false, true));
    }

    fn snapshot(role: Role, gate: Gate) -> Snapshot {
        let n1 = MemberName::new("n1").unwrap();
        let member = MemberState {
            postgres: Endpoint::new("here", 5432).unwrap(),
            patroni_url: None,
            same_as: None,
            also_at: Vec::new(),
            addresses: Vec::new(),
            address_failure: None,
            role: Role::Unknown,
            trouble: None,
            promoting: false,
            awaits_first_report: false,
            listed: true,
            rogue: false,
            timeline: None,
            lag_bytes: None,
            lag: None,
            load_percent: None,
            clock_offset: None,
            poolers: BTreeMap::new(),
            tags: Tags::new(),
            health: Health::default(),
        };
        let state =
            ServiceState { role, lag_bytes_max: None, gates: BTreeMap::from([(n1.clone(), gate)]) };
        Snapshot {
            generation: 1,
            at: Moment::START,
            cluster: ClusterName::new("demo").unwrap(),
            scope: None,
            identity: IdentityState::default(),
            paused: false,
            etcd: None,
            unlisted: BTreeMap::new(),
            url_troubles: BTreeMap::new(),
            local: None,
            members: BTreeMap::from([(n1, member)]),
            services: BTreeMap::from([(ServiceName::new("write").unwrap(), state)]),
            events: VecDeque::new(),
            orders: Orders::default(),
        }
    }

    #[test]
    fn in_maintenance_mode_a_service_without_a_primary_reports_that_no_failover_happens() {
        let shut = Gate::new(Moment::START);
        let mut snapshot = snapshot(Role::Primary, shut);
        let write = ServiceName::new("write").unwrap();
        assert!(!snapshot.why_shut(&write).contains(NO_FAILOVER));
        snapshot.paused = true;
        assert!(snapshot.why_shut(&write).ends_with(NO_FAILOVER));
        if let Some(state) = snapshot.services.get_mut("write") {
            state.role = Role::Replica;
        }
        assert!(!snapshot.why_shut(&write).contains(NO_FAILOVER), "a replica is not promoted");
    }

    fn ends(snapshot: &Snapshot, service: &str, member: &str, dialled: &str) -> bool {
        let dialled = Endpoint::new(dialled, 5432).unwrap();
        let service = ServiceName::new(service).unwrap();
        snapshot.ends_session(&service, &MemberName::new(member).unwrap(), &dialled)
    }

    const OPEN: Gate = Gate::Open(OpenGate::new(Moment::START, 1));

    fn shut(sessions: Sessions) -> Gate {
        Gate::Shut {
            cause: Cause::Member,
            reason: Reason::Left(None),
            since: Moment::START,
            sessions,
        }
    }

    #[test]
    fn a_session_ends_when_its_gate_requires_it() {
        assert!(!ends(&snapshot(Role::Primary, shut(Sessions::Keep)), "write", "n1", "here"));
        assert!(ends(&snapshot(Role::Primary, shut(Sessions::End)), "write", "n1", "here"));
    }

    #[test]
    fn a_session_ends_when_its_member_or_service_is_forgotten() {
        let snapshot = snapshot(Role::Primary, OPEN);
        assert!(!ends(&snapshot, "write", "n1", "here"));
        assert!(ends(&snapshot, "write", "n2", "there"));
        // The server is known by another name since then.
        assert!(!ends(&snapshot, "write", "n2", "here"));
        assert!(ends(&snapshot, "other", "n1", "here"));
    }

    /// n1 is promoting, n2 is a replica.
    fn promotion() -> Snapshot {
        let mut snapshot = snapshot(Role::Primary, shut(Sessions::End));
        let n2 = MemberName::new("n2").unwrap();
        let member = snapshot.members.values_mut().next().unwrap();
        let replica = member.clone();
        member.promoting = true;
        snapshot.members.insert(n2.clone(), replica);
        let write = snapshot.services.values_mut().next().unwrap();
        write.gates.insert(n2.clone(), shut(Sessions::End));
        let gates =
            BTreeMap::from([(MemberName::new("n1").unwrap(), shut(Sessions::Keep)), (n2, OPEN)]);
        let read = ServiceState { role: Role::Replica, lag_bytes_max: None, gates };
        snapshot.services.insert(ServiceName::new("read").unwrap(), read);
        snapshot
    }

    fn put(snapshot: &mut Snapshot, service: &str, member: &str, gate: Gate) {
        let service = snapshot.services.get_mut(&ServiceName::new(service).unwrap()).unwrap();
        service.gates.insert(MemberName::new(member).unwrap(), gate);
    }

    fn promoting(snapshot: &Snapshot, service: &str) -> Option<String> {
        snapshot.promoting(&ServiceName::new(service).unwrap()).map(ToString::to_string)
    }

    fn ends_early(snapshot: &Snapshot, member: &str, dialled: &str) -> bool {
        let (service, dialled) =
            (ServiceName::new("write").unwrap(), Endpoint::new(dialled, 5432).unwrap());
        snapshot.ends_early_login(&service, &MemberName::new(member).unwrap(), &dialled)
    }

    #[test]
    fn a_member_promotes_for_services_that_want_a_primary_and_have_none() {
        let mut snapshot = promotion();
        assert_eq!(promoting(&snapshot, "write").as_deref(), Some("n1"));
        assert_eq!(promoting(&snapshot, "read"), None);
        assert_eq!(promoting(&snapshot, "other"), None);
        put(&mut snapshot, "write", "n2", OPEN);
        assert_eq!(promoting(&snapshot, "write"), None);
    }

    #[test]
    fn an_early_login_survives_the_end_of_old_sessions_and_a_failed_probe() {
        let mut snapshot = promotion();
        assert!(ends(&snapshot, "write", "n1", "here"));
        assert!(!ends_early(&snapshot, "n1", "here"));
        snapshot.members.values_mut().next().unwrap().trouble = Some(Reason::Unheard);
        assert!(!ends_early(&snapshot, "n1", "here"));
        put(&mut snapshot, "write", "n1", OPEN);
        assert!(!ends_early(&snapshot, "n1", "here"));
    }

    #[test]
    fn an_early_login_ends_when_its_promotion_cannot_serve_it_any_more() {
        let changed = |service: &str, member: &str| {
            let mut snapshot = promotion();
            put(&mut snapshot, service, member, OPEN);
            snapshot
        };
        assert!(ends_early(&changed("write", "n2"), "n1", "here"), "another is the primary");
        assert!(ends_early(&changed("read", "n1"), "n1", "here"), "it is a replica again");
        assert!(ends_early(&promotion(), "n1", "there"), "it moved");
        assert!(ends_early(&changed("write", "n1"), "n1", "there"), "it is open elsewhere");
        assert!(ends_early(&promotion(), "n3", "there"), "it is gone");
    }

    #[test]
    fn a_session_that_writes_ends_when_its_member_is_open_at_another_place() {
        assert!(ends(&snapshot(Role::Primary, OPEN), "write", "n1", "there"));
        assert!(!ends(&snapshot(Role::Replica, OPEN), "write", "n1", "there"));
    }

    #[test]
    fn a_session_goes_on_when_its_endpoint_is_listed_in_another_spelling() {
        let mut snapshot = snapshot(Role::Primary, OPEN);
        snapshot.members.values_mut().next().unwrap().also_at =
            vec![Endpoint::new("there", 5432).unwrap()];
        assert!(!ends(&snapshot, "write", "n1", "there"));
        assert!(!ends(&snapshot, "write", "n2", "there"), "nor if its name is another one");
        assert!(ends(&snapshot, "write", "n1", "elsewhere"));
    }
}

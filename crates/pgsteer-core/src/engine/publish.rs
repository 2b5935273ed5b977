//! Publishing: the Snapshot for the outputs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Engine;
use crate::claim::{Failure, PoolerFacts, Role};
use crate::gate_key::{GateKey, ROLES};
use crate::judge::fitness::{Lag, stall};
use crate::judge::listing::{Listing, MISSING_GRACE, listing};
use crate::judge::pooler_path::{PoolerPath, leads_to};
use crate::judge::{Member, Standing, Trust, is_rogue};
use crate::names::{ClusterName, MemberName};
use crate::rank::{left, stronger};
use crate::reason::Reason;
use crate::settings::{Config, ServiceConfig};
use crate::snapshot::{
    Health, IdentityState, MemberState, MembersFrom, PoolerState, ServiceState, Snapshot,
};
use crate::time::Moment;
use crate::view::Reading;

impl Engine {
    /// Returns the Snapshot with that number.
    pub(super) fn make_snapshot(&self, generation: u64, now: Moment) -> Snapshot {
        let members = self
            .roster
            .members()
            .iter()
            .map(|(name, member)| (name.clone(), self.member_state(name, member, now)));
        let services = self.gate_configs.iter().filter_map(|(key, required)| {
            let GateKey::Service(name) = key else { return None };
            let gates = self.gates[key].clone();
            let ServiceConfig { role, lag_bytes_max, .. } = *required;
            Some((name.clone(), ServiceState { role, lag_bytes_max, gates }))
        });
        Snapshot {
            generation,
            at: now,
            cluster: self.cluster_name(),
            scope: self.knowledge.identity().scope.clone(),
            identity: self.identity_state(),
            paused: self.paused,
            etcd: self.notices.etcd().cloned(),
            unlisted: self.unlisted.clone(),
            url_troubles: self.url_troubles(),
            local: self.local(now),
            members: members.collect(),
            services: services.collect(),
            events: self.history.events().clone(),
            orders: self.orders.clone(),
        }
    }

    /// The configured name, else Patroni's scope once that is known.
    fn cluster_name(&self) -> ClusterName {
        let scope = || ClusterName::new(self.knowledge.identity().scope.as_deref()?).ok();
        let given = self.cluster.name.clone();
        given.or_else(scope).unwrap_or_default()
    }

    fn member_state(&self, name: &MemberName, member: &Member, now: Moment) -> MemberState {
        let standing = &self.standings[name];
        let lag = match standing.role {
            Role::Replica => self.lag(member, now),
            Role::Primary | Role::StandbyLeader | Role::Unknown => Lag::default(),
        };
        let streams = stall(member, self.has_source, &self.rules, now).is_none();
        let rogue = is_rogue(member, standing, &self.rules);
        let refused = member.view.new_sessions_refused();
        let no_new_sessions = refused.map(|failure| Reason::NoNewSessions(failure.clone()));
        let trouble = stronger(standing.trouble().cloned(), no_new_sessions);
        let listing = listing(member, standing, streams, &self.rules, now);
        let trouble = match listing {
            Listing::Left if !rogue => Some(left(trouble.as_ref())),
            Listing::Missing => stronger(Some(Reason::NotListed(MISSING_GRACE)), trouble),
            Listing::Listed | Listing::Left => trouble,
        };
        let poolers = self.pooler_ports.iter().map(|port| {
            let trouble = self.path(name, *port).and_then(PoolerPath::trouble).cloned();
            let leads_to = match member.view.pooler(*port, now, &self.rules.freshness) {
                Reading::Fresh(PoolerFacts::Leads { in_recovery, .. }) => {
                    Some(leads_to(*in_recovery))
                }
                _ => None,
            };
            (*port, PoolerState { leads_to, trouble })
        });
        MemberState {
            postgres: member.found.postgres.clone(),
            patroni_url: member.found.patroni_url.clone(),
            same_as: member.same_as.clone(),
            also_at: member.also_at.clone(),
            addresses: member.view.addresses().to_vec(),
            address_failure: member.view.address_failure().cloned(),
            role: standing.role,
            trouble,
            promoting: standing.trust == Trust::Promoting && listing != Listing::Left,
            awaits_first_report: self.awaits_first_report(member, now),
            listed: member.left_at.is_none(),
            rogue,
            timeline: self.timeline(member, now),
            lag_bytes: lag.bytes,
            lag: lag.time,
            load_percent: self.loads.get(name).copied(),
            clock_offset: self.clock_offsets.get(name).copied(),
            poolers: poolers.collect(),
            tags: member
                .view
                .patroni_facts()
                .map(|newest| newest.answer.tags.clone())
                .unwrap_or_default(),
            health: self.health(member, standing, now),
        }
    }

    /// Returns true if no source has reported on the member yet. A host without an address cannot be
    /// asked, which is a report too.
    fn awaits_first_report(&self, member: &Member, now: Moment) -> bool {
        let freshness = &self.rules.freshness;
        matches!(member.view.patroni(now, freshness), Reading::Never)
            && matches!(member.view.tether(now, freshness), Reading::Never)
            && member.view.address_failure().is_none()
            && member.same_as.is_none()
    }

    fn health(&self, member: &Member, standing: &Standing, now: Moment) -> Health {
        let gates = |key: fn(Role) -> GateKey| {
            let gate = |role: Role| {
                let gate = self.gates.get(&key(role))?.get(&member.found.name)?;
                Some((role, gate.clone()))
            };
            ROLES.into_iter().filter_map(gate).collect()
        };
        let patroni = member.view.patroni(now, &self.rules.freshness);
        let facts = member.view.patroni_facts();
        Health {
            roles: gates(GateKey::Role),
            pooled: gates(GateKey::Pooled),
            // While its Patroni does not answer, the last answer counts, as with its tags.
            standby: facts.map(|newest| newest.answer.standby).unwrap_or_default(),
            // A member with a role answers, at least in its old sessions.
            postgres_trouble: match standing.role {
                Role::Unknown => Some(standing.trouble().cloned().unwrap_or(Reason::Unheard)),
                Role::Primary | Role::Replica | Role::StandbyLeader => member
                    .view
                    .new_sessions_refused()
                    .map(|failure| Reason::NoNewSessions(failure.clone())),
            },
            patroni_trouble: match patroni {
                Reading::Fresh(_) => None,
                Reading::Never => Some(Reason::Unheard),
                Reading::Stale => Some(Reason::Silent(self.rules.freshness.patroni)),
                Reading::Failed(failure) => Some(Reason::PatroniDown(failure.clone())),
            },
        }
    }

    /// The member on whose machine this process runs: the configured one, or the only one whose
    /// host is this machine.
    fn local(&self, now: Moment) -> Option<MemberName> {
        let is_listed = |member: &Member| member.left_at.is_none();
        let may_miss_its_key = |member: &Member| {
            member.left_at.is_none_or(|left_at| now.since(left_at) < MISSING_GRACE)
        };
        self.local_among(&is_listed).or_else(|| self.local_among(&may_miss_its_key))
    }

    fn local_among(&self, counts: &dyn Fn(&Member) -> bool) -> Option<MemberName> {
        let here = &self.cluster.here;
        let members = || self.roster.members().iter().filter(|(_, member)| counts(member));
        if let Some(name) = &here.name {
            return self.roster.members().contains_key(name).then(|| name.clone());
        }
        let only = |is_it: &dyn Fn(&Member) -> bool| {
            let mut found = members().filter(|(_, member)| is_it(member));
            let (name, _) = found.next()?;
            found.next().is_none().then(|| name.clone())
        };
        let is_asked = |member: &Member| {
            let url = member.found.patroni_url.as_deref().map(|url| url.trim_end_matches('/'));
            url.is_some() && url == here.patroni_url.as_deref()
        };
        only(&is_asked).or_else(|| only(&|member| member.view.is_here()))
    }

    /// Returns the cluster's identity as the Snapshot shows it.
    fn identity_state(&self) -> IdentityState {
        let strangers = self.knowledge.strangers();
        IdentityState {
            known: self.knowledge.identity().clone(),
            members_from: self.members_from,
            strangers: strangers.map(|(url, found)| (url.clone(), found.clone())).collect(),
            dispute: self.dispute(),
        }
    }

    /// The configured URLs that return no member list although another URL does. The URL of a
    /// listed member is excluded: its Patroni is asked as that member's, and the failure is shown
    /// at the member.
    fn url_troubles(&self) -> BTreeMap<Arc<str>, Failure> {
        if self.members_from != MembersFrom::Cluster {
            return BTreeMap::new();
        }
        let failing = self.failing_seeds.iter().filter(|(url, _)| self.is_wrong_seed(url));
        failing.map(|(url, failure)| (url.clone(), failure.clone())).collect()
    }

    pub(super) fn is_wrong_seed(&self, url: &Arc<str>) -> bool {
        let mut urls =
            self.roster.members().values().filter_map(|member| member.found.patroni_url.as_ref());
        self.failing_seeds.contains_key(url) && !urls.any(|of_member| of_member == url)
    }
}

/// Returns a Snapshot in which nothing is known yet.
pub(super) fn empty_snapshot(config: &Config, now: Moment) -> Snapshot {
    Snapshot {
        generation: 0,
        at: now,
        cluster: config.cluster.label(),
        scope: None,
        identity: IdentityState::default(),
        paused: false,
        etcd: None,
        unlisted: Default::default(),
        url_troubles: Default::default(),
        local: None,
        members: Default::default(),
        services: Default::default(),
        events: Default::default(),
        orders: Default::default(),
    }
}

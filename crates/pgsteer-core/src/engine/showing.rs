//! Showing: the Snapshot for the outputs, and the plan for the sources.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Engine;
use super::members::MembersFrom;
use crate::claim::{PoolerFacts, Role};
use crate::gate::Gate;
use crate::judge::fitness::{Lag, POOLER_GRACE, stall};
use crate::judge::listing::{Listing, MISSING_GRACE, listing};
use crate::judge::path::{Path, PutOff, Wait, leads_to, path};
use crate::judge::{Member, Standing, Trust, is_rogue};
use crate::names::MemberName;
use crate::pace::Need;
use crate::plan::{Ask, Lister, Plan, When};
use crate::post::{Post, ROLES};
use crate::rank::{left, stronger};
use crate::reason::Reason;
use crate::settings::{Config, ServiceConfig};
use crate::snapshot::{Health, IdentityState, MemberState, PoolerState, ServiceState, Snapshot};
use crate::time::Moment;
use crate::view::Word;

impl Engine {
    /// All that there is to show, as the Snapshot of that number.
    pub(super) fn make_snapshot(&self, generation: u64, now: Moment) -> Snapshot {
        let members = self
            .roster
            .members()
            .iter()
            .map(|(name, member)| (name.clone(), self.member_state(name, member, now)));
        let services = self.posts.iter().filter_map(|(post, wishes)| {
            let Post::Service(name) = post else { return None };
            let gates = self.gates[post].clone();
            let ServiceConfig { role, lag_bytes_max, .. } = *wishes;
            Some((name.clone(), ServiceState { role, lag_bytes_max, gates }))
        });
        Snapshot {
            generation,
            at: now,
            cluster: self.cluster.name.clone(),
            scope: self.knowledge.identity().scope.clone(),
            identity: self.identity_state(),
            paused: self.paused,
            etcd: self.notices.etcd().cloned(),
            unlisted: self.unlisted.clone(),
            local: self.local(now),
            members: members.collect(),
            services: services.collect(),
            events: self.history.events().clone(),
        }
    }

    fn member_state(&self, name: &MemberName, member: &Member, now: Moment) -> MemberState {
        let standing = &self.standings[name];
        let lag = match standing.role {
            Role::Replica => self.lag(member, now),
            Role::Primary | Role::StandbyLeader | Role::Unknown => Lag::default(),
        };
        let streams = stall(member, self.has_source(), &self.rules, now).is_none();
        let rogue = is_rogue(member, standing, &self.rules);
        let refused = member.view.new_sessions_refused();
        let no_new_sessions = refused.map(|failure| Reason::NoNewSessions(failure.clone()));
        let trouble = stronger(standing.trouble().cloned(), no_new_sessions);
        let trouble = match listing(member, standing, streams, &self.rules, now) {
            Listing::Left if !rogue => Some(left(trouble.as_ref())),
            Listing::Missing => stronger(Some(Reason::NotListed(MISSING_GRACE)), trouble),
            Listing::Listed | Listing::Left => trouble,
        };
        let poolers = self.pooler_ports.iter().map(|port| {
            let trouble = self.path(name, member, *port, now).trouble().cloned();
            let leads_to = match member.view.pooler(*port, now, &self.rules.freshness) {
                Word::Said(PoolerFacts::Leads { in_recovery, .. }) => Some(leads_to(*in_recovery)),
                _ => None,
            };
            (*port, PoolerState { leads_to, trouble })
        });
        MemberState {
            postgres: member.found.postgres.clone(),
            patroni_url: member.found.patroni_url.clone(),
            same_as: member.same_as.clone(),
            addresses: member.view.addresses().to_vec(),
            address_failure: member.view.address_failure().cloned(),
            role: standing.role,
            trouble,
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
                .map(|heard| heard.said.tags.clone())
                .unwrap_or_default(),
            health: self.health(member, standing, now),
        }
    }

    fn health(&self, member: &Member, standing: &Standing, now: Moment) -> Health {
        let gates = |post: fn(Role) -> Post| {
            let gate = |role: Role| {
                let gate = self.gates.get(&post(role))?.get(&member.found.name)?;
                Some((role, gate.clone()))
            };
            ROLES.into_iter().filter_map(gate).collect()
        };
        let patroni = member.view.patroni(now, &self.rules.freshness);
        let facts = member.view.patroni_facts();
        Health {
            roles: gates(Post::Role),
            pooled: gates(Post::Pooled),
            // While its Patroni is silent it is what it was, as its tags are.
            standby: facts.map(|heard| heard.said.standby).unwrap_or_default(),
            // A member with a role answers, at least its old sessions.
            postgres_trouble: match standing.role {
                Role::Unknown => Some(standing.trouble().cloned().unwrap_or(Reason::Unheard)),
                Role::Primary | Role::Replica | Role::StandbyLeader => member
                    .view
                    .new_sessions_refused()
                    .map(|failure| Reason::NoNewSessions(failure.clone())),
            },
            patroni_trouble: match patroni {
                Word::Said(_) => None,
                Word::Unheard => Some(Reason::Unheard),
                Word::Expired => Some(Reason::Silent(self.rules.freshness.patroni)),
                Word::Failed(failure) => Some(Reason::PatroniDown(failure.clone())),
            },
        }
    }

    /// The member on whose machine we are: the one that the configuration names, or the only one
    /// whose host is this machine.
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

    fn path(&self, name: &MemberName, member: &Member, port: u16, now: Moment) -> Path {
        let role = (self.standings[name].role, self.role_since(name));
        path(member, port, role, &self.rules, now)
    }

    /// When it ceases to make sense to wait in the poolers that are paused or full, or put off.
    pub(super) fn waits_end(&self, now: Moment) -> impl Iterator<Item = Moment> {
        let ports = |(name, member)| self.pooler_ports.iter().map(move |port| (name, member, port));
        self.roster.members().iter().flat_map(ports).filter_map(move |(name, member, port)| {
            match self.path(name, member, *port, now) {
                Path::Busy(Wait { until, .. }) | Path::PutsOff(PutOff { until, .. }) => Some(until),
                _ => None,
            }
        })
    }

    /// The member may be relied on, and only the next word on one of its poolers is missing since
    /// it took its role, or since its server was started. That word comes soon or tells nothing: a
    /// pooler that leads here and there is not asked in haste for ever.
    fn is_pooler_behind(&self, name: &MemberName, member: &Member, now: Moment) -> bool {
        let ran_since = member.view.server_run().map_or(Moment::START, |run| run.first_asked);
        let began = self.role_since(name).max(ran_since);
        let is_awaited =
            |port: &u16| matches!(self.path(name, member, *port, now), Path::Awaited(_));
        now.since(began) < POOLER_GRACE
            && !self.standings[name].trust.is_refused()
            && self.pooler_ports.iter().any(is_awaited)
    }

    /// Nobody goes through a pooler to a server that is down: PgBouncer puts off whoever tries, and
    /// all who come after, for as long as `server_login_retry` says. A knock does not get so far.
    fn poolers_to_ask(&self, name: &MemberName) -> BTreeSet<u16> {
        match self.rules.has_tether && self.standings[name].role == Role::Unknown {
            true => BTreeSet::new(),
            false => self.pooler_ports.clone(),
        }
    }

    /// Writers are led to a member whose Patroni does not answer.
    fn is_primary_in_doubt(&self) -> bool {
        let of_writers = self.posts.iter().filter(|(_, wishes)| wishes.role == Role::Primary);
        let mut gates = of_writers.flat_map(|(post, _)| &self.gates[post]);
        gates.any(|(name, gate)| gate.without_order().is_open() && self.is_patroni_lost(name))
    }

    fn is_patroni_lost(&self, name: &MemberName) -> bool {
        let trust = self.standings.get(name).map(|standing| &standing.trust);
        matches!(trust, Some(Trust::AsItWas(Reason::PatroniLost(..))))
    }

    /// What the Snapshot shows of the cluster's identity.
    fn identity_state(&self) -> IdentityState {
        let strangers = self.knowledge.strangers();
        IdentityState {
            known: self.knowledge.identity().clone(),
            members_from: self.members_from,
            strangers: strangers.map(|(url, found)| (url.clone(), found.clone())).collect(),
            dispute: self.dispute(),
        }
    }

    /// The URLs that are asked for the member list: members first, then those that left, then the
    /// configured ones. URLs of another cluster come last.
    fn listers(&self) -> Vec<Lister> {
        if !self.rules.has_patroni {
            return Vec::new();
        }
        let has_list = self.members_from == MembersFrom::Cluster;
        let seeds = self.cluster.seeds();
        let seeds = seeds.iter().map(|url| Arc::from(url.trim_end_matches('/')));
        let asked = self.roster.members().values().filter(|member| member.same_as.is_none());
        let of_members = |is_listed: bool| {
            let members = asked.clone().filter(move |member| member.is_listed() == is_listed);
            members.filter_map(|member| member.found.patroni_url.clone())
        };
        let urls = of_members(true).chain(of_members(false)).chain(seeds.clone());
        let mut listers: Vec<Lister> = Vec::new();
        let mut known: BTreeSet<Arc<str>> = BTreeSet::new();
        for url in urls {
            if !known.insert(url.clone()) {
                continue;
            }
            let is_unheard =
                || !self.knowledge.was_heard(&url) && seeds.clone().any(|it| it == url);
            let when = match self.knowledge.is_stranger(&url) {
                _ if !has_list || is_unheard() => When::Always,
                true => When::Last,
                false => When::InTurn,
            };
            listers.push(Lister { url, when });
        }
        listers.sort_by_key(|lister| lister.when);
        listers
    }

    /// The scope as Patroni's keys in etcd have it: with the group of a Citus cluster.
    fn scope_in_etcd(&self) -> Option<Arc<str>> {
        let known = self.knowledge.identity();
        let scope = known.scope.as_deref()?;
        Some(match known.group {
            Some(group) => Arc::from(format!("{scope}/{group}")),
            None => Arc::from(scope),
        })
    }

    /// Whom the sources ask, and how often, as things are.
    pub(super) fn make_plan(&self, now: Moment) -> Plan {
        let is_promoting =
            |name: &MemberName| self.standings[name].trouble() == Some(&Reason::Promoting);
        let promoting = self.roster.members().keys().find(|name| is_promoting(name));
        let in_doubt = self.is_primary_in_doubt();
        let ask = |(name, member): (&MemberName, &Member)| {
            let gates = || self.gates.values().filter_map(|gates| gates.get(name));
            let need = Need {
                // A lock that has moved, and nobody here has said so yet, is worth the same haste.
                primary_missing: self
                    .primary_missing_since
                    .or_else(|| self.lock_moved_at(now))
                    .map(|since| now.since(since)),
                promoting: is_promoting(name),
                other_promoting: promoting.is_some_and(|promoting| promoting != name),
                in_doubt,
                in_probation: gates().any(|gate| matches!(gate, Gate::Probation { .. })),
                has_tether: self.rules.has_tether,
                pooler_behind: self.is_pooler_behind(name, member, now),
            };
            // A server that has two names is asked under one of them.
            let is_asked = member.same_as.is_none();
            let ask = Ask {
                postgres: member.found.postgres.clone(),
                addresses: member.view.addresses().to_vec(),
                patroni_url: member.found.patroni_url.clone().filter(|_| is_asked),
                poolers: match is_asked && !member.is_url_only {
                    true => self.poolers_to_ask(name),
                    false => BTreeSet::new(),
                },
                has_tether: is_asked && !member.is_url_only,
                pace: need.pace(),
            };
            (name.clone(), ask)
        };
        Plan {
            members: self.roster.members().iter().map(ask).collect(),
            listers: self.listers(),
            scope: self.scope_in_etcd(),
        }
    }
}

/// A Snapshot in which nothing is known yet.
pub(super) fn empty_snapshot(config: &Config, now: Moment) -> Snapshot {
    Snapshot {
        generation: 0,
        at: now,
        cluster: config.cluster.name.clone(),
        scope: None,
        identity: IdentityState::default(),
        paused: false,
        etcd: None,
        unlisted: Default::default(),
        local: None,
        members: Default::default(),
        services: Default::default(),
        events: Default::default(),
    }
}

//! Planning: which members and URLs the sources ask, and how often.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use crate::claim::{Failure, Role};
use crate::gate::Gate;
use crate::judge::fitness::POOLER_GRACE;
use crate::judge::pooler_path::PoolerPath;
use crate::judge::{Member, Trust};
use crate::names::MemberName;
use crate::pace::Need;
use crate::plan::{Ask, Lister, Plan, When};
use crate::snapshot::MembersFrom;
use crate::time::Moment;
use crate::view::Reading;

impl Engine {
    /// Returns which members the sources ask now, and how often.
    pub(super) fn make_plan(&self, now: Moment) -> Plan {
        let is_promoting = |name: &MemberName| self.standings[name].trust == Trust::Promoting;
        let promoting = self.roster.members().keys().find(|name| is_promoting(name));
        let in_doubt = self.is_primary_in_doubt();
        let ask = |(name, member): (&MemberName, &Member)| {
            let gates = || self.gates.values().filter_map(|gates| gates.get(name));
            let need = Need {
                // A moved lock that no member has reported yet needs the same pace.
                primary_missing: self
                    .primary_missing_since
                    .or_else(|| self.lock_moved_at(now))
                    .map(|since| now.since(since)),
                promoting: is_promoting(name).then(|| self.has_held_lock_for(member, now)),
                other_promoting: promoting.is_some_and(|promoting| promoting != name),
                in_doubt,
                in_probation: (self.rules.has_patroni && member.view.awaits_identification())
                    || gates().any(|gate| matches!(gate, Gate::Probation { .. })),
                has_tether: self.rules.has_tether,
                pooler_behind: self.is_pooler_behind(name, member, now),
            };
            // A server with two names is asked under one of them.
            let is_asked = member.same_as.is_none();
            let ask = Ask {
                postgres: member.found.postgres.clone(),
                addresses: member.view.addresses().to_vec(),
                new_host: member.new_host.as_ref().map(|it| it.found.postgres.clone()),
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
            listers: self.listers(now),
            scope: self.knowledge.identity().scope_in_etcd().map(Arc::from),
        }
    }

    /// How long the member has claimed the leader lock.
    fn has_held_lock_for(&self, member: &Member, now: Moment) -> Duration {
        let run = member.view.lock_run(now, &self.rules.freshness);
        run.map_or(Duration::ZERO, |run| now.since(run.first_heard))
    }

    /// The URLs that are asked for the member list: those of members first, then those of members
    /// that left, then the configured ones. URLs of another cluster come last.
    fn listers(&self, now: Moment) -> Vec<Lister> {
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
                false if self.is_wrong_seed(&url) || self.is_renamed(&url, now) => When::Always,
                false => When::InTurn,
            };
            listers.push(Lister { url, when });
        }
        listers.sort_by_key(|lister| lister.when);
        listers
    }

    /// Returns true if the Patroni at that URL reports a name of this cluster that no list has contained
    /// yet: it is asked for the list at once, and every 2 s until the list contains the name.
    fn is_renamed(&self, url: &Arc<str>, now: Moment) -> bool {
        let members = self.roster.members();
        let mut of_url = members.values().filter(|it| it.found.patroni_url.as_ref() == Some(url));
        of_url.any(|member| match member.view.patroni(now, &self.rules.freshness) {
            Reading::Failed(Failure::OtherMember { name, is_of_cluster: true }) => {
                member.same_as.is_none() && !members.contains_key(&**name)
            }
            _ => false,
        })
    }

    /// Returns true if the member is trusted, and only the answer of one of its poolers is missing
    /// since the member took its role or its server was started. The fast pace ends after
    /// [`POOLER_GRACE`]: a pooler that alternates between two servers must not be asked at that
    /// pace for ever.
    fn is_pooler_behind(&self, name: &MemberName, member: &Member, now: Moment) -> bool {
        let ran_since = member.view.server_run().map_or(Moment::START, |run| run.first_asked);
        let began = self.role_since(name).max(ran_since);
        let is_awaited =
            |port: &u16| matches!(self.path(name, *port), Some(PoolerPath::Awaited(_)));
        now.since(began) < POOLER_GRACE
            && !self.standings[name].trust.is_refused()
            && self.pooler_ports.iter().any(is_awaited)
    }

    /// Returns the ports of the poolers to ask. Poolers of a server that is down are not asked:
    /// after a failed login PgBouncer refuses all clients for `server_login_retry`. A connection
    /// without a login does not have that effect.
    fn poolers_to_ask(&self, name: &MemberName) -> BTreeSet<u16> {
        match self.rules.has_tether && self.standings[name].role == Role::Unknown {
            true => BTreeSet::new(),
            false => self.pooler_ports.clone(),
        }
    }

    /// Returns true if a write gate is open for a member whose Patroni does not answer.
    fn is_primary_in_doubt(&self) -> bool {
        let of_writers =
            self.gate_configs.iter().filter(|(_, required)| required.role == Role::Primary);
        let mut gates = of_writers.flat_map(|(key, _)| &self.gates[key]);
        gates.any(|(name, gate)| gate.open_or_held_back().is_some() && self.is_patroni_lost(name))
    }

    fn is_patroni_lost(&self, name: &MemberName) -> bool {
        let trust = self.standings.get(name).map(|standing| &standing.trust);
        matches!(trust, Some(Trust::PatroniLost(_)))
    }
}

//! Showing: the Snapshot for the outputs, and the plan for the sources.

use super::Engine;
use crate::claim::Role;
use crate::config::Config;
use crate::gate::Gate;
use crate::judge::fitness::Lag;
use crate::judge::{Member, Standing};
use crate::names::MemberName;
use crate::pace::Need;
use crate::plan::{Ask, Plan};
use crate::reason::Reason;
use crate::snapshot::{MemberState, ServiceState, Snapshot};
use crate::time::Moment;

impl Engine {
    /// All that there is to show, as the Snapshot of that number.
    pub(super) fn make_snapshot(&self, generation: u64, now: Moment) -> Snapshot {
        let members = self.roster.members().iter().map(|(name, member)| {
            (name.clone(), self.member_state(member, &self.standings[name], now))
        });
        let services = self.services.iter().map(|(name, service)| {
            let gates = self.gates[name].clone();
            (name.clone(), ServiceState { role: service.role, gates })
        });
        Snapshot {
            generation,
            at: now,
            cluster: self.cluster.name.clone(),
            scope: self.roster.identity().scope.clone(),
            paused: self.paused,
            members: members.collect(),
            services: services.collect(),
            events: self.history.events().clone(),
        }
    }

    fn member_state(&self, member: &Member, standing: &Standing, now: Moment) -> MemberState {
        let lag = match standing.role {
            Role::Replica => self.lag(member, now),
            Role::Primary | Role::StandbyLeader | Role::Unknown => Lag::default(),
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

    /// Whom the sources ask, and how often, as things are.
    pub(super) fn make_plan(&self, now: Moment) -> Plan {
        let is_promoting =
            |name: &MemberName| self.standings[name].trouble() == Some(&Reason::Promoting);
        let promoting = self.roster.members().keys().find(|name| is_promoting(name));
        let ask = |(name, member): (&MemberName, &Member)| {
            let gates = || self.gates.values().filter_map(|gates| gates.get(name));
            let need = Need {
                primary_missing: self.primary_missing_since.map(|since| now.since(since)),
                promoting: is_promoting(name),
                other_promoting: promoting.is_some_and(|promoting| promoting != name),
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
        self.roster.members().iter().map(ask).collect()
    }
}

/// A Snapshot in which nothing is known yet.
pub(super) fn empty_snapshot(config: &Config, now: Moment) -> Snapshot {
    Snapshot {
        generation: 0,
        at: now,
        cluster: config.cluster.name.clone(),
        scope: None,
        paused: false,
        members: Default::default(),
        services: Default::default(),
        events: Default::default(),
    }
}

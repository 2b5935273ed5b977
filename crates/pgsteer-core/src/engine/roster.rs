//! The roster: which members there are, and what has been said of each.

use std::collections::{BTreeMap, BTreeSet};

use super::LEFT_MEMORY;
use crate::claim::{Claim, Found, PatroniFacts, Topology};
use crate::config::limits::MEMBERS_MAX;
use crate::event::EventKind;
use crate::judge::{Identity, Member, Members};
use crate::names::MemberName;
use crate::time::Moment;
use crate::view::View;

/// The members of the cluster, and how we know them.
#[derive(Debug, Default)]
pub(super) struct Roster {
    members: Members,
    identity: Identity,
    /// The scope that `/cluster` told: it needs no vote.
    listed_scope: Option<String>,
    /// When the question was sent to the newest answer of `/cluster`.
    topology_asked_at: Option<Moment>,
    /// The scope of the last topology that was ignored, so that it is told once only.
    strange_scope: Option<String>,
}

impl Roster {
    /// All members, those that left not long ago included.
    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    /// What the members of this cluster have in common.
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Takes in what a source said of a member; of one that is not known it is ignored.
    pub(super) fn take_claim(&mut self, claim: Claim, now: Moment) -> Option<EventKind> {
        let member = self.members.get_mut(&claim.member)?;
        let had_failure = member.view.address_failure().is_some();
        let name = claim.member.clone();
        member.view.apply(claim, now);
        let failure = member.view.address_failure().filter(|_| !had_failure).cloned();
        self.learn_identity();
        let failure = failure?;
        Some(EventKind::AddressLost { member: name, failure })
    }

    /// Takes in what one Patroni said of which members there are.
    pub(super) fn take_topology(&mut self, topology: Topology, now: Moment) -> Vec<EventKind> {
        // A running Patroni lists itself at least: an empty list is a fault of the asked one.
        if topology.members.is_empty() {
            return Vec::new();
        }
        if let Some((found, expected)) = self.strange(topology.scope.as_deref()) {
            let told = self.strange_scope.replace(found.clone());
            let is_news = told.as_ref() != Some(&found);
            return is_news
                .then_some(EventKind::StrangeCluster { found, expected })
                .into_iter()
                .collect();
        }
        self.strange_scope = None;
        // Two members may be asked in turn, and the slower answer may be the older one.
        if self.topology_asked_at.is_some_and(|newest| topology.asked_at < newest) {
            return Vec::new();
        }
        let is_first = self.topology_asked_at.replace(topology.asked_at).is_none();
        self.listed_scope = topology.scope.or(self.listed_scope.take());
        self.learn_identity();
        let mut listed = topology.members;
        if topology.paused && !is_first {
            listed.extend(self.unlisted(&listed));
        }
        self.enlist(listed, now)
    }

    /// The members that an answer does not list. In maintenance mode a Patroni may be stopped while
    /// its PostgreSQL goes on, and its key in etcd ends some seconds later: it has not left.
    fn unlisted(&self, listed: &[Found]) -> Vec<Found> {
        let present = self.members.values().filter(|member| member.left_at.is_none());
        let is_listed = |name: &MemberName| listed.iter().any(|found| found.name == *name);
        let unlisted = present.filter(|member| !is_listed(&member.found.name));
        unlisted.map(|member| member.found.clone()).collect()
    }

    /// The scope found and the one expected, where they differ.
    fn strange(&self, scope: Option<&str>) -> Option<(String, String)> {
        let (found, expected) = (scope?, self.listed_scope.as_deref()?);
        (found != expected).then(|| (found.to_owned(), expected.to_owned()))
    }

    /// Makes the roster what `found` says: the others have left. Those beyond [`MEMBERS_MAX`], in
    /// the order of `/cluster`, are ignored.
    pub(super) fn enlist(&mut self, found: Vec<Found>, now: Moment) -> Vec<EventKind> {
        let found: BTreeMap<MemberName, Found> =
            found.into_iter().take(MEMBERS_MAX).map(|found| (found.name.clone(), found)).collect();
        let mut events = Vec::new();
        for (name, member) in &mut self.members {
            if member.left_at.is_none() && !found.contains_key(name) {
                member.left_at = Some(now);
                events.push(EventKind::Left { member: name.clone() });
            }
        }
        events.extend(found.into_values().filter_map(|found| self.enlist_one(found, now)));
        self.forget_beyond_limit();
        events
    }

    /// Forgets those that left first, where names come and go faster than they are forgotten: as
    /// many that have left are remembered as there may be members.
    fn forget_beyond_limit(&mut self) {
        let left = self.members.iter().filter_map(|(name, member)| Some((member.left_at?, name)));
        let mut left: Vec<_> = left.map(|(left_at, name)| (left_at, name.clone())).collect();
        left.sort();
        for (_, name) in left.iter().rev().skip(MEMBERS_MAX) {
            self.members.remove(name);
        }
    }

    /// Forgets which cluster this is: the configuration names another place to learn it from.
    pub(super) fn forget_identity(&mut self) {
        self.identity = Identity::default();
        self.listed_scope = None;
        self.topology_asked_at = None;
        self.strange_scope = None;
    }

    /// Forgets what was said of poolers that are not on `ports`.
    pub(super) fn keep_poolers(&mut self, ports: &BTreeSet<u16>) {
        for member in self.members.values_mut() {
            member.view.keep_poolers(ports);
        }
    }

    fn enlist_one(&mut self, found: Found, now: Moment) -> Option<EventKind> {
        let (name, postgres) = (found.name.clone(), found.postgres.clone());
        let Some(member) = self.members.get_mut(&name) else {
            let member = Member { found, left_at: None, view: View::new(now) };
            self.members.insert(name.clone(), member);
            return Some(EventKind::Joined { member: name, postgres });
        };
        let moved = member.found.postgres != found.postgres;
        let returned = member.left_at.take().is_some();
        if moved {
            member.view = member.view.of_another_place(now);
        }
        member.found = found;
        match (moved, returned) {
            (true, _) => Some(EventKind::Moved { member: name, postgres }),
            (false, true) => Some(EventKind::Joined { member: name, postgres }),
            (false, false) => None,
        }
    }

    /// Learns what the members have in common: by the first that tells, and from then on by more
    /// than half of those that have told. One address that leads to another cluster cannot pass
    /// itself off as this one, and a cluster that was made anew is known again in the end.
    fn learn_identity(&mut self) {
        let told = |pick: fn(&PatroniFacts) -> &Option<String>| {
            let present = self.members.values().filter(|member| member.left_at.is_none());
            let facts = present.filter_map(|member| member.view.patroni_facts());
            majority(facts.filter_map(|heard| pick(&heard.said).as_ref()))
        };
        let scope = self.listed_scope.clone().or_else(|| told(|facts| &facts.scope));
        let system_identifier = told(|facts| &facts.system_identifier);
        let Identity { scope: old_scope, system_identifier: old_system } = &mut self.identity;
        *old_scope = scope.or(old_scope.take());
        *old_system = system_identifier.or(old_system.take());
    }

    /// Forgets those that left long ago.
    pub(super) fn forget_the_gone(&mut self, now: Moment) {
        self.members.retain(|_, member| {
            member.left_at.is_none_or(|left_at| now.since(left_at) < LEFT_MEMORY)
        });
    }
}

/// What more than half of them say.
fn majority<'a>(told: impl Iterator<Item = &'a String>) -> Option<String> {
    let mut votes: BTreeMap<&String, usize> = BTreeMap::new();
    for word in told {
        *votes.entry(word).or_default() += 1;
    }
    let all: usize = votes.values().sum();
    votes.into_iter().find(|(_, votes)| votes * 2 > all).map(|(word, _)| word.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Endpoint;

    fn found(name: &str, host: &str) -> Found {
        Found {
            name: MemberName::new(name).unwrap(),
            postgres: Endpoint::new(host, 5432).unwrap(),
            patroni_url: None,
        }
    }

    #[test]
    fn names_that_come_and_go_do_not_pile_up() {
        let mut roster = Roster::default();
        for second in 0..500 {
            let name = format!("pod-{second}");
            let listed = vec![found("n1", "n1"), found(&name, &name)];
            roster.enlist(listed, Moment::from_millis(second * 1_000));
        }
        assert_eq!(roster.members().len(), 2 + MEMBERS_MAX);
        assert!(roster.members().contains_key("n1"));
        assert!(roster.members().contains_key("pod-498"), "the one that left last is remembered");
        assert!(!roster.members().contains_key("pod-400"), "one that left long before is not");
    }

    #[test]
    fn of_too_many_members_the_first_are_taken() {
        let listed: Vec<Found> =
            (0..1_000).map(|index| found(&format!("n{index:03}"), "h")).collect();
        let mut roster = Roster::default();
        let events = roster.enlist(listed, Moment::START);
        assert_eq!((roster.members().len(), events.len()), (MEMBERS_MAX, MEMBERS_MAX));
        assert!(roster.members().contains_key("n063"));
    }

    #[test]
    fn half_of_the_votes_are_no_majority() {
        let [a, b] = ["a", "b"].map(str::to_owned);
        assert_eq!(majority([&a, &b].into_iter()), None);
        assert_eq!(majority([&a, &b, &a].into_iter()), Some(a));
        assert_eq!(majority(std::iter::empty()), None);
    }
}

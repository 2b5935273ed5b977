//! The roster: the members and the claims about each.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::IpAddr;
use std::time::Duration;

use super::LEFT_MEMORY;
use super::places::{is_at, is_same_place, is_same_postgres, twins};
use crate::claim::{Claim, Fact, Failure, Found, Topology};
use crate::event::EventKind;
use crate::identity::Identity;
use crate::judge::{Member, Members, NewHost};
use crate::names::{Endpoint, MemberName};
use crate::settings::defaults::MEMBERS_MAX;
use crate::time::Moment;
use crate::view::View;

/// The maximum number of other spellings of one endpoint.
const SPELLINGS_MAX: usize = 8;

/// How long the addresses of another host in the list are awaited. After that the member has moved.
pub(super) const NEW_HOST_WAIT: Duration = Duration::from_secs(2);

/// The members of the cluster.
#[derive(Debug, Default)]
pub(super) struct Roster {
    members: Members,
    /// When the newest answer of `/cluster` was asked for.
    topology_asked_at: Option<Moment>,
    /// The servers that were renamed since the engine last asked, as (old, new).
    renamed: Vec<(MemberName, MemberName)>,
}

impl Roster {
    /// All members, including those that left recently.
    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    /// Applies a claim about a member; a claim about an unknown member is ignored.
    ///
    /// If another member's Patroni answers at this member's URL, the claim becomes a failure.
    pub(super) fn take_claim(
        &mut self,
        mut claim: Claim,
        identity: &Identity,
        now: Moment,
    ) -> Vec<EventKind> {
        if let Fact::NewHost { postgres, addresses } = &claim.fact {
            return self.take_new_host(&claim.member, postgres, addresses, now);
        }
        let Some(member) = self.members.get_mut(&claim.member) else { return Vec::new() };
        let had_failure = member.view.address_failure().is_some();
        let name = claim.member.clone();
        let resolves = matches!(claim.fact, Fact::Addresses(_));
        let reported = member.view.reported_name().map(|(_, name)| name.clone());
        if let Fact::Patroni(Ok(facts)) = &claim.fact {
            member.view.note_reported_name(facts.name.as_deref(), claim.asked_at.min(now));
            let is_other = facts.about().is_other_than(&name);
            if is_other && identity.contradiction(&facts.identity()).is_none() {
                claim.fact = Fact::Patroni(Err(Failure::OtherMember {
                    name: facts.name.as_deref().unwrap_or_default().into(),
                    is_of_cluster: identity.has_system_of(&facts.identity()),
                }));
            }
        }
        member.view.apply(claim, now);
        let is_renamed = reported != member.view.reported_name().map(|(_, name)| name.clone());
        let failure = member.view.address_failure().filter(|_| !had_failure).cloned();
        let mut events = Vec::new();
        events.extend(failure.map(|failure| EventKind::AddressLost { member: name, failure }));
        if resolves || is_renamed {
            events.extend(self.find_twins(now));
        }
        events
    }

    /// Applies an accepted member list.
    pub(super) fn take_topology(&mut self, topology: Topology, now: Moment) -> Vec<EventKind> {
        // Two members may be asked one after the other, and the slower answer may be the older one.
        if self.topology_asked_at.is_some_and(|newest| topology.asked_at < newest) {
            return Vec::new();
        }
        let is_first = self.topology_asked_at.replace(topology.asked_at).is_none();
        let mut listed = topology.members;
        if topology.paused && !is_first {
            listed.extend(self.unlisted(&listed));
        }
        self.enlist(listed, now)
    }

    /// The present members that a list does not name. In maintenance mode a Patroni may be stopped
    /// while its PostgreSQL continues. Its key in etcd expires some seconds later, but the member
    /// has not left, unless the list names its server under another name.
    fn unlisted(&self, listed: &[Found]) -> Vec<Found> {
        let present = self.members.values().filter(|member| member.is_listed());
        let is_listed = |member: &Member| {
            let ports_known = !member.is_url_only;
            listed.iter().any(|found| {
                found.name == member.found.name || is_same_place(found, &member.found, ports_known)
            })
        };
        let unlisted = present.filter(|member| !is_listed(member) && !member.is_url_only);
        unlisted.map(|member| member.found.clone()).collect()
    }

    /// Sets the members to `found`: all others have left. Entries beyond [`MEMBERS_MAX`], in the
    /// order of `/cluster`, are ignored.
    pub(super) fn enlist(&mut self, found: Vec<Found>, now: Moment) -> Vec<EventKind> {
        let mut events = Vec::new();
        let found = self.without_duplicates(found, &mut events);
        for (name, member) in &mut self.members {
            if member.is_listed() && !found.contains_key(name) {
                member.left_at = Some(now);
                // A member with a known URL only never served.
                if !member.is_url_only {
                    events.push(EventKind::Left { member: name.clone() });
                }
            }
        }
        events.extend(found.into_values().filter_map(|found| self.enlist_one(found, now)));
        events.extend(self.find_twins(now));
        self.members.retain(|_, member| member.is_listed() || !member.is_url_only);
        self.forget_beyond_limit();
        events
    }

    /// Adds a member of which only the URL of its Patroni is known.
    pub(super) fn enlist_url(&mut self, found: Found, now: Moment) -> Vec<EventKind> {
        let is_known = |member: &Member| is_same_place(&member.found, &found, false);
        if self.members.contains_key(&found.name)
            || self.members.values().any(is_known)
            || self.members.len() >= MEMBERS_MAX
        {
            return Vec::new();
        }
        let (name, url) = (found.name.clone(), found.patroni_url.clone().unwrap_or_default());
        let member = Member { is_url_only: true, ..new_member(found, now) };
        self.members.insert(name.clone(), member);
        vec![EventKind::FoundByUrl { member: name, url }]
    }

    /// Removes duplicate names: the entry with the known endpoint is kept, else the first.
    fn without_duplicates(
        &self,
        found: Vec<Found>,
        events: &mut Vec<EventKind>,
    ) -> BTreeMap<MemberName, Found> {
        let mut by_name: BTreeMap<MemberName, Found> = BTreeMap::new();
        for found in found.into_iter().take(MEMBERS_MAX) {
            let Some(first) = by_name.get_mut(&found.name) else {
                by_name.insert(found.name.clone(), found);
                continue;
            };
            if *first == found {
                continue;
            }
            let known = self.members.get(&found.name).map(|member| &member.found);
            let ignored = match known == Some(&found) {
                true => mem::replace(first, found),
                false => found,
            };
            events.push(EventKind::DuplicateName {
                member: ignored.name,
                taken: first.postgres.clone(),
                ignored: ignored.postgres,
            });
        }
        by_name
    }

    /// Limits the number of members that have left to [`MEMBERS_MAX`]. The oldest are forgotten
    /// first, in case names come and go faster than they expire.
    fn forget_beyond_limit(&mut self) {
        let left = self.members.iter().filter_map(|(name, member)| Some((member.left_at?, name)));
        let mut left: Vec<_> = left.map(|(left_at, name)| (left_at, name.clone())).collect();
        left.sort();
        for (_, name) in left.iter().rev().skip(MEMBERS_MAX) {
            self.members.remove(name);
        }
    }

    /// Forgets when the last list was asked for: a list of another cluster may follow.
    pub(super) fn forget_lists(&mut self) {
        self.topology_asked_at = None;
    }

    /// Forgets the last answers of members that do not answer now: the scope has been renamed, so
    /// their old scope is no contradiction.
    pub(super) fn forget_last_facts(&mut self) {
        for member in self.members.values_mut() {
            member.view.forget_last_facts();
        }
    }

    /// Forgets the answers of poolers that are not on `ports`.
    pub(super) fn keep_poolers(&mut self, ports: &BTreeSet<u16>) {
        for member in self.members.values_mut() {
            member.view.keep_poolers(ports);
        }
    }

    fn enlist_one(&mut self, found: Found, now: Moment) -> Option<EventKind> {
        let (name, postgres) = (found.name.clone(), found.postgres.clone());
        let Some(member) = self.members.get_mut(&name) else {
            self.members.insert(name.clone(), new_member(found, now));
            return Some(EventKind::Joined { member: name, postgres });
        };
        // The first list contains the PostgreSQL endpoint of a member that was known by its URL.
        let was_url_only = mem::take(&mut member.is_url_only);
        member.was_url_only |= was_url_only;
        let returned = member.left_at.take().is_some();
        let old = member.new_host.take();
        if was_url_only || member.found.postgres == found.postgres {
            if was_url_only && !is_same_place(&member.found, &found, false) {
                // The known URL and the listed one may be those of two servers: the member has moved, and
                // the list is older than that.
                member.view = member.view.of_another_place(now);
            }
            member.found = found;
            let is_new = returned || was_url_only;
            return is_new.then_some(EventKind::Joined { member: name, postgres });
        }
        match is_at(member, &postgres, &[]) {
            Some(true) => Some(respell(member, found)),
            None if !returned => {
                let since = old.filter(|old| old.found.postgres == postgres).map(|old| old.since);
                member.new_host = Some(NewHost { found, since: since.unwrap_or(now) });
                None
            }
            _ => self.move_to(found, now),
        }
    }

    /// Sets another endpoint of a member. The claims were about the old one.
    fn move_to(&mut self, found: Found, now: Moment) -> Option<EventKind> {
        let (name, postgres) = (found.name.clone(), found.postgres.clone());
        let member = self.members.get_mut(&name)?;
        let was_at = mem::replace(&mut member.found, found);
        let new = member.view.of_another_place(now);
        let view = mem::replace(&mut member.view, new);
        let also_at = mem::take(&mut member.also_at);
        self.leave_behind(Member { view, also_at, ..new_member(was_at, now) });
        Some(EventKind::Moved { member: name, postgres })
    }

    /// Applies the addresses of another host under which the newest list names a member.
    fn take_new_host(
        &mut self,
        name: &MemberName,
        postgres: &Endpoint,
        addresses: &Result<Vec<IpAddr>, Failure>,
        now: Moment,
    ) -> Vec<EventKind> {
        let Some(member) = self.members.get_mut(name) else { return Vec::new() };
        let is_it = |new: &mut NewHost| new.found.postgres == *postgres;
        let Some(NewHost { found, .. }) = member.new_host.take_if(is_it) else {
            return Vec::new();
        };
        let is_same = addresses
            .as_ref()
            .is_ok_and(|addresses| is_at(member, postgres, addresses) == Some(true));
        let event = match is_same {
            true => Some(respell(member, found)),
            false => self.move_to(found, now),
        };
        event.into_iter().chain(self.find_twins(now)).collect()
    }

    /// Moves the members whose other host was not resolved within [`NEW_HOST_WAIT`].
    pub(super) fn settle_new_hosts(&mut self, now: Moment) -> Vec<EventKind> {
        let is_due = |new: &mut NewHost| now.since(new.since) >= NEW_HOST_WAIT;
        let due = self.members.values_mut().filter_map(|it| it.new_host.take_if(is_due));
        let due: Vec<Found> = due.map(|new| new.found).collect();
        if due.is_empty() {
            return Vec::new();
        }
        let moved: Vec<EventKind> =
            due.into_iter().filter_map(|found| self.move_to(found, now)).collect();
        moved.into_iter().chain(self.find_twins(now)).collect()
    }

    /// A member moved away from the endpoint of `was`. If another member was the same server and is still
    /// there, the server continues under the name of that member.
    fn leave_behind(&mut self, was: Member) {
        let mut members = self.members.values_mut();
        let heir = members.find(|member| {
            member.same_as.as_ref() == Some(&was.found.name) && is_same_postgres(member, &was)
        });
        if let Some(heir) = heir {
            heir.view.take_over_server(was.view);
            note_spellings(heir, was.found.postgres, was.also_at);
            self.renamed.push((was.found.name, heir.found.name.clone()));
        }
    }

    /// Finds the members that are one server. A member that left is forgotten if its endpoint
    /// belongs to a listed one.
    fn find_twins(&mut self, now: Moment) -> Vec<EventKind> {
        let twins = twins(&self.members);
        let mut events = Vec::new();
        let of_before = self.members.iter();
        let of_before =
            of_before.filter_map(|(name, it)| Some((name.clone(), it.same_as.clone()?)));
        let before: BTreeMap<MemberName, MemberName> = of_before.collect();
        for name in self.members.keys().cloned().collect::<Vec<_>>() {
            let main = twins.get(&name);
            if let Some(main) = main.filter(|main| before.get(&name) != Some(*main)) {
                let is_listed = self.members.get(&name).is_some_and(Member::is_listed);
                events.extend(self.hand_over(&name, main, before.get(main) == Some(&name), now));
                if is_listed {
                    let (member, same_as) = (name.clone(), main.clone());
                    events.push(EventKind::SameServer { member, same_as });
                }
            }
            if let Some(member) = self.members.get_mut(&name) {
                member.same_as = main.cloned();
            }
        }
        let is_superseded = |member: &Member| member.same_as.is_some() && member.left_at.is_some();
        self.members.retain(|_, member| !is_superseded(member));
        events
    }

    /// Moves the claims about a server to its new name, unless a member of that name was already
    /// asked. `were_twins`: both names were one server before, so the server did not change just now.
    fn hand_over(
        &mut self,
        old: &MemberName,
        new: &MemberName,
        were_twins: bool,
        now: Moment,
    ) -> Option<EventKind> {
        let from = self.members.get(old)?;
        let to = self.members.get(new)?;
        if from.same_as.is_some() || to.view.was_asked() || !from.view.was_asked() {
            return None;
        }
        let was_left = from.left_at.is_some() && !from.is_url_only;
        let is_there =
            from.found.postgres == to.found.postgres || (were_twins && is_same_postgres(from, to));
        let has_moved = !from.is_url_only && !is_there;
        let was_url_only = from.is_url_only || from.was_url_only;
        let (was_at, also_at) = (from.found.postgres.clone(), from.also_at.clone());
        let view = self.members.get_mut(old)?.view.give_up_server(now);
        let to = self.members.get_mut(new)?;
        to.was_url_only |= was_url_only;
        if !has_moved && !was_url_only {
            note_spellings(to, was_at, also_at);
        }
        to.view.take_over_server(match has_moved {
            true => view.of_another_place(now),
            false => view,
        });
        self.renamed.push((old.clone(), new.clone()));
        was_left.then(|| EventKind::Renamed { was: old.clone(), member: new.clone() })
    }

    /// Returns the servers that were renamed since the last call, as (old, new).
    pub(super) fn take_renamed(&mut self) -> Vec<(MemberName, MemberName)> {
        mem::take(&mut self.renamed)
    }

    /// Forgets the members that left long ago.
    pub(super) fn forget_the_gone(&mut self, now: Moment) {
        self.members.retain(|_, member| {
            member.left_at.is_none_or(|left_at| now.since(left_at) < LEFT_MEMORY)
        });
    }

    /// Restarts the time after which a member that left is forgotten.
    pub(super) fn remember(&mut self, name: &MemberName, now: Moment) {
        if let Some(Member { left_at: Some(left_at), .. }) = self.members.get_mut(name) {
            *left_at = now;
        }
    }
}

/// Sets another spelling of the endpoint of a member. Its server is the same, and its sessions go on.
fn respell(member: &mut Member, found: Found) -> EventKind {
    let postgres = found.postgres.clone();
    let was_at = mem::replace(&mut member.found, found);
    note_spellings(member, was_at.postgres, Vec::new());
    EventKind::Respelled { member: was_at.name, postgres }
}

/// Notes other spellings of a member's endpoint, the newest first.
fn note_spellings(member: &mut Member, newest: Endpoint, older: Vec<Endpoint>) {
    let all = [newest].into_iter().chain(older).chain(mem::take(&mut member.also_at));
    for endpoint in all {
        let is_known = endpoint == member.found.postgres || member.also_at.contains(&endpoint);
        if !is_known && member.also_at.len() < SPELLINGS_MAX {
            member.also_at.push(endpoint);
        }
    }
}

fn new_member(found: Found, now: Moment) -> Member {
    Member {
        found,
        left_at: None,
        same_as: None,
        also_at: Vec::new(),
        new_host: None,
        is_url_only: false,
        was_url_only: false,
        view: View::new(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::TetherFacts;

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
        let name = |index: usize| format!("n{index:03}");
        let listed: Vec<Found> =
            (0..1_000).map(|index| found(&name(index), &name(index))).collect();
        let mut roster = Roster::default();
        let events = roster.enlist(listed, Moment::START);
        assert_eq!((roster.members().len(), events.len()), (MEMBERS_MAX, MEMBERS_MAX));
        assert!(roster.members().contains_key("n063"));
    }

    #[test]
    fn of_two_entries_of_one_name_the_known_endpoint_is_taken_and_the_other_reported() {
        let mut roster = Roster::default();
        let place = |roster: &Roster| roster.members()["n1"].found.postgres.host().to_owned();
        let events = roster.enlist(vec![found("n1", "a"), found("n1", "b")], Moment::START);
        assert!(
            matches!(&events[0], EventKind::DuplicateName { ignored, .. } if ignored.host() == "b")
        );
        assert_eq!(place(&roster), "a");
        let events = roster.enlist(vec![found("n1", "b"), found("n1", "a")], Moment::START);
        assert!(
            matches!(&events[0], EventKind::DuplicateName { ignored, .. } if ignored.host() == "b")
        );
        assert_eq!(place(&roster), "a");
        assert_eq!(roster.enlist(vec![found("n1", "a"), found("n1", "a")], Moment::START), []);
    }

    /// The first list after a start without the DCS may be older than the move of a member.
    #[test]
    fn what_one_url_reported_does_not_count_at_another_place() {
        let answered = |host: &str| {
            let mut roster = Roster::default();
            let at = |host: &str| Found {
                patroni_url: Some(format!("http://{host}:8008").into()),
                ..found("n1", host)
            };
            roster.enlist_url(at("10.0.0.9"), Moment::START);
            let failure = Failure::Refused("10.0.0.9:8008".into());
            let member = MemberName::new("n1").unwrap();
            let claim =
                Claim { member, asked_at: Moment::START, fact: Fact::Patroni(Err(failure)) };
            roster.take_claim(claim, &Identity::default(), Moment::START);
            assert!(roster.members()["n1"].view.was_asked());
            roster.enlist(vec![at(host)], Moment::from_millis(1));
            roster.members()["n1"].view.was_asked()
        };
        assert!(answered("10.0.0.9"));
        assert!(!answered("10.0.0.1"));
    }

    #[test]
    fn a_departed_name_at_a_listed_place_is_forgotten_at_once() {
        let mut roster = Roster::default();
        roster.enlist(vec![found("n1", "a"), found("n2", "b")], Moment::START);
        roster.enlist(vec![found("n1", "a"), found("new", "b")], Moment::START);
        let names: Vec<&str> = roster.members().keys().map(MemberName::as_str).collect();
        assert_eq!(names, ["n1", "new"]);
    }

    #[test]
    fn a_server_whose_name_in_use_leaves_is_known_by_both_spellings_of_its_endpoint() {
        let mut roster = Roster::default();
        let now = Moment::from_millis(1);
        roster.enlist(vec![found("n1", "host-9"), found("n2", "10.0.0.9")], now);
        let claim = |member: &str, fact| Claim {
            member: MemberName::new(member).unwrap(),
            asked_at: now,
            fact,
        };
        let answer = TetherFacts { in_recovery: false, started_at: None, system_identifier: None };
        for it in [
            claim("n2", Fact::Tether(Ok(answer))),
            claim("n1", Fact::Addresses(Ok(vec!["10.0.0.9".parse().unwrap()]))),
        ] {
            roster.take_claim(it, &Identity::default(), now);
        }
        assert_eq!(roster.members()["n1"].same_as.as_ref().unwrap().as_str(), "n2");
        roster.enlist(vec![found("n1", "host-9")], Moment::from_millis(2));
        let n1 = &roster.members()["n1"];
        assert_eq!(n1.also_at, [Endpoint::new("10.0.0.9", 5432).unwrap()]);
        assert!(n1.view.was_asked() && !n1.view.addresses().is_empty());
        assert_eq!(roster.take_renamed().len(), 1);
        roster.enlist(vec![found("n1", "host-8")], Moment::from_millis(3));
        assert!(!roster.members()["n1"].also_at.is_empty(), "its addresses are not known yet");
        roster.settle_new_hosts(Moment::from_millis(3) + NEW_HOST_WAIT);
        assert!(roster.members()["n1"].also_at.is_empty(), "it moved");
    }
}

//! Which cluster this is: which member lists are accepted, and when the known identity changes.
//!
//! A list is accepted if the Patroni that returned it does not contradict the known identity, and
//! shares the system identifier or a member with it. At the start nothing is known, so all
//! configured URLs are compared first. After that the identity changes only by a vote of the
//! members' own answers:
//!
//! - *Renamed* (the same system identifier, another scope): more than half of the members report
//!   the new scope, and a list of it was read; or a list of known places only, all of whose members
//!   report it, and one of them is a primary that holds the lock. No member that answers reported the
//!   old scope for [`CURRENT`].
//! - *Remade* (the same scope, another system identifier: `pg_upgrade`, a new `initdb`): the same
//!   majority, and a list of theirs; or fewer, but at least two, for [`REMADE_WAIT`], if their list
//!   has known places only, one of them is a primary that holds the lock, and no member reported
//!   the old identifier for [`VOTE_LASTS`]. One member of several is never enough: another cluster
//!   that took over its address under its name looks the same.
//! - *Both differ*: the same as for a remade cluster, by a majority of at least two members, for
//!   [`REMADE_WAIT`].
//!
//! Each rule needs a list, because a Patroni before version 4 reports no name: only a list shows whether
//! the members at our addresses have our names. While the DCS is down there is no list, and another
//! identity has to wait.
//!
//! A known place is a member's name at its endpoint, of PostgreSQL or of its REST API. A cluster that
//! lists other places than ours is foreign and is never accepted as ours, even if all other members
//! are silent. A pinned part never changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::places::is_same_place;
use crate::claim::{Found, Role, Topology};
use crate::event::EventKind;
use crate::identity::{About, Identity};
use crate::judge::{Member, Members};
use crate::names::MemberName;
use crate::time::Moment;

/// How long the last answer of a silent member counts against another identity that fewer than half
/// of the members report.
pub const VOTE_LASTS: Duration = Duration::from_secs(30);

/// How long the members must report another identity, where a majority alone is not enough.
pub const REMADE_WAIT: Duration = Duration::from_secs(30);

/// How long the start waits for URLs that do not answer, counted from the first answer.
pub const START_WAIT: Duration = Duration::from_secs(1);

/// How long the last answer of a member counts against a majority.
const CURRENT: Duration = Duration::from_secs(5);

/// The maximum number of remembered URLs of other clusters. There are no more members and seeds to
/// ask.
const STRANGERS_MAX: usize = 256;

/// What is known of the cluster's identity.
#[derive(Debug, Default)]
pub(super) struct Knowledge {
    pins: Identity,
    known: Identity,
    /// A member list, or the identity that the URLs report of themselves, has been accepted.
    is_settled: bool,
    /// The URLs' answers before that.
    answers: BTreeMap<Arc<str>, Answer>,
    /// The clusters of which URLs reported no list, or that they reported before.
    former: Vec<(Arc<str>, Identity)>,
    /// The URLs that answered or failed to.
    answered: BTreeSet<Arc<str>>,
    first_answer_at: Option<Moment>,
    disputed: bool,
    strangers: BTreeMap<Arc<str>, Stranger>,
    claimant: Option<Claimant>,
}

/// What one URL answered at the start.
#[derive(Clone, Debug)]
struct Answer {
    about: About,
    identity: Identity,
    list: Option<Topology>,
}

/// A URL whose list was refused.
#[derive(Clone, Debug)]
struct Stranger {
    identity: Identity,
    list: Option<Topology>,
}

/// Another identity that is the cluster's from now on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Adopted {
    /// What is reported of it.
    pub event: EventKind,
    /// A member list of that identity, which was refused before. It is taken in the same turn: the
    /// members may have other endpoints than the known ones.
    pub list: Option<Topology>,
}

/// Another identity that some members report, and that is not accepted yet.
#[derive(Clone, Debug)]
struct Claimant {
    identity: Identity,
    since: Moment,
    /// When it is accepted if no report changes that.
    due: Moment,
}

/// The result of weighing a member list.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Weighed {
    /// It is this cluster's.
    Accepted,
    /// It is another cluster's; with an event if that was not known before.
    Refused(Option<EventKind>),
    /// It has to wait for the other URLs.
    Waits,
}

/// The result on which the URLs agree at the start.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Agreed {
    /// The newest list, if there is one.
    pub list: Option<Topology>,
    /// The URLs that reported themselves but no list.
    pub urls: Vec<(Arc<str>, About)>,
}

/// How many members report another identity, and whether a primary is among them.
struct Vote {
    identity: Identity,
    count: usize,
    has_primary: bool,
}

impl Knowledge {
    /// Returns the knowledge at the start: the pinned and the stored identity.
    pub(super) fn new(pins: Identity, stored: Option<&Identity>) -> Knowledge {
        let stored = stored.filter(|stored| pins.contradiction(stored).is_none());
        let known = stored.map_or_else(|| pins.clone(), |stored| pins.or(stored));
        Knowledge { pins, known, ..Knowledge::default() }
    }

    /// Continues with other pins. Parts that only the old pins contain are learnt from the members again.
    ///
    /// Returns false, and changes nothing, if the members reported no part of the identity or one that
    /// contradicts the new pins.
    pub(super) fn change_pins(&mut self, pins: Identity) -> bool {
        let learned = match pins == self.pins {
            true => self.known.clone(),
            false => self.known.without_parts_of(&self.pins),
        };
        if learned.is_unknown() || pins.contradiction(&learned).is_some() {
            return false;
        }
        self.known = pins.or(&learned);
        self.pins = pins;
        self.claimant = None;
        if !self.is_settled {
            // The URLs are asked again.
            self.answers.clear();
            self.former.clear();
            self.first_answer_at = None;
            self.disputed = false;
        }
        true
    }

    /// The identity as far as it is known.
    pub(super) fn identity(&self) -> &Identity {
        &self.known
    }

    /// Returns true if `url` answered for another cluster when it was last asked.
    pub(super) fn is_stranger(&self, url: &str) -> bool {
        self.strangers.contains_key(url)
    }

    /// The URLs of other clusters, with the identity that each reports.
    pub(super) fn strangers(&self) -> impl Iterator<Item = (&Arc<str>, &Identity)> {
        self.strangers.iter().map(|(url, stranger)| (url, &stranger.identity))
    }

    /// Returns true if `url` answered, or failed to, since the start.
    pub(super) fn was_heard(&self, url: &str) -> bool {
        self.answered.contains(url)
    }

    /// The URLs with their clusters, while they disagree at the start.
    pub(super) fn dispute(&self) -> Option<Vec<(Arc<str>, Identity)>> {
        let answers = self.answers.iter().map(|(url, answer)| (url, &answer.identity));
        let former = self.former.iter().map(|(url, identity)| (url, identity));
        let each = || answers.chain(former).map(|(url, identity)| (url.clone(), identity.clone()));
        self.disputed.then(|| each().collect())
    }

    /// Notes that `url` failed to answer.
    pub(super) fn note_silence(&mut self, url: &Arc<str>) {
        self.answered.insert(url.clone());
    }

    /// Weighs the identity that a Patroni without a member list reports of itself.
    pub(super) fn weigh_about(&mut self, url: &Arc<str>, about: &About, now: Moment) -> Weighed {
        self.answered.insert(url.clone());
        let identity = about.identity.clone();
        if self.known.contradiction(&identity).is_some() {
            return self.refuse(url, identity, None);
        }
        if self.is_settled || self.known.has_system_of(&identity) {
            self.is_settled = true;
            return Weighed::Accepted;
        }
        let answer = Answer { about: about.clone(), identity, list: None };
        self.note_answer(url, answer, now);
        Weighed::Waits
    }

    /// Weighs a member list.
    pub(super) fn weigh(&mut self, topology: &Topology, members: &Members, now: Moment) -> Weighed {
        let url = &topology.url;
        self.answered.insert(url.clone());
        let identity = topology.identity();
        let contradicts = [&identity, &topology.about.identity]
            .iter()
            .any(|found| self.known.contradiction(found).is_some());
        if contradicts {
            return self.refuse(url, topology.about.identity.or(&identity), Some(topology.clone()));
        }
        if self.known.has_system_of(&identity) {
            self.accept(url, &identity);
            return Weighed::Accepted;
        }
        if !self.is_settled {
            let answer =
                Answer { about: topology.about.clone(), identity, list: Some(topology.clone()) };
            self.note_answer(url, answer, now);
            return Weighed::Waits;
        }
        match self.is_akin(&topology.members, members) {
            true => {
                self.accept(url, &identity);
                Weighed::Accepted
            }
            false => self.refuse(url, identity, Some(topology.clone())),
        }
    }

    /// Returns true if the list shares a member with the known ones, where the system identifiers
    /// cannot be compared: by name and endpoint, or by either while no identifier is known.
    fn is_akin(&self, list: &[Found], members: &Members) -> bool {
        let is_strict = self.known.system_identifier.is_some();
        let is_same = |found: &Found, member: &Member| match is_strict {
            true => is_place_of(found, member) && member.contradicts(&self.known).is_none(),
            false => found.name == member.found.name || found.postgres == member.found.postgres,
        };
        members.is_empty()
            || list.iter().any(|found| members.values().any(|member| is_same(found, member)))
    }

    /// Notes that `url` reported this cluster at the start, without a list that counts.
    pub(super) fn note_cluster(&mut self, url: &Arc<str>, identity: Identity) {
        let reported = (url.clone(), identity);
        let is_news = !reported.1.is_unknown() && !self.former.contains(&reported);
        if !self.is_settled && is_news && self.former.len() < STRANGERS_MAX {
            self.former.push(reported);
        }
    }

    fn note_answer(&mut self, url: &Arc<str>, answer: Answer, now: Moment) {
        self.first_answer_at.get_or_insert(now);
        // An address may change hands before it is known which of both clusters is meant.
        let old = self.answers.get(url).map(|old| old.identity.clone());
        if let Some(old) = old.filter(|old| old.contradiction(&answer.identity).is_some()) {
            self.note_cluster(url, old);
        }
        if self.answers.len() < STRANGERS_MAX || self.answers.contains_key(url) {
            self.answers.insert(url.clone(), answer);
        }
    }

    fn accept(&mut self, url: &str, identity: &Identity) {
        self.strangers.remove(url);
        self.is_settled = true;
        self.answers.clear();
        self.former.clear();
        self.disputed = false;
        self.known = self.known.or(identity);
    }

    fn refuse(&mut self, url: &Arc<str>, found: Identity, list: Option<Topology>) -> Weighed {
        let known = self.strangers.get(url).map(|stranger| &stranger.identity);
        let is_news = known != Some(&found);
        let has_room = self.strangers.len() < STRANGERS_MAX || known.is_some();
        if has_room {
            // A URL that reports itself without a list now may have returned a list before.
            let old = self.strangers.get(url).filter(|_| !is_news);
            let list = list.or_else(|| old.and_then(|old| old.list.clone()));
            self.strangers.insert(url.clone(), Stranger { identity: found.clone(), list });
        }
        let (url, expected) = (url.clone(), self.known.clone());
        let event = EventKind::StrangeCluster { url, found, expected };
        Weighed::Refused((is_news && has_room).then_some(event))
    }

    /// Returns the result on which the URLs agree, once all of `seeds` answered or failed to, or
    /// [`START_WAIT`] is over; and the event of a new disagreement.
    pub(super) fn settle_start(
        &mut self,
        seeds: &[String],
        now: Moment,
    ) -> (Option<Agreed>, Option<EventKind>) {
        let Some(first_at) = self.first_answer_at.filter(|_| !self.is_settled) else {
            return (None, None);
        };
        let former = self.former.iter().map(|(_, identity)| identity);
        let mut identities = self.answers.values().map(|answer| &answer.identity).chain(former);
        let first = identities.next().cloned().unwrap_or_default();
        let common = identities.try_fold(first, |common, identity| {
            common.contradiction(identity).is_none().then(|| common.or(identity))
        });
        let Some(common) = common else {
            let is_news = !std::mem::replace(&mut self.disputed, true);
            let event = self.dispute().map(|answers| EventKind::Disputed { answers });
            return (None, event.filter(|_| is_news));
        };
        self.disputed = false;
        let all_heard = seeds.iter().all(|seed| self.was_heard(seed.trim_end_matches('/')));
        if !all_heard && now < first_at + START_WAIT {
            return (None, None);
        }
        let answers = std::mem::take(&mut self.answers);
        let lists = answers.values().filter_map(|answer| answer.list.clone());
        let list = lists.max_by_key(|list| list.asked_at);
        let urls = answers.into_iter().filter(|(_, answer)| answer.list.is_none());
        let urls = urls.map(|(url, answer)| (url, answer.about)).collect();
        self.known = self.known.or(&common);
        self.is_settled = true;
        (Some(Agreed { list, urls }), None)
    }

    /// Updates the identity from the members' answers. Returns the other identity if it changes.
    pub(super) fn learn(&mut self, members: &Members, now: Moment) -> Option<Adopted> {
        let present = || members.values().filter(|it| it.is_listed() && it.same_as.is_none());
        // Before a list is accepted, after a reload, the members may be those of another cluster.
        let is_incomplete = self.known.scope.is_none() || self.known.system_identifier.is_none();
        if self.is_settled && is_incomplete {
            self.fill_in(present(), now);
        }
        let was = self.known.clone();
        let (adopted, claimant) = self.other_identity(members, now);
        self.claimant = claimant;
        let is = adopted?;
        let list = self.lists_of(&is).max_by_key(|list| list.asked_at).cloned();
        self.known = self.pins.or(&is).or(&self.known);
        self.claimant = None;
        self.strangers.retain(|_, stranger| self.known.contradiction(&stranger.identity).is_some());
        let event = EventKind::IdentityChanged { was, is: self.known.clone() };
        Some(Adopted { event, list })
    }

    /// Sets each unknown part to the value that more than half of the members report.
    fn fill_in<'a>(&mut self, present: impl Iterator<Item = &'a Member>, now: Moment) {
        let reported = present.filter_map(|member| {
            let newest = member.view.patroni_facts()?;
            (now.since(newest.asked_at) < VOTE_LASTS).then(|| newest.answer.identity())
        });
        let own: Vec<Identity> =
            reported.filter(|identity| self.known.contradiction(identity).is_none()).collect();
        if self.known.scope.is_none() {
            self.known.scope = majority(own.iter().filter_map(|own| own.scope.as_ref()));
        }
        if self.known.system_identifier.is_none() {
            let reported = own.iter().filter_map(|own| own.system_identifier.as_ref());
            self.known.system_identifier = majority(reported);
        }
    }

    /// Returns another identity that the members report: one that is accepted now, or one that has
    /// to wait.
    fn other_identity(
        &self,
        members: &Members,
        now: Moment,
    ) -> (Option<Identity>, Option<Claimant>) {
        // Two names at one address are one vote of two: one address of several decides nothing.
        let present = members.values().filter(|it| it.is_listed() && !it.is_url_only).count();
        let mut votes = self.votes_for_others(members, now);
        votes.sort_by_key(|vote| std::cmp::Reverse(vote.count));
        for vote in votes {
            let Some(wait) = self.terms(&vote, members, present, now) else { continue };
            let old = self.claimant.as_ref().filter(|old| old.identity == vote.identity);
            let since = old.map_or(now, |old| old.since);
            let is_renamed = self.known.has_system_of(&vote.identity);
            let newest_own = self.newest_own_vote(members, is_renamed);
            let own_until = newest_own.map_or(Moment::START, |at| at + wait.own_votes_last);
            let due = (since + wait.agreed_for).max(own_until);
            return match now >= due {
                true => (Some(vote.identity), None),
                false => (None, Some(Claimant { identity: vote.identity, since, due })),
            };
        }
        (None, None)
    }

    /// When a member last reported the known identity. If `if_it_answers` is set (the data is the
    /// same), only members that still answer count.
    fn newest_own_vote(&self, members: &Members, if_it_answers: bool) -> Option<Moment> {
        let counts = |member: &Member| !if_it_answers || member.view.patroni_answers();
        let voters = members.values().filter(|member| is_voter(member) && counts(member));
        let newest = voters.filter_map(|member| member.view.patroni_facts());
        let own = newest.filter(|newest| self.is_own(&newest.answer.identity()));
        own.map(|newest| newest.asked_at).max()
    }

    /// Returns true if the identity is the known one. A member that is being initialized reports no
    /// identifier for a while; it counts neither way.
    fn is_own(&self, identity: &Identity) -> bool {
        self.known.contradiction(identity).is_none()
            && (self.known.system_identifier.is_none() || self.known.has_system_of(identity))
    }

    fn votes_for_others(&self, members: &Members, now: Moment) -> Vec<Vote> {
        let mut votes: Vec<Vote> = Vec::new();
        for member in members.values().filter(|member| is_voter(member)) {
            let Some(newest) = member.view.patroni_facts() else { continue };
            let (facts, identity) = (&newest.answer, newest.answer.identity());
            let is_recent = now.since(newest.asked_at) < CURRENT;
            if !is_recent
                || facts.about().is_other_than(&member.found.name)
                || self.known.contradiction(&identity).is_none()
                || self.pins.contradiction(&identity).is_some()
            {
                continue;
            }
            let has_primary = facts.holds_lock && facts.is_running() && facts.role == Role::Primary;
            match votes.iter_mut().find(|vote| vote.identity == identity) {
                Some(vote) => {
                    vote.count += 1;
                    vote.has_primary |= has_primary;
                }
                None => votes.push(Vote { identity, count: 1, has_primary }),
            }
        }
        votes
    }

    /// How long another identity has to wait; none if no rule accepts it as this cluster's.
    fn terms(&self, vote: &Vote, members: &Members, present: usize, now: Moment) -> Option<Terms> {
        let lists = || self.lists_of(&vote.identity).map(|list| &list.members);
        let is_foreign = |list: &Vec<Found>| {
            let known = list.iter().filter(|found| is_known_place(found, members)).count();
            known < list.len() && known * 2 <= present
        };
        if lists().any(is_foreign) {
            return None;
        }
        let is_majority = vote.count * 2 > present;
        let has_known_places =
            |list: &Vec<Found>| list.iter().all(|found| is_known_place(found, members));
        let is_ours = || vote.has_primary && lists().any(has_known_places);
        let reports = |found: &Found| {
            members.get(&found.name).is_some_and(|it| reports(it, &vote.identity, now))
        };
        let all_report = || lists().any(|list| list.iter().all(reports));
        let (same_system, same_scope) =
            (self.known.has_system_of(&vote.identity), self.known.has_scope_of(&vote.identity));
        let has_list = lists().next().is_some();
        match (same_system, same_scope) {
            (true, _) if is_ours() && all_report() => Some(Terms::AT_ONCE),
            (true, _) | (_, true) if is_majority && has_list => Some(Terms::AT_ONCE),
            (_, true) if vote.count >= 2 && is_ours() => Some(Terms::FEW),
            (false, false) if is_majority && has_list && vote.count >= 2 => {
                Some(Terms::BOTH_DIFFER)
            }
            _ => None,
        }
    }

    /// The refused lists of that identity.
    fn lists_of<'a>(&'a self, identity: &'a Identity) -> impl Iterator<Item = &'a Topology> {
        let of_it = self.strangers.values().filter(move |it| it.identity == *identity);
        of_it.filter_map(|stranger| stranger.list.as_ref())
    }

    /// When the state changes next if no report comes before.
    pub(super) fn next_change(&self) -> impl Iterator<Item = Moment> {
        let start = self.first_answer_at.filter(|_| !self.is_settled && !self.disputed);
        let of_start = start.map(|at| at + START_WAIT);
        of_start.into_iter().chain(self.claimant.as_ref().map(|claimant| claimant.due))
    }
}

/// How long another identity has to wait.
#[derive(Clone, Copy)]
struct Terms {
    /// Counted from its first report.
    agreed_for: Duration,
    /// Counted from the last report of the old identity.
    own_votes_last: Duration,
}

impl Terms {
    const AT_ONCE: Terms = Terms { agreed_for: Duration::ZERO, own_votes_last: CURRENT };
    const FEW: Terms = Terms { agreed_for: REMADE_WAIT, own_votes_last: VOTE_LASTS };
    const BOTH_DIFFER: Terms = Terms { agreed_for: REMADE_WAIT, own_votes_last: CURRENT };
}

/// A member that is known by its URL alone has no vote: no list of this cluster was read, so another cluster
/// that took over the address of the one URL would be a majority.
fn is_voter(member: &Member) -> bool {
    member.is_listed() && member.same_as.is_none() && !member.is_url_only
}

fn reports(member: &Member, identity: &Identity, now: Moment) -> bool {
    let newest = member.view.patroni_facts();
    newest.is_some_and(|newest| {
        now.since(newest.asked_at) < CURRENT && newest.answer.identity() == *identity
    })
}

/// Returns true if the list names the member at its known endpoint, of PostgreSQL or of its REST API.
fn is_place_of(found: &Found, member: &Member) -> bool {
    let is_endpoint = member.is_url_only || is_same_place(found, &member.found, true);
    found.name == member.found.name && is_endpoint
}

fn is_known_place(found: &Found, members: &Members) -> bool {
    let known: Option<&Member> = members.get::<MemberName>(&found.name);
    known.is_some_and(|member| is_place_of(found, member))
}

/// Returns the value that more than half of the reports contain.
fn majority<'a>(values: impl Iterator<Item = &'a String>) -> Option<String> {
    let mut votes: BTreeMap<&String, usize> = BTreeMap::new();
    for value in values {
        *votes.entry(value).or_default() += 1;
    }
    let all: usize = votes.values().sum();
    votes.into_iter().find(|(_, votes)| votes * 2 > all).map(|(value, _)| value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_votes_are_no_majority() {
        let [a, b] = ["a", "b"].map(str::to_owned);
        assert_eq!(majority([&a, &b].into_iter()), None);
        assert_eq!(majority([&a, &b, &a].into_iter()), Some(a));
        assert_eq!(majority(std::iter::empty()), None);
    }
}

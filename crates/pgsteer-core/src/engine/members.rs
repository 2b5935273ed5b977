//! Members: where the member list comes from, and how it is applied.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::identity::{Adopted, Knowledge, START_WAIT, Weighed};
use super::places::rest_place;
use crate::claim::{Failure, Found, Topology, Unlisted};
use crate::event::{EventKind, disputed};
use crate::identity::{About, Identity};
use crate::memory::{Memory, Remembered};
use crate::names::{Endpoint, MemberName, POSTGRES_PORT};
use crate::settings::{ClusterConfig, Membership};
use crate::snapshot::MembersFrom;
use crate::time::Moment;

/// How often an unchanged member list is stored again, so that its age is known.
const STORE_AGAIN: Duration = Duration::from_secs(600);

impl Engine {
    /// The content to store; the same `Arc` as long as it need not be stored again.
    pub fn memory(&self) -> Option<Arc<Memory>> {
        self.memory.as_ref().map(|(memory, _)| Arc::clone(memory))
    }

    /// Applies another `[patroni]` or another member list of the configuration.
    ///
    /// What is known of the cluster stays if a URL of before is still configured, unless that URL answered
    /// for another cluster, or the pins contradict what the members reported.
    pub(super) fn change_membership(&mut self, new: &ClusterConfig, now: Moment) {
        let (old_urls, new_urls) = (self.cluster.sorted_seeds(), new.sorted_seeds());
        let mut shared = new_urls.iter().filter(|url| old_urls.contains(url));
        let is_shared = shared.any(|url| !self.knowledge.is_stranger(url));
        if is_shared && self.knowledge.change_pins(new.pins()) {
            return;
        }
        self.knowledge = Knowledge::new(new.pins(), None);
        self.roster.forget_lists();
        self.remembered = None;
        self.members_from = MembersFrom::default();
        self.memory = None;
        self.started_at = now;
    }

    /// Applies the member list that a Patroni returned.
    pub(super) fn take_topology(&mut self, topology: Topology, now: Moment) -> Vec<EventKind> {
        // A running Patroni lists itself at least, so an empty list is an error of that Patroni.
        if topology.members.is_empty() {
            self.take_list_without_addresses(topology);
            return Vec::new();
        }
        self.failing_seeds.remove(&topology.url);
        match self.knowledge.weigh(&topology, self.roster.members(), now) {
            Weighed::Accepted => self.accept(topology, now),
            Weighed::Refused(event) => event.into_iter().collect(),
            Weighed::Waits => Vec::new(),
        }
    }

    /// Notes why a list without any address cannot be used.
    fn take_list_without_addresses(&mut self, topology: Topology) {
        self.knowledge.note_silence(&topology.url);
        self.knowledge.note_cluster(&topology.url, topology.identity());
        if !self.roster.members().is_empty() {
            return;
        }
        let why = match topology.skipped.is_empty() {
            true => format!("{}/cluster lists no member", topology.url),
            false => format!(
                "{}/cluster lists no member with an address: {}",
                topology.url,
                topology.skipped.join(", ")
            ),
        };
        self.unlisted.insert(topology.url, Failure::Malformed(why.into()));
    }

    fn accept(&mut self, mut topology: Topology, now: Moment) -> Vec<EventKind> {
        self.unlisted.clear();
        self.remembered = None;
        self.members_from = MembersFrom::Cluster;
        let mut events = self.with_tls_of_seeds(&mut topology);
        events.extend(self.roster.take_topology(topology, now));
        self.note_memory(now);
        events
    }

    /// Changes the URL of a listed member from http to https, if the same endpoint is configured
    /// with https. Reports other http URLs that an https URL listed.
    fn with_tls_of_seeds(&self, topology: &mut Topology) -> Vec<EventKind> {
        let seeds = self.cluster.seeds();
        let secure: Vec<&str> =
            seeds.iter().map(String::as_str).filter(|url| url.starts_with("https://")).collect();
        let by_tls = topology.url.starts_with("https://");
        let mut events = Vec::new();
        for found in &mut topology.members {
            let Some(url) = found.patroni_url.clone().filter(|url| url.starts_with("http://"))
            else {
                continue;
            };
            let place = rest_place(&url);
            if secure.iter().any(|seed| rest_place(seed).eq_ignore_ascii_case(place)) {
                found.patroni_url = Some(Arc::from(format!("https://{place}")));
                continue;
            }
            let known = self.roster.members().get(&found.name).map(|it| &it.found.patroni_url);
            if by_tls && known != Some(&found.patroni_url) {
                events.push(EventKind::ListedWithoutTls { member: found.name.clone(), url });
            }
        }
        events
    }

    /// Notes that a Patroni was asked for the list and returned none. If that Patroni reports
    /// itself, it becomes a member that is known by its URL.
    pub(super) fn take_unlisted(&mut self, unlisted: Unlisted, now: Moment) -> Vec<EventKind> {
        let Unlisted { asked, about, failure } = unlisted;
        let has_list = matches!(self.members_from, MembersFrom::Cluster);
        if self.cluster.seeds().iter().any(|seed| seed.trim_end_matches('/') == &*asked) {
            self.failing_seeds.insert(asked.clone(), failure.clone());
        }
        if !has_list {
            self.unlisted.insert(asked.clone(), failure);
        }
        let Some(about) = about else {
            self.knowledge.note_silence(&asked);
            return Vec::new();
        };
        match self.knowledge.weigh_about(&asked, &about, now) {
            Weighed::Accepted if !has_list => self.enlist_url(&asked, &about, now),
            Weighed::Accepted | Weighed::Waits => Vec::new(),
            Weighed::Refused(event) => event.into_iter().collect(),
        }
    }

    fn enlist_url(&mut self, url: &Arc<str>, about: &About, now: Moment) -> Vec<EventKind> {
        // A stored list has more information.
        if self.remembered.is_some() {
            return Vec::new();
        }
        let Some(found) = found_by_url(url, about) else { return Vec::new() };
        if self.members_from == MembersFrom::Configuration {
            self.members_from = MembersFrom::Urls;
        }
        self.roster.enlist_url(found, now)
    }

    /// When the stored list is used, if no other list comes before.
    pub(super) fn remembered_due(&self) -> Option<Moment> {
        self.remembered.as_ref().map(|_| self.started_at + START_WAIT)
    }

    /// Settles the start, updates the identity from the members' answers, and uses the stored list
    /// if no other can be read.
    pub(super) fn note_identity(&mut self, now: Moment) {
        if !self.rules.has_patroni {
            return;
        }
        let seeds = self.cluster.seeds();
        let (agreed, event) = self.knowledge.settle_start(&seeds, now);
        self.record(event, now);
        if let Some(agreed) = agreed {
            let mut events = Vec::new();
            let has_list = agreed.list.is_some();
            events.extend(agreed.list.map(|list| self.accept(list, now)).unwrap_or_default());
            let urls = agreed.urls.iter().filter(|_| !has_list);
            events.extend(
                urls.flat_map(|(url, about)| self.enlist_url(url, about, now)).collect::<Vec<_>>(),
            );
            self.record(events, now);
        }
        self.take_remembered(&seeds, now);
        if let Some(adopted) = self.knowledge.learn(self.roster.members(), now) {
            self.adopt(adopted, now);
        }
        for (old, new) in self.roster.take_renamed() {
            self.rename(&old, &new);
        }
    }

    /// Continues with another identity of the cluster.
    fn adopt(&mut self, Adopted { event, list }: Adopted, now: Moment) {
        if let EventKind::IdentityChanged { was, is } = &event
            && was.has_system_of(is)
        {
            self.roster.forget_last_facts();
        }
        self.record([event], now);
        match list {
            Some(list) => {
                let events = self.accept(list, now);
                self.record(events, now);
            }
            None => self.note_memory(now),
        }
    }

    /// Uses the stored list once all URLs failed to return one, or [`START_WAIT`] is over.
    fn take_remembered(&mut self, seeds: &[String], now: Moment) {
        let all_heard =
            || seeds.iter().all(|seed| self.knowledge.was_heard(seed.trim_end_matches('/')));
        if now < self.started_at + START_WAIT && !all_heard() {
            return;
        }
        let Some(Remembered { memory, age }) = self.remembered.take() else { return };
        let age_now = age + now.since(self.started_at);
        let members = memory.members.len();
        self.members_from = MembersFrom::Stored { age };
        let mut events = vec![EventKind::Remembered { members, age: age_now }];
        events.extend(self.roster.enlist(memory.members, now));
        self.record(events, now);
    }

    /// Notes the content to store: only what a Patroni returned.
    pub(super) fn note_memory(&mut self, now: Moment) {
        if self.members_from != MembersFrom::Cluster {
            return;
        }
        let listed = self.roster.members().values().filter(|member| member.is_listed());
        let memory = Memory {
            identity: self.knowledge.identity().clone(),
            members: listed.map(|member| member.found.clone()).collect(),
            urls: self.cluster.sorted_seeds(),
        };
        let is_stored = self
            .memory
            .as_ref()
            .is_some_and(|(stored, at)| **stored == memory && now.since(*at) < STORE_AGAIN);
        if !is_stored {
            self.memory = Some((Arc::new(memory), now));
        }
    }

    /// Moves the gates and the role of a renamed server to its new name.
    fn rename(&mut self, old: &MemberName, new: &MemberName) {
        for gates in self.gates.values_mut() {
            if let Some(gate) = gates.remove(old) {
                gates.insert(new.clone(), gate);
            }
        }
        if let Some(standing) = self.standings.remove(old) {
            self.standings.insert(new.clone(), standing);
        }
        if let Some(since) = self.roles_since.remove(old) {
            self.roles_since.insert(new.clone(), since);
        }
        if let Some(load) = self.loads.remove(old) {
            self.loads.insert(new.clone(), load);
        }
    }

    /// Why no member list is accepted; none unless the URLs disagree.
    pub(super) fn dispute(&self) -> Option<String> {
        self.knowledge.dispute().map(|answers| disputed(&answers))
    }
}

/// Returns a member at the host of a URL. The port of its PostgreSQL is unknown; the port given
/// here is never used.
fn found_by_url(url: &Arc<str>, about: &About) -> Option<Found> {
    let place = rest_place(url).split('/').next()?;
    let host = Endpoint::parse(place, Some(POSTGRES_PORT)).ok()?;
    let named = about.name.as_deref().and_then(|name| MemberName::new(name).ok());
    let name = named.or_else(|| MemberName::new(place).ok())?;
    Some(Found { name, postgres: host.with_port(POSTGRES_PORT), patroni_url: Some(url.clone()) })
}

impl ClusterConfig {
    /// The configured URLs of Patroni; none without Patroni.
    pub fn seeds(&self) -> Vec<String> {
        match &self.members {
            Membership::Patroni(patroni) => patroni.urls.clone(),
            Membership::Listed(_) => Vec::new(),
        }
    }

    /// The configured URLs of Patroni: sorted, each once, without a slash at the end.
    pub fn sorted_seeds(&self) -> Vec<String> {
        let urls = self.seeds().into_iter().map(|url| url.trim_end_matches('/').to_owned());
        let sorted: BTreeSet<String> = urls.collect();
        sorted.into_iter().collect()
    }

    /// The pinned identity.
    pub fn pins(&self) -> Identity {
        match &self.members {
            Membership::Patroni(patroni) => patroni.pins.clone(),
            Membership::Listed(_) => Identity::default(),
        }
    }
}

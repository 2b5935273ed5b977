//! The invariants, judged by the truth alone. Of pgsteer only what the outputs see is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use pgsteer_core::claim::{Report, Role};
use pgsteer_core::gate::Gate;
use pgsteer_core::identity::Identity;
use pgsteer_core::memory::Remembered;
use pgsteer_core::names::{Endpoint, MemberName, ServiceName};
use pgsteer_core::reason::Reason;
use pgsteer_core::snapshot::Snapshot;

use crate::play::ip_of;
use crate::rng::Rng;
use crate::script::{Pins, Setup};
use crate::truth::{OWN, Truth};

/// After this time no gate is open at an address at which another cluster has been since, where the
/// check login works there: the pace of the check (0.25 s), its limit (2 s) and a reserve.
const DETECTED_BY_LOGIN_MS: u64 = 3_000;
/// The same where Patroni alone is asked: its pace (1 s), the time that a request may run (5 s) with
/// its reserve (0.5 s), and a reserve.
const DETECTED_BY_PATRONI_MS: u64 = 7_000;
/// The same where that Patroni was slow before: the pause after an answer that took 5 s is 7.5 s.
const DETECTED_WHERE_SLOW_MS: u64 = 14_000;
/// A primary that is listed where it is, and answers, is served within this time.
const SERVED_MS: u64 = 20_000;
/// The same where pgsteer has to learn another identity, or another address, from the members.
const LEARNED_MS: u64 = 100_000;
/// Two that take writes one after the other within this time may be taken for a split brain.
const OVERLAP_MS: u64 = 20_000;

/// A broken invariant.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: &'static str,
    pub at: u64,
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ms: {}", self.kind, self.at, self.what)
    }
}

/// A client's session, as the proxy has it.
struct Session {
    service: ServiceName,
    member: MemberName,
    dialled: Endpoint,
    machine: usize,
    started: u64,
    since: u64,
}

/// The state of the checks.
pub struct Check {
    pins: Pins,
    has_check_login: bool,
    pub fault: Option<Fault>,
    /// No program could know which cluster is ours from here on.
    pub is_undecidable: bool,
    pub counts: BTreeMap<&'static str, u64>,
    /// The newest own list that pgsteer received, by name, with the host of each.
    told: BTreeMap<String, String>,
    told_asked_at: Option<u64>,
    /// The members of our cluster for pgsteer: those in `told`, and in maintenance mode those of the
    /// lists before, because a stopped Patroni loses its key then and its PostgreSQL goes on.
    members: BTreeMap<String, String>,
    /// Since the start an own Patroni answered, or the stored identity is known.
    knows_own: bool,
    /// The scopes and system identifiers of other clusters that answered since the start.
    others_answered: BTreeSet<(String, u64)>,
    slow: BTreeSet<usize>,
    /// Since when each machine has been a primary that has to be served and is not, as [`Due`].
    due: BTreeMap<(usize, Due), u64>,
    steady: BTreeMap<usize, u64>,
    /// When each own machine last took writes or held the lock. Patroni 3 does not report its name, so
    /// that a machine that moved is another one until the list shows it.
    led: BTreeMap<(usize, Option<usize>), u64>,
    sessions: Vec<Session>,
    was_open: BTreeSet<(ServiceName, MemberName)>,
    was_at_known_place: BTreeSet<usize>,
}

/// What a primary waits for at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// It is known, and its cluster is.
    Known,
    /// pgsteer has to learn its address or another identity first.
    Learned,
}

impl Check {
    pub fn new(setup: &Setup) -> Check {
        Check {
            pins: setup.pins,
            has_check_login: setup.has_check_login,
            fault: None,
            is_undecidable: false,
            counts: BTreeMap::new(),
            told: BTreeMap::new(),
            told_asked_at: None,
            members: BTreeMap::new(),
            knows_own: false,
            others_answered: BTreeSet::new(),
            slow: BTreeSet::new(),
            due: BTreeMap::new(),
            steady: BTreeMap::new(),
            led: BTreeMap::new(),
            sessions: Vec::new(),
            was_open: BTreeSet::new(),
            was_at_known_place: BTreeSet::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn fail(&mut self, kind: &'static str, at: u64, what: String) {
        self.fault.get_or_insert(Fault { kind, at, what });
    }

    /// pgsteer starts again.
    pub fn restart(&mut self, remembered: Option<&Remembered>) {
        self.told.clear();
        self.told_asked_at = None;
        self.members.clear();
        self.knows_own = remembered.is_some();
        self.others_answered.clear();
        if let Some(remembered) = remembered {
            let members = remembered.memory.members.iter();
            self.told =
                members.map(|it| (it.name.to_string(), it.postgres.host().to_owned())).collect();
            self.members = self.told.clone();
        }
        self.due.clear();
        self.sessions.clear();
        self.was_open.clear();
    }

    /// A Patroni answered.
    pub fn note_answer(&mut self, truth: &Truth, machine: usize) {
        if truth.machines[machine].latency_ms > 1_000 {
            self.slow.insert(machine);
        }
    }

    /// A Patroni of the cluster `of`, or none, answered a request for the member list.
    pub fn note_list(
        &mut self,
        truth: &Truth,
        of: Option<usize>,
        report: &Report,
        known: &Identity,
    ) {
        let Some(of) = of else { return };
        if of != OWN {
            self.others_answered
                .insert((truth.clusters[of].scope.clone(), truth.clusters[of].system));
            self.count(match report {
                Report::Topology(_) => "list of another cluster",
                _ => "answer of another cluster without a list",
            });
            return;
        }
        // A pin that contradicts our own answer decides against our cluster: at a start without memory the
        // only cluster that fits the pin is then taken, as the operator configured.
        self.knows_own |= self.pins_allow(truth);
        match report {
            Report::Topology(topology) if topology.members.is_empty() => self.count("empty list"),
            Report::Topology(topology) => {
                self.count("list of ours");
                let asked_at = u64::try_from(topology.asked_at.since_start().as_millis()).unwrap();
                // Until pgsteer learns another identity of ours it cannot take our list.
                let own = &truth.clusters[OWN];
                let system = own.system.to_string();
                let can_take = known.scope.as_ref().is_none_or(|it| *it == own.scope)
                    && known.system_identifier.as_ref().is_none_or(|it| *it == system);
                if can_take && self.told_asked_at.is_none_or(|newest| newest <= asked_at) {
                    self.told_asked_at = Some(asked_at);
                    let members = topology.members.iter();
                    self.told = members
                        .map(|it| (it.name.to_string(), it.postgres.host().to_owned()))
                        .collect();
                    if !topology.paused {
                        self.members.clear();
                    }
                    self.members.extend(self.told.clone());
                }
            }
            _ => self.count("no list while the DCS is down"),
        }
    }

    /// A list of another cluster changes no member.
    pub fn compare_members(
        &mut self,
        truth: &Truth,
        of: Option<usize>,
        before: &Snapshot,
        after: &Snapshot,
        now: u64,
    ) {
        let is_other = of.is_some_and(|of| of != OWN);
        if !is_other || !self.knows_own || self.is_undecidable {
            return;
        }
        let members = |snapshot: &Snapshot| -> Vec<(MemberName, Endpoint, bool)> {
            let each = snapshot.members.iter();
            each.map(|(name, it)| (name.clone(), it.postgres.clone(), it.listed)).collect()
        };
        let (before, after) = (members(before), members(after));
        // Our own list may be taken in the same moment.
        let is_told = |it: &(MemberName, Endpoint, bool)| {
            let host = self.told.get(it.0.as_str()).map(String::as_str);
            host == Some(it.1.host())
                || truth
                    .at(ip_of(it.1.host()))
                    .is_some_and(|index| truth.machines[index].cluster == OWN)
        };
        if let Some(new) = after.iter().find(|it| !before.contains(it) && !is_told(it)) {
            let what = format!("a list of another cluster made a member of {new:?}");
            self.fail("foreign list", now, what);
        }
    }

    /// Looks at a Snapshot.
    pub fn look(&mut self, truth: &Truth, snapshot: &Snapshot, now: u64, rng: &mut Rng) {
        self.note_undecidable(truth, snapshot, now);
        if self.is_undecidable {
            return;
        }
        self.note_primaries(truth, snapshot, now);
        let open = open_gates(snapshot);
        self.no_other_cluster(truth, snapshot, &open, now);
        self.one_gate_for_a_server(truth, snapshot, &open, now);
        self.one_write_gate(snapshot, now);
        self.no_split_brain(truth, snapshot, now);
        self.primaries_are_served(truth, snapshot, now);
        self.sessions_go_on(truth, snapshot, now);
        self.open_sessions(truth, snapshot, now, rng);
        self.note_open(truth, snapshot, open);
    }

    /// Whether the identity that pgsteer took for ours can be told from ours at all.
    fn note_undecidable(&mut self, truth: &Truth, snapshot: &Snapshot, now: u64) {
        let known = &snapshot.identity.known;
        let is_of = |cluster: usize| {
            let of = &truth.clusters[cluster];
            known.system_identifier == Some(of.system.to_string())
                && known.scope.as_deref() == Some(of.scope.as_str())
        };
        if (1..truth.clusters.len()).any(is_of) && !is_of(OWN) {
            // The first one that answers decides, where nothing is stored and the pins fit.
            if self.knows_own {
                self.fail("adopted another cluster", now, format!("known as {known}"));
            }
            self.is_undecidable = true;
            self.count("undecidable: only another cluster answered at the start");
        }
        for cluster in 1..truth.clusters.len() {
            let of = &truth.clusters[cluster];
            let is_at_place = |(name, host): &(&String, &String)| {
                truth.at(ip_of(host)).is_some_and(|index| {
                    let machine = &truth.machines[index];
                    machine.cluster == cluster && machine.name == **name
                })
            };
            let places = self.told.iter().filter(is_at_place).count();
            // A clone looks like a renamed scope. A cluster with our scope looks like ours made anew
            // where it has two members.
            let is_clone = of.system == truth.clusters[OWN].system
                || known.system_identifier == Some(of.system.to_string());
            let is_remade = places >= 2 && known.scope.as_deref() == Some(of.scope.as_str());
            if places * 2 > self.told.len() || (places > 0 && is_clone) || is_remade {
                self.is_undecidable = true;
                self.count("undecidable: another cluster has the names at the addresses");
                return;
            }
        }
    }

    /// Returns true if the identity that pgsteer knows is ours as it is now.
    fn identity_is_right(&self, truth: &Truth, known: &Identity) -> bool {
        let own = &truth.clusters[OWN];
        known.system_identifier == Some(own.system.to_string())
            && known.scope.as_deref() == Some(own.scope.as_str())
    }

    /// The pins allow our identity as it is now.
    fn pins_allow(&self, truth: &Truth) -> bool {
        let own = &truth.clusters[OWN];
        let (scope, system) = (own.scope == "demo", own.system == 7001);
        match self.pins {
            Pins::None => true,
            Pins::Scope => scope,
            Pins::System => system,
            Pins::Both => scope && system,
        }
    }

    /// Notes which of our machines are primaries that have to be served.
    fn note_primaries(&mut self, truth: &Truth, snapshot: &Snapshot, now: u64) {
        let is_right = self.identity_is_right(truth, &snapshot.identity.known);
        let has_majority = self.most_answer(truth, &snapshot.identity.known);
        // Another cluster that fits all that is known (a pinned scope, for example) cannot be told from
        // ours at the start: no list is accepted then until an operator pins the rest.
        let known = &snapshot.identity.known;
        let fits = |(scope, system): &(String, u64)| {
            known.scope.as_ref().is_none_or(|it| it == scope)
                && known.system_identifier.as_ref().is_none_or(|it| *it == system.to_string())
        };
        let may_learn = self.pins_allow(truth) && !self.others_answered.iter().any(fits);
        for (index, machine) in truth.machines.iter().enumerate() {
            if machine.cluster != OWN {
                for due in [Due::Known, Due::Learned] {
                    self.due.remove(&(index, due));
                }
                self.steady.remove(&index);
                continue;
            }
            let takes_writes = machine.postgres_is_up && !machine.in_recovery;
            if takes_writes || truth.holds_lock(index) {
                let ip = machine.ip.filter(|_| !truth.clusters[OWN].is_patroni_4);
                self.led.insert((index, ip), now);
            }
            let answers = machine.ip.is_some()
                && !machine.is_cut
                && machine.patroni_is_up
                && machine.latency_ms < 500;
            let leads = answers && takes_writes && truth.holds_lock(index);
            let is_told = self
                .told
                .iter()
                .any(|(name, host)| *name == machine.name && Some(ip_of(host)) == machine.ip);
            let is_known = leads && is_told && is_right;
            let is_learnable = leads
                && may_learn
                && (is_right || has_majority)
                && (is_told || (is_right && self.can_be_found(truth, index, now)))
                && (is_right || self.new_list_can_be_read(truth));
            for (due, holds) in [(Due::Known, is_known), (Due::Learned, is_learnable)] {
                match holds {
                    true => _ = self.due.entry((index, due)).or_insert(now),
                    false => _ = self.due.remove(&(index, due)),
                }
            }
            match is_known {
                true => _ = self.steady.entry(index).or_insert(now),
                false => _ = self.steady.remove(&index),
            }
        }
    }

    /// A list of the new identity exists, and it has known places only. Without the DCS Patroni returns no
    /// list, and without a list the members could be those of another cluster at other names.
    fn new_list_can_be_read(&self, truth: &Truth) -> bool {
        truth.clusters[OWN].dcs_is_up && self.list_is_of_known_places(truth)
    }

    /// More than half of the members are where they were, and answer; two at least if nothing of the
    /// identity is as it was.
    fn most_answer(&self, truth: &Truth, known: &Identity) -> bool {
        let own = &truth.clusters[OWN];
        let system = own.system.to_string();
        let all_differs = known.scope.as_ref().is_some_and(|it| *it != own.scope)
            && known.system_identifier.as_ref().is_some_and(|it| *it != system);
        let least = if all_differs { 2 } else { 1 };
        let answers = |(name, host): &(&String, &String)| {
            truth.at(ip_of(host)).is_some_and(|index| {
                let machine = &truth.machines[index];
                machine.cluster == OWN
                    && machine.name == **name
                    && !machine.is_cut
                    && machine.patroni_is_up
                    && machine.latency_ms < 500
            })
        };
        let count = self.members.iter().filter(answers).count();
        count >= least && count * 2 > self.members.len()
    }

    /// Our list names no place that pgsteer does not know: one that does cannot be told from another
    /// cluster's while the identity differs.
    fn list_is_of_known_places(&self, truth: &Truth) -> bool {
        let keys = &truth.clusters[OWN].keys;
        keys.iter().all(|(name, key)| self.told.get(name) == Some(&key.host))
    }

    /// A Patroni of ours at an address of the last list answers with a list that has the machine.
    fn can_be_found(&self, truth: &Truth, index: usize, now: u64) -> bool {
        let has_it = |host: &String| {
            let by = truth.at(ip_of(host)).filter(|by| {
                let machine = &truth.machines[*by];
                machine.cluster == OWN
                    && machine.patroni_is_up
                    && !machine.is_cut
                    && machine.latency_ms < 500
            });
            let list = by.and_then(|by| truth.list(by, now)).unwrap_or_default();
            let host = truth.host(index);
            let name = &truth.machines[index].name;
            list.iter().any(|(known, at)| known == name && Some(at) == host.as_ref())
        };
        self.told.values().any(has_it)
    }

    /// No gate is open at an address of another cluster for longer than the detection takes.
    fn no_other_cluster(
        &mut self,
        truth: &Truth,
        snapshot: &Snapshot,
        open: &[(String, MemberName)],
        now: u64,
    ) {
        for (gate, name) in open {
            let host = snapshot.members[name].postgres.host();
            let Some(index) = truth.at(ip_of(host)) else { continue };
            let machine = &truth.machines[index];
            if machine.cluster == OWN {
                continue;
            }
            let accepts_login = truth.clusters[machine.cluster].accepts_login;
            // Of a member whose URL alone is known Patroni alone is asked.
            let is_listed = self.told.get(name.as_str()).is_some_and(|it| it == host);
            let limit = match self.has_check_login && accepts_login && is_listed {
                true => DETECTED_BY_LOGIN_MS,
                false if self.slow.is_empty() => DETECTED_BY_PATRONI_MS,
                false => DETECTED_WHERE_SLOW_MS,
            };
            self.count("look at a gate that is open at another cluster, within the limit");
            let age = now - machine.there_since;
            if age > limit {
                let what = format!(
                    "{gate} gate of {name} is open at {host}, where machine {index} of cluster {} \
                     has been for {age} ms: {:?}",
                    machine.cluster, snapshot.members[name].trouble,
                );
                self.fail("open at another cluster", now, what);
            }
        }
    }

    /// A server that answers under two names is one.
    fn one_gate_for_a_server(
        &mut self,
        truth: &Truth,
        snapshot: &Snapshot,
        open: &[(String, MemberName)],
        now: u64,
    ) {
        let mut seen: BTreeMap<(&str, usize), &MemberName> = BTreeMap::new();
        for (gate, name) in open {
            let ip = ip_of(snapshot.members[name].postgres.host());
            if truth.at(ip).is_none() {
                continue;
            }
            if let Some(other) = seen.insert((gate, ip), name) {
                let what = format!("{gate} gates of {other} and {name} lead to address {ip}");
                self.fail("two gates for one server", now, what);
            }
        }
    }

    fn one_write_gate(&mut self, snapshot: &Snapshot, now: u64) {
        let of_writers = snapshot.services.values().filter(|it| it.role == Role::Primary);
        let open: BTreeSet<&MemberName> = of_writers.flat_map(|it| it.open()).collect();
        if open.len() > 1 {
            self.fail("two write gates", now, format!("{open:?}"));
        }
    }

    /// A split brain is reported only if two servers of ours led lately.
    fn no_split_brain(&mut self, truth: &Truth, snapshot: &Snapshot, now: u64) {
        let of_gates = snapshot.services.values().flat_map(|it| it.gates.values());
        let of_members = snapshot.members.values().filter_map(|it| it.trouble.as_ref());
        let reason = of_gates.filter_map(Gate::reason).chain(of_members);
        let mut split = reason.filter(|reason| matches!(reason, Reason::SplitBrain(_)));
        let Some(reason) = split.next().map(ToString::to_string) else { return };
        let leaders = self.led.values().filter(|at| now - **at < OVERLAP_MS).count();
        // Until its Patroni answers, a server at the address of a member may be ours.
        let of_others =
            self.told.values().filter_map(|host| truth.at(ip_of(host))).filter(|index| {
                let machine = &truth.machines[*index];
                machine.cluster != OWN && machine.postgres_is_up && !machine.in_recovery
            });
        let leaders = leaders + of_others.count();
        self.count("look at a split brain of two servers");
        if leaders < 2 {
            self.fail("split brain of one server", now, reason);
        }
    }

    fn primaries_are_served(&mut self, truth: &Truth, snapshot: &Snapshot, now: u64) {
        for ((index, due), since) in self.due.clone() {
            let limit = match due {
                Due::Known => SERVED_MS,
                Due::Learned => LEARNED_MS,
            };
            let ip = truth.machines[index].ip;
            let write = snapshot.services.iter().find(|(name, _)| name.as_str() == "write");
            let mut open = write.into_iter().flat_map(|(_, it)| it.open());
            let is_served =
                open.any(|name| Some(ip_of(snapshot.members[name].postgres.host())) == ip);
            if is_served {
                self.due.insert((index, due), now);
                continue;
            }
            if now - since > limit {
                let members = snapshot.members.iter().map(|(name, it)| {
                    let trouble = it.trouble.as_ref().map(ToString::to_string);
                    format!("{name} at {} {} {}", it.postgres, it.role, trouble.unwrap_or_default())
                });
                let members: Vec<String> = members.collect();
                let what = format!(
                    "machine {index} has led for {} ms and is not served ({due:?}); known as {}; told {:?}; {}; {:?}",
                    now - since,
                    snapshot.identity.known,
                    self.told,
                    members.join("; "),
                    snapshot.identity.strangers,
                );
                self.fail("primary not served", now, what);
            }
        }
    }

    /// No session at a primary that has been one all the time is ended.
    fn sessions_go_on(&mut self, truth: &Truth, snapshot: &Snapshot, now: u64) {
        let sessions = std::mem::take(&mut self.sessions);
        for session in sessions {
            let machine = &truth.machines[session.machine];
            let lives = machine.postgres_is_up
                && machine.started == session.started
                && machine.ip == Some(ip_of(session.dialled.host()));
            if !lives {
                continue;
            }
            if !snapshot.ends_session(&session.service, &session.member, &session.dialled) {
                self.sessions.push(session);
                continue;
            }
            self.count("session ended");
            let is_steady =
                self.steady.get(&session.machine).is_some_and(|since| *since <= session.since);
            if is_steady {
                let what = format!(
                    "the session of {} to {} ({}) was ended",
                    session.service, session.member, session.dialled
                );
                self.fail("session ended", now, what);
            }
        }
    }

    fn open_sessions(&mut self, truth: &Truth, snapshot: &Snapshot, now: u64, rng: &mut Rng) {
        if self.sessions.len() >= 4 || !rng.chance(5) {
            return;
        }
        let service = rng.pick(&["write", "read", "read_fallback"]);
        let Some((service, state)) =
            snapshot.services.iter().find(|(name, _)| name.as_str() == service)
        else {
            return;
        };
        let Some(member) = state.open().next() else { return };
        let dialled = snapshot.members[member].postgres.clone();
        let Some(machine) = truth.at(ip_of(dialled.host())) else { return };
        let of = &truth.machines[machine];
        if !of.postgres_is_up || of.is_cut {
            return;
        }
        self.count(match of.cluster {
            OWN => "session opened",
            _ => "session opened at another cluster, within the limit",
        });
        let (service, member, started) = (service.clone(), member.clone(), of.started);
        self.sessions.push(Session { service, member, dialled, machine, started, since: now });
    }

    /// Counts what makes the world worth its name.
    fn note_open(&mut self, truth: &Truth, snapshot: &Snapshot, open: Vec<(String, MemberName)>) {
        let mut is_open = BTreeSet::new();
        for (gate, name) in open {
            let Ok(service) = ServiceName::new(&gate) else { continue };
            let opened = !self.was_open.contains(&(service.clone(), name.clone()));
            if opened && snapshot.services.contains_key(&service) {
                self.count(match gate.as_str() {
                    "write" => "write gate opened",
                    "read" => "read gate opened",
                    _ => "other gate opened",
                });
            }
            is_open.insert((service, name));
        }
        self.was_open = is_open;
        let hosts = self.told.values().map(|host| ip_of(host));
        let others: BTreeSet<usize> = hosts
            .filter_map(|ip| truth.at(ip))
            .filter(|index| truth.machines[*index].cluster != OWN)
            .collect();
        let new = others.difference(&self.was_at_known_place).count();
        *self.counts.entry("another cluster at a member's address").or_default() +=
            u64::try_from(new).unwrap();
        self.was_at_known_place = others;
        if snapshot.members.values().any(|it| it.same_as.is_some()) {
            self.count("look at a server with two names");
        }
        if snapshot.identity.dispute.is_some() {
            self.count("look at a dispute at the start");
        }
    }
}

/// The open gates of services and of health checks, each with its name.
fn open_gates(snapshot: &Snapshot) -> Vec<(String, MemberName)> {
    let of_services = snapshot.services.iter().flat_map(|(service, state)| {
        state.open().map(move |name| (service.to_string(), name.clone()))
    });
    let of_health = snapshot.members.iter().flat_map(|(name, it)| {
        let open = it.health.roles.iter().filter(|(_, gate)| gate.is_open());
        open.map(move |(role, _)| (format!("health {role}"), name.clone()))
    });
    of_services.chain(of_health).collect()
}

//! The truth: clusters, their machines, and the addresses at which the machines are.
//!
//! It knows nothing of pgsteer. Patroni is modelled as far as a front door can see it: the leader
//! lock, elections, demotions, keys that expire, failsafe mode, maintenance mode.

use std::collections::BTreeMap;

use crate::rng::Rng;

/// How long a key and the leader lock outlive the Patroni that wrote them.
const TTL_MS: u64 = 30_000;

/// One PostgreSQL cluster under Patroni.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub scope: String,
    pub system: u64,
    /// Patroni 4 reports its member name, and its list names the scope.
    pub is_patroni_4: bool,
    pub has_failsafe: bool,
    /// It accepts the check login of pgsteer.
    pub accepts_login: bool,
    pub dcs_is_up: bool,
    pub paused: bool,
    /// The machine that holds the leader lock.
    pub lock: Option<usize>,
    /// When the lock expires, as its holder does not renew it.
    lock_ends: Option<u64>,
    pub timeline: u32,
    pub keys: BTreeMap<String, Key>,
}

/// A member's key in the DCS.
#[derive(Clone, Debug)]
pub struct Key {
    machine: usize,
    pub host: String,
    /// When it expires, as its Patroni does not renew it.
    ends: Option<u64>,
}

/// One host with PostgreSQL and Patroni, both reached by the same address.
#[derive(Clone, Debug)]
pub struct Machine {
    pub cluster: usize,
    pub name: String,
    pub ip: Option<usize>,
    /// It is listed by its host name, not by its address.
    pub has_host_name: bool,
    /// Nothing that is sent to it is answered.
    pub is_cut: bool,
    pub patroni_is_up: bool,
    pub postgres_is_up: bool,
    pub in_recovery: bool,
    /// Tells one start of a server from another.
    pub started: u64,
    /// How long Patroni takes to answer.
    pub latency_ms: u64,
    /// Since when it has been at its address, in its cluster.
    pub there_since: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    Promoted(usize),
    Demoted(usize),
    Registered(usize),
    Elected(usize),
}

/// What is found where something is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// No answer.
    Silent,
    /// The connection is refused.
    Refused,
    /// This machine.
    Machine(usize),
}

/// All clusters. The first one is ours.
#[derive(Clone, Debug)]
pub struct Truth {
    pub clusters: Vec<Cluster>,
    pub machines: Vec<Machine>,
    timers: Vec<(u64, Timer)>,
    starts: u64,
    rng: Rng,
}

/// The cluster that pgsteer stands before.
pub const OWN: usize = 0;

impl Cluster {
    pub fn new(scope: &str, system: u64, is_patroni_4: bool) -> Cluster {
        Cluster {
            scope: scope.to_owned(),
            system,
            is_patroni_4,
            has_failsafe: false,
            accepts_login: true,
            dcs_is_up: true,
            paused: false,
            lock: None,
            lock_ends: None,
            timeline: 1,
            keys: BTreeMap::new(),
        }
    }
}

impl Truth {
    pub fn new(clusters: Vec<Cluster>, seed: u64) -> Truth {
        Truth {
            clusters,
            machines: Vec::new(),
            timers: Vec::new(),
            starts: 0,
            rng: Rng::new(seed ^ 0x7275_7468),
        }
    }

    /// Adds a machine that runs. The first of a cluster is its primary.
    pub fn add(&mut self, cluster: usize, name: &str, ip: usize, has_host_name: bool) {
        let is_first = self.clusters[cluster].lock.is_none();
        self.starts += 1;
        self.machines.push(Machine {
            cluster,
            name: name.to_owned(),
            ip: Some(ip),
            has_host_name,
            is_cut: false,
            patroni_is_up: true,
            postgres_is_up: true,
            in_recovery: !is_first,
            started: self.starts,
            latency_ms: 5,
            there_since: 0,
        });
        let index = self.machines.len() - 1;
        if is_first {
            self.clusters[cluster].lock = Some(index);
        }
        self.register(index);
    }

    /// The machine at an address.
    pub fn at(&self, ip: usize) -> Option<usize> {
        self.machines.iter().position(|machine| machine.ip == Some(ip))
    }

    /// What answers requests to Patroni at `ip`.
    pub fn patroni_at(&self, ip: usize) -> Peer {
        match self.at(ip).map(|index| (index, &self.machines[index])) {
            None => Peer::Silent,
            Some((_, machine)) if machine.is_cut => Peer::Silent,
            Some((_, machine)) if !machine.patroni_is_up => Peer::Refused,
            Some((index, _)) => Peer::Machine(index),
        }
    }

    /// What answers connections to PostgreSQL at `ip`.
    pub fn postgres_at(&self, ip: usize) -> Peer {
        match self.at(ip).map(|index| (index, &self.machines[index])) {
            None => Peer::Silent,
            Some((_, machine)) if machine.is_cut => Peer::Silent,
            Some((_, machine)) if !machine.postgres_is_up => Peer::Refused,
            Some((index, _)) => Peer::Machine(index),
        }
    }

    /// The host by which a machine is listed.
    pub fn host(&self, index: usize) -> Option<String> {
        let machine = &self.machines[index];
        machine.ip.map(|ip| match machine.has_host_name {
            true => format!("host-{ip}"),
            false => format!("10.0.0.{ip}"),
        })
    }

    /// `/primary` of the machine returns 200.
    pub fn holds_lock(&self, index: usize) -> bool {
        let machine = &self.machines[index];
        let cluster = &self.clusters[machine.cluster];
        let has_it = cluster.lock == Some(index) && machine.patroni_is_up;
        has_it && (cluster.dcs_is_up || cluster.has_failsafe || !machine.in_recovery)
    }

    /// The names and hosts that `/cluster` of the machine returns; none while its DCS is out of reach.
    pub fn list(&self, index: usize, now: u64) -> Option<Vec<(String, String)>> {
        let machine = &self.machines[index];
        let cluster = &self.clusters[machine.cluster];
        if !cluster.dcs_is_up || machine.is_cut {
            return None;
        }
        let keys = cluster.keys.iter().filter(|(_, key)| key.ends.is_none_or(|ends| now < ends));
        Some(keys.map(|(name, key)| (name.clone(), key.host.clone())).collect())
    }

    /// When the truth changes by itself.
    pub fn next_change(&self) -> Option<u64> {
        self.timers.iter().map(|(at, _)| *at).min()
    }

    /// Lets happen what is due, and notes what follows from the present state.
    pub fn settle(&mut self, now: u64) {
        while let Some(at) = self.timers.iter().position(|(at, _)| *at <= now) {
            let (_, timer) = self.timers.remove(at);
            self.fire(timer, now);
        }
        for index in 0..self.machines.len() {
            self.note_machine(index, now);
        }
        for cluster in 0..self.clusters.len() {
            self.note_cluster(cluster, now);
        }
    }

    fn note_machine(&mut self, index: usize, now: u64) {
        let machine = &self.machines[index];
        let (cluster, name) = (machine.cluster, machine.name.clone());
        let works = self.reaches_dcs(index);
        let host = self.host(index);
        for key in
            self.clusters.iter_mut().enumerate().flat_map(|(it, of)| {
                of.keys.iter_mut().map(move |(known_as, key)| (it, known_as, key))
            })
        {
            let (of, known_as, key) = key;
            if key.machine != index {
                continue;
            }
            let is_kept = works && of == cluster && *known_as == name;
            key.ends = if is_kept { None } else { key.ends.or(Some(now + TTL_MS)) };
        }
        let key = self.clusters[cluster].keys.get(&name);
        let is_listed = key.is_some_and(|key| {
            key.machine == index && Some(&key.host) == host.as_ref() && key.ends.is_none()
        });
        if works && !is_listed {
            self.start_timer(Timer::Registered(index), (50, 8_000), now);
        }
        let machine = &self.machines[index];
        let of = &self.clusters[cluster];
        let has_lock = of.lock == Some(index);
        let runs = machine.postgres_is_up && machine.patroni_is_up;
        // Without the DCS a primary stays primary in failsafe mode only.
        let may_stay = has_lock && (works || (of.has_failsafe && !machine.is_cut));
        let promotes = runs && has_lock && machine.in_recovery && works;
        let demotes = runs && !machine.in_recovery && !may_stay && !of.paused;
        if promotes {
            self.start_timer(Timer::Promoted(index), (50, 3_000), now);
        }
        if demotes {
            let time = if works { (200, 3_000) } else { (5_000, 15_000) };
            self.start_timer(Timer::Demoted(index), time, now);
        }
    }

    fn note_cluster(&mut self, index: usize, now: u64) {
        let cluster = &self.clusters[index];
        if !cluster.dcs_is_up {
            return;
        }
        let renews = cluster.lock.is_some_and(|it| {
            self.reaches_dcs(it)
                && self.machines[it].cluster == index
                && self.machines[it].postgres_is_up
        });
        let ends = match renews {
            true => None,
            false => cluster.lock_ends.or(Some(now + self.rng.range(5_000, TTL_MS))),
        };
        self.clusters[index].lock_ends = ends;
        if let (Some(ends), false) = (ends, self.clusters[index].paused) {
            let timer = Timer::Elected(index);
            if !self.timers.iter().any(|(_, it)| *it == timer) {
                self.timers.push((ends.max(now + 200), timer));
            }
        }
    }

    fn reaches_dcs(&self, index: usize) -> bool {
        let machine = &self.machines[index];
        let is_there = machine.patroni_is_up && machine.ip.is_some() && !machine.is_cut;
        is_there && self.clusters[machine.cluster].dcs_is_up
    }

    fn start_timer(&mut self, timer: Timer, (low, high): (u64, u64), now: u64) {
        if !self.timers.iter().any(|(_, it)| *it == timer) {
            let at = now + self.rng.range(low, high);
            self.timers.push((at, timer));
        }
    }

    fn fire(&mut self, timer: Timer, now: u64) {
        match timer {
            Timer::Promoted(index) => {
                let machine = &self.machines[index];
                let cluster = machine.cluster;
                let has_lock = self.clusters[cluster].lock == Some(index);
                if has_lock && machine.postgres_is_up && machine.patroni_is_up {
                    self.machines[index].in_recovery = false;
                    self.clusters[cluster].timeline += 1;
                }
            }
            Timer::Demoted(index) => self.demote(index),
            Timer::Registered(index) => {
                if self.reaches_dcs(index) {
                    self.register(index);
                }
            }
            Timer::Elected(cluster) => self.elect(cluster, now),
        }
    }

    fn demote(&mut self, index: usize) {
        let machine = &self.machines[index];
        let of = &self.clusters[machine.cluster];
        let has_lock = of.lock == Some(index);
        let may_stay =
            has_lock && (self.reaches_dcs(index) || (of.has_failsafe && !machine.is_cut));
        if machine.patroni_is_up && machine.postgres_is_up && !may_stay && !of.paused {
            self.restart_server(index, true);
        }
    }

    /// Starts PostgreSQL, or starts it again.
    pub fn restart_server(&mut self, index: usize, in_recovery: bool) {
        self.starts += 1;
        let machine = &mut self.machines[index];
        machine.started = self.starts;
        machine.postgres_is_up = true;
        machine.in_recovery = in_recovery;
    }

    fn register(&mut self, index: usize) {
        let Some(host) = self.host(index) else { return };
        let machine = &self.machines[index];
        let key = Key { machine: index, host, ends: None };
        self.clusters[machine.cluster].keys.insert(machine.name.clone(), key);
    }

    fn elect(&mut self, index: usize, now: u64) {
        let cluster = &self.clusters[index];
        let is_due = cluster.lock_ends.is_some_and(|ends| ends <= now);
        if !is_due || !cluster.dcs_is_up || cluster.paused {
            return;
        }
        let is_fit = |it: &usize| {
            let machine = &self.machines[*it];
            machine.cluster == index && machine.postgres_is_up && self.reaches_dcs(*it)
        };
        let fit: Vec<usize> = (0..self.machines.len()).filter(is_fit).collect();
        self.clusters[index].lock = match fit.is_empty() {
            true => None,
            false => Some(self.rng.pick(&fit)),
        };
        self.clusters[index].lock_ends = None;
    }

    /// Moves the lock by order.
    pub fn switch_over(&mut self, to: usize) -> bool {
        let cluster = self.machines[to].cluster;
        let is_fit = self.machines[to].postgres_is_up && self.reaches_dcs(to);
        let is_other = self.clusters[cluster].lock != Some(to);
        if is_fit && is_other {
            self.clusters[cluster].lock = Some(to);
            self.clusters[cluster].lock_ends = None;
        }
        is_fit && is_other
    }

    /// Gives a machine an address, which another one loses.
    pub fn move_to(&mut self, index: usize, ip: usize, now: u64) {
        if let Some(other) = self.at(ip) {
            self.machines[other].ip = None;
        }
        self.machines[index].ip = Some(ip);
        self.machines[index].there_since = now;
    }

    /// Two machines exchange their addresses.
    pub fn swap(&mut self, one: usize, other: usize, now: u64) {
        let (ip_of_one, ip_of_other) = (self.machines[one].ip, self.machines[other].ip);
        for (index, ip) in [(one, ip_of_other), (other, ip_of_one)] {
            self.machines[index].ip = ip;
            self.machines[index].there_since = now;
        }
    }

    /// Makes a machine a replica of another cluster, with new data.
    pub fn join(&mut self, index: usize, cluster: usize, now: u64) {
        let old = self.machines[index].cluster;
        if self.clusters[old].lock == Some(index) {
            self.clusters[old].lock = None;
        }
        self.machines[index].cluster = cluster;
        self.machines[index].there_since = now;
        self.restart_server(index, true);
    }
}

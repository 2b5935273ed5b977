//! Scripts: a setup, and what happens when. A script is made from a seed, is played again exactly, and
//! can be shortened.

use std::fmt;

use crate::rng::Rng;
use crate::truth::{Cluster, OWN, Truth};

/// How many addresses there are; addresses are numbered from 1.
pub const ADDRESSES: usize = 9;

const NAMES: [&str; 4] = ["n1", "n2", "n3", "n4"];

/// What a world is at the start.
#[derive(Clone, Debug)]
pub struct Setup {
    pub seed: u64,
    pub own_is_patroni_4: bool,
    pub has_failsafe: bool,
    pub own: Vec<(&'static str, usize, bool)>,
    pub others: Vec<Other>,
    /// The addresses of the configured URLs.
    pub seeds: Vec<usize>,
    pub has_check_login: bool,
    pub pins: Pins,
}

/// Another cluster: how it differs, whether it accepts the check login, and its machines by name and
/// address.
pub type Other = (Kind, bool, Vec<(&'static str, usize)>);

/// How another cluster differs from ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Another scope, another system identifier.
    Other,
    /// The same scope, another system identifier.
    SameScope,
    /// Another group of the same Citus scope, which its REST API does not report.
    CitusGroup,
    /// A clone, as a standby cluster is: the same system identifier, another scope.
    Clone,
}

/// Which parts of the identity are configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pins {
    None,
    Scope,
    System,
    Both,
}

/// A script.
#[derive(Clone, Debug)]
pub struct Script {
    pub setup: Setup,
    /// Each event with the time in milliseconds after the one before.
    pub events: Vec<(u64, Event)>,
}

/// What can happen. Machines and clusters are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Nothing,
    SwitchOver(usize),
    Cut(usize),
    Uncut(usize),
    StopPatroni(usize),
    StartPatroni(usize),
    StopPostgres(usize),
    StartPostgres(usize),
    RestartPostgres(usize),
    StopHost(usize),
    StartHost(usize),
    Slow(usize, u64),
    Quick(usize),
    MoveTo(usize, usize),
    Swap(usize, usize),
    Rename(usize, usize),
    RenameScope(usize),
    Remake(usize),
    Join(usize, usize),
    DcsDown(usize),
    DcsUp(usize),
    Pause(usize),
    Resume(usize),
    /// pgsteer starts anew, with what it stored or without.
    Restart {
        with_memory: bool,
    },
}

impl Event {
    /// The kind, for counts.
    pub fn kind(self) -> &'static str {
        match self {
            Event::Nothing => "quiet time",
            Event::SwitchOver(_) => "switchover",
            Event::Cut(_) | Event::Uncut(_) => "network cut or mended",
            Event::StopPatroni(_) | Event::StartPatroni(_) => "Patroni stopped or started",
            Event::StopPostgres(_) | Event::StartPostgres(_) => "PostgreSQL stopped or started",
            Event::RestartPostgres(_) => "PostgreSQL restarted",
            Event::StopHost(_) | Event::StartHost(_) => "host stopped or started",
            Event::Slow(..) | Event::Quick(_) => "Patroni slow or quick",
            Event::MoveTo(..) => "address moved",
            Event::Swap(..) => "addresses exchanged",
            Event::Rename(..) => "member renamed",
            Event::RenameScope(_) => "scope renamed",
            Event::Remake(_) => "cluster made anew",
            Event::Join(..) => "machine joined another cluster",
            Event::DcsDown(_) | Event::DcsUp(_) => "DCS down or up",
            Event::Pause(_) | Event::Resume(_) => "maintenance mode",
            Event::Restart { with_memory: true } => "restart with memory",
            Event::Restart { with_memory: false } => "restart without memory",
        }
    }
}

impl Script {
    /// The script of a seed.
    pub fn of(seed: u64) -> Script {
        let mut rng = Rng::new(seed);
        let setup = setup(seed, &mut rng);
        let machines = setup.own.len() + setup.others.iter().map(|it| it.2.len()).sum::<usize>();
        let clusters = 1 + setup.others.len();
        let count = rng.range(5, 40);
        let mut events = vec![(rng.range(500, 6_000), Event::Nothing)];
        for _ in 0..count {
            let wait = match rng.index(40) {
                0..=19 => rng.range(1, 1_500),
                20..=36 => rng.range(1_000, 8_000),
                37..=38 => rng.range(5_000, 45_000),
                _ => 90_000,
            };
            events.push((wait, event(machines, setup.own.len(), clusters, &mut rng)));
        }
        let rest = if rng.chance(20) { 110_000 } else { 25_000 };
        events.push((rest, Event::Nothing));
        Script { setup, events }
    }
}

fn setup(seed: u64, rng: &mut Rng) -> Setup {
    let mut free: Vec<usize> = (1..=ADDRESSES).collect();
    let mut address = |rng: &mut Rng| free.swap_remove(rng.index(free.len()));
    let by_host_name = rng.chance(30);
    let count = rng.range(2, 4);
    let own: Vec<_> = (0..count)
        .map(|index| {
            let has_host_name = by_host_name && rng.chance(70);
            (NAMES[usize::try_from(index).unwrap()], address(rng), has_host_name)
        })
        .collect();
    let kinds = [Kind::Other, Kind::SameScope, Kind::CitusGroup, Kind::Clone];
    let others = (0..rng.range(1, 2)).map(|_| {
        let (kind, accepts_login) = (rng.pick(&kinds), rng.chance(70));
        let names: &[&'static str] = if rng.chance(50) { &NAMES } else { &["x1", "x2"] };
        let count = usize::try_from(rng.range(1, 2)).unwrap();
        let machines: Vec<_> = names.iter().take(count).map(|name| (*name, address(rng))).collect();
        (kind, accepts_login, machines)
    });
    let others: Vec<_> = others.collect();
    let mut seeds = vec![own[0].1];
    if rng.chance(70) {
        seeds.push(own[1].1);
    }
    if rng.chance(25) {
        seeds.push(others[0].2[0].1);
    }
    if rng.chance(20) {
        seeds.push(ADDRESSES);
    }
    Setup {
        seed,
        own_is_patroni_4: rng.chance(60),
        has_failsafe: rng.chance(60),
        own,
        others,
        seeds,
        has_check_login: rng.chance(70),
        pins: rng.pick(&[
            Pins::None,
            Pins::None,
            Pins::None,
            Pins::Scope,
            Pins::System,
            Pins::Both,
        ]),
    }
}

fn event(machines: usize, own: usize, clusters: usize, rng: &mut Rng) -> Event {
    // Mostly ours: what befalls other clusters is seen only at addresses that were ours.
    let machine = |rng: &mut Rng| match rng.chance(70) {
        true => rng.index(own),
        false => rng.index(machines),
    };
    let any = |rng: &mut Rng| rng.index(machines);
    let cluster = |rng: &mut Rng| if rng.chance(75) { OWN } else { rng.index(clusters) };
    let address = |rng: &mut Rng| usize::try_from(rng.range(1, 9)).unwrap();
    match rng.index(50) {
        0..=4 => Event::SwitchOver(machine(rng)),
        5..=6 => Event::Cut(machine(rng)),
        7..=9 => Event::Uncut(machine(rng)),
        10..=11 => Event::StopPatroni(machine(rng)),
        12..=14 => Event::StartPatroni(machine(rng)),
        15 => Event::StopPostgres(machine(rng)),
        16..=17 => Event::StartPostgres(machine(rng)),
        18 => Event::RestartPostgres(machine(rng)),
        19..=20 => Event::StopHost(machine(rng)),
        21..=23 => Event::StartHost(machine(rng)),
        24 => Event::Slow(machine(rng), rng.range(1_000, 4_900)),
        25..=26 => Event::Quick(machine(rng)),
        27..=30 => Event::MoveTo(any(rng), address(rng)),
        31..=34 => Event::Swap(any(rng), any(rng)),
        35..=36 => Event::Rename(machine(rng), rng.index(NAMES.len() + 2)),
        37 => Event::RenameScope(cluster(rng)),
        38 => Event::Remake(cluster(rng)),
        39 => Event::Join(any(rng), rng.index(clusters)),
        40..=41 => Event::DcsDown(cluster(rng)),
        42..=44 => Event::DcsUp(cluster(rng)),
        45 => Event::Pause(cluster(rng)),
        46 => Event::Resume(cluster(rng)),
        47..=48 => Event::Restart { with_memory: true },
        _ => Event::Restart { with_memory: false },
    }
}

impl Setup {
    /// The world of this setup.
    pub fn truth(&self) -> Truth {
        let mut own = Cluster::new("demo", 7001, self.own_is_patroni_4);
        own.has_failsafe = self.has_failsafe;
        let mut clusters = vec![own];
        for (index, (kind, accepts_login, _)) in self.others.iter().enumerate() {
            let number = u64::try_from(index).unwrap();
            let (scope, system) = match kind {
                Kind::Other => (format!("other{index}"), 8001 + number),
                Kind::SameScope | Kind::CitusGroup => ("demo".to_owned(), 8001 + number),
                Kind::Clone => (format!("clone{index}"), 7001),
            };
            let mut cluster = Cluster::new(&scope, system, self.own_is_patroni_4);
            cluster.accepts_login = *accepts_login;
            clusters.push(cluster);
        }
        let mut truth = Truth::new(clusters, self.seed);
        for (name, ip, has_host_name) in &self.own {
            truth.add(OWN, name, *ip, *has_host_name);
        }
        for (index, (_, _, machines)) in self.others.iter().enumerate() {
            for (name, ip) in machines {
                truth.add(index + 1, name, *ip, false);
            }
        }
        truth
    }
}

/// Lets `event` happen. Returns false if it does not apply.
pub fn happen(event: Event, truth: &mut Truth, now: u64) -> bool {
    match event {
        Event::Nothing | Event::Restart { .. } => true,
        Event::SwitchOver(index) => truth.switch_over(index),
        Event::Cut(index) => set(&mut truth.machines[index].is_cut, true),
        Event::Uncut(index) => set(&mut truth.machines[index].is_cut, false),
        Event::StopPatroni(index) => set(&mut truth.machines[index].patroni_is_up, false),
        Event::StartPatroni(index) => set(&mut truth.machines[index].patroni_is_up, true),
        Event::StopPostgres(index) => set(&mut truth.machines[index].postgres_is_up, false),
        Event::StartPostgres(index) => {
            let is_down = !truth.machines[index].postgres_is_up;
            if is_down {
                truth.restart_server(index, true);
            }
            is_down
        }
        Event::RestartPostgres(index) => {
            let machine = &truth.machines[index];
            let (runs, in_recovery) = (machine.postgres_is_up, machine.in_recovery);
            if runs {
                truth.restart_server(index, in_recovery);
            }
            runs
        }
        Event::StopHost(index) => {
            let machine = &mut truth.machines[index];
            let runs = machine.postgres_is_up || machine.patroni_is_up;
            (machine.postgres_is_up, machine.patroni_is_up) = (false, false);
            runs
        }
        Event::StartHost(index) => {
            let machine = &truth.machines[index];
            let is_down = !machine.postgres_is_up && !machine.patroni_is_up;
            if is_down {
                truth.machines[index].patroni_is_up = true;
                truth.restart_server(index, true);
            }
            is_down
        }
        Event::Slow(index, latency_ms) => {
            truth.machines[index].latency_ms = latency_ms;
            true
        }
        Event::Quick(index) => set(&mut truth.machines[index].latency_ms, 5),
        other => happen_to_names(other, truth, now),
    }
}

/// The events that concern addresses, names and clusters.
fn happen_to_names(event: Event, truth: &mut Truth, now: u64) -> bool {
    match event {
        Event::MoveTo(index, ip) => {
            let is_new = truth.machines[index].ip != Some(ip);
            if is_new {
                truth.move_to(index, ip, now);
            }
            is_new
        }
        Event::Swap(one, other) => {
            let differ = one != other;
            if differ {
                truth.swap(one, other, now);
            }
            differ
        }
        Event::Rename(index, name) => {
            let name = NAMES.get(name).map_or_else(|| format!("r{name}"), |it| (*it).to_owned());
            let cluster = truth.machines[index].cluster;
            let is_taken = truth.machines.iter().any(|it| it.cluster == cluster && it.name == name);
            if !is_taken {
                truth.machines[index].name = name;
            }
            !is_taken
        }
        Event::RenameScope(index) => {
            // The keys of the old scope are not those of the new one.
            truth.clusters[index].scope.push('x');
            truth.clusters[index].keys.clear();
            true
        }
        Event::Remake(index) => {
            remake(truth, index);
            true
        }
        Event::Join(index, cluster) => {
            let others = truth.machines.iter().enumerate();
            let mut others =
                others.filter(|(it, machine)| *it != index && machine.cluster == cluster);
            let (is_other, name) =
                (truth.machines[index].cluster != cluster, &truth.machines[index].name);
            let is_free = !others.any(|(_, machine)| machine.name == *name);
            if is_other && is_free {
                truth.join(index, cluster, now);
            }
            is_other && is_free
        }
        Event::DcsDown(index) => set(&mut truth.clusters[index].dcs_is_up, false),
        Event::DcsUp(index) => set(&mut truth.clusters[index].dcs_is_up, true),
        Event::Pause(index) => set(&mut truth.clusters[index].paused, true),
        Event::Resume(index) => set(&mut truth.clusters[index].paused, false),
        _ => false,
    }
}

/// Makes a cluster anew, with another system identifier: its servers are started again.
fn remake(truth: &mut Truth, cluster: usize) {
    truth.clusters[cluster].system += 10;
    truth.clusters[cluster].keys.clear();
    for number in 0..truth.machines.len() {
        let machine = &truth.machines[number];
        if machine.cluster == cluster && machine.postgres_is_up {
            truth.restart_server(number, machine.in_recovery);
        }
    }
}

/// Sets a value, and returns true if it was another.
fn set<T: PartialEq>(value: &mut T, to: T) -> bool {
    std::mem::replace(value, to) != *value
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup {
            seed,
            own_is_patroni_4,
            has_failsafe,
            own,
            others,
            seeds,
            has_check_login,
            pins,
        } = &self.setup;
        let version = if *own_is_patroni_4 { 4 } else { 3 };
        writeln!(
            f,
            "seed {seed}: Patroni {version}, failsafe {has_failsafe}, check login \
                     {has_check_login}, pins {pins:?}, seeds {seeds:?}"
        )?;
        let mut number = 0;
        for (name, ip, has_host_name) in own {
            writeln!(f, "  machine {number}: own {name} at {ip}, by host name {has_host_name}")?;
            number += 1;
        }
        for (cluster, (kind, accepts_login, machines)) in others.iter().enumerate() {
            for (name, ip) in machines {
                let of = format!("cluster {} ({kind:?}, check login {accepts_login})", cluster + 1);
                writeln!(f, "  machine {number}: {of} {name} at {ip}")?;
                number += 1;
            }
        }
        let mut at = 0;
        for (wait, event) in &self.events {
            at += wait;
            writeln!(f, "  {at:>7} ms  {event:?}")?;
        }
        Ok(())
    }
}

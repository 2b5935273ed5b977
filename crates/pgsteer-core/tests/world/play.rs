//! Plays a script: the sources of pgsteer, a fake clock, and the engine.
//!
//! The sources do what the real ones do: they obey the plan, ask at its pace, date an answer by its
//! question, never send two requests to one Patroni at a time, mark one that is late and let it run on.
//! The check login keeps one connection, which cannot outlive its server or its address.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::claim::{
    Claim, Fact, Failure, Found, PatroniFacts, Progress, Report, Role, ServerStart, Speaker,
    Standby, TagFlags, Tags, TetherFacts, Topology, Unlisted,
};
use pgsteer_core::engine::Engine;
use pgsteer_core::identity::{About, Identity};
use pgsteer_core::memory::{Memory, Remembered};
use pgsteer_core::names::{Endpoint, MemberName};
use pgsteer_core::plan::{Ask, Plan, When};
use pgsteer_core::settings::{Config, Membership};
use pgsteer_core::time::Moment;

use crate::check::{Check, Fault};
use crate::cluster;
use crate::rng::Rng;
use crate::script::{Event, Pins, Script, happen};
use crate::truth::{Peer, Truth};

/// When a request to Patroni counts as late, and when it is given up.
const LATE_MS: u64 = 2_000;
const GIVE_UP_MS: u64 = 5_000;
/// How long the check login waits for an answer.
const LOGIN_MS: u64 = 2_000;
/// The sources ask no quicker than this here, so that a promotion does not take up all steps.
const PACE_MS_MIN: u64 = 400;
const TURN_MS: u64 = 10_000;
const HURRY_MS: u64 = 2_000;

/// What one script came to.
#[derive(Debug)]
pub struct Outcome {
    pub steps: u64,
    pub counts: BTreeMap<&'static str, u64>,
    pub fault: Option<Fault>,
}

/// What the sources do differently from the real ones, to show that the model notices it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    AsTheyAre,
    /// Patroni's answers have no scope and no system identifier.
    WithoutIdentity,
}

/// Plays a script to its end, or to the first fault.
pub fn play(script: &Script, sources: Sources) -> Outcome {
    let mut play = Play::new(script, sources);
    play.run();
    let mut counts = play.check.counts;
    for (kind, count) in play.counts {
        *counts.entry(kind).or_default() += count;
    }
    Outcome { steps: play.steps, counts, fault: play.check.fault }
}

/// The sources of one member.
struct Asked {
    /// Tells one source of a member from the next.
    number: u64,
    ask: Ask,
    patroni_due: Option<u64>,
    took_ms: u64,
    tether: Tether,
    tether_due: Option<u64>,
    progress_due: u64,
    resolve_due: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tether {
    Apart,
    /// To this machine and this start of its server. The start is asked for after the first answer.
    Tied {
        machine: usize,
        started: u64,
        knows_start: bool,
    },
}

/// A question to a member.
#[derive(Clone)]
struct Question {
    member: MemberName,
    of: u64,
    asked: u64,
}

/// What comes in later. `of` is the cluster of which the machine that answered was a part then.
enum Delivery {
    Late { question: Question },
    Answer { question: Question, ip: usize, machine: usize, facts: Option<Box<PatroniFacts>> },
    GivenUp { question: Question },
    Refused { question: Question },
    LoginLate { question: Question },
    Listed { of: Option<usize>, report: Box<Report>, url: Arc<str>, is_turn: bool },
}

#[derive(Default)]
struct Lister {
    due: u64,
    is_running: bool,
    pause: u64,
}

struct Play<'a> {
    script: &'a Script,
    sources: Sources,
    truth: Truth,
    config: Config,
    engine: Engine,
    plan: Arc<Plan>,
    now: u64,
    asked: BTreeMap<MemberName, Asked>,
    listers: BTreeMap<Arc<str>, Lister>,
    turn: Vec<Arc<str>>,
    turn_due: Option<u64>,
    turned_at: u64,
    last: Option<Arc<str>>,
    deliveries: Vec<(u64, Delivery)>,
    disk: Option<(Arc<Memory>, u64)>,
    rng: Rng,
    check: Check,
    counts: BTreeMap<&'static str, u64>,
    sources_started: u64,
    steps: u64,
    /// Every report and every event is printed.
    is_traced: bool,
}

/// The number of the address that a host stands for.
pub fn ip_of(host: &str) -> usize {
    host.rsplit(['.', '-']).next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn moment(ms: u64) -> Moment {
    Moment::from_millis(ms)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

fn ip_of_url(url: &str) -> usize {
    let host = url.trim_start_matches("http://").trim_end_matches(":8008");
    ip_of(host)
}

fn peer(host: &str) -> Arc<str> {
    Arc::from(host)
}

fn config(script: &Script) -> Config {
    let mut config = cluster::config();
    let urls: Vec<String> =
        script.setup.seeds.iter().map(|ip| format!("http://10.0.0.{ip}:8008")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    config.cluster.members = cluster::patroni_at_any(&urls);
    if let Membership::Patroni(patroni) = &mut config.cluster.members {
        let (scope, system) = (Some("demo".to_owned()), Some("7001".to_owned()));
        patroni.pins = match script.setup.pins {
            Pins::None => Identity::default(),
            Pins::Scope => Identity { scope, ..Identity::default() },
            Pins::System => Identity { system_identifier: system, ..Identity::default() },
            Pins::Both => Identity { scope, group: None, system_identifier: system },
        };
    }
    if !script.setup.has_check_login {
        config.cluster.check = None;
    }
    let mut with_fallback = cluster::service(Role::Replica);
    with_fallback.fallback_primary = true;
    config.services = BTreeMap::from([
        (cluster::service_name("write"), cluster::service(Role::Primary)),
        (cluster::service_name("read"), cluster::service(Role::Replica)),
        (cluster::service_name("read_fallback"), with_fallback),
    ]);
    config
}

impl<'a> Play<'a> {
    fn new(script: &'a Script, sources: Sources) -> Play<'a> {
        let config = config(script);
        let engine = Engine::new(&config, Moment::START);
        let truth = script.setup.truth();
        Play {
            script,
            sources,
            plan: engine.plan(),
            check: Check::new(&script.setup),
            truth,
            config,
            engine,
            now: 0,
            asked: BTreeMap::new(),
            listers: BTreeMap::new(),
            turn: Vec::new(),
            turn_due: None,
            turned_at: 0,
            last: None,
            deliveries: Vec::new(),
            disk: None,
            rng: Rng::new(script.setup.seed ^ 0x706c_6179),
            counts: BTreeMap::new(),
            sources_started: 0,
            steps: 0,
            is_traced: std::env::var_os("PGSTEER_WORLD_TRACE").is_some(),
        }
    }

    fn run(&mut self) {
        self.follow_plan(true);
        let script = self.script;
        let mut at = 0;
        for (wait, event) in &script.events {
            at += wait;
            self.wait_until(at);
            if self.is_over() {
                return;
            }
            self.steps += 1;
            let with_memory = match event {
                Event::Restart { with_memory } => Some(*with_memory),
                _ => None,
            };
            if !happen(*event, &mut self.truth, self.now) {
                continue;
            }
            *self.counts.entry(event.kind()).or_default() += 1;
            if self.is_traced {
                println!("{:>7} ms  {event:?}", self.now);
            }
            self.truth.settle(self.now);
            if let Some(with_memory) = with_memory {
                self.restart(with_memory);
            }
            self.look();
        }
    }

    fn is_over(&self) -> bool {
        self.check.fault.is_some() || self.check.is_undecidable
    }

    fn restart(&mut self, with_memory: bool) {
        let disk = self.disk.as_ref().filter(|_| with_memory);
        let remembered = disk.map(|(memory, at)| Remembered {
            memory: Memory::clone(memory),
            age: Duration::from_millis(self.now - at),
        });
        self.check.restart(remembered.as_ref());
        self.engine = Engine::with_memory(&self.config, remembered, moment(self.now));
        self.asked.clear();
        self.listers.clear();
        self.turn.clear();
        (self.turn_due, self.last) = (None, None);
        self.deliveries.clear();
        self.plan = self.engine.plan();
        self.follow_plan(true);
    }

    fn wait_until(&mut self, until: u64) {
        while !self.is_over() {
            let due = self.next_due();
            if due > until {
                self.now = until;
                return;
            }
            self.now = self.now.max(due);
            self.truth.settle(self.now);
            self.step();
        }
    }

    fn next_due(&self) -> u64 {
        let of_engine = self.engine.poll_timeout(moment(self.now));
        let of_engine = of_engine.map(|at| millis(at.since_start()).max(self.now + 1));
        let of_asked = self.asked.values().flat_map(|asked| {
            [asked.patroni_due, asked.tether_due, Some(asked.resolve_due)].into_iter().flatten()
        });
        let listers = self.listers.values().filter(|lister| !lister.is_running);
        of_asked
            .chain(of_engine)
            .chain(listers.map(|lister| lister.due))
            .chain(self.new_hosts().map(|_| self.now))
            .chain(self.turn_due)
            .chain(self.deliveries.iter().map(|(at, _)| *at))
            .chain(self.truth.next_change())
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Does one thing that is due.
    fn step(&mut self) {
        let now = self.now;
        if let Some(at) = self.deliveries.iter().position(|(at, _)| *at <= now) {
            let (_, delivery) = self.deliveries.remove(at);
            return self.deliver(delivery);
        }
        let is_due = |due: Option<u64>| due.is_some_and(|due| due <= now);
        let member = |is_it: &dyn Fn(&Asked) -> bool| {
            self.asked.iter().find(|(_, asked)| is_it(asked)).map(|(name, _)| name.clone())
        };
        if let Some(name) = member(&|it| is_due(it.patroni_due)) {
            return self.ask_patroni(&name);
        }
        if let Some(name) = member(&|it| is_due(it.tether_due)) {
            return self.ask_tether(&name);
        }
        if let Some(name) = member(&|it| it.resolve_due <= now) {
            return self.resolve(&name);
        }
        let new_host = self.new_hosts().next();
        if let Some((name, postgres)) = new_host {
            return self.resolve_new_host(&name, postgres);
        }
        let mut listers = self.listers.iter().filter(|(_, it)| !it.is_running && it.due <= now);
        if let Some((url, _)) = listers.next() {
            let url = url.clone();
            return self.ask_for_list(&url, false);
        }
        if is_due(self.turn_due) {
            return self.take_turn();
        }
        self.steps += 1;
        self.engine.handle_timeout(moment(now));
        self.look();
    }

    fn report(&mut self, report: Report) {
        self.steps += 1;
        if self.is_traced {
            println!("{:>7} ms  {report:?}", self.now);
        }
        self.engine.handle_report(report, moment(self.now));
        self.look();
    }

    fn claim(&mut self, member: &MemberName, asked: u64, fact: Fact) {
        let claim = Claim { member: member.clone(), asked_at: moment(asked), fact };
        self.report(Report::Claim(claim));
    }

    fn look(&mut self) {
        while let Some(event) = self.engine.poll_event() {
            if self.is_traced {
                println!("{:>7} ms    {}", self.now, event.kind);
            }
        }
        let memory = self.engine.memory();
        if let Some(memory) = memory
            && self.disk.as_ref().is_none_or(|(old, _)| !Arc::ptr_eq(old, &memory))
        {
            self.disk = Some((memory, self.now));
        }
        self.follow_plan(false);
        let snapshot = self.engine.snapshot();
        self.check.look(&self.truth, &snapshot, self.now, &mut self.rng);
    }

    /// Starts and stops sources as the plan says.
    fn follow_plan(&mut self, is_new: bool) {
        let plan = self.engine.plan();
        if Arc::ptr_eq(&plan, &self.plan) && !is_new {
            return;
        }
        self.plan = Arc::clone(&plan);
        let now = self.now;
        self.asked.retain(|name, _| plan.members.contains_key(name));
        for (name, ask) in &plan.members {
            let is_same = |it: &Asked| {
                it.ask.postgres == ask.postgres
                    && it.ask.patroni_url == ask.patroni_url
                    && it.ask.has_tether == ask.has_tether
            };
            match self.asked.get_mut(name).filter(|it| is_same(it)) {
                Some(asked) => {
                    let pace = |of: Duration| millis(of).max(PACE_MS_MIN);
                    let sooner = |due: Option<u64>, by: u64| due.map(|due| due.min(now + by));
                    asked.patroni_due = sooner(asked.patroni_due, pace(ask.pace.patroni));
                    asked.tether_due = sooner(asked.tether_due, pace(ask.pace.tether));
                    asked.ask = ask.clone();
                }
                None => {
                    let has_tether = ask.has_tether && self.config.cluster.check.is_some();
                    self.sources_started += 1;
                    let asked = Asked {
                        number: self.sources_started,
                        ask: ask.clone(),
                        patroni_due: ask.patroni_url.is_some().then_some(now + 1),
                        took_ms: 0,
                        tether: Tether::Apart,
                        tether_due: has_tether.then_some(now + 2),
                        progress_due: now,
                        resolve_due: now,
                    };
                    self.asked.insert(name.clone(), asked);
                }
            }
        }
        let always = |url: &Arc<str>| {
            plan.listers.iter().any(|it| it.url == *url && it.when == When::Always)
        };
        self.listers.retain(|url, lister| lister.is_running || always(url));
        for lister in plan.listers.iter().filter(|it| it.when == When::Always) {
            let new = Lister { due: now + 1, ..Lister::default() };
            self.listers.entry(lister.url.clone()).or_insert(new);
        }
        let has_turns = plan.listers.iter().any(|it| it.when != When::Always);
        self.turn_due = match (has_turns, self.turn_due) {
            (true, None) if self.turn.is_empty() => Some(now + HURRY_MS),
            (_, due) => due,
        };
    }

    /// A failure of Patroni lets the member list be read soon.
    fn hint(&mut self) {
        let soon = self.now.max(self.turned_at + HURRY_MS);
        if self.turn.is_empty() {
            self.turn_due = self.turn_due.map(|due| due.min(soon));
        }
    }

    fn ask_patroni(&mut self, member: &MemberName) {
        let (now, jitter) = (self.now, self.rng.range(0, 20));
        let samples_now = self.rng.chance(50);
        let asked = self.asked.get_mut(member).unwrap();
        asked.patroni_due = None;
        let url = asked.ask.patroni_url.clone().unwrap_or_default();
        let ip = ip_of_url(&url);
        let mut later = |after: u64, delivery| self.deliveries.push((now + after, delivery));
        let question = Question { member: member.clone(), of: asked.number, asked: now };
        match self.truth.patroni_at(ip) {
            Peer::Refused => later(1, Delivery::Refused { question }),
            Peer::Silent => {
                later(LATE_MS, Delivery::Late { question: question.clone() });
                later(GIVE_UP_MS, Delivery::GivenUp { question });
            }
            Peer::Machine(machine) => {
                let latency =
                    (self.truth.machines[machine].latency_ms + jitter).min(GIVE_UP_MS - 1);
                if latency > LATE_MS {
                    later(LATE_MS, Delivery::Late { question: question.clone() });
                }
                let facts = samples_now.then(|| Box::new(self.facts(machine)));
                let answer = Delivery::Answer { question, ip, machine, facts };
                self.deliveries.push((now + latency, answer));
            }
        }
    }

    fn facts(&self, index: usize) -> PatroniFacts {
        let machine = &self.truth.machines[index];
        let cluster = &self.truth.clusters[machine.cluster];
        let of_identity = |text: String| (self.sources == Sources::AsTheyAre).then_some(text);
        PatroniFacts {
            holds_lock: self.truth.holds_lock(index),
            state: if machine.postgres_is_up { "running" } else { "stopped" }.to_owned(),
            role: if machine.in_recovery { Role::Replica } else { Role::Primary },
            timeline: Some(cluster.timeline),
            location: (!machine.in_recovery).then_some(1_000),
            replayed_location: machine.in_recovery.then_some(1_000),
            replication_state: (machine.in_recovery && self.streams(index))
                .then(|| "streaming".to_owned()),
            standby: Standby::Async,
            tags: Tags::new(),
            flags: TagFlags::default(),
            paused: cluster.paused,
            name: cluster.is_patroni_4.then(|| machine.name.clone()),
            scope: of_identity(cluster.scope.clone()),
            system_identifier: of_identity(cluster.system.to_string()),
        }
    }

    /// There is a primary to stream from.
    fn streams(&self, index: usize) -> bool {
        let cluster = self.truth.machines[index].cluster;
        self.truth.machines.iter().any(|machine| {
            machine.cluster == cluster && machine.postgres_is_up && !machine.in_recovery
        })
    }

    fn ask_tether(&mut self, member: &MemberName) {
        let now = self.now;
        let asked = self.asked.get_mut(member).unwrap();
        let pace = millis(asked.ask.pace.tether).max(PACE_MS_MIN);
        let host = asked.ask.postgres.host().to_owned();
        let found = self.truth.postgres_at(ip_of(&host));
        let tether = asked.tether;
        asked.tether_due = Some(now + pace);
        let failure = match (tether, found) {
            (_, Peer::Silent) => {
                asked.tether_due = None;
                let question = Question { member: member.clone(), of: asked.number, asked: now };
                let late = Delivery::LoginLate { question };
                self.deliveries.push((now + LOGIN_MS, late));
                return;
            }
            (Tether::Apart, Peer::Refused) => Failure::Refused(peer(&host)),
            (Tether::Tied { .. }, Peer::Refused) => Failure::Closed(peer(&host)),
            (Tether::Tied { machine, started, .. }, Peer::Machine(found))
                if machine != found || self.truth.machines[found].started != started =>
            {
                Failure::Closed(peer(&host))
            }
            (Tether::Tied { .. }, Peer::Machine(found)) => return self.feel(member, found),
            (Tether::Apart, Peer::Machine(found)) => {
                let cluster = self.truth.machines[found].cluster;
                if self.truth.clusters[cluster].accepts_login {
                    let started = self.truth.machines[found].started;
                    asked.tether = Tether::Tied { machine: found, started, knows_start: false };
                    return self.feel(member, found);
                }
                asked.tether_due = Some(now + 1_000);
                Failure::LoginRefused {
                    by: Speaker::postgres(peer(&host)),
                    sqlstate: Arc::from("28P01"),
                    message: Arc::from("no"),
                }
            }
        };
        if tether != Tether::Apart {
            asked.tether = Tether::Apart;
            asked.tether_due = Some(now + 5);
        }
        self.claim(member, now, Fact::Tether(Err(failure)));
    }

    fn feel(&mut self, member: &MemberName, index: usize) {
        let now = self.now;
        let asked = self.asked.get_mut(member).unwrap();
        let Tether::Tied { started, knows_start, .. } = &mut asked.tether else { return };
        let started_at = knows_start.then_some(ServerStart(*started));
        *knows_start = true;
        let is_due = asked.progress_due <= now;
        if is_due {
            asked.progress_due = now + 2_000;
        }
        let (in_recovery, cluster) =
            (self.truth.machines[index].in_recovery, self.truth.machines[index].cluster);
        let facts = TetherFacts { started_at, ..TetherFacts::of_role(in_recovery) };
        self.claim(member, now, Fact::Tether(Ok(facts)));
        if is_due && !self.is_over() && self.asked.contains_key(member) {
            let progress = Progress {
                in_recovery,
                location: Some(1_000),
                timeline: Some(self.truth.clusters[cluster].timeline),
                streaming: in_recovery && self.streams(index),
                replay_age_micros: None,
                clock_offset: None,
                load: None,
            };
            self.claim(member, now, Fact::Progress(progress));
        }
    }

    fn resolve(&mut self, member: &MemberName) {
        let now = self.now;
        let asked = self.asked.get_mut(member).unwrap();
        let host = asked.ask.postgres.host();
        // An address stands for itself.
        asked.resolve_due = if asked.ask.postgres.ip().is_some() { u64::MAX } else { now + 30_000 };
        let address = format!("10.0.0.{}", ip_of(host)).parse().unwrap();
        self.claim(member, now, Fact::Addresses(Ok(vec![address])));
    }

    /// The other hosts under which lists name members, which the resolver looks up.
    fn new_hosts(&self) -> impl Iterator<Item = (MemberName, Endpoint)> {
        let of_member =
            |(name, ask): (&MemberName, &Ask)| Some((name.clone(), ask.new_host.clone()?));
        self.plan.members.iter().filter_map(of_member)
    }

    fn resolve_new_host(&mut self, member: &MemberName, postgres: Endpoint) {
        let address = format!("10.0.0.{}", ip_of(postgres.host())).parse().unwrap();
        let now = self.now;
        self.claim(member, now, Fact::NewHost { postgres, addresses: Ok(vec![address]) });
    }

    fn ask_for_list(&mut self, url: &Arc<str>, is_turn: bool) {
        let now = self.now;
        if let Some(lister) = self.listers.get_mut(url).filter(|_| !is_turn) {
            lister.is_running = true;
        }
        let unlisted =
            |about, failure| Report::Unlisted(Unlisted { asked: url.clone(), about, failure });
        let (after, of, report) = match self.truth.patroni_at(ip_of_url(url)) {
            Peer::Silent => {
                let limit = Duration::from_millis(GIVE_UP_MS);
                let failure = Failure::Timeout { peer: url.clone(), limit };
                (GIVE_UP_MS, None, unlisted(None, failure))
            }
            Peer::Refused => (1, None, unlisted(None, Failure::Refused(url.clone()))),
            Peer::Machine(index) => {
                let facts = self.facts(index);
                let latency = self.truth.machines[index].latency_ms + self.rng.range(0, 20);
                let about = facts.about();
                let report = match self.truth.list(index, now) {
                    None => unlisted(Some(about), Failure::Malformed(Arc::from("status 503"))),
                    Some(list) => Report::Topology(self.topology(url, index, about, list)),
                };
                (latency, Some(self.truth.machines[index].cluster), report)
            }
        };
        let report = Box::new(report);
        let delivery = Delivery::Listed { of, report, url: url.clone(), is_turn };
        self.deliveries.push((now + after, delivery));
    }

    fn topology(
        &self,
        url: &Arc<str>,
        index: usize,
        about: About,
        list: Vec<(String, String)>,
    ) -> Topology {
        let cluster = &self.truth.clusters[self.truth.machines[index].cluster];
        let names_scope = cluster.is_patroni_4 && self.sources == Sources::AsTheyAre;
        let members = list.into_iter().map(|(name, host)| Found {
            name: MemberName::new(&name).unwrap(),
            patroni_url: Some(Arc::from(format!("http://{host}:8008"))),
            postgres: Endpoint::new(&host, 5432).unwrap(),
        });
        Topology {
            asked_at: moment(self.now),
            url: url.clone(),
            about,
            scope: names_scope.then(|| cluster.scope.clone()),
            paused: cluster.paused,
            members: members.collect(),
            skipped: Vec::new(),
        }
    }

    /// Asks the next URL of the turn, or begins one: the one that answered last comes first.
    fn take_turn(&mut self) {
        self.turn_due = None;
        if self.turn.is_empty() {
            self.turned_at = self.now;
            let urls = |when: When| {
                let listers = self.plan.listers.iter().filter(move |it| it.when == when);
                listers.map(|it| it.url.clone())
            };
            let mut own: Vec<Arc<str>> = urls(When::InTurn).collect();
            own.sort_by_key(|url| Some(url) != self.last.as_ref());
            self.turn = own.into_iter().chain(urls(When::Last)).collect();
            self.turn.reverse();
        }
        match self.turn.last().cloned() {
            Some(url) => self.ask_for_list(&url, true),
            None => self.turn_due = Some(self.now + TURN_MS),
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        let now = self.now;
        match delivery {
            Delivery::Late { question: Question { member, asked, .. } } => {
                let limit = Duration::from_millis(LATE_MS);
                let late = Failure::Late { peer: peer("patroni"), limit, waited: limit };
                self.hint();
                self.claim(&member, asked, Fact::PatroniLate(late));
            }
            Delivery::GivenUp { question } => {
                let limit = Duration::from_millis(LATE_MS);
                let waited = Duration::from_millis(GIVE_UP_MS);
                let failure = Failure::Late { peer: peer("patroni"), limit, waited };
                self.answered(question, Err(failure));
            }
            Delivery::Refused { question } => {
                self.answered(question, Err(Failure::Refused(peer("patroni"))));
            }
            Delivery::Answer { question, ip, machine, facts } => {
                let is_there = self.truth.patroni_at(ip) == Peer::Machine(machine);
                let facts = match facts {
                    Some(facts) => Ok(*facts),
                    None if is_there => Ok(self.facts(machine)),
                    None => Err(Failure::Closed(peer("patroni"))),
                };
                self.check.note_answer(&self.truth, machine);
                self.answered(question, facts);
            }
            Delivery::LoginLate { question: Question { member, of, asked } } => {
                let limit = Duration::from_millis(LOGIN_MS);
                if let Some(it) = self.asked.get_mut(&member).filter(|it| it.number == of) {
                    it.tether = Tether::Apart;
                    it.tether_due = Some(now + PACE_MS_MIN);
                }
                let failure = Failure::Timeout { peer: peer("postgres"), limit };
                self.claim(&member, asked, Fact::Tether(Err(failure)));
            }
            Delivery::Listed { of, report, url, is_turn } => {
                let is_list = matches!(*report, Report::Topology(_));
                let before = self.engine.snapshot();
                self.check.note_list(&self.truth, of, &report, &before.identity.known);
                self.listed(&url, is_list, is_turn);
                self.report(*report);
                let after = self.engine.snapshot();
                self.check.compare_members(&self.truth, of, &before, &after, now);
            }
        }
    }

    fn listed(&mut self, url: &Arc<str>, is_list: bool, is_turn: bool) {
        let now = self.now;
        if !is_turn {
            if let Some(lister) = self.listers.get_mut(url) {
                lister.is_running = false;
                lister.pause = if is_list { 0 } else { (lister.pause * 2).clamp(200, 10_000) };
                lister.due = now + if is_list { HURRY_MS } else { lister.pause };
            }
            return;
        }
        self.turn.pop();
        let is_own = self.plan.listers.iter().any(|it| it.url == *url && it.when == When::InTurn);
        if is_list && is_own {
            self.last = Some(url.clone());
            self.turn.clear();
        }
        self.turn_due = match self.turn.is_empty() {
            true => Some(self.turned_at.max(now) + TURN_MS),
            false => Some(now),
        };
    }

    fn answered(&mut self, question: Question, facts: Result<PatroniFacts, Failure>) {
        let now = self.now;
        let Question { member, of, asked: asked_at } = question;
        if facts.is_err() {
            self.hint();
        }
        if let Some(asked) = self.asked.get_mut(&member).filter(|it| it.number == of) {
            let pace = millis(asked.ask.pace.patroni).max(PACE_MS_MIN);
            asked.took_ms = if facts.is_ok() { now - asked_at } else { 0 };
            let gap = asked.took_ms + asked.took_ms / 2;
            asked.patroni_due = Some((asked_at + pace.max(gap)).max(now + 1));
        }
        self.claim(&member, asked_at, Fact::Patroni(facts));
    }
}

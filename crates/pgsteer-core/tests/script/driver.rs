//! A shell for the engine without a clock or a socket.
//!
//! It does the same as the real shell: sources that probe at the intervals of the plan, a timer
//! that follows `poll_timeout`, and a read of the Snapshot after every step. Answers take no time
//! unless a test sets something else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use pgsteer_core::agent::Served;
use pgsteer_core::claim::{Claim, Fact, News, Notice, Report, Topology, Unlisted};
use pgsteer_core::engine::Engine;
use pgsteer_core::event::Event;
use pgsteer_core::memory::Remembered;
use pgsteer_core::names::MemberName;
use pgsteer_core::orders::{DrainOrder, OperatorOrder, OrderError};
use pgsteer_core::plan::Ask;
use pgsteer_core::settings::Config;
use pgsteer_core::snapshot::Snapshot;
use pgsteer_core::time::Moment;

/// More steps than any test needs in one wait. Beyond it the engine loops.
const STEPS_MAX: usize = 200_000;

/// A source of claims on a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Patroni,
    Tether,
    Progress,
    Pooler,
    Addresses,
    NewSessions,
}

impl Source {
    pub fn of(fact: &Fact) -> Source {
        match fact {
            Fact::Patroni(_) | Fact::PatroniLate(_) => Source::Patroni,
            Fact::Tether(_) => Source::Tether,
            Fact::Progress(_) => Source::Progress,
            Fact::Pooler { .. } => Source::Pooler,
            Fact::Addresses(_) | Fact::NewHost { .. } | Fact::Here(_) => Source::Addresses,
            Fact::NewSessions(_) => Source::NewSessions,
        }
    }

    fn pace(self, ask: &Ask) -> Duration {
        match self {
            Source::Patroni => ask.pace.patroni,
            Source::Tether => ask.pace.tether,
            Source::Pooler if ask.poolers.is_empty() => Duration::MAX,
            Source::Pooler => ask.pace.pooler,
            Source::Progress => Duration::from_secs(1),
            Source::Addresses => Duration::from_secs(30),
            Source::NewSessions => Duration::from_secs(2),
        }
    }
}

/// A source that gives the same answer until the script changes it.
struct Habit {
    fact: Fact,
    asked_at: Moment,
    pace: Duration,
    /// The interval became shorter, so the next probe is sent now.
    hurried: bool,
}

/// The engine, the time, and the sources.
pub struct Driver {
    pub engine: Engine,
    /// The configured URLs of Patroni.
    pub seeds: Vec<String>,
    pub now: Moment,
    /// Every Snapshot that was published, in order.
    pub snapshots: Vec<Arc<Snapshot>>,
    /// Every event that was polled, in order.
    pub events: Vec<Event>,
    /// What the agent remembers of its answers.
    pub served: Mutex<Served>,
    habits: BTreeMap<(MemberName, Source), Habit>,
}

impl Driver {
    pub fn new(config: &Config, stored: Option<Remembered>) -> Driver {
        let engine = Engine::with_memory(config, stored, Moment::START);
        let snapshots = vec![engine.snapshot()];
        let mut driver = Driver {
            engine,
            seeds: config.cluster.seeds(),
            now: Moment::START,
            snapshots,
            events: Vec::new(),
            served: Mutex::default(),
            habits: BTreeMap::new(),
        };
        driver.look();
        driver
    }

    /// The source reports `fact` now, and again at each probe.
    pub fn answers(&mut self, member: &MemberName, fact: Fact) {
        let source = Source::of(&fact);
        let pace =
            self.engine.plan().members.get(member).map_or(Duration::MAX, |ask| source.pace(ask));
        let habit = Habit { fact: fact.clone(), asked_at: self.now, pace, hurried: false };
        self.habits.insert((member.clone(), source), habit);
        self.answers_once(member, fact, self.now);
    }

    /// The source answers one probe that was sent at `asked_at`.
    pub fn answers_once(&mut self, member: &MemberName, fact: Fact, asked_at: Moment) {
        let claim = Claim { member: member.clone(), asked_at, fact };
        self.engine.handle_report(Report::Claim(claim), self.now);
        self.look();
    }

    /// All sources of a member, or one, stop answering.
    pub fn silence(&mut self, member: &MemberName, source: Option<Source>) {
        self.habits.retain(|(name, habit), _| {
            name != member || source.is_some_and(|source| *habit != source)
        });
    }

    pub fn topology(&mut self, topology: Topology) {
        self.engine.handle_report(Report::Topology(topology), self.now);
        self.look();
    }

    pub fn unlisted(&mut self, unlisted: Unlisted) {
        self.engine.handle_report(Report::Unlisted(unlisted), self.now);
        self.look();
    }

    /// The etcd watch reports `news`.
    pub fn notice(&mut self, news: News) {
        let notice = Notice { heard_at: self.now, news };
        self.engine.handle_report(Report::Notice(notice), self.now);
        self.look();
    }

    /// An operator gives an order.
    pub fn order(&mut self, order: OperatorOrder) -> Result<(), OrderError> {
        let outcome = self.engine.handle_order(order, self.now);
        self.look();
        outcome
    }

    /// The orders of an earlier run are in force from the start.
    pub fn restore(&mut self, orders: Vec<DrainOrder>) {
        self.engine.restore_orders(orders, self.now);
        self.look();
    }

    pub fn reload(&mut self, config: &Config) {
        self.seeds = config.cluster.seeds();
        self.engine.handle_config(config, self.now);
        self.look();
    }

    /// Lets time pass up to `until`: timers fire, and sources are probed when they are due.
    pub fn advance(&mut self, until: Moment) {
        for _ in 0..STEPS_MAX {
            let timeout = self.engine.poll_timeout(self.now);
            assert!(timeout.is_none_or(|at| at > self.now), "poll_timeout stands still");
            let question = self.next_question();
            let due = [timeout, question.as_ref().map(|(at, _)| *at)].into_iter().flatten().min();
            let Some(at) = due.filter(|at| *at <= until) else {
                self.now = self.now.max(until);
                return;
            };
            self.now = at;
            match question {
                Some((asked_at, key)) if asked_at == at => self.ask(&key),
                _ => {
                    self.engine.handle_timeout(at);
                    self.look();
                }
            }
        }
        panic!("the engine runs in circles before {until}");
    }

    /// Lets time pass without a timer or a probe, as if the process was stopped.
    pub fn stall(&mut self, until: Moment) {
        self.now = self.now.max(until);
        for habit in self.habits.values_mut() {
            habit.asked_at = self.now;
        }
        self.engine.handle_timeout(self.now);
        self.look();
    }

    fn next_question(&self) -> Option<(Moment, (MemberName, Source))> {
        let plan = self.engine.plan();
        let due = |(key, habit): (&(MemberName, Source), &Habit)| {
            let pace = key.1.pace(plan.members.get(&key.0)?);
            let at = if habit.hurried { self.now } else { habit.asked_at + pace };
            Some((at.max(self.now), key.clone()))
        };
        self.habits.iter().filter_map(due).min()
    }

    fn ask(&mut self, key: &(MemberName, Source)) {
        let now = self.now;
        if let Some(habit) = self.habits.get_mut(key) {
            habit.asked_at = now;
            habit.hurried = false;
            let fact = habit.fact.clone();
            self.answers_once(&key.0, fact, now);
        }
    }

    /// The shell's work after every step: events, Snapshot, plan.
    fn look(&mut self) {
        while let Some(event) = self.engine.poll_event() {
            self.events.push(event);
        }
        let snapshot = self.engine.snapshot();
        if self.snapshots.last().is_none_or(|last| last.generation != snapshot.generation) {
            self.snapshots.push(snapshot);
        }
        let plan = self.engine.plan();
        for ((name, source), habit) in &mut self.habits {
            let pace = plan.members.get(name).map_or(Duration::MAX, |ask| source.pace(ask));
            habit.hurried |= pace < habit.pace;
            habit.pace = pace;
        }
    }
}

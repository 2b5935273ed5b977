//! Storms: random claims, late and out of order, and the engine's state after each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::claim::{
    Claim, Fact, Failure, Found, News, Notice, Order, PatroniFacts, PoolerFacts, Progress, Report,
    Role, ServerStart, Speaker, TagFlags, Tags, TetherFacts, Topology,
};
use pgsteer_core::engine::Engine;
use pgsteer_core::names::MemberName;
use pgsteer_core::orders::{DrainOrder, DrainTarget, OperatorOrder, OrderText, Until};
use pgsteer_core::settings::{Config, Membership, PoolerDown, SplitBrain};
use pgsteer_core::snapshot::Snapshot;
use pgsteer_core::time::Moment;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cluster::{self, found, member, service, service_name};

pub const GRACE: Duration = Duration::from_secs(5);
pub const SILENCE: Duration = Duration::from_secs(30);
pub const POOLER_PORT: u16 = 6432;
pub const LAG_BYTES_MAX: u64 = 50;

/// A cluster and the steps that happen to it.
#[derive(Clone, Debug)]
pub struct Storm {
    pub members: usize,
    pub has_patroni: bool,
    pub has_tether: bool,
    pub highest_timeline: bool,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub enum Step {
    /// A source of the member with this number answers a probe of this age.
    Says { member: usize, age_ms: u64, fact: Fact },
    /// All sources of the member with this number report this role.
    Is { member: usize, role: Role },
    /// Time passes, and the engine's timer fires.
    Wait { ms: u64 },
    /// The etcd watch reports `news`.
    Notice { news: News },
    /// The members whose bit in `present` is set are listed; those in `moved` at another endpoint.
    Listed { present: u8, moved: u8, paused: bool, age_ms: u64 },
    /// An operator drains the member with this number, for one service or for all.
    Drain { member: usize, of_read: bool, lasts_ms: Option<u64>, is_forced: bool },
    /// An operator withdraws all orders for it.
    Undrain { member: usize },
}

/// The engine after one call.
#[derive(Clone, Debug)]
pub struct Frame {
    pub now: Moment,
    pub snapshot: Arc<Snapshot>,
    /// The number of reports up to then.
    pub reports: usize,
}

/// All reports, and every frame.
#[derive(Clone, Debug)]
pub struct Run {
    pub config: Config,
    pub reports: Vec<(Moment, Report)>,
    pub frames: Vec<Frame>,
    pub events: usize,
    /// The number of orders that were accepted.
    pub orders: usize,
}

pub fn storms() -> impl Strategy<Value = Storm> {
    let kind = prop_oneof![
        4 => Just((true, true)),
        2 => Just((true, false)),
        3 => Just((false, true)),
    ];
    (1..=5_usize, kind, any::<bool>(), vec(step(), 1..80)).prop_map(
        |(members, (has_patroni, has_tether), highest_timeline, steps)| Storm {
            members,
            has_patroni,
            has_tether,
            highest_timeline,
            steps,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let age_ms = || prop_oneof![6 => Just(0), 2 => 0..100_u64, 1 => 0..5_000_u64];
    prop_oneof![
        12 => (0..6_usize, age_ms(), fact())
            .prop_map(|(member, age_ms, fact)| Step::Says { member, age_ms, fact }),
        4 => (0..6_usize, role()).prop_map(|(member, role)| Step::Is { member, role }),
        2 => (0..400_u64).prop_map(|ms| Step::Wait { ms }),
        1 => (0..8_000_u64).prop_map(|ms| Step::Wait { ms }),
        2 => news().prop_map(|news| Step::Notice { news }),
        1 => (0..6_usize, any::<bool>(), prop::option::of(0..60_000_u64), any::<bool>()).prop_map(
            |(member, of_read, lasts_ms, is_forced)| {
                Step::Drain { member, of_read, lasts_ms, is_forced }
            },
        ),
        1 => (0..6_usize).prop_map(|member| Step::Undrain { member }),
        1 => (any::<u8>(), 0..32_u8, any::<bool>(), age_ms()).prop_map(
            |(present, moved, paused, age_ms)| {
                // In most steps all are listed, and none has moved.
                let present = if present < 64 { present } else { u8::MAX };
                let moved = if moved < 4 { moved } else { 0 };
                Step::Listed { present, moved, paused, age_ms }
            },
        ),
    ]
}

fn news() -> impl Strategy<Value = News> {
    let somebody = || (0..6_usize).prop_map(name);
    let order = (prop::option::of(somebody()), prop::option::of(somebody()));
    prop_oneof![
        4 => order.prop_map(|(leader, candidate)| News::Ordered(Order { leader, candidate })),
        1 => Just(News::NoOrder),
        2 => somebody().prop_map(News::Leader),
        1 => Just(News::Watching),
        1 => Just(News::Written(1)),
        1 => any::<bool>().prop_map(|is_behind| News::Read { is_behind }),
        1 => Just(News::Lost(Failure::Closed(Arc::from("etcd")))),
    ]
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![3 => Just(Role::Primary), 4 => Just(Role::Replica), 1 => Just(Role::StandbyLeader)]
}

fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        6 => patroni().prop_map(|facts| Fact::Patroni(Ok(facts))),
        1 => failure().prop_map(|failure| Fact::Patroni(Err(failure))),
        1 => Just(Fact::PatroniLate(late())),
        6 => (any::<bool>(), start()).prop_map(|(in_recovery, started_at)| {
            Fact::Tether(Ok(TetherFacts { started_at, ..TetherFacts::of_role(in_recovery) }))
        }),
        1 => failure().prop_map(|failure| Fact::Tether(Err(failure))),
        2 => progress().prop_map(Fact::Progress),
        4 => pooler().prop_map(|answer| Fact::Pooler { port: POOLER_PORT, answer }),
        1 => Just(Fact::NewSessions(Ok(()))),
        1 => failure().prop_map(|failure| Fact::NewSessions(Err(failure))),
    ]
}

fn late() -> Failure {
    let (limit, waited) = (cluster::ANSWER_TIMEOUT, cluster::ANSWER_TIMEOUT);
    Failure::Late { peer: Arc::from("patroni"), limit, waited }
}

fn patroni() -> impl Strategy<Value = PatroniFacts> {
    let role = prop_oneof![
        6 => Just(Role::Primary),
        6 => Just(Role::Replica),
        1 => Just(Role::StandbyLeader),
        1 => Just(Role::Unknown),
    ];
    let state = prop_oneof![9 => Just("running"), 1 => Just("stopping")];
    let tag = prop_oneof![9 => Just(None), 1 => Just(Some("true"))];
    let lock = prop_oneof![2 => Just(true), 3 => Just(false)];
    (lock, state, role, 0..200_u64, tag).prop_map(|(holds_lock, state, role, location, tag)| {
        PatroniFacts {
            holds_lock: holds_lock && role != Role::StandbyLeader,
            state: state.to_owned(),
            flags: TagFlags { no_load_balance: tag.is_some(), no_stream: false },
            tags: tag.map(|tag| ("noloadbalance".to_owned(), tag.to_owned())).into_iter().collect(),
            ..facts(role, location)
        }
    })
}

fn facts(role: Role, location: u64) -> PatroniFacts {
    PatroniFacts {
        holds_lock: role == Role::Primary,
        location: (role == Role::Primary).then_some(location),
        replayed_location: (role != Role::Primary).then_some(location),
        ..PatroniFacts::new("running", role)
    }
}

fn progress() -> impl Strategy<Value = Progress> {
    (any::<bool>(), 0..200_u64, 1..4_u32, any::<bool>()).prop_map(
        |(in_recovery, location, timeline, streaming)| Progress {
            in_recovery,
            location: Some(location),
            timeline: Some(timeline),
            streaming,
            replay_age_micros: None,
            clock_offset: None,
            load: None,
        },
    )
}

/// A few servers; some do not report their start.
fn start() -> impl Strategy<Value = Option<ServerStart>> {
    prop_oneof![2 => Just(None), 3 => (1..3_u64).prop_map(|start| Some(ServerStart(start)))]
}

fn pooler() -> impl Strategy<Value = Result<PoolerFacts, Failure>> {
    prop_oneof![
        6 => (any::<bool>(), start()).prop_map(|(in_recovery, started_at)| {
            Ok(PoolerFacts::Leads { in_recovery, started_at })
        }),
        1 => failure().prop_map(|failure| Ok(PoolerFacts::LeadsNowhere(failure))),
        1 => failure().prop_map(|failure| Ok(PoolerFacts::RefusesLogin(failure))),
        1 => failure().prop_map(|failure| Ok(PoolerFacts::Busy(failure))),
        1 => Just(Ok(PoolerFacts::Answers)),
        1 => failure().prop_map(Err),
    ]
}

fn failure() -> impl Strategy<Value = Failure> {
    let peer = || Arc::from("somebody");
    prop_oneof![
        Just(Failure::Refused(peer())),
        Just(Failure::Closed(peer())),
        Just(Failure::Timeout { peer: peer(), limit: cluster::ANSWER_TIMEOUT }),
        Just(Failure::Unreachable { peer: peer(), limit: cluster::ANSWER_TIMEOUT }),
        Just(Failure::LoginRefused {
            by: Speaker::postgres(peer()),
            sqlstate: Arc::from("53300"),
            message: Arc::from("full")
        }),
    ]
}

impl Storm {
    /// Runs the storm on an engine.
    pub fn run(&self) -> Run {
        let config = self.config();
        let mut play = Play {
            engine: Engine::new(&config, Moment::START),
            now: Moment::START,
            run: Run { config, reports: Vec::new(), frames: Vec::new(), events: 0, orders: 0 },
        };
        if self.has_patroni {
            play.report(Report::Topology(self.topology(u8::MAX, 0, false, Moment::START)));
        }
        for step in &self.steps {
            self.apply(step, &mut play);
        }
        play.run
    }

    /// Runs the storm, and then all sources stop.
    pub fn run_into_silence(&self) -> (Run, Moment) {
        let mut storm = self.clone();
        storm.steps.push(Step::Wait { ms: 1_000_000 });
        let run = storm.run();
        let last_report = run.reports.last().map_or(Moment::START, |(at, _)| *at);
        (run, last_report)
    }

    fn apply(&self, step: &Step, play: &mut Play) {
        let before = |ms: u64, now: Moment| {
            Moment::after_start(now.since_start().saturating_sub(Duration::from_millis(ms)))
        };
        match step {
            Step::Says { member, age_ms, fact } => {
                let asked_at = before(*age_ms, play.now);
                self.say(name(*member), asked_at, fact.clone(), play);
            }
            Step::Is { member, role } => {
                let in_recovery = *role != Role::Primary;
                let tether = Fact::Tether(Ok(TetherFacts::of_role(in_recovery)));
                self.say(name(*member), play.now, Fact::Patroni(Ok(facts(*role, 100))), play);
                let answer = Ok(PoolerFacts::Leads { in_recovery, started_at: None });
                self.say(name(*member), play.now, tether, play);
                self.say(name(*member), play.now, Fact::Pooler { port: POOLER_PORT, answer }, play);
            }
            Step::Wait { ms } => play.wait(Duration::from_millis(*ms)),
            Step::Notice { news } if self.has_patroni => {
                let notice = Notice { heard_at: play.now, news: news.clone() };
                play.report(Report::Notice(notice));
            }
            Step::Listed { present, moved, paused, age_ms } if self.has_patroni => {
                let asked_at = before(*age_ms, play.now);
                let topology = self.topology(*present, *moved, *paused, asked_at);
                play.report(Report::Topology(topology));
            }
            Step::Notice { .. } | Step::Listed { .. } => {}
            Step::Drain { member, of_read, lasts_ms, is_forced } => {
                let lasts = lasts_ms.map(Duration::from_millis);
                let until = lasts.map(|lasts| Until { at: play.now + lasts, shown: ann() });
                let target = target(*member, *of_read);
                let (why, by, since) = (None, ann(), ann());
                let is_forced = *is_forced;
                let order = DrainOrder { target, until, why, by, since, is_forced };
                play.order(OperatorOrder::Drain(order));
            }
            Step::Undrain { member } => {
                let target = target(*member, false);
                play.order(OperatorOrder::Undrain { target, by: ann() });
            }
        }
    }

    fn say(&self, member: MemberName, asked_at: Moment, fact: Fact, play: &mut Play) {
        let has_source = match fact {
            Fact::Patroni(_) | Fact::PatroniLate(_) => self.has_patroni,
            // Without a check login the first answer to a login is enough.
            Fact::Pooler { .. } | Fact::NewSessions(_) => true,
            _ => self.has_tether,
        };
        if has_source {
            play.report(Report::Claim(Claim { member, asked_at, fact }));
        }
    }

    fn topology(&self, present: u8, moved: u8, paused: bool, asked_at: Moment) -> Topology {
        let bit = |set: u8, index: usize| set & (1 << index) != 0;
        let listed = (0..self.members).filter(|index| bit(present, *index));
        let members = listed.map(|index| match bit(moved, index) {
            true => found(name(index).as_str(), Some(&format!("elsewhere-{index}:5432"))),
            false => found(name(index).as_str(), None),
        });
        let members = members.collect();
        Topology { paused, members, ..cluster::topology(asked_at) }
    }

    fn config(&self) -> Config {
        let mut config = cluster::config();
        if !self.has_patroni {
            let listed = (0..self.members).map(|index| found(name(index).as_str(), None));
            let listed: Vec<Found> = listed.collect();
            config.cluster.members = Membership::Listed(listed);
        }
        if !self.has_tether {
            config.cluster.check = None;
        }
        if self.highest_timeline {
            config.cluster.split_brain = SplitBrain::HighestTimeline;
        }
        config.cluster.patroni_loss_grace = GRACE;
        config.cluster.silence = SILENCE;
        let mut limited = service(Role::Replica);
        limited.lag_bytes_max = Some(LAG_BYTES_MAX);
        let mut tagged = service(Role::Primary);
        tagged.tags = Tags::from([("noloadbalance".to_owned(), "true".to_owned())]);
        let mut with_fallback = service(Role::Replica);
        with_fallback.fallback_primary = true;
        let mut pooled = service(Role::Primary);
        pooled.pooler_port = Some(POOLER_PORT);
        let mut bypassing = service(Role::Replica);
        bypassing.pooler_port = Some(POOLER_PORT);
        bypassing.pooler_down = PoolerDown::Bypass;
        config.services = BTreeMap::from([
            (service_name("write"), service(Role::Primary)),
            (service_name("write_tagged"), tagged),
            (service_name("write_pooled"), pooled),
            (service_name("read_bypassing"), bypassing),
            (service_name("read"), with_fallback),
            (service_name("read_limited"), limited),
            (service_name("leader"), service(Role::StandbyLeader)),
        ]);
        config
    }
}

/// The operator.
fn ann() -> OrderText {
    OrderText::new("ann")
}

fn target(index: usize, of_read: bool) -> DrainTarget {
    DrainTarget { member: name(index), service: of_read.then(|| service_name("read")) }
}

/// The name of the member with this number. The last number is a member that is never listed.
fn name(index: usize) -> MemberName {
    member(&format!("n{}", index + 1))
}

struct Play {
    engine: Engine,
    now: Moment,
    run: Run,
}

impl Play {
    fn report(&mut self, report: Report) {
        self.run.reports.push((self.now, report.clone()));
        self.engine.handle_report(report, self.now);
        self.look();
    }

    fn order(&mut self, order: OperatorOrder) {
        self.run.orders += usize::from(self.engine.handle_order(order, self.now).is_ok());
        self.look();
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.engine.poll_timeout(self.now).filter(|at| *at <= until) {
            assert!(at > self.now, "poll_timeout stands still at {at}");
            self.now = at;
            self.engine.handle_timeout(at);
            self.look();
        }
        self.now = until;
    }

    fn look(&mut self) {
        while self.engine.poll_event().is_some() {
            self.run.events += 1;
        }
        let (snapshot, reports) = (self.engine.snapshot(), self.run.reports.len());
        self.run.frames.push(Frame { now: self.now, snapshot, reports });
    }
}

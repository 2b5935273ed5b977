//! The conductor: the one task that owns the engine. It publishes the engine's decisions.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::claim::{Claim, Fact, Report};
use pgsteer_core::engine::Engine;
use pgsteer_core::event::{Event, EventKind};
use pgsteer_core::gate::GateState;
use pgsteer_core::memory::{Memory, Remembered};
use pgsteer_core::orders::DrainOrder;
use pgsteer_core::plan::Plan;
use pgsteer_core::reason::Reason;
use pgsteer_core::settings::Config;
use pgsteer_core::snapshot::Snapshot;
use pgsteer_core::time::Moment;
use tokio::sync::{mpsc, watch};

use super::stall::Stalls;
use crate::clock::Clock;
use crate::control::{Accepted, Call};
use crate::heartbeat::{Heartbeat, Pulse};
use crate::log::limit::DECISIONS;
use crate::stats::Stats;

/// Owns the engine.
#[derive(Debug)]
pub struct Conductor {
    engine: Engine,
    clock: Clock,
    pulse: Pulse,
    stalls: Stalls,
    stats: Arc<Stats>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    plans: watch::Sender<Arc<Plan>>,
    memories: watch::Sender<Option<Arc<Memory>>>,
    /// The calls of the control socket; none without one.
    calls: Option<mpsc::Receiver<Call>>,
    /// When the engine last ran.
    turned_at: Moment,
    /// When the conductor last read the clock.
    looked_at: Moment,
}

/// The conductor reads the clock every [`Heartbeat::INTERVAL`] at least. If it has not done so for
/// this time, the process was stopped.
const STOPPED_AFTER: Duration = Duration::from_millis(600);

/// The receivers of the engine's decisions.
#[derive(Clone, Debug)]
pub struct Published {
    /// For the outputs.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// For the sources.
    pub plans: watch::Receiver<Arc<Plan>>,
    /// The member list to store.
    pub memories: watch::Receiver<Option<Arc<Memory>>>,
}

impl Conductor {
    /// A conductor whose engine has received no report yet.
    pub fn new(
        config: &Config,
        stored: Option<Remembered>,
        clock: Clock,
        heartbeat: Arc<Heartbeat>,
        stats: Arc<Stats>,
    ) -> (Conductor, Published) {
        let turned_at = clock.now();
        let engine = Engine::with_memory(config, stored, turned_at);
        let (snapshots, snapshots_published) = watch::channel(engine.snapshot());
        let (plans, plans_published) = watch::channel(engine.plan());
        let (memories, memories_published) = watch::channel(engine.memory());
        let published = Published {
            snapshots: snapshots_published,
            plans: plans_published,
            memories: memories_published,
        };
        let pulse = Pulse::new(heartbeat, clock);
        let stalls = Stalls::new(config.cluster.check.is_some());
        let conductor = Conductor {
            engine,
            clock,
            pulse,
            stalls,
            stats,
            snapshots,
            plans,
            memories,
            calls: None,
            turned_at,
            looked_at: turned_at,
        };
        (conductor, published)
    }

    /// Takes over the orders of an earlier run, and the calls of the control socket from now on.
    pub fn take_orders(&mut self, orders: Vec<DrainOrder>, calls: mpsc::Receiver<Call>) {
        self.turn(|engine, now| engine.restore_orders(orders, now));
        self.publish();
        self.calls = Some(calls);
    }

    /// Runs the engine on reports, on new configurations and on timeouts, without an end.
    pub async fn run(
        mut self,
        mut reports: mpsc::Receiver<Report>,
        mut configs: mpsc::Receiver<Config>,
    ) {
        let mut calls = self.calls.take();
        loop {
            self.publish();
            self.beat();
            tokio::select! {
                Some(config) = configs.recv() => {
                    // Reports of the old configuration's sources count under the old configuration:
                    // the members of another cluster must not be taken for members of the new one.
                    while let Ok(report) = reports.try_recv() {
                        self.handle_report(report);
                    }
                    self.stalls.reconfigure(config.cluster.check.is_some());
                    self.turn(|engine, now| engine.handle_config(&config, now));
                }
                Some(report) = reports.recv() => self.handle_report(report),
                call = next(&mut calls) => self.handle_call(call),
                () = self.timeout() => self.turn(Engine::handle_timeout),
                // The heartbeat beats even if no report arrives and nothing expires.
                () = tokio::time::sleep(Heartbeat::INTERVAL) => {}
            }
        }
    }

    fn handle_report(&mut self, report: Report) {
        self.stalls.note(&report);
        self.count_probe(&report);
        self.turn(|engine, now| engine.handle_report(report, now));
    }

    /// Answers a call. A caller that does not wait for the answer needs none.
    fn handle_call(&mut self, call: Call) {
        match call {
            Call::Order { order, reply } => {
                let now = self.look();
                self.turned_at = now;
                let applied = self.engine.handle_order(order, now);
                self.publish();
                let generation = self.engine.snapshot().generation;
                let _ = reply.send(applied.map(|()| Accepted { generation }));
            }
            Call::Restore { orders, reply } => {
                self.turn(|engine, now| engine.restore_orders(orders, now));
                self.publish();
                let _ = reply.send(());
            }
            Call::Explain { service, reply } => {
                let now = self.look();
                let _ = reply.send(self.engine.explain(&service, now));
            }
        }
    }

    /// Counts the time of an answered probe.
    fn count_probe(&self, report: &Report) {
        let Report::Claim(Claim { member, asked_at, fact }) = report else { return };
        let probes = self.stats.probes(member);
        let times = match fact {
            Fact::Patroni(Ok(_)) => &probes.patroni,
            Fact::Tether(Ok(_)) => &probes.sql,
            _ => return,
        };
        times.observe(self.clock.now().since(*asked_at));
    }

    /// Beats, unless the published Snapshot is older than a stall of the process.
    fn beat(&mut self) {
        let now = self.look();
        let newest = Arc::clone(&self.snapshots.borrow());
        if self.stalls.are_over(now, &newest) {
            self.pulse.beat(now, newest.generation);
        }
    }

    fn turn(&mut self, turn: impl FnOnce(&mut Engine, Moment)) {
        self.turned_at = self.look();
        turn(&mut self.engine, self.turned_at);
    }

    /// Returns the time. The engine is informed of a stop of the process before it runs.
    fn look(&mut self) -> Moment {
        let now = self.clock.now();
        if now.since(self.looked_at) >= STOPPED_AFTER {
            self.engine.note_stall(now);
        }
        self.looked_at = now;
        now
    }

    /// Waits for the first timeout after the last run. It may have passed by now, so it is computed
    /// from the time of that run: from the current time the engine would skip it.
    async fn timeout(&self) {
        match self.engine.poll_timeout(self.turned_at) {
            Some(moment) => tokio::time::sleep_until(self.clock.instant(moment).into()).await,
            None => pending().await,
        }
    }

    fn publish(&mut self) {
        while let Some(event) = self.engine.poll_event() {
            log(&event);
            self.stats.events.count(&event.kind);
        }
        replace_if_other(&self.snapshots, self.engine.snapshot());
        replace_if_other(&self.plans, self.engine.plan());
        let memory = self.engine.memory();
        self.memories.send_if_modified(|current| {
            let is_other = current.as_ref().map(Arc::as_ptr) != memory.as_ref().map(Arc::as_ptr);
            *current = memory;
            is_other
        });
    }
}

/// Returns the next call; never without a channel.
async fn next(calls: &mut Option<mpsc::Receiver<Call>>) -> Call {
    if let Some(receiver) = calls {
        match receiver.recv().await {
            Some(call) => return call,
            None => *calls = None,
        }
    }
    pending().await
}

fn replace_if_other<T>(published: &watch::Sender<Arc<T>>, newest: Arc<T>) {
    published.send_if_modified(|current| {
        let is_other = !Arc::ptr_eq(current, &newest);
        *current = newest;
        is_other
    });
}

/// Logs failures at warn and other events at info. A probation is too short to be logged.
fn log(event: &Event) {
    match &event.kind {
        EventKind::Gate { now: GateState::Probation, .. } => {
            tracing::debug!(target: DECISIONS, "{}", event.kind)
        }
        // A member with another role is not a failure.
        EventKind::Gate { reason: Some(Reason::WrongRole { .. }), .. } => {
            tracing::info!(target: DECISIONS, "{}", event.kind);
        }
        EventKind::Gate { now: GateState::Shut | GateState::Draining, .. }
        | EventKind::Gate { now: GateState::Open, reason: Some(_), .. }
        | EventKind::Left { .. }
        | EventKind::LocalUnknown { .. }
        | EventKind::AddressLost { .. }
        | EventKind::EtcdLost { .. }
        | EventKind::Drained { .. }
        | EventKind::SameServer { .. }
        | EventKind::DuplicateName { .. }
        | EventKind::Disputed { .. }
        | EventKind::IdentityChanged { .. }
        | EventKind::Remembered { .. }
        | EventKind::ListedWithoutTls { .. }
        | EventKind::StrangeCluster { .. } => tracing::warn!(target: DECISIONS, "{}", event.kind),
        _ => tracing::info!(target: DECISIONS, "{}", event.kind),
    }
}

#[cfg(test)]
mod tests {
    use pgsteer_core::claim::{Claim, Fact, Failure, Found, Role, Topology};
    use pgsteer_core::gate::Gate;
    use pgsteer_core::names::{ClusterName, Endpoint, MemberName, ServiceName};
    use pgsteer_core::settings::{
        ClusterConfig, Membership, PatroniConfig, ProxyConfig, ServiceConfig, SplitBrain,
    };

    use super::*;

    const SILENCE: Duration = Duration::from_millis(20);

    fn config(members: Membership) -> Config {
        let write = ServiceConfig::new(([127, 0, 0, 1], 5000).into(), Role::Primary);
        Config {
            cluster: ClusterConfig {
                name: Some(ClusterName::new("demo").unwrap()),
                members,
                check: None,
                etcd: None,
                split_brain: SplitBrain::Block,
                patroni_loss_grace: Duration::from_secs(60),
                silence: SILENCE,
                here: pgsteer_core::settings::Here::default(),
            },
            services: [(ServiceName::new("write").unwrap(), write)].into(),
            http: None,
            agent: None,
            haproxy: None,
            proxy: ProxyConfig::default(),
            control: None,
            vips: Default::default(),
        }
    }

    fn found() -> Found {
        let postgres = Endpoint::new("127.0.0.1", 5432).unwrap();
        let patroni_url = Some(Arc::from("http://127.0.0.1:8008"));
        Found { name: MemberName::new("n1").unwrap(), postgres, patroni_url }
    }

    #[tokio::test]
    async fn what_fell_due_before_the_wait_began_is_not_passed_over() {
        let config = config(Membership::Listed(vec![found()]));
        let (conductor, published) =
            Conductor::new(&config, None, Clock::start(), Arc::default(), Arc::default());
        let ended = |snapshot: &Arc<Snapshot>| {
            snapshot
                .services
                .values()
                .flat_map(|state| state.gates.values())
                .all(Gate::ends_sessions)
        };
        // No other event ends this wait: the member has been silent for too long before the test
        // waits.
        std::thread::sleep(SILENCE * 2);
        let (_reports, reports) = mpsc::channel(1);
        let (_configs, configs) = mpsc::channel(1);
        let mut snapshots = published.snapshots;
        tokio::select! {
            () = conductor.run(reports, configs) => {}
            seen = snapshots.wait_for(ended) => assert!(seen.is_ok()),
            () = tokio::time::sleep(Duration::from_secs(3)) => panic!("nobody noticed"),
        }
    }

    /// The stop is longer than `silence_seconds` and shorter than the stop that the engine detects
    /// itself.
    #[tokio::test]
    async fn a_stop_of_this_process_is_no_silence_of_a_member() {
        let mut config = config(Membership::Listed(vec![found()]));
        config.cluster.silence = Duration::from_millis(900);
        let (conductor, published) =
            Conductor::new(&config, None, Clock::start(), Arc::default(), Arc::default());
        let (_reports, reports) = mpsc::channel(1);
        let (_configs, configs) = mpsc::channel(1);
        let conducting = tokio::spawn(conductor.run(reports, configs));
        let pause = |millis| tokio::time::sleep(Duration::from_millis(millis));
        let is_ended = || {
            let snapshot = published.snapshots.borrow();
            snapshot.services.values().flat_map(|it| it.gates.values()).all(Gate::ends_sessions)
        };
        pause(100).await;
        std::thread::sleep(Duration::from_millis(1_200));
        pause(300).await;
        assert!(!is_ended(), "the process was stopped, the member need not have been silent");
        pause(1_500).await;
        assert!(is_ended(), "the member has been silent since");
        conducting.abort();
    }

    /// The test blocks the thread, as a signal would stop the process.
    #[tokio::test]
    async fn after_a_stall_the_heart_beats_again_when_the_members_were_asked_anew() {
        let config = config(Membership::Listed(vec![found()]));
        let (clock, heartbeat) = (Clock::start(), Arc::<Heartbeat>::default());
        let (conductor, _published) =
            Conductor::new(&config, None, clock, Arc::clone(&heartbeat), Arc::default());
        let (tell, reports) = mpsc::channel(8);
        let (_configs, configs) = mpsc::channel(1);
        let conducting = tokio::spawn(conductor.run(reports, configs));
        let pause = || tokio::time::sleep(Duration::from_millis(50));
        pause().await;
        let is_old = || heartbeat.age(clock.now()) >= Heartbeat::OLD_AFTER;
        assert!(!is_old());
        let stopped_at = clock.now();
        std::thread::sleep(Heartbeat::OLD_AFTER + Duration::from_millis(300));
        pause().await;
        assert!(is_old(), "the member was not asked");
        let claim = |asked_at| {
            let fact = Fact::Patroni(Err(Failure::Closed(Arc::from("n1"))));
            Report::Claim(Claim { member: found().name, asked_at, fact })
        };
        tell.send(claim(stopped_at)).await.unwrap();
        pause().await;
        assert!(is_old(), "it was asked before the stall");
        tell.send(claim(clock.now())).await.unwrap();
        pause().await;
        assert!(!is_old());
        conducting.abort();
    }

    #[tokio::test]
    async fn what_was_said_under_the_old_configuration_does_not_count_under_the_new() {
        let patroni = |url: &str| {
            config(Membership::Patroni(PatroniConfig {
                urls: vec![url.to_owned()],
                verify: Default::default(),
                ca_file: None,
                cert_file: None,
                key_file: None,
                timeout: Duration::from_secs(1),
                pins: Default::default(),
            }))
        };
        for _ in 0..20 {
            let (conductor, mut published) = Conductor::new(
                &patroni("http://old:1"),
                None,
                Clock::start(),
                Arc::default(),
                Arc::default(),
            );
            let (tell, reports) = mpsc::channel(8);
            let (change, configs) = mpsc::channel(1);
            let topology = |of: &str| {
                let scope = Some(of.to_owned());
                Report::Topology(Topology {
                    asked_at: Moment::START,
                    url: format!("http://{of}:1").into(),
                    about: Default::default(),
                    scope,
                    paused: false,
                    members: vec![found()],
                    skipped: Vec::new(),
                })
            };
            tell.send(topology("old")).await.unwrap();
            change.send(patroni("http://new:1")).await.unwrap();
            let conducting = tokio::spawn(conductor.run(reports, configs));
            let reloaded = |snapshot: &Arc<Snapshot>| {
                snapshot.events.iter().any(|event| event.kind == EventKind::Reloaded)
            };
            published.snapshots.wait_for(reloaded).await.unwrap();
            tell.send(topology("new")).await.unwrap();
            let is_new = |snapshot: &Arc<Snapshot>| snapshot.scope.as_deref() == Some("new");
            let seen =
                tokio::time::timeout(Duration::from_secs(3), published.snapshots.wait_for(is_new));
            assert!(seen.await.is_ok(), "taken for a strange cluster");
            conducting.abort();
        }
    }
}

//! The front: a real proxy in front of fake servers. The test opens and shuts the gates.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pgsteer::clock::Clock;
use pgsteer::handover::channel::{self, Channel};
use pgsteer::handover::message::{self, ToNew};
use pgsteer::heartbeat::{Heartbeat, Pulse};
use pgsteer::listen::Listeners;
use pgsteer::proxy::moved::{Exit, LoginsLeft};
use pgsteer::proxy::{Arrivals, Inheritance, Proxy};
use pgsteer::stats::Stats;
use pgsteer_core::claim::{Role, Tags};
use pgsteer_core::gate::{Gate, OpenGate, Sessions};
use pgsteer_core::names::{ClusterName, Endpoint, MemberName, ServiceName};
use pgsteer_core::reason::Reason;
use pgsteer_core::route::{Bypass, PoolerFault, Route};
use pgsteer_core::settings::{
    ClusterConfig, Config, Membership, ProxyConfig, ServiceConfig, SplitBrain,
};
use pgsteer_core::snapshot::{Health, MemberState, ServiceState, Snapshot};
use pgsteer_core::time::Moment;
use pgsteer_core::verdict::Cause;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch};

use crate::client::eventually;
use crate::fake_server::{FakeServer, own_address};

const BEAT: Duration = Duration::from_millis(20);

/// A proxy with a service `write` and a service `read`, and members `n1`, `n2` and so on.
pub struct Front {
    pub write: SocketAddr,
    pub read: SocketAddr,
    pub stats: Arc<Stats>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    /// The heartbeat of the engine, which the test does not run.
    beats: Arc<AtomicBool>,
    commands: mpsc::Sender<Command>,
    arrivals: Arrivals,
    /// Ends the proxy with this grace; dropping it ends it without a grace.
    stop: Option<oneshot::Sender<Duration>>,
}

/// A command to the thread of the proxy.
enum Command {
    Reload(Config, std::sync::mpsc::Sender<()>),
    /// Return what a new process needs to accept clients.
    Inherit(std::sync::mpsc::Sender<Inheritance>),
    /// Return what the logins in progress occupy.
    LoginsLeft(std::sync::mpsc::Sender<LoginsLeft>),
    Leave(Exit),
    Stay(Config, Listeners),
}

impl Front {
    /// A front with `n1` open for writes, and all members open for reads.
    pub fn of(servers: &[&FakeServer]) -> Front {
        Front::wanting(servers, |_| {})
    }

    /// Same, with changes of the configuration.
    pub fn wanting(servers: &[&FakeServer], wish: impl FnOnce(&mut Config)) -> Front {
        let ip = own_address();
        let (write, read) = (SocketAddr::new(ip, 5000), SocketAddr::new(ip, 5001));
        let mut config = config(write, read);
        wish(&mut config);
        let listeners = Proxy::bind(&config, |_| false).unwrap();
        let inherited = Inheritance { listeners, ..Inheritance::default() };
        Front::start(write, read, config, snapshot(servers), inherited)
    }

    fn start(
        write: SocketAddr,
        read: SocketAddr,
        config: Config,
        snapshot: Snapshot,
        mut inherited: Inheritance,
    ) -> Front {
        let (snapshots, published) = watch::channel(Arc::new(snapshot));
        let stats = Arc::new(Stats::default());
        let (stop, mut stopped) = oneshot::channel();
        let (commands, mut commanded) = mpsc::channel(1);
        let (started, is_started) = std::sync::mpsc::channel();
        let counted = Arc::clone(&stats);
        let (beats, newest) = (Arc::new(AtomicBool::new(true)), published.clone());
        let is_beating = Arc::clone(&beats);
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let clock = Clock::start();
                let pulse = Pulse::new(Arc::default(), clock);
                let mut proxy =
                    Proxy::start(&config, &counted, published, pulse.clone(), &mut inherited)
                        .unwrap();
                tokio::spawn(async move {
                    loop {
                        if is_beating.load(Ordering::SeqCst) {
                            let generation = newest.borrow().generation;
                            pulse.beat(clock.now(), generation);
                        }
                        tokio::time::sleep(BEAT).await;
                    }
                });
                started.send(proxy.arrivals()).unwrap();
                let grace = loop {
                    tokio::select! {
                        grace = &mut stopped => break grace,
                        Some(command) = commanded.recv() => match command {
                            Command::Reload(config, done) => {
                                proxy.reload(&config).unwrap();
                                done.send(()).unwrap();
                            }
                            Command::Inherit(copies) => {
                                copies.send(inheritance(&proxy)).unwrap();
                            }
                            Command::LoginsLeft(logins) => {
                                logins.send(proxy.logins_left()).unwrap();
                            }
                            Command::Leave(exit) => proxy.leave(exit).await,
                            Command::Stay(config, mut sockets) => {
                                proxy.stay(&config, &mut sockets).await.unwrap();
                            }
                        },
                    }
                };
                if let Ok(grace) = grace {
                    proxy.stop(grace).await;
                }
            });
        });
        let arrivals = is_started.recv().unwrap();
        Front { write, read, stats, snapshots, beats, commands, arrivals, stop: Some(stop) }
    }

    /// Hands everything over to another front with the same members and gates, by the messages of a
    /// real handover.
    pub fn upgrade(&self) -> Front {
        self.upgrade_to(|_, _| {})
    }

    /// Same, with these changes of its configuration and its Snapshot.
    pub fn upgrade_to(&self, wish: impl FnOnce(&mut Config, &mut Snapshot)) -> Front {
        self.upgrade_while(wish, |_| {})
    }

    /// Same, with these steps after the new front has begun to accept clients and before those of this one
    /// move.
    pub fn upgrade_while(
        &self,
        wish: impl FnOnce(&mut Config, &mut Snapshot),
        meanwhile: impl FnOnce(&Front),
    ) -> Front {
        let inherited = self.inheritance();
        let mut config = config(self.write, self.read);
        let mut snapshot = Snapshot::clone(&self.snapshots.borrow());
        wish(&mut config, &mut snapshot);
        let generation_max = Some(snapshot.generation);
        let inherited = Inheritance { generation_max, ..inherited };
        let new = Front::start(self.write, self.read, config, snapshot, inherited);
        let (exit, mut moved) = mpsc::channel(64);
        let arrivals = new.arrivals.clone();
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (ours, theirs) = channel::pair().unwrap();
                let (ours, theirs) = (Channel::new(ours).unwrap(), Channel::new(theirs).unwrap());
                while let Some(next) = moved.recv().await {
                    let files = message::files_of(&next);
                    message::send(&ours, &ToNew::of(&next), &files).await.unwrap();
                    drop(next);
                    let packet = theirs.receive().await.unwrap().unwrap();
                    let arrived = match message::read(&packet).unwrap() {
                        ToNew::Client(client) => client.into_moved(packet.files),
                        ToNew::Session(session) => session.into_moved(packet.files),
                        other => panic!("{other:?}"),
                    };
                    arrivals.take(arrived.unwrap()).await;
                }
            });
        });
        meanwhile(&new);
        self.commands.blocking_send(Command::Leave(exit)).ok().unwrap();
        new
    }

    /// Begins a handover to a process that has died, waits for `time`, and goes on.
    pub fn fail_to_upgrade(&self, time: Duration) {
        let listeners = self.inheritance().listeners;
        let (exit, _) = mpsc::channel(1);
        self.commands.blocking_send(Command::Leave(exit)).ok().unwrap();
        std::thread::sleep(time);
        let config = config(self.write, self.read);
        self.commands.blocking_send(Command::Stay(config, listeners)).ok().unwrap();
    }

    /// Begins a handover to a process that dies when all sessions have been sent to it, and goes on.
    pub fn lose_in_upgrade(&self) {
        let listeners = self.inheritance().listeners;
        let (exit, moved) = mpsc::channel(64);
        self.commands.blocking_send(Command::Leave(exit)).ok().unwrap();
        eventually("all have left", || read(&self.stats.clients) == 0);
        drop(moved);
        let config = config(self.write, self.read);
        self.commands.blocking_send(Command::Stay(config, listeners)).ok().unwrap();
    }

    /// What a new front needs to accept clients.
    fn inheritance(&self) -> Inheritance {
        let (copies, copied) = std::sync::mpsc::channel();
        self.commands.blocking_send(Command::Inherit(copies)).ok().unwrap();
        copied.recv().unwrap()
    }

    /// The end of the handover: the former front has no session any more.
    pub fn complete(&self) {
        self.complete_with(LoginsLeft::default());
    }

    /// The end of the handover: `old` has no session any more, but logins in progress.
    pub fn complete_from(&self, old: &Front) {
        let (reply, logins) = std::sync::mpsc::channel();
        old.commands.blocking_send(Command::LoginsLeft(reply)).ok().unwrap();
        self.complete_with(logins.recv().unwrap());
    }

    fn complete_with(&self, logins: LoginsLeft) {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.arrivals.complete(logins));
    }

    /// Stops the heartbeat, and waits until the stall is noticed.
    pub fn stall(&self) {
        self.beats.store(false, Ordering::SeqCst);
        std::thread::sleep(Heartbeat::OLD_AFTER + BEAT * 5);
    }

    /// Starts the heartbeat again.
    pub fn run_again(&self) {
        self.beats.store(true, Ordering::SeqCst);
    }

    /// Reloads with these changes instead of the earlier ones.
    pub fn reload(&self, wish: impl FnOnce(&mut Config)) {
        let mut config = config(self.write, self.read);
        wish(&mut config);
        let (done, is_done) = std::sync::mpsc::channel();
        self.commands.blocking_send(Command::Reload(config, done)).ok().unwrap();
        is_done.recv().unwrap();
    }

    /// Opens the gate of a member, and shuts no other one.
    pub fn open(&self, service: &str, member: &str) {
        self.change(|snapshot| {
            let generation = snapshot.generation;
            let gate = open_gate(generation, Route::Configured);
            put(snapshot, service, member, gate);
        });
    }

    /// Makes new sessions to a member bypass its pooler.
    pub fn bypass(&self, service: &str, member: &str) {
        self.change(|snapshot| {
            let bypass = Bypass { fault: PoolerFault::Unusable, reason: Reason::Unheard };
            let gate = open_gate(snapshot.generation, Route::PastPooler(bypass));
            put(snapshot, service, member, gate);
        });
    }

    /// Shuts the gate of a member; its sessions may continue.
    pub fn shut(&self, service: &str, member: &str) {
        self.change(|snapshot| put(snapshot, service, member, shut(Sessions::Keep)));
    }

    /// Shuts the gate of a member and ends its sessions.
    pub fn end(&self, service: &str, member: &str) {
        self.change(|snapshot| put(snapshot, service, member, shut(Sessions::End)));
    }

    /// Shuts one gate and opens another in the same Snapshot, as the engine does when the primary
    /// changes.
    pub fn move_primary(&self, from: &str, to: &str) {
        self.change(|snapshot| {
            let generation = snapshot.generation;
            let open = open_gate(generation, Route::Configured);
            put(snapshot, "write", from, shut(Sessions::End));
            put(snapshot, "write", to, open);
        });
    }

    /// Marks the member as promoting: it has the leader lock, is still in recovery, and serves no
    /// client.
    pub fn promote(&self, member: &str) {
        self.change(|snapshot| {
            put(snapshot, "write", member, shut(Sessions::End));
            put(snapshot, "read", member, shut(Sessions::Keep));
            trouble(snapshot, member, Some(Reason::Promoting));
        });
    }

    /// Marks the promotion as failed: the member is a replica again.
    pub fn demote(&self, member: &str) {
        self.change(|snapshot| {
            let generation = snapshot.generation;
            let open = open_gate(generation, Route::Configured);
            put(snapshot, "read", member, open);
            trouble(snapshot, member, None);
        });
    }

    /// The engine's part of a reload that removes the service.
    pub fn forget(&self, service: &str) {
        self.change(|snapshot| drop(snapshot.services.remove(service)));
    }

    fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        self.snapshots.send_modify(|current| {
            let mut next = Snapshot::clone(current);
            next.generation += 1;
            change(&mut next);
            *current = Arc::new(next);
        });
    }

    /// Stops it as SIGTERM does; returns at once.
    pub fn stop(&mut self, grace: Duration) {
        self.stop.take().unwrap().send(grace).unwrap();
    }

    /// The total number of sessions at a member, and the current number.
    pub fn sessions(&self, service: &str, member: &str) -> (u64, usize) {
        let stats = self.stats.service(&ServiceName::new(service).unwrap());
        let stats = stats.member(&MemberName::new(member).unwrap());
        (stats.sessions_total.load(Ordering::Relaxed), read(&stats.sessions))
    }

    pub fn held(&self, service: &str) -> usize {
        let name = ServiceName::new(service).unwrap();
        self.stats.service(&name).holds.clients()
    }

    /// Clients on hold because of a limit on sessions.
    pub fn queued(&self, service: &str) -> usize {
        let name = ServiceName::new(service).unwrap();
        self.stats.service(&name).queued.load(Ordering::Relaxed)
    }

    /// Waits until this number of clients is on hold.
    pub fn wait_until_held(&self, service: &str, count: usize) {
        eventually(&format!("{count} clients on hold"), || self.held(service) == count);
    }

    /// Waits until the last client has disappeared from all counters.
    pub fn wait_until_empty(&self) {
        eventually("no client is left", || read(&self.stats.clients) == 0);
        for service in ["write", "read"] {
            let stats = self.stats.service(&ServiceName::new(service).unwrap());
            assert_eq!(stats.holds.clients(), 0, "{service} has clients on hold");
            for member in ["n1", "n2"] {
                let sessions = read(&stats.member(&MemberName::new(member).unwrap()).sessions);
                assert_eq!(sessions, 0, "{service} has sessions at {member}");
            }
        }
    }
}

/// As the messages of a handover have it: copies of the listening sockets, a position behind all others,
/// and the connections.
fn inheritance(proxy: &Proxy) -> Inheritance {
    let mut listeners = Listeners::default();
    for (address, socket) in proxy.listeners() {
        listeners.add(address, socket.try_clone().unwrap());
    }
    let first_ticket = proxy.next_ticket() + (1 << 32);
    let (generation_max, connections) = (None, proxy.connections());
    Inheritance { listeners, generation_max, first_ticket, connections }
}

fn read(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::Relaxed)
}

/// Short limits, so that their tests take little time.
fn config(write: SocketAddr, read: SocketAddr) -> Config {
    let service = |listen, role| ServiceConfig {
        hold: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(1),
        ..ServiceConfig::new(listen, role)
    };
    let cluster = ClusterConfig {
        name: Some(ClusterName::new("test").unwrap()),
        members: Membership::Listed(Vec::new()),
        check: None,
        etcd: None,
        split_brain: SplitBrain::Block,
        patroni_loss_grace: Duration::from_secs(60),
        silence: Duration::from_secs(30),
        here: pgsteer_core::settings::Here::default(),
    };
    let services = BTreeMap::from([
        (ServiceName::new("write").unwrap(), service(write, Role::Primary)),
        (ServiceName::new("read").unwrap(), service(read, Role::Replica)),
    ]);
    let proxy = ProxyConfig { workers: Some(2), ..ProxyConfig::default() };
    let vips = BTreeMap::new();
    Config { cluster, services, http: None, agent: None, proxy, haproxy: None, control: None, vips }
}

fn snapshot(servers: &[&FakeServer]) -> Snapshot {
    let mut members = BTreeMap::new();
    let (mut write, mut read) = (BTreeMap::new(), BTreeMap::new());
    for (number, server) in (1..).zip(servers) {
        let name = MemberName::new(&format!("n{number}")).unwrap();
        members.insert(name.clone(), member(server));
        let open = open_gate(1, Route::Configured);
        read.insert(name.clone(), open.clone());
        write.insert(name, if number == 1 { open } else { shut(Sessions::End) });
    }
    let service = |role, gates| ServiceState { role, lag_bytes_max: None, gates };
    let services = BTreeMap::from([
        (ServiceName::new("write").unwrap(), service(Role::Primary, write)),
        (ServiceName::new("read").unwrap(), service(Role::Replica, read)),
    ]);
    Snapshot {
        generation: 1,
        at: Moment::START,
        cluster: ClusterName::new("test").unwrap(),
        scope: None,
        identity: Default::default(),
        paused: false,
        etcd: None,
        unlisted: BTreeMap::new(),
        url_troubles: Default::default(),
        local: None,
        members,
        services,
        events: VecDeque::new(),
        orders: Default::default(),
    }
}

fn member(server: &FakeServer) -> MemberState {
    let (ip, port) = (server.address.ip(), server.address.port());
    MemberState {
        postgres: Endpoint::new(&ip.to_string(), port).unwrap(),
        patroni_url: None,
        same_as: None,
        also_at: Vec::new(),
        addresses: vec![ip],
        address_failure: None,
        role: Role::Unknown,
        trouble: None,
        promoting: false,
        awaits_first_report: false,
        listed: true,
        rogue: false,
        timeline: None,
        lag_bytes: None,
        lag: None,
        load_percent: None,
        clock_offset: None,
        poolers: BTreeMap::new(),
        tags: Tags::new(),
        health: Health::default(),
    }
}

fn open_gate(generation: u64, route: Route) -> Gate {
    Gate::Open(OpenGate { route, ..OpenGate::new(Moment::START, generation) })
}

fn shut(sessions: Sessions) -> Gate {
    Gate::Shut { cause: Cause::Member, reason: Reason::Promoting, since: Moment::START, sessions }
}

fn trouble(snapshot: &mut Snapshot, member: &str, trouble: Option<Reason>) {
    let member = MemberName::new(member).unwrap();
    let state = snapshot.members.get_mut(&member).unwrap();
    state.promoting = trouble == Some(Reason::Promoting);
    state.trouble = trouble;
}

fn put(snapshot: &mut Snapshot, service: &str, member: &str, gate: Gate) {
    let service = snapshot.services.get_mut(service).unwrap();
    service.gates.insert(MemberName::new(member).unwrap(), gate);
}

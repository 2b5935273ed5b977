//! The proxy: it connects clients to members, as the Snapshot permits.
//!
//! One acceptor per service passes each connection to the worker with the fewest clients. A worker is
//! a thread with its own runtime, and a session stays on its worker. Each service has one listening
//! socket instead of one per worker with SO_REUSEPORT, for two reasons. A port that another process
//! uses is then an error instead of being shared silently. And pgsteer chooses the worker, where the
//! kernel would choose by a hash.

mod acceptor;
mod admission;
mod affinity;
mod arrivals;
mod balance;
mod barrier;
mod cancel;
mod capacity;
mod client;
mod connected;
pub mod flow;
mod guard;
mod held;
mod hold_error;
mod leaving;
mod listing;
mod login;
pub mod moved;
mod own;
mod pump;
mod queue;
mod roll_call;
mod search;
mod seat;
mod service;
mod session;
mod shared;
mod tcp;
mod worker;
mod worker_thread;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use pgsteer_core::names::ServiceName;
use pgsteer_core::settings::{Config, ProxyConfig};
use pgsteer_core::snapshot::Snapshot;
use rustix::process::{Resource, getrlimit};
use tokio::sync::{mpsc, watch};

use self::acceptor::Acceptor;
use self::admission::EXCESS_MAX;
pub use self::arrivals::Arrivals;
use self::capacity::CapacityLimits;
pub use self::leaving::Leaving;
pub use self::listing::{ClientFacts, ClientFilter, SessionFilter, SessionInfo};
pub use self::roll_call::{RollCall, SESSIONS_LISTED_MAX};
use self::service::Service;
use self::shared::Shared;
use self::worker_thread::Job;
use crate::connections::{PAGES, SLOW_AGENT_CLIENTS, STREAMS};
use crate::dial::REPEATS_AT_ONCE_MAX;
use crate::heartbeat::Pulse;
use crate::listen::Listeners;
use crate::stats::Stats;

/// The maximum number of jobs in a worker's queue.
const JOBS_MAX: usize = 1_024;

/// How often a stopping proxy checks whether the last client has disconnected.
const STOP_POLL: Duration = Duration::from_millis(50);

/// How long clients of ended sessions may take to read the reason.
const LAST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(1);

/// The running proxy.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    jobs: Vec<mpsc::Sender<Job>>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
    /// The acceptors by the address of their listener.
    acceptors: BTreeMap<SocketAddr, Acceptor>,
    services: BTreeMap<ServiceName, Arc<Service>>,
}

/// What a proxy takes over from another process.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// The sockets on which the other process has listened, and those that were bound early.
    pub listeners: Listeners,
    /// Gates that open after this Snapshot get no session before the other process has none. None
    /// without another process.
    pub generation_max: Option<u64>,
    /// The positions in the order of arrival begin here.
    pub first_ticket: u64,
    /// The connections of the other process, by client address. Their places stay reserved until it has
    /// none left.
    pub connections: Vec<(IpAddr, usize)>,
}

impl Proxy {
    /// Binds every port that `inherited` does not have.
    ///
    /// # Errors
    /// All ports that cannot be bound, each with its service.
    pub fn bind(
        config: &Config,
        is_inherited: impl Fn(SocketAddr) -> bool,
    ) -> anyhow::Result<Listeners> {
        acceptor::bind_all(&config.services, is_inherited)
    }

    /// Starts the workers, then accepts connections at the sockets in `inherited`.
    ///
    /// # Errors
    /// A thread cannot be started, or a socket cannot be used.
    pub fn start(
        config: &Config,
        stats: &Arc<Stats>,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        pulse: Pulse,
        inherited: &mut Inheritance,
    ) -> anyhow::Result<Proxy> {
        let workers = config.proxy.workers.unwrap_or_else(cores);
        let limits = affordable(config);
        let shared = Arc::new(Shared::new(limits, workers, Arc::clone(stats), snapshots, pulse));
        shared.arrivals.store(inherited.first_ticket, Ordering::Relaxed);
        if let Some(generation) = inherited.generation_max {
            shared.barrier.limit(generation);
            shared.admission.reserve(&inherited.connections);
            config.services.keys().for_each(|name| shared.capacities.of(name).pause());
        }
        let (mut jobs, mut threads) = (Vec::new(), Vec::new());
        for index in 0..workers {
            let (sender, receiver) = mpsc::channel(JOBS_MAX);
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new()
                .name(format!("pgsteer-w{index}"))
                .spawn(move || worker_thread::run(index, shared, receiver))
                .context("cannot start a worker thread")?;
            jobs.push(sender);
            threads.push(thread);
        }
        let (acceptors, services) = (BTreeMap::new(), BTreeMap::new());
        let mut proxy = Proxy { shared, jobs, threads, acceptors, services };
        proxy.open_services(config, &mut inherited.listeners)?;
        Ok(proxy)
    }

    /// Replaces the services. Sessions of services that stay go on. Sessions of removed services are
    /// ended by the next Snapshot, which does not contain these services.
    ///
    /// # Errors
    /// A new port cannot be bound. Nothing has changed then.
    pub fn reload(&mut self, config: &Config) -> anyhow::Result<()> {
        let is_bound = |address| self.acceptors.contains_key(&address);
        let mut listeners = acceptor::bind_all(&config.services, is_bound)?;
        let listens = |address: &SocketAddr| {
            config.services.values().any(|service| service.listen == *address)
        };
        self.acceptors.retain(|address, _| listens(address));
        self.open_services(config, &mut listeners)
    }

    /// The handle by which an operator sees and ends sessions. It does not keep the workers running.
    pub fn roll_call(&self) -> RollCall {
        RollCall::new(&self.shared, &self.jobs)
    }

    /// Returns true if a worker has ended although the proxy was not stopped. The barrier would wait
    /// for that worker for ever, so no client could reach a write member.
    pub fn has_failed(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Stops accepting, waits for the sessions to end for `grace` at most, then ends the others.
    pub async fn stop(mut self, grace: Duration) {
        self.acceptors.clear();
        self.send_to_all(|| Job::Stop).await;
        let clients = || self.shared.stats.clients.load(Ordering::Relaxed);
        let all_closed = || async {
            while clients() > 0 {
                tokio::time::sleep(STOP_POLL).await;
            }
        };
        if tokio::time::timeout(grace, all_closed()).await.is_err() {
            tracing::warn!(
                clients = clients(),
                ?grace,
                "the time to stop is over, ending the sessions"
            );
            self.send_to_all(|| Job::EndAll).await;
            // Each client receives the reason. A client that is connected after that has no session.
            let _ = tokio::time::timeout(LAST_MESSAGE_TIMEOUT, all_closed()).await;
        }
        self.jobs.clear();
        for thread in self.threads.drain(..) {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    async fn send_to_all(&self, job: impl Fn() -> Job) {
        for worker in &self.jobs {
            // A worker that has ended has no sessions.
            let _ = worker.send(job()).await;
        }
    }

    /// Gives the acceptor of each service its new configuration; starts it for a new service.
    fn open_services(&mut self, config: &Config, listeners: &mut Listeners) -> anyhow::Result<()> {
        self.services.clear();
        for (name, service) in &config.services {
            let (address, config) = (service.listen, service.clone());
            let stats = self.shared.stats.service(name);
            stats.set_limits(config.sessions_max, config.member_sessions_max);
            let capacity = self.shared.capacities.of(name);
            capacity.set_limits(CapacityLimits {
                service_max: config.sessions_max,
                member_max: config.member_sessions_max,
            });
            let affinity = self.shared.affinities.of(name);
            let name = name.clone();
            let service = Arc::new(Service { name, config, stats, capacity, affinity });
            self.services.insert(service.name.clone(), Arc::clone(&service));
            if let Some(acceptor) = self.acceptors.get(&address) {
                acceptor.change(service);
            } else if let Some(listener) = listeners.take(address) {
                let shared = Arc::clone(&self.shared);
                let acceptor = Acceptor::start(listener, service, shared, self.jobs.clone())
                    .with_context(|| format!("cannot accept connections on {address}"))?;
                self.acceptors.insert(address, acceptor);
            }
        }
        self.shared.own.set(self.acceptors.keys().copied().collect());
        Ok(())
    }
}

/// Files that sessions cannot use: those of sources, listeners and the control socket, of connections above
/// the limit, of connections for cancel requests, and of repeated attempts to connect.
const FILES_RESERVED: usize = 64 + EXCESS_MAX + cancel::CONNECTIONS_MAX + REPEATS_AT_ONCE_MAX;

/// Files that the outputs of `config` can use beside the sessions.
fn files_of_outputs(config: &Config) -> usize {
    let pages = config.http.is_some().then(|| PAGES.max() + STREAMS.max());
    let agent = config.agent.is_some().then(|| SLOW_AGENT_CLIENTS.max());
    pages.unwrap_or(0) + agent.unwrap_or(0)
}

/// The configuration with `sessions_max` reduced to what the limit of open files permits. Otherwise
/// the sources could find no free file, and pgsteer would report a healthy cluster as dead.
fn affordable(config: &Config) -> ProxyConfig {
    const FILES_PER_SESSION: usize = 2;
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let reserved = FILES_RESERVED + files_of_outputs(config);
    let sessions_max = files.saturating_sub(reserved) / FILES_PER_SESSION;
    let proxy = &config.proxy;
    if sessions_max >= proxy.sessions_max {
        return proxy.clone();
    }
    let sessions_max = sessions_max.max(1);
    tracing::warn!(
        "at most {sessions_max} sessions instead of {} (sessions_max): a session takes two files, and \
         the limit of open files is {files} (raise LimitNOFILE in systemd, ulimit -n in a shell)",
        proxy.sessions_max
    );
    ProxyConfig { sessions_max, ..proxy.clone() }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

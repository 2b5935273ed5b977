//! The proxy: clients come in, a member serves them, the Snapshot decides which.
//!
//! An acceptor per service hands each connection to a worker that has few; a worker is a thread
//! with a runtime of its own, and a session never leaves it. One listening socket per service
//! instead of one per worker: a port that another process holds is noticed (with SO_REUSEPORT it
//! would be shared in silence), and we choose who shares a worker, not a hash.

mod admission;
mod affinity;
mod balance;
mod barrier;
mod cancel;
mod capacity;
mod client;
mod door;
mod guard;
mod held;
mod hold;
mod login;
mod own;
mod pump;
mod queue;
mod seat;
mod session;
mod tcp;
mod vain;
mod worker;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pgsteer_core::names::ServiceName;
use pgsteer_core::settings::{Config, ProxyConfig, ServiceConfig};
use pgsteer_core::snapshot::Snapshot;
use rustix::process::{Resource, getrlimit};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use self::admission::{Admission, EXCESS_MAX, Limit, Silence, Ticket};
use self::affinity::Affinity;
use self::barrier::Barrier;
use self::cancel::Cancels;
use self::capacity::{Capacity, CapacityLimits};
use self::door::Door;
use self::own::OwnAddresses;
use self::queue::Queues;
use crate::by_name::ByName;
use crate::heartbeat::Pulse;
use crate::stats::{ServiceStats, Stats};

/// Connections that wait to be taken over by a worker.
const JOBS_MAX: usize = 1_024;

/// How often a stopping proxy looks whether the last client has gone.
const STOP_LOOK: Duration = Duration::from_millis(50);

/// How long the clients of sessions that were ended may take to read why.
const LAST_WORD: Duration = Duration::from_secs(1);

/// One service, as the sessions that came in by it see it.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Its wishes at the time the session began.
    pub config: ServiceConfig,
    /// What is counted of it.
    pub stats: Arc<ServiceStats>,
    /// How many sessions it may have, and the queue for them. It outlives a reload.
    capacity: Arc<Capacity>,
    /// Which member a client address is led to. It outlives a reload.
    affinity: Arc<Affinity>,
}

#[cfg(test)]
impl Service {
    /// A service of its own, in a test.
    fn alone(name: ServiceName, config: ServiceConfig) -> Service {
        let stats = Arc::default();
        Service { name, config, stats, capacity: Arc::default(), affinity: Arc::default() }
    }
}

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    limits: ProxyConfig,
    stats: Arc<Stats>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    pulse: Pulse,
    barrier: Barrier,
    admission: Arc<Admission>,
    own: OwnAddresses,
    cancels: Arc<Cancels>,
    queues: Queues,
    capacities: ByName<ServiceName, Capacity>,
    affinities: ByName<ServiceName, Affinity>,
    /// How many clients have asked for a member.
    arrivals: AtomicU64,
    loads: Box<[AtomicUsize]>,
}

impl Shared {
    /// The position of a client in the order of arrival, over all workers.
    fn next_ticket(&self) -> u64 {
        self.arrivals.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
impl Shared {
    /// What so many workers share in a test, none of which has acted on anything.
    fn of_workers(workers: usize, snapshots: watch::Receiver<Arc<Snapshot>>) -> Arc<Shared> {
        let limits = ProxyConfig::default();
        let stats = Arc::default();
        let admission = Admission::new(limits.sessions_max, None, Arc::clone(&stats));
        Arc::new(Shared {
            limits,
            stats,
            snapshots,
            pulse: Pulse::new(Arc::default(), crate::clock::Clock::start()),
            barrier: Barrier::new(workers),
            admission: Arc::new(admission),
            own: OwnAddresses::default(),
            cancels: Arc::default(),
            queues: Queues::default(),
            capacities: ByName::default(),
            affinities: ByName::default(),
            arrivals: AtomicU64::new(0),
            loads: Box::default(),
        })
    }
}

/// Whether new sessions are still wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// They are.
    Serving,
    /// pgsteer is shutting down.
    Stopping,
}

/// What a worker is told.
#[derive(Debug)]
enum Job {
    /// Serve a client.
    Client { stream: TcpStream, service: Arc<Service>, admitted: Admitted },
    /// Take no more clients out of the hold.
    Stop,
    /// End all sessions.
    EndAll,
}

/// A client that is counted, by the process and by its worker, as long as this lives.
#[derive(Debug)]
pub struct Admitted {
    shared: Arc<Shared>,
    worker: usize,
    ticket: Ticket,
    exceeded: Option<Limit>,
}

impl Admitted {
    fn new(
        shared: &Arc<Shared>,
        worker: usize,
        ticket: Ticket,
        exceeded: Option<Limit>,
    ) -> Admitted {
        shared.loads[worker].fetch_add(1, Ordering::Relaxed);
        Admitted { shared: Arc::clone(shared), worker, ticket, exceeded }
    }

    /// The limit that the client exceeds: it may not log in, but it may read why, and cancel.
    pub fn exceeded(&self) -> Option<Limit> {
        self.exceeded
    }

    /// The address of the client; an IPv4 address in IPv6 is an IPv4 address.
    pub fn address(&self) -> IpAddr {
        self.ticket.address()
    }

    /// Begins a time in which the client has to send something, and may have to give way.
    pub fn silence(&self) -> Silence<'_> {
        self.ticket.silence(Instant::now())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.shared.loads[self.worker].fetch_sub(1, Ordering::Relaxed);
    }
}

/// The running proxy.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    jobs: Vec<mpsc::Sender<Job>>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
    /// By the address they listen on.
    doors: BTreeMap<SocketAddr, Door>,
}

impl Proxy {
    /// Binds every port and starts the workers. Nothing is accepted before this is done.
    ///
    /// # Errors
    /// All ports that cannot be had, each with the service that needs it.
    pub fn start(
        config: &Config,
        stats: &Arc<Stats>,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        pulse: Pulse,
    ) -> anyhow::Result<Proxy> {
        let listeners = door::bind_all(&config.services, |_| false)?;
        let workers = config.proxy.workers.unwrap_or_else(cores);
        let limits = affordable(&config.proxy);
        let (all_max, address_max) = (limits.sessions_max, limits.sessions_per_address_max);
        let shared = Arc::new(Shared {
            limits,
            admission: Arc::new(Admission::new(all_max, address_max, Arc::clone(stats))),
            own: OwnAddresses::default(),
            stats: Arc::clone(stats),
            snapshots,
            pulse,
            barrier: Barrier::new(workers),
            cancels: Arc::default(),
            queues: Queues::default(),
            capacities: ByName::default(),
            affinities: ByName::default(),
            arrivals: AtomicU64::new(0),
            loads: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
        });
        let (mut jobs, mut threads) = (Vec::new(), Vec::new());
        for index in 0..workers {
            let (sender, receiver) = mpsc::channel(JOBS_MAX);
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new()
                .name(format!("pgsteer-w{index}"))
                .spawn(move || worker::run(index, shared, receiver))
                .context("cannot start a worker thread")?;
            jobs.push(sender);
            threads.push(thread);
        }
        let mut proxy = Proxy { shared, jobs, threads, doors: BTreeMap::new() };
        proxy.open_doors(config, listeners);
        Ok(proxy)
    }

    /// Goes on with other services. Sessions of services that stay are not touched; those of
    /// services that go are ended by the Snapshot that has them no more.
    ///
    /// # Errors
    /// A new port that cannot be had; then nothing has changed.
    pub fn reload(&mut self, config: &Config) -> anyhow::Result<()> {
        let listeners =
            door::bind_all(&config.services, |address| self.doors.contains_key(&address))?;
        let listens = |address: &SocketAddr| {
            config.services.values().any(|service| service.listen == *address)
        };
        self.doors.retain(|address, _| listens(address));
        self.open_doors(config, listeners);
        Ok(())
    }

    /// A worker has ended although nobody told it to. No write gate is passed any more then: the
    /// barrier would wait for that worker for ever.
    pub fn has_failed(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Stops accepting, lets the sessions end by themselves for `grace`, then ends them.
    pub async fn stop(mut self, grace: Duration) {
        self.doors.clear();
        self.tell_all(|| Job::Stop).await;
        let clients = || self.shared.stats.clients.load(Ordering::Relaxed);
        let all_gone = || async {
            while clients() > 0 {
                tokio::time::sleep(STOP_LOOK).await;
            }
        };
        if tokio::time::timeout(grace, all_gone()).await.is_err() {
            tracing::warn!(clients = clients(), "the grace is over, ending the sessions");
            self.tell_all(|| Job::EndAll).await;
            // Time for the last word to each client; who is still there then is in no session.
            let _ = tokio::time::timeout(LAST_WORD, all_gone()).await;
        }
        self.jobs.clear();
        for thread in self.threads.drain(..) {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    async fn tell_all(&self, job: impl Fn() -> Job) {
        for worker in &self.jobs {
            // A worker that is gone has no sessions left.
            let _ = worker.send(job()).await;
        }
    }

    /// Gives every service its door: one that is open already, or a new one.
    fn open_doors(&mut self, config: &Config, mut listeners: BTreeMap<SocketAddr, TcpListener>) {
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
            if let Some(door) = self.doors.get(&address) {
                door.change(service);
            } else if let Some(listener) = listeners.remove(&address) {
                let shared = Arc::clone(&self.shared);
                let door = Door::open(listener, service, shared, self.jobs.clone());
                self.doors.insert(address, door);
            }
        }
        self.shared.own.set(self.doors.keys().copied().collect());
    }
}

/// Files that are not sessions: sources, status pages, listening sockets, connections above the
/// limit, and connections for cancel requests.
const FILES_RESERVED: usize = 64 + EXCESS_MAX + cancel::CONNECTIONS_MAX;

/// As many sessions as the limit of open files allows. Without that the sources would be out of
/// files as well, and a healthy cluster would look dead from here.
fn affordable(proxy: &ProxyConfig) -> ProxyConfig {
    const FILES_PER_SESSION: usize = 2;
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let sessions_max = files.saturating_sub(FILES_RESERVED) / FILES_PER_SESSION;
    if sessions_max >= proxy.sessions_max {
        return proxy.clone();
    }
    let sessions_max = sessions_max.max(1);
    tracing::warn!(
        "at most {sessions_max} sessions instead of {}: a session takes two files, and the limit of \
         open files is {files} (LimitNOFILE in systemd, ulimit -n in a shell)",
        proxy.sessions_max
    );
    ProxyConfig { sessions_max, ..proxy.clone() }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

//! The state that all workers share.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use pgsteer_core::names::ServiceName;
use pgsteer_core::settings::ProxyConfig;
use pgsteer_core::snapshot::Snapshot;
use tokio::sync::watch;

use super::admission::{Admission, Limit, Silence, Ticket};
use super::affinity::Affinity;
use super::barrier::Barrier;
use super::cancel::Cancels;
use super::capacity::Capacity;
use super::own::OwnAddresses;
use super::queue::Queues;
use crate::by_name::ByName;
use crate::heartbeat::Pulse;
use crate::stats::Stats;

/// The state that all workers share.
#[derive(Debug)]
pub struct Shared {
    /// The limits of the proxy.
    pub limits: ProxyConfig,
    /// The counters.
    pub stats: Arc<Stats>,
    /// The newest Snapshot.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The heartbeat of the engine.
    pub pulse: Pulse,
    /// The Snapshots that all workers have acted on.
    pub barrier: Barrier,
    /// The limits of client connections.
    pub admission: Arc<Admission>,
    /// The addresses of the proxy's own listeners.
    pub own: OwnAddresses,
    /// The cancel keys of all sessions.
    pub cancels: Arc<Cancels>,
    /// The login queues of the members.
    pub queues: Queues,
    /// The session limits of the services.
    pub capacities: ByName<ServiceName, Capacity>,
    /// The preferred members of client addresses, for each service.
    pub affinities: ByName<ServiceName, Affinity>,
    /// How many clients have asked for a member.
    pub arrivals: AtomicU64,
    /// How many clients each worker has.
    pub loads: Box<[AtomicUsize]>,
    /// How many established sessions each worker has, while they move to another process.
    pub leaving: Box<[AtomicUsize]>,
    /// How many clients wait and can move to another process.
    pub movable: AtomicUsize,
}

/// A client that waits and can move to another process. It is counted until this is dropped.
#[derive(Debug)]
pub struct Movable(Arc<Shared>);

/// Whether the proxy takes new sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It does.
    Serving,
    /// Another process takes over: waiting clients and established sessions move there.
    Leaving,
    /// pgsteer is shutting down.
    Stopping,
}

/// A client of one worker. It is counted by the process and by the worker until this is dropped.
#[derive(Debug)]
pub struct Admitted {
    shared: Arc<Shared>,
    worker: usize,
    ticket: Ticket,
    exceeded: Option<Limit>,
}

impl Shared {
    /// The shared state of a proxy with `workers` workers, none of which has acted on a Snapshot.
    pub fn new(
        limits: ProxyConfig,
        workers: usize,
        stats: Arc<Stats>,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        pulse: Pulse,
    ) -> Shared {
        let (all_max, address_max) = (limits.sessions_max, limits.sessions_per_address_max);
        Shared {
            limits,
            admission: Arc::new(Admission::new(all_max, address_max, Arc::clone(&stats))),
            stats,
            snapshots,
            pulse,
            barrier: Barrier::new(workers),
            own: OwnAddresses::default(),
            cancels: Arc::default(),
            queues: Queues::default(),
            capacities: ByName::default(),
            affinities: ByName::default(),
            arrivals: AtomicU64::new(0),
            loads: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            leaving: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            movable: AtomicUsize::new(0),
        }
    }

    /// The position of a new client in the order of arrival, over all workers.
    pub fn next_ticket(&self) -> u64 {
        self.arrivals.fetch_add(1, Ordering::Relaxed)
    }
}

impl Movable {
    /// Counts one more client.
    pub fn new(shared: &Arc<Shared>) -> Movable {
        shared.movable.fetch_add(1, Ordering::AcqRel);
        Movable(Arc::clone(shared))
    }
}

impl Drop for Movable {
    fn drop(&mut self) {
        self.0.movable.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
impl Shared {
    /// The shared state of a proxy with `workers` workers, for a test.
    pub fn of_workers(workers: usize, snapshots: watch::Receiver<Arc<Snapshot>>) -> Arc<Shared> {
        let pulse = Pulse::new(Arc::default(), crate::clock::Clock::start());
        Arc::new(Shared::new(ProxyConfig::default(), workers, Arc::default(), snapshots, pulse))
    }
}

impl Admitted {
    /// Counts a client of worker number `worker`. `exceeded` is the limit that it exceeds.
    pub fn new(
        shared: &Arc<Shared>,
        worker: usize,
        ticket: Ticket,
        exceeded: Option<Limit>,
    ) -> Admitted {
        shared.loads[worker].fetch_add(1, Ordering::Relaxed);
        Admitted { shared: Arc::clone(shared), worker, ticket, exceeded }
    }

    /// The limit that the client exceeds. Such a client cannot log in; it receives the reason, and its
    /// cancel request is sent.
    pub fn exceeded(&self) -> Option<Limit> {
        self.exceeded
    }

    /// The address of the client; an IPv4 address in IPv6 is an IPv4 address.
    pub fn address(&self) -> IpAddr {
        self.ticket.address()
    }

    /// Begins a time in which the client has to send something and may have to give way to a new one.
    pub fn silence(&self) -> Silence<'_> {
        self.ticket.silence(Instant::now())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.shared.loads[self.worker].fetch_sub(1, Ordering::Relaxed);
    }
}

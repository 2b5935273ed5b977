//! The proxy of a process that is being replaced: its clients and sessions leave.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::Ordering;

use pgsteer_core::settings::Config;

use super::Proxy;
use super::capacity::Capacity;
use super::moved::{Exit, LoginsLeft};
use super::worker_thread::Job;
use crate::listen::Listeners;

/// The maximum number of client addresses in [`LoginsLeft`], which has to fit into one packet.
const ADDRESSES_MAX: usize = 1_000;

/// No worker has counted its sessions yet.
const UNKNOWN: usize = usize::MAX;

/// What is left in a proxy whose clients leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Established sessions; none before every worker has counted them.
    pub sessions: Option<usize>,
    /// Clients that wait and can move.
    pub movable: usize,
    /// All clients, those in a login included.
    pub clients: usize,
}

impl Proxy {
    /// The addresses on which clients connect, and the sockets.
    pub fn listeners(&self) -> impl Iterator<Item = (SocketAddr, &TcpListener)> {
        self.acceptors.iter().map(|(address, acceptor)| (*address, acceptor.socket()))
    }

    /// The position that the next client would get.
    pub fn next_ticket(&self) -> u64 {
        self.shared.arrivals.load(Ordering::Relaxed)
    }

    /// The number of admitted connections of each client address, the largest first.
    pub fn connections(&self) -> Vec<(IpAddr, usize)> {
        self.shared.admission.connections()
    }

    /// What logins in progress occupy, after all other clients and sessions have left.
    pub fn logins_left(&self) -> LoginsLeft {
        let permits = self.services.iter().filter_map(|(name, service)| {
            let permits = service.capacity.permits_here();
            (!permits.is_empty()).then(|| (name.clone(), permits))
        });
        let mut connections = self.connections();
        connections.truncate(ADDRESSES_MAX);
        LoginsLeft { permits: permits.collect(), connections }
    }

    /// Stops accepting, and sends waiting clients and established sessions to `exit`.
    pub async fn leave(&mut self, exit: Exit) {
        for left in &self.shared.leaving {
            left.store(UNKNOWN, Ordering::Release);
        }
        self.acceptors.clear();
        self.send_to_all(|| Job::Leave(exit.clone())).await;
    }

    /// What has not left yet.
    pub fn left(&self) -> Leaving {
        let counts = self.shared.leaving.iter().map(|left| left.load(Ordering::Acquire));
        let sessions = counts.map(|count| (count != UNKNOWN).then_some(count)).sum();
        let movable = self.shared.movable.load(Ordering::Acquire);
        let clients = self.shared.stats.clients.load(Ordering::Relaxed);
        Leaving { sessions, movable, clients }
    }

    /// Keeps the clients that have not left, and accepts clients at `sockets` again, because the other
    /// process has failed.
    ///
    /// # Errors
    /// A socket cannot be used.
    pub async fn stay(&mut self, config: &Config, sockets: &mut Listeners) -> anyhow::Result<()> {
        self.shared.capacities.all().iter().for_each(Capacity::return_moved);
        self.send_to_all(|| Job::Stay).await;
        self.open_services(config, sockets)
    }
}

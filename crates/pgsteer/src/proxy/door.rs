//! A door: one service's listening socket, and the task that takes its connections in.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::bail;
use pgsteer_core::names::ServiceName;
use pgsteer_core::settings::ServiceConfig;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::admission::{Decision, Limit, Ticket};
use super::session::no_room;
use super::{Admitted, Job, Service, Shared};
use crate::listen;

/// The pause after an accept that failed, mostly for want of file descriptors: without it the
/// same connection would fail again and again as fast as the processor goes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often, and after which time, the acceptor asks again for the place of a connection that a
/// worker is about to close. The kernel keeps new connections meanwhile.
const PLACE_TRIES: u32 = 50;
const PLACE_PAUSE: Duration = Duration::from_millis(1);

/// An open door. Dropping it closes the socket.
#[derive(Debug)]
pub struct Door {
    service: watch::Sender<Arc<Service>>,
    task: AbortHandle,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Binds the address of every service that is not bound already, or none at all.
pub fn bind_all(
    services: &BTreeMap<ServiceName, ServiceConfig>,
    is_bound: impl Fn(SocketAddr) -> bool,
) -> anyhow::Result<BTreeMap<SocketAddr, TcpListener>> {
    let (mut listeners, mut errors) = (BTreeMap::new(), Vec::new());
    for (name, service) in services.iter().filter(|(_, service)| !is_bound(service.listen)) {
        let user = format!("service {name}");
        let option = format!("`listen` in [services.{name}]");
        let bound = listen::bind(service.listen, &user, &option).map_err(anyhow::Error::from);
        match bound.and_then(|listener| Ok(TcpListener::from_std(listener)?)) {
            Ok(listener) => {
                listeners.insert(service.listen, listener);
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    if errors.is_empty() { Ok(listeners) } else { bail!(errors.join("\n")) }
}

impl Door {
    /// Starts to take connections in.
    pub(super) fn open(
        listener: TcpListener,
        service: Arc<Service>,
        shared: Arc<Shared>,
        workers: Vec<mpsc::Sender<Job>>,
    ) -> Door {
        let (sender, receiver) = watch::channel(service);
        let task = tokio::spawn(accept_all(listener, receiver, shared, workers)).abort_handle();
        Door { service: sender, task }
    }

    /// New sessions find another service, or another configuration of it.
    pub fn change(&self, service: Arc<Service>) {
        self.service.send_replace(service);
    }
}

async fn accept_all(
    listener: TcpListener,
    service: watch::Receiver<Arc<Service>>,
    shared: Arc<Shared>,
    workers: Vec<mpsc::Sender<Job>>,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                let service = service.borrow().name.clone();
                tracing::warn!(%service, %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(stream) = stream.into_std() else { continue };
        let (ticket, exceeded) = match decide(&shared, peer.ip()).await {
            Ok(admitted) => admitted,
            Err(limit) => {
                turn_away_unheard(stream, limit);
                continue;
            }
        };
        let worker = least_busy(shared.loads.iter().map(|load| load.load(Ordering::Relaxed)));
        let admitted = Admitted::new(&shared, worker, ticket, exceeded);
        let service = Arc::clone(&service.borrow());
        if workers[worker].send(Job::Client { stream, service, admitted }).await.is_err() {
            tracing::error!(worker, "a worker is gone, its clients are turned away");
        }
    }
}

/// Lets a connection in, with the limit that it exceeds if it may only be refused. Returns that
/// limit as an error if it has to be refused at once.
async fn decide(shared: &Shared, address: IpAddr) -> Result<(Ticket, Option<Limit>), Limit> {
    for _ in 0..PLACE_TRIES {
        match shared.admission.decide(address, Instant::now()) {
            Decision::LetIn(ticket) => return Ok((ticket, None)),
            Decision::Refuse(ticket, limit) => return Ok((ticket, Some(limit))),
            Decision::RefuseAtOnce(limit) => return Err(limit),
            Decision::TryAgain => tokio::time::sleep(PLACE_PAUSE).await,
        }
    }
    shared.stats.turned_away.fetch_add(1, Ordering::Relaxed);
    Err(Limit::All(shared.limits.sessions_max))
}

/// Refuses a client without waiting for its first packet. Nothing here waits: a new connection
/// has room for a few bytes, and bytes that the client has sent already are read first, because
/// closing on unread bytes would reset the connection.
fn turn_away_unheard(mut stream: TcpStream, limit: Limit) {
    let _ = stream.read(&mut [0; 1024]);
    let _ = stream.write(&no_room(limit));
}

/// Which worker takes the next client: the one with the fewest, counted in clumps.
///
/// A worker that is awake for one session serves the next event of another without being woken
/// for it, and being woken is a large part of what a small transaction costs. So a handful of
/// sessions stays together, and only whole clumps are spread.
fn least_busy(loads: impl Iterator<Item = usize>) -> usize {
    const CLUMP: usize = 4;
    loads.enumerate().min_by_key(|(_, load)| load / CLUMP).map_or(0, |(worker, _)| worker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_fill_the_workers_clump_by_clump() {
        let mut loads = [0; 3];
        let mut taken = Vec::new();
        for _ in 0..16 {
            let worker = least_busy(loads.iter().copied());
            loads[worker] += 1;
            taken.push(worker);
        }
        assert_eq!(taken, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0, 0]);
        loads[1] = 1;
        assert_eq!(least_busy(loads.iter().copied()), 1);
    }
}

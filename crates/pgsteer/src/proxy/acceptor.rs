//! The acceptor of one service: accepts its connections and passes each to a worker.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::bail;
use pgsteer_core::names::ServiceName;
use pgsteer_core::settings::ServiceConfig;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::admission::{Decision, Limit, Ticket};
use super::service::Service;
use super::shared::{Admitted, Shared};
use super::worker_thread::Job;
use crate::listen::{self, Listeners};

/// How often, and at which interval, the acceptor asks for admission again while a worker closes a
/// connection. The kernel queues new connections meanwhile.
const ADMISSION_TRIES: u32 = 50;
const ADMISSION_PAUSE: Duration = Duration::from_millis(1);

/// A running acceptor. Dropping it closes the socket.
#[derive(Debug)]
pub struct Acceptor {
    service: watch::Sender<Arc<Service>>,
    task: AbortHandle,
    /// The same socket, for a process that takes over.
    socket: TcpListener,
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Binds the address of every service for which `is_bound` returns false.
///
/// # Errors
/// All addresses that cannot be bound. No address is bound then.
pub fn bind_all(
    services: &BTreeMap<ServiceName, ServiceConfig>,
    is_bound: impl Fn(SocketAddr) -> bool,
) -> anyhow::Result<Listeners> {
    let (mut listeners, mut errors) = (Listeners::default(), Vec::new());
    for (name, service) in services.iter().filter(|(_, service)| !is_bound(service.listen)) {
        let user = format!("service {name}");
        let option = format!("`listen` in [services.{name}]");
        match listen::bind(service.listen, &user, &option) {
            Ok(listener) => listeners.add(service.listen, listener),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if errors.is_empty() { Ok(listeners) } else { bail!(errors.join("\n")) }
}

impl Acceptor {
    /// Starts to accept connections.
    ///
    /// # Errors
    /// The socket cannot be registered with the runtime.
    pub fn start(
        listener: TcpListener,
        service: Arc<Service>,
        shared: Arc<Shared>,
        workers: Vec<mpsc::Sender<Job>>,
    ) -> io::Result<Acceptor> {
        let (sender, receiver) = watch::channel(service);
        let socket = listener.try_clone()?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let task = tokio::spawn(accept_all(listener, receiver, shared, workers)).abort_handle();
        Ok(Acceptor { service: sender, task, socket })
    }

    /// The listening socket.
    pub fn socket(&self) -> &TcpListener {
        &self.socket
    }

    /// Replaces the service for new sessions.
    pub fn change(&self, service: Arc<Service>) {
        self.service.send_replace(service);
    }
}

async fn accept_all(
    listener: tokio::net::TcpListener,
    service: watch::Receiver<Arc<Service>>,
    shared: Arc<Shared>,
    workers: Vec<mpsc::Sender<Job>>,
) {
    loop {
        let (stream, peer) = listen::accept(&listener, |error| {
            let service = service.borrow().name.clone();
            tracing::warn!(%service, %error, "cannot accept a connection");
        })
        .await;
        let Ok(stream) = stream.into_std() else { continue };
        let (ticket, exceeded) = match admit(&shared, peer.ip()).await {
            Ok(admitted) => admitted,
            Err(limit) => {
                refuse_at_once(stream, limit);
                continue;
            }
        };
        let worker = least_busy(shared.loads.iter().map(|load| load.load(Ordering::Relaxed)));
        let admitted = Admitted::new(&shared, worker, ticket, exceeded);
        let service = Arc::clone(&service.borrow());
        if workers[worker].send(Job::Client { stream, service, admitted }).await.is_err() {
            tracing::error!(worker, "a worker thread has ended, its clients are refused");
        }
    }
}

/// Admits a connection, with the limit that it exceeds if the connection has to be refused later.
///
/// # Errors
/// The limit, if the connection has to be refused at once.
async fn admit(shared: &Shared, address: IpAddr) -> Result<(Ticket, Option<Limit>), Limit> {
    for _ in 0..ADMISSION_TRIES {
        match shared.admission.decide(address, Instant::now()) {
            Decision::Admit(ticket) => return Ok((ticket, None)),
            Decision::Refuse(ticket, limit) => return Ok((ticket, Some(limit))),
            Decision::RefuseAtOnce(limit) => return Err(limit),
            Decision::TryAgain => tokio::time::sleep(ADMISSION_PAUSE).await,
        }
    }
    shared.stats.turned_away.fetch_add(1, Ordering::Relaxed);
    Err(Limit::All(shared.limits.sessions_max))
}

/// Refuses a client without waiting for its first packet. Both calls return at once: the buffer of a
/// new connection has space for the message. Bytes that have arrived are read first, because closing a
/// socket with unread bytes resets the connection.
fn refuse_at_once(mut stream: TcpStream, limit: Limit) {
    let _ = stream.read(&mut [0; 1024]);
    let _ = stream.write(&limit.refusal());
}

/// The worker for the next client: the one with the fewest clients, counted in groups.
///
/// A worker that is awake for one session handles the next event of another session without a wake-up,
/// and the wake-up is a large part of the cost of a small transaction. So a few sessions stay together
/// on one worker, and only whole groups are distributed.
pub fn least_busy(loads: impl Iterator<Item = usize>) -> usize {
    const GROUP: usize = 4;
    loads.enumerate().min_by_key(|(_, load)| load / GROUP).map_or(0, |(worker, _)| worker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_fill_the_workers_group_by_group() {
        let mut loads = [0; 3];
        let mut chosen = Vec::new();
        for _ in 0..16 {
            let worker = least_busy(loads.iter().copied());
            loads[worker] += 1;
            chosen.push(worker);
        }
        assert_eq!(chosen, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0, 0]);
        loads[1] = 1;
        assert_eq!(least_busy(loads.iter().copied()), 1);
    }
}

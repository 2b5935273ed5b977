//! Clients and sessions that arrive from the process that this one replaces.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pgsteer_core::names::ServiceName;
use pgsteer_wire::error::{ErrorFields, sqlstate};
use tokio::sync::{Semaphore, mpsc};

use super::Proxy;
use super::acceptor::least_busy;
use super::moved::{LoginsLeft, Moved};
use super::seat::Ending;
use super::service::Service;
use super::shared::{Admitted, Shared};
use super::worker_thread::Job;

/// The workers of a proxy, for clients and sessions that arrive.
#[derive(Clone, Debug)]
pub struct Arrivals {
    shared: Arc<Shared>,
    jobs: Vec<mpsc::Sender<Job>>,
    services: BTreeMap<ServiceName, Arc<Service>>,
    /// A permit for each arrival that no worker has started yet.
    starting: Arc<Semaphore>,
}

/// Arrivals that wait for their worker. New clients wait behind them.
const STARTING_MAX: u16 = 8;

impl Proxy {
    /// The workers, for clients and sessions that arrive from another process.
    pub fn arrivals(&self) -> Arrivals {
        let (jobs, services) = (self.jobs.clone(), self.services.clone());
        let starting = Arc::new(Semaphore::new(usize::from(STARTING_MAX)));
        Arrivals { shared: Arc::clone(&self.shared), jobs, services, starting }
    }
}

impl Arrivals {
    /// Passes `moved` to a worker, as soon as the workers have started most of those before it. Its client receives the reason if its service does not exist here.
    pub async fn take(&self, moved: Moved) {
        let Some(service) = self.services.get(moved.service()) else {
            refuse(moved);
            return;
        };
        let Ok(peer) = moved.client().peer_addr() else { return };
        let ticket = self.shared.admission.admit_moved(SocketAddr::ip(&peer));
        let loads = self.shared.loads.iter().map(|load| load.load(Ordering::Relaxed));
        let worker = least_busy(loads);
        let admitted = Admitted::new(&self.shared, worker, ticket, None);
        let service = Arc::clone(service);
        // The semaphore is never closed.
        let starting = Arc::clone(&self.starting).acquire_owned().await.ok();
        // A worker that has ended has ended the whole process.
        let _ = self.jobs[worker].send(Job::Arrival { moved, service, admitted, starting }).await;
    }

    /// All sessions of the other process have arrived, except those of `logins`, or the process is gone:
    /// gates that have opened since get sessions, and services with a limit get new ones.
    pub async fn complete(&self, logins: LoginsLeft) {
        // Each session has its permit then, and each client its position. The semaphore is never closed.
        let _all_started = self.starting.acquire_many(u32::from(STARTING_MAX)).await.ok();
        self.shared.barrier.limit(u64::MAX);
        self.reserve_only(logins);
    }

    /// Grants permits again in services with a limit, and keeps only the places of `logins` reserved.
    pub fn reserve_only(&self, mut logins: LoginsLeft) {
        self.shared.admission.reserve(&logins.connections);
        for (name, service) in &self.services {
            service.capacity.resume(logins.permits.remove(name).unwrap_or_default());
        }
    }

    /// How long logins may go on in the other process, by the configuration of this one.
    pub fn grace(&self) -> Duration {
        self.shared.limits.shutdown_grace
    }
}

/// Ends a session whose service was removed. A client that waits loses its connection, as with a port
/// on which nothing listens.
fn refuse(moved: Moved) {
    let Moved::Session(session) = moved else { return };
    if !session.flow.is_at_boundary() {
        return;
    }
    let fields = ErrorFields {
        sqlstate: sqlstate::ADMIN_SHUTDOWN,
        message: &Ending::ServiceRemoved.message(&session.member),
        detail: "",
        hint: "",
    };
    let mut client = session.client;
    let _ = client.write(&fields.to_fatal());
}

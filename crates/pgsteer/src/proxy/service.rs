//! A service as its sessions use it.

use std::rc::Rc;
use std::sync::Arc;

use pgsteer_core::names::ServiceName;
use pgsteer_core::settings::ServiceConfig;

use super::affinity::Affinity;
use super::capacity::Capacity;
use super::worker::Worker;
use crate::stats::ServiceStats;

/// One service with its configuration of the time when a session began.
#[derive(Debug)]
pub struct Service {
    /// The name.
    pub name: ServiceName,
    /// The configuration.
    pub config: ServiceConfig,
    /// The counters.
    pub stats: Arc<ServiceStats>,
    /// The limits of sessions and the queue for them. A reload keeps it.
    pub capacity: Arc<Capacity>,
    /// The preferred member of each client address. A reload keeps it.
    pub affinity: Arc<Affinity>,
}

/// The worker of a session and the service that its client uses.
#[derive(Clone, Debug)]
pub struct Context {
    /// The worker.
    pub worker: Rc<Worker>,
    /// The service.
    pub service: Arc<Service>,
}

#[cfg(test)]
impl Service {
    /// A service with limits and counters of its own, for a test.
    pub fn alone(name: ServiceName, config: ServiceConfig) -> Service {
        let stats = Arc::default();
        Service { name, config, stats, capacity: Arc::default(), affinity: Arc::default() }
    }
}

//! The counters of clients on hold, and of those that wait for a permit.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::service::Service;

/// A client on hold. It is counted until this is dropped.
#[derive(Debug)]
pub struct Held {
    service: Arc<Service>,
    since: Instant,
}

impl Held {
    /// Counts one more client, from now on.
    pub fn new(service: &Arc<Service>) -> Held {
        service.stats.held.fetch_add(1, Ordering::Relaxed);
        Held { service: Arc::clone(service), since: Instant::now() }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let stats = &self.service.stats;
        stats.held.fetch_sub(1, Ordering::Relaxed);
        let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        stats.held_ms_total.fetch_add(millis, Ordering::Relaxed);
    }
}

/// A client that waits for a permit. It is counted until this is dropped.
#[derive(Debug)]
pub struct Queued(Arc<Service>);

impl Queued {
    /// Counts one more client.
    pub fn new(service: &Arc<Service>) -> Queued {
        service.stats.queued.fetch_add(1, Ordering::Relaxed);
        Queued(Arc::clone(service))
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.stats.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

//! The counters of clients on hold, and of those that wait for a permit.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::service::Service;
use crate::stats::Ticket;

/// A client on hold. It is counted until this is dropped.
#[derive(Debug)]
pub struct Held {
    service: Arc<Service>,
    ticket: Ticket,
}

impl Held {
    /// Counts one more client, from now on.
    pub fn new(service: &Arc<Service>) -> Held {
        Held { service: Arc::clone(service), ticket: service.stats.holds.begin() }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.service.stats.holds.end(self.ticket);
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

//! The guard: nothing is sent to a write member while the engine's heartbeat is old.
//!
//! After the process was stopped (by a signal, a frozen cgroup or a paused virtual machine) the workers
//! and the engine continue in any order. A worker that continues first follows the Snapshot from before
//! the stop. It would dial the old primary or send it statements, although another member may have been
//! the primary for a long time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pgsteer_core::claim::Role;

use super::service::Service;
use super::worker::Worker;

/// The guard of one member; none for a service that does not write.
#[derive(Clone, Copy, Debug)]
pub struct Guard<'a>(Option<&'a Worker>);

/// A guard that is polled before every write.
pub struct PolledGuard<'a> {
    guard: Guard<'a>,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + 'a>>>,
}

impl<'a> Guard<'a> {
    /// A guard that permits all bytes.
    pub const NONE: Guard<'static> = Guard(None);

    /// The guard of the members of `service`.
    pub fn of(worker: &'a Worker, service: &Service) -> Guard<'a> {
        Guard((service.config.role == Role::Primary).then_some(worker))
    }

    /// Returns true if bytes may be sent to the member now.
    pub fn lets_pass(&self) -> bool {
        self.0.is_none_or(Worker::is_current)
    }

    /// Waits until bytes may be sent to the member. A caller with a seat has to wait for its end as well.
    pub async fn pass(self) {
        if let Some(worker) = self.0 {
            worker.current().await;
        }
    }
}

impl<'a> PolledGuard<'a> {
    /// Ready if bytes may be sent now. Otherwise the task is woken later.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let guard = self.guard;
        while !guard.lets_pass() {
            let waiting = self.waiting.get_or_insert_with(|| Box::pin(guard.pass()));
            ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
        }
        self.waiting = None;
        Poll::Ready(())
    }
}

impl<'a> From<Guard<'a>> for PolledGuard<'a> {
    fn from(guard: Guard<'a>) -> PolledGuard<'a> {
        PolledGuard { guard, waiting: None }
    }
}

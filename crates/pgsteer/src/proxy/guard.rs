//! The guard: nothing is sent to a write member while the engine's heartbeat is old.
//!
//! After the process was stopped (a signal, a frozen cgroup, a host that has no time for its guest)
//! the workers and the engine go on in any order. A worker that comes first follows the Snapshot
//! from before the stop, and would dial the old primary or send it statements, although another
//! member has been the primary for a long time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pgsteer_core::claim::Role;

use super::Service;
use super::worker::Worker;

/// What stands between a client and its member; nothing for a service that does not write.
#[derive(Clone, Copy, Debug)]
pub struct Guard<'a>(Option<&'a Worker>);

/// A guard that can be polled, before every write.
pub struct PolledGuard<'a> {
    guard: Guard<'a>,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + 'a>>>,
}

impl<'a> Guard<'a> {
    /// Lets all bytes pass.
    pub const NONE: Guard<'static> = Guard(None);

    /// The guard of the members of `service`.
    pub fn of(worker: &'a Worker, service: &Service) -> Guard<'a> {
        Guard((service.config.role == Role::Primary).then_some(worker))
    }

    /// Returns true if bytes may be sent to the member now.
    pub fn lets_pass(&self) -> bool {
        self.0.is_none_or(Worker::is_current)
    }

    /// Waits until bytes may be sent to the member. Also wait for the seat to be ended, where there
    /// is one.
    pub async fn pass(self) {
        if let Some(worker) = self.0 {
            worker.current().await;
        }
    }
}

impl<'a> PolledGuard<'a> {
    /// Ready if bytes may be sent now. Otherwise the task is woken when they may.
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

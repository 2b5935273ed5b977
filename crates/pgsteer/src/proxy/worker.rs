//! A worker: the state that the sessions of one thread share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pgsteer_core::gate::Gate;
use pgsteer_core::names::{MemberName, ServiceName};
use pgsteer_core::settings::ProxyConfig;
use pgsteer_core::snapshot::Snapshot;
use tokio::sync::Notify;

use super::barrier::Barrier;
use super::moved::Exit;
use super::seat::Registry;
use super::shared::{Phase, Shared};

/// The state that the sessions of one worker share.
#[derive(Debug)]
pub struct Worker {
    index: usize,
    shared: Arc<Shared>,
    /// The newest Snapshot that this worker has read. New sessions follow it.
    snapshot: RefCell<Arc<Snapshot>>,
    phase: Cell<Phase>,
    /// Where clients and sessions go in [`Phase::Leaving`].
    exit: RefCell<Option<Exit>>,
    registry: Rc<Registry>,
    /// The generation of the newest Snapshot that this worker has acted on.
    acted_on: Cell<u64>,
    /// How often the Snapshot or the phase has changed.
    changes: Cell<u64>,
    changed: Notify,
    rotation: Cell<usize>,
}

/// The point in time at which a task read the Snapshot and the phase. The task waits for a change
/// since then, so it misses no change that happens before it waits.
#[derive(Clone, Copy, Debug)]
pub struct Observed(u64);

impl Worker {
    /// Worker number `index`, with the newest Snapshot.
    pub fn new(index: usize, shared: Arc<Shared>) -> Worker {
        let snapshot = shared.snapshots.borrow().clone();
        Worker {
            index,
            shared,
            snapshot: RefCell::new(snapshot),
            phase: Cell::new(Phase::Serving),
            exit: RefCell::new(None),
            registry: Rc::new(Registry::default()),
            acted_on: Cell::new(0),
            changes: Cell::new(0),
            changed: Notify::new(),
            rotation: Cell::new(index),
        }
    }

    /// Makes new sessions follow `snapshot`.
    pub fn follow(&self, snapshot: Arc<Snapshot>) {
        *self.snapshot.borrow_mut() = snapshot;
    }

    /// Notes that this worker has acted on the Snapshot `generation`, and wakes the waiting tasks.
    pub fn acknowledge(&self, generation: u64) {
        self.acted_on.set(generation);
        self.shared.barrier.acknowledge(self.index, generation);
        self.note_change();
    }

    /// Enters another phase, and wakes the waiting tasks.
    pub fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.note_change();
    }

    /// Enters [`Phase::Leaving`]: clients and sessions go to `exit`.
    pub fn leave(&self, exit: Exit) {
        *self.exit.borrow_mut() = Some(exit);
        self.enter(Phase::Leaving);
    }

    /// Ends [`Phase::Leaving`], because the takeover has failed.
    pub fn stay(&self) {
        *self.exit.borrow_mut() = None;
        self.registry.stay();
        self.enter(Phase::Serving);
    }

    /// Notes how many established sessions have not left yet.
    pub fn note_leaving(&self, sessions: usize) {
        self.shared.leaving[self.index].store(sessions, Ordering::Release);
    }

    /// Where clients and sessions go; none unless they leave.
    pub fn exit(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    /// Waits for [`Phase::Leaving`].
    pub async fn leaving(&self) {
        self.until_leaving_is(true).await;
    }

    /// Waits for the end of [`Phase::Leaving`].
    pub async fn staying(&self) {
        self.until_leaving_is(false).await;
    }

    async fn until_leaving_is(&self, wanted: bool) {
        loop {
            let observed = self.observe();
            if (self.phase() == Phase::Leaving) == wanted {
                return;
            }
            self.changed_since(observed).await;
        }
    }

    /// The newest Snapshot that this worker has read. Other workers may not have acted on it yet
    /// ([`Worker::barrier`]).
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Returns true if the engine has run a moment ago, and this worker has acted on every Snapshot
    /// that the engine had published by then.
    pub fn is_current(&self) -> bool {
        self.shared.pulse.is_current(self.acted_on.get())
    }

    /// Waits until [`Worker::is_current`] returns true.
    pub async fn current(&self) {
        loop {
            let (observed, next_beat) = (self.observe(), self.shared.pulse.next_beat());
            if self.is_current() {
                return;
            }
            tokio::select! {
                () = next_beat => {}
                () = self.changed_since(observed) => {}
            }
        }
    }

    fn note_change(&self) {
        self.changes.set(self.changes.get() + 1);
        self.changed.notify_waiters();
    }

    /// Marks the present for [`Worker::changed_since`]. Call it before you read the Snapshot or the
    /// phase.
    pub fn observe(&self) -> Observed {
        Observed(self.changes.get())
    }

    /// Waits until the Snapshot or the phase has changed since `observed`.
    pub async fn changed_since(&self, observed: Observed) {
        while self.changes.get() == observed.0 {
            // On one thread no change can happen between the check and the wait.
            self.changed.notified().await;
        }
    }

    /// Waits until the gate of `member` is open.
    pub async fn gate_opened(&self, service: &ServiceName, member: &MemberName) {
        self.until_gate_is_open(service, member, true).await;
    }

    /// Waits until the gate of `member` is not open, or does not exist.
    pub async fn gate_shut(&self, service: &ServiceName, member: &MemberName) {
        self.until_gate_is_open(service, member, false).await;
    }

    async fn until_gate_is_open(&self, service: &ServiceName, member: &MemberName, open: bool) {
        loop {
            let observed = self.observe();
            let snapshot = self.snapshot();
            let gates = snapshot.services.get(service).map(|service| &service.gates);
            let is_open = gates.and_then(|gates| gates.get(member)).is_some_and(Gate::is_open);
            drop(snapshot);
            if is_open == open {
                return;
            }
            self.changed_since(observed).await;
        }
    }

    /// The phase.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// The seats of this worker.
    pub fn registry(&self) -> &Rc<Registry> {
        &self.registry
    }

    /// The barrier over all workers.
    pub fn barrier(&self) -> &Barrier {
        &self.shared.barrier
    }

    /// The limits of the proxy.
    pub fn limits(&self) -> &ProxyConfig {
        &self.shared.limits
    }

    /// The state that all workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// A number that grows with each call, for a rotation over equal members.
    pub fn next_rotation(&self) -> usize {
        self.rotation.replace(self.rotation.get().wrapping_add(1))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use tokio::sync::watch;

    use super::*;
    use crate::http::sample;

    #[tokio::test]
    async fn a_change_between_the_observation_and_the_wait_is_not_missed() {
        let (_publish, snapshots) = watch::channel(Arc::new(sample::calm()));
        let worker = Worker::new(0, Shared::of_workers(1, snapshots));
        let observed = worker.observe();
        worker.note_change();
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(worker.changed_since(observed)).poll(&mut context).is_ready());
        assert!(pin!(worker.changed_since(worker.observe())).poll(&mut context).is_pending());
    }
}

//! A worker: one thread with a runtime of its own. A session lives and dies on one worker.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use pgsteer_core::gate::Gate;
use pgsteer_core::names::{MemberName, ServiceName};
use pgsteer_core::settings::ProxyConfig;
use pgsteer_core::snapshot::Snapshot;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::LocalSet;

use super::barrier::Barrier;
use super::seat::{Ending, Place, Purpose, Registry};
use super::{Job, Phase, Shared, session};

/// What the sessions of one worker share.
#[derive(Debug)]
pub struct Worker {
    index: usize,
    shared: Arc<Shared>,
    /// The newest Snapshot that this worker has seen; new sessions follow it.
    snapshot: RefCell<Arc<Snapshot>>,
    phase: Cell<Phase>,
    registry: Rc<Registry>,
    /// The generation of the newest Snapshot that this worker has acted on.
    acted: Cell<u64>,
    /// How often the Snapshot or the phase has changed.
    changes: Cell<u64>,
    changed: Notify,
    turn: Cell<usize>,
}

/// When a task looked at the Snapshot and the phase. It waits for the change after its look, and
/// not for the next one: whatever the task did in between, no change is missed.
#[derive(Clone, Copy, Debug)]
pub struct Look(u64);

/// Runs a worker on the calling thread until its jobs end and its sessions are over.
pub fn run(index: usize, shared: Arc<Shared>, jobs: mpsc::Receiver<Job>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let worker = Rc::new(Worker::new(index, shared));
    let tasks = LocalSet::new();
    // A task of its own: as the future that the set is run for, it would be polled again at
    // every turn of every session.
    let work = tasks.spawn_local(async move { worker.work(jobs).await });
    let _ = tasks.block_on(&runtime, work);
    Ok(())
}

impl Worker {
    /// A worker that follows the newest Snapshot there is.
    pub fn new(index: usize, shared: Arc<Shared>) -> Worker {
        let snapshot = shared.snapshots.borrow().clone();
        Worker {
            index,
            shared,
            snapshot: RefCell::new(snapshot),
            phase: Cell::new(Phase::Serving),
            registry: Rc::new(Registry::default()),
            acted: Cell::new(0),
            changes: Cell::new(0),
            changed: Notify::new(),
            turn: Cell::new(index),
        }
    }

    async fn work(self: &Rc<Self>, mut jobs: mpsc::Receiver<Job>) {
        let mut snapshots = self.shared.snapshots.clone();
        // The newest one, whenever that was, has not been acted on yet.
        snapshots.mark_changed();
        loop {
            tokio::select! {
                biased;
                changed = snapshots.changed() => match changed {
                    Ok(()) => self.act_on(&mut snapshots).await,
                    Err(_) => break,
                },
                job = jobs.recv() => match job {
                    Some(job) => self.take(job).await,
                    None => break,
                },
            }
        }
    }

    /// Lets new sessions follow the Snapshot, and ends those that it wants ended.
    async fn act_on(&self, snapshots: &mut watch::Receiver<Arc<Snapshot>>) {
        let snapshot = snapshots.borrow_and_update().clone();
        // First of all: while sessions end others begin, and one that began by the old Snapshot
        // would have taken its seat behind the back of those that are told to end.
        *self.snapshot.borrow_mut() = Arc::clone(&snapshot);
        self.end_sessions(|place, purpose| lost(&snapshot, place, purpose)).await;
        self.acted.set(snapshot.generation);
        self.shared.barrier.acknowledge(self.index, snapshot.generation);
        self.note_change();
    }

    async fn end_sessions(&self, why: impl Fn(&Place, Purpose) -> Option<Ending>) {
        let mut told: BTreeMap<(ServiceName, MemberName, &'static str), usize> = BTreeMap::new();
        let count = self.registry.end(|place, purpose| {
            let ending = why(place, purpose)?;
            if purpose == Purpose::Session {
                let of_its_kind = (place.service.clone(), place.member.clone(), ending.code());
                *told.entry(of_its_kind).or_default() += 1;
            }
            Some(ending)
        });
        if count > 0 {
            self.registry.ended().await;
        }
        for ((service, member, reason), sessions) in told {
            tracing::info!(%service, %member, reason, sessions, "sessions ended");
        }
    }

    async fn take(self: &Rc<Self>, job: Job) {
        match job {
            Job::Client { stream, service, admitted } => {
                let Ok(stream) = TcpStream::from_std(stream) else { return };
                tokio::task::spawn_local(session::serve(
                    Rc::clone(self),
                    service,
                    stream,
                    admitted,
                ));
            }
            Job::Stop => {
                self.phase.set(Phase::Stopping);
                self.note_change();
            }
            Job::EndAll => self.end_sessions(|_, _| Some(Ending::Shutdown)).await,
        }
    }

    /// The newest Snapshot that this worker has seen. Whether all workers have acted on it the
    /// barrier tells.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Returns true if the engine ran a short while ago, and this worker has acted on all that it
    /// had published by then.
    pub fn is_current(&self) -> bool {
        self.shared.pulse.is_current(self.acted.get())
    }

    /// Waits until that is so.
    pub async fn current(&self) {
        loop {
            let (look, next_beat) = (self.look(), self.shared.pulse.next_beat());
            if self.is_current() {
                return;
            }
            tokio::select! {
                () = next_beat => {}
                () = self.changed_since(look) => {}
            }
        }
    }

    fn note_change(&self) {
        self.changes.set(self.changes.get() + 1);
        self.changed.notify_waiters();
    }

    /// A look at the Snapshot and the phase of now. Take it before you read them.
    pub fn look(&self) -> Look {
        Look(self.changes.get())
    }

    /// Waits until the Snapshot or the phase has changed since `look`.
    pub async fn changed_since(&self, look: Look) {
        while self.changes.get() == look.0 {
            // One thread: nothing can happen between the look and the wait.
            self.changed.notified().await;
        }
    }

    /// Waits until the gate of `member` is open.
    pub async fn opened(&self, service: &ServiceName, member: &MemberName) {
        self.until_gate_is_open(service, member, true).await;
    }

    /// Waits until the gate of `member` is not open, or does not exist, any more.
    pub async fn shut(&self, service: &ServiceName, member: &MemberName) {
        self.until_gate_is_open(service, member, false).await;
    }

    async fn until_gate_is_open(&self, service: &ServiceName, member: &MemberName, open: bool) {
        loop {
            let look = self.look();
            let snapshot = self.snapshot();
            let gates = snapshot.services.get(service).map(|service| &service.gates);
            let is_open = gates.and_then(|gates| gates.get(member)).is_some_and(Gate::is_open);
            drop(snapshot);
            if is_open == open {
                return;
            }
            self.changed_since(look).await;
        }
    }

    /// Whether pgsteer is shutting down.
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

    /// Limits and habits of the proxy.
    pub fn limits(&self) -> &ProxyConfig {
        &self.shared.limits
    }

    /// What all workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// A number that grows, to take turns by.
    pub fn next_turn(&self) -> usize {
        self.turn.replace(self.turn.get().wrapping_add(1))
    }
}

/// Why whoever is at `place` has to end, if so.
fn lost(snapshot: &Snapshot, place: &Place, purpose: Purpose) -> Option<Ending> {
    let Place { service, member, postgres } = place;
    let ends = match purpose {
        Purpose::EarlyLogin => snapshot.ends_early_login(service, member, postgres),
        Purpose::Session => snapshot.ends_session(service, member, postgres),
    };
    if !ends {
        return None;
    }
    let Some(service) = snapshot.services.get(&place.service) else {
        return Some(Ending::ServiceGone);
    };
    let reason = service.gates.get(&place.member).and_then(Gate::reason);
    Some(Ending::Gate(reason.cloned()))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use pgsteer_core::gate::Sessions;
    use pgsteer_core::reason::Reason;
    use pgsteer_core::time::Moment;

    use super::*;
    use crate::http::sample;
    use crate::stats::MemberStats;

    /// As a client that parks: what it saw is old by the time it begins to wait.
    #[tokio::test]
    async fn a_change_between_the_look_and_the_wait_is_not_missed() {
        let (_publish, snapshots) = watch::channel(Arc::new(sample::calm()));
        let worker = Worker::new(0, Shared::of_workers(1, snapshots));
        let look = worker.look();
        worker.note_change();
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(worker.changed_since(look)).poll(&mut context).is_ready());
        assert!(pin!(worker.changed_since(worker.look())).poll(&mut context).is_pending());
    }

    #[tokio::test]
    async fn who_comes_while_sessions_end_follows_the_snapshot_that_ends_them() {
        let open = Snapshot { generation: 43, ..sample::calm() };
        let mut shut = Snapshot { generation: 44, ..sample::calm() };
        let (service, gates) =
            shut.services.iter_mut().find(|(name, _)| name.as_str() == "write").unwrap();
        let (member, gate) = gates.gates.iter_mut().find(|(_, gate)| gate.is_open()).unwrap();
        *gate = Gate::Shut {
            reason: Reason::Left(None),
            since: Moment::START,
            sessions: Sessions::End,
        };
        let place = Place {
            service: service.clone(),
            member: member.clone(),
            postgres: shut.members[member].postgres.clone(),
        };
        let (publish, snapshots) = watch::channel(Arc::new(open));
        let worker = Rc::new(Worker::new(0, Shared::of_workers(1, snapshots)));
        let (_jobs, receiver) = mpsc::channel(1);
        let seat = worker.registry().take(place, Arc::new(MemberStats::default()));
        let session = async {
            worker.barrier().wait(43).await;
            publish.send_replace(Arc::new(shut));
            seat.ending().await;
            assert_eq!(worker.snapshot().generation, 44, "by which one begins now");
            assert!(!worker.barrier().is_passed(44), "while this one is still there");
            drop(seat);
            worker.barrier().wait(44).await;
        };
        tokio::select! {
            () = worker.work(receiver) => panic!("it has nothing to end for"),
            () = session => {}
        }
    }
}

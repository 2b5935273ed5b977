//! The thread of a worker: it starts sessions, and acts on each Snapshot.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::names::{MemberName, ServiceName};
use pgsteer_core::snapshot::Snapshot;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::listing::{SessionFilter, SessionInfo};
use super::moved::{Exit, Moved};
use super::seat::{Assignment, Ending, Purpose};
use super::service::{Context, Service};
use super::session;
use super::shared::{Admitted, Phase, Shared};
use super::worker::Worker;

/// How many sessions of a worker are on their way to another process at once.
const MOVING_MAX: usize = 8;

/// The longest interval at which further sessions are sent.
const MOVE_INTERVAL: Duration = Duration::from_millis(1);

/// A message to a worker.
#[derive(Debug)]
pub enum Job {
    /// Serve a client.
    Client {
        /// Its connection.
        stream: TcpStream,
        /// The service whose port it has connected to.
        service: Arc<Service>,
        /// Its entry in the counters.
        admitted: Admitted,
    },
    /// Serve a client or a session that arrives from another process.
    Arrival {
        /// The client or the session.
        moved: Moved,
        /// Its service.
        service: Arc<Service>,
        /// Its entry in the counters.
        admitted: Admitted,
        /// Dropped when the session has its permit, or the client its position.
        starting: Option<OwnedSemaphorePermit>,
    },
    /// Send waiting clients and established sessions to another process.
    Leave(Exit),
    /// Stop sending them there.
    Stay,
    /// Refuse clients on hold, and hold no further ones.
    Stop,
    /// End all sessions.
    EndAll,
    /// List sessions.
    List {
        /// Which.
        filter: SessionFilter,
        /// At most so many.
        max: usize,
        /// Receives them, and how many more there are.
        reply: oneshot::Sender<(Vec<SessionInfo>, usize)>,
    },
    /// End sessions by order of an operator.
    EndSelected {
        /// Which.
        filter: SessionFilter,
        /// The operator.
        by: Arc<str>,
        /// Receives how many were ended, after their connections to members are closed.
        reply: oneshot::Sender<usize>,
    },
}

/// Runs a worker on the calling thread until the channel of `jobs` is closed.
///
/// # Errors
/// The runtime cannot be started.
pub fn run(index: usize, shared: Arc<Shared>, jobs: mpsc::Receiver<Job>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let worker = Rc::new(Worker::new(index, shared));
    let tasks = LocalSet::new();
    // In a task of its own: `LocalSet::block_on` polls its future whenever any session has work.
    let working = tasks.spawn_local(async move { work(&worker, jobs).await });
    let _ = tasks.block_on(&runtime, working);
    Ok(())
}

async fn work(worker: &Rc<Worker>, mut jobs: mpsc::Receiver<Job>) {
    let mut snapshots = worker.shared().snapshots.clone();
    // The worker has not acted on the first Snapshot either.
    snapshots.mark_changed();
    loop {
        tokio::select! {
            biased;
            changed = snapshots.changed() => match changed {
                Ok(()) => act_on(worker, &mut snapshots).await,
                Err(_) => break,
            },
            job = jobs.recv() => match job {
                Some(job) => start(worker, job).await,
                None => break,
            },
        }
    }
}

/// Makes new sessions follow the newest Snapshot, and ends the sessions that it ends.
async fn act_on(worker: &Worker, snapshots: &mut watch::Receiver<Arc<Snapshot>>) {
    let snapshot = snapshots.borrow_and_update().clone();
    // Before the sessions end: a session that begins meanwhile must follow the new Snapshot. By the old
    // one it could take a seat at a member whose sessions have just been ended.
    worker.follow(Arc::clone(&snapshot));
    end_sessions(worker, |assignment, purpose| Ending::by(&snapshot, assignment, purpose)).await;
    worker.acknowledge(snapshot.generation);
}

async fn end_sessions(worker: &Worker, why: impl Fn(&Assignment, Purpose) -> Option<Ending>) {
    let mut ended: BTreeMap<(ServiceName, MemberName, &'static str), usize> = BTreeMap::new();
    let count = worker.registry().end(|assignment, purpose| {
        let ending = why(assignment, purpose)?;
        if purpose == Purpose::Session {
            let Assignment { service, member, .. } = assignment;
            *ended.entry((service.clone(), member.clone(), ending.code())).or_default() += 1;
        }
        Some(ending)
    });
    if count > 0 {
        worker.registry().ended().await;
    }
    for ((service, member, reason), sessions) in ended {
        tracing::info!(%service, %member, reason, sessions, "sessions ended");
    }
}

async fn start(worker: &Rc<Worker>, job: Job) {
    match job {
        Job::Client { stream, service, admitted } => {
            let Ok(stream) = tokio::net::TcpStream::from_std(stream) else { return };
            let context = Context { worker: Rc::clone(worker), service };
            tokio::task::spawn_local(session::serve(context, stream, admitted));
        }
        Job::Arrival { moved, service, admitted, starting } => {
            let context = Context { worker: Rc::clone(worker), service };
            tokio::task::spawn_local(async move {
                if let Err(error) = session::arrive(context, moved, admitted, starting).await {
                    tracing::warn!(%error, "a client of the former process is lost");
                }
            });
        }
        Job::Leave(exit) => {
            worker.leave(exit);
            let worker = Rc::clone(worker);
            tokio::task::spawn_local(async move { move_out(&worker).await });
        }
        Job::Stay => worker.stay(),
        Job::Stop => worker.enter(Phase::Stopping),
        Job::EndAll => end_sessions(worker, |_, _| Some(Ending::Shutdown)).await,
        // An operator who does not wait for the reply needs none.
        Job::List { filter, max, reply } => {
            let _ = reply.send(worker.registry().list(max, |session| filter.matches(session)));
        }
        Job::EndSelected { filter, by, reply } => {
            let ended = worker.registry().end_selected(&by, |session| filter.matches(session));
            worker.registry().ended().await;
            let _ = reply.send(ended);
        }
    }
}

/// Sends the established sessions of this worker to another process, those that are established later
/// too. They move a few at a time, so that each one stands still for a moment only.
async fn move_out(worker: &Worker) {
    while worker.phase() == Phase::Leaving {
        worker.note_leaving(worker.registry().move_out(MOVING_MAX));
        // A session that is established later is found by the timer.
        let _ = timeout(MOVE_INTERVAL, worker.registry().has_moved()).await;
    }
}

#[cfg(test)]
mod tests {
    use pgsteer_core::gate::{Gate, Sessions};
    use pgsteer_core::reason::Reason;
    use pgsteer_core::time::Moment;
    use pgsteer_core::verdict::Cause;

    use super::*;
    use crate::http::sample;
    use crate::stats::MemberStats;

    #[tokio::test]
    async fn a_client_that_connects_while_sessions_end_follows_the_snapshot_that_ends_them() {
        let open = Snapshot { generation: 43, ..sample::calm() };
        let mut shut = Snapshot { generation: 44, ..sample::calm() };
        let (service, gates) =
            shut.services.iter_mut().find(|(name, _)| name.as_str() == "write").unwrap();
        let (member, gate) = gates.gates.iter_mut().find(|(_, gate)| gate.is_open()).unwrap();
        *gate = Gate::Shut {
            cause: Cause::Member,
            reason: Reason::Left(None),
            since: Moment::START,
            sessions: Sessions::End,
        };
        let assignment = Assignment {
            service: service.clone(),
            member: member.clone(),
            postgres: shut.members[member].postgres.clone(),
        };
        let (publish, snapshots) = watch::channel(Arc::new(open));
        let worker = Rc::new(Worker::new(0, Shared::of_workers(1, snapshots)));
        let (_jobs, receiver) = mpsc::channel(1);
        let seat = worker.registry().take(assignment, Arc::new(MemberStats::default()));
        let session = async {
            worker.barrier().wait(43).await;
            publish.send_replace(Arc::new(shut));
            seat.ending().await;
            assert_eq!(worker.snapshot().generation, 44, "a new session follows this Snapshot");
            assert!(!worker.barrier().is_passed(44), "while the old session has its seat");
            drop(seat);
            worker.barrier().wait(44).await;
        };
        tokio::select! {
            () = work(&worker, receiver) => panic!("its channels are open"),
            () = session => {}
        }
    }
}

//! The roll call: an operator lists and ends the sessions of all workers.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::listing::{SessionFilter, SessionInfo};
use super::shared::Shared;
use super::worker_thread::Job;

/// The maximum number of sessions in one answer.
pub const SESSIONS_LISTED_MAX: usize = 20_000;

/// How long all workers together may take for their answers. A worker answers within milliseconds,
/// unless sessions are being ended there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The handle by which an operator sees and ends sessions. Workers end although it exists.
#[derive(Clone, Debug)]
pub struct RollCall {
    shared: Weak<Shared>,
    jobs: Vec<mpsc::WeakSender<Job>>,
}

impl RollCall {
    /// The handle of the workers with these channels.
    pub fn new(shared: &Arc<Shared>, jobs: &[mpsc::Sender<Job>]) -> RollCall {
        let jobs = jobs.iter().map(mpsc::Sender::downgrade).collect();
        RollCall { shared: Arc::downgrade(shared), jobs }
    }

    /// Waits until every worker has acted on the Snapshot `generation`. Returns false if that takes
    /// longer than `limit`.
    pub async fn acted_on(&self, generation: u64, limit: Duration) -> bool {
        let Some(shared) = self.shared.upgrade() else { return true };
        timeout(limit, shared.barrier.wait(generation)).await.is_ok()
    }

    /// Returns the sessions that `filter` selects, at most [`SESSIONS_LISTED_MAX`], and how many more there
    /// are. None if a worker does not answer.
    pub async fn list(&self, filter: &SessionFilter) -> Option<(Vec<SessionInfo>, usize)> {
        let job = |reply| Job::List { filter: filter.clone(), max: SESSIONS_LISTED_MAX, reply };
        let mut all = Vec::new();
        let mut omitted = 0;
        for (sessions, more) in self.ask(job).await? {
            let room = SESSIONS_LISTED_MAX - all.len();
            omitted += more + sessions.len().saturating_sub(room);
            all.extend(sessions.into_iter().take(room));
        }
        Some((all, omitted))
    }

    /// Ends the sessions that `filter` selects. Returns how many were ended; none if a worker does not
    /// answer.
    pub async fn end(&self, filter: &SessionFilter, by: &Arc<str>) -> Option<usize> {
        let job = |reply| Job::EndSelected { filter: filter.clone(), by: Arc::clone(by), reply };
        Some(self.ask(job).await?.into_iter().sum())
    }

    /// Sends a job to each worker, and returns all answers.
    async fn ask<T>(&self, job: impl Fn(oneshot::Sender<T>) -> Job) -> Option<Vec<T>> {
        let mut replies = Vec::new();
        let asked = async {
            for worker in &self.jobs {
                // A worker that has ended has no sessions.
                let Some(worker) = worker.upgrade() else { continue };
                let (reply, received) = oneshot::channel();
                if worker.send(job(reply)).await.is_ok() {
                    replies.push(received);
                }
            }
            let mut answers = Vec::new();
            for reply in replies {
                answers.push(reply.await.ok()?);
            }
            Some(answers)
        };
        timeout(ANSWER_TIMEOUT, asked).await.ok().flatten()
    }
}

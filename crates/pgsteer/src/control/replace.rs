//! Requests to replace the running process by a new one: the control socket sends them, and `run` carries
//! them out.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

/// The maximum number of requests that wait. All but the first are refused while an upgrade is under way.
const REQUESTS_MAX: usize = 4;

/// A request for a new process that takes over.
#[derive(Debug)]
pub struct UpgradeRequest {
    /// The program of the new process; none for the file of the running one.
    pub program: Option<PathBuf>,
    since: Instant,
    /// None if it was a signal.
    reply: Option<oneshot::Sender<Result<Upgraded, String>>>,
}

/// A new process has taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgraded {
    /// The process id of the new process.
    pub pid: u32,
    /// How many clients and sessions it has taken over.
    pub moved: usize,
    /// The time since the request.
    pub took: Duration,
}

impl UpgradeRequest {
    /// The request of a signal, which has no answer.
    pub fn of_signal() -> UpgradeRequest {
        UpgradeRequest { program: None, since: Instant::now(), reply: None }
    }

    /// Answers that the process `pid` has taken over `moved` clients and sessions.
    pub fn succeed(&mut self, pid: u32, moved: usize) {
        let took = self.since.elapsed();
        self.answer(Ok(Upgraded { pid, moved, took }));
    }

    /// Answers that this process goes on.
    pub fn fail(&mut self, why: &anyhow::Error) {
        self.answer(Err(format!("{why:#}")));
    }

    fn answer(&mut self, answer: Result<Upgraded, String>) {
        if let Some(reply) = self.reply.take() {
            // A client that has disconnected needs no answer.
            let _ = reply.send(answer);
        }
    }
}

/// The sending side.
#[derive(Clone, Debug)]
pub struct UpgradeRequests(mpsc::Sender<UpgradeRequest>);

impl UpgradeRequests {
    /// A channel for requests.
    pub fn channel() -> (UpgradeRequests, mpsc::Receiver<UpgradeRequest>) {
        let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
        (UpgradeRequests(sender), receiver)
    }

    /// Sends a request and waits for the result. None if the process stops meanwhile.
    pub async fn ask(&self, program: Option<PathBuf>) -> Option<Result<Upgraded, String>> {
        let (reply, received) = oneshot::channel();
        let request = UpgradeRequest { program, since: Instant::now(), reply: Some(reply) };
        self.0.send(request).await.ok()?;
        received.await.ok()
    }
}

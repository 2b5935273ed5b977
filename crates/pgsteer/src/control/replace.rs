//! Requests to replace the running process by a new one: the control socket sends them, and `run` carries
//! them out.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// A request for a new process that takes over.
#[derive(Debug)]
pub struct UpgradeRequest {
    /// The program of the new process; none for the file of the running one.
    pub program: Option<PathBuf>,
    since: Instant,
    /// None if it was a signal.
    reply: Option<oneshot::Sender<UpgradeResult>>,
}

/// The result of a request: the new process, or why the running one goes on.
pub type UpgradeResult = Result<Upgraded, String>;

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
    /// A request whose result goes to `reply`; none if it was a signal.
    pub fn new(
        program: Option<PathBuf>,
        reply: Option<oneshot::Sender<UpgradeResult>>,
    ) -> UpgradeRequest {
        UpgradeRequest { program, since: Instant::now(), reply }
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

    fn answer(&mut self, answer: UpgradeResult) {
        if let Some(reply) = self.reply.take() {
            // A client that has disconnected needs no answer.
            let _ = reply.send(answer);
        }
    }
}

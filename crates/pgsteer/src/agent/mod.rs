//! The agent: answers HAProxy's agent-checks from memory, on a thread of its own.
//!
//! A thread of its own, because a check must be answered within a millisecond whatever the
//! engine, the pages and the proxy have to do, and because a crowd that comes to this port shall
//! cost nobody else anything. What is said, [`pgsteer_core::agent`] decides.

mod connections;
#[cfg(test)]
mod tests;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use pgsteer_core::agent::{self, Unclear};
use pgsteer_core::config::AgentConfig;
use pgsteer_core::probe::Objection;
use pgsteer_core::snapshot::Snapshot;
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::clock::Clock;
use crate::heartbeat::Heartbeat;
use crate::listen;

/// All that the answers are made of.
#[derive(Debug)]
pub struct Desk {
    /// What is wanted; another one after a reload.
    pub config: watch::Receiver<AgentConfig>,
    /// The newest Snapshot.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// The clock of the heartbeat.
    pub clock: Clock,
    /// Whether the engine is alive.
    pub heartbeat: Arc<Heartbeat>,
}

/// The running agent. It ends with the process.
#[derive(Debug)]
pub struct Agent {
    config: watch::Sender<AgentConfig>,
    thread: JoinHandle<anyhow::Result<()>>,
}

/// Binds the agent's port, early, so that one that is taken ends the start and not the run.
///
/// # Errors
/// The address cannot be had.
pub fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    listen::bind(listen).map_err(|error| {
        let remedy = listen::remedy(&error, listen);
        anyhow!("the agent cannot listen on {listen}: {error}{remedy}")
    })
}

impl Agent {
    /// Starts to answer at a socket of [`bind`].
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start(
        listener: TcpListener,
        config: AgentConfig,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        clock: Clock,
        heartbeat: Arc<Heartbeat>,
    ) -> anyhow::Result<Agent> {
        let (config, wanted) = watch::channel(config);
        let desk = Desk { config: wanted, snapshot, clock, heartbeat };
        let thread = std::thread::Builder::new()
            .name("pgsteer-agent".to_owned())
            .spawn(move || run(listener, desk))
            .context("cannot start the thread of the agent")?;
        Ok(Agent { config, thread })
    }

    /// Goes on with other words. Where it listens does not change.
    pub fn change(&self, config: AgentConfig) {
        self.config.send_replace(config);
    }

    /// It has ended although nobody told it to.
    pub fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }
}

/// How long the first client is kept waiting while nothing is known yet. HAProxy takes a check that
/// is not answered for no news; a no would end the sessions of a server that has nothing wrong
/// with it but that pgsteer was restarted.
const FIRST_WORD: Duration = Duration::from_secs(2);

fn run(listener: TcpListener, mut desk: Desk) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let settled = desk.snapshot.wait_for(|snapshot| snapshot.is_settled());
        let _ = tokio::time::timeout(FIRST_WORD, settled).await;
        connections::serve_all(listener, desk).await;
        Ok(())
    })
}

impl Desk {
    /// The answer to what a client has said: a line, or nothing. What is behind the line counts for
    /// nothing.
    fn answer_to(&self, said: &[u8]) -> String {
        let line = said.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let text = String::from_utf8_lossy(line);
        self.answer(Ok((!text.is_empty()).then_some(&*text)))
    }

    /// The answer to what is no line.
    fn refuse(&self, unclear: &Unclear) -> String {
        self.answer(Err(unclear))
    }

    fn answer(&self, line: Result<Option<&str>, &Unclear>) -> String {
        let config = self.config.borrow();
        // What nobody keeps up to date lets nobody in.
        if self.heartbeat.age(self.clock.now()) >= Heartbeat::STUCK_AFTER {
            return agent::refusal(&config, &Objection::Stuck);
        }
        match line {
            Ok(line) => agent::answer(&config, &self.snapshot.borrow(), line),
            Err(unclear) => agent::refusal(&config, unclear),
        }
    }
}

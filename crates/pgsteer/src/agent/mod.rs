//! The agent: answers HAProxy's agent-checks from memory, on threads of its own.
//!
//! Threads of its own, because a check must be answered within a millisecond whatever the
//! engine, the pages and the proxy have to do, and because a crowd that comes to this port shall
//! cost nobody else anything. Two of them: one is the door, which waits for nobody, and one waits
//! for those who are slow. What is said, [`pgsteer_core::agent`] decides.

mod client;
mod door;
mod room;
#[cfg(test)]
mod tests;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow};
use pgsteer_core::agent;
use pgsteer_core::answer::Objection;
use pgsteer_core::config::AgentConfig;
use pgsteer_core::question::Unclear;
use pgsteer_core::snapshot::Snapshot;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use self::client::Senders;
use self::door::Door;
use crate::clock::Clock;
use crate::heartbeat::Heartbeat;
use crate::listen;

/// All that the answers are made of.
#[derive(Clone, Debug)]
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

/// The running agent. Dropping it ends it, and frees its port a moment later.
#[derive(Debug)]
pub struct Agent {
    /// While this is open the door stays so.
    _stay: UnixStream,
    config: watch::Sender<AgentConfig>,
    door: JoinHandle<()>,
    waiting_room: JoinHandle<()>,
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
        listener.set_nonblocking(true).context("cannot wait for the agent's clients")?;
        let (room, words) = mpsc::channel(room::WORDS_MAX);
        let senders = Arc::<Senders>::default();
        let (of_room, known) = (desk.clone(), Arc::clone(&senders));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start the waiting room of the agent")?;
        let waiting_room = thread("pgsteer-agent-w", move || {
            LocalSet::new().block_on(&runtime, room::serve_all(words, of_room, known));
        })?;
        let (stay, leave) = UnixStream::pair().context("cannot make a pair of sockets")?;
        let door = Door { listener, leave, desk, senders, room };
        let door = thread("pgsteer-agent", move || door.keep())?;
        Ok(Agent { _stay: stay, config, door, waiting_room })
    }

    /// Where it listens.
    pub fn listen(&self) -> SocketAddr {
        self.config.borrow().listen
    }

    /// Goes on with other words. Where it listens does not change.
    pub fn change(&self, config: AgentConfig) {
        self.config.send_replace(config);
    }

    /// It has ended although nobody told it to.
    pub fn has_failed(&self) -> bool {
        self.door.is_finished() || self.waiting_room.is_finished()
    }
}

fn thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<JoinHandle<T>> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(work).context("cannot start a thread of the agent")
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
        // Nobody who publishes one waits for an answer to be written.
        let snapshot = Arc::clone(&self.snapshot.borrow());
        match line {
            // The connection is closed without an answer, which changes nothing for HAProxy.
            Ok(_) if snapshot.is_blind() => String::new(),
            Ok(line) => agent::answer(&config, &snapshot, line),
            Err(unclear) => agent::refusal(&config, unclear),
        }
    }
}

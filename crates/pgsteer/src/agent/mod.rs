//! The agent: answers HAProxy's agent-checks from the newest Snapshot, on two threads of its own.
//!
//! A check has to be answered within a millisecond, regardless of the load of the engine, the pages
//! and the proxy.
//! A flood of connections to this port must not delay the engine or the sessions. The acceptor's
//! thread answers clients that send their line at once and never waits for a slow client. The second
//! thread waits for the slow clients. [`pgsteer_core::agent`] decides what an answer contains.

mod acceptor;
mod client;
mod slow_clients;
#[cfg(test)]
mod tests;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context as _;
use pgsteer_core::agent::{self, Served};
use pgsteer_core::answer::Objection;
use pgsteer_core::question::Unclear;
use pgsteer_core::settings::AgentConfig;
use pgsteer_core::snapshot::Snapshot;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use self::acceptor::Acceptor;
use self::client::Senders;
use crate::clock::Clock;
use crate::heartbeat::Heartbeat;
use crate::listen::{self, ListenError};

/// All inputs of an answer.
#[derive(Clone, Debug)]
pub struct AgentState {
    /// The configuration; a reload replaces it.
    pub config: watch::Receiver<AgentConfig>,
    /// The newest Snapshot.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// The clock of the heartbeat.
    pub clock: Clock,
    /// The time of the engine's last turn.
    pub heartbeat: Arc<Heartbeat>,
    /// The lines that were last answered with `up`.
    pub served: Arc<Mutex<Served>>,
}

/// The running agent. Dropping it stops it; its port is free a moment later.
#[derive(Debug)]
pub struct Agent {
    /// The acceptor stops when this is closed.
    _stop: UnixStream,
    config: watch::Sender<AgentConfig>,
    /// The listening socket, for a process that takes over.
    socket: TcpListener,
    acceptor: JoinHandle<()>,
    slow_clients: JoinHandle<()>,
}

/// Binds the agent's port.
///
/// # Errors
/// The address cannot be bound.
pub fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    listen::bind(address, "the agent", "--agent or `listen` in [agent]")
}

impl Agent {
    /// Starts to answer on a socket of [`bind`].
    ///
    /// # Errors
    /// A thread or a runtime cannot be started.
    pub fn start(
        listener: TcpListener,
        config: AgentConfig,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        clock: Clock,
        heartbeat: Arc<Heartbeat>,
    ) -> anyhow::Result<Agent> {
        let (config, current) = watch::channel(config);
        let state =
            AgentState { config: current, snapshot, clock, heartbeat, served: Arc::default() };
        let socket = listener.try_clone().context("cannot copy the agent's socket")?;
        listener.set_nonblocking(true).context("cannot make the agent's socket non-blocking")?;
        let (handovers, received) = mpsc::channel(slow_clients::HANDOVERS_MAX);
        let senders = Arc::<Senders>::default();
        let (slow_state, slow_senders) = (state.clone(), Arc::clone(&senders));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start the agent's runtime for slow clients")?;
        let slow_clients = thread("pgsteer-agent-w", move || {
            let serving = slow_clients::serve_all(received, slow_state, slow_senders);
            LocalSet::new().block_on(&runtime, serving);
        })?;
        let (stop, stopped) = UnixStream::pair().context("cannot create a pair of sockets")?;
        let acceptor = Acceptor { listener, stopped, state, senders, handovers };
        let acceptor = thread("pgsteer-agent", move || acceptor.run())?;
        Ok(Agent { _stop: stop, config, socket, acceptor, slow_clients })
    }

    /// The listening socket.
    pub fn socket(&self) -> &TcpListener {
        &self.socket
    }

    /// The address of the agent's port.
    pub fn listen(&self) -> SocketAddr {
        self.config.borrow().listen
    }

    /// Replaces the configuration. The address of the port does not change.
    pub fn change(&self, config: AgentConfig) {
        self.config.send_replace(config);
    }

    /// Returns true if a thread has ended although the agent was not stopped.
    pub fn has_failed(&self) -> bool {
        self.acceptor.is_finished() || self.slow_clients.is_finished()
    }
}

fn thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<JoinHandle<T>> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(work).with_context(|| format!("cannot start the agent's thread {name}"))
}

impl AgentState {
    /// The answer to the bytes that a client has sent: a line, or nothing. Bytes behind the first
    /// line are ignored.
    fn answer_to(&self, received: &[u8]) -> String {
        let line = received.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let text = String::from_utf8_lossy(line);
        self.answer(Ok((!text.is_empty()).then_some(&*text)))
    }

    /// The answer to bytes that are not a whole line.
    fn refuse(&self, unclear: &Unclear) -> String {
        self.answer(Err(unclear))
    }

    fn answer(&self, line: Result<Option<&str>, &Unclear>) -> String {
        let config = self.config.borrow();
        // The Snapshot is out of date while the engine is stuck.
        if self.heartbeat.age(self.clock.now()) >= Heartbeat::STUCK_AFTER {
            return agent::refusal(&config, &Objection::Stuck);
        }
        // The lock is released before the answer is written, so that the engine can publish.
        let snapshot = Arc::clone(&self.snapshot.borrow());
        match line {
            Ok(line) => {
                let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
                agent::answer(&config, &snapshot, line, &mut served, self.clock.now())
            }
            Err(unclear) => agent::refusal(&config, unclear),
        }
    }
}

//! Signals: what an operator asks of a running pgsteer.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What is asked.
pub enum Order {
    /// Read the configuration again: SIGHUP.
    Reload,
    /// Stop: SIGTERM or SIGINT.
    Stop,
}

/// The signals that pgsteer listens for.
pub struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on; until then the system's defaults hold.
    ///
    /// # Errors
    /// The system does not let it.
    pub fn listen() -> anyhow::Result<Signals> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Signals {
            hangup: listen(SignalKind::hangup())?,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next order.
    pub async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.hangup.recv() => Order::Reload,
            _ = self.terminate.recv() => Order::Stop,
            _ = self.interrupt.recv() => Order::Stop,
        }
    }

    /// Waits until somebody asks to stop, reloads being over.
    pub async fn stop_again(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

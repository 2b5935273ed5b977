//! Signals: an operator's orders to a running pgsteer.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

/// An order.
pub enum Order {
    /// Read the configuration again: SIGHUP.
    Reload,
    /// Stop: SIGTERM or SIGINT.
    Stop,
}

/// The signals that pgsteer handles.
pub struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    /// Signals with a meaning for HAProxy and PgBouncer. Without a handler they would end the
    /// process.
    users: [Signal; 2],
}

impl Signals {
    /// Installs the handlers. Until then the system's default actions apply.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn listen() -> anyhow::Result<Signals> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Signals {
            hangup: listen(SignalKind::hangup())?,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            users: [listen(SignalKind::user_defined1())?, listen(SignalKind::user_defined2())?],
        })
    }

    /// Waits for the next order.
    pub async fn next(&mut self) -> Order {
        let [first, second] = &mut self.users;
        loop {
            tokio::select! {
                _ = self.hangup.recv() => return Order::Reload,
                _ = self.terminate.recv() => return Order::Stop,
                _ = self.interrupt.recv() => return Order::Stop,
                _ = first.recv() => tell_unknown("SIGUSR1"),
                _ = second.recv() => tell_unknown("SIGUSR2"),
            }
        }
    }

    /// Waits for an order to stop. Reloads are ignored by now.
    pub async fn stop_again(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn tell_unknown(signal: &str) {
    warn!("{signal} means nothing here: SIGHUP reloads the configuration, SIGTERM stops");
}

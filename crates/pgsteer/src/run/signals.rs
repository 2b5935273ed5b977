//! Orders to the running process: signals, and the requests for an upgrade of the control socket.

use std::future::poll_fn;
use std::task::Poll;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::warn;

use crate::control::{Calls, UpgradeRequest};

/// An order.
pub enum Order {
    /// Read the configuration again: SIGHUP.
    Reload,
    /// Start a new process that takes over: SIGUSR2, or the control socket.
    Upgrade(UpgradeRequest),
    /// Stop: SIGTERM or SIGINT.
    Stop,
}

/// The signals that pgsteer handles.
pub struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    upgrade: Signal,
    /// A signal with a meaning for HAProxy and PgBouncer. Without a handler it would end the process.
    user: Signal,
    requests: mpsc::Receiver<UpgradeRequest>,
    sender: Calls<UpgradeRequest>,
}

impl Signals {
    /// Installs the handlers. Until then the system's default actions apply.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn listen() -> anyhow::Result<Signals> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let (sender, requests) = Calls::channel();
        Ok(Signals {
            hangup: listen(SignalKind::hangup())?,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            upgrade: listen(SignalKind::user_defined2())?,
            user: listen(SignalKind::user_defined1())?,
            requests,
            sender,
        })
    }

    /// Where the control socket sends its requests.
    pub fn upgrades(&self) -> Calls<UpgradeRequest> {
        self.sender.clone()
    }

    /// Waits for the next order.
    pub async fn next(&mut self) -> Order {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => return Order::Reload,
                _ = self.terminate.recv() => return Order::Stop,
                _ = self.interrupt.recv() => return Order::Stop,
                _ = self.upgrade.recv() => {
                    return Order::Upgrade(UpgradeRequest::new(None, None));
                }
                Some(request) = self.requests.recv() => return Order::Upgrade(request),
                _ = self.user.recv() => warn!(
                    "SIGUSR1 means nothing here: SIGHUP reloads the configuration, SIGUSR2 starts a new \
                     process that takes over, SIGTERM stops"
                ),
            }
        }
    }

    /// Waits for an order to stop or to reload.
    pub async fn stop_or_reload(&mut self) -> Order {
        tokio::select! {
            _ = self.hangup.recv() => Order::Reload,
            _ = self.terminate.recv() => Order::Stop,
            _ = self.interrupt.recv() => Order::Stop,
        }
    }

    /// Returns true if an order to reload has arrived that no other call has returned.
    pub async fn has_reload(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(self.hangup.poll_recv(cx).is_ready())).await
    }

    /// Waits for an order to stop. Reloads are ignored by now.
    pub async fn stop_again(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

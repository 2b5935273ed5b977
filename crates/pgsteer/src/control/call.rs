//! Calls to another part of this process: the control socket sends them. The conductor answers those to the
//! engine.

use pgsteer_core::explain::Explanation;
use pgsteer_core::names::ServiceName;
use pgsteer_core::orders::{DrainOrder, OperatorOrder, OrderError};
use tokio::sync::{mpsc, oneshot};

/// The maximum number of calls that wait.
const CALLS_MAX: usize = 16;

/// A call to the engine.
#[derive(Debug)]
pub enum Call {
    /// Apply an order.
    Order {
        /// The order.
        order: OperatorOrder,
        /// Receives the result, after the Snapshot is published.
        reply: oneshot::Sender<Result<Accepted, OrderError>>,
    },
    /// Replace all orders by those that another process has stored.
    Restore {
        /// The orders.
        orders: Vec<DrainOrder>,
        /// Notified when that is done.
        reply: oneshot::Sender<()>,
    },
    /// Explain the gates of a service.
    Explain {
        /// The service.
        service: ServiceName,
        /// Receives the explanation; none if there is no such service.
        reply: oneshot::Sender<Option<Explanation>>,
    },
}

/// An order that the engine has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The generation of the Snapshot in which it is in force.
    pub generation: u64,
}

/// The sending side of calls to another part of this process.
#[derive(Debug)]
pub struct Calls<C>(mpsc::Sender<C>);

impl<C> Clone for Calls<C> {
    fn clone(&self) -> Calls<C> {
        Calls(self.0.clone())
    }
}

impl<C> Calls<C> {
    /// A channel to the other part.
    pub fn channel() -> (Calls<C>, mpsc::Receiver<C>) {
        let (sender, receiver) = mpsc::channel(CALLS_MAX);
        (Calls(sender), receiver)
    }

    /// Sends a call, and waits for its result. None if the other part does not run any more.
    pub async fn ask<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> C) -> Option<T> {
        let (reply, received) = oneshot::channel();
        self.0.send(call(reply)).await.ok()?;
        received.await.ok()
    }
}

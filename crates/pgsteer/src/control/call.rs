//! Calls to the engine: the control socket sends them, and the conductor answers.

use pgsteer_core::explain::Explanation;
use pgsteer_core::names::ServiceName;
use pgsteer_core::orders::{DrainOrder, OperatorOrder, OrderError};
use tokio::sync::{mpsc, oneshot};

/// The maximum number of calls that wait for the engine.
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

/// The sending side of calls.
#[derive(Clone, Debug)]
pub struct Calls(mpsc::Sender<Call>);

impl Calls {
    /// A channel to the engine.
    pub fn channel() -> (Calls, mpsc::Receiver<Call>) {
        let (sender, receiver) = mpsc::channel(CALLS_MAX);
        (Calls(sender), receiver)
    }

    /// Sends a call, and waits for its result. None if the engine does not run any more.
    pub async fn ask<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> Option<T> {
        let (reply, received) = oneshot::channel();
        self.0.send(call(reply)).await.ok()?;
        received.await.ok()
    }
}

//! The orders of operators at the start: the control socket and the stored orders.

use std::time::SystemTime;

use pgsteer_core::orders::DrainOrder;
use pgsteer_core::settings::{Config, ControlConfig};

use super::conductor::{Conductor, Published};
use super::predecessor::Predecessor;
use crate::clock::Clock;
use crate::control::{
    Call, Calls, Control, ControlSocket, Desk, OrderStore, UpgradeRequest, parse_orders,
};
use crate::log::limit::DECISIONS;
use crate::proxy::Proxy;

/// The control socket before it accepts requests.
pub struct Orders {
    /// None while the process from which this one takes over listens on it.
    socket: Option<ControlSocket>,
    config: ControlConfig,
    store: Option<OrderStore>,
    calls: Calls<Call>,
}

impl Orders {
    /// Listens on the control socket and takes over the orders of `predecessor`, else the stored ones, before
    /// the first gate opens. None if there is no socket: then no request could withdraw an order.
    pub fn open(
        config: &Config,
        conductor: &mut Conductor,
        clock: Clock,
        predecessor: Option<&Predecessor>,
    ) -> Option<Orders> {
        let control = config.control.as_ref()?;
        let socket = match predecessor {
            None => Some(ControlSocket::open(control)?),
            Some(_) => None,
        };
        // An order that the predecessor accepts after this time is in the file.
        let known_at = predecessor.map_or_else(SystemTime::now, |it| it.sent_at);
        let mut store = OrderStore::of(&config.cluster, control);
        let stored = || store.as_ref().map(|store| store.read(&clock)).unwrap_or_default();
        let orders = inherited(predecessor, clock).unwrap_or_else(stored);
        if let Some(store) = &mut store {
            store.note_read(known_at);
        }
        for order in &orders {
            tracing::warn!(target: DECISIONS, "order of an earlier run: {} is {order}", order.target);
        }
        let (calls, received) = Calls::channel();
        conductor.take_orders(orders, received);
        Some(Orders { socket, config: control.clone(), store, calls })
    }

    /// Accepts requests from now on.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        self,
        proxy: Option<&Proxy>,
        published: &Published,
        clock: Clock,
        upgrades: Calls<UpgradeRequest>,
    ) -> anyhow::Result<Control> {
        let snapshots = published.snapshots.clone();
        let sessions = proxy.map(Proxy::roll_call);
        let desk = Desk::new(self.calls, upgrades, snapshots, clock, sessions, self.store);
        Control::start(self.socket, self.config, desk)
    }
}

/// The orders of the process from which this one takes over; none without one, or from an older version.
fn inherited(predecessor: Option<&Predecessor>, clock: Clock) -> Option<Vec<DrainOrder>> {
    match parse_orders(predecessor?.orders.as_ref()?.as_bytes(), &clock) {
        Ok(orders) => Some(orders),
        Err(error) => {
            tracing::warn!(
                "the orders of the running process are not used, but the stored ones: {error:#}"
            );
            None
        }
    }
}

//! The orders of operators at the start: the control socket and the stored orders.

use pgsteer_core::settings::{Config, ControlConfig};

use super::conductor::{Conductor, Published};
use crate::clock::Clock;
use crate::control::{Call, Calls, Control, ControlSocket, Desk, OrderStore, UpgradeRequest};
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
    /// Listens on the control socket and takes over the stored orders, before the first gate opens. None
    /// if there is no socket: then no request could withdraw an order.
    pub fn open(
        config: &Config,
        conductor: &mut Conductor,
        clock: Clock,
        is_successor: bool,
    ) -> Option<Orders> {
        let control = config.control.as_ref()?;
        let socket = if is_successor { None } else { Some(ControlSocket::open(control)?) };
        let store = OrderStore::of(&config.cluster, control);
        let stored = store.as_ref().map(|store| store.read(&clock)).unwrap_or_default();
        for order in &stored {
            tracing::warn!(target: DECISIONS, "order of an earlier run: {} is {order}", order.target);
        }
        let (calls, received) = Calls::channel();
        conductor.take_orders(stored, received);
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

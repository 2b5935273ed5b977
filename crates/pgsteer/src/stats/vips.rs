//! The addresses that follow a service, as the pages show them.

use std::sync::{Arc, PoisonError, RwLock};

use pgsteer_core::names::{ServiceName, VipName};
use pgsteer_core::time::Moment;

/// The state of all addresses of this machine.
#[derive(Debug, Default)]
pub struct Vips(RwLock<Arc<Vec<Vip>>>);

impl Vips {
    /// The newest state.
    pub fn all(&self) -> Arc<Vec<Vip>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the state.
    pub fn set(&self, vips: Vec<Vip>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(vips);
    }
}

/// The state of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// The name of its section.
    pub name: VipName,
    /// The address with its prefix, as `10.0.0.50/24`.
    pub address: String,
    /// The interface that gets it.
    pub interface: String,
    /// The service that it follows.
    pub service: ServiceName,
    /// Whether this machine has it.
    pub holding: Holding,
    /// Since when.
    pub since: Moment,
    /// Why.
    pub why: String,
    /// What keeps pgsteer from doing what the state requires.
    pub trouble: Option<String>,
    /// The hardware address of another machine that answers for the address.
    pub duplicate: Option<String>,
    /// The last announcement.
    pub announced_at: Option<Moment>,
    /// How often it was added since the start.
    pub added_total: u64,
    /// How often it was removed since the start.
    pub removed_total: u64,
}

/// Whether this machine has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// It has the address, and the service routes to the local member.
    Held,
    /// It has the address, and nothing confirms yet that it should.
    Unconfirmed,
    /// It does not have the address.
    Released,
}

impl Holding {
    /// Every state.
    pub const ALL: [Holding; 3] = [Holding::Held, Holding::Unconfirmed, Holding::Released];

    /// The name in status and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Holding::Held => "held",
            Holding::Unconfirmed => "unconfirmed",
            Holding::Released => "released",
        }
    }
}

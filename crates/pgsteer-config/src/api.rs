//! The HTTP APIs whose addresses are configured.

use crate::limits::{ETCD_PORT, HTTP_LISTEN, PATRONI_PORT};

/// The kind of server at a base address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// Patroni's REST API.
    Patroni,
    /// The v3 API of etcd.
    Etcd,
    /// The pages of a pgsteer.
    Pgsteer,
}

impl Api {
    /// The default port, for addresses without one.
    pub(crate) fn port(self) -> u16 {
        match self {
            Api::Patroni => PATRONI_PORT,
            Api::Etcd => ETCD_PORT,
            Api::Pgsteer => HTTP_LISTEN.port(),
        }
    }

    /// An example of an address.
    pub(crate) fn example(self) -> &'static str {
        match self {
            Api::Patroni => "http://10.0.0.11:8008",
            Api::Etcd => "http://10.0.0.11:2379",
            Api::Pgsteer => "http://10.0.0.21:7000",
        }
    }

    /// The name of the program that chooses the paths, for the error about a path in an address.
    pub(crate) fn owner(self) -> &'static str {
        match self {
            Api::Patroni => "Patroni",
            Api::Etcd => "etcd",
            Api::Pgsteer => "pgsteer",
        }
    }
}

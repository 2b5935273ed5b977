//! The defaults of the settings, and the limits that the decision needs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::claim::Role;

/// The most members that a cluster may have, listed or found, and the most addresses of Patroni
/// and of etcd.
pub const MEMBERS_MAX: usize = 64;
/// The listen address of a service that is judged and does not listen.
pub const NOWHERE: SocketAddr = everywhere(0);
/// The time that one member has to accept a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The time that PostgreSQL has for one answer to the tether.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// The hold of a service without `hold_seconds`. Clients that write wait until the failover ends;
/// clients that read mostly find another replica.
pub const fn hold(role: Role) -> Duration {
    match role {
        Role::Replica => Duration::from_secs(10),
        Role::Primary | Role::StandbyLeader | Role::Unknown => Duration::from_secs(30),
    }
}

/// All IPv4 addresses of this machine.
pub const fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

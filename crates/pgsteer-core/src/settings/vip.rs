//! `[vip.NAME]`: an address of this machine that follows a service.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use thiserror::Error;

use crate::names::ServiceName;

/// An address that the local member holds while a service routes to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipConfig {
    /// The address.
    pub address: IpAddr,
    /// The length of the prefix of its network, in bits.
    pub prefix: u8,
    /// The name of the network interface that gets the address.
    pub interface: String,
    /// The service that it follows.
    pub service: ServiceName,
}

impl VipConfig {
    /// The longest name of an interface in Linux (`IFNAMSIZ` without the final NUL), in bytes.
    pub const INTERFACE_BYTES_MAX: usize = 15;
}

/// The address with its prefix, as `10.0.0.50/24`.
impl fmt::Display for VipConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Why an address cannot follow a service.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum VipRefusal {
    /// It means all addresses of a machine.
    #[error("it stands for all addresses of a machine")]
    Unspecified,
    /// No other machine can reach it.
    #[error("it is a loopback address, which no other machine reaches")]
    Loopback,
    /// It is a group of machines.
    #[error("it is a multicast address")]
    Multicast,
    /// It is one address per link, and clients would have to name the interface.
    #[error(
        "it is a link-local address, which clients reach only with the name of their interface"
    )]
    LinkLocal,
    /// It is an IPv4 address that was mapped to IPv6.
    #[error("it is an IPv4 address mapped to IPv6")]
    Mapped,
    /// It is the number of the network.
    #[error("it is the network itself, not an address in it")]
    Network,
    /// It reaches all machines of the network.
    #[error("it is the broadcast address of its network")]
    Broadcast,
    /// The prefix is zero or longer than the address.
    #[error("a prefix length is from 1 to {0}")]
    Prefix(u8),
}

impl VipRefusal {
    /// Returns why `address` with a prefix of `prefix` bits cannot follow a service; none if it can.
    pub fn of(address: IpAddr, prefix: u8) -> Option<VipRefusal> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if prefix == 0 || prefix > bits {
            return Some(VipRefusal::Prefix(bits));
        }
        if address.is_unspecified() {
            return Some(VipRefusal::Unspecified);
        }
        if address.is_loopback() {
            return Some(VipRefusal::Loopback);
        }
        if address.is_multicast() {
            return Some(VipRefusal::Multicast);
        }
        match address {
            IpAddr::V4(address) => of_v4(address, prefix),
            IpAddr::V6(address) if address.is_unicast_link_local() => Some(VipRefusal::LinkLocal),
            IpAddr::V6(address) => address.to_ipv4_mapped().map(|_| VipRefusal::Mapped),
        }
    }
}

/// The networks of /31 (RFC 3021) and /32 have neither a number of their own nor a broadcast address.
fn of_v4(address: Ipv4Addr, prefix: u8) -> Option<VipRefusal> {
    if address.is_broadcast() {
        return Some(VipRefusal::Broadcast);
    }
    let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    match address.to_bits() & hosts {
        _ if prefix >= 31 => None,
        0 => Some(VipRefusal::Network),
        host if host == hosts => Some(VipRefusal::Broadcast),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_clients_cannot_use_is_refused_with_the_reason() {
        let of = |address: &str, prefix| VipRefusal::of(address.parse().unwrap(), prefix);
        for (address, prefix, why) in [
            ("10.0.0.0", 24, VipRefusal::Network),
            ("10.0.0.255", 24, VipRefusal::Broadcast),
            ("255.255.255.255", 32, VipRefusal::Broadcast),
            ("127.0.0.5", 8, VipRefusal::Loopback),
            ("::1", 128, VipRefusal::Loopback),
            ("224.0.0.18", 24, VipRefusal::Multicast),
            ("ff02::12", 64, VipRefusal::Multicast),
            ("0.0.0.0", 24, VipRefusal::Unspecified),
            ("::", 64, VipRefusal::Unspecified),
            ("fe80::5", 64, VipRefusal::LinkLocal),
            ("::ffff:10.0.0.5", 128, VipRefusal::Mapped),
            ("10.0.0.5", 0, VipRefusal::Prefix(32)),
            ("10.0.0.5", 33, VipRefusal::Prefix(32)),
            ("fd00::5", 129, VipRefusal::Prefix(128)),
        ] {
            assert_eq!(of(address, prefix), Some(why), "{address}/{prefix}");
        }
        for (address, prefix) in [
            ("10.0.0.50", 24),
            ("10.0.0.0", 31),
            ("10.0.0.255", 32),
            ("10.0.0.255", 16),
            ("fd00::50", 64),
        ] {
            assert_eq!(of(address, prefix), None, "{address}/{prefix}");
        }
    }
}

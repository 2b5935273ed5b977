//! The settings of the status pages: where they are, and who may read them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// The status pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where they listen.
    pub listen: SocketAddr,
    /// The networks whose clients get answers; empty for all.
    pub allow: Vec<Network>,
    /// The names in a Host header that are accepted; empty for all. Addresses always are.
    pub hosts: Vec<String>,
    /// The file with the token of `Authorization: Bearer`.
    pub token_file: Option<PathBuf>,
    /// The file with lines `user:password`.
    pub login_file: Option<PathBuf>,
    /// The other pgsteers, which the page lists.
    pub peers: PeersConfig,
    /// The pages that the settings above protect.
    pub protect: Protect,
    /// The certificate and the key of TLS; none for plain HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// Other pgsteers, and how they are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeersConfig {
    /// Their URLs.
    pub urls: Vec<String>,
    /// The file with the token that is sent to them.
    pub token_file: Option<PathBuf>,
    /// The PEM file of the authorities of their certificates; the default are those of the system.
    pub ca_file: Option<PathBuf>,
}

impl HttpConfig {
    /// The scheme of the addresses of the pages.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// The pages that need an allowed address and a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protect {
    /// Status, history and the page; health checks and metrics are open.
    Pages,
    /// The same and the metrics; health checks are open.
    Metrics,
    /// All.
    All,
}

impl Protect {
    /// The name used in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protect::Pages => "pages",
            Protect::Metrics => "metrics",
            Protect::All => "all",
        }
    }
}

/// A network: an address and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network; none if the prefix is longer than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Network> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= bits).then_some(Network { address, prefix })
    }

    /// The network of this address alone.
    pub fn of(address: IpAddr) -> Network {
        Network { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Returns true if the address is in the network. An IPv4 address that was mapped to IPv6 is
    /// taken for the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = |bits: u8| u32::from(bits - self.prefix);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_the_addresses_with_its_prefix() {
        let network = |address: &str, prefix| Network::new(address.parse().unwrap(), prefix);
        let contains = |network: Option<Network>, address: &str| {
            network.unwrap().contains(address.parse().unwrap())
        };
        assert!(contains(network("10.0.0.0", 8), "10.200.3.4"));
        assert!(!contains(network("10.0.0.0", 8), "11.0.0.1"));
        assert!(contains(network("10.0.0.0", 8), "::ffff:10.1.1.1"));
        assert!(contains(network("0.0.0.0", 0), "203.0.113.9"));
        assert!(!contains(network("0.0.0.0", 0), "fd00::1"));
        assert!(contains(network("fd00::", 8), "fd12::1"));
        assert!(!contains(network("fd00::1", 128), "fd00::2"));
        assert_eq!(network("10.0.0.0", 33), None);
    }
}

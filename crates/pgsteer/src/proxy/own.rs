//! The addresses of the proxy's own listeners. A member with such an address would return every
//! connection to the proxy in a loop.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};

/// The addresses on which the proxy listens.
#[derive(Debug, Default)]
pub struct OwnAddresses(Mutex<Vec<SocketAddr>>);

impl OwnAddresses {
    /// Replaces the addresses.
    pub fn set(&self, listeners: Vec<SocketAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = listeners;
    }

    /// Returns true if a connection to `address` would be accepted by this proxy.
    pub fn contain(&self, address: SocketAddr) -> bool {
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ip = address.ip().to_canonical();
        listeners.iter().filter(|listener| listener.port() == address.port()).any(|listener| {
            let listener = listener.ip().to_canonical();
            listener == ip || (listener.is_unspecified() && is_of_this_machine(ip))
        })
    }

    /// Checks that `address` is not one of them.
    ///
    /// # Errors
    /// An error that names the address.
    pub fn check(&self, address: SocketAddr) -> io::Result<()> {
        if self.contain(address) {
            return Err(io::Error::other(format!(
                "{address} is an address of pgsteer itself; give the member PostgreSQL's address"
            )));
        }
        Ok(())
    }
}

/// Returns true if `ip` is loopback or an address of this machine. Nothing is sent.
fn is_of_this_machine(ip: IpAddr) -> bool {
    if ip.is_loopback() {
        return true;
    }
    if UdpSocket::bind((ip, 0)).is_err() {
        return false;
    }
    // With net.ipv4.ip_nonlocal_bind every address can be bound, also one of another machine.
    !can_bind_any(ip) || source_address(ip).is_ok_and(|source| source == ip)
}

fn can_bind_any(ip: IpAddr) -> bool {
    let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
    let setting = std::fs::read_to_string(format!("/proc/sys/net/{family}/ip_nonlocal_bind"));
    setting.is_ok_and(|value| value.trim() != "0")
}

/// The source address of packets to `ip`.
fn source_address(ip: IpAddr) -> io::Result<IpAddr> {
    const ANY_PORT: u16 = 9;
    let from: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((from, 0))?;
    socket.connect((ip, ANY_PORT))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_by_those_of_this_machine_only() {
        let own = OwnAddresses::default();
        own.set(vec![SocketAddr::from(([0, 0, 0, 0], 5000)), ([10, 0, 0, 9], 5001).into()]);
        for (address, expected) in [
            ("127.0.0.1:5000", true),
            ("127.9.9.9:5000", true),
            ("[::ffff:127.0.0.1]:5000", true),
            ("127.0.0.1:5432", false),
            ("192.0.2.1:5000", false),
            ("10.0.0.9:5001", true),
            ("127.0.0.1:5001", false),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(own.contain(address), expected, "{address}");
        }
    }
}

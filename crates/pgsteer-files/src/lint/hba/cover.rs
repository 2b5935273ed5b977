//! Tests whether one line matches every login that another line matches.

use std::net::IpAddr;

use super::address::{From, bits_of};
use super::entry::Entry;
use super::fields::Item;

/// Returns true if `earlier` matches every login that `later` matches.
pub fn covers(earlier: &Entry, later: &Entry) -> bool {
    covers_origin(earlier, later)
        && databases(&earlier.databases, &later.databases)
        && users(&earlier.users, &later.users)
}

/// Returns true if `earlier` matches every connection that `later` matches, with any login.
pub fn covers_origin(earlier: &Entry, later: &Entry) -> bool {
    kind(&earlier.kind, &later.kind) && from(&earlier.from, &later.from)
}

fn kind(earlier: &str, later: &str) -> bool {
    earlier == later || earlier == "host" && later.starts_with("host")
}

/// `all` matches every database, but not replication.
fn databases(earlier: &[Item], later: &[Item]) -> bool {
    let is_taken = |name: &Item| {
        earlier.contains(name) || !name.is("replication") && earlier.iter().any(|it| it.is("all"))
    };
    later.iter().all(is_taken)
}

fn users(earlier: &[Item], later: &[Item]) -> bool {
    let is_plain = |item: &Item| !item.text.starts_with(['+', '/', '@']);
    let is_same = |name: &Item| earlier.contains(name) && (is_plain(name) || name.is_quoted);
    earlier.iter().any(|it| it.is("all")) || later.iter().all(is_same)
}

fn from(earlier: &From, later: &From) -> bool {
    match (earlier, later) {
        (From::All, later) => *later != From::Local,
        (From::Network(net, bits), From::Network(address, later_bits)) => {
            bits <= later_bits && contains(*net, *bits, *address)
        }
        (earlier, later) => earlier == later,
    }
}

fn contains(net: IpAddr, bits: u8, address: IpAddr) -> bool {
    let (net, address, all) = match (net, address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => {
            (u128::from(net.to_bits()), u128::from(address.to_bits()), 32)
        }
        (IpAddr::V6(net), IpAddr::V6(address)) => (net.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    let host_bits = u32::from(all - bits.min(all));
    (net ^ address).checked_shr(host_bits).unwrap_or(0) == 0
}

/// Returns true for one address, or for this machine.
pub fn is_one_host(from: &From) -> bool {
    match from {
        From::Local | From::SameHost => true,
        From::All | From::SameNet => false,
        From::Network(address, bits) => *bits == bits_of(*address) || is_loopback(from),
        From::Name(name) => !name.starts_with('.'),
        From::Other(_) => false,
    }
}

/// Returns true for this machine.
pub fn is_loopback(from: &From) -> bool {
    match from {
        From::Local | From::SameHost => true,
        From::Network(IpAddr::V4(address), bits) => address.is_loopback() && *bits >= 8,
        From::Network(IpAddr::V6(address), bits) => address.is_loopback() && *bits == 128,
        From::Name(name) => name == "localhost",
        From::All | From::SameNet | From::Other(_) => false,
    }
}

/// Returns true for all addresses of at least one family.
pub fn is_everybody(from: &From) -> bool {
    matches!(from, From::All | From::Network(_, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_addresses() {
        let contains = |net: &str, bits, address: &str| {
            contains(net.parse().unwrap(), bits, address.parse().unwrap())
        };
        assert!(contains("10.0.0.0", 8, "10.255.0.1"));
        assert!(!contains("10.0.0.0", 8, "11.0.0.1"));
        assert!(contains("0.0.0.0", 0, "11.0.0.1"));
        assert!(!contains("0.0.0.0", 0, "fd00::1"));
        assert!(contains("::", 0, "fd00::1"));
        assert!(contains("fd00::1", 128, "fd00::1") && !contains("fd00::1", 128, "fd00::2"));
    }
}

//! The addresses of this machine, as the kernel has them: which of them pgsteer added, and how it adds one.
//!
//! Every address that pgsteer adds has a mark, which the kernel keeps with the address and deletes with
//! it. A later pgsteer and `pgsteer vip release` recognise an address by this mark, and pgsteer removes no
//! address without it. Addresses of other programs do not have it.
//!
//! - IPv4: the metric [`METRIC`] and a prefix of 32 bits. The metric of an address is the metric of the route
//!   that the kernel makes for its prefix; it makes none for 32 bits. Linux 4.18 introduced the metric.
//! - IPv6: the protocol number [`PROTOCOL`] (`IFA_PROTO`), which Linux 5.18 introduced. On an older
//!   kernel, which shows no such number for any address, the mark is the form of the address: permanent,
//!   deprecated, and without duplicate address detection.
//!
//! An IPv4 address of pgsteer has a prefix of 32 bits so that it shares no subnet with other addresses.
//! Linux deletes all other addresses of a subnet with its first one, unless `promote_secondaries` is set.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol,
    AddressScope, CacheInfo,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use pgsteer_core::settings::VipConfig;
use rustix::io::Errno;

use super::netlink::{list, request};

/// The metric of the IPv4 addresses and routes of pgsteer: `pgst` in ASCII.
const METRIC: u32 = 0x7067_7374;

/// The protocol number of the IPv6 addresses and of the routes of pgsteer.
const PROTOCOL: u8 = 112;

/// An infinite lifetime of an address.
const FOREVER: u32 = u32::MAX;

/// An address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The address.
    pub address: IpAddr,
    /// Its prefix length in bits.
    pub prefix: u8,
    /// The index of the interface.
    pub index: u32,
    /// pgsteer added it: this process or an earlier one.
    pub is_ours: bool,
}

/// Returns all addresses of this machine.
///
/// # Errors
/// The kernel does not answer, or refuses.
pub fn addresses() -> io::Result<Vec<Found>> {
    let entries = list(&RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let messages = entries.into_iter().filter_map(|entry| match entry {
        RouteNetlinkMessage::NewAddress(message) => Some(message),
        _ => None,
    });
    Ok(read(&messages.collect::<Vec<_>>()))
}

/// Adds the address to the interface, and returns it as it is there.
///
/// # Errors
/// The kernel refuses, mostly for want of CAP_NET_ADMIN; another program has added the address; or the
/// kernel keeps no mark. An address of pgsteer that is there already is no error.
pub fn add(vip: &VipConfig, index: u32) -> io::Result<Found> {
    let message = message(vip, index);
    let (address, prefix) = (vip.address, message.header.prefix_len);
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let is_new = match request(RouteNetlinkMessage::NewAddress(message), flags) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    let ours = Found { address, prefix, index, is_ours: true };
    match (addresses(), is_new) {
        (Ok(all), _) if all.contains(&ours) => Ok(ours),
        // The address is there; the next look shows whether it has the mark.
        (Err(_), true) => Ok(ours),
        (Err(error), false) => Err(error),
        (Ok(_), true) => {
            remove(&ours)?;
            let why = "this kernel keeps no mark with an address; [vip] requires Linux 4.18";
            Err(io::Error::new(io::ErrorKind::Unsupported, why))
        }
        (Ok(_), false) => {
            let why = "another program has added it at the same moment";
            Err(io::Error::new(io::ErrorKind::AlreadyExists, why))
        }
    }
}

/// Removes an address. The kernel removes the routes with this source address as well.
///
/// # Errors
/// The kernel refuses, mostly for want of CAP_NET_ADMIN. An address or an interface that is not there is no
/// error.
pub fn remove(found: &Found) -> io::Result<()> {
    let mut message = head(found.address, found.prefix, found.index);
    message.attributes.push(AddressAttribute::Local(found.address));
    message.attributes.push(AddressAttribute::Address(found.address));
    let gone = [Errno::ADDRNOTAVAIL, Errno::NODEV].map(|errno| Some(errno.raw_os_error()));
    match request(RouteNetlinkMessage::DelAddress(message), NLM_F_ACK) {
        Err(error) if gone.contains(&error.raw_os_error()) => Ok(()),
        done => done,
    }
}

/// Returns true if the interface has no other address in a network with the address. pgsteer then
/// adds a route to the network of the address, because the machine has none.
pub fn needs_route(vip: &VipConfig, index: u32, addresses: &[Found]) -> bool {
    let IpAddr::V4(own) = vip.address else { return false };
    let reaches = |found: &Found| match found.address {
        IpAddr::V4(address) => network(address, found.prefix) == network(own, found.prefix),
        IpAddr::V6(_) => false,
    };
    let mut others = addresses.iter().filter(|found| found.index == index && !found.is_ours);
    vip.prefix < 32 && !others.any(|found| found.prefix < 32 && reaches(found))
}

/// Adds the route to the network of an IPv4 address, as the kernel does for an address with the prefix of
/// the network. Any other route to this network has a lower metric and is preferred.
///
/// # Errors
/// The kernel refuses, mostly because the interface is down. A route that is there already is no error.
pub fn add_route(vip: &VipConfig, index: u32) -> io::Result<()> {
    let IpAddr::V4(address) = vip.address else { return Ok(()) };
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = vip.prefix;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.scope = RouteScope::Link;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet(network(address, vip.prefix))),
        RouteAttribute::PrefSource(RouteAddress::Inet(address)),
        RouteAttribute::Oif(index),
        RouteAttribute::Priority(METRIC),
    ];
    // Appended, because each address of pgsteer in the network has such a route.
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND;
    match request(RouteNetlinkMessage::NewRoute(message), flags) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

fn network(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

/// The kernel's form of an address that pgsteer adds.
///
/// IPv6 duplicate address detection is off, because it would delay the address by a second or more;
/// the announcer detects duplicates. The preferred lifetime of an IPv6 address is zero, so that no
/// program of this machine uses it as the source of its own connections. The IPv6 route to the network is
/// the kernel's usual one, because a machine may have no other address in that network.
fn message(vip: &VipConfig, index: u32) -> AddressMessage {
    let address = vip.address;
    let prefix = if address.is_ipv4() { 32 } else { vip.prefix };
    let mut message = head(address, prefix, index);
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    if address.is_ipv4() {
        message.attributes.push(AddressAttribute::RoutePriority(METRIC));
    } else {
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        let mut lifetimes = CacheInfo::default();
        lifetimes.ifa_preferred = 0;
        lifetimes.ifa_valid = FOREVER;
        message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
        message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)));
    }
    message
}

fn head(address: IpAddr, prefix: u8, index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family =
        if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = prefix;
    message.header.index = index;
    message
}

fn read(messages: &[AddressMessage]) -> Vec<Found> {
    let shows_protocols = messages.iter().any(|message| protocol(message).is_some());
    let found = messages.iter().filter_map(|message| {
        Some(Found {
            address: address(message)?,
            prefix: message.header.prefix_len,
            index: message.header.index,
            is_ours: has_mark(message, shows_protocols),
        })
    });
    found.collect()
}

fn address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    // IPv6 addresses without a peer have this one alone.
    let plain = || {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    };
    local.or_else(plain)
}

fn protocol(message: &AddressMessage) -> Option<AddressProtocol> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Protocol(protocol) => Some(*protocol),
        _ => None,
    })
}

/// Returns true if pgsteer added the address. `shows_protocols`: the kernel knows protocol numbers; its own
/// IPv6 addresses have one.
fn has_mark(message: &AddressMessage, shows_protocols: bool) -> bool {
    match (message.header.family, shows_protocols) {
        (AddressFamily::Inet, _) => {
            let metric = AddressAttribute::RoutePriority(METRIC);
            message.header.prefix_len == 32 && message.attributes.contains(&metric)
        }
        (AddressFamily::Inet6, true) => protocol(message) == Some(AddressProtocol::Other(PROTOCOL)),
        (AddressFamily::Inet6, false) => has_form(message),
        _ => false,
    }
}

/// Returns true if an IPv6 address has the form in which pgsteer adds it.
fn has_form(message: &AddressMessage) -> bool {
    let form = AddressFlags::Nodad | AddressFlags::Deprecated | AddressFlags::Permanent;
    let is_of_form = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Flags(flags) => flags.contains(form),
        _ => false,
    };
    message.attributes.iter().any(is_of_form)
}

#[cfg(test)]
mod tests {
    use pgsteer_core::names::ServiceName;

    use super::*;

    fn vip(text: &str) -> VipConfig {
        let (address, prefix) = text.split_once('/').unwrap();
        VipConfig {
            address: address.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
            interface: "eth0".to_owned(),
            service: ServiceName::new("write").unwrap(),
        }
    }

    fn is_ours(messages: &[AddressMessage]) -> Vec<bool> {
        read(messages).iter().map(|found| found.is_ours).collect()
    }

    #[test]
    fn an_address_has_the_mark_of_pgsteer_or_belongs_to_another_program() {
        let own = message(&vip("10.0.0.50/24"), 2);
        assert_eq!(own.header.prefix_len, 32, "it shares no subnet");
        let mut other = own.clone();
        other.attributes.retain(|it| !matches!(it, AddressAttribute::RoutePriority(_)));
        let mut wide = own.clone();
        wide.header.prefix_len = 24;
        assert_eq!(is_ours(&[own, other, wide]), [true, false, false]);
    }

    #[test]
    fn an_ipv6_address_is_recognised_by_its_number_and_on_an_old_kernel_by_its_form() {
        let own = message(&vip("fd00::50/64"), 2);
        // The form as an old kernel shows it.
        let mut old = own.clone();
        old.attributes.retain(|it| !matches!(it, AddressAttribute::Protocol(_)));
        let flags = AddressFlags::Nodad | AddressFlags::Deprecated | AddressFlags::Permanent;
        old.attributes.push(AddressAttribute::Flags(flags));
        let mut plain = message(&vip("fd00::1/64"), 2);
        plain.attributes.retain(|it| !matches!(it, AddressAttribute::Protocol(_)));
        assert_eq!(is_ours(&[own, old.clone(), plain.clone()]), [true, false, false]);
        assert_eq!(is_ours(&[old, plain]), [true, false]);
    }

    #[test]
    fn a_route_is_needed_where_no_other_address_is_in_the_network() {
        let found = |text: &str, index, is_ours| {
            let VipConfig { address, prefix, .. } = vip(text);
            Found { address, prefix, index, is_ours }
        };
        let needs = |others: &[Found]| needs_route(&vip("10.0.0.50/24"), 2, others);
        assert!(needs(&[]));
        assert!(!needs(&[found("10.0.0.11/24", 2, false)]));
        assert!(!needs(&[found("10.0.7.11/16", 2, false)]));
        assert!(needs(&[found("10.0.0.11/24", 3, false)]), "another interface");
        assert!(needs(&[found("10.0.1.11/24", 2, false)]), "another network");
        assert!(needs(&[found("10.0.0.51/32", 2, true), found("10.0.0.9/32", 2, false)]));
        assert!(!needs_route(&vip("10.0.0.50/32"), 2, &[]), "no network is known");
        assert!(!needs_route(&vip("fd00::50/64"), 2, &[]), "the kernel makes the route");
    }
}

//! The network interface of an address: its index and its hardware address.

use std::io;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::LinkAddr;

/// The hardware type of Ethernet in Linux (`ARPHRD_ETHER`).
const ETHERNET: u16 = 1;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// An interface of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its address; none if it is not of Ethernet, where nothing can be announced.
    pub mac: Option<Mac>,
    /// Its form for packet sockets.
    pub link: LinkAddr,
}

/// Returns the interface `name`; none if there is none.
///
/// # Errors
/// The kernel refuses the list of interfaces.
pub fn find(name: &str) -> io::Result<Option<Interface>> {
    let of_name = |entry: &nix::ifaddrs::InterfaceAddress| entry.interface_name == name;
    let found = getifaddrs()?.filter(of_name).find_map(|entry| {
        let link = *entry.address?.as_link_addr()?;
        let index = u32::try_from(link.ifindex()).ok()?;
        let is_ethernet = link.hatype() == ETHERNET && link.halen() == 6;
        Some(Interface { index, mac: link.addr().filter(|_| is_ethernet), link })
    });
    Ok(found)
}

/// Returns the name of the interface with this index.
pub fn name_of(index: u32) -> Option<String> {
    getifaddrs().ok()?.find_map(|entry| {
        let link = *entry.address?.as_link_addr()?;
        (u32::try_from(link.ifindex()) == Ok(index)).then_some(entry.interface_name)
    })
}

/// Returns the usual text of an Ethernet address.
pub fn text(mac: Mac) -> String {
    let octets: Vec<String> = mac.iter().map(|octet| format!("{octet:02x}")).collect();
    octets.join(":")
}

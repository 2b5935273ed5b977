//! The network interface of an address: its index and its hardware address.

use std::io;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{if_indextoname, if_nametoindex};
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

/// Returns the interface `name`; none if there is none. The C library waits for the kernel's list without a
/// time limit.
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

/// Returns the index of the interface `name`; none if there is none. It does not wait for the kernel's lock
/// of the network settings.
///
/// # Errors
/// The kernel refuses.
pub fn index_of(name: &str) -> io::Result<Option<u32>> {
    match if_nametoindex(name) {
        Ok(index) => Ok(Some(index)),
        Err(Errno::ENODEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns the name of the interface with this index, or the index if it has none.
pub fn name_of(index: u32) -> String {
    let name = if_indextoname(index).ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| format!("interface {index}"))
}

/// Returns the usual text of an Ethernet address.
pub fn text(mac: Mac) -> String {
    let octets: Vec<String> = mac.iter().map(|octet| format!("{octet:02x}")).collect();
    octets.join(":")
}

//! The announcer of one address: sends announcements and probes, and reads who else has the address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, eth, recv, send, socket_with,
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::interface::{Interface, Mac};
use super::{arp, ndp};

/// The maximum number of packets that are read at once. The rest waits for the next look, or is
/// dropped by the kernel.
const PACKETS_MAX: usize = 256;

/// The sockets of one address on one interface.
#[derive(Debug)]
pub struct Announcer {
    mac: Mac,
    interface: Interface,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Arp { socket: OwnedFd, address: Ipv4Addr },
    Ndp { socket: Socket, address: Ipv6Addr },
}

impl Announcer {
    /// Opens the sockets; none if the interface is not of Ethernet.
    ///
    /// # Errors
    /// The kernel refuses, mostly for want of CAP_NET_RAW.
    pub fn open(
        address: IpAddr,
        name: &str,
        interface: Interface,
    ) -> io::Result<Option<Announcer>> {
        let Some(mac) = interface.mac else { return Ok(None) };
        let kind = match address {
            IpAddr::V4(address) => Kind::Arp { socket: packet_socket(&interface)?, address },
            IpAddr::V6(address) => Kind::Ndp { socket: icmp_socket(name, &interface)?, address },
        };
        Ok(Some(Announcer { mac, interface, kind }))
    }

    /// The interface on which it was opened.
    pub fn interface(&self) -> Interface {
        self.interface
    }

    /// The hardware address of this machine on the interface.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Asks whether another machine has the address.
    ///
    /// # Errors
    /// The kernel refuses to send, for example because the interface is down.
    pub fn ask(&self) -> io::Result<()> {
        match &self.kind {
            Kind::Arp { socket, address } => {
                send(socket, &arp::probe(self.mac, *address), SendFlags::empty())?;
            }
            Kind::Ndp { socket, address } => {
                let probe = ndp::probe(self.mac, *address);
                socket.send_to(&probe, &self.to(ndp::solicited_node(*address)).into())?;
            }
        }
        Ok(())
    }

    /// Announces the address, and asks whether another machine has it.
    ///
    /// # Errors
    /// The kernel refuses to send, for example because the interface is down.
    pub fn announce(&self) -> io::Result<()> {
        match &self.kind {
            Kind::Arp { socket, address } => {
                for frame in arp::announcement(self.mac, *address) {
                    send(socket, &frame, SendFlags::empty())?;
                }
            }
            Kind::Ndp { socket, address } => {
                let announcement = ndp::announcement(self.mac, *address);
                socket.send_to(&announcement, &self.to(ndp::ALL_NODES).into())?;
            }
        }
        self.ask()
    }

    fn to(&self, group: Ipv6Addr) -> SocketAddrV6 {
        SocketAddrV6::new(group, 0, 0, self.interface.index)
    }

    /// Reads the packets that have arrived. Returns a machine that claims the address, if there is
    /// one.
    pub fn rival(&self) -> Option<Mac> {
        let mut rival = None;
        for _ in 0..PACKETS_MAX {
            match self.claimant() {
                Ok(Some(mac)) if mac != self.mac => rival = Some(mac),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nothing has arrived, or the interface is down.
                Err(_) => break,
            }
        }
        rival
    }

    /// Reads one packet. Returns the machine that claims the address in it.
    fn claimant(&self) -> io::Result<Option<Mac>> {
        match &self.kind {
            Kind::Arp { socket, address } => {
                let mut frame = [0; 64];
                let (_, length) = recv(socket, &mut frame, RecvFlags::empty())?;
                let sender = arp::sender(&frame[..length.min(frame.len())]);
                Ok(sender.filter(|sender| sender.address == *address).map(|sender| sender.mac))
            }
            Kind::Ndp { socket, address } => {
                let mut message = [0; 128];
                let (_, length) = recv(socket, &mut message, RecvFlags::empty())?;
                Ok(ndp::advertiser(&message[..length.min(message.len())], *address))
            }
        }
    }
}

/// A packet socket for ARP, on this interface only.
fn packet_socket(interface: &Interface) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(eth::ARP))?;
    nix::sys::socket::bind(socket.as_raw_fd(), &interface.link).map_err(io::Error::from)?;
    discard(&socket);
    Ok(socket)
}

/// Reads the packets of other interfaces that arrived before the socket was bound to one.
fn discard(socket: &impl AsFd) {
    let mut frame = [0; 64];
    for _ in 0..PACKETS_MAX {
        if let Err(Errno::AGAIN) = recv(socket, &mut frame, RecvFlags::empty()) {
            break;
        }
    }
}

/// The packets that an ICMPv6 socket receives, in the instructions of the kernel's packet filter:
/// neighbour advertisements with the hop limit 255. A router decrements the hop limit, so a packet with 255
/// is from this network (RFC 4861, 7.1.2).
fn advertisements_of_this_network() -> [SockFilter; 6] {
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// Where the IPv6 header begins (`SKF_NET_OFF`); other offsets count from the ICMPv6 header.
    const NETWORK_HEADER: u32 = 0xfff0_0000;
    const HOP_LIMIT: u32 = 7;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, NETWORK_HEADER + HOP_LIMIT),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, 255),
        SockFilter::new(LOAD_BYTE, 0, 0, 0),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, u32::from(ndp::ADVERTISEMENT)),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// An ICMPv6 socket on this interface only. Neighbour discovery requires the hop limit 255.
fn icmp_socket(name: &str, interface: &Interface) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_nonblocking(true)?;
    socket.attach_filter(&advertisements_of_this_network())?;
    socket.bind_device(Some(name.as_bytes()))?;
    socket.set_multicast_if_v6(interface.index)?;
    socket.set_multicast_hops_v6(255)?;
    socket.set_unicast_hops_v6(255)?;
    socket.set_multicast_loop_v6(false)?;
    discard(&socket);
    Ok(socket)
}

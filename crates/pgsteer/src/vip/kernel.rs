//! The addresses of this machine, through rtnetlink.
//!
//! Each call opens a socket of its own, and waits for the kernel's answer for [`ANSWER_TIMEOUT`] at
//! most: another program may hold the kernel's lock of the network settings.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use pgsteer_core::settings::VipConfig;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};

/// How long the kernel may take for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The size of the buffer for answers, in bytes; the kernel sends at most this much at once.
const ANSWER_BYTES_MAX: usize = 32 * 1024;

/// The maximum number of addresses that are read.
const ADDRESSES_MAX: usize = 16_384;

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
}

/// Returns all addresses of this machine.
///
/// # Errors
/// The kernel does not answer, or refuses.
pub fn addresses() -> io::Result<Vec<Found>> {
    let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let mut found = Vec::new();
    request(message, NLM_F_DUMP, |answer| {
        if let RouteNetlinkMessage::NewAddress(message) = answer
            && found.len() < ADDRESSES_MAX
        {
            found.extend(read(&message));
        }
    })?;
    Ok(found)
}

/// Adds the address to the interface.
///
/// # Errors
/// The kernel refuses, mostly for want of CAP_NET_ADMIN. An address that is there already is no
/// error.
pub fn add(vip: &VipConfig, index: u32) -> io::Result<()> {
    let message = RouteNetlinkMessage::NewAddress(message(vip.address, vip.prefix, index));
    match request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, |_| {}) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// Removes an address.
///
/// # Errors
/// The kernel refuses, mostly for want of CAP_NET_ADMIN. An address that is not there is no error.
pub fn remove(found: &Found) -> io::Result<()> {
    let message = message(found.address, found.prefix, found.index);
    match request(RouteNetlinkMessage::DelAddress(message), NLM_F_ACK, |_| {}) {
        Err(error) if error.raw_os_error() == Some(Errno::ADDRNOTAVAIL.raw_os_error()) => Ok(()),
        done => done,
    }
}

/// The kernel's form of an address.
///
/// IPv6 duplicate address detection is off, because it would delay the address by a second or more;
/// the announcer detects duplicates. The preferred lifetime of an IPv6 address is zero, so that no
/// program of this machine uses it as the source of its own connections. IPv4 needs neither: there the
/// kernel prefers the interface's first address. The route to the network is the kernel's usual one,
/// because a machine may have no other address in that network.
fn message(address: IpAddr, prefix: u8, index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    match address {
        IpAddr::V4(_) => message.header.family = AddressFamily::Inet,
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            let mut lifetimes = CacheInfo::default();
            lifetimes.ifa_preferred = 0;
            lifetimes.ifa_valid = FOREVER;
            message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
        }
    }
    message
}

fn read(message: &AddressMessage) -> Option<Found> {
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
    let address = local.or_else(plain)?;
    Some(Found { address, prefix: message.header.prefix_len, index: message.header.index })
}

/// Sends a request and reads the answers until the kernel acknowledges it.
fn request(
    message: RouteNetlinkMessage,
    flags: u16,
    mut on_answer: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    let socket = open()?;
    let mut packet = NetlinkMessage::from(message);
    packet.header.flags = NLM_F_REQUEST | flags;
    packet.header.sequence_number = 1;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    send(&socket, &bytes, SendFlags::empty())?;
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    loop {
        let received = match recv(&socket, &mut buffer, RecvFlags::empty()) {
            Ok((_, received)) => received.min(buffer.len()),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => {
                let why = "the kernel does not answer a request about addresses within 2 s";
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            Err(error) => return Err(error.into()),
        };
        let mut rest = &buffer[..received];
        while !rest.is_empty() {
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest);
            let answer = answer.map_err(|error| io::Error::other(error.to_string()))?;
            let length = usize::try_from(answer.header.length).unwrap_or(usize::MAX);
            match answer.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(answer) => on_answer(answer),
                _ => {}
            }
            // Each message begins at a multiple of four bytes.
            rest = rest.get(length.max(1).next_multiple_of(4)..).unwrap_or_default();
        }
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    let socket = socket_with(
        rustix::net::AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // Protocol 0 is NETLINK_ROUTE.
        None,
    )?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
    Ok(socket)
}
